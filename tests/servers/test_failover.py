"""A replica becomes the primary: nothing is lost, the former one is fenced, and moves go on from it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pymysql
import pytest

from homeworld.engines.flavors import rules
from homeworld.engines.local import LocalEngine
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import BackendRole
from homeworld.workflows.failover import promote
from homeworld.workflows.provisioning import Placement
from tests.support.engines import as_role, owner, pid_of, position, until
from tests.support.moving_shop import ROWS, VSCHEMA, fill
from tests.support.stack import Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger


@pytest.fixture
def pair(engine: LocalEngine) -> LocalEngine:
    """The primary ``p`` with a row, and its replica ``r``."""
    engine.create_server("p")
    engine.create_schema("p", "a_b")
    owner(engine, "p", "CREATE TABLE a_b.t (id INT PRIMARY KEY)")
    as_role(engine, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (1)")
    engine.create_server("r", replica_of="p")
    engine.wait_replica("r", 30)
    return engine


def rows(engine: LocalEngine, server_id: str) -> list[int]:
    found = as_role(engine, server_id, BackendRole.READER, "SELECT id FROM a_b.t ORDER BY id")
    return [row[0] for row in found]


def test_a_replica_takes_over_and_the_former_primary_follows(pair: LocalEngine) -> None:
    owner(pair, "p", "INSERT INTO a_b.t VALUES (2), (3)")
    pair.promote("r")
    assert (pair.status("r").replica_of, pair.status("p").replica_of) == (None, "r")
    as_role(pair, "r", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (4)")
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        as_role(pair, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (9)")
    pair.wait_replica("p", 30)
    assert rows(pair, "p") == rows(pair, "r") == [1, 2, 3, 4]
    pair.promote("r")
    pair.stop_server("p")
    pair.start_server("p")
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        as_role(pair, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (9)")
    pair.promote("p")
    as_role(pair, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (5)")
    pair.wait_replica("r", 30)
    assert rows(pair, "r") == rows(pair, "p") == [1, 2, 3, 4, 5]
    assert position(pair, "r") == position(pair, "p")


def test_a_dead_primary_s_rest_is_lost_only_where_that_is_said(pair: LocalEngine) -> None:
    pair.wait_replica("r", 30)
    owner(pair, "r", rules(pair.flavor).stop_receiving)
    owner(pair, "p", "INSERT INTO a_b.t VALUES (2)")
    os.kill(pid_of(pair, "p"), signal.SIGKILL)
    until(lambda: pair.status("p").pid is None, "it is dead")
    with pytest.raises(UnavailableError, match="only if the rest may be lost"):
        pair.promote("r")
    assert pair.status("r").replica_of == "p"
    pair.promote("r", accept_loss=True)
    as_role(pair, "r", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (3)")
    assert rows(pair, "r") == [1, 3]
    with pytest.raises(InvalidError, match="they are lost"):
        pair.start_server("p")
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        as_role(pair, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (9)")
    assert rows(pair, "p") == [1, 2]


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path, Placement.DEDICATED)
    made.start()
    made.open(replicas=1)
    made.add_keyspace("target", VSCHEMA, shards=2, replicas=1)
    fill(made)
    yield made
    made.close()


def fail_over(stack: Stack, keyspace: str) -> None:
    """Every shard's replica takes over."""
    with stack.store.read() as tx:
        shards = tx.keyspaces.shards(stack.keyspace(keyspace).id)
    for shard in shards:
        (replica,) = shard.replica_server_ids
        promote(stack.store, stack.engine, stack.publish, replica)
    with stack.store.read() as tx:
        after = tx.keyspaces.shards(stack.keyspace(keyspace).id)
    for before, now in zip(shards, after, strict=True):
        assert now.primary_server_id == before.replica_server_ids[0]
        assert list(now.replica_server_ids) == [before.primary_server_id]


def test_a_move_goes_on_through_failovers_of_both_sides(stack: Stack) -> None:
    with stack.store.write() as tx:
        tx.databases.update(stack.database_id, throttler_ratios={"shop": 95})
    stack.run(
        "INSERT INTO orders (customer, amount) SELECT a.customer, 1 FROM orders a, orders b LIMIT 60000"
    )
    # A source is always busier than that: what is copied before the first look at it is all for now.
    workflow = stack.move("shop", "target", ["orders"], limits={"source_threads_running": 0})

    def waits() -> bool:
        with stack.store.read() as tx:
            streams = tx.progress.streams_of([workflow])
            return bool(streams) and all("Threads_running" in each.component_throttled for each in streams)

    wait(waits, "the copy waits")
    assert stack.workflow(workflow).state is S.COPYING
    fail_over(stack, "shop")
    stack.run("UPDATE orders SET amount = -7 WHERE id <= 20")
    fail_over(stack, "target")
    stack.run("DELETE FROM orders WHERE id BETWEEN 21 AND 30")
    with stack.store.write() as tx:
        tx.databases.update(stack.database_id, throttler_ratios={})
        tx.workflows.update(workflow, limits={})
    assert stack.reaches(workflow, S.RUNNING, S.ERROR).state is S.RUNNING
    fail_over(stack, "target")
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, -8)")
    fail_over(stack, "shop")
    stack.run("UPDATE orders SET amount = -9 WHERE id = 1")
    assert stack.ask(workflow, T.VERIFY_DATA, S.VERIFIED_DATA).verified
    switched = stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    assert switched.state is S.SWITCHED_PRIMARIES, switched.workflow_errors
    fail_over(stack, "target")
    stack.run("UPDATE orders SET amount = -10 WHERE id = 2")
    back = stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING)
    assert back.state is S.RUNNING, back.workflow_errors
    found = dict(stack.on_server("shop", "SELECT id, amount FROM orders WHERE amount < 0"))
    assert {1: -9, 2: -10}.items() <= found.items()
    assert sorted(found.values()) == [-10, -9, -8] + [-7] * 18
    total = stack.on_server("shop", "SELECT COUNT(*) FROM orders")[0][0]
    assert total == ROWS + 60000 - 10 + 1


def test_the_store_hears_of_a_promotion_whose_process_died_before_it_said_so(stack: Stack) -> None:
    with stack.store.read() as tx:
        (shard,) = tx.keyspaces.shards(stack.keyspace("shop").id)
    (replica,) = shard.replica_server_ids
    stack.engine.promote(replica)

    def heard() -> bool:
        with stack.store.read() as tx:
            return tx.keyspaces.shards(stack.keyspace("shop").id)[0].primary_server_id == replica

    wait(heard, "the store names the new primary")
    wait(lambda: writes(stack), "clients' writes find it")


def writes(stack: Stack) -> bool:
    try:
        stack.run("INSERT INTO orders (customer, amount) VALUES (1, 1)")
    except pymysql.MySQLError:
        return False
    return True
