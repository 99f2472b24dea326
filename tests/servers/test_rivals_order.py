"""Rows that go from one source shard to another while the followers are not equally far."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager

import pytest

from homeworld.model.gtid import Position
from homeworld.model.movers import Phase, Placement
from homeworld.replication import copier
from homeworld.replication.follower import Follower
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
MANY = 3000
"""Rows of a transaction that comes in parts."""


def made(servers: Sequence[TestServer], targets: str = "-") -> Move:
    """Two source shards: -80 has rows 1 and 2, 80- has 3 and 4."""
    move = make_move(servers, "-80 80-", targets)
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT NULL)",
        "CREATE TABLE u (id INT PRIMARY KEY, v INT NULL, UNIQUE KEY v (v))",
    )
    for first, place in zip((1, 3), move.sources, strict=True):
        for table in ("t", "u"):
            values = f"({first}, {first}0), ({first + 1}, {first + 1}0)"
            move.server_of(place).query(f"INSERT INTO {table} VALUES {values}", place.schema)
    if targets == "-":
        move.prepare(Placement("t"), Placement("u"))
    else:
        move.prepare(Placement("t", "xxhash", ("id",)), Placement("u", "xxhash", ("id",)))
    return move


def on(move: Move, shard: int, *statements: str) -> None:
    """Run each statement in a transaction of its own."""
    for statement in statements:
        together(move, shard, statement)


def together(move: Move, shard: int, *statements: str) -> None:
    place = move.sources[shard]
    with move.server_of(place).connect(schema=place.schema, autocommit=False) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()


def many(table: str, first: int) -> str:
    values = ", ".join(f"({n}, {n})" for n in range(first, first + MANY))
    return f"INSERT INTO {table} VALUES {values}"


@contextmanager
def running(move: Move, epoch: int = 1) -> Generator[RunningMover]:
    mover = RunningMover(move.spec(epoch))
    mover.start()
    try:
        wait_copied(mover)
        yield mover
    finally:
        mover.stop(60)


def ends_equal(move: Move, mover: RunningMover) -> None:
    mover.drain(move.positions(), 60)
    move.assert_equal()
    assert mover.progress().phase is Phase.FOLLOWING


def give_again(move: Move, starts: Mapping[str, str]) -> None:
    """Have the streams go on from there, though the target has more."""
    target = move.targets[0]
    for place in move.sources:
        move.server_of(target).query(
            f"UPDATE _homeworld.streams SET position = '{starts[place.shard]}' "
            f"WHERE workflow_id = '{move.workflow_id}' AND source_shard = '{place.shard}'"
        )


def until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def go_on_to(follower: Follower, position: str) -> None:
    """Have one that is held apply what there is up to a position, and no more."""
    follower._hold_at = Position.parse(follower.endpoint.flavor, position)  # type: ignore[reportPrivateUsage]
    until(lambda: follower.passed(position, 0.1))


def stuck(follower: Follower) -> bool:
    """Whether it has taken what it cannot settle."""
    return not follower.settled


def test_a_row_displaced_by_another_unique_key_is_waited_for(trio: list[TestServer]) -> None:
    move = made(trio)
    with running(move) as mover:
        late = mover.follower_of("-80")
        late.hold(20)
        on(move, 0, "DELETE FROM u WHERE id = 1")
        on(move, 1, "INSERT INTO u VALUES (9, 10)", "INSERT INTO u VALUES (1, 77)")
        until(lambda: stuck(mover.follower_of("80-")))
        time.sleep(0.5)
        late.release()
        ends_equal(move, mover)


def test_two_followers_that_need_each_other_both_go_on(trio: list[TestServer]) -> None:
    move = made(trio)
    with running(move) as mover:
        both = [mover.follower_of(place.shard) for place in move.sources]
        for follower in both:
            follower.hold(20)
        on(move, 0, "DELETE FROM u WHERE id = 1")
        on(move, 1, "INSERT INTO u VALUES (1, 10)", "DELETE FROM u WHERE id = 3")
        on(move, 0, "INSERT INTO u VALUES (3, 30)")
        for follower in both:
            follower.release()
        ends_equal(move, mover)


@pytest.mark.parametrize("servers", [1, 3])
def test_what_was_taken_out_once_may_come_back_within_one_huge_transaction(
    trio: list[TestServer], servers: int
) -> None:
    """The log is given again to a target that has what it says, as after a crash."""
    move = made(trio[:servers])
    starts = move.positions()
    together(
        move, 0, "INSERT INTO u VALUES (900, 5000)", many("u", 10_000), "DELETE FROM u WHERE id = 900",
        "INSERT INTO u VALUES (901, 5000)", many("u", 20_000), many("u", 30_000),
    )  # fmt: skip
    with running(move) as mover:
        mover.drain(move.positions(), 60)
    give_again(move, starts)
    with running(move, epoch=2) as mover:
        ends_equal(move, mover)


@pytest.mark.parametrize("servers", [1, 3])
def test_all_logs_may_be_given_again(trio: list[TestServer], servers: int) -> None:
    """No follower knows its rows from those of others, and none may wait for the other to be done."""
    move = made(trio[:servers])
    starts = move.positions()
    for at in range(30):
        for shard in (0, 1):
            number = 1000 * (shard + 1) + at
            on(move, shard, f"INSERT INTO u VALUES ({number}, {number})")
            on(move, shard, f"UPDATE u SET v = {number + 500} WHERE id = {number}")
    on(move, 0, "DELETE FROM u WHERE id = 1")
    on(move, 1, "INSERT INTO u VALUES (1, 10)")
    with running(move) as mover:
        mover.drain(move.positions(), 60)
    give_again(move, starts)
    with running(move, epoch=2) as mover:
        ends_equal(move, mover)


def test_a_huge_transaction_may_take_a_key_from_one_shard_to_another(trio: list[TestServer]) -> None:
    move = made(trio[:1])
    own, other = (place.schema for place in move.sources)
    with running(move) as mover:
        target = move.targets[0]
        # A row that nobody has is in the way of another one.
        move.server_of(target).query("INSERT INTO t VALUES (50, 0)", target.schema)
        together(
            move, 1, f"DELETE FROM {own}.t WHERE id = 1", many("t", 10_000),
            f"INSERT INTO {other}.t VALUES (1, 5), (50, 5)", many("t", 20_000),
        )  # fmt: skip
        ends_equal(move, mover)


@pytest.mark.parametrize("servers", [1, 3])
def test_a_log_that_is_behind_says_nothing_of_a_key_that_has_gone(
    trio: list[TestServer], servers: int
) -> None:
    move = made(trio[:servers])
    with running(move) as mover:
        late = mover.follower_of("-80")
        late.hold(20)
        for table in "tu":
            on(move, 0, f"INSERT INTO {table} VALUES (70, 700)")
            for at in range(3):
                on(move, 0, many(table, 10_000 + at * MANY))
            on(move, 0, f"UPDATE {table} SET v = 701 WHERE id = 70", f"DELETE FROM {table} WHERE id = 70")
            on(move, 1, f"INSERT INTO {table} VALUES (70, 700)")
        if servers > 1:
            place = move.targets[0]
            until(lambda: bool(move.server_of(place).query("SELECT 1 FROM u WHERE id = 70", place.schema)))
        late.release()
        ends_equal(move, mover)


def test_a_mover_begun_anew_still_passes_over_what_has_gone(trio: list[TestServer]) -> None:
    """The log says yet that the row is deleted, which another server's shard has by now."""
    move = made(trio)
    with running(move) as mover:
        late = mover.follower_of("-80")
        late.hold(20)
        for table in "tu":
            on(move, 0, f"INSERT INTO {table} VALUES (70, 700)", f"INSERT INTO {table} VALUES (71, 710)")
        between = move.positions()["-80"]
        for table in "tu":
            on(move, 0, f"UPDATE {table} SET v = 701 WHERE id = 70", f"DELETE FROM {table} WHERE id = 70")
            on(move, 1, f"INSERT INTO {table} VALUES (70, 700)")
        place = move.targets[0]
        until(lambda: bool(move.server_of(place).query("SELECT 1 FROM u WHERE id = 70", place.schema)))
        go_on_to(late, between)
    with running(move, epoch=2) as mover:
        ends_equal(move, mover)
        # What was decided counts no longer than up to there.
        on(move, 1, "DELETE FROM t WHERE id = 70", "DELETE FROM u WHERE id = 70")
        mover.drain(move.positions(), 60)
        for table in "tu":
            on(move, 0, f"INSERT INTO {table} VALUES (70, 702)", f"UPDATE {table} SET v = 703 WHERE id = 70")
        ends_equal(move, mover)
        on(move, 0, "DELETE FROM t WHERE id = 70")
        ends_equal(move, mover)


def test_a_mover_begun_anew_still_tells_of_a_key_that_two_shards_had(trio: list[TestServer]) -> None:
    """Both of one server: the log gives the older row up only after the newer one was there."""
    move = made(trio[:1])
    with running(move) as mover:
        late = mover.follower_of("-80")
        late.hold(20)
        on(move, 0, "INSERT INTO t VALUES (3, 5)", "INSERT INTO t VALUES (71, 710)")
        between = move.positions()["-80"]
        on(move, 1, "DELETE FROM t WHERE id = 3")
        go_on_to(late, between)
    mover = RunningMover(move.spec(epoch=2))
    mover.start()
    try:
        progress = wait_over(mover)
    finally:
        mover.stop(60)
    assert progress.phase is Phase.FAILED
    assert not progress.retryable
    assert "several source shards have rows with the same key" in progress.error


def test_the_copy_waits_for_a_log_that_has_yet_to_tell(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key has gone to a shard whose rows are not copied yet; its row of before is still on the target."""
    monkeypatch.setattr(copier, "ATTEMPTS", 3)
    move = made(trio)
    go = threading.Event()
    place = move.targets[0]

    def first_shard_only() -> str:
        rows = move.server_of(place).query("SELECT id FROM t WHERE id IN (1, 2)", place.schema)
        return "the test" if len(list(rows)) == 2 and not go.is_set() else ""

    move.placements = move.placements[:1]
    mover = RunningMover(move.spec(copy_threads=1), [first_shard_only], chunk_bytes=1)
    mover.start()
    try:
        until(lambda: bool(first_shard_only()))
        late = mover.follower_of("-80")
        late.hold(20)
        on(move, 0, "DELETE FROM t WHERE id = 1")
        on(move, 1, "INSERT INTO t VALUES (1, 77)")
        go.set()
        time.sleep(2)
        late.release()
        wait_copied(mover)
        ends_equal(move, mover)
    finally:
        mover.stop(60)


def test_a_target_that_was_ahead_is_not_given_again_what_it_has(trio: list[TestServer]) -> None:
    """Its row has gone to another server's shard in between."""
    move = made(trio, "-80 80-")
    with running(move) as mover:
        mover.drain(move.positions(), 60)
        homes = {
            row[0]: at
            for at, place in enumerate(move.targets)
            for row in move.server_of(place).query("SELECT id FROM t", place.schema)
        }
        blocked_at = homes[1]
        on(move, 0, "INSERT INTO t VALUES " + ", ".join(f"({n}, {n})" for n in range(100, 110)))
        mover.drain(move.positions(), 60)
        ahead = move.targets[1 - blocked_at]
        ((gone,), *_) = move.server_of(ahead).query("SELECT id FROM t WHERE id >= 100", ahead.schema)
        behind = move.targets[blocked_at]
        with move.server_of(behind).connect(schema=behind.schema, autocommit=False) as lock:
            with lock.cursor() as cursor:
                cursor.execute("SELECT * FROM t WHERE id = 1 FOR UPDATE")
            together(move, 0, "UPDATE t SET v = 1000 WHERE id = 1", f"DELETE FROM t WHERE id = {gone}")

            def there(value: int | None) -> bool:
                rows = move.server_of(ahead).query(f"SELECT v FROM t WHERE id = {gone}", ahead.schema)
                return list(rows) == ([] if value is None else [(value,)])

            until(lambda: there(None))
            on(move, 1, f"INSERT INTO t VALUES ({gone}, 7)")
            until(lambda: there(7))
            mover.stop(60)
            lock.rollback()
    with running(move, epoch=2) as mover:
        wait_for(mover, lambda progress: progress.phase is Phase.FOLLOWING)
        ends_equal(move, mover)
