"""A failover: a replica becomes the primary, and everybody finds it.

Invariants: the store names the new primary only once the former one takes no write any more; a former primary
that does not follow its successor is barred: no shard names it. Streams go on from their own position, so
that a server which lacks some of it is refused and never followed. Where the process dies between the engine
and the store, the servers say what is true and :func:`catch_up` follows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

from homeworld.model.errors import NotFoundError
from homeworld.model.ports import Engine
from homeworld.store.store import Store, Transaction
from homeworld.workflows.clusters.following import await_serving

PORTION = 500
"""So many replicas are looked at a second."""
_log = logging.getLogger(__name__)


@runtime_checkable
class Promotes(Protocol):
    """An engine that can make a primary of a replica."""

    def promote(self, server_id: str, *, accept_loss: bool = False, timeout_seconds: float = 30.0) -> None:
        """Fence the former primary, and let the replica take writes; calling again goes on."""
        ...

    def is_primary(self, server_id: str) -> bool:
        """Whether the server exists and follows nobody; one that was promoted takes writes by now."""
        ...

    def unsettled(self, server_id: str) -> bool:
        """Whether a promotion in this server's place is under way, or broke off and is not settled yet.

        :raises NotFoundError: no such server.
        """
        ...

    def furthest(self, server_ids: Sequence[str], timeout_seconds: float = 10.0) -> str:
        """The replica that has everything which any of these has received.

        :raises UnavailableError: none answers, or none has it all.
        """
        ...

    def follows(self, server_id: str) -> str:
        """Try to let a replica follow its primary; why it does not, or the empty string where it does.

        :raises NotFoundError: no such server.
        """
        ...


@runtime_checkable
class PromotingEngine(Engine, Promotes, Protocol):
    """Both."""


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
    the publication, clients' writes to the former primary fail unless they are held.

    :param accept_loss: the former primary is gone, and what it had not sent may be lost.
    :raises NotFoundError: no such server; nothing has changed.
    :raises HomeworldError: as the engine, and the store is as before; or the store, the branch's cluster or a
        gateway does not answer, and will hear of it later.
    """
    with store.read() as tx:
        branch_id = tx.servers.get(server_id).branch_id
    engine.promote(server_id, accept_loss=accept_loss)
    tell(store, engine, server_id)
    await_serving(store, branch_id)
    publish()


def tell(
    store: Store, engine: Promotes, server_id: str, bind: Callable[[Transaction], None] = lambda _tx: None
) -> None:
    """Let the store name a server that was promoted. Its former primary is a replica of the shards from then
    on, or barred where it does not follow. No-op where the store knows.

    :param bind: called within the transaction, to bind it to a lease.
    """
    with store.read() as tx:
        former = tx.servers.get(server_id).replica_of
    if former is None:
        return
    why = _why_not(engine, former)
    with store.write() as tx:
        bind(tx)
        if tx.servers.get(server_id).replica_of != former:
            return  # somebody else has told the store meanwhile
        tx.servers.promote(server_id, barred=why)
    if why:
        _log.warning("server %s, which %s has replaced, serves nobody: %s", former, server_id, why)


def _why_not(engine: Promotes, server_id: str) -> str:
    try:
        return engine.follows(server_id)
    except NotFoundError:
        return "it is not there"


def catch_up(store: Store, engine: Promotes) -> None:
    """Let the store name the primaries that were promoted without its having heard of it, and let barred
    servers serve again that follow by now. Nothing is published; whoever sees the routes' new version does.

    :raises HomeworldError: the store does not answer; to be tried again.
    """
    looking = CatchingUp(store, engine)
    while looking():
        pass


class CatchingUp:
    """:func:`catch_up` by and by: each call looks at the next of all replicas, so that it costs no more where
    there are thousands.
    """

    def __init__(self, store: Store, engine: Promotes, portion: int = PORTION) -> None:
        self._store = store
        self._engine = engine
        self._portion = portion
        self._after = ""

    def __call__(self) -> bool:
        """Look at a portion; whether there are more before it begins again with the first.

        :raises HomeworldError: the store does not answer; the next call looks at the same.
        """
        with self._store.read() as tx:
            replicas = tx.servers.replicas(self._after, self._portion)
        for server in replicas:
            if self._engine.is_primary(server.id):
                _log.warning("server %s was promoted, and the store had not heard of it", server.id)
                tell(self._store, self._engine, server.id)
            elif server.barred:
                admit(self._store, self._engine, server.id)
        more = len(replicas) == self._portion
        self._after = replicas[-1].id if more else ""
        return more


def admit(store: Store, engine: Promotes, server_id: str) -> bool:
    """Let a barred server serve again where it follows its primary by now; whether it is barred no more."""
    with store.read() as tx:
        told = tx.servers.get(server_id).barred
    if not told:
        return True
    why = _why_not(engine, server_id)
    if why != told:
        with store.write() as tx:
            if why:
                tx.servers.tell_barred(server_id, why)
            else:
                tx.servers.admit(server_id)
    return not why
