"""What a move has to do on every engine, said once: each scenario is played by the tests of the local engine
and by those of Vitess, on real servers, while an application writes.

What an engine cannot do has a row in ``model/engines.py``; a scenario that needs it is then one of its
refusal, in the words that a user reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from homeworld.model.engines import CAPABILITIES, EngineKind
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.move_tables import decide as d
from tests.support.moving_shop import ROWS

S, T = State, Trigger
PAUSE = 0.3  # for the application to write in a state


class Writing(Protocol):
    """An application that writes."""

    def finish(self) -> dict[int, int]:
        """Stop it; what has to be in the table. It fails where a client met an error."""
        ...


class Ground(Protocol):
    """A branch with a table ``orders`` in an unsharded keyspace and a sharded one for it to move to, on one
    engine.
    """

    engine_kind: EngineKind
    source: str
    target: str

    @property
    def workflow_id(self) -> str:
        """The workflow under way."""
        ...

    @property
    def store(self) -> Store: ...

    def fill(self) -> None:
        """Make the table, with ``ROWS`` rows whose ids begin at 1."""
        ...

    def reasons(self, source: str, target: str) -> tuple[str, ...]:
        """Why the table could not be moved."""
        ...

    def move(self, source: str, target: str, **options: Any) -> None:
        """Ask for a workflow, as the API does, and wait until it runs."""
        ...

    def go(self, trigger: Trigger, state: State) -> Workflow:
        """Ask for a transition as the API does, and wait for the state."""
        ...

    def reaches(self, *states: State) -> Workflow:
        """Wait for one of the states."""
        ...

    def until(self, done: Callable[[Workflow], bool], what: str) -> Workflow:
        """Wait until it is so of the workflow."""
        ...

    def killed(self, trigger: Trigger, when: str, step: str) -> None:
        """Ask, and kill the process that carries it out before or after a step."""
        ...

    def go_on(self, *states: State) -> Workflow:
        """Another process goes on, until a state."""
        ...

    def application(self, schema: str, rows: Mapping[int, int] | None = None) -> Writing:
        """A client that writes, by this schema's name; ``rows`` are there of it."""
        ...

    def check(self, wanted: Mapping[int, int], keyspace: str) -> None:
        """Exactly the acknowledged rows are there, and those from before."""
        ...

    def run(self, *statements: str, schema: str = "") -> list[tuple[Any, ...]]:
        """As a client; the last statement's rows."""
        ...

    def insert(self, sql: str) -> int:
        """As a client; the id that the row was given."""
        ...

    def on_server(self, keyspace: str, sql: str) -> list[tuple[Any, ...]]:
        """On each shard's primary, as its owner; all rows together."""
        ...

    def exists(self, keyspace: str, table: str = "orders") -> bool:
        """Whether the servers have the table."""
        ...

    def rules(self) -> Mapping[str, str]:
        """The stored routing rules, which are those that are served."""
        ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario.

    :param play: fails where it does not hold.
    """

    name: str
    play: Callable[[Ground], None]


SCENARIOS: list[Scenario] = []


def _scenario(play: Callable[[Ground], None]) -> Callable[[Ground], None]:
    SCENARIOS.append(Scenario(play.__name__.replace("_", "-"), play))
    return play


def begin(ground: Ground, **options: Any) -> None:
    """The table has rows, and its move to the shards runs."""
    ground.fill()
    ground.move(ground.source, ground.target, **options)


def _no_error(ground: Ground, trigger: Trigger, state: State) -> Workflow:
    workflow = ground.go(trigger, state)
    assert workflow.workflow_errors == ""
    return workflow


def the_whole_walk(ground: Ground, streams: int = 2) -> None:
    """Every state, several times there and back.

    :param streams: how many the move has.
    """
    begin(ground)
    application = ground.application(ground.source)
    assert ground.go(T.VERIFY_DATA, S.VERIFIED_DATA).verified
    with ground.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([ground.workflow_id])[ground.workflow_id]
        (table,) = tx.progress.tables_of([ground.workflow_id])
        found = tx.progress.streams_of([ground.workflow_id])
    assert (vdiff.state, vdiff.has_mismatch) == ("completed", False)
    assert vdiff.rows_compared >= ROWS
    assert (table.name, table.rows_copied >= ROWS, len(found)) == ("orders", True, streams)
    for trigger, state in (
        (T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS), (T.REVERSE_TRAFFIC, S.RUNNING),
        (T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS), (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
        (T.REVERSE_TRAFFIC, S.RUNNING), (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
        (T.REVERSE_TRAFFIC, S.RUNNING), (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
    ):  # fmt: skip
        _no_error(ground, trigger, state)
        time.sleep(PAUSE)
    assert ground.exists(ground.source)
    application = ground.application(ground.target, application.finish())
    _no_error(ground, T.CUTOVER, S.CUTOVER)
    assert not ground.exists(ground.source)
    assert ground.rules() == {}
    ground.go(T.REVERSE_CUTOVER, S.REVERSED_CUTOVER)
    ground.until(lambda workflow: workflow.settled, "the rules are back")
    old = f"{ground.source}.orders"
    assert ground.rules()[old] == f"{ground.target}.orders"
    assert ground.run(f"SELECT COUNT(*) FROM {old} WHERE id <= 10") == [(10,)]
    ground.go(T.CUTOVER, S.CUTOVER)
    ground.until(lambda workflow: workflow.settled, "the rules are gone")
    assert ground.rules() == {}
    _no_error(ground, T.COMPLETE, S.COMPLETED)
    ground.check(application.finish(), ground.target)


@_scenario
def cancel_while_running(ground: Ground) -> None:
    _cancel(ground, switched=False)


@_scenario
def cancel_with_traffic_switched(ground: Ground) -> None:
    _cancel(ground, switched=True)


def _cancel(ground: Ground, *, switched: bool) -> None:
    """Every row comes home, and nothing is left of the move."""
    begin(ground)
    application = ground.application(ground.source)
    if switched:
        ground.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    time.sleep(PAUSE)
    cancelled = _no_error(ground, T.CANCEL, S.CANCELLED)
    assert not cancelled.primaries_switched
    ground.check(application.finish(), ground.source)
    assert not ground.exists(ground.target)
    assert not ground.exists(ground.source, "orders_seq")
    assert ground.rules() == {}
    assert ground.run(f"SELECT COUNT(*) FROM {ground.source}.orders WHERE id <= 10") == [(10,)]
    assert ground.reasons(ground.source, ground.target) == (), "another move may begin"


@_scenario
def ids_go_on_above_the_largest_in_both_directions(ground: Ground) -> None:
    """Above what was given out, too, where the row is gone, and above what a client chose."""
    begin(ground)
    ground.run(f"DELETE FROM orders WHERE id = {ROWS}")
    ground.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    insert = "INSERT INTO orders (customer, amount) VALUES (1, 1)"
    there = ground.insert(insert)
    assert there > ROWS, "an id that was given out is not given again"
    ground.run(f"DELETE FROM orders WHERE id = {there}")
    ground.go(T.REVERSE_TRAFFIC, S.RUNNING)
    back = ground.insert(insert)
    assert back > there
    assert "AUTO_INCREMENT" in ground.on_server(ground.source, "SHOW CREATE TABLE orders")[0][1]
    assert "AUTO_INCREMENT" not in ground.on_server(ground.target, "SHOW CREATE TABLE orders")[0][1]
    ahead = back + 50
    ground.run(f"INSERT INTO orders (id, customer, amount) VALUES ({ahead}, 1, 1)")
    ground.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    assert ground.insert(insert) > ahead, "what was in hand before is not given"


@_scenario
def ddl_stops_the_workflow_until_the_target_fits(ground: Ground) -> None:
    begin(ground)
    change = "ALTER TABLE orders ADD COLUMN extra INT NOT NULL DEFAULT 7"
    ground.on_server(ground.source, change)
    assert "extra" in ground.reaches(S.STOPPED).workflow_errors
    told = ground.until(
        lambda workflow: "extra" in workflow.workflow_errors.partition("\n")[2], "the difference is told"
    )
    assert not told.may_retry
    ground.on_server(ground.source, "INSERT INTO orders (customer, amount) VALUES (3, 30)")
    ground.on_server(ground.target, change)
    ground.until(lambda workflow: workflow.may_retry, "retry is offered")
    ground.go(T.RETRY, S.RUNNING)
    _no_error(ground, T.VERIFY_DATA, S.VERIFIED_DATA)
    ground.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    rows = ground.on_server(ground.target, "SELECT extra, COUNT(*) FROM orders GROUP BY extra")
    assert sum(count for _, count in rows) == ROWS + 1
    assert {extra for extra, _ in rows} == {7}


@_scenario
def a_difference_is_found_and_told(ground: Ground) -> None:
    begin(ground)
    ground.on_server(ground.target, "UPDATE orders SET amount = -1 WHERE id = 17")
    assert "id=17" in ground.go(T.VERIFY_DATA, S.RUNNING).workflow_errors
    with ground.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([ground.workflow_id])[ground.workflow_id]
        (report,) = tx.progress.reports_of([vdiff.id])
    assert report.mismatched_rows_count == 1


@_scenario
def what_was_sharded_comes_together_again(ground: Ground) -> None:
    """A second workflow, from shards to one: ids that a sequence gave are given by AUTO_INCREMENT again."""
    begin(ground)
    for trigger, state in (
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.CUTOVER, S.CUTOVER), (T.COMPLETE, S.COMPLETED),
    ):  # fmt: skip
        ground.go(trigger, state)
    if not CAPABILITIES[ground.engine_kind].moves_from_shards:
        (reason,) = ground.reasons(ground.target, ground.source)
        assert f"keyspace {ground.target} is sharded" in reason
        return
    application = ground.application(ground.target)
    ground.move(ground.target, ground.source)
    ground.go(T.VERIFY_DATA, S.VERIFIED_DATA)
    for trigger, state in (
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES), (T.REVERSE_TRAFFIC, S.RUNNING),
        (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
    ):  # fmt: skip
        _no_error(ground, trigger, state)
        time.sleep(PAUSE)
    application = ground.application(ground.source, application.finish())
    for trigger, state in ((T.CUTOVER, S.CUTOVER), (T.COMPLETE, S.COMPLETED)):
        _no_error(ground, trigger, state)
    ground.check(application.finish(), ground.source)
    assert not ground.exists(ground.target)
    assert "AUTO_INCREMENT" in ground.on_server(ground.source, "SHOW CREATE TABLE orders")[0][1]


KILLS: Mapping[EngineKind, tuple[tuple[str, str, str], ...]] = {
    EngineKind.LOCAL: (
        (d.SWITCH_PRIMARIES, "after", "fence"),
        (d.SWITCH_PRIMARIES, "after", "commit"),
        (d.REVERSE_PRIMARIES, "after", "commit"),
        (d.CUT_OVER, "after", "drop source tables"),
    ),
    EngineKind.VITESS: (
        (d.SWITCH_PRIMARIES, "after", "drain"),
        (d.SWITCH_PRIMARIES, "after", "commit"),
        (d.SWITCH_PRIMARIES, "after", "set the rules in Vitess"),
        (d.SWITCH_PRIMARIES, "after", "conclude in Vitess"),
        (d.REVERSE_PRIMARIES, "after", "commit"),
        (d.REVERSE_PRIMARIES, "after", "conclude in Vitess"),
        (d.CUT_OVER, "after", "complete in Vitess"),
    ),
    # Where a switch is Vitess's own.
    EngineKind.ATTACHED: (
        (d.SWITCH_PRIMARIES, "before", "switch in Vitess"),
        (d.SWITCH_PRIMARIES, "after", "switch in Vitess"),
        (d.REVERSE_PRIMARIES, "after", "switch in Vitess"),
    ),
}
"""Where a process is killed: plan, before or after, step. The engines' plans have steps of their own."""


def killed_at_a_step_it_ends_the_same(ground: Ground, plan: str, when: str, step: str) -> None:
    """An application writes meanwhile, and another process brings it to its end."""
    trigger, end, owner = {
        d.SWITCH_PRIMARIES: (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES, ground.target),
        d.REVERSE_PRIMARIES: (T.REVERSE_TRAFFIC, S.RUNNING, ground.source),
        d.CUT_OVER: (T.CUTOVER, S.CUTOVER, ground.target),
    }[plan]
    begin(ground)
    if plan != d.SWITCH_PRIMARIES:
        ground.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    application = ground.application(ground.target if plan == d.CUT_OVER else ground.source)
    ground.killed(trigger, when, step)
    assert ground.go_on(end).workflow_errors == ""
    time.sleep(PAUSE)
    ground.check(application.finish(), owner)
