"""Reparents on real servers: planned ones among writers, at whatever step their worker dies; emergencies."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from homeworld.engines import local, promotion
from homeworld.engines.flavors import rules
from homeworld.engines.local import LocalEngine
from homeworld.model.errors import InvalidError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.states.reparenting import Reparent
from homeworld.model.topology import Flavor
from homeworld.store import reparents
from homeworld.store.keyspaces import Shard
from homeworld.store.reparents import ReparentRecord
from homeworld.workflows.failover import catch_up
from homeworld.workflows.leases import Lease
from homeworld.workflows.reparenting.context import Context, Ports
from homeworld.workflows.reparenting.handler import Reparents
from homeworld.workflows.reparenting.plans import PLANNED, all_plans
from homeworld.workflows.steps import Plan, Step
from tests.support.engines import owner, pid_of, until
from tests.support.moving_shop import Died, Hook, begin, check, dying, fill
from tests.support.stack import Application, Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path)
    made.start()
    yield made
    made.close()


def shard_of(stack: Stack, keyspace: str = "shop") -> Shard:
    with stack.store.read() as tx:
        return tx.keyspaces.shards(stack.keyspace(keyspace).id)[0]


def ask(stack: Stack, *, heir: str | None = None, emergency: bool = False, keyspace: str = "shop") -> str:
    shard = shard_of(stack, keyspace)
    with stack.store.write() as tx:
        return tx.reparents.ask(stack.branch_id, shard, heir=heir, emergency=emergency).id


def reparent_of(stack: Stack, reparent_id: str) -> ReparentRecord:
    with stack.store.read() as tx:
        return tx.reparents.get(reparent_id)


def over(stack: Stack, reparent_id: str) -> ReparentRecord:
    wait(
        lambda: reparent_of(stack, reparent_id).state in (Reparent.COMPLETED, Reparent.FAILED),
        lambda: str(reparent_of(stack, reparent_id)),
        120.0,
    )
    return reparent_of(stack, reparent_id)


def done(stack: Stack, reparent_id: str) -> ReparentRecord:
    found = over(stack, reparent_id)
    assert (found.state, found.error) == (Reparent.COMPLETED, "")
    return found


def writes_on(writer: Application, more: int = 20) -> None:
    count = len(writer.rows)
    wait(lambda: len(writer.rows) > count + more or bool(writer.errors), "it goes on writing")
    assert writer.errors == []


class Acting:
    """A worker's process that handles one reparent, until it is killed."""

    def __init__(self, stack: Stack, reparent_id: str, hook: Hook) -> None:
        def hooked(plan: Plan[Context]) -> Plan[Context]:
            def wrap(step: Step[Context]) -> Step[Context]:
                def perform(context: Context) -> None:
                    hook("before", step.name)
                    step.perform(context)
                    hook("after", step.name)

                return replace(step, perform=perform)

            return replace(plan, steps=tuple(map(wrap, plan.steps)))

        self.stack, self.reparent_id = stack, reparent_id
        ports = Ports(stack.store, stack.engine, stack.gateways, stack.publish)
        self.handler = Reparents(ports, {name: hooked(plan) for name, plan in all_plans().items()})

    def run(self) -> bool:
        """Until it is killed or the reparent is over; whether it was killed."""
        resource = f"reparent:{self.reparent_id}"
        with self.stack.store.write() as tx:
            token = tx.leases.acquire(resource, "acting", 600.0)
        assert token is not None
        lease = Lease(resource, token, time.monotonic() + 600.0)
        try:
            while reparent_of(self.stack, self.reparent_id).state in (Reparent.PENDING, Reparent.RUNNING):
                rest = self.handler.tick(self.reparent_id, lease)
                time.sleep(rest.seconds / 10 if rest else 0.0)
        except Died:
            return True
        return False


def test_planned_reparents_among_writers(stack: Stack) -> None:
    stack.open(replicas=1)
    stack.add_keyspace("other", replicas=1)
    fill(stack)
    before = shard_of(stack)
    (heir,) = before.replica_server_ids
    first = before.primary_server_id
    writer = Application(stack, pause=0.01)
    writer.start()
    writes_on(writer)
    told = done(stack, ask(stack))
    assert (told.former_server_id, told.heir_server_id, told.heir_asked) == (first, heir, False)
    writes_on(writer)
    for keyspace in ("shop", "other"):  # they share the server
        now = shard_of(stack, keyspace)
        assert (now.primary_server_id, list(now.replica_server_ids)) == (heir, [first])
    # Back again, to the one that is asked for.
    assert done(stack, ask(stack, heir=first)).heir_asked
    writes_on(writer)
    rows = writer.finish()
    check(stack, rows, "shop")
    assert shard_of(stack).primary_server_id == first
    stack.engine.wait_replica(heir, 30)
    with stack.store.read() as tx:
        events = [event.event for event in tx.outbox.after(0, 1000)]
    assert events.count("branch.primary_promoted") == 2
    done(stack, ask(stack, heir=first))  # it is the primary already
    with stack.store.read() as tx:
        assert [event.event for event in tx.outbox.after(0, 1000)].count("branch.primary_promoted") == 2


@pytest.mark.one_flavor(Flavor.MARIADB)
@pytest.mark.parametrize("moments", [1, pytest.param(2, marks=pytest.mark.long)], ids=["turn by turn", "all"])
def test_whichever_step_the_worker_dies_at_another_one_goes_on(stack: Stack, moments: int) -> None:
    stack.open(replicas=1)
    fill(stack)
    stack.stop_executor()
    writer = Application(stack, pause=0.02)
    writer.start()
    for number, step in enumerate(all_plans()[PLANNED].steps):
        for when in (("before", "after") if number % 2 else ("after", "before"))[:moments]:
            was = shard_of(stack)
            reparent = ask(stack)
            assert Acting(stack, reparent, dying(when, step.name)).run(), (when, step.name)
            assert not Acting(stack, reparent, lambda _when, _step: None).run()
            told = reparent_of(stack, reparent)
            assert (told.state, told.error) == (Reparent.COMPLETED, ""), (when, step.name)
            assert [shard_of(stack).primary_server_id] == list(was.replica_server_ids)
            writes_on(writer, 3)
    rows = writer.finish()
    check(stack, rows, "shop")


@pytest.mark.one_flavor(Flavor.MARIADB)
def test_what_waits_for_a_transaction_is_given_up_in_the_end(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.open(replicas=1)
    fill(stack)
    was = shard_of(stack)
    monkeypatch.setattr(reparents, "TIMEOUT_SECONDS", 10)
    with stack.connect(autocommit=False) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE orders SET amount = -1 WHERE id = 1")
        told = over(stack, ask(stack))
        assert told.state is Reparent.FAILED
        assert "did not end" in told.error
        connection.commit()
    assert stack.run("SELECT amount FROM orders WHERE id = 1") == [(-1,)]
    assert shard_of(stack) == was
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, 1)")


def kill(stack: Stack, server_id: str) -> None:
    os.kill(pid_of(stack.engine, server_id), signal.SIGKILL)
    until(lambda: stack.engine.status(server_id).pid is None, "it is dead")


def test_a_dead_primary_is_replaced_and_serves_nobody_while_it_has_more_than_others(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.open(replicas=1)
    fill(stack)
    was = shard_of(stack)
    (heir,), former = was.replica_server_ids, was.primary_server_id or ""
    stack.engine.wait_replica(heir, 30)
    owner(stack.engine, heir, rules(stack.engine.flavor).stop_receiving)
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, -5)")
    kill(stack, former)
    with monkeypatch.context() as hurried:
        hurried.setattr(reparents, "TIMEOUT_SECONDS", 2)
        planned = over(stack, ask(stack))
    assert planned.state is Reparent.FAILED, "nothing may be lost in a planned one"
    assert shard_of(stack) == was
    done(stack, ask(stack, emergency=True))
    now = shard_of(stack)
    assert (now.primary_server_id, list(now.replica_server_ids)) == (heir, [])
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, -6)")
    assert stack.run("SELECT amount FROM orders WHERE amount < 0") == [(-6,)]
    with pytest.raises(InvalidError, match="they are lost"):
        stack.engine.start_server(former)
    until(lambda: stack.engine.status(former).accepting, "it accepts")

    def barred() -> str:
        with stack.store.read() as tx:
            return tx.servers.get(former).barred

    wait(lambda: "they are lost" in barred(), barred)
    assert list(shard_of(stack).replica_server_ids) == []
    assert stack.run("USE `shop@replica`", "SELECT amount FROM orders WHERE amount < 0") == [(-6,)]
    refused = over(stack, ask(stack, heir=former))
    assert (refused.state, "has no replica that could" in refused.error) == (Reparent.FAILED, True)


@pytest.mark.one_flavor(Flavor.MARIADB)
def test_a_primary_that_hangs_is_killed_and_serves_again_once_it_follows(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(promotion, "_FENCE_SECONDS", 1.0)
    stack.open(replicas=1)
    fill(stack)
    was = shard_of(stack)
    (heir,), former = was.replica_server_ids, was.primary_server_id or ""
    stack.engine.wait_replica(heir, 30)
    pid = pid_of(stack.engine, former)
    os.kill(pid, signal.SIGSTOP)
    done(stack, ask(stack, emergency=True, heir=heir))
    assert stack.engine.status(former).pid is None
    now = shard_of(stack)
    assert (now.primary_server_id, list(now.replica_server_ids)) == (heir, [])
    stack.run("INSERT INTO orders (customer, amount) VALUES (1, -6)")
    stack.engine.start_server(former)
    wait(lambda: list(shard_of(stack).replica_server_ids) == [former], "it serves again")
    stack.engine.wait_replica(former, 30)


@pytest.mark.one_flavor(Flavor.MYSQL)
def test_moves_go_on_through_reparents_in_every_state_that_allows_them(stack: Stack) -> None:
    workflow = begin(stack, replicas=1)
    writer = Application(stack, pause=0.02)
    writer.start()
    walk: tuple[tuple[Trigger, State], ...] = (
        (T.VERIFY_DATA, S.VERIFIED_DATA),
        (T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS),
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
    )
    done(stack, ask(stack))
    for trigger, state in walk:
        found = stack.ask(workflow, trigger, state)
        assert found.state is state, found.workflow_errors
        done(stack, ask(stack))
        writes_on(writer, 5)
        assert stack.workflow(workflow).state is state
    back = stack.ask(workflow, T.REVERSE_TRAFFIC, S.RUNNING)
    assert back.state is S.RUNNING, back.workflow_errors
    stack.transition(workflow, T.VERIFY_DATA)
    done(stack, ask(stack))
    assert stack.reaches(workflow, S.VERIFIED_DATA, S.RUNNING, S.ERROR).state is not S.ERROR
    rows = writer.finish()
    check(stack, rows, "shop")


def test_the_start_tells_what_was_promoted_before_anybody_is_served(stack: Stack) -> None:
    stack.open(replicas=1)
    stack.stop_executor()
    was = shard_of(stack)
    (heir,) = was.replica_server_ids
    stack.engine.promote(heir)
    assert stack.engine.start_all() == {}
    catch_up(stack.store, stack.engine)
    now = shard_of(stack)
    assert (now.primary_server_id, list(now.replica_server_ids)) == (heir, [was.primary_server_id])
