"""A failover: a replica becomes the primary, and everybody finds it.

Invariants: the store names the new primary only once the former one takes no write any more; streams go on
from their own position, so that a server which lacks some of it is refused and never followed. Where the
process dies between the engine and the store, the servers say what is true and :func:`catch_up` follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from homeworld.model.states.lifecycle import Life
from homeworld.store.store import Store

_log = logging.getLogger(__name__)


@runtime_checkable
class Promotes(Protocol):
    """An engine that can make a primary of a replica."""

    def promote(self, server_id: str, *, accept_loss: bool = False) -> None:
        """Fence the former primary, and let the replica take writes; calling again goes on."""
        ...

    def is_primary(self, server_id: str) -> bool:
        """Whether the server exists and follows nobody; one that was promoted takes writes by now."""
        ...


def promote(
    store: Store,
    engine: Promotes,
    publish: Callable[[], None],
    server_id: str,
    *,
    accept_loss: bool = False,
) -> None:
    """Make a replica the primary, for all shards of the former one. Calling again goes on where it broke off,
    and so do the engine's watcher and :func:`catch_up`.

    Movers notice by themselves: the executor starts those of the server's shards anew. From the fencing to
    the publication, clients' writes to the former primary fail.

    :param accept_loss: the former primary is gone, and what it had not sent may be lost.
    :raises NotFoundError: no such server; nothing has changed.
    :raises HomeworldError: as the engine, and the store is as before; or the store or a gateway does not
        answer, and will hear of it later.
    """
    with store.read() as tx:
        tx.servers.get(server_id)
    engine.promote(server_id, accept_loss=accept_loss)
    with store.write() as tx:
        tx.servers.promote(server_id)
    publish()


def catch_up(store: Store, engine: Promotes) -> None:
    """Let the store name the primaries that were promoted without its having heard of it. Nothing is
    published; whoever sees the routes' new version does.

    :raises HomeworldError: the store does not answer; to be tried again.
    """
    with store.read() as tx:
        replicas = [
            server.id
            for server in tx.servers.all()
            if server.replica_of is not None and server.state is Life.READY
        ]
    for server_id in replicas:
        if engine.is_primary(server_id):
            _log.warning("server %s was promoted, and the store had not heard of it", server_id)
            with store.write() as tx:
                tx.servers.promote(server_id)
