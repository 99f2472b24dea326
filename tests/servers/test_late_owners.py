"""A process that lost its lease while it was stopped: what it does when it wakes up changes nothing."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication import sidecar
from homeworld.replication.connection import Connection
from homeworld.replication.fence import TableFence
from homeworld.workflows.move_tables.servers import ServerTools
from homeworld.workflows.move_tables.tools import VitessStream
from tests.support.engines import owner, until
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


def test_who_was_stopped_before_a_drop_does_not_drop_what_was_made_since(
    gateway_server: TestServer, gateway_schema: str
) -> None:
    place = gateway_server.place("shop", "-", gateway_schema, BackendRole.OWNER)
    gateway_server.execute("CREATE TABLE t (id INT PRIMARY KEY)", gateway_schema)
    stopped, woken = threading.Event(), threading.Event()

    def stop() -> None:
        stopped.set()
        assert woken.wait(60)

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(ServerTools().drop_tables, place, ["t"], stop)
        assert stopped.wait(60)
        ServerTools().drop_tables(place, ["t"], lambda: None)
        gateway_server.execute(
            ["CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1)"], gateway_schema
        )
        woken.set()
        with pytest.raises(HomeworldError):
            late.result(60)
    assert gateway_server.query("SELECT id FROM t", gateway_schema)


def test_who_asks_and_hears_that_the_lease_is_lost_drops_nothing(
    gateway_server: TestServer, gateway_schema: str
) -> None:
    place = gateway_server.place("shop", "-", gateway_schema, BackendRole.OWNER)
    gateway_server.execute("CREATE TABLE t (id INT PRIMARY KEY)", gateway_schema)

    def lost() -> None:
        raise FencedError

    with pytest.raises(FencedError):
        ServerTools().drop_tables(place, ["t"], lost)
    assert gateway_server.query("SHOW TABLES LIKE 't'", gateway_schema)


def test_who_knows_only_an_older_epoch_forgets_nothing(
    gateway_server: TestServer, gateway_schema: str
) -> None:
    place = gateway_server.place("shop", "-", gateway_schema)
    stream = sidecar.StreamId(gateway_schema, "forward", "-", "-")
    with Connection(place.endpoint) as connection:
        sidecar.prepare(connection)
        sidecar.claim(connection, stream, 6, "here")
        with pytest.raises(FencedError):
            sidecar.forget([place], gateway_schema, "forward", 5)
        assert sidecar.claim(connection, stream, 6, None).position == "here"
        sidecar.forget([place], gateway_schema, "forward", 6)
        assert not connection.query_all(f"SELECT 1 FROM {sidecar.SCHEMA}.streams WHERE {stream.where}")


def test_what_waits_for_tables_that_were_moved_is_ended(
    gateway_server: TestServer, gateway_schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that is set apart may have sent it: freed, the tables would take a row that nobody finds."""
    place = gateway_server.place("shop", "-", gateway_schema, BackendRole.OWNER)
    gateway_server.execute("CREATE TABLE t (id INT PRIMARY KEY)", gateway_schema)
    tools = ServerTools()
    with ThreadPoolExecutor(1) as pool:
        with TableFence()([place], ["t"], 5.0):
            late = pool.submit(gateway_server.execute, "INSERT INTO t VALUES (1)", gateway_schema)
            waiting = (
                "SELECT 1 FROM information_schema.PROCESSLIST WHERE DB = '{}' AND STATE LIKE 'Waiting %'"
            )
            until(lambda: bool(gateway_server.query(waiting.format(gateway_schema))), "it waits")
            tools.end_blocked([replace(place, schema="another")], ["t"])
            assert gateway_server.query(waiting.format(gateway_schema))
            assert "is ended" not in caplog.text
            tools.end_blocked([place], ["another"])
            with pytest.raises(Exception, match=r"Lost connection|was killed|interrupted"):
                late.result(30)
        assert not gateway_server.query("SELECT id FROM t", gateway_schema)
    tools.close()


def test_how_far_the_streams_of_a_place_are_is_read_from_its_tablets_schema(
    gateway_server: TestServer, gateway_schema: str
) -> None:
    place = gateway_server.place("shop", "-", gateway_schema, BackendRole.OWNER)
    at = "MySQL56/4e5c3a8e-0000-4000-8000-000000000001:1-5"
    gateway_server.execute(
        [
            "CREATE TABLE vreplication (id INT PRIMARY KEY, state VARBINARY(100), pos VARBINARY(10000),"
            " message VARBINARY(1000), db_name VARBINARY(255))",
            f"INSERT INTO vreplication VALUES (1, 'Running', '{at}', '', '{gateway_schema}'),"
            f" (2, 'Stopped', NULL, 'Stopped at DDL truncate t', '{gateway_schema}'),"
            f" (3, 'Running', '{at}', '', 'another')",
        ],
        gateway_schema,
    )
    tools = ServerTools()
    assert tools.stream_positions(place, gateway_schema) == {
        1: VitessStream("Running", at.partition("/")[2], ""),
        2: VitessStream("Stopped", "", "Stopped at DDL truncate t"),
    }
    tools.close()


def test_a_server_that_is_being_replaced_is_no_place_to_start_from(server: TestServer) -> None:
    place = server.place("shop", "-", "_homeworld", BackendRole.OWNER)
    tools = ServerTools()
    assert tools.positions([place]).keys() == {"-"}
    server.execute("SET GLOBAL read_only=ON")
    with pytest.raises(UnavailableError, match="takes no writes"):
        tools.positions([place])
    tools.close()


def test_a_log_is_marked_where_its_server_takes_writes(server: TestServer) -> None:
    """On one that is fenced it would be a transaction that only this server has."""
    if server.flavor is not Flavor.MYSQL:
        pytest.skip("Vitess stands on MySQL")
    place = server.place("shop", "-", "_homeworld", BackendRole.OWNER)
    tools = ServerTools()
    before = server.query("SELECT @@GLOBAL.gtid_executed")
    tools.mark_logs([place, place])
    marked = server.query("SELECT @@GLOBAL.gtid_executed")
    assert marked != before
    server.execute("SET GLOBAL super_read_only=ON")
    tools.mark_logs([place])
    assert server.query("SELECT @@GLOBAL.gtid_executed") == marked
    tools.close()


def test_who_was_stopped_before_it_drops_a_schema_asks_again(engine: LocalEngine) -> None:
    engine.create_server("one")
    engine.create_schema("one", "shop")

    def lost() -> None:
        raise FencedError

    with pytest.raises(FencedError):
        engine.drop_schema("one", "shop", lost)
    owner(engine, "one", "CREATE TABLE shop.t (id INT)")
    engine.drop_schema("one", "shop", lambda: None)
    assert not owner(engine, "one", "SHOW DATABASES LIKE 'shop'")
