"""SQL that tries to get out of its role, branch or session, into the server's files, accounts and settings.

One table of statements, tried by every role on real servers. On the server there is a schema of another
branch on which the gateway's accounts have the same rights as on the branch's own. That is worse than what
the product makes: so the gateway has to hold by itself. Each statement is refused, or does no harm: after it
the session reads texts as before, after all of them nothing else has changed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from homeworld.model.names import new_id
from homeworld.model.topology import BackendRole
from tests.support import mysqld
from tests.support.gateway import ROLES, GatewayFixture, rows, start_gateway, unsharded

pytestmark = pytest.mark.servers

MARK = "SECRET-OF-ANOTHER"
TRIES = {
    "names of another schema": r"""
        SELECT * FROM {other}.t
        SELECT * FROM `{other}`.`t`
        SELECT * FROM {other} . t
        SELECT * FROM /*!50000 {other}.t */
        SELECT * FROM /*! {other}.*/t
        /*!50000 SELECT * FROM {other}.t */
        /*!99999 SELECT * FROM {other}.t */
        /*M! SELECT * FROM {other}.t */
        /*M!100000 SELECT * FROM {other}.t */
        SELECT 1 /*!99999 UNION SELECT v FROM {other}.t */
        SELECT v /*! /* x */ FROM {other}.t */
        SELECT 1 --\tx\n, v FROM {other}.t
        SELECT 1 -- x\n, v FROM {other}.t
        SELECT 1 # x\n, v FROM {other}.t
        SELECT v FROM mine JOIN {other}.t ON 1
        SELECT v FROM (mine, {other}.t)
        SELECT v FROM {{ OJ mine LEFT JOIN {other}.t ON 1 }}
        SELECT (SELECT MAX(v) FROM {other}.t)
        SELECT 1 FROM mine WHERE EXISTS (TABLE {other}.t)
        WITH x AS (SELECT * FROM {other}.t) SELECT * FROM x
        TABLE {other}.t
        DO (SELECT v FROM {other}.t)
        SET @a = (SELECT v FROM {other}.t)
        INSERT INTO mine SELECT id, v FROM {other}.t
        INSERT INTO mine VALUES (7, (SELECT v FROM {other}.t))
        INSERT INTO {other}.t VALUES (7, 'x')
        REPLACE {other}.t VALUES (7, 'x')
        UPDATE {other}.t SET v = 'x'
        UPDATE mine, {other}.t SET t.v = 'x'
        DELETE FROM {other}.t
        DELETE {other}.t FROM {other}.t JOIN mine
        TRUNCATE {other}.t
        TRUNCATE TABLE {other}.t
        LOAD DATA LOCAL INFILE '/dev/null' INTO TABLE {other}.t
        HANDLER {other}.t OPEN
        LOCK TABLES {other}.t WRITE
        CHECKSUM TABLE {other}.t
        ANALYZE TABLE {other}.t
        OPTIMIZE TABLE {other}.t
        CHECK TABLE {other}.t
        REPAIR TABLE {other}.t
        EXPLAIN SELECT * FROM {other}.t
        EXPLAIN ANALYZE SELECT * FROM {other}.t
        ANALYZE SELECT * FROM {other}.t
        DESC {other}.t
        SHOW COLUMNS FROM {other}.t
        SHOW COLUMNS FROM t FROM {other}
        SHOW CREATE TABLE {other}.t
        SHOW INDEX FROM t FROM {other}
        SHOW TABLES FROM {other}
        SHOW TABLE STATUS FROM {other}
        SHOW TRIGGERS FROM {other}
        SHOW EVENTS FROM {other}
        USE {other}
        CREATE TABLE {other}.made (id INT)
        CREATE TABLE made LIKE {other}.t
        CREATE TABLE made SELECT * FROM {other}.t
        CREATE TABLE made (id INT, FOREIGN KEY (id) REFERENCES {other}.t (id))
        ALTER TABLE {other}.t ADD COLUMN made INT
        ALTER TABLE mine RENAME {other}.made
        RENAME TABLE mine TO {other}.made
        RENAME TABLE {other}.t TO made
        CREATE VIEW made AS SELECT * FROM {other}.t
        CREATE OR REPLACE VIEW {other}.made AS SELECT 1
        ALTER VIEW made AS SELECT * FROM {other}.t
        DROP TABLE {other}.t
        DROP TABLE IF EXISTS nothing, {other}.t
        DROP VIEW {other}.t
        CREATE INDEX made ON {other}.t (v)
        DROP INDEX made ON {other}.t
        BEGIN NOT ATOMIC SELECT * FROM {other}.t; END
        SELECT 1; SELECT * FROM {other}.t
    """,
    "another schema's programs": """
        SELECT {other}.leak()
        SELECT `{other}`.`leak`()
        SELECT 1 FROM mine WHERE v = {other} . leak()
        SET @a = {other}.leak()
        CREATE VIEW made AS SELECT {other}.leak()
        SHOW VARIABLES WHERE {other}.leak() > ''
        INSERT INTO mine VALUES (9, {other}.leak())
        CALL {other}.leaks()
        CALL `{other}`.leaks
        CREATE OR REPLACE PROCEDURE {other}.leaks() SELECT 1
        CREATE DEFINER = CURRENT_USER FUNCTION {other}.made() RETURNS INT RETURN 1
        CREATE PROCEDURE IF NOT EXISTS {other}.made() SELECT 1
        DROP PROCEDURE IF EXISTS {other}.leaks
        DROP EVENT IF EXISTS {other}.made
        DROP TRIGGER {other}.made
        ALTER EVENT made RENAME TO {other}.made
        SHOW CREATE PROCEDURE {other}.leaks
        CREATE PROCEDURE {other}.made() SELECT 1
        CREATE EVENT {other}.made ON SCHEDULE EVERY 1 DAY DO SELECT 1
        DROP FUNCTION {other}.leak
        DROP PROCEDURE {other}.leaks
        ALTER PROCEDURE {other}.leaks COMMENT 'x'
        CREATE TRIGGER {other}.made BEFORE INSERT ON {other}.t FOR EACH ROW SET @a = 1
    """,
    "schemas of the server and the product": """
        SELECT * FROM mysql.user
        SELECT * FROM mysql.global_priv
        SELECT * FROM mysql.db
        INSERT INTO mysql.user VALUES (1)
        DELETE FROM mysql.db
        CREATE TABLE mysql.made (id INT)
        DROP TABLE mysql.user
        SELECT * FROM _homeworld.streams
        CREATE TABLE _homeworld.made (id INT)
        SHOW TABLES FROM _homeworld
        USE _homeworld
        UPDATE performance_schema.setup_consumers SET enabled = 'NO'
        TRUNCATE performance_schema.events_statements_summary_by_digest
        CALL sys.ps_setup_disable_background_threads()
        CALL mysql.AddGeometryColumn('', '', 't', 'g', 1)
    """,
    "accounts": """
        CREATE USER made IDENTIFIED BY 'x'
        CREATE USER IF NOT EXISTS made
        CREATE OR REPLACE USER made
        /*!50000 CREATE USER made */
        CREATE /*!50000 USER */ made
        CREATE ROLE made
        ALTER USER CURRENT_USER() IDENTIFIED BY 'x'
        ALTER USER homeworld_owner ACCOUNT LOCK
        DROP USER CURRENT_USER()
        RENAME USER homeworld_reader TO made
        GRANT ALL ON *.* TO CURRENT_USER()
        GRANT FILE ON *.* TO homeworld_reader
        GRANT SELECT ON {other}.* TO homeworld_reader
        REVOKE ALL PRIVILEGES, GRANT OPTION FROM homeworld_owner
        SET PASSWORD = 'x'
        SET PASSWORD FOR homeworld_owner = 'x'
        SET ROLE ALL
        SET DEFAULT ROLE ALL TO CURRENT_USER()
        SET @a = 1, PASSWORD = 'x'
    """,
    "the server": """
        SHUTDOWN
        RESTART
        FLUSH TABLES WITH READ LOCK
        FLUSH LOGS
        FLUSH PRIVILEGES
        FLUSH HOSTS
        RESET MASTER
        RESET BINARY LOGS AND GTIDS
        RESET QUERY CACHE
        PURGE BINARY LOGS BEFORE NOW()
        BINLOG 'AAAA'
        CHANGE MASTER TO MASTER_HOST = 'x'
        CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'x'
        START SLAVE
        START REPLICA
        STOP SLAVE
        STOP REPLICA
        START GROUP_REPLICATION
        XA START 'x'
        XA RECOVER
        INSTALL PLUGIN made SONAME 'ha_example.so'
        INSTALL SONAME 'ha_example'
        INSTALL COMPONENT 'file://component_made'
        UNINSTALL PLUGIN InnoDB
        CREATE FUNCTION made RETURNS STRING SONAME 'made.so'
        CREATE AGGREGATE FUNCTION made RETURNS STRING SONAME 'made.so'
        CREATE SERVER made FOREIGN DATA WRAPPER mysql OPTIONS (USER 'x')
        CREATE TABLESPACE made ADD DATAFILE 'made.ibd'
        CREATE DATABASE made
        CREATE SCHEMA made
        DROP DATABASE {other}
        DROP DATABASE {own}
        ALTER DATABASE {other} CHARACTER SET latin1
        ALTER INSTANCE ROTATE INNODB MASTER KEY
        CREATE RESOURCE GROUP made TYPE = USER
        CREATE SPATIAL REFERENCE SYSTEM 999 NAME 'made' DEFINITION 'x'
        LOCK INSTANCE FOR BACKUP
        BACKUP STAGE START
        CLONE LOCAL DATA DIRECTORY = '{files}/clone'
        IMPORT TABLE FROM 'x'
        KILL USER homeworld_owner
        KILL HARD {thread}
        KILL {thread}
        KILL QUERY {thread}
        KILL CONNECTION {thread}
        KILL {thread} + 0
        /*!50000 KILL {thread} */
        KILL (SELECT 1)
        SET GLOBAL max_connections = 11
        SET @@global.max_connections = 11
        SET @@global . max_connections = 11
        SET @@`global`.max_connections = 11
        SET @@global.`max_connections` = 11
        SET @a = 1, GLOBAL max_connections = 11
        SET PERSIST max_connections = 11
        SET @@persist.max_connections = 11
        SET @@persist_only.max_connections = 11
        SET /*!50000 GLOBAL */ max_connections = 11
        SET STATEMENT max_statement_time = 1 FOR SELECT 1
        SET RESOURCE GROUP USR_default
    """,
    "files": """
        SELECT * FROM mine INTO OUTFILE '{files}/out'
        SELECT * FROM mine INTO DUMPFILE '{files}/out'
        SELECT 1 INTO OUTFILE '{files}/out'
        SELECT 1 /*! INTO OUTFILE '{files}/out' */
        TABLE mine INTO OUTFILE '{files}/out'
        LOAD DATA INFILE '/etc/passwd' INTO TABLE mine
        LOAD DATA LOW_PRIORITY INFILE '/etc/passwd' INTO TABLE mine
        LOAD XML INFILE '/etc/passwd' INTO TABLE mine
        LOAD DATA /*!50000 INFILE */ '/etc/passwd' INTO TABLE mine
        CREATE TABLE made (id INT) DATA DIRECTORY = '{files}'
        CREATE TABLE made (id INT) /*!50000 DATA DIRECTORY = '{files}' */
        CREATE TABLE made (id INT) PARTITION BY HASH (id) (PARTITION p DATA DIRECTORY = '{files}')
        CREATE TABLE made (id INT) ENGINE = MyISAM INDEX DIRECTORY = '{files}'
        CREATE TABLE made (id INT) ENGINE = FEDERATED CONNECTION = 'mysql://root@127.0.0.1/mysql/user'
        CREATE TABLE made (a TEXT) ENGINE = CONNECT TABLE_TYPE = DOS FILE_NAME = '/etc/passwd'
    """,
    "hidden text": """
        PREPARE s FROM 'SELECT * FROM {other}.t'
        EXECUTE s
        EXECUTE IMMEDIATE 'SELECT * FROM {other}.t'
        /*!50000 PREPARE s FROM 'SELECT 1' */
        BEGIN NOT ATOMIC EXECUTE IMMEDIATE 'SELECT * FROM {other}.t'; END
        SET @s = 'SELECT 1', @t = 2; PREPARE s FROM @s
    """,
    "what binlogs have": """
        SET SESSION sql_log_bin = 0
        SET sql_log_bin = 0
        SET @@sql_log_bin = 0
        SET @@session.sql_log_bin = 0
        SET @@session.`sql_log_bin` = 0
        SET @@local . sql_log_bin = 0
        SET @@`sql_log_bin` = 0
        SET LOCAL `sql_log_bin` = OFF
        SET @a = 1, sql_log_bin = 0
        SET @a = 1, @@session.`sql_log_bin` = 0
        SET NAMES utf8mb4, sql_log_bin = 0
        SET /*!50000 sql_log_bin = 0 */
        SET /*!50000 sql_log_bin */ = 0
        /*!50000 SET sql_log_bin = 0 */
        SET STATEMENT sql_log_bin = 0 FOR INSERT INTO mine VALUES (8, 'x')
        SET SESSION binlog_format = 'STATEMENT'
        SET binlog_format = MIXED
        SET @@session.`binlog_row_image` = MINIMAL
        SET SESSION binlog_row_image = 'NOBLOB'
        SET SESSION gtid_next = 'AUTOMATIC'
        SET SESSION gtid_domain_id = 7
        SET SESSION server_id = 7
        SET skip_replication = 1
        SET pseudo_slave_mode = 1
        SET binlog_alter_two_phase = 1
        SELECT /*+ SET_VAR(sql_log_bin = 0) */ 1
        BEGIN NOT ATOMIC SET sql_log_bin = 0; END
    """,
    "how texts are read": """
        SET sql_mode = 'ANSI_QUOTES'
        SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'
        SET @@session.`sql_mode` = 'ANSI_QUOTES'
        SET @@session . sql_mode = 'ANSI_QUOTES'
        SET @@`session`.sql_mode = 'ANSI_QUOTES'
        SET @@ session.sql_mode = 'ANSI_QUOTES'
        SET NAMES utf8mb4, sql_mode = 'ANSI_QUOTES'
        SET sql_mode = CONCAT('ANSI', '_QUOTES')
        SET sql_mode = 'ANSI' '_QUOTES'
        SET sql_mode = x'414E53495F51554F544553'
        SET sql_mode = _utf8mb4'ANSI_QUOTES'
        SET sql_mode = N'ANSI_QUOTES'
        SET sql_mode = 4
        SET sql_mode = 0x04
        SET sql_mode = 4 + 0
        SET sql_mode = `ANSI_QUOTES`
        SET sql_mode = ANSI_QUOTES
        SET sql_mode = REPLACE('ANSIxQUOTES', 'x', '_')
        SET sql_mode = 'ansi'
        SET sql_mode = 'ORACLE'
        SET @m = 'ANSI_QUOTES'; SET sql_mode = @m
        SET @m = 4; SET sql_mode = @m
        SELECT 'ANSI_QUOTES' INTO @m; SET sql_mode = @m
        SELECT /*+ SET_VAR(sql_mode = 'ANSI_QUOTES') */ 1
        SET NAMES gbk
        SET NAMES 'gbk'
        SET NAMES `gbk`
        SET NAMES x'67626b'
        SET NAMES sjis
        SET @a = 1, NAMES gbk
        SET @a = 1, CHARACTER SET gbk
        SET @a = 1, CHARSET big5
        SET CHARACTER SET cp932
        SET CHARSET gb18030
        SET character_set_client = gbk
        SET @@session.`character_set_client` = gbk
        SET character_set_client = 28
        SET character_set_client = CONCAT('g', 'bk')
        SET @c = 'gbk'; SET character_set_client = @c
        SELECT 'gbk' INTO @c; SET @@character_set_client = @c
        CALL reads_otherwise()
        SELECT reads_otherwise()
    """,
}  # fmt: skip
"""By what they are after. ``\\n`` and ``\\t`` are meant; several statements stand for several commands."""

HARMLESS = (
    "SHOW TABLE STATUS FROM", "DROP INDEX", "CALL reads", "SELECT reads",
    "SET @a = 1, ", "SET @s", "SET @m", "SET @c", "SELECT 'ANSI", "SELECT 'gbk'", "CHECK TABLE",
)  # fmt: skip


def statements() -> Iterator[str]:
    for text in TRIES.values():
        for line in text.strip().splitlines():
            yield line.strip().replace("\\n", "\n").replace("\\t", "\t")


@dataclass
class World:
    gw: GatewayFixture
    server: mysqld.TestServer
    own: str
    other: str
    files: Path
    thread: int

    def facts(self) -> list[Any]:
        """Everything that has to stay as it is."""
        names = "'max_connections', 'sql_mode', 'read_only', 'event_scheduler', 'character_set_server'"
        of_schema = {
            "TABLES": "TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE",
            "COLUMNS": "TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, COLUMN_KEY",
            "SCHEMATA": "SCHEMA_NAME",
            "USER_PRIVILEGES": "GRANTEE, PRIVILEGE_TYPE, IS_GRANTABLE",
            "SCHEMA_PRIVILEGES": "GRANTEE, TABLE_SCHEMA, PRIVILEGE_TYPE",
            "ROUTINES": "ROUTINE_SCHEMA, ROUTINE_NAME",
            "EVENTS": "EVENT_SCHEMA, EVENT_NAME",
            "TRIGGERS": "TRIGGER_SCHEMA, TRIGGER_NAME",
            "PLUGINS": "PLUGIN_NAME, PLUGIN_STATUS",
        }
        found: list[Any] = [
            sorted(self.server.query(f"SELECT {columns} FROM information_schema.{table}"))
            for table, columns in of_schema.items()
        ]
        return [
            *found,
            self.server.query(f"SELECT * FROM {self.other}.t ORDER BY id"),
            self.server.query("SELECT User, Host FROM mysql.user ORDER BY 1, 2"),
            self.server.query(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})"),
            sorted(path.name for path in self.files.iterdir()),
        ]


@pytest.fixture
def world(gateway_server: mysqld.TestServer, tmp_path: Path) -> Iterator[World]:
    own, other = f"ks_{new_id()}", f"ks_{new_id()}"
    files = tmp_path / "files"
    files.mkdir()
    files.chmod(0o777)
    for schema in (own, other):
        gateway_server.create_schema(schema)
    gateway_server.execute(["CREATE TABLE mine (id INT PRIMARY KEY, v VARCHAR(50))"], own)
    reads_otherwise = (
        "BEGIN SET character_set_client = gbk; SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'; "
    )
    gateway_server.execute(
        [
            f"CREATE PROCEDURE reads_otherwise() {reads_otherwise} END",
            f"CREATE FUNCTION reads_otherwise() RETURNS INT DETERMINISTIC {reads_otherwise} RETURN 1; END",
        ],
        own,
    )
    gateway_server.execute(
        [
            "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(50))",
            f"INSERT INTO t VALUES (1, '{MARK}')",
            "CREATE FUNCTION leak() RETURNS VARCHAR(50) READS SQL DATA RETURN (SELECT v FROM t)",
            "CREATE PROCEDURE leaks() SELECT * FROM t",
        ],
        other,
    )
    gw = start_gateway(gateway_server, {own: unsharded(own, gateway_server)}, own, tmp_path)
    with contextlib.closing(gateway_server.connect()) as victim:
        with victim.cursor() as cursor:
            ((thread,),) = rows(cursor, "SELECT CONNECTION_ID()")
        yield World(gw, gateway_server, own, other, files, thread)
        victim.ping(reconnect=False)  # nobody has killed it
    gw.gateway.stop(1.0)
    for schema in (own, other):
        gateway_server.drop_schema(schema)


PROBE = (
    "SELECT 'it\\'s', \"it's\", '\xbf\\\\', 1 || 0, @@sql_mode, @@character_set_client, @@sql_log_bin, "
    "@@session.binlog_format"
)


@dataclass
class Trier:
    """Tries statements as one role, each in the same session unless that has ended; notes what got out."""

    world: World
    role: BackendRole
    found: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.connection = self._connect()
        self.usual = self._reads()

    def _connect(self) -> Any:
        return self.world.gw.connect(self.role, client_flag=CLIENT.MULTI_STATEMENTS)

    def _reads(self) -> list[Any]:
        """How the server reads the session's texts, and what it logs of it."""
        with self.connection.cursor() as cursor:
            return rows(cursor, PROBE)

    def _passes(self, sql: str) -> bool:
        said: list[Any] = []
        passed = True
        try:
            with self.connection.cursor() as cursor:
                said += rows(cursor, sql)
                while cursor.nextset():
                    said += cursor.fetchall()
        except pymysql.err.MySQLError as error:
            passed = False
            said.append(error.args)
            if error.args[0] in {2006, 2013} or "internal error" in str(error.args[-1]):
                self.found.append(f"{sql}: {error.args}")
                self.connection = self._connect()
        if MARK in repr(said):
            self.found.append(f"{sql}: told the secret")
        return passed

    def attempt(self, statement: str) -> None:
        several = statement.split("; ") if statement.startswith(("SET @", "SELECT '")) else [statement]
        passed = [self._passes(sql) for sql in several]
        if all(passed) and not statement.startswith(HARMLESS):
            self.found.append(f"{statement}: passed")
        reads = self._reads()
        if reads != self.usual:
            self.found.append(f"{statement}: texts are read otherwise: {reads}")
            self.connection.close()
            self.connection = self._connect()


@pytest.mark.parametrize("role", ROLES)
def test_nothing_gets_out(world: World, role: BackendRole) -> None:
    before = world.facts()
    facts = {"other": world.other, "own": world.own, "files": world.files, "thread": world.thread}
    trier = Trier(world, role)
    for statement in statements():
        trier.attempt(statement.format(**facts))
    trier.connection.close()
    assert not trier.found, "\n".join(trier.found)
    assert world.facts() == before


def test_every_write_is_logged_whatever_was_tried(world: World) -> None:
    with contextlib.closing(world.gw.connect(BackendRole.READWRITER)) as connection:
        for line in TRIES["what binlogs have"].strip().splitlines():
            with contextlib.suppress(pymysql.err.MySQLError), connection.cursor() as cursor:
                cursor.execute(line.strip())
            before = world.server.position()
            with connection.cursor() as cursor:
                cursor.execute("REPLACE INTO mine VALUES (1, UUID())")
            connection.commit()
            assert world.server.position() != before, line
