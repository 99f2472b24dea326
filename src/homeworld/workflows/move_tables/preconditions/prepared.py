"""No transaction is prepared already (XA): its rows stand in the log before the stream begins."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    for shard in world.source.shards:
        for name in shard.prepared:
            yield (
                f"transaction {name} is prepared on {shard.where} (XA RECOVER lists it), and its rows would "
                "not be seen; commit or roll it back first"
            )


RULE = Rule("prepared", "no transaction of the source waits for its XA COMMIT", _check)
