"""Maintenance schedules, their windows, and what was last seen of each server."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from homeworld.model.maintenance import Action, Unit
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

LIVE = text("deleted_at IS NULL")
OPEN = text("state = 'open'")
DUE = {
    "sqlite": text("enabled = 1 AND deleted_at IS NULL"),
    "postgresql": text("enabled AND deleted_at IS NULL"),
}


class WindowState(StrEnum):
    """Whether something may still be done in a window."""

    OPEN = "open"
    FINISHED = "finished"


maintenance_schedules = Table(
    "maintenance_schedules",
    metadata,
    public_id(),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("name", String(255), nullable=False),
    Column("frequency_unit", EnumText(Unit), nullable=False),
    Column("frequency_value", Integer, nullable=False),
    Column("day", Integer, nullable=False),
    Column("hour", Integer, nullable=False),
    Column("week", Integer, nullable=False),
    Column("duration", Integer, nullable=False),
    Column("action", EnumText(Action), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("next_window_at", Utc, nullable=False),
    Column("last_window_at", Utc, nullable=True),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    one_of("frequency_unit", Unit),
    one_of("action", Action),
    CheckConstraint("duration BETWEEN 1 AND 24", name="duration"),
    Index(
        "ix_maintenance_schedules_list",
        "database_id",
        "created_at",
        "id",
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
    Index(
        "ix_maintenance_schedules_due",
        "next_window_at",
        sqlite_where=DUE["sqlite"],
        postgresql_where=DUE["postgresql"],
    ),
)

# done: ids of the servers that were restarted in it.
maintenance_windows = Table(
    "maintenance_windows",
    metadata,
    public_id(),
    Column("schedule_id", String(12), ForeignKey("maintenance_schedules.id"), nullable=False),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("action", EnumText(Action), nullable=False),
    Column("state", EnumText(WindowState), nullable=False),
    Column("ends_at", Utc, nullable=False),
    Column("done", JSON, nullable=False),
    Column("error", Text, nullable=False),
    Column("started_at", Utc, nullable=True),
    Column("finished_at", Utc, nullable=True),
    created(),
    updated(),
    one_of("action", Action),
    one_of("state", WindowState),
    CheckConstraint("(state = 'finished') = (finished_at IS NOT NULL)", name="finished_is_said"),
    Index("ix_maintenance_windows_list", "schedule_id", "created_at", "id"),
    Index("ix_maintenance_windows_state", "state"),
    Index(
        "uq_maintenance_windows_one_open",
        "database_id",
        unique=True,
        sqlite_where=OPEN,
        postgresql_where=OPEN,
    ),
)

server_facts = Table(
    "server_facts",
    metadata,
    Column("server_id", String(12), ForeignKey("servers.id"), primary_key=True),
    Column("version", String(40), nullable=False),
    Column("program_version", String(40), nullable=False),
    Column("storage_bytes", BigInteger, nullable=False),
    Column("seen_at", Utc, nullable=False),
)
