"""What clients meet of tables that were made, dropped or moved behind a gateway's back.

Two keyspaces on one server: ``here`` is unsharded and has ``t`` and ``other``; ``there`` has two shards, and
its vschema lists ``t`` long before it has it. Ids 1 and 2 are placed on its second shard.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import mysql.connector
import pymysql
import pytest

from homeworld.gateway import effects
from homeworld.gateway.pool import ask
from homeworld.model.errors import DeadlineExceededError
from homeworld.model.names import new_id
from homeworld.model.routing import Closing, HoldRequest, KeyspaceRoute
from homeworld.model.routing_rules import TrafficPhase, rules_for
from homeworld.model.topology import Flavor, TabletType
from tests.support import mysqld
from tests.support.gateway import BRANCH, GatewayFixture, connector, unsharded

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

SUBJECT = "workflow-9"
CLIENTS = 8
TABLE = "CREATE TABLE t (id BIGINT PRIMARY KEY, n INT)"
BY_ID = {"column_vindexes": [{"column": "id", "name": "xxhash"}]}
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"t": BY_ID, "made_late": BY_ID, "missing": BY_ID},
}


@dataclass
class World:
    """The two keyspaces, and rules between them."""

    gw: GatewayFixture
    server: mysqld.TestServer
    here: str
    there: str

    def route(self, phase: TrafficPhase | None, closing: Closing | None = None) -> None:
        rules = {} if phase is None else rules_for(phase, ["t"], self.here, self.there, {})
        self.gw.routes = replace(self.gw.routes, rules=rules, closing=closing)
        self.gw.publish()

    def make(self, name: str = "t", *rows: tuple[int, int]) -> None:
        """Make a table in ``there``, past the gateway."""
        for shard in self.gw.routes.keyspaces[self.there].shards:
            self.server.execute([TABLE.replace("TABLE t", f"TABLE {name}")], shard.schema)
        self.fill(*rows)

    def fill(self, *rows: tuple[int, int]) -> None:
        """Rows of ``t`` where they are placed."""
        statements = [f"INSERT INTO t VALUES ({key}, {number})" for key, number in rows]
        self.server.execute(statements, self.gw.routes.keyspaces[self.there].shards[1].schema)

    def drop(self) -> None:
        """Drop ``t`` in ``there``, past the gateway."""
        for shard in self.gw.routes.keyspaces[self.there].shards:
            self.server.execute(["DROP TABLE t"], shard.schema)

    def refused(self, name: str) -> bool:
        """Whether the gateway says that there is no such table."""
        try:
            self.gw.query(f"SELECT * FROM {name} WHERE id = 1")
        except pymysql.err.ProgrammingError as error:
            return error.args[0] == 1146
        return False

    @contextlib.contextmanager
    def nuisance(self) -> Generator[None]:
        """A client that asks for a table that is not there, all the time."""
        over = threading.Event()

        def ask() -> None:
            while not over.is_set():
                assert self.refused(f"{self.there}.missing")

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(20.0)
            assert not thread.is_alive()

    def all_at_once(
        self,
        sql: str,
        before: Callable[[], None] = lambda: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[object]:
        """What many clients get for a statement that they send at the same moment.

        :param before: is done right before, when they are connected. ``meanwhile``: right after.
        """
        start = threading.Barrier(CLIENTS + 1)
        answers: list[object] = []

        def ask(connection: Any) -> None:
            with contextlib.closing(connection), connection.cursor() as cursor:
                start.wait(60.0)
                try:
                    cursor.execute(sql)
                    answers.append(cursor.fetchall())
                except pymysql.err.Error as error:
                    answers.append(error)

        connections = [self.gw.connect(database="@primary", autocommit=True) for _ in range(CLIENTS)]
        threads = [threading.Thread(target=ask, args=(one,), daemon=True) for one in connections]
        for thread in threads:
            thread.start()
        before()
        start.wait(60.0)
        meanwhile()
        for thread in threads:
            thread.join(30.0)
            assert not thread.is_alive()
        return answers


@pytest.fixture
def world(gw: GatewayFixture, gateway_schema: str, gateway_server: mysqld.TestServer) -> Iterator[World]:
    there = f"ks_{new_id()}"
    schemas = {"-80": f"{there}_low", "80-": f"{there}_high"}
    for schema in schemas.values():
        gateway_server.create_schema(schema)
    fill = "INSERT INTO t VALUES (1, 10), (2, 20)"
    gateway_server.execute([TABLE, fill, "CREATE TABLE other (id INT PRIMARY KEY)"], gateway_schema)
    (shard,) = unsharded(there, gateway_server).shards
    shards = tuple(replace(shard, name=name, schema=schema) for name, schema in schemas.items())
    route = KeyspaceRoute(there, sharded=True, vschema=VSCHEMA, shards=shards)
    gw.routes = replace(gw.routes, keyspaces={**gw.routes.keyspaces, there: route})
    gw.publish()
    yield World(gw, gateway_server, gateway_schema, there)
    for schema in schemas.values():
        gateway_server.drop_schema(schema)


# -------------------------------------------------------------------- tables made and dropped meanwhile


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers take their time to say what tables they have."""

    async def late(*args: Any) -> Any:
        await asyncio.sleep(0.2)
        return await ask(*args)

    monkeypatch.setattr(effects, "ask", late)


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("held", [False, True], ids=["published", "switched"])
def test_nobody_is_refused_a_table_made_before_the_routes_led_to_it(world: World, held: bool) -> None:
    world.route(TrafficPhase.SOURCE)
    with world.nuisance():
        assert world.refused(f"{world.there}.missing"), "what there has is known, and doubted"
        world.make("t", (1, 11))
        sql = "SELECT n FROM t WHERE id = 1"
        if not held:
            found = world.all_at_once(sql, lambda: world.route(TrafficPhase.TARGET))
            assert found == [((11,),)] * CLIENTS
            return
        names = frozenset({(world.here, "t"), (world.there, "t")})
        closing = Closing(SUBJECT, names, dict(world.gw.routes.rules))
        primaries = frozenset({TabletType.PRIMARY})
        gateway = world.gw.gateway
        gateway.hold(
            HoldRequest("one", BRANCH, frozenset({(world.here, "t")}), primaries, 5.0, 60.0, SUBJECT, (1, 1))
        )

        def switch() -> None:
            time.sleep(0.1)  # the clients wait by now
            world.route(TrafficPhase.TARGET, closing)
            gateway.open(SUBJECT)
            gateway.release("one")

        assert world.all_at_once(sql, meanwhile=switch) == [((11,),)] * CLIENTS


@pytest.mark.usefixtures("slow")
def test_nobody_is_led_to_a_table_that_was_dropped_before_the_routes_forgot_it(world: World) -> None:
    world.make()
    world.route(TrafficPhase.SOURCE)
    assert world.gw.query(f"SELECT n FROM {world.there}.t WHERE id = 2") == [(20,)], "what there has is known"
    for round_ in range(2):
        world.drop()
        found = world.all_at_once("SELECT n FROM t WHERE id = 2", lambda: world.route(None))
        assert found == [((20,),)] * CLIENTS, round_
        world.route(TrafficPhase.SOURCE)
        world.make()
        assert world.all_at_once("SELECT n FROM t WHERE id = 2") == [((20,),)] * CLIENTS, round_


@pytest.mark.usefixtures("slow")
def test_where_both_list_a_table_the_one_that_kept_it_is_meant(world: World) -> None:
    listing = replace(world.gw.routes.keyspaces[world.here], vschema={"tables": {"t": {}}})
    world.gw.routes = replace(world.gw.routes, keyspaces={**world.gw.routes.keyspaces, world.here: listing})
    world.make()
    world.route(TrafficPhase.SOURCE)
    assert world.refused(f"{world.there}.missing")
    world.drop()
    found = world.all_at_once("SELECT n FROM t WHERE id = 2", lambda: world.route(None))
    assert found == [((20,),)] * CLIENTS


@pytest.mark.usefixtures("slow")
def test_all_who_meet_an_unknown_table_wait_for_the_one_reading(world: World) -> None:
    with world.nuisance():
        assert world.refused(f"{world.there}.made_late")
        for name in ("made_late", "t"):
            time.sleep(2.5 if name == "made_late" else 0.0)  # that it is missing is known for a second
            sql = f"SELECT n FROM {world.there}.{name} WHERE id = 1"
            found = world.all_at_once(sql, lambda name=name: world.make(name))
            assert found == [()] * CLIENTS, name


def test_what_cannot_be_read_is_waited_for_and_said(
    world: World, server_factory: Callable[..., mysqld.TestServer]
) -> None:
    """Routes to a keyspace whose server is down are taken; who needs it is told, nobody else is concerned."""
    other = server_factory()
    other.create_schema("lost")
    other.execute([TABLE], "lost")
    (shard,) = unsharded("lost", other).shards
    shards = tuple(replace(shard, name=name) for name in ("-80", "80-"))
    lost = KeyspaceRoute("lost", sharded=True, vschema=VSCHEMA, shards=shards)
    world.gw.routes = replace(world.gw.routes, keyspaces={**world.gw.routes.keyspaces, "lost": lost})
    world.gw.publish()
    assert world.gw.query("SELECT n FROM lost.t WHERE id = 1") == []
    assert world.refused("lost.missing")
    other.kill()
    rules = {"lost.t": f"{world.here}.t", **dict.fromkeys(("t", f"{world.here}.t"), f"{world.here}.t")}
    world.gw.routes = replace(world.gw.routes, rules=rules)
    world.gw.publish()
    assert world.gw.query("SELECT n FROM lost.t WHERE id = 1") == [(10,)]
    with pytest.raises(pymysql.err.OperationalError, match="the tables of keyspace lost could not be read"):
        world.gw.query("SELECT * FROM lost.missing WHERE id = 1")
    assert world.gw.query("SELECT n FROM t WHERE id = 1") == [(10,)]


# -------------------------------------------------------------------- transactions older than a move

OLDER = {
    "snapshot": ("START TRANSACTION WITH CONSISTENT SNAPSHOT",),
    "begin": ("BEGIN", "SELECT * FROM other"),
    "writes": ("BEGIN", "INSERT INTO other VALUES (7)"),
    "autocommit": ("SET autocommit = 0", "SELECT * FROM other"),
}


@pytest.fixture
def copied(world: World) -> World:
    """``there`` has a copy of ``t`` that is still without its second row."""
    world.make("t", (1, 10))
    world.route(TrafficPhase.SOURCE)
    return world


def switch(world: World) -> None:
    """The copy has caught up, and is what clients are led to."""
    world.fill((2, 20))
    world.route(TrafficPhase.TARGET)


@pytest.mark.parametrize("begins", OLDER)
def test_a_transaction_older_than_a_move_does_not_see_the_copy_as_it_was(copied: World, begins: str) -> None:
    with contextlib.closing(copied.gw.connect(autocommit=None)) as older, older.cursor() as cursor:
        for statement in OLDER[begins]:
            cursor.execute(statement)
        switch(copied)
        for statement in ("SELECT COUNT(*) FROM t", "UPDATE t SET n = 0 WHERE id = 1"):
            with pytest.raises(pymysql.err.OperationalError) as refused:
                cursor.execute(statement)
            assert refused.value.args == (1412, "Table definition has changed, please retry transaction")
        cursor.execute("SELECT COUNT(*) FROM other")
        assert cursor.fetchall() == ((begins == "writes",),), "the transaction is as it was"
        cursor.execute("ROLLBACK")
        for _ in range(3):
            cursor.execute("SELECT id, n FROM t ORDER BY id")
            assert cursor.fetchall() == ((1, 10), (2, 20))
        cursor.execute("ROLLBACK")
    assert copied.gw.query("SELECT COUNT(*) FROM other") == [(0,)]


def test_a_prepared_statement_of_an_older_transaction_is_refused_too(copied: World) -> None:
    connection = connector(copied.gw, database="@primary")
    with contextlib.closing(connection):
        cursor = connection.cursor(prepared=True)
        cursor.execute("SELECT n FROM t WHERE id = ?", (2,))
        assert cursor.fetchall() == [(20,)]
        connection.rollback()
        connection.start_transaction(consistent_snapshot=True)
        switch(copied)
        with pytest.raises(mysql.connector.Error, match="please retry transaction"):
            cursor.execute("SELECT n FROM t WHERE id = ?", (2,))
        connection.rollback()
        cursor.execute("SELECT n FROM t WHERE id = ?", (2,))
        assert cursor.fetchall() == [(20,)]


def test_nobody_but_older_transactions_is_concerned_by_a_move(copied: World) -> None:
    begun, free, open_elsewhere = (copied.gw.connect(autocommit=True) for _ in range(3))
    with begun, free, open_elsewhere:
        for connection in (begun, free, open_elsewhere):
            connection.cursor().execute("SELECT * FROM other")
        begun.cursor().execute("BEGIN")  # its first statement on the server comes after the switch
        open_elsewhere.cursor().execute("BEGIN")
        open_elsewhere.cursor().execute("INSERT INTO other VALUES (8)")
        switch(copied)
        for connection in (begun, free):
            with connection.cursor() as cursor:
                for _ in range(2):
                    cursor.execute("SELECT COUNT(*) FROM t")
                    assert cursor.fetchall() == ((2,),)
        open_elsewhere.cursor().execute("INSERT INTO other VALUES (9)")
        open_elsewhere.commit()
    assert copied.gw.query("SELECT COUNT(*) FROM other") == [(2,)]


def test_who_waited_at_the_hold_with_an_older_transaction_is_told(copied: World) -> None:
    gateway = copied.gw.gateway
    primaries = frozenset({TabletType.PRIMARY})
    gateway.hold(HoldRequest("one", BRANCH, frozenset({(copied.here, "t")}), primaries, 5.0, 60.0))
    errors: list[pymysql.err.Error] = []
    with contextlib.closing(copied.gw.connect(autocommit=None)) as older:
        older.cursor().execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")

        def read() -> None:
            try:
                older.cursor().execute("SELECT COUNT(*) FROM t")
            except pymysql.err.Error as error:
                errors.append(error)

        thread = threading.Thread(target=read, daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        switch(copied)
        gateway.release("one")
        thread.join(20.0)
        assert [error.args[0] for error in errors] == [1412]
        older.rollback()


@pytest.mark.parametrize("told", [True, False], ids=["told", "published"])
def test_a_transaction_begun_while_the_tables_were_closed_is_older_than_their_opening(
    copied: World, told: bool
) -> None:
    """What had been left behind is carried over while they are closed."""
    gateway = copied.gw.gateway
    names = frozenset({(copied.here, "t"), (copied.there, "t")})
    closing = Closing(SUBJECT, names, dict(copied.gw.routes.rules))
    held = frozenset({(copied.here, "t")})
    gateway.hold(
        HoldRequest("one", BRANCH, held, frozenset({TabletType.PRIMARY}), 5.0, 60.0, SUBJECT, (1, 1))
    )
    copied.route(TrafficPhase.TARGET, closing)
    gateway.release("one")
    with contextlib.closing(copied.gw.connect(autocommit=False)) as client, client.cursor() as cursor:
        cursor.execute("SELECT * FROM other")
        copied.fill((2, 20))
        if told:
            gateway.open(SUBJECT)
        else:
            copied.route(TrafficPhase.TARGET)
        with pytest.raises(pymysql.err.OperationalError, match="please retry transaction"):
            cursor.execute("SELECT COUNT(*) FROM t")
        client.rollback()
        cursor.execute("SELECT * FROM other")
        copied.route(TrafficPhase.TARGET)  # the closing is forgotten, which opens nothing any more
        cursor.execute("SELECT COUNT(*) FROM t")
        assert cursor.fetchall() == ((2,),)


# -------------------------------------------------------------------- who keeps a hold waiting


def test_a_hold_that_is_given_up_says_whose_transactions_did_not_end(world: World) -> None:
    primaries = frozenset({TabletType.PRIMARY})
    request = HoldRequest("one", BRANCH, frozenset({(world.here, "t")}), primaries, 0.2, 60.0)
    with contextlib.closing(world.gw.connect(autocommit=False)) as client:
        with client.cursor() as cursor:
            cursor.execute("UPDATE t SET n = 0 WHERE id = 1")
        time.sleep(0.3)
        with pytest.raises(DeadlineExceededError) as given_up:
            world.gw.gateway.hold(request)
        client.rollback()
    who = rf"connection {client.thread_id()} of admin \(open for \d+\.\d s\)"
    assert given_up.match(rf"^transactions on the tables did not end within 0\.2 s: {who}$")
