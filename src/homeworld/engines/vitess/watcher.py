"""Keeps the processes of all clusters alive: what died is started again, at ever longer intervals.

When to try is decided as for MySQL servers (``engines.watcher.decide``). A branch that somebody is at work on
is left for the next round.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Protocol

from homeworld.engines.watcher import Tried, decide
from homeworld.model.errors import DeadlineExceededError, HomeworldError

log = logging.getLogger(__name__)


class Watched(Protocol):
    """What is needed of clusters; LocalClusters has it."""

    def branch_ids(self) -> list[str]: ...  # noqa: D102 - as on LocalClusters
    def ailing(self, branch_id: str) -> list[str]: ...  # noqa: D102
    def revive(self, branch_id: str, names: Collection[str], patience_seconds: float) -> list[str]: ...  # noqa: D102


class ClusterWatcher:
    """Looks at all clusters again and again on a thread of its own."""

    def __init__(self, clusters: Watched, *, interval_seconds: float = 1.0) -> None:
        self._clusters = clusters
        self._interval = interval_seconds
        self._tried: dict[str, dict[str, Tried]] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. A no-op where it runs."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._loop, name="cluster-watcher", daemon=True)
            self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End; processes stay as they are. When this returns the watcher does nothing any more.

        :raises DeadlineExceededError: it is still in the middle of something.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                raise DeadlineExceededError("the clusters' watcher did not end in time")
            self._thread = None

    def look(self, now: float | None = None) -> list[str]:
        """One round over all clusters; what was started again."""
        moment = time.monotonic() if now is None else now
        branches = self._clusters.branch_ids()
        started: list[str] = []
        for branch_id in branches:
            if self._stopping.is_set():
                break
            try:
                if names := self._due(branch_id, moment):
                    started += self._clusters.revive(branch_id, names, 0.0)
            except (HomeworldError, OSError) as error:
                log.warning("the cluster of branch %s is tried again: %s", branch_id, error)
        return started

    def _due(self, branch_id: str, now: float) -> list[str]:
        """The branch's processes that are to be started now."""
        ailing = self._clusters.ailing(branch_id)
        tried = self._tried.setdefault(branch_id, {})
        due: list[str] = []
        for name in sorted({*ailing, *tried}):
            act, tried[name] = decide(tried.get(name, Tried()), well=name not in ailing, now=now)
            if act:
                due.append(name)
            elif tried[name].attempts == 0:
                del tried[name]
        return due

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                for name in self.look():
                    log.warning("%s did not run as it should and was started again", name)
            except Exception:  # the supervisor must outlive what it did not foresee, and say so
                log.exception("the clusters' watcher failed in one round and goes on")
