"""The walk of the demo: every step of a MoveTables workflow, asked for by the REST API and timed.

Invariant: a step counts as done only when the API says so, and the demo as a whole only when the ledger
agrees with the tables, no client saw an error, and every step reached the state it asked for.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pymysql.connections

from homeworld.cli.demo.data import DATASETS, load
from homeworld.cli.demo.ledger import Ledger
from homeworld.cli.demo.view import Scene, StepResult, View
from homeworld.cli.demo.workload import Address, Application
from homeworld.cli.installation import Installation
from homeworld.cli.workflow_view import Rate, rows_copied
from homeworld.client import HomeworldClient

DATABASE = "nyc"
SOURCE = "nyc"
TARGET = "nyc_sharded"
MOVED = ("flights", "planes")
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "flights": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "planes": {"column_vindexes": [{"column": "tailnum", "name": "xxhash"}]},
    },
}
DELAYED_FLIGHTS = 2000
DWELL_SECONDS = 1.0  # how long the application runs in each state before the next step
POLL_SECONDS = 0.25  # as of `homeworld workflow`: the gateway is in the process that answers


class DemoFailedError(Exception):
    """The demo did not hold."""


@dataclass(slots=True)
class Report:
    """What is written to ``--report``; ``ok`` is the whole verdict."""

    ok: bool = False
    flavor: str = ""
    engine: str = ""
    steps: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    commits: int = 0
    statements: int = 0
    client_errors: int = 0
    errors: list[str] = field(default_factory=list[str])
    rows_lost: int = 0
    losses: list[str] = field(default_factory=list[str])
    longest_stall_ms: float = 0.0
    total_seconds: float = 0.0
    failure: str = ""


def most_common(errors: list[str]) -> list[str]:
    """The errors, each text once with how often it came, the most frequent first; at most 20."""
    return [f"{count} times: {text}" for text, count in Counter(errors).most_common(20)]


class Walk:
    """Performs the steps upon a running installation.

    :param tick: called about ten times a second while something is awaited, to refresh the picture.
    """

    def __init__(self, installation: Installation, view: View, writers: int, readers: int) -> None:
        ready = installation.ready
        self._ready = ready
        self._client = HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])
        self._organization = str(ready["organization"])
        self._view = view
        self._scene: Scene = view.scene
        self._writers = writers
        self._readers = readers
        self._application: Application | None = None
        self._number = 0
        self._felt = (time.monotonic(), 0)
        self.ledger = Ledger()
        self.results: list[StepResult] = []

    # -- the steps ------------------------------------------------------------------------------------

    def run(self) -> None:
        """The whole walk.

        :raises DemoFailedError: a step did not reach its state in time.
        """
        with self._step("create database"):
            self._client.create_database(self._organization, DATABASE)
            self._await("database", lambda: self._client.get_database(self._organization, DATABASE), "ready")
        with self._step("load 2013's flights") as step:
            step.rows = self._load()
            step.rows_per_second = step.rows / max(time.monotonic() - self._scene.since, 0.001)
        with self._step("2-shard keyspace"):
            at = (self._organization, DATABASE, "main")
            self._client.create_keyspace(*at, TARGET, shards=2)
            self._until("keyspace", lambda: bool(self._client.get_keyspace(*at, TARGET)["ready"]))
            self._client.update_vschema(*at, TARGET, VSCHEMA)
            self._client.enable_safe_migrations(*at)
        with self._step("start application"):
            self._start_application()
            time.sleep(DWELL_SECONDS)
        with self._step("copy and follow") as step:
            workflow = self._client.create_workflow(
                self._organization, DATABASE, name="shard-flights", source_keyspace=SOURCE,
                target_keyspace=TARGET, tables=list(MOVED),
            )  # fmt: skip
            self._number = int(workflow["number"])
            workflow = self._workflow_reaches("running", 120.0)
            step.rows = rows_copied(workflow)
            step.rows_per_second = step.rows / max(time.monotonic() - self._scene.since, 0.001)
        with self._step("verify every row") as step:
            workflow = self._ask("verify-data", "verified_data", 60.0)
            step.rows_verified = self._rows_verified(workflow)
        self._simple("switch replicas", "switch-replicas", "switched_replicas")
        self._simple("switch primaries", "switch-primaries", "switched_primaries")
        self._simple("reverse", "reverse-traffic", "running")
        self._simple("switch again", "switch-primaries", "switched_primaries")
        with self._step("reconnect @primary"):
            assert self._application is not None  # noqa: S101 - started above
            self._application.aim("@primary", "@replica")
            time.sleep(DWELL_SECONDS)
        self._simple("cut over", "cutover", "cutover")
        self._simple("reverse the cutover", "reverse-cutover", "reversed_cutover")
        self._simple("cut over again", "cutover", "cutover")
        self._simple("complete", "complete", "completed")
        with self._step("check the ledger"):
            self._application.stop()
            with self._connect("@primary") as connection:
                self.losses = self.ledger.losses(connection)

    losses: list[str]

    def report(self, begun: float, failure: str) -> Report:
        """The verdict over what happened so far."""
        application = self._application
        errors = application.meter.errors if application else []
        losses = getattr(self, "losses", ["the walk did not get as far as the ledger"])
        return Report(
            ok=not failure and not errors and not losses,
            flavor=str(self._ready["flavor"]),
            engine=str(self._ready["engine"]),
            steps=[asdict(result) for result in self.results],
            commits=self.ledger.commits,
            statements=application.meter.statements if application else 0,
            client_errors=len(errors),
            errors=most_common(errors),
            rows_lost=len(losses),
            losses=losses[:20],
            longest_stall_ms=round(application.meter.longest * 1000, 1) if application else 0.0,
            total_seconds=round(time.monotonic() - begun, 1),
            failure=failure,
        )

    # -- how a step is done ---------------------------------------------------------------------------

    def _simple(self, name: str, action: str, state: str) -> None:
        with self._step(name):
            self._ask(action, state, 30.0)
        self._dwell(DWELL_SECONDS)

    def _dwell(self, seconds: float) -> None:
        """Let the application run; what it feels counts for the step just done."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._tick()
            time.sleep(0.1)
        if self._application is not None:
            longest, count = self._application.meter.lap()
            last = self.results[-1]
            last.longest_stall_ms = round(max(last.longest_stall_ms, longest * 1000), 1)
            last.statements += count

    @contextmanager
    def _step(self, name: str) -> Generator[StepResult]:
        result = StepResult(name)
        self._scene.current = name
        self._scene.since = begun = time.monotonic()
        if self._application is not None:
            self._application.meter.lap()
        yield result
        result.seconds = round(time.monotonic() - begun, 2)
        result.rows_per_second = round(result.rows_per_second)
        result.state = str(self._scene.workflow.get("state", ""))
        if self._application is not None:
            longest, result.statements = self._application.meter.lap()
            result.longest_stall_ms = round(longest * 1000, 1)
        self.results.append(result)
        self._view.finished(result)

    def _ask(self, action: str, state: str, timeout_seconds: float) -> dict[str, Any]:
        self._client.workflow_action(self._organization, DATABASE, self._number, action)
        return self._workflow_reaches(state, timeout_seconds)

    def _workflow_reaches(self, state: str, timeout_seconds: float) -> dict[str, Any]:
        """Follow the workflow until it is in ``state``; its rows feed the picture."""
        deadline = time.monotonic() + timeout_seconds
        rate = Rate()
        passed: list[str] = []
        while True:
            workflow = self._client.get_workflow(self._organization, DATABASE, self._number)
            self._scene.workflow = workflow
            now = time.monotonic()
            self._scene.rate = rate.see(rows_copied(workflow))
            current = str(workflow["state"])
            if not passed or passed[-1] != current:
                passed.append(current)
            if current == state:
                self._scene.rate = 0.0
                return workflow
            if current in {"error", "stopped"} or now > deadline:
                why = workflow["workflow_errors"] or "no error is told"
                raise DemoFailedError(f"wanted {state}, came by {' → '.join(passed)}: {why}")
            self._tick()
            time.sleep(POLL_SECONDS)

    def _rows_verified(self, workflow: dict[str, Any]) -> int:
        vdiff = workflow["vdiff"]
        if not vdiff or vdiff["has_mismatch"] or vdiff["state"] != "completed":
            raise DemoFailedError(f"verification did not complete without a difference: {vdiff}")
        return int(vdiff["rows_compared"])

    def _await(self, what: str, get: Callable[[], dict[str, Any]], state: str) -> None:
        self._until(what, lambda: get()["state"] == state)

    def _until(self, what: str, holds: Callable[[], bool], timeout_seconds: float = 120.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not holds():
            if time.monotonic() > deadline:
                raise DemoFailedError(f"the {what} was not ready after {timeout_seconds} s")
            self._tick()
            time.sleep(0.1)

    def _tick(self) -> None:
        if self._application is None:
            return
        scene, meter = self._scene, self._application.meter
        scene.clients, scene.errors, scene.statements = (
            self._application.clients,
            len(meter.errors),
            meter.statements,
        )
        since, before = self._felt
        now = time.monotonic()
        if now - since >= 1.0:
            scene.statements_per_second = (meter.statements - before) / (now - since)
            self._felt = (now, meter.statements)

    # -- data and application -------------------------------------------------------------------------

    def _address(self, role: str) -> Address:
        made = self._client.create_password(
            self._organization, DATABASE, "main", name=f"demo-{role}", role=role
        )
        ready = self._ready
        return Address(
            str(ready["gateway_host"]), int(ready["gateway_port"]), str(ready["ca_file"]),
            str(made["username"]), str(made["plain_text"]),
        )  # fmt: skip

    def _connect(self, schema: str) -> pymysql.connections.Connection[Any]:
        a = self._admin
        return pymysql.connect(
            host=a.host, port=a.port, user=a.user, password=a.password, database=schema,
            ssl={"ca": a.ca_file}, local_infile=True,
        )  # fmt: skip

    def _load(self) -> int:
        self._admin = self._address("admin")
        with tempfile.TemporaryDirectory() as scratch, self._connect(SOURCE) as connection:
            engine = str(self._ready["engine"])
            return sum(load(connection, dataset, Path(scratch), engine=engine) for dataset in DATASETS)

    def _start_application(self) -> None:
        with self._connect(SOURCE) as connection, self._connect(f"{SOURCE}@replica") as replica:
            self.ledger.read_before(connection, DELAYED_FLIGHTS)
            self._until("replica", lambda: self._flights(replica) == self.ledger.flights_before)
        self._application = Application(
            self._address("readwriter"), SOURCE, self.ledger, self._writers, self._readers
        )
        self._application.start()

    @staticmethod
    def _flights(connection: pymysql.connections.Connection[Any]) -> int:
        with connection.cursor() as cursor:
            try:
                cursor.execute("SELECT COUNT(*) FROM flights")
            except pymysql.err.ProgrammingError:  # the replica has not created the table yet
                return 0
            row = cursor.fetchone()
            connection.commit()
            return int(row[0]) if row else 0
