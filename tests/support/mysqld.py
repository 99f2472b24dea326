"""Real MySQL and MariaDB servers for tests.

A server is copied from a template data directory that is made once per machine and binary, so that a start
takes about a second. Each lives in its own folder on its own free loopback port and unix socket, has the
account of every BackendRole, and is ended by its pid (see warden for a killed test run).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pymysql

from homeworld.model.names import new_id, quote
from homeworld.model.topology import BackendRole, Endpoint, Flavor, ShardPlace
from tests.support.warden import guard

CACHE = Path(os.environ.get("HOMEWORLD_CACHE", Path.home() / ".cache" / "homeworld"))
MYSQL = CACHE / "mysql-9.7" / "bin" / "mysqld"
START_SECONDS = 60.0

COMMON = (
    "log-bin=binlog",
    "binlog-format=ROW",
    "binlog-row-image=FULL",
    "binlog-row-metadata=FULL",
    "sync-binlog=1",
    "innodb-flush-log-at-trx-commit=1",
    "innodb-buffer-pool-size=64M",
    "bind-address=127.0.0.1",
    "local-infile=ON",
    "skip-name-resolve",
    "default-time-zone=+00:00",
    "character-set-server=utf8mb4",
    "max-connections=300",
    "performance-schema=OFF",
)
OPTIONS = {
    Flavor.MYSQL: (
        *COMMON,
        "gtid-mode=ON",
        "enforce-gtid-consistency=ON",
        "mysqlx=OFF",
        "log-replica-updates=ON",
        "replica-preserve-commit-order=ON",
    ),
    Flavor.MARIADB: (*COMMON, "gtid-strict-mode=ON", "log-slave-updates=ON"),
}
GLOBAL_RIGHTS = {
    Flavor.MYSQL: {
        BackendRole.MOVER: "REPLICATION SLAVE, REPLICATION CLIENT, PROCESS",
        BackendRole.REPLICATION: "REPLICATION SLAVE",
    },
    Flavor.MARIADB: {
        BackendRole.MOVER: "REPLICATION SLAVE, BINLOG MONITOR, SLAVE MONITOR, PROCESS",
        BackendRole.REPLICATION: "REPLICATION SLAVE",
    },
}
SCHEMA_RIGHTS = {
    BackendRole.READER: "SELECT, SHOW VIEW",
    BackendRole.WRITER: "INSERT, UPDATE, DELETE",
    BackendRole.READWRITER: "SELECT, SHOW VIEW, INSERT, UPDATE, DELETE",
    BackendRole.ADMIN: "ALL PRIVILEGES",
    BackendRole.MOVER: "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, REFERENCES, LOCK TABLES, "
    "TRIGGER, SHOW VIEW",
}


def binary(flavor: Flavor) -> Path | None:
    """Where the flavour's server program is, or None."""
    if flavor is Flavor.MYSQL:
        return MYSQL if MYSQL.exists() else None
    found = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def free_port() -> int:
    """A loopback port nobody listens on, outside the range the kernel gives to outgoing connections."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def user_of(role: BackendRole) -> str:
    return f"homeworld_{role.value}"


def password_of(role: BackendRole) -> str:
    return f"{role.value}-test-password"


def _user_flag() -> list[str]:
    return ["--user=root"] if os.geteuid() == 0 else []


def _account_statements(flavor: Flavor) -> list[str]:
    statements: list[str] = []
    for role in BackendRole:
        for host in ("localhost", "127.0.0.1"):
            account = f"'{user_of(role)}'@'{host}'"
            statements.append(f"CREATE USER {account} IDENTIFIED BY '{password_of(role)}'")
            if role is BackendRole.OWNER:
                statements.append(f"GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION")
            elif role in GLOBAL_RIGHTS[flavor]:
                statements.append(f"GRANT {GLOBAL_RIGHTS[flavor][role]} ON *.* TO {account}")
            if role is BackendRole.MOVER:
                statements.append(f"GRANT ALL PRIVILEGES ON `_homeworld`.* TO {account}")
    statements.append("DROP USER 'root'@'localhost'")
    return statements


def template(flavor: Flavor) -> Path:
    """The template data directory of this machine's binary, made where it is not there yet."""
    program = binary(flavor)
    assert program is not None, f"no {flavor} binary"
    facts = [str(program), str(program.stat().st_mtime_ns), *_account_statements(flavor)]
    key = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    folder = CACHE / "test-templates"
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{flavor.value}-{key}"
    with (folder / f".{flavor.value}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return done
        with tempfile.TemporaryDirectory(dir=folder, prefix=f".{flavor.value}-") as work:
            made = Path(work) / "data"
            _initialise(flavor, program, made, Path(work))
            made.rename(done)
    return done


def _initialise(flavor: Flavor, program: Path, data: Path, work: Path) -> None:
    if flavor is Flavor.MYSQL:
        script = work / "accounts.sql"
        script.write_text(";\n".join(_account_statements(flavor)) + ";\n")
        command = [
            program, "--no-defaults", "--initialize-insecure", f"--datadir={data}", f"--init-file={script}",
            "--innodb-redo-log-capacity=8M", "--mysqlx=OFF", *_user_flag(),
        ]  # fmt: skip
        _run(command)
        (data / "auto.cnf").unlink(missing_ok=True)
        return
    install = shutil.which("mariadb-install-db") or "/usr/bin/mariadb-install-db"
    common = ["--no-defaults", f"--datadir={data}", "--innodb-log-file-size=16M", *_user_flag()]
    _run([install, *common, "--auth-root-authentication-method=normal", "--skip-test-db"])
    statements = ["FLUSH PRIVILEGES", *_account_statements(flavor)]
    _run([program, *common, "--bootstrap"], ";\n".join(statements) + ";\n")


def _run(command: list[Any], text: str = "") -> None:
    done = subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command[0]}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"


class TestServer:
    """One running server. ``folder`` holds all of it; ``stop`` and ``kill`` leave the data for ``start``."""

    __test__ = False  # not a test class, whatever its name

    def __init__(self, flavor: Flavor, folder: Path, options: tuple[str, ...] = ()) -> None:
        self.flavor = flavor
        self.server_id = new_id()
        self.folder = folder
        self.host = "127.0.0.1"
        self.port = free_port()
        self._short = Path(tempfile.mkdtemp(prefix="hw"))
        self.socket = str(self._short / "s")
        self.options = options
        self.mysql_server_id = random.randrange(1, 2**31)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data_dir(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server does not run"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start and return once the server answers."""
        assert not self.running
        program = binary(self.flavor)
        assert program is not None
        guard(self.folder)
        (self.folder / "files").mkdir(exist_ok=True)
        config = self.folder / "my.cnf"
        lines = [
            "[mysqld]", f"datadir={self.data_dir}", f"socket={self.socket}", f"port={self.port}",
            f"pid-file={self.folder / 'mysqld.pid'}", f"server-id={self.mysql_server_id}",
            f"secure-file-priv={self.folder / 'files'}",
            *OPTIONS[self.flavor], *self.options,
        ]  # fmt: skip
        config.write_text("\n".join(lines) + "\n")
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(program), f"--defaults-file={config}", *_user_flag()],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
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
        return (self.folder / "server.log").read_text(errors="replace")[-4000:]

    def stop(self, timeout: float = 30.0) -> None:
        """Shut down in order; no-op where it does not run."""
        self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """End it as a power cut would (kill -9)."""
        self._end(signal.SIGKILL, 30.0)

    def _end(self, number: signal.Signals, timeout: float) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        self._process = None

    def restart(self) -> None:
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill the server and delete its folders."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self._short, ignore_errors=True)

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
            "unix_socket": self.socket, "user": user_of(role), "password": password_of(role),
            "database": schema, "autocommit": True, "charset": "utf8mb4", "local_infile": True,
        }  # fmt: skip
        return pymysql.connect(**{**settings, **options})

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
        statements = [f"CREATE DATABASE IF NOT EXISTS {quote(schema)} CHARACTER SET utf8mb4"]
        pattern = quote(schema.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))
        statements += [
            f"GRANT {rights} ON {pattern}.* TO '{user_of(role)}'@'{host}'"
            for role, rights in SCHEMA_RIGHTS.items()
            for host in ("localhost", "127.0.0.1")
        ]
        self.execute(statements)

    def drop_schema(self, schema: str) -> None:
        self.query(f"DROP DATABASE IF EXISTS {quote(schema)}")

    def position(self) -> str:
        """The GTID set of all that is committed, in the server's own form."""
        sql = "SELECT @@gtid_executed" if self.flavor is Flavor.MYSQL else "SELECT @@gtid_binlog_pos"
        return str(self.query(sql)[0][0]).replace("\n", "")


def start_server(flavor: Flavor, tmp_path: Path, *options: str) -> TestServer:
    """A fresh running server under ``tmp_path``; ``options`` are more lines for its my.cnf.

    The caller ends it with ``close()``; if the whole test process dies, the warden does.
    """
    source = template(flavor)
    folder = tmp_path / f"server-{new_id()}"
    folder.mkdir(parents=True)
    subprocess.run(["cp", "-a", "--reflink=auto", "--sparse=always", source, folder / "data"], check=True)
    server = TestServer(flavor, folder, options)
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server
