"""The life of a reparent: another server becomes a shard's primary.

Theory of operation. *pending* waits for its turn, *running* has begun and is tried again until it has done
what was asked or its time is over. Whether it can still fail is no state: the plan's commit point says it. Of
a branch one is unfinished at a time.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.model.machine import Kind, Machine, Transition


class Reparent(StrEnum):
    """The states, all of them published."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class ReparentTrigger(StrEnum):
    """What moves a reparent along."""

    BEGIN = "begin"
    DONE = "done"
    FAIL = "fail"


_OVER = ("completed_at",)
ROWS: tuple[Transition[Reparent, ReparentTrigger], ...] = (
    Transition(
        Reparent.PENDING, ReparentTrigger.BEGIN, Reparent.RUNNING, Kind.OBSERVED, stamps=("started_at",)
    ),
    Transition(Reparent.PENDING, ReparentTrigger.FAIL, Reparent.FAILED, Kind.OBSERVED, stamps=_OVER),
    Transition(Reparent.RUNNING, ReparentTrigger.DONE, Reparent.COMPLETED, Kind.OBSERVED, stamps=_OVER),
    Transition(Reparent.RUNNING, ReparentTrigger.FAIL, Reparent.FAILED, Kind.OBSERVED, stamps=_OVER),
)

REPARENTS: Machine[Reparent, ReparentTrigger] = Machine(
    "reparent", Reparent, ROWS, frozenset({Reparent.COMPLETED, Reparent.FAILED}), {}
)
UNFINISHED = (Reparent.PENDING, Reparent.RUNNING)


def reparent_row(state: Reparent, trigger: ReparentTrigger) -> Transition[Reparent, ReparentTrigger]:
    """The row for ``trigger`` in ``state``; these rows have no guards.

    :raises TransitionRefusedError: there is none.
    """
    return REPARENTS.take(state, trigger, lambda _guard: False)
