"""Reparents, barred servers, throttlers. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('pending', 'running')")


def upgrade() -> None:
    """Go forward."""
    op.add_column("servers", sa.Column("barred", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column(
        "databases",
        sa.Column("throttler_configs", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
    )
    name = "reparents"
    op.create_table(
        name,
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("shard_id", sa.String(12), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("emergency", sa.Boolean(), nullable=False),
        sa.Column("former_server_id", sa.String(12), nullable=False),
        sa.Column("heir_server_id", sa.String(12), nullable=True),
        sa.Column("heir_asked", sa.Boolean(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.String(12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f(f"fk_{name}_branch_id")),
        sa.ForeignKeyConstraint(["shard_id"], ["shards.id"], name=op.f(f"fk_{name}_shard_id")),
        sa.ForeignKeyConstraint(
            ["former_server_id"], ["servers.id"], name=op.f(f"fk_{name}_former_server_id")
        ),
        sa.ForeignKeyConstraint(["heir_server_id"], ["servers.id"], name=op.f(f"fk_{name}_heir_server_id")),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f(f"fk_{name}_actor_id")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'completed', 'failed')", name=op.f(f"ck_{name}_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(
        f"uq_{name}_one_unfinished",
        name,
        ["branch_id"],
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index(f"ix_{name}_state", name, ["state"])
