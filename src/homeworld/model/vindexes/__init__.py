"""Vitess's vindex functions, bit for bit, and the fast way from a row to its shard."""

from homeworld.model.vindexes.base import UnplaceableError, Value, Vindex
from homeworld.model.vindexes.picker import Row, ShardPicker, check_cover, range_finder, shard_picker
from homeworld.model.vindexes.registry import NOT_OFFERED, VINDEX_TYPES, make_vindex

__all__ = [
    "NOT_OFFERED",
    "VINDEX_TYPES",
    "Row",
    "ShardPicker",
    "UnplaceableError",
    "Value",
    "Vindex",
    "check_cover",
    "make_vindex",
    "range_finder",
    "shard_picker",
]
