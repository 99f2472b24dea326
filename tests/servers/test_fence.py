"""The fence stops every writer, gives final positions, holds all servers or none, and lets go by itself."""

from __future__ import annotations

import random
import threading

import pymysql
import pytest

from homeworld.model.errors import DeadlineExceededError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.replication.connection import Connection
from homeworld.replication.fence import TableFence
from tests.support.moves import Move, Writers, make_move
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio, "-80 80-", "-")
    made.create(
        "CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT)", "CREATE TABLE u (id INT PRIMARY KEY)"
    )
    return made


def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    cursor.execute("INSERT INTO t (v) VALUES (%s)", (numbers.randrange(9),))


def count(move: Move) -> list[int]:
    return [int(move.server_of(p).query("SELECT COUNT(*) FROM t", p.schema)[0][0]) for p in move.sources]


def test_writers_wait_and_the_positions_are_final(move: Move) -> None:
    writers = [Writers(move.server_of(place), place.schema, act) for place in move.sources]
    with writers[0], writers[1]:
        for each in writers:
            each.wait(20)
        with TableFence()(move.sources, ["t", "u"], 60) as fence:
            assert set(fence) == {"-80", "80-"}
            rows = count(move)
            for place in move.sources:
                now = move.server_of(place).position()
                flavor = place.endpoint.flavor
                # Other schemas of the server may be written to; nothing of these tables is missing.
                assert Position.parse(flavor, now).contains(Position.parse(flavor, fence[place.shard]))
            assert fence.holding()
            assert count(move) == rows
        for each in writers:
            each.wait(20)
    assert all(after > before for after, before in zip(count(move), rows, strict=True))


def test_all_or_none(move: Move) -> None:
    busy = move.sources[1]
    with move.server_of(busy).connect(schema=busy.schema, autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO t (v) VALUES (1)")
        with pytest.raises(DeadlineExceededError), TableFence()(move.sources, ["t"], 1):
            pass
        free = move.sources[0]
        move.server_of(free).query("INSERT INTO t (v) VALUES (1)", free.schema)
        connection.commit()
    with TableFence()(move.sources, ["t"], 60):
        pass


def test_an_open_transaction_is_waited_for_and_is_in_the_position(move: Move) -> None:
    place = move.sources[0]
    connection = move.server_of(place).connect(schema=place.schema, autocommit=False)
    with connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v) VALUES (42)")
        timer = threading.Timer(0.3, connection.commit)
        timer.start()
        with TableFence()(move.sources, ["t"], 60):
            assert move.server_of(place).query("SELECT v FROM t", place.schema) == [(42,)]
        timer.join()


def test_a_lost_session_is_told(move: Move) -> None:
    place = move.sources[0]
    server = move.server_of(place)
    entered = TableFence()(move.sources, ["t"], 60)
    fence = entered.__enter__()
    for (number,) in server.query("SELECT id FROM information_schema.processlist WHERE user LIKE '%mover'"):
        with Connection(server.endpoint(), fidelity=False) as killer:
            killer.execute(f"KILL {number}")
    assert not fence.holding()
    server.query("INSERT INTO t (v) VALUES (1)", place.schema)
    with pytest.raises(UnavailableError, match="let go"):
        entered.__exit__(None, None, None)
    with TableFence()(move.sources, ["t"], 60):
        pass


def test_a_prepared_transaction_that_nobody_holds_keeps_the_fence_open(move: Move) -> None:
    """MariaDB gives its metadata locks up with the session, MySQL keeps them; both must refuse."""
    place = move.sources[0]
    server = move.server_of(place)
    xid = f"'{place.schema}'"
    with server.connect(schema=place.schema) as connection, connection.cursor() as cursor:
        cursor.execute(f"XA START {xid}")
        cursor.execute("INSERT INTO u VALUES (77)")
        cursor.execute(f"XA END {xid}")
        cursor.execute(f"XA PREPARE {xid}")
    try:
        with pytest.raises(DeadlineExceededError), TableFence()([place], ["t", "u"], 2):
            pytest.fail("the fence was entered")
    finally:
        server.query(f"XA ROLLBACK {xid}")
    with TableFence()([place], ["t", "u"], 60) as fence:
        assert fence.holding()
