"""What a cluster that others run and the store had alike last."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """A column of what was given to clusters of others, or taken from them."""
    op.add_column("followings", sa.Column("agreed", sa.JSON(none_as_null=True), nullable=True))
