"""Large texts are read beside the event loop, so that nobody else's statement waits for them.

A text of a megabyte takes a good part of a second to plan. It is done in one of a few threads, each with a
router of its own: a router is made for one thread, and what it knows of statements is of no use to others.

Invariant: a plan that is given was made for the routes and tables that are served when it is given, as far as
plans depend on them: passwords come and go without anybody's text being read again.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakKeyDictionary

from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import Dialogue, Ponder
from homeworld.gateway.plan import Plan, RouterPort, SessionView
from homeworld.model.routing import BranchRoutes

LARGE = 1 << 15
"""Texts of so many bytes are read beside the loop; shorter ones take less than it does to hand them over."""
PlanWith = Callable[[RouterPort, SessionView], Plan]
_THREADS = 2
_TRIES = 4


class _Routers(threading.local):
    """A thread's own routers, each with the routes that it is for."""

    def __init__(self) -> None:
        self.of: WeakKeyDictionary[Branch, tuple[BranchRoutes, RouterPort]] = WeakKeyDictionary()


_ROUTERS = _Routers()


def planned_beside(branch: Branch, plan: PlanWith, view: SessionView) -> Dialogue[Plan]:
    """Plan what is large.

    :param plan: plans by a given router, in a thread.
    """
    for _ in range(_TRIES):
        version, routes = branch.tracker.version, branch.routes
        found: Plan = yield Ponder(partial(_plan, branch, routes, plan, view))
        if branch.tracker.version == version and _alike(branch.routes, routes):
            return found
    # Routes or tables change faster than it is read: others wait for it this once.
    return plan(branch.router, view)


def _alike(one: BranchRoutes, other: BranchRoutes) -> bool:
    """Whether a statement is planned alike by both."""
    if one is other:
        return True
    return replace(one, version=0, credentials={}, most_clients=0) == replace(
        other, version=0, credentials={}, most_clients=0
    )


def _plan(branch: Branch, routes: BranchRoutes, plan: PlanWith, view: SessionView) -> Plan:
    """In a thread: plan by this thread's own router for these routes."""
    known = _ROUTERS.of.get(branch)
    if known is None or not _alike(known[0], routes):
        known = _ROUTERS.of[branch] = (routes, branch.router_for(routes))
    return plan(known[1], view)


class Threads:
    """The few threads of one gateway. They do not keep a process from ending, whatever they are at."""

    def __init__(self) -> None:
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads: list[threading.Thread] = []

    async def do(self, work: Callable[[], object], wanted: Callable[[], bool]) -> object:
        """Do it there; None where nobody wants it any more when its turn comes. What has begun is brought to
        its end.
        """
        while len(self._threads) < _THREADS:
            thread = threading.Thread(target=self._run, name="ponder", daemon=True)
            thread.start()  # first: one that cannot be started must not count
            self._threads.append(thread)
        loop = asyncio.get_running_loop()
        job = _Job(work, wanted, loop, loop.create_future())
        with self._changed:
            # Clients that give up and come again must not pile up with their texts.
            for one in [one for one in self._jobs if not one.wanted()]:
                self._jobs.remove(one)
                _give(one.result, None)
            self._jobs.append(job)
            self._changed.notify()
        return await job.result

    def close(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        # Each job in a call of its own: a thread that waits keeps none.
        while self._next():
            pass

    def _next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._jobs)
            if self._closed:
                return False
            job = self._jobs.popleft()
        tell: Callable[[], None]
        try:
            tell = partial(_give, job.result, job.work() if job.wanted() else None)
        except Exception as error:  # noqa: BLE001 it is whoever waits for it who hears of it
            tell = partial(_fail, job.result, error)
        try:
            job.loop.call_soon_threadsafe(tell)
        except RuntimeError:
            return False  # the loop is closed: nobody waits any more
        return True


@dataclass(frozen=True, slots=True, eq=False)
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
