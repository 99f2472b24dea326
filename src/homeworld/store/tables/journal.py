"""What happened, who holds what, and what is to be told: transitions, steps, leases, outbox, audit log."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
)

from homeworld.store.tables.base import Utc, created, metadata, public_id

# SQLite only counts a column up by itself where its type is exactly INTEGER.
COUNTED = BigInteger().with_variant(Integer(), "sqlite")

transitions = Table(
    "transitions",
    metadata,
    Column("id", COUNTED, primary_key=True, autoincrement=True),
    Column("resource_kind", String(20), nullable=False),
    Column("resource_id", String(12), nullable=False),
    Column("from_state", String(40), nullable=False),
    Column("to_state", String(40), nullable=False),
    Column("trigger", String(40), nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    Column("why", Text, nullable=False),
    Column("at", Utc, nullable=False),
    Index("ix_transitions_resource", "resource_kind", "resource_id", "id"),
)

# One row a step and run; ``run`` is the executor's name for one pass through a list of steps.
steps = Table(
    "steps",
    metadata,
    Column("resource_id", String(12), nullable=False),
    Column("run", String(64), nullable=False),
    Column("step", String(64), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("data", JSON, nullable=False),
    Column("started_at", Utc, nullable=False),
    Column("updated_at", Utc, nullable=False),
    PrimaryKeyConstraint("resource_id", "run", "step"),
    CheckConstraint("status IN ('started', 'done', 'undoing', 'undone', 'failed')", name="status"),
)

# The row stays when a lease ends: its token only grows.
leases = Table(
    "leases",
    metadata,
    Column("resource", String(64), primary_key=True),
    Column("owner", String(64), nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("expires_at", Utc, nullable=False),
)

outbox = Table(
    "outbox",
    metadata,
    Column("seq", COUNTED, primary_key=True, autoincrement=True),
    Column("event", String(64), nullable=False),
    Column("resource_kind", String(20), nullable=False),
    Column("resource_id", String(12), nullable=False),
    Column("payload", JSON, nullable=False),
    Column("at", Utc, nullable=False),
    sqlite_autoincrement=True,
)

outbox_cursors = Table(
    "outbox_cursors",
    metadata,
    Column("consumer", String(64), primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

audit_log = Table(
    "audit_log",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    Column("action", String(64), nullable=False),
    Column("target_kind", String(20), nullable=False),
    Column("target_id", String(12), nullable=False),
    Column("target_name", String(255), nullable=False),
    Column("remote_ip", String(64), nullable=False),
    Column("metadata", JSON, nullable=False),
    created(),
    Index("ix_audit_log_organization", "organization_id", "created_at", "id"),
    Index("ix_audit_log_action", "organization_id", "action", "created_at", "id"),
    Index("ix_audit_log_actor", "organization_id", "actor_id", "created_at", "id"),
)
