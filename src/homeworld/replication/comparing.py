"""Comparing one table on open snapshots of both sides: chunk by chunk, and a chunk that differs row by row.

It opens no snapshot and knows no position; it is given lanes, each a session that holds one, and the gaps:
the ranges of keys that are still to be compared. Lanes work side by side, and the next chunk is asked for
while the answers of the last are looked at.

Invariant: every key of every source and target that lies in a gap is in exactly one chunk; a chunk counts as
equal, and its range is no gap any more, only if the servers' counts and hash sums say so, every row lies on
its shard, and no statement gave a warning.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from homeworld.model.errors import MalformedPacketError, StoppedError
from homeworld.model.movers import TableVerification
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.vindexes import UnplaceableError
from homeworld.replication.changes import Row
from homeworld.replication.checksum import Sum
from homeworld.replication.chunks import Span
from homeworld.replication.coalesce import Route
from homeworld.replication.column_types import select_expression
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key
from homeworld.replication.lanes import Lane, hold_clean, walked, where
from homeworld.replication.narrowing import Narrowing, Tally

ROWS_A_CHUNK = 20_000
CHUNKS_AHEAD = 3
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})
EVERYTHING = (Span(None, None),)


class Gaps:
    """The ranges of one table that are still to be compared, in the order of its key.

    :param spans: those there are; they are walked once, from the first to the last.
    """

    def __init__(self, spans: Sequence[Span] = EVERYTHING) -> None:
        self._ahead = deque(spans)
        self._left: list[Span] = []

    def __iter__(self) -> Iterator[Span]:
        """Those ahead, as they are now."""
        return iter(tuple(self._ahead))

    @property
    def open(self) -> tuple[Span, ...]:
        """What has not been found to be equal."""
        return (*self._left, *self._ahead)

    def judged(self, span: Span, *, equal: bool) -> None:
        """The span, which is where the first gap ahead begins, has been compared."""
        gap = self._ahead.popleft()
        if span.high != gap.high:
            self._ahead.appendleft(Span(span.high, gap.high))
        if equal:
            return
        if self._left and self._left[-1].high is not None and self._left[-1].high == span.low:
            self._left[-1] = Span(self._left[-1].low, span.high)
        else:
            self._left.append(span)


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
    :param bounds: a session on each source and each target, in the order of the lanes, without a snapshot,
        to cut chunks with; any value cuts well.
    :param way: how chunks are summed; every server has what it takes.
    :param gaps: what is to be compared; ``also``: generated columns that are.
    :param rows_total: about how many rows the sources have; ``rows_before``: those outside of the gaps.
    :param judged: called after each chunk.
    """

    def __init__(
        self,
        route: Route,
        sources: Sequence[Lane],
        targets: Sequence[Lane],
        bounds: Sequence[Connection],
        way: Sum,
        stopping: threading.Event,
        *,
        gaps: Gaps | None = None,
        also: Collection[str] = (),
        rows_total: int = 0,
        rows_before: int = 0,
        judged: Callable[[], None] = lambda: None,
    ) -> None:
        self.table: Table = route.table
        self.gaps = gaps or Gaps()
        self.rows_equal = 0
        self._route = route
        self._key = route.key
        self._sources = tuple(sources)
        self._targets = tuple(targets)
        self._bounds = tuple(bounds)
        self._stopping = stopping
        self._sum = way
        self._hash_sum = way.expression(self.table, also)
        self._tally = Tally()
        self._narrowing = Narrowing(route, sources, targets, also)
        self._rows = 0
        self._rows_before = rows_before
        self._rows_total = rows_total
        self._told = judged
        self._placed = [self.table.columns[at] for at in route.vindex_columns]
        self._whole_numbers = len(self._placed) == 1 and self._placed[0].type in _INTEGERS

    @property
    def rows(self) -> int:
        """Source rows compared by this comparison so far."""
        return self._rows

    @property
    def differing(self) -> tuple[Key, ...]:
        """The keys of all rows that differ, up to narrowing.KEYS_KEPT and one more."""
        return tuple(self._tally.keys)

    def run(self) -> None:
        """Compare what lies in the gaps.

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

    def result(self, state: str) -> TableVerification:
        """What was found so far; ``state`` as in TableVerification."""
        counts = self._tally.counts
        compared = self._rows_before + self._rows
        return TableVerification(
            table=self.table.name,
            rows_compared=compared,
            mismatched=counts.get("mismatched", 0),
            extra_source=counts.get("extra_source", 0),
            extra_target=counts.get("extra_target", 0),
            wrong_shard=counts.get("wrong_shard", 0),
            differences=tuple(each for listed in list(self._tally.samples.values()) for each in list(listed)),
            rows_total=compared if state == "completed" else max(self._rows_total, compared),
            state=state,
        )

    def _spans(self) -> Iterator[Span]:
        """All keys of the gaps in spans of about the wanted number of rows of one shard: of a source as long
        as one has more, then of a target, which may have any number that no source has.
        """
        for gap in self.gaps:
            yield from self._cut(gap)

    def _cut(self, gap: Span) -> Iterator[Span]:
        low: Key | None = gap.low
        names = ", ".join(select_expression(self.table.columns[at]) for at in self._key.positions)
        lanes = list(zip((*self._sources, *self._targets), self._bounds, strict=True))
        while lanes:
            lane, connection = lanes[0]
            rows = connection.query_all(
                f"SELECT {names} FROM {walked(lane.place, self._key, self.table.name)} "
                f"{where(self._key, Span(low, gap.high))} "
                f"ORDER BY {self._key.order_by} LIMIT 1 OFFSET {ROWS_A_CHUNK - 1:d}"
            )
            if not rows:
                lanes.pop(0)  # the others may have more
                continue
            high = tuple(value or b"" for value in rows[0])
            if high == gap.high:
                break
            yield Span(low, high)
            low = high
        yield Span(low, gap.high)

    def _begin(self, span: Span) -> list[Future[_Sum]]:
        name = self.table.name
        asked = [
            lane.ask(name, lambda c, lane=lane: self._sum_source(c, lane, span)) for lane in self._sources
        ]
        asked += [
            lane.ask(name, lambda c, lane=lane, at=at: self._sum_target(c, lane, at, span))
            for at, lane in enumerate(self._targets)
        ]
        return asked

    def _sum_source(self, connection: Connection, lane: Lane, span: Span) -> _Sum:
        count, total = connection.query_one(
            f"SELECT COUNT(*), {self._hash_sum} FROM {walked(lane.place, self._key, self.table.name)} "
            f"{where(self._key, span)}"
        )
        hold_clean(connection)
        return _Sum(int(count or 0), self._sum.number(total))

    def _sum_target(self, connection: Connection, lane: Lane, at: int, span: Span) -> _Sum:
        placed = "NULL"
        if self._whole_numbers:
            # Added to, because of a ZEROFILL column MariaDB takes no more digits than it shows.
            placed = f"GROUP_CONCAT(IFNULL({quote(self._placed[0].name)}+0,'') SEPARATOR ',')"
        rest = f"FROM {walked(lane.place, self._key, self.table.name)} {where(self._key, span)}"
        count, total, listed = connection.query_one(f"SELECT COUNT(*), {self._hash_sum}, {placed} {rest}")
        hold_clean(connection)
        rows = int(count or 0)
        misplaced = 0
        if self._whole_numbers and rows:
            values = (listed or b"").split(b",")
            if len(values) != rows:
                raise MalformedPacketError("a target did not list the vindex values of all its rows")
            misplaced = self._misplaced([(v or None,) for v in values] if b"" in values else zip(values), at)
        elif self._placed and rows:
            columns = ", ".join(select_expression(column) for column in self._placed)
            seen = 0
            for batch in connection.query_batches(f"SELECT {columns} {rest}"):
                seen += len(batch)
                misplaced += self._misplaced(batch, at)
            if seen != rows:
                raise MalformedPacketError("a target did not list the vindex values of all its rows")
        return _Sum(rows, total=self._sum.number(total), misplaced=misplaced)

    def _misplaced(self, rows: Iterable[Row], at: int) -> int:
        held = tuple(rows)
        try:
            owners = list(map(self._route.pick, held))
        except UnplaceableError:
            owners = list(map(self._owner, held))
        return len(held) - owners.count(at)

    def _owner(self, placed: Row) -> int:
        try:
            return self._route.pick(placed)
        except UnplaceableError:
            return -1

    def _judge(self, span: Span, asked: Sequence[Future[_Sum]]) -> None:
        if self._stopping.is_set():
            raise StoppedError("the comparison was stopped")
        sums = [future.result() for future in asked]
        ours, theirs = sums[: len(self._sources)], sums[len(self._sources) :]
        rows = sum(each.count for each in ours)
        equal = (
            rows == sum(each.count for each in theirs)
            and _xor(ours) == _xor(theirs)
            and not any(each.misplaced for each in theirs)
        )
        if not equal:
            self._narrowing.narrow(span, self._tally)
        self.gaps.judged(span, equal=equal)
        self._rows += rows
        self.rows_equal += rows if equal else 0
        self._told()


def _xor(sums: Sequence[_Sum]) -> int:
    total = 0
    for each in sums:
        total ^= each.total
    return total
