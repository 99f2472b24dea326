"""Lets the store follow clusters that others run: the opposite of ``following``.

Theory of operation. Of such a cluster its keyspaces, shards, primaries and replicas are its own to say; what
is homeworld's (vschemas, rules of moves) goes the other way, and what others change of that is taken over as
long as nothing of ours is on its way. A glance at what vtgate has costs little, and only where that is
another than before is the whole cluster read, and the store changed in one transaction. Gateways and the
cluster's follower hear of it as of any change of the store.

Invariant: where a server is, is written down before the store names it, so that nobody ever looks for one
that cannot be found.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from typing import Protocol

from homeworld.model.attachments import SeenCluster
from homeworld.model.engines import EngineKind
from homeworld.model.errors import HomeworldError, NotFoundError
from homeworld.model.states.lifecycle import Life
from homeworld.store.adoption import adopt, differs
from homeworld.store.store import Store

_log = logging.getLogger(__name__)
INTERVAL_SECONDS = 1.0
AGAIN_SECONDS = 5.0  # between whole looks at one of which something is not settled


class Foreign(Protocol):
    """Clusters that others run."""

    def branch_ids(self) -> Sequence[str]:
        """The branches that are such clusters."""
        ...

    def glance(self, branch_id: str) -> str:
        """A digest of what vtgate has of it: tablets, vschemas, rules.

        :raises UnavailableError: it does not answer. :raises NotFoundError: it is none any more.
        """
        ...

    def look(self, branch_id: str) -> SeenCluster:
        """All of it, as it is now.

        :raises UnavailableError: it does not answer. :raises NotFoundError: it is none any more.
        :raises InvalidError: it has something that cannot be followed.
        """
        ...

    def remember(self, branch_id: str, seen: SeenCluster) -> None:
        """Note where its servers are.

        :raises InvalidError: they may not be there.
        """
        ...

    def abandon(self, branch_id: str) -> None:
        """No branch of this id is stored; where none came to be for long, forget how it would be reached."""
        ...


class Adopting:
    """Looks at clusters that others run, again and again on a thread of its own. At most one process of an
    installation does, or one could store what it saw before another one's newer look.
    """

    def __init__(
        self, store: Store, clusters: Foreign, *, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._store = store
        self._clusters = clusters
        self._interval = interval_seconds
        self._seen: dict[str, str] = {}
        self._again: dict[str, float] = {}
        self._told: dict[str, str] = {}
        self._odd: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="adopting", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End; when this returns nothing is stored any more, unless the time was too short."""
        self._stopping.set()
        self._thread.join(timeout_seconds)
        if self._thread.is_alive():
            _log.warning("a cluster that others run is still being looked at")

    def look(self) -> None:
        """One round over all of them."""
        for branch_id in self._clusters.branch_ids():
            if self._stopping.is_set():
                return
            try:
                self._look(branch_id)
                self._told.pop(branch_id, None)
            except NotFoundError:
                self._seen.pop(branch_id, None)  # it was asked away meanwhile, or is only being attached
            except (HomeworldError, OSError) as error:
                if self._told.get(branch_id) != str(error):
                    self._told[branch_id] = str(error)
                    _log.warning("the cluster of branch %s: %s", branch_id, error)

    def _look(self, branch_id: str) -> None:
        with self._store.read() as tx:
            branch = tx.branches.by_ids([branch_id]).get(branch_id)
        if branch is None:
            self._clusters.abandon(branch_id)
            return
        with self._store.read() as tx:
            branch = tx.branches.get(branch_id)
            served = branch.state is Life.READY
            kind = tx.databases.get(branch.database_id).engine
            version = tx.followings.version(branch_id)
            waiting = tx.followings.behind(branch_id) is not None
        if not served or kind is not EngineKind.ATTACHED:
            return
        glance, now = self._clusters.glance(branch_id), time.monotonic()
        if waiting:
            # Where the cluster does not come to what is stored, the store may be what is behind.
            self._again.setdefault(branch_id, now + AGAIN_SECONDS)
        if glance == self._seen.get(branch_id) and now < self._again.get(branch_id, math.inf):
            return
        seen = self._clusters.look(branch_id)
        if self._stopping.is_set():
            return
        self._tell(branch_id, seen)
        self._clusters.remember(branch_id, seen)
        with self._store.read() as tx:
            other = differs(tx, branch, seen)
        self._again.pop(branch_id, None)
        if other:
            if self._store_seen(branch_id, seen, version, waiting=waiting):
                _log.info("the cluster of branch %s is another, and the store follows", branch_id)
            # What could not be taken over yet is looked at again.
            self._again[branch_id] = now + AGAIN_SECONDS
        self._seen[branch_id] = glance

    def _tell(self, branch_id: str, seen: SeenCluster) -> None:
        """Say once what cannot be followed."""
        told = "; ".join(f"{name}: {why}" for name, why in sorted(seen.odd.items()))
        if told and self._odd.get(branch_id) != told:
            _log.warning("of the cluster of branch %s this cannot be followed: %s", branch_id, told)
        self._odd[branch_id] = told

    def _store_seen(self, branch_id: str, seen: SeenCluster, version: int, *, waiting: bool) -> bool:
        """Whether anything was stored."""
        with self._store.write() as tx:
            branch = tx.branches.get(branch_id)
            if branch.state is not Life.READY or self._stopping.is_set():
                return False  # whoever looks after clusters now may have stored what is newer
            return adopt(tx, branch, seen, version=None if waiting else version)

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                self.look()
            except Exception:  # noqa: BLE001 - the thread must outlive what it did not foresee, and say so
                _log.exception("clusters that others run could not be looked at in one round")
