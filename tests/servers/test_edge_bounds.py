"""Who the data plane over HTTP lets in, what it refuses, and what is left behind."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from homeworld.edge.sessions import Limits
from homeworld.model.topology import BackendRole, Flavor
from tests.support import mysqld
from tests.support.edge import SERVICE, HttpSqlError, JsonClient, ProtoClient, basic
from tests.support.gateway import GatewayFixture, secret, sessions_of

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

LIMITS = Limits(transaction_seconds=30.0)
Connect = Callable[..., JsonClient]


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -------------------------------------------------------------------- passwords


def test_passwords_and_their_ends(edge: GatewayFixture, connect: Connect, table: str) -> None:
    url = f"http://127.0.0.1:{edge.http}/psdb.v1alpha1.Database/Execute"
    body = {"query": "SELECT 1"}
    for header in (
        {},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic %%"},
        {"Authorization": basic("admin", "x")},
    ):
        told = httpx.post(url, json=body, headers=header, timeout=60, trust_env=False)
        assert told.status_code == 401
        assert told.json()["code"] == "unauthenticated"
        assert told.json()["error"]["code"] == "UNAUTHENTICATED"
        assert "Access denied" in told.json()["message"]
    client = connect()
    client.execute("BEGIN")
    client.execute("INSERT INTO t (v) VALUES ('a')")
    kept = edge.accounts["admin"]
    edge.accounts["admin"] = replace(kept, cidrs=("10.0.0.0/8",))
    edge.publish()
    assert client.call("Execute", body).status_code == 401
    edge.accounts["admin"] = kept
    edge.publish()
    with pytest.raises(HttpSqlError, match=r"ABORTED.*may not connect"):
        client.execute("COMMIT")
    assert client.one("SELECT COUNT(*) FROM t") == "0"
    edge.accounts["admin"] = replace(kept, expires_at=datetime.now(UTC) + timedelta(seconds=0.3))
    edge.publish()
    deadline = time.monotonic() + 60
    while client.call("Execute", body).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert client.call("Execute", body).status_code == 401
    del edge.accounts["admin"]
    edge.publish()
    assert client.call("Execute", body).status_code == 401


def test_a_request_under_way_ends_with_its_password(
    edge: GatewayFixture, connect: Connect, gateway_server: mysqld.TestServer
) -> None:
    client = connect()
    told: list[object] = []

    def ask() -> None:
        told.append(client.call("Execute", {"query": "SELECT SLEEP(50)"}).json()["error"]["code"])

    asking = threading.Thread(target=ask)
    asking.start()
    running = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT SLEEP(50)%'"
    deadline = time.monotonic() + 60
    while str(gateway_server.query(running)[0][0]) == "0":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    del edge.accounts["admin"]
    edge.publish()
    asking.join(60)
    assert told == ["UNAVAILABLE"]


def test_a_request_of_a_password_that_is_gone_is_not_served(
    edge: GatewayFixture, connect: Connect, table: str
) -> None:
    body = json.dumps({"query": "INSERT INTO t (v) VALUES ('late')"}).encode()
    head = (
        "POST /psdb.v1alpha1.Database/Execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {basic('admin', secret(BackendRole.ADMIN))}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode()
    client = connect()
    client.execute("SET autocommit = 0")
    # One waits behind another in its session, one has sent all but a byte.
    told: list[str] = []

    def ask(query: str) -> None:
        told.append(client.call("Execute", {"query": query, "session": client.session}).text)

    asking = [threading.Thread(target=ask, args=("SELECT SLEEP(50)",))]
    asking[0].start()
    sessions = sessions_of(edge)
    wait_until(lambda: sessions.under_way == 1)
    asking.append(threading.Thread(target=ask, args=("INSERT INTO t (v) VALUES ('waited')",)))
    asking[1].start()
    wait_until(lambda: sessions.waiting == 1)
    with socket.create_connection(("127.0.0.1", edge.http), 60) as late:
        late.sendall(head + body[:-1])
        time.sleep(0.2)
        del edge.accounts["admin"]
        edge.publish()
        late.sendall(body[-1:])
        answer = late.recv(65536)
    for thread in asking:
        thread.join(60)
    assert b"UNAUTHENTICATED" in answer
    assert ("UNAUTHENTICATED" in told[0]) != ("UNAUTHENTICATED" in told[1])
    assert sessions.kept == (0, 0)
    assert sessions.under_way == sessions.waiting == 0
    assert connect(BackendRole.READER).one("SELECT COUNT(*) FROM t") == "0"


def test_roles(connect: Connect, table: str) -> None:
    reader = connect(BackendRole.READER)
    with pytest.raises(HttpSqlError, match=r"PERMISSION_DENIED.*\(errno 1142\) \(sqlstate 42000\)"):
        reader.execute("INSERT INTO t (v) VALUES ('a')")
    assert reader.one("SELECT COUNT(*) FROM t") == "0"
    writer = connect(BackendRole.WRITER)
    assert writer.execute("INSERT INTO t (v) VALUES ('a')").affected == 1
    with pytest.raises(HttpSqlError, match="1142"):
        writer.execute("SELECT * FROM t")


# -------------------------------------------------------------------- errors


def test_errors_of_sql_have_a_session(connect: Connect, proto: ProtoClient, table: str) -> None:
    client = connect()
    client.execute("SET @a = 1")
    for query, code in (
        ("SELEC 1", r"INVALID_ARGUMENT.*\(errno 1064\) \(sqlstate 42000\)"),
        ("SELECT * FROM missing", r"NOT_FOUND.*\(errno 1146\) \(sqlstate 42S02\)"),
        ("SELECT 1; SELECT 2", r"INVALID_ARGUMENT.*\(errno 1064\)"),
        ("", r"INVALID_ARGUMENT.*\(errno 1065\)"),
        ("USE nothing", r"INVALID_ARGUMENT.*\(errno 1049\)"),
        ("SET sql_log_bin = 0", r"\(errno 1231\)"),
        ("INSERT INTO t (id) VALUES (1), (1)", r"ALREADY_EXISTS.*\(errno 1062\) \(sqlstate 23000\)"),
        ("LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE t", r"errno"),
    ):
        with pytest.raises(HttpSqlError, match=code):
            client.execute(query)
        with pytest.raises(HttpSqlError):
            proto.execute(query)
    assert client.one("SELECT @a") == "1"
    assert proto.execute("SELECT 1").rows == [(b"1",)]


def test_what_is_no_request(edge: GatewayFixture, connect: Connect) -> None:
    http = connect().http

    def post(method: str, content: bytes, kind: str = "application/json", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return http.post(SERVICE + method, content=content, headers={"Content-Type": kind, **named})

    envelope = b"\0\0\0\0\x05{}"
    for told, status, code in (
        (http.get("/"), 404, "not_found"),
        (http.get(SERVICE + "Execute"), 405, "unimplemented"),
        (post("Nothing", b"{}"), 404, "unimplemented"),
        (post("Execute", b"{}", "text/plain"), 415, "invalid_argument"),
        (post("StreamExecute", b"{}"), 415, "invalid_argument"),
        (post("Execute", b"{"), 400, "invalid_argument"),
        (post("Execute", b"x", content_encoding="br"), 501, "unimplemented"),
        (post("Execute", b"x", content_encoding="s2"), 400, "invalid_argument"),
        (post("Execute", b"x", content_encoding="gzip"), 400, "invalid_argument"),
        (post("Execute", b"{}", connect_timeout_ms="soon"), 400, "invalid_argument"),
        (post("StreamExecute", envelope, "application/connect+json"), 400, "invalid_argument"),
    ):
        assert (told.status_code, told.json().get("code")) == (status, code), told.text


@pytest.mark.parametrize(
    "sent",
    [
        b"\0" * 100,
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 10_000,
        b"POST " + b"/x" * 40_000,
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    ],
)  # fmt: skip
def test_any_bytes_cost_their_connection_at_most(edge: GatewayFixture, connect: Connect, sent: bytes) -> None:
    for port in (edge.http, edge.https):
        with socket.create_connection(("127.0.0.1", port), 5) as client:
            client.settimeout(5)
            try:
                client.sendall(sent)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
            except OSError:
                continue
    assert connect().one("SELECT 1") == "1"


def test_one_connection_serves_requests_in_order(edge: GatewayFixture) -> None:
    head = (
        "POST /psdb.v1alpha1.Database/Execute HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Authorization: {basic('admin', secret(BackendRole.ADMIN))}\r\nContent-Length: "
    )
    bodies = [json.dumps({"query": f"SELECT {number}"}) for number in range(20)]
    sent = "".join(f"{head}{len(body)}\r\n\r\n{body}" for body in bodies).encode()
    with socket.create_connection(("127.0.0.1", edge.http), 60) as client:
        for at in range(0, len(sent), 700):
            client.sendall(sent[at : at + 700])
        found = b""
        while found.count(b"HTTP/1.1 200 OK") < 20 or not found.endswith(b"}"):
            piece = client.recv(65536)
            assert piece
            found += piece
    names = [int(one) for one in re.findall(rb'"fields":\[\{"name":"(\d+)"', found)]
    assert names == list(range(20))


def test_nothing_is_left_behind(edge: GatewayFixture, connect: Connect, table: str) -> None:
    client = connect()
    for _ in range(3):
        client = connect()
        client.execute("BEGIN")
        client.execute("INSERT INTO t (v) VALUES ('a')")
        client.execute("COMMIT")
        connect().execute("SELECT 1")
    client.execute("BEGIN")
    sessions = sessions_of(edge)
    assert sessions.kept[0] == 1
    client.execute("ROLLBACK")
    assert sessions.kept[0] == 0
    assert sessions.under_way == 0
