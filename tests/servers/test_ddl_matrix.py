"""Every kind of schema change, under every answer, in every phase of a stream: a table of what becomes of it.

Each cell is a move of its own; those of one answer and phase run at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest

from homeworld.model.errors import NotFoundError
from homeworld.model.movers import MoverProgress, OnDdl, Phase, Placement, ThrottleLimits
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = "CREATE TABLE t (id INT PRIMARY KEY, o INT NOT NULL, v VARCHAR(20), x INT)"
FILL = "INSERT INTO t (id, o, v, x) VALUES " + ", ".join(f"({n}, {n % 10}, 'v{n}', {n})" for n in range(600))
BEHIND = "UPDATE t SET v = CONCAT('n', id) WHERE id % 3 = 0"
SLOWLY = ThrottleLimits(ratio=99)

# What becomes of a stream that meets the statement:
GOES = "goes on, and both sides have the same rows"
DIFFERS = "goes on, and rows differ because that was asked for"
FITS = "stops, and goes on once the same was done on the target"
FITS_NOT = "stops, and goes on once the same was done on the target, with other values"
OVER = "stops for good"
GONE = "stops, and there is no table to go on with"
IG, S, E, EI = OnDdl.IGNORE, OnDdl.STOP, OnDdl.EXEC, OnDdl.EXEC_IGNORE

TABLE: dict[str, tuple[str, dict[OnDdl, str]]] = {
    "add an index": ("CREATE INDEX v ON t (v)", {IG: GOES, S: FITS, E: GOES, EI: GOES}),
    "add a column": ("ALTER TABLE t ADD w INT NOT NULL DEFAULT 5", {IG: FITS, S: FITS, E: GOES, EI: GOES}),
    "drop a column": ("ALTER TABLE t DROP COLUMN x", {IG: GOES, S: FITS, E: GOES, EI: GOES}),
    "widen a column": ("ALTER TABLE t MODIFY v VARCHAR(90)", {IG: FITS, S: FITS, E: GOES, EI: GOES}),
    "values of its own run": (
        "ALTER TABLE t ADD at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
        {IG: FITS_NOT, S: OVER, E: OVER, EI: DIFFERS},
    ),
    "truncate": ("TRUNCATE TABLE t", {IG: DIFFERS, S: FITS, E: GOES, EI: GOES}),
    "rename away": ("RENAME TABLE t TO was_t", {IG: GONE, S: OVER, E: OVER, EI: GONE}),
    "drop": ("DROP TABLE t", {IG: GONE, S: OVER, E: OVER, EI: GONE}),
}
# With all rows copied, IGNORE goes on behind the end of a table.
LEFT = "goes on, and the target keeps the rows"
PHASES = ("copying", "following", "while no mover looks")
ENDED = {Phase.DDL, Phase.FAILED, Phase.STOPPED}


class Cell:
    """One move that meets one statement."""

    def __init__(self, servers: Sequence[TestServer], kind: str, answer: OnDdl) -> None:
        self.kind = kind
        self.statement, outcomes = TABLE[kind]
        self.expected = outcomes[answer]
        self.answer = answer
        self.gone = kind in {"rename away", "drop"}
        self.move: Move = make_move(servers, "-", "-")
        self.move.create(CREATE, FILL)
        self.move.prepare(Placement("t"), defer=False)
        self.epoch = 0
        self.mover: RunningMover | None = None

    def start(self, *, slowly: bool = False) -> RunningMover:
        self.epoch += 1
        limits = SLOWLY if slowly else ThrottleLimits()
        spec = self.move.spec(
            self.epoch, on_ddl=self.answer, copy_threads=1, limits=limits, defer_secondary_keys=False
        )
        mover = RunningMover(spec, chunk_bytes=400)
        mover.start()
        self.mover = mover
        return mover

    def meet(self, phase: str) -> None:
        """Bring the stream into the phase and run the statement."""
        if self.gone and self.answer is OnDdl.IGNORE and phase == "following":
            self.expected = LEFT
        mover = self.start(slowly=phase != "following")
        if phase == "following":
            wait_copied(mover)
        else:
            wait_for(mover, lambda progress: any(table.rows_copied for table in progress.tables))
        if phase == "while no mover looks":
            mover.stop(60)
        assert mover.progress().copied == (phase == "following")
        gone = self.kind in {"rename away", "drop"}
        self.move.create(
            self.statement, *(() if gone else (BEHIND, "INSERT INTO t (id, o) VALUES (9000, 1)"))
        )
        if phase != "while no mover looks":
            mover.limit(ThrottleLimits())
        elif self.gone:
            with pytest.raises(NotFoundError):
                self.start()
        else:
            self.start()

    def outcome(self) -> str:
        """What became of it, as the table words it."""
        mover = self.mover
        if self.gone and self.epoch > 1:
            return self.expected  # meet() has seen that it does not start
        assert mover is not None
        told = self.rest(mover)
        if told.phase not in ENDED:
            return LEFT if self.gone else self.compared(mover)
        assert told.phase is Phase.DDL, told
        if not told.retryable:
            return OVER
        if self.gone:
            return GONE
        for place in self.move.targets:
            self.move.server_of(place).query(self.statement, place.schema)
        again = self.start()
        told = self.rest(again)
        assert told.phase not in ENDED, told
        return FITS if self.compared(again) == GOES else FITS_NOT

    def rest(self, mover: RunningMover) -> MoverProgress:
        """The mover has ended, or has copied all and applied what there is."""
        final = self.move.positions()
        deadline = time.monotonic() + 60
        while True:
            told = mover.progress()
            if told.phase in ENDED:
                return told
            if told.copied and _reached(mover, final):
                return mover.progress()
            assert time.monotonic() < deadline, told

    def compared(self, mover: RunningMover) -> str:
        mover.drain(self.move.positions(), 30)
        try:
            self.move.assert_equal()
        except (AssertionError, ValueError):
            return DIFFERS
        return GOES


def _reached(mover: RunningMover, final: dict[str, str]) -> bool:
    try:
        mover.follower_of("-").wait(final["-"], 0.2)
    except Exception:  # noqa: BLE001  the deadline, or the end that the next look tells of
        return False
    return True


@pytest.mark.parametrize("answer", list(OnDdl), ids=str)
@pytest.mark.parametrize("phase", PHASES)
def test_what_becomes_of_a_stream(trio: list[TestServer], phase: str, answer: OnDdl) -> None:
    cells = [Cell(trio, kind, answer) for kind in TABLE]
    try:
        for cell in cells:
            cell.meet(phase)
        found = {cell.kind: cell.outcome() for cell in cells}
        assert found == {cell.kind: cell.expected for cell in cells}
    finally:
        for cell in cells:
            if cell.mover is not None:
                cell.mover.stop(60)
