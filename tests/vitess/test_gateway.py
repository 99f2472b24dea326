"""Clients of a gateway in front of a real vtgate: what they send, what they hear, whatever is in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from homeworld.engines.vitess.members import known
from homeworld.engines.vitess.processes import Runner
from homeworld.model.errors import DeadlineExceededError
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import BackendRole, TabletType
from tests.support import mysqld
from tests.support.edge import HttpSqlError, JsonClient
from tests.support.gateway import DATABASE, GatewayFixture, connector, rows, secret
from tests.support.vitess import CUSTOMER, VitessWorld
from tests.support.vitess_gateway import REPLICA, gateway_of
from tests.support.wire import UNSIGNED_TINY, WireClient

READER, WRITER, READWRITER = BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER


@pytest.fixture(scope="module")
def gw(vitess: VitessWorld, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayFixture]:
    with gateway_of(vitess, tmp_path_factory.mktemp("gateway")) as made:
        yield made


@pytest.fixture(autouse=True)
def clean(vitess: VitessWorld) -> Iterator[None]:
    yield
    for server, table in ((vitess.first, "shop.items"), (vitess.first, "customer_low.buyers")):
        vitess.owner(server, f"DELETE FROM {table}")
    vitess.owner(vitess.second, "DELETE FROM customer_high.buyers")


def refused(errno: int, cursor: Any, sql: str, says: str = "") -> None:
    with pytest.raises(pymysql.MySQLError, match=says or None) as caught:
        cursor.execute(sql)
    assert caught.value.args[0] == errno, caught.value.args


def counts(vitess: VitessWorld) -> tuple[int, int]:
    """How many rows the servers have: of items, and of buyers over both shards."""
    (items,) = vitess.owner(vitess.first, "SELECT COUNT(*) FROM shop.items")[0]
    (low,) = vitess.owner(vitess.first, "SELECT COUNT(*) FROM customer_low.buyers")[0]
    (high,) = vitess.owner(vitess.second, "SELECT COUNT(*) FROM customer_high.buyers")[0]
    return items, low + high


# -------------------------------------------------------------------- clients


def test_texts_of_a_driver(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        cursor.execute("INSERT INTO items VALUES (%s, %s, %s)", (1, "ein'\\s ü€😀", -5))
        cursor.executemany(
            "INSERT INTO buyers (id, name) VALUES (%s, %s)", [(at, f"n{at}") for at in range(1, 9)]
        )
        assert cursor.rowcount == 8
        assert rows(cursor, "SELECT * FROM items") == [(1, "ein'\\s ü€😀", -5)]
        assert rows(cursor, "SELECT COUNT(*), MAX(name) FROM buyers") == [(8, "n8")]
        assert rows(cursor, "SELECT id FROM customer.buyers ORDER BY id DESC LIMIT 2") == [(8,), (7,)]
        joined = "SELECT label, name FROM shop.items i JOIN customer.buyers b ON i.id = b.id"
        assert rows(cursor, joined) == [("ein'\\s ü€😀", "n1")]
        assert rows(cursor, "SELECT DATABASE()") == [(DATABASE,)]
        assert rows(cursor, "SELECT 1, DATABASE()") == [(1, DATABASE)]
        cursor.execute("USE customer")
        assert rows(cursor, "SELECT name FROM buyers WHERE id = 3") == [("n3",)]
        assert rows(cursor, "SELECT 1, DATABASE()") == [(1, CUSTOMER)]
        cursor.execute("USE `customer:-80`")
        (low,) = rows(cursor, "SELECT COUNT(*) FROM buyers")[0]
        cursor.execute("USE `customer/80-`")
        (high,) = rows(cursor, "SELECT COUNT(*) FROM buyers")[0]
        assert low + high == 8
        assert low


def test_prepared_statements(gw: GatewayFixture) -> None:
    with closing(connector(gw)) as one:
        prepared = one.cursor(prepared=True)
        for at in range(1, 5):
            prepared.execute("INSERT INTO customer.buyers (id, name) VALUES (?, ?)", (at, f"ü{at}"))
        one.commit()
        find = "SELECT id, name FROM customer.buyers WHERE id = ? OR name = ? ORDER BY id"
        for _ in range(2):
            prepared.execute(find, (2, "ü4"))
            assert prepared.fetchall() == [(2, "ü2"), (4, "ü4")]
        prepared.execute("SELECT COUNT(*) FROM customer.buyers WHERE id > ?", (1,))
        assert prepared.fetchall() == [(3,)]
        prepared.execute("INSERT INTO shop.items VALUES (?, ?, ?)", (1, "x", 3))
        one.rollback()
        prepared.execute("SELECT COUNT(*) FROM shop.items")
        assert prepared.fetchall() == [(0,)]


def test_unsigned_values_of_prepared_statements(gw: GatewayFixture, vitess: VitessWorld) -> None:
    """Drivers bind a number in as few bytes as it takes; what fills them vtgate takes for negative."""
    numbers = [
        100,
        127,
        128,
        200,
        255,
        256,
        32767,
        32768,
        40000,
        65535,
        65536,
        2**31 - 1,
        2**31,
        2**32 - 1,
        2**32,
    ]
    with closing(connector(gw)) as client:
        for again in (False, True):  # a cursor that has bound other types before, too
            cursor = client.cursor(prepared=True)
            for number in numbers:
                if not again:
                    cursor.execute("INSERT INTO buyers (id, name) VALUES (%s, %s)", (number, f"n{number}"))
                cursor.execute("SELECT name FROM buyers WHERE id = %s", (number,))
                assert cursor.fetchall() == [(f"n{number}",)], number
                cursor.execute("SELECT name FROM buyers WHERE id = %s", (number,))
                assert cursor.fetchall() == [(f"n{number}",)], number
                cursor.execute("UPDATE buyers SET name = name WHERE id = %s", (number,))
            cursor.close()
        client.commit()
    low = vitess.owner(vitess.first, "SELECT id FROM customer_low.buyers")
    high = vitess.owner(vitess.second, "SELECT id FROM customer_high.buyers")
    assert sorted(row[0] for row in (*low, *high)) == numbers


def test_values_of_types_that_were_bound_before(gw: GatewayFixture, vitess: VitessWorld) -> None:
    """Drivers in C tell types with the first execution only: vtgate has to keep them as they were told it."""
    vitess.owner(vitess.first, "INSERT INTO shop.items VALUES (100, 'low', 0), (200, 'high', 0)")
    with WireClient(gw.gateway.port, "admin", secret(BackendRole.ADMIN), DATABASE) as client:
        number = client.prepare("UPDATE items SET amount = amount + 1 WHERE id = ?")
        for value, bind in ((200, True), (200, False), (100, False), (200, False)):
            done = client.execute(number, [value], bind=bind, kind=UNSIGNED_TINY, size=1)
            assert done is not None
            assert done.affected_rows == 1, (value, bind)
        done = client.execute(number, [200])  # and others after them
        assert done is not None
        assert done.affected_rows == 1
        assert client.execute(number, [-56], bind=False) is not None
    assert vitess.owner(vitess.first, "SELECT id, amount FROM shop.items ORDER BY id") == [(100, 1), (200, 4)]


@pytest.mark.parametrize("program", ["mysql", "mariadb"])
def test_command_lines(gw: GatewayFixture, program: str) -> None:
    path = str(mysqld.MYSQL.with_name("mysql")) if program == "mysql" else "/usr/bin/mariadb"
    if not Path(path).exists():
        pytest.skip(f"no {program} here")
    plain = "--ssl-mode=DISABLED" if program == "mysql" else "--skip-ssl"
    base = [
        path,
        "--no-defaults",
        "-h127.0.0.1",
        f"-P{gw.gateway.port}",
        "-uadmin",
        "-ppw-admin",
        "-N",
        plain,
    ]
    script = "INSERT INTO buyers (id, name) VALUES (1, 'ü'), (2, 'b'); "
    script += "SELECT name FROM buyers ORDER BY id; BEGIN; "
    script += "DELETE FROM buyers; ROLLBACK; SELECT COUNT(*) FROM buyers; SHOW TABLES FROM shop; "
    command = [*base, "--default-character-set=utf8mb4", DATABASE]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ü", "b", "2", "items"]
    command = [*base, "--default-character-set=latin1", DATABASE]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert "utf8mb4" in done.stderr


def test_several_statements_in_one_text(gw: GatewayFixture) -> None:
    with closing(gw.connect(client_flag=CLIENT.MULTI_STATEMENTS)) as one, one.cursor() as cursor:
        cursor.execute("INSERT INTO buyers (id, name) VALUES (1, 'a;b'); SELECT name FROM buyers; SELECT 2")
        assert cursor.rowcount == 1
        assert cursor.nextset()
        assert cursor.fetchall() == (("a;b",),)
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        assert not cursor.nextset()
    with closing(gw.connect()) as one, one.cursor() as cursor:
        refused(1064, cursor, "SELECT 1; SELECT 2")


# -------------------------------------------------------------------- transactions


def test_a_transaction_over_shards_and_keyspaces(gw: GatewayFixture, vitess: VitessWorld) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        for end, left in (("ROLLBACK", (0, 0)), ("COMMIT", (1, 6))):
            cursor.execute("START TRANSACTION")
            cursor.execute("INSERT INTO items VALUES (1, 'a', 1)")
            cursor.execute("USE customer")
            cursor.execute(
                "INSERT INTO buyers (id, name) VALUES (1,'a'), (2,'b'), (3,'c'), (4,'d'), (5,'e'), (6,'f')"
            )
            assert rows(cursor, "SELECT COUNT(*) FROM buyers") == [(6,)]
            cursor.execute("USE app")
            assert rows(cursor, "SELECT amount FROM items") == [(1,)]
            assert counts(vitess) == (0, 0)
            cursor.execute(end)
            assert counts(vitess) == left


def test_savepoints_and_autocommit(gw: GatewayFixture, vitess: VitessWorld) -> None:
    with closing(gw.connect(autocommit=False)) as one, one.cursor() as cursor:
        cursor.execute("INSERT INTO buyers (id, name) VALUES (1, 'a')")
        cursor.execute("SAVEPOINT here")
        cursor.execute("INSERT INTO items VALUES (1, 'a', 1)")
        cursor.execute("ROLLBACK TO here")
        one.commit()
        assert counts(vitess) == (0, 1)
        cursor.execute("INSERT INTO items VALUES (1, 'a', 1)")
        one.rollback()
        cursor.execute("SET autocommit = 1")
        cursor.execute("INSERT INTO items VALUES (2, 'a', 1)")
        assert counts(vitess) == (1, 1)


def test_an_error_in_a_transaction_leaves_it_open(gw: GatewayFixture, vitess: VitessWorld) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO buyers (id, name) VALUES (1, 'a')")
        refused(1062, cursor, "INSERT INTO buyers (id, name) VALUES (1, 'b')")
        refused(1054, cursor, "SELECT nothing FROM buyers")
        cursor.execute("INSERT INTO buyers (id, name) VALUES (2, 'b')")
        cursor.execute("COMMIT WORK")
        assert counts(vitess) == (0, 2)


def test_a_deadlock_leaves_nothing_of_a_transaction(gw: GatewayFixture, vitess: VitessWorld) -> None:
    gw.query("INSERT INTO items VALUES (1, 'a', 0), (2, 'b', 0)")
    heard: list[int] = []
    with closing(gw.connect()) as one, closing(gw.connect()) as two:
        first, second = one.cursor(), two.cursor()
        for cursor, at in ((first, 1), (second, 2)):
            cursor.execute("BEGIN")
            cursor.execute(f"INSERT INTO buyers (id, name) VALUES ({at}, 'x')")
            cursor.execute(f"UPDATE items SET amount = {at} WHERE id = {at}")

        def cross(cursor: Any, at: int) -> None:
            try:
                cursor.execute(f"UPDATE items SET amount = 9 WHERE id = {at}")
            except pymysql.MySQLError as error:
                heard.append(error.args[0])
                cursor.execute("BEGIN")  # as clients do: what was is over
                cursor.execute("ROLLBACK")
            else:
                cursor.execute("COMMIT")

        threads = [threading.Thread(target=cross, args=told) for told in ((first, 2), (second, 1))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert heard == [1213]
    assert counts(vitess) == (2, 1), "the buyer of the one that was rolled back is gone with it"


def test_what_vtgate_cannot_do_as_a_server_would_is_refused(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        for sql in (
            "LOCK TABLES items READ",
            "START TRANSACTION WITH CONSISTENT SNAPSHOT",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SET NAMES latin1",
            "SET max_execution_time = 100",
            "LOAD DATA LOCAL INFILE '/dev/null' INTO TABLE items",
        ):
            refused(1235, cursor, sql)


# -------------------------------------------------------------------- session state


def test_a_sessions_state(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        zone = rows(cursor, "SELECT @@time_zone")
        cursor.execute("SET @a = 5, @b = 'ü'")
        assert rows(cursor, "SELECT @a + 1, @b") == [(6, "ü")]
        cursor.execute("SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci'")
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute("SET sql_mode = CONCAT(@@sql_mode, ',NO_ZERO_IN_DATE')")
        assert "NO_ZERO_IN_DATE" in rows(cursor, "SELECT @@sql_mode")[0][0]
        cursor.execute("SET time_zone = '+03:00'")
        assert rows(cursor, "SELECT @@time_zone") == [("+03:00",)]
        assert rows(cursor, "SELECT GET_LOCK('here', 1)") == [(1,)]
        assert rows(cursor, "SELECT RELEASE_LOCK('here')") == [(1,)]
        cursor.execute("INSERT INTO items VALUES (1, 'a', 1), (2, 'b', 2)")
        assert rows(cursor, "SELECT ROW_COUNT()") == [(2,)]
        rows(cursor, "SELECT SQL_CALC_FOUND_ROWS * FROM items LIMIT 1")
        assert rows(cursor, "SELECT FOUND_ROWS()") == [(2,)]
        cursor.execute("SET workload = 'olap'")
        assert rows(cursor, "SELECT COUNT(*) FROM items") == [(2,)]
        one.ping()
        one._execute_command(0x1F, b"")  # COM_RESET_CONNECTION, which PyMySQL has no call for
        one._read_ok_packet()
        assert rows(cursor, "SELECT @a") == [(None,)]
        assert "NO_ZERO_IN_DATE" in rows(cursor, "SELECT @@sql_mode")[0][0]  # MySQL's default has it
        assert rows(cursor, "SELECT @@time_zone") == zone


def test_a_connection_has_nothing_of_another_session(gw: GatewayFixture) -> None:
    zone = gw.query("SELECT @@time_zone")
    for _ in range(3):
        with closing(gw.connect()) as one, one.cursor() as cursor:
            assert rows(cursor, "SELECT @mine") == [(None,)]
            assert rows(cursor, "SELECT @@time_zone") == zone
            cursor.execute("SET @mine = 1, time_zone = '+01:00'")
            cursor.execute("BEGIN")
            cursor.execute("INSERT INTO items VALUES (9, 'a', 1)")


def test_ids(gw: GatewayFixture) -> None:
    gw.query("CREATE TABLE shop.made (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
    try:
        with closing(gw.connect()) as one, one.cursor() as cursor:
            cursor.execute("USE shop")
            cursor.execute("INSERT INTO made (n) VALUES (1), (2)")
            made = cursor.lastrowid
            assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(made,)]
            cursor.execute("UPDATE made SET n = n + 1")
            assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(made,)]
            cursor.execute("INSERT INTO customer.buyers (id, name) VALUES (LAST_INSERT_ID(), 'x')")
            assert rows(cursor, f"SELECT name FROM customer.buyers WHERE id = {made}") == [("x",)]
            cursor.execute("UPDATE made SET n = LAST_INSERT_ID(500)")
            assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(500,)]
    finally:
        gw.query("DROP TABLE shop.made")


def test_what_is_made_is_seen_at_once(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        cursor.execute("CREATE TABLE later (id INT PRIMARY KEY)")
        cursor.execute("INSERT INTO shop.later VALUES (1)")
        cursor.execute("USE shop")
        assert rows(cursor, "SELECT * FROM later") == [(1,)]
        cursor.execute("ALTER TABLE later ADD x INT")
        assert rows(cursor, "SHOW COLUMNS FROM later")[1][0] == "x"
        assert rows(cursor, "SHOW TABLES") == [("items",), ("later",)]
        cursor.execute("DROP TABLE later")


def test_kill_ends_a_statement(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, closing(gw.connect()) as two:
        number = one.thread_id()
        heard: list[tuple[Any, ...]] = []

        def sleep() -> None:
            with pytest.raises(pymysql.MySQLError) as caught:
                one.cursor().execute("SELECT SLEEP(50) FROM items")
            heard.append(caught.value.args)

        gw.query("INSERT INTO items VALUES (1, 'a', 1)")
        thread = threading.Thread(target=sleep)
        thread.start()
        time.sleep(0.5)
        two.cursor().execute(f"KILL QUERY {number}")
        thread.join(40)
        assert [args[0] for args in heard] == [1317]
        assert rows(one.cursor(), "SELECT 1") == [(1,)]


# -------------------------------------------------------------------- roles and replicas


def test_roles(gw: GatewayFixture) -> None:
    gw.query("INSERT INTO items VALUES (1, 'a', 1)")
    allowed = {
        READER: ["SELECT * FROM items", "SHOW TABLES", "EXPLAIN SELECT * FROM items"],
        WRITER: ["INSERT INTO items VALUES (2, 'b', 2)", "UPDATE items SET amount = 3 WHERE id = 2"],
        READWRITER: ["SELECT * FROM items", "DELETE FROM items WHERE id = 2"],
    }
    denied = {
        READER: ["DELETE FROM items", "SELECT * FROM items FOR UPDATE", "CREATE TABLE x (id INT)"],
        WRITER: [
            "SELECT * FROM items",
            "INSERT INTO items SELECT id + 10, name, 1 FROM buyers",
            "DROP TABLE items",
        ],
        READWRITER: ["CREATE TABLE x (id INT)", "TRUNCATE TABLE items"],
    }
    for role, texts in allowed.items():
        for sql in texts:
            gw.query(sql, role)
    for role, texts in denied.items():
        with closing(gw.connect(role)) as one, one.cursor() as cursor:
            for sql in texts:
                refused(1142, cursor, sql)


def test_passwords_for_replicas(gw: GatewayFixture, vitess: VitessWorld) -> None:
    gw.query("INSERT INTO items VALUES (1, 'a', 1)")
    gw.query("INSERT INTO buyers (id, name) VALUES (1, 'a')")
    vitess.engine.wait_replica(vitess.copy, 30)
    options: dict[str, Any] = {"user": REPLICA, "password": f"pw-{REPLICA}"}
    with closing(gw.connect(**options)) as one, one.cursor() as cursor:
        cursor.execute("USE shop")
        assert rows(cursor, "SELECT label FROM items") == [("a",)]
        (read_only,) = rows(cursor, "SELECT @@global.super_read_only")[0]
        assert read_only in (1, b"1"), "asked of the replica's server"
        cursor.execute("USE customer")  # it has no replica: its primaries serve
        assert rows(cursor, "SELECT name FROM buyers") == [("a",)]
        for sql in ("DELETE FROM buyers", "DELETE FROM shop.items", "CREATE TABLE x (id INT)"):
            refused(1290, cursor, sql)
        refused(1049, cursor, "SELECT * FROM `shop@primary`.items")
    with closing(gw.connect()) as one, one.cursor() as cursor:
        cursor.execute("USE `shop@replica`")
        assert rows(cursor, "SELECT @@global.super_read_only")[0][0] in (1, b"1")
        refused(1290, cursor, "DELETE FROM items")
        cursor.execute("USE shop")
        cursor.execute("BEGIN")
        cursor.execute("DELETE FROM items")
        refused(1192, cursor, "USE `shop@replica`")
        cursor.execute("ROLLBACK")


def test_nobody_sees_accounts(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        for sql in ("SELECT * FROM mysql.user", "SELECT * FROM information_schema.processlist"):
            refused(1142, cursor, sql)
        refused(1235, cursor, "SHOW GRANTS")
        assert rows(
            cursor, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'shop'"
        ) == [("items",)]


# -------------------------------------------------------------------- over HTTP


def test_over_http(gw: GatewayFixture, vitess: VitessWorld) -> None:
    client = JsonClient(f"http://127.0.0.1:{gw.http}", "admin", secret(BackendRole.ADMIN))
    with closing(client):
        client.execute("INSERT INTO items VALUES (1, 'ü', 1), (2, 'b', 2)")
        assert client.column("SELECT label FROM items ORDER BY id") == ["ü", "b"]
        client.execute("BEGIN")
        client.execute("INSERT INTO items VALUES (3, 'c', 3)")
        client.execute("USE customer")
        client.execute("INSERT INTO buyers (id, name) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        assert counts(vitess) == (2, 0)
        client.execute("COMMIT")
        assert counts(vitess) == (3, 3)
        client.execute("SET time_zone = '+05:00'")
        client.execute("SET workload = 'olap'")
        assert client.one("SELECT @@time_zone") == "+05:00"
        assert client.one("SELECT COUNT(*) FROM buyers") == "3"
        client.execute("SET workload = 'oltp'")
        table = client.execute("SELECT id, name FROM buyers WHERE id = 1")
        assert table.fields[1]["type"] == "VARCHAR"
        with pytest.raises(HttpSqlError):
            client.execute("SELECT * FROM nowhere_at_all")


# -------------------------------------------------------------------- holds


def hold(gw: GatewayFixture, hold_id: str, *tables: tuple[str, str], drain: float = 20.0) -> None:
    gw.gateway.hold(
        HoldRequest(
            hold_id, gw.routes.branch_id, frozenset(tables), frozenset({TabletType.PRIMARY}), drain, 60.0
        )
    )


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_a_hold_waits_for_a_transaction_and_then_holds(gw: GatewayFixture, vitess: VitessWorld) -> None:
    done: list[str] = []
    with closing(gw.connect()) as one, closing(gw.connect()) as two, closing(gw.connect()) as three:
        cursor = one.cursor()
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO buyers (id, name) VALUES (1, 'a')")

        def held() -> None:
            hold(gw, "h1", ("customer", "buyers"))
            done.append("held")

        holder = in_thread(held)
        while not gw.gateway.holds_in_force():
            time.sleep(0.01)
        # Other tables and the transaction under way go on; statements on the table wait.
        three.cursor().execute("INSERT INTO items VALUES (1, 'a', 1)")

        def write() -> None:
            two.cursor().execute("INSERT INTO customer.buyers (id, name) VALUES (2, 'b')")
            done.append("written")

        writer = in_thread(write)
        cursor.execute("INSERT INTO buyers (id, name) VALUES (3, 'c')")
        time.sleep(0.3)
        assert done == []
        cursor.execute("COMMIT")
        holder.join(20)
        time.sleep(0.3)
        assert done == ["held"]
        assert counts(vitess) == (1, 2)
        assert gw.gateway.is_held("h1")
        gw.gateway.release("h1")
        writer.join(20)
        assert done == ["held", "written"]
        assert counts(vitess) == (1, 3)


def test_a_hold_is_given_up_where_a_transaction_does_not_end(gw: GatewayFixture) -> None:
    with closing(gw.connect()) as one, one.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO shop.items VALUES (1, 'a', 1)")
        with pytest.raises(DeadlineExceededError):
            hold(gw, "h2", ("shop", "items"), drain=0.3)
        hold(gw, "h3", ("customer", "buyers"), drain=1.0)
        gw.gateway.release("h3")
        cursor.execute("ROLLBACK")


# -------------------------------------------------------------------- vtgate dies


def test_vtgate_dies_under_its_clients(gw: GatewayFixture, vitess: VitessWorld) -> None:
    process = next(
        one for one in known(vitess.home, vitess.clusters.record("branch1")) if one.name.startswith("vtgate ")
    )
    pid = Runner().pid(process)
    assert pid is not None
    with closing(gw.connect()) as idle, closing(gw.connect()) as open_, closing(gw.connect()) as bound:
        idle.cursor().execute("SET @a = 1, time_zone = '+02:00'")
        open_.cursor().execute("BEGIN")
        open_.cursor().execute("INSERT INTO buyers (id, name) VALUES (1, 'a')")
        assert rows(bound.cursor(), f"SELECT GET_LOCK('mine {pid}', 1)") == [(1,)]
        os.kill(pid, signal.SIGKILL)
        refused(1105, open_.cursor(), "INSERT INTO buyers (id, name) VALUES (2, 'b')")
        refused(1105, open_.cursor(), "COMMIT", "rolled back")
        refused(1105, idle.cursor(), "SELECT @a", "Can't connect")
        with pytest.raises(pymysql.MySQLError):
            bound.cursor().execute("SELECT 1")
        vitess.follow()
        assert counts(vitess)[1] == 0
        # What the dead one's clients had open is in nobody's way.
        with closing(gw.connect()) as other:
            other.cursor().execute("INSERT INTO buyers (id, name) VALUES (1, 'a')")
            other.cursor().execute("DELETE FROM buyers WHERE id = 1")
        assert rows(idle.cursor(), "SELECT @a, @@time_zone") == [(1, "+02:00")]
        open_.cursor().execute("INSERT INTO buyers (id, name) VALUES (3, 'c')")
        assert counts(vitess)[1] == 1
        with pytest.raises(pymysql.MySQLError):
            bound.cursor().execute("SELECT 1")
