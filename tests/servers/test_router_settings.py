"""A session's texts are read as its servers read them: dumps, character sets, modes, by variables too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from homeworld.gateway.replay import charset_name
from homeworld.gateway.router import Router
from homeworld.model.routing import KeyspaceRoute, ShardRoute
from homeworld.model.topology import BackendRole, Flavor
from tests.support.gateway import DATABASE, GatewayFixture, rows, secret, start_gateway, unsharded
from tests.support.mysqld import TestServer, start_server

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]

VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"loose": {"type": "unicode_loose_xxhash"}, "x": {"type": "xxhash"}},
    "tables": {
        "words": {"column_vindexes": [{"column": "w", "name": "loose"}]},
        "blobs": {"column_vindexes": [{"column": "b", "name": "x"}]},
        "users": {
            "column_vindexes": [{"column": "id", "name": "x"}],
            "auto_increment": {"column": "id", "sequence": "main.users_seq"},
        },
    },
}
SHARDS = {"-80": "sh_1", "80-": "sh_2"}
LETTERS = "éèêëàâîïôöùûüçñÄÖÜß"
SAVED = (
    "/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */",
    "/*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */",
    "/*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */",
    "/*!40101 SET NAMES utf8mb4 */",
    "/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */",
    "/*!40103 SET TIME_ZONE='+00:00' */",
    "/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */",
    "/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */",
    "/*!40101 SET @saved_cs_client     = @@character_set_client */",
    "/*!40101 SET character_set_client = utf8mb4 */",
    "/*!40101 SET character_set_client = @saved_cs_client */",
)
PUT_BACK = (
    "/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */",
    "/*!40101 SET SQL_MODE=@OLD_SQL_MODE */",
    "/*!40014 SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS */",
    "/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */",
    "/*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */",
)


class Latin1(pymysql.connections.Connection):
    """A client that says latin1 in the handshake and nothing of it afterwards, as C programs do."""

    def set_character_set(self, charset: str, collation: str | None = None) -> None:
        """Send nothing."""


def latin1(gw: GatewayFixture) -> Latin1:
    """A connection of such a client as admin."""
    return Latin1(
        host="127.0.0.1",
        port=gw.gateway.port,
        user="admin",
        password=secret(BackendRole.ADMIN),
        database=DATABASE,
        charset="latin1",
        autocommit=True,
    )


@pytest.fixture(scope="module")
def server(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    made = start_server(flavor, tmp_path_factory.mktemp("router-settings"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def served(
    server: TestServer, flavor: Flavor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayFixture]:
    exact = "utf8mb4_0900_bin" if flavor is Flavor.MYSQL else "utf8mb4_nopad_bin"
    for schema in ("main", *SHARDS.values()):
        server.create_schema(schema)
    server.query("CREATE TABLE users_seq (id BIGINT PRIMARY KEY, next_id BIGINT, cache BIGINT)", "main")
    server.query("INSERT INTO users_seq VALUES (0, 1001, 10)", "main")
    for schema in SHARDS.values():
        server.query(f"CREATE TABLE words (w VARCHAR(40) COLLATE {exact} PRIMARY KEY)", schema)
        server.query("CREATE TABLE blobs (b VARBINARY(40) PRIMARY KEY)", schema)
        server.query("CREATE TABLE users (id BIGINT PRIMARY KEY, name VARCHAR(20))", schema)
    bare = replace(server.endpoint(), user="", password="")
    shards = tuple(ShardRoute(name, schema, bare, ()) for name, schema in SHARDS.items())
    main = replace(unsharded("main", server), vschema={"tables": {"users_seq": {"type": "sequence"}}})
    keyspaces = {"main": main, "sh": KeyspaceRoute("sh", True, VSCHEMA, shards)}
    fixture = start_gateway(server, keyspaces, "main", tmp_path_factory.mktemp("settings"), router=Router)
    try:
        yield fixture
    finally:
        fixture.gateway.stop()


@pytest.fixture
def gw(served: GatewayFixture, server: TestServer) -> GatewayFixture:
    """The gateway with empty tables."""
    for schema in SHARDS.values():
        server.execute([f"DELETE FROM {table}" for table in ("words", "blobs", "users")], schema)
    return served


def check_placed(gw: GatewayFixture, server: TestServer, table: str, column: str) -> int:
    """Every row of the shards is found through the gateway by its key; how many there are."""
    found = [
        row[0] for schema in SHARDS.values() for row in server.query(f"SELECT {column} FROM {table}", schema)
    ]
    with contextlib.closing(gw.connect(charset="utf8mb4")) as connection, connection.cursor() as cursor:
        for value in found:
            introducer = "_binary " if isinstance(value, bytes) else ""
            literal = f"x'{value.hex()}'" if introducer else pymysql.converters.escape_item(value, "utf8mb4")
            assert rows(cursor, f"SELECT COUNT(*) FROM sh.{table} WHERE {column} = {literal}") == [(1,)], (
                value
            )
    return len(found)


def insert(cursor: Any, table: str, letters: Iterable[str], charset: str) -> int:
    """Insert what the gateway lets; every one is placed or refused with VT12001. How many were placed."""
    placed = 0
    for letter in letters:
        text = f"INSERT INTO sh.{table} VALUES ('{letter}')".encode(charset)
        try:
            cursor.execute(text)
            placed += 1
        except pymysql.err.MySQLError as error:
            if "VT12001" not in str(error) and error.args[0] != 1366:
                raise
    return placed


@pytest.mark.parametrize("table", ["words", "blobs"])
def test_a_latin1_client_restores_a_dump(gw: GatewayFixture, server: TestServer, table: str) -> None:
    with (
        contextlib.closing(latin1(gw)) as connection,
        connection.cursor() as cursor,
    ):
        # "Ã©" in latin1 has the bytes of "é" in UTF-8.
        assert insert(cursor, table, ["Ã©", "Ã¨", "Ã¶"], "latin1") == 0
        for statement in SAVED:
            cursor.execute(statement)
        assert insert(cursor, table, LETTERS, "utf8") == len(LETTERS)
        cursor.execute("SET character_set_client = utf8mb4")
        for statement in PUT_BACK:
            cursor.execute(statement)
        assert rows(cursor, "SELECT @@character_set_client") == [("latin1",)]
        assert insert(cursor, table, ["Ã ", "Ã¢", "Ã®"], "latin1") == 0
        assert insert(cursor, table, "abc", "latin1") == 3
    assert check_placed(gw, server, table, "w" if table == "words" else "b") == len(LETTERS) + 3


@pytest.mark.parametrize("table", ["words", "blobs"])
@pytest.mark.parametrize(
    "settings",
    [
        ("SET NAMES latin1",),
        ("SET CHARACTER SET latin1",),
        ("SET character_set_client = latin1",),
        ("SET @c = 'latin1', @d = 1", "SET @@session.character_set_client = @c, @d = 2"),
        ("SET @c = 'latin1'", "SET SESSION `character_set_client` := @c"),
        ("SET @c = 'utf8mb3'", "SET character_set_client = @c"),
        ("SET NAMES utf8mb3",),
        ("SET NAMES utf8mb4 COLLATE utf8mb4_bin",),
        ("SET NAMES latin1", "SET character_set_client = utf8mb4"),
        ("SET character_set_results = latin1", "SET character_set_client = @@character_set_results"),
    ],
    ids=" ; ".join,
)  # fmt: skip
def test_texts_are_placed_as_servers_read_them(
    gw: GatewayFixture, server: TestServer, table: str, settings: tuple[str, ...]
) -> None:
    with contextlib.closing(gw.connect(charset="utf8mb4")) as connection, connection.cursor() as cursor:
        for statement in settings:
            cursor.execute(statement)
        placed = insert(cursor, table, LETTERS + "abc🜁🜂🜃", "utf8")
        assert placed >= 3
        assert placed <= len(LETTERS) + 3 or "utf8mb4_bin" in settings[0]
    assert check_placed(gw, server, table, "w" if table == "words" else "b") == placed


def test_a_reset_connection_reads_as_the_handshake_said(gw: GatewayFixture, server: TestServer) -> None:
    with (
        contextlib.closing(latin1(gw)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SET NAMES utf8mb4")
        assert insert(cursor, "words", "é", "utf8") == 1
        connection._execute_command(0x1F, b"")  # type: ignore[attr-defined]  # COM_RESET_CONNECTION
        connection._read_ok_packet()  # type: ignore[attr-defined]
        assert insert(cursor, "words", ["Ã©", "Ã¨"], "latin1") == 0
    assert check_placed(gw, server, "words", "w") == 1


@pytest.mark.parametrize(
    "settings",
    [
        ("SET @a = 'ANSI', @b = '_QUOTES'", "SET @m = CONCAT(@a, @b)", "SET sql_mode = @m"),
        ("SET @a = 'no_backslash'", "SET sql_mode = CONCAT(@a, '_escapes')"),
        ("SET sql_mode = CONCAT('AN', 'SI')",),
        ("SET @old_sql_mode = CONCAT('PIPES_AS', '_CONCAT')", "SET sql_mode = @old_sql_mode"),
        ("SET @m = _binary'ansi'", "SET sql_mode = @m"),
        ("SET @m = 2 + 2", "SET sql_mode = @m"),
        ("SET @m = 2 + 2", "SET autocommit = 1, sql_mode = @m"),
        ("SET sql_mode = TRUE + TRUE + TRUE + TRUE",),
        ("SET @m = CONCAT('gb', 'k')", "SET character_set_client = @m"),
        ("SET @m = 28", "SET character_set_client = @m"),
        ("SET character_set_client = CONCAT('gb', 'k')",),
        ("SET character_set_results = sjis", "SET character_set_client = @@character_set_results"),
        ("SET @m = 'swe7'", "SET character_set_client = @m"),
        ("SET NAMES swe7",),
        ("SET @m = 'ucs2'", "SET character_set_connection = @m"),
        ("SET @m = 'latin1_bin'", "SET collation_connection = @m"),
    ],
    ids=" ; ".join,
)  # fmt: skip
def test_what_would_read_texts_otherwise_is_refused(
    gw: GatewayFixture, server: TestServer, settings: tuple[str, ...]
) -> None:
    asked = "SELECT @@sql_mode, @@character_set_client, @@collation_connection, @@autocommit"
    with contextlib.closing(gw.connect(charset="utf8mb4")) as connection, connection.cursor() as cursor:
        before = rows(cursor, asked)
        for statement in settings[:-1]:
            cursor.execute(statement)
        with pytest.raises(pymysql.err.MySQLError):
            cursor.execute(settings[-1])
        assert rows(cursor, asked) == before
        cursor.execute("INSERT INTO sh.words VALUES ('it\\'s'), (\"a\")")
        assert rows(cursor, "SELECT w FROM sh.words WHERE w IN ('it\\'s', \"a\") ORDER BY w") == [
            ("a",), ("it's",)
        ]  # fmt: skip
    assert check_placed(gw, server, "words", "w") == 2


@pytest.mark.parametrize("charset", ["gbk", "sjis", "big5"])
def test_a_client_whose_texts_cannot_be_read_is_not_let_in(gw: GatewayFixture, charset: str) -> None:
    with pytest.raises(pymysql.err.MySQLError, match=f"character set {charset}"):
        gw.connect(charset=charset)


def test_collation_ids_are_those_of_servers(server: TestServer) -> None:
    found = server.query(
        "SELECT id, character_set_name FROM information_schema.collations WHERE id < 256 AND id > 0"
    )
    assert len(found) > 200
    others = {"big5", "cp932", "gb18030", "gbk", "sjis", "swe7", "ucs2", "utf16", "utf16le", "utf32"}
    for number, name in found:
        known = "utf8mb3" if name == "utf8" else name
        told = charset_name(int(number))
        if known in others | {"utf8mb3", "utf8mb4"}:
            assert told == known, number
        else:
            assert told == f"of collation {number}", known


def test_modes_that_read_alike_may_come_from_variables(gw: GatewayFixture) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("SET @m = 'STRICT_ALL_TABLES'")
        cursor.execute("SET sql_mode = @m")
        assert rows(cursor, "SELECT @@sql_mode") == [("STRICT_ALL_TABLES",)]
        cursor.execute("SET sql_mode = CONCAT(@@sql_mode, ',NO_ZERO_DATE')")
        cursor.execute("SET @@session.sql_mode = REPLACE (@@sql_mode, 'NO_ZERO_DATE', '')")
        assert rows(cursor, "SELECT @@sql_mode") == [("STRICT_ALL_TABLES",)]
        cursor.execute("SET sql_mode = @@global.sql_mode")
        cursor.execute("SET sql_mode = ''")
        cursor.execute("SET sql_mode = 0")
        assert rows(cursor, "SELECT @@sql_mode") == [("",)]


def test_a_zero_is_a_value_where_the_mode_says_so(gw: GatewayFixture, server: TestServer) -> None:
    with contextlib.closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO sh.users VALUES (0, 'made')")
        for statement in SAVED:
            cursor.execute(statement)
        cursor.execute("INSERT INTO sh.users VALUES (0, 'zero'), (NULL, 'also made')")
        cursor.execute("/*!40101 SET SQL_MODE=@OLD_SQL_MODE */")
        cursor.execute("INSERT INTO sh.users VALUES (0, 'made again')")
        found = rows(cursor, "SELECT id, name FROM sh.users ORDER BY name")
    assert [name for number, name in found if number] == ["also made", "made", "made again"]
    assert [name for number, name in found if not number] == ["zero"]
    assert check_placed(gw, server, "users", "id") == 4
