"""Command line clients and rare commands through the gateway, and what is left of a session."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from pathlib import Path

import mysql.connector
import pymysql
import pytest

from homeworld.model.topology import BackendRole
from tests.support import mysqld
from tests.support.gateway import (
    DATABASE,
    GatewayFixture,
    connector,
    rows,
    secret,
    start_gateway,
    unsharded,
)

pytestmark = pytest.mark.servers

# ------------------------------------------------------------------------ command line clients


def run(command: list[str], text: str) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_mariadb_command_line(gw: GatewayFixture, table: str, gateway_schema: str) -> None:
    program = shutil.which("mariadb")
    if program is None:
        pytest.skip("no mariadb client here")
    base = [program, "--no-defaults", "-h127.0.0.1", f"-P{gw.gateway.port}", "-uadmin", "-ppw-admin", "-N"]
    script = (
        "INSERT INTO t (v) VALUES ('cli'); SELECT v FROM t; USE "
        + gateway_schema
        + "; SELECT DATABASE(); \\s"
    )
    out = run([*base, "--skip-ssl", DATABASE], script)
    assert out.splitlines()[:2] == ["cli", gateway_schema]
    assert "homeworld" in out
    assert "TLS" in run([*base, "--ssl", f"--ssl-ca={gw.ca}", DATABASE], "\\s")


def test_mysql_command_line(gw: GatewayFixture, table: str) -> None:
    program = mysqld.MYSQL.with_name("mysql")
    if not program.exists():
        pytest.skip("no MySQL client here: scripts/get-mysql-9.7 makes one")
    base = [
        str(program),
        "--no-defaults",
        "-h127.0.0.1",
        f"-P{gw.gateway.port}",
        "-uadmin",
        "-ppw-admin",
        "-N",
        "--commands",
    ]
    script = "INSERT INTO t (v) VALUES ('cli'); SELECT v FROM t; BEGIN; DELETE FROM t; ROLLBACK; "
    script += "SELECT COUNT(*) FROM t;"
    for mode in ("DISABLED", "REQUIRED"):
        out = run([*base, f"--ssl-mode={mode}", DATABASE], script + " DELETE FROM t; \\s")
        assert out.splitlines()[:2] == ["cli", "1"]
        assert ("Cipher in use" in out) == (mode == "REQUIRED")


# ------------------------------------------------------------------------ commands


def test_commands_of_the_protocol(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(connector(gw)) as connection:
        cursor = connection.cursor()
        cursor.execute("SET @kept = 1")
        cursor.execute("CREATE TEMPORARY TABLE gone (id INT)")
        connection.cmd_reset_connection()
        cursor = connection.cursor()
        cursor.execute("SELECT @kept")
        assert cursor.fetchall() == [(None,)]
        with pytest.raises(mysql.connector.Error):
            cursor.execute("SELECT * FROM gone")
        assert "Threads" in str(connection.cmd_statistics() or "Threads")
        connection.cmd_change_user("reader", secret(BackendRole.READER), DATABASE)
        cursor = connection.cursor()
        cursor.execute("SELECT COUNT(*) FROM t")
        assert cursor.fetchall() == [(0,)]
        with pytest.raises(mysql.connector.Error) as caught:
            cursor.execute("DELETE FROM t")
        assert caught.value.errno == 1142
        with pytest.raises(mysql.connector.Error) as refused:
            connection.cmd_change_user("reader", "wrong", DATABASE)
        assert refused.value.errno == 1045


def test_kill(gw: GatewayFixture, table: str, gateway_server: mysqld.TestServer) -> None:
    with contextlib.closing(gw.connect()) as victim, contextlib.closing(gw.connect()) as killer:
        errors: list[int] = []

        def sleep() -> None:
            try:
                victim.cursor().execute(
                    "SELECT SLEEP(30) FROM (SELECT 1) x WHERE 1 = (SELECT COUNT(*) FROM t) + 1"
                )
            except pymysql.err.MySQLError as error:
                errors.append(error.args[0])

        number = victim.thread_id()
        thread = threading.Thread(target=sleep)
        thread.start()
        deadline = time.monotonic() + 60
        while not any("SLEEP(30)" in str(row) for row in gateway_server.query("SHOW FULL PROCESSLIST")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        killer.cursor().execute(f"KILL QUERY {number}")
        thread.join(20)
        assert not thread.is_alive()
        assert errors in ([], [1317])  # SLEEP itself may answer 1 instead of an error
        assert rows(victim.cursor(), "SELECT 1") == [(1,)]
        killer.cursor().execute(f"KILL {number}")
        with pytest.raises(pymysql.err.OperationalError):
            victim.cursor().execute("SELECT 1")
        with pytest.raises(pymysql.err.OperationalError) as caught:
            killer.cursor().execute("KILL 12345")
        assert caught.value.args[0] == 1094


def test_connection_limit(gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path) -> None:
    gw = start_gateway(
        gateway_server,
        {gateway_schema: unsharded(gateway_schema, gateway_server)},
        gateway_schema,
        tmp_path,
        max_connections=2,
    )
    try:
        with contextlib.closing(gw.connect()), contextlib.closing(gw.connect()):
            with pytest.raises(pymysql.err.OperationalError) as caught:
                gw.connect()
            assert caught.value.args[0] == 1040
    finally:
        gw.gateway.stop(1.0)


def test_nothing_of_a_session_is_left_for_the_next(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as connection:
        cursor = connection.cursor()
        cursor.execute("SET @mine = 1, SESSION sort_buffer_size = 333000")
        cursor.execute("CREATE TEMPORARY TABLE mine (id INT)")
        cursor.execute("SELECT GET_LOCK('mine', 1)")
        connection.begin()
        cursor.execute("INSERT INTO t (v) VALUES ('open')")
    for _ in range(3):
        with contextlib.closing(gw.connect()) as connection:
            cursor = connection.cursor()
            assert rows(cursor, "SELECT @mine, @@sort_buffer_size = 333000, GET_LOCK('mine', 5)") == [
                (None, 0, 1)
            ]
            assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
            assert rows(cursor, "SELECT @@character_set_client, @@collation_connection")[0][0] == "utf8mb4"
            with pytest.raises(pymysql.err.ProgrammingError):
                cursor.execute("SELECT * FROM mine")
