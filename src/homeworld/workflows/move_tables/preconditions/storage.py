"""Only InnoDB commits rows and positions together."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, World


def _check(world: World) -> Iterator[str]:
    for shard in world.source.shards:
        for name, table in shard.tables.items():
            if table.engine.lower() != "innodb":
                yield f"table {name} on {shard.where} is of engine {table.engine}; only InnoDB tables move"
            if "WITH SYSTEM VERSIONING" in table.create_sql.upper():
                yield f"table {name} on {shard.where} is system versioned; its history would not move"


RULE = Rule("storage", "each table is a plain InnoDB table", _check)
