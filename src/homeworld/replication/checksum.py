"""One row as a text that says all of it, and sums over a chunk's rows that servers can compute: SQL, pure.

The text is injective: every value is either of a form that cannot contain a comma or is preceded by its
length, but for one that ends the text; NULL differs from everything, and text goes in as its stored bytes,
because one part of the text is binary and then servers convert none of the others. Values that may be huge
go in as their own hash, so that no text outgrows max_allowed_packet.

How rows are summed depends on what all servers of a comparison have (:class:`Sum`). Where a CRC takes part,
it is never added up alone: CRCs are linear, so that values which changed places between rows would cancel.
The product of two with different polynomials is not, and the two together are the CRC of 64 bits whose
polynomial is the product of theirs, so that any two texts which differ within 64 bits have different pairs;
two pairs have the same product with a chance of about 2**-58.

Invariant: two rows of the same shape have the same text only if each column is stored the same.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum

from homeworld.model.names import quote
from homeworld.model.tables import Column, Table
from homeworld.replication.json_types import types_expression

_HUGE = frozenset({"mediumtext", "longtext", "mediumblob", "longblob"})
_LENGTHY = frozenset({"char", "varchar", "tinytext", "text", "binary", "varbinary", "tinyblob", "blob"})
_OPAQUE = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
) | frozenset({"multipolygon", "geometrycollection", "geomcollection", "vector"})

# COLLATE, because a column's character set is stronger than that of a plain literal, even a binary one, and
# would have the literals converted to it; an explicit one is stronger than a column's.
_START, _COLON = (f"_binary'{text}' COLLATE `binary`" for text in ("", ":"))


def _value(column: Column) -> str:
    name = quote(column.name)
    if column.type == "json":
        # MySQL's, which has types that its text does not tell.
        return f"SHA2({name},256),SHA2({types_expression(column)},256)"
    if column.type in _HUGE:
        return f"SHA2({name},256)"
    if column.type in _OPAQUE:
        return f"SHA2(HEX({name}),256)"
    if column.type in _LENGTHY:
        return f"LENGTH({name}),{_COLON},{name}"
    if column.type in {"enum", "set"}:
        return f"{name}+0,{_COLON},LENGTH({name}),{_COLON},{name}"
    if column.type == "bit":
        return f"{name}+0"
    if column.type == "float":
        # As it is stored; a DOUBLE that is no column is cut to 22 characters in a CONCAT of MySQL's, which
        # are more than tell two FLOATs apart.
        return f"CAST({name} AS DOUBLE)"
    if column.type == "double" and "(" in column.column_type:
        return f"{name},{_COLON},CAST({name} AS DOUBLE)"  # printed with so many decimals, it may hold more
    return name


def _part(column: Column) -> str:
    value = _value(column)
    return f"IFNULL(CONCAT({value}),'N')" if column.nullable else value


def row_text(table: Table, also: Collection[str] = ()) -> str:
    """The SQL expression of a row's text.

    :param also: generated columns that go in; the rest follow from the other columns and are left out.
    """
    columns = [column for column in table.columns if not column.generated or column.name in also]
    last = next((each for each in columns if each.type in _LENGTHY and not each.nullable), None)
    parts = [_part(column) for column in columns if column is not last]
    # Nothing comes after it: its length needs no telling, which is one number less to print for each row.
    parts += [quote(last.name)] if last is not None else []
    text = ",',',".join(parts)
    return f"CONCAT({_START},{text})"


def row_hash(table: Table, also: Collection[str] = ()) -> str:
    """The SQL expression of a row's SHA-256 in hexadecimal digits; ``also`` as in :func:`row_text`."""
    return f"SHA2({row_text(table, also)},256)"


class Sum(Enum):
    """How the rows of a chunk become one number: what all servers of a comparison must have alike."""

    SHA = "all 256 bits"
    """XOR of the rows' SHA-256: MySQL, which has XOR of bytes."""
    SHORT_SHA = "64 bits"
    """XOR of 64 bits of it: MariaDB, which has XOR of integers only."""
    CRCS = "two CRCs"
    """XOR of the products of two CRCs: MariaDB from 10.8, for two thirds of the CPU time."""

    def expression(self, table: Table, also: Collection[str] = ()) -> str:
        """The aggregate in SQL; ``also`` as in :func:`row_text`."""
        if self is Sum.SHA:
            return f"BIT_XOR(UNHEX({row_hash(table, also)}))"
        if self is Sum.SHORT_SHA:
            return f"BIT_XOR(CAST(CONV(LEFT({row_hash(table, also)},16),16,10) AS UNSIGNED))"
        text = row_text(table, also)
        return f"BIT_XOR(CRC32({text})*CRC32C({text}))"

    def number(self, answered: bytes | None) -> int:
        """The number that the aggregate gave."""
        if not answered:
            return 0
        return int.from_bytes(answered, "big") if self is Sum.SHA else int(answered)
