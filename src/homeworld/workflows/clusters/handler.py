"""Lets clusters follow, one branch at a time under the lease of its cluster.

Invariant: nothing is remembered but failures; what a cluster has stands in the store.
"""

from __future__ import annotations

import logging

from homeworld.model.clusters import Clusters
from homeworld.model.errors import FencedError, HomeworldError, InvalidError
from homeworld.store.store import Store
from homeworld.workflows.clusters.following import FOLLOW_SECONDS, let_follow
from homeworld.workflows.leases import Lease
from homeworld.workflows.steps import Rest
from homeworld.workflows.trouble import Troubles

WAIT_SECONDS = 0.25
_log = logging.getLogger(__name__)


class Followers:
    """The handler of clusters; a cluster's id is its branch's."""

    kind = "cluster"

    def __init__(self, store: Store, clusters: Clusters, *, timeout_seconds: float = FOLLOW_SECONDS) -> None:
        self._store = store
        self._clusters = clusters
        self._timeout = timeout_seconds
        self._troubles: dict[str, tuple[int, Troubles]] = {}

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """Let the cluster follow once.

        :raises FencedError: the lease is lost.
        """
        with self._store.read() as tx:
            version = tx.followings.version(resource_id)
        tried, troubles = self._troubles.get(resource_id, (version, Troubles()))
        if tried != version:
            troubles = Troubles()  # something else is stored by now, perhaps what was missing
        self._troubles[resource_id] = (version, troubles)
        if troubles.waiting:
            return Rest(WAIT_SECONDS)
        try:
            let_follow(
                self._store,
                self._clusters,
                resource_id,
                bind=lease.require,
                check=lease.check,
                timeout_seconds=self._timeout,
            )
        except FencedError:
            raise
        except (HomeworldError, OSError) as error:  # a full disk is no fault of ours
            _log.warning("the cluster of branch %s: %s", resource_id, error)
            # What Vitess refuses it refuses again, until somebody stores something else; the rest comes back.
            troubles.add(str(error), outage=not isinstance(error, InvalidError))
            with self._store.write() as tx:
                lease.require(tx)
                tx.followings.tell(resource_id, str(error))
            return Rest(WAIT_SECONDS)
        troubles.clear()
        return Rest(WAIT_SECONDS, keep=False)

    def lost(self, resource_id: str) -> None:
        """What is under way ends, and its result is not written down."""

    def loosen(self, resource_id: str) -> None:
        """Nobody waits for what is held here."""

    def let_go(self, resource_id: str) -> None:
        """Forget its failures."""
        self._troubles.pop(resource_id, None)
