"""The tables are there, each once, as base tables, and the same on every shard of the source."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.model.vschema import REFERENCE, SEQUENCE
from homeworld.replication.ddl import layout_differences
from homeworld.workflows.move_tables.preconditions.world import Rule, World

# Characters that routing rules and targets give a meaning to.
_MEANINGFUL = ".@/`"


def _check(world: World) -> Iterator[str]:
    if not world.tables:
        yield "name at least one table to move"
    lowered = [name.lower() for name in world.tables]
    for name in dict.fromkeys(name for name in lowered if lowered.count(name) > 1):
        yield f"table {name} is named more than once"
    for name in world.tables:
        if any(character in name for character in _MEANINGFUL):
            yield f"table {name!r} cannot be moved: its name has a character that routing gives a meaning to"
        entry = world.source.vschema.tables.get(name)
        if entry is not None and entry.type in (SEQUENCE, REFERENCE):
            yield f"table {name} is a {entry.type} table; only ordinary tables move"
        yield from _on_shards(world, name)


def _on_shards(world: World, name: str) -> Iterator[str]:
    first = world.source_tables().get(name)
    for shard in world.source.shards:
        found = shard.tables.get(name)
        if name in shard.others:
            yield f"{name} on {shard.where} is a view; only tables move"
        elif found is None:
            yield f"table {name} does not exist on {shard.where}"
        elif found.name != name:
            yield f"table {name} is spelled {found.name!r} on {shard.where}"
        elif first is not None and (
            differences := layout_differences(first, found, world.source.shards[0].where, shard.where)
        ):
            yield f"table {name} is not the same on all source shards: {'; '.join(differences)}"


RULE = Rule(
    "tables-exist", "each table exists as the same base table on every source shard", _check, lasting=True
)
