"""Servers, shards and keyspaces as every room names them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Flavor(StrEnum):
    """The server families whose GTIDs, SHOW statements and auth plugins differ."""

    MYSQL = "mysql"
    MARIADB = "mariadb"


class TabletType(StrEnum):
    """Which copies of a shard serve: Vitess's names."""

    PRIMARY = "primary"
    REPLICA = "replica"
    RDONLY = "rdonly"


class BackendRole(StrEnum):
    """The accounts that exist on every managed server, each with the least rights its user needs.

    READER … ADMIN are what the gateway connects as, one for each password role, with rights only on the
    schemas of keyspaces. MOVER reads and writes rows, reads the binlog and owns the sidecar schema. OWNER is
    the server's administrator, used by the engine and for DDL of workflows.
    """

    READER = "reader"
    WRITER = "writer"
    READWRITER = "readwriter"
    ADMIN = "admin"
    MOVER = "mover"
    OWNER = "owner"
    REPLICATION = "replication"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server as one account. ``socket`` (a unix socket path) is preferred where it is not empty.

    ``server_id`` is homeworld's own id of the server (12 characters), not MySQL's.

    :param vtgate: it is a vtgate and no server: it plans statements, and a schema's name there is a target
        (``keyspace:shard@type``). What a session has left on a connection to it no reset takes away.
    """

    server_id: str
    flavor: Flavor
    host: str
    port: int
    socket: str
    user: str
    password: str = field(repr=False)
    vtgate: bool = False


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """A shard of a keyspace as one MySQL schema on one server (the primary), seen as one account."""

    keyspace: str
    shard: str
    schema: str
    endpoint: Endpoint
