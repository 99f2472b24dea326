"""What was asked of shards' primaries: reparents. One of a branch is unfinished at a time."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, String, Table, Text, text

from homeworld.model.states.reparenting import Reparent
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

UNFINISHED = text("state IN ('pending', 'running')")

reparents = Table(
    "reparents",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("shard_id", String(12), ForeignKey("shards.id"), nullable=False),
    Column("state", EnumText(Reparent), nullable=False),
    # why it failed; before that, why it does not go on
    Column("error", Text, nullable=False),
    Column("emergency", Boolean, nullable=False),
    # the primary when it was asked for
    Column("former_server_id", String(12), ForeignKey("servers.id"), nullable=False),
    # who is to take its place; empty until it was chosen, where nobody was asked for
    Column("heir_server_id", String(12), ForeignKey("servers.id"), nullable=True),
    Column("heir_asked", Boolean, nullable=False),
    # seconds after which a try that has not counted yet is given up
    Column("timeout", Integer, nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("started_at", Utc, nullable=True),
    Column("completed_at", Utc, nullable=True),
    one_of("state", Reparent),
    Index(
        "uq_reparents_one_unfinished",
        "branch_id",
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    ),
    Index("ix_reparents_state", "state"),
)
