"""Holds and moves under live clients: no error, no lost statement, no statement at the wrong place."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import mysql.connector
import pymysql
import pytest

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.names import new_id
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import BackendRole, Flavor, TabletType
from tests.support import mysqld
from tests.support.gateway import BRANCH, GatewayFixture, rows, secret, start_gateway, unsharded

pytestmark = pytest.mark.servers

Shared = Callable[[Flavor], mysqld.TestServer]
TABLE = "CREATE TABLE t (id BIGINT PRIMARY KEY, v VARCHAR(50), n INT NOT NULL DEFAULT 0)"


@pytest.fixture(scope="module")
def two_servers(
    flavor: Flavor, shared_server: Shared, server_root: Path
) -> Iterator[tuple[mysqld.TestServer, mysqld.TestServer]]:
    second = mysqld.start_server(flavor, server_root)
    yield shared_server(flavor), second
    second.close()


@dataclass
class World:
    """Keyspace ``source`` on one server, ``target`` on another; table t lives in one of them."""

    gw: GatewayFixture
    source: str
    target: str
    servers: dict[str, mysqld.TestServer]

    @property
    def home(self) -> str:
        return self.gw.routes.rules.get("t", f"{self.source}.t").split(".")[0]

    def request(
        self, *, drain: float = 20.0, hold: float = 60.0, tables: tuple[str, ...] = ("t",)
    ) -> HoldRequest:
        return HoldRequest(
            hold_id=new_id(),
            branch_id=BRANCH,
            tables=frozenset((self.home, table) for table in tables),
            tablet_types=frozenset({TabletType.PRIMARY}),
            drain_seconds=drain,
            hold_seconds=hold,
        )

    def route(self, keyspace: str) -> None:
        rules = dict.fromkeys(("t", f"{self.source}.t", f"{self.target}.t"), f"{keyspace}.t")
        self.gw.routes = replace(self.gw.routes, rules=rules)
        self.gw.publish()

    def carry(self) -> None:
        """Move t's rows while it is held; what was left behind cannot be written any more."""
        before = self.home
        after = self.target if before == self.source else self.source
        old, new = self.servers[before], self.servers[after]
        content = old.query("SELECT id, v, n FROM t", before)
        old.query("RENAME TABLE t TO t_left_behind", before)
        old.query("DROP TABLE t_left_behind", before)
        new.query(TABLE, after)
        with contextlib.closing(new.connect(schema=after, autocommit=False)) as connection:
            connection.cursor().executemany("INSERT INTO t VALUES (%s, %s, %s)", content)
            connection.commit()
        self.route(after)

    def move(self) -> None:
        request = self.request()
        self.gw.gateway.hold(request)
        assert self.gw.gateway.is_held(request.hold_id)
        self.carry()
        self.gw.gateway.release(request.hold_id)
        assert not self.gw.gateway.is_held(request.hold_id)

    def content(self, sql: str = "SELECT id, v, n FROM t ORDER BY id") -> list[tuple[Any, ...]]:
        return self.servers[self.home].query(sql, self.home)


@pytest.fixture
def world(two_servers: tuple[mysqld.TestServer, mysqld.TestServer], tmp_path: Path) -> Iterator[World]:
    one, two = two_servers
    source, target = f"src_{new_id()}", f"dst_{new_id()}"
    one.create_schema(source)
    two.create_schema(target)
    one.execute([TABLE, "CREATE TABLE other (id BIGINT PRIMARY KEY, v VARCHAR(50))"], source)
    keyspaces = {source: unsharded(source, one), target: unsharded(target, two)}
    gw = start_gateway(one, keyspaces, source, tmp_path)
    yield World(gw, source, target, {source: one, target: two})
    gw.gateway.stop(1.0)
    one.drop_schema(source)
    two.drop_schema(target)


def prepared_client(world: World) -> Any:
    return mysql.connector.connect(
        host="127.0.0.1", port=world.gw.gateway.port, user="admin", password=secret(BackendRole.ADMIN),
        database="app", use_pure=True, ssl_disabled=True, collation="utf8mb4_general_ci", autocommit=True,
    )  # fmt: skip


class Load:
    """Clients that write without pause and note what was acknowledged."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.errors: list[str] = []
        self.done: set[int] = set()
        self.statements = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        makers = [self._autocommit, self._transactions, self._transactions, self._prepared]
        self._threads = [
            threading.Thread(target=self._guard, args=(make, number * 1_000_000), name=make.__name__)
            for number, make in enumerate(makers, 1)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), thread.name

    def _guard(self, work: Callable[[int], None], first: int) -> None:
        try:
            work(first)
        except Exception as error:  # noqa: BLE001 whatever a client sees is a failure of the test
            self.errors.append(f"{work.__name__}: {error!r}")

    def _acknowledged(self, *ids: int) -> None:
        with self._lock:
            self.done.update(ids)
            self.statements += len(ids)

    def wait(self, more: int = 60) -> None:
        """Let the clients do so many more statements."""
        goal, deadline = self.statements + more, time.monotonic() + 30
        while self.statements < goal and time.monotonic() < deadline and not self.errors:
            time.sleep(0.005)

    def _autocommit(self, number: int) -> None:
        with contextlib.closing(self.world.gw.connect(autocommit=None)) as connection:
            cursor = connection.cursor()
            while not self._stop.is_set():
                number += 1
                cursor.execute("INSERT INTO t (id, v) VALUES (%s, 'auto')", (number,))
                self._acknowledged(number)

    def _transactions(self, number: int) -> None:
        with contextlib.closing(self.world.gw.connect(autocommit=None)) as connection:
            cursor = connection.cursor()
            while not self._stop.is_set():
                connection.begin()
                cursor.execute("INSERT INTO t (id, v) VALUES (%s, 'one')", (number + 1,))
                assert rows(cursor, "SELECT v FROM t WHERE id = %s", (number + 1,)) == [("one",)]
                cursor.execute("INSERT INTO t (id, v) VALUES (%s, 'two')", (number + 2,))
                connection.commit()
                self._acknowledged(number + 1, number + 2)
                number += 2

    def _prepared(self, number: int) -> None:
        with contextlib.closing(prepared_client(self.world)) as connection:
            insert, select = connection.cursor(prepared=True), connection.cursor(prepared=True)
            while not self._stop.is_set():
                number += 1
                insert.execute("INSERT INTO t (id, v, n) VALUES (?, ?, ?)", (number, "prepared", number % 7))
                select.execute("SELECT v, n FROM t WHERE id = ?", (number,))
                assert select.fetchall() == [("prepared", number % 7)]
                self._acknowledged(number)


def test_tables_move_to_and_fro_under_load(world: World) -> None:
    with Load(world) as load:
        load.wait()
        for _ in range(4):
            world.move()
            load.wait()
    assert load.errors == []
    assert world.home == world.source
    assert {row[0] for row in world.content()} == load.done
    assert load.statements > 200


def test_a_hold_waits_for_transactions_and_lets_them_go_on(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as one, contextlib.closing(world.gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        one.begin()
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        moved = threading.Thread(target=world.move)
        moved.start()
        while not world.gw.gateway.holds_in_force():
            time.sleep(0.005)
        waiting = threading.Thread(target=other.execute, args=("INSERT INTO t (id) VALUES (3)",))
        waiting.start()
        cursor.execute("INSERT INTO t (id) VALUES (2)")  # under way: goes on, on the held table too
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(2,)]
        assert waiting.is_alive()
        one.commit()
        moved.join(20)
        waiting.join(20)
        assert world.home == world.target
        assert [row[0] for row in world.content()] == [1, 2, 3]


def test_a_transaction_that_has_not_touched_the_tables_meets_them_at_their_new_place(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO other VALUES (1, 'x')")
        request = world.request()
        world.gw.gateway.hold(request)
        waiting = threading.Thread(target=cursor.execute, args=("INSERT INTO t (id) VALUES (1)",))
        waiting.start()
        world.carry()
        assert waiting.is_alive()
        world.gw.gateway.release(request.hold_id)
        waiting.join(20)
        connection.commit()
    assert [row[0] for row in world.content()] == [1]
    assert world.servers[world.source].query("SELECT id FROM other", world.source) == [(1,)]


def test_a_transaction_over_two_servers_is_rolled_back_on_both(world: World) -> None:
    world.move()
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        for end in (connection.rollback, connection.commit):
            connection.begin()
            cursor.execute("INSERT INTO other VALUES (1, 'x')")
            cursor.execute("SAVEPOINT s")
            cursor.execute("INSERT INTO t (id) VALUES (1)")
            cursor.execute("INSERT INTO other VALUES (2, 'x')")
            cursor.execute("ROLLBACK TO s")
            cursor.execute("INSERT INTO t (id) VALUES (5)")
            end()
    assert [row[0] for row in world.content()] == [5]
    assert world.servers[world.source].query("SELECT id FROM other", world.source) == [(1,)]


def test_a_lazy_transaction_follows_the_move(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
        connection.begin()
        world.move()
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        connection.rollback()
        connection.begin()
        cursor.execute("INSERT INTO t (id) VALUES (2)")
        connection.commit()
    assert [row[0] for row in world.content()] == [2]


def test_a_hold_that_cannot_drain_is_given_up(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as one, contextlib.closing(world.gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        one.begin()
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        request = world.request(drain=0.3)
        with pytest.raises(DeadlineExceededError):
            world.gw.gateway.hold(request)
        assert not world.gw.gateway.is_held(request.hold_id)
        other.execute("INSERT INTO t (id) VALUES (2)")
        one.commit()
        world.gw.gateway.release(request.hold_id)
    assert [row[0] for row in world.content()] == [1, 2]


def test_autocommit_off_counts_as_a_transaction(world: World) -> None:
    with contextlib.closing(world.gw.connect(autocommit=False)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        with pytest.raises(DeadlineExceededError):
            world.gw.gateway.hold(world.request(drain=0.3))
        connection.commit()
        world.move()
        cursor.execute("INSERT INTO t (id) VALUES (2)")
        connection.commit()
    assert [row[0] for row in world.content()] == [1, 2]


def test_locked_tables_count_as_a_transaction(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES t WRITE")
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        with pytest.raises(DeadlineExceededError):
            world.gw.gateway.hold(world.request(drain=0.3))
        cursor.execute("UNLOCK TABLES")
        request = world.request()
        world.gw.gateway.hold(request)
        world.gw.gateway.release(request.hold_id)


def test_a_hold_ends_by_itself(world: World) -> None:
    request = world.request(hold=0.4)
    begun = time.monotonic()
    world.gw.gateway.hold(request)
    assert world.gw.gateway.is_held(request.hold_id) or time.monotonic() - begun > 0.4
    # Nobody releases it; the statement waits and then goes on where the routes say.
    world.gw.query("INSERT INTO t (id) VALUES (1)", autocommit=True)
    assert not world.gw.gateway.is_held(request.hold_id)
    assert [row[0] for row in world.content()] == [1]


def test_a_hold_holds_only_what_it_names(world: World) -> None:
    request = world.request()
    world.gw.gateway.hold(request)
    world.gw.gateway.hold(request)  # asked again after a crash: the same hold
    assert world.gw.query("SELECT COUNT(*) FROM other") == [(0,)]
    assert world.gw.query("SELECT 1") == [(1,)]
    assert world.gw.query("SELECT COUNT(*) FROM t", database=f"{world.source}@replica") == [(0,)]
    world.gw.gateway.release("unknown")
    world.gw.gateway.release(request.hold_id)
    assert world.gw.query("SELECT COUNT(*) FROM t") == [(0,)]


def test_waiting_clients_may_leave(world: World) -> None:
    request = world.request()
    world.gw.gateway.hold(request)
    connection = world.gw.connect()
    connection._read_timeout = 0.3  # type: ignore[reportPrivateUsage]  # for the statement, not for the login
    with pytest.raises(pymysql.err.OperationalError):
        connection.cursor().execute("INSERT INTO t (id) VALUES (1)")
    world.gw.gateway.release(request.hold_id)
    assert world.gw.query("SELECT COUNT(*) FROM t") == [(0,)]


def test_the_session_is_the_same_at_the_new_place(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET @mine = 42")
        cursor.execute("SET SESSION sort_buffer_size = 333000, sql_mode = 'NO_ENGINE_SUBSTITUTION'")
        cursor.execute("SET NAMES latin1")
        cursor.execute("INSERT INTO t (id, n) VALUES (1, 42)")
        world.move()
        ask = (
            "SELECT id, @mine, @@sort_buffer_size = 333000, @@sql_mode, @@character_set_client FROM t "
            "WHERE n = @mine"
        )
        assert rows(cursor, ask) == [(1, 42, 1, "NO_ENGINE_SUBSTITUTION", "latin1")]


def test_state_that_cannot_move_is_refused(world: World) -> None:
    with contextlib.closing(world.gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (id) VALUES (1)")
        cursor.execute("SELECT MAX(id) INTO @largest FROM t")
        world.move()
        with pytest.raises(pymysql.err.MySQLError, match="keeps state"):
            cursor.execute("SELECT * FROM t WHERE id = @largest")
        assert rows(cursor, "SELECT id FROM t") == [(1,)]


def test_open_cursors_are_read_to_their_end(world: World) -> None:
    world.servers[world.source].query(
        "INSERT INTO t (id) VALUES " + ",".join(f"({number})" for number in range(1, 301)), world.source
    )
    from tests.support.wire import WireClient

    with WireClient(world.gw.gateway.port, "admin", secret(BackendRole.ADMIN), "app") as client:
        number = client.prepare("SELECT id FROM t ORDER BY id")
        client.open_cursor(number)
        found = client.fetch(number, 100)
        world.move()
        found += client.fetch(number, 1000)
        assert found == list(range(1, 301))
        client.open_cursor(number)
        assert client.fetch(number, 1000) == list(range(1, 301))


def test_statements_prepared_before_follow_with_their_types(world: World) -> None:
    from tests.support.wire import WireClient

    with WireClient(world.gw.gateway.port, "admin", secret(BackendRole.ADMIN), "app") as client:
        insert = client.prepare("INSERT INTO t (id, n) VALUES (?, ?)")
        client.execute(insert, (1, 10), bind=True)
        client.execute(insert, (2, 20), bind=False)
        world.move()
        client.execute(insert, (3, 30), bind=False)
        world.move()
        client.execute(insert, (4, 40), bind=False)
    assert [(row[0], row[2]) for row in world.content()] == [(1, 10), (2, 20), (3, 30), (4, 40)]


def test_what_waits_for_a_hold_is_not_sent_when_the_gateway_stops(world: World) -> None:
    world.gw.query("INSERT INTO t (id) VALUES (1)", autocommit=True)
    world.gw.gateway.hold(world.request())
    failed: list[BaseException] = []

    def insert() -> None:
        try:
            world.gw.query("INSERT INTO t (id) VALUES (2)", autocommit=True)
        except pymysql.err.MySQLError as error:
            failed.append(error)

    client = threading.Thread(target=insert)
    client.start()
    while not any(hold.waiters for hold in world.gw.gateway._branches[BRANCH].holds._holds.values()):  # type: ignore[reportPrivateUsage]
        time.sleep(0.01)
    world.gw.gateway.stop(0.1)
    client.join(60.0)
    assert failed
    assert [row[0] for row in world.content()] == [1]
