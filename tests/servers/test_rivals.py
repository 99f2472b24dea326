"""Rows of two source shards with one key: an error that names them, or the order in which they came."""

from __future__ import annotations

import pytest

from homeworld.model.movers import Phase, Placement
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@pytest.fixture(params=["one server", "two servers"])
def move(trio: list[TestServer], request: pytest.FixtureRequest) -> Move:
    """Two source shards: -80 has rows 1 and 2, 80- has 3 and 4."""
    made = make_move(trio[:1] if request.param == "one server" else trio, "-80 80-", "-")
    made.create(
        "CREATE TABLE t (id INT PRIMARY KEY, v INT NULL)",
        "CREATE TABLE u (id INT PRIMARY KEY, v INT NULL, UNIQUE KEY v (v))",
    )
    for first, place in zip((1, 3), made.sources, strict=True):
        for table in ("t", "u"):
            values = f"({first}, {first}0), ({first + 1}, {first + 1}0)"
            made.server_of(place).query(f"INSERT INTO {table} VALUES {values}", place.schema)
    made.prepare(Placement("t"), Placement("u"))
    return made


def on(move: Move, shard: int, *statements: str) -> None:
    place = move.sources[shard]
    with move.server_of(place).connect(schema=place.schema, autocommit=False) as connection:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        connection.commit()


def landed(move: Move, table: str) -> list[tuple[object, ...]]:
    place = move.targets[0]
    return list(move.server_of(place).query(f"SELECT id, v FROM {table} ORDER BY id", place.schema))


@pytest.mark.parametrize(
    ("table", "statement", "named"),
    [
        ("t", "INSERT INTO t VALUES (1, 99)", "PRIMARY (1)"),
        ("t", "UPDATE t SET id = 2 WHERE id = 3", "PRIMARY (2)"),
        ("u", "INSERT INTO u VALUES (1, 99)", "PRIMARY (1)"),
        ("u", "INSERT INTO u VALUES (9, 20)", "v (20)"),
        ("u", "UPDATE u SET v = 10 WHERE id = 4", "v (10)"),
    ],
)
def test_a_key_that_another_shard_has_ends_the_move(
    move: Move, table: str, statement: str, named: str
) -> None:
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        before = landed(move, table)
        on(move, 1, statement)
        progress = wait_over(mover)
    finally:
        mover.stop(60)
    assert progress.phase is Phase.FAILED
    assert not progress.retryable
    assert f"table '{table}': several source shards have rows with the same key" in progress.error
    assert f"{named} (on 80-, -80)" in progress.error
    assert set(before[:2]) <= set(landed(move, table)), "the other shard's rows are there"


def test_rows_may_go_from_shard_to_shard(move: Move) -> None:
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        for number in range(10):
            here, there = number % 2, 1 - number % 2
            on(move, here, "DELETE FROM t WHERE id = 1", "DELETE FROM u WHERE id = 1")
            on(
                move,
                there,
                f"INSERT INTO t VALUES (1, {number})",
                f"INSERT INTO u VALUES (1, {number + 100})",
            )
        # Here and gone again in one transaction, while another shard has it.
        on(move, 1, "INSERT INTO t VALUES (2, 5)", "DELETE FROM t WHERE id = 2")
        on(move, 1, "INSERT INTO u VALUES (2, 5)", "DELETE FROM u WHERE id = 2")
        mover.drain(move.positions(), 60)
        move.assert_equal()
        assert mover.progress().phase is Phase.FOLLOWING
    finally:
        mover.stop(60)


def test_what_the_copy_has_brought_already_comes_again_from_the_log(move: Move) -> None:
    starts = move.positions()
    for shard, numbers in enumerate((range(100, 300), range(300, 500))):
        values = ", ".join(f"({n}, {n})" for n in numbers)
        on(move, shard, f"INSERT INTO t VALUES {values}", f"INSERT INTO u VALUES {values}")
        on(move, shard, f"UPDATE t SET v = v + 1 WHERE id >= {numbers[100]}")
        on(move, shard, f"DELETE FROM t WHERE id = {numbers[0]}")
        # A unique value has wandered: what has it now was another row's when the log begins.
        on(move, shard, f"UPDATE u SET v = NULL WHERE id = {numbers[0]}")
        on(move, shard, f"UPDATE u SET v = {numbers[0]} WHERE id = {numbers[1]}")
    mover = RunningMover(move.spec(start_positions=starts))
    mover.start()
    try:
        wait_copied(mover)
        mover.drain(move.positions(), 60)
        move.assert_equal()
        assert mover.progress().phase is Phase.FOLLOWING
    finally:
        mover.stop(60)
