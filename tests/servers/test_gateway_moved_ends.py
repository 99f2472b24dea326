"""Clients through the ends of moves: cancel, cutover and its way back; the executor dies between their steps.

Whatever has been done of an end, every name that clients may use leads to the rows, in a gateway that has
been there all the time and in one that starts just then, whoever publishes the routes meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from homeworld.engines.local import LocalEngine
from homeworld.gateway import effects
from homeworld.gateway.pool import ask
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import Flavor
from tests.support.moving_shop import die_at, exists
from tests.support.stack import Stack, wait

pytestmark = pytest.mark.servers

S, T = State, Trigger
ROWS = 60
ACC: dict[str, Any] = {"column_vindexes": [{"column": "id", "name": "xxhash"}]}
VSCHEMA: dict[str, Any] = {
    "sharded": True, "vindexes": {"xxhash": {"type": "xxhash"}}, "tables": {"acc": ACC},
}  # fmt: skip
# Behind each of them tables, vschemas or rules are otherwise than before.
CANCEL_STEPS = ["drop target tables", "leave the vschema", "rules as before"]
CUTOVER_STEPS = ["drop source tables", "leave the source's vschema", "rules as before"]


@pytest.fixture
def stack(engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """Servers take their time to say what tables they have."""

    async def late(*args: Any) -> Any:
        await asyncio.sleep(0.1)
        return await ask(*args)

    monkeypatch.setattr(effects, "ask", late)
    made = Stack(engine, tmp_path)
    made.start()
    made.open()
    yield made
    made.close()


class Clerk(threading.Thread):
    """Adds to balances and looks at them all the time, under one schema name; any error is its end.

    ``added`` is what was acknowledged, by account.
    """

    def __init__(self, stack: Stack, schema: str) -> None:
        super().__init__(name=f"clerk of {schema}", daemon=True)
        self.added: Counter[int] = Counter()
        self.errors: list[BaseException] = []
        self.turns = 0
        self._over = threading.Event()
        self._connection = stack.connect(schema)

    def run(self) -> None:
        try:
            with self._connection as connection, connection.cursor() as cursor:
                while not self._over.wait(0.004):
                    key = self.turns % ROWS
                    cursor.execute(f"UPDATE acc SET bal = bal + 1 WHERE id = {key}")
                    assert cursor.rowcount == 1, key
                    self.added[key] += 1
                    cursor.execute("SELECT COUNT(*) FROM acc")
                    assert cursor.fetchall() == ((ROWS,),)
                    self.turns += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def goes_on(self) -> None:
        """Wait for a few turns from now on."""
        wanted = self.turns + 3
        wait(lambda: self.turns >= wanted or bool(self.errors), f"{self.name} goes on")
        assert not self.errors, (self.name, self.errors)

    def finish(self) -> Counter[int]:
        self._over.set()
        self.join(60.0)
        assert not self.is_alive()
        assert not self.errors, (self.name, self.errors)
        return self.added


class Crowd:
    """Clerks under several names."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.clerks: list[Clerk] = []
        self.added: Counter[int] = Counter()

    @property
    def schemas(self) -> set[str]:
        """Under which names they work."""
        return {clerk.name.split()[-1] for clerk in self.clerks}

    def enter(self, *schemas: str) -> None:
        come = [Clerk(self.stack, schema) for schema in schemas]
        self.clerks += come
        for clerk in come:
            clerk.start()

    def leave(self, *schemas: str) -> None:
        gone = [clerk for clerk in self.clerks if clerk.name.split()[-1] in schemas]
        self.clerks = [clerk for clerk in self.clerks if clerk not in gone]
        for clerk in gone:
            self.added += clerk.finish()

    def look(self) -> None:
        """Everybody goes on, and whoever comes now through a gateway that starts now is served, too."""
        for clerk in self.clerks:
            clerk.goes_on()
        with starting(self.stack) as fresh:
            for schema in self.schemas:
                for gateway in (self.stack.gateway, fresh):
                    with (
                        contextlib.closing(self.stack.connect(schema, gateway)) as connection,
                        connection.cursor() as cursor,
                    ):
                        cursor.execute("SELECT id FROM acc ORDER BY id")
                        assert [row[0] for row in cursor.fetchall()] == list(range(ROWS))


@contextlib.contextmanager
def starting(stack: Stack) -> Generator[Gateway]:
    """A gateway whose process starts at this moment."""
    gateway = Gateway(router_factory=Router)
    gateway.start(stack.routing.snapshot())
    try:
        yield gateway
    finally:
        gateway.stop(1.0)


def end_dying(crowd: Crowd, workflow: str, trigger: Trigger, steps: list[str], end: State) -> None:
    """Take a transition; the executor dies after each step, before it is recorded, and others publish."""
    stack = crowd.stack
    stack.stop_executor()
    stack.transition(workflow, trigger)
    for step in steps:
        die_at(stack, workflow, "after", step)
        stack.publish()
        crowd.look()
    stack.start_executor()
    stack.reaches(workflow, end, S.ERROR)
    crowd.look()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("shop", id="unsharded", marks=pytest.mark.one_flavor(Flavor.MARIADB)),
        pytest.param("wide", id="sharded", marks=pytest.mark.one_flavor(Flavor.MYSQL)),
    ],
)
def test_no_client_meets_an_error_or_other_rows_at_the_ends_of_moves(stack: Stack, source: str) -> None:
    stack.add_keyspace("target", VSCHEMA, shards=2)
    if source != "shop":
        stack.add_keyspace(source, VSCHEMA, shards=2)
    values = ", ".join(f"({key}, 0)" for key in range(ROWS))
    stack.run("CREATE TABLE acc (id BIGINT PRIMARY KEY, bal BIGINT NOT NULL)", schema=source)
    stack.run(f"INSERT INTO acc VALUES {values}", schema=source)
    crowd = Crowd(stack)
    crowd.enter("@primary", "@primary", source, source)
    crowd.look()

    assert stack.ask(switched(stack, source, crowd), T.CANCEL, S.CANCELLED).workflow_errors == ""
    crowd.look()
    workflow = switched(stack, source, crowd)
    end_dying(crowd, workflow, T.CANCEL, CANCEL_STEPS, S.CANCELLED)
    assert not exists(stack, "target", "acc")
    if source == "shop":
        cut_over_and_complete(stack, source, crowd)
    crowd.leave(*crowd.schemas)
    found = dict(stack.on_server("target" if source == "shop" else source, "SELECT id, bal FROM acc"))
    assert found == {key: crowd.added[key] for key in range(ROWS)}


def switched(stack: Stack, source: str, crowd: Crowd) -> str:
    """A workflow with traffic on the target."""
    workflow = stack.move(source, "target", ["acc"])
    stack.reaches(workflow, S.RUNNING, S.ERROR)
    crowd.look()
    assert stack.ask(workflow, T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES).workflow_errors == ""
    crowd.look()
    return workflow


def cut_over_and_complete(stack: Stack, source: str, crowd: Crowd) -> None:
    workflow = switched(stack, source, crowd)
    crowd.leave(source)  # their own keyspace is about to lose the table
    crowd.enter("target")
    end_dying(crowd, workflow, T.CUTOVER, CUTOVER_STEPS, S.CUTOVER)
    for trigger, state in (
        (T.REVERSE_CUTOVER, S.REVERSED_CUTOVER), (T.CUTOVER, S.CUTOVER), (T.COMPLETE, S.COMPLETED),
    ):  # fmt: skip
        assert stack.ask(workflow, trigger, state).workflow_errors == ""
        wait(lambda: stack.workflow(workflow).settled, "the rules are those of the state")
        crowd.look()
    assert not exists(stack, source, "acc")
