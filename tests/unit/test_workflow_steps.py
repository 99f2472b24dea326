"""Every step of every plan, from the code's own list: interrupted, failed, undone, while a client writes.

The servers are in memory (tests/support/workflow_world.py), the store is a real one. Each test ends with the
same question: is every row that a client was told is written on the side that owns writes?
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.model.movers import Phase
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.vschema import parse
from homeworld.store.engine import open_engine
from homeworld.store.guards import facts
from homeworld.store.journal import StepStatus
from homeworld.store.migrate import upgrade
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows import trouble
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch
from homeworld.workflows.move_tables.context import Context, Ports
from homeworld.workflows.move_tables.handler import MoveTables
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.steps import Plan, Rest, Sort, Step
from tests.support.stores import Shop, TestClock, make_shop
from tests.support.workflow_world import (
    FakeEngine,
    FakeGateways,
    FakeMovers,
    FakePreconditions,
    FakeTools,
    World,
    failed,
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
        hooked = {name: _hooked(plan, hook) for name, plan in plans.items()}
        self.handler = MoveTables(ports, scene.preconditions, hooked)
        with scene.store.write() as tx:
            token = tx.leases.acquire(f"workflow:{scene.id}", "me", 1000.0)
        assert token is not None
        self.lease = Lease(f"workflow:{scene.id}", token, time.monotonic() + 1000.0)

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
            self.scene.gateways.expire()
            self.scene.publish()


BUSY = {
    S.PENDING, S.COPYING, S.VERIFYING_DATA, S.SWITCHING_REPLICAS, S.SWITCHING_PRIMARIES, S.REVERSING_TRAFFIC,
    S.REVERSING_TRAFFIC_FOR_CANCEL, S.CUTTING_OVER, S.CANCELLING,
}  # fmt: skip


def _hooked(plan: Plan[Context], hook: Hook) -> Plan[Context]:
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
    def new(cls, store: Store) -> Scene:
        """Just asked for, with some rows."""
        with store.write() as tx:
            shop = make_shop(tx)
            tx.keyspaces.update(shop.target.id, vschema=VSCHEMA)
            workflow = tx.workflows.create(
                shop.database.id, shop.branch.id, "move", shop.source.id, shop.target.id, [TABLE]
            )
        world = World(shop.branch.id, rows={("shop", TABLE): {}})
        scene = cls(store, shop, workflow.id, world)
        for _ in range(3):
            scene.write()
        return scene

    def copy(self, store: Store) -> Scene:
        """The same in a copy of its store."""
        made = Scene(store, self.shop, self.id, deepcopy(self.world))
        made.name = self.name
        return made

    def publish(self) -> None:
        with self.store.read() as tx:
            self.gateways.take(tx.routes.rules(self.shop.branch.id))

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
        assert not self.world.locked
        keyspace, _, table = self.gateways.rules.get(self.name, self.name).partition(".")
        rows = self.world.rows[keyspace, table]
        lost = {key for _, key in self.world.acknowledged if int(key) not in rows}
        assert not lost, f"rows {sorted(lost)} are lost"
        for (_, key), value in self.world.acknowledged.items():
            assert rows[int(key)] == value
        with self.store.read() as tx:
            assert self.gateways.rules == tx.routes.rules(self.shop.branch.id), "published is what is stored"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(steps_switch, "BETWEEN_SECONDS", 0.0)


def _hurry(connection: Any, _record: object) -> None:
    # Nobody pulls the plug here: what a test kills is a process, and SQLite's file outlives that.
    connection.execute("PRAGMA synchronous=OFF")


def open_store(path: Path) -> Store:
    store = Store(open_engine(f"sqlite:///{path}"), TestClock())
    event.listen(store.engine, "connect", _hurry)
    return store


class Scenes:
    """Makes scenes; each beginning is walked to once, and copied from then on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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
        return Scene.new(self.copy_of(self.template)[1])

    def at(self, plan: str) -> Scene:
        """A scene in which the plan is about to begin."""
        if plan not in self.begun:
            path, store = self.copy_of(self.template)
            scene = Scene.new(store)
            bring(scene, plan)
            with store.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
            store.close()
            self.begun[plan] = (path, scene)
        path, scene = self.begun[plan]
        return scene.copy(self.copy_of(path)[1])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def make_scene(scenes: Scenes) -> Callable[[], Scene]:
    return scenes.new


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


def test_every_plan_has_a_beginning_here() -> None:
    assert set(BEGINNINGS) == set(PLANS)


def bring(scene: Scene, plan: str) -> None:
    """Walk to where the plan is about to begin."""
    if plan == d.START:
        return
    way, begin, _, _ = BEGINNINGS[plan]
    process = Process(scene)
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


@pytest.mark.parametrize("plan", BEGINNINGS)
def test_undisturbed_it_ends_where_it_should_and_no_row_is_lost(scenes: Scenes, plan: str) -> None:
    scene = scenes.at(plan)
    performed: list[str] = []

    def note(when: str, step: str) -> None:
        if when == "before":
            performed.append(step)

    process = Process(scene, writing(scene, note))
    process.run()
    assert scene.state is BEGINNINGS[plan][2]
    assert scene.workflow.workflow_errors == ""
    assert performed == [step.name for step in PLANS[plan].steps]
    scene.write()
    process.run()
    scene.check()


# Gateways that outlive the executor matter where they hold.
KILLS = [
    pytest.param(plan, step, when, gateways_too, id=f"{plan}-{when}-{step}{'' if gateways_too else '-alone'}")
    for plan, step in STEPS
    for when in ("before", "after")
    for gateways_too in ((True, False) if plan in (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES) else (True,))
]


@pytest.mark.parametrize(("plan", "step", "when", "gateways_too"), KILLS)
def test_killed_at_any_step_it_ends_the_same_and_no_row_is_lost(
    scenes: Scenes, plan: str, step: str, when: str, gateways_too: bool
) -> None:
    scene = scenes.at(plan)

    def kill(now: str, at: str) -> None:
        if (now, at) == (when, step):
            raise Died

    first = Process(scene, writing(scene, kill))
    with pytest.raises(Died):
        first.run()
    first.die(gateways_too=gateways_too)
    scene.write()  # gateways that live on still hold
    scene.gateways.expire()
    scene.write()  # and then serve what they were last given
    second = Process(scene, writing(scene))
    second.run()
    assert scene.state is BEGINNINGS[plan][2]
    scene.write()
    second.run()
    scene.check()


@pytest.mark.parametrize(("plan", "step"), STEPS)
def test_a_step_that_fails_once_is_undone_or_repeated(scenes: Scenes, plan: str, step: str) -> None:
    scene = scenes.at(plan)
    before = essence(scene)
    failures: list[str] = []

    def fail(when: str, at: str) -> None:
        if when == "after" and at == step and not failures:
            failures.append(at)
            raise HomeworldError("boom")

    process = Process(scene, writing(scene, fail))
    process.run()
    _, _, end, early = BEGINNINGS[plan]
    names = [s.name for s in PLANS[plan].steps]
    # The commit step's own transaction took place before the failure after it: only forward.
    committed = early is None or PLANS[plan].commit in names[: names.index(step) + 1]
    if plan == d.START:
        committed = False
    assert scene.state is (end if committed else early)
    if not committed:
        assert "boom" in scene.workflow.workflow_errors
        assert essence(scene) == before, "everything is as it was"
    scene.write()
    process.run()
    scene.check()


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


# A resting state has no error: it is settled by trying for ever.
@pytest.mark.parametrize("plan", [plan for plan in BEGINNINGS if plan != d.SETTLE])
def test_a_step_that_always_fails_ends_in_an_error_that_retry_mends(scenes: Scenes, plan: str) -> None:
    scene = scenes.at(plan)
    last = PLANS[plan].steps[-1].name
    broken = [True]

    def fail(when: str, at: str) -> None:
        if broken[0] and when == "before" and at == last:
            raise HomeworldError("still broken")

    process = Process(scene, writing(scene, fail))
    process.run()
    assert scene.state is S.ERROR
    assert "still broken" in scene.workflow.workflow_errors
    assert scene.workflow.may_retry
    assert not scene.gateways.holds, "nobody waits for a person"
    assert not scene.world.locked
    broken[0] = False
    scene.go(process, T.RETRY)
    assert scene.state is BEGINNINGS[plan][2]
    scene.check()


def test_an_undo_that_fails_is_repeated_and_then_told(scenes: Scenes) -> None:
    scene = scenes.at(d.START)
    broken = [True]

    def fail(when: str, at: str) -> None:
        if broken[0] and (
            (when, at) == ("before", "publish") or (when, at) == ("undo", "make target tables")
        ):
            raise HomeworldError("broken")

    process = Process(scene, fail)
    process.run()
    assert scene.state is S.ERROR
    assert "undoing make target tables" in scene.workflow.workflow_errors
    broken[0] = False
    scene.go(process, T.RETRY)
    assert scene.state is S.ERROR, "the undo goes on, and says why it began"
    assert ("shop_sharded", TABLE) not in scene.world.rows
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()


def test_the_whole_walk_with_a_client_that_never_stops(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene, writing(scene))
    process.run()
    for _ in range(5):
        scene.go(process, T.SWITCH_PRIMARIES, T.REVERSE_TRAFFIC)
        scene.check()
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA
    scene.go(process, T.SWITCH_REPLICAS, T.SWITCH_PRIMARIES)
    scene.name = f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER)
    assert ("shop", TABLE) not in scene.world.rows
    assert scene.gateways.rules == {}
    scene.go(process, T.REVERSE_CUTOVER)
    assert scene.gateways.rules[f"shop.{TABLE}"] == f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER)
    assert scene.gateways.rules == {}
    scene.go(process, T.COMPLETE)
    assert scene.state is S.COMPLETED
    assert not scene.world.sidecars
    assert scene.waited > 0, "the client met holds"
    scene.check()


def test_cancel_takes_everything_back_from_where_traffic_is(make_scene: Callable[[], Scene]) -> None:
    for way in ((), (T.VERIFY_DATA,), (T.SWITCH_REPLICAS,), (T.SWITCH_PRIMARIES,)):
        scene = make_scene()
        before = essence(scene)
        process = Process(scene, writing(scene))
        process.run()
        scene.go(process, *way, T.CANCEL)
        assert scene.state is S.CANCELLED
        assert essence(scene)[:3] == before[:3]  # type: ignore[index]
        assert not scene.world.sequences
        assert not scene.world.sidecars
        assert not scene.workflow.primaries_switched
        scene.check()


def test_cancel_while_starting_or_copying(make_scene: Callable[[], Scene]) -> None:
    for step in PLANS[d.START].steps:
        scene = make_scene()
        before = essence(scene)

        def kill(when: str, at: str, name: str = step.name) -> None:
            if (when, at) == ("after", name):
                raise Died

        first = Process(scene, kill)
        with pytest.raises(Died):
            first.run()
        first.die(gateways_too=True)
        scene.go(Process(scene), T.CANCEL)
        assert scene.state is S.CANCELLED
        assert essence(scene)[:3] == before[:3]  # type: ignore[index]
        scene.check()


def test_complete_right_after_reverse_cutover_settles_what_was_asked(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.SWITCH_PRIMARIES, T.CUTOVER)
    scene.ask(T.REVERSE_CUTOVER)
    scene.ask(T.COMPLETE)
    process.run()
    assert scene.workflow.settled
    assert scene.gateways.rules[TABLE] == f"shop_sharded.{TABLE}"


def test_a_hold_that_is_not_had_in_time_changes_nothing(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    scene.gateways.stuck = True
    process = Process(scene, writing(scene))
    process.run()
    assert scene.state is S.RUNNING
    assert "did not end in time" in scene.workflow.workflow_errors
    scene.gateways.stuck = False
    scene.go(process, T.SWITCH_PRIMARIES)
    assert scene.state is S.SWITCHED_PRIMARIES
    assert scene.workflow.workflow_errors == ""
    scene.check()


def test_a_hold_that_a_gateway_gave_up_before_the_commit_fails_the_switch(
    scenes: Scenes,
) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)

    def expire(when: str, step: str) -> None:
        if (when, step) == ("after", "read positions"):
            scene.gateways.expire()

    process = Process(scene, writing(scene, expire))
    process.run()
    assert scene.state is S.RUNNING
    assert "released the hold" in scene.workflow.workflow_errors
    scene.check()


def test_a_straggler_between_commit_and_publication_is_swept_to_the_target(
    scenes: Scenes,
) -> None:
    for plan in (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES):
        scene = scenes.at(plan)
        straggled: list[int] = []

        def straggle(when: str, step: str, scene: Scene = scene, straggled: list[int] = straggled) -> None:
            if (when, step) == ("before", "publish"):
                scene.gateways.expire()
                scene.world.locked.clear()  # as if the lock's connection had been lost, too
                written = scene.world.written
                scene.write()
                straggled.append(scene.world.written - written)

        process = Process(scene, straggle)
        process.run()
        assert straggled == [1]
        assert scene.state is BEGINNINGS[plan][2]
        process.run()
        scene.check()


def test_lagging_replicas_hold_a_switch_back(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_REPLICAS)
    scene.engine.lagging = True
    process = Process(scene)
    process.run()
    assert scene.state is S.RUNNING
    assert "lags" in scene.workflow.workflow_errors
    assert not scene.workflow.replicas_switched


def test_preconditions_are_asked_again_before_anything_is_made(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    scene.preconditions.found = ("table orders has the trigger t1", "and more")
    process = Process(scene)
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.workflow_errors == "table orders has the trigger t1; and more"
    assert ("shop_sharded", TABLE) not in scene.world.rows
    scene.preconditions.found = ()
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING


def test_a_target_table_that_got_rows_meanwhile_is_neither_used_nor_dropped(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    scene.world.rows["shop_sharded", TABLE] = {1: "somebody's"}
    process = Process(scene)
    process.run()
    assert scene.state is S.ERROR
    assert "is not empty" in scene.workflow.workflow_errors
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED
    assert scene.world.rows["shop_sharded", TABLE] == {1: "somebody's"}


def test_an_executor_whose_lease_was_taken_cannot_commit(scenes: Scenes) -> None:
    for step in PLANS[d.SWITCH_PRIMARIES].steps:
        scene = scenes.at(d.SWITCH_PRIMARIES)
        first: Process

        def take(when: str, at: str, scene: Scene = scene, name: str = step.name) -> None:
            if (when, at) == ("before", name):
                with scene.store.write() as tx:
                    assert tx.leases.acquire(f"workflow:{scene.id}", "me", 1000.0)

        first = Process(scene, writing(scene, take))
        with pytest.raises(FencedError):
            first.run()
        first.handler.let_go(scene.id)
        second = Process(scene, writing(scene))
        second.run()
        assert scene.state is S.SWITCHED_PRIMARIES
        scene.write()
        second.run()
        scene.check()


def test_a_failing_stream_is_restarted_under_a_new_epoch(
    make_scene: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "PATIENCE_SECONDS", 0.0)
    scene = make_scene()
    process = Process(scene)
    process.run()
    epoch = scene.workflow.epoch
    for _ in range(d.FAILURES - 1):
        mover = process.movers.running(scene.id, "forward")
        assert mover is not None
        mover.fault = failed("lost connection")
        process.run()
        process.run()
    assert scene.state is S.RUNNING
    assert scene.workflow.epoch > epoch
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = failed("lost connection")
    process.run()
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.workflow_errors == "lost connection"
    assert scene.workflow.may_retry
    assert scene.workflow.lag_seconds is None
    scene.write()
    scene.go(process, T.RETRY)
    process.run()
    assert scene.state is S.RUNNING
    scene.check()


def test_an_outage_is_waited_for_and_nothing_is_undone(scenes: Scenes) -> None:
    scene = scenes.at(d.START)
    left = [d.FAILURES * 2]

    def fail(when: str, at: str) -> None:
        if when == "before" and at == "make sequences" and left[0]:
            left[0] -= 1
            raise UnavailableError("the server does not answer")
        assert when != "undo"

    Process(scene, fail).run()
    assert left == [0]
    assert scene.state is S.RUNNING
    scene.check()


def test_a_stream_that_cannot_go_on_says_that_only_copying_anew_helps(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = failed("binlogs are purged", retryable=False)
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.may_restart
    assert not scene.workflow.may_retry
    assert process.movers.running(scene.id, "forward") is None
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED


def test_ddl_stops_the_workflow_and_retry_is_offered_once_the_tables_fit(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = replace(failed(""), phase=Phase.DDL, ddl="ALTER TABLE orders ADD x INT")
    scene.tools.unfit = "column 'x' is missing on the target"
    process.run()
    assert scene.state is S.STOPPED
    process.run()
    process.run()
    assert not scene.workflow.may_retry
    assert "ALTER TABLE orders ADD x INT" in scene.workflow.workflow_errors
    assert "column 'x' is missing" in scene.workflow.workflow_errors
    scene.tools.unfit = ""
    process.run()
    assert scene.workflow.may_retry
    assert scene.workflow.workflow_errors == "ALTER TABLE orders ADD x INT"
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()


def test_differences_are_told_and_the_workflow_runs_on(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.world.rows["shop_sharded", TABLE][1] = "not what the source has"
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.RUNNING
    assert "1 differ" in scene.workflow.workflow_errors
    assert not scene.workflow.verified
    with scene.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([scene.id])[scene.id]
    assert vdiff.has_mismatch


def test_verification_goes_stale_with_any_restarted_stream(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.VERIFY_DATA)
    assert scene.workflow.verified
    process.die(gateways_too=False)
    Process(scene).run()
    assert scene.state is S.VERIFIED_DATA
    assert not scene.workflow.verified


def test_the_journal_has_every_step_of_a_finished_run(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    Process(scene).run()
    number = scene.workflow.facts["runs"]
    with scene.store.read() as tx:
        records = tx.journal.steps(scene.id, f"{d.SWITCH_PRIMARIES}:{number}")
    assert {record.step for record in records} == {step.name for step in PLANS[d.SWITCH_PRIMARIES].steps}
    assert {record.status for record in records} == {StepStatus.DONE}


def test_the_store_is_written_once_under_the_hold(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    commits: list[str] = []
    scene.store.listen(lambda: commits.append(",".join(scene.gateways.holds)))
    Process(scene).run()
    assert sum(1 for held in commits if held) == 1
    assert any(step.sort is Sort.COMMIT for step in PLANS[d.SWITCH_PRIMARIES].steps)
