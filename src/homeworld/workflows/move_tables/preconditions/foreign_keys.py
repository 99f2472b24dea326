"""Foreign keys that a move would tear, or whose cascades the binlog does not show."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import ForeignKey, Rule, ShardFacts, World

_CASCADING = {"CASCADE", "SET NULL", "SET DEFAULT"}


def _check(world: World) -> Iterator[str]:
    moving = {name.lower() for name in world.tables}
    for shard in world.source.shards:
        for key in shard.foreign_keys:
            child = _inside(key.schema, key.table, shard, moving)
            parent = _inside(key.parent_schema, key.parent_table, shard, moving)
            if child or parent:
                yield from _judge(world, key, shard.where, child=child, parent=parent)


def _inside(schema: str, table: str, shard: ShardFacts, moving: set[str]) -> bool:
    return schema.lower() == shard.schema.lower() and table.lower() in moving


def _judge(world: World, key: ForeignKey, where: str, *, child: bool, parent: bool) -> Iterator[str]:
    named = f"foreign key {key.name} of table {key.table} on {where}"
    if child and not parent:
        yield f"{named} refers to table {key.parent_table}, which is left behind"
    elif parent and not child:
        yield f"{named}, which is left behind, refers to moving table {key.parent_table}"
    elif world.target.sharded:
        yield f"{named} cannot hold across shards; drop it before the move"
    elif {key.on_delete.upper(), key.on_update.upper()} & _CASCADING:
        yield (
            f"{named} cascades (ON DELETE {key.on_delete}, ON UPDATE {key.on_update}); rows changed by a "
            "cascade are not in the binlog"
        )


RULE = Rule("foreign-keys", "no foreign key leads out of, into, or cascades among the moved tables", _check)
