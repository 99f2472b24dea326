"""Several gateways: who they are, which holds are in force, and the secret by which they are reached."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, CheckConstraint, Column, String, Table, Text

from homeworld.store.tables.base import Utc, metadata

# incarnation: grows each time the gateway enters anew; renewals: with each renewal of its lease.
# apart: others went on without it; it has to enter anew before it may serve what moves.
# version: of the routes that it serves at least.
gateways = Table(
    "gateways",
    metadata,
    Column("id", String(12), primary_key=True),
    Column("control", String(255), nullable=False),
    Column("address", String(255), nullable=False),
    Column("incarnation", BigInteger, nullable=False),
    Column("renewals", BigInteger, nullable=False),
    Column("state", String(20), nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("expires_at", Utc, nullable=False),
    Column("entered_at", Utc, nullable=False),
    CheckConstraint("state IN ('member', 'apart')", name="state"),
)

# What a gateway that enters has to hold from its first moment on.
holds = Table(
    "gateway_holds",
    metadata,
    Column("hold_id", String(100), primary_key=True),
    Column("request", JSON, nullable=False),
    Column("expires_at", Utc, nullable=False),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)
