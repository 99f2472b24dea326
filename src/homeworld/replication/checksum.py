"""One row as a text that says all of it, and the hash of it that servers can add up: SQL as text, pure.

The text is injective: every value is either of a form that cannot contain a comma or is preceded by its
length, NULL differs from everything, and text goes in as its stored bytes. Values that may be huge go in as
their own hash, so that no text outgrows max_allowed_packet. SHA-256, because CRC32 is linear: two with
different salts say no more than one.

Invariant: two rows of the same shape have the same text only if each column is stored the same.
"""

from __future__ import annotations

from homeworld.model.names import quote
from homeworld.model.tables import Column, Table
from homeworld.model.topology import Flavor

_HUGE = frozenset({"mediumtext", "longtext", "mediumblob", "longblob", "json"})
_LENGTHY = frozenset({"char", "varchar", "tinytext", "text", "binary", "varbinary", "tinyblob", "blob"})
_OPAQUE = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring"}
) | frozenset({"multipolygon", "geometrycollection", "geomcollection", "vector"})


def _value(column: Column) -> str:
    name = quote(column.name)
    if column.type in _HUGE:
        return f"SHA2({name},256)"
    if column.type in _OPAQUE:
        return f"SHA2(HEX({name}),256)"
    if column.type in _LENGTHY:
        return f"LENGTH({name}),':',CAST({name} AS BINARY)"
    if column.type in {"enum", "set"}:
        return f"{name}+0,':',LENGTH({name}),':',CAST({name} AS BINARY)"
    if column.type == "bit":
        return f"{name}+0"
    if column.type in {"float", "double"}:
        return f"CAST({name} AS DOUBLE)"
    return name


def _part(column: Column) -> str:
    value = _value(column)
    return f"IFNULL(CONCAT({value}),'N')" if column.nullable else value


def row_text(table: Table) -> str:
    """The SQL expression of a row's text; generated columns follow from the others and are left out."""
    parts = [_part(column) for column in table.columns if not column.generated]
    return "CONCAT(" + ",',',".join(parts) + ")"


def row_hash(table: Table) -> str:
    """The SQL expression of a row's hash in hexadecimal digits."""
    return f"SHA2({row_text(table)},256)"


def hash_sum(table: Table, flavor: Flavor) -> str:
    """The aggregate over rows' hashes: XOR of all 256 bits on MySQL, of 64 on MariaDB, which has no more."""
    if flavor is Flavor.MYSQL:
        return f"BIT_XOR(UNHEX({row_hash(table)}))"
    return f"BIT_XOR(CAST(CONV(LEFT({row_hash(table)},16),16,10) AS UNSIGNED))"


def sum_value(value: bytes | None, flavor: Flavor) -> int:
    """The number that :func:`hash_sum` gave."""
    if not value:
        return 0
    return int.from_bytes(value, "big") if flavor is Flavor.MYSQL else int(value)
