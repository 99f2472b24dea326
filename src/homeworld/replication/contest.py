"""Rows of several source shards that meet on one target: who holds what is in whose way.

Each source shard's rows are unique among themselves only. A row that is new to its shard must therefore be
new to the target; where it is not, the servers are asked. It changes nothing anywhere.

Invariant: what is said to be on a shard was read there a moment ago.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from homeworld.model.errors import InvalidError
from homeworld.model.gtid import Position
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication.changes import Row
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key, TableKey
from homeworld.replication.loading import select_list
from homeworld.replication.moving import MovingTable
from homeworld.replication.positions import begin_snapshot

_KEYS_A_QUERY = 500
_MOST_TOLD = 3


@dataclass(frozen=True, slots=True)
class Hit:
    """A row on the target that is in the way of another.

    :param index: the unique key that both rows have.
    :param value: what they have in it.
    :param holder: the key by which the row on the target is found.
    :param key: the key by which the other row is found; empty where only the server knows them to be equal.
    """

    index: str
    value: Key
    holder: Key
    key: Key


def hits(connection: Connection, schema: str, table: Table, rows: Sequence[Row]) -> list[Hit]:
    """The target's rows that have a unique key of one of ``rows``, also those that are the same row.

    Keys of expressions and of parts of columns are not looked at.
    """
    own = TableKey(table)
    found: list[Hit] = []
    for index in table.indexes:
        if not index.unique or index.prefixed or "" in index.columns:
            continue
        try:
            key = own if index.name == own.index else TableKey(replace(table, key=index))
        except InvalidError:
            continue
        given = [cast("tuple[bytes | None, ...]", key.of(row)) for row in rows]
        values = {
            cast("Key", value): own.of(row)
            for value, row in zip(given, rows, strict=True)
            if None not in value
        }
        found += (
            Hit(index.name, value, holder, values.get(value, ()))
            for value, holder in _read(connection, schema, table, key, own, list(values))
        )
    return found


def _read(
    connection: Connection, schema: str, table: Table, key: TableKey, own: TableKey, values: Sequence[Key]
) -> Iterable[tuple[Key, Key]]:
    columns = ", ".join(column.name for column in (*key.columns, *own.columns))
    for start in range(0, len(values), _KEYS_A_QUERY):
        condition = key.any_of(values[start : start + _KEYS_A_QUERY])
        sql = f"SELECT {columns} FROM {quote(schema, table.name)} WHERE {condition}"
        for row in connection.query_all(sql):
            whole = tuple(value or b"" for value in row)
            yield whole[: len(key.columns)], whole[len(key.columns) :]


def holders(sources: Iterable[MovingTable], keys: Sequence[Key]) -> dict[Key, list[str]]:
    """For each of the keys the source shards that have a row of it now; keys that none has are left out."""
    found: dict[Key, list[str]] = {}
    for source in sources if keys else ():
        for key in there(source.source, source.table.name, source.key, keys):
            found.setdefault(key, []).append(source.source.shard)
    return found


def there(place: ShardPlace, name: str, key: TableKey, keys: Sequence[Key]) -> list[Key]:
    """Those of the keys of which the shard's table has a row now."""
    with Connection(place.endpoint) as connection:
        return _there(connection, quote(place.schema, name), key, keys)


def _there(connection: Connection, table: str, key: TableKey, keys: Sequence[Key]) -> list[Key]:
    found: list[Key] = []
    for start in range(0, len(keys), _KEYS_A_QUERY):
        part = keys[start : start + _KEYS_A_QUERY]
        if not connection.query_all(f"SELECT 1 FROM {table} WHERE {key.any_of(part)} LIMIT 1"):
            continue
        # Equal for a collation need not be equal in bytes, so each is asked by itself.
        found += [
            one
            for one in part
            if connection.query_all(f"SELECT 1 FROM {table} WHERE {key.equals(one)} LIMIT 1")
        ]
    return found


def rows_of(place: ShardPlace, table: MovingTable, keys: Sequence[Key]) -> dict[Key, Row]:
    """The shard's rows of these keys now, as rows are moved: generated columns that are no key are NULL."""
    with Connection(place.endpoint) as connection:
        return _rows_of(connection, place.schema, table, keys)


def _rows_of(connection: Connection, schema: str, table: MovingTable, keys: Sequence[Key]) -> dict[Key, Row]:
    columns = select_list(table.table, table.key.positions)
    found: dict[Key, Row] = {}
    for start in range(0, len(keys), _KEYS_A_QUERY):
        condition = table.key.any_of(keys[start : start + _KEYS_A_QUERY])
        sql = f"SELECT {columns} FROM {quote(schema, table.table.name)} WHERE {condition}"
        found.update((table.key.of(row), row) for row in connection.query_all(sql))
    return found


def still_had(table: MovingTable, rows: Mapping[Hit, Row]) -> tuple[set[Hit], Position]:
    """Those of the hits whose unique key the row of ``rows`` still has on its own shard, and a position of
    which this shows everything (and on MySQL perhaps a little more).
    """
    place = table.source
    with Connection(place.endpoint) as connection:
        position = begin_snapshot(connection)
        now = _rows_of(connection, place.schema, table, list(dict.fromkeys(hit.key for hit in rows)))
    keys = {
        index.name: TableKey(replace(table.table, key=index)).of
        for index in table.table.indexes
        if any(hit.index == index.name for hit in rows)
    }
    had = {
        hit
        for hit, row in rows.items()
        if hit.key in now and keys[hit.index](now[hit.key]) == keys[hit.index](row)
    }
    return had, Position.parse(place.endpoint.flavor, position)


def told(table: MovingTable, held: Sequence[tuple[Hit, Sequence[str]]]) -> str:
    """What to tell of rows of ``table`` that meet rows of other shards.

    :param held: what is in the way, and the shards that have it.
    """
    name = table.table.name
    if not held:
        return (
            f"table {name!r}: a row's unique key is on the target already; the table was not empty, or "
            "several source shards have rows with the same key"
        )
    texts = [
        f"{hit.index} {_text(hit.value)} (on {', '.join(dict.fromkeys([table.source.shard, *shards]))})"
        for hit, shards in held[:_MOST_TOLD]
    ]
    more = f" and {len(held) - _MOST_TOLD} more" if len(held) > _MOST_TOLD else ""
    return (
        f"table {name!r}: several source shards have rows with the same key, which would become one on the "
        f"target: {'; '.join(texts)}{more}. Remove all but one of each on the source"
    )


def _text(key: Key) -> str:
    return "(" + ", ".join(value.decode("utf-8", "backslashreplace") for value in key) + ")"
