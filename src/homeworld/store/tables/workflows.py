"""Workflows and what is told of their progress.

The constraint that matters most: a branch has at most one workflow that is not over.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)

from homeworld.model.movers import OnDdl
from homeworld.model.states.move_tables import State
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

ACTIVE = text("state NOT IN ('completed', 'cancelled')")
UNSETTLED = text("NOT settled")

STAMPS_AT = (
    "started_at",
    "completed_at",
    "cancelled_at",
    "reversed_at",
    "retried_at",
    "data_copy_completed_at",
    "cutover_at",
    "switch_replicas_at",
    "switch_primaries_at",
    "verify_data_at",
)
STAMPS_BY = (
    "verify_data_by",
    "reversed_by",
    "switch_replicas_by",
    "switch_primaries_by",
    "cancelled_by",
    "completed_by",
    "retried_by",
    "cutover_by",
    "reversed_cutover_by",
)


def _keyspace(name: str, *, nullable: bool) -> Column[Any]:
    return Column(name, String(12), ForeignKey("keyspaces.id"), nullable=nullable)


workflows = Table(
    "workflows",
    metadata,
    public_id(),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("name", String(64), nullable=False),
    Column("state", EnumText(State), nullable=False),
    _keyspace("source_keyspace_id", nullable=False),
    _keyspace("target_keyspace_id", nullable=False),
    _keyspace("global_keyspace_id", nullable=True),
    Column("defer_secondary_keys", Boolean, nullable=False),
    Column("on_ddl", EnumText(OnDdl), nullable=False),
    # facts beside the state
    Column("replicas_switched", Boolean, nullable=False),
    Column("primaries_switched", Boolean, nullable=False),
    Column("verified", Boolean, nullable=False),
    Column("interrupted_state", EnumText(State), nullable=True),
    Column("settled", Boolean, nullable=False),
    Column("sequence_tables_applied", Boolean, nullable=False),
    Column("asked", String(40), nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("lag_seconds", Float, nullable=True),
    Column("lag_told_at", Utc, nullable=True),
    Column("workflow_errors", Text, nullable=False),
    Column("may_retry", Boolean, nullable=False),
    Column("may_restart", Boolean, nullable=False),
    Column("rules_before", JSON(none_as_null=True), nullable=True),
    Column("rules_saved", JSON(none_as_null=True), nullable=True),
    Column("forward_positions", JSON, nullable=False),
    Column("reverse_positions", JSON, nullable=False),
    Column("facts", JSON, nullable=False),
    # replica_lag_seconds, source_threads_running, source_history_length: a number, or null for no limit; what
    # is not named is as usual
    Column("limits", JSON, nullable=False, server_default=text("'{}'")),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    *(Column(name, Utc, nullable=True) for name in STAMPS_AT),
    *(Column(name, String(12), ForeignKey("actors.id"), nullable=True) for name in STAMPS_BY),
    created(),
    updated(),
    one_of("state", State),
    one_of("on_ddl", OnDdl),
    CheckConstraint("source_keyspace_id <> target_keyspace_id", name="two_keyspaces"),
    CheckConstraint(
        "state NOT IN ('error', 'stopped') OR interrupted_state IS NOT NULL", name="interrupted_is_said"
    ),
    CheckConstraint(
        "(state <> 'switched_primaries' OR primaries_switched)"
        " AND (state <> 'switched_replicas' OR replicas_switched)",
        name="switched_is_said",
    ),
    UniqueConstraint("database_id", "number"),
    Index(
        "uq_workflows_one_active",
        "branch_id",
        unique=True,
        sqlite_where=ACTIVE,
        postgresql_where=ACTIVE,
    ),
    Index("ix_workflows_state", "state"),
    Index("ix_workflows_unsettled", "updated_at", sqlite_where=UNSETTLED, postgresql_where=UNSETTLED),
)

workflow_tables = Table(
    "workflow_tables",
    metadata,
    public_id(),
    Column("workflow_id", String(12), ForeignKey("workflows.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("rows_copied", BigInteger, nullable=False),
    Column("rows_total", BigInteger, nullable=False),
    created(),
    updated(),
    UniqueConstraint("workflow_id", "name"),
)

workflow_streams = Table(
    "workflow_streams",
    metadata,
    public_id(),
    Column("workflow_id", String(12), ForeignKey("workflows.id"), nullable=False),
    Column("direction", String(8), nullable=False),
    Column("source_shard", String(64), nullable=False),
    Column("target_shard", String(64), nullable=False),
    Column("state", String(20), nullable=False),
    Column("position", Text, nullable=False),
    Column("stop_position", Text, nullable=False),
    Column("rows_copied", BigInteger, nullable=False),
    Column("events_applied", BigInteger, nullable=False),
    Column("lag_seconds", Float, nullable=True),
    Column("component_throttled", String(255), nullable=False),
    Column("component_throttled_at", Utc, nullable=True),
    Column("primary_serving", Boolean, nullable=False),
    Column("info", Text, nullable=False),
    created(),
    updated(),
    UniqueConstraint("workflow_id", "direction", "source_shard", "target_shard"),
    CheckConstraint("direction IN ('forward', 'reverse')", name="direction"),
)

stream_logs = Table(
    "stream_logs",
    metadata,
    public_id(),
    Column("stream_id", String(12), ForeignKey("workflow_streams.id"), nullable=False),
    Column("state", String(20), nullable=False),
    Column("log_type", String(40), nullable=False),
    Column("message", Text, nullable=False),
    created(),
    updated(),
    Index("ix_stream_logs_stream", "stream_id", "created_at"),
)

vdiffs = Table(
    "vdiffs",
    metadata,
    public_id(),
    Column("workflow_id", String(12), ForeignKey("workflows.id"), nullable=False),
    Column("state", String(20), nullable=False),
    Column("rows_compared", BigInteger, nullable=False),
    Column("rows_total", BigInteger, nullable=False),
    Column("eta_seconds", Float, nullable=False),
    Column("rows_per_second", Float, nullable=False, server_default=text("0")),
    Column("rounds", JSON, nullable=False, server_default=text("'[]'")),
    Column("has_mismatch", Boolean, nullable=False),
    Column("error", Text, nullable=False),
    Column("started_at", Utc, nullable=True),
    Column("completed_at", Utc, nullable=True),
    created(),
    updated(),
    CheckConstraint("state IN ('pending', 'started', 'completed', 'error')", name="state"),
    Index("ix_vdiffs_workflow", "workflow_id", "created_at"),
)

vdiff_reports = Table(
    "vdiff_reports",
    metadata,
    public_id(),
    Column("vdiff_id", String(12), ForeignKey("vdiffs.id"), nullable=False),
    Column("table_name", String(64), nullable=False),
    Column("shard", String(64), nullable=False),
    Column("state", String(20), nullable=False, server_default=text("'completed'")),
    Column("rows_compared", BigInteger, nullable=False),
    Column("rows_total", BigInteger, nullable=False, server_default=text("0")),
    Column("mismatched_rows_count", BigInteger, nullable=False),
    Column("extra_source_rows_count", BigInteger, nullable=False),
    Column("extra_target_rows_count", BigInteger, nullable=False),
    Column("wrong_shard_rows_count", BigInteger, nullable=False),
    Column("mismatched_rows", JSON, nullable=False),
    Column("extra_source_rows", JSON, nullable=False),
    Column("extra_target_rows", JSON, nullable=False),
    created(),
    updated(),
    UniqueConstraint("vdiff_id", "table_name", "shard"),
)
