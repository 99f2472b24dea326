"""Who may come in to the gateway and do what, over TLS or not; and revocation at once."""

from __future__ import annotations

import contextlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mysql.connector
import pymysql
import pytest

from homeworld.gateway.server import TlsMode
from homeworld.model.topology import BackendRole, Flavor
from tests.support import mysqld
from tests.support.gateway import (
    GatewayFixture,
    account,
    ask_until_error,
    connector,
    rows,
    start_gateway,
    unsharded,
)

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]

# ------------------------------------------------------------------------ who may what


def test_wrong_passwords(gw: GatewayFixture) -> None:
    attempts: list[dict[str, Any]] = [{"password": "wrong"}, {"user": "nobody"}, {"password": ""}]
    for options in attempts:
        with pytest.raises(pymysql.err.OperationalError) as caught:
            gw.connect(**options)
        assert caught.value.args[0] == 1045
    with pytest.raises(mysql.connector.Error) as refused:
        connector(gw, password="wrong", auth_plugin="mysql_native_password")
    assert refused.value.errno == 1045


@pytest.mark.parametrize("plugin", ["mysql_native_password", "caching_sha2_password"])
def test_both_plugins(gw: GatewayFixture, plugin: str) -> None:
    with contextlib.closing(connector(gw, auth_plugin=plugin)) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        assert cursor.fetchall() == [(1,)]


def test_roles(
    gw: GatewayFixture, gateway_server: mysqld.TestServer, table: str, gateway_schema: str
) -> None:
    def errno(role: BackendRole, sql: str) -> int:
        try:
            gw.query(sql, role, autocommit=True)
        except pymysql.err.MySQLError as error:
            return int(error.args[0])
        return 0

    read, write, create = "SELECT * FROM t", "INSERT INTO t (n) VALUES (1)", "CREATE TABLE made (id INT)"
    outcomes = {
        role: [errno(role, sql) for sql in (read, write, create)]
        for role in (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)
    }
    assert outcomes == {
        BackendRole.READER: [0, 1142, 1142],
        BackendRole.WRITER: [1142, 0, 1142],
        BackendRole.READWRITER: [0, 0, 1142],
        BackendRole.ADMIN: [0, 0, 0],
    }
    # The gateway_server's own account for the role stands behind the gateway's judgement.
    with pytest.raises(pymysql.err.OperationalError) as caught:
        gw.query("SELECT * FROM t FOR UPDATE", BackendRole.READER)
    assert caught.value.args[0] == 1142
    assert gateway_server.query("SELECT COUNT(*) FROM t", gateway_schema) == [(3,)]


def test_revocation_ends_open_connections(gw: GatewayFixture, table: str) -> None:
    with (
        contextlib.closing(gw.connect(BackendRole.READER)) as reader,
        contextlib.closing(gw.connect()) as admin,
    ):
        assert rows(reader.cursor(), "SELECT 1") == [(1,)]
        del gw.accounts["reader"]
        gw.publish()
        with pytest.raises(pymysql.err.OperationalError):
            reader.cursor().execute("SELECT 1")
        assert rows(admin.cursor(), "SELECT 1") == [(1,)]
        with pytest.raises(pymysql.err.OperationalError) as caught:
            gw.connect(BackendRole.READER)
        assert caught.value.args[0] == 1045


def test_networks_and_expiry_count_for_open_connections(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect(BackendRole.READER)) as reader:
        gw.accounts["reader"] = account(BackendRole.READER, cidrs=("10.0.0.0/8",))
        gw.publish()
        with pytest.raises(pymysql.err.OperationalError):
            reader.cursor().execute("SELECT 1")
        with pytest.raises(pymysql.err.OperationalError) as caught:
            gw.connect(BackendRole.READER)
        assert caught.value.args[0] == 1045
    gw.accounts["reader"] = account(BackendRole.READER, cidrs=("127.0.0.0/8",))
    gw.publish()
    with contextlib.closing(gw.connect(BackendRole.READER)) as reader:
        assert rows(reader.cursor(), "SELECT 1") == [(1,)]
        soon = datetime.now(UTC) + timedelta(seconds=0.5)
        gw.accounts["reader"] = account(BackendRole.READER, cidrs=("127.0.0.0/8",), expires_at=soon)
        gw.publish()
        with pytest.raises(pymysql.err.OperationalError):
            ask_until_error(reader)


def test_a_changed_role_ends_open_connections(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect(BackendRole.READWRITER)) as connection:
        changed = account(BackendRole.READWRITER, role=BackendRole.READER)
        gw.accounts["readwriter"] = changed
        gw.publish()
        with pytest.raises(pymysql.err.OperationalError):
            connection.cursor().execute("SELECT 1")


# ------------------------------------------------------------------------ TLS


def test_tls(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect(ssl={"ca": str(gw.ca)})) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v) VALUES (%s)", ("x" * 150,))
        big = "y" * 300_000
        assert rows(cursor, f"SELECT v, '{big}' FROM t") == [("x" * 150, big)]
    strict = ssl.create_default_context(cafile=str(gw.ca))
    with contextlib.closing(gw.connect(ssl=strict)) as connection:
        assert rows(connection.cursor(), "SELECT 1") == [(1,)]
    with contextlib.closing(
        connector(gw, ssl_disabled=False, ssl_ca=str(gw.ca), ssl_verify_cert=True)
    ) as other:
        cursor = other.cursor(prepared=True)
        cursor.execute("SELECT COUNT(*) FROM t WHERE id > ?", (0,))
        assert cursor.fetchall() == [(1,)]


def test_tls_can_be_required(gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path) -> None:
    gw = start_gateway(
        gateway_server,
        {gateway_schema: unsharded(gateway_schema, gateway_server)},
        gateway_schema,
        tmp_path,
        tls_mode=TlsMode.REQUIRED,
    )
    try:
        with pytest.raises(pymysql.err.OperationalError, match="insecure transport"):
            gw.connect(ssl_disabled=True)
        assert gw.query("SELECT 1", ssl={"ca": str(gw.ca)}) == [(1,)]
    finally:
        gw.gateway.stop(1.0)
