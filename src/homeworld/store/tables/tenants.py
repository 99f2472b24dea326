"""Who asks, and on whose behalf: organizations, actors, service tokens with their grants, regions."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    false,
    text,
)

from homeworld.store.tables.base import Utc, created, metadata, public_id, updated

LIVE = text("deleted_at IS NULL")

organizations = Table(
    "organizations",
    metadata,
    public_id(),
    Column("name", String(64), nullable=False),
    Column("billing_email", String(255), nullable=False, server_default=text("''")),
    Column("invoice_budget_amount", Integer, nullable=False, server_default=text("0")),
    Column("idp_managed_roles", Boolean, nullable=False, server_default=false()),
    created(),
    updated(),
    UniqueConstraint("name"),
)

# A service token's actor has the token's id and outlives it: history goes on naming who did what.
actors = Table(
    "actors",
    metadata,
    public_id(),
    Column("kind", String(20), nullable=False),
    Column("display_name", String(255), nullable=False),
    Column("avatar_url", String(500), nullable=False),
    created(),
    CheckConstraint("kind IN ('user', 'service_token', 'system')", name="kind"),
)

# creator_id: the actor who made it; unknown for tokens of before it was noted.
# token_sha256: the secret has more than 200 bits, so that a plain digest is not guessable.
service_tokens = Table(
    "service_tokens",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("name", String(255), nullable=True),
    Column("token_sha256", LargeBinary(32), nullable=False),
    Column("ttl_seconds", Integer, nullable=True),
    Column("expires_at", Utc, nullable=True),
    Column("last_used_at", Utc, nullable=True),
    Column("deleted_at", Utc, nullable=True),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=False),
    Column("creator_id", String(12), nullable=True),
    created(),
    updated(),
    # With what tells an expired one, so that all are counted without being read.
    Index(
        "ix_service_tokens_list",
        "organization_id",
        "created_at",
        "id",
        "expires_at",
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
)

# resource_id is an organization's or a database's.
grants = Table(
    "grants",
    metadata,
    public_id(),
    Column("token_id", String(12), ForeignKey("service_tokens.id"), nullable=False),
    Column("resource_type", String(20), nullable=False),
    Column("resource_id", String(12), nullable=False),
    Column("access", String(64), nullable=False),
    created(),
    UniqueConstraint("token_id", "resource_type", "resource_id", "access"),
    CheckConstraint("resource_type IN ('organization', 'database')", name="resource_type"),
)

regions = Table(
    "regions",
    metadata,
    public_id(),
    Column("slug", String(64), nullable=False),
    Column("provider", String(64), nullable=False),
    Column("display_name", String(255), nullable=False),
    Column("location", String(255), nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("current_default", Boolean, nullable=False),
    Column("mysql_supported", Boolean, nullable=False),
    Column("postgresql_supported", Boolean, nullable=False),
    Column("public_ip_addresses", JSON, nullable=False),
    created(),
    UniqueConstraint("slug"),
)
