"""Servers that die, gateways that stop, clients that send garbage."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.gateway.plan import RouterPort
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.gateway.tracker import SchemaTracker
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.model.routing import BranchRoutes, RoutingSnapshot
from homeworld.model.topology import Flavor
from tests.support import mysqld
from tests.support.gateway import (
    BRANCH,
    GatewayFixture,
    ask_until_error,
    rows,
    start_gateway,
    unsharded,
)

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

# ------------------------------------------------------------------------ what ends


def test_a_server_that_dies(server_factory: Any, tmp_path: Path) -> None:
    server = server_factory()
    server.create_schema("ks")
    server.execute("CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT)", "ks")
    gw = start_gateway(server, {"ks": unsharded("ks", server)}, "ks", tmp_path)
    try:
        with contextlib.closing(gw.connect()) as idle, contextlib.closing(gw.connect()) as busy:
            one, two = idle.cursor(), busy.cursor()
            assert rows(one, "SELECT COUNT(*) FROM t") == [(0,)]
            busy.begin()
            two.execute("INSERT INTO t VALUES (1)")
            server.kill()
            for cursor in (one, two):
                with pytest.raises(pymysql.err.MySQLError) as caught:
                    cursor.execute("SELECT COUNT(*) FROM t")
                assert caught.value.args[0] == 1105
            server.start()
            assert rows(one, "SELECT COUNT(*) FROM t") == [(0,)]
            # The transaction is gone; nothing goes on as if it were not.
            with pytest.raises(pymysql.err.MySQLError, match="ROLLBACK"):
                two.execute("INSERT INTO t VALUES (2)")
            busy.rollback()
            busy.begin()
            two.execute("INSERT INTO t VALUES (3)")
            busy.commit()
            assert rows(one, "SELECT id FROM t") == [(3,)]
            busy.begin()
            two.execute("INSERT INTO t VALUES (4)")
            server.restart()
            with pytest.raises(pymysql.err.MySQLError, match="rolled back"):
                busy.commit()
            assert rows(two, "SELECT id FROM t") == [(3,)]
    finally:
        gw.gateway.stop(1.0)


def test_a_statement_under_way_when_its_server_dies(server_factory: Any, tmp_path: Path) -> None:
    server = server_factory()
    server.create_schema("ks")
    gw = start_gateway(server, {"ks": unsharded("ks", server)}, "ks", tmp_path)
    try:
        with contextlib.closing(gw.connect()) as connection:
            killer = threading.Timer(0.5, server.kill)
            killer.start()
            with pytest.raises(pymysql.err.OperationalError) as caught:
                connection.cursor().execute("SELECT SLEEP(20)")
            killer.join()
            assert caught.value.args[0] == 1105
    finally:
        gw.gateway.stop(1.0)


def test_stop(gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path) -> None:
    gw = start_gateway(
        gateway_server, {gateway_schema: unsharded(gateway_schema, gateway_server)}, gateway_schema, tmp_path
    )
    gateway_server.execute("CREATE TABLE t (id INT PRIMARY KEY)", gateway_schema)
    idle, busy = gw.connect(), gw.connect()
    with contextlib.closing(idle), contextlib.closing(busy):
        busy.begin()
        busy.cursor().execute("INSERT INTO t VALUES (1)")
        stopper = threading.Thread(target=gw.gateway.stop, args=(20.0,))
        stopper.start()
        with pytest.raises(pymysql.err.OperationalError):
            ask_until_error(idle)
        busy.cursor().execute("INSERT INTO t VALUES (2)")
        busy.commit()
        stopper.join(20)
        assert not stopper.is_alive()
    assert gateway_server.query("SELECT COUNT(*) FROM t", gateway_schema) == [(2,)]
    with pytest.raises(pymysql.err.OperationalError):
        gw.connect()
    with pytest.raises(UnavailableError):
        gw.publish()


def test_a_gateway_that_cannot_start_says_so(gw: GatewayFixture) -> None:
    second = Gateway(router_factory=Router, port=gw.gateway.port)
    with pytest.raises(UnavailableError, match="cannot listen"):
        second.start()
    second.stop()

    def broken(routes: BranchRoutes, tracker: SchemaTracker) -> RouterPort:
        raise InvalidError(f"a vschema of {routes.branch} cannot be read by {type(tracker).__name__}")

    third = Gateway(router_factory=broken)
    with pytest.raises(InvalidError):
        third.start(RoutingSnapshot(1, {BRANCH: gw.routes}, {}))
    third.stop()


def test_garbage_from_a_client_harms_nobody(gw: GatewayFixture) -> None:
    import socket

    with contextlib.closing(gw.connect()) as bystander:
        for garbage in (
            b"",
            b"GET / HTTP/1.1\r\n\r\n",
            os.urandom(500),
            b"\x01\0\0\x01\x03",
            b"\xff\xff\xff\x01" * 9,
        ):
            with socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=60) as raw:
                assert raw.recv(100)
                raw.sendall(garbage)
                raw.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    while raw.recv(65536):
                        pass
        for payload in (
            b"",
            b"\x17",
            b"\x17\1\0\0\0",
            b"\x19",
            b"\x18\1",
            b"\x1c\1\0\0\0\0\0\0\0",
            b"\xfe",
            b"\x1b\7\7",
        ):
            with contextlib.closing(gw.connect()) as odd:
                odd._sock.sendall(len(payload).to_bytes(3, "little") + b"\0" + payload)
                odd._sock.settimeout(0.2)
                with contextlib.suppress(OSError):
                    odd._sock.recv(65536)
        assert rows(bystander.cursor(), "SELECT 1") == [(1,)]


def test_routes_may_change_under_a_session(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
        gw.routes = replace(gw.routes, rules={"other": f"{gw.routes.default_keyspace}.t"})
        gw.publish()
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
