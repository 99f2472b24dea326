"""A Vitess cluster that somebody else runs, as homeworld sees it. Nouns only.

Invariant: a tablet has one server id in homeworld for good, which follows from its branch and its alias: so
nothing has to be remembered between seeing a tablet and storing it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

_ID_BYTES = 10
_ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class SeenTablet:
    """A tablet and its MySQL server, as the topology has them.

    :param alias: as Vitess names it, such as ``zone1-0000000100``.
    :param host: of the tablet's HTTP server; ``http_port``: its port (0: none).
    :param mysql_host: where its server takes clients; ``mysql_port``: 0: over no network.
    :param schema: the MySQL schema of its shard.
    """

    alias: str
    host: str
    http_port: int
    mysql_host: str
    mysql_port: int
    schema: str


@dataclass(frozen=True, slots=True)
class SeenShard:
    """A serving shard: its primary's tablet, and those of its replicas of either kind."""

    name: str
    schema: str
    primary: SeenTablet
    replicas: tuple[SeenTablet, ...]

    @property
    def tablets(self) -> tuple[SeenTablet, ...]:
        """All, the primary's first."""
        return (self.primary, *self.replicas)


@dataclass(frozen=True, slots=True)
class SeenKeyspace:
    """A keyspace with its vschema in Vitess's JSON form; shards are ordered by range."""

    name: str
    sharded: bool
    vschema: Mapping[str, object]
    shards: tuple[SeenShard, ...]


@dataclass(frozen=True, slots=True)
class SeenCluster:
    """What a cluster is at one moment.

    :param keyspaces: by name.
    :param rules: in homeworld's form; None: it has some that cannot be told so.
    :param odd: what cannot be followed now, keyspaces by name or ``routing rules``, and why.
    """

    keyspaces: tuple[SeenKeyspace, ...]
    rules: Mapping[str, str] | None
    odd: Mapping[str, str] = field(default_factory=dict[str, str])


def server_id(branch_id: str, alias: str) -> str:
    """Homeworld's id of a tablet's server, of the letters and digits that its ids have.

    >>> server_id("b1", "zone1-0000000100") == server_id("b1", "zone1-0000000100")
    True
    >>> len(server_id("b1", "zone1-0000000100"))
    12
    """
    digest = hashlib.blake2b(f"{branch_id}\0{alias}".encode(), digest_size=_ID_BYTES).digest()
    return base64.b32encode(digest).decode().lower()[:_ID_LENGTH]
