"""MoveTables on real servers of both flavours, through a real gateway, while an application writes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.provisioning import Placement
from tests.support.moving_shop import ORDERS, ROWS, VSCHEMA, begin, check, die_at, exists, rules
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


@pytest.mark.parametrize(
    ("placement", "shards", "replicas"),
    [(Placement.DEDICATED, 2, 0), (Placement.SHARED, 1, 1)],
    ids=["three-servers", "replicas"],
)
def test_the_whole_walk(stack: Stack, shards: int, replicas: int) -> None:
    """Every state, several times there and back."""
    workflow = begin(stack, shards=shards, replicas=replicas)
    application = Application(stack)
    application.start()
    assert stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA).verified
    with stack.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([workflow])[workflow]
        tables = tx.progress.tables_of([workflow])
        streams = tx.progress.streams_of([workflow])
    assert (vdiff.state, vdiff.has_mismatch) == ("completed", False)
    assert vdiff.rows_compared >= ROWS
    assert [table.name for table in tables] == ["orders"]
    assert tables[0].rows_copied >= ROWS
    assert len(streams) == shards
    stack.ask(workflow, T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS)
    stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING)
    stack.ask(workflow, T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS)
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    for _ in range(2):
        assert stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING).workflow_errors == ""
        assert stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES).workflow_errors == ""
    assert exists(stack, "shop")
    wanted = application.finish()
    application = Application(stack, schema="target", rows=wanted)
    application.start()
    stack.ask(workflow, T.CUTOVER, S.CUTOVER)
    assert not exists(stack, "shop")
    assert rules(stack) == {}
    assert told(stack, workflow) == ({"stopped"}, True)
    stack.ask(workflow, T.REVERSE_CUTOVER, S.REVERSED_CUTOVER)
    wait(lambda: stack.workflow(workflow).settled, "the rules are back")
    assert rules(stack)["shop.orders"] == "target.orders"
    assert stack.run("SELECT COUNT(*) FROM shop.orders WHERE id <= 10") == [(10,)]
    stack.ask(workflow, T.CUTOVER, S.CUTOVER)
    wait(lambda: stack.workflow(workflow).settled, "the rules are gone")
    assert rules(stack) == {}
    assert stack.ask(workflow, T.COMPLETE, S.COMPLETED).workflow_errors == ""
    check(stack, application.finish(), "target")
    assert stack.on_server("target", "SELECT COUNT(*) FROM _homeworld.streams") == [(0,)] * shards


@pytest.mark.parametrize("switched", [False, True], ids=["running", "switched"])
def test_cancel_brings_everything_back(stack: Stack, switched: bool) -> None:
    workflow = begin(stack)
    with stack.store.read() as tx:
        before = tx.keyspaces.get(stack.keyspace("target").id).vschema
    assert "auto_increment" in str(before)
    application = Application(stack)
    application.start()
    if switched:
        stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    time.sleep(0.2)
    cancelled = stack.ask(workflow, T.CANCEL, S.CANCELLED)
    assert cancelled.workflow_errors == ""
    assert not cancelled.primaries_switched
    assert told(stack, workflow) == ({"stopped"}, True)
    check(stack, application.finish(), "shop")
    assert not exists(stack, "target")
    assert not exists(stack, "shop", "orders_seq")
    assert rules(stack) == {}
    with stack.store.read() as tx:
        assert "auto_increment" not in str(tx.keyspaces.get(stack.keyspace("target").id).vschema)
        assert tx.queue.resources_with_work() == ()
    assert stack.move("shop", "target", ["orders"]), "another move may begin"


def test_what_was_sharded_comes_together_again(stack: Stack) -> None:
    """A second workflow, from shards to one: ids that a sequence gave are given by AUTO_INCREMENT again."""
    workflow = begin(stack)
    for trigger, state in (
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.CUTOVER, S.CUTOVER),
        (T.REVERSE_CUTOVER, S.REVERSED_CUTOVER), (T.COMPLETE, S.COMPLETED),
    ):  # fmt: skip
        stack.ask(workflow, trigger, state)
    stack.add_keyspace("merged")
    application = Application(stack)  # names "shop" still: the rules of the first workflow lead it
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


def test_ids_go_on_above_the_largest_in_both_directions(stack: Stack) -> None:
    workflow = begin(stack)
    stack.run(f"DELETE FROM orders WHERE id = {ROWS}")
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    insert = "INSERT INTO orders (customer, amount) VALUES (1, 1)"
    with stack.connect() as connection, connection.cursor() as cursor:
        cursor.execute(insert)
        there = cursor.lastrowid
        assert there > ROWS, "an id that was given out is not given again"
        cursor.execute(f"DELETE FROM orders WHERE id = {there}")
    stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING)
    with stack.connect() as connection, connection.cursor() as cursor:
        cursor.execute(insert)
        assert cursor.lastrowid > there
        assert "AUTO_INCREMENT" in stack.on_server("shop", "SHOW CREATE TABLE orders")[0][1]
        assert "AUTO_INCREMENT" not in stack.on_server("target", "SHOW CREATE TABLE orders")[0][1]


def test_ddl_stops_the_workflow_until_the_target_fits(stack: Stack) -> None:
    workflow = begin(stack)
    stack.on_server("shop", "ALTER TABLE orders ADD COLUMN extra INT NOT NULL DEFAULT 7")
    stopped = stack.reaches(workflow, S.STOPPED)
    assert "ADD COLUMN extra" in stopped.workflow_errors
    wait(
        lambda: "extra" in stack.workflow(workflow).workflow_errors.partition("\n")[2],
        "the difference is told",
    )
    assert not stack.workflow(workflow).may_retry
    stack.run("INSERT INTO orders (customer, amount) VALUES (3, 30)")
    stack.on_server("target", "ALTER TABLE orders ADD COLUMN extra INT NOT NULL DEFAULT 7")
    wait(lambda: stack.workflow(workflow).may_retry, "retry is offered")
    stack.ask(workflow, T.RETRY, S.RUNNING)
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    rows = stack.on_server("target", "SELECT extra, COUNT(*) FROM orders GROUP BY extra")
    assert sum(count for _, count in rows) == ROWS + 1
    assert {extra for extra, _ in rows} == {7}


def test_a_difference_is_found_and_told(stack: Stack) -> None:
    workflow = begin(stack)
    stack.on_server("target", "UPDATE orders SET amount = -1 WHERE id = 17")
    found = stack.ask(workflow, T.VERIFY_DATA, S.RUNNING)
    assert "id=17" in found.workflow_errors
    with stack.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([workflow])[workflow]
        (report,) = tx.progress.reports_of([vdiff.id])
    assert report.mismatched_rows_count == 1


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


# -- killed at a step, on real servers -----------------------------------------------------------------------


KILLS = [
    (d.SWITCH_PRIMARIES, "after", "fence"),
    (d.SWITCH_PRIMARIES, "after", "commit"),
    (d.REVERSE_PRIMARIES, "after", "commit"),
    (d.CUT_OVER, "after", "drop source tables"),
]


@pytest.mark.parametrize(("plan", "when", "name"), KILLS, ids=[f"{p}-{w}-{n}" for p, w, n in KILLS])
def test_killed_at_a_step_it_ends_the_same(stack: Stack, plan: str, when: str, name: str) -> None:
    ends = {
        d.SWITCH_PRIMARIES: (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES, "target"),
        d.REVERSE_PRIMARIES: (T.REVERSE_TRAFFIC, S.RUNNING, "shop"),
        d.CUT_OVER: (T.CUTOVER, S.CUTOVER, "target"),
    }
    trigger, end, owner = ends[plan]
    workflow = begin(stack)
    if plan != d.SWITCH_PRIMARIES:
        stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    stack.stop_executor()
    application = Application(stack, schema="target" if plan == d.CUT_OVER else "shop")
    application.start()
    stack.transition(workflow, trigger)
    die_at(stack, workflow, when, name)
    stack.start_executor()
    assert stack.reaches(workflow, end, S.ERROR).workflow_errors == ""
    time.sleep(0.3)
    check(stack, application.finish(), owner)


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
