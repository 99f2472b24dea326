"""Foreign keys that a move would tear, or whose cascades the binlog does not show."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import ForeignKey, Rule, ShardFacts, World

_CASCADING = {"CASCADE", "SET NULL", "SET DEFAULT"}


def left_behind(shard: ShardFacts, tables: tuple[str, ...]) -> Iterator[str]:
    """Each foreign key of a table left behind that refers to one of the tables on a shard."""
    moving = {name.lower() for name in tables}
    for key in shard.foreign_keys:
        child = _inside(key.schema, key.table, shard, moving)
        if not child and _inside(key.parent_schema, key.parent_table, shard, moving):
            yield (
                f"foreign key {key.name} of table {key.table} on {shard.where}, which is left behind, refers "
                f"to moving table {key.parent_table}"
            )


def _check(world: World) -> Iterator[str]:
    moving = {name.lower() for name in world.tables}
    for shard in world.source.shards:
        yield from left_behind(shard, world.tables)
        for key in shard.foreign_keys:
            if _inside(key.schema, key.table, shard, moving):
                parent = _inside(key.parent_schema, key.parent_table, shard, moving)
                yield from _judge(world, key, shard.where, parent=parent)
    for shard in world.target.shards:
        for key in shard.foreign_keys:
            # Whoever writes to the parent there, the way back would not hear of what becomes of the child.
            if _inside(key.schema, key.table, shard, moving) and _cascades(key):
                yield _cascading(key, shard.where)


def _inside(schema: str, table: str, shard: ShardFacts, moving: set[str]) -> bool:
    return schema.lower() == shard.schema.lower() and table.lower() in moving


def _judge(world: World, key: ForeignKey, where: str, *, parent: bool) -> Iterator[str]:
    named = _named(key, where)
    if not parent:
        yield f"{named} refers to table {key.parent_table}, which is left behind"
    elif world.target.sharded:
        yield f"{named} cannot hold across shards; drop it before the move"
    elif _cascades(key):
        yield _cascading(key, where)


def _named(key: ForeignKey, where: str) -> str:
    return f"foreign key {key.name} of table {key.table} on {where}"


def _cascades(key: ForeignKey) -> bool:
    return bool({key.on_delete.upper(), key.on_update.upper()} & _CASCADING)


def _cascading(key: ForeignKey, where: str) -> str:
    return (
        f"{_named(key, where)} cascades (ON DELETE {key.on_delete}, ON UPDATE {key.on_update}); rows changed "
        "by a cascade are not in the binlog"
    )


RULE = Rule(
    "foreign-keys",
    "no foreign key leads out of, into, or cascades among the moved tables",
    _check,
    lasting=True,
)
