"""MySQL clients through the gateway to real servers: protocols, sizes, transactions."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

import mysql.connector
import pymysql
import pytest
from pymysql.constants import CLIENT

from tests.support import mysqld
from tests.support.gateway import (
    GatewayFixture,
    connector,
    rows,
    start_gateway,
    unsharded,
)

pytestmark = pytest.mark.servers


def test_text_protocol(gw: GatewayFixture, table: str, gateway_schema: str) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v, n) VALUES ('ä', 1), (NULL, 2)")
        assert (cursor.rowcount, cursor.lastrowid) == (2, 1)
        assert rows(cursor, "SELECT id, v, n FROM t ORDER BY id") == [(1, "ä", 1), (2, None, 2)]
        assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(1,)]
        with pytest.raises(pymysql.err.ProgrammingError, match="doesn't exist"):
            cursor.execute("SELECT * FROM nothing_here")
        cursor.execute("SELECT id FROM t WHERE id > %s", (100,))
        assert cursor.fetchall() == ()
        cursor.execute("INSERT IGNORE INTO t (id, v) VALUES (1, 'again')")
        assert [row[1] for row in rows(cursor, "SHOW WARNINGS")] == [1062]
        cursor.execute("UPDATE t SET n = n + 1")
        assert rows(cursor, "SELECT ROW_COUNT()") == [(2,)]
        connection.ping(reconnect=False)
        connection.select_db(gateway_schema)
        with pytest.raises(pymysql.err.OperationalError, match="nknown database"):
            connection.select_db("nowhere")
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(2,)]


def test_prepared_statements(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(connector(gw)) as connection:
        cursor = connection.cursor(prepared=True)
        cursor.execute("INSERT INTO t (v, n) VALUES (?, ?)", ("it's", 7))
        for number in range(3):
            cursor.execute(
                "INSERT INTO t (v, n) VALUES (?, ?)", (None if number == 1 else f"v{number}", number)
            )
        connection.commit()
        reader = connection.cursor(prepared=True)
        reader.execute("SELECT v, n FROM t WHERE n >= ? ORDER BY id", (0,))
        assert reader.fetchall() == [("it's", 7), ("v0", 0), (None, 1), ("v2", 2)]
        reader.execute("SELECT v, n FROM t WHERE n >= ? ORDER BY id", (7,))
        assert reader.fetchall() == [("it's", 7)]
        with pytest.raises(mysql.connector.Error) as caught:
            reader.execute("SELECT * FROM nothing_here WHERE a = ?", (1,))
        assert caught.value.errno == 1146


def test_transactions(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        one.begin()
        cursor.execute("INSERT INTO t (v) VALUES ('a')")
        assert rows(other, "SELECT COUNT(*) FROM t") == [(0,)]
        cursor.execute("SAVEPOINT s")
        cursor.execute("INSERT INTO t (v) VALUES ('b')")
        cursor.execute("ROLLBACK TO SAVEPOINT s")
        with pytest.raises(pymysql.err.OperationalError, match="SAVEPOINT"):
            cursor.execute("ROLLBACK TO nowhere")
        one.commit()
        assert rows(other, "SELECT v FROM t") == [("a",)]
        one.begin()
        cursor.execute("DELETE FROM t")
        one.rollback()
        assert rows(other, "SELECT COUNT(*) FROM t") == [(1,)]
        one.begin()
        one.commit()
        # Lazy BEGIN must look as any other to the client.
        one.begin()
        assert one.server_status & 1
        one.rollback()
        assert not one.server_status & 1


def test_autocommit_off(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect(autocommit=False)) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        assert not one.get_autocommit()
        cursor.execute("INSERT INTO t (v) VALUES ('a')")
        assert rows(other, "SELECT COUNT(*) FROM t") == [(0,)]
        one.rollback()
        cursor.execute("INSERT INTO t (v) VALUES ('b')")
        one.autocommit(True)
        assert rows(other, "SELECT v FROM t") == [("b",)]
        cursor.execute("INSERT INTO t (v) VALUES ('c')")
        assert rows(other, "SELECT COUNT(*) FROM t") == [(2,)]


def test_ddl_commits_the_transaction(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        one.begin()
        cursor.execute("INSERT INTO t (v) VALUES ('a')")
        cursor.execute("CREATE TABLE u (id INT PRIMARY KEY)")
        assert not one.server_status & 1
        one.rollback()
        assert rows(other, "SELECT COUNT(*) FROM t") == [(1,)]


def test_transaction_options_reach_the_server(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        cursor.execute("START TRANSACTION READ ONLY")
        with pytest.raises(pymysql.err.OperationalError, match="READ ONLY"):
            cursor.execute("INSERT INTO t (v) VALUES ('a')")
        one.rollback()
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        other.execute("INSERT INTO t (v) VALUES ('b')")
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(0,)]
        one.commit()
        cursor.execute("SET TRANSACTION READ ONLY")
        one.begin()
        with pytest.raises(pymysql.err.OperationalError, match="READ ONLY"):
            cursor.execute("INSERT INTO t (v) VALUES ('a')")
        one.rollback()
        cursor.execute("INSERT INTO t (v) VALUES ('c')")
        one.begin()
        cursor.execute("INSERT INTO t (v) VALUES ('d')")
        cursor.execute("COMMIT AND CHAIN")
        assert one.server_status & 1
        cursor.execute("INSERT INTO t (v) VALUES ('e')")
        one.rollback()
        assert rows(other, "SELECT v FROM t ORDER BY id") == [("b",), ("c",), ("d",)]


def test_session_settings_stay(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET @a = 5, @b = 'x'")
        cursor.execute("SET SESSION sort_buffer_size = 300000")
        assert rows(cursor, "SELECT @a, @b, @@sort_buffer_size") == [(5, "x", 300000)]
        with pytest.raises(pymysql.err.OperationalError):
            cursor.execute("SET SESSION no_such_variable = 1")
        assert rows(cursor, "SELECT @a") == [(5,)]


def test_a_deadlock_ends_the_transaction(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect()) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        cursor.execute("INSERT INTO t (id, n) VALUES (1, 0), (2, 0)")
        one.begin()
        two.begin()
        cursor.execute("UPDATE t SET n = n + 1 WHERE id = 1")
        other.execute("UPDATE t SET n = n + 1 WHERE id = 2")
        errors: list[Exception] = []

        def cross() -> None:
            try:
                cursor.execute("UPDATE t SET n = n + 10 WHERE id = 2")
            except pymysql.err.OperationalError as error:
                errors.append(error)

        thread = threading.Thread(target=cross)
        thread.start()
        try:
            other.execute("UPDATE t SET n = n + 10 WHERE id = 1")
        except pymysql.err.OperationalError as error:
            errors.append(error)
        thread.join(60)
        assert [error.args[0] for error in errors] == [1213]
        # Both go on with new transactions as with a server.
        one.rollback()
        two.rollback()
        one.begin()
        cursor.execute("UPDATE t SET n = 1 WHERE id = 1")
        one.commit()
        assert rows(other, "SELECT n FROM t ORDER BY id") == [(1,), (0,)]


def test_multi_statements(gw: GatewayFixture, table: str) -> None:
    multi = CLIENT.MULTI_STATEMENTS
    with contextlib.closing(gw.connect(client_flag=multi)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO t (v) VALUES ('a'); SELECT 1; SELECT v FROM t;")
        assert cursor.rowcount == 1
        assert cursor.nextset()
        assert cursor.fetchall() == ((1,),)
        assert cursor.nextset()
        assert cursor.fetchall() == (("a",),)
        assert not cursor.nextset()
        # Control among them: the gateway performs each and joins the answers.
        cursor.execute(
            "BEGIN; INSERT INTO t (v) VALUES ('b'); SELECT v FROM t ORDER BY id; ROLLBACK; SELECT 2"
        )
        results = [cursor.fetchall()]
        while cursor.nextset():
            results.append(cursor.fetchall())
        assert [tuple(result) for result in results] == [(), (), (("a",), ("b",)), (), ((2,),)]
        cursor.execute("SET @x = 1; SELECT * FROM nothing_here; DELETE FROM t")
        with pytest.raises(pymysql.err.ProgrammingError):
            cursor.nextset()
        assert rows(cursor, "SELECT COUNT(*) FROM t") == [(1,)]
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        with pytest.raises(pymysql.err.ProgrammingError) as caught:
            cursor.execute("SELECT 1; SELECT 2")
        assert caught.value.args[0] == 1064
        assert rows(cursor, "SELECT ';'") == [(";",)]


def test_load_data_local(gw: GatewayFixture, table: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.tsv"
    file.write_text("".join(f"{number}\tvalue {number}\t{number * 2}\n" for number in range(1, 60_001)))
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE t")
        assert cursor.rowcount == 60_000
        assert rows(cursor, "SELECT COUNT(*), SUM(n) FROM t") == [(60_000, 60_000 * 60_001)]
        with pytest.raises(pymysql.err.OperationalError):
            cursor.execute("LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE t")
        assert rows(cursor, "SELECT 1") == [(1,)]


def test_big_packets(gw: GatewayFixture, gateway_server: mysqld.TestServer, gateway_schema: str) -> None:
    gateway_server.execute("CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)", gateway_schema)
    value = os.urandom(1 << 20) * 20
    with contextlib.closing(gw.connect(max_allowed_packet=1 << 26)) as connection:
        cursor = connection.cursor()
        cursor.execute("INSERT INTO big VALUES (1, %s)", (value,))
        assert rows(cursor, "SELECT LENGTH(b) FROM big") == [(len(value),)]
        cursor.execute("SELECT b, id FROM big")
        assert cursor.fetchone() == (value, 1)
        assert rows(cursor, "SELECT 1") == [(1,)]
    with contextlib.closing(connector(gw)) as connection:
        cursor = connection.cursor(prepared=True)
        cursor.execute("INSERT INTO big VALUES (?, ?)", (2, value[:18_000_000]))
        connection.commit()
    assert gateway_server.query("SELECT id, LENGTH(b) FROM big ORDER BY id", gateway_schema) == [
        (1, 20 << 20),
        (2, 18_000_000),
    ]


def test_a_packet_above_the_limit_is_refused(
    gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path
) -> None:
    gw = start_gateway(
        gateway_server,
        {gateway_schema: unsharded(gateway_schema, gateway_server)},
        gateway_schema,
        tmp_path,
        max_packet=1 << 20,
    )
    try:
        with contextlib.closing(gw.connect()) as connection, pytest.raises(pymysql.err.OperationalError):
            connection.cursor().execute(f"SELECT LENGTH('{'x' * (1 << 21)}')")
    finally:
        gw.gateway.stop(1.0)


def test_large_results_and_a_slow_reader(gw: GatewayFixture, table: str) -> None:
    with contextlib.closing(gw.connect(cursorclass=pymysql.cursors.SSCursor)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "WITH RECURSIVE s AS (SELECT 1 n UNION ALL SELECT n + 1 FROM s WHERE n < 900) "
            "SELECT a.n, REPEAT('x', 400) FROM s a, s b LIMIT 100000"
        )
        assert cursor.fetchone() is not None
        time.sleep(0.3)  # the gateway must stop reading meanwhile, and go on afterwards
        assert sum(1 for _ in cursor) == 99_999
        assert rows(cursor, "SELECT 1") == [(1,)]
