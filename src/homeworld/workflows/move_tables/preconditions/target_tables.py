"""What is moved comes into empty tables."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    for shard in world.target.shards:
        for name in sorted(shard.others):
            yield f"{name} on {shard.where} is a view; the target must be absent or an empty table"
        for name in shard.tables:
            if name in shard.filled:
                yield f"table {name} on {shard.where} is not empty"


RULE = Rule("target-tables", "each target table is absent or empty", _check)
