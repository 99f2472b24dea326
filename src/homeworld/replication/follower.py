"""Following one source server: its changes are applied in order, for all its tables and all targets.

Theory of operation. Batches come from a reader thread. Each table's map says what becomes of a key: apply,
keep with a chunk, drop; the rest is carried out on all targets. Meanwhile the follower holds the gate. A
batch that met locks is done again with the gate open in between, so that a copier which holds those locks
can finish; until it is done the position is not *settled* and no chunk may begin. A source transaction too
large for one batch is applied in parts inside one target transaction, and the gate stays shut until it ends.

Invariant: while the gate is free and the follower is settled, every change up to ``position`` has been
applied, kept or dropped, and none after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from homeworld.model.errors import DeadlineExceededError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint
from homeworld.replication.applier import Appliers
from homeworld.replication.changes import DdlEvent, FeedBatch, RowChange, TableName
from homeworld.replication.chunks import Chunk, Outcome, TableMap
from homeworld.replication.coalesce import Fresh, Outcomes, coalesce
from homeworld.replication.connection import Connection
from homeworld.replication.gate import Gate
from homeworld.replication.moving import MovingTable
from homeworld.replication.on_ddl import DdlStopError, OnDdlRule
from homeworld.replication.reading import FeedReader, Singly
from homeworld.replication.rivals import Rivals
from homeworld.replication.source_clock import SourceClock
from homeworld.replication.throttle import YIELD_SECONDS, Throttle, rest_after

AGAIN_SECONDS = 0.05
PATIENCE_SECONDS = 300.0
"""How long a batch is tried against locks before the mover gives up (and may be started again)."""

_TICK = 0.05
_CURRENT_SECONDS = 3.0


class CrossedError(DeadlineExceededError):
    """Rows go from one source shard to another just now, so that an applier waits for one that is held."""


class Follower:
    """One source server's applier. ``run`` is one thread's work; ``reader.run`` must be another's.

    :param tables: the moving tables of all source shards on the server.
    :param start: position to go on from; every target has what it names.
    :param stopping: set by whoever ends the mover.

    * ``rivals``: set before it runs where tables come from several source shards; ``throttle``: where others
      are to be given way to.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        tables: Sequence[MovingTable],
        appliers: Appliers,
        start: str,
        rule: OnDdlRule,
        stopping: threading.Event,
        *,
        prepared_elsewhere: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.tables: Mapping[TableName, MovingTable] = {table.name: table for table in tables}
        self.appliers = appliers
        self.gate = Gate()
        self.rivals: Rivals | None = None
        self.throttle: Throttle | None = None
        self.throttled_by = ""
        self.settled = True
        self.events = 0
        self.reader = FeedReader(
            endpoint, start, self._definitions(), stopping, prepared_elsewhere=prepared_elsewhere
        )
        self._rule = rule
        self._stopping = stopping
        self._position = start
        self._parsed = Position.parse(endpoint.flavor, start)
        self._undecided: Position | None = None  # prepared (XA) at that position
        self._moved = threading.Condition()
        self._inside = False  # the gate is ours
        self._parts = False  # a source transaction is applied in part
        self._again_since = 0.0  # since when such a one is read again and again
        self._staged: list[tuple[Chunk, int, Outcome]] = []
        self._order: Connection | None = None
        self._holding = False
        self._hold_at: Position | None = None
        self._held = threading.Event()
        self._clock = SourceClock(endpoint)
        self._known_at = time.monotonic()
        self._current = False
        self._stamp: int = 0  # of the newest event that the time was told by
        self._worked = 0.0  # seconds that the last batch took
        self.reader.give_singly(Singly.AHEAD, singly=appliers.uneven)

    @property
    def position(self) -> str:
        """Everything up to here is dealt with; exact with the gate held and ``settled``."""
        return self._position

    @property
    def lag_seconds(self) -> float:
        """How far the targets are behind the source's clock; 0 while nothing more is known to come."""
        behind = max(0.0, time.monotonic() - self._known_at)
        return 0.0 if self._current and behind < _CURRENT_SECONDS else behind

    def catch_up(self) -> None:
        """Write the position on every target now. From any thread.

        After it no target is behind the others: a later start of the stream gives no old change again to one
        that is not to have it any more.
        """
        with self.gate:
            if self.settled:
                self.appliers.catch_up(self._position)

    def run(self) -> None:
        """Apply until stopped.

        :raises DdlStopError: a schema change ends it.
        :raises HomeworldError: following is over for another reason.
        """
        try:
            while not self._stopping.is_set():
                if self._rests():
                    continue
                batch = self.reader.take(_TICK)
                if batch is not None:
                    self._give_way(batch)
                    self._take(batch)
                self.throttled_by = ""
            if self.settled and not self._inside:
                with self.gate:
                    self.appliers.flush(self._position)
        finally:
            try:
                self.appliers.rollback()
            finally:  # whatever becomes of that: copiers wait for the gate, also to end
                if self._inside:
                    self._leave()
                if self._order is not None:
                    self._order.close()

    def _give_way(self, batch: FeedBatch) -> None:
        """Wait before a batch for as long as others are to be given way to, but never so that the targets are
        more than YIELD_SECONDS behind by it. Nothing is open and the gate is free.
        """
        throttle = self.throttle
        if throttle is None or self._parts or not batch.changes:
            return
        begun = time.monotonic()
        rest = rest_after(self._worked, throttle.ratio)
        while not self._stopping.is_set() and not self._holding:
            waited = time.monotonic() - begun
            why = throttle.applying() or (throttle.resting() if waited < rest else "")
            self.throttled_by = why
            # What is not applied yet is younger than what is known of; the second guards against odd clocks.
            if not why or time.monotonic() - self._known_at > YIELD_SECONDS or waited > YIELD_SECONDS:
                return
            self._current = False
            self._stopping.wait(_TICK)

    def _definitions(self) -> dict[TableName, Table]:
        return {name: table.table for name, table in self.tables.items()}

    def _take(self, batch: FeedBatch) -> None:
        begun = time.monotonic()
        if batch.discard_unfinished and self._parts:
            self._roll_back()
            self.settled = True
            self._leave()
        (ddl,) = batch.ddl or (None,)
        news = bool(batch.changes) or self._parts or batch.position != self._position
        if (
            ddl is not None
            and not batch.changes
            and not self._parts
            and ddl.position_before == self._position
        ):
            done = True  # so that a copy which waits for the statement does not begin in front of it
        elif batch.mid_transaction:
            done = self._apply(batch.changes, None, batch.unfinished)
        elif news:
            end = ddl.position_before if ddl else batch.position
            done = self._apply(batch.changes, end, end)
        else:
            done = True
        self._worked = time.monotonic() - begun
        if not done:
            return  # nor may what comes behind it count as done
        if batch.undecided or self._undecided is not None:
            with self._moved:
                told = batch.undecided
                self._undecided = Position.parse(self.endpoint.flavor, told) if told else None
                self._moved.notify_all()
        self._current = batch.caught_up
        if batch.caught_up:
            self._known_at = time.monotonic()
        elif batch.timestamp and (news or batch.timestamp != self._stamp):
            # Where nothing came, the newest event says nothing that was not known: it may be of long ago.
            known_at = self._clock.moment(float(batch.timestamp))
            self._known_at = self._known_at if known_at is None else known_at
        self._stamp = batch.timestamp
        if ddl is not None:
            self._pass_over(ddl, batch.position)

    def _apply(self, changes: Sequence[RowChange], position: str | None, end: str) -> bool:
        """Apply a batch. ``position`` None: its last transaction goes on in the next one.

        :param end: the position that it leads to.
        :returns: whether it is applied; if not it is to be read again, or the mover is being stopped.
        """
        number = len(self.appliers.targets)
        routes = {name: table.route for name, table in self.tables.items()}
        fresh: Fresh | None = None if self.rivals is None else [{} for _ in range(number)]
        outcomes: Outcomes = [{} for _ in range(number)]
        if changes:
            outcomes = coalesce(changes, routes, number, fresh)
        if not self._inside:
            self._enter()
        self.settled = False
        self._sift(outcomes)
        targets: Sequence[int] = range(number)
        if self.rivals is not None and fresh is not None:
            until = Position.parse(self.endpoint.flavor, end)
            targets = self.appliers.lacking(until)
            self.rivals.verdicts.admit(outcomes, fresh, until, targets)
        if position is not None:
            self._hand_over()
        events = [sum(map(len, outcome.values())) for outcome in outcomes]
        self._keep_verdicts(targets)
        again = self.appliers.apply(outcomes, events, position, targets, fresh)
        if again and (position is None or self._parts):
            now = time.monotonic()
            self._again_since = self._again_since or now
            if now - self._again_since > PATIENCE_SECONDS:
                raise UnavailableError("rows of the target have been locked by another for too long")
            self._read_again(end, again if position is not None else None)
            self._leave()
            self._stopping.wait(AGAIN_SECONDS)
            self._decide(outcomes, fresh, end, again if position is not None else None, whole=False)
            return False
        deadline = time.monotonic() + PATIENCE_SECONDS
        while again:
            # Whoever holds the locks may be a copier that waits for the gate.
            self._leave()
            if self._stopping.wait(AGAIN_SECONDS) or not self._decide(
                outcomes, fresh, end, again, whole=True
            ):
                return False
            if time.monotonic() > deadline:
                raise UnavailableError("rows of the target have been locked by another for too long")
            self._enter()
            self._keep_verdicts(again)
            again = self.appliers.apply(outcomes, events, position, again, fresh)
        self.events += len(changes)
        self._parts = position is None
        if position is not None:
            self._settle(position)
        return True

    def _keep_verdicts(self, targets: Sequence[int]) -> None:
        """Have what counts beyond a batch kept with its position: the next mover reads on from there."""
        if self.rivals is not None:
            for at in targets:
                self.appliers.targets[at].verdicts = self.rivals.verdicts.text(at)

    def _decide(
        self, outcomes: Outcomes, fresh: Fresh | None, end: str, again: Sequence[int] | None, *, whole: bool
    ) -> bool:
        """Decide what is contested on targets. The gate is free: other followers may have to come by.

        :param again: the targets that have not committed the batch; None: nobody has.
        :param whole: the batch is no part of a transaction.
        :returns: false if the batch is to be read again, or the mover is being stopped.
        """
        contested, self.appliers.contested = self.appliers.contested, {}
        if self.rivals is None or fresh is None:
            return True
        try:
            for at, name in contested.items():
                mine = fresh[at].setdefault(name, set())
                if not self.rivals.decide(at, name, outcomes[at], mine, whole=whole):
                    self.rivals.verdicts.be_alone(Position.parse(self.endpoint.flavor, end))
                    self.reader.give_singly(Singly.CONTESTED, singly=True)
                    self._enter()  # whoever writes the position meanwhile uses the same sessions
                    self._read_again(end, again)
                    self._leave()
                    return False
        except DeadlineExceededError:
            if not self._stopping.is_set():
                raise
            return False
        return True

    def _settle(self, position: str) -> None:
        parsed = Position.parse(self.endpoint.flavor, position)
        if self.rivals is not None:
            self.rivals.verdicts.passed(parsed if self._undecided is None else parsed.union(self._undecided))
            self.appliers.reach(parsed)
            self.reader.give_singly(Singly.CONTESTED, singly=self.rivals.verdicts.alone_until is not None)
            self.reader.give_singly(Singly.AHEAD, singly=self.appliers.uneven)
        with self._moved:
            self._position, self._parsed = position, parsed
            self.settled = True
            self._moved.notify_all()
        self._again_since = 0.0
        self._leave()

    def _enter(self) -> None:
        self.gate.acquire()
        self._inside = True

    def _leave(self) -> None:
        self._inside = False
        self.gate.release()

    def _roll_back(self) -> None:
        """What was applied of a transaction in parts is undone: it will be read anew."""
        self.appliers.rollback()
        self._staged.clear()
        self._parts = False
        if self.rivals is not None:
            self.rivals.verdicts.begin_again()

    def _read_again(self, end: str, again: Sequence[int] | None) -> None:
        """Read anew what comes after the position.

        :param again: the targets that have not what leads to ``end``; None: nobody has.
        """
        self._roll_back()
        if again is not None and self.rivals is not None:
            self.appliers.leave_behind(again, Position.parse(self.endpoint.flavor, end))
            self.reader.give_singly(Singly.AHEAD, singly=self.appliers.uneven)
        self.reader.begin_again(self._position, self._definitions())
        self.settled = True

    def _sift(self, outcomes: Outcomes) -> None:
        """Take out of the outcomes what is not to be applied: kept with a chunk, or dropped."""
        for target, outcome in enumerate(outcomes):
            for name in list(outcome):
                moving = self.tables[name].map
                if moving.untouched:
                    del outcome[name]
                elif not moving.complete:
                    kept = moving.sift(self._ordering(moving), target, outcome[name])
                    self._staged += ((chunk, target, rows) for chunk, rows in kept)

    def _ordering(self, moving: TableMap) -> Connection | None:
        if moving.key.on_server and self._order is None:
            self._order = Connection(self.endpoint)
        return self._order

    def _hand_over(self) -> None:
        """Give the chunks what was kept for them, now that its transaction has ended."""
        for chunk, target, rows in self._staged:
            chunk.kept[target].update(rows)
        self._staged.clear()

    def _pass_over(self, ddl: DdlEvent, position: str) -> None:
        tables = [self.tables[name] for name in sorted(ddl.tables)]
        with self.gate:
            for table in tables:
                table.closed = True
        while self._busy(tables):
            if self._stopping.wait(_TICK):
                return
        self._enter()
        try:
            after = self._rule.pass_over(ddl, tables)
        except DdlStopError:
            # Nothing before the statement may be given again to tables that are altered meanwhile.
            self.appliers.catch_up(ddl.position_before)
            for target in self.appliers.targets:
                target.stop_before(ddl.position_before)
            raise
        for table in tables:
            table.redefine(after[table.name])
        lacking = self.appliers.lacking(Position.parse(self.endpoint.flavor, position))
        for at, target in enumerate(self.appliers.targets):
            target.writers.update({table.name: table.writers[at] for table in tables})
            if at in lacking:
                target.flush(position, [(table.streams[at], table.table) for table in tables])
        for table in tables:
            table.closed = False
        self.reader.go_on_after_ddl(self._definitions())
        self._settle(position)

    def _busy(self, tables: Sequence[MovingTable]) -> bool:
        with self.gate:
            return any(table.map.busy for table in tables)

    def _seen(self) -> Position:
        """What is dealt with and what is only prepared (XA): MySQL counts that as executed, and nobody sees
        it before it is decided.
        """
        parsed, undecided = self._parsed, self._undecided
        return parsed if undecided is None else parsed.union(undecided)

    def _has(self, wanted: Position) -> bool:
        return self._parsed.contains(wanted) or self._seen().contains(wanted)

    def wait(self, position: str, timeout_seconds: float) -> None:
        """Return once everything in ``position`` has been applied: what is prepared in it (XA), too, and so
        decided.

        :raises DeadlineExceededError: not in time.
        """
        wanted = Position.parse(self.endpoint.flavor, position)
        deadline = time.monotonic() + timeout_seconds
        with self._moved:
            while not self._parsed.contains(wanted):
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping.is_set():
                    raise DeadlineExceededError(f"the targets have not applied {position} in time")
                self._moved.wait(min(left, 1.0))

    def passed(self, position: str, timeout_seconds: float) -> bool:
        """Whether everything in ``position`` that is committed has been applied, within the time."""
        wanted = Position.parse(self.endpoint.flavor, position)
        deadline = time.monotonic() + timeout_seconds
        with self._moved:
            while not self._has(wanted):
                left = deadline - time.monotonic()
                if left <= 0 or self._stopping.is_set():
                    return False
                self._moved.wait(min(left, 1.0))
        return True

    @property
    def rests(self) -> bool:
        """Whether it is held and has come to rest where it was told to."""
        wanted = self._hold_at
        return self._holding and self._held.is_set() and (wanted is None or self._has(wanted))

    @property
    def passes_over(self) -> bool:
        """Whether the targets lack a row of ours here for what another server's shard does only later."""
        return self.rivals is not None and self.rivals.verdicts.ahead_of(self._seen())

    @property
    def blocked(self) -> bool:
        """Whether it waits for another server's follower that rests, and so for as long as that does."""
        return self.rivals is not None and self.rivals.blocked

    def hold(self, timeout_seconds: float, crossed: Callable[[], bool] = lambda: False) -> None:
        """Apply nothing more until told, and from then on transaction by transaction.

        When it returns, whatever was put together before stands before the end that the log has from now on.

        :param crossed: whether it would wait in vain.
        :raises DeadlineExceededError: the batch under way did not end in time; nothing is held.
        :raises CrossedError: nor will it; nothing is held.
        """
        self.reader.give_singly(Singly.HELD, singly=True)
        seen = self.reader.cycles
        self._held.clear()
        self._hold_at = None
        self._holding = True
        self._until(
            lambda: self._held.is_set() and self.reader.older_batch_is_out(seen), timeout_seconds, crossed
        )

    def advance(self, position: str) -> None:
        """While held: apply up to the first end of a transaction that has all of ``position``; hold again."""
        self._held.clear()
        self._hold_at = Position.parse(self.endpoint.flavor, position)

    def come_to_rest(self, timeout_seconds: float, crossed: Callable[[], bool] = lambda: False) -> None:
        """Return once it is where :meth:`advance` has told it to hold again.

        :param crossed: whether it would wait in vain.
        :raises DeadlineExceededError: not in time; the hold is over.
        :raises CrossedError: nor will it; the hold is over.
        """
        wanted = self._hold_at

        def there() -> bool:
            if not self._held.is_set():
                return False
            # It may have been set by a look at the position before.
            reached = wanted is None or self._has(wanted)
            if not reached:
                self._held.clear()
            return reached

        self._until(there, timeout_seconds, crossed)

    def release(self) -> None:
        """Go on. No-op where nothing is held."""
        self.reader.give_singly(Singly.HELD, singly=False)
        self._holding = False

    def _until(self, there: Callable[[], bool], timeout_seconds: float, crossed: Callable[[], bool]) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not there():
            if crossed():
                self.release()
                raise CrossedError
            if time.monotonic() > deadline or self._stopping.is_set():
                self.release()
                raise DeadlineExceededError("the applier did not come to rest in time")
            time.sleep(_TICK / 10)

    def _rests(self) -> bool:
        """Whether a hold is in force now; waits a moment then."""
        wanted = self._hold_at
        if not self._holding or self._parts or (wanted is not None and not self._has(wanted)):
            return False
        self._held.set()
        time.sleep(_TICK / 10)
        return True
