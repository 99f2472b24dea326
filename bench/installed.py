"""Ours as users have it: a ``homeworld up`` with a database, reached by the API and through the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pymysql.connections

from bench.lab import BenchError, Lab, wait_until
from bench.loads.sysbench import Server
from bench.tables import CREATE, TABLE, rows
from homeworld.cli.installation import Installation
from homeworld.client import ApiError, HomeworldClient
from homeworld.engines.accounts import load, user_of
from homeworld.engines.layout import Layout
from homeworld.model.topology import BackendRole

DATABASE = "bench"
SOURCE = "bench"
TARGET = "bench_sharded"
BRANCH = "main"
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {TABLE: {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
_SECONDS = 120.0
_SYSTEM = {"information_schema", "performance_schema", "mysql", "sys", "_homeworld"}


@dataclass(slots=True)
class Installed:
    """A client of one installation; its names are those of the bench."""

    installation: Installation
    client: HomeworldClient = field(init=False)
    organization: str = field(init=False)
    _number: int = 0

    def __post_init__(self) -> None:
        ready = self.installation.ready
        self.organization = str(ready["organization"])
        self.client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])

    @property
    def pid(self) -> int:
        """The process that serves everything."""
        process = self.installation.process
        if process is None:
            raise BenchError("homeworld does not run")
        return process.pid

    def create_database(self) -> None:
        """Make the database and wait until it is ready."""
        self.client.create_database(self.organization, DATABASE)
        self.until(
            "the database",
            lambda: self.client.get_database(self.organization, DATABASE)["state"] == "ready",
        )

    def login(self, role: str, schema: str = SOURCE) -> Server:
        """A new password of the main branch, as sysbench takes it."""
        made = self.client.create_password(self.organization, DATABASE, BRANCH, name=role, role=role)
        ready = self.installation.ready
        return Server(
            str(made["username"]),
            str(made["plain_text"]),
            host=str(ready["gateway_host"]),
            port=int(ready["gateway_port"]),
            schema=schema,
        )

    def connect(self, login: Server) -> pymysql.connections.Connection[Any]:
        """A connection through the gateway, over TLS."""
        return pymysql.connect(
            host=login.host, port=login.port, user=login.user, password=login.password,
            database=login.schema, ssl={"ca": self.installation.ready["ca_file"]}, local_infile=True,
        )  # fmt: skip

    def fill(self, login: Server, count: int, scratch: Path) -> None:
        """Make the bench's table through the gateway and load ``count`` rows."""
        if self.installation.ready["engine"] == "vitess":
            self._insert(login, count)
            return
        file = scratch / "rows.tsv"
        with file.open("wb") as out:
            out.writelines(rows(count))
        with self.connect(login) as connection, connection.cursor() as cursor:
            cursor.execute(CREATE)
            loaded = cursor.execute(f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE {TABLE} (id, k, c, pad)")
            connection.commit()
        file.unlink()
        if loaded != count:
            raise BenchError(f"{loaded} rows of {count} were loaded")

    def _insert(self, login: Server, count: int) -> None:
        """The same rows by INSERTs: Vitess has no LOAD DATA."""
        with self.connect(login) as connection, connection.cursor() as cursor:
            cursor.execute(CREATE)
            for batch in rows(count):
                lines = (line.replace("\t", "','") for line in batch.decode().splitlines())
                values = ",".join(f"('{line}')" for line in lines)
                cursor.execute(f"INSERT INTO {TABLE} (id, k, c, pad) VALUES {values}")
                connection.commit()

    def create_shards(self) -> None:
        """Make the target keyspace with two shards, its vschema, and switch safe migrations on."""
        at = (self.organization, DATABASE, BRANCH)
        self.client.create_keyspace(*at, TARGET, shards=2)
        self.until("the keyspace", lambda: bool(self.client.get_keyspace(*at, TARGET)["ready"]))
        self.client.update_vschema(*at, TARGET, VSCHEMA)
        self.client.enable_safe_migrations(*at)

    def move(self) -> None:
        """Start a workflow that moves the table, and wait until it is running."""
        workflow = self.client.create_workflow(
            self.organization, DATABASE, name="bench", source_keyspace=SOURCE, target_keyspace=TARGET,
            tables=[TABLE],
        )  # fmt: skip
        self._number = int(workflow["number"])
        self._reaches("running", _SECONDS)

    def verify(self) -> None:
        """Compare every row of both sides."""
        self.ask("verify-data", "verified_data")

    def cancel(self) -> None:
        """Take the move back, with all that it has made."""
        self.client.cancel_workflow(self.organization, DATABASE, self._number)
        self._reaches("cancelled", _SECONDS)

    def ask(self, action: str, state: str) -> tuple[float, float]:
        """Ask for an action until it is taken, and wait for its state.

        :returns: when it was taken and when the state was seen (unix seconds).
        """
        deadline = time.monotonic() + _SECONDS
        while True:
            asked = time.time()
            try:
                self.client.workflow_action(self.organization, DATABASE, self._number, action)
                break
            except ApiError:
                # The lag may be above the limit for a moment; whatever else it is, it stays so.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        self._reaches(state, _SECONDS)
        return asked, time.time()

    def backend(self) -> Server:
        """The branch's one server itself, as the gateway's account for reading and writing.

        :raises BenchError: the installation has more servers than one.
        """
        layout = Layout(self.installation.data_dir)
        records = list(layout.records())
        if len(records) != 1:
            raise BenchError(f"one server is expected, there are {len(records)}")
        role = BackendRole.READWRITER
        password = load(layout.secrets, may_create=False).passwords[role]
        port = records[0].port
        with (
            pymysql.connect(host="127.0.0.1", port=port, user=user_of(role), password=password) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SHOW DATABASES")
            schemas = [str(row[0]) for row in cursor.fetchall() if row[0] not in _SYSTEM]
        if len(schemas) != 1:
            raise BenchError(f"one schema is expected, there are {schemas}")
        return Server(user_of(role), password, port=port, schema=schemas[0])

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Ask again and again until it is so."""
        wait_until(holds, what, _SECONDS, 0.05)

    def _reaches(self, state: str, timeout_seconds: float) -> None:
        def look() -> bool:
            workflow = self.client.get_workflow(self.organization, DATABASE, self._number)
            current = str(workflow["state"])
            if current in {"error", "stopped"} and current != state:
                raise BenchError(f"wanted {state}, came to {current}: {workflow['workflow_errors']}")
            return current == state

        wait_until(look, f"the workflow is {state}", timeout_seconds, 0.1)


def install(lab: Lab, *options: str) -> Installed:
    """A running installation without a database."""
    return Installed(lab.installation(*options))
