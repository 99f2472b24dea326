"""Streams that run in Vitess, as movers: what a workflow on Vitess has in place of a data path of ours.

They live in the cluster's tablets and outlive every process of homeworld. A mover here only starts, stops
and looks; what it makes of what Vitess says is pure (:func:`judged`). Invariants: a stream that a switch has
ended is never started again; one that stopped before a schema statement goes on only when somebody asks for
it; a cluster that does not answer is an outage, and until that lasts what was true before stays said.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from homeworld.model.clusters import HANDED_OVER, ClusterMove, ClusterMoves
from homeworld.model.errors import HomeworldError, InvalidError, UnavailableError
from homeworld.model.movers import (
    MoverProgress,
    MoverSpec,
    OnDdl,
    Phase,
    RowDifference,
    ThrottleLimits,
    Verification,
)
from homeworld.model.tables import Table
from homeworld.replication.row_effects import Rows, row_effect
from homeworld.workflows.move_tables.decide import FORWARD_STREAM, REVERSE_STREAM

LOOK_SECONDS = 1.0  # between questions; each is a process or two
SILENT_SECONDS = 15.0  # that Vitess may not answer before it counts as an outage
DEFINITIONS_SECONDS = 5.0
ATTACH_SECONDS = 30.0  # between looks for streams that this process did not start
NO_REPAIR = "rows cannot be repaired by a verification on this database's engine; cancel and move them anew"
# What changes in a definition without a word about rows or columns.
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Known:
    """What there is to know of a move besides what Vitess says.

    :param ddl: what the workflow was stopped by last, and ``ddl_at`` where its streams stood then, as it
        stands in its facts.
    :param tables: the moving tables as the side that is read has them (True: that is the target), with rows
        by the servers' estimate. None: they cannot be read now.
    """

    move: ClusterMove
    ddl: str
    ddl_at: str
    tables: Callable[[bool], Mapping[str, Table] | None]


class VitessMover:
    """Implements ``model.ports.Mover``. One thread at a time."""

    def __init__(
        self, moves: ClusterMoves, known: Known, epoch: int, *, reverse: bool, ended: Callable[[], None]
    ) -> None:
        """:param ended: called once nothing of it is to be asked for any more."""
        self.epoch = epoch
        self._moves = moves
        self._known = known
        self._reverse = reverse
        self._ended = ended
        self._verify_id = ""
        self._told = STARTING
        self._asked = 0.0
        self._answered = time.monotonic()
        self._tables: Mapping[str, Table] | None = None
        self._definitions: Mapping[str, str] | None = None
        self._definitions_asked = 0.0
        self._passed = 0
        self._rows = (time.monotonic(), 0)

    def progress(self) -> MoverProgress:
        """The newest state, at most a second old where Vitess answers."""
        now = time.monotonic()
        if now - self._asked < LOOK_SECONDS:
            return self._told
        self._asked = now
        try:
            found = self._moves.progress(self._known.move, reverse=self._reverse, verify_id=self._verify_id)
        except HomeworldError as error:
            silent = now - self._answered
            _log.warning("move %s does not say how far it is: %s", self._known.move.name, error)
            self._told = unheard(self._told, silent, str(error))
            return self._told
        self._answered = now
        self._watch(now)
        if self._tables is None:
            self._tables = self._known.tables(self._reverse)
        found = judged(found, self._tables or {}, self._known.move)
        self._told = replace(self._paced(found, now), passed=self._passed)
        return self._told

    def keep_quiet(self, until: float) -> None:
        """Ask again at that monotonic time at the earliest."""
        self._asked = until - LOOK_SECONDS
        self._answered = until  # nobody asked it meanwhile: that is no silence of its

    def _paced(self, found: MoverProgress, now: float) -> MoverProgress:
        """With how fast rows are copied, and for how long still."""
        then, before = self._rows
        rows = sum(table.rows_copied for table in found.tables)
        if rows < before or found.copied:
            self._rows = (now, rows)
            return found
        rate = (rows - before) / max(0.001, now - then)
        left = sum(max(0, table.rows_total - table.rows_copied) for table in found.tables)
        return replace(found, rows_per_second=rate, eta_seconds=left / rate if rate else 0.0)

    def _watch(self, now: float) -> None:
        """Count the schema statements that the streams go on behind: Vitess does not say so."""
        if self._known.move.on_ddl is OnDdl.STOP or now - self._definitions_asked < DEFINITIONS_SECONDS:
            return
        self._definitions_asked = now
        tables = self._known.tables(self._reverse)
        if tables is None:
            return
        found = {name: _COUNTER.sub("", table.create_sql) for name, table in tables.items()}
        if self._definitions is not None and found != self._definitions:
            self._passed += 1
        self._definitions = found

    def drain(self, positions: Mapping[str, str], timeout_seconds: float) -> None:  # noqa: ARG002
        """Nobody asks this of streams on Vitess: ``vitess_switch`` reads their positions itself, and Vitess's
        own switch drains by itself.

        :raises InvalidError: always.
        """
        raise InvalidError("streams on Vitess are not drained through their mover")

    def verify(self, verify_id: str, *, repair: bool = False) -> None:
        """Begin comparing, or go on with it.

        :raises UnavailableError: it cannot be begun now, or what is asked cannot be had.
        """
        if repair:
            raise UnavailableError(NO_REPAIR)
        self._moves.verify(self._known.move, verify_id)
        self._verify_id = verify_id
        self._asked = 0.0

    def limit(self, limits: ThrottleLimits) -> None:
        """Vitess has a throttler of its own."""

    def hurry(self, seconds: float) -> None:
        """Nothing of ours holds the streams back."""

    def stop(self, timeout_seconds: float) -> None:  # noqa: ARG002 - Vitess's commands have their own
        """Stop comparing and the streams; when this returns nothing of them writes."""
        if self._verify_id:
            self._moves.stop_verifying(self._known.move, self._verify_id)
        self._moves.stop(self._known.move, reverse=self._reverse)
        self._ended()


STARTING = MoverProgress(Phase.STARTING, False, (), (), 0.0, 0.0, 0.0)


def unheard(told: MoverProgress, silent_seconds: float, why: str) -> MoverProgress:
    """What to say while Vitess does not answer: what was so, further behind; after long, an outage."""
    lag = max(told.lag_seconds, silent_seconds)
    if silent_seconds < SILENT_SECONDS:
        return replace(told, lag_seconds=lag)
    return replace(told, phase=Phase.FAILED, lag_seconds=lag, error=why, outage=True, retryable=True)


def judged(found: MoverProgress, tables: Mapping[str, Table], move: ClusterMove) -> MoverProgress:
    """What Vitess says with what it leaves open: rows in all, keys of rows that differ, whether it may go on.

    :param tables: the moving tables as the streams read them; those that are not known are left as they are.
    """
    listed = tuple(
        replace(
            told,
            rows_total=told.rows_copied
            if found.copied
            else max(told.rows_copied, tables[told.table].rows_estimate if told.table in tables else 0),
        )
        for told in found.tables
    )
    verification = found.verification
    if verification is not None:
        verification = with_keys(verification, tables)
    emptied, retryable = going_on(found.ddl, move.tables) if found.ddl else ((), found.retryable)
    return replace(found, tables=listed, verification=verification, emptied=emptied, retryable=retryable)


def going_on(ddl: str, tables: Sequence[str]) -> tuple[tuple[str, ...], bool]:
    """The tables that have to be empty on the other side before streams go on behind a statement, and whether
    they may at all. Vitess has its position behind the statement already, so no row event will come for it.
    """
    rows = row_effect(ddl).rows
    if rows is Rows.KEPT:
        return (), True
    named = tuple(table for table in tables if re.search(rf"(?<![\w$]){re.escape(table)}(?![\w$])", ddl))
    return (named, True) if rows is Rows.EMPTIED and named else ((), False)


def with_keys(verification: Verification, tables: Mapping[str, Table]) -> Verification:
    """The same with each row that differs told by its key."""
    return replace(
        verification,
        tables=tuple(
            replace(
                compared,
                differences=tuple(_with_key(one, tables.get(compared.table)) for one in compared.differences),
            )
            for compared in verification.tables
        ),
    )


def _with_key(difference: RowDifference, table: Table | None) -> RowDifference:
    if table is None or table.key is None:
        return difference
    row = {name.lower(): (name, value) for name, value in difference.key.items()}
    found = [row[column.lower()] for column in table.key.columns if column.lower() in row]
    return replace(difference, key=dict(found)) if found else difference


class VitessMovers:
    """Implements ``model.ports.Movers`` and ``Outliving``. Safe among threads.

    :param find: what there is to know of a workflow's move, by the workflow's id.
    """

    def __init__(self, moves: ClusterMoves, find: Callable[[str], Known]) -> None:
        self._moves = moves
        self._find = find
        self._guard = threading.Lock()
        self._live: dict[tuple[str, str], VitessMover] = {}
        self._looked: dict[tuple[str, str], float] = {}

    def start(self, spec: MoverSpec) -> VitessMover:
        """Let the streams run, and look after them.

        :raises UnavailableError: the cluster does not answer.
        """
        known = self._find(spec.workflow_id)
        self._moves.start(known.move, reverse=spec.direction == REVERSE_STREAM)
        return self._look_after(spec.workflow_id, spec.direction, known, spec.epoch)

    def claim(self, spec: MoverSpec) -> None:
        """The streams began where they were made."""

    def running(self, workflow_id: str, direction: str) -> VitessMover | None:
        """The one that looks after the direction's streams; also where another process has started them."""
        key = (workflow_id, direction)
        with self._guard:
            live = self._live.get(key)
            if live is not None or time.monotonic() - self._looked.get(key, -ATTACH_SECONDS) < ATTACH_SECONDS:
                return live
            self._looked[key] = time.monotonic()
        return self._attach(workflow_id, direction)

    def leave(self, workflow_id: str) -> None:
        """Forget what looks after the workflow's streams."""
        with self._guard:
            for direction in (FORWARD_STREAM, REVERSE_STREAM):
                self._live.pop((workflow_id, direction), None)
                self._looked.pop((workflow_id, direction), None)

    def keep_quiet(self, workflow_id: str, seconds: float) -> None:
        """Say of the workflow's streams what was said last for so long; 0: no longer."""
        until = time.monotonic() + seconds
        with self._guard:
            for direction in (FORWARD_STREAM, REVERSE_STREAM):
                self._looked[workflow_id, direction] = until - ATTACH_SECONDS
                if (live := self._live.get((workflow_id, direction))) is not None:
                    live.keep_quiet(until)

    def _attach(self, workflow_id: str, direction: str) -> VitessMover | None:
        try:
            known = self._find(workflow_id)
            found = self._moves.progress(known.move, reverse=direction == REVERSE_STREAM)
        except HomeworldError:
            return None  # none, or it does not say: whoever needs them starts them, and is told why not
        ended = all(stream.unmeasured == HANDED_OVER for stream in found.streams)
        # It has been told: retry goes on. The same statement further on is another one.
        told = found.ddl in known.ddl and found.ddl_at == known.ddl_at
        asked = found.phase is Phase.DDL and told
        if ended or asked or found.phase is Phase.STOPPED:
            return None
        return self._look_after(workflow_id, direction, known, 0)

    def _look_after(self, workflow_id: str, direction: str, known: Known, epoch: int) -> VitessMover:
        key = (workflow_id, direction)

        def ended() -> None:
            with self._guard:
                if self._live.get(key) is mover:
                    del self._live[key]

        mover = VitessMover(self._moves, known, epoch, reverse=direction == REVERSE_STREAM, ended=ended)
        with self._guard:
            self._live[key] = mover
        return mover
