"""Vindexes by the name that a vschema gives them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from homeworld.model.errors import InvalidError
from homeworld.model.vindexes import functions
from homeworld.model.vindexes.base import Hasher, UnplaceableError, Value, Vindex, as_uint64

_KEYSPACE_ID_BYTES = 8

_SINGLE: dict[str, Hasher] = {
    "binary": functions.binary,
    "binary_md5": functions.binary_md5,
    "hash": functions.hash_,
    "null": functions.null,
    "numeric": functions.numeric,
    "reverse_bits": functions.reverse_bits,
    "unicode_loose_md5": functions.unicode_loose_md5,
    "unicode_loose_xxhash": functions.unicode_loose_xxhash,
    "xxhash": functions.xxhash,
}

# Vindexes of Vitess that this engine knows of and does not have; named so that the message can say so.
NOT_OFFERED = frozenset(
    {
        "cfc",
        "consistent_lookup",
        "consistent_lookup_unique",
        "lookup",
        "lookup_hash",
        "lookup_hash_unique",
        "lookup_unicodeloosemd5_hash",
        "lookup_unicodeloosemd5_hash_unique",
        "lookup_unique",
        "numeric_static_map",
        "region_json",
    }
)


def _only(parts: Sequence[bytes]) -> bytes:
    return parts[0]


def _single(name: str) -> Callable[[Mapping[str, str]], Vindex]:
    def make(_params: Mapping[str, str]) -> Vindex:
        # Vitess ignores parameters that a function does not know.
        return Vindex(name, 1, unique=True, hashers=(_SINGLE[name],), join=_only)

    return make


def _positive(params: Mapping[str, str], name: str, vindex: str) -> int:
    text = params.get(name, "")
    if not text.isdecimal() or int(text) == 0:
        raise InvalidError(f"vindex {vindex} needs the parameter {name} as a positive number, not {text!r}")
    return int(text)


def _column_bytes(params: Mapping[str, str], count: int) -> tuple[int, ...]:
    """How many bytes of the keyspace id each column fills: as told, the rest shared from left to right."""
    told: list[int | None] = [None] * count
    if text := params.get("column_bytes", ""):
        parts = text.split(",")
        if len(parts) > count:
            raise InvalidError("multicol: column_bytes names more columns than column_count")
        for at, part in enumerate(parts):
            if not part.strip():
                continue
            if not part.strip().isdecimal() or not 0 < int(part) <= _KEYSPACE_ID_BYTES:
                raise InvalidError(f"multicol: column_bytes has {part!r}; expected numbers from 1 to 8")
            told[at] = int(part)
    left = _KEYSPACE_ID_BYTES - sum(width for width in told if width is not None)
    open_columns = told.count(None)
    if left < 0 or open_columns > left:
        raise InvalidError("multicol: the columns need more than the 8 bytes of a keyspace id")
    widths: list[int] = []
    for width in told:
        share = width
        if share is None:
            share = left // open_columns
            left -= share
            open_columns -= 1
        widths.append(share)
    return tuple(widths)


def _multicol(params: Mapping[str, str]) -> Vindex:
    count = _positive(params, "column_count", "multicol")
    if count > _KEYSPACE_ID_BYTES:
        raise InvalidError("multicol: column_count is at most 8")
    widths = _column_bytes(params, count)
    names = [name.strip() for name in params.get("column_vindex", "").split(",")]
    if len(names) > count:
        raise InvalidError("multicol: column_vindex names more columns than column_count")
    names += [""] * (count - len(names))
    hashers: list[Hasher] = []
    for name in names:
        if (name or "hash") not in _SINGLE:
            raise InvalidError(f"multicol: {name!r} is not a vindex of one column")
        hashers.append(_SINGLE[name or "hash"])

    def join(parts: Sequence[bytes]) -> bytes:
        # A short part is filled up with zeros only when another column follows it.
        padded = [part[:width].ljust(width, b"\0") for part, width in zip(parts, widths, strict=True)]
        return b"".join(padded[:-1]) + parts[-1][: widths[-1]]

    return Vindex("multicol", count, unique=True, hashers=tuple(hashers), join=join)


def _region_experimental(params: Mapping[str, str]) -> Vindex:
    text = params.get("region_bytes", "")
    if text not in {"1", "2"}:
        raise InvalidError("region_experimental needs the parameter region_bytes as 1 or 2")
    width = int(text)

    def region(value: Value) -> bytes:
        number = as_uint64(value, "region_experimental")
        if number >= 1 << 8 * width:
            raise UnplaceableError(f"region {number} does not fit into {width} bytes")
        return number.to_bytes(width, "big")

    def rest(value: Value) -> bytes:
        return functions.hash_(as_uint64(value, "region_experimental"))

    return Vindex("region_experimental", 2, unique=True, hashers=(region, rest), join=b"".join)


_MAKERS: dict[str, Callable[[Mapping[str, str]], Vindex]] = {
    **{name: _single(name) for name in _SINGLE},
    "multicol": _multicol,
    "region_experimental": _region_experimental,
}

VINDEX_TYPES: tuple[str, ...] = tuple(sorted(_MAKERS))


def make_vindex(type_: str, params: Mapping[str, str]) -> Vindex:
    """The vindex function of that registered name.

    :param params: the vindex's own parameters as the vschema has them.
    :raises InvalidError: unknown name, or parameters that do not fit it.
    """
    maker = _MAKERS.get(type_)
    if maker is None:
        if type_ in NOT_OFFERED:
            raise InvalidError(f"vindex type {type_!r} is not offered; use one of {', '.join(VINDEX_TYPES)}")
        raise InvalidError(f"unknown vindex type {type_!r}; expected one of {', '.join(VINDEX_TYPES)}")
    return maker(params)
