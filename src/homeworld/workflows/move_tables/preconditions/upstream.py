"""Each shard's writes begin on its own server: what comes to it from another could come after the switch."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    for server in world.servers:
        if server.upstream is None:
            yield f"{server.where}: the mover may not see whether the server replicates from another"
        elif server.upstream:
            yield (
                f"{server.where} replicates from {server.upstream}; what is written there and has not "
                "arrived would be missed by a switch; move from the server that writes begin on"
            )


RULE = Rule("upstream", "no server replicates from another", _check, lasting=True)
