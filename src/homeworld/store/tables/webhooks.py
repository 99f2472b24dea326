"""Webhooks and what was, or is to be, sent to them."""

from __future__ import annotations

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
    UniqueConstraint,
    text,
)

from homeworld.store.tables.base import Utc, created, metadata, public_id, updated
from homeworld.store.tables.journal import COUNTED

LIVE = text("deleted_at IS NULL")
PENDING = text("state = 'pending'")
# In the words of each database's own queries, as resources.ONLY_DEFAULT.
LISTENS = {
    "sqlite": text("enabled = 1 AND deleted_at IS NULL"),
    "postgresql": text("enabled AND deleted_at IS NULL"),
}

# since_seq: what the outbox had when it was enabled; older events are not for it.
webhooks = Table(
    "webhooks",
    metadata,
    public_id(),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("secret", String(64), nullable=False),
    Column("events", JSON, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("since_seq", BigInteger, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("last_sent_result", Text, nullable=False),
    Column("last_sent_success", Boolean, nullable=False),
    Column("last_sent_at", Utc, nullable=True),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    Index(
        "ix_webhooks_listens",
        "since_seq",
        sqlite_where=LISTENS["sqlite"],
        postgresql_where=LISTENS["postgresql"],
    ),
    Index("ix_webhooks_list", "database_id", "created_at", "id", sqlite_where=LIVE, postgresql_where=LIVE),
)

# seq is the outbox's number of the event; a test has none.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", COUNTED, primary_key=True, autoincrement=True),
    Column("webhook_id", String(12), ForeignKey("webhooks.id"), nullable=False),
    Column("seq", BigInteger, nullable=True),
    Column("event", String(64), nullable=False),
    Column("test", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", Utc, nullable=False),
    Column("result", Text, nullable=False),
    created(),
    updated(),
    UniqueConstraint("webhook_id", "seq"),
    CheckConstraint("state IN ('pending', 'delivered', 'failed', 'dropped')", name="state"),
    Index(
        "ix_webhook_deliveries_pending",
        "webhook_id",
        "test",
        "id",
        sqlite_where=PENDING,
        postgresql_where=PENDING,
    ),
    Index("ix_webhook_deliveries_list", "webhook_id", "id"),
    sqlite_autoincrement=True,
)
