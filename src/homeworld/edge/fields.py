"""Columns of a result as Vitess describes them: its types, by their names and numbers, and what else a client
casts values by.

Pure, a table and its look-up. The invariant: every type that a server sends a column of has its Vitess type;
one that is not known is an error and never a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Type
from homeworld.wire.results import ColumnDefinition


class VitessType(IntEnum):
    """Vitess's types by their numbers in its messages; the names are those of their JSON form."""

    NULL_TYPE = 0
    INT8 = 257
    UINT8 = 770
    INT16 = 259
    UINT16 = 772
    INT24 = 261
    UINT24 = 774
    INT32 = 263
    UINT32 = 776
    INT64 = 265
    UINT64 = 778
    FLOAT32 = 1035
    FLOAT64 = 1036
    TIMESTAMP = 2061
    DATE = 2062
    TIME = 2063
    DATETIME = 2064
    YEAR = 785
    DECIMAL = 18
    TEXT = 6163
    BLOB = 10260
    VARCHAR = 6165
    VARBINARY = 10262
    CHAR = 6167
    BINARY = 10264
    BIT = 2073
    ENUM = 2074
    SET = 2075
    TUPLE = 28
    GEOMETRY = 2077
    JSON = 2078
    EXPRESSION = 31
    HEXNUM = 4128
    HEXVAL = 4129
    BITNUM = 4130
    VECTOR = 2083
    RAW = 2084


_V = VitessType
_UNSIGNED = 32
_BINARY = 128
_ENUM = 256
_SET = 2048

_TYPES: dict[int, VitessType] = {
    Type.DECIMAL: _V.DECIMAL,
    Type.TINY: _V.INT8,
    Type.SHORT: _V.INT16,
    Type.LONG: _V.INT32,
    Type.FLOAT: _V.FLOAT32,
    Type.DOUBLE: _V.FLOAT64,
    Type.NULL: _V.NULL_TYPE,
    Type.TIMESTAMP: _V.TIMESTAMP,
    Type.LONGLONG: _V.INT64,
    Type.INT24: _V.INT24,
    Type.DATE: _V.DATE,
    Type.TIME: _V.TIME,
    Type.DATETIME: _V.DATETIME,
    Type.YEAR: _V.YEAR,
    Type.NEWDATE: _V.DATE,
    Type.VARCHAR: _V.VARCHAR,
    Type.BIT: _V.BIT,
    Type.TIMESTAMP2: _V.TIMESTAMP,
    Type.DATETIME2: _V.DATETIME,
    Type.TIME2: _V.TIME,
    Type.VECTOR: _V.VECTOR,
    Type.JSON: _V.JSON,
    Type.NEWDECIMAL: _V.DECIMAL,
    Type.ENUM: _V.ENUM,
    Type.SET: _V.SET,
    Type.TINY_BLOB: _V.TEXT,
    Type.MEDIUM_BLOB: _V.TEXT,
    Type.LONG_BLOB: _V.TEXT,
    Type.BLOB: _V.TEXT,
    Type.VAR_STRING: _V.VARCHAR,
    Type.STRING: _V.CHAR,
    Type.GEOMETRY: _V.GEOMETRY,
}
# By a flag a type becomes another; the first that applies.
_FLAGGED: dict[VitessType, tuple[tuple[int, VitessType], ...]] = {
    _V.INT8: ((_UNSIGNED, _V.UINT8),),
    _V.INT16: ((_UNSIGNED, _V.UINT16),),
    _V.INT24: ((_UNSIGNED, _V.UINT24),),
    _V.INT32: ((_UNSIGNED, _V.UINT32),),
    _V.INT64: ((_UNSIGNED, _V.UINT64),),
    _V.TEXT: ((_BINARY, _V.BLOB),),
    _V.VARCHAR: ((_BINARY, _V.VARBINARY),),
    _V.CHAR: ((_BINARY, _V.BINARY), (_ENUM, _V.ENUM), (_SET, _V.SET)),
}


@dataclass(frozen=True, slots=True)
class Field:
    """A column. ``charset`` is a collation id, 63 for bytes; ``column_type`` is ``COLUMN_TYPE`` of
    information_schema, empty where that is not known; lengths and flags are MySQL's.
    """

    name: str
    type: VitessType
    table: str = ""
    org_table: str = ""
    database: str = ""
    org_name: str = ""
    column_length: int = 0
    charset: int = 0
    decimals: int = 0
    flags: int = 0
    column_type: str = ""


Declared = Callable[[bytes, bytes, bytes], tuple[str, str]]
"""Physical schema, table, column to (keyspace, COLUMN_TYPE), empty where they are not known."""


def type_of(kind: int, flags: int) -> VitessType:
    """Vitess's type of a column.

    :param kind: the protocol's number of it. :param flags: the column definition's.
    :raises MalformedPacketError: no server has such a type.
    """
    found = _TYPES.get(kind)
    if found is None:
        raise MalformedPacketError(f"a column is of type {kind}, which is not known")
    for flag, other in _FLAGGED.get(found, ()):
        if flags & flag:
            return other
    return found


def field_of(column: ColumnDefinition, declared: Declared) -> Field:
    """A column definition as Vitess tells it.

    :raises MalformedPacketError: its type is not known.
    """
    keyspace, column_type = declared(column.schema, column.org_table, column.org_name)
    return Field(
        name=_text(column.name),
        type=type_of(column.type, column.flags),
        table=_text(column.table),
        org_table=_text(column.org_table),
        database=keyspace or _text(column.schema),
        org_name=_text(column.org_name),
        column_length=column.length,
        charset=column.charset,
        decimals=column.decimals,
        flags=column.flags,
        column_type=column_type,
    )


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
