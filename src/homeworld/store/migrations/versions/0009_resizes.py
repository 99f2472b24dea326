"""Resizes and roll-outs. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

WAITS = sa.text("state IN ('queued', 'pending')")
RUNS = sa.text("state = 'resizing'")
LIVE = sa.text("deleted_at IS NULL")
STATES = "state IN ('queued', 'pending', 'resizing', 'completed', 'canceled')"


def upgrade() -> None:
    """Go forward. What was there before keeps the installation's own size of gateways."""
    op.add_column(
        "branches",
        sa.Column("gateway_size", sa.String(64), nullable=False, server_default=sa.text("'homeworld'")),
    )
    op.add_column(
        "branches", sa.Column("schema_digest", sa.String(64), nullable=False, server_default=sa.text("''"))
    )
    op.add_column(
        "branches", sa.Column("table_count", sa.Integer(), nullable=False, server_default=sa.text("0"))
    )
    op.create_index(
        "ix_branches_by_time",
        "branches",
        ["database_id", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
    op.add_column(
        "passwords", sa.Column("direct_vtgate", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    _keyspace_resizes()
    _gateway_resizes()
    op.create_table(
        "shard_rollouts",
        sa.Column("shard_id", sa.String(12), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'in_progress', 'complete')", name=op.f("ck_shard_rollouts_state")
        ),
        sa.ForeignKeyConstraint(["shard_id"], ["shards.id"], name=op.f("fk_shard_rollouts_shard_id")),
        sa.PrimaryKeyConstraint("shard_id", name=op.f("pk_shard_rollouts")),
    )


def _keyspace_resizes() -> None:
    name = "keyspace_resizes"
    op.create_table(
        name,
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("keyspace_id", sa.String(12), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("cluster_size", sa.String(64), nullable=False),
        sa.Column("previous_cluster_size", sa.String(64), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("previous_replicas", sa.Integer(), nullable=False),
        sa.Column("extra_replicas", sa.Integer(), nullable=False),
        sa.Column("giving_up", sa.Boolean(), nullable=False),
        *_rest(),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f(f"fk_{name}_actor_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f(f"fk_{name}_branch_id")),
        sa.ForeignKeyConstraint(["keyspace_id"], ["keyspaces.id"], name=op.f(f"fk_{name}_keyspace_id")),
        sa.CheckConstraint(STATES, name=op.f(f"ck_{name}_state")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    _one(name, "one_waits", "keyspace_id", WAITS)
    _one(name, "one_runs", "branch_id", RUNS)
    op.create_index(f"ix_{name}_list", name, ["keyspace_id", "created_at", "id"])
    op.create_index(f"ix_{name}_state", name, ["state", "branch_id"])


def _gateway_resizes() -> None:
    name = "gateway_resizes"
    op.create_table(
        name,
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("size", sa.String(64), nullable=False),
        sa.Column("previous_size", sa.String(64), nullable=False),
        *_rest(),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f(f"fk_{name}_actor_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f(f"fk_{name}_branch_id")),
        sa.CheckConstraint(STATES, name=op.f(f"ck_{name}_state")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    _one(name, "one_waits", "branch_id", WAITS)
    _one(name, "one_runs", "branch_id", RUNS)
    op.create_index(f"ix_{name}_list", name, ["branch_id", "created_at", "id"])
    op.create_index(f"ix_{name}_state", name, ["state"])


def _rest() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("actor_id", sa.String(12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
    )


def _one(table: str, name: str, column: str, where: sa.TextClause) -> None:
    op.create_index(
        f"uq_{table}_{name}", table, [column], unique=True, sqlite_where=where, postgresql_where=where
    )
