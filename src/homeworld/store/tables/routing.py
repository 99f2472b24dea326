"""What gateways serve: each branch's rules and version, and the global version that only grows."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, String, Table

from homeworld.store.tables.base import metadata

counters = Table(
    "counters",
    metadata,
    Column("name", String(20), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# closing: which of the rules a switch has moved that gateways may not simply serve yet (null: none).
# moving: the tables of a workflow that is not over, and since which version gateways are told (null: none).
# version: the global version at which anything that gateways see of this branch last changed.
branch_routing = Table(
    "branch_routing",
    metadata,
    Column("branch_id", String(12), ForeignKey("branches.id"), primary_key=True),
    Column("rules", JSON, nullable=False),
    Column("closing", JSON(none_as_null=True), nullable=True),
    Column("moving", JSON(none_as_null=True), nullable=True),
    Column("moving_since", BigInteger, nullable=True),
    Column("version", BigInteger, nullable=False, index=True),
)
