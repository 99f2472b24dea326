"""``homeworld up --engine vitess`` as a person meets it: databases, keyspaces, vschemas and branches of it,
what a restart finds again, and a running local database that is taken over while a client writes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.client import ApiError
from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.crew import home_of
from homeworld.model.errors import InvalidError
from homeworld.model.topology import BackendRole, Flavor
from tests.support import mysqld
from tests.support.bank import Login
from tests.support.platform import Platform
from tests.support.warden import guard

MAIN = (Platform.DATABASE, "main")
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
PATIENCE_SECONDS = 600.0
pytestmark = pytest.mark.timeout(1500)  # clusters take long to come up where others are at work, too


@pytest.fixture(scope="module")
def program() -> Path:
    """MySQL's mysqld, where Vitess is, too."""
    found = mysqld.binary(Flavor.MYSQL)
    if found is None:
        pytest.skip("no MySQL here: scripts/get-mysql-9.7 makes one")
    try:
        binaries.find()
    except InvalidError as error:
        pytest.skip(error.message)
    return found


def installed(folder: Path, program: Path, engine: str, replicas: int) -> Iterator[Platform]:
    folder.mkdir(exist_ok=True)
    home = home_of(folder)
    guard(folder)
    guard(home, delete=True)
    platform = Platform(folder, program, replicas, "--engine", engine, "--placement", "dedicated")
    try:
        platform.start()
        yield platform
    finally:
        platform.installation.destroy()
        shutil.rmtree(home, ignore_errors=True)
    assert left_of(folder, home) == []


@pytest.fixture
def platform(server_root: Path, program: Path, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """An installation; the fixture's parameter is its engine and how many replicas there are of a shard."""
    engine, replicas = request.param
    yield from installed(server_root / f"up-{request.node.name[:12]}", program, engine, replicas)


def left_of(*folders: Path) -> list[str]:
    """Command lines of processes that name one of the folders."""
    found: list[str] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(f"{folder}/" in line for folder in folders):
            found.append(line)
    return found


def make_database(platform: Platform) -> None:
    client = platform.client
    client.create_database(platform.organization, Platform.DATABASE)
    database_ready(platform)


def database_ready(platform: Platform) -> None:
    said: list[str] = [""]

    def ready() -> bool:
        found = platform.client.get_database(platform.organization, Platform.DATABASE)
        said[0] = found["error"]
        return found["state"] == "ready"

    try:
        platform.until("database", ready, PATIENCE_SECONDS)
    except AssertionError as error:
        raise AssertionError(f"{error}: {said[0]}") from None


def execute(login: Login, schema: str, *statements: str) -> list[tuple[Any, ...]]:
    with closing(login.connect(schema, autocommit=True)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


@pytest.mark.parametrize("platform", [("vitess", 0)], ids=["vitess"], indirect=True)
def test_a_database_of_vitess_from_its_making_to_its_end(platform: Platform) -> None:
    client, organization = platform.client, platform.organization
    make_database(platform)
    assert client.get_database(organization, Platform.DATABASE)["engine"] == "vitess"
    platform.make_keyspace(2, VSCHEMA, PATIENCE_SECONDS)
    login = platform.login()

    # Tables of both keyspaces, planned by vtgate: what is on one shard is not what is on all.
    execute(login, "shop", "CREATE TABLE things (id INT PRIMARY KEY)", "INSERT INTO things VALUES (1), (2)")
    execute(login, "shop_sharded", "CREATE TABLE orders (id BIGINT PRIMARY KEY, amount INT)")
    values = ", ".join(f"({number}, {number})" for number in range(100))
    execute(login, "shop_sharded", f"INSERT INTO orders (id, amount) VALUES {values}")
    assert execute(login, "shop_sharded", "SELECT COUNT(*), SUM(amount) FROM orders") == [(100, 4950)]
    joined = "SELECT COUNT(*) FROM shop.things t JOIN shop_sharded.orders o ON o.id = t.id"
    assert execute(login, "shop", joined) == [(2,)]

    # A vschema that Vitess refuses is refused, and one that it takes is served at once.
    wanted = {**VSCHEMA, "tables": {**VSCHEMA["tables"], "lines": VSCHEMA["tables"]["orders"]}}
    client.update_vschema(organization, *MAIN, Platform.TARGET, wanted)
    execute(
        login, "shop_sharded", "CREATE TABLE `lines` (id BIGINT PRIMARY KEY)",
        "INSERT INTO `lines` (id) VALUES (1), (2), (3)",
    )  # fmt: skip
    assert execute(login, "shop_sharded", "SELECT COUNT(*) FROM `lines`") == [(3,)]
    with pytest.raises(ApiError, match="would not find them"):
        client.update_vschema(
            organization, *MAIN, Platform.TARGET, {**VSCHEMA, "vindexes": {"xxhash": {"type": "hash"}}}
        )

    # A branch of it has a cluster and tables of its own.
    client.create_branch(organization, Platform.DATABASE, "dev")
    platform.until(
        "branch",
        lambda: bool(client.get_branch(organization, Platform.DATABASE, "dev")["ready"]),
        PATIENCE_SECONDS,
    )
    made = client.create_password(organization, Platform.DATABASE, "dev", name="dev", role="admin")
    dev = Login(login.host, login.port, made["username"], made["plain_text"])
    assert execute(dev, "shop_sharded", "SELECT COUNT(*) FROM orders") == [(0,)]
    execute(dev, "shop_sharded", "INSERT INTO orders (id, amount) VALUES (7, 7)")
    assert execute(login, "shop_sharded", "SELECT COUNT(*) FROM orders") == [(100,)]
    client.delete_branch(organization, Platform.DATABASE, "dev")

    # A crash leaves clusters running, and the next start finds them.
    platform.installation.kill()
    platform.start()
    assert execute(login, "shop_sharded", "SELECT COUNT(*) FROM orders") == [(100,)]
    # So does an orderly end, which ends them.
    platform.installation.stop(60)
    assert left_of(platform.installation.data_dir, home_of(platform.installation.data_dir)) == []
    platform.start()
    assert execute(login, "shop_sharded", "SELECT COUNT(*) FROM orders") == [(100,)]

    client = platform.client
    client.delete_database(organization, Platform.DATABASE)
    folder = platform.installation.data_dir
    platform.until("nothing is left", lambda: vitess_of(folder) == [], PATIENCE_SECONDS)


def vitess_of(folder: Path) -> list[str]:
    """Command lines of Vitess's processes of an installation."""
    names = ("vttablet", "vtgate", "vtctld")
    return [line for line in left_of(folder, home_of(folder)) if any(name in line for name in names)]


class Writer(threading.Thread):
    """Writes rows one after the other, some in transactions, and remembers those that were acknowledged.

    :param orders: whether half of them go to the sharded keyspace.
    """

    def __init__(self, login: Login, *, orders: bool = True) -> None:
        super().__init__(daemon=True)
        self.login = login
        self.orders = "INSERT INTO shop_sharded.orders VALUES (%s, 1)"
        if not orders:
            self.orders = "INSERT INTO more VALUES (%s, 1)"
        self.rows: list[int] = []
        self.errors: list[str] = []
        self.ending = threading.Event()

    def run(self) -> None:
        number = 0
        with (
            closing(self.login.connect("shop", autocommit=True)) as connection,
            connection.cursor() as cursor,
        ):
            while not self.ending.is_set():
                number += 2
                try:
                    cursor.execute("BEGIN")
                    cursor.execute("INSERT INTO things VALUES (%s)", (number,))
                    cursor.execute(self.orders, (number,))
                    cursor.execute("COMMIT")
                    cursor.execute(self.orders, (number + 1,))
                except pymysql.MySQLError as error:
                    self.errors.append(f"{number}: {error}")
                    return
                self.rows += [number, number + 1]
                time.sleep(0.01)

    def writes_on(self, more: int = 20) -> None:
        """It goes on, or has failed."""
        count, deadline = len(self.rows), time.monotonic() + 60.0
        while len(self.rows) < count + more and not self.errors:
            assert time.monotonic() < deadline, "it writes no more"
            time.sleep(0.02)
        assert self.errors == []


@pytest.mark.parametrize("platform", [("local", 0)], ids=["local"], indirect=True)
def test_a_running_database_is_taken_over_while_a_client_writes(platform: Platform) -> None:
    client, organization = platform.client, platform.organization
    make_database(platform)
    platform.make_keyspace(2, VSCHEMA, PATIENCE_SECONDS)
    login = platform.login()
    execute(login, "shop", "CREATE TABLE things (id INT PRIMARY KEY)")
    execute(login, "shop_sharded", "CREATE TABLE orders (id BIGINT PRIMARY KEY, amount INT)")
    writer = Writer(login)
    writer.start()
    writer.writes_on()

    # What Vitess could not serve is told, and the database goes on as it was.
    on_a_shard(platform, "CREATE TABLE stray (id INT PRIMARY KEY)")
    ready_file = str(platform.installation.ready_file)
    refused = engine_command("change", "shop", "vitess", "--ready-file", ready_file)
    assert refused.returncode == 1
    assert "no entry for stray" in refused.stderr
    assert client.get_database(organization, Platform.DATABASE)["engine"] == "local"
    on_a_shard(platform, "DROP TABLE stray")
    writer.writes_on()

    changed = engine_command("change", "shop", "vitess", "--ready-file", ready_file)
    assert (changed.returncode, changed.stdout.strip()) == (0, "shop runs on vitess")
    assert client.get_database(organization, Platform.DATABASE)["engine"] == "vitess"
    writer.writes_on()
    writer.ending.set()
    writer.join(60)
    assert writer.errors == []
    found = [row[0] for row in execute(login, "shop_sharded", "SELECT id FROM orders ORDER BY id")]
    assert found == writer.rows
    # Planned over shards now, beyond what was exact before.
    summed = (
        "SELECT o.amount, COUNT(*) FROM shop_sharded.orders o JOIN shop.things t ON t.id = o.id GROUP BY 1"
    )
    assert execute(login, "shop", summed) == [(1, len(writer.rows) // 2)]
    assert vitess_of(platform.installation.data_dir)


@pytest.mark.parametrize("platform", [("vitess", 1)], ids=["vitess"], indirect=True)
def test_another_primary_is_the_clusters_before_clients_go_on(platform: Platform) -> None:
    make_database(platform)
    login = platform.login()
    execute(
        login, "shop", "CREATE TABLE things (id INT PRIMARY KEY)",
        "CREATE TABLE more (id BIGINT PRIMARY KEY, amount INT)",
    )  # fmt: skip
    writer = Writer(login, orders=False)
    writer.start()
    writer.writes_on()
    ready_file = str(platform.installation.ready_file)
    for _ in range(2):  # there and back
        promoted = command("reparent", "shop", "main", "shop/-", "--ready-file", ready_file)
        assert (promoted.returncode, promoted.stderr) == (0, "")
        assert "is the primary of shop/-" in promoted.stdout
        writer.writes_on()
    writer.ending.set()
    writer.join(60)
    assert writer.errors == []
    assert [row[0] for row in execute(login, "shop", "SELECT id FROM more ORDER BY id")] == writer.rows


def engine_command(*words: str) -> subprocess.CompletedProcess[str]:
    return command("engine", *words)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "homeworld.main", *words],
        capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


def on_a_shard(platform: Platform, statement: str) -> None:
    """Run a statement on the first shard of the sharded keyspace, as its server's owner."""
    engine = LocalEngine(platform.installation.data_dir, mysqld.binary(Flavor.MYSQL))
    schema = f"{Platform.TARGET}_-80"
    for server_id in engine.list_servers():
        at = engine.endpoint(server_id, BackendRole.OWNER)
        reached = pymysql.connect(unix_socket=at.socket, user=at.user, password=at.password)
        with reached as connection, connection.cursor() as cursor:
            if cursor.execute("SHOW DATABASES LIKE %s", (schema,)):
                cursor.execute(f"USE `{schema}`")
                cursor.execute(statement)
                return
    raise AssertionError(f"no server has {schema}")
