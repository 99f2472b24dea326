"""What servers used, hour by hour, and the invoices that it adds up to."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    PrimaryKeyConstraint,
    String,
    Table,
    UniqueConstraint,
)

from homeworld.store.tables.base import Utc, created, metadata, public_id, updated

usage_hours = Table(
    "usage_hours",
    metadata,
    Column("server_id", String(12), ForeignKey("servers.id"), nullable=False),
    Column("hour", Utc, nullable=False),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("storage_bytes", BigInteger, nullable=False),
    PrimaryKeyConstraint("server_id", "hour"),
    Index("ix_usage_hours_hour", "hour"),
)

# Amounts are billionths of the currency.
invoices = Table(
    "invoices",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("period_start", Utc, nullable=False),
    Column("period_end", Utc, nullable=False),
    Column("amount", BigInteger, nullable=False),
    created(),
    updated(),
    UniqueConstraint("organization_id", "period_start"),
)

# quantity: hours, or bytes times hours.
invoice_lines = Table(
    "invoice_lines",
    metadata,
    public_id(),
    Column("invoice_id", String(12), ForeignKey("invoices.id"), nullable=False),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("metric", String(40), nullable=False),
    Column("quantity", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    created(),
    updated(),
    UniqueConstraint("invoice_id", "branch_id", "metric"),
)
