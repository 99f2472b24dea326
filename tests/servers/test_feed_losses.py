"""The feed when something breaks: connections, servers, logs. Nothing is lost and nothing comes twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pymysql
import pytest

from homeworld.model.errors import (
    PositionPurgedError,
    ServerError,
    SourceLogError,
    UnavailableError,
    UnsupportedLogError,
)
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.changes import FeedBatch
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from tests.conftest import ServerFactory
from tests.support.feeds import apply, batches_until, changes_of, wanted
from tests.support.mysqld import TestServer, password_of, user_of

pytestmark = pytest.mark.servers
SCHEMA = "losses"


def prepare(server: TestServer) -> None:
    server.create_schema(SCHEMA)
    server.execute(f"CREATE TABLE {SCHEMA}.t (id INT PRIMARY KEY, v VARCHAR(60))")


@pytest.fixture
def source(server: TestServer) -> TestServer:
    prepare(server)
    return server


def kill_dumps(server: TestServer) -> int:
    """End every replica's session as an administrator would; how many there were."""
    found = server.query("SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'")
    for (number,) in found:
        with suppress(pymysql.err.OperationalError):  # it has gone by itself
            server.query(f"KILL {number}")
    return len(found)


def rows_of(server: TestServer) -> dict[bytes | None, tuple[bytes | None, ...]]:
    with Connection(server.endpoint(), schema=SCHEMA) as connection:
        return {row[0]: row for row in connection.query_rows("SELECT * FROM t")}


class Writer(threading.Thread):
    """Writes single rows until it is stopped; goes on where its server is again. ``done`` counts commits it
    knows of; a statement whose answer was lost may be in or not.
    """

    def __init__(self, server: TestServer) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.done = 0
        self.number = 0
        self._end = threading.Event()

    def run(self) -> None:
        while not self._end.is_set():
            try:
                with Connection(self.server.endpoint(), schema=SCHEMA) as connection:
                    while not self._end.is_set():
                        self._write(connection)
            except (UnavailableError, ServerError):
                time.sleep(0.05)

    def _write(self, connection: Connection) -> None:
        self.number += 1
        connection.execute(f"INSERT INTO t VALUES ({self.number}, 'v')")
        if self.number % 3 == 0:
            connection.execute(f"UPDATE t SET v = CONCAT(v, 'x') WHERE id = {self.number - 1}")
        if self.number % 5 == 0:
            connection.execute(f"DELETE FROM t WHERE id = {self.number - 4}")
        self.done += 1

    def stop(self) -> None:
        self._end.set()
        self.join(30)
        assert not self.is_alive()


@pytest.fixture
def writer(source: TestServer) -> Iterator[Writer]:
    made = Writer(source)
    yield made
    if made.ident is not None:
        made.stop()


def read_until_written(feed: Feed, writer: Writer, count: int) -> list[FeedBatch]:
    """Read until the writer has done ``count`` more."""
    target = writer.done + count
    found: list[FeedBatch] = []
    deadline = time.monotonic() + 60
    while writer.done < target:
        assert time.monotonic() < deadline
        found.append(feed.read_batch(50, 0.2))
    return found


def test_killed_dump_sessions(source: TestServer, writer: Writer) -> None:
    start = source.position()
    with Feed(source.endpoint(BackendRole.MOVER), start, wanted(source, SCHEMA, "t")) as feed:
        writer.start()
        batches: list[FeedBatch] = []
        for _ in range(4):
            batches += read_until_written(feed, writer, 60)
            # The feed may just be connecting anew after the last kill.
            for _ in range(100):
                if kill_dumps(source):
                    break
                batches.append(feed.read_batch(50, 0.1))
            else:
                pytest.fail("the feed never had a session to kill")
        writer.stop()
        batches += batches_until(feed, source.flavor, source.position())
    assert apply(changes_of(batches)).get((SCHEMA, "t")) == rows_of(source)
    assert writer.done > 200


def test_a_server_killed_and_started_again(source: TestServer, writer: Writer) -> None:
    start = source.position()
    with Feed(source.endpoint(BackendRole.MOVER), start, wanted(source, SCHEMA, "t")) as feed:
        writer.start()
        batches = read_until_written(feed, writer, 100)
        for _ in range(2):
            source.kill()
            batches.append(feed.read_batch(50, 0.3))
            source.start()
            batches += read_until_written(feed, writer, 100)
        writer.stop()
        batches += batches_until(feed, source.flavor, source.position())
    assert apply(changes_of(batches))[SCHEMA, "t"] == rows_of(source)


def test_a_transaction_lost_half_way_is_given_again_from_its_start(source: TestServer) -> None:
    start = source.position()
    with Connection(source.endpoint(), schema=SCHEMA) as connection:
        connection.execute("BEGIN")
        for begin in range(0, 40_000, 4000):
            values = ",".join(f"({n}, REPEAT('z', 50))" for n in range(begin, begin + 4000))
            connection.execute(f"INSERT INTO t VALUES {values}")
        connection.execute("COMMIT")
    with Feed(source.endpoint(BackendRole.MOVER), start, wanted(source, SCHEMA, "t")) as feed:
        batches = [feed.read_batch(1000, 60.0), feed.read_batch(1000, 60.0)]
        assert all(batch.mid_transaction for batch in batches)
        assert {batch.position for batch in batches} == {feed.position}
        source.kill()
        source.start()
        batches += batches_until(feed, source.flavor, source.position())
    assert [batch.discard_unfinished for batch in batches].count(True) == 1
    assert len(changes_of(batches)) == 40_000


def test_a_source_that_stays_away(source: TestServer) -> None:
    tables = wanted(source, SCHEMA, "t")
    start = source.position()
    with Feed(source.endpoint(BackendRole.MOVER), start, tables, reconnect_seconds=0.5) as feed:
        feed.read_batch(10, 0.1)
        source.kill()
        with pytest.raises(UnavailableError):
            feed.read_batch(10, 60.0)
        source.start()
        source.execute(f"INSERT INTO {SCHEMA}.t VALUES (1, 'back')")
        batches = batches_until(feed, source.flavor, source.position())
        assert len(changes_of(batches)) == 1


def test_purged_logs_are_told_at_once(source: TestServer) -> None:
    tables = wanted(source, SCHEMA, "t")
    start = source.position()
    source.execute(f"INSERT INTO {SCHEMA}.t VALUES (1, 'a')")
    source.execute("FLUSH BINARY LOGS")
    source.execute(f"INSERT INTO {SCHEMA}.t VALUES (2, 'a')")
    source.execute("FLUSH BINARY LOGS")
    newest = source.query("SHOW BINARY LOGS")[-1][0]
    source.execute(f"PURGE BINARY LOGS TO '{newest}'")
    with Feed(source.endpoint(BackendRole.MOVER), start, tables) as feed:
        for _ in range(2):
            with pytest.raises(PositionPurgedError) as caught:
                feed.read_batch(10, 60.0)
            assert not caught.value.retryable
    # From the newest position it goes on.
    with Feed(source.endpoint(BackendRole.MOVER), source.position(), tables) as feed:
        source.execute(f"INSERT INTO {SCHEMA}.t VALUES (3, 'a')")
        assert len(changes_of(batches_until(feed, source.flavor, source.position()))) == 1


def test_a_position_that_the_source_never_had(source: TestServer) -> None:
    """After a failover to a server that lacks transactions nothing may be read silently."""
    tables = wanted(source, SCHEMA, "t")
    if source.flavor is Flavor.MYSQL:
        uuid = source.query("SELECT @@server_uuid")[0][0]
        ahead = f"{uuid}:1-999999"
    else:
        domain, server, sequence = source.position().split("-")
        source.execute(f"INSERT INTO {SCHEMA}.t VALUES (1, 'a')")
        # The same sequence number, written by another server: the two have gone different ways.
        ahead = f"{domain}-{int(server) - 1}-{sequence}"
    with (
        Feed(source.endpoint(BackendRole.MOVER), ahead, tables) as feed,
        pytest.raises(SourceLogError),
    ):
        feed.read_batch(10, 60.0)


def test_logs_with_and_without_checksums(source: TestServer) -> None:
    tables = wanted(source, SCHEMA, "t")
    start = source.position()
    with Feed(source.endpoint(BackendRole.MOVER), start, tables) as feed:
        for number, kind in enumerate(("NONE", "CRC32", "NONE")):
            source.execute(f"SET GLOBAL binlog_checksum = {kind}")
            source.execute(f"INSERT INTO {SCHEMA}.t VALUES ({number}, '{kind}')")
        changes = changes_of(batches_until(feed, source.flavor, source.position()))
    with Feed(source.endpoint(BackendRole.MOVER), start, tables) as feed:
        assert changes_of(batches_until(feed, source.flavor, source.position())) == changes
    assert [after[1] for _, _, after in changes if after] == [b"NONE", b"CRC32", b"NONE"]


def refusal(server: TestServer) -> str:
    """Why the feed refuses the server."""
    with (
        Feed(server.endpoint(BackendRole.MOVER), "", wanted(server, SCHEMA, "t")) as feed,
        pytest.raises(UnsupportedLogError) as caught,
    ):
        feed.read_batch(10, 60.0)
    return caught.value.message


def test_a_server_set_up_wrongly_is_refused_before_anything(source: TestServer) -> None:
    """With everything that is wrong named at once."""
    source.execute(["SET GLOBAL binlog_row_image = MINIMAL", "SET GLOBAL binlog_format = MIXED"])
    message = refusal(source)
    assert "binlog_row_image is MINIMAL and must be FULL" in message
    assert "binlog_format is MIXED and must be ROW" in message
    if source.flavor is Flavor.MYSQL:
        source.execute(["SET GLOBAL binlog_row_image = FULL", "SET GLOBAL binlog_format = ROW"])
        source.execute("SET GLOBAL binlog_row_value_options = PARTIAL_JSON")
        assert "binlog_row_value_options is PARTIAL_JSON and must be empty" in refusal(source)


def test_a_server_without_a_log_is_refused(server_factory: ServerFactory, flavor: Flavor) -> None:
    more = ("skip-log-replica-updates", "gtid-mode=OFF", "enforce-gtid-consistency=OFF")
    server = server_factory(
        "skip-log-bin", *(more if flavor is Flavor.MYSQL else ("skip-log-slave-updates",))
    )
    prepare(server)
    message = refusal(server)
    assert "log_bin is OFF and must be ON" in message
    assert ("gtid_mode is OFF" in message) == (flavor is Flavor.MYSQL)


def follow(replica: TestServer, source: TestServer) -> None:
    """Make ``replica`` (with the same data) replicate from ``source`` by GTID."""
    user, password = user_of(BackendRole.REPLICATION), password_of(BackendRole.REPLICATION)
    if source.flavor is Flavor.MYSQL:
        replica.execute(
            [
                f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={source.port}, "
                f"SOURCE_USER='{user}', SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, "
                "GET_SOURCE_PUBLIC_KEY=1",
                "START REPLICA",
            ]
        )
        return
    replica.execute(
        [
            f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={source.port}, MASTER_USER='{user}', "
            f"MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos",
            "START SLAVE",
        ]
    )


def wait_for(server: TestServer, sql: str, expected: object) -> None:
    deadline = time.monotonic() + 60
    while server.query(sql)[0][0] != expected:
        assert time.monotonic() < deadline, server.query(sql)
        time.sleep(0.05)


def test_failover_to_a_server_with_the_same_transactions(
    server_factory: ServerFactory, tmp_path: Path
) -> None:
    first, second = server_factory(), server_factory()
    follow(second, first)
    first.create_schema(SCHEMA)
    first.execute(f"CREATE TABLE {SCHEMA}.t (id INT PRIMARY KEY, v VARCHAR(60))")
    tables = wanted(first, SCHEMA, "t")
    current = first
    with Feed(lambda: current.endpoint(BackendRole.MOVER), first.position(), tables) as feed:
        first.execute(f"INSERT INTO {SCHEMA}.t VALUES (1, 'a'), (2, 'b')")
        batches = batches_until(feed, first.flavor, first.position())
        first.execute(f"INSERT INTO {SCHEMA}.t VALUES (3, 'c')")
        wait_for(second, f"SELECT COUNT(*) FROM information_schema.tables WHERE table_schema='{SCHEMA}'", 1)
        wait_for(second, f"SELECT COUNT(*) FROM {SCHEMA}.t", 3)
        first.kill()
        current = second
        second.execute("STOP REPLICA" if second.flavor is Flavor.MYSQL else "STOP SLAVE")
        second.execute(f"DELETE FROM {SCHEMA}.t WHERE id = 1")
        second.execute(f"INSERT INTO {SCHEMA}.t VALUES (4, 'd')")
        batches += batches_until(feed, second.flavor, second.position())
    assert apply(changes_of(batches))[SCHEMA, "t"] == rows_of(second)
    assert len(changes_of(batches)) == 5
