"""DDL on a sharded keyspace: the same statement on every shard."""

from __future__ import annotations

from collections.abc import Sequence

from homeworld.gateway.plan import Footprint, Pass, Scatter, Verb
from homeworld.gateway.router_context import Compiled, Context, apply
from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.router_names import Found
from homeworld.gateway.sql_statement import Scan
from homeworld.model.routing import KeyspaceRoute

_TABLE_ONLY = frozenset({b"ALTER", b"CREATE", b"DROP", b"RENAME", b"TRUNCATE", b"ANALYZE", b"OPTIMIZE"})


def on_shards(scan: Scan, keyspace: KeyspaceRoute) -> RefusedError:
    """The refusal of a stored program, or a block, on a sharded keyspace."""
    what = (
        "BEGIN NOT ATOMIC" if scan.program == b"BEGIN" else f"{scan.word(0).decode()} {scan.program.decode()}"
    )
    shard = f"{keyspace.name}/{keyspace.shards[0].name}"
    return unsupported(
        f"{what} on a sharded keyspace, whose rows no single server has; what is meant for one shard can be "
        f"sent to it: USE `{shard}`"
    )


def compile_ddl(context: Context, keyspace: KeyspaceRoute, found: Sequence[Found]) -> Compiled:
    """Plan DDL on all shards.

    :raises RefusedError: what would not be the same as on one server.
    """
    scan = context.scan
    words = [token.upper for token in scan.words]
    if words[0] not in _TABLE_ONLY:
        raise unsupported(f"{words[0].decode('utf-8', 'replace')} on a sharded keyspace")
    if words[0] in {b"CREATE", b"ALTER", b"DROP"}:
        if b"TEMPORARY" in words[:3]:
            raise unsupported("temporary tables in a sharded keyspace")
        kinds = {b"VIEW", b"TRIGGER", b"PROCEDURE", b"FUNCTION", b"EVENT", b"SEQUENCE"} & set(words[:8])
        head = words[1] if words[1] not in {b"OR", b"UNIQUE", b"FULLTEXT", b"SPATIAL"} else words[2]
        if kinds and head not in {b"TABLE", b"INDEX"}:
            raise unsupported(f"{words[0].decode()} {min(kinds).decode()} on a sharded keyspace")
    if words[0] == b"CREATE" and b"SELECT" in words:
        raise unsupported("CREATE TABLE … SELECT on a sharded keyspace")
    footprint = Footprint(Verb.DDL, context.names.beneath(found))
    statements = tuple(
        (
            context.aim.at(keyspace.name, shard.name),
            apply(context.sql, context.names.physical(found, shard.schema, scan.words)),
        )
        for shard in keyspace.shards
    )
    if len(statements) == 1:
        only = Pass(*statements[0], footprint)
        return Compiled(lambda _sql, _view: only, shape=False)
    if words[0] in {b"ANALYZE", b"OPTIMIZE"}:
        # They answer with rows; each shard's say the same of its own part.
        return Compiled(
            lambda _sql, _view: Scatter(
                statements, footprint, lambda results: [r for rows in results for r in rows]
            ),
            shape=False,
        )
    return Compiled(lambda _sql, _view: Scatter(statements, footprint, same_rows=True), shape=False)
