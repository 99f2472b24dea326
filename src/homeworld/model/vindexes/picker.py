"""From a row to its shard, compiled for speed: what the copier and the router call for every row.

Columns are looked at once, when the picker is built; the closure it returns does nothing but hash and look
up. Invariant: the same stored value gives the same shard, whoever asks (copier, binlog applier, router,
verifier), because all of them hand in the text-protocol value of the column as the server stores it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from threading import Lock

import xxhash as _xxhash

from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange
from homeworld.model.tables import Column
from homeworld.model.vindexes.base import UnplaceableError, Value, Vindex
from homeworld.model.vindexes.charsets import to_utf8
from homeworld.model.vindexes.functions import new_des

Row = tuple[bytes | None, ...]
ShardPicker = Callable[[Row], int]

INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "integer", "bigint"})
# Their text is the same for everybody: no time zone, no float rounding, no ordinal behind a label.
_EXACT = INTEGERS | {
    "binary",
    "char",
    "date",
    "datetime",
    "decimal",
    "longtext",
    "mediumtext",
    "text",
    "time",
    "tinytext",
    "uuid",
    "varbinary",
    "varchar",
    "year",
}


def _converter(column: Column) -> Callable[[bytes | None], Value] | None:
    """What turns the text-protocol value into the vindex's value; None where it already is.

    :raises InvalidError: rows cannot be placed by a column of this type or character set.
    """
    if column.type not in _EXACT:
        raise InvalidError(f"column {column.name!r} of type {column.type} cannot be the column of a vindex")
    if column.type in INTEGERS and (not column.unsigned or "zerofill" in column.column_type.lower()):
        return lambda value: None if value is None else int(value)
    if column.charset:
        convert = to_utf8(column.charset)
        if convert is not None:
            return lambda value: None if value is None else convert(value)
    return None


def check_cover(key_ranges: Sequence[KeyRange]) -> None:
    """Hold the ranges to be in order, without gap or overlap, and to cover every keyspace id.

    :raises InvalidError: they do not.
    """
    at = b""
    for number, key_range in enumerate(key_ranges):
        if key_range.start != at or (number and not at):
            break
        at = key_range.end
    else:
        if key_ranges and not at:
            return
    names = ", ".join(key_range.name for key_range in key_ranges)
    raise InvalidError(f"the shards {names} do not cover every keyspace id exactly once")


def range_finder(key_ranges: Sequence[KeyRange]) -> Callable[[bytes], int]:
    """A function from a keyspace id to the index of the range that holds it.

    :raises InvalidError: the ranges do not cover every keyspace id exactly once.
    """
    check_cover(key_ranges)
    starts = [key_range.start for key_range in key_ranges]
    return lambda keyspace_id: bisect_right(starts, keyspace_id) - 1


def _first_byte_table(key_ranges: Sequence[KeyRange]) -> list[int] | None:
    """Shard by the first byte of an (at least one byte long) keyspace id; None where it does not decide."""
    if any(len(key_range.start) > 1 for key_range in key_ranges):
        return None
    find = range_finder(key_ranges)
    return [find(bytes([byte])) for byte in range(256)]


def shard_picker(vindex: Vindex, key_ranges: Sequence[KeyRange], columns: Sequence[Column]) -> ShardPicker:
    """A function from the values of the vindex's columns to the index of the owning range.

    The function takes a tuple of text-protocol values (bytes in the column's own character set, None for
    NULL), in the order of ``columns``, and raises UnplaceableError where a value has no keyspace id. It may
    be called from several threads.

    :param key_ranges: the shards' ranges in order, covering everything.
    :raises InvalidError: a column cannot serve, or the ranges do not cover every keyspace id once.
    """
    if len(columns) != vindex.columns:
        raise InvalidError(f"vindex {vindex.type} reads {vindex.columns} columns, not {len(columns)}")
    converters = tuple(_converter(column) for column in columns)
    find = range_finder(key_ranges)
    if len(key_ranges) == 1 and vindex.type in {"xxhash", "binary", "binary_md5", "null"}:
        return lambda _row: 0  # nothing can be unplaceable here
    table = _first_byte_table(key_ranges)
    if vindex.type == "xxhash" and table is not None and _keeps_integers(columns[0], converters[0]):
        return _xxhash_picker(table)
    if vindex.type == "hash" and table is not None and columns[0].type in INTEGERS:
        return _hash_picker(table)
    hashers = vindex.hashers
    join = vindex.join
    if vindex.columns == 1:
        (convert,) = converters
        (hasher,) = hashers
        if convert is None:
            return lambda row: find(join((hasher(row[0]),)))
        return lambda row: find(join((hasher(convert(row[0])),)))

    def pick(row: Row) -> int:
        return find(
            join(
                [
                    hasher(value if convert is None else convert(value))
                    for hasher, convert, value in zip(hashers, converters, row, strict=True)
                ]
            )
        )

    return pick


def _keeps_integers(column: Column, convert: Callable[[bytes | None], Value] | None) -> bool:
    # XXH64 reads the digits, so that an integer's own text needs no conversion there and back, unless the
    # server shows it filled up with zeros.
    return convert is None or (column.type in INTEGERS and "zerofill" not in column.column_type.lower())


def _xxhash_picker(table: list[int]) -> ShardPicker:
    digest = _xxhash.xxh64_intdigest

    # The keyspace id is the hash in little-endian, so its first byte is the lowest.
    def pick(row: Row) -> int:
        return table[digest(row[0] or b"") & 255]

    return pick


def _hash_picker(table: list[int]) -> ShardPicker:
    update = new_des()
    lock = Lock()
    mask = (1 << 64) - 1

    def pick(row: Row) -> int:
        value = row[0]
        if value is None:
            raise UnplaceableError("vindex hash has no keyspace id for NULL")
        block = (int(value) & mask).to_bytes(8, "big")
        with lock:
            return table[update(block)[0]]

    return pick
