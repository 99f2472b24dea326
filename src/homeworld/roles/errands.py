"""Errands: what is done for a whole installation by one of its processes, each under a lease of its own.

Invariant: an errand's turn is called only while this process holds the lease, by one thread; a fault of this
program in any of them is kept as :attr:`Errands.failure`, and that errand is not called again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from homeworld.api.calls import Settings
from homeworld.api.event_subjects import EventSubjects
from homeworld.engines.local import LocalEngine
from homeworld.metering.meter import Meter
from homeworld.metering.prices import Prices
from homeworld.model.addresses import Reach
from homeworld.model.errors import FencedError, HomeworldError, UnavailableError
from homeworld.store.store import Store
from homeworld.webhooks.dispatcher import Dispatcher
from homeworld.webhooks.sending import Post
from homeworld.workflows.leases import RENEW_SECONDS, Keeper, Lease
from homeworld.workflows.maintenance.handler import Opening

_ELECT_SECONDS = 2.0
_LEAST_SECONDS = 0.02
_log = logging.getLogger(__name__)


class Errand(Protocol):
    """Something to be done again and again.

    :param on_commit: whether any change that this process stores may be a reason for a turn.
    """

    resource: str
    on_commit: bool
    wake: Callable[[], None]

    def turn(self, lease: Lease) -> float:
        """Do what there is to do; seconds until it should be called again without a reason.

        :raises FencedError: the lease is lost.
        """
        ...

    def stop(self, seconds: float) -> None:
        """Let what is under way end."""
        ...


class Errands:
    """All errands of this process.

    :param owner: this process's name among all, at most 64 characters.
    """

    def __init__(self, store: Store, owner: str, errands: Sequence[Errand]) -> None:
        self._store = store
        self._errands = errands
        self._keeper = Keeper(store, owner)
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._wakes: list[threading.Event] = []
        self._on_commit: list[threading.Event] = []
        self._threads = [threading.Thread(target=self._renew, name="errands-leases", daemon=True)]
        for errand in errands:
            wake = threading.Event()
            errand.wake = wake.set
            self._wakes.append(wake)
            if errand.on_commit:
                self._on_commit.append(wake)
            self._threads.append(
                threading.Thread(
                    target=self._supervised,
                    args=(errand, wake),
                    name=f"errand-{errand.resource}",
                    daemon=True,
                )
            )

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that ended an errand, if any."""
        return self._failure

    def start(self) -> None:
        """Begin."""
        self._store.listen(self._committed)
        for thread in self._threads:
            thread.start()

    def stop(self, seconds: float) -> None:
        """End, and let others take over."""
        self._stopping.set()
        for wake in self._wakes:
            wake.set()
        for errand in self._errands:
            errand.stop(seconds / 2)
        for thread in self._threads:
            thread.join(seconds / 2)
        try:
            self._keeper.give_all_back()
        except UnavailableError as error:
            _log.warning("the leases on errands end by themselves: %s", error)

    def _committed(self) -> None:
        for wake in self._on_commit:
            wake.set()

    def _renew(self) -> None:
        while not self._stopping.wait(RENEW_SECONDS):
            self._keeper.renew()

    def _supervised(self, errand: Errand, wake: threading.Event) -> None:
        try:
            self._loop(errand, wake)
        except BaseException as error:
            _log.critical("the errand %s failed", errand.resource, exc_info=True)
            self._failure = error
            raise

    def _loop(self, errand: Errand, wake: threading.Event) -> None:
        while not self._stopping.is_set():
            rest, lease = _ELECT_SECONDS, None
            wake.clear()
            try:
                held = self._keeper.held(errand.resource)
                lease = held or self._keeper.take(errand.resource)
                if lease is not None:
                    rest = errand.turn(lease)
                    if held is None:
                        _log.info("this process does the errand %s", errand.resource)
            except FencedError:
                _log.warning("the lease on the errand %s is lost", errand.resource)
            except HomeworldError as error:
                _log.warning("the errand %s: %s", errand.resource, error)
            if lease is None:
                # To ask for a lease is a write, too: it must not be a reason to ask at once again.
                self._stopping.wait(rest)
            elif not self._stopping.wait(_LEAST_SECONDS):
                wake.wait(rest)


def make_errands(
    store: Store, engine: LocalEngine, owner: str, settings: Settings, api_url: str, prices: Prices
) -> Errands:
    """All errands of an installation; not started.

    :param settings: as the API's, for what is told of resources.
    :param api_url: where links in that lead.
    """
    post = Post(Reach(settings.webhook_networks))
    return Errands(
        store,
        owner,
        [
            Dispatcher(store, EventSubjects(settings, api_url), post),
            Opening(store),
            Meter(store, engine, prices),
        ],
    )
