"""A switch that died between its commit and its sweep, and who publishes its routes meanwhile.

Two gateways serve one store. Invariant: whatever is published by whom, the tables take writes on one side at
a time, so that nothing acknowledged on either side is written over.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.gateway.server import Gateway
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import Flavor
from homeworld.workflows.executor import Executor
from homeworld.workflows.move_tables import decide as d
from tests.support.gateways import expire
from tests.support.moving_shop import ROWS, Acting, Hook, begin, check, die_at, dying
from tests.support.stack import Application, Stack, wait

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MYSQL)]

S, T = State, Trigger
INSERT = "INSERT INTO orders (customer, amount) VALUES (7, 7)"


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path) -> Iterator[Stack]:
    made = Stack(engine, tmp_path, gateways=2)
    made.start()
    yield made
    made.close()


class Client(threading.Thread):
    """Does its statements one after another through one gateway; each of them is acknowledged once done."""

    def __init__(self, stack: Stack, gateway: Gateway, *statements: str) -> None:
        super().__init__(name="client", daemon=True)
        self.statements = statements
        self.ids: list[int] = []
        self.errors: list[BaseException] = []
        self._connection = stack.connect("shop", gateway)
        self.start()

    def run(self) -> None:
        try:
            with self._connection as connection, connection.cursor() as cursor:
                for statement in self.statements:
                    cursor.execute(statement)
                    self.ids.append(int(cursor.lastrowid or 0))
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def waits(self) -> bool:
        """Whether it is kept waiting for half a second and more."""
        self.join(0.5)
        return self.is_alive()

    def finish(self) -> list[int]:
        """Its ids, after its end."""
        self.join(60.0)
        assert not self.is_alive()
        assert not self.errors, self.errors
        assert len(self.ids) == len(self.statements)
        return self.ids


def switching(stack: Stack, plan: str) -> tuple[str, State]:
    """A workflow that was asked to move primary traffic, and nobody there to do it; where it will end."""
    workflow = begin(stack)
    if plan == d.REVERSE_PRIMARIES:
        stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    stack.stop_executor()
    trigger, end = {
        d.SWITCH_PRIMARIES: (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
        d.REVERSE_PRIMARIES: (T.REVERSE_TRAFFIC, S.RUNNING),
    }[plan]
    stack.transition(workflow, trigger)
    return workflow, end


class Publisher:
    """What of an executor publishes the routes that anybody changed, and nothing else of it."""

    def __init__(self, stack: Stack) -> None:
        self.tried = 0
        self._publish = stack.publish
        self._executor = Executor(stack.store, [], "publisher", publish=self.publish, workers=1)
        self._executor.start()

    def publish(self) -> None:
        try:
            self._publish()
        finally:
            self.tried += 1

    def stop(self) -> None:
        wait(lambda: self.tried > 0, "a publication")
        self._executor.stop(10.0)


def amounts(stack: Stack, keyspace: str) -> dict[int, int]:
    return dict(stack.on_server(keyspace, "SELECT id, amount FROM orders"))


@pytest.mark.parametrize(
    ("plan", "late"), [(d.SWITCH_PRIMARIES, 0), (d.SWITCH_PRIMARIES, 1), (d.REVERSE_PRIMARIES, 1)]
)
def test_routes_of_a_commit_that_is_not_swept_yet_do_not_let_two_sides_write(
    stack: Stack, plan: str, late: int
) -> None:
    """One gateway is told of the new routes by whoever publishes, the other is late and its hold ends."""
    workflow, end = switching(stack, plan)
    die_at(stack, workflow, "after", "commit")
    on_time = stack.gateways.gateways[1 - late]
    stack.gateways.late = {stack.gateways.gateways[late]}
    publisher = Publisher(stack)
    publisher.stop()
    for gateway in stack.gateways.gateways:
        expire(gateway)
    statements = ("UPDATE orders SET amount = amount + 1000000 WHERE id = 1", INSERT)
    clients = [Client(stack, gateway, *statements) for gateway in (on_time, *stack.gateways.late)]
    for client in clients:
        client.waits()
    stack.gateways.late = set()
    stack.start_executor()
    assert stack.reaches(workflow, end, S.ERROR).workflow_errors == ""
    ids = [client.finish()[1] for client in clients]
    found = amounts(stack, "target" if plan == d.SWITCH_PRIMARIES else "shop")
    assert len(set(ids)) == 2, "an id was given out twice"
    assert found[1] == 2_000_000, "one write wrote over the other"
    assert set(ids) <= set(found)
    assert len(found) == ROWS + 2


def late_at_publication(stack: Stack) -> Hook:
    """The second gateway does not answer when it is to take the routes, until all holds have ended."""
    left = [1]

    def hook(when: str, step: str) -> None:
        if (when, step) == ("before", "publish") and left:
            left.pop()
            stack.gateways.late = {stack.gateways.gateways[1]}
        elif (when, step) == ("before", "publish"):
            for gateway in stack.gateways.gateways:
                expire(gateway)
            time.sleep(0.3)  # clients go on at the late one, on the side that it knows
            stack.gateways.late = set()

    return hook


def hold_ends_at_commit(stack: Stack) -> Hook:
    """Every hold's own deadline passes between the last look and the commit."""

    def hook(when: str, step: str) -> None:
        if (when, step) == ("before", "commit"):
            for gateway in stack.gateways.gateways:
                expire(gateway)
            time.sleep(0.3)  # clients go on, and wait at the fence

    return hook


@pytest.mark.parametrize(
    ("plan", "disturbance"),
    [
        (d.SWITCH_PRIMARIES, late_at_publication),
        (d.REVERSE_PRIMARIES, late_at_publication),
        (d.SWITCH_PRIMARIES, hold_ends_at_commit),
    ],
)
def test_clients_of_two_gateways_through_a_disturbed_switch(
    stack: Stack, plan: str, disturbance: Callable[[Stack], Hook]
) -> None:
    """No row is lost, no id given twice, and no client sees an error."""
    workflow, end = switching(stack, plan)
    applications = [Application(stack, gateway=gateway) for gateway in stack.gateways.gateways]
    for application in applications:
        application.start()
    process = Acting(stack, workflow, disturbance(stack))
    assert not process.run(end, S.ERROR)
    process.die()
    stack.start_executor()
    assert stack.reaches(workflow, end).workflow_errors == ""
    time.sleep(0.3)
    first, second = (application.finish() for application in applications)
    assert not first.keys() & second.keys(), "an id was given out twice"
    check(stack, {**first, **second}, "target" if plan == d.SWITCH_PRIMARIES else "shop")


def test_who_lost_its_lease_lets_go_of_nothing_of_who_took_over(stack: Stack) -> None:
    """Two executors under one run: the first wakes up late, while the second is about to commit."""
    workflow, end = switching(stack, d.SWITCH_PRIMARIES)
    first = Acting(stack, workflow, dying("after", "fence"))
    assert first.run(end)
    second = Acting(stack, workflow, dying("after", "still held"))
    assert second.run(end)
    assert stack.gateways.is_held(second.hold_id)
    assert not stack.gateways.is_held(first.hold_id), "the second one's hold took its place"
    first.handler.let_go(workflow)
    assert stack.gateways.is_held(second.hold_id)
    client = Client(stack, stack.gateway, INSERT)
    assert client.waits()
    first.die()
    second.die()
    stack.start_executor()
    assert stack.reaches(workflow, end, S.ERROR).workflow_errors == ""
    assert client.finish()[0] in amounts(stack, "target")
