"""Where the scenarios of moves are played on Vitess: a real cluster, and processes that can be killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from homeworld.model.engines import EngineKind
from homeworld.model.ports import Preconditions
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.move_tables.vitess_plans import vitess_plans
from homeworld.workflows.steps import Plan
from tests.support.move_scenarios import PAUSE, Writing
from tests.support.moving_shop import dying
from tests.support.vitess_moves import PATIENCE, SOURCE, TARGET, Acting, Application, MovingShop, check


class OnVitess:
    """Implements ``move_scenarios.Ground``."""

    engine_kind = EngineKind.VITESS
    source = SOURCE

    def __init__(
        self,
        shop: MovingShop,
        target: str = TARGET,
        plans: Callable[[Preconditions], Mapping[str, Plan[Context]]] = vitess_plans,
    ) -> None:
        self.shop, self.target, self._plans = shop, target, plans
        self._acting: Acting | None = None

    @property
    def acting(self) -> Acting:
        """The process that carries the workflow out."""
        assert self._acting is not None
        return self._acting

    @property
    def workflow_id(self) -> str:
        return self.acting.workflow

    @property
    def store(self) -> Store:
        return self.shop.store

    def fill(self) -> None:
        self.shop.fill()

    def reasons(self, source: str, target: str) -> tuple[str, ...]:
        return self.shop.reasons(source, target)

    def move(self, source: str, target: str, **options: Any) -> None:
        self._acting = Acting(self.shop, self.shop.move(source, target, **options), plans=self._plans)
        assert not self.acting.run(State.RUNNING)

    def go(self, trigger: Trigger, state: State) -> Workflow:
        return self.acting.go(trigger, state)

    def reaches(self, *states: State) -> Workflow:
        assert not self.acting.run(*states)
        return self.shop.workflow(self.workflow_id)

    def until(self, done: Callable[[Workflow], bool], what: str) -> Workflow:
        deadline = time.monotonic() + PATIENCE
        while not done(workflow := self.shop.workflow(self.workflow_id)):
            assert time.monotonic() < deadline, f"not in time: {what}: {workflow}"
            rest = self.acting.handler.tick(self.workflow_id, self.acting.lease)
            time.sleep(0.05 if rest else 0.0)
        return workflow

    def killed(self, trigger: Trigger, when: str, step: str) -> None:
        self.shop.ask(self.workflow_id, trigger)
        time.sleep(PAUSE)
        self._acting = Acting(self.shop, self.workflow_id, dying(when, step), plans=self._plans)
        assert self.acting.run()
        self.acting.die()
        time.sleep(PAUSE)

    def go_on(self, *states: State) -> Workflow:
        self._acting = Acting(self.shop, self.workflow_id, plans=self._plans)
        return self.reaches(*states)

    def application(self, schema: str, rows: Mapping[int, int] | None = None) -> Writing:
        application = Application(self.shop, schema, rows)
        application.start()
        return application

    def check(self, wanted: Mapping[int, int], keyspace: str) -> None:
        check(self.shop, wanted, keyspace)

    def run(self, *statements: str, schema: str = "") -> list[tuple[Any, ...]]:
        return self.shop.run(*statements, schema=schema or self.source)

    def insert(self, sql: str) -> int:
        return self.shop.insert(sql)

    def on_server(self, keyspace: str, sql: str) -> list[tuple[Any, ...]]:
        return self.shop.on_server(keyspace, sql)

    def exists(self, keyspace: str, table: str = "orders") -> bool:
        return self.shop.exists(keyspace, table)

    def rules(self) -> Mapping[str, str]:
        """Those that are stored; vtgate's are the same."""
        stored = self.shop.rules()
        assert dict(self.shop.clusters.rules(self.shop.branch_id)) == stored
        return stored
