"""What a stream meets in a long life: idleness, rotation, restarts, purged logs, huge rows, long GTIDs."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from uuid import UUID

import pymysql
import pytest

from homeworld.model.errors import ConnectionLostError
from homeworld.model.movers import MoverSpec, Phase, Placement
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.connection import Connection
from homeworld.replication.mover import RunningMover
from tests.conftest import ServerFactory
from tests.support.moves import Move, make_move, wait_copied, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200), KEY v (v))"
FILL = "INSERT INTO t VALUES " + ", ".join(f"({n}, 'v{n}')" for n in range(2000))


@contextmanager
def running(spec: MoverSpec) -> Generator[RunningMover]:
    mover = RunningMover(spec, chunk_bytes=20_000)
    mover.start()
    try:
        yield mover
    finally:
        mover.stop(60)


def small_move(servers: list[TestServer]) -> Move:
    move = make_move(servers, "-", "-")
    move.create(CREATE, FILL)
    move.prepare(Placement("t"))
    return move


def settled(move: Move, mover: RunningMover) -> None:
    mover.drain(move.positions(), 60)
    move.assert_equal()


def test_days_without_anything_to_say(trio: list[TestServer]) -> None:
    servers = trio[:2]
    impatient = ("wait_timeout", "interactive_timeout", "net_read_timeout", "net_write_timeout")
    before = {name: servers[0].query(f"SELECT @@GLOBAL.{name}")[0][0] for name in impatient}
    move = small_move(servers)
    for server in servers:
        server.execute([f"SET GLOBAL {name} = 3" for name in impatient])
    try:
        with running(move.spec()) as mover:
            wait_copied(mover)
            time.sleep(4.5)
            move.create("INSERT INTO t VALUES (9000, 'at last')")
            settled(move, mover)
            time.sleep(4.5)
            assert mover.progress().phase is Phase.FOLLOWING
            move.create("DELETE FROM t WHERE id = 9000")
            settled(move, mover)
    finally:
        for server in servers:
            server.execute([f"SET GLOBAL {name} = {value}" for name, value in before.items()])


def test_a_session_that_the_server_gave_up_is_lost_and_not_refused(trio: list[TestServer]) -> None:
    endpoint = trio[0].endpoint(BackendRole.MOVER)
    with Connection(endpoint, fidelity=False) as connection:
        connection.execute("SET SESSION wait_timeout = 1")
        deadline = time.monotonic() + 60
        gone = "SELECT 1 FROM information_schema.processlist WHERE id = %s"
        while trio[0].query(gone, args=(connection.connection_id,)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with pytest.raises(ConnectionLostError):
            connection.execute("DO 1")
        assert connection.closed


def test_logs_change_and_the_server_restarts_while_copying_and_following(
    server_factory: ServerFactory,
) -> None:
    servers = [server_factory("max-binlog-size=4096"), server_factory()]
    move = small_move(servers)
    source = move.source
    mover = RunningMover(move.spec(), chunk_bytes=2000)
    mover.start()
    for number in range(20):
        move.create(f"UPDATE t SET v = 'turn {number}' WHERE id % 20 = {number}")
        source.query("FLUSH LOGS" if number % 2 else "FLUSH BINARY LOGS")
    wait_copied(mover)
    settled(move, mover)
    source.restart()
    move.create("UPDATE t SET v = 'restarted' WHERE id < 100")
    settled(move, mover)
    mover.stop(60)
    again = RunningMover(move.spec(2), chunk_bytes=2000)
    again.start()
    source.kill()
    source.start()
    move.create("DELETE FROM t WHERE id > 1900")
    settled(move, again)
    again.stop(60)


def test_purged_logs_end_the_stream_with_what_to_do(server_factory: ServerFactory) -> None:
    move = small_move([server_factory(), server_factory()])
    with running(move.spec()) as mover:
        wait_copied(mover)
        settled(move, mover)
    source = move.source
    move.create("DELETE FROM t WHERE id = 1")
    source.query("FLUSH BINARY LOGS")
    newest = source.query("SHOW BINARY LOGS")[-1][0]
    deadline = time.monotonic() + 30
    while source.query("SHOW BINARY LOGS")[0][0] != newest:  # the session of the stream before may read them
        assert time.monotonic() < deadline
        source.query(f"PURGE BINARY LOGS TO '{newest}'")
        time.sleep(0.1)
    again = RunningMover(move.spec(2))
    again.start()
    progress = wait_over(again)
    assert (progress.phase, progress.retryable) == (Phase.FAILED, False)
    assert "has purged the binlogs that are needed" in progress.error
    assert "cancel" in progress.error
    again.stop(10)


@pytest.mark.parametrize("packet", [None, 16])
def test_rows_larger_than_the_target_s_packets_are_moved_whole(
    server_factory: ServerFactory, packet: int | None
) -> None:
    servers = [server_factory(), server_factory(*([f"max-allowed-packet={packet}M"] if packet else []))]
    move = make_move(servers, "-", "-")
    size = 20 << 20
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)",
        rf"INSERT INTO t VALUES (1, REPEAT('\0\\\n\t', {size // 4})), (2, 'b')",
    )
    move.prepare(Placement("t"))
    with running(move.spec()) as mover:
        wait_copied(mover)
        settled(move, mover)
        move.create(
            f"UPDATE t SET b = REPEAT('z', {size}) WHERE id = 2",
            "UPDATE t SET b = CONCAT(b, '!') WHERE id = 1",
        )
        settled(move, mover)


def long_set(sources: int) -> str:
    """A GTID set of many servers, each with holes."""
    return ",".join(
        f"{UUID(int=(number + 1) << 64)}:1-{number + 3}:{number + 5}-{number + 90}:{number + 200}"
        for number in range(sources)
    )


def test_positions_of_ten_kilobytes(server_factory: ServerFactory, flavor: Flavor) -> None:
    servers = [server_factory(), server_factory()]
    if flavor is Flavor.MYSQL:
        for server in servers:
            server.execute(["RESET BINARY LOGS AND GTIDS", f"SET GLOBAL gtid_purged = '{long_set(200)}'"])
    move = small_move(servers)
    if flavor is Flavor.MARIADB:  # a position of one transaction for each domain
        with closing(move.source.connect(schema=move.schema)) as client, client.cursor() as cursor:
            for domain in range(1, 600):
                cursor.execute(f"SET SESSION gtid_domain_id = {4_000_000_000 + domain}")
                cursor.execute(f"UPDATE t SET v = 'domain {domain}' WHERE id = 1")
    assert len(move.source.position()) > 10_000
    with running(move.spec()) as mover:
        wait_copied(mover)
        move.create("UPDATE t SET v = 'following' WHERE id < 50")
        settled(move, mover)
    with move.source.connect(schema=move.schema) as client, client.cursor() as cursor:
        holes(flavor, cursor)
    with running(move.spec(2)) as mover:
        settled(move, mover)
        assert len(mover.progress().streams[0].position) > 10_000


def holes(flavor: Flavor, cursor: pymysql.cursors.Cursor) -> None:
    """Transactions of other servers, out of order."""
    for number in (9, 3, 6):
        if flavor is Flavor.MYSQL:
            cursor.execute(f"SET SESSION gtid_next = '{UUID(int=7 << 80)}:{number}'")
        else:
            cursor.execute(f"SET SESSION gtid_domain_id = {number}, server_id = {number + 1}")
        cursor.execute("UPDATE t SET v = %s WHERE id = %s", (f"hole {number}", number))
        if flavor is Flavor.MYSQL:
            cursor.execute("SET SESSION gtid_next = 'AUTOMATIC'")
