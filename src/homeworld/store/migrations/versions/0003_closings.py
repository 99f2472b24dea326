"""Closings beside routing rules. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column("branch_routing", sa.Column("closing", sa.JSON(), nullable=True))
