"""The data path's connection on real servers: bytes as they are, streams, loads, and every way to fail."""

from __future__ import annotations

import gc
import resource
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest

from homeworld.model.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    MalformedPacketError,
    ServerError,
)
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.connection import Connection, kill_query
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
SCHEMA = "wires"


@pytest.fixture(scope="module")
def server(shared_server: Callable[[Flavor], TestServer], flavor: Flavor) -> Iterator[TestServer]:
    made = shared_server(flavor)
    made.create_schema(SCHEMA)
    made.execute(f"CREATE TABLE {SCHEMA}.numbers (n INT PRIMARY KEY, t VARCHAR(200))")
    with Connection(made.endpoint(), schema=SCHEMA) as connection:
        for start in range(0, 200_000, 20_000):
            values = ",".join(f"({n},REPEAT('r',150))" for n in range(start, start + 20_000))
            connection.execute(f"INSERT INTO numbers VALUES {values}")
    yield made
    made.drop_schema(SCHEMA)


@pytest.fixture
def connection(server: TestServer) -> Iterator[Connection]:
    with Connection(server.endpoint(BackendRole.MOVER), schema=SCHEMA) as made:
        yield made


def test_what_a_session_is_set_to(connection: Connection) -> None:
    assert connection.query_one(
        "SELECT @@session.time_zone, @@session.character_set_client, @@session.character_set_results, "
        "@@session.foreign_key_checks, @@session.sql_mode, @@session.autocommit"
    ) == (
        b"+00:00",
        b"binary",
        b"binary",
        b"0",
        b"NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION",
        b"1",
    )


def test_rows_are_bytes_or_none(connection: Connection) -> None:
    wide = ", ".join(f"'{n}'" for n in range(300))
    assert connection.query_one("SELECT 1, NULL, '', REPEAT('x', 300), x'00ff', REPEAT('y', 70000)") == (
        b"1", None, b"", b"x" * 300, b"\0\xff", b"y" * 70000,
    )  # fmt: skip
    assert connection.query_one(f"SELECT {wide}") == tuple(str(n).encode() for n in range(300))
    assert connection.query_all("SELECT 1 FROM DUAL WHERE FALSE") == []


def test_a_large_result_streams(connection: Connection) -> None:
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total = count = 0
    for row in connection.query_rows("SELECT n, t FROM numbers ORDER BY n"):
        total += int(row[0] or 0)
        count += 1
    assert (count, total) == (200_000, 200_000 * 199_999 // 2)
    # 30 MB went through; a few buffers stay. (Kilobytes.)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def test_who_stops_early_loses_the_connection(connection: Connection) -> None:
    rows = connection.query_rows("SELECT n, t FROM numbers")
    assert len(next(rows)) == 2
    with pytest.raises(MalformedPacketError, match="not been read to its end"):
        connection.execute("DO 1")
    rows.close()
    assert connection.closed
    with pytest.raises(ConnectionLostError):
        connection.execute("DO 1")


def test_errors_carry_the_servers_number_and_leave_the_session_usable(connection: Connection) -> None:
    for attempt in (connection.execute, connection.query_all):
        with pytest.raises(ServerError) as caught:
            attempt("SELECT * FROM missing")
        assert caught.value.server_errno == 1146
    # An error among the rows, after some were sent.
    sql = "SELECT n, 9223372036854775807 + IF(n < 150000, 0, 1) FROM numbers ORDER BY n"
    with pytest.raises(ServerError) as caught:
        connection.query_all(sql)
    assert caught.value.server_errno == 1690
    assert connection.query_one("SELECT 1") == (b"1",)


def test_what_an_execution_says(connection: Connection) -> None:
    connection.execute("CREATE TABLE said (id TINYINT PRIMARY KEY)")
    done = connection.execute("INSERT INTO said VALUES (1), (2), (300)")
    assert (done.affected, done.warnings) == (3, 1)
    assert done.info == "Records: 3  Duplicates: 0  Warnings: 1"
    connection.execute("DROP TABLE said")


def test_load_from_memory(connection: Connection) -> None:
    connection.execute("CREATE TABLE loaded (id INT PRIMARY KEY, b LONGBLOB)")
    big = b"z" * (20 << 20) if connection.endpoint.flavor is Flavor.MYSQL else b"z" * (10 << 20)
    chunks = (b"%d\t%b\n" % (n, b"row" if n else big) for n in range(3000))
    load = "LOAD DATA LOCAL INFILE 'x' INTO TABLE loaded CHARACTER SET binary (id, b)"
    done = connection.load_data(load, chunks)
    assert (done.affected, done.warnings) == (3000, 0)
    assert done.info == "Records: 3000  Deleted: 0  Skipped: 0  Warnings: 0"
    assert connection.query_one("SELECT COUNT(*), SUM(LENGTH(b)) FROM loaded") == (
        b"3000",
        str(len(big) + 2999 * 3).encode(),
    )
    again = connection.load_data(load, [b"5\tagain\n", b"", b"5000\tnew\n"])
    assert (again.affected, again.warnings) == (1, 1)
    with pytest.raises(ServerError) as caught:
        connection.load_data("LOAD DATA LOCAL INFILE 'x' INTO TABLE missing", [b"1\n"])
    assert caught.value.server_errno == 1146
    with pytest.raises(MalformedPacketError, match="no local file"):
        connection.load_data("SELECT 1", [])
    assert connection.query_one("SELECT 1") == (b"1",)


def test_a_load_that_breaks_leaves_nothing(server: TestServer, connection: Connection) -> None:
    connection.execute("CREATE TABLE broken (id INT PRIMARY KEY)")
    connection.execute("BEGIN")

    def chunks() -> Iterator[bytes]:
        yield b"1\n" * 10
        raise RuntimeError("the rows ended early")

    with pytest.raises(RuntimeError):
        connection.load_data("LOAD DATA LOCAL INFILE 'x' INTO TABLE broken", chunks())
    assert connection.closed
    deadline = time.monotonic() + 30
    while server.query("SELECT COUNT(*) FROM information_schema.innodb_trx")[0][0]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert server.query(f"SELECT COUNT(*) FROM {SCHEMA}.broken") == [(0,)]


def test_a_server_that_is_silent_for_too_long(server: TestServer) -> None:
    with Connection(server.endpoint(), fidelity=False, timeout_seconds=0.2) as connection:
        with pytest.raises(DeadlineExceededError):
            connection.query_all("SELECT SLEEP(5)")
        assert connection.closed


def test_abort_and_kill_end_a_statement(server: TestServer) -> None:
    for end in ("abort", "kill"):
        with Connection(server.endpoint()) as connection:
            number = connection.connection_id
            action = connection.abort if end == "abort" else partial(kill_query, server.endpoint(), number)
            running = (
                f"SELECT 1 FROM information_schema.processlist WHERE id={number} AND info LIKE '%SLEEP%'"
            )

            def end_it(act: Callable[[], None] = action, running: str = running) -> None:
                while not server.query(running):
                    time.sleep(0.05)
                act()

            timer = threading.Timer(0.0, end_it)
            timer.start()
            try:
                found: object = connection.query_all("SELECT SLEEP(60)")
            except (ConnectionLostError, ServerError) as error:
                found = error
            timer.join()
            if end == "abort":
                assert isinstance(found, ConnectionLostError)
            else:
                assert found == [(b"1",)] or (isinstance(found, ServerError) and found.server_errno == 1317)
                assert connection.query_one("SELECT 1") == (b"1",)
    kill_query(server.endpoint(), 999_999_999)


def test_over_tcp(server: TestServer) -> None:
    """Without a socket path, and so (on MySQL) with the password encrypted for the server's key."""
    endpoint = replace(server.endpoint(BackendRole.READER), socket="")
    with Connection(endpoint) as connection:
        user = connection.query_one("SELECT USER()")[0]
    assert user in {b"homeworld_reader@127.0.0.1", b"homeworld_reader@localhost"}


def test_who_cannot_get_in(server: TestServer) -> None:
    with pytest.raises(ServerError) as caught:
        Connection(replace(server.endpoint(), password="wrong"))
    assert caught.value.server_errno == 1045
    with pytest.raises(ConnectionLostError, match="cannot reach"):
        Connection(replace(server.endpoint(), socket="", port=1))
