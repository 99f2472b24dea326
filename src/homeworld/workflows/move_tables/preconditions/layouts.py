"""Rows fit into the target's tables, and those that are written there fit into the source's."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.replication.ddl import differences_both_ways
from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    source = world.source_tables()
    for shard in world.target.shards:
        for name, table in shard.tables.items():
            if name not in source:
                continue
            origin = world.source.shards[0].where
            differences = differences_both_ways(source[name], table, origin, shard.where)
            if differences:
                yield f"table {name} on {shard.where} does not fit: {'; '.join(differences)}"


RULE = Rule(
    "layouts",
    "a target table that is there has the source's form, for the way there and back",
    _check,
    lasting=True,
)
