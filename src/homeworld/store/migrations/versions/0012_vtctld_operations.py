"""Operations of the vtctld family. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    name = "vtctld_operations"
    op.create_table(
        name,
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("workflow_id", sa.String(12), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("goal", sa.String(40), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=True),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.Column("actor_id", sa.String(12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f(f"fk_{name}_branch_id")),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f(f"fk_{name}_workflow_id")),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f(f"fk_{name}_actor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
    )
