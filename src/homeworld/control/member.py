"""The gateway of this process as one of several: it enters, renews its lease, and serves what it is told.

Two threads: one renews, whatever else takes long; one enters (again), looks for newer routes and for holds
that are over. The order of entering is what everything rests on: first the row in the store, from which on
every caller asks this gateway too; only then routes and the board of holds are read; only once both are kept
here the lease counts. So whatever others have agreed on without this gateway, it has read before it serves
what moves, and whatever comes later it is told.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Protocol

from homeworld.control.standing import RENEW_SECONDS, TTL_SECONDS, Standing, now
from homeworld.model.errors import DeadlineExceededError, HomeworldError, UnavailableError
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.store.store import Store

_log = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_AGAIN_SECONDS = 0.2
_LEAVE_SECONDS = 2.0  # for what its threads are at, each


class Local(Protocol):
    """The gateway of this process."""

    @property
    def version(self) -> int:
        """The version of the routes that it serves."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it serves at all."""
        ...

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """See ``model.ports.Gateways``."""
        ...

    def hold(self, request: HoldRequest) -> None:
        """See ``model.ports.Gateways``."""
        ...

    def release(self, hold_id: str) -> None:
        """See ``model.ports.Gateways``."""
        ...

    def open(self, subject: str) -> None:
        """See ``model.ports.Gateways``."""
        ...

    def is_held(self, hold_id: str) -> bool:
        """See ``model.ports.Gateways``."""
        ...

    def enter(self, snapshot: RoutingSnapshot, holds: Iterable[HoldRequest]) -> None:
        """Serve the snapshot (at the first call: begin to serve) and keep the holds, whatever was served
        before: others may have gone on without this gateway. What is under way by routes that have changed is
        broken off.
        """
        ...

    def resume(self) -> None:
        """The lease lives: what waited for it goes on."""
        ...

    def hold_ids(self) -> frozenset[str]:
        """The holds in force."""
        ...

    def connections(self) -> frozenset[tuple[str, int]]:
        """Its connections to servers: the server's id, and the server's number of the connection."""
        ...


class Member:
    """Keeps one gateway a member.

    :param gateway_id: unlike that of any other process.
    :param control: the path of its control socket, which listens by the time of :meth:`start`.
    :param snapshot: reads the routes from the store.
    """

    def __init__(
        self,
        store: Store,
        gateway_id: str,
        control: str,
        snapshot: Callable[[], RoutingSnapshot],
        *,
        ttl_seconds: float = TTL_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self.id = gateway_id
        self.standing = Standing(ttl_seconds)
        self._store = store
        self._control = control
        self._snapshot = snapshot
        self._ttl = ttl_seconds
        self._renew_seconds = renew_seconds
        self._address = ""
        self._gateway: Local | None = None
        self._guard = threading.Lock()
        self._joined = threading.Event()
        self._wanted = threading.Event()
        self._stopping = threading.Event()
        self._taking = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._known = False
        self._lapsed = False

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that ended a thread, if any."""
        return self._failure

    @property
    def serves(self) -> bool:
        """Whether the gateway has begun to serve and has not ended."""
        return self._gateway is not None and self._gateway.alive

    def start(self, gateway: Local, address: str) -> None:
        """Enter and stay a member.

        :param address: where clients reach the gateway.
        """
        self._gateway, self._address = gateway, address
        for name, loop in (("member-lease", self._lease_loop), ("member-routes", self._routes_loop)):
            thread = threading.Thread(target=self._supervised, args=(loop,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_joined(self, seconds: float) -> Local:
        """The gateway, once it is a member.

        :raises DeadlineExceededError: not in time.
        """
        if not self._joined.wait(seconds) or self._gateway is None:
            raise DeadlineExceededError("the gateway has not entered yet")
        return self._gateway

    def stop(self) -> None:
        """Leave: nobody waits for this gateway any more. It must serve nothing by now."""
        self._stopping.set()
        self._wanted.set()
        with self._guard:
            self.standing.refused(self.standing.incarnation)
        for thread in self._threads:
            thread.join(_LEAVE_SECONDS)
        if any(thread.is_alive() for thread in self._threads):
            _log.warning("the gateway could not leave; others find that it has ended")
            return
        try:
            with self._store.touch() as tx:
                tx.gateways.leave(self.id)
        except UnavailableError as error:
            _log.warning("the gateway could not leave; others find that it has ended: %s", error)
        else:
            self._known = False

    @property
    def known(self) -> bool:
        """Whether others may know of this gateway. Then they have to be able to see that it has ended."""
        return self._known

    def serve(self, version: int, seconds: float) -> None:
        """Return once this gateway serves that version or a newer one.

        :raises HomeworldError: it cannot.
        """
        gateway = self.wait_joined(seconds)
        with self._taking:
            # Also what is served already: under a hold it may take what it did not without.
            gateway.publish(self._snapshot())
            if gateway.version < version:
                raise UnavailableError(f"the store does not have version {version} of the routes")

    # -- threads ---------------------------------------------------------------------------------------------

    def _supervised(self, loop: Callable[[], None]) -> None:
        try:
            loop()
        except BaseException as error:
            _log.critical("the gateway's membership failed", exc_info=True)
            self._failure = error
            raise

    def _lease_loop(self) -> None:
        while not self._stopping.wait(self._renew_seconds):
            self.renew()

    def renew(self) -> None:
        """Renew the lease once, if there is one."""
        gateway, incarnation = self._gateway, self.standing.incarnation
        if gateway is None or not incarnation:
            return
        asked = now()
        try:
            with self._store.touch() as tx:
                kept = tx.gateways.renew(self.id, incarnation, gateway.version, self._ttl)
        except UnavailableError as error:
            _log.warning("the gateway's lease could not be renewed: %s", error)
            return
        with self._guard:
            until = self.standing.until
            if kept:
                self.standing.renewed(incarnation, asked)
            elif incarnation == self.standing.incarnation:  # it may have entered anew meanwhile
                self.standing.refused(incarnation)
                self._joined.clear()
            # Also where it ended only while it was renewed: whoever looked at it by then waits.
            if now() >= until:
                self._lapsed = True
        if not kept:
            _log.warning("others went on without this gateway; it enters anew")
            self._wanted.set()
        elif self._lapsed and self.standing.live():
            self._wake(gateway)

    def _wake(self, gateway: Local) -> None:
        """Let go on what waited for the lease."""
        self._lapsed = False
        try:
            gateway.resume()
        except HomeworldError as error:
            self._lapsed = True  # with the next renewal
            _log.warning("what waited for the lease could not go on yet: %s", error)

    def _routes_loop(self) -> None:
        while not self._stopping.is_set():
            self._wanted.clear()
            try:
                if self.standing.joined:
                    self.look()
                else:
                    self.enter()
            except HomeworldError as error:
                _log.warning("%s", error)
                self._stopping.wait(_AGAIN_SECONDS)
                continue
            if self.standing.joined:
                self._wanted.wait(_POLL_SECONDS)

    def enter(self) -> None:
        """Enter (anew), and be a member unless that was refused meanwhile.

        :raises HomeworldError: the store does not answer, or the routes cannot be served.
        """
        gateway = self._gateway
        assert gateway is not None  # noqa: S101 started
        asked = now()
        self._known = True
        with self._store.write() as tx:
            incarnation = tx.gateways.enter(self.id, self._control, self._address, self._ttl)
        with self._guard:
            self.standing.enter(incarnation, asked)
        # Only from here on: what was agreed on without us is read, what comes is told.
        with self._taking:
            with self._store.read() as tx:
                holds = tx.gateways.posted()
            gateway.enter(self._snapshot(), holds)
        with self._guard:
            joined = self.standing.join(incarnation)
            if joined:
                self._lapsed = True
                self._joined.set()
        if joined:
            self._wake(gateway)

    def look(self) -> None:
        """Serve newer routes, and let go of holds that are over for everybody else.

        :raises HomeworldError: the store does not answer, or the routes cannot be served.
        """
        gateway = self._gateway
        assert gateway is not None  # noqa: S101 started
        before = gateway.hold_ids()
        with self._store.read() as tx:
            version = tx.routes.version()
            posted = {request.hold_id for request in tx.gateways.posted()} if before else set[str]()
        # First: what waits for a hold goes on by what was stored under it, by whoever let it go.
        if version > gateway.version:
            self.serve(version, 0.0)
        for hold_id in before - posted:
            gateway.release(hold_id)
