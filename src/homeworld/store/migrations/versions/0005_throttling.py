"""What users ask of throttling. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    for table, column in (("workflows", "limits"), ("databases", "throttler_ratios")):
        op.add_column(table, sa.Column(column, sa.JSON(), nullable=False, server_default=sa.text("'{}'")))
