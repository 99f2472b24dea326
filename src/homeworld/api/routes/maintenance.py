"""Maintenance schedules and their windows. Reading is published; the rest is homeworld's own addition."""

from __future__ import annotations

from homeworld.api.calls import Api, ApiDep, Caller, CallerDep, Id, InDatabase, Path
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.maintenance import (
    CreateSchedule,
    ScheduleOut,
    UpdateSchedule,
    WindowOut,
    in_utc,
    show_schedules,
)
from homeworld.model.errors import InvalidError
from homeworld.model.maintenance import Rhythm, Unit
from homeworld.model.states.lifecycle import Life

router = Routes(tags=["Maintenance schedules"])

_ALL = "/organizations/{organization}/databases/{database}/maintenance-schedules"
_ONE = _ALL + "/{id}"
_WINDOWS = _ONE + "/windows"


@router.get(_ALL, operation_id="list_maintenance_schedules")
def list_maintenance_schedules(
    api: ApiDep, caller: CallerDep, path: InDatabase, page: PageDep
) -> Listing[ScheduleOut]:
    """The database's schedules, oldest first, with what is pending."""
    with api.read(caller, "list_maintenance_schedules", path) as call:
        found = call.tx.maintenance.page(call.database.id, page)
        return listing(caller, found, show_schedules(call, found.items))


@router.post(_ALL, operation_id="create_maintenance_schedule", status_code=201)
def create_maintenance_schedule(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: CreateSchedule | None = None
) -> ScheduleOut:
    """Say when the database's servers may be restarted or upgraded."""
    asked = body or CreateSchedule()
    try:
        at = in_utc(asked.starts_at)
    except ValueError as error:
        raise InvalidError(str(error)) from None
    once = asked.frequency_unit is Unit.ONCE and at is not None
    with api.write(caller, "create_maintenance_schedule", path) as call:
        call.require_own_servers("servers are restarted")
        rhythm = Rhythm(
            asked.frequency_unit,
            asked.frequency_value,
            at.isoweekday() % 7 if once and at is not None else asked.day,
            at.hour if once and at is not None else asked.hour,
            asked.week,
            call.now.date(),
        )
        schedule = call.tx.maintenance.create(
            call.database.id,
            name=asked.name,
            rhythm=rhythm,
            duration=asked.duration,
            action=asked.action,
            enabled=asked.enabled,
            at=at,
            actor_id=call.actor_id,
        )
        call.audit("maintenance_schedule.created", "maintenance", schedule.id, schedule.name)
        return show_schedules(call, [schedule])[0]


@router.get(_ONE, operation_id="get_maintenance_schedule")
def get_maintenance_schedule(
    api: ApiDep, caller: CallerDep, path: InDatabase, schedule_id: Id
) -> ScheduleOut:
    """A schedule, with what is pending."""
    with api.read(caller, "get_maintenance_schedule", path) as call:
        return show_schedules(call, [call.tx.maintenance.get(call.database.id, schedule_id)])[0]


@router.patch(_ONE, operation_id="update_maintenance_schedule")
def update_maintenance_schedule(
    api: ApiDep, caller: CallerDep, path: InDatabase, schedule_id: Id, body: UpdateSchedule
) -> ScheduleOut:
    """Change what is given. Its next window is told anew where its times change, or it is enabled again."""
    fields = body.fields()
    with api.write(caller, "update_maintenance_schedule", path) as call:
        schedule = call.tx.maintenance.get(call.database.id, schedule_id)
        if fields:
            schedule = call.tx.maintenance.update(schedule, **fields)
        given = {name: str(value) for name, value in fields.items()}
        call.audit("maintenance_schedule.updated", "maintenance", schedule.id, schedule.name, fields=given)
        return show_schedules(call, [schedule])[0]


@router.delete(_ONE, operation_id="delete_maintenance_schedule", status_code=204)
def delete_maintenance_schedule(api: ApiDep, caller: CallerDep, path: InDatabase, schedule_id: Id) -> None:
    """Open no more windows of it; one that is open goes on."""
    _delete(api, caller, path, schedule_id)


def _delete(api: Api, caller: Caller, path: Path, schedule_id: str) -> None:
    with api.write(caller, "delete_maintenance_schedule", path) as call:
        schedule = call.tx.maintenance.get(call.database.id, schedule_id)
        call.tx.maintenance.delete(schedule)
        call.audit("maintenance_schedule.deleted", "maintenance", schedule.id, schedule.name)


@router.get(_WINDOWS, operation_id="list_maintenance_windows")
def list_maintenance_windows(
    api: ApiDep, caller: CallerDep, path: InDatabase, schedule_id: Id, page: PageDep
) -> Listing[WindowOut]:
    """The schedule's windows so far, newest first."""
    with api.read(caller, "list_maintenance_windows", path) as call:
        schedule = call.tx.maintenance.get(call.database.id, schedule_id)
        found = call.tx.maintenance.windows(schedule.id, page)
        return listing(caller, found, [WindowOut.of(window) for window in found.items])


@router.post(_WINDOWS, operation_id="open_maintenance_window", status_code=201)
def open_maintenance_window(api: ApiDep, caller: CallerDep, path: InDatabase, schedule_id: Id) -> WindowOut:
    """Open a window of the schedule now, whether or not it is enabled; its times stay as they are."""
    with api.write(caller, "open_maintenance_window", path) as call:
        call.require_own_servers("servers are restarted")
        schedule = call.tx.maintenance.get(call.database.id, schedule_id)
        if call.database.state is not Life.READY:
            raise InvalidError("the database is not ready yet, so nothing can be maintained")
        window = call.tx.maintenance.open(schedule)
        call.audit("maintenance_window.opened", "maintenance", window.id, schedule.name)
        return WindowOut.of(window)
