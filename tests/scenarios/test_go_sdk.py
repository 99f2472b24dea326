"""The Go SDK (planetscale-go, unmodified, in the version of ``tests/clients/go-sdk/go.mod``) walks an
installation: every service of it that has something behind it here, with the typed fields that it decodes.

What has to hold is in that Go program; this module builds it, brings an installation up and makes the tables.
Where there is no Go, or its modules cannot be had, the module is skipped with the reason.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pymysql
import pytest

from homeworld.cli.installation import Installation
from homeworld.client import HomeworldClient
from homeworld.model.topology import Flavor
from tests.support.mysqld import binary

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(420)]

SOURCE = Path(__file__).parents[1] / "clients" / "go-sdk"
TABLES = (
    "CREATE TABLE orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, note VARCHAR(40))",
    "CREATE TABLE parts (order_id BIGINT NOT NULL, n INT NOT NULL, PRIMARY KEY (order_id, n))",
    "INSERT INTO orders (note) VALUES " + ", ".join(["('an order')"] * 60),
    "INSERT INTO parts SELECT id, 1 FROM orders UNION SELECT id, 2 FROM orders",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program, built."""
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        pytest.skip("there is no Go on this machine")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [go, *words], cwd=SOURCE, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=360,
            check=False,
        )  # fmt: skip

    had = run("mod", "download")
    if had.returncode != 0:
        pytest.skip(f"its modules cannot be had: {had.stderr[-300:]}")
    made = tmp_path_factory.mktemp("go-sdk") / "walk"
    built = run("build", "-mod=readonly", "-o", str(made), ".")
    # All is fetched by now: what does not build is our program's fault, and no reason to skip.
    assert built.returncode == 0, built.stderr
    return made


@dataclass
class Walk:
    """The program and where it walks."""

    program: Path
    installation: Installation

    def __call__(self, *parts: str) -> None:
        """Walk some parts."""
        ready = self.installation.ready
        environment = {
            "HOME": str(self.installation.data_dir), "PLANETSCALE_API_URL": str(ready["api_url"]),
            "PLANETSCALE_ORG": str(ready["organization"]),
            "PLANETSCALE_SERVICE_TOKEN_ID": str(ready["service_token_id"]),
            "PLANETSCALE_SERVICE_TOKEN": str(ready["service_token"]),
        }  # fmt: skip
        done = subprocess.run(
            [str(self.program), *parts], env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=300, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "done\n"), done.stdout + done.stderr

    def run(self, *statements: str) -> None:
        """Let a MySQL client say something to the keyspace."""
        ready = self.installation.ready
        client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])
        login = client.create_password(
            str(ready["organization"]), "shop", "main", name="tables", role="admin"
        )
        with (
            pymysql.connect(
                host="127.0.0.1", port=int(ready["gateway_port"]), user=login["username"],
                password=login["plain_text"], database="shop", ssl_ca=ready["ca_file"], autocommit=True,
            ) as connection,
            connection.cursor() as cursor,
        ):  # fmt: skip
            for statement in statements:
                cursor.execute(statement)


@pytest.fixture(scope="module")
def walk(program: Path, server_root: Path) -> Iterator[Walk]:
    # Which servers there are makes no difference to what a client decodes.
    server = binary(Flavor.MARIADB)
    assert server is not None
    folder = Path(tempfile.mkdtemp(prefix="go-sdk-", dir=server_root))
    installation = Installation(
        folder / "homeworld",
        ("--api-port", "0", "--gateway-port", "0", "--replicas", "0", "--mysqld", str(server)),
    )
    try:
        installation.start()
        yield Walk(program, installation)
    finally:
        installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def test_resources(walk: Walk) -> None:
    walk("organizations", "databases", "branches", "keyspaces")


def test_access(walk: Walk) -> None:
    walk("passwords", "tokens", "webhooks", "audit")


def test_what_servers_tell(walk: Walk) -> None:
    walk.run(*TABLES)
    walk("looking")


def test_workflows(walk: Walk) -> None:
    walk("workflows")
    walk.run("CREATE TABLE shop.notes (id BIGINT PRIMARY KEY, v INT)", "INSERT INTO shop.notes VALUES (1, 2)")
    walk("cancelled")


def test_deleting(walk: Walk) -> None:
    walk("deleting")
