"""What a session is aimed at: the text of a schema name or ``USE``, read.

Forms: nothing, or the database's own name where no keyspace has it (global routing), ``keyspace``,
``keyspace/-80`` or ``keyspace:-80``, each also with ``@primary``, ``@replica`` or ``@rdonly`` behind it, or
one of these alone.
"""

from __future__ import annotations

from homeworld.gateway.plan import Target
from homeworld.gateway.router_errors import RefusedError, unknown_database
from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange
from homeworld.model.routing import BranchRoutes, KeyspaceRoute
from homeworld.model.topology import TabletType

SYSTEM_SCHEMAS = frozenset({"information_schema", "mysql", "performance_schema", "sys"})
_TYPES = {**{str(tablet_type): tablet_type for tablet_type in TabletType}, "master": TabletType.PRIMARY}


def parse_target(text: str, routes: BranchRoutes) -> Target:
    """Read a target.

    :raises RefusedError: 1049 for an unknown name, shard or tablet type.
    """
    name, at, tablet = text.partition("@")
    tablet_type = TabletType.PRIMARY
    if at:
        known = _TYPES.get(tablet.lower())
        if known is None:
            raise unknown_database(text)
        tablet_type = known
    keyspace, shard = _split_shard(name)
    if not keyspace:
        if shard:
            raise unknown_database(text)
        return Target(tablet_type=tablet_type)
    if keyspace.lower() in SYSTEM_SCHEMAS and not shard:
        return Target(keyspace.lower(), tablet_type=tablet_type)
    # A keyspace may have the database's name, as the default one does: who names it means the keyspace.
    if keyspace == routes.database and not shard and keyspace not in routes.keyspaces:
        return Target(tablet_type=tablet_type)
    route = routes.keyspaces.get(keyspace)
    if route is None:
        raise unknown_database(text)
    return Target(keyspace, _known_shard(route, shard, text) if shard else "", tablet_type)


def _split_shard(name: str) -> tuple[str, str]:
    for mark in "/:":
        if mark in name:
            keyspace, _, shard = name.partition(mark)
            return keyspace, shard
    return name, ""


def _known_shard(route: KeyspaceRoute, shard: str, text: str) -> str:
    names = [known.name for known in route.shards]
    if shard in names:
        return shard
    try:
        wanted = KeyRange.parse(shard)
    except InvalidError:
        raise unknown_database(text) from None
    for name in names:  # "0" and "-" both mean everything
        try:
            if KeyRange.parse(name) == wanted:
                return name
        except InvalidError:
            continue
    raise RefusedError(1049, "42000", f"VT05003: keyspace {route.name} has no shard {shard}")


def target_text(target: Target, database: str) -> str:
    """The target as ``USE`` takes it, and as ``SELECT DATABASE()`` shows it."""
    name = target.keyspace or database
    if target.shard:
        name += f"/{target.shard}"
    if target.tablet_type is not TabletType.PRIMARY:
        name += f"@{target.tablet_type}"
    return name
