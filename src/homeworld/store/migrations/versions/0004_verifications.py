"""How far a verification is, table by table, and its rounds. Never edited once released."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward. What was written before has been compared in one go, as far as it was."""
    op.add_column(
        "vdiffs", sa.Column("rows_per_second", sa.Float(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("vdiffs", sa.Column("rounds", sa.JSON(), nullable=False, server_default=sa.text("'[]'")))
    op.add_column(
        "vdiff_reports", sa.Column("rows_total", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column(
        "vdiff_reports",
        sa.Column("state", sa.String(length=20), nullable=False, server_default=sa.text("'completed'")),
    )
