"""Large texts are read beside the event loop, so that nobody else's statement waits for them.

A text of a megabyte takes a good part of a second to plan. It is done in one of a few threads, each with a
router of its own: a router is made for one thread, and what it knows of statements is of no use to others.

Invariant: a plan that is given was made for the routes and tables that are served when it is given, as far as
plans depend on them: passwords come and go without anybody's text being read again.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from queue import SimpleQueue
from weakref import WeakKeyDictionary

from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import Dialogue, Ponder
from homeworld.gateway.plan import Plan, RouterPort, SessionView
from homeworld.model.errors import UnavailableError
from homeworld.model.routing import BranchRoutes

LARGE = 1 << 15
"""Texts of so many bytes are read beside the loop; shorter ones take less than it does to hand them over."""
_THREADS = 2
_TRIES = 16


class _Routers(threading.local):
    """A thread's own routers, each with the routes that it is for."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Branch, tuple[BranchRoutes, RouterPort]] = WeakKeyDictionary()


_ROUTERS = _Routers()


def planned_beside(branch: Branch, sql: bytes, view: SessionView) -> Dialogue[Plan]:
    """Plan a large text.

    :raises UnavailableError: routes or tables change faster than it is read.
    """
    for _ in range(_TRIES):
        version, routes = branch.tracker.version, branch.routes
        found: Plan = yield Ponder(partial(_plan, branch, routes, sql, view))
        if branch.tracker.version == version and _alike(branch.routes, routes):
            return found
    raise UnavailableError("the branch's tables change faster than the statement can be read; try again")


def _alike(one: BranchRoutes, other: BranchRoutes) -> bool:
    """Whether a statement is planned alike by both."""
    if one is other:
        return True
    return replace(one, version=0, credentials={}, most_clients=0) == replace(
        other, version=0, credentials={}, most_clients=0
    )


def _plan(branch: Branch, routes: BranchRoutes, sql: bytes, view: SessionView) -> Plan:
    """In a thread: plan by this thread's own router for these routes."""
    known = _ROUTERS.of.get(branch)
    if known is None or not _alike(known[0], routes):
        known = _ROUTERS.of[branch] = (routes, branch.router_for(routes))
    return known[1].plan(sql, view)


class Threads:
    """The few threads of one gateway. They do not keep a process from ending, whatever they are at."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []

    async def do(self, work: Callable[[], object], wanted: Callable[[], bool]) -> object:
        """Do it there; None where nobody wants it any more when its turn comes. What has begun is brought to
        its end.
        """
        while len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._run, name="ponder", daemon=True)
            self._threads.append(thread)
            thread.start()
        loop = asyncio.get_running_loop()
        job = _Job(work, wanted, loop, loop.create_future())
        self._jobs.put(job)
        return await job.result

    def close(self) -> None:
        """Begin nothing more."""
        for _ in self._threads:
            self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            tell: Callable[[], None]
            try:
                tell = partial(_give, job.result, job.work() if job.wanted() else None)
            except Exception as error:  # noqa: BLE001 it is whoever waits for it who hears of it
                tell = partial(_fail, job.result, error)
            try:
                job.loop.call_soon_threadsafe(tell)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more


@dataclass(frozen=True, slots=True)
class _Job:
    work: Callable[[], object]
    wanted: Callable[[], bool]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[object]


def _give(result: asyncio.Future[object], found: object) -> None:
    if not result.done():
        result.set_result(found)


def _fail(result: asyncio.Future[object], error: Exception) -> None:
    if not result.done():
        result.set_exception(error)
