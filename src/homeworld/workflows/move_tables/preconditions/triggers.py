"""A trigger would act twice, or not at all once its table has moved."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, ShardFacts, World


def triggers_of(shard: ShardFacts, tables: tuple[str, ...]) -> Iterator[str]:
    """Each trigger that one of the tables has on a shard."""
    moving = {name.lower() for name in tables}
    for trigger in shard.triggers:
        if trigger.table.lower() in moving:
            yield f"table {trigger.table} on {shard.where} has the trigger {trigger.name}"


def _check(world: World) -> Iterator[str]:
    for keyspace in (world.source, world.target):
        for shard in keyspace.shards:
            yield from triggers_of(shard, world.tables)


RULE = Rule("triggers", "no moved table has triggers", _check, lasting=True)
