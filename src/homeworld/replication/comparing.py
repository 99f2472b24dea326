"""Comparing one table on open snapshots of both sides: chunk by chunk, and a chunk that differs row by row.

It opens no snapshot and knows no position; it is given lanes, each a session that holds one. Lanes work side
by side, and the next chunk is asked for while the answers of the last are looked at.

Invariant: every key of every source and target is in exactly one chunk; a chunk counts as equal only if the
servers' counts and hash sums say so and no statement gave a warning.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from homeworld.model.errors import MalformedPacketError, StoppedError
from homeworld.model.movers import RowDifference, TableVerification
from homeworld.model.names import quote
from homeworld.model.tables import Column, Table
from homeworld.model.topology import ShardPlace
from homeworld.model.vindexes import UnplaceableError
from homeworld.replication.changes import Row
from homeworld.replication.checksum import Sum, row_hash
from homeworld.replication.chunks import Span
from homeworld.replication.coalesce import Route
from homeworld.replication.column_types import select_expression
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key

ROWS_A_CHUNK = 20_000
CHUNKS_AHEAD = 3
SAMPLES = 10
"""Differences shown of each table and kind; all are counted."""
_SHOWN = 300
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
_T = TypeVar("_T")


class Lane:
    """A session that holds a snapshot of one shard, and the thread that talks to it."""

    def __init__(self, place: ShardPlace, connection: Connection) -> None:
        self.place = place
        self.connection = connection
        self._pool = ThreadPoolExecutor(1, f"compare {place.shard}")

    def ask(self, work: Callable[[Connection], _T]) -> Future[_T]:
        """Run ``work`` in the lane's thread, after what it was asked before."""
        return self._pool.submit(work, self.connection)

    def close(self) -> None:
        """End the thread and the session."""
        self._pool.shutdown(cancel_futures=True)
        self.connection.close()


@dataclass(slots=True)
class _Tally:
    rows_compared: int = 0
    counts: dict[str, int] = field(default_factory=dict[str, int])
    samples: dict[str, list[RowDifference]] = field(default_factory=dict[str, list[RowDifference]])

    def add(self, difference: RowDifference) -> None:
        kind = difference.kind
        self.counts[kind] = self.counts.get(kind, 0) + 1
        listed = self.samples.setdefault(kind, [])
        if len(listed) < SAMPLES:
            listed.append(difference)

    def full(self, kind: str) -> bool:
        return len(self.samples.get(kind, ())) >= SAMPLES


@dataclass(frozen=True, slots=True)
class _Sum:
    """What one side says of a chunk; ``misplaced``: rows that another shard owns."""

    count: int
    total: int
    misplaced: int = 0


class TableComparison:
    """Compares one table.

    :param route: of any source shard: key and placement.
    :param sources: lanes, one for each source shard; ``targets``: one for each target shard, in order.
    :param bounds: a session on the first source without a snapshot, to cut chunks with; any value cuts well.
    :param way: how chunks are summed; every server has what it takes.
    """

    def __init__(
        self,
        route: Route,
        sources: Sequence[Lane],
        targets: Sequence[Lane],
        bounds: Sequence[Connection],
        way: Sum,
        stopping: threading.Event,
    ) -> None:
        self.table: Table = route.table
        self._route = route
        self._key = route.key
        self._sources = tuple(sources)
        self._targets = tuple(targets)
        self._bounds = tuple(bounds)
        self._stopping = stopping
        self._sum = way
        self._hash_sum = way.expression(self.table)
        self._tally = _Tally()
        self._placed = [self.table.columns[at] for at in route.vindex_columns]
        self._whole_numbers = len(self._placed) == 1 and self._placed[0].type in _INTEGERS

    @property
    def rows_compared(self) -> int:
        """Source rows compared so far."""
        return self._tally.rows_compared

    def run(self) -> TableVerification:
        """Compare the table to its end.

        :raises StoppedError: told to stop before.
        :raises HomeworldError: it cannot be compared.
        """
        waiting: deque[tuple[Span, list[Future[_Sum]]]] = deque()
        for span in self._spans():
            waiting.append((span, self._begin(span)))
            if len(waiting) > CHUNKS_AHEAD:
                self._judge(*waiting.popleft())
        while waiting:
            self._judge(*waiting.popleft())
        return self.result()

    def result(self) -> TableVerification:
        """What was found so far."""
        counts = self._tally.counts
        return TableVerification(
            table=self.table.name,
            rows_compared=self._tally.rows_compared,
            mismatched=counts.get("mismatched", 0),
            extra_source=counts.get("extra_source", 0),
            extra_target=counts.get("extra_target", 0),
            wrong_shard=counts.get("wrong_shard", 0),
            differences=tuple(each for listed in list(self._tally.samples.values()) for each in list(listed)),
        )

    def _spans(self) -> Iterator[Span]:
        """All keys in spans of about the wanted number of rows of one source shard."""
        low: Key | None = None
        names = ", ".join(column.name for column in self._key.columns)
        lanes = list(zip(self._sources, self._bounds, strict=True))
        while lanes:
            lane, connection = lanes[0]
            rows = connection.query_all(
                f"SELECT {names} FROM {self._walked(lane.place)} {self._where(Span(low, None))} "
                f"ORDER BY {self._key.order_by} LIMIT 1 OFFSET {ROWS_A_CHUNK - 1:d}"
            )
            if rows:
                high = tuple(value or b"" for value in rows[0])
                yield Span(low, high)
                low = high
            else:
                lanes.pop(0)  # the others may have more
        yield Span(low, None)

    def _walked(self, place: ShardPlace) -> str:
        return f"{quote(place.schema, self.table.name)} FORCE INDEX ({quote(self._key.index)})"

    def _where(self, span: Span) -> str:
        parts = [self._key.after(span.low)] if span.low is not None else []
        if span.high is not None:
            parts.append(self._key.upto(span.high))
        return f"WHERE {' AND '.join(parts)}" if parts else ""

    def _begin(self, span: Span) -> list[Future[_Sum]]:
        asked = [lane.ask(lambda c, lane=lane: self._sum_source(c, lane, span)) for lane in self._sources]
        asked += [
            lane.ask(lambda c, lane=lane, at=at: self._sum_target(c, lane, at, span))
            for at, lane in enumerate(self._targets)
        ]
        return asked

    def _sum_source(self, connection: Connection, lane: Lane, span: Span) -> _Sum:
        count, total = connection.query_one(
            f"SELECT COUNT(*), {self._hash_sum} FROM {self._walked(lane.place)} {self._where(span)}"
        )
        _hold_clean(connection)
        return _Sum(int(count or 0), self._sum.number(total))

    def _sum_target(self, connection: Connection, lane: Lane, at: int, span: Span) -> _Sum:
        placed = "NULL"
        if self._whole_numbers:
            placed = f"GROUP_CONCAT(IFNULL({quote(self._placed[0].name)},'') SEPARATOR ',')"
        rest = f"FROM {self._walked(lane.place)} {self._where(span)}"
        count, total, listed = connection.query_one(f"SELECT COUNT(*), {self._hash_sum}, {placed} {rest}")
        _hold_clean(connection)
        rows = int(count or 0)
        misplaced = 0
        if self._whole_numbers and rows:
            values = (listed or b"").split(b",")
            if len(values) != rows:
                raise MalformedPacketError("a target did not list the vindex values of all its rows")
            misplaced = self._misplaced([(v or None,) for v in values] if b"" in values else zip(values), at)
        elif self._placed and rows:
            columns = ", ".join(select_expression(column) for column in self._placed)
            for batch in connection.query_batches(f"SELECT {columns} {rest}"):
                misplaced += self._misplaced(batch, at)
        return _Sum(rows, total=self._sum.number(total), misplaced=misplaced)

    def _misplaced(self, rows: Iterable[Row], at: int) -> int:
        held = tuple(rows)
        try:
            owners = list(map(self._route.pick, held))
        except UnplaceableError:
            owners = list(map(self._owner, held))
        return len(held) - owners.count(at)

    def _judge(self, span: Span, asked: Sequence[Future[_Sum]]) -> None:
        if self._stopping.is_set():
            raise StoppedError("the comparison was stopped")
        sums = [future.result() for future in asked]
        ours, theirs = sums[: len(self._sources)], sums[len(self._sources) :]
        if (
            sum(each.count for each in ours) != sum(each.count for each in theirs)
            or _xor(ours) != _xor(theirs)
            or any(each.misplaced for each in theirs)
        ):
            self._narrow(span)
        self._tally.rows_compared += sum(each.count for each in ours)

    def _narrow(self, span: Span) -> None:
        """Read key, vindex values and hash of each row of the chunk on both sides; tell the differences.

        :raises MalformedPacketError: there are none, although the sums said so.
        """
        told = sum(self._tally.counts.values())
        ours: dict[Key, tuple[Lane, bytes]] = {}
        for lane, rows in self._hashes(self._sources, span):
            for key, _, digest in rows:
                if key in ours:
                    self._tell("extra_source", key, (lane, digest), None)
                ours[key] = (lane, digest)
        theirs: dict[Key, list[tuple[Lane, bytes]]] = {}
        for at, (lane, rows) in enumerate(self._hashes(self._targets, span)):
            for key, placed, digest in rows:
                theirs.setdefault(key, []).append((lane, digest))
                if self._placed and self._owner(placed) != at:
                    self._tell("wrong_shard", key, ours.get(key), (lane, digest))
        for key in dict.fromkeys((*ours, *theirs)):
            self._tell_key(key, ours.get(key), theirs.get(key, []))
        if sum(self._tally.counts.values()) == told:
            raise MalformedPacketError("the sums of a chunk differ, but its rows do not")

    def _tell_key(self, key: Key, mine: tuple[Lane, bytes] | None, copies: list[tuple[Lane, bytes]]) -> None:
        """What is wrong with one key, if anything, but for its shard."""
        if mine is None:
            for copy in copies:
                self._tell("extra_target", key, None, copy)
            return
        if not copies:
            self._tell("extra_source", key, mine, None)
        for at, copy in enumerate(copies):
            if copy[1] != mine[1] or not mine[1]:
                self._tell("mismatched", key, mine, copy)
            if at:
                self._tell("extra_target", key, mine, copy)

    def _owner(self, placed: Row) -> int:
        try:
            return self._route.pick(placed)
        except UnplaceableError:
            return -1

    def _hashes(self, lanes: Sequence[Lane], span: Span) -> list[tuple[Lane, list[tuple[Key, Row, bytes]]]]:
        names = [column.name for column in self._key.columns]
        names += [select_expression(column) for column in self._placed]
        keys = len(self._key.columns)

        def read(connection: Connection, lane: Lane) -> list[tuple[Key, Row, bytes]]:
            rows = connection.query_all(
                f"SELECT {', '.join(names)}, {row_hash(self.table)} FROM {self._walked(lane.place)} "
                f"{self._where(span)}"
            )
            return [(tuple(v or b"" for v in row[:keys]), row[keys:-1], row[-1] or b"") for row in rows]

        asked = [(lane, lane.ask(lambda c, lane=lane: read(c, lane))) for lane in lanes]
        return [(lane, future.result()) for lane, future in asked]

    def _tell(
        self, kind: str, key: Key, mine: tuple[Lane, bytes] | None, copy: tuple[Lane, bytes] | None
    ) -> None:
        where = copy or mine
        source = target = None
        if not self._tally.full(kind):
            source = self._show(mine[0], key) if mine is not None else None
            target = self._show(copy[0], key) if copy is not None else None
        names = self._key.names
        columns = [self.table.columns[at] for at in self._key.positions]
        shown = {name: _readable(c, v) or "" for name, c, v in zip(names, columns, key, strict=True)}
        shard = where[0].place.shard if where is not None else ""
        self._tally.add(RowDifference(kind, shard, shown, source, target))

    def _show(self, lane: Lane, key: Key) -> Mapping[str, str | None] | None:
        columns = ", ".join(select_expression(column) for column in self.table.columns)
        sql = f"SELECT {columns} FROM {self._walked(lane.place)} WHERE {self._key.equals(key)}"
        rows = lane.ask(lambda connection: connection.query_all(sql)).result()
        if not rows:
            return None
        return {
            column.name: _readable(column, value)
            for column, value in zip(self.table.columns, rows[0], strict=True)
        }


def _hold_clean(connection: Connection) -> None:
    """Hold the statement before to have given no warning: it might have left something out."""
    (count,) = connection.query_one("SELECT @@warning_count")
    if count != b"0":
        told = "; ".join(
            (text or b"").decode("utf-8", "replace")
            for _, _, text in connection.query_all("SHOW WARNINGS")[:3]
        )
        raise MalformedPacketError(f"a checksum was computed with warnings: {told}")


def _xor(sums: Sequence[_Sum]) -> int:
    total = 0
    for each in sums:
        total ^= each.total
    return total


def _readable(column: Column, value: bytes | None) -> str | None:
    if value is None:
        return None
    if column.charset in {"", "ascii", "latin1", "utf8", "utf8mb3", "utf8mb4"} and column.type not in {
        "bit",
        "geometry",
    }:
        codec = "cp1252" if column.charset == "latin1" else "utf-8"
        text = value.decode(codec, "backslashreplace")
    else:
        text = "0x" + value.hex()
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
