"""What a vtgate is to a gateway: how its targets are written, what its protocol has, which copies it serves.

Pure facts; knows no socket and no session. The invariant: nobody is led to a primary as a replica, and a text
that vtgate reads otherwise than the gateway does is not sent.
"""

from __future__ import annotations

from homeworld.gateway.plan import Destination
from homeworld.model.routing import BranchRoutes
from homeworld.model.topology import TabletType
from homeworld.wire.constants import Cap

CAPABILITIES = int(Cap.FOUND_ROWS | Cap.MULTI_RESULTS | Cap.DEPRECATE_EOF)
"""What of a client's capabilities a connection to vtgate has. What it lacks shapes no answer that vtgate
gives: its OKs say nothing of the session's state, and it never asks for a file. Several statements in one
text are taken apart by the gateway, so that both always agree on where one ends.
"""

UTF8MB4_ID = 255
"""The collation by which every connection to vtgate is opened."""

UTF8 = frozenset({"utf8mb4", "utf8mb3", "utf8"})
"""The character sets of clients that vtgate serves as they are: it takes and gives utf8mb4, whatever a client
has asked for.
"""


def target_name(destination: Destination) -> str:
    """A destination as vtgate's ``USE`` takes it, and as it answers DATABASE(): ``keyspace:shard@type``, the
    type only where it is not primary, or nothing else is said.
    """
    name = destination.keyspace + (f":{destination.shard}" if destination.shard else "")
    if name and destination.tablet_type is TabletType.PRIMARY:
        return name
    return f"{name}@{destination.tablet_type}"


def served_type(routes: BranchRoutes, keyspace: str, asked: TabletType) -> TabletType:
    """Which tablets vtgate is asked for: a branch's replicas are all of one type, and where a shard has none
    its primary serves, as everywhere in this gateway.

    :param keyspace: that the session is aimed at; empty: any may be meant.
    """
    if asked is TabletType.PRIMARY:
        return asked
    meant = routes.keyspaces.get(keyspace)
    keyspaces = routes.keyspaces.values() if meant is None else (meant,)
    replicated = all(shard.replicas for one in keyspaces for shard in one.shards)
    return TabletType.REPLICA if replicated else TabletType.PRIMARY
