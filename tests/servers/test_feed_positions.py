"""What a snapshot shows when a position says that it should: proven under concurrent commits, not assumed.

Some writers count up, each in its own row, so a snapshot of the rows tells how many of each writer's commits
it shows. The log tells which commit has which GTID. Every position that was read together with a snapshot is
then held against what the snapshot showed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from homeworld.model.errors import UnsupportedLogError
from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from homeworld.replication.positions import begin_snapshot, current_position, snapshot_position
from tests.conftest import ServerFactory
from tests.support.feeds import batches_until, wanted
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
SCHEMA = "visible"
WRITERS = 6
CHECKS = 120


@pytest.fixture(scope="module")
def busy(shared_server: Callable[[Flavor], TestServer], flavor: Flavor) -> Iterator[TestServer]:
    server = shared_server(flavor)
    server.create_schema(SCHEMA)
    server.execute(f"CREATE TABLE {SCHEMA}.counters (id INT PRIMARY KEY, n INT)")
    yield server
    server.drop_schema(SCHEMA)


@contextmanager
def counting(server: TestServer) -> Generator[None]:
    """Every writer commits as fast as it can."""
    end = threading.Event()
    failed: list[BaseException] = []

    def count(writer: int) -> None:
        try:
            with Connection(server.endpoint(), schema=SCHEMA) as connection:
                while not end.is_set():
                    connection.execute(f"UPDATE counters SET n = n + 1 WHERE id = {writer}")
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=count, args=(writer,)) for writer in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        end.set()
        for thread in threads:
            thread.join(30)
    assert not failed


@dataclass(frozen=True)
class Check:
    position: Position
    seen: tuple[int, ...]


def read_counters(connection: Connection) -> tuple[int, ...]:
    return tuple(int(row[0] or 0) for row in connection.query_rows("SELECT n FROM counters ORDER BY id"))


def gather(
    server: TestServer, look: Callable[[Connection, Connection], str]
) -> tuple[list[Check], list[Check]]:
    """Take snapshots under load; then what the log says each position holds.

    :param look: begins a snapshot on its first connection and gives the position; the second is beside it.
    :returns: (what the snapshots showed, what their positions hold), in the same order.
    """
    values = ",".join(f"({writer}, 0)" for writer in range(WRITERS))
    server.execute(f"REPLACE INTO {SCHEMA}.counters VALUES {values}")
    start = server.position()
    shown: list[Check] = []
    with (
        Connection(server.endpoint(), schema=SCHEMA) as connection,
        Connection(server.endpoint(), schema=SCHEMA) as beside,
        counting(server),
    ):
        for _ in range(CHECKS):
            position = look(connection, beside)
            shown.append(Check(Position.parse(server.flavor, position), read_counters(connection)))
            connection.execute("COMMIT")
            time.sleep(0.001)
    held: list[list[int]] = [[0] * WRITERS for _ in shown]
    with Feed(server.endpoint(), start, wanted(server, SCHEMA, "counters")) as feed:
        for batch in batches_until(feed, server.flavor, server.position(), max_events=1):
            for _, _, after in batch.changes:
                assert after is not None
                writer, number = int(after[0] or 0), int(after[1] or 0)
                # The position up to this commit; commits are numbered in the order of the log.
                here = Position.parse(server.flavor, batch.position)
                for index, check in enumerate(shown):
                    if held[index][writer] == number - 1 and check.position.contains(here):
                        held[index][writer] = number
    return shown, [Check(check.position, tuple(found)) for check, found in zip(shown, held, strict=True)]


def test_a_snapshot_shows_at_least_its_position(busy: TestServer) -> None:
    """On MariaDB it shows exactly that; on MySQL that or more."""
    shown, held = gather(busy, lambda connection, _: begin_snapshot(connection))
    assert len(shown) == CHECKS
    assert shown[-1].seen > shown[0].seen
    for saw, holds in zip(shown, held, strict=True):
        assert all(a >= b for a, b in zip(saw.seen, holds.seen, strict=True)), (saw, holds)
        if busy.flavor is Flavor.MARIADB:
            assert saw.seen == holds.seen


def test_what_gtid_executed_holds_is_visible_whatever_the_order_of_commits(busy: TestServer) -> None:
    """Read on one connection, seen by a snapshot of another that begins afterwards."""
    if busy.flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB's gtid_binlog_pos runs ahead: test_gtid_binlog_pos_may_run_ahead")

    def look(connection: Connection, beside: Connection) -> str:
        position = current_position(beside, Flavor.MYSQL)
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return position

    try:
        for order in ("OFF", "ON"):
            busy.execute(f"SET GLOBAL binlog_order_commits = {order}")
            shown, held = gather(busy, look)
            for saw, holds in zip(shown, held, strict=True):
                assert all(a >= b for a, b in zip(saw.seen, holds.seen, strict=True)), (saw, holds)
    finally:
        busy.execute("SET GLOBAL binlog_order_commits = ON")


def test_gtid_binlog_pos_may_run_ahead(busy: TestServer) -> None:
    """Why MariaDB needs the snapshot's own coordinates: this only counts, since a race need not happen.

    A snapshot never misses more than the commits under way: one of each writer.
    """
    if busy.flavor is not Flavor.MARIADB:
        pytest.skip("MariaDB only")

    def look(connection: Connection, beside: Connection) -> str:
        position = current_position(beside, Flavor.MARIADB)
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return position

    shown, held = gather(busy, look)
    missing = [
        sum(max(0, b - a) for a, b in zip(saw.seen, holds.seen, strict=True))
        for saw, holds in zip(shown, held, strict=True)
    ]
    print(f"gtid_binlog_pos was ahead of the snapshot in {sum(map(bool, missing))} of {CHECKS} checks")
    assert max(missing) <= WRITERS


def test_a_snapshot_position_names_no_later_log(busy: TestServer) -> None:
    """Also right behind a rotation, where the new log is empty."""
    if busy.flavor is not Flavor.MARIADB:
        pytest.skip("MariaDB only")
    with Connection(busy.endpoint(), schema=SCHEMA) as connection:
        busy.execute("FLUSH BINARY LOGS")
        before = str(Position.parse(busy.flavor, busy.position()))
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        busy.execute(f"UPDATE {SCHEMA}.counters SET n = n + 1 WHERE id = 0")
        assert snapshot_position(connection) == before
        assert str(Position.parse(busy.flavor, busy.position())) != before
        connection.execute("COMMIT")


def test_without_a_log_there_is_no_position(server_factory: ServerFactory, flavor: Flavor) -> None:
    if flavor is not Flavor.MARIADB:
        pytest.skip("MariaDB only")
    server = server_factory("skip-log-bin", "skip-log-slave-updates")
    with Connection(server.endpoint()) as connection, pytest.raises(UnsupportedLogError, match="log_bin"):
        begin_snapshot(connection)
