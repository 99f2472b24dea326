"""The data plane over HTTP, on both flavours: values, sessions, transactions."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from homeworld.edge.fields import VitessType, type_of
from homeworld.edge.sessions import Limits
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import BackendRole, Flavor, TabletType
from homeworld.wire import commands
from homeworld.wire.client import DEFAULT_CAPABILITIES, Collector, Credentials, Login, drive
from homeworld.wire.packets import frame
from tests.support import mysqld
from tests.support.column_values import LAX, kinds_of
from tests.support.edge import HttpSqlError, JsonClient, ProtoClient
from tests.support.gateway import GatewayFixture, secret, sessions_of, start_gateway, unsharded

pytestmark = [pytest.mark.servers]

LIMITS = Limits(transaction_seconds=30.0)
Connect = Callable[..., JsonClient]


# -------------------------------------------------------------------- values


class MySql:
    """The MySQL protocol, raw."""

    def __init__(self, edge: GatewayFixture, charset: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", edge.gateway.port), 30)
        login = Login(
            Credentials("admin", secret(BackendRole.ADMIN)), secure=False, charset=charset,
            capabilities=DEFAULT_CAPABILITIES,
        )  # fmt: skip
        drive(login, self._socket.sendall, lambda: self._socket.recv(65536))
        self._capabilities = login.capabilities

    def query(self, sql: str) -> Collector:
        """An answer."""
        collector = Collector(self._capabilities)
        self._socket.sendall(frame(commands.query(sql)))
        while not collector.done:
            collector.feed(self._socket.recv(1 << 20))
        return collector

    def close(self) -> None:
        """Close."""
        self._socket.close()


def test_every_type_is_what_the_mysql_protocol_gives(
    edge: GatewayFixture, connect: Connect, proto: ProtoClient, flavor: Flavor
) -> None:
    client = connect()
    kinds = kinds_of(flavor)
    proto.execute(LAX)
    client.execute(LAX)
    with closing(MySql(edge, 45 if flavor is Flavor.MARIADB else 255)) as mysql:
        mysql.query(LAX)
        for number, kind in enumerate(kinds):
            client.execute(f"CREATE TABLE v{number} (id INT PRIMARY KEY, c {kind.declared})")
            values = ", ".join(f"({at}, {value})" for at, value in enumerate(kind.values))
            client.execute(f"INSERT IGNORE INTO v{number} VALUES {values}")
            query = f"SELECT c, id FROM v{number} ORDER BY id"
            true = mysql.query(query)
            over = client.execute(query)
            while "columnType" not in over.fields[0]:  # a busy server tells of its tables later
                over = client.execute(query)
            assert over.rows == true.text_rows(), kind.declared
            for column, field in zip(true.columns, over.fields, strict=True):
                what = (kind.declared, field)
                assert VitessType[field.get("type", "NULL_TYPE")] is type_of(column.type, column.flags), what
                assert field.get("charset", 0) == column.charset, what
                assert field.get("flags", 0) == column.flags, what
                assert field.get("decimals", 0) == column.decimals, what
                assert field.get("columnLength", 0) == column.length, what
                assert field["name"] == field["orgName"] == column.name.decode(), what
            declared = client.one(
                "SELECT COLUMN_TYPE FROM information_schema.COLUMNS WHERE COLUMN_NAME = 'c' AND "
                f"TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'v{number}'"
            )
            assert over.fields[0]["columnType"] == declared
            again = proto.execute(query)
            assert again.rows == over.rows
            streamed, _ = proto.stream(query)
            assert (streamed.rows, streamed.fields) == (again.rows, again.fields)
            for one, other in zip(over.fields, again.fields, strict=True):
                one["type"] = VitessType[one.get("type", "NULL_TYPE")].value
                assert {name: value for name, value in one.items() if value} == other


def test_results_without_rows_and_nulls(connect: Connect, table: str) -> None:
    client = connect()
    done = client.execute("INSERT INTO t (v, n) VALUES ('a', 1), ('b', NULL)")
    assert (done.affected, done.insert_id, done.fields) == (2, 1, [])
    # Rows found, as PlanetScale's sessions count them.
    assert client.execute("UPDATE t SET n = 1 WHERE v = 'a'").affected == 1
    assert client.execute("SELECT v, n FROM t ORDER BY id").rows == [(b"a", b"1"), (b"b", None)]
    empty = client.execute("SELECT v FROM t WHERE id = 99")
    assert (empty.rows, [field["name"] for field in empty.fields]) == ([], ["v"])
    assert client.execute("SELECT '', NULL").rows == [(b"", None)]
    assert client.shown["autocommit"] is True
    assert client.shown["options"] == {"includedFields": "ALL", "clientFoundRows": True}
    assert client.execute("DELETE FROM t").affected == 2


def test_variables_of_statements(connect: Connect, table: str) -> None:
    client = connect()
    value = {"type": "VARCHAR", "value": "aXQncyBcIMO8"}  # it's \ ü
    client.execute(
        "INSERT INTO t (v, n) VALUES (?, ?)", {"v1": value, "v2": {"type": "INT64", "value": "NQ=="}}
    )
    assert client.execute("SELECT v, n FROM t WHERE v = :name", {"name": value}).rows == [
        ("it's \\ ü".encode(), b"5")
    ]
    with pytest.raises(HttpSqlError, match="1210"):
        client.execute("SELECT ?", {"v1": {"type": "INT64", "value": "MSBPUiAx"}})


def test_prepare_tells_columns_and_leaves_nothing(proto: ProtoClient, table: str) -> None:
    fields = proto.prepare("SELECT v, n FROM t WHERE id = ? AND v <> ?")
    assert [(field["name"], field["type"]) for field in fields] == [
        ("v", VitessType.VARCHAR), ("n", VitessType.INT32),
    ]  # fmt: skip
    assert proto.prepare("INSERT INTO t (v) VALUES (?)") == []
    with pytest.raises(HttpSqlError, match="1064"):
        proto.prepare("SELEC 1")
    assert proto.execute("SELECT 1").rows == [(b"1",)]


def test_much_comes_in_parts_and_too_much_is_said(
    gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path, table: str
) -> None:
    limits = replace(LIMITS, largest_answer=1 << 20, largest_body=1 << 20)
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    gw = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path, edge=limits)
    try:
        role = BackendRole.ADMIN
        with (
            closing(ProtoClient(f"https://127.0.0.1:{gw.https}", role.value, secret(role), gw.ca)) as proto,
            closing(JsonClient(f"http://127.0.0.1:{gw.http}", role.value, secret(role))) as client,
        ):
            client.execute("BEGIN")
            client.execute("INSERT INTO t (v) VALUES ('x')")
            for _ in range(13):
                client.execute("INSERT INTO t (v) SELECT REPEAT('y', 190) FROM t")
            with pytest.raises(HttpSqlError, match=r"RESOURCE_EXHAUSTED.*too large"):
                client.execute("SELECT * FROM t")
            # Its transaction is as it was.
            assert client.one("SELECT COUNT(*) FROM t") == "8192"
            client.execute("COMMIT")
            with pytest.raises(HttpSqlError, match=r"RESOURCE_EXHAUSTED.*too large"):
                client.execute("SELECT * FROM t")
            assert client.one("SELECT COUNT(*) FROM t") == "8192"
            client.execute("SET workload = 'olap'")
            assert client.shown["options"]["workload"] == "OLAP"
            proto.execute("SET @@session.workload = olap")
            streamed, parts = proto.stream("SELECT * FROM t ORDER BY id")
            assert len(streamed.rows) == 8192
            assert parts > 3
            with pytest.raises(HttpSqlError, match="1146"):
                proto.stream("SELECT * FROM missing")
            streamed, parts = proto.stream("UPDATE t SET n = 1 WHERE id < 3")
            assert (streamed.affected, parts) == (2, 1)
            with pytest.raises(HttpSqlError, match="1231"):
                client.execute("SET workload = 'fast'")
            large = client.call("Execute", {"query": "SELECT '" + "x" * (1 << 20) + "'"})
            assert (large.status_code, large.json()["code"]) == (413, "resource_exhausted")
            packed = client.http.post(
                "/psdb.v1alpha1.Database/Execute",
                content=gzip.compress(json.dumps({"query": " " * (2 << 20)}).encode()),
                headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
            )
            assert packed.status_code == 413
            assert client.one("SELECT 1") == "1"
    finally:
        gw.gateway.stop(1.0)


# -------------------------------------------------------------------- sessions


def test_a_session_is_what_its_token_says(
    edge: GatewayFixture, connect: Connect, table: str, flavor: Flavor
) -> None:
    client = connect()
    created = client.call("CreateSession", {}).json()
    assert created["branch"] == "main"
    assert created["user"] == {"username": "admin", "role": "admin"}
    client.session = created["session"]
    client.execute("SET @a = 'ä', SESSION sql_mode = 'STRICT_ALL_TABLES'")
    client.execute("SET time_zone = '+05:00'")
    client.execute("USE `@replica`")
    assert client.shown["targetString"] == "@replica"
    client.execute("USE `@primary`")
    client.execute("INSERT INTO t (v) VALUES ('x')")
    # Another gateway, or the same one after a restart, knows it from the token alone.
    keep = edge.gateway
    asked = "SELECT CONCAT(@a, @@time_zone, @@sql_mode, LAST_INSERT_ID())"
    known = client.one(asked)
    assert known == "ä+05:00STRICT_ALL_TABLES1"
    for _ in range(80):
        connect().execute("SELECT 1")
    assert client.one(asked) == known
    assert keep.alive
    # The same token twice is the same session twice.
    before = client.session
    assert client.one(asked) == known
    client.session = before
    assert client.one(asked) == known


def test_many_statements_of_one_session_at_once(connect: Connect, table: str) -> None:
    first = connect()
    first.execute("SET @a = 7")
    clients = [connect() for _ in range(8)]
    failed: list[BaseException] = []

    def ask(client: JsonClient) -> None:
        try:
            client.session = first.session
            assert client.one("SELECT @a") == "7"
        except BaseException as error:  # noqa: BLE001 told below
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_transactions(connect: Connect, table: str) -> None:
    client, other = connect(), connect()
    client.execute("BEGIN")
    assert client.shown["inTransaction"] is True
    client.execute("INSERT INTO t (v) VALUES ('a')")
    assert client.one("SELECT COUNT(*) FROM t") == "1"
    assert other.one("SELECT COUNT(*) FROM t") == "0"
    client.execute("ROLLBACK")
    assert "inTransaction" not in client.shown
    assert client.one("SELECT COUNT(*) FROM t") == "0"
    client.execute("START TRANSACTION")
    client.execute("INSERT INTO t (v) VALUES ('b')")
    client.execute("SAVEPOINT s")
    client.execute("INSERT INTO t (v) VALUES ('c')")
    client.execute("ROLLBACK TO s")
    inside = client.session
    client.execute("COMMIT")
    assert other.column("SELECT v FROM t") == ["b"]
    # Who has not noticed that it is over does not write outside of it.
    client.session = inside
    with pytest.raises(HttpSqlError, match=r"ABORTED.*was committed or rolled back"):
        client.execute("INSERT INTO t (v) VALUES ('d')")
    with pytest.raises(HttpSqlError, match="ROLLBACK to go on"):
        client.execute("INSERT INTO t (v) VALUES ('e')")
    with pytest.raises(HttpSqlError, match="rolled back"):
        client.execute("COMMIT")
    client.execute("INSERT INTO t (v) VALUES ('f')")
    assert other.column("SELECT v FROM t ORDER BY id") == ["b", "f"]
    client.execute("SET autocommit = 0")
    assert "autocommit" not in client.shown
    client.execute("INSERT INTO t (v) VALUES ('g')")
    assert other.one("SELECT COUNT(*) FROM t") == "2"
    client.execute("COMMIT")
    assert other.one("SELECT COUNT(*) FROM t") == "3"
    client.execute("SET autocommit = 1")
    client.execute("SET TRANSACTION READ ONLY")
    client.execute("BEGIN")
    with pytest.raises(HttpSqlError, match="1792"):
        client.execute("DELETE FROM t")
    client.execute("ROLLBACK")
    assert client.execute("DELETE FROM t").affected == 3


def test_requests_for_one_transaction_come_one_after_the_other(connect: Connect, table: str) -> None:
    client = connect()
    client.execute("BEGIN")
    client.execute("INSERT INTO t (v) VALUES ('first')")
    session = client.session
    clients = [connect() for _ in range(10)]
    failed: list[BaseException] = []

    def ask(number: int) -> None:
        try:
            clients[number].session = session
            clients[number].execute(f"INSERT INTO t (v) VALUES ('{number}')")
        except BaseException as error:  # noqa: BLE001 told below
            failed.append(error)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert connect().one("SELECT COUNT(*) FROM t") == "0"
    client.execute("COMMIT")
    assert connect().one("SELECT COUNT(*) FROM t") == "11"


def test_what_is_unused_too_long_is_rolled_back_and_said(
    gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path, table: str
) -> None:
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    limits = replace(LIMITS, transaction_seconds=300.0, bound_seconds=300.0)
    gw = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path, edge=limits)
    try:
        role = BackendRole.ADMIN
        with (
            closing(JsonClient(f"http://127.0.0.1:{gw.http}", role.value, secret(role))) as client,
            closing(JsonClient(f"http://127.0.0.1:{gw.http}", role.value, secret(role))) as bound,
            closing(JsonClient(f"http://127.0.0.1:{gw.http}", role.value, secret(role))) as both,
        ):
            both.execute("CREATE TEMPORARY TABLE t (id INT, v VARCHAR(9))")
            both.execute("BEGIN")
            both.execute("INSERT INTO t (v) VALUES ('mine')")
            client.execute("BEGIN")
            client.execute("INSERT INTO t (v) VALUES ('a')")
            bound.execute("CREATE TEMPORARY TABLE mine (id INT)")
            bound.execute("INSERT INTO mine VALUES (1)")
            assert bound.one("SELECT COUNT(*) FROM mine") == "1"
            shorter = replace(limits, transaction_seconds=0.5, bound_seconds=0.5)
            sessions_of(gw)._limits = shorter  # pyright: ignore[reportPrivateUsage]
            deadline = time.monotonic() + 60
            while sessions_of(gw).kept[0]:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with pytest.raises(
                HttpSqlError, match=r"ABORTED.*transaction \w+: ended at .*exceeded timeout: 0.5s"
            ):
                client.execute("INSERT INTO t (v) VALUES ('b')")
            client.execute("ROLLBACK")
            assert client.one("SELECT COUNT(*) FROM t") == "0"
            for _ in range(2):
                # Were it not said, the next statement would be for another table.
                with pytest.raises(
                    HttpSqlError, match=r"ABORTED.*exceeded timeout.*and with it.*temporary tables"
                ):
                    both.execute("INSERT INTO t (v) VALUES ('c')")
            both.execute("ROLLBACK")
            assert both.one("SELECT COUNT(*) FROM t") == "0"
            with pytest.raises(HttpSqlError, match=r"temporary tables.*exceeded timeout"):
                bound.execute("SELECT COUNT(*) FROM mine")
            with pytest.raises(HttpSqlError, match="1146"):
                bound.execute("SELECT COUNT(*) FROM mine")
    finally:
        gw.gateway.stop(1.0)


def test_another_gateway_goes_on_with_a_session_but_with_no_transaction(
    edge: GatewayFixture, connect: Connect, gateway_server: mysqld.TestServer, gateway_schema: str,
    tmp_path: Path, table: str,
) -> None:  # fmt: skip
    client = connect()
    client.execute("SET @a = 5")
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    other = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path / "other", edge=LIMITS)
    try:
        role = BackendRole.ADMIN
        with closing(JsonClient(f"http://127.0.0.1:{other.http}", role.value, secret(role))) as moved:
            moved.session = client.session
            assert moved.one("SELECT @a") == "5"
            moved.execute("BEGIN")
            client.session = moved.session
            with pytest.raises(HttpSqlError, match=r"ABORTED.*not found.*ROLLBACK to go on"):
                client.execute("DELETE FROM t")
            client.execute("ROLLBACK")
            assert client.one("SELECT @a") == "5"
    finally:
        other.gateway.stop(1.0)


def test_what_a_client_hangs_up_on_is_rolled_back(edge: GatewayFixture, connect: Connect, table: str) -> None:
    client, other = connect(), connect()
    client.execute("INSERT INTO t (v) VALUES ('a')")
    client.execute("BEGIN")
    client.execute("UPDATE t SET n = 1")
    with pytest.raises(httpx.ReadTimeout):
        client.http.post(
            "/psdb.v1alpha1.Database/Execute", json={"query": "SELECT SLEEP(4)", "session": client.session},
            timeout=1.5,
        )  # fmt: skip
    assert other.execute("UPDATE t SET n = 2").affected == 1
    with pytest.raises(HttpSqlError, match=r"ABORTED.*broke off"):
        client.execute("UPDATE t SET n = 3")
    client.execute("ROLLBACK")
    assert client.one("SELECT n FROM t") == "2"


def test_a_client_may_give_a_request_so_long(connect: Connect) -> None:
    client = connect()
    told = client.http.post(
        "/psdb.v1alpha1.Database/Execute", json={"query": "SELECT SLEEP(3)"},
        headers={"Connect-Timeout-Ms": "300"},
    )  # fmt: skip
    assert (told.status_code, told.json()["code"]) == (504, "deadline_exceeded")


def test_close_session_rolls_back(connect: Connect, table: str) -> None:
    client = connect()
    client.execute("BEGIN")
    client.execute("INSERT INTO t (v) VALUES ('a')")
    assert client.call("CloseSession", {"session": client.session}).json() == {}
    assert connect().one("SELECT COUNT(*) FROM t") == "0"
    with pytest.raises(HttpSqlError, match=r"ABORTED.*closed by its client"):
        client.execute("COMMIT")


def test_a_session_is_one_passwords(connect: Connect) -> None:
    client, reader = connect(), connect(BackendRole.READER)
    client.execute("SET @a = 1")
    reader.session = client.session
    with pytest.raises(HttpSqlError, match=r"INVALID_ARGUMENT.*not one that was given to this password"):
        reader.execute("SELECT @a")
    assert reader.one("SELECT COALESCE(@a, 'new')") == "new"
    client.session["vitessSession"]["autocommit"] = False
    with pytest.raises(HttpSqlError, match="changed by the client"):
        client.execute("SELECT 1")


def test_holds_keep_statements_waiting(
    edge: GatewayFixture, connect: Connect, table: str, gateway_schema: str
) -> None:
    client, waiting = connect(), connect()
    client.execute("BEGIN")
    client.execute("INSERT INTO t (v) VALUES ('a')")
    request = HoldRequest(
        "hold",
        edge.routes.branch_id,
        frozenset({(gateway_schema, "t")}),
        frozenset({TabletType.PRIMARY}),
        120,
        120,
    )
    holder = threading.Thread(target=edge.gateway.hold, args=(request,))
    holder.start()
    while not edge.gateway.holds_in_force():
        time.sleep(0.01)
    client.execute("COMMIT")
    holder.join()
    assert edge.gateway.is_held("hold")
    done = threading.Event()

    def write() -> None:
        waiting.execute("INSERT INTO t (v) VALUES ('b')")
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    assert not done.wait(0.3)
    edge.gateway.release("hold")
    writer.join()
    assert done.is_set()
    assert client.one("SELECT COUNT(*) FROM t") == "2"
