"""A verification that is cut off goes on with what is left, and with less where anything came in between.

Chunks are made so slow that it is known where a verification stands when its mover is killed.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import pymysql
import pytest

from homeworld.model.movers import MoverProgress, OnDdl, Phase, Placement, Verification
from homeworld.model.topology import Flavor
from homeworld.replication import compared, comparing, meeting, verifier
from homeworld.replication.chunks import Span
from homeworld.replication.connection import Connection
from homeworld.replication.mover import RunningMover
from homeworld.replication.mover_process import MoverProcesses
from tests.support.moves import PATIENCE, Move, Writers, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

ROWS = 1000
A_CHUNK = 50
STOPS_AT = 500


class Brake:
    """Lets a comparison pass up to a key, and holds it there until it is let go or its mover stops."""

    def __init__(self) -> None:
        self.table = "t"
        self.reached = threading.Event()
        self.free = threading.Event()
        self.spans: list[Span] = []

    def apply(self, monkeypatch: pytest.MonkeyPatch) -> None:
        judge: Callable[..., None] = comparing.TableComparison._judge  # pyright: ignore[reportPrivateUsage]  no other place to stop at

        def slow(one: comparing.TableComparison, span: Span, asked: Sequence[Future[object]]) -> None:
            if span.low is not None and one.table.name == self.table and int(span.low[0]) >= STOPS_AT - 1:
                self.reached.set()
                while not self.free.wait(0.02):
                    if one._stopping.is_set():  # pyright: ignore[reportPrivateUsage]  as it does itself
                        break
            self.spans.append(span)
            judge(one, span, asked)

        monkeypatch.setattr(comparing.TableComparison, "_judge", slow)


@pytest.fixture
def brake(monkeypatch: pytest.MonkeyPatch) -> Brake:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", A_CHUNK)
    monkeypatch.setattr(compared, "SAVE_SECONDS", 0.0)
    made = Brake()
    made.apply(monkeypatch)
    return made


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio)
    made.create(
        "CREATE TABLE s (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE t (id INT PRIMARY KEY, v INT, w VARCHAR(9))",
        "INSERT INTO s VALUES " + ", ".join(f"({n}, 0)" for n in range(ROWS)),
        "INSERT INTO t VALUES " + ", ".join(f"({n}, 0, 'w')" for n in range(ROWS)),
    )
    made.prepare(Placement("s", "xxhash", ("id",)), Placement("t", "xxhash", ("id",)))
    return made


class Movers:
    """Movers of one move, one after the other, each of a later epoch."""

    def __init__(self, move: Move) -> None:
        self.move = move
        self.epoch = 0
        self.mover: RunningMover | None = None

    def begin(self, **changes: object) -> RunningMover:
        self.epoch += 1
        self.mover = RunningMover(self.move.spec(self.epoch, **changes))
        self.mover.start()
        wait_copied(self.mover)
        return self.mover

    def end(self) -> None:
        if self.mover is not None:
            self.mover.stop(60)
            self.mover = None


@pytest.fixture
def movers(move: Move) -> Iterator[Movers]:
    made = Movers(move)
    yield made
    made.end()


def outcome(mover: RunningMover, name: str = "v") -> Verification:
    def done(progress: MoverProgress) -> bool:
        found = progress.verification
        return found is not None and found.verify_id == name and found.state in {"completed", "error"}

    found = wait_for(mover, done).verification
    assert found is not None
    return found


def cut_off(movers: Movers, brake: Brake, **changes: object) -> None:
    """Begin a verification, and end its mover in the middle of table t."""
    mover = movers.begin(**changes)
    mover.verify("v")
    assert brake.reached.wait(30)
    found = mover.progress().verification
    assert found is not None
    assert (found.state, found.equal) == ("started", False)
    states = {table.table: table.state for table in found.tables}
    assert states == {"s": "completed", "t": "started"}
    assert found.rows_total >= found.rows_compared >= ROWS + STOPS_AT
    movers.end()
    assert mover.progress().verification is not None
    assert not mover.progress().verification.equal  # type: ignore[union-attr]  as the line before holds
    brake.spans.clear()
    brake.free.set()


def rows(found: Verification) -> list[int]:
    return [one.rows_compared for one in found.rounds]


def test_what_was_compared_is_not_compared_again(movers: Movers, brake: Brake) -> None:
    cut_off(movers, brake)
    movers.move.create("UPDATE t SET v=v+1 WHERE id % 3 = 0", "DELETE FROM s WHERE id=7")
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert found.equal, found
    assert rows(found) == [ROWS + STOPS_AT, ROWS - STOPS_AT]
    assert [one.number for one in found.rounds] == [1, 2]
    assert all(set(one.positions) == {"-"} and not one.note for one in found.rounds)
    assert found.rounds[0].positions != found.rounds[1].positions
    assert min(int(span.low[0]) for span in brake.spans if span.low) >= STOPS_AT - 1
    # Asked for anew, it is anew.
    mover.verify("again")
    again = outcome(mover, "again")
    assert again.equal
    assert rows(again) == [2 * ROWS - 1]


def test_a_range_that_differed_is_compared_again(movers: Movers, brake: Brake) -> None:
    move = movers.move
    mover = movers.begin()
    movers.end()
    del mover
    broken = [place for place in move.targets for _ in [move.server_of(place).query(
        "UPDATE t SET w='x' WHERE id IN (120, 130)", place.schema)]]  # fmt: skip
    cut_off(movers, brake)
    for place in broken:
        # not in the log, so that nothing else has that table compared anew
        move.server_of(place).execute(["SET sql_log_bin=0", "UPDATE t SET w='w' WHERE id=120"], place.schema)
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert found.state == "completed"
    assert [each.key for table in found.tables for each in table.differences] == [{"id": "130"}]


@pytest.mark.parametrize("what", ["write", "ddl", "truncate"])
def test_a_table_that_somebody_else_changed_on_a_target_is_compared_anew(
    movers: Movers, brake: Brake, what: str
) -> None:
    cut_off(movers, brake)
    place = movers.move.targets[1]
    statement = {
        "write": "UPDATE s SET v=v+1",
        "ddl": "ALTER TABLE s ADD KEY v (v)",
        "truncate": "TRUNCATE TABLE s",
    }[what]
    movers.move.server_of(place).query(statement, place.schema)
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert found.state == "completed", found.error
    assert found.equal == (what == "ddl")
    assert "table s is compared anew" in found.rounds[1].note
    assert "table t" not in found.rounds[1].note
    table = next(table for table in found.tables if table.table == "s")
    assert table.rows_compared == ROWS
    assert (table.mismatched > 0, table.extra_source > 0) == (what == "write", what == "truncate")
    assert any(span.low is None for span in brake.spans)


def test_a_log_that_is_gone_has_all_compared_anew(movers: Movers, brake: Brake) -> None:
    cut_off(movers, brake)
    for place in movers.move.targets:
        server = movers.move.server_of(place)
        server.query("UPDATE s SET v=v+1 WHERE id=9", place.schema)
        server.query("FLUSH BINARY LOGS")
        newest = server.query("SHOW BINARY LOGS")[-1][0]
        # A log that a reader has open, whose end the server has not noticed yet, is not purged.
        deadline = time.monotonic() + PATIENCE
        while server.query("SHOW BINARY LOGS")[0][0] != newest:
            assert time.monotonic() < deadline
            server.query(f"PURGE BINARY LOGS TO '{newest}'")
            time.sleep(0.1)
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert (found.state, found.equal) == ("completed", False)
    assert "cannot be told" in found.rounds[1].note
    assert rows(found)[0] == 0
    assert sum(table.rows_compared for table in found.tables) == 2 * ROWS


@pytest.mark.parametrize("statement", ["ALTER TABLE s ADD x INT", "TRUNCATE TABLE s"])
def test_a_schema_statement_on_the_source_has_its_table_compared_anew(
    movers: Movers, brake: Brake, statement: str
) -> None:
    cut_off(movers, brake, on_ddl=OnDdl.EXEC)
    movers.move.create(statement, "UPDATE t SET v=5 WHERE id=5")
    mover = movers.begin(on_ddl=OnDdl.EXEC)
    mover.drain(movers.move.positions(), 30)
    mover.verify("v")
    found = outcome(mover)
    assert found.equal, found
    left = 0 if "TRUNCATE" in statement else ROWS
    assert rows(found) == [STOPS_AT, left + ROWS - STOPS_AT]


def test_a_schema_statement_while_it_compares_ends_it(movers: Movers, brake: Brake) -> None:
    mover = movers.begin(on_ddl=OnDdl.EXEC)
    mover.verify("v")
    assert brake.reached.wait(30)
    done = threading.Thread(target=lambda: movers.move.create("ALTER TABLE s ADD x INT"))
    done.start()
    # The snapshot holds the source's table from being altered: let it go on and end.
    brake.free.set()
    done.join(30)
    found = outcome(mover)
    assert not done.is_alive()
    if found.state == "error":
        assert "while it was compared" in found.error
    mover.drain(movers.move.positions(), 30)
    mover.verify("after")
    assert outcome(mover, "after").equal


def test_a_table_that_is_emptied_before_its_turn_is_told_and_not_passed(movers: Movers, brake: Brake) -> None:
    mover = movers.begin()
    brake.table = "s"
    mover.verify("v")
    assert brake.reached.wait(30)
    place = movers.move.targets[1]
    movers.move.server_of(place).query("TRUNCATE TABLE t", place.schema)
    brake.free.set()
    found = outcome(mover)
    assert (found.state, found.equal) == ("error", False)
    assert f"table 't' on shard {place.keyspace}/{place.shard} cannot be compared" in found.error
    assert {table.table: table.state for table in found.tables} == {"s": "completed", "t": "pending"}
    mover.verify("again")
    again = outcome(mover, "again")
    assert again.state == "completed"
    assert next(table for table in again.tables if table.table == "t").extra_source > 0


def test_a_shard_that_does_not_answer_is_told(
    movers: Movers, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(verifier, "ROUNDS_TRIED", 2)
    mover = movers.begin()
    mover.verify("v")
    assert brake.reached.wait(30)
    place = movers.move.targets[1]
    server = movers.move.server_of(place)
    server.kill()
    try:
        brake.free.set()
        over = wait_for(
            mover,
            lambda p: (
                p.phase is Phase.FAILED or (p.verification is not None and p.verification.state == "error")
            ),
        )
    finally:
        server.start()
    found = over.verification
    assert found is not None
    assert not found.equal
    if over.phase is Phase.FAILED:
        return  # it was the first to notice; another mover goes on
    assert found.state == "error"
    assert (
        f"shard {place.keyspace}/{place.shard} does not answer" in found.error
        or "cannot reach" in found.error
    )


def test_a_session_that_is_killed_is_followed_by_another_round(
    movers: Movers, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verifier, "FIRST_PAUSE", 0.05)
    mover = movers.begin()
    mover.verify("v")
    assert brake.reached.wait(30)
    place = movers.move.targets[0]
    server = movers.move.server_of(place)
    for (number,) in server.query(
        "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_isolation_level="
        "'REPEATABLE READ'"
    ):
        server.query(f"KILL {number}")
    brake.free.set()
    found = outcome(mover)
    assert found.equal, found
    assert len(found.rounds) == 2
    assert sum(rows(found)) == 2 * ROWS
    assert mover.progress().phase is Phase.FOLLOWING


def test_a_process_that_is_killed_over_and_over_comes_to_an_end(move: Move) -> None:
    """Nothing is slowed here: wherever kill -9 hits, the end is that all is equal, or that one row is not."""

    def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
        cursor.execute("UPDATE t SET v=v+1 WHERE id=%s", (numbers.randrange(ROWS),))

    with Writers(move.source, move.schema, act, threads=1):
        for name, equal in (("equal", True), ("broken", False)):
            if not equal:
                for place in move.targets:
                    move.server_of(place).query("DELETE FROM s WHERE id=77", place.schema)
            for epoch in range(1, 6):
                movers = MoverProcesses()
                mover = movers.start(move.spec(epoch + (0 if equal else 10)))
                try:
                    wait_copied(mover)
                    mover.verify(name)
                    if epoch == 5:
                        found = wait_for(
                            mover,
                            lambda p: (
                                p.verification is not None and p.verification.state in {"completed", "error"}
                            ),
                        ).verification
                        assert found is not None
                        assert (found.state, found.equal) == ("completed", equal), found
                        missing = [d.key for table in found.tables for d in table.differences]
                        assert missing == ([] if equal else [{"id": "77"}])
                    else:
                        wait_for(mover, lambda p: p.verification is not None)
                finally:
                    movers.close()


def test_a_target_that_restarts_while_it_compares(movers: Movers, brake: Brake) -> None:
    mover = movers.begin()
    mover.verify("v")
    assert brake.reached.wait(30)
    movers.move.server_of(movers.move.targets[1]).kill()
    movers.move.server_of(movers.move.targets[1]).start()
    movers.move.create("UPDATE t SET v=v+1")  # the mover notices when it writes
    over = wait_over(mover)
    assert over.verification is not None
    assert not over.verification.equal
    movers.end()
    brake.free.set()
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert found.equal, found
    assert sum(rows(found)) == 2 * ROWS
    assert len(found.rounds) == 2


def test_a_write_in_the_moment_of_the_next_snapshot_counts(
    movers: Movers, brake: Brake, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_off(movers, brake)
    place = movers.move.targets[1]
    opening = meeting.open_snapshot

    def written(connection: Connection, *rest: Any) -> None:
        if connection.endpoint == place.endpoint:
            movers.move.server_of(place).query("UPDATE s SET v=v+1", place.schema)
        opening(connection, *rest)

    monkeypatch.setattr(meeting, "open_snapshot", written)
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert (found.state, found.equal) == ("completed", False), found
    assert "table s is compared anew" in found.rounds[1].note


def test_a_log_that_began_anew_has_all_compared_anew(movers: Movers, brake: Brake, flavor: Flavor) -> None:
    cut_off(movers, brake)
    place = movers.move.targets[1]
    anew = "RESET MASTER" if flavor is Flavor.MARIADB else "RESET BINARY LOGS AND GTIDS"
    movers.move.server_of(place).execute([anew, "UPDATE s SET v=v+1"], place.schema)
    mover = movers.begin()
    mover.verify("v")
    found = outcome(mover)
    assert (found.state, found.equal) == ("completed", False), found
    assert "began anew" in found.rounds[1].note
    assert sum(table.rows_compared for table in found.tables) == 2 * ROWS
