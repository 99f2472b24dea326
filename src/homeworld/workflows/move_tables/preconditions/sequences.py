"""Ids that the source gives out have a giver on a sharded target."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.model.errors import InvalidError
from homeworld.workflows.move_tables.ids import plan_ids
from homeworld.workflows.move_tables.preconditions.world import Rule, World

_LONGEST = 64


def _check(world: World) -> Iterator[str]:
    if world.globals_ is not None and world.globals_.sharded:
        yield f"global keyspace {world.globals_.name} is sharded; sequences need an unsharded one"
        return
    known = dict(world.vschemas)
    for name, table in world.source_tables().items():
        try:
            planned = plan_ids(
                {name: table},
                world.source.name,
                world.target.name,
                known,
                world.globals_.name if world.globals_ else None,
            )
        except InvalidError as error:
            yield error.message
            continue
        for ids in planned:
            yield from _usable(world, ids.target)


def _usable(world: World, giver: str) -> Iterator[str]:
    keyspace, _, sequence = giver.partition(".")
    if world.globals_ is None or keyspace != world.globals_.name:
        return
    if len(sequence) > _LONGEST:
        yield f"the sequence name {sequence} is too long; name a sequence in the target's vschema"
    if world.sequences.get(sequence) is False:
        yield f"table {sequence} in keyspace {keyspace} is in the way of a sequence"
    elif sequence in world.globals_.vschema.tables and world.sequences.get(sequence) is None:
        yield f"the vschema of {keyspace} names {sequence}, but there is no such table"


RULE = Rule("sequences", "each given-out id has a giver on the target", _check)
