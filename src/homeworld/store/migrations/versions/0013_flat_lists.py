"""Indexes of lists have only what lives. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

# Index, table, columns, and which rows are in it.
INDEXES = (
    (
        "ix_service_tokens_list", "service_tokens", ["organization_id", "created_at", "id", "expires_at"],
        "deleted_at IS NULL",
    ),
    (
        "ix_oauth_applications_list", "oauth_applications", ["organization_id", "created_at", "id"],
        "deleted_at IS NULL",
    ),
    (
        "ix_oauth_tokens_list", "oauth_tokens", ["application_id", "created_at", "id"],
        "revoked_at IS NULL",
    ),
    (
        "ix_invitations_list", "invitations", ["organization_id", "created_at", "id"],
        "accepted_at IS NULL AND cancelled_at IS NULL",
    ),
)  # fmt: skip


def upgrade() -> None:
    """Go forward."""
    for name, table, columns, rows in INDEXES:
        op.drop_index(name, table_name=table)
        op.create_index(name, table, columns, sqlite_where=sa.text(rows), postgresql_where=sa.text(rows))
