"""Maintenance schedules and windows, and what was last seen of servers.

Invariants: of a database one window is open at a time; a window is finished once and stays so; opening one
moves its schedule on in the same transaction, so that no time opens two.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypedDict, Unpack

from sqlalchemy import Select, func, select, update

from homeworld.model.errors import ConflictError, InvalidError
from homeworld.model.maintenance import LONGEST_HOURS, Action, Rhythm, Unit
from homeworld.model.names import new_id
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Server
from homeworld.store.outbox import Outbox
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import maintenance as tables
from homeworld.store.tables import resources
from homeworld.store.tables.maintenance import WindowState
from homeworld.store.work import Work

MOST = 10
MOST_AHEAD = timedelta(days=3660)
KIND = "maintenance"
START = "branch.start_maintenance"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When windows of a database open. ``duration`` is in hours."""

    id: str
    database_id: str
    name: str
    frequency_unit: Unit
    frequency_value: int
    day: int
    hour: int
    week: int
    duration: int
    action: Action
    enabled: bool
    next_window_at: datetime
    last_window_at: datetime | None
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None

    @property
    def rhythm(self) -> Rhythm:
        """When its windows open."""
        since = self.created_at.date()
        return Rhythm(self.frequency_unit, self.frequency_value, self.day, self.hour, self.week, since)


@dataclass(frozen=True, slots=True)
class Window:
    """A time in which servers are restarted. ``error``: why an act failed, or what was left."""

    id: str
    schedule_id: str
    database_id: str
    action: Action
    state: WindowState
    ends_at: datetime
    done: Sequence[str]
    error: str
    started_at: datetime | None
    finished_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server as it was last seen. ``program_version`` is what it would run if it were started anew."""

    server_id: str
    version: str
    program_version: str
    storage_bytes: int
    seen_at: datetime


class ScheduleFields(TypedDict, total=False):
    """What may be changed."""

    name: str
    frequency_unit: Unit
    frequency_value: int
    day: int
    hour: int
    week: int
    duration: int
    action: Action
    enabled: bool


class Maintenance:
    """Maintenance within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    # -- schedules -------------------------------------------------------------------------------------------

    def create(
        self,
        database_id: str,
        *,
        name: str = "",
        rhythm: Rhythm,
        duration: int = 1,
        action: Action = Action.UPGRADE,
        enabled: bool = True,
        at: datetime | None = None,
        actor_id: str | None = None,
    ) -> Schedule:
        """A new schedule.

        :param at: when its only window opens, of one that is ``once``.
        :raises InvalidError: it says what cannot be, or the database has MOST already.
        """
        table, now = tables.maintenance_schedules, self._work.now
        count = select(func.count()).where(table.c.database_id == database_id, table.c.deleted_at.is_(None))
        if self._work.connection.execute(count).scalar_one() >= MOST:
            raise InvalidError(f"a database can have {MOST} maintenance schedules; delete one first")
        rhythm.check()
        _check_duration(duration)
        if (at is None) == (rhythm.unit is Unit.ONCE):
            raise InvalidError(
                "starts_at is the time of a schedule whose frequency_unit is once, and only of one"
            )
        if at is not None and at <= now:
            raise InvalidError("starts_at has passed already")
        if at is not None and at - now > MOST_AHEAD:
            raise InvalidError(f"starts_at must be within {MOST_AHEAD.days} days")
        made = Schedule(
            id=new_id(),
            database_id=database_id,
            name=name or "Maintenance",
            frequency_unit=rhythm.unit,
            frequency_value=rhythm.value,
            day=rhythm.day,
            hour=rhythm.hour,
            week=rhythm.week,
            duration=duration,
            action=action,
            enabled=enabled,
            next_window_at=at or rhythm.following(now),
            last_window_at=None,
            actor_id=actor_id,
            created_at=now,
            updated_at=now,
            deleted_at=None,
        )
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made

    def get(self, database_id: str, schedule_id: str) -> Schedule:
        """A live schedule.

        :raises NotFoundError: no such schedule.
        """
        table = tables.maintenance_schedules
        return self._work.only(self._live(database_id).where(table.c.id == schedule_id), Schedule)

    def page(self, database_id: str, request: PageRequest) -> Page[Schedule]:
        """Live schedules, oldest first."""
        table = tables.maintenance_schedules
        query = self._live(database_id).order_by(table.c.created_at, table.c.id)
        return fetch_page(self._work.connection, query, request, Schedule)

    @staticmethod
    def _live(database_id: str) -> Select[tuple[object, ...]]:
        table = tables.maintenance_schedules
        return select(table).where(table.c.database_id == database_id, table.c.deleted_at.is_(None))

    def update(self, schedule: Schedule, **fields: Unpack[ScheduleFields]) -> Schedule:
        """Change it; its next window is told anew where its times change, or it is enabled again.

        :raises InvalidError: it would say what cannot be.
        """
        wanted = fields.get("frequency_unit", schedule.frequency_unit)
        if (wanted is Unit.ONCE) != (schedule.frequency_unit is Unit.ONCE):
            raise InvalidError("a schedule that is once stays so, and no other becomes one; create a new one")
        rhythm = Rhythm(
            wanted,
            fields.get("frequency_value", schedule.frequency_value),
            fields.get("day", schedule.day),
            fields.get("hour", schedule.hour),
            fields.get("week", schedule.week),
            schedule.created_at.date(),
        )
        rhythm.check()
        _check_duration(fields.get("duration", schedule.duration))
        values: dict[str, object] = {**fields, "updated_at": self._work.now}
        moved = rhythm != schedule.rhythm
        if wanted is Unit.ONCE:
            if moved:
                raise InvalidError("the time of a schedule that is once does not change; create a new one")
            if fields.get("enabled") and schedule.next_window_at <= self._work.now:
                raise InvalidError("the schedule's only time has passed; create a new one")
        elif moved or (fields.get("enabled") and not schedule.enabled):
            # Otherwise it stays: one that is due and not open yet would never open.
            values["next_window_at"] = rhythm.following(self._work.now)
        table = tables.maintenance_schedules
        self._work.change(table, table.c.id, schedule.id, values)
        return self.get(schedule.database_id, schedule.id)

    def delete(self, schedule: Schedule) -> None:
        """No window of it opens any more; one that is open goes on."""
        now, table = self._work.now, tables.maintenance_schedules
        values = {"deleted_at": now, "updated_at": now, "enabled": False}
        self._work.change(table, table.c.id, schedule.id, values)

    # -- windows ---------------------------------------------------------------------------------------------

    def due(self) -> tuple[Schedule, ...]:
        """The enabled schedules of live databases whose time has come and of which no window is open."""
        table, database, window = (
            tables.maintenance_schedules,
            resources.databases,
            tables.maintenance_windows,
        )
        opened = select(window.c.database_id).where(window.c.state == WindowState.OPEN)
        query = (
            select(table)
            .join(database, database.c.id == table.c.database_id)
            .where(
                table.c.enabled,
                table.c.deleted_at.is_(None),
                table.c.next_window_at <= self._work.now,
                database.c.deleted_at.is_(None),
                table.c.database_id.not_in(opened),
            )
            .order_by(table.c.next_window_at, table.c.id)
        )
        return self._work.all(query, Schedule)

    def open_due(self, schedule: Schedule) -> Window | None:
        """Open a due schedule's window; None where it is over by now. The schedule moves on either way."""
        now, begins = self._work.now, schedule.next_window_at
        ends = begins + timedelta(hours=schedule.duration)
        opened = None
        if now < ends:
            opened = self.open(schedule, ends)
        values: dict[str, object] = {"updated_at": now}
        if schedule.frequency_unit is Unit.ONCE:
            values["enabled"] = False
        else:
            values["next_window_at"] = schedule.rhythm.following(now)
        table = tables.maintenance_schedules
        self._work.change(table, table.c.id, schedule.id, values)
        return opened

    def open(self, schedule: Schedule, ends_at: datetime | None = None) -> Window:
        """Open a window now; production branches hear that it starts.

        :param ends_at: by default after the schedule's duration.
        :raises InvalidError: the database has an open one.
        """
        now, table = self._work.now, tables.maintenance_windows
        if self.open_one(schedule.database_id) is not None:
            raise InvalidError("a maintenance window of this database is open already")
        made = Window(
            id=new_id(),
            schedule_id=schedule.id,
            database_id=schedule.database_id,
            action=schedule.action,
            state=WindowState.OPEN,
            ends_at=ends_at or now + timedelta(hours=schedule.duration),
            done=[],
            error="",
            started_at=now,
            finished_at=None,
            created_at=now,
            updated_at=now,
        )
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        schedules = tables.maintenance_schedules
        self._work.change(schedules, schedules.c.id, schedule.id, {"last_window_at": now})
        branch = resources.branches
        production = select(branch.c.id).where(
            branch.c.database_id == schedule.database_id,
            branch.c.production,
            branch.c.state == Life.READY,
        )
        for branch_id in self._work.connection.execute(production.order_by(branch.c.name)).scalars():
            Outbox(self._work).emit(START, "branch", branch_id, {"window_id": made.id})
        return made

    def open_one(self, database_id: str) -> Window | None:
        """The database's open window."""
        table = tables.maintenance_windows
        query = select(table).where(table.c.database_id == database_id, table.c.state == WindowState.OPEN)
        return self._work.first(query, Window)

    def window(self, window_id: str) -> Window:
        """A window in whatever state.

        :raises NotFoundError: no such window.
        """
        table = tables.maintenance_windows
        return self._work.only(select(table).where(table.c.id == window_id), Window)

    def windows(self, schedule_id: str, request: PageRequest) -> Page[Window]:
        """A schedule's windows, newest first."""
        table = tables.maintenance_windows
        query = (
            select(table)
            .where(table.c.schedule_id == schedule_id)
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, Window)

    def did(self, window: Window, server_id: str) -> None:
        """A server of it was restarted."""
        done = [*self.window(window.id).done, server_id]
        self._change(window, {"done": done, "error": ""})

    def tell(self, window: Window, error: str) -> None:
        """Why it does not go on right now."""
        self._change(window, {"error": error})

    def finish(self, window: Window, error: str = "") -> None:
        """It is over.

        :param error: what was left undone.
        """
        values = {"state": WindowState.FINISHED, "finished_at": self._work.now, "error": error}
        self._change(window, values)

    def _change(self, window: Window, values: Mapping[str, object]) -> None:
        table = tables.maintenance_windows
        changed = self._work.connection.execute(
            update(table)
            .where(table.c.id == window.id, table.c.state == WindowState.OPEN)
            .values(updated_at=self._work.now, **values)
        ).rowcount
        if changed != 1:
            raise ConflictError("the maintenance window is not open any more")

    # -- servers ---------------------------------------------------------------------------------------------

    def servers(self, database_id: str) -> tuple[Server, ...]:
        """The ready servers of the database's ready branches, oldest first, but those that serve nobody."""
        table, branch = resources.servers, resources.branches
        query = (
            select(table)
            .join(branch, branch.c.id == table.c.branch_id)
            .where(
                branch.c.database_id == database_id,
                branch.c.state == Life.READY,
                table.c.state == Life.READY,
                table.c.barred == "",
            )
            .order_by(table.c.created_at, table.c.id)
        )
        return self._work.all(query, Server)

    def saw(self, facts: ServerFacts) -> None:
        """Remember a server as it was just seen."""
        table = tables.server_facts
        values = {field: getattr(facts, field) for field in facts.__slots__}
        if not self._work.change(table, table.c.server_id, facts.server_id, values):
            self._work.add(table, values)

    def facts(self, databases: Collection[str]) -> Mapping[str, tuple[ServerFacts, ...]]:
        """What was last seen of the servers of several databases that are not gone, in one query."""
        table, server, branch = tables.server_facts, resources.servers, resources.branches
        query = (
            select(branch.c.database_id, table)
            .join(server, server.c.id == table.c.server_id)
            .join(branch, branch.c.id == server.c.branch_id)
            .where(branch.c.database_id.in_(list(databases)), server.c.deleted_at.is_(None))
            .order_by(table.c.server_id)
        )
        found: dict[str, tuple[ServerFacts, ...]] = {}
        for row in self._work.connection.execute(query).mappings():
            columns = dict(row)
            database_id = columns.pop("database_id")
            found[database_id] = (*found.get(database_id, ()), ServerFacts(**columns))
        return found


def _check_duration(duration: int) -> None:
    if not 1 <= duration <= LONGEST_HOURS:
        raise InvalidError(f"duration must be from 1 to {LONGEST_HOURS} hours")
