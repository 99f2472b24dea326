"""The life of a change of engine: a database that runs is taken over by another engine.

Theory of operation. *pending* waits for its turn, *running* has begun: clusters are made beside the running
database, and it is tried again until the database is the other engine's or its time is over. Whether it can
still fail is no state: the database's own row says whose it is. Of a database one is unfinished at a time.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.model.machine import Kind, Machine, Transition


class EngineChange(StrEnum):
    """The states, all of them told."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


class EngineTrigger(StrEnum):
    """What moves a change along."""

    BEGIN = "begin"
    DONE = "done"
    FAIL = "fail"


_OVER = ("completed_at",)
ROWS: tuple[Transition[EngineChange, EngineTrigger], ...] = (
    Transition(
        EngineChange.PENDING, EngineTrigger.BEGIN, EngineChange.RUNNING, Kind.OBSERVED, stamps=("started_at",)
    ),
    Transition(EngineChange.PENDING, EngineTrigger.FAIL, EngineChange.FAILED, Kind.OBSERVED, stamps=_OVER),
    Transition(EngineChange.RUNNING, EngineTrigger.DONE, EngineChange.COMPLETED, Kind.OBSERVED, stamps=_OVER),
    Transition(EngineChange.RUNNING, EngineTrigger.FAIL, EngineChange.FAILED, Kind.OBSERVED, stamps=_OVER),
)

ENGINE_CHANGES: Machine[EngineChange, EngineTrigger] = Machine(
    "engine_change", EngineChange, ROWS, frozenset({EngineChange.COMPLETED, EngineChange.FAILED}), {}
)
UNFINISHED = (EngineChange.PENDING, EngineChange.RUNNING)


def engine_row(state: EngineChange, trigger: EngineTrigger) -> Transition[EngineChange, EngineTrigger]:
    """The row for ``trigger`` in ``state``; these rows have no guards.

    :raises TransitionRefusedError: there is none.
    """
    return ENGINE_CHANGES.take(state, trigger, lambda _guard: False)
