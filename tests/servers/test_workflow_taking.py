"""Rows that come into a target while a workflow begins, and rows that change without row events."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pymysql
import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.errors import DeadlineExceededError
from homeworld.model.names import quote
from homeworld.model.states.move_tables import State, Trigger
from homeworld.replication.tables import filled_under_lock
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.provisioning import Placement
from tests.support.moves import make_move
from tests.support.moving_shop import (
    ORDERS,
    ROWS,
    VSCHEMA,
    Acting,
    Died,
    begin,
    die_at,
    exists,
    fill,
    rules,
)
from tests.support.mysqld import TestServer
from tests.support.stack import Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger
INSERT = "INSERT INTO orders (id, customer, amount) VALUES (999999, 1, 77)"
FIND = "SELECT amount FROM orders WHERE id = 999999"


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path, Placement.SHARED)
    made.start()
    yield made
    made.close()


def test_a_transaction_that_began_before_keeps_its_rows(stack: Stack) -> None:
    stack.open()
    stack.add_keyspace("target")
    fill(stack)
    stack.run(ORDERS, schema="target")
    with stack.connect("target", autocommit=False) as client, client.cursor() as cursor:
        cursor.execute(INSERT)
        workflow = stack.move("shop", "target", ["orders"])
        wait(lambda: "cannot be taken" in stack.workflow(workflow).workflow_errors, "it waits, and says why")
        assert stack.workflow(workflow).state is S.PENDING
        client.rollback()
        assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    stack.ask(workflow, T.CANCEL, S.CANCELLED)
    assert not exists(stack, "target")
    stack.run(ORDERS, schema="target")
    with stack.connect("target", autocommit=False) as client, client.cursor() as cursor:
        cursor.execute(INSERT)
        workflow = stack.move("shop", "target", ["orders"])
        wait(lambda: "cannot be taken" in stack.workflow(workflow).workflow_errors, "it waits again")
        client.commit()
    failed = stack.reaches(workflow, S.ERROR)
    assert "table orders on target/- has got rows" in failed.workflow_errors
    assert rules(stack) == {}
    assert stack.run(FIND, schema="target") == [(77,)]
    stack.ask(workflow, T.CANCEL, S.CANCELLED)
    assert stack.run(FIND, schema="target") == [(77,)]
    assert stack.on_server("target", "SELECT COUNT(*) FROM orders") == [(1,)]
    assert stack.on_server("shop", "SELECT COUNT(*) FROM orders") == [(ROWS,)]


def test_a_table_that_was_on_one_shard_only(stack: Stack) -> None:
    """Killed in between, and with somebody past the gateway on that shard."""
    stack.open()
    stack.add_keyspace("target", VSCHEMA, shards=2)
    fill(stack)
    with stack.store.read() as tx:
        first = tx.keyspaces.shards(stack.keyspace("target").id)[0]
    table = quote(first.schema_name, "orders")
    own = ORDERS.replace("AUTO_INCREMENT ", "").replace("orders", table, 1)
    stack.on_server("shop", own)  # one server has all shards
    stack.stop_executor()
    workflow = stack.move("shop", "target", ["orders"])
    die_at(stack, workflow, "after", "publish the routes")
    stack.on_server("shop", f"INSERT INTO {table} (id, customer, amount) VALUES (7, 1, 77)")
    stack.start_executor()
    assert "has got rows" in stack.reaches(workflow, S.ERROR).workflow_errors
    assert stack.on_server("shop", f"SELECT amount FROM {table}") == [(77,)]
    stack.on_server("shop", f"DELETE FROM {table}")
    stack.stop_executor()
    stack.transition(workflow, T.RETRY)
    die_at(stack, workflow, "after", "take the target's tables")
    stack.start_executor()
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).workflow_errors == ""
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    assert sum(count for (count,) in stack.on_server("target", "SELECT COUNT(*) FROM orders")) == ROWS


def test_a_start_that_is_undone_leaves_a_table_that_was_there_empty(stack: Stack) -> None:
    """Killed at its last step, and what was moved is altered before another can go on with it."""
    stack.open()
    stack.add_keyspace("target")
    fill(stack)
    stack.run(ORDERS, schema="target")
    stack.stop_executor()
    workflow = stack.move("shop", "target", ["orders"])

    def hook(when: str, step: str) -> None:
        if (when, step) == ("after", "begin the stream"):
            mover = process.movers.running(workflow, "forward")
            if mover is not None:
                wait(lambda: mover.progress().copied, "the stream has done what it can")
            raise Died

    process = Acting(stack, workflow, hook)
    assert process.run()
    process.die()
    assert stack.workflow(workflow).state is S.PENDING
    stack.on_server("shop", "ALTER TABLE orders ADD COLUMN rest INT")
    stack.start_executor()
    failed = stack.reaches(workflow, S.ERROR, S.RUNNING)
    assert "the tables were changed while the move began" in failed.workflow_errors
    assert exists(stack, "target")
    assert stack.on_server("target", "SELECT COUNT(*) FROM orders") == [(0,)]
    assert rules(stack) == {}
    stack.on_server("target", "ALTER TABLE orders ADD COLUMN rest INT")
    stack.ask(workflow, T.RETRY, S.RUNNING)
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)
    assert stack.on_server("target", "SELECT COUNT(*) FROM orders") == [(ROWS,)]


@pytest.mark.parametrize("prepared", [False, True], ids=["open", "prepared"])
def test_a_table_is_looked_at_under_a_lock(trio: list[TestServer], prepared: bool) -> None:
    move = make_move(trio, "-", "-")
    place = move.sources[0]
    move.create("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY)")
    assert filled_under_lock(place, ["t", "u"], 1) == ()
    xid = f"'x{move.schema}'"
    client = move.source.connect(schema=move.schema, autocommit=True)
    with ExitStack() as stack:
        cursor = client.cursor()
        cursor.execute(f"XA START {xid}" if prepared else "BEGIN")
        cursor.execute("INSERT INTO t VALUES (1)")
        if prepared:
            cursor.execute(f"XA END {xid}")
            cursor.execute(f"XA PREPARE {xid}")
            client.close()
        else:
            stack.callback(client.close)
        with pytest.raises(DeadlineExceededError, match="keeps table t or u"):
            filled_under_lock(place, ["t", "u"], 1)
        if not prepared:
            client.commit()
    if prepared:

        def done() -> bool:
            try:  # MySQL takes a moment to see that the session has ended
                move.source.query(f"XA COMMIT {xid}", move.schema)
            except pymysql.err.OperationalError:
                return False
            return True

        wait(done, "the transaction is committed")
    assert filled_under_lock(place, ["t", "u"], 1) == ("t",)


def test_rows_that_change_without_row_events(stack: Stack) -> None:
    """A TRUNCATE lets the workflow go on once the target is empty, a RENAME never; whoever verifies again
    compares again.
    """
    workflow = begin(stack, shards=2)
    assert stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA).verified
    stack.on_server("target", "UPDATE orders SET amount = -1 WHERE id = 17")
    assert "id=17" in stack.ask(workflow, T.VERIFY_DATA, S.RUNNING).workflow_errors
    stack.run("TRUNCATE TABLE orders", "INSERT INTO orders (customer, amount) VALUES (1, 5)")
    stack.reaches(workflow, S.STOPPED)
    wait(lambda: "has rows" in stack.workflow(workflow).workflow_errors, "what to do is told")
    assert not stack.workflow(workflow).may_retry
    stack.on_server("target", "TRUNCATE TABLE orders")
    wait(lambda: stack.workflow(workflow).may_retry, "retry is offered")
    stack.ask(workflow, T.RETRY, S.RUNNING)
    stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA)
    assert stack.on_server("target", "SELECT amount FROM orders") == [(5,)]
    stack.ask(workflow, T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS)
    stack.on_server("shop", "CREATE TABLE fresh LIKE orders")
    stack.on_server("shop", "RENAME TABLE orders TO stale, fresh TO orders")
    stopped = stack.reaches(workflow, S.STOPPED)
    assert (stopped.may_retry, stopped.may_restart) == (False, True)
    assert d.COPY_ANEW in stopped.workflow_errors
    assert stack.ask(workflow, T.CANCEL, S.CANCELLED).workflow_errors == ""
    assert not exists(stack, "target")


def test_a_way_back_that_is_lost(stack: Stack) -> None:
    workflow = begin(stack, shards=2)
    stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    wait(lambda: stack.movers.running(workflow, "reverse") is not None, "the reverse stream runs")
    stack.run("TRUNCATE TABLE orders", "INSERT INTO orders (customer, amount) VALUES (1, 5)")
    stopped = stack.reaches(workflow, S.STOPPED)
    assert d.NO_WAY_BACK in stopped.workflow_errors
    assert stack.ask(workflow, T.RETRY, S.SWITCHED_PRIMARIES)
    back = stack.ask(workflow, T.REVERSE_TRAFFIC, S.SWITCHED_PRIMARIES)
    assert back.primaries_switched
    assert stack.run("SELECT amount FROM orders") == [(5,)]
    stack.ask(workflow, T.CUTOVER, S.CUTOVER)
    stack.ask(workflow, T.COMPLETE, S.COMPLETED)
    assert not exists(stack, "shop")
    assert stack.run("SELECT amount FROM orders", schema="target") == [(5,)]
