"""Keeps servers alive: starts again what died, brings replicas back to following.

What to do is decided by pure functions from what was seen and what was tried before (``decide_process``,
``decide_replica``); the Watcher only looks, asks them, and acts. A server that was stopped on purpose is left
alone, and one that another thread is at work on is left for the next round.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from homeworld.engines.replicas import Mended
from homeworld.model.errors import DeadlineExceededError, HomeworldError, NotFoundError
from homeworld.model.ports import ServerStatus

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# A server that has answered for so long is well again; its next death is not counted with the earlier ones.
WELL_AFTER_SECONDS = 60.0


class Did(StrEnum):
    """What a WatchEvent tells."""

    RESTARTED = "restarted"
    MENDED = "mended"
    FAILED = "failed"
    ACCEPTS = "accepts"
    SETTLED = "settled"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """Something the watcher did or saw. ``detail`` is one line for people."""

    server_id: str
    did: Did
    detail: str


@dataclass(frozen=True, slots=True)
class Tried:
    """What was done about one trouble of one server, in monotonic seconds.

    :param attempts: how often in a row without it having been well since.
    :param not_before: no further attempt before this time.
    :param well_since: since when it is well; None: it is not.
    """

    attempts: int = 0
    not_before: float = 0.0
    well_since: float | None = None


def decide(tried: Tried, *, well: bool, now: float) -> tuple[bool, Tried]:
    """Whether to act now, and what to remember.

    The first attempt comes at once, each further one after twice the pause, up to a minute.
    """
    if well:
        since = now if tried.well_since is None else tried.well_since
        if now - since >= WELL_AFTER_SECONDS:
            return False, Tried(well_since=since)
        return False, Tried(tried.attempts, tried.not_before, since)
    if now < tried.not_before:
        return False, Tried(tried.attempts, tried.not_before, None)
    pause = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tried.attempts, 16))
    return True, Tried(tried.attempts + 1, now + pause, None)


class Watched(Protocol):
    """What the watcher needs of an engine; LocalEngine has it."""

    def list_servers(self) -> list[str]: ...  # noqa: D102 - as on LocalEngine
    def held_down(self, server_id: str) -> bool: ...  # noqa: D102
    def status(self, server_id: str) -> ServerStatus: ...  # noqa: D102
    def revive(self, server_id: str) -> bool: ...  # noqa: D102
    def mend_replica(self, server_id: str) -> Mended: ...  # noqa: D102
    def last_words(self, server_id: str) -> str: ...  # noqa: D102
    def unsettled(self, server_id: str) -> bool: ...  # noqa: D102
    def settle(self, server_id: str) -> str: ...  # noqa: D102


class Watcher:
    """Looks at all servers again and again on a thread of its own.

    :param report: told of each event, on the watcher's thread; must not block for long.
    """

    def __init__(
        self,
        engine: Watched,
        *,
        interval_seconds: float = 1.0,
        report: Callable[[WatchEvent], None] | None = None,
    ) -> None:
        self._engine = engine
        self._interval = interval_seconds
        self._report = report
        self._process: dict[str, Tried] = {}
        self._replica: dict[str, Tried] = {}
        self._promotion: dict[str, Tried] = {}
        self._reviving: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin. A no-op where it runs."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._loop, name="engine-watcher", daemon=True)
            self._thread.start()

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """End; servers stay as they are. When this returns the watcher does nothing any more.

        :raises DeadlineExceededError: it is still in the middle of something.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_seconds)
            if self._thread.is_alive():
                raise DeadlineExceededError("the engine's watcher did not end in time")
            self._thread = None

    def look(self, now: float | None = None) -> list[WatchEvent]:
        """One round over all servers; what was done. The loop calls it; tests may too."""
        moment = time.monotonic() if now is None else now
        events: list[WatchEvent] = []
        servers = self._engine.list_servers()
        for memory in (self._process, self._replica, self._promotion):
            for gone in memory.keys() - set(servers):
                del memory[gone]
        for server_id in servers:
            if self._stopping.is_set():
                break
            for act in (self._settle, self._look_at):
                try:
                    if not self._engine.held_down(server_id):
                        events += act(server_id, moment)
                except NotFoundError:
                    continue  # destroyed meanwhile
                # One server's full disk is no reason to leave the others alone.
                except (HomeworldError, OSError) as error:
                    events.append(WatchEvent(server_id, Did.FAILED, str(error)))
        return events

    def _settle(self, server_id: str, now: float) -> list[WatchEvent]:
        """Go on with a promotion that somebody left."""
        if not self._engine.unsettled(server_id):
            self._promotion.pop(server_id, None)
            return []
        before = self._promotion.get(server_id, Tried())
        act, self._promotion[server_id] = decide(before, well=False, now=now)
        if not act:
            return []
        done = self._engine.settle(server_id)
        if not done:
            self._promotion[server_id] = before  # somebody is at work on it
            return []
        return [WatchEvent(server_id, Did.SETTLED, done)]

    def _look_at(self, server_id: str, now: float) -> list[WatchEvent]:
        status = self._engine.status(server_id)
        events: list[WatchEvent] = []
        act, tried = decide(self._process.get(server_id, Tried()), well=status.running, now=now)
        self._process[server_id] = tried
        if act:
            words = self._engine.last_words(server_id)
            if self._engine.revive(server_id):
                self._reviving.add(server_id)
                events.append(
                    WatchEvent(server_id, Did.RESTARTED, f"was dead (attempt {tried.attempts}): {words}")
                )
        if not status.accepting:
            return events
        if server_id in self._reviving:
            self._reviving.discard(server_id)
            events.append(WatchEvent(server_id, Did.ACCEPTS, f"accepts again, pid {status.pid}"))
        if status.replica_of is not None:
            act, tried = decide(
                self._replica.get(server_id, Tried()), well=not status.replication_error, now=now
            )
            self._replica[server_id] = tried
            if act:
                mended = self._engine.mend_replica(server_id)
                if mended is not Mended.NOTHING:
                    events.append(
                        WatchEvent(server_id, Did.MENDED, f"{mended.value}: {status.replication_error}")
                    )
        return events

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            try:
                events = self.look()
                for event in events:
                    level = logging.INFO if event.did is Did.ACCEPTS else logging.WARNING
                    log.log(level, "server %s %s: %s", event.server_id, event.did.value, event.detail)
                    if self._report is not None:
                        self._report(event)
            except Exception:  # the supervisor must outlive what it did not foresee, and say so
                log.exception("the engine's watcher failed in one round and goes on")
