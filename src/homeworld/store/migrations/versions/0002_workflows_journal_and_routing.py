"""Workflows, journal and routing. Never edited once released: later changes are later files."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Go forward."""
    op.create_table(
        "counters",
        sa.Column("name", sa.String(length=20), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_counters")),
    )
    op.create_table(
        "leases",
        sa.Column("resource", sa.String(length=64), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("resource", name=op.f("pk_leases")),
    )
    op.create_table(
        "outbox",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("event", sa.String(length=64), nullable=False),
        sa.Column("resource_kind", sa.String(length=20), nullable=False),
        sa.Column("resource_id", sa.String(length=12), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "outbox_cursors",
        sa.Column("consumer", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("consumer", name=op.f("pk_outbox_cursors")),
    )
    op.create_table(
        "steps",
        sa.Column("resource_id", sa.String(length=12), nullable=False),
        sa.Column("run", sa.String(length=64), nullable=False),
        sa.Column("step", sa.String(length=64), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("data", sa.JSON(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "status IN ('started', 'done', 'undoing', 'undone', 'failed')", name=op.f("ck_steps_status")
        ),
        sa.PrimaryKeyConstraint("resource_id", "run", "step", name=op.f("pk_steps")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("organization_id", sa.String(length=12), nullable=False),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("target_kind", sa.String(length=20), nullable=False),
        sa.Column("target_id", sa.String(length=12), nullable=False),
        sa.Column("target_name", sa.String(length=255), nullable=False),
        sa.Column("remote_ip", sa.String(length=64), nullable=False),
        sa.Column("metadata", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_audit_log_actor_id")),
        sa.ForeignKeyConstraint(
            ["organization_id"], ["organizations.id"], name=op.f("fk_audit_log_organization_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    op.create_index(
        "ix_audit_log_organization", "audit_log", ["organization_id", "created_at", "id"], unique=False
    )
    op.create_table(
        "transitions",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("resource_kind", sa.String(length=20), nullable=False),
        sa.Column("resource_id", sa.String(length=12), nullable=False),
        sa.Column("from_state", sa.String(length=40), nullable=False),
        sa.Column("to_state", sa.String(length=40), nullable=False),
        sa.Column("trigger", sa.String(length=40), nullable=False),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_transitions_actor_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_transitions")),
    )
    op.create_index(
        "ix_transitions_resource", "transitions", ["resource_kind", "resource_id", "id"], unique=False
    )
    op.create_table(
        "branch_routing",
        sa.Column("branch_id", sa.String(length=12), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_branch_routing_branch_id")),
        sa.PrimaryKeyConstraint("branch_id", name=op.f("pk_branch_routing")),
    )
    op.create_index(op.f("ix_branch_routing_version"), "branch_routing", ["version"], unique=False)
    op.create_table(
        "workflows",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("database_id", sa.String(length=12), nullable=False),
        sa.Column("branch_id", sa.String(length=12), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=40), nullable=False),
        sa.Column("source_keyspace_id", sa.String(length=12), nullable=False),
        sa.Column("target_keyspace_id", sa.String(length=12), nullable=False),
        sa.Column("global_keyspace_id", sa.String(length=12), nullable=True),
        sa.Column("defer_secondary_keys", sa.Boolean(), nullable=False),
        sa.Column("on_ddl", sa.String(length=40), nullable=False),
        sa.Column("replicas_switched", sa.Boolean(), nullable=False),
        sa.Column("primaries_switched", sa.Boolean(), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("interrupted_state", sa.String(length=40), nullable=True),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("sequence_tables_applied", sa.Boolean(), nullable=False),
        sa.Column("asked", sa.String(length=40), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("lag_seconds", sa.Float(), nullable=True),
        sa.Column("lag_told_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("workflow_errors", sa.Text(), nullable=False),
        sa.Column("may_retry", sa.Boolean(), nullable=False),
        sa.Column("may_restart", sa.Boolean(), nullable=False),
        sa.Column("rules_before", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("rules_saved", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("forward_positions", sa.JSON(), nullable=False),
        sa.Column("reverse_positions", sa.JSON(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("actor_id", sa.String(length=12), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cancelled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reversed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("retried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("data_copy_completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("cutover_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("switch_replicas_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("switch_primaries_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_data_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("verify_data_by", sa.String(length=12), nullable=True),
        sa.Column("reversed_by", sa.String(length=12), nullable=True),
        sa.Column("switch_replicas_by", sa.String(length=12), nullable=True),
        sa.Column("switch_primaries_by", sa.String(length=12), nullable=True),
        sa.Column("cancelled_by", sa.String(length=12), nullable=True),
        sa.Column("completed_by", sa.String(length=12), nullable=True),
        sa.Column("retried_by", sa.String(length=12), nullable=True),
        sa.Column("cutover_by", sa.String(length=12), nullable=True),
        sa.Column("reversed_cutover_by", sa.String(length=12), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state <> 'switched_primaries' OR primaries_switched) AND (state <> 'switched_replicas' "
            "OR replicas_switched)",
            name=op.f("ck_workflows_switched_is_said"),
        ),
        sa.CheckConstraint(
            "on_ddl IN ('IGNORE', 'STOP', 'EXEC', 'EXEC_IGNORE')", name=op.f("ck_workflows_on_ddl")
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'copying', 'running', 'stopped', 'verifying_data', 'verified_data', "
            "'switching_replicas', 'switched_replicas', 'switching_primaries', 'switched_primaries', "
            "'reversing_traffic', 'reversing_traffic_for_cancel', 'cutting_over', 'cutover', "
            "'reversed_cutover', 'completed', 'cancelling', 'cancelled', 'error')",
            name=op.f("ck_workflows_state"),
        ),
        sa.CheckConstraint(
            "state NOT IN ('error', 'stopped') OR interrupted_state IS NOT NULL",
            name=op.f("ck_workflows_interrupted_is_said"),
        ),
        sa.CheckConstraint(
            "source_keyspace_id <> target_keyspace_id", name=op.f("ck_workflows_two_keyspaces")
        ),
        sa.ForeignKeyConstraint(["actor_id"], ["actors.id"], name=op.f("fk_workflows_actor_id")),
        sa.ForeignKeyConstraint(["branch_id"], ["branches.id"], name=op.f("fk_workflows_branch_id")),
        sa.ForeignKeyConstraint(["cancelled_by"], ["actors.id"], name=op.f("fk_workflows_cancelled_by")),
        sa.ForeignKeyConstraint(["completed_by"], ["actors.id"], name=op.f("fk_workflows_completed_by")),
        sa.ForeignKeyConstraint(["cutover_by"], ["actors.id"], name=op.f("fk_workflows_cutover_by")),
        sa.ForeignKeyConstraint(["database_id"], ["databases.id"], name=op.f("fk_workflows_database_id")),
        sa.ForeignKeyConstraint(
            ["global_keyspace_id"], ["keyspaces.id"], name=op.f("fk_workflows_global_keyspace_id")
        ),
        sa.ForeignKeyConstraint(["retried_by"], ["actors.id"], name=op.f("fk_workflows_retried_by")),
        sa.ForeignKeyConstraint(["reversed_by"], ["actors.id"], name=op.f("fk_workflows_reversed_by")),
        sa.ForeignKeyConstraint(
            ["reversed_cutover_by"], ["actors.id"], name=op.f("fk_workflows_reversed_cutover_by")
        ),
        sa.ForeignKeyConstraint(
            ["source_keyspace_id"], ["keyspaces.id"], name=op.f("fk_workflows_source_keyspace_id")
        ),
        sa.ForeignKeyConstraint(
            ["switch_primaries_by"], ["actors.id"], name=op.f("fk_workflows_switch_primaries_by")
        ),
        sa.ForeignKeyConstraint(
            ["switch_replicas_by"], ["actors.id"], name=op.f("fk_workflows_switch_replicas_by")
        ),
        sa.ForeignKeyConstraint(
            ["target_keyspace_id"], ["keyspaces.id"], name=op.f("fk_workflows_target_keyspace_id")
        ),
        sa.ForeignKeyConstraint(["verify_data_by"], ["actors.id"], name=op.f("fk_workflows_verify_data_by")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflows")),
        sa.UniqueConstraint("database_id", "number", name=op.f("uq_workflows_database_id_number")),
    )
    op.create_index("ix_workflows_state", "workflows", ["state"], unique=False)
    op.create_index(
        "ix_workflows_unsettled",
        "workflows",
        ["updated_at"],
        unique=False,
        sqlite_where=sa.text("NOT settled"),
        postgresql_where=sa.text("NOT settled"),
    )
    op.create_index(
        "uq_workflows_one_active",
        "workflows",
        ["branch_id"],
        unique=True,
        sqlite_where=sa.text("state NOT IN ('completed', 'cancelled')"),
        postgresql_where=sa.text("state NOT IN ('completed', 'cancelled')"),
    )
    op.create_table(
        "vdiffs",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("workflow_id", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("rows_compared", sa.BigInteger(), nullable=False),
        sa.Column("rows_total", sa.BigInteger(), nullable=False),
        sa.Column("eta_seconds", sa.Float(), nullable=False),
        sa.Column("has_mismatch", sa.Boolean(), nullable=False),
        sa.Column("error", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'started', 'completed', 'error')", name=op.f("ck_vdiffs_state")
        ),
        sa.ForeignKeyConstraint(["workflow_id"], ["workflows.id"], name=op.f("fk_vdiffs_workflow_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vdiffs")),
    )
    op.create_index("ix_vdiffs_workflow", "vdiffs", ["workflow_id", "created_at"], unique=False)
    op.create_table(
        "workflow_streams",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("workflow_id", sa.String(length=12), nullable=False),
        sa.Column("direction", sa.String(length=8), nullable=False),
        sa.Column("source_shard", sa.String(length=64), nullable=False),
        sa.Column("target_shard", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("stop_position", sa.Text(), nullable=False),
        sa.Column("rows_copied", sa.BigInteger(), nullable=False),
        sa.Column("events_applied", sa.BigInteger(), nullable=False),
        sa.Column("lag_seconds", sa.Float(), nullable=True),
        sa.Column("component_throttled", sa.String(length=255), nullable=False),
        sa.Column("component_throttled_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("primary_serving", sa.Boolean(), nullable=False),
        sa.Column("info", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("direction IN ('forward', 'reverse')", name=op.f("ck_workflow_streams_direction")),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_workflow_streams_workflow_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_streams")),
        sa.UniqueConstraint(
            "workflow_id",
            "direction",
            "source_shard",
            "target_shard",
            name=op.f("uq_workflow_streams_workflow_id_direction_source_shard_target_shard"),
        ),
    )
    op.create_table(
        "workflow_tables",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("workflow_id", sa.String(length=12), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("rows_copied", sa.BigInteger(), nullable=False),
        sa.Column("rows_total", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["workflow_id"], ["workflows.id"], name=op.f("fk_workflow_tables_workflow_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workflow_tables")),
        sa.UniqueConstraint("workflow_id", "name", name=op.f("uq_workflow_tables_workflow_id_name")),
    )
    op.create_table(
        "stream_logs",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("stream_id", sa.String(length=12), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("log_type", sa.String(length=40), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["stream_id"], ["workflow_streams.id"], name=op.f("fk_stream_logs_stream_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_stream_logs")),
    )
    op.create_index("ix_stream_logs_stream", "stream_logs", ["stream_id", "created_at"], unique=False)
    op.create_table(
        "vdiff_reports",
        sa.Column("id", sa.String(length=12), nullable=False),
        sa.Column("vdiff_id", sa.String(length=12), nullable=False),
        sa.Column("table_name", sa.String(length=64), nullable=False),
        sa.Column("shard", sa.String(length=64), nullable=False),
        sa.Column("rows_compared", sa.BigInteger(), nullable=False),
        sa.Column("mismatched_rows_count", sa.BigInteger(), nullable=False),
        sa.Column("extra_source_rows_count", sa.BigInteger(), nullable=False),
        sa.Column("extra_target_rows_count", sa.BigInteger(), nullable=False),
        sa.Column("wrong_shard_rows_count", sa.BigInteger(), nullable=False),
        sa.Column("mismatched_rows", sa.JSON(), nullable=False),
        sa.Column("extra_source_rows", sa.JSON(), nullable=False),
        sa.Column("extra_target_rows", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["vdiff_id"], ["vdiffs.id"], name=op.f("fk_vdiff_reports_vdiff_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vdiff_reports")),
        sa.UniqueConstraint(
            "vdiff_id", "table_name", "shard", name=op.f("uq_vdiff_reports_vdiff_id_table_name_shard")
        ),
    )


def downgrade() -> None:
    """The first schema is not taken back."""
    raise NotImplementedError
