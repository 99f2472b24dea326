"""Which clusters follow their branches, and how far; databases that are taken over by another engine."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    text,
)

from homeworld.model.engines import EngineKind
from homeworld.model.states.engine_changes import EngineChange
from homeworld.store.tables.base import EnumText, Utc, created, metadata, one_of, public_id, updated

UNFINISHED = text("state IN ('pending', 'running')")

# standing: its processes may exist. followed: the branch's routes' version that it has; digest: of what it
# was made to be then. joining: keyspaces that are not ready and belong to it already: their servers and
# schemas exist. error: why it does not follow.
followings = Table(
    "followings",
    metadata,
    Column("branch_id", String(12), ForeignKey("branches.id"), primary_key=True),
    Column("standing", Boolean, nullable=False),
    Column("followed", BigInteger, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("joining", JSON, nullable=False),
    Column("error", Text, nullable=False),
    # of a cluster that others run: the vschemas and rules that it and the store had alike last
    Column("agreed", JSON(none_as_null=True), nullable=True),
    updated(),
    Index("ix_followings_standing", "standing"),
)

engine_changes = Table(
    "engine_changes",
    metadata,
    public_id(),
    Column("database_id", String(12), ForeignKey("databases.id"), nullable=False),
    Column("engine", EnumText(EngineKind), nullable=False),
    Column("state", EnumText(EngineChange), nullable=False),
    # why it failed; before that, why it does not go on
    Column("error", Text, nullable=False),
    # seconds after which a try that has not counted yet is given up
    Column("timeout", Integer, nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
    updated(),
    Column("started_at", Utc, nullable=True),
    Column("completed_at", Utc, nullable=True),
    one_of("state", EngineChange),
    one_of("engine", EngineKind),
    Index(
        "uq_engine_changes_one_unfinished",
        "database_id",
        unique=True,
        sqlite_where=UNFINISHED,
        postgresql_where=UNFINISHED,
    ),
    Index("ix_engine_changes_state", "state"),
)
