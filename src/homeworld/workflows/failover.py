"""A failover: a replica becomes the primary, and everybody finds it.

Invariants: the store names the new primary only once the former one takes no write any more; streams go on
from their own position, so that a server which lacks some of it is refused and never followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from homeworld.store.store import Store


class Promotes(Protocol):
    """An engine that can make a primary of a replica."""

    def promote(self, server_id: str, *, accept_loss: bool = False) -> None:
        """Fence the former primary, and let the replica take writes; calling again goes on."""
        ...


def promote(
    store: Store,
    engine: Promotes,
    publish: Callable[[], None],
    server_id: str,
    *,
    accept_loss: bool = False,
) -> None:
    """Make a replica the primary, for all shards of the former one. Calling again goes on where it broke off.

    Movers notice by themselves: the executor starts those of the server's shards anew. From the fencing to
    the publication, clients' writes to the former primary fail.

    :param accept_loss: the former primary is gone, and what it had not sent may be lost.
    :raises HomeworldError: as the engine; the store is as before.
    """
    engine.promote(server_id, accept_loss=accept_loss)
    with store.write() as tx:
        tx.servers.promote(server_id)
    publish()
