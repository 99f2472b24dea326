"""Engines, their clusters and changes. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

UNFINISHED = sa.text("state IN ('pending', 'running')")


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "databases",
        sa.Column("engine", sa.String(40), nullable=False, server_default=sa.text("'local'")),
    )
    op.create_index("ix_databases_engine", "databases", ["engine"])
    op.create_table(
        "followings",
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("standing", sa.Boolean(), nullable=False),
        sa.Column("followed", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("joining", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_followings_branch_id")),
        sa.PrimaryKeyConstraint("branch_id", name=op.f("pk_followings")),
    )
    op.create_index("ix_followings_standing", "followings", ["standing"])
    name = "engine_changes"
    op.create_table(
        name,
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("database_id", sa.String(12), nullable=False),
        sa.Column("engine", sa.String(40), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("timeout", sa.Integer(), nullable=False),
        sa.Column("actor_id", sa.String(12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["database_id"], ["databases.id"], name=op.f(f"fk_{name}_database_id")),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f(f"fk_{name}_actor_id")),
        sa.CheckConstraint(
            "state IN ('pending', 'running', 'completed', 'failed')", name=op.f(f"ck_{name}_state")
        ),
        sa.CheckConstraint("engine IN ('local', 'vitess')", name=op.f(f"ck_{name}_engine")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
    op.create_index(
        f"uq_{name}_one_unfinished",
        name,
        ["database_id"],
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    )
    op.create_index(f"ix_{name}_state", name, ["state"])
