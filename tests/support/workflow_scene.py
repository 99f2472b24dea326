"""Scenes for workflow steps: a shop, a workflow, the executor's process, a client that never stops writing.

See :mod:`tests.support.workflow_world` for the servers. A process can be killed at any step, by a hook that
raises :class:`Died`; what lived in it is gone then, the store and the servers are as they were.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from sqlalchemy import event

from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.vschema import parse
from homeworld.store.engine import open_engine
from homeworld.store.guards import facts
from homeworld.store.migrate import upgrade
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.context import Context, Ports
from homeworld.workflows.move_tables.handler import MoveTables
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.steps import Plan, Rest, Step
from tests.support.stores import Shop, TestClock, make_shop
from tests.support.workflow_world import (
    FakeEngine,
    FakeGateways,
    FakeMovers,
    FakePreconditions,
    FakeTools,
    World,
    make_fence,
)

S, T = State, Trigger
TABLE = "orders"
VSCHEMA = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {TABLE: {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
Hook = Callable[[str, str], None]


class Died(BaseException):
    """kill -9 of the process, here."""


class Process:
    """One executor's process, with the movers and locks that die with it."""

    def __init__(self, scene: Scene, hook: Hook = lambda _when, _step: None) -> None:
        self.scene = scene
        self.movers = FakeMovers(scene.world)
        world = scene.world
        ports = Ports(
            scene.store, scene.engine, scene.gateways, self.movers, make_fence(world), scene.publish,
            lambda: scene.tools,
        )  # fmt: skip
        plans = all_plans(scene.preconditions)
        self.handler = MoveTables(
            ports, scene.preconditions, {name: hooked(plan, hook) for name, plan in plans.items()}
        )
        self.lease = self.take()

    def take(self) -> Lease:
        """The workflow's lease, from whoever has it."""
        with self.scene.store.write() as tx:
            token = tx.leases.acquire(f"workflow:{self.scene.id}", "me", 1000.0)
        assert token is not None
        self.lease = Lease(f"workflow:{self.scene.id}", token, time.monotonic() + 1000.0)
        return self.lease

    def tick(self) -> Rest | None:
        return self.handler.tick(self.scene.id, self.lease)

    def run(self) -> None:
        """Until there is nothing to do."""
        for _ in range(300):
            if self.tick() is not None and self.scene.state not in BUSY:
                return
        raise AssertionError(f"still {self.scene.state}: {self.scene.workflow.workflow_errors}")

    def die(self, *, gateways_too: bool) -> None:
        """The process is gone; so are its movers and locks, and its gateways where they were in it."""
        self.scene.world.locked.clear()
        if gateways_too:
            self.scene.gateways.restart()
            self.scene.publish()


BUSY = {
    S.PENDING, S.COPYING, S.VERIFYING_DATA, S.SWITCHING_REPLICAS, S.SWITCHING_PRIMARIES, S.REVERSING_TRAFFIC,
    S.REVERSING_TRAFFIC_FOR_CANCEL, S.CUTTING_OVER, S.CANCELLING,
}  # fmt: skip


def hooked(plan: Plan[Context], hook: Hook) -> Plan[Context]:
    """The same plan, with the hook around each step."""

    def wrap(step: Step[Context]) -> Step[Context]:
        def perform(context: Context) -> None:
            hook("before", step.name)
            step.perform(context)
            hook("after", step.name)

        def undo(context: Context) -> None:
            hook("undo", step.name)
            step.undo(context)

        return replace(step, perform=perform, undo=undo)

    return replace(plan, steps=tuple(wrap(step) for step in plan.steps))


class Scene:
    """A shop with a workflow, a gateway, and a client that never stops writing."""

    def __init__(self, store: Store, shop: Shop, workflow_id: str, world: World) -> None:
        self.store = store
        self.shop = shop
        self.id = workflow_id
        self.world = world
        self.gateways = FakeGateways(self.world)
        self.engine = FakeEngine()
        self.tools = FakeTools(self.world)
        self.preconditions = FakePreconditions()
        self.name = f"shop.{TABLE}"
        self.waited = 0
        self.publish()

    @classmethod
    def world_of(cls, store: Store, shop: Shop) -> World:  # noqa: ARG003 - others ask the store
        """What outlives a process, at the beginning."""
        return World(shop.branch.id, rows={("shop", TABLE): {}})

    @classmethod
    def new(cls, store: Store) -> Self:
        """Just asked for, with some rows."""
        with store.write() as tx:
            shop = make_shop(tx)
            tx.keyspaces.update(shop.target.id, vschema=VSCHEMA)
            workflow = tx.workflows.create(
                shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, [TABLE]
            )
        scene = cls(store, shop, workflow.id, cls.world_of(store, shop))
        for _ in range(3):
            scene.write()
        return scene

    def process(self, hook: Hook = lambda _when, _step: None) -> Process:
        """An executor's process that works on it."""
        return Process(self, hook)

    def copy(self, store: Store) -> Self:
        """The same in a copy of its store."""
        made = type(self)(store, self.shop, self.id, deepcopy(self.world))
        made.name = self.name
        return made

    def publish(self) -> None:
        with self.store.read() as tx:
            self.gateways.take(tx.routes.rules(self.shop.branch.id), tx.routes.closing(self.shop.branch.id))

    def write(self) -> None:
        self.waited += not self.gateways.write(self.name, f"value {self.world.written}")

    @property
    def workflow(self) -> Workflow:
        with self.store.read() as tx:
            return tx.workflows.get(self.id)

    @property
    def state(self) -> State:
        return self.workflow.state

    def ask(self, trigger: Trigger) -> None:
        """As the API does."""
        workflow = self.workflow
        row = MOVE_TABLES.take(workflow.state, trigger, replace(facts(workflow), lag_low=True).holds)
        with self.store.write() as tx:
            tx.workflows.transition(workflow.id, workflow.state, row)

    def go(self, process: Process, *triggers: Trigger) -> None:
        for trigger in triggers:
            self.ask(trigger)
            process.run()

    def check(self) -> None:
        """Every acknowledged row is where writes go now; nothing is held or locked any more."""
        assert not self.gateways.holds
        assert not self.gateways.closed
        assert not self.world.locked
        keyspace, _, table = self.gateways.rules.get(self.name, self.name).partition(".")
        rows = self.world.rows[keyspace, table]
        lost = {key for _, key in self.world.acknowledged if int(key) not in rows}
        assert not lost, f"rows {sorted(lost)} are lost"
        for (_, key), value in self.world.acknowledged.items():
            assert rows[int(key)] == value
        with self.store.read() as tx:
            assert self.gateways.rules == tx.routes.rules(self.shop.branch.id), "published is what is stored"
            assert tx.routes.closing(self.shop.branch.id) is None


def _hurry(connection: Any, _record: object) -> None:
    # Nobody pulls the plug here: what a test kills is a process, and SQLite's file outlives that.
    connection.execute("PRAGMA synchronous=OFF")


def open_store(path: Path) -> Store:
    store = Store(open_engine(f"sqlite:///{path}"), TestClock())
    event.listen(store.engine, "connect", _hurry)
    return store


class Scenes:
    """Makes scenes; each beginning is walked to once, and copied from then on."""

    def __init__(self, folder: Path, kind: type[Scene] = Scene) -> None:
        self.folder = folder
        self.kind = kind
        self.template = folder / "template.db"
        engine = open_engine(f"sqlite:///{self.template}")
        upgrade(engine)
        engine.dispose()
        self.begun: dict[str, tuple[Path, Scene]] = {}
        self.count = 0

    def copy_of(self, path: Path) -> tuple[Path, Store]:
        self.count += 1
        copied = self.folder / f"{self.count}.db"
        shutil.copy(path, copied)
        return copied, open_store(copied)

    def new(self) -> Scene:
        return self.kind.new(self.copy_of(self.template)[1])

    def at(self, plan: str) -> Scene:
        """A scene in which the plan is about to begin."""
        if plan not in self.begun:
            path, store = self.copy_of(self.template)
            scene = self.kind.new(store)
            bring(scene, plan)
            with store.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            store.close()
            self.begun[plan] = (path, scene)
        path, scene = self.begun[plan]
        return scene.copy(self.copy_of(path)[1])


# plan: (what is asked on the way to where it begins, what begins it, its end, its end if it fails early)
RUNNING: tuple[Trigger, ...] = ()
BEGINNINGS: dict[str, tuple[tuple[Trigger, ...], Trigger | None, State, State | None]] = {
    d.START: ((), None, S.RUNNING, S.ERROR),
    d.SWITCH_REPLICAS: (RUNNING, T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS, S.RUNNING),
    d.SWITCH_PRIMARIES: (RUNNING, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES, S.RUNNING),
    d.REVERSE_REPLICAS: ((T.SWITCH_REPLICAS,), T.REVERSE_TRAFFIC, S.RUNNING, S.SWITCHED_REPLICAS),
    d.REVERSE_PRIMARIES: ((T.SWITCH_PRIMARIES,), T.REVERSE_TRAFFIC, S.RUNNING, S.SWITCHED_PRIMARIES),
    d.CUT_OVER: ((T.SWITCH_PRIMARIES,), T.CUTOVER, S.CUTOVER, S.SWITCHED_PRIMARIES),
    d.CANCEL: ((T.VERIFY_DATA,), T.CANCEL, S.CANCELLED, None),
    d.SETTLE: ((T.SWITCH_PRIMARIES, T.CUTOVER), T.REVERSE_CUTOVER, S.REVERSED_CUTOVER, None),
}
PLANS = all_plans(FakePreconditions())
STEPS = [(plan.name, step.name) for plan in PLANS.values() for step in plan.steps]


def bring(scene: Scene, plan: str) -> None:
    """Walk to where the plan is about to begin."""
    if plan == d.START:
        return
    way, begin, _, _ = BEGINNINGS[plan]
    process = scene.process()
    process.run()
    scene.go(process, *way)
    if plan in (d.CUT_OVER, d.SETTLE):
        scene.name = f"shop_sharded.{TABLE}"
    scene.write()
    assert begin is not None
    scene.ask(begin)
    process.die(gateways_too=False)


def writing(scene: Scene, act: Hook = lambda _when, _step: None) -> Hook:
    """A client that writes around every step."""

    def hook(when: str, step: str) -> None:
        scene.write()
        act(when, step)
        scene.write()

    return hook


def essence(scene: Scene) -> object:
    """What an undone run has to leave as it found it."""
    workflow = scene.workflow
    with scene.store.read() as tx:
        rules = tx.routes.rules(scene.shop.branch.id)
        keyspaces = (scene.shop.source, scene.shop.target)
        vschemas = [parse(tx.keyspaces.get(keyspace.id).vschema) for keyspace in keyspaces]
    tables = sorted(key for key in scene.world.rows)
    switched = workflow.replicas_switched, workflow.primaries_switched
    made = {name: value for name, value in workflow.facts.items() if name.startswith("made")}
    return rules, vschemas, tables, switched, made, sorted(scene.world.sequences)
