"""``SHOW`` statements that the gateway answers itself: keyspaces, shards, tablets, vschemas.

Pure: everything is in the routes. Column names are those that Vitess's clients look for.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from homeworld.gateway.plan import Answer, ColumnSpec, Row, SchemaView, Target
from homeworld.gateway.router_errors import RefusedError
from homeworld.gateway.router_names import Names
from homeworld.gateway.router_target import target_text
from homeworld.model.topology import TabletType
from homeworld.model.vschema import VSchema

_CELL = "local"


def like(pattern: str) -> re.Pattern[str]:
    """A SQL LIKE pattern as a regular expression; names compare without case, as information_schema does."""
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "\\" and at + 1 < len(pattern):
            at += 1
            parts.append(re.escape(pattern[at]))
        elif char == "%":
            parts.append(".*")
        elif char == "_":
            parts.append(".")
        else:
            parts.append(re.escape(char))
        at += 1
    return re.compile("".join(parts) + r"\Z", re.IGNORECASE | re.DOTALL)


def answer(columns: Sequence[str], rows: Sequence[Sequence[str | None]]) -> Answer:
    """A result of texts."""
    made: tuple[Row, ...] = tuple(
        tuple(None if value is None else value.encode() for value in row) for row in rows
    )
    return Answer(tuple(ColumnSpec(name) for name in columns), made)


def databases(names: Names, pattern: str | None) -> Answer:
    """SHOW DATABASES: the keyspaces, the database's own name, and the system schemas."""
    found = sorted({*names.routes.keyspaces, names.routes.database})
    found += ["information_schema", "mysql", "performance_schema", "sys"]
    title = "Database" if pattern is None else f"Database ({pattern})"
    return answer([title], [[name] for name in _matching(found, pattern)])


def keyspaces(names: Names, pattern: str | None) -> Answer:
    """SHOW KEYSPACES."""
    return answer(["Database"], [[name] for name in _matching(sorted(names.routes.keyspaces), pattern)])


def _matching(found: list[str], pattern: str | None) -> list[str]:
    if pattern is None:
        return found
    wanted = like(pattern)
    return [name for name in found if wanted.match(name)]


def shards(names: Names, pattern: str | None) -> Answer:
    """SHOW VITESS_SHARDS."""
    found = [
        f"{name}/{shard.name}"
        for name, route in sorted(names.routes.keyspaces.items())
        for shard in route.shards
    ]
    return answer(["Shards"], [[name] for name in _matching(found, pattern)])


def tablets(names: Names, pattern: str | None) -> Answer:
    """SHOW VITESS_TABLETS: one row a server and shard."""
    rows: list[list[str | None]] = []
    for name, route in sorted(names.routes.keyspaces.items()):
        for shard in route.shards:
            servers = [(TabletType.PRIMARY, shard.primary)]
            servers += [(TabletType.REPLICA, replica) for replica in shard.replicas]
            for tablet_type, server in servers:
                alias = f"{_CELL}-{server.server_id}"
                row = [_CELL, name, shard.name, tablet_type.upper(), "SERVING", alias, server.host, ""]
                if pattern is None or like(pattern).match(name):
                    rows.append([*row])
    titles = ["Cell", "Keyspace", "Shard", "TabletType", "State", "Alias", "Hostname", "PrimaryTermStartTime"]
    return answer(titles, rows)


def target(names: Names, aimed: Target) -> Answer:
    """SHOW VITESS_TARGET."""
    return answer(["Target"], [[target_text(aimed, names.routes.database)]])


def vschema_keyspaces(names: Names) -> Answer:
    """SHOW VSCHEMA KEYSPACES."""
    rows = [
        [name, "true" if route.sharded else "false", "unmanaged", ""]
        for name, route in sorted(names.routes.keyspaces.items())
    ]
    return answer(["Keyspace", "Sharded", "Foreign Key", "Comment"], rows)


def vschema_tables(names: Names, aimed: Target, schema: SchemaView) -> Answer:
    """SHOW VSCHEMA TABLES: those listed, and for an unsharded keyspace those that its server has."""
    keyspace = names.default(aimed)
    found = set(names.vschemas[keyspace.name].tables)
    if not keyspace.sharded:
        found |= schema.tables(keyspace.name) or frozenset()
    return answer(["Tables"], [[name] for name in sorted(found)])


def vschema_vindexes(names: Names, aimed: Target, on: tuple[str, str] | None) -> Answer:
    """SHOW VSCHEMA VINDEXES [ON table]."""
    keyspace = names.default(aimed).name if on is None or not on[0] else names.keyspace(on[0]).name
    vschema = names.vschemas[keyspace]
    if on is None:
        rows = [
            [keyspace, vindex.name, vindex.type, _params(vschema, vindex.name), ""]
            for vindex in sorted(vschema.vindexes.values(), key=lambda vindex: vindex.name)
        ]
        return answer(["Keyspace", "Name", "Type", "Params", "Owner"], rows)
    entry = vschema.tables.get(on[1])
    if entry is None:
        raise RefusedError(1105, "HY000", f"VT05005: table '{on[1]}' does not exist in keyspace '{keyspace}'")
    rows = [
        [
            ", ".join(bound.columns),
            bound.name,
            vschema.vindexes[bound.name].type,
            _params(vschema, bound.name),
            "",
        ]
        for bound in entry.column_vindexes
    ]
    return answer(["Columns", "Name", "Type", "Params", "Owner"], rows)


def _params(vschema: VSchema, name: str) -> str:
    params = vschema.vindexes[name].params
    return "; ".join(f"{key}={params[key]}" for key in sorted(params))
