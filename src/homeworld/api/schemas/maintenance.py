"""Maintenance schedules and windows as published, and the bodies that create and change schedules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.api.schemas.databases import Name
from homeworld.model.maintenance import EVERY_DAY, LONGEST_HOURS, MOST_UNITS, Action, Unit
from homeworld.store.maintenance import Schedule, ScheduleFields, ServerFacts, Window
from homeworld.store.tables.maintenance import WindowState

Day = Annotated[int, Field(ge=0, le=EVERY_DAY, description="0 is Sunday, 6 Saturday, 7 every day")]
Hour = Annotated[int, Field(ge=0, le=23, description="Hour of the day in UTC")]
Week = Annotated[int, Field(ge=0, le=3, description="Week of the month")]
Duration = Annotated[int, Field(ge=1, le=LONGEST_HOURS, description="Hours")]
Value = Annotated[int, Field(ge=1, le=MOST_UNITS, description="Every how many units")]


class CreateSchedule(Body):
    """The body of create_maintenance_schedule.

    ``starts_at`` is the time of a schedule whose ``frequency_unit`` is once. ``action`` is what its windows
    do: ``upgrade`` restarts the servers that run another version than the installed one, ``restart`` all.
    """

    name: Name = ""
    frequency_unit: Unit = Unit.WEEK
    frequency_value: Value = 1
    day: Day = EVERY_DAY
    hour: Hour = 0
    week: Week = 0
    duration: Duration = 1
    action: Action = Action.UPGRADE
    enabled: bool = True
    starts_at: AwareDatetime | None = None


class UpdateSchedule(Body):
    """The body of update_maintenance_schedule; what is not given stays."""

    name: Name | None = None
    frequency_unit: Unit | None = None
    frequency_value: Value | None = None
    day: Day | None = None
    hour: Hour | None = None
    week: Week | None = None
    duration: Duration | None = None
    action: Action | None = None
    enabled: bool | None = None

    def fields(self) -> ScheduleFields:
        """What was given."""
        return ScheduleFields(**self.model_dump(exclude_none=True))


class ScheduleOut(BaseModel):
    """A maintenance schedule; ``action`` is beyond the published fields."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    last_window_datetime: datetime
    next_window_datetime: datetime
    duration: int
    day: int
    hour: int
    week: int
    frequency_value: int
    frequency_unit: Unit
    enabled: bool
    expires_at: datetime | None
    deadline_at: datetime | None = None
    required: bool = False
    pending_vitess_version_update: bool = False
    pending_vitess_version: str | None = None
    pending_mysql_version_update: bool
    pending_mysql_version: str | None
    action: Action


class WindowOut(BaseModel):
    """A maintenance window; ``state``, ``ends_at``, ``restarted_servers`` and ``error`` are beyond the
    published fields.
    """

    id: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    state: WindowState
    ends_at: datetime
    restarted_servers: Sequence[str]
    error: str

    @classmethod
    def of(cls, window: Window) -> WindowOut:
        """The window as published."""
        return cls(
            id=window.id,
            created_at=window.created_at,
            updated_at=window.updated_at,
            started_at=window.started_at,
            finished_at=window.finished_at,
            state=window.state,
            ends_at=window.ends_at,
            restarted_servers=window.done,
            error=window.error,
        )


def show_schedules(call: Call, schedules: Sequence[Schedule]) -> list[ScheduleOut]:
    """Schedules as published, in one query however many there are."""
    facts = call.tx.maintenance.facts({schedule.database_id for schedule in schedules})
    return [_show(schedule, facts.get(schedule.database_id, ())) for schedule in schedules]


def _show(schedule: Schedule, servers: Sequence[ServerFacts]) -> ScheduleOut:
    pending = [facts.program_version for facts in servers if facts.version != facts.program_version]
    once = schedule.frequency_unit is Unit.ONCE
    return ScheduleOut(
        id=schedule.id,
        name=schedule.name,
        created_at=schedule.created_at,
        updated_at=schedule.updated_at,
        last_window_datetime=schedule.last_window_at or schedule.created_at,
        next_window_datetime=schedule.next_window_at,
        duration=schedule.duration,
        day=schedule.day,
        hour=schedule.hour,
        week=schedule.week,
        frequency_value=schedule.frequency_value,
        frequency_unit=schedule.frequency_unit,
        enabled=schedule.enabled,
        expires_at=schedule.next_window_at + timedelta(hours=schedule.duration) if once else None,
        pending_mysql_version_update=bool(pending),
        pending_mysql_version=pending[0] if pending else None,
        action=schedule.action,
    )


def in_utc(moment: datetime | None) -> datetime | None:
    """The same moment in UTC.

    :raises ValueError: it has no place in the calendar there.
    """
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("starts_at cannot be told in UTC") from None
