"""Changes of a database's engine, and the body that asks for one. All of it is homeworld's own."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel

from homeworld.api.schemas.common import Body
from homeworld.model.engines import EngineKind
from homeworld.model.states.engine_changes import EngineChange
from homeworld.store.engine_changes import EngineChangeRecord


class AskEngineChange(Body):
    """The body of create_engine_change.

    :param engine: whose the database is to be.
    """

    engine: EngineKind


class EngineChangeOut(BaseModel):
    """A change of engine as an operation that is polled until ``completed``. ``error`` says why it failed or,
    before that, why it does not go on; ``timeout`` is after how many seconds it is given up.
    """

    id: str
    type: str = "EngineChange"
    engine: EngineKind
    state: EngineChange
    completed: bool
    timeout: int
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    error: str


def show_engine_change(change: EngineChangeRecord) -> EngineChangeOut:
    """A change as it stands."""
    return EngineChangeOut(
        id=change.id,
        engine=change.engine,
        state=change.state,
        completed=change.state in (EngineChange.COMPLETED, EngineChange.FAILED),
        timeout=change.timeout,
        created_at=change.created_at,
        started_at=change.started_at,
        completed_at=change.completed_at,
        error=change.error,
    )
