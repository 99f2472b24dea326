"""How work gives way: the published throttler of a database, and homeworld's own limits of a workflow."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.model import json_text
from homeworld.model.errors import InvalidError
from homeworld.model.movers import ThrottleLimits
from homeworld.model.throttling import throttle_of

MOST_RATIO = 95
Ratio = Annotated[int, Field(ge=0, le=MOST_RATIO)]


def _from_text(given: Any) -> Any:
    """An entry as an object; the published type says that it is a string, so one that holds JSON is read."""
    if not isinstance(given, str):
        return given
    try:
        return json_text.load(given, "an entry")
    except InvalidError:
        raise ValueError('must be an object such as {"keyspace_name": "main", "ratio": 10}') from None


class KeyspaceRatio(BaseModel):
    """How many percent of the time work on the keyspaces of that name rests."""

    keyspace_name: Name
    ratio: Ratio


class UpdateThrottler(Body):
    """The body of update_database_throttler: one ratio for all keyspaces, or one for each."""

    ratio: Ratio | None = None
    configurations: (
        Annotated[list[Annotated[KeyspaceRatio, BeforeValidator(_from_text)]], Field(max_length=1000)] | None
    ) = None


class ConfigurableOut(BaseModel):
    """What is configured: the database."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class ThrottlerOut(BaseModel):
    """The throttler of a database."""

    keyspaces: Sequence[str]
    configurable: ConfigurableOut
    configurations: Sequence[KeyspaceRatio]


def show_throttler(call: Call, keyspaces: Sequence[str]) -> ThrottlerOut:
    """The throttler of the call's database as it is stored now."""
    database = call.tx.databases.get(call.database.id)
    ratios = {
        name: throttle_of(name, database.throttler_ratios, database.throttler_configs, call.now).ratio
        for name in keyspaces
    }
    return ThrottlerOut(
        keyspaces=keyspaces,
        configurable=ConfigurableOut(
            id=database.id,
            name=database.name,
            created_at=database.created_at,
            updated_at=database.updated_at,
            deleted_at=database.deleted_at,
        ),
        configurations=[KeyspaceRatio(keyspace_name=name, ratio=ratios.get(name, 0)) for name in keyspaces],
    )


Off = Literal["off"]
Seconds = Annotated[float, Field(ge=0, le=86400, allow_inf_nan=False)]
Whole = Annotated[int, Field(ge=0, le=2**53)]


class UpdateLimits(Body):
    """The body of update_workflow_throttler. What is not named stays; ``"off"`` means no limit."""

    replica_lag_seconds: Off | Seconds | None = None
    source_threads_running: Off | Whole | None = None
    source_history_length: Off | Whole | None = None

    def changes(self) -> dict[str, float | None]:
        """What was named, by the names of ThrottleLimits; None: no limit."""
        given = self.model_dump(exclude_none=True)
        return {name: None if value == "off" else value for name, value in given.items()}


class LimitsOut(BaseModel):
    """Above what a workflow gives way; null: no limit. ``ratio`` is the larger of its keyspaces'."""

    replica_lag_seconds: float | None
    source_threads_running: int | None
    source_history_length: int | None
    ratio: int


def show_limits(limits: ThrottleLimits) -> LimitsOut:
    """A workflow's limits, what was never asked included."""
    return LimitsOut(
        replica_lag_seconds=limits.replica_lag_seconds,
        source_threads_running=limits.source_threads_running,
        source_history_length=limits.source_history_length,
        ratio=limits.ratio,
    )
