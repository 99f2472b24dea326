"""Closed tables in a gateway: whatever is published, it leaves the old rules drained, and opens when told."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.errors import FencedError
from homeworld.model.names import new_id
from homeworld.model.routing import Closing, HoldRequest, RoutingSnapshot
from homeworld.model.topology import Flavor, TabletType
from tests.support import mysqld
from tests.support.gateway import BRANCH, GatewayFixture, rows, unsharded
from tests.support.gateways import expire

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

SUBJECT = "workflow-7"


class Moved:
    """Table ``t``, which rules are about to lead from ``here`` to ``there``, and clients of it."""

    def __init__(self, gw: GatewayFixture, here: str, there: str, server: mysqld.TestServer) -> None:
        self.gw, self.here, self.there, self.server = gw, here, there, server
        names = ("t", f"{here}.t", f"{there}.t")
        self.old, self.new = dict.fromkeys(names, f"{here}.t"), dict.fromkeys(names, f"{there}.t")
        self.closing = Closing(SUBJECT, frozenset({(here, "t"), (there, "t")}), self.old)
        keyspaces = {**gw.routes.keyspaces, there: unsharded(there, server)}
        gw.routes = replace(gw.routes, keyspaces=keyspaces)
        self.route(self.old)

    def route(self, rules: dict[str, str], closing: Closing | None = None) -> None:
        self.gw.routes = replace(self.gw.routes, rules=rules, closing=closing)
        self.gw.publish()

    def request(self, hold_id: str, turn: tuple[int, int] = (1, 1), *, drain: float = 5.0) -> HoldRequest:
        tables, primaries = frozenset({(self.here, "t")}), frozenset({TabletType.PRIMARY})
        return HoldRequest(hold_id, BRANCH, tables, primaries, drain, 60.0, SUBJECT, turn)

    def content(self) -> tuple[list[int], list[int]]:
        """The numbers here and there."""
        here, there = (
            [row[0] for row in self.server.query("SELECT n FROM t ORDER BY n", schema)]
            for schema in (self.here, self.there)
        )
        return here, there

    def insert(self, number: int, gateway: Gateway | None = None) -> threading.Thread:
        """A client's statement, which may have to wait; the thread ends with it."""
        port = (gateway or self.gw.gateway).port
        insert = f"INSERT INTO t (n) VALUES ({number})"

        def run() -> None:
            with contextlib.closing(self.gw.connect(port=port, autocommit=True)) as connection:
                connection.cursor().execute(insert)

        thread = threading.Thread(target=run, name=insert, daemon=True)
        thread.start()
        return thread


def waits(thread: threading.Thread) -> bool:
    thread.join(0.4)
    return thread.is_alive()


def goes_on(thread: threading.Thread) -> bool:
    thread.join(20.0)
    return not thread.is_alive()


@pytest.fixture
def moved(
    gw: GatewayFixture, gateway_schema: str, gateway_server: mysqld.TestServer, table: str
) -> Iterator[Moved]:
    there = f"ks_{new_id()}"
    gateway_server.create_schema(there)
    gateway_server.execute([f"CREATE TABLE t LIKE {gateway_schema}.{table}", "CREATE TABLE u LIKE t"], there)
    yield Moved(gw, gateway_schema, there, gateway_server)
    gateway_server.drop_schema(there)


def test_without_its_hold_a_gateway_serves_the_rules_from_before_and_all_else(moved: Moved) -> None:
    moved.gw.accounts["newcomer"] = replace(moved.gw.accounts["admin"], username="newcomer")
    moved.route({**moved.new, "u": f"{moved.there}.u"}, moved.closing)
    assert goes_on(moved.insert(1))
    with contextlib.closing(moved.gw.connect(user="newcomer")) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT COUNT(*) FROM u") == [(0,)], "a rule that the switch did not move"
    assert moved.content() == ([1], [])
    moved.route(moved.new)
    assert goes_on(moved.insert(2))
    assert moved.content() == ([1], [2])


@pytest.mark.parametrize("ends", ["released", "expired"])
def test_taken_under_the_hold_it_stays_closed_until_it_is_opened(moved: Moved, ends: str) -> None:
    gateway = moved.gw.gateway
    gateway.hold(moved.request("one"))
    client = moved.insert(1)
    moved.route(moved.new, moved.closing)
    if ends == "released":
        gateway.release("one")
    else:
        expire(gateway)
    assert waits(client), "the end of the hold opens nothing"
    moved.route(moved.new, moved.closing)
    gateway.open("another subject")
    assert waits(client)
    gateway.open(SUBJECT)
    assert goes_on(client)
    moved.route(moved.new, moved.closing)
    assert goes_on(moved.insert(2)), "opened it stays open, whoever publishes"
    moved.route(moved.new)
    assert goes_on(moved.insert(3))
    assert moved.content() == ([], [1, 2, 3])


def test_a_hold_that_has_not_drained_is_none(moved: Moved) -> None:
    gateway = moved.gw.gateway
    with contextlib.closing(moved.gw.connect()) as connection, connection.cursor() as cursor:
        connection.begin()
        cursor.execute("INSERT INTO t (n) VALUES (1)")
        holding = threading.Thread(target=gateway.hold, args=(moved.request("one", drain=30.0),))
        holding.start()
        while not gateway.holds_in_force():
            time.sleep(0.005)
        moved.route(moved.new, moved.closing)
        cursor.execute("INSERT INTO t (n) VALUES (2)")  # under way on the old side: ends there
        connection.commit()
    holding.join(20.0)
    assert gateway.is_held("one")
    assert moved.content() == ([1, 2], [])
    moved.route(moved.new, moved.closing)
    gateway.open(SUBJECT)
    gateway.release("one")
    assert goes_on(moved.insert(3))
    assert moved.content() == ([1, 2], [3])


def test_prepared_statements_and_transactions_wait_at_closed_tables_too(moved: Moved) -> None:
    """What a session knew of its connections before must not lead it past."""
    gateway = moved.gw.gateway
    with contextlib.closing(moved.gw.connect()) as connection, connection.cursor() as cursor:
        for _ in range(5):
            cursor.execute("SELECT n FROM t WHERE n = 1")
        connection.commit()
        gateway.hold(moved.request("one"))
        moved.route(moved.new, moved.closing)
        gateway.release("one")
        reading = threading.Thread(target=cursor.execute, args=("SELECT n FROM t WHERE n = 1",), daemon=True)
        reading.start()
        assert waits(reading)
        moved.route(moved.new)
        assert goes_on(reading)


@pytest.fixture
def second(moved: Moved) -> Iterator[Callable[[], Gateway]]:
    """Starts a gateway that begins with what is published."""
    started: list[Gateway] = []

    def start() -> Gateway:
        made = Gateway(router_factory=Router)
        snapshot = RoutingSnapshot(moved.gw.version, {BRANCH: moved.gw.routes}, dict(moved.gw.accounts))
        made.start(snapshot)
        started.append(made)
        return made

    yield start
    for gateway in started:
        gateway.stop(1.0)


def test_a_gateway_that_starts_in_between_is_closed(moved: Moved, second: Callable[[], Gateway]) -> None:
    moved.route(moved.new, moved.closing)
    late = second()
    client = moved.insert(1, late)
    assert waits(client)
    assert goes_on(moved.insert(2)), "the other one has not left the old side"
    moved.route(moved.new)
    late.publish(RoutingSnapshot(moved.gw.version, {BRANCH: moved.gw.routes}, dict(moved.gw.accounts)))
    assert goes_on(client)
    assert moved.content() == ([2], [1])


def test_a_gateway_that_stops_does_not_wait_for_closed_tables(
    moved: Moved, second: Callable[[], Gateway]
) -> None:
    moved.route(moved.new, moved.closing)
    late = second()
    with contextlib.closing(moved.gw.connect(port=late.port)) as connection, connection.cursor() as cursor:
        failures: list[Exception] = []

        def read() -> None:
            try:
                cursor.execute("SELECT n FROM t")
            except pymysql.err.MySQLError as error:
                failures.append(error)

        reading = threading.Thread(target=read, daemon=True)
        reading.start()
        assert waits(reading)
        late.stop(0.2)
        assert goes_on(reading)
        assert len(failures) == 1
    assert not late.alive
    assert late.failure is None


# -- holds of one subject ------------------------------------------------------------------------------------


def test_a_later_turn_takes_the_place_of_an_earlier_without_a_gap(moved: Moved) -> None:
    gateway = moved.gw.gateway
    gateway.hold(moved.request("one", (1, 9)))
    client = moved.insert(1)
    assert waits(client)
    gateway.hold(moved.request("two", (2, 1)))
    assert (gateway.is_held("one"), gateway.is_held("two")) == (False, True)
    assert gateway.holds_in_force() == 1, "nothing is left that would outlast the second one's release"
    gateway.release("one")
    assert waits(client)
    gateway.release("two")
    assert goes_on(client)


def test_an_earlier_turn_is_refused(moved: Moved) -> None:
    gateway = moved.gw.gateway
    gateway.hold(moved.request("two", (2, 1)))
    with pytest.raises(FencedError):
        gateway.hold(moved.request("one", (1, 9)))
    assert gateway.is_held("two")
    gateway.release("two")


def test_holds_of_no_subject_stand_beside_each_other(moved: Moved) -> None:
    gateway = moved.gw.gateway
    for hold_id in ("one", "two"):
        gateway.hold(replace(moved.request(hold_id), subject=""))
    assert gateway.is_held("one")
    gateway.release("one")
    assert gateway.is_held("two")
    gateway.release("two")


# -- a gateway that fails ------------------------------------------------------------------------------------


def test_a_fault_of_its_own_ends_it_and_is_told(gw: GatewayFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gw.gateway.alive
    assert gw.gateway.failure is None

    def fail(*_: Any) -> None:
        raise RuntimeError("a fault of the gateway's own")

    monkeypatch.setattr(gw.gateway, "_housekeeping", fail)
    thread = gw.gateway._thread  # type: ignore[reportPrivateUsage]
    assert thread is not None
    thread.join(20.0)
    assert not gw.gateway.alive
    assert "a fault of the gateway's own" in repr(gw.gateway.failure)
