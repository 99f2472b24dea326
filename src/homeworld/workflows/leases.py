"""A lease that this process holds, and the keeper that renews all of them.

Invariants: a lease whose renewal failed or that could not be renewed before it ended is *lost* for good, and
everyone who works under it learns so at their next look; what is stored under a lease is stored in a
transaction that required its token. Knows no resource's meaning.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from homeworld.model.errors import FencedError, UnavailableError
from homeworld.store.leases import Lease as Stored
from homeworld.store.store import Store, Transaction

_log = logging.getLogger(__name__)

TTL_SECONDS = 15.0
RENEW_SECONDS = 4.0
_FORGET = 100


class Lease:
    """One held lease."""

    def __init__(self, resource: str, token: int, until: float) -> None:
        self.resource = resource
        self.token = token
        self._until = until
        self._lost = threading.Event()

    @property
    def lost(self) -> bool:
        """Whether it is over: refused, or not renewed in time."""
        if time.monotonic() >= self._until:
            self._lost.set()
        return self._lost.is_set()

    @property
    def left_seconds(self) -> float:
        """How long it lives if it is not renewed; 0 where it is lost."""
        return 0.0 if self.lost else max(0.0, self._until - time.monotonic())

    def check(self) -> None:
        """Go on only while it is held.

        :raises FencedError: it is lost.
        """
        if self.lost:
            raise FencedError(resource=self.resource, token=self.token)

    def require(self, tx: Transaction) -> None:
        """Bind the transaction to this lease.

        :raises FencedError: it is lost, or somebody has a newer one.
        """
        self.check()
        tx.leases.require(self.resource, self.token)

    def confirm(self, store: Store) -> None:
        """Go on only as the newest owner, as the store says now: right before what no token can refuse.

        :raises FencedError: it is lost, or somebody has a newer one.
        :raises UnavailableError: the store does not say.
        """
        with store.read() as tx:
            self.require(tx)

    def prolong(self, until: float) -> None:
        """It was renewed. A lost lease stays lost."""
        self._until = until

    def lose(self) -> None:
        """It is over."""
        self._lost.set()


class Keeper:
    """All leases of this process.

    :param owner: this process's name among executors, at most 64 characters.
    :param on_lost: told each lease once, from the renewing thread; must return soon and not raise.
    """

    def __init__(
        self,
        store: Store,
        owner: str,
        *,
        ttl_seconds: float = TTL_SECONDS,
        on_lost: Callable[[Lease], None] = lambda _lease: None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._ttl = ttl_seconds
        self._on_lost = on_lost
        self._guard = threading.Lock()
        self._held: dict[str, Lease] = {}
        # Leases of others, as they stood when they were seen first, and when that was.
        self._others: dict[str, tuple[Stored, float]] = {}

    def held(self, resource: str) -> Lease | None:
        """The lease on a resource, if this process holds it."""
        with self._guard:
            lease = self._held.get(resource)
        return None if lease is None or lease.lost else lease

    def take(self, resource: str) -> Lease | None:
        """The lease held already, or a new one; None while somebody else has it.

        :raises UnavailableError: the store does not answer.
        """
        known = self.held(resource)
        if known is not None:
            return known
        asked = time.monotonic()
        with self._store.write() as tx:
            token = tx.leases.acquire(resource, self._owner, self._ttl, self._over(resource, asked))
            standing = tx.leases.get(resource) if token is None else None
        self._remember(resource, standing)
        if token is None:
            return None
        lease = Lease(resource, token, asked + self._ttl)
        with self._guard:
            self._held[resource] = lease
        return lease

    def _over(self, resource: str, now: float) -> Stored | None:
        """Another's lease that had not been renewed for as long as it lives when it was looked at last."""
        with self._guard:
            seen = self._others.get(resource)
        return seen[0] if seen is not None and now - seen[1] > self._ttl else None

    def _remember(self, resource: str, standing: Stored | None) -> None:
        now = time.monotonic()
        with self._guard:
            # What nobody asks for any more is forgotten: asked for, it would have been taken long ago.
            for name in [name for name, (_, at) in self._others.items() if now - at > _FORGET * self._ttl]:
                del self._others[name]
            if standing is None:
                self._others.pop(resource, None)
            elif resource not in self._others or self._others[resource][0] != standing:
                self._others[resource] = (standing, now)

    def give_back(self, lease: Lease) -> None:
        """End a lease, so that others need not wait for its time to pass.

        :raises UnavailableError: the store does not answer; the lease ends by itself.
        """
        with self._guard:
            if self._held.get(lease.resource) is lease:
                del self._held[lease.resource]
        lease.lose()
        with self._store.write() as tx:
            tx.leases.release(lease.resource, lease.token)

    def renew(self) -> None:
        """Renew every lease; lose those that others took or whose time has passed."""
        with self._guard:
            held = list(self._held.values())
        if not held:
            return
        asked = time.monotonic()
        kept: set[str] = set()
        try:
            with self._store.write() as tx:
                kept = {
                    lease.resource
                    for lease in held
                    if not lease.lost and tx.leases.renew(lease.resource, lease.token, self._ttl)
                }
        except UnavailableError as error:
            # Not yet lost: there are more renewals before the leases end. Lost ones are found below.
            _log.warning("leases could not be renewed: %s", error)
            kept = {lease.resource for lease in held if not lease.lost}
            asked -= self._ttl  # nothing is prolonged
        for lease in held:
            if lease.resource not in kept:
                self._drop(lease)
            elif asked + self._ttl > time.monotonic():
                lease.prolong(asked + self._ttl)

    def _drop(self, lease: Lease) -> None:
        with self._guard:
            if self._held.get(lease.resource) is lease:
                del self._held[lease.resource]
        lease.lose()
        self._on_lost(lease)

    def give_all_back(self) -> None:
        """End every lease.

        :raises UnavailableError: the store does not answer; the leases end by themselves.
        """
        with self._guard:
            held = list(self._held.values())
        for lease in held:
            self.give_back(lease)
