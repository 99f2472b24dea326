"""Two ready keyspaces that are not the same."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    if world.source.name == world.target.name:
        yield "source and target keyspace are the same"
    for what, keyspace in (("source", world.source), ("target", world.target), ("global", world.globals_)):
        if keyspace is not None and not keyspace.ready:
            yield f"{what} keyspace {keyspace.name} is not ready"
    if len({server.flavor for server in world.servers}) > 1:
        yield "source and target stand on servers of different families"


RULE = Rule("keyspaces", "source and target are two ready keyspaces on servers of one family", _check)
