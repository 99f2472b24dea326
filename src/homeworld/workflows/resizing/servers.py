"""Which size and how many replicas a server is to have. Pure, over what the store says.

Keyspaces may share servers, so a server has the size of the largest of them, and as many replicas as the one
of them that wants most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from homeworld.model.sizes import ClusterSize, largest
from homeworld.model.states.lifecycle import Life
from homeworld.store.branches import Server
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.resizes import KeyspaceResize


@dataclass(frozen=True, slots=True)
class Layout:
    """A branch's keyspaces that are not gone, their shards and servers.

    :param keyspaces: as they are to be once the resize is done.
    """

    keyspaces: Sequence[Keyspace]
    shards: Sequence[Shard]
    servers: Sequence[Server]

    def after(self, resize: KeyspaceResize) -> Layout:
        """The same with the keyspace as the resize wants it."""
        return replace(
            self,
            keyspaces=[
                replace(
                    keyspace,
                    cluster_size=resize.cluster_size,
                    replicas=resize.replicas,
                    extra_replicas=resize.extra_replicas,
                )
                if keyspace.id == resize.keyspace_id
                else keyspace
                for keyspace in self.keyspaces
            ],
        )

    def shards_of(self, keyspace_id: str) -> list[Shard]:
        """The keyspace's shards in key order."""
        return [shard for shard in self.shards if shard.keyspace_id == keyspace_id]

    def primaries_of(self, keyspace_id: str) -> list[str]:
        """The primaries on which the keyspace stands, each once."""
        ids = dict.fromkeys(shard.primary_server_id for shard in self.shards_of(keyspace_id))
        return [server_id for server_id in ids if server_id]

    def on_primary(self, primary_id: str) -> list[Keyspace]:
        """The keyspaces that have a shard on it."""
        ids = {shard.keyspace_id for shard in self.shards if shard.primary_server_id == primary_id}
        return [keyspace for keyspace in self.keyspaces if keyspace.id in ids]

    def size_of(self, primary_id: str) -> ClusterSize | None:
        """What the primary and its replicas are to be; None: the installation's own."""
        return largest(keyspace.cluster_size for keyspace in self.on_primary(primary_id))

    def replicas_of(self, primary_id: str) -> list[Server]:
        """Its replicas that are there or being made, oldest first; behind them those that serve nobody."""
        found = [
            server
            for server in self.servers
            if server.replica_of == primary_id and server.state in (Life.PENDING, Life.READY)
        ]
        return sorted(found, key=lambda server: bool(server.barred))

    def missing(self, primary_id: str) -> int:
        """How many replicas have to be made."""
        return max(0, self._wanted(primary_id) - len(self.replicas_of(primary_id)))

    def surplus(self, primary_id: str) -> list[Server]:
        """Replicas that nobody wants any more: those that serve nobody, then the newest."""
        return self.replicas_of(primary_id)[self._wanted(primary_id) :]

    def leaving(self, primary_id: str) -> list[Server]:
        """Replicas that nobody wants any more, whether or not that is stored yet."""
        ended = [s for s in self.servers if s.replica_of == primary_id and s.state is Life.DELETING]
        return [*self.surplus(primary_id), *ended]

    def _wanted(self, primary_id: str) -> int:
        return max((keyspace.replicas for keyspace in self.on_primary(primary_id)), default=0)
