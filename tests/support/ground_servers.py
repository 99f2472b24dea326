"""Where the scenarios of moves are played on the local engine: real servers, a real gateway, an executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from homeworld.model.engines import EngineKind
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from tests.support.move_scenarios import Writing
from tests.support.moving_shop import VSCHEMA, check, die_at, exists, fill, rules
from tests.support.stack import Application, Stack, wait


class OnServers:
    """Implements ``move_scenarios.Ground``."""

    engine_kind = EngineKind.LOCAL
    source, target = "shop", "target"

    def __init__(self, stack: Stack, *, shards: int = 2, replicas: int = 0) -> None:
        self.stack = stack
        self.workflow_id = ""
        stack.open(replicas=replicas)
        vschema = VSCHEMA if shards > 1 else None
        stack.add_keyspace(self.target, vschema, shards=shards, replicas=replicas)

    @property
    def store(self) -> Store:
        return self.stack.store

    def fill(self) -> None:
        fill(self.stack)

    def reasons(self, source: str, target: str) -> tuple[str, ...]:
        return self.stack.reasons(source, target, ["orders"])

    def move(self, source: str, target: str, **options: Any) -> None:
        self.workflow_id = self.stack.move(source, target, ["orders"], **options)
        assert self.reaches(State.RUNNING, State.ERROR).workflow_errors == ""

    def go(self, trigger: Trigger, state: State) -> Workflow:
        return self.stack.ask(self.workflow_id, trigger, state)

    def reaches(self, *states: State) -> Workflow:
        return self.stack.reaches(self.workflow_id, *states)

    def until(self, done: Callable[[Workflow], bool], what: str) -> Workflow:
        wait(lambda: done(self.stack.workflow(self.workflow_id)), what)
        return self.stack.workflow(self.workflow_id)

    def killed(self, trigger: Trigger, when: str, step: str) -> None:
        self.stack.stop_executor()
        self.stack.transition(self.workflow_id, trigger)
        die_at(self.stack, self.workflow_id, when, step)

    def go_on(self, *states: State) -> Workflow:
        self.stack.start_executor()
        return self.reaches(*states, State.ERROR)

    def application(self, schema: str, rows: Mapping[int, int] | None = None) -> Writing:
        application = Application(self.stack, schema=schema, rows=dict(rows or {}))
        application.start()
        return application

    def check(self, wanted: Mapping[int, int], keyspace: str) -> None:
        check(self.stack, dict(wanted), keyspace)

    def run(self, *statements: str, schema: str = "") -> list[tuple[Any, ...]]:
        return self.stack.run(*statements, schema=schema or self.source)

    def insert(self, sql: str) -> int:
        with self.stack.connect() as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return int(cursor.lastrowid or 0)

    def on_server(self, keyspace: str, sql: str) -> list[tuple[Any, ...]]:
        return self.stack.on_server(keyspace, sql)

    def exists(self, keyspace: str, table: str = "orders") -> bool:
        return exists(self.stack, keyspace, table)

    def rules(self) -> Mapping[str, str]:
        return rules(self.stack)
