"""Only InnoDB commits rows and positions together, and a row's periods are the server's own to split.

On the target as well, where a table is there already: the way back reads its log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.replication.ddl import outside_quotes
from homeworld.workflows.move_tables.preconditions.world import Rule, World

# ``PERIOD FOR name (begin, end)``; with one a key may be WITHOUT OVERLAPS, and rows are changed in portions.
_PERIOD = re.compile(r"\bPERIOD\s+FOR\b")


def _check(world: World) -> Iterator[str]:
    for shard in (*world.source.shards, *world.target.shards):
        for name, table in shard.tables.items():
            if table.engine.lower() != "innodb":
                yield f"table {name} on {shard.where} is of engine {table.engine}; only InnoDB tables move"
            if not _is_text(table.create_sql):
                yield (
                    f"table {name} on {shard.where}: the server tells a default of binary type as bytes that "
                    "are no text; give it as an expression, such as (UNHEX('…')), or drop it"
                )
            options = outside_quotes(table.create_sql).upper()
            if "WITH SYSTEM VERSIONING" in options:
                yield f"table {name} on {shard.where} is system versioned; its history would not move"
            elif _PERIOD.search(options):
                yield (
                    f"table {name} on {shard.where} has an application-time period; "
                    "tables with periods are not moved"
                )


def _is_text(definition: str) -> bool:
    """Whether the server's own definition could be read as what it is (else it has surrogates)."""
    return not any("\ud800" <= character <= "\udfff" for character in definition)


RULE = Rule("storage", "each table is a plain InnoDB table", _check, lasting=True)
