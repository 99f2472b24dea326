"""What becomes of a move when the source's schema changes under it: the four answers."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.movers import MoverProgress, OnDdl, Phase, Placement
from homeworld.replication.applier import TargetApplier
from homeworld.replication.mover import RunningMover
from homeworld.replication.on_ddl import DdlStopError
from tests.support.moves import Move, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = "CREATE TABLE t (id INT PRIMARY KEY, o INT NOT NULL, v VARCHAR(20))"
FILL = "INSERT INTO t (id, o, v) VALUES " + ", ".join(f"({n}, {n % 10}, 'v{n}')" for n in range(3000))


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio)
    made.create(CREATE, "CREATE TABLE other (id INT PRIMARY KEY)", FILL)
    made.prepare(Placement("t", "xxhash", ("o",)))
    return made


def started(move: Move, answer: OnDdl, epoch: int = 1, **changes: object) -> RunningMover:
    mover = RunningMover(move.spec(epoch, on_ddl=answer, **changes), chunk_bytes=10_000)
    mover.start()
    return mover


def on_targets(move: Move, statement: str) -> None:
    for place in move.targets:
        move.server_of(place).query(statement, place.schema)


def settled(move: Move, mover: RunningMover) -> None:
    mover.drain(move.positions(), 30)
    move.assert_equal()


def test_stop_names_the_statement_and_goes_on_once_the_target_fits(move: Move) -> None:
    mover = started(move, OnDdl.STOP)
    wait_copied(mover)
    move.create("INSERT INTO t VALUES (9000, 1, 'before')", "ALTER TABLE other ADD x INT")
    settled(move, mover)
    move.create("ALTER TABLE t ADD w INT DEFAULT 5", "INSERT INTO t VALUES (9001, 1, 'after', 6)")
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL
    assert "ALTER TABLE t ADD w INT DEFAULT 5" in progress.ddl
    assert f"'w' of table 't' is missing on {move.targets[0].keyspace}/" in progress.ddl
    assert progress.error == ""
    again = wait_over(started(move, OnDdl.STOP, 2))
    assert again.phase is Phase.DDL
    on_targets(move, "ALTER TABLE t ADD w INT DEFAULT 5")
    last = started(move, OnDdl.STOP, 3)
    wait_copied(last)
    settled(move, last)
    move.create("CREATE INDEX v ON t (v)")
    progress = wait_over(last)
    assert progress.phase is Phase.DDL
    assert "missing" not in progress.ddl
    final = started(move, OnDdl.STOP, 4)
    move.create("UPDATE t SET v='x' WHERE id < 9")
    settled(move, final)
    final.stop(60)


def test_ignore_goes_on_while_rows_still_fit(move: Move) -> None:
    mover = started(move, OnDdl.IGNORE)
    wait_copied(mover)
    move.create("CREATE INDEX v ON t (v)", "UPDATE t SET v='x' WHERE id < 9")
    settled(move, mover)
    move.create("ALTER TABLE t ADD w INT", "UPDATE t SET w=1 WHERE id < 9")
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL
    assert "'w' of table 't' is missing" in progress.ddl


@pytest.mark.parametrize("answer", [OnDdl.EXEC, OnDdl.EXEC_IGNORE])
def test_exec_carries_statements_to_every_target(move: Move, answer: OnDdl) -> None:
    mover = started(move, answer, copy_threads=1)
    wait_for(mover, lambda p: sum(t.rows_copied for t in p.tables) > 300)
    schema = move.schema
    move.create(
        f"ALTER TABLE `{schema}`.t ADD w INT NOT NULL DEFAULT 5, MODIFY v VARCHAR(90)",
        "INSERT INTO t VALUES (9001, 1, 'after', 6)", "UPDATE t SET w=7 WHERE id < 100",
        "ALTER TABLE t DROP COLUMN w", "UPDATE t SET v='dropped' WHERE id < 50",
        "ALTER TABLE t ADD x VARCHAR(9) FIRST", "UPDATE t SET x='x' WHERE id > 2000",
    )  # fmt: skip
    wait_copied(mover)
    settled(move, mover)
    move.create("TRUNCATE TABLE t", "INSERT INTO t VALUES ('n', 1, 1, 'new')", "CREATE INDEX x ON t (x)")
    settled(move, mover)
    for place in move.targets:
        assert {row[2] for row in move.server_of(place).query(f"SHOW INDEX FROM {place.schema}.t")} == {
            "PRIMARY",
            "x",
        }
    mover.stop(60)


def test_exec_stops_where_a_target_refuses_and_exec_ignore_does_not(move: Move) -> None:
    on_targets(move, "ALTER TABLE t ADD KEY mine (v)")
    mover = started(move, OnDdl.EXEC)
    wait_copied(mover)
    move.create("CREATE INDEX mine ON t (v)", "UPDATE t SET v='x' WHERE id=1")
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL
    assert "Duplicate key name" in progress.ddl
    ignoring = started(move, OnDdl.EXEC_IGNORE, 2)
    settled(move, ignoring)
    ignoring.stop(60)


@pytest.mark.parametrize("statement", ["DROP TABLE t", "RENAME TABLE t TO was_t"])
def test_a_table_that_goes_away_stops_the_move(move: Move, statement: str) -> None:
    mover = started(move, OnDdl.EXEC)
    wait_copied(mover)
    move.create(statement)
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL
    assert statement.split(maxsplit=1)[0] in progress.ddl  # servers rewrite a DROP
    for place in move.targets:
        assert move.server_of(place).query("SELECT COUNT(*) FROM t", place.schema)[0][0] > 0


def test_altered_while_no_mover_looked(move: Move) -> None:
    mover = started(move, OnDdl.EXEC, copy_threads=1)
    wait_for(mover, lambda p: sum(t.rows_copied for t in p.tables) > 0)
    mover.stop(60)
    move.create(
        "UPDATE t SET v='old' WHERE id < 40", "ALTER TABLE t ADD w INT", "UPDATE t SET w=2 WHERE id > 2900"
    )
    again = started(move, OnDdl.EXEC, 2)
    wait_copied(again)
    settled(move, again)
    again.stop(60)


def test_a_carried_statement_is_not_run_twice(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    mover = started(move, OnDdl.EXEC)
    wait_copied(mover)
    flush = TargetApplier.flush

    def dies(self: TargetApplier, position: str, definitions: object = ()) -> None:
        if definitions:
            raise ConnectionError("the mover dies between the statement and its position")
        flush(self, position)

    monkeypatch.setattr(TargetApplier, "flush", dies)
    move.create("ALTER TABLE t ADD w INT", "UPDATE t SET w=2 WHERE id > 2900")

    def over(progress: MoverProgress) -> bool:
        return progress.phase is Phase.FAILED

    assert wait_for(mover, over).retryable
    monkeypatch.undo()
    again = started(move, OnDdl.EXEC, 2)
    settled(move, again)
    again.stop(60)


@pytest.mark.parametrize("rows", [1, 3500], ids=["a row", "more than a batch"])
@pytest.mark.parametrize("stopped", [False, True], ids=["goes on", "stopped"])
def test_a_statement_does_not_overtake_rows_that_wait_for_locks(
    move: Move, rows: int, *, stopped: bool
) -> None:
    first = started(move, OnDdl.IGNORE)
    wait_copied(first)
    first.drain(move.positions(), 30)
    first.stop(60)
    listed = ", ".join(f"({n}, 1, 'new')" for n in range(5000, 5000 + rows))
    move.create(f"INSERT INTO t VALUES {listed}", "ALTER TABLE t ADD KEY mine (v)")
    final = move.positions()
    with ExitStack() as stack:
        for place in move.targets:
            blocker = stack.enter_context(move.server_of(place).connect(schema=place.schema))
            blocker.begin()
            blocker.cursor().execute(f"INSERT INTO t VALUES ({4999 + rows}, 1, 'in the way')")
        mover = started(move, OnDdl.IGNORE, 2)
        with pytest.raises(DeadlineExceededError):
            mover.drain(final, 1.5)
        if stopped:
            mover.stop(60)
            mover = started(move, OnDdl.IGNORE, 3)
    settled(move, mover)
    mover.stop(60)


@pytest.mark.parametrize("answer", [OnDdl.EXEC, OnDdl.STOP])
@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE t ADD at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)",
        "ALTER TABLE t ADD n INT NOT NULL AUTO_INCREMENT, ADD KEY (n)",
        "SET SESSION explicit_defaults_for_timestamp=OFF; ALTER TABLE t ADD at TIMESTAMP",
    ],
)
def test_values_of_a_statement_s_own_run_are_not_made_a_second_time(
    move: Move, answer: OnDdl, statement: str
) -> None:
    mover = started(move, answer)
    wait_copied(mover)
    move.create(*statement.split("; "))
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL
    assert not progress.retryable
    assert "rows that are there" in progress.ddl
    for place in move.targets:
        assert len(move.server_of(place).query(f"SHOW COLUMNS FROM {place.schema}.t")) == 3


def test_a_timestamp_without_a_default_is_carried_where_no_server_thinks_one_up(move: Move) -> None:
    mover = started(move, OnDdl.EXEC)
    wait_copied(mover)
    on, off = (f"SET SESSION explicit_defaults_for_timestamp={value}" for value in ("ON", "OFF"))
    move.create(on, "ALTER TABLE t ADD at TIMESTAMP(3)", "UPDATE t SET at=NOW(3) WHERE id < 9")
    move.create(off, "ALTER TABLE t ADD since TIMESTAMP NULL", "UPDATE t SET since=NOW() WHERE id < 9")
    settled(move, mover)
    there = move.server_of(move.targets[-1])
    there.query("SET GLOBAL explicit_defaults_for_timestamp=OFF")
    try:
        move.create(on, "ALTER TABLE t ADD seen TIMESTAMP")
        progress = wait_over(mover)
    finally:
        there.query("SET GLOBAL explicit_defaults_for_timestamp=ON")
    assert progress.phase is Phase.DDL
    assert not progress.retryable
    assert "explicit_defaults_for_timestamp" in progress.ddl


def test_what_is_told_while_it_ends_belongs_together(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop for good must not be told as one to go on from, because its reason was looked at too early."""
    mover = RunningMover(move.spec(1))
    looks = iter([Phase.COPYING])
    turning = property(lambda _mover: next(looks, Phase.DDL), lambda _mover, _phase: None)
    monkeypatch.setattr(RunningMover, "_phase", turning, raising=False)
    monkeypatch.setattr(mover, "_ddl", "DROP TABLE t")
    monkeypatch.setattr(mover, "_failure", DdlStopError("DROP TABLE t", final=True))
    told, after = mover.progress(), mover.progress()
    assert (told.phase, told.ddl, told.retryable) == (Phase.COPYING, "", True)
    assert (after.phase, after.ddl, after.retryable) == (Phase.DDL, "DROP TABLE t", False)
