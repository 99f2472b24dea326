"""The mover may do on both sides what copying, following and coming back need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.workflows.move_tables.preconditions.world import Rule, ServerFacts, World

_GLOBAL = (("REPLICATION SLAVE", "REPLICATION REPLICA"), ("REPLICATION CLIENT", "BINLOG MONITOR"))
_IN_SCHEMA = ("SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER", "INDEX", "LOCK TABLES")
_GRANT = re.compile(r"^GRANT (?P<rights>.+?) ON (?P<on>\S+) TO ", re.IGNORECASE)


def _check(world: World) -> Iterator[str]:
    schemas: dict[str, set[str]] = {}
    for keyspace in (world.source, world.target):
        for shard in keyspace.shards:
            schemas.setdefault(shard.where, set()).add(shard.schema)
    for server in world.servers:
        everywhere = _rights(server, "*.*")
        if "ALL PRIVILEGES" in everywhere:
            continue
        for names in _GLOBAL:
            if not everywhere & set(names):
                yield f"{server.where}: the mover lacks {names[0]}"
        for schema in sorted(schemas.get(server.where, set())):
            there = everywhere | _rights(server, f"`{schema}`.*")
            missing = [right for right in _IN_SCHEMA if right not in there and "ALL PRIVILEGES" not in there]
            if missing:
                yield f"{server.where}: the mover lacks {', '.join(missing)} on schema {schema}"


def _rights(server: ServerFacts, on: str) -> set[str]:
    found: set[str] = set()
    for grant in server.grants:
        match = _GRANT.match(grant)
        # A schema is a pattern in a grant: its wildcards are escaped there.
        if match and match["on"].replace("\\", "") == on:
            found |= {right.strip().upper() for right in match["rights"].split(",")}
    return found


RULE = Rule(
    "grants",
    "the mover's account has its rights on both sides, for the way there and back",
    _check,
    lasting=True,
)
