"""What the preconditions say of a move between test servers: the real rules on what is there, no store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from homeworld.model.movers import Placement
from homeworld.model.topology import BackendRole, ShardPlace
from homeworld.model.vschema import parse
from homeworld.workflows.move_tables.preconditions import judge
from homeworld.workflows.move_tables.preconditions.reader import read_server, read_shard
from homeworld.workflows.move_tables.preconditions.world import KeyspaceFacts, World
from tests.support.moves import Move


def reasons(move: Move, placements: Sequence[Placement], *, lasting: bool = False) -> tuple[str, ...]:
    """Every reason against moving these tables, all rules asked."""
    return judge(world_of(move, placements), lasting=lasting)


def world_of(move: Move, placements: Sequence[Placement]) -> World:
    """Both sides as the rules see them."""
    names = tuple(placement.table for placement in placements)
    vschema = _vschema(placements)
    source = _keyspace(move, move.sources, names, {})
    target = _keyspace(move, move.targets, names, vschema)
    return World(
        branch="main",
        production=True,
        safe_migrations=True,
        active_workflow=None,
        tables=names,
        source=source,
        target=target,
        globals_=None if source.sharded else replace(source, shards=()),
        vschemas={source.name: source.vschema, target.name: target.vschema},
        servers=tuple(read_server(place) for place in (*move.sources, *move.targets)),
    )


def _vschema(placements: Sequence[Placement]) -> dict[str, Any]:
    tables = {
        placement.table: {
            "column_vindexes": [{"columns": list(placement.vindex_columns), "name": placement.vindex_type}]
        }
        for placement in placements
        if placement.vindex_type
    }
    types = {placement.vindex_type: dict(placement.vindex_params) for placement in placements}
    vindexes = {name: {"type": name, "params": params} for name, params in types.items() if name}
    return {"sharded": True, "vindexes": vindexes, "tables": tables} if tables else {}


def _keyspace(
    move: Move, places: Sequence[ShardPlace], names: Sequence[str], vschema: dict[str, Any]
) -> KeyspaceFacts:
    shards = tuple(
        read_shard(
            move.server_of(place).place(place.keyspace, place.shard, place.schema, BackendRole.OWNER), names
        )
        for place in places
    )
    sharded = len(places) > 1
    return KeyspaceFacts(places[0].keyspace, sharded, ready=True, vschema=parse(vschema), shards=shards)
