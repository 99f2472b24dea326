"""A writer's password on the real router: it may change rows by any condition, and no row comes out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import mysql.connector
import pymysql
import pytest
from pymysql.constants import CLIENT

from homeworld.gateway.router import Router
from homeworld.model.topology import BackendRole
from tests.support import mysqld
from tests.support.gateway import GatewayFixture, connector, secret, start_gateway, unsharded

pytestmark = pytest.mark.servers


@pytest.fixture
def routed(
    gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path
) -> Iterator[GatewayFixture]:
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    fixture = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path, router=Router)
    yield fixture
    fixture.gateway.stop(1.0)


WRITER_MAY = (
    "INSERT INTO t (id, n) VALUES (100, 1)",
    "UPDATE t SET n = n + 1 WHERE id = 100",
    "INSERT INTO t (id, n) VALUES (100, 1) ON DUPLICATE KEY UPDATE n = n + 1",
    "REPLACE INTO t (id, n) VALUES (100, 1)",
    "UPDATE t a JOIN t b ON a.id = b.id SET a.n = b.n + 1 WHERE a.id = 100",
    "DELETE FROM t WHERE id = 100 LIMIT 1",
    "SHOW CREATE TABLE t",
    "SHOW COLUMNS FROM t",
    "SELECT 1",
    "SET @a = 1",
)
WRITER_MAY_NOT = (
    "SELECT n FROM t",
    "TABLE t",
    "WITH x AS (SELECT n FROM t) SELECT * FROM x",
    "SELECT (SELECT n FROM t LIMIT 1)",
    "SELECT table_name FROM information_schema.tables WHERE (SELECT n FROM t LIMIT 1) = 1",
    "INSERT INTO t (n) SELECT n FROM t",
    "INSERT INTO t (n) VALUES ((SELECT 1 FROM t b LIMIT 1))",
    "INSERT INTO t (n) /*! SELECT n FROM t */",
    "UPDATE t SET n = (SELECT 1)",
    "UPDATE t SET n = (@a := n)",
    "DELETE FROM t WHERE id IN (SELECT 1)",
    "WITH x AS (SELECT 1) DELETE FROM t WHERE id IN (SELECT * FROM x)",
    "DELETE FROM t RETURNING n",
    "INSERT INTO t (n) VALUES (1) RETURNING id",
    "EXPLAIN SELECT n FROM t",
    "EXPLAIN UPDATE t SET n = 1",
    "SHOW STATUS WHERE (SELECT n FROM t LIMIT 1) = 1",
    "SHOW COLUMNS FROM t WHERE (SELECT n FROM t LIMIT 1) = 1",
    "CHECKSUM TABLE t",
    "DO (SELECT n FROM t)",
    "HANDLER t OPEN",
    "SET @a = (SELECT n FROM t LIMIT 1)",
    "SET @a = (TABLE t ORDER BY 1 LIMIT 1)",
    "SHOW COLUMNS FROM t WHERE (TABLE t ORDER BY 1 LIMIT 1) = 1",
    "CALL nothing((SELECT n FROM t LIMIT 1))",
    "LOCK TABLES t READ",
    "TRUNCATE t",
    "ALTER TABLE t ADD c INT",
)


def test_a_writer_changes_by_condition_and_reads_nothing(routed: GatewayFixture, table: str) -> None:
    routed.query("INSERT INTO t (n) VALUES (7)", autocommit=True)
    several = CLIENT.MULTI_STATEMENTS
    writer = routed.connect(BackendRole.WRITER, autocommit=True, client_flag=several)
    with contextlib.closing(writer) as connection:
        cursor = connection.cursor()
        for statement in WRITER_MAY:
            cursor.execute(statement)
        for statement in WRITER_MAY_NOT:
            with pytest.raises(pymysql.err.MySQLError) as caught:
                cursor.execute(statement)
            assert caught.value.args[0] in {1142, 1235, 1064, 1370, 1044}, (statement, caught.value)
        cursor.execute("INSERT INTO t (n) VALUES (1); INSERT INTO t (n) SELECT n FROM t")
        with pytest.raises(pymysql.err.MySQLError, match="denied"):
            cursor.nextset()
        connection.ping(reconnect=False)
    with contextlib.closing(
        connector(routed, user="writer", password=secret(BackendRole.WRITER))
    ) as connection:
        prepared = connection.cursor(prepared=True)
        prepared.execute("UPDATE t SET n = ? WHERE id = ?", (8, 1))
        for statement in ("SELECT n FROM t WHERE id = ?", "INSERT INTO t (n) SELECT n FROM t WHERE id = ?"):
            with pytest.raises(mysql.connector.Error, match="denied"):
                connection.cursor(prepared=True).execute(statement, (1,))
        connection.commit()
    assert routed.query("SELECT id, n FROM t WHERE id = 1") == [(1, 8)]
    assert routed.query("SELECT COUNT(*) FROM t WHERE n <> 8") == [(1,)]
