"""Passwords have the database of their branch. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

LIVE = sa.text("deleted_at IS NULL")


def upgrade() -> None:
    """Go forward."""
    column = sa.Column("database_id", sa.String(12), nullable=False, server_default=sa.text("''"))
    op.add_column("passwords", column)
    op.execute(
        "UPDATE passwords SET database_id = "
        "(SELECT branches.database_id FROM branches WHERE branches.id = passwords.branch_id)"
    )
    op.create_index(
        "ix_passwords_of_database",
        "passwords",
        ["database_id", "created_at", "id"],
        sqlite_where=LIVE,
        postgresql_where=LIVE,
    )
