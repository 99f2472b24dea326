"""A trigger would act twice, or not at all once its table has moved."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    moving = {name.lower() for name in world.tables}
    for keyspace in (world.source, world.target):
        for shard in keyspace.shards:
            for trigger in shard.triggers:
                if trigger.table.lower() in moving:
                    yield f"table {trigger.table} on {shard.where} has the trigger {trigger.name}"


RULE = Rule("triggers", "no moved table has triggers", _check)
