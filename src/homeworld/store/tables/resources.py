"""What users ask for and what it stands on: databases, branches, keyspaces, shards, servers, passwords.

Names are unique among what is not deleted, so a name is free again the moment its deletion is asked. Rows are
never removed: history refers to them.
"""

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
    Text,
    UniqueConstraint,
    false,
    text,
)

from homeworld.model.engines import EngineKind
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import Flavor
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

LIVE = text("deleted_at IS NULL")
# Each in the words of the database's own queries: a partial index serves only those that say the same.
ONLY_DEFAULT = {
    "sqlite": text("is_default = 1 AND deleted_at IS NULL"),
    "postgresql": text("is_default AND deleted_at IS NULL"),
}


def _deleted_is_said() -> CheckConstraint:
    return CheckConstraint(
        "(state IN ('deleting', 'deleted')) = (deleted_at IS NOT NULL)", name="deleted_is_said"
    )


databases = Table(
    "databases",
    metadata,
    public_id(),
    Column("organization_id", String(12), ForeignKey("organizations.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("region_id", String(12), ForeignKey("regions.id"), nullable=False),
    Column("flavor", EnumText(Flavor), nullable=False),
    # what plans and carries statements; SQLite adds a column to a table without a check of it
    Column("engine", EnumText(EngineKind), nullable=False, server_default=text("'local'")),
    Column("state", EnumText(Life), nullable=False),
    Column("error", Text, nullable=False),
    Column("notes", Text, nullable=False),
    Column("cluster_size", String(64), nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("automatic_migrations", Boolean, nullable=True),
    Column("migration_framework", String(64), nullable=True),
    Column("migration_table_name", String(64), nullable=True),
    Column("require_approval_for_deploy", Boolean, nullable=False),
    Column("restrict_branch_region", Boolean, nullable=False),
    Column("allow_data_branching", Boolean, nullable=False),
    Column("foreign_keys_enabled", Boolean, nullable=False),
    Column("insights_raw_queries", Boolean, nullable=False),
    Column("production_branch_web_console", Boolean, nullable=False),
    Column("deletion_protected", Boolean, nullable=False),
    Column("last_workflow_number", Integer, nullable=False),
    # keyspace name to percent
    Column("throttler_ratios", JSON, nullable=False, server_default=text("'{}'")),
    # keyspace name to what else was asked of giving way (model/throttling)
    Column("throttler_configs", JSON, nullable=False, server_default=text("'{}'")),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    one_of("state", Life),
    one_of("flavor", Flavor),
    _deleted_is_said(),
    Index(
        "uq_databases_live_name",
        "organization_id",
        "name",
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
    Index("ix_databases_state", "state"),
    Index("ix_databases_engine", "engine"),
)

branches = Table(
    "branches",
    metadata,
    public_id(),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("region_id", String(12), ForeignKey("regions.id"), nullable=False),
    Column("parent_branch_id", String(12), ForeignKey("branches.id"), nullable=True),
    Column("state", EnumText(Life), nullable=False),
    Column("error", Text, nullable=False),
    Column("cluster_size", String(64), nullable=False),
    Column("gateway_size", String(64), nullable=False, server_default=text("'homeworld'")),
    Column("production", Boolean, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("safe_migrations", Boolean, nullable=False),
    Column("deletion_protected", Boolean, nullable=False),
    # of what the servers' schemas were when somebody last had them read
    Column("schema_digest", String(64), nullable=False, server_default=text("''")),
    Column("table_count", Integer, nullable=False, server_default=text("0")),
    Column("schema_last_updated_at", Utc, nullable=True),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    one_of("state", Life),
    _deleted_is_said(),
    Index(
        "uq_branches_live_name",
        "database_id",
        "name",
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
    Index(
        "uq_branches_one_default",
        "database_id",
        unique=True,
        sqlite_where=ONLY_DEFAULT["sqlite"],
        postgresql_where=ONLY_DEFAULT["postgresql"],
    ),
    Index("ix_branches_count", "database_id", "production", sqlite_where=LIVE, postgresql_where=LIVE),
    Index("ix_branches_by_time", "database_id", "created_at", "id", sqlite_where=LIVE, postgresql_where=LIVE),
    Index("ix_branches_state", "state"),
    Index("ix_branches_parent_branch_id", "parent_branch_id"),
)

# replica_of is empty on a primary. ``barred`` says why no shard may name the server; empty: one may.
# Endpoints and accounts are the engine's: only it knows how to reach one.
servers = Table(
    "servers",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("replica_of", String(12), ForeignKey("servers.id"), nullable=True),
    Column("flavor", EnumText(Flavor), nullable=False),
    Column("state", EnumText(Life), nullable=False),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    Column("barred", Text, nullable=False, server_default=text("''")),
    one_of("state", Life),
    one_of("flavor", Flavor),
    _deleted_is_said(),
    CheckConstraint("replica_of <> id", name="not_its_own_replica"),
    Index("ix_servers_branch_id", "branch_id"),
)

keyspaces = Table(
    "keyspaces",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("state", EnumText(Life), nullable=False),
    Column("error", Text, nullable=False),
    Column("is_default", Boolean, nullable=False),
    Column("sharded", Boolean, nullable=False),
    Column("shard_count", Integer, nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("extra_replicas", Integer, nullable=False),
    Column("cluster_size", String(64), nullable=False),
    Column("vschema", JSON, nullable=False),
    Column("durability_strategy", String(20), nullable=True),
    Column("optimize_inserts", Boolean, nullable=False),
    Column("allow_no_blob_binlog_row_image", Boolean, nullable=False),
    Column("vplayer_batching", Boolean, nullable=False),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    one_of("state", Life),
    _deleted_is_said(),
    CheckConstraint("shard_count >= 1 AND (sharded OR shard_count = 1)", name="shard_count"),
    Index(
        "uq_keyspaces_live_name",
        "branch_id",
        "name",
        unique=True,
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
    Index(
        "uq_keyspaces_one_default",
        "branch_id",
        unique=True,
        sqlite_where=ONLY_DEFAULT["sqlite"],
        postgresql_where=ONLY_DEFAULT["postgresql"],
    ),
    Index("ix_keyspaces_state", "state"),
)

# A schema on a server belongs to one live shard; ``ordinal`` is the order by key range.
shards = Table(
    "shards",
    metadata,
    public_id(),
    Column("keyspace_id", String(12), ForeignKey("keyspaces.id"), nullable=False),
    Column("ordinal", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("schema_name", String(64), nullable=False),
    Column("primary_server_id", String(12), ForeignKey("servers.id"), nullable=True),
    Column("replica_server_ids", JSON, nullable=False),
    created(),
    updated(),
    UniqueConstraint("keyspace_id", "name"),
    UniqueConstraint("keyspace_id", "ordinal"),
    UniqueConstraint("primary_server_id", "schema_name"),
)

passwords = Table(
    "passwords",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    # The branch's, which never changes: lists of a whole database are read by it.
    Column("database_id", String(12), nullable=False, server_default=text("''")),
    Column("name", String(255), nullable=False),
    Column("username", String(32), nullable=False),
    Column("role", String(20), nullable=False),
    Column("sha1_twice", LargeBinary(20), nullable=False),
    Column("sha256_twice", LargeBinary(32), nullable=False),
    Column("ttl_seconds", Integer, nullable=True),
    Column("expires_at", Utc, nullable=True),
    Column("cidrs", JSON, nullable=False),
    Column("replica", Boolean, nullable=False),
    Column("direct_vtgate", Boolean, nullable=False, server_default=false()),
    Column("renewable", Boolean, nullable=False),
    Column("last_used_at", Utc, nullable=True),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("deleted_at", Utc, nullable=True),
    UniqueConstraint("username"),
    CheckConstraint("role IN ('reader', 'writer', 'readwriter', 'admin')", name="role"),
    Index("ix_passwords_list", "branch_id", "created_at", "id", sqlite_where=LIVE, postgresql_where=LIVE),
    Index(
        "ix_passwords_of_database",
        "database_id",
        "created_at",
        "id",
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    ),
)
