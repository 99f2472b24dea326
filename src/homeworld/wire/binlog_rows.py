"""Table maps and the heads of row events: which table, which columns, where the rows begin.

The rows themselves are read by code that replication generates for each table; this module tells everything
that such code has to know, and nothing about values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Type
from homeworld.wire.packets import Reader

BLOB_COMPRESSED = 140
VARCHAR_COMPRESSED = 141
"""MariaDB's types of ``COMPRESSED`` columns."""

_TWO_BYTES = frozenset(
    {Type.VARCHAR, Type.BIT, Type.NEWDECIMAL, Type.DECIMAL, Type.VAR_STRING, Type.STRING, Type.ENUM, Type.SET}
    | {VARCHAR_COMPRESSED}
)
_ONE_BYTE = frozenset(
    {Type.FLOAT, Type.DOUBLE, Type.TINY_BLOB, Type.MEDIUM_BLOB, Type.LONG_BLOB, Type.BLOB, Type.GEOMETRY}
    | {Type.JSON, Type.TIMESTAMP2, Type.DATETIME2, Type.TIME2, Type.VECTOR, BLOB_COMPRESSED}
)
_BIG_ENDIAN_META = frozenset({Type.STRING, Type.ENUM, Type.SET, Type.NEWDECIMAL, Type.VAR_STRING})
_NUMERIC = frozenset(
    {Type.TINY, Type.SHORT, Type.INT24, Type.LONG, Type.LONGLONG, Type.NEWDECIMAL, Type.FLOAT, Type.DOUBLE}
    | {Type.YEAR}
)
_SIGNEDNESS, _COLUMN_NAME, _SET_LABELS, _ENUM_LABELS = 1, 4, 5, 6


@dataclass(frozen=True, slots=True)
class MapColumn:
    """One column of a table map.

    :param type: the type with what hides in STRING's metadata undone (ENUM, SET, STRING).
    :param meta: the metadata number; for STRING, ENUM and SET only its length part.
    :param nullable: whether a row may hold NULL here.
    :param unsigned: None where the server did not say.
    :param name: empty where the server did not say.
    :param labels: of ENUM and SET; None where the server did not say.
    """

    type: int
    meta: int
    nullable: bool = True
    unsigned: bool | None = None
    name: str = ""
    labels: tuple[bytes, ...] | None = None


@dataclass(frozen=True, slots=True)
class TableMap:
    """What a table was when the rows that follow were written."""

    schema: str
    table: str
    columns: tuple[MapColumn, ...] = field(repr=False)


def read_table_id(buffer: bytes, start: int) -> int:
    """The id that row events name the table by; the first 6 bytes of TABLE_MAP and row events."""
    return int.from_bytes(buffer[start : start + 6], "little")


def read_table_map(buffer: bytes, start: int, end: int) -> TableMap:
    """TABLE_MAP.

    :raises MalformedPacketError: cut short, or with a column type that is not known.
    """
    reader = Reader(buffer[start + 8 : end])
    schema = reader.take(reader.int(1)).decode("utf-8", "surrogateescape")
    reader.skip(1)
    table = reader.take(reader.int(1)).decode("utf-8", "surrogateescape")
    reader.skip(1)
    types = reader.take(reader.lenenc_int())
    metadata = Reader(reader.lenenc())
    columns = [_undisguise(kind, _meta_of(kind, metadata)) for kind in types]
    nulls = int.from_bytes(reader.take((len(types) + 7) // 8), "little")
    optional: dict[int, bytes] = {}
    while reader.left:
        kind = reader.int(1)
        optional[kind] = reader.lenenc()
    return TableMap(schema, table, tuple(_describe(columns, nulls, optional)))


def _meta_of(kind: int, metadata: Reader) -> int:
    if kind in _TWO_BYTES:
        return int.from_bytes(metadata.take(2), "big" if kind in _BIG_ENDIAN_META else "little")
    return metadata.int(1) if kind in _ONE_BYTE else 0


def _undisguise(kind: int, meta: int) -> tuple[int, int]:
    """CHAR, ENUM and SET all come as STRING; the real type is in the metadata, with two bits of the length
    stored upside down in it.
    """
    if kind not in {Type.STRING, Type.ENUM, Type.SET}:
        return kind, meta
    real, length = meta >> 8, meta & 0xFF
    if real & 0x30 != 0x30:
        return real | 0x30, length | (real & 0x30 ^ 0x30) << 4
    return real or kind, length


def _describe(columns: Sequence[tuple[int, int]], nulls: int, optional: dict[int, bytes]) -> list[MapColumn]:
    signs = iter(_bits(optional[_SIGNEDNESS])) if _SIGNEDNESS in optional else None
    names = iter(_names(optional[_COLUMN_NAME])) if _COLUMN_NAME in optional else None
    enums = iter(_labels(optional[_ENUM_LABELS])) if _ENUM_LABELS in optional else None
    sets = iter(_labels(optional[_SET_LABELS])) if _SET_LABELS in optional else None
    found: list[MapColumn] = []
    try:
        for index, (kind, meta) in enumerate(columns):
            labels = None
            if kind == Type.ENUM and enums is not None:
                labels = next(enums)
            elif kind == Type.SET and sets is not None:
                labels = next(sets)
            unsigned = next(signs) if signs is not None and kind in _NUMERIC else None
            name = next(names) if names is not None else ""
            found.append(MapColumn(kind, meta, bool(nulls >> index & 1), unsigned, name, labels))
    except StopIteration as error:
        raise MalformedPacketError("a table map's metadata does not cover its columns") from error
    return found


def _bits(data: bytes) -> list[bool]:
    return [bool(byte >> bit & 1) for byte in data for bit in range(7, -1, -1)]


def _names(data: bytes) -> list[str]:
    reader = Reader(data)
    names: list[str] = []
    while reader.left:
        names.append(reader.lenenc().decode("utf-8", "surrogateescape"))
    return names


def _labels(data: bytes) -> list[tuple[bytes, ...]]:
    reader = Reader(data)
    found: list[tuple[bytes, ...]] = []
    while reader.left:
        found.append(tuple(reader.lenenc() for _ in range(reader.lenenc_int())))
    return found


_ROWS_V1 = Struct("<IHH")
_ROWS_V2 = Struct("<IHHH")
STATEMENT_END = 1
"""Row event flag: the statement's last."""


def read_rows_head(
    buffer: bytes, start: int, *, extra_head: bool, two_images: bool
) -> tuple[int, int, bool, int]:
    """The head of a row event.

    :param extra_head: version 2, with room for extra data.
    :param two_images: an UPDATE.
    :returns: (number of columns, flags, whether every column is in the images, where the rows begin).
    """
    if extra_head:
        _, _, flags, extra = _ROWS_V2.unpack_from(buffer, start)
        position = start + 8 + extra
    else:
        _, _, flags = _ROWS_V1.unpack_from(buffer, start)
        position = start + 8
    columns = buffer[position]
    position += 1
    if columns >= 0xFB:
        if columns != 0xFC:
            raise MalformedPacketError("a row event has more columns than a table can")
        columns = buffer[position] | buffer[position + 1] << 8
        position += 2
    size = (columns + 7) >> 3
    every = (1 << columns) - 1
    full = int.from_bytes(buffer[position : position + size], "little") & every == every
    position += size
    if two_images:
        full = full and int.from_bytes(buffer[position : position + size], "little") & every == every
        position += size
    return columns, flags, full, position
