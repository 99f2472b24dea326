"""The real router in the real gateway over real servers: a sharded keyspace beside an unsharded one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pymysql.constants import CLIENT

from homeworld.gateway.router import Router
from homeworld.model.routing import KeyspaceRoute, ShardRoute
from homeworld.model.topology import Flavor
from tests.support.gateway import GatewayFixture, connector, rows, start_gateway, unsharded
from tests.support.mysqld import TestServer, start_server

pytestmark = pytest.mark.servers

VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "users": {
            "column_vindexes": [{"column": "id", "name": "xxhash"}],
            "auto_increment": {"column": "id", "sequence": "main.users_seq"},
        },
        "orders": {"column_vindexes": [{"column": "user_id", "name": "xxhash"}]},
        "country": {"type": "reference"},
    },
}
IN_MAIN = (
    "CREATE TABLE users_seq (id BIGINT PRIMARY KEY, next_id BIGINT, cache BIGINT) COMMENT 'vitess_sequence'",
    "INSERT INTO users_seq VALUES (0, 1001, 10)",
    "CREATE TABLE settings (name VARCHAR(20) PRIMARY KEY, v INT)",
)
IN_SHARDS = (
    "CREATE TABLE users (id BIGINT NOT NULL PRIMARY KEY, name VARCHAR(20), age INT, bal DECIMAL(10,2))",
    "CREATE TABLE orders (id BIGINT NOT NULL, user_id BIGINT NOT NULL, n INT, PRIMARY KEY (user_id, id))",
    "CREATE TABLE country (code CHAR(2) PRIMARY KEY)",
)
SHARDS = {"-80": "sh_1", "80-": "sh_2"}


def _sharded(server: TestServer, vschema: dict[str, Any]) -> KeyspaceRoute:
    bare = replace(server.endpoint(), user="", password="")
    shards = tuple(ShardRoute(name, schema, bare, ()) for name, schema in SHARDS.items())
    return KeyspaceRoute("sh", True, vschema, shards)


@pytest.fixture(scope="module")
def server(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    made = start_server(flavor, tmp_path_factory.mktemp("router-gateway"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def altered() -> list[tuple[str, str, str]]:
    return []


@pytest.fixture
def gw(server: TestServer, tmp_path: Path, altered: list[tuple[str, str, str]]) -> Iterator[GatewayFixture]:
    for schema, statements in (("main", IN_MAIN), *((schema, IN_SHARDS) for schema in SHARDS.values())):
        server.drop_schema(schema)
        server.create_schema(schema)
        for statement in statements:
            server.query(statement, schema)
    keyspaces = {"main": unsharded("main", server), "sh": _sharded(server, VSCHEMA)}
    keyspaces["main"] = replace(keyspaces["main"], vschema={"tables": {"users_seq": {"type": "sequence"}}})
    fixture = start_gateway(
        server,
        keyspaces,
        "main",
        tmp_path,
        router=Router,
        on_alter_vschema=lambda branch, keyspace, vschema, _base: altered.append((branch, keyspace, vschema)),
    )
    try:
        yield fixture
    finally:
        fixture.gateway.stop()


def test_last_insert_id_is_what_was_generated(gw: GatewayFixture, server: TestServer) -> None:
    server.query("CREATE TABLE made (id INT PRIMARY KEY AUTO_INCREMENT, n INT)", "main")
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO made VALUES (100, 1)")
        assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(0,)]
        cursor.execute("INSERT INTO made (n) VALUES (2), (3)")
        cursor.execute("INSERT INTO made VALUES (200, 4)")
        assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(101,)]
        cursor.execute("INSERT INTO users (name) VALUES ('a')")
        cursor.execute("INSERT INTO made VALUES (300, LAST_INSERT_ID())")
        assert rows(cursor, "SELECT LAST_INSERT_ID(), n FROM made WHERE id = 300") == [(1001, 1001)]


def test_a_variable_is_given_the_id_that_was_generated(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO users (name) VALUES ('a')")
        cursor.execute("SET @id = LAST_INSERT_ID()")
        cursor.execute("INSERT INTO settings VALUES ('a', @id)")
        assert rows(cursor, "SELECT v FROM settings") == [(1001,)]


def test_rows_find_their_shards_and_come_back(gw: GatewayFixture, server: TestServer) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO users (name, age, bal) VALUES ('ä', 30, 1.50), ('b', 20, 2), ('c', NULL, 0)"
        )
        assert (cursor.rowcount, cursor.lastrowid) == (3, 1001)
        assert rows(cursor, "SELECT LAST_INSERT_ID()") == [(1001,)]
        cursor.execute(
            "INSERT INTO orders (id, user_id, n) VALUES (1, LAST_INSERT_ID(), 5), (2, 1002, 6), (3, 1003, 7)"
        )
        assert rows(cursor, "SELECT name FROM users WHERE id = 1002") == [("b",)]
        assert rows(cursor, "SELECT id, name FROM users ORDER BY name DESC LIMIT 2") == [
            (1003, "c"),
            (1002, "b"),
        ]
        assert [column[0] for column in cursor.description] == ["id", "name"]
        assert rows(cursor, "SELECT COUNT(*), SUM(bal), MAX(name) FROM users")[0][0] == 3
        joined = "SELECT u.name, o.n FROM users u JOIN orders o ON o.user_id = u.id ORDER BY o.n"
        assert rows(cursor, joined) == [("ä", 5), ("b", 6), ("c", 7)]
        cursor.execute("UPDATE users SET age = 1 WHERE name <> 'b'")
        assert cursor.rowcount == 2
        with pytest.raises(pymysql.err.NotSupportedError, match="VT12001"):
            cursor.execute("SELECT * FROM users JOIN orders ON users.age = orders.n")
        cursor.execute("INSERT INTO country VALUES ('de'), ('fr')")
        assert cursor.rowcount == 2
        assert rows(cursor, "SELECT * FROM country ORDER BY code") == [("de",), ("fr",)]
        cursor.execute("INSERT INTO settings VALUES ('a', 1)")
        assert rows(cursor, "SELECT v FROM settings") == [(1,)]
    placed = [server.query("SELECT id FROM users", schema) for schema in SHARDS.values()]
    assert sorted(row[0] for part in placed for row in part) == [1001, 1002, 1003]
    assert server.query("SELECT * FROM country ORDER BY code", "sh_2") == [("de",), ("fr",)]


def test_rows_that_cannot_be_merged_exactly_are_an_error_and_no_more(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute(
            "INSERT INTO users (id, name, bal) VALUES (1, 'a', 1), (2, 'b', 2), (3, 'c', 3), (4, 'd', 4)"
        )
        for _ in range(2):
            with pytest.raises(pymysql.err.NotSupportedError, match="VT12001"):
                cursor.execute(f"SELECT AVG(bal * 0.{'1' * 28}) FROM users")
            assert rows(cursor, "SELECT COUNT(*), AVG(bal) FROM users") == [(4, Decimal("2.500000"))]
        cursor.execute("ROLLBACK")
        assert rows(cursor, "SELECT COUNT(*) FROM users") == [(0,)]


def test_transactions_over_shards(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect()) as one, contextlib.closing(gw.connect()) as two:
        cursor, other = one.cursor(), two.cursor()
        one.begin()
        cursor.execute("INSERT INTO users (id, name) VALUES (101, 'x'), (102, 'y'), (103, 'z'), (104, 'q')")
        assert rows(cursor, "SELECT COUNT(*) FROM users") == [(4,)]
        assert rows(other, "SELECT COUNT(*) FROM users") == [(0,)]
        one.rollback()
        assert rows(cursor, "SELECT COUNT(*) FROM users") == [(0,)]
        one.begin()
        cursor.execute("INSERT INTO users (id, name) VALUES (101, 'x'), (102, 'y'), (103, 'z'), (104, 'q')")
        one.commit()
        assert rows(other, "SELECT COUNT(*) FROM users") == [(4,)]
        with pytest.raises(pymysql.err.IntegrityError):
            cursor.execute("INSERT INTO users (id) VALUES (201), (202), (203), (204), (104)")
        assert rows(other, "SELECT COUNT(*) FROM users") == [(4,)]


def test_prepared_statements_choose_their_shard_by_value(gw: GatewayFixture) -> None:
    with contextlib.closing(connector(gw)) as connection:
        cursor = connection.cursor(prepared=True)
        for number in range(1, 9):
            cursor.execute(
                "INSERT INTO users (id, name, age) VALUES (?, ?, ?)", (number, f"n'{number}", None)
            )
        cursor.execute("INSERT INTO users (name) VALUES (?)", ("made",))
        made = cursor.lastrowid
        connection.commit()
        reader = connection.cursor(prepared=True)
        for number in (1, 5, 2, 8):
            reader.execute("SELECT name, age FROM users WHERE id = ?", (number,))
            assert reader.fetchall() == [(f"n'{number}", None)]
        reader.execute("SELECT id FROM users WHERE id IN (?, ?, ?) ORDER BY id DESC", (1, 2, 8))
        assert reader.fetchall() == [(8,), (2,), (1,)]
        reader.execute("SELECT id, name FROM users WHERE name > ? ORDER BY name LIMIT ?", ("n", 3))
        assert [row[0] for row in reader.fetchall()] == [1, 2, 3]
        reader.execute("SELECT name FROM users WHERE id = ?", (made,))
        assert reader.fetchall() == [("made",)]


def test_shows_and_targets(gw: GatewayFixture, altered: list[tuple[str, str, str]]) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        assert {"main", "sh", "app"} <= {row[0] for row in rows(cursor, "SHOW DATABASES")}
        assert rows(cursor, "SHOW TABLES FROM sh") == [("country",), ("orders",), ("users",)]
        assert cursor.description[0][0] == "Tables_in_sh"
        assert rows(cursor, "SHOW CREATE TABLE sh.users")[0][0] == "users"
        assert [row[0] for row in rows(cursor, "DESCRIBE users")] == ["id", "name", "age", "bal"]
        assert rows(cursor, "SHOW VITESS_SHARDS") == [("main/-",), ("sh/-80",), ("sh/80-",)]
        found = rows(
            cursor, "SELECT table_schema, table_name FROM information_schema.tables WHERE table_schema = 'sh'"
        )
        assert {tuple(row) for row in found} == {("sh", "country"), ("sh", "orders"), ("sh", "users")}
        connection.select_db("sh/80-")
        cursor.execute("INSERT INTO users (id, name) VALUES (12345, 'only here')")
        assert rows(cursor, "SELECT DATABASE()") == [("sh/80-",)]
        connection.select_db("sh/-80")
        assert rows(cursor, "SELECT COUNT(*) FROM users") == [(0,)]
        connection.select_db("sh")
        assert rows(cursor, "SELECT COUNT(*) FROM users") == [(1,)]
        cursor.execute("ALTER VSCHEMA ADD TABLE main.settings")
        assert [told[1] for told in altered] == ["main"]


def test_ddl_reaches_every_shard(gw: GatewayFixture, server: TestServer) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("ALTER TABLE users ADD COLUMN extra INT DEFAULT 7")
        cursor.execute("INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b'), (101, 'c')")
        assert rows(cursor, "SELECT DISTINCT extra FROM users") == [(7,)]
        assert [row[-1] for row in rows(cursor, "SELECT * FROM users ORDER BY id")] == [7, 7, 7]
    for schema in SHARDS.values():
        assert server.query("SHOW COLUMNS FROM users LIKE 'extra'", schema)


def test_a_prepared_statement_follows_its_table(gw: GatewayFixture, server: TestServer) -> None:
    """Keyspaces share a server here, and a server looks a prepared statement's tables up only once."""
    for schema, value in (("main", 1), ("sh_1", 2), ("sh_2", 2)):
        server.query("CREATE TABLE roaming (id BIGINT NOT NULL PRIMARY KEY, v INT)", schema)
        server.query(f"INSERT INTO roaming VALUES (7, {value})", schema)
    tables = {**VSCHEMA["tables"], "roaming": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}}
    sharded = _sharded(server, {**VSCHEMA, "tables": tables})
    gw.routes = replace(
        gw.routes, rules={"roaming": "main.roaming"}, keyspaces={**gw.routes.keyspaces, "sh": sharded}
    )
    gw.publish()
    with contextlib.closing(connector(gw)) as connection:
        cursor = connection.cursor(prepared=True)
        for place in ("main", "sh", "main", "sh"):
            gw.routes = replace(gw.routes, rules={"roaming": f"{place}.roaming"})
            gw.publish()
            for _ in range(3):
                cursor.execute("SELECT v FROM roaming WHERE id = ?", (7,))
                assert cursor.fetchall() == [(1 if place == "main" else 2,)]
            connection.rollback()


def test_several_statements_in_one_text(gw: GatewayFixture) -> None:
    several = gw.connect(client_flag=CLIENT.MULTI_STATEMENTS)
    with contextlib.closing(several) as connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO users (id, name) VALUES (1, 'a;b'), (101, 'c'); SELECT COUNT(*) FROM users; "
            "SELECT name FROM users WHERE id = 1 /* ; */"
        )
        assert cursor.rowcount == 2
        assert cursor.nextset()
        assert cursor.fetchall() == ((2,),)
        assert cursor.nextset()
        assert cursor.fetchall() == (("a;b",),)


def test_large_texts_are_read_while_others_are_answered(gw: GatewayFixture, server: TestServer) -> None:
    numbers = range(1, 20_001)
    settings = ", ".join(f"('{number}', {number})" for number in numbers)
    orders = ", ".join(f"({number}, {number}, NULL)" for number in numbers)
    listed = ", ".join(map(str, numbers))
    answered: list[int] = []
    over = threading.Event()

    def ask_all_the_time() -> None:
        with contextlib.closing(gw.connect(autocommit=True)) as connection, connection.cursor() as cursor:
            while not over.is_set():
                answered.append(len(rows(cursor, "SELECT 1")))

    asking = threading.Thread(target=ask_all_the_time)
    asking.start()
    try:
        several = gw.connect(client_flag=CLIENT.MULTI_STATEMENTS, autocommit=True)
        with contextlib.closing(several) as connection, connection.cursor() as cursor:
            cursor.execute(f"INSERT INTO settings VALUES {settings}")
            cursor.execute(f"INSERT INTO orders VALUES {orders}")
            begun = len(answered)
            assert rows(cursor, f"SELECT COUNT(*) FROM settings WHERE v IN ({listed})") == [(20_000,)]
            assert rows(cursor, f"SELECT COUNT(*) FROM orders WHERE user_id IN ({listed})") == [(20_000,)]
            assert len(answered) - begun > 5, "nobody else was answered meanwhile"
            cursor.execute(f"SELECT COUNT(*) FROM orders; DELETE FROM settings WHERE v IN ({listed})")
            assert cursor.fetchall() == ((20_000,),)
            assert cursor.nextset()
            assert cursor.rowcount == 20_000
    finally:
        over.set()
        asking.join()
    on_shards = [server.query("SELECT COUNT(*) FROM orders", schema)[0][0] for schema in SHARDS.values()]
    assert sum(map(int, on_shards)) == 20_000
    assert all(map(int, on_shards))


def test_rules_move_a_table_under_the_session(gw: GatewayFixture, server: TestServer) -> None:
    server.query("CREATE TABLE moving (id BIGINT NOT NULL PRIMARY KEY, v INT)", "main")
    server.query("INSERT INTO moving VALUES (1, 10), (2, 20), (101, 30)", "main")
    for schema in SHARDS.values():
        server.query("CREATE TABLE moving (id BIGINT NOT NULL PRIMARY KEY, v INT)", schema)
    tables = {**VSCHEMA["tables"], "moving": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}}
    sharded = _sharded(server, {**VSCHEMA, "tables": tables})
    to_main = dict.fromkeys(("moving", "main.moving", "sh.moving"), "main.moving")
    gw.routes = replace(gw.routes, rules=to_main, keyspaces={**gw.routes.keyspaces, "sh": sharded})
    gw.publish()
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        for name in ("moving", "main.moving", "sh.moving", "app.moving"):
            assert rows(cursor, f"SELECT SUM(v) FROM {name}")[0][0] == 60
        server.query("INSERT INTO sh_1.moving SELECT * FROM main.moving WHERE id = 101")
        server.query("INSERT INTO sh_2.moving SELECT * FROM main.moving WHERE id <> 101")
        gw.routes = replace(gw.routes, rules=dict.fromkeys(to_main, "sh.moving"))
        gw.publish()
        server.query("TRUNCATE moving", "main")
        for name in ("moving", "main.moving", "sh.moving", "app.moving"):
            assert rows(cursor, f"SELECT SUM(v) FROM {name}")[0][0] == 60
            assert rows(cursor, f"SELECT v FROM {name} WHERE id = 101") == [(30,)]


def test_a_saved_collation_is_put_back_only_where_shards_are_still_chosen_rightly(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET @saved = @@collation_connection")
        cursor.execute("SET NAMES latin1")
        cursor.execute("SET @wrong = @@collation_connection")
        cursor.execute("SET NAMES utf8mb4")
        cursor.execute("SET collation_connection = @saved")
        with pytest.raises(pymysql.err.MySQLError, match="unsupported"):
            cursor.execute("SET collation_connection = @wrong")
        assert str(rows(cursor, "SELECT @@collation_connection")[0][0]).startswith("utf8mb4")
