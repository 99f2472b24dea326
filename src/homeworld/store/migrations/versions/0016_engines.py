"""The engine of a database. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.add_column(
        "databases",
        sa.Column("engine", sa.String(40), nullable=False, server_default=sa.text("'local'")),
    )
