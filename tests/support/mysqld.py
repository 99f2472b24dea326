"""Real MySQL and MariaDB servers for tests.

A server is copied from a template data directory that is made once per machine and binary, so that a start
takes about a second; template, options, accounts and rights are the engine's own. Each lives in its own
folder on its own free loopback port and unix socket, and is ended by its pid (see warden for a killed run).
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import pymysql

from homeworld.engines import binary as binaries
from homeworld.engines import process, template
from homeworld.engines.accounts import Accounts, user_of
from homeworld.engines.config import Sizes, render
from homeworld.engines.flavors import grant_statements, rules
from homeworld.engines.layout import Layout, Record, choose_port, prepare_socket
from homeworld.model.names import new_id, quote
from homeworld.model.topology import BackendRole, Endpoint, Flavor, ShardPlace
from tests.support.warden import guard

CACHE = Path(os.environ.get("HOMEWORLD_CACHE") or Path.home() / ".cache" / "homeworld")
MYSQL = CACHE / "mysql-9.7" / "bin" / "mysqld"
START_SECONDS = 180.0
# Ports that this process has given out: a server that is down keeps its own.
_ports: set[int] = set()
# Not those of other processes that run tests beside this one: a port is chosen a while before it is bound.
WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
OWN_PORTS = range(11000 + WORKER, 15000, 8)
ENGINE_PORTS = range(21000 + WORKER, 32000, 8)


def binary(flavor: Flavor) -> Path | None:
    """Where the flavour's server program is, or None."""
    if flavor is Flavor.MYSQL:
        return MYSQL if MYSQL.exists() else None
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def free_port() -> int:
    """A loopback port nobody listens on, outside the range the kernel gives to outgoing connections."""
    port = choose_port(_ports, OWN_PORTS)
    _ports.add(port)
    return port


def password_of(role: BackendRole) -> str:
    return f"{role.value}-test-password"


ACCOUNTS = Accounts({role: password_of(role) for role in BackendRole})


def prepared(flavor: Flavor) -> tuple[binaries.Binary, Path]:
    """The flavour's program and the template data directory of this machine, made where it is not there."""
    program = binary(flavor)
    assert program is not None, f"no {flavor} binary"
    found = binaries.inspect(program)
    return found, template.ensure(found, ACCOUNTS, CACHE / "test-templates")


class TestServer:
    """One server. ``folder`` holds all of it; ``stop`` and ``kill`` leave the data for ``start``."""

    __test__ = False  # not a test class, whatever its name

    def __init__(self, flavor: Flavor, folder: Path, options: tuple[str, ...] = ()) -> None:
        self.flavor = flavor
        self.server_id = new_id()
        self.host = "127.0.0.1"
        self.port = free_port()
        self.folder = folder
        self.options = options
        self._short = Path(tempfile.mkdtemp(prefix="hw"))
        self.socket = str(self._short / "s")
        self._binary, self._template = prepared(flavor)
        self._place = Layout(folder).place(self.server_id)
        self._record = Record(
            server_id=self.server_id,
            mysql_server_id=random.randrange(1, 2**31),
            flavor=flavor,
            version=self._binary.version_text,
            port=self.port,
            socket=self.socket,
            replica_of=None,
            accounts="",
        )

    @property
    def data_dir(self) -> Path:
        return self._place.data

    @property
    def pid(self) -> int:
        pid = process.find(self._place.config, self._place.pid)
        assert pid is not None, "the server does not run"
        return pid

    @property
    def running(self) -> bool:
        return process.find(self._place.config, self._place.pid) is not None

    def start(self) -> None:
        """Start and return once the server answers."""
        assert not self.running
        guard(self._place.folder)
        guard(self._short, delete=True)
        prepare_socket(self.socket)
        self._place.files.mkdir(exist_ok=True, parents=True)
        if not self._place.data.exists():
            template.copy(self._template, self._place.data)
        sizes = Sizes(buffer_pool_mb=64, options=self.options)
        self._place.config.write_text(render(self._record, self._place, sizes))
        arguments = ["--user=root"] if os.geteuid() == 0 else []
        process.spawn(self._binary.path, arguments, self._place.config, self._place.pid, self._place.log)
        deadline = time.monotonic() + START_SECONDS
        while not self._accepting():
            if not self.running or time.monotonic() > deadline:
                tail = self.log_tail()
                self.kill()
                raise AssertionError(f"the server did not come up:\n{tail}")
            time.sleep(0.02)

    def _accepting(self) -> bool:
        # A plain socket first: PyMySQL leaks its own where nobody listens yet.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(self.socket)
            except OSError:
                return False
        try:
            self.query("SELECT 1")
        except pymysql.err.OperationalError:
            return False
        return True

    def log_tail(self) -> str:
        return self._place.log.read_text(errors="replace")[-4000:]

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down in order; no-op where it does not run."""
        if self.running:
            process.end(self.pid, self._place.config, timeout)

    def kill(self) -> None:
        """End it as a power cut would (kill -9)."""
        self.stop(0)

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and delete its folders."""
        self.kill()
        shutil.rmtree(self._place.folder, ignore_errors=True)
        shutil.rmtree(self._short, ignore_errors=True)
        _ports.discard(self.port)

    def endpoint(self, role: BackendRole = BackendRole.OWNER) -> Endpoint:
        """How to reach the server as that role."""
        return Endpoint(
            self.server_id, self.flavor, self.host, self.port, self.socket, user_of(role), password_of(role)
        )

    def place(
        self, keyspace: str, shard: str, schema: str, role: BackendRole = BackendRole.MOVER
    ) -> ShardPlace:
        """``schema`` of this server as a shard."""
        return ShardPlace(keyspace, shard, schema, self.endpoint(role))

    def connect(
        self, role: BackendRole = BackendRole.OWNER, schema: str | None = None, **options: object
    ) -> pymysql.Connection[Any]:
        """A PyMySQL connection (autocommit) as that role through the unix socket."""
        settings: dict[str, Any] = {
            "unix_socket": self.socket,
            "user": user_of(role),
            "password": password_of(role),
            "database": schema,
            "autocommit": True,
            "charset": "utf8mb4",
            "local_infile": True,
            "ssl_disabled": True,
        }
        settings.update(options)
        return pymysql.connect(**settings)

    def query(
        self,
        sql: str,
        schema: str | None = None,
        *,
        role: BackendRole = BackendRole.OWNER,
        args: object = None,
    ) -> list[tuple[Any, ...]]:
        """Run one statement on a connection of its own; the rows (empty for a statement without any)."""
        connection = self.connect(role, schema)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(sql, args)
            return list(cursor.fetchall())

    def execute(self, statements: str | list[str], schema: str | None = None) -> None:
        """Run statements as the owner on one connection; a text is split at line ends that follow ``;``."""
        if isinstance(statements, str):
            statements = [part for part in statements.strip().removesuffix(";").split(";\n") if part.strip()]
        connection = self.connect(schema=schema)
        with contextlib.closing(connection), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def create_schema(self, schema: str) -> None:
        """Create the schema (utf8mb4) and give each role its rights on it, as the engine does."""
        create = f"CREATE DATABASE IF NOT EXISTS {quote(schema)} CHARACTER SET utf8mb4"
        self.execute([create, *grant_statements(schema)])

    def drop_schema(self, schema: str) -> None:
        self.query(f"DROP DATABASE IF EXISTS {quote(schema)}")

    def position(self) -> str:
        """The GTID set of all that is committed, in the server's own form."""
        return str(self.query(rules(self.flavor).position)[0][0]).replace("\n", "")


def start_server(flavor: Flavor, tmp_path: Path, *options: str) -> TestServer:
    """A fresh running server under ``tmp_path``; ``options`` are more lines for its my.cnf.

    The caller ends it with ``close()``; if the whole test process dies, the warden does.
    """
    server = TestServer(flavor, tmp_path, options)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server
