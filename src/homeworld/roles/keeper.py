"""Which process starts and watches the MySQL servers of a data directory, and what clusters have beside them:
one of the workers, by a lease.

Invariant: at most one process has a watcher of each; one that loses the lease stops its own before it does
anything else with servers. What a watcher has begun when its lease ends (starting a process) is begun under
the server's own lock, so that two never start one server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Watcher
from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.roles.vitess import Vitess
from homeworld.store.store import Store
from homeworld.workflows.leases import RENEW_SECONDS, Keeper

RESOURCE = "engine:local"
ANSWER_SECONDS = 30.0
"""For the store to say who has the lease."""
START_SECONDS = 600.0
"""For the servers to be started, before a worker goes on without having seen that."""
_ELECT_SECONDS = 2.0
_log = logging.getLogger(__name__)


class EngineKeeper:
    """One process's part in it.

    :param owner: this process's name among all, at most 64 characters.
    :param vitess: the clusters beside the servers; None: there can be none.
    """

    def __init__(self, store: Store, engine: LocalEngine, owner: str, vitess: Vitess | None = None) -> None:
        self._store = store
        self._engine = engine
        self._vitess = vitess
        self._keeper = Keeper(store, owner, on_lost=lambda _lease: self._stop_watching())
        self._watcher: Watcher | None = None
        self._guard = threading.Lock()
        self._stopping = threading.Event()
        self._answered = threading.Event()
        self._decided = threading.Event()
        self._failure: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._supervised, args=(loop,), name=name, daemon=True)
            for name, loop in (("engine-elect", self._elect_loop), ("engine-lease", self._renew_loop))
        ]

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that ended a thread, if any."""
        return self._failure

    def start(self) -> None:
        """Return once the servers were started, here or by whoever has the lease, or a thread has failed
        (:attr:`failure`), or they take very long; then it goes on by itself.

        :raises UnavailableError: the store does not say who has the lease.
        """
        for thread in self._threads:
            thread.start()
        if not self._answered.wait(ANSWER_SECONDS):
            raise UnavailableError("the store does not say who looks after the servers")
        if not self._decided.wait(START_SECONDS):
            _log.warning("the servers are not all started after %g s", START_SECONDS)

    def _supervised(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            _log.critical("looking after the servers failed", exc_info=True)
            self._failure = error
            self._answered.set()
            self._decided.set()
            raise

    def stop(self, seconds: float) -> None:
        """Watch no more and let somebody else; the servers go on."""
        self._stopping.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(seconds)
        self._stop_watching()
        try:
            self._keeper.give_all_back()
        except UnavailableError as error:
            _log.warning("the lease on the servers ends by itself: %s", error)

    def _elect_loop(self) -> None:
        while not self._stopping.is_set():
            try:
                if self._keeper.held(RESOURCE) is None:
                    self._stop_watching()
                    self._keeper.take(RESOURCE)
                self._answered.set()
                if self._keeper.held(RESOURCE) is not None and self._watcher is None:
                    self._begin()
                self._decided.set()
                if self._vitess is not None and self._keeper.held(RESOURCE) is not None:
                    self._vitess.take_over(self._store)  # also where it was installed meanwhile
            except UnavailableError as error:
                _log.warning("the store or a server does not answer: %s", error)
            except HomeworldError as error:
                _log.warning("the servers: %s", error)
            self._stopping.wait(_ELECT_SECONDS)

    def _begin(self) -> None:
        _log.info("this process starts and watches the servers")
        try:
            for server_id, why in self._engine.start_all().items():
                _log.error("server %s did not start and is tried again: %s", server_id, why)
        finally:
            # Whatever is wrong with one, the others are watched.
            with self._guard:
                if self._watcher is None and self._keeper.held(RESOURCE) is not None:
                    self._watcher = Watcher(self._engine)
                    self._watcher.start()

    def _stop_watching(self) -> None:
        with self._guard:
            watcher, self._watcher = self._watcher, None
        if self._vitess is not None:
            self._vitess.leave()
        if watcher is not None:
            try:
                watcher.stop()
            except HomeworldError as error:
                _log.warning("%s", error)

    def _renew_loop(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            self._keeper.renew()
