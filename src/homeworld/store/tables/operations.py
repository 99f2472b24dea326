"""Operations of the vtctld family: who waits for what since which row of the journal."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, String, Table

from homeworld.model.states.move_tables import State
from homeworld.store.tables.base import EnumText, created, metadata, public_id

vtctld_operations = Table(
    "vtctld_operations",
    metadata,
    public_id(),
    Column("branch_id", String(12), ForeignKey("branches.id"), nullable=False),
    Column("workflow_id", String(12), ForeignKey("workflows.id"), nullable=False),
    Column("action", String(40), nullable=False),
    Column("goal", EnumText(State), nullable=False),
    Column("since", BigInteger, nullable=True),
    Column("metadata", JSON, nullable=False),
    Column("told", JSON, nullable=False),
    Column("actor_id", String(12), ForeignKey("actors.id"), nullable=True),
    created(),
)
