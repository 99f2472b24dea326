"""The rule by which copy and follow meet, played through in a world without servers.

A source with a history, feeds that read it in batches, copiers that take snapshots at any allowed time, two
targets that commit one after the other, and deaths between any two commits. However it is played, the targets
end as the source.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.replication.changes import Row, RowChange
from homeworld.replication.chunks import (
    Chunk,
    Outcome,
    Span,
    TableMap,
    spans_from_text,
    spans_to_text,
)
from homeworld.replication.coalesce import Route, coalesce, lay_over
from homeworld.replication.keyorder import Key, TableKey
from tests.support.tables import column, table

TABLE = table(column("id"), column("u", nullable=True), column("g"), unique=("u",))
KEY = TableKey(TABLE)
NAME = ("s", "t")
ROUTE = Route(NAME, TABLE, KEY, (2,), lambda row: int(row[0] or 0) % 2)
TARGETS = 2
IDS, UNIQUES = 24, 8


class Source:
    """Rows by id, and every state they were in."""

    def __init__(self, numbers: random.Random) -> None:
        self.numbers = numbers
        self.rows: dict[int, Row] = {}
        self.events: list[RowChange] = []
        self.states: list[dict[int, Row]] = [{}]
        for _ in range(30):
            self.change()

    @property
    def now(self) -> int:
        return len(self.events)

    def change(self) -> None:
        draw = self.numbers.random()
        free = [n for n in range(IDS) if n not in self.rows]
        taken = {row[1] for row in self.rows.values()}
        unique = next(
            (u for u in self.numbers.sample(range(UNIQUES), 3) if str(u).encode() not in taken), None
        )
        value = None if unique is None else str(unique).encode()
        group = str(self.numbers.randrange(4)).encode()
        if self.rows and draw < 0.75:
            old = self.numbers.choice(list(self.rows))
            before = self.rows[old]
            if draw < 0.2:
                return self.log(before, None)
            if draw < 0.35 and free:
                return self.log(before, (str(self.numbers.choice(free)).encode(), *before[1:]))
            return self.log(before, (before[0], value if draw < 0.6 else None, group))
        if free:
            self.log(None, (str(self.numbers.choice(free)).encode(), value, group))
        return None

    def log(self, before: Row | None, after: Row | None) -> None:
        if before is not None:
            del self.rows[int(before[0] or 0)]
        if after is not None:
            self.rows[int(after[0] or 0)] = after
        self.events.append((NAME, before, after))
        self.states.append(dict(self.rows))


class Target:
    """What one target has committed: rows, position, spans."""

    def __init__(self, position: int) -> None:
        self.rows: dict[Key, Row] = {}
        self.position = position
        self.done = spans_to_text(())

    def put(self, rows: Sequence[Row]) -> None:
        for row in rows:
            for key in [k for k, r in self.rows.items() if r[1] is not None and r[1] == row[1]]:
                del self.rows[key]
            self.rows[KEY.of(row)] = row

    def would_collide(self, rows: Sequence[Row]) -> bool:
        taken = {row[1] for row in self.rows.values()} - {None}
        return any(KEY.of(row) in self.rows or row[1] in taken for row in rows)

    def apply(self, outcome: Outcome) -> None:
        for key, row in outcome.items():
            if row is None:
                self.rows.pop(key, None)
        self.put([row for row in outcome.values() if row is not None])


class World:
    """One mover's life after another over the same sidecars."""

    def __init__(self, seed: int) -> None:
        self.numbers = random.Random(seed)
        self.source = Source(self.numbers)
        self.targets = [Target(self.source.now) for _ in range(TARGETS)]
        self.begin()

    def begin(self) -> None:
        self.position = min(target.position for target in self.targets)
        self.map = TableMap(KEY, TARGETS, [spans_from_text(target.done) for target in self.targets])
        self.chunks: list[tuple[Chunk, list[list[Row]], set[int]]] = []
        self.locked: tuple[list[Outcome], int, list[int]] | None = None

    def apply_batch(self, die_after: int | None = None, locked: bool = False) -> bool:
        """Read on by some events; True if the mover dies after that many targets have committed. ``locked``:
        some targets meet locks and are done later, with the gate open meanwhile.
        """
        if self.locked is not None:
            self.unlock()
        end = min(self.source.now, self.position + self.numbers.randint(1, 6))
        if end == self.position:
            return False
        outcomes = coalesce(self.source.events[self.position : end], {NAME: ROUTE}, TARGETS)
        kept: list[tuple[Chunk, int, Outcome]] = []
        for at, outcome in enumerate(outcomes):
            for chunk, rows in self.map.sift(None, at, outcome.get(NAME, {})):
                kept.append((chunk, at, rows))
        for chunk, at, rows in kept:
            chunk.kept[at].update(rows)
        mine = [outcome.get(NAME, {}) for outcome in outcomes]
        if locked:
            self.locked = (mine, end, self.numbers.sample(range(TARGETS), self.numbers.randint(1, TARGETS)))
        for at, outcome in enumerate(mine):
            if at == die_after:
                return True
            if self.locked is None or at not in self.locked[2]:
                self.commit(at, outcome, end)
        if self.locked is None:
            self.position = end
        return False

    def commit(self, at: int, outcome: Outcome, end: int) -> None:
        self.targets[at].apply(outcome)
        self.targets[at].position = max(self.targets[at].position, end)

    def unlock(self) -> None:
        if self.locked is not None:
            outcomes, end, waiting = self.locked
            for at in waiting:
                self.commit(at, outcomes[at], end)
            self.position = end
            self.locked = None

    def begin_chunk(self) -> None:
        gap = self.map.next_gap()
        if gap is None or self.locked is not None:
            return
        high = gap.high
        for candidate in sorted(self.numbers.sample(range(IDS), 2)):
            key = (str(candidate).encode(),)
            after_low = gap.low is None or candidate > int(gap.low[0])
            if after_low and (high is None or candidate < int(high[0])):
                high = key
                break
        chunk = self.map.begin(Span(gap.low, high))
        # Any snapshot that shows what had been passed.
        seen = self.source.states[self.numbers.randint(self.position, self.source.now)]
        low = -1 if gap.low is None else int(gap.low[0])
        last = IDS if high is None else int(high[0])
        rows: list[list[Row]] = [[] for _ in range(TARGETS)]
        for number, row in seen.items():
            if low < number <= last:
                rows[ROUTE.place(row)].append(row)
        self.chunks.append((chunk, rows, set()))

    def land(self, die_after: int | None = None) -> bool:
        if not self.chunks:
            return False
        entry = self.numbers.choice(self.chunks)
        chunk, rows, held_back = entry
        for count, at in enumerate(chunk.targets):
            if count == die_after:
                return True
            target = self.targets[at]
            if at in held_back or target.would_collide(rows[at]):
                held_back.add(at)
                target.put(lay_over(rows[at], KEY, chunk.kept[at]))
            else:
                target.put(rows[at])
                target.apply(chunk.kept[at])
            target.done = spans_to_text(self.map.done_spans(at, landing=chunk))
            self.map.landed(chunk, at)
        self.chunks.remove(entry)
        return False

    def shorten(self) -> None:
        """The rows of a chunk were too many: it ends at one of them."""
        for chunk, rows, _ in self.chunks:
            numbers = sorted(int(row[0] or 0) for each in rows for row in each)
            if len(numbers) < 2 or len(chunk.targets) < TARGETS:
                continue
            high = (str(numbers[0]).encode(),)
            self.map.shorten(chunk, high)
            for at in range(TARGETS):
                rows[at][:] = [row for row in rows[at] if int(row[0] or 0) <= numbers[0]]
                for key in [key for key in chunk.kept[at] if int(key[0]) > numbers[0]]:
                    del chunk.kept[at][key]
            return

    def give_up(self) -> None:
        if self.chunks:
            chunk, _, _ = self.chunks.pop(self.numbers.randrange(len(self.chunks)))
            self.map.give_up(chunk)

    def step(self) -> None:
        draw = self.numbers.random()
        died = False
        if draw < 0.35:
            self.source.change()
        elif draw < 0.6:
            died = self.apply_batch(locked=self.numbers.random() < 0.2)
        elif draw < 0.75:
            if len(self.chunks) < 3:
                self.begin_chunk()
        elif draw < 0.9:
            died = self.land()
        elif draw < 0.93:
            self.give_up()
        elif draw < 0.96:
            self.shorten()
        elif draw < 0.98:
            died = self.apply_batch(die_after=self.numbers.randrange(TARGETS))
        else:
            died = self.land(die_after=self.numbers.randrange(TARGETS))
        if died:
            self.begin()

    def finish(self) -> None:
        self.unlock()
        while not self.map.complete:
            self.begin_chunk()
            self.land()
        while self.position < self.source.now:
            self.apply_batch()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 1 << 32))
def test_however_it_is_played_the_targets_end_as_the_source(seed: int) -> None:
    world = World(seed)
    for _ in range(world.numbers.randint(20, 250)):
        world.step()
    world.finish()
    for at, target in enumerate(world.targets):
        expected = {KEY.of(row): row for row in world.source.rows.values() if ROUTE.place(row) == at}
        assert target.rows == expected
        assert target.position == world.source.now
