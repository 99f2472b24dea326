"""From a chunk that differs to its rows: which keys, on which shards, in which columns, as people read them.

It is given lanes that hold snapshots and a span whose sums were not the same; it opens nothing and decides
nothing. Keys and hashes of all rows of the span are read on both sides, whole rows only for the samples.

Invariant: every row of the span that is not the same on both sides, not on its own shard, or more than once
on a side, is counted; where none is, that is an error and not an equal chunk.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from homeworld.model.movers import RowDifference
from homeworld.model.vindexes import UnplaceableError
from homeworld.replication.changes import Row
from homeworld.replication.checksum import row_hash
from homeworld.replication.chunks import Span
from homeworld.replication.coalesce import Route
from homeworld.replication.column_types import error_value, select_expression
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key
from homeworld.replication.lanes import IncomparableError, Lane, hold_clean, walked, where
from homeworld.replication.showing import Shown, apart, readable, shown, shown_expression

SAMPLES = 10
"""Differences shown of each table and kind; all are counted."""
KEYS_KEPT = 100_000
"""Rows of one table that can be put right; where more differ, copying anew is the way."""
# Of these character sets a text is not what a plain literal's bytes are.
_WIDE = frozenset({"", "binary", "ucs2", "utf16", "utf16le", "utf32"})


@dataclass(slots=True)
class Tally:
    """What was found of one table: all counted by kind, the first of each kept.

    * ``keys``: those of all rows found, up to KEYS_KEPT and one more.
    """

    counts: dict[str, int] = field(default_factory=dict[str, int])
    keys: dict[Key, None] = field(default_factory=dict[Key, None])
    samples: dict[str, list[RowDifference]] = field(default_factory=dict[str, list[RowDifference]])

    @property
    def found(self) -> int:
        """How many differences there are."""
        return sum(self.counts.values())

    def add(self, difference: RowDifference) -> None:
        """Count it, and keep it unless there are enough of its kind."""
        kind = difference.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        listed = self.samples.setdefault(kind, [])
        if len(listed) < SAMPLES:
            listed.append(difference)

    def full(self, kind: str) -> bool:
        """Whether no more of this kind are kept."""
        return len(self.samples.get(kind, ())) >= SAMPLES


@dataclass(frozen=True, slots=True)
class _Copy:
    """A row as one shard has it. ``at``: the shard's number on its side; ``owner``: the target's, or -1."""

    lane: Lane
    at: int
    owner: int
    digest: bytes


class Narrowing:
    """Narrows spans of one table to rows.

    :param also: generated columns that are compared.
    """

    def __init__(
        self, route: Route, sources: Sequence[Lane], targets: Sequence[Lane], also: Collection[str]
    ) -> None:
        self._table = route.table
        self._route = route
        self._key = route.key
        self._sources = tuple(sources)
        self._targets = tuple(targets)
        self._placed = [self._table.columns[at] for at in route.vindex_columns]
        self._hash = row_hash(self._table, also)
        self._columns = [c for c in self._table.columns if not c.generated or c.name in also]

    def narrow(self, span: Span, tally: Tally) -> None:
        """Add the differences of the span.

        :raises IncomparableError: there are none, although the sums said so; or a row cannot be read.
        """
        before = tally.found
        ours: dict[Key, _Copy] = {}
        for key, copy in self._copies(self._sources, span):
            if key in ours:
                self._tell(tally, "extra_source", key, copy, None)
            ours[key] = copy
        theirs: dict[Key, list[_Copy]] = {}
        for key, copy in self._copies(self._targets, span):
            theirs.setdefault(key, []).append(copy)
        for key in dict.fromkeys((*ours, *theirs)):
            self._tell_key(tally, key, ours.get(key), theirs.get(key, []))
        if tally.found == before:
            raise IncomparableError(
                f"table {self._table.name!r}: the sums of a chunk differ, but its rows do not"
            )

    def _tell_key(self, tally: Tally, key: Key, mine: _Copy | None, copies: list[_Copy]) -> None:
        for copy in copies:
            if self._placed and copy.owner != copy.at:
                self._tell(tally, "wrong_shard", key, mine, copy)
        if mine is None:
            for copy in copies:
                self._tell(tally, "extra_target", key, None, copy)
            return
        if not copies:
            self._tell(tally, "extra_source", key, mine, None)
        # The one on its own shard is the row; any other is one too many.
        copies.sort(key=lambda copy: copy.at != copy.owner)
        for number, copy in enumerate(copies):
            if copy.digest != mine.digest or not mine.digest:
                self._tell(tally, "mismatched", key, mine, copy)
            if number:
                self._tell(tally, "extra_target", key, mine, copy)

    def _copies(self, lanes: Sequence[Lane], span: Span) -> Iterable[tuple[Key, _Copy]]:
        names = [select_expression(self._table.columns[at]) for at in self._key.positions]
        names += [select_expression(column) for column in self._placed]
        keys = len(self._key.columns)
        listed = ", ".join([*names, self._hash])

        def read(connection: Connection, lane: Lane) -> list[Row]:
            rows = connection.query_all(
                f"SELECT {listed} FROM {walked(lane.place, self._key, self._table.name)} "
                f"{where(self._key, span)}"
            )
            hold_clean(connection)
            return rows

        asked = [lane.ask(self._table.name, lambda c, lane=lane: read(c, lane)) for lane in lanes]
        for at, (lane, future) in enumerate(zip(lanes, asked, strict=True)):
            for row in future.result():
                key = tuple(value or b"" for value in row[:keys])
                yield key, _Copy(lane, at, self._owner(row[keys:-1]), row[-1] or b"")

    def _owner(self, placed: Row) -> int:
        if not self._placed:
            return 0
        try:
            return self._route.pick(placed)
        except UnplaceableError:
            return -1

    def _tell(self, tally: Tally, kind: str, key: Key, mine: _Copy | None, copy: _Copy | None) -> None:
        if len(tally.keys) <= KEYS_KEPT:
            tally.keys[key] = None
        seen = copy or mine
        if seen is None or tally.full(kind):
            tally.counts[kind] = tally.counts.get(kind, 0) + 1
            return
        source = self._show(mine.lane, key) if mine is not None else {}
        target = self._show(copy.lane, key) if copy is not None else {}
        differing = [n for n in source if n in target and source[n].identity != target[n].identity]
        for name in differing:
            source[name], target[name] = apart(self._table.column(name), source[name], target[name])
        owner = seen.owner
        tally.add(
            RowDifference(
                kind=kind,
                shard=seen.lane.place.shard,
                key=self._shown_key(key),
                source={name: value.text for name, value in source.items()} or None,
                target={name: value.text for name, value in target.items()} or None,
                columns=tuple(differing),
                owner=self._targets[owner].place.shard if owner >= 0 else "",
                condition=self.condition(key),
            )
        )

    def _shown_key(self, key: Key) -> Mapping[str, str]:
        columns = [self._table.columns[at] for at in self._key.positions]
        return {
            name: readable(column, value) or ""
            for name, column, value in zip(self._key.names, columns, key, strict=True)
        }

    def condition(self, key: Key) -> str:
        """The SQL condition that finds the row of this key, as plain as it can be."""
        parts: list[str] = []
        for at, column, value in zip(self._key.positions, self._key.columns, key, strict=True):
            plain = value.isascii() and value.decode("latin-1").isprintable() and not set(value) & set(b"'\\")
            of = self._table.columns[at]
            is_label = of.type != "enum" or value != error_value(of)
            if plain and is_label and of.charset not in _WIDE:
                parts.append(f"{column.name} = '{value.decode()}'")
            else:
                parts.append(column.compare("=", value))
        return " AND ".join(parts)

    def _show(self, lane: Lane, key: Key) -> dict[str, Shown]:
        """The row, and its values' identities; nothing where the server does not find it by its key."""
        listed = ", ".join(shown_expression(column) for column in self._columns)
        sql = (
            f"SELECT {listed} FROM {walked(lane.place, self._key, self._table.name)} "
            f"WHERE {self._key.equals(key)}"
        )
        rows = lane.ask(self._table.name, lambda connection: connection.query_all(sql)).result()
        if not rows:
            return {}
        row = rows[0]
        return {
            column.name: shown(column, *row[3 * at : 3 * at + 3]) for at, column in enumerate(self._columns)
        }
