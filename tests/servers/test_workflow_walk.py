"""MoveTables on real servers of both flavours, through a real gateway, while an application writes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.engines import EngineKind
from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows.provisioning import Placement
from tests.support.ground_servers import OnServers
from tests.support.move_scenarios import (
    KILLS,
    SCENARIOS,
    Scenario,
    killed_at_a_step_it_ends_the_same,
    the_whole_walk,
)
from tests.support.moving_shop import ORDERS, VSCHEMA, begin, check, exists, rules
from tests.support.stack import Application, Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger


@pytest.fixture
def placement() -> Placement:
    """Where a test does not say otherwise, one server has all shards: the quickest to make."""
    return Placement.SHARED


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path, placement: Placement) -> Iterator[Stack]:
    made = Stack(engine, tmp_path, placement)
    made.start()
    yield made
    made.close()


def told(stack: Stack, workflow_id: str) -> tuple[set[str], bool]:
    """The states of all streams, and whether every table still shows the rows of its copy."""
    with stack.store.read() as tx:
        streams = tx.progress.streams_of([workflow_id])
        tables = tx.progress.tables_of([workflow_id])
    assert streams
    return {stream.state for stream in streams}, all(table.rows_copied > 0 for table in tables)


@pytest.fixture
def ground(stack: Stack) -> OnServers:
    """Where every engine's scenarios are played."""
    return OnServers(stack)


@pytest.mark.parametrize(
    ("placement", "shards", "replicas"),
    [(Placement.DEDICATED, 2, 0), (Placement.SHARED, 1, 1)],
    ids=["three-servers", "replicas"],
)
def test_the_whole_walk(stack: Stack, shards: int, replicas: int) -> None:
    ground = OnServers(stack, shards=shards, replicas=replicas)
    the_whole_walk(ground, shards)
    assert told(stack, ground.workflow_id) == ({"stopped"}, True)
    assert stack.on_server("target", "SELECT COUNT(*) FROM _homeworld.streams") == [(0,)] * shards


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_scenario(ground: OnServers, scenario: Scenario) -> None:
    scenario.play(ground)
    stack = ground.stack
    if stack.workflow(ground.workflow_id).state is S.CANCELLED:
        assert told(stack, ground.workflow_id) == ({"stopped"}, True)
        with stack.store.read() as tx:
            assert "auto_increment" not in str(tx.keyspaces.get(stack.keyspace("target").id).vschema)
            assert tx.queue.resources_with_work() == ()
        assert stack.move("shop", "target", ["orders"]), "another move may begin"


@pytest.mark.parametrize(
    ("plan", "when", "step"), KILLS[EngineKind.LOCAL], ids=map("-".join, KILLS[EngineKind.LOCAL])
)
def test_killed_at_a_step_it_ends_the_same(ground: OnServers, plan: str, when: str, step: str) -> None:
    killed_at_a_step_it_ends_the_same(ground, plan, when, step)


def test_shards_come_together_in_a_third_keyspace_behind_rules(stack: Stack) -> None:
    """From shards to a third keyspace, while clients use the first one's name by older rules."""
    workflow = begin(stack)
    for trigger, state in (
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.CUTOVER, S.CUTOVER),
        (T.REVERSE_CUTOVER, S.REVERSED_CUTOVER), (T.COMPLETE, S.COMPLETED),
    ):  # fmt: skip
        stack.ask(workflow, trigger, state)
    stack.add_keyspace("merged")
    application = Application(stack)
    application.start()
    workflow = stack.move("target", "merged", ["orders"])
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)
    for trigger, state in (
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.REVERSE_TRAFFIC, S.RUNNING),
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.CUTOVER, S.CUTOVER), (T.COMPLETE, S.COMPLETED),
    ):  # fmt: skip
        assert stack.ask(workflow, trigger, state).workflow_errors == ""
    check(stack, application.finish(), "merged")
    assert not exists(stack, "target")
    assert rules(stack)["shop.orders"] == "merged.orders"


def test_a_dead_mover_is_started_again(stack: Stack) -> None:
    workflow = begin(stack)
    mover = stack.movers.running(workflow, "forward")
    assert mover is not None
    epoch = stack.workflow(workflow).epoch
    os.kill(mover.pid, signal.SIGKILL)
    wait(lambda: stack.workflow(workflow).epoch > epoch, "a new mover")
    stack.run("INSERT INTO orders (customer, amount) VALUES (3, 30)")
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)


def test_a_new_executor_goes_on_where_the_old_one_stopped(stack: Stack) -> None:
    workflow = begin(stack)
    application = Application(stack)
    application.start()
    stack.stop_executor()
    assert stack.movers.running(workflow, "forward") is None
    time.sleep(0.2)
    stack.start_executor()
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    stack.stop_executor()
    stack.start_executor()
    stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING)
    check(stack, application.finish(), "shop")


def test_reasons_of_real_tables_are_told_all_at_once(stack: Stack) -> None:
    stack.open()
    stack.add_keyspace("target", VSCHEMA, shards=2)
    stack.run(
        ORDERS,
        "CREATE TABLE parents (id INT PRIMARY KEY)",
        "CREATE TABLE children (id INT PRIMARY KEY, up INT, FOREIGN KEY (up) REFERENCES parents (id))",
        "CREATE TABLE keyless (a INT)",
        "CREATE TABLE floats (a FLOAT PRIMARY KEY)",
        "CREATE VIEW recent AS SELECT id FROM orders",
        "CREATE TABLE triggered (id INT PRIMARY KEY)",
        "CREATE TRIGGER t1 BEFORE INSERT ON triggered FOR EACH ROW SET NEW.id = NEW.id + 1",
    )
    reasons = "\n".join(
        stack.reasons("shop", "target", ["orders", "children", "keyless", "floats", "triggered"])
    )
    for expected in (
        "view recent on shop/- uses table orders", "refers to table parents, which is left behind",
        "table keyless has no primary key", "FLOAT or DOUBLE", "has the trigger t1",
        "no primary vindex for table children",
    ):  # fmt: skip
        assert expected in reasons
    stack.on_server("shop", "DROP VIEW recent")
    assert stack.reasons("shop", "target", ["orders"]) == ()
    stack.on_server("shop", "SET GLOBAL binlog_row_image = 'MINIMAL'")
    assert any("binlog_row_image must be FULL" in r for r in stack.reasons("shop", "target", ["orders"]))
    stack.on_server("shop", "SET GLOBAL binlog_row_image = 'FULL'")
