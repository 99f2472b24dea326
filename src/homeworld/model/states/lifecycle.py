"""The life of a database, a branch, a keyspace or a server: asked for, made, asked away, gone.

Theory of operation. The API writes the intent (*pending*, *deleting*) and answers; the executor makes it true
and says so. A resource that cannot be made yet stays *pending* with its error beside it: trying again is the
executor's work, not a state. *deleting* is out of sight of the API at once, and its name is free again.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.model.machine import Kind, Machine, Transition


class Life(StrEnum):
    """The states. Only ``pending`` and ``ready`` are published."""

    PENDING = "pending"
    READY = "ready"
    DELETING = "deleting"
    DELETED = "deleted"


class LifeTrigger(StrEnum):
    """What moves a resource along."""

    DELETE = "delete"
    MADE = "made"
    GONE = "gone"


ROWS: tuple[Transition[Life, LifeTrigger], ...] = (
    Transition(Life.PENDING, LifeTrigger.MADE, Life.READY, Kind.OBSERVED),
    Transition(Life.PENDING, LifeTrigger.DELETE, Life.DELETING, Kind.ASKED, stamps=("deleted_at",)),
    Transition(Life.READY, LifeTrigger.DELETE, Life.DELETING, Kind.ASKED, stamps=("deleted_at",)),
    Transition(Life.DELETING, LifeTrigger.GONE, Life.DELETED, Kind.OBSERVED),
)

LIFECYCLE: Machine[Life, LifeTrigger] = Machine("resource", Life, ROWS, frozenset({Life.DELETED}), {})


def life_row(state: Life, trigger: LifeTrigger) -> Transition[Life, LifeTrigger]:
    """The row for ``trigger`` in ``state``; these rows have no guards.

    :raises TransitionRefusedError: there is none.
    """
    return LIFECYCLE.take(state, trigger, lambda _guard: False)
