"""Maintenance, and what servers used. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_LIVE = sa.text("deleted_at IS NULL")
_OPEN = sa.text("state = 'open'")


def upgrade() -> None:
    """Go forward."""
    _maintenance()
    _usage()


def _maintenance() -> None:
    op.create_table(
        "maintenance_schedules",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("database_id", sa.String(12), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("frequency_unit", sa.String(40), nullable=False),
        sa.Column("frequency_value", sa.Integer(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("week", sa.Integer(), nullable=False),
        sa.Column("duration", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_window_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_window_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("actor_id", sa.String(12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "frequency_unit IN ('day', 'week', 'month', 'once')",
            name=op.f("ck_maintenance_schedules_frequency_unit"),
        ),
        sa.CheckConstraint("action IN ('upgrade', 'restart')", name=op.f("ck_maintenance_schedules_action")),
        sa.CheckConstraint("duration BETWEEN 1 AND 24", name=op.f("ck_maintenance_schedules_duration")),
        sa.ForeignKeyConstraint(
            ["database_id"], ["databases.id"], name=op.f("fk_maintenance_schedules_database_id")
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_maintenance_schedules_actor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance_schedules")),
    )
    op.create_index(
        "ix_maintenance_schedules_list",
        "maintenance_schedules",
        ["database_id", "created_at", "id"],
        sqlite_where=_LIVE,
        postgresql_where=_LIVE,
    )
    op.create_index(
        "ix_maintenance_schedules_due",
        "maintenance_schedules",
        ["next_window_at"],
        sqlite_where=sa.text("enabled = 1 AND deleted_at IS NULL"),
        postgresql_where=sa.text("enabled AND deleted_at IS NULL"),
    )
    op.create_table(
        "maintenance_windows",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("schedule_id", sa.String(12), nullable=False),
        sa.Column("database_id", sa.String(12), nullable=False),
        sa.Column("action", sa.String(40), nullable=False),
        sa.Column("state", sa.String(40), nullable=False),
        sa.Column("ends_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("done", sa.JSON(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("action IN ('upgrade', 'restart')", name=op.f("ck_maintenance_windows_action")),
        sa.CheckConstraint("state IN ('open', 'finished')", name=op.f("ck_maintenance_windows_state")),
        sa.CheckConstraint(
            "(state = 'finished') = (finished_at IS NOT NULL)",
            name=op.f("ck_maintenance_windows_finished_is_said"),
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["maintenance_schedules.id"], name=op.f("fk_maintenance_windows_schedule_id")
        ),
        sa.ForeignKeyConstraint(
            ["database_id"], ["databases.id"], name=op.f("fk_maintenance_windows_database_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_maintenance_windows")),
    )
    op.create_index("ix_maintenance_windows_list", "maintenance_windows", ["schedule_id", "created_at", "id"])
    op.create_index("ix_maintenance_windows_state", "maintenance_windows", ["state"])
    op.create_index(
        "uq_maintenance_windows_one_open",
        "maintenance_windows",
        ["database_id"],
        unique=True,
        sqlite_where=_OPEN,
        postgresql_where=_OPEN,
    )
    op.create_table(
        "server_facts",
        sa.Column("server_id", sa.String(12), nullable=False),
        sa.Column("version", sa.String(40), nullable=False),
        sa.Column("program_version", sa.String(40), nullable=False),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_server_facts_server_id")),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_server_facts")),
    )


def _usage() -> None:
    op.create_table(
        "usage_hours",
        sa.Column("server_id", sa.String(12), nullable=False),
        sa.Column("hour", sa.DateTime(timezone=True), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("storage_bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_usage_hours_server_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_usage_hours_branch_id")),
        sa.PrimaryKeyConstraint("server_id", "hour", name=op.f("pk_usage_hours")),
    )
    op.create_index("ix_usage_hours_hour", "usage_hours", ["hour"])
    op.create_table(
        "invoices",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("organization_id", sa.String(12), nullable=False),
        sa.Column("period_start", sa.DateTime(timezone=True), nullable=False),
        sa.Column("period_end", sa.DateTime(timezone=True), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_invoices_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoices")),
        sa.UniqueConstraint(
            "organization_id", "period_start", name=op.f("uq_invoices_organization_id_period_start")
        ),
    )
    op.create_table(
        "invoice_lines",
        sa.Column("id", sa.String(12), nullable=False),
        sa.Column("invoice_id", sa.String(12), nullable=False),
        sa.Column("branch_id", sa.String(12), nullable=False),
        sa.Column("metric", sa.String(40), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name=op.f("fk_invoice_lines_invoice_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_invoice_lines_branch_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invoice_lines")),
        sa.UniqueConstraint(
            "invoice_id", "branch_id", "metric", name=op.f("uq_invoice_lines_invoice_id_branch_id_metric")
        ),
    )
