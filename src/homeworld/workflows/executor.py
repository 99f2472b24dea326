"""The executor: finds what asks for work, takes its lease, and lets its handler act, one action at a time.

Threads, each with a name: a poller, some workers, a lease keeper, one that stops the streams of lost leases
at once, and one that publishes routes which others changed or whose publication failed. A fault of this
program in any of them stops all of them, and :attr:`Executor.failure` says why. Knows no resource: a handler
does.

Invariants: at most one thread works on a resource; a handler is called only under the resource's lease; when
a lease is lost its streams are stopped without waiting for the step under way, and everything else that is
held of the resource is let go of before another look at it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from homeworld.model.errors import FencedError, HomeworldError, NotFoundError, UnavailableError
from homeworld.store.queue import WorkItem
from homeworld.store.store import Store
from homeworld.workflows.leases import RENEW_SECONDS, TTL_SECONDS, Keeper, Lease
from homeworld.workflows.steps import Rest

_log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
LEAST_POLL_SECONDS = 0.02
MOST_POLL_SECONDS = 2.0
POLL_SHARE = 0.2
"""Looking for work takes no more of the time than this: every commit is a hint to look again, and thousands
that wait must not be read anew for each step of one of them.
"""
ROUTES_SECONDS = 0.5
CHORE_SECONDS = 1.0
REFUSED_SECONDS = 2.0
UNAVAILABLE_SECONDS = 1.0
FAULT_SECONDS = 5.0
AWAITED_WORKERS = 4  # they mostly wait for processes to come up, up to a minute and a half each
_Queue = queue.SimpleQueue[str]


def pause_after(took_seconds: float) -> float:
    """Seconds until the next look for work, where there is a hint at once, after one that took so much time
    of its thread.

    >>> pause_after(0.001), pause_after(0.25), pause_after(9.0)
    (0.02, 1.0, 2.0)
    """
    return min(max(LEAST_POLL_SECONDS, took_seconds * (1 / POLL_SHARE - 1)), MOST_POLL_SECONDS)


class Handler(Protocol):
    """Acts on one kind of resources."""

    kind: str

    def tick(self, resource_id: str, lease: Lease) -> Rest | None:
        """One action; None: there is more at once. Nothing is remembered from under another lease.

        :raises FencedError: the lease is lost.
        """
        ...

    def lost(self, resource_id: str) -> None:
        """Stop what runs of the resource, also while a tick is under way. Does not raise."""
        ...

    def loosen(self, resource_id: str) -> None:
        """Let go what others wait for; what runs goes on. Does not raise."""
        ...

    def let_go(self, resource_id: str) -> None:
        """Let go of everything. Does not raise."""
        ...


@dataclass(slots=True)
class _Entry:
    """A resource that asks for work.

    :param due: monotonic time before which it need not be looked at, unless its state is another one.
    :param seen_state: its state when it was last looked at.
    :param held: whether this process may still hold something of it.
    :param lost: its lease was lost since it was last taken up: it is looked at again without a rest.
    """

    item: WorkItem
    due: float = 0.0
    busy: bool = False
    seen_state: str = ""
    held: bool = False
    lost: bool = False


class Executor:
    """Runs handlers until it is stopped.

    :param owner: this executor's name among all, at most 64 characters.
    :param publish: called when the routes' stored version has grown, whoever changed them and whether or not
        they were published already; it may raise a HomeworldError and is then called again.
    :param chores: what is done again and again; it may raise a HomeworldError, which is logged.
    :param workers: how many resources are worked on at the same time.
    :param awaited: kinds that others' work waits for. They have threads of their own: else those that wait
        could be all that there are.
    """

    def __init__(
        self,
        store: Store,
        handlers: Sequence[Handler],
        owner: str,
        *,
        publish: Callable[[], None] = lambda: None,
        chores: Sequence[Callable[[], object]] = (),
        workers: int = 6,
        awaited: Collection[str] = (),
        poll_seconds: float = POLL_SECONDS,
        ttl_seconds: float = TTL_SECONDS,
    ) -> None:
        self._store = store
        self._publish = publish
        self._chores = tuple(chores)
        self._handlers = {handler.kind: handler for handler in handlers}
        self._poll_seconds = poll_seconds
        self._renew_seconds = min(RENEW_SECONDS, ttl_seconds / 4)
        self._lost: queue.SimpleQueue[Lease | None] = queue.SimpleQueue()
        self._keeper = Keeper(store, owner, ttl_seconds=ttl_seconds, on_lost=self._lost.put)
        self._awaited = frozenset(awaited) & self._handlers.keys()
        self._ready: _Queue = queue.SimpleQueue()
        self._ready_awaited: _Queue = queue.SimpleQueue()
        self._guard = threading.Lock()
        self._entries: dict[str, _Entry] = {}
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._failure: BaseException | None = None
        self._workers = workers
        self._threads: list[threading.Thread] = []

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that stopped the executor, if any."""
        return self._failure

    def start(self) -> None:
        """Start the threads."""
        self._store.listen(self.wake)
        loops: list[tuple[str, Callable[[], None]]] = [
            ("executor-poll", self._poll_loop),
            ("executor-leases", self._keep_loop),
            ("executor-lost", self._lost_loop),
            ("executor-routes", self._routes_loop),
            *(
                (f"executor-work-{number}", lambda: self._work_loop(self._ready))
                for number in range(self._workers)
            ),
            *(
                (f"executor-awaited-{number}", lambda: self._work_loop(self._ready_awaited))
                for number in range(AWAITED_WORKERS if self._awaited else 0)
            ),
        ]
        for name, loop in loops:
            thread = threading.Thread(target=self._supervised, args=(name, loop), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Look for work now."""
        self._wake.set()

    def stop(self, timeout_seconds: float) -> None:
        """Finish the actions under way, stop all streams and give the leases back.

        :raises UnavailableError: some action did not end in time; what it holds ends by itself.
        """
        deadline = time.monotonic() + timeout_seconds
        self._stopping.set()
        self.wake()
        for _ in self._threads:
            self._ready.put("")
            self._ready_awaited.put("")
        self._lost.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        with self._guard:
            entries = list(self._entries.values())
        for entry in entries:
            self._handlers[entry.item.kind].let_go(entry.item.id)
        try:
            self._keeper.give_all_back()
        except UnavailableError as error:
            _log.warning("leases could not be given back and end by themselves: %s", error)
        left = [thread.name for thread in self._threads if thread.is_alive()]
        if left:
            raise UnavailableError(f"did not end in time: {', '.join(left)}")

    # -- threads ---------------------------------------------------------------------------------------------

    def _supervised(self, name: str, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            _log.critical("%s failed, the executor stops", name, exc_info=True)
            self._failure = error
            self._stopping.set()
            self.wake()
            raise

    def _poll_loop(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            # This thread's own work: what it waits for on a busy machine is no reason to look less often.
            begun, pause = time.thread_time(), LEAST_POLL_SECONDS
            try:
                with self._store.read() as tx:
                    items = tx.queue.resources_with_work()
            except UnavailableError as error:
                _log.warning("the store does not answer: %s", error)
            else:
                self._enqueue(items)
                pause = pause_after(time.thread_time() - begun)
            self._stopping.wait(pause)
            self._wake.wait(self._poll_seconds)

    def _enqueue(self, items: Sequence[WorkItem]) -> None:
        now = time.monotonic()
        asked = {item.lease: item for item in items if item.kind in self._handlers}
        with self._guard:
            for resource, item in asked.items():
                self._entries.setdefault(resource, _Entry(item)).item = item
            for resource, entry in list(self._entries.items()):
                if entry.busy:
                    continue
                if resource not in asked:
                    if not entry.held:
                        del self._entries[resource]
                        continue
                    entry.due = now  # it asks for nothing any more: its handler lets go of it
                if entry.due <= now or entry.item.state != entry.seen_state:
                    entry.busy, entry.lost = True, False
                    entry.seen_state = entry.item.state
                    ready = self._ready_awaited if entry.item.kind in self._awaited else self._ready
                    ready.put(resource)

    def _keep_loop(self) -> None:
        while not self._stopping.wait(self._renew_seconds):
            self._keeper.renew()

    def _lost_loop(self) -> None:
        while not self._stopping.is_set():
            lease = self._lost.get()
            if lease is None:
                continue  # stop() wakes
            with self._guard:
                entry = self._entries.get(lease.resource)
            if entry is None:
                continue
            _log.warning("the lease on %s is lost", lease.resource)
            # Heard of late it may have been taken again: what runs now runs under the new one.
            if self._keeper.held(lease.resource) is None:
                self._handlers[entry.item.kind].lost(entry.item.id)
            with self._guard:
                entry.due, entry.lost = 0.0, True

    def _routes_loop(self) -> None:
        published, due = -1, 0.0
        while not self._stopping.wait(ROUTES_SECONDS):
            if time.monotonic() >= due:
                self._do_chores()
                due = time.monotonic() + CHORE_SECONDS
            try:
                with self._store.read() as tx:
                    version = tx.routes.version()
                if version != published:
                    self._publish()
                    published = version
            except HomeworldError as error:
                _log.warning("the routes could not be published: %s", error)

    def _do_chores(self) -> None:
        for chore in self._chores:
            try:
                chore()
            except HomeworldError as error:
                _log.warning("%s", error)

    def _work_loop(self, ready: _Queue) -> None:
        while not self._stopping.is_set():
            resource = ready.get()
            with self._guard:
                entry = self._entries.get(resource)
            if entry is None:
                continue  # the empty name with which stop() wakes
            rest = self._work(entry)
            with self._guard:
                # What was lost while it was looked at has to be let go of now, not after its rest.
                entry.due = 0.0 if entry.lost and rest.keep else time.monotonic() + rest.seconds
                entry.held = rest.keep
                entry.busy = False

    # -- one resource ----------------------------------------------------------------------------------------

    def _work(self, entry: _Entry) -> Rest:
        """Act on a resource until it rests, whatever happens."""
        handler, resource_id = self._handlers[entry.item.kind], entry.item.id
        try:
            lease = self._keeper.take(entry.item.lease)
        except UnavailableError as error:
            _log.warning("%s: %s", entry.item.lease, error)
            return Rest(UNAVAILABLE_SECONDS)
        if lease is None:
            if entry.held:  # lost while it rested: what is held of it would be in the new owner's way
                handler.let_go(resource_id)
            return Rest(REFUSED_SECONDS, keep=False)
        try:
            rest = self._act(handler, resource_id, lease)
        except FencedError:
            handler.let_go(resource_id)
            return Rest(REFUSED_SECONDS, keep=False)
        except NotFoundError as error:
            _log.warning("%s: %s", entry.item.lease, error)
            rest = Rest(FAULT_SECONDS, keep=False)
        except HomeworldError as error:
            _log.warning("%s: %s", entry.item.lease, error)
            handler.loosen(resource_id)
            return Rest(UNAVAILABLE_SECONDS)
        except Exception:  # noqa: BLE001 - see below
            # A fault in one resource's handling must not keep the others from being worked on.
            _log.exception("%s", entry.item.lease)
            handler.loosen(resource_id)
            return Rest(FAULT_SECONDS)
        if not rest.keep:
            handler.let_go(resource_id)
            try:
                self._keeper.give_back(lease)
            except UnavailableError as error:
                _log.warning("%s: the lease ends by itself: %s", entry.item.lease, error)
        return rest

    def _act(self, handler: Handler, resource_id: str, lease: Lease) -> Rest:
        while not self._stopping.is_set():
            lease.check()
            rest = handler.tick(resource_id, lease)
            if rest is not None:
                return rest
        return Rest(0.0)
