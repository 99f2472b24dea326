"""Schema statements that change rows without row events: no answer lets different rows through unseen."""

from __future__ import annotations

import pytest

from homeworld.model.movers import MoverProgress, OnDdl, Phase, Placement
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = "CREATE TABLE t (id INT PRIMARY KEY, a INT NOT NULL)"
PARTITIONED = CREATE + " PARTITION BY RANGE (id) (PARTITION p0 VALUES LESS THAN (2), PARTITION p1 VALUES LESS THAN MAXVALUE)"  # fmt: skip  # noqa: E501
FILL = "INSERT INTO t VALUES (1, 10), (2, 11)"
BOTH = {(1, 10), (2, 11)}


def prepared(
    trio: list[TestServer], sources: str = "-", targets: str = "-80 80-", create: str = CREATE
) -> Move:
    move = make_move(trio, sources, targets)
    move.create(create)
    move.source.query(FILL, move.schema)
    move.prepare(Placement("t", "xxhash", ("id",)) if targets != "-" else Placement("t"))
    return move


def started(move: Move, answer: OnDdl, epoch: int = 1) -> RunningMover:
    mover = RunningMover(move.spec(epoch, on_ddl=answer))
    mover.start()
    return mover


def copied(move: Move, answer: OnDdl) -> RunningMover:
    mover = started(move, answer)
    wait_copied(mover)
    mover.drain(move.positions(), 30)
    return mover


def on_targets(move: Move, *statements: str) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for place in move.targets:
        for statement in statements:
            found += move.server_of(place).query(statement, place.schema)
    return found


def there(move: Move) -> set[tuple[object, ...]]:
    return set(on_targets(move, "SELECT id, a FROM t"))


def stopped(mover: RunningMover) -> MoverProgress:
    progress = wait_over(mover)
    assert progress.phase is Phase.DDL, progress
    return progress


def hopeless(move: Move, mover: RunningMover, answer: OnDdl) -> None:
    """It stops, says that this is for good, and so do all that come after it; no row has been changed."""
    for at in range(2):
        progress = stopped(mover if at == 0 else started(move, answer, 2))
        assert not progress.retryable
        assert "without a word in the log" in progress.ddl or "has others" in progress.ddl
        assert there(move) == BOTH


def test_stop_goes_on_behind_a_truncate_once_the_targets_are_empty(trio: list[TestServer]) -> None:
    move = prepared(trio)
    mover = copied(move, OnDdl.STOP)
    move.create("TRUNCATE TABLE t", "INSERT INTO t VALUES (9, 90)")
    for epoch in (1, 2):
        progress = stopped(mover if epoch == 1 else started(move, OnDdl.STOP, epoch))
        assert progress.retryable
        assert progress.emptied == ("t",)
        assert "has to be empty, too" in progress.ddl
        assert there(move) == BOTH
    on_targets(move, "DELETE FROM t")
    last = started(move, OnDdl.STOP, 3)
    last.drain(move.positions(), 30)
    assert there(move) == {(9, 90)}
    assert last.progress().passed == 1
    last.stop(60)


@pytest.mark.parametrize(
    "statements",
    [
        (
            "CREATE TABLE t_new LIKE t",
            "INSERT INTO t_new VALUES (50, 50)",
            "RENAME TABLE t TO t_old, t_new TO t",
        ),
        ("DROP TABLE t", CREATE, "INSERT INTO t VALUES (50, 50)"),
        ("ALTER TABLE t DROP COLUMN a, ADD COLUMN a INT NOT NULL",),
    ],
    ids=["rename", "drop", "column"],
)
def test_stop_is_for_good_where_rows_were_exchanged(
    trio: list[TestServer], statements: tuple[str, ...]
) -> None:
    move = prepared(trio)
    mover = copied(move, OnDdl.STOP)
    move.create(*statements, "INSERT INTO t VALUES (9, 90)")
    hopeless(move, mover, OnDdl.STOP)


@pytest.mark.parametrize("answer", [OnDdl.STOP, OnDdl.EXEC])
@pytest.mark.parametrize(
    "statements",
    [
        (
            "CREATE TABLE q (id INT PRIMARY KEY, a INT NOT NULL)",
            "ALTER TABLE t EXCHANGE PARTITION p0 WITH TABLE q",
        ),
        ("ALTER TABLE t TRUNCATE PARTITION p0",),
    ],
    ids=["exchange", "truncate"],
)
def test_partitions(trio: list[TestServer], answer: OnDdl, statements: tuple[str, ...]) -> None:
    move = prepared(trio, create=PARTITIONED)
    mover = copied(move, answer)
    move.create(*statements, "INSERT INTO t VALUES (9, 90)")
    if answer is OnDdl.EXEC and len(statements) == 1:
        mover.drain(move.positions(), 30)
        assert there(move) == {(2, 11), (9, 90)}
        mover.stop(60)
    else:
        hopeless(move, mover, answer)


def test_partitions_are_cut_only_where_the_target_has_the_same(trio: list[TestServer]) -> None:
    move = prepared(trio, create=PARTITIONED)
    on_targets(
        move, "ALTER TABLE t REORGANIZE PARTITION p0, p1 INTO (PARTITION p0 VALUES LESS THAN MAXVALUE)"
    )
    mover = copied(move, OnDdl.EXEC)
    move.create("ALTER TABLE t DROP PARTITION p0", "INSERT INTO t VALUES (9, 90)")
    hopeless(move, mover, OnDdl.EXEC)


@pytest.mark.parametrize("answer", [OnDdl.STOP, OnDdl.EXEC])
def test_one_of_several_sources_is_emptied(trio: list[TestServer], answer: OnDdl) -> None:
    move = prepared(trio, "-80 80-", "-")
    mover = copied(move, answer)
    move.source.query("TRUNCATE TABLE t", move.schema)
    hopeless(move, mover, answer)


def test_those_who_ask_to_ignore_get_what_they_asked_for_and_are_told(trio: list[TestServer]) -> None:
    for answer, sources in ((OnDdl.IGNORE, "-"), (OnDdl.EXEC_IGNORE, "-80 80-")):
        move = prepared(trio, sources, "-")
        mover = copied(move, answer)
        assert mover.progress().passed == 0
        move.source.execute(["TRUNCATE TABLE t", "INSERT INTO t VALUES (9, 90)"], move.schema)
        mover.drain(move.positions(), 30)
        assert there(move) == {*BOTH, (9, 90)}
        assert mover.progress().passed == 1
        mover.stop(60)


def test_the_next_id_may_be_set(trio: list[TestServer]) -> None:
    """Where a broken hold is swept, that is our own statement, behind the start of the opposite stream."""
    move = prepared(trio, create=CREATE.replace("PRIMARY", "AUTO_INCREMENT PRIMARY"))
    mover = copied(move, OnDdl.STOP)
    move.create("ALTER TABLE t AUTO_INCREMENT = 500", "INSERT INTO t (a) VALUES (1)")
    mover.drain(move.positions(), 30)
    assert there(move) == {*BOTH, (500, 1)}
    assert mover.progress().passed == 0
    mover.stop(60)


def test_exec_goes_on_behind_what_it_cannot_carry_once_a_person_has_looked(trio: list[TestServer]) -> None:
    move = prepared(trio)
    mover = copied(move, OnDdl.EXEC)
    move.create("CREATE TABLE other (id INT)")
    statement = "CREATE TABLE IF NOT EXISTS t LIKE other"
    move.create(statement, "INSERT INTO t VALUES (9, 90)")

    def decided(progress: MoverProgress) -> bool:
        return progress.phase is Phase.DDL or sum(s.events_applied for s in progress.streams) > 0

    # Not every server logs a statement that made nothing.
    if wait_for(mover, decided).phase is Phase.DDL:
        assert mover.progress().retryable
        mover = started(move, OnDdl.EXEC, 2)
    mover.drain(move.positions(), 30)
    assert there(move) == {*BOTH, (9, 90)}
    mover.stop(60)
