"""sysbench and the mysql programs, unmodified, against ``homeworld up`` with routing rules in force; and what
a password may do, from where and for how long, as clients feel it.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.gateway.tls import make_certificates
from homeworld.model.topology import Flavor
from tests.support.client_world import ITEMS, SYSBENCH_ROWS, ClientWorld, CommandLine, command_lines

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300)]


@pytest.mark.parametrize("protocol", ["disable", "auto"], ids=["text", "prepared"])
@pytest.mark.parametrize("schema", ["plain", "shop"], ids=["unsharded", "two-shards"])
def test_sysbench(world: ClientWorld, schema: str, protocol: str) -> None:
    if schema == "plain" and protocol == "disable":
        world.sysbench("plain", "prepare")
    said = world.sysbench(
        schema, "run", "--threads=2", "--events=24", "--time=100", f"--db-ps-mode={protocol}"
    )
    counted = {name: int(count) for name, count in re.findall(r"([a-z ]+):\s+(\d+) +\(.*per sec", said)}
    counted = {name.strip(): count for name, count in counted.items()}
    assert counted["transactions"] >= 24, said
    assert counted["ignored errors"] == 0, said
    assert counted["reconnects"] == 0, said
    with world.admin.connect(schema) as connection, connection.cursor() as cursor:
        # Each transaction deletes a row and inserts it again.
        cursor.execute("SELECT id FROM sbtest1 ORDER BY id")
        assert [row[0] for row in cursor.fetchall()] == list(range(1, SYSBENCH_ROWS + 1))


def test_sysbench_wrote_to_both_shards(world: ClientWorld) -> None:
    counts: list[int] = []
    for shard in ("-80", "80-"):
        with (
            world.admin.connect(f"shop_sharded/{shard}@primary") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT COUNT(*) FROM sbtest1")
            counts.append(int(cursor.fetchall()[0][0]))
    assert sum(counts) == SYSBENCH_ROWS
    assert min(counts) > SYSBENCH_ROWS // 3


class Program:
    """A mysql program, logged in by an option file as one does to keep passwords off the command line."""

    def __init__(self, world: ClientWorld, line: CommandLine, folder: Path) -> None:
        self.line = line
        self.folder = folder
        self.world = world
        login = world.admin
        self._config = folder / "client.cnf"
        self._config.write_text(
            f"[client]\nhost={login.host}\nport={login.port}\nuser={login.user}\npassword={login.password}\n"
        )
        self._config.chmod(0o600)

    def tls(self, ca_file: str = "") -> list[str]:
        return [f"--ssl-ca={ca_file or self.world.ca_file}", *self.line.tls]

    def run(
        self, text: str, schema: str = "shop", *options: str, ca_file: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Give the program a script on standard input."""
        command = [
            str(self.line.client), f"--defaults-file={self._config}", *self.tls(ca_file), *self.line.batch,
            *options, schema,
        ]  # fmt: skip
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)

    def rows(self, text: str, schema: str = "shop", *options: str) -> list[list[str]]:
        """The rows of a script that must work, as texts."""
        done = self.run(text, schema, "--skip-column-names", *options)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [line.split("\t") for line in done.stdout.splitlines()]

    def dump(self, *arguments: str) -> str:
        """What its dump program writes."""
        quirks = list(self.line.quirks)
        if self.world.flavor.value == "mariadb" and quirks:
            quirks.append("--column-statistics=0")  # tables that MariaDB does not have
        command = [
            str(self.line.dump), f"--defaults-file={self._config}", *self.tls(), "--single-transaction",
            "--no-tablespaces", *quirks, *arguments,
        ]  # fmt: skip
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return done.stdout


@pytest.fixture(params=command_lines(), ids=lambda line: line.name)
def program(request: pytest.FixtureRequest, world: ClientWorld, tmp_path: Path) -> Program:
    return Program(world, request.param, tmp_path)


def test_tls_is_used_and_checked(program: Program) -> None:
    told = program.run("status\n")
    assert re.search(r"SSL:\s+Cipher in use is TLS_", told.stdout), told
    assert re.search(r"Current database:\s+shop\b", told.stdout), told
    stranger, _, _ = make_certificates(program.folder / "tls", ("localhost", "127.0.0.1"))
    refused = program.run("SELECT 1", ca_file=str(stranger))
    assert refused.returncode == 1
    assert "ERROR 2026" in refused.stderr


def test_scripts(program: Program) -> None:
    table = f"cli_{program.line.name.replace('-', '_').replace('.', '_')}"
    script = program.folder / "script.sql"
    script.write_text(
        f"DROP TABLE IF EXISTS {table};\n"
        f"CREATE TABLE {table} (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(50)); -- a remark; with a mark\n"
        f"INSERT INTO {table} (v) VALUES ('a;b'), ('ü'), (NULL);\nBEGIN;\n"
        f"UPDATE {table} SET v = 'gone' WHERE id = 1;\nROLLBACK;\n"
    )
    text = f"source {script}\nSELECT id, v FROM {table} ORDER BY id;\n"
    assert program.rows(text, "plain", "--default-character-set=utf8mb4") == [
        ["1", "a;b"], ["2", "ü"], ["3", "NULL"],
    ]  # fmt: skip
    told = program.run(f"SELECT id, v FROM {table} WHERE id = 1\\G\n", "plain")
    assert told.stdout.splitlines()[1:] == ["id: 1", " v: a;b"]
    program.rows(f"DROP TABLE {table};", "plain")


def test_a_big_result(program: Program) -> None:
    text = "SELECT id, REPEAT('x', 4000) FROM sbtest1;"
    rows = program.rows(text, "shop", "--quick")
    assert len({row[0] for row in rows}) == SYSBENCH_ROWS
    assert all(row[1] == "x" * 4000 for row in rows)


def test_errors_end_with_the_right_code(program: Program) -> None:
    failed = program.run("SELECT 1;\nSELECT * FROM nothing_here;\nSELECT 2;\n")
    assert failed.returncode == 1
    assert re.search(r"ERROR 1146 \(42S02\) at line 2: Table '\S*nothing_here' doesn't exist", failed.stderr)
    assert failed.stdout.split() == ["1", "1"]
    forced = program.run("SELEC 1;\nSELECT 2;\n", "shop", "--force")
    assert forced.stdout.split() == ["2", "2"]
    assert "ERROR 1064 (42000) at line 1" in forced.stderr
    for schema, error in (("nowhere", "ERROR 1049 (42000)"), ("shop@nowhere", "ERROR 1049 (42000)")):
        refused = program.run("SELECT 1", schema)
        assert (refused.returncode, error in refused.stderr) == (1, True), refused.stderr


def test_targets_and_shows(program: Program) -> None:
    count = "SELECT COUNT(*) FROM items;"
    assert program.rows(f"USE @replica;\n{count}\nUSE shop;\n{count}") == [[str(ITEMS)]] * 2
    assert program.rows(count, "shop_sharded@replica") == [[str(ITEMS)]]
    keyspaces = [["copy"], ["plain"], ["shop"], ["shop_sharded"]]
    assert program.rows("SHOW KEYSPACES;") == keyspaces
    databases = program.rows("SHOW DATABASES;")
    assert [name for name in databases if name in keyspaces] == keyspaces
    assert program.rows("SHOW VITESS_SHARDS;") == [
        ["copy/-"], ["plain/-"], ["shop/-"], ["shop_sharded/-80"], ["shop_sharded/80-"]
    ]  # fmt: skip
    assert program.rows("SHOW VSCHEMA TABLES;", "shop_sharded") == [["items"], ["lines"], ["sbtest1"]]
    tables = {row[0] for row in program.rows("SHOW TABLES;", "shop_sharded")}
    assert tables == {"items", "lines", "sbtest1"}
    tablets = program.rows("SHOW VITESS_TABLETS;")
    assert {(row[1], row[2], row[3]) for row in tablets} >= {
        ("shop_sharded", "80-", "PRIMARY"), ("shop_sharded", "80-", "REPLICA"),
    }  # fmt: skip


@pytest.mark.parametrize("schema", ["shop", "shop_sharded"])
def test_describe_and_explain(program: Program, schema: str) -> None:
    described = program.rows("DESCRIBE items;", schema)
    assert [(row[0], row[2], row[3]) for row in described] == [
        ("id", "NO", "PRI"), ("name", "NO", "MUL"), ("price", "NO", ""), ("made", "YES", ""),
        ("picture", "YES", ""),
    ]  # fmt: skip
    (created,) = program.rows("SHOW CREATE TABLE items;", schema)
    assert created[0] == "items"
    assert created[1].startswith("CREATE TABLE `items`")
    explained = program.rows("EXPLAIN SELECT * FROM items WHERE price > 3;", schema)
    assert "items" in str(explained)
    assert program.rows("SHOW INDEX FROM items;", schema)[0][2] == "PRIMARY"
    assert [row[0] for row in program.rows("SHOW FULL COLUMNS FROM items;", schema)] == [
        row[0] for row in described
    ]


def test_load_data_local(program: Program) -> None:
    file = program.folder / "rows.tsv"
    file.write_text("".join(f"{number}\tv{number}\n" for number in range(1, 1001)) + "1001\t\\N\n")
    load = f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE"
    said = program.rows(
        "DROP TABLE IF EXISTS loaded; CREATE TABLE loaded (id INT PRIMARY KEY, v VARCHAR(20));\n"
        f"{load} loaded;\nSELECT COUNT(*), SUM(id), COUNT(v) FROM loaded; DROP TABLE loaded;",
        "plain",
        "--local-infile=1",
    )
    assert said == [["1001", "501501", "1000"]]
    refused = program.run(f"{load} `lines` (item_id, note);", "shop", "--local-infile=1")
    assert refused.returncode == 1
    assert "VT12001: unsupported" in refused.stderr


def test_dump_and_restore(program: Program) -> None:
    # MariaDB's dump program writes values for MySQL's generated columns, which no MySQL server takes.
    generated = (
        ""
        if program.line.name == "mariadb" and program.world.flavor is Flavor.MYSQL
        else (" g INT GENERATED ALWAYS AS (y + 1) STORED,")
    )
    text = (
        "SET NAMES utf8mb4;\nDROP TABLE IF EXISTS children, kinds;\n"
        "CREATE TABLE kinds (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, t TEXT, b BLOB, d DECIMAL(20,5),"
        " f DOUBLE, j JSON, e ENUM('a','ü'), s SET('x','y'), ts TIMESTAMP(3) NULL, y YEAR, bits BIT(9),"
        f"{generated} KEY by_t (t(10)));\n"
        "CREATE TABLE children (id INT PRIMARY KEY, kind BIGINT UNSIGNED,"
        " FOREIGN KEY (kind) REFERENCES kinds (id) ON DELETE CASCADE);\n"
        "INSERT INTO kinds (t, b, d, f, j, e, s, ts, y, bits) VALUES"
        " ('it''s \\\\ \\n ü', x'00ff27', 12345678.12345, 1.5e-7, '{\"a\": [1, 2.5]}', 'ü', 'x,y',"
        " '2024-03-31 01:30:00.123', 1999, b'101010101'),"
        " (NULL, '', -0.00001, 0, NULL, 'a', '', NULL, NULL, NULL);\n"
        "INSERT INTO children VALUES (1, 1), (2, 2), (3, NULL);\n"
        "CREATE OR REPLACE VIEW grown AS SELECT id, t FROM kinds WHERE d > 0;\n"
    )
    program.rows(text, "plain")
    dumped = program.dump("plain", "kinds", "children", "grown", "--hex-blob")
    assert "CREATE TABLE `kinds`" in dumped
    file = program.folder / "dump.sql"
    file.write_text(dumped)
    program.rows(f"source {file}\n", "copy")
    read = (
        f"SELECT id, t, HEX(b), d, f, CAST(j AS CHAR), e, s, ts, y, bits + 0{generated and ', g'} FROM kinds"
        " ORDER BY id;\n"
        "SELECT * FROM children ORDER BY id;\nSELECT * FROM grown;\n"
    )
    original = program.rows(read, "plain")
    assert len(original) == 6
    assert program.rows(read, "copy") == original
    shape = [program.rows("SHOW CREATE TABLE kinds;", schema) for schema in ("plain", "copy")]
    assert shape[0] == shape[1]
    program.rows("DROP VIEW grown; DROP TABLE children, kinds;", "plain")
    program.rows("DROP VIEW grown; DROP TABLE children, kinds;", "copy")


# ---------------------------------------------------------------- passwords

READ = "SELECT COUNT(*) FROM {}"
CHANGES = (
    "INSERT INTO {} (id, name, price) VALUES (9000, 'x', 1)",
    "UPDATE {} SET price = 2 WHERE id = 9000",
    "DELETE FROM {} WHERE id = 9000",
)
SCHEMA_CHANGES = ("CREATE TABLE made (id INT PRIMARY KEY)", "ALTER TABLE made ADD n INT", "DROP TABLE made")
MAY = {
    "reader": (True, False, False),
    "writer": (False, True, False),
    "readwriter": (True, True, False),
    "admin": (True, True, True),
}


def denied(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor, pytest.raises(pymysql.err.OperationalError) as caught:
        cursor.execute(statement)
    assert caught.value.args[0] in {1142, 1044}, caught.value


@pytest.mark.parametrize("role", MAY)
@pytest.mark.parametrize("table", ["items", "plain.own_items"], ids=["two-shards", "unsharded"])
def test_roles(world: ClientWorld, role: str, table: str) -> None:
    with contextlib.closing(world.admin.connect("shop", autocommit=True)) as admin, admin.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS plain.own_items")
        cursor.execute(
            "CREATE TABLE plain.own_items (id BIGINT PRIMARY KEY, name VARCHAR(80), price DECIMAL(12,2))"
        )
    reads, changes, schema_changes = MAY[role]
    login = world.login(role=role)
    connection: Any
    with contextlib.closing(login.connect("shop", autocommit=True)) as connection:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            if reads:
                cursor.execute(READ.format(table))
                assert cursor.fetchall() == ((ITEMS if table == "items" else 0,),)
            if changes:
                for statement in CHANGES:
                    assert cursor.execute(statement.format(table)) == 1
            if schema_changes:
                connection.select_db("plain")
                for statement in SCHEMA_CHANGES:
                    cursor.execute(statement)
                connection.select_db("shop")
        if not reads:
            denied(connection, READ.format(table))
            denied(connection, "INSERT INTO plain.own_items SELECT id, name, price FROM plain.own_items")
        if not changes:
            for statement in CHANGES:
                denied(connection, statement.format(table))
        if not schema_changes:
            connection.select_db("plain")
            denied(connection, SCHEMA_CHANGES[0])
            denied(connection, "DROP TABLE own_items")
            denied(connection, "TRUNCATE own_items")
    with contextlib.closing(world.admin.connect("shop", autocommit=True)) as admin, admin.cursor() as cursor:
        cursor.execute(f"DELETE FROM {table} WHERE id = 9000")


def closed(connection: Any, within: float) -> str:
    """Wait until the connection is closed by the other side; the error that its next statement gets."""
    deadline = time.monotonic() + within
    while True:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM items")
        except pymysql.MySQLError as error:
            return str(error)
        assert time.monotonic() < deadline, "the connection stays open"
        time.sleep(0.05)


@pytest.fixture
def refused(world: ClientWorld) -> Callable[[dict[str, str]], str]:
    def attempt(made: dict[str, str]) -> str:
        with pytest.raises(pymysql.err.OperationalError) as caught:
            pymysql.connect(
                host=world.admin.host, port=world.admin.port, user=made["username"],
                password=made["plain_text"], database="shop",
            )  # fmt: skip
        assert caught.value.args[0] == 1045
        return str(caught.value)

    return attempt


def test_a_deleted_password_closes_its_connections(
    world: ClientWorld, refused: Callable[[dict[str, str]], str]
) -> None:
    made = world.password()
    busy, idle = (
        pymysql.connect(
            host=world.admin.host, port=world.admin.port, user=made["username"],
            password=made["plain_text"], database="shop", read_timeout=30,
        )
        for _ in range(2)
    )  # fmt: skip
    with busy.cursor() as cursor:
        cursor.execute("UPDATE items SET price = price + 100 WHERE id = 1")
    world.platform.client.delete_password(world.platform.organization, "shop", "main", made["id"])
    for connection in (busy, idle):
        assert closed(connection, 60)
        connection.close()
    assert "Access denied" in refused(made)
    with contextlib.closing(world.admin.connect("shop")) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT price < 100 FROM items WHERE id = 1")
        assert cursor.fetchall() == ((1,),), "what was not committed is undone"


def test_an_expired_password_closes_its_connections(
    world: ClientWorld, refused: Callable[[dict[str, str]], str]
) -> None:
    made = world.password(ttl=10)
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=made["username"], password=made["plain_text"],
        database="shop", read_timeout=30,
    )  # fmt: skip
    assert closed(connection, 60)
    connection.close()
    refused(made)


def test_addresses(world: ClientWorld, refused: Callable[[dict[str, str]], str]) -> None:
    client, at = world.platform.client, (world.platform.organization, "shop", "main")
    elsewhere = world.password(cidrs=["192.0.2.0/24", "2001:db8::/32"])
    assert "Access denied" in refused(elsewhere)
    client.update_password(*at, elsewhere["id"], cidrs=["192.0.2.0/24", "127.0.0.0/8"])
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=elsewhere["username"],
        password=elsewhere["plain_text"], database="shop", read_timeout=30,
    )  # fmt: skip
    with connection.cursor() as cursor:
        assert cursor.execute("SELECT 1") == 1
    client.update_password(*at, elsewhere["id"], cidrs=["192.0.2.0/24"])
    assert closed(connection, 60), "a connection from an address that is not allowed any more is closed"
    connection.close()


def test_a_replica_password_reads_only(world: ClientWorld) -> None:
    login = world.login(role="reader", replica=True)
    with contextlib.closing(login.connect("shop")) as connection, connection.cursor() as cursor:
        deadline = time.monotonic() + 60
        while cursor.execute("SELECT COUNT(*) FROM items") and (found := cursor.fetchall()) != ((ITEMS,),):
            assert time.monotonic() < deadline, found  # a replica may not have what others wrote before
            connection.rollback()
            time.sleep(0.1)
        cursor.execute("SELECT @@global.read_only")
        assert cursor.fetchall() in {((1,),), (("ON",),)}
        denied(connection, CHANGES[1].format("items"))


def test_a_renewed_password_goes_on(world: ClientWorld) -> None:
    client, at = world.platform.client, (world.platform.organization, "shop", "main")
    made = world.password(ttl=10)
    connection = pymysql.connect(
        host=world.admin.host, port=world.admin.port, user=made["username"], password=made["plain_text"],
        database="shop", read_timeout=30,
    )  # fmt: skip
    until = time.monotonic() + 12
    with connection.cursor() as cursor:
        while time.monotonic() < until:
            client.renew_password(*at, made["id"])
            assert cursor.execute("SELECT COUNT(*) FROM items") == 1
            time.sleep(0.5)
    connection.close()
