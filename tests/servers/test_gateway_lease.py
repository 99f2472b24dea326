"""A gateway that is one of several: what it serves without a living lease, and how it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.gateway import holding
from homeworld.model.names import new_id
from homeworld.model.routing import Closing, HoldRequest, Moving, RoutingSnapshot
from homeworld.model.topology import Flavor, TabletType
from tests.support import mysqld
from tests.support.gateway import BRANCH, GatewayFixture, rows, start_gateway, unsharded
from tests.support.hostile import settles

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

SUBJECT = "workflow-7"


class Switch:
    """A lease that a test turns on and off."""

    def __init__(self) -> None:
        self.on = True

    def live(self) -> bool:
        return self.on


class Shop:
    """Table ``t`` is being moved from ``here`` to ``there``; ``u`` is not."""

    def __init__(self, gw: GatewayFixture, lease: Switch, here: str, there: str, server: Any) -> None:
        self.gw, self.lease, self.here, self.there, self.server = gw, lease, here, there, server
        names = ("t", f"{here}.t", f"{there}.t")
        self.old, self.new = dict.fromkeys(names, f"{here}.t"), dict.fromkeys(names, f"{there}.t")
        self.tables = frozenset({(here, "t"), (there, "t")})
        self.closing = Closing(SUBJECT, self.tables, self.old)
        self.gw.routes = replace(gw.routes, moving=Moving(self.tables, 1))
        self.route(self.old)

    def snapshot(self, rules: dict[str, str], closing: Closing | None = None) -> RoutingSnapshot:
        self.gw.version += 1
        self.gw.routes = replace(self.gw.routes, rules=rules, closing=closing, version=self.gw.version)
        return RoutingSnapshot(self.gw.version, {BRANCH: self.gw.routes}, dict(self.gw.accounts))

    def route(self, rules: dict[str, str], closing: Closing | None = None) -> None:
        self.gw.gateway.publish(self.snapshot(rules, closing))

    def come_back(self, rules: dict[str, str], closing: Closing | None = None, *holds: HoldRequest) -> None:
        """Enter anew, as a gateway that was set apart."""
        self.gw.gateway.enter(self.snapshot(rules, closing), holds)
        self.lease.on = True
        self.gw.gateway.resume()

    def lose_connections(self) -> None:
        """The server closes them all; sessions open others when they need them."""
        while told := self.gw.gateway.connections():
            for _, number in told:
                with contextlib.suppress(pymysql.MySQLError):
                    self.server.query(f"KILL {number}")

    def content(self) -> tuple[list[int], list[int]]:
        here, there = (
            [row[0] for row in self.server.query("SELECT n FROM t ORDER BY n", schema)]
            for schema in (self.here, self.there)
        )
        return here, there


class Client(threading.Thread):
    """One INSERT on a connection that is there already."""

    def __init__(self, shop: Shop, number: int, table: str = "t") -> None:
        super().__init__(daemon=True)
        self._connection = shop.gw.connect(autocommit=True)
        self._sql = f"INSERT INTO {table} (n) VALUES ({number})"
        self.error: Exception | None = None
        with self._connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {table}")

    def begin(self) -> Client:
        self.start()
        return self

    def run(self) -> None:
        with contextlib.closing(self._connection), self._connection.cursor() as cursor:
            try:
                cursor.execute(self._sql)
            except pymysql.MySQLError as error:
                self.error = error

    def waits(self) -> bool:
        self.join(0.4)
        return self.is_alive()

    def ends(self) -> bool:
        self.join(60.0)
        return not self.is_alive()


@pytest.fixture
def shop(
    gateway_server: mysqld.TestServer, gateway_schema: str, table: str, tmp_path: Path
) -> Iterator[Shop]:
    there, lease = f"ks_{new_id()}", Switch()
    gateway_server.create_schema(there)
    gateway_server.execute([f"CREATE TABLE t LIKE {gateway_schema}.{table}"], there)
    gateway_server.execute([f"CREATE TABLE u LIKE {table}"], gateway_schema)
    keyspaces = {name: unsharded(name, gateway_server) for name in (gateway_schema, there)}
    gw = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path, lease=lease)
    yield Shop(gw, lease, gateway_schema, there, gateway_server)
    gw.gateway.stop(1.0)
    gateway_server.drop_schema(there)


def test_without_a_living_lease_what_moves_waits_and_all_else_goes_on(shop: Shop) -> None:
    warmed, other = Client(shop, 1), Client(shop, 2, "u")
    shop.lease.on = False
    warmed.begin()
    other.begin()
    assert warmed.waits()
    assert other.ends()
    late = Client(shop, 3, "u")
    assert late.begin().ends()
    shop.lease.on = True
    shop.gw.gateway.resume()
    assert warmed.ends()
    assert (warmed.error, other.error) == (None, None)
    assert shop.content() == ([1], [])


def test_a_lease_that_lives_again_is_noticed_though_nobody_says_so(shop: Shop) -> None:
    """It ended while it was being renewed: whoever renewed it has seen it live before and after."""
    warmed = Client(shop, 1)
    shop.lease.on = False
    assert warmed.begin().waits()
    shop.lease.on = True
    assert warmed.ends()
    assert warmed.error is None
    assert shop.content() == ([1], [])


def test_where_nothing_moves_no_lease_is_needed(shop: Shop) -> None:
    shop.gw.routes = replace(shop.gw.routes, moving=None)
    shop.route(shop.old)
    client = Client(shop, 1)
    shop.lease.on = False
    assert client.begin().ends()
    assert shop.content() == ([1], [])


def test_an_open_transaction_writes_nothing_more_and_may_end(shop: Shop) -> None:
    with contextlib.closing(shop.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        shop.lease.on = False
        connection.commit()
        assert shop.content() == ([1], []), "the old side has it before it can be left"


def test_coming_back_to_a_committed_switch_breaks_off_what_goes_by_the_old_routes(shop: Shop) -> None:
    """It is closed like everybody, whatever it was doing, and goes on at the new side once it is opened."""
    with contextlib.closing(shop.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        shop.lease.on = False
        waiting = Client(shop, 2, "u")
        waiting._sql = "INSERT INTO t (n) VALUES (2)"  # type: ignore[reportPrivateUsage]
        waiting.begin()
        assert waiting.waits()
        shop.come_back(shop.new, shop.closing)
        assert waiting.waits(), "closed"
        with pytest.raises(pymysql.MySQLError):
            connection.commit()
    shop.gw.gateway.open(SUBJECT)
    assert waiting.ends()
    assert waiting.error is None
    assert shop.content() == ([], [2])


def test_coming_back_to_nothing_new_breaks_off_nothing(shop: Shop) -> None:
    with contextlib.closing(shop.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        shop.lease.on = False
        shop.come_back(shop.old)
        cursor.execute("INSERT INTO t (n) VALUES (2)")
        connection.commit()
    assert shop.content() == ([1, 2], [])


def test_new_routes_that_come_before_it_has_come_back_let_nothing_through_either(shop: Shop) -> None:
    """As where it reads them by itself before it notices that the others went on."""
    with contextlib.closing(shop.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        shop.lease.on = False
        shop.route(shop.new)
        shop.come_back(shop.new)
        with pytest.raises(pymysql.MySQLError):
            connection.commit()
    assert Client(shop, 2).begin().ends()
    assert shop.content() == ([], [2])


def test_what_was_let_in_but_not_sent_when_the_lease_ended_waits_for_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is opened only after others may have gone on: nobody has told the server to end that."""
    pool = shop.gw.gateway._pool  # type: ignore[reportPrivateUsage]  # time between the two is the server's
    lease, opening, go_on = pool.lease, threading.Event(), threading.Event()

    async def slow(*arguments: Any) -> Any:
        opening.set()
        await asyncio.to_thread(go_on.wait)
        return await lease(*arguments)

    client = Client(shop, 1, "u")
    connection = shop.gw.connect()
    shop.lose_connections()
    monkeypatch.setattr(pool, "lease", slow)
    client._connection, client._sql = connection, "INSERT INTO t (n) VALUES (1)"  # type: ignore[reportPrivateUsage]
    client.begin()
    assert opening.wait(20.0)
    shop.lease.on = False
    go_on.set()
    assert client.waits()
    assert shop.content() == ([], [])
    shop.come_back(shop.new)
    assert client.ends()
    assert client.error is None
    assert shop.content() == ([], [1])


def test_what_was_let_in_before_others_went_on_goes_where_they_went(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = shop.gw.gateway._pool  # type: ignore[reportPrivateUsage]
    lease, opening, go_on = pool.lease, threading.Event(), threading.Event()

    async def slow(*arguments: Any) -> Any:
        opening.set()
        await asyncio.to_thread(go_on.wait)
        return await lease(*arguments)

    client = Client(shop, 1, "u")
    connection = shop.gw.connect()
    shop.lose_connections()
    monkeypatch.setattr(pool, "lease", slow)
    client._connection, client._sql = connection, "INSERT INTO t (n) VALUES (1)"  # type: ignore[reportPrivateUsage]
    client.begin()
    assert opening.wait(20.0)
    shop.lease.on = False
    shop.come_back(shop.new)
    go_on.set()
    assert client.ends()
    assert client.error is None
    assert shop.content() == ([], [1])


def test_it_enters_with_the_holds_of_the_others_in_force(shop: Shop) -> None:
    client = Client(shop, 1)
    shop.lease.on = False
    primaries = frozenset({TabletType.PRIMARY})
    hold = HoldRequest("w-1-1", BRANCH, frozenset({(shop.here, "t")}), primaries, 1.0, 60.0, "w-1", (1, 1))
    shop.come_back(shop.old, None, hold)
    client.begin()
    assert client.waits()
    assert shop.gw.gateway.is_held("w-1-1")
    shop.gw.gateway.release("w-1-1")
    assert client.ends()
    assert shop.content() == ([1], [])


def test_every_connection_to_servers_is_told(shop: Shop, gateway_server: mysqld.TestServer) -> None:
    with contextlib.closing(shop.gw.connect()) as connection, connection.cursor() as cursor:
        ((number,),) = rows(cursor, "SELECT CONNECTION_ID()")
        cursor.execute("SELECT 1 FROM t")
        told = shop.gw.gateway.connections()
        at_server = {
            int(row[0])
            for row in gateway_server.query("SHOW PROCESSLIST")
            if str(row[1]).startswith("homeworld_") or "test" in str(row[1])
        }
        assert {server for server, _ in told} == {gateway_server.endpoint().server_id}
        assert {number for _, number in told} <= at_server | {number}
        assert told


def test_a_hold_on_writes_outlasts_its_time_until_what_was_stored_meanwhile_is_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "_LONGEST_SECONDS", 600.0)
    monkeypatch.setattr(holding, "_READ_SECONDS", 600.0)
    gateway, tables = shop.gw.gateway, frozenset({(shop.here, "u")})
    writer = Client(shop, 1, "u")
    shop.lease.on = False
    for hold_id, held in (("writes", TabletType.PRIMARY), ("reads", TabletType.REPLICA)):
        gateway.hold(HoldRequest(hold_id, BRANCH, tables, frozenset({held}), 30.0, 0.3))
    writer.begin()
    assert settles(lambda: not gateway.is_held("writes")), "its time is over"
    assert settles(lambda: gateway.hold_ids() == {"writes"}), "who only reads goes on"
    assert writer.waits()
    shop.lease.on = True
    gateway.resume()
    assert writer.waits(), "it has not read yet how the others went on"
    gateway.release("writes")
    assert writer.ends()
    assert writer.error is None
    monkeypatch.setattr(holding, "_READ_SECONDS", 0.1)
    shop.lease.on = False
    gateway.hold(HoldRequest("again", BRANCH, tables, frozenset({TabletType.PRIMARY}), 30.0, 0.3))
    assert settles(lambda: not gateway.is_held("again"))
    assert gateway.hold_ids() == {"again"}
    shop.lease.on = True
    assert settles(lambda: not gateway.hold_ids()), "a store that says nothing is not waited for for ever"
