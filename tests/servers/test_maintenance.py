"""A maintenance window on real servers: everything is restarted, no client fails, nothing is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.model.errors import DeadlineExceededError, UnavailableError
from homeworld.model.maintenance import Action, Rhythm, Unit
from homeworld.model.routing import HoldRequest
from homeworld.model.states.move_tables import Trigger
from homeworld.model.topology import Flavor
from homeworld.store.maintenance import Window
from homeworld.store.tables.maintenance import WindowState
from homeworld.workflows.leases import Lease
from homeworld.workflows.maintenance.handler import Maintenance, Ports
from tests.support.engines import pid_of
from tests.support.moving_shop import check, fill
from tests.support.stack import Application, Stack, wait

pytestmark = pytest.mark.servers


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path)
    made.start()
    yield made
    made.close()


def open_window(stack: Stack, action: Action = Action.RESTART) -> str:
    with stack.store.write() as tx:
        rhythm = Rhythm(Unit.DAY, 1, 7, 0, 0, tx.work.now.date())
        schedule = tx.maintenance.create(stack.database_id, rhythm=rhythm, action=action)
        return tx.maintenance.open(schedule).id


def window_of(stack: Stack, window_id: str) -> Window:
    with stack.store.read() as tx:
        return tx.maintenance.window(window_id)


def finished(stack: Stack, window_id: str) -> Window:
    wait(
        lambda: window_of(stack, window_id).state is WindowState.FINISHED,
        lambda: str(window_of(stack, window_id)),
        120.0,
    )
    return window_of(stack, window_id)


def servers(stack: Stack) -> dict[str, tuple[str | None, int]]:
    """Whose replica each is, and its pid."""
    with stack.store.read() as tx:
        found = tx.maintenance.servers(stack.database_id)
    return {server.id: (server.replica_of, pid_of(stack.engine, server.id)) for server in found}


@pytest.mark.parametrize("replicas", [1, 0], ids=["with a replica", "alone"])
def test_every_server_is_restarted_among_writers(stack: Stack, replicas: int) -> None:
    stack.open(replicas=replicas)
    fill(stack)
    before = servers(stack)
    writer = Application(stack)
    writer.start()
    wait(lambda: len(writer.rows) > 50, "it writes")
    window = finished(stack, open_window(stack))
    count = len(writer.rows)
    wait(lambda: len(writer.rows) > count + 50 or bool(writer.errors), "it goes on")
    rows = writer.finish()
    assert (window.error, set(window.done)) == ("", set(before))
    after = servers(stack)
    assert all(after[server][1] != before[server][1] for server in before)
    if replicas:
        # The one that was the replica is the primary now.
        assert {server: role for server, (role, _) in after.items()} == {
            server: None if role else next(s for s, (r, _) in before.items() if r)
            for server, (role, _) in before.items()
        }
    check(stack, rows, "shop")
    for server, (role, _) in after.items():
        if role:
            stack.engine.wait_replica(server, 30)
    with stack.store.read() as tx:
        facts = tx.maintenance.facts([stack.database_id])[stack.database_id]
        told = [event.event for event in tx.outbox.after(0, 1000)]
    assert {one.version for one in facts} == {stack.engine.version}
    assert all(one.storage_bytes > 100_000 for one in facts)
    assert told.count("branch.start_maintenance") == 1
    assert told.count("branch.primary_promoted") == replicas


def test_where_every_server_runs_the_installed_program_nothing_is_done(stack: Stack) -> None:
    stack.open(replicas=1)
    before = servers(stack)
    window = finished(stack, open_window(stack, Action.UPGRADE))
    assert (window.error, list(window.done)) == ("", [])
    assert servers(stack) == before


@pytest.mark.one_flavor(Flavor.MARIADB)
def test_what_fails_is_tried_again_and_another_process_goes_on(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.open(replicas=1)
    fill(stack)
    before = servers(stack)
    restart = LocalEngine.restart_server
    asked: list[str] = []

    def failing(engine: LocalEngine, server_id: str, timeout_seconds: float = 60.0) -> None:
        asked.append(server_id)
        if len(asked) == 1:
            # As if it had died here: the server is away and nobody knows.
            os.kill(pid_of(engine, server_id), signal.SIGKILL)
            wait(lambda: engine.status(server_id).pid is None, "it is dead")
            raise UnavailableError("the first try fails")
        restart(engine, server_id, timeout_seconds)

    monkeypatch.setattr(LocalEngine, "restart_server", failing)
    window_id = open_window(stack)
    wait(lambda: window_of(stack, window_id).error == "the first try fails", "it is told")
    stack.stop_executor()
    assert window_of(stack, window_id).state is WindowState.OPEN
    stack.start_executor()
    window = finished(stack, window_id)
    assert (window.error, set(window.done)) == ("", set(before))
    assert stack.run("SELECT COUNT(*) FROM orders") == [(500,)]


def test_after_its_end_nothing_begins(stack: Stack) -> None:
    stack.open()
    before = servers(stack)
    stack.stop_executor()
    with stack.store.write() as tx:
        rhythm = Rhythm(Unit.DAY, 1, 7, 0, 0, tx.work.now.date())
        schedule = tx.maintenance.create(stack.database_id, rhythm=rhythm, action=Action.RESTART)
        window = tx.maintenance.open(schedule, tx.work.now)
    stack.start_executor()
    found = finished(stack, window.id)
    assert (list(found.done), "ended before" in found.error) == ([], True)
    assert servers(stack) == before


@pytest.mark.one_flavor(Flavor.MYSQL)
def test_a_replica_that_does_not_catch_up_is_restarted_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.open(replicas=1)
    wait_replica = LocalEngine.wait_replica
    waited: list[str] = []

    def lagging(engine: LocalEngine, server_id: str, timeout_seconds: float) -> None:
        waited.append(server_id)
        if len(waited) < 3:
            raise DeadlineExceededError("it lags")
        wait_replica(engine, server_id, timeout_seconds)

    restarted: list[str] = []
    restart = LocalEngine.restart_server

    def counting(engine: LocalEngine, server_id: str, timeout_seconds: float = 60.0) -> None:
        restarted.append(server_id)
        restart(engine, server_id, timeout_seconds)

    monkeypatch.setattr(LocalEngine, "wait_replica", lagging)
    monkeypatch.setattr(LocalEngine, "restart_server", counting)
    window = finished(stack, open_window(stack))
    assert (window.error, len(restarted)) == ("", 2)
    assert sorted(restarted) == sorted(window.done)


class Acting:
    """A worker's process that handles one window, and nothing else."""

    def __init__(self, stack: Stack, window_id: str) -> None:
        self._handler = Maintenance(Ports(stack.store, stack.engine, stack.gateways, stack.publish))
        self._window_id = window_id
        resource = f"maintenance:{window_id}"
        with stack.store.write() as tx:
            token = tx.leases.acquire(resource, "acting", 600.0)
        assert token is not None
        self._lease = Lease(resource, token, time.monotonic() + 600.0)

    def tick(self) -> None:
        rest = self._handler.tick(self._window_id, self._lease)
        time.sleep(rest.seconds / 10 if rest else 0.0)


@pytest.mark.one_flavor(Flavor.MARIADB)
@pytest.mark.parametrize("act", [1, 2], ids=["a restart", "a promotion"])
def test_what_begins_to_move_traffic_while_statements_are_held_is_not_disturbed(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, act: int
) -> None:
    stack.open(replicas=1)
    stack.add_keyspace("other", replicas=1)
    fill(stack)
    stack.stop_executor()
    workflow_id = stack.move("shop", "other", ["orders"])
    for trigger in (Trigger.STARTED, Trigger.COPIED):
        stack.transition(workflow_id, trigger)
    hold = stack.gateways.hold
    holds: list[dict[str, tuple[str | None, int]]] = []

    def slow(request: HoldRequest) -> None:
        hold(request)
        holds.append(servers(stack))
        if len(holds) == act:
            stack.transition(workflow_id, Trigger.SWITCH_PRIMARIES)

    monkeypatch.setattr(stack.gateways, "hold", slow)
    window_id = open_window(stack)
    acting = Acting(stack, window_id)

    def ticked_until(state: WindowState, error: str) -> bool:
        acting.tick()
        now = window_of(stack, window_id)
        return (now.state, now.error) == (state, error)

    wait(
        lambda: ticked_until(WindowState.OPEN, "waits for workflow 1, which moves traffic"),
        lambda: str(window_of(stack, window_id)),
    )
    for _ in range(5):
        acting.tick()
    assert (len(holds), servers(stack)) == (act, holds[-1]), "nothing was done to any server"
    stack.transition(workflow_id, Trigger.NOT_IN_TIME)
    wait(lambda: ticked_until(WindowState.FINISHED, ""), lambda: str(window_of(stack, window_id)), 120.0)
    assert set(window_of(stack, window_id).done) == set(servers(stack))
