"""Walking a workflow: to the state before a plan, through it, and on to an end, whatever happens.

A walk asks as a patient person would: where a switch came back with its reason it asks again, where an error
may be retried it retries. Knows no fault. Everything it met is in :attr:`Walk.story`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from homeworld.model.states.move_tables import State, Trigger
from tests.chaos.world import World

S, T = State, Trigger

# What to ask for in each state on the way to a goal; a state that is not named is waited in.
_TO_SWITCHED: dict[State, Trigger] = {
    S.RUNNING: T.SWITCH_PRIMARIES,
    S.VERIFIED_DATA: T.SWITCH_PRIMARIES,
    S.SWITCHED_REPLICAS: T.SWITCH_PRIMARIES,
}
PATHS: Mapping[State, Mapping[State, Trigger]] = {
    S.RUNNING: {
        S.SWITCHED_PRIMARIES: T.REVERSE_TRAFFIC,
        S.SWITCHED_REPLICAS: T.REVERSE_TRAFFIC,
    },
    S.VERIFIED_DATA: {
        S.RUNNING: T.VERIFY_DATA,
        S.SWITCHED_PRIMARIES: T.REVERSE_TRAFFIC,
        S.SWITCHED_REPLICAS: T.REVERSE_TRAFFIC,
    },
    S.SWITCHED_REPLICAS: {S.RUNNING: T.SWITCH_REPLICAS, S.VERIFIED_DATA: T.SWITCH_REPLICAS},
    S.SWITCHED_PRIMARIES: _TO_SWITCHED,
    S.CUTOVER: {
        **_TO_SWITCHED,
        S.SWITCHED_PRIMARIES: T.CUTOVER,
        S.REVERSED_CUTOVER: T.CUTOVER,
    },
    S.REVERSED_CUTOVER: {S.SWITCHED_PRIMARIES: T.CUTOVER, S.CUTOVER: T.REVERSE_CUTOVER},
    S.COMPLETED: {
        S.SWITCHED_PRIMARIES: T.CUTOVER,
        S.CUTOVER: T.COMPLETE,
        S.REVERSED_CUTOVER: T.COMPLETE,
    },
    S.CANCELLED: dict.fromkeys(
        (S.PENDING, S.COPYING, S.RUNNING, S.VERIFIED_DATA, S.SWITCHED_REPLICAS, S.SWITCHED_PRIMARIES),
        T.CANCEL,
    ),
}


@dataclass(slots=True)
class Walk:
    """One workflow's way. ``story`` has each state that was seen and each reason that was told."""

    world: World
    story: list[str] = field(default_factory=list[str])
    retries: int = 0
    returns: int = 0
    errors: int = 0
    _last: str = ""

    def note(self, text: str) -> None:
        """Remember what happened."""
        if text != self._last:
            self.story.append(f"{time.strftime('%H:%M:%S')} {text}")
            self._last = text

    def look(self) -> State:
        """The state now."""
        workflow = self.world.workflow()
        self.note(f"{workflow.state} {workflow.workflow_errors[:200]}".strip())
        return workflow.state

    def ask(self, trigger: Trigger, seconds: float = 60.0) -> None:
        """Ask for something that has to be allowed."""
        self.note(f"ask {trigger}")
        deadline = time.monotonic() + seconds
        before, in_doubt = self.world.workflow().state, False
        # The API counts a lag that it was not told of for a while as too high.
        while not self.world.ask(trigger):
            in_doubt = in_doubt or (self.world.asking is not None and self.world.asking.in_doubt)
            if in_doubt and self.world.workflow().state is not before:
                self.note(f"{trigger} was granted, though no answer came")
                return
            told = f"{trigger} was not allowed in {self.world.workflow().state}: {self.world.refusal}"
            assert time.monotonic() < deadline, told
            time.sleep(0.1)

    def to(self, goal: State, seconds: float = 90.0) -> None:
        """Walk until the workflow is in ``goal``, asking again where it came back."""
        path = PATHS[goal]
        deadline = time.monotonic() + seconds
        asked_in: State | None = None
        while (state := self.look()) is not goal:
            assert state is not S.STOPPED, f"stopped: {self.world.workflow().workflow_errors}"
            if state is S.ERROR:
                self._retry()
            elif state in path:
                if asked_in is state:
                    self.returns += 1
                if self.world.ask(path[state]):
                    self.note(f"ask {path[state]}")
                    asked_in = state
                elif self.world.refusal:
                    self.note(f"refused: {self.world.refusal}")
            workflow = self.world.workflow()
            assert time.monotonic() < deadline, (
                f"in {workflow.state}, wanted {goal} within {seconds:g} s: {workflow.workflow_errors}"
            )
            assert self.world.alive(), "the worker has ended by itself"
            time.sleep(0.03)

    def _retry(self) -> None:
        workflow = self.world.workflow()
        self.errors += 1
        assert workflow.may_retry, f"an error that cannot be retried: {workflow.workflow_errors}"
        assert workflow.interrupted_state is S.PENDING, (
            f"an error in {workflow.interrupted_state}: {workflow.workflow_errors}"
        )
        self.note("ask retry")
        self.world.ask(T.RETRY)
        self.retries += 1
        time.sleep(0.3)

    def settled(self, seconds: float = 60.0) -> None:
        """Wait until the state's rules are in force."""
        deadline = time.monotonic() + seconds
        while not self.world.workflow().settled:
            assert time.monotonic() < deadline, f"{self.world.workflow().state} is not settled"
            time.sleep(0.03)
