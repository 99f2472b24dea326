"""Rows that changed while snapshots were opened: what each was, and what both sides' snapshots have of it.

It opens no snapshot and reads no log; :mod:`homeworld.replication.unlocked` says what follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication.changes import Row, RowChange, TableName
from homeworld.replication.checksum import row_hash
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key, TableKey
from homeworld.replication.lanes import walked
from homeworld.replication.loading import select_list

_KEYS_A_STATEMENT = 500

Place = tuple[ShardPlace, Connection]


@dataclass(slots=True)
class Touched:
    """The rows of a table that a window's transactions touched: by key, all that each was. None: absent.

    * ``rest``: those that were touched before the targets came to rest, as they are there.
    """

    table: Table
    rows: dict[Key, set[Row | None]] = field(default_factory=dict[Key, set[Row | None]])
    rest: dict[Key, Row | None] = field(default_factory=dict[Key, "Row | None"])


def touched_by(
    changes: Sequence[RowChange], rested: int, tables: Mapping[TableName, Table], found: dict[str, Touched]
) -> None:
    """Add the rows that changes touched, by table and key.

    :param rested: how many of the changes the targets have.
    :param found: by the table's name without its schema.
    """
    keys = {name: TableKey(table) for name, table in tables.items()}
    for at, (name, before, after) in enumerate(changes):
        touched = found.setdefault(name[1], Touched(tables[name]))
        rows = touched.rows
        sides = [None if row is None else (keys[name].of(row), row) for row in (before, after)]
        for key in {side[0] for side in sides if side is not None}:
            # Before and after; absent where there was no row of this key.
            rows.setdefault(key, set()).update(
                _told(tables[name], side[1]) if side is not None and side[0] == key else None
                for side in sides
            )
            if at < rested:
                last = sides[1]
                is_there = last is not None and last[0] == key
                touched.rest[key] = _told(tables[name], last[1]) if last is not None and is_there else None


def same_moment(touched: Mapping[str, Touched], sources: Sequence[Place], targets: Sequence[Place]) -> bool:
    """Whether no row that was touched is on the two sides what it was at two moments of the window.

    :raises ServerError: a table was altered behind a snapshot, among others.
    """
    return all(_same(one, sources, targets) for one in touched.values())


def _same(touched: Touched, sources: Sequence[Place], targets: Sequence[Place]) -> bool:
    table, key = touched.table, TableKey(touched.table)
    listed = sorted(touched.rows)
    for start in range(0, len(listed), _KEYS_A_STATEMENT):
        part = listed[start : start + _KEYS_A_STATEMENT]
        ours, theirs = (_rows(side, key, table, part) for side in (sources, targets))
        for each in part:
            mine, their = ours.get(each, []), theirs.get(each, [])
            digests = [sorted(digest for digest, _ in side) for side in (mine, their)]
            alike = digests[0] == digests[1] and b"" not in digests[0]
            if alike and _rests(their, each, touched):
                continue
            images = touched.rows[each]
            if _is_one_of(mine, images) and not _is_one_of(their, images):
                continue  # it was never that: for the comparison to tell
            return False
    return True


def _rests(rows: Sequence[tuple[bytes, Row]], key: Key, touched: Touched) -> bool:
    """Whether the targets have of a row what they have applied; both sides might lack the same change."""
    return key not in touched.rest or _is_one_of(rows, {touched.rest[key]})


def _is_one_of(rows: Sequence[tuple[bytes, Row]], images: set[Row | None]) -> bool:
    return (rows[0][1] if rows else None) in images if len(rows) < 2 else False


def _rows(
    places: Sequence[Place], key: TableKey, table: Table, keys: Sequence[Key]
) -> dict[Key, list[tuple[bytes, Row]]]:
    """The rows of these keys on one side, each with its digest; empty where the server gives none."""
    found: dict[Key, list[tuple[bytes, Row]]] = {}
    everything = select_list(table, range(len(table.columns)))
    for place, session in places:
        for digest, *row in session.query_all(
            f"SELECT {row_hash(table)}, {everything} "
            f"FROM {walked(place, key, table.name)} WHERE {key.any_of(keys)}"
        ):
            found.setdefault(key.of(tuple(row)), []).append((digest or b"", _told(table, tuple(row))))
    return found


def _told(table: Table, row: Row) -> Row:
    """What the log surely has of a row: generated columns follow from the others."""
    return tuple(value for value, column in zip(row, table.columns, strict=True) if not column.generated)
