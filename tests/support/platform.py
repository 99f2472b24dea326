"""A whole installation for scenarios: ``homeworld up`` as a child process, asked by its API and by MySQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from homeworld.cli.installation import Installation
from homeworld.client import ApiError, HomeworldClient
from tests.support.bank import TABLES, VSCHEMA, Login
from tests.support.mysqld import free_port

ACTIONS = {
    "verified_data": "verify-data",
    "switched_replicas": "switch-replicas",
    "switched_primaries": "switch-primaries",
    "running": "reverse-traffic",
    "cutover": "cutover",
    "reversed_cutover": "reverse-cutover",
    "completed": "complete",
}
UNDER_WAY = {
    "verifying_data",
    "switching_replicas",
    "switching_primaries",
    "reversing_traffic",
    "cutting_over",
    "cancelling",
}
# What keeps its state while it is under way, so that a look does not tell whether it came back.
SILENT = {"reversed_cutover", "completed"}


class Platform:
    """One installation with one database ``shop`` and, after :meth:`shard`, a sharded keyspace beside it."""

    DATABASE = "shop"
    TARGET = "shop_sharded"

    def __init__(self, data_dir: Path, mysqld: Path | None = None, replicas: int = 1, *options: str) -> None:
        # Of ours, not the kernel's: those it may give to somebody else while homeworld is down.
        chosen: tuple[str, ...] = ("--replicas", str(replicas), *options)
        for option in ("--api-port", "--gateway-port", "--http-port"):
            chosen = (option, str(free_port()), *chosen)
        if mysqld is not None:
            chosen += ("--mysqld", str(mysqld))
        self.installation = Installation(data_dir, chosen)
        self.organization = ""
        self.number = 0

    def start(self) -> None:
        """Start, or start again after :meth:`kill`, on the same ports as in production."""
        self.organization = str(self.installation.start()["organization"])

    @property
    def client(self) -> HomeworldClient:
        """A client of the present process."""
        ready = self.installation.ready
        return HomeworldClient(ready["api_url"], ready["service_token_id"], ready["service_token"])

    def until(self, what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until ``holds``; fails the test with ``what`` after the deadline."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            time.sleep(0.05)

    def make_database(self) -> None:
        """The database, ready."""
        client = self.client
        client.create_database(self.organization, self.DATABASE)
        self.until(
            "database", lambda: client.get_database(self.organization, self.DATABASE)["state"] == "ready"
        )

    def make_keyspace(
        self, shards: int = 2, vschema: dict[str, Any] | None = None, seconds: float = 60.0
    ) -> None:
        """The sharded keyspace with its vschema; the branch gets safe migrations."""
        client, at = self.client, (self.organization, self.DATABASE, "main")
        client.create_keyspace(*at, self.TARGET, shards=shards)
        self.until("keyspace", lambda: bool(client.get_keyspace(*at, self.TARGET)["ready"]), seconds)
        client.update_vschema(*at, self.TARGET, vschema or VSCHEMA)
        client.enable_safe_migrations(*at)

    def login(self, role: str = "admin") -> Login:
        """A fresh password of the branch."""
        made = self.client.create_password(
            self.organization, self.DATABASE, "main", name=f"test-{role}-{time.monotonic_ns()}", role=role
        )
        ready = self.installation.ready
        return Login(
            str(ready["gateway_host"]), int(ready["gateway_port"]), made["username"], made["plain_text"]
        )

    def begin(self, tables: list[str] | None = None, **options: Any) -> None:
        """Create the workflow."""
        made = self.client.create_workflow(
            self.organization, self.DATABASE, name="move", source_keyspace=self.DATABASE,
            target_keyspace=self.TARGET, tables=tables or TABLES, **options,
        )  # fmt: skip
        self.number = int(made["number"])

    def workflow(self) -> dict[str, Any]:
        """The workflow as the API tells it."""
        return self.client.get_workflow(self.organization, self.DATABASE, self.number)

    def reaches(self, state: str, seconds: float = 60.0) -> dict[str, Any]:
        """Wait for a state."""
        deadline = time.monotonic() + seconds
        while True:
            workflow = self.workflow()
            if workflow["state"] == state:
                return workflow
            told = f"{workflow['state']}, wanted {state}: {workflow['workflow_errors']}"
            assert workflow["state"] not in {"error", "stopped"}, told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)

    def ask(self, state: str, seconds: float = 60.0) -> dict[str, Any]:
        """Ask for the action that leads to ``state``, and go on as :meth:`comes_to`."""
        self.act(ACTIONS[state])
        return self.comes_to(state, max(seconds, 120.0))

    def persist(self, state: str, seconds: float = 120.0) -> dict[str, Any]:
        """Ask for the action that leads to ``state``, and go on as :meth:`comes_to`."""
        self.act(ACTIONS[state])
        return self.comes_to(state, seconds)

    def comes_to(self, state: str, seconds: float = 120.0) -> dict[str, Any]:
        """Wait for a state, and ask anew where the workflow came back with a reason, because a server or a
        process that a test has ended was not back yet, or this machine was too busy for a hold's time.
        """
        if state in SILENT:
            return self.reaches(state, seconds)
        deadline = time.monotonic() + seconds
        while True:
            workflow = self.workflow()
            if workflow["state"] == state:
                return workflow
            told = f"{workflow['state']}, wanted {state}: {workflow['workflow_errors']}"
            assert workflow["state"] not in {"error", "stopped"}, told
            assert time.monotonic() < deadline, told
            if workflow["state"] not in UNDER_WAY:
                assert workflow["workflow_errors"], told
                assert "differ" not in workflow["workflow_errors"], told
                time.sleep(1)
                self.act(ACTIONS[state])
            time.sleep(0.05)

    def verify(self, seconds: float = 120.0) -> None:
        """Verify, anew where a server that a test has killed was not back yet (the workflow says so)."""
        deadline = time.monotonic() + seconds
        while True:
            self.act("verify-data")
            self.until("verification", lambda: self.workflow()["state"] != "verifying_data", seconds)
            workflow = self.workflow()
            if workflow["state"] == "verified_data":
                return
            assert time.monotonic() < deadline, workflow["workflow_errors"]
            assert "differ" not in workflow["workflow_errors"], workflow["workflow_errors"]
            time.sleep(1)

    def act(self, action: str) -> None:
        """Ask for an action, anew where the API was not told of the streams' lag for a while."""
        deadline = time.monotonic() + 60
        while True:
            try:
                self.client.workflow_action(self.organization, self.DATABASE, self.number, action)
            except ApiError as error:
                if "lag" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def cancel(self, seconds: float = 60.0) -> dict[str, Any]:
        """Cancel and wait."""
        self.client.cancel_workflow(self.organization, self.DATABASE, self.number)
        return self.reaches("cancelled", seconds)
