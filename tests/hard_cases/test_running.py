"""What happens while a move runs: locks, logs, clocks, schema changes, and comparing."""

# ruff: noqa: E501  statements are read by their lines

from __future__ import annotations

import contextlib
import random
import time

import pymysql
import pytest

from homeworld.model.movers import OnDdl, Phase
from homeworld.model.topology import Flavor
from homeworld.replication.ddl import TargetForm, target_table, without_counter
from homeworld.replication.tables import create_table, read_tables
from tests.hard_cases.carrying import T, by, running, schemas, started
from tests.hard_cases.cases import Outcome, hard_case
from tests.hard_cases.test_refusals import plain
from tests.support.judging import reasons
from tests.support.moves import Move, Writers
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

NUMBERED = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20))"


def fill(move: Move, rows: int = 300) -> None:
    values = ", ".join(f"('v{number}')" for number in range(rows))
    move.create(f"INSERT INTO t (v) VALUES {values}")


def insert(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    """Not so fast that the copy would never reach the newest row."""
    time.sleep(0.02)
    cursor.execute("INSERT INTO t (v) VALUES (%s)", (str(numbers.random())[:20],))
    if numbers.random() < 0.3:
        cursor.execute("DELETE FROM t WHERE id = LAST_INSERT_ID() - 3")


ZONE = (
    "INSERT INTO mysql.time_zone (Time_zone_id, Use_leap_seconds) VALUES (9001, 'N')",
    "INSERT INTO mysql.time_zone_name (Name, Time_zone_id) VALUES ('Test/Summer', 9001)",
    # Winter is UTC+1, summer UTC+2; it changes on 31 March and 27 October 2024.
    "INSERT INTO mysql.time_zone_transition_type VALUES (9001, 0, 3600, 0, 'W'), (9001, 1, 7200, 1, 'S')",
    "INSERT INTO mysql.time_zone_transition VALUES (9001, 0, 0), (9001, 1711846800, 1), (9001, 1729990800, 0)",
)


@pytest.mark.parametrize(
    "zone",
    [
        pytest.param("+05:30", marks=hard_case(7, "TIMESTAMP on a server that is not in UTC")),
        pytest.param("Test/Summer", marks=hard_case(7, "The same in a zone with summer time, in the hour that comes twice")),
    ],
)  # fmt: skip
def test_moments(pair: list[TestServer], outcome: Outcome, zone: str) -> None:
    source = pair[0]
    if zone == "Test/Summer" and not source.query(
        "SELECT 1 FROM mysql.time_zone_name WHERE Name = 'Test/Summer'"
    ):
        source.execute(list(ZONE))
    source.query("SET GLOBAL time_zone=%s", args=(zone,))
    try:
        with schemas(pair) as move:
            move.create(
                "CREATE TABLE t (k INT PRIMARY KEY, t TIMESTAMP NULL, d DATETIME, "
                "u TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3))",
                "INSERT INTO t (k, t, d) VALUES (1, '2024-07-01 12:00:00', '2024-07-01 12:00:00'), (2, NULL, NULL), "
                "(3, '2024-10-27 02:30:00', '2024-10-27 02:30:00'), (4, FROM_UNIXTIME(1729989000), NOW())",
            )  # fmt: skip
            with running(move, by("k"), resting=True) as carried:
                move.create(
                    "INSERT INTO t (k, t) VALUES (5, FROM_UNIXTIME(1729992600)), (6, '2024-03-31 03:00:00')"
                )
                carried.let_copy()
                move.create(
                    "UPDATE t SET t='2024-10-27 02:59:59' WHERE k=1",
                    "UPDATE t SET d=t",
                    "UPDATE t SET t=NOW() WHERE k=2",
                )
                carried.settle()
    finally:
        source.query("SET GLOBAL time_zone='+00:00'")
    outcome.equal()


DDL = {
    10: ("Labels put in before others while rows move", "ALTER TABLE t MODIFY e ENUM('n','a','b')", "UPDATE t SET e='n' WHERE id < 9"),
    24: ("A column added while rows move", "ALTER TABLE t ADD w INT NOT NULL DEFAULT 5 FIRST", "UPDATE t SET w=6 WHERE id < 9"),
    50: ("A column added at once (INSTANT): nothing stays behind", "ALTER TABLE t ADD w VARCHAR(9) DEFAULT 'é', ALGORITHM=INSTANT", "UPDATE t SET w='x' WHERE id < 9"),
}  # fmt: skip
COLUMNS = "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), e ENUM('a','b') DEFAULT 'b')"


@pytest.mark.parametrize("number", [pytest.param(n, marks=hard_case(n, text[0])) for n, text in DDL.items()])
def test_statements_are_carried_where_that_is_asked(
    pair: list[TestServer], outcome: Outcome, number: int
) -> None:
    _, statement, change = DDL[number]
    with schemas(pair) as move:
        move.create(COLUMNS)
        fill(move)
        with running(move, by("id"), resting=True, on_ddl=OnDdl.EXEC) as carried:
            move.create("UPDATE t SET v='before' WHERE id < 50", statement, change)
            carried.let_copy()
            move.create("INSERT INTO t (v) VALUES ('after')", "DELETE FROM t WHERE id = 7")
            carried.settle()
        for place in (*move.sources, *move.targets):
            tables = move.server_of(place).query("SHOW TABLES", place.schema)
            assert tables == [("t",)], "no table of ours is left behind"
    outcome.equal()


STOPS = {
    "add": ("A column added where nobody asked for it to be carried", "ALTER TABLE t ADD w INT"),
    "drop": ("The table dropped while rows move", "DROP TABLE t"),
    "truncate": ("The table emptied while rows move", "TRUNCATE TABLE t"),
}


@pytest.mark.parametrize("what", [pytest.param(w, marks=hard_case(24, text[0])) for w, text in STOPS.items()])
def test_statements_stop_it_otherwise(pair: list[TestServer], outcome: Outcome, what: str) -> None:
    with schemas(pair) as move:
        move.create(COLUMNS)
        fill(move, 20)
        with running(move, by("id")) as carried:
            carried.settle()
            move.create(STOPS[what][1])
            progress = carried.over()
        assert progress.phase is Phase.DDL
        outcome.refused(plain(progress.ddl), STOPS[what][1].split()[0])


@hard_case(21, "Foreign keys in a circle, and keys that are built after the rows")
def test_foreign_keys_in_a_circle(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(
            "CREATE TABLE t (id INT PRIMARY KEY, u INT, v INT, KEY u (u), KEY v (v))",
            "CREATE TABLE u (id INT PRIMARY KEY, t INT, KEY t (t), CONSTRAINT back FOREIGN KEY (t) REFERENCES t (id))",
            "ALTER TABLE t ADD CONSTRAINT there FOREIGN KEY (u) REFERENCES u (id)",
            "SET foreign_key_checks=0", "INSERT INTO t VALUES (1, 10, 1), (2, 20, 2)", "INSERT INTO u VALUES (10, 2), (20, 1)",
        )  # fmt: skip
        placements = (T, by(table="u", vindex=""))
        # As a workflow makes them: with their foreign keys, without what can be built later.
        for name, table in read_tables(move.sources[0], ["t", "u"]).items():
            made = target_table(
                table, TargetForm(defer_keys=True, keep_auto_increment=True, keep_foreign_keys=True)
            )
            create_table(move.targets[0], name, made.create_sql)
        move.placements = placements
        with running(move, *placements, resting=True) as carried:
            carried.let_copy()
            move.create(
                "UPDATE t SET u=20 WHERE id=1",
                "INSERT INTO u VALUES (30, 1)",
                "INSERT INTO t VALUES (3, 30, 3)",
            )
            carried.settle()
        keys = {
            row[2]
            for row in move.server_of(move.targets[0]).query("SHOW INDEX FROM t", move.targets[0].schema)
        }
        assert keys == {"PRIMARY", "u", "v"}
        with pytest.raises(pymysql.err.IntegrityError):
            move.server_of(move.targets[0]).query("DELETE FROM u WHERE id = 30", move.targets[0].schema)
    outcome.equal()


@hard_case(25, "Deadlocks and lock timeouts while rows are copied and followed")
def test_locks(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20), KEY v (v))")
        fill(move)
        move.prepare(by("id"), defer=False)
        place = move.targets[0]
        with (
            running(move, by("id")) as carried,
            contextlib.closing(move.server_of(place).connect(schema=place.schema, autocommit=False)) as other,
            other.cursor() as cursor,
        ):
            for _ in range(2):  # each longer than a lock is waited for
                with contextlib.suppress(pymysql.err.OperationalError):  # it may be the one that gives way
                    cursor.execute("SELECT COUNT(*) FROM t FORCE INDEX (v) WHERE v > '' FOR UPDATE")
                move.create(
                    "UPDATE t SET v=CONCAT(v, '!') WHERE id % 2 = 0", "DELETE FROM t WHERE id % 7 = 0"
                )
                time.sleep(1.3)
                other.rollback()
            carried.settle()
    outcome.equal()  # fmt: skip


@hard_case(26, "Estimates of rows that are far from the truth")
def test_wrong_estimates(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create(NUMBERED + " STATS_PERSISTENT=1 STATS_AUTO_RECALC=0", "ANALYZE TABLE t")
        fill(move, 2000)
        with running(move, by("id")) as carried:
            found = carried.settle()
            (told,) = carried.mover.progress().tables
        assert found.rows_compared == told.rows_copied == told.rows_total == 2000
    outcome.equal()


@hard_case(27, "The log tells of a row before anybody can see it (semi-synchronous replication)")
def test_rows_that_are_not_seen_yet(pair: list[TestServer], outcome: Outcome) -> None:
    source = pair[0]
    mysql = source.flavor is Flavor.MYSQL
    prefix = "rpl_semi_sync_source" if mysql else "rpl_semi_sync_master"
    waits = f"{prefix}_wait_no_{'replica' if mysql else 'slave'}"
    if mysql:
        source.query("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
    # Nobody acknowledges: each commit is in the log for that long before it can be seen.
    source.execute(
        [
            f"SET GLOBAL {prefix}_wait_point='AFTER_SYNC'",
            f"SET GLOBAL {waits}=ON",
            f"SET GLOBAL {prefix}_timeout=700",
        ]
    )
    try:
        with schemas(pair) as move:
            move.create(NUMBERED)
            fill(move, 50)
            source.query(f"SET GLOBAL {prefix}_enabled=ON")
            with (
                Writers(source, move.schema, insert, 3, seed=27) as writers,
                running(move, by("id"), resting=True, chunk_bytes=4000) as carried,
            ):
                time.sleep(0.1)
                carried.let_copy()
                source.query(f"SET GLOBAL {prefix}_enabled=OFF")
                writers.wait(5)
                writers.stop()
                carried.settle()
    finally:
        source.execute([f"SET GLOBAL {prefix}_enabled=OFF", f"SET GLOBAL {prefix}_timeout=10000"])
        if mysql:
            source.query("UNINSTALL PLUGIN rpl_semi_sync_source")
    outcome.equal()


@hard_case(28, "The same with the usual settings, under many writers")
def test_many_writers(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create(NUMBERED)
        fill(move, 1500)
        with (
            Writers(move.source, move.schema, insert, 6, seed=28) as writers,
            running(move, by("id"), chunk_bytes=4000) as carried,
        ):
            carried.let_copy()
            writers.wait(50)
            writers.stop()
            carried.settle()
    outcome.equal()


@hard_case(35, "Waiting for the log's true end: no change is left out when the writers have stopped")
def test_the_true_end(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create(NUMBERED)
        fill(move, 10)
        with running(move, by("id")) as carried:
            carried.let_copy()
            for at in range(6):
                move.source.query(f"INSERT INTO t (v) VALUES ('last {at}')", move.schema)
                carried.mover.drain(move.positions(), 30)
                move.assert_equal()
            carried.settle()
    outcome.equal()


@hard_case(39, "Savepoints in the middle of a transaction, rolled back to or not")
def test_savepoints(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        # Only MariaDB lets a transaction write to a table that has none.
        engine = "InnoDB" if move.source.flavor is Flavor.MYSQL else "MyISAM"
        move.create(NUMBERED, f"CREATE TABLE other (id INT PRIMARY KEY) ENGINE={engine}")
        fill(move, 20)
        with running(move, by("id")) as carried:
            carried.let_copy()
            move.create(
                "BEGIN", "UPDATE t SET v='1' WHERE id=1", "SAVEPOINT a", "INSERT INTO t (v) VALUES ('gone')",
                "SAVEPOINT b", "DELETE FROM t WHERE id=2", "INSERT INTO other VALUES (1)", "ROLLBACK TO a",
                "UPDATE t SET v='2' WHERE id=3", "RELEASE SAVEPOINT a", "INSERT INTO t (v) VALUES ('here')", "COMMIT",
            )  # fmt: skip
            carried.settle()
    outcome.equal()


@hard_case(39, "Transactions in two phases (XA) while rows move")
def test_two_phases(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create(NUMBERED)
        fill(move, 20)
        with running(move, by("id")) as carried:
            carried.let_copy()
            begun = (
                "XA START 'x1'",
                "UPDATE t SET v='x' WHERE id=1",
                "INSERT INTO t (v) VALUES ('xa')",
                "XA END 'x1'",
            )
            move.create(*begun, "XA PREPARE 'x1'")
            try:
                move.create("UPDATE t SET v='between' WHERE id=3")
            finally:
                move.create("XA COMMIT 'x1'")
            if move.source.flavor is Flavor.MYSQL:
                carried.settle()
                outcome.equal()
                return
            progress = carried.over()
            assert not progress.retryable
        outcome.refused(plain(progress.error), "XA")


@hard_case(41, "Logs that are gone before they were read; a move begun anew")
def test_logs_that_are_gone(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create(NUMBERED)
        fill(move, 20)
        with running(move, by("id")) as carried:
            carried.settle()
        move.source.query("INSERT INTO t (v) VALUES ('unread')", move.schema)
        _purge(move.source)
        with started(move.spec(2), move) as later:
            progress = later.over()
        assert progress.phase is Phase.FAILED
        assert not progress.retryable
        for place in move.targets:
            move.server_of(place).query("DELETE FROM t", place.schema)
        move.workflow_id += "-anew"
        with started(move.spec(1), move) as anew:
            anew.settle()
        outcome.refused(plain(progress.error), "purged")


def _purge(server: TestServer) -> None:
    server.query("FLUSH BINARY LOGS")
    (*_, last) = server.query("SHOW BINARY LOGS")
    deadline = time.monotonic() + 60
    while len(server.query("SHOW BINARY LOGS")) > 1:  # somebody may read the old one still
        assert time.monotonic() < deadline
        server.query(f"PURGE BINARY LOGS TO '{last[0]}'")
        time.sleep(0.05)


@hard_case(
    42, "Comparing: BIT, ENUM, binary keys and other cases of letters, and rows too many on both sides"
)
def test_comparing(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(
            "CREATE TABLE t (k BINARY(3) PRIMARY KEY, b BIT(9), e ENUM('a','b'), c VARCHAR(9) COLLATE utf8mb4_general_ci, f DOUBLE)",
            *(f"INSERT INTO t VALUES (x'0{n}ff00', {n}, 'a', 'Text', 0.1)" for n in range(1, 8)),
        )  # fmt: skip
        target = move.targets[0]
        with running(move, T) as carried:
            carried.settle()
            spoilt = ("UPDATE t SET b=99 WHERE k=x'01ff00'", "UPDATE t SET e='b' WHERE k=x'02ff00'", "UPDATE t SET c='text' WHERE k=x'03ff00'",
                      "UPDATE t SET f=0.1e0+1e-17 WHERE k=x'04ff00'", "DELETE FROM t WHERE k=x'05ff00'", "INSERT INTO t (k) VALUES (x'000000')")  # fmt: skip
            for statement in spoilt:
                move.server_of(target).query(statement, target.schema)
            (found,) = carried.verified("spoilt").tables
            assert (found.mismatched, found.extra_source, found.extra_target) == (4, 1, 1), found
            keys = {tuple(one.key.values()) for one in found.differences}
            assert len(keys) == 6, "each names its row"
            move.create("UPDATE t SET f=f+1")  # what is written once more is whole again
            move.server_of(target).query("DELETE FROM t WHERE k=x'000000'", target.schema)
            carried.settle()
    outcome.equal()


@hard_case(
    42, "Comparing: numbers that are wider than they are shown (ZEROFILL), where they place their rows"
)
def test_comparing_wide_numbers(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair) as move:
        move.create("CREATE TABLE t (k INT(3) UNSIGNED ZEROFILL PRIMARY KEY, v INT)")
        move.create(
            f"INSERT INTO t VALUES {', '.join(f'({4294967295 - n}, {n})' for n in range(40))}, (7, 7)"
        )
        with running(move, by("k")) as carried:
            assert not any(table.wrong_shard for table in carried.settle().tables)
    outcome.equal()


@hard_case(44, "The row that holds the position: not one transaction for each of the source's")
def test_positions_are_written_once_a_batch(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(NUMBERED)
        with running(move, T) as carried:
            carried.settle()
        move.create(*(f"INSERT INTO t (v) VALUES ('{number}')" for number in range(200)))
        source, target = pair
        earlier = _senders(source)
        before = _commits(target)
        with target.connect(schema=move.targets[0].schema) as connection, connection.cursor() as cursor:
            # However fast the log comes: all of it is there before the first of it is applied.
            cursor.execute("LOCK TABLES t READ")
            with started(move.spec(2), move) as carried:
                deadline = time.monotonic() + 60
                while not _senders(source, "AND STATE LIKE '%has sent all binlog%'") - earlier:
                    assert time.monotonic() < deadline, source.query("SHOW PROCESSLIST")
                    time.sleep(0.02)
                cursor.execute("UNLOCK TABLES")
                carried.settle()
        assert _commits(target) - before < 100, "transactions are joined"
    outcome.equal()


def _senders(server: TestServer, condition: str = "") -> set[int]:
    """The sessions that send the log to somebody."""
    found = server.query(
        f"SELECT ID FROM information_schema.PROCESSLIST WHERE COMMAND LIKE 'Binlog Dump%' {condition}"
    )
    return {int(row[0]) for row in found}


def _commits(server: TestServer) -> int:
    return int(server.query("SHOW GLOBAL STATUS LIKE 'Handler_commit'")[0][1])


@hard_case(46, "A source that is read-only while its rows are copied")
def test_a_read_only_source(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(NUMBERED)
        fill(move)
        with running(move, T, resting=True) as carried:
            move.source.query("SET GLOBAL read_only=ON")
            try:
                move.create("UPDATE t SET v='by its owner' WHERE id < 50")  # a replica's applier writes, too
                carried.let_copy()
                move.create("DELETE FROM t WHERE id > 250")
                carried.settle()
            finally:
                move.source.query("SET GLOBAL read_only=OFF")
    outcome.equal()


FORMS = {
    Flavor.MYSQL: (
        "CREATE TABLE t (id INT UNSIGNED ZEROFILL NOT NULL, n VARCHAR(20) BINARY UNIQUE, j JSON DEFAULT (JSON_ARRAY(1, 'it''s')), "
        "d DATE DEFAULT (CURRENT_DATE + INTERVAL 1 DAY), c INT DEFAULT '7' COMMENT 'a, b) AUTO_INCREMENT=9', b VARBINARY(9) DEFAULT 0x00FF, "
        "PRIMARY KEY (id DESC), KEY k (c DESC, n), KEY x ((c + 1)), KEY u (d) INVISIBLE, "
        "CONSTRAINT small CHECK (c < 100) NOT ENFORCED) COMMENT='x' ROW_FORMAT=DYNAMIC",
    ),
    Flavor.MARIADB: (
        "CREATE TABLE t (id INT UNSIGNED ZEROFILL NOT NULL, n VARCHAR(20) BINARY UNIQUE, j JSON DEFAULT '[1, \"it''s\"]', "
        "d DATE DEFAULT (CURRENT_DATE + INTERVAL 1 DAY), c INT DEFAULT 7 COMMENT 'a, b) AUTO_INCREMENT=9', "
        "PRIMARY KEY (id DESC), KEY k (c DESC, n), KEY u (d) IGNORED, CONSTRAINT small CHECK (c < 100)) COMMENT='x' ROW_FORMAT=DYNAMIC",
    ),
}  # fmt: skip
PARTITIONED = (
    "CREATE TABLE t (id INT PRIMARY KEY, v INT) PARTITION BY RANGE (id) "
    "(PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE)"
)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param("form", marks=hard_case(47, "Definitions arrive as they are: orders, defaults, checks, hidden keys")),
        pytest.param("partitions", marks=hard_case(47, "The same of partitions up to MAXVALUE")),
    ],
)  # fmt: skip
def test_definitions(pair: list[TestServer], outcome: Outcome, what: str) -> None:
    with schemas(pair, "-") as move:
        create = FORMS[move.source.flavor] if what == "form" else (PARTITIONED,)
        move.create(
            "SET NAMES utf8mb4",
            *create,
            f"INSERT INTO t (id, {'c' if what == 'form' else 'v'}) VALUES (1, 5), (20, 6)",
        )
        with running(move, T, resting=True) as carried:
            carried.let_copy()
            move.create("INSERT INTO t (id) VALUES (5)", "UPDATE t SET id=30 WHERE id=1")
            carried.settle()
        source, target = (read_tables(place, ["t"])["t"] for place in (move.sources[0], move.targets[0]))
        assert without_counter(source.create_sql) == without_counter(target.create_sql)
    outcome.equal()


@hard_case(47, "A default of bytes that are no text")
def test_a_default_of_bytes(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(
            "CREATE TABLE t (id INT PRIMARY KEY, b VARBINARY(9) DEFAULT 0x8000FF)",
            "INSERT INTO t (id) VALUES (1)",
        )
        if found := reasons(move, [T]):
            outcome.refused(plain("; ".join(found)), "bytes that are no text")
            return
        with running(move, T) as carried:
            carried.settle()
        (row,) = move.server_of(move.targets[0]).query("SELECT COLUMN_DEFAULT FROM information_schema.COLUMNS WHERE COLUMN_NAME='b' AND TABLE_SCHEMA=%s", args=(move.targets[0].schema,))  # fmt: skip
        assert row[0]
    outcome.equal()
