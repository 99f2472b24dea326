"""What is moved comes into empty tables that can take it."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.replication.ddl import layout_differences
from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    source = world.source_tables()
    for shard in world.target.shards:
        for name in sorted(shard.others):
            yield f"{name} on {shard.where} is a view; the target must be absent or an empty table"
        for name, table in shard.tables.items():
            if name in shard.filled:
                yield f"table {name} on {shard.where} is not empty"
            elif name in source and (differences := layout_differences(source[name], table)):
                yield f"table {name} on {shard.where} does not fit: {'; '.join(differences)}"


RULE = Rule("target-tables", "each target table is absent, or empty and of the same form", _check)
