"""The life of a resize: asked for, waited for, under way, done; or taken back before it began.

Theory of operation. A branch's servers are shared by its keyspaces, so one resize of a branch is under way
at a time, in the order in which they were asked for: *queued* waits for another one, *pending* for its turn
to begin, *resizing* has begun and only goes forward. Trying a step again is the executor's work, not a state.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.model.machine import Kind, Machine, Transition


class Resize(StrEnum):
    """The states, all of them published."""

    QUEUED = "queued"
    PENDING = "pending"
    RESIZING = "resizing"
    COMPLETED = "completed"
    CANCELED = "canceled"


class ResizeTrigger(StrEnum):
    """What moves a resize along."""

    ADMIT = "admit"
    BEGIN = "begin"
    DONE = "done"
    CANCEL = "cancel"
    GONE = "gone"


ROWS: tuple[Transition[Resize, ResizeTrigger], ...] = (
    Transition(Resize.QUEUED, ResizeTrigger.ADMIT, Resize.PENDING, Kind.OBSERVED),
    Transition(Resize.PENDING, ResizeTrigger.BEGIN, Resize.RESIZING, Kind.OBSERVED, stamps=("started_at",)),
    Transition(
        Resize.RESIZING, ResizeTrigger.DONE, Resize.COMPLETED, Kind.OBSERVED, stamps=("completed_at",)
    ),
    Transition(Resize.QUEUED, ResizeTrigger.CANCEL, Resize.CANCELED, Kind.ASKED),
    Transition(Resize.PENDING, ResizeTrigger.CANCEL, Resize.CANCELED, Kind.ASKED),
    # The keyspace or branch was asked away: there is nothing left to resize.
    Transition(Resize.QUEUED, ResizeTrigger.GONE, Resize.CANCELED, Kind.OBSERVED),
    Transition(Resize.PENDING, ResizeTrigger.GONE, Resize.CANCELED, Kind.OBSERVED),
    Transition(Resize.RESIZING, ResizeTrigger.GONE, Resize.CANCELED, Kind.OBSERVED),
)

RESIZES: Machine[Resize, ResizeTrigger] = Machine(
    "resize", Resize, ROWS, frozenset({Resize.COMPLETED, Resize.CANCELED}), {}
)
WAITING = (Resize.QUEUED, Resize.PENDING)
UNFINISHED = (*WAITING, Resize.RESIZING)


def resize_row(state: Resize, trigger: ResizeTrigger) -> Transition[Resize, ResizeTrigger]:
    """The row for ``trigger`` in ``state``; these rows have no guards.

    :raises TransitionRefusedError: there is none.
    """
    return RESIZES.take(state, trigger, lambda _guard: False)
