"""Whether a cluster of others can be used: looked at once, before it becomes a database.

Every reason is found in one go and names what to do. Nothing is changed anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from homeworld.engines.connection import Control, control
from homeworld.engines.vitess import looks
from homeworld.engines.vitess.attached import AttachedClusters, endpoint_of, servers_of
from homeworld.engines.vitess.attachments import Attachment
from homeworld.engines.vitess.binaries import NEWEST_SERIES
from homeworld.model.attachments import SeenCluster, SeenTablet
from homeworld.model.errors import HomeworldError, NotFoundError
from homeworld.model.topology import BackendRole

_VERSION = re.compile(r"\bVersion: (\d+)\.(\d+)\.(\d+)")
_OLDEST_MYSQL = (8, 0, 27)
# What moves and inspections do on the servers themselves.
_RIGHTS = (
    "SELECT", "INSERT", "UPDATE", "DELETE", "CREATE", "ALTER", "DROP", "INDEX", "REFERENCES", "LOCK TABLES",
    "SHOW VIEW", "TRIGGER", "EVENT", "RELOAD", "PROCESS", "REPLICATION CLIENT", "CONNECTION_ADMIN",
)  # fmt: skip


def reasons(clusters: AttachedClusters, found: Attachment, seen: SeenCluster) -> Iterator[str]:
    """Why the cluster cannot be used.

    :raises UnavailableError: vtctld does not answer.
    """
    yield from (f"{what}: {why}" for what, why in sorted(seen.odd.items()))
    yield from _vtgate(clusters, found, seen)
    for keyspace in seen.keyspaces:
        for shard in keyspace.shards:
            yield from _version(clusters, found, shard.primary)
            for tablet in shard.tablets:
                yield from _server(found, seen, tablet, primary=tablet is shard.primary)


def hints(found: Attachment, seen: SeenCluster) -> Iterator[str]:
    """What works, and would work better otherwise."""
    for server in servers_of(found.branch_id, seen):
        if server.primary_id != server.server_id:
            continue
        with control(endpoint_of(found, server, BackendRole.OWNER)) as owner:
            if int(owner.value("SELECT @@GLOBAL.information_schema_stats_expiry")) != 0:
                yield (
                    f"the server of {server.alias} tells the sizes of tables as they were up to a day ago, "
                    "by which progress is told: SET PERSIST information_schema_stats_expiry = 0 there"
                )


def _vtgate(clusters: AttachedClusters, found: Attachment, seen: SeenCluster) -> Iterator[str]:
    gate = replace(clusters.vtgate(found.branch_id), user=found.gate.user, password=found.gate.password)
    try:
        served = {
            (one.keyspace, one.shard)
            for one in looks.tablets_of(gate, timeout_seconds=5.0)
            if one.serves and one.tablet_type == "primary"
        }
        clusters.seen_by_vtgate(found.branch_id)
    except HomeworldError as error:
        yield f"vtgate cannot be used: {error.message}"
        return
    for keyspace in seen.keyspaces:
        for shard in keyspace.shards:
            if (keyspace.name, shard.name) not in served:
                yield f"vtgate at {found.vtgate} serves no primary of {keyspace.name}/{shard.name}"


def _version(clusters: AttachedClusters, found: Attachment, tablet: SeenTablet) -> Iterator[str]:
    answer = clusters.vtctldclient(found.branch_id).run("GetVersion", tablet.alias)
    version = _VERSION.search(answer)
    # Programs that were built from the module alone do not say it.
    if version is not None and int(version[1]) != NEWEST_SERIES:
        told = ".".join(version.groups())
        yield f"tablet {tablet.alias} is Vitess {told}, and only {NEWEST_SERIES} is supported"


def _server(found: Attachment, seen: SeenCluster, tablet: SeenTablet, *, primary: bool) -> Iterator[str]:
    server = next(one for one in servers_of(found.branch_id, seen) if one.alias == tablet.alias)
    try:
        with control(endpoint_of(found, server, BackendRole.OWNER)) as owner:
            yield from _owned(owner, tablet, primary=primary)
    except NotFoundError as error:
        yield error.message
    except HomeworldError as error:
        yield (
            f"the server of tablet {tablet.alias} at {tablet.mysql_host}:{tablet.mysql_port} cannot be used "
            f"as {found.owner.user}: {error.message}"
        )


def _owned(owner: Control, tablet: SeenTablet, *, primary: bool) -> Iterator[str]:
    text = str(owner.value("SELECT VERSION()"))
    version = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    if "mariadb" in text.lower() or version < _OLDEST_MYSQL:
        yield f"the server of tablet {tablet.alias} is {text}; MySQL 8.0.27 to 9.x is supported"
        return
    granted = " ".join(str(next(iter(row.values()))) for row in owner.run("SHOW GRANTS"))
    everywhere = ",".join(re.findall(r"GRANT ([A-Z_ ,]+?) ON \*\.\* TO", granted))
    held = {part.strip() for part in everywhere.split(",")}
    if "SUPER" in held:
        held.add("CONNECTION_ADMIN")
    lacking = [] if "ALL PRIVILEGES" in held else [right for right in _RIGHTS if right not in held]
    if lacking:
        yield f"the account on the server of tablet {tablet.alias} lacks {', '.join(lacking)} ON *.*"
    there = owner.run("SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s", (tablet.schema,))
    if primary and not there:
        yield f"the server of tablet {tablet.alias} has no schema {tablet.schema}"
