"""PlanetScale's own clients, unmodified, over HTTP: the command line tool's ``sql``, ``connect``, ``shell``,
``database dump``, ``restore-dump`` and MCP server, and the JavaScript client with what stands on it.

None of them is part of this project. Where the tool or node is missing, a test is skipped with the reason.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from homeworld.model.topology import Flavor
from tests.support.bank import Login
from tests.support.clients import pscale as program
from tests.support.mysqld import CACHE, binary
from tests.support.platform import Platform

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300), pytest.mark.one_flavor(Flavor.MYSQL)]

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).with_name("programs")
ROWS = "SELECT id, name, HEX(picture) AS picture, made, price FROM items ORDER BY id"


class Place:
    """An installation with one database, and clients' way to it."""

    def __init__(self, folder: Path, flavor: Flavor) -> None:
        self.folder = folder
        self.platform = Platform(folder / "homeworld", binary(flavor), 0, "--http-plain-port", "0")
        self.login: Login

    def open(self) -> None:
        """Make everything."""
        self.platform.start()
        self.platform.make_database()
        self.login = self.platform.login()
        with self.login.connect("shop") as connection, connection.cursor() as cursor:
            cursor.execute(
                "CREATE TABLE items (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), picture BLOB, "
                "made DATETIME(6), price DECIMAL(9,2)) CHARACTER SET utf8mb4"
            )
            cursor.execute(
                "INSERT INTO items (name, picture, made, price) VALUES ('ein Stück 😀', x'00FF8027', "
                "'2024-02-29 10:00:00.5', 1.25), ('it''s \\\\', NULL, NULL, NULL)"
            )
            connection.commit()

    @property
    def ready(self) -> dict[str, Any]:
        """What the ready file says."""
        return self.platform.installation.ready


@pytest.fixture(scope="module")
def place(flavor: Flavor, server_root: Path) -> Iterator[Place]:
    """One for each flavour."""
    folder = Path(tempfile.mkdtemp(prefix=f"edge-{flavor.value}-", dir=server_root))
    made = Place(folder, flavor)
    try:
        made.open()
        yield made
    finally:
        made.platform.installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


# -------------------------------------------------------------------- the command line tool


def environment(place: Place) -> dict[str, str]:
    """As a CI job has it; the gateway's CA beside."""
    ready = place.ready
    return {
        "HOME": str(place.folder), "XDG_CONFIG_HOME": str(place.folder), "PATH": os.environ["PATH"],
        "PSCALE_NO_UPDATE_NOTIFIER": "1", "PSCALE_DISABLE_DEV_WARNING": "true",
        "PLANETSCALE_API_URL": str(ready["api_url"]), "PLANETSCALE_ORG": str(ready["organization"]),
        "PLANETSCALE_SERVICE_TOKEN_ID": str(ready["service_token_id"]),
        "PLANETSCALE_SERVICE_TOKEN": str(ready["service_token"]), "SSL_CERT_FILE": str(ready["ca_file"]),
    }  # fmt: skip


def pscale(place: Place, *words: str, expect: int = 0, given: str = "", **further: str) -> str:
    """Run a command; what it printed on both channels."""
    done = subprocess.run(
        [str(program()), *words, "--no-color"], env=environment(place) | further, cwd=place.folder,
        input=given, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def sql(place: Place, query: str, *words: str, expect: int = 0) -> dict[str, Any]:
    """What ``pscale sql`` tells of a query."""
    told = pscale(place, "sql", "shop", "main", "--query", query, "--format", "json", *words, expect=expect)
    return cast("dict[str, Any]", json.loads(told[told.index("{") :]))


def rows(place: Place) -> Any:
    """All rows of the table, as the tool sees them."""
    return sql(place, ROWS)["rows"]


def test_sql(place: Place) -> None:
    assert rows(place) == [
        {"id": 1, "name": "ein Stück 😀", "picture": "00FF8027", "made": "2024-02-29 10:00:00.500000",
         "price": "1.25"},
        {"id": 2, "name": "it's \\", "picture": None, "made": None, "price": None},
    ]  # fmt: skip
    assert sql(place, "UPDATE items SET price = 2 WHERE id = 1", "--role", "readwriter")["rows_affected"] == 1
    sql(place, "UPDATE items SET price = 1.25 WHERE id = 1", "--role", "admin")
    assert sql(place, "SELECT DATABASE() AS d", "--keyspace", "shop")["rows"] == [{"d": "shop"}]
    assert sql(place, "SELECT COUNT(*) AS n FROM items", "--replica")["rows"] == [{"n": 2}]
    assert "Error 1064 (42000)" in sql(place, "SELEC 1", expect=2)["error"]
    assert "Error 1142 (42000)" in sql(place, "INSERT INTO items (name) VALUES ('x')", expect=2)["error"]
    listed = json.loads(pscale(place, "password", "list", "shop", "main", "--format", "json"))
    assert len(listed) == 1, "each query's password is deleted behind it"


THROUGH = """
import os, pymysql
from urllib.parse import urlparse
at = urlparse(os.environ["DATABASE_URL"])
options = {"user": "any", "database": "@primary", "charset": "utf8mb4"}
with pymysql.connect(host=at.hostname, port=at.port, **options) as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, picture FROM items WHERE id = %s", (1,))
        assert cursor.fetchall() == (("ein Stück 😀", b"\\x00\\xff\\x80'"),)
        connection.begin()  # the tool's greeting does not tell that it commits by itself
        cursor.execute("INSERT INTO items (name) VALUES (%s)", ("undone",))
        assert (cursor.rowcount, cursor.lastrowid > 2) == (1, True)
        connection.rollback()
        cursor.execute("SELECT COUNT(*) FROM items")
        assert cursor.fetchall() == ((2,),)
        connection.commit()
        try:
            cursor.execute("INSERT INTO items (id) VALUES (1)")
        except pymysql.err.IntegrityError as error:
            assert error.args[0] == 1062
        else:
            raise AssertionError
        connection.rollback()
        cursor.execute("SET workload = 'olap'")
        cursor.execute("SELECT a.id FROM items a, items b, items c, items d")
        assert len(cursor.fetchall()) == 16
        cursor.execute("SET workload = 'oltp'")
        cursor.execute("use `@replica`")
        cursor.execute("SELECT COUNT(*) FROM items")
        assert cursor.fetchall() == ((2,),)
print("through")
"""


def test_connect(place: Place) -> None:
    script = place.folder / "through.py"
    script.write_text(THROUGH)
    told = pscale(
        place, "connect", "shop", "main", "--port", "0", "--execute", f"{sys.executable} {script}",
        "--execute-protocol", "mysql", "--execute-env-url", "DATABASE_URL",
    )  # fmt: skip
    assert "through" in told, told


def test_shell(place: Place) -> None:
    client = CACHE / "mysql-9.7" / "bin"
    if not (client / "mysql").exists():
        pytest.skip("no MySQL client here: scripts/get-mysql-9.7 makes one")
    given = (
        "SELECT name FROM items WHERE id = 1; BEGIN; INSERT INTO items (name) VALUES ('undone'); ROLLBACK; "
        "SELECT COUNT(*) AS counted FROM items; SHOW TABLES;"
    )
    told = pscale(
        place, "shell", "shop", "main", given=given, PATH=f"{client}:{os.environ['PATH']}",
        PSCALE_ALLOW_NONINTERACTIVE_SHELL="1",
    )  # fmt: skip
    assert "ein Stück" in told
    assert "|       2 |" in told
    assert "| items " in told


def test_dump_and_restore(place: Place) -> None:
    before = rows(place)
    pscale(place, "database", "dump", "shop", "main", "--output", "dump")
    assert (place.folder / "dump" / "shop.items-schema.sql").exists()
    sql(place, "DROP TABLE items", "--role", "admin", "--force")
    pscale(place, "database", "restore-dump", "shop", "main", "--dir", "dump")
    assert rows(place) == before


def test_mcp_server(place: Place) -> None:
    process = subprocess.Popen(
        [str(program()), "mcp", "server"], env=environment(place), cwd=place.folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    asked, told = process.stdin, process.stdout
    assert asked is not None
    assert told is not None
    number = 0

    def call(method: str, params: dict[str, Any]) -> Any:
        nonlocal number
        number += 1
        asked.write(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}) + "\n")
        asked.flush()
        answer = json.loads(told.readline())
        assert answer["id"] == number
        return answer["result"]

    def tool(name: str, **arguments: str) -> Any:
        at = {"org": "homeworld", "database": "shop", "branch": "main", **arguments}
        answer = call("tools/call", {"name": name, "arguments": at})
        assert not answer.get("isError"), answer
        return json.loads(answer["content"][0]["text"])

    try:
        client = {"name": "test", "version": "1"}
        call("initialize", {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": client})
        assert tool("list_keyspaces") == ["shop"]
        assert "items" in tool("list_tables", keyspace="shop")
        assert "CREATE TABLE `items`" in tool("get_schema", keyspace="shop", tables="items")["items"]
        found = tool("run_query", keyspace="shop", query="SELECT id, name FROM items WHERE id = 2")
        assert found == [{"id": 2, "name": "it's \\"}]
    finally:
        asked.close()
        told.close()
        process.terminate()
        process.wait(20)


# -------------------------------------------------------------------- JavaScript


@pytest.fixture(scope="session")
def node_folder() -> Path:
    """A folder with the packages in it."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm on this machine")
    done = subprocess.run(
        [str(ROOT / "scripts" / "get-node-clients")], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"the packages cannot be had: {done.stderr[-300:]}")
    return Path(done.stdout.strip())


def test_javascript_clients(place: Place, node_folder: Path) -> None:
    made = place.platform.client.create_password(
        place.platform.organization, "shop", "main", name="javascript", role="admin"
    )
    user, password, port = made["username"], made["plain_text"], place.ready["http_plain_port"]
    settings = {
        "url": f"http://{user}:{password}@127.0.0.1:{port}/", "host": made["access_host_url"],
        "username": user, "password": password,
    }  # fmt: skip
    script = node_folder / f"client-{os.getpid()}.mjs"
    shutil.copy(PROGRAMS / "edge.mjs", script)
    try:
        done = subprocess.run(
            ["node", str(script), json.dumps(settings)], cwd=node_folder, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "NODE_EXTRA_CA_CERTS": str(place.ready["ca_file"])},
        )  # fmt: skip
    finally:
        script.unlink()
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr
