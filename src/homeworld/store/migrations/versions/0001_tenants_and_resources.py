"""Tenants and resources. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "actors",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("avatar_url", sa.String(length=500), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('user', 'service_token', 'system')", name=op.f("ck_actors_kind")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_actors")),
    )
    op.create_table(
        "organizations",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_organizations")),
        sa.UniqueConstraint("name", name=op.f("uq_organizations_name")),
    )
    op.create_table(
        "regions",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("slug", sa.String(length=64), nullable=False),
        sa.Column("provider", sa.String(length=64), nullable=False),
        sa.Column("display_name", sa.String(length=255), nullable=False),
        sa.Column("location", sa.String(length=255), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("current_default", sa.Boolean(), nullable=False),
        sa.Column("mysql_supported", sa.Boolean(), nullable=False),
        sa.Column("postgresql_supported", sa.Boolean(), nullable=False),
        sa.Column("public_ip_addresses", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_regions")),
        sa.UniqueConstraint("slug", name=op.f("uq_regions_slug")),
    )
    op.create_table(
        "databases",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("organization_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("region_id", sa.String(length=12), nullable=False),
        sa.Column("flavor", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("cluster_size", sa.String(length=64), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("automatic_migrations", sa.Boolean(), nullable=True),
        sa.Column("migration_framework", sa.String(length=64), nullable=True),
        sa.Column("migration_table_name", sa.String(length=64), nullable=True),
        sa.Column("require_approval_for_deploy", sa.Boolean(), nullable=False),
        sa.Column("restrict_branch_region", sa.Boolean(), nullable=False),
        sa.Column("allow_data_branching", sa.Boolean(), nullable=False),
        sa.Column("foreign_keys_enabled", sa.Boolean(), nullable=False),
        sa.Column("insights_raw_queries", sa.Boolean(), nullable=False),
        sa.Column("production_branch_web_console", sa.Boolean(), nullable=False),
        sa.Column("deletion_protected", sa.Boolean(), nullable=False),
        sa.Column("last_workflow_number", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('deleting', 'deleted')) = (deleted_at IS NOT NULL)",
            name=op.f("ck_databases_deleted_is_said"),
        ),
        sa.CheckConstraint("flavor IN ('mysql', 'mariadb')", name=op.f("ck_databases_flavor")),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'deleting', 'deleted')", name=op.f("ck_databases_state")
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_databases_actor_id")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_databases_organization_id")
        ),
        sa.ForeignKeyConstraint(["region_id"], ["regions.id"], name=op.f("fk_databases_region_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_databases")),
    )
    op.create_index("ix_databases_state", "databases", ["state"], unique=False)
    op.create_index(
        "uq_databases_live_name",
        "databases",
        ["organization_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "service_tokens",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("organization_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=True),
        sa.Column("token_sha256", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ttl_seconds", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor_id", sa.String(length=12), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_service_tokens_actor_id")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_service_tokens_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_service_tokens")),
    )
    op.create_index(
        "ix_service_tokens_list", "service_tokens", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "branches",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("database_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("region_id", sa.String(length=12), nullable=False),
        sa.Column("parent_branch_id", sa.String(length=12), nullable=True),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("cluster_size", sa.String(length=64), nullable=False),
        sa.Column("production", sa.Boolean(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("safe_migrations", sa.Boolean(), nullable=False),
        sa.Column("deletion_protected", sa.Boolean(), nullable=False),
        sa.Column("schema_last_updated_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('deleting', 'deleted')) = (deleted_at IS NOT NULL)",
            name=op.f("ck_branches_deleted_is_said"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'deleting', 'deleted')", name=op.f("ck_branches_state")
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_branches_actor_id")),
        sa.ForeignKeyConstraint(["database_id"], ["databases.id"], name=op.f("fk_branches_database_id")),
        sa.ForeignKeyConstraint(
            ["parent_branch_id"], ["branches.id"], name=op.f("fk_branches_parent_branch_id")
        ),
        sa.ForeignKeyConstraint(["region_id"], ["regions.id"], name=op.f("fk_branches_region_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_branches")),
    )
    op.create_index(
        "ix_branches_count",
        "branches",
        ["database_id", "production"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index("ix_branches_parent_branch_id", "branches", ["parent_branch_id"], unique=False)
    op.create_index("ix_branches_state", "branches", ["state"], unique=False)
    op.create_index(
        "uq_branches_live_name",
        "branches",
        ["database_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "uq_branches_one_default",
        "branches",
        ["database_id"],
        unique=True,
        sqlite_where=sa.text("is_default = 1 AND deleted_at IS NULL"),
        postgresql_where=sa.text("is_default AND deleted_at IS NULL"),
    )
    op.create_table(
        "grants",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("token_id", sa.String(length=12), nullable=False),
        sa.Column("resource_type", sa.String(length=20), nullable=False),
        sa.Column("resource_id", sa.String(length=12), nullable=False),
        sa.Column("access", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "resource_type IN ('organization', 'database')", name=op.f("ck_grants_resource_type")
        ),
        sa.ForeignKeyConstraint(["token_id"], ["service_tokens.id"], name=op.f("fk_grants_token_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_grants")),
        sa.UniqueConstraint(
            "token_id",
            "resource_type",
            "resource_id",
            "access",
            name=op.f("uq_grants_token_id_resource_type_resource_id_access"),
        ),
    )
    op.create_table(
        "keyspaces",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("branch_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("sharded", sa.Boolean(), nullable=False),
        sa.Column("shard_count", sa.Integer(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("extra_replicas", sa.Integer(), nullable=False),
        sa.Column("cluster_size", sa.String(length=64), nullable=False),
        sa.Column("vschema", sa.JSON(), nullable=False),
        sa.Column("durability_strategy", sa.String(length=20), nullable=True),
        sa.Column("optimize_inserts", sa.Boolean(), nullable=False),
        sa.Column("allow_no_blob_binlog_row_image", sa.Boolean(), nullable=False),
        sa.Column("vplayer_batching", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('deleting', 'deleted')) = (deleted_at IS NOT NULL)",
            name=op.f("ck_keyspaces_deleted_is_said"),
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'deleting', 'deleted')", name=op.f("ck_keyspaces_state")
        ),
        sa.CheckConstraint(
            "shard_count >= 1 AND (sharded OR shard_count = 1)", name=op.f("ck_keyspaces_shard_count")
        ),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_keyspaces_branch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keyspaces")),
    )
    op.create_index("ix_keyspaces_state", "keyspaces", ["state"], unique=False)
    op.create_index(
        "uq_keyspaces_live_name",
        "keyspaces",
        ["branch_id", "name"],
        unique=True,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_index(
        "uq_keyspaces_one_default",
        "keyspaces",
        ["branch_id"],
        unique=True,
        sqlite_where=sa.text("is_default = 1 AND deleted_at IS NULL"),
        postgresql_where=sa.text("is_default AND deleted_at IS NULL"),
    )
    op.create_table(
        "passwords",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("branch_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("username", sa.String(length=32), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("sha1_twice", sa.LargeBinary(length=20), nullable=False),
        sa.Column("sha256_twice", sa.LargeBinary(length=32), nullable=False),
        sa.Column("ttl_seconds", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cidrs", sa.JSON(), nullable=False),
        sa.Column("replica", sa.Boolean(), nullable=False),
        sa.Column("renewable", sa.Boolean(), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "role IN ('reader', 'writer', 'readwriter', 'admin')", name=op.f("ck_passwords_role")
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_passwords_actor_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_passwords_branch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passwords")),
        sa.UniqueConstraint("username", name=op.f("uq_passwords_username")),
    )
    op.create_index(
        "ix_passwords_list",
        "passwords",
        ["branch_id", "created_at", "id"],
        unique=False,
        sqlite_where=sa.text("deleted_at IS NULL"),
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "servers",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("branch_id", sa.String(length=12), nullable=False),
        sa.Column("replica_of", sa.String(length=12), nullable=True),
        sa.Column("flavor", sa.String(length=40), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('deleting', 'deleted')) = (deleted_at IS NOT NULL)",
            name=op.f("ck_servers_deleted_is_said"),
        ),
        sa.CheckConstraint("flavor IN ('mysql', 'mariadb')", name=op.f("ck_servers_flavor")),
        sa.CheckConstraint(
            "state IN ('pending', 'ready', 'deleting', 'deleted')", name=op.f("ck_servers_state")
        ),
        sa.CheckConstraint("replica_of <> id", name=op.f("ck_servers_not_its_own_replica")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_servers_branch_id")),
        sa.ForeignKeyConstraint(["replica_of"], ["servers.id"], name=op.f("fk_servers_replica_of")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
    )
    op.create_index("ix_servers_branch_id", "servers", ["branch_id"], unique=False)
    op.create_table(
        "shards",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("keyspace_id", sa.String(length=12), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("schema_name", sa.String(length=64), nullable=False),
        sa.Column("primary_server_id", sa.String(length=12), nullable=True),
        sa.Column("replica_server_ids", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["keyspace_id"], ["keyspaces.id"], name=op.f("fk_shards_keyspace_id")),
        sa.ForeignKeyConstraint(
            ["primary_server_id"], ["servers.id"], name=op.f("fk_shards_primary_server_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
        sa.UniqueConstraint("keyspace_id", "name", name=op.f("uq_shards_keyspace_id_name")),
        sa.UniqueConstraint("keyspace_id", "ordinal", name=op.f("uq_shards_keyspace_id_ordinal")),
        sa.UniqueConstraint(
            "primary_server_id", "schema_name", name=op.f("uq_shards_primary_server_id_schema_name")
        ),
    )


def downgrade() -> None:
    """The first schema is not taken back."""
    raise NotImplementedError
