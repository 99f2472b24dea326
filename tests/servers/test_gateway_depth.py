"""What the gateway does by itself with real servers: rows turned binary, ids, known tables, replicas."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.names import new_id
from homeworld.model.ports import Gateways
from homeworld.model.routing import HoldRequest, KeyspaceRoute
from homeworld.model.topology import BackendRole, Flavor, TabletType
from homeworld.wire import commands
from homeworld.wire.binary import binary_row
from homeworld.wire.packets import PacketBuffer, Reader
from homeworld.wire.results import ColumnDefinition, is_end, parse_text_row
from tests.support import mysqld
from tests.support.gateway import BRANCH, GatewayFixture, rows, secret, start_gateway, unsharded
from tests.support.wire import WireClient

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

TYPES = """CREATE TABLE kinds (
    id INT PRIMARY KEY, a TINYINT, b TINYINT UNSIGNED, c SMALLINT, d MEDIUMINT, e INT UNSIGNED, f BIGINT,
    g BIGINT UNSIGNED, h FLOAT, i DOUBLE, j DECIMAL(30, 10), k DATE, l DATETIME, m DATETIME(6),
    n TIMESTAMP NULL, o TIME, p TIME(6), q YEAR, r CHAR(5), s VARCHAR(300), t BINARY(4), u VARBINARY(20),
    v BLOB, w TEXT, x ENUM('one', 'two'), y SET('a', 'b'), z BIT(12), aa JSON)"""
VALUES = [
    "(1, -128, 255, -32768, -8388608, 4294967295, -9223372036854775808, 18446744073709551615, 1.5, 2.5e300, "
    "-12345678901234567890.0123456789, '2024-02-29', '2024-02-29 12:34:56', '2024-02-29 12:34:56.000001', "
    "'2001-01-01 00:00:00', '-838:59:59', '12:00:00.500000', 2155, 'ü', REPEAT('x', 300), x'00ff', x'', "
    "x'00fffb', 'text', 'two', 'a,b', b'101', '{\"a\": 1}')",
    f"(2{', NULL' * 27})",
    "(3, 0, 0, 0, 0, 0, 0, 0, 0, -0.1, 0, '1000-01-01', '1000-01-01', '9999-12-31 23:59:59.999999', "
    "'2038-01-01 00:00:00', '00:00:00', '-00:00:00.000001', 1901, '', '', x'01', x'00', x'', '', 'one', '', "
    "b'0', '[]')",
]


def packets(data: bytes) -> list[bytes]:
    buffer = PacketBuffer()
    buffer.feed(data)
    found: list[bytes] = []
    while (payload := buffer.next()) is not None:
        found.append(payload)
    return found


def test_rows_turned_binary_are_what_the_server_would_have_sent(
    gateway_server: mysqld.TestServer, gateway_schema: str
) -> None:
    gateway_server.execute([TYPES, *(f"INSERT INTO kinds VALUES {row}" for row in VALUES)], gateway_schema)
    user = mysqld.user_of(BackendRole.ADMIN), mysqld.password_of(BackendRole.ADMIN)
    with WireClient(gateway_server.port, *user, gateway_schema) as client:
        sql = "SELECT * FROM kinds ORDER BY id"
        text = packets(client.ask(commands.query(sql))[0])
        binary = packets(client.ask(b"\x17" + client.prepare(sql).to_bytes(4, "little") + b"\0\1\0\0\0")[0])
    count = Reader(text[0]).lenenc_int()
    columns = [ColumnDefinition.parse(payload) for payload in text[1 : 1 + count]]
    caps = client.capabilities
    turned = [
        binary_row(parse_text_row(row, count), columns) for row in text[1 + count :] if not is_end(row, caps)
    ]
    expected = [row for row in binary[1 + count :] if not is_end(row, caps)]
    assert len(turned) == 3
    assert turned == expected


def test_ids_are_never_given_twice(
    gw: GatewayFixture, gateway_server: mysqld.TestServer, gateway_schema: str
) -> None:
    from tests.support.sequence_router import SequenceRouter

    gateway_server.execute(
        [
            "CREATE TABLE seq (id BIGINT PRIMARY KEY, next_id BIGINT, cache BIGINT)",
            "INSERT INTO seq VALUES (0, 1, 7)",
            "CREATE TABLE made (id BIGINT PRIMARY KEY)",
            "CREATE TABLE broken (id BIGINT PRIMARY KEY, next_id BIGINT, cache BIGINT)",
        ],
        gateway_schema,
    )
    gw.gateway.stop(1.0)
    folder = gw.ca.parent if gw.ca else Path()
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    gw = start_gateway(gateway_server, keyspaces, gateway_schema, folder, router=SequenceRouter)
    try:
        errors: list[Exception] = []

        def insert(count: int) -> None:
            with contextlib.closing(gw.connect(autocommit=True)) as connection:
                try:
                    for _ in range(25):
                        connection.cursor().execute(f"IDS seq {count}")
                except pymysql.err.MySQLError as error:
                    errors.append(error)

        threads = [threading.Thread(target=insert, args=(count,)) for count in (1, 2, 20)]
        for thread in threads:
            thread.start()
        gw.publish()  # a new version of the routes drops what is left of a block
        for thread in threads:
            thread.join(60)
        assert errors == []
        assert gateway_server.query("SELECT COUNT(*) FROM made", gateway_schema) == [(25 * 23,)]
        (largest,) = gateway_server.query("SELECT MAX(id) FROM made", gateway_schema)[0]
        assert gateway_server.query("SELECT next_id > %s FROM seq", gateway_schema, args=(largest,)) == [(1,)]
        with contextlib.closing(gw.connect()) as connection:
            for table in ("broken", "nowhere"):
                with pytest.raises(pymysql.err.MySQLError):
                    connection.cursor().execute(f"IDS {table} 1")
    finally:
        gw.gateway.stop(1.0)


def test_a_hold_on_a_table_holds_those_who_read_it_through_a_view(
    gw: GatewayFixture, table: str, gateway_server: mysqld.TestServer, gateway_schema: str
) -> None:
    gateway_server.execute(
        ["CREATE VIEW seen AS SELECT id, v FROM t", "CREATE VIEW through AS SELECT id FROM seen"],
        gateway_schema,
    )
    gateways: Gateways = gw.gateway
    request = HoldRequest(
        new_id(), BRANCH, frozenset({(gateway_schema, "t")}), frozenset({TabletType.PRIMARY}), 5.0, 30.0
    )
    with contextlib.closing(gw.connect()) as connection, contextlib.closing(gw.connect()) as other:
        cursor = connection.cursor()
        connection.begin()
        assert rows(cursor, "SELECT COUNT(*) FROM through") == [(0,)]
        with pytest.raises(DeadlineExceededError):
            gateways.hold(replace(request, hold_id=new_id(), drain_seconds=0.3))
        connection.commit()
        gateways.hold(request)
        waiting = threading.Thread(target=rows, args=(other.cursor(), "SELECT COUNT(*) FROM through"))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
        gateways.release(request.hold_id)
        waiting.join(20)
        assert not waiting.is_alive()


def test_tables_made_by_others_are_found(
    gw: GatewayFixture, table: str, gateway_server: mysqld.TestServer, gateway_schema: str
) -> None:
    second = f"ks_{new_id()}"
    gateway_server.create_schema(second)
    gw.routes = replace(
        gw.routes, keyspaces={**gw.routes.keyspaces, second: unsharded(second, gateway_server)}
    )
    gw.publish()
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
        cursor.execute(f"CREATE TABLE {second}.mine (id INT PRIMARY KEY)")
        assert rows(cursor, "SELECT COUNT(*) FROM mine") == [(0,)]
        gateway_server.query("DROP TABLE mine", second)
        gateway_server.query("CREATE TABLE theirs (id INT PRIMARY KEY)", second)
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.execute("SELECT COUNT(*) FROM mine")
    gateway_server.drop_schema(second)


@pytest.mark.parametrize("charset", [8, 45])
def test_a_used_connection_has_its_next_clients_character_set(gw: GatewayFixture, charset: int) -> None:
    ask = "SELECT @@character_set_client, @@character_set_results, @@collation_connection, CONNECTION_ID()"
    settings: dict[str, Any] = {"charset": charset}
    seen: list[tuple[bytes | None, ...]] = []
    for _ in range(3):
        with WireClient(gw.gateway.port, "admin", secret(BackendRole.ADMIN), "app", **settings) as client:
            seen += client.query(ask)
            client.query("SET NAMES utf8mb3")
            assert client.query(ask)[0][0] in {b"utf8", b"utf8mb3"}
    assert {row[:3] for row in seen} == {seen[0][:3]}
    assert seen[0][0] == (b"latin1" if charset == 8 else b"utf8mb4")


@pytest.fixture
def replicated(
    flavor: Flavor, gateway_server: mysqld.TestServer, gateway_schema: str, server_root: Path, tmp_path: Path
) -> Iterator[tuple[GatewayFixture, mysqld.TestServer]]:
    """A keyspace with a second server as its replica (a copy is enough: what counts is who is asked)."""
    copy = mysqld.start_server(flavor, server_root)
    copy.create_schema(gateway_schema)
    for server, content in ((gateway_server, "primary"), (copy, "replica")):
        server.execute(
            ["CREATE TABLE who (v VARCHAR(20))", f"INSERT INTO who VALUES ('{content}')"], gateway_schema
        )
    route: KeyspaceRoute = unsharded(gateway_schema, gateway_server, copy, copy)
    gw = start_gateway(gateway_server, {gateway_schema: route}, gateway_schema, tmp_path)
    yield gw, copy
    gw.gateway.stop(1.0)
    copy.close()


def test_replicas(replicated: tuple[GatewayFixture, mysqld.TestServer], gateway_schema: str) -> None:
    gw, copy = replicated
    assert gw.query("SELECT v FROM who") == [("primary",)]
    with contextlib.closing(gw.connect(database=f"{gateway_schema}@replica")) as connection:
        cursor = connection.cursor()
        assert rows(cursor, "SELECT v FROM who") == [("replica",)]
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute("DELETE FROM who")
        cursor.execute("USE `@primary`")
        assert rows(cursor, "SELECT v FROM who") == [("primary",)]
    gw.accounts["admin"] = replace(gw.accounts["admin"], replica=True)
    gw.publish()
    assert gw.query("SELECT v FROM who") == [("replica",)]
    copy.kill()
    with pytest.raises(pymysql.err.MySQLError):
        gw.query("SELECT v FROM who")
