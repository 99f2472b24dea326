"""How an action on a workflow ended, read from the journal: pure, and the same whenever it is asked.

Knows no store and no request. Invariant: the first transition that leaves the action's way ends it; whatever
the workflow does later says nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.journal import TransitionRecord
from homeworld.store.operations import Operation

RUNNING, COMPLETED, FAILED, CANCELLED = "running", "completed", "failed", "cancelled"

# States on the way to a goal, beside the one that asking led to.
_ON_THE_WAY: dict[State, frozenset[State]] = {
    State.CANCELLED: frozenset({State.CANCELLING}),
    State.COMPLETED: frozenset({State.CUTOVER, State.REVERSED_CUTOVER}),
}
_SOMEHOW = "the workflow is {} instead of {}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation is.

    :param state: running, completed, failed or cancelled.
    :param at: when it ended; None: it has not.
    :param error: why it did not end well; empty where it did.
    """

    state: str
    at: datetime | None = None
    error: str = ""


def outcome(operation: Operation, transitions: Sequence[TransitionRecord]) -> Outcome:
    """How the operation is.

    :param transitions: all of the workflow's, oldest first.
    """
    if operation.since is None:
        return Outcome(COMPLETED, operation.created_at)
    goal = operation.goal
    for taken in transitions:
        if taken.id < operation.since:
            continue
        if taken.to_state == goal:
            return Outcome(COMPLETED, taken.at)
        if taken.id == operation.since or taken.to_state in _ON_THE_WAY.get(goal, ()):
            continue
        if taken.trigger == Trigger.CANCEL:
            return Outcome(CANCELLED, taken.at, "the workflow was cancelled")
        return Outcome(FAILED, taken.at, taken.why or _SOMEHOW.format(taken.to_state, goal.value))
    return Outcome(RUNNING)


def traffic(*, replicas: bool, primaries: bool) -> str:
    """Where traffic is, as Vitess's clients print it."""
    reads = "All Reads Switched" if replicas or primaries else "Reads Not Switched"
    return f"{reads}. {'Writes Switched' if primaries else 'Writes Not Switched'}"


def traffic_in(state: str) -> str:
    """Where traffic is while a workflow rests in this state."""
    primaries = state in (
        State.SWITCHED_PRIMARIES,
        State.CUTTING_OVER,
        State.CUTOVER,
        State.REVERSED_CUTOVER,
        State.COMPLETED,
    )
    return traffic(replicas=state == State.SWITCHED_REPLICAS, primaries=primaries)
