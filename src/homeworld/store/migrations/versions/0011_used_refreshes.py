"""Every used refresh token is remembered, not the last one only; long ways back from the identity provider.
Never edited once released: later changes are later files.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward. The used tokens that were remembered stay so."""
    op.create_table(
        "oauth_used_refreshes",
        sa.Column("refresh_sha256", sa.LargeBinary(32), nullable=False),
        sa.Column("token_id", sa.String(12), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["token_id"], ["oauth_tokens.id"], name=op.f("fk_oauth_used_refreshes_token_id")
        ),
        sa.PrimaryKeyConstraint("refresh_sha256", name=op.f("pk_oauth_used_refreshes")),
    )
    op.create_index("ix_oauth_used_refreshes_expires_at", "oauth_used_refreshes", ["expires_at"])
    op.execute(
        "INSERT INTO oauth_used_refreshes (refresh_sha256, token_id, expires_at)"
        " SELECT previous_refresh_sha256, min(id), min(refresh_expires_at) FROM oauth_tokens"
        " WHERE previous_refresh_sha256 IS NOT NULL AND refresh_expires_at IS NOT NULL"
        " GROUP BY previous_refresh_sha256"
    )
    op.drop_index("ix_oauth_tokens_previous_refresh", "oauth_tokens")
    op.drop_column("oauth_tokens", "previous_refresh_sha256")
    # Browsers that are on their way begin anew: SQLite changes no column's type.
    op.drop_column("sso_attempts", "next")
    op.execute("DELETE FROM sso_attempts")
    op.add_column("sso_attempts", sa.Column("next", sa.Text(), nullable=False, server_default=sa.text("''")))
