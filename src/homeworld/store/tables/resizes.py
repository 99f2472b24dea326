"""What was asked of sizes: resizes of keyspaces and of a branch's gateways, and each shard's roll-out.

One resize of a branch is under way at a time, because its keyspaces may share servers; one of a keyspace (of
a branch's gateways) waits at most, and asking again changes that one.
"""

from __future__ import annotations

from sqlalchemy import Boolean, CheckConstraint, Column, ForeignKey, Index, Integer, String, Table, Text, text

from homeworld.model.states.resizing import Resize
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

WAITS = text("state IN ('queued', 'pending')")
RUNS = text("state = 'resizing'")

keyspace_resizes = Table(
    "keyspace_resizes",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("keyspace_id", String(12), ForeignKey("keyspaces.id"), nullable=False),
    Column("state", EnumText(Resize), nullable=False),
    Column("error", Text, nullable=False),
    Column("cluster_size", String(64), nullable=False),
    Column("previous_cluster_size", String(64), nullable=False),
    Column("replicas", Integer, nullable=False),
    Column("previous_replicas", Integer, nullable=False),
    Column("extra_replicas", Integer, nullable=False),
    # it was asked to be given up after it had begun
    Column("giving_up", Boolean, nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("started_at", Utc, nullable=True),
    Column("completed_at", Utc, nullable=True),
    one_of("state", Resize),
    Index(
        "uq_keyspace_resizes_one_waits",
        "keyspace_id",
        unique=True,
        sqlite_where=WAITS,
        postgresql_where=WAITS,
    ),
    Index(
        "uq_keyspace_resizes_one_runs",
        "branch_id",
        unique=True,
        sqlite_where=RUNS,
        postgresql_where=RUNS,
    ),
    Index("ix_keyspace_resizes_list", "keyspace_id", "created_at", "id"),
    Index("ix_keyspace_resizes_state", "state", "branch_id"),
)

gateway_resizes = Table(
    "gateway_resizes",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("state", EnumText(Resize), nullable=False),
    Column("error", Text, nullable=False),
    Column("size", String(64), nullable=False),
    Column("previous_size", String(64), nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("started_at", Utc, nullable=True),
    Column("completed_at", Utc, nullable=True),
    one_of("state", Resize),
    Index(
        "uq_gateway_resizes_one_waits",
        "branch_id",
        unique=True,
        sqlite_where=WAITS,
        postgresql_where=WAITS,
    ),
    Index(
        "uq_gateway_resizes_one_runs",
        "branch_id",
        unique=True,
        sqlite_where=RUNS,
        postgresql_where=RUNS,
    ),
    Index("ix_gateway_resizes_list", "branch_id", "created_at", "id"),
    Index("ix_gateway_resizes_state", "state"),
)

# A shard without a row has had none but its making.
shard_rollouts = Table(
    "shard_rollouts",
    metadata,
    Column("shard_id", String(12), ForeignKey("shards.id"), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("started_at", Utc, nullable=True),
    Column("finished_at", Utc, nullable=True),
    CheckConstraint("state IN ('pending', 'in_progress', 'complete')", name="state"),
)
