"""Verifying a move: both sides are looked at as of one exact position of each source.

Theory of operation. Snapshots of both sides are opened that show one moment of each source (see
:mod:`homeworld.replication.meeting`); from then on the comparison has all the time it needs. That is a round.
One whose sessions are lost is followed by another, here or in a later mover's process, which goes on with
what is left (docs/decisions/verify.md).

Invariant: a verification is completed only when every range of every table was compared on such snapshots,
and nothing that happened since a range's round could have made its sides differ; everything else is an error
with its reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import replace

from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    ServerError,
    StoppedError,
    is_outage,
)
from homeworld.model.movers import TableVerification, Verification, VerificationRound
from homeworld.model.names import quote
from homeworld.model.topology import Flavor, ShardPlace
from homeworld.replication.assembly import Assembly, stream_id
from homeworld.replication.checksum import Sum
from homeworld.replication.coalesce import Route
from homeworld.replication.compared import Kept, Record, Round, with_rows
from homeworld.replication.comparing import Gaps, TableComparison
from homeworld.replication.connection import Connection
from homeworld.replication.foreign_writes import foreign_writes
from homeworld.replication.keyorder import Key
from homeworld.replication.lanes import IncomparableError, Lane, LostLaneError
from homeworld.replication.likeness import hold_alike
from homeworld.replication.meeting import meet
from homeworld.replication.narrowing import KEYS_KEPT
from homeworld.replication.repairing import Repairer, refusal

ROUNDS_TRIED = 5
"""How often a round that lost a session is followed by another before the verification is given up."""
FIRST_PAUSE = 1.0
_LONG_LIST = 1 << 30
_IDLE_SECONDS = 7 * 86400
_NO_SUCH_FUNCTION = 1305


class Verifier:
    """One verification. ``run`` is one thread's work; the rest may be called from any.

    :param made: a mover whose copy is complete.
    :param verify_id: where a verification of this name was begun by an earlier mover, it is gone on with.
    :param repair: copy rows that differ once more, and compare them again.
    """

    def __init__(
        self, made: Assembly, verify_id: str, stopping: threading.Event, *, repair: bool = False
    ) -> None:
        self._made = made
        self._id = verify_id
        self._repair = repair
        self._differing: dict[str, tuple[Key, ...]] = {}
        self._note = ""
        self._cuts: list[Callable[[], None]] = []
        self._stopping = stopping
        self._lock = threading.Lock()
        self._state = "pending"
        self._error = ""
        self._begun = 0.0
        self._rows = 0  # compared by this process
        self._tables: dict[str, TableVerification] = {}
        self._kept: dict[str, Kept] = {}
        self._rounds: tuple[Round, ...] = ()
        self._comparison: TableComparison | None = None
        self._sessions: list[Connection] = []
        self._passed = 0
        for table in made.tables:
            known = self._tables.get(table.table.name)
            before = known.rows_total if known else 0
            self._tables[table.table.name] = _pending(table.table.name, before + table.rows_total)

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return self._state in {"completed", "error"}

    def progress(self) -> Verification:
        """How far it is."""
        with self._lock:
            found = dict(self._tables)
            comparison, state, error = self._comparison, self._state, self._error
            rows, kept, rounds = self._rows, dict(self._kept), self._rounds
        if comparison is not None:
            rows += comparison.rows
            found[comparison.table.name] = comparison.result("started")
            name = comparison.table.name
            kept[name] = with_rows(kept[name], rounds[-1].number, (), comparison.rows_equal)
        tables = tuple(found.values())
        compared = sum(table.rows_compared for table in tables)
        total = sum(table.rows_total for table in tables)
        spent = time.monotonic() - self._begun
        rate = rows / spent if state == "started" and rows and spent > 0 else 0.0
        return Verification(
            self._id,
            state,
            compared,
            total,
            (total - compared) / rate if rate else 0.0,
            tables,
            error,
            rate,
            tuple(
                VerificationRound(
                    one.number,
                    one.begun_at,
                    one.sources,
                    sum(each.rows.get(one.number, 0) for each in kept.values()),
                    one.note,
                )
                for one in rounds
            ),
        )

    def run(self) -> None:
        """Compare all tables. What goes wrong is told by :meth:`progress`; the mover goes on."""
        self._begun = time.monotonic()
        self._state = "started"
        try:
            self._go_on()
        except HomeworldError as error:
            # Where the mover is ending, that is nothing about the data: a later one goes on.
            if not self._stopping.is_set():
                self._end("error", str(error) or error.message)
        except BaseException as error:
            self._end("error", f"{type(error).__name__}: {error}")
            raise
        else:
            self._end("completed", "")

    def _end(self, state: str, error: str) -> None:
        self._drop_comparison("error")
        with self._lock:
            self._state, self._error = state, error

    def cut(self) -> None:
        """End all sessions from any thread."""
        for session in tuple(self._sessions):
            session.abort()
        for cut in tuple(self._cuts):
            cut()

    def _go_on(self) -> None:
        self._rounds_till_done()
        if self._repair and self._differing:
            self._note = self._put_right()
            self._rounds_till_done()

    def _put_right(self) -> str:
        """Copy what differs once more; what the next round says of it."""
        why = refusal(self._made)
        if why:
            raise IncomparableError(f"rows that differ cannot be put right: {why}")
        for name, keys in self._differing.items():
            if len(keys) > KEYS_KEPT:
                raise IncomparableError(
                    f"rows that differ cannot be put right: in table {name!r} more than {KEYS_KEPT:,} do; "
                    "cancel the workflow and create it anew"
                )
        repairer = Repairer(self._made, self._stopping)
        self._cuts.append(repairer.cut)
        try:
            for name, keys in self._differing.items():
                repairer.repair(name, keys)
        finally:
            self._cuts.clear()
            repairer.close()
        told = "; ".join(f"{len(keys)} of table {name}" for name, keys in self._differing.items())
        self._differing = {}
        return f"rows were copied once more: {told}"

    def _rounds_till_done(self) -> None:
        pause = FIRST_PAUSE
        for number in range(ROUNDS_TRIED):
            try:
                self._round()
            except HomeworldError as error:
                lost = isinstance(error, LostLaneError) or (
                    is_outage(error) and not isinstance(error, DeadlineExceededError)
                )
                if not lost or number == ROUNDS_TRIED - 1 or self._stopping.wait(pause):
                    raise
                pause *= 2
                self._drop_comparison("pending")
            else:
                break
            finally:
                sessions, self._sessions = self._sessions, []
                for session in sessions:
                    session.close()
        left = [table.table for table in self._tables.values() if table.state != "completed"]
        if left:
            raise IncomparableError(f"not compared to their end: {', '.join(left)}")

    def _drop_comparison(self, state: str) -> None:
        with self._lock:
            if self._comparison is not None:
                self._rows += self._comparison.rows
                self._tables[self._comparison.table.name] = self._comparison.result(state)
                self._comparison = None

    def _open(self, place: ShardPlace) -> Connection:
        session = self._hold(Connection(place.endpoint, timeout_seconds=3600.0))
        # A lane waits while others work: its session must not be ended for that.
        session.execute(
            f"SET SESSION group_concat_max_len={_LONG_LIST:d}, wait_timeout={_IDLE_SECONDS:d}, "
            f"net_write_timeout={_IDLE_SECONDS:d}"
        )
        return session

    def _hold(self, session: Connection) -> Connection:
        self._sessions.append(session)
        if self._stopping.is_set():
            raise StoppedError("the comparison was stopped")
        return session

    def _round(self) -> None:
        spec = self._made.spec
        self._differing = {}
        with ExitStack() as stack:
            sources = [self._open(place) for place in spec.sources]
            targets = [self._open(place) for place in spec.targets]
            bounds = [self._open(place) for place in (*spec.sources, *spec.targets)]
            stream = stream_id(spec, spec.sources[0], spec.targets[0])
            writing = self._hold(Connection(spec.targets[0].endpoint))
            record = Record(writing, stream, spec.epoch, self._id)
            begun_at = time.time()
            met = meet(self._made, sources, targets, self._stopping, self._hold)
            self._passed = met.passed
            self._begin(record, Round(0, begun_at, met.sources, met.targets), met.until)
            lanes = [
                stack.enter_context(_lane(place, session))
                for place, session in zip((*spec.sources, *spec.targets), (*sources, *targets), strict=True)
            ]
            way = _best_sum(spec.flavor, (*sources, *targets))
            for route in self._routes():
                self._compare(route, lanes[: len(sources)], lanes[len(sources) :], bounds, way, record)
            self._hold_current()

    def _begin(self, record: Record, one: Round, until: Mapping[str, str]) -> None:
        """Begin the round: with what is left of earlier ones, as far as they still count."""
        names = [placement.table for placement in self._made.spec.placements]
        rounds, kept = record.load()
        note = ""
        if rounds:
            lost = self._lost(names, rounds[-1], until)
            kept = {name: each for name, each in kept.items() if name not in lost}
            told = [f"table {name} is compared anew: {why}" for name, why in lost.items()]
            note = "; ".join([*([self._note] if self._note else []), *told])
        number = rounds[-1].number + 1 if rounds else 1
        rounds = (*rounds, replace(one, number=number, note=note))
        made = record.begin(rounds, names, kept)
        self._hold_current()
        with self._lock:
            self._rounds, self._kept = rounds, made
            for name, each in made.items():
                rows = sum(each.rows.values())
                total = max(self._tables[name].rows_total, rows)
                self._tables[name] = replace(
                    _pending(name, total), rows_compared=rows, state="pending" if each.gaps else "completed"
                )

    def _lost(self, names: Sequence[str], last: Round, until: Mapping[str, str]) -> dict[str, str]:
        """The tables of which nothing that was compared before counts any more, and why.

        :param until: target shard to the position up to which its log is read.
        """
        places = self._made.spec.targets
        try:
            return foreign_writes(places, names, last.targets, until, self._stopping)
        except StoppedError:
            raise
        except (HomeworldError, KeyError) as error:
            why = f"what was written on the targets since cannot be told ({error})"
            return dict.fromkeys(names, why)

    def _hold_current(self) -> None:
        """Hold the streams to have passed no schema statement since the snapshots were opened."""
        if self._passed != self._passed_now():
            raise IncomparableError("the schema of a table was changed while it was compared")

    def _passed_now(self) -> int:
        return sum(rule.passed for rule in self._made.rules)

    def _compare(
        self,
        route: Route,
        sources: Sequence[Lane],
        targets: Sequence[Lane],
        bounds: Sequence[Connection],
        way: Sum,
        record: Record,
    ) -> None:
        name, number = route.table.name, self._rounds[-1].number
        kept = self._kept[name]
        if not kept.gaps:
            return
        # From its first use to the snapshot's end nobody can alter a table; one altered before is refused.
        for asked in [_touch(lane, name) for lane in (*sources, *targets)]:
            asked.result()
        spec = self._made.spec
        also, rows = hold_alike(route.table, spec.sources, spec.targets)
        self._hold_current()
        gaps = Gaps(kept.gaps)

        def left() -> Kept:
            return with_rows(kept, number, gaps.open, comparison.rows_equal)

        def judged() -> None:
            self._hold_current()
            _hold_kept(name, saved=record.save(name, left(), now=False))

        comparison = TableComparison(
            route, sources, targets, bounds, way, self._stopping,
            gaps=gaps, also=also, rows_total=rows, rows_before=sum(kept.rows.values()), judged=judged,
        )  # fmt: skip
        with self._lock:
            self._comparison = comparison
        comparison.run()
        _hold_kept(name, saved=record.save(name, left(), now=True))
        with self._lock:
            self._comparison = None
            self._rows += comparison.rows
            self._kept[name] = left()
            self._tables[name] = comparison.result("completed")
        if comparison.differing:
            self._differing[name] = comparison.differing

    def _routes(self) -> list[Route]:
        first = self._made.spec.sources[0]
        return [table.route for table in self._made.tables if table.source == first]


def _pending(name: str, rows_total: int) -> TableVerification:
    return TableVerification(name, 0, 0, 0, 0, 0, rows_total=rows_total, state="pending")


def _touch(lane: Lane, table: str) -> Future[object]:
    sql = f"SELECT 1 FROM {quote(lane.place.schema, table)} LIMIT 1"
    return lane.ask(table, lambda connection: connection.query_all(sql))


def _hold_kept(table: str, *, saved: bool) -> None:
    if not saved:
        raise IncomparableError(
            f"table {table!r} was altered, or its stream taken over, while it was compared"
        )


@contextmanager
def _lane(place: ShardPlace, session: Connection) -> Generator[Lane]:
    lane = Lane(place, session)
    try:
        yield lane
    finally:
        lane.close()


def _best_sum(flavor: Flavor, sessions: Sequence[Connection]) -> Sum:
    if flavor is Flavor.MYSQL:
        return Sum.SHA
    return Sum.CRCS if all(map(_has_castagnoli, sessions)) else Sum.SHORT_SHA


def _has_castagnoli(session: Connection) -> bool:
    try:
        session.query_one("SELECT CRC32C('')")
    except ServerError as error:
        if error.server_errno != _NO_SUCH_FUNCTION:
            raise
        return False
    return True
