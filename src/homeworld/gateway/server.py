"""The gateway as a process part: one thread, one event loop, many clients.

The only interpreter of what sessions ask for (``dialogue``), and the gateway's side of
:class:`~homeworld.model.ports.Gateways`, whose calls come from other threads, block, and have deadlines. It
serves from the newest snapshot it was given and never asks the control plane while it serves.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvloop

from homeworld.gateway import descriptors
from homeworld.gateway.accounts import Accounts
from homeworld.gateway.annex import Annex, NoAnnex, may_stay
from homeworld.gateway.branch import Branch, Lease, RouterFactory
from homeworld.gateway.calls import call
from homeworld.gateway.closing import Closings
from homeworld.gateway.connection import ClientConnection, Patience, Visitor
from homeworld.gateway.counts import Counts
from homeworld.gateway.dialogue import Effect
from homeworld.gateway.effects import Effects
from homeworld.gateway.entering import break_off
from homeworld.gateway.holding import HoldKeeper
from homeworld.gateway.link import Link
from homeworld.gateway.loading import Looked
from homeworld.gateway.moved import concerned, counterparts, same_place
from homeworld.gateway.pool import Pool
from homeworld.gateway.session import Session
from homeworld.gateway.state import SessionState
from homeworld.gateway.tls import TlsMode
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    UnavailableError,
)
from homeworld.model.ports import Clock
from homeworld.model.routing import Account, HoldRequest, RoutingSnapshot
from homeworld.model.topology import Flavor

_LOG = logging.getLogger(__name__)
T = TypeVar("T")

VERSIONS: Mapping[Flavor, str] = {
    Flavor.MYSQL: "8.0.34-homeworld",
    Flavor.MARIADB: "10.11.8-MariaDB-homeworld",
}
"""What clients are greeted with, so that they pick the right dialect."""

_FIRST_NUMBER = 1 << 28
"""Connection ids begin far above the servers' own, so that KILL can tell them apart."""
_CALL_SECONDS = 30.0
_LOOK_SECONDS = 5.0
_HOUSEKEEPING_SECONDS = 1.0


class _UtcClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


class Gateway:
    """One gateway. Implements ``ports.Gateways`` for itself.

    :param host: address to listen on; ``port`` 0 takes a free one (see :attr:`port`).
    :param listener: a socket that listens already, instead; clients wait at it until the gateway has started.
    :param router_factory: makes a branch's router for one version of its routes.
    :param tls: a server context (``gateway.tls.context_for``); None offers no TLS.
    :param on_alter_vschema: stores a vschema: branch id, keyspace, JSON text, JSON text of the one that was
        edited; called on a worker thread and may raise HomeworldError, which the client then gets.
    :param max_connections: clients beyond these are told so and sent away; also where the process would come
        close to the most file descriptors that it may have.
    :param max_packet: the largest command a client may send, in bytes.
    :param patience: how long clients are waited for.
    :param lease: under which it serves what moves, where there are several gateways; None: it is alone.
    :param annex: lets other clients in beside those of the MySQL protocol.
    """

    def __init__(
        self,
        *,
        router_factory: RouterFactory,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        tls_mode: TlsMode = TlsMode.AUTO,
        on_alter_vschema: Callable[[str, str, str, str], None] | None = None,
        clock: Clock | None = None,
        max_connections: int = 10_000,
        max_packet: int = 1 << 26,
        patience: Patience = Patience(),  # noqa: B008 it is frozen
        versions: Mapping[Flavor, str] = VERSIONS,
        lease: Lease | None = None,
        listener: socket.socket | None = None,
        annex: Annex | None = None,
    ) -> None:
        self.host = host
        self.port = port if listener is None else int(listener.getsockname()[1])
        self._listener = listener
        self.accounts = Accounts()
        self.clock: Clock = clock or _UtcClock()
        self.max_packet = max_packet
        self.patience = patience
        self.counts = Counts()
        self._router_factory = router_factory
        self._tls = tls
        self._tls_mode = tls_mode
        self._on_alter_vschema = on_alter_vschema
        self._max_connections = max_connections
        self._versions = versions
        self._lease = lease
        self._annex: Annex = annex or NoAnnex()
        self._keeping: set[asyncio.Task[None]] = set()
        self._snapshot = RoutingSnapshot(0, {}, {})
        self._flavor = Flavor.MYSQL
        self._branches: dict[str, Branch] = {}
        self._keeper = HoldKeeper(self._branches.get, lease)
        self._closings = Closings(self._keeper.holds_of, self._keeper.is_drained)
        self._publishing = asyncio.Lock()
        self._looked: dict[str, Looked] = {}
        self._connections: set[Visitor] = set()
        self._sessions: dict[int, Session] = {}
        self._next_number = _FIRST_NUMBER
        self._next_look = 0.0
        self._look_every = min(5.0, patience.read / 3, patience.write / 3, patience.idle / 3)
        self._last_descriptor = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._pool: Pool
        self._effects: Effects
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event
        self._stop_seconds = 0.0
        self._failure: BaseException | None = None

    # ---------------------------------------------------------------- start and stop, from any thread

    def start(self, snapshot: RoutingSnapshot | None = None, holds: Iterable[HoldRequest] = ()) -> None:
        """Listen; returns once clients can connect.

        :param snapshot: served from the first connection on; without one nobody is known yet.
        :param holds: in force from the first connection on.
        :raises UnavailableError: the address cannot be listened on.
        :raises HomeworldError: the snapshot cannot be served.
        """
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(started, snapshot, tuple(holds)), name="gateway", daemon=True
        )
        self._thread.start()
        started.result()

    def stop(self, deadline_seconds: float = 5.0) -> None:
        """Take no new clients; end idle ones now and the others at the end of their transaction or after
        ``deadline_seconds``. Returns once everything is closed.
        """
        loop, thread = self._loop, self._thread
        if loop is None or thread is None or not thread.is_alive():
            return
        self._stop_seconds = deadline_seconds
        loop.call_soon_threadsafe(self._stopping.set)
        thread.join(deadline_seconds + _CALL_SECONDS)
        if thread.is_alive():
            raise DeadlineExceededError("the gateway did not stop in time")

    @property
    def alive(self) -> bool:
        """Whether it serves: it was started and has not ended, in whatever way."""
        thread = self._thread
        return thread is not None and thread.is_alive() and self._loop is not None

    @property
    def failure(self) -> BaseException | None:
        """The fault of this program that ended the gateway, if any; known once :attr:`alive` is False."""
        return self._failure

    def _run(
        self, started: Future[None], snapshot: RoutingSnapshot | None, holds: tuple[HoldRequest, ...]
    ) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                try:
                    runner.run(self._serve(started, snapshot, holds))
                except BaseException as error:
                    self._failure = error  # before it counts as ended: whoever sees that asks why
                    raise
                finally:
                    self._loop = None  # nobody may be kept waiting for a loop that is about to close
        except BaseException as error:  # noqa: BLE001 - told to whoever waits in start(), or kept in failure
            if started.done():
                _LOG.critical("the gateway failed and has ended", exc_info=True)
                self._failure = error
            elif isinstance(error, OSError):
                failed = UnavailableError(f"cannot listen on {self.host}:{self.port}: {error.strerror}")
                failed.__cause__ = error
                started.set_exception(failed)
            else:
                started.set_exception(error)

    async def _serve(
        self, started: Future[None], snapshot: RoutingSnapshot | None, holds: tuple[HoldRequest, ...]
    ) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        most = descriptors.ask_for(2 * self._max_connections + 1024)
        self._last_descriptor = most - descriptors.KEPT_FROM_CLIENTS
        self._pool = Pool(most_descriptors=most - descriptors.KEPT_FROM_SERVERS)
        self._effects = Effects(self._pool, self.accounts, self.clock, self._sessions, self._on_alter_vschema)
        for request in holds:
            await self._keep(request)  # at once: nothing is under way
        if snapshot is not None:
            await self._publish(snapshot)
        if self._listener is None:
            server = await loop.create_server(self._connection, self.host, self.port, backlog=512)
        else:
            server = await loop.create_server(self._connection, sock=self._listener, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
        await self._annex.open(self)
        started.set_result(None)
        try:
            while not self._stopping.is_set():
                self._housekeeping()
                try:
                    async with asyncio.timeout(_HOUSEKEEPING_SECONDS):
                        await self._stopping.wait()
                except TimeoutError:
                    continue
        finally:
            server.close()
            self._annex.stop()
            await self._wind_down()
            await server.wait_closed()

    def _connection(self) -> ClientConnection:
        return ClientConnection(self, self.next_number())

    def _housekeeping(self) -> None:
        self._pool.prune()
        self._look_at_clients()
        self._annex.look()
        for branch in self._branches.values():
            branch.look()
            for keyspace in branch.tracker.take_suspects():
                self._effects.refresh(branch, keyspace)

    def _look_at_clients(self) -> None:
        """Send away clients that were waited for long enough."""
        now = asyncio.get_running_loop().time()
        if now < self._next_look:
            return
        self._next_look = now + self._look_every
        for connection in list(self._connections):
            connection.look(now)

    async def _wind_down(self) -> None:
        deadline = time.monotonic() + self._stop_seconds
        while self._sessions and time.monotonic() < deadline:
            for session in list(self._sessions.values()):
                if session.idle:
                    session.end()
            await asyncio.sleep(0.02)
        await self._annex.close()
        # Sessions first: what waits for a hold must not be sent by the routes that it waits to see changed.
        for session in list(self._sessions.values()):
            session.end()
        self._keeper.end_all()
        grace = time.monotonic() + 1.0
        while (self._sessions or self._connections) and time.monotonic() < grace:  # noqa: ASYNC110 many ends
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        await self._effects.close()
        await self._pool.close()
        for session in list(self._sessions.values()):
            for link in session.links.values():
                link.close()
        # The transports' own last words need a turn of the loop.
        await asyncio.sleep(0)
        if self._expiry is not None:
            self._expiry.cancel()

    # ---------------------------------------------------------------- ports.Gateways, from any thread

    def _call(self, work: Coroutine[Any, Any, T], seconds: float) -> T:
        """Do ``work`` on the gateway's loop and wait for it."""
        return call(self._loop, work, seconds)

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """Serve ``snapshot`` from now on, unless a newer one is served already.

        :raises HomeworldError: a router cannot be made of it; nothing has changed then.
        """
        self._call(self._publish(snapshot), _CALL_SECONDS)

    def hold(self, request: HoldRequest) -> None:
        """See :meth:`homeworld.model.ports.Gateways.hold`.

        :raises DeadlineExceededError: what was under way did not end in time; everything is released again.
        """
        self._call(self._hold(request), request.drain_seconds + _CALL_SECONDS)

    async def _hold(self, request: HoldRequest) -> None:
        branch = self._branches.get(request.branch_id)
        moment = 0
        if branch is not None:
            # Who reads a held table through a view is only known once the view is. And what the routes to
            # come lead to is read now, while nobody waits.
            moment = branch.tracker.moment + 1
            await self._look(branch, counterparts(branch.routes, request.tables), moment)
        await self._keeper.hold(request)
        names = frozenset(table for _, table in request.tables)
        self._looked[request.branch_id] = Looked(request.hold_id, moment, names)

    async def _look(self, branch: Branch, keyspaces: Iterable[str], since: int) -> None:
        """Have the tracker know what the keyspaces have had since that moment, or soon give it up."""

        async def look(keyspace: str) -> None:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._effects.load_schema(branch, keyspace, since=since)
            except HomeworldError as error:
                _LOG.warning("%s", error.message)
            except TimeoutError:
                _LOG.warning("the tables of keyspace %s could not be read in %g s", keyspace, _LOOK_SECONDS)

        await asyncio.gather(*map(look, keyspaces))

    def release(self, hold_id: str) -> None:
        """Let held statements go on, by the newest snapshot."""

        async def release() -> None:
            self._keeper.end(hold_id)

        self._call(release(), _CALL_SECONDS)

    def open(self, subject: str) -> None:
        """See :meth:`homeworld.model.ports.Gateways.open`."""

        async def open_() -> None:
            # Before anybody goes on: a sweep may have raised the sequences since they were taken from.
            for branch_id in self._closings.closed_by(subject):
                self._effects.forget_sequences(branch_id)
                branch = self._branches.get(branch_id)
                if branch is not None:
                    branch.opened()
            self._closings.open(subject)

        self._call(open_(), _CALL_SECONDS)

    def is_held(self, hold_id: str) -> bool:
        """Whether the hold is in force and its own deadline has not passed."""
        return self._keeper.is_held(hold_id)

    def holds_in_force(self) -> int:
        """How many holds there are, drained or not."""
        return self._keeper.count

    # ---------------------------------------------------------------- one of several, from any thread

    @property
    def version(self) -> int:
        """The version of the routes that are served."""
        return self._snapshot.version

    def hold_ids(self) -> frozenset[str]:
        """The holds in force, drained or not."""
        return self._keeper.ids

    def connections(self) -> frozenset[tuple[str, int]]:
        """See :meth:`homeworld.model.ports.Knowing.connections`, of this gateway."""

        async def connections() -> frozenset[tuple[str, int]]:
            return self._pool.connections()

        return self._call(connections(), _CALL_SECONDS)

    def enter(self, snapshot: RoutingSnapshot, holds: Iterable[HoldRequest]) -> None:
        """Serve ``snapshot`` and keep the holds, whatever was served before: others may have gone on without
        this gateway. What is under way on moving tables whose routes are others by now is broken off; the
        servers have been told to by whoever moved them, or were about to be.
        """
        if self._thread is None:
            self.start(snapshot, holds)
        else:
            self._call(self._enter(snapshot, tuple(holds)), _CALL_SECONDS)

    def resume(self) -> None:
        """The lease lives: what waited for it goes on."""

        async def resume() -> None:
            for branch in self._branches.values():
                branch.resumed()

        self._call(resume(), _CALL_SECONDS)

    async def _enter(self, snapshot: RoutingSnapshot, holds: Iterable[HoldRequest]) -> None:
        for request in holds:
            task = asyncio.get_running_loop().create_task(self._keep(request), name=request.hold_id)
            self._keeping.add(task)
            task.add_done_callback(self._keeping.discard)
        await asyncio.sleep(0)  # from here on all of them are in force
        async with self._publishing:
            if snapshot.version >= self._snapshot.version:
                wanted = await self._look_ahead(snapshot)
                self._take(snapshot, wanted, break_off(self._branches, snapshot))

    async def _keep(self, request: HoldRequest) -> None:
        """Keep a hold that was asked of the others; whether it is drained is asked by ``is_held``."""
        try:
            await self._keeper.hold(request)
        except HomeworldError as error:
            _LOG.warning("hold %s: %s", request.hold_id, error.message)

    # ---------------------------------------------------------------- snapshots

    async def _publish(self, snapshot: RoutingSnapshot) -> None:
        async with self._publishing:
            if snapshot.version >= self._snapshot.version:
                wanted = await self._look_ahead(snapshot)
                break_off(self._branches, snapshot, lapsed_only=True)
                self._take(snapshot, wanted)

    async def _look_ahead(self, snapshot: RoutingSnapshot) -> list[tuple[Branch, str, int]]:
        """Read what the snapshot's changes lead to, so that nobody has to wait for it once it is served.

        :returns: of which keyspaces what is known has to be of which moment or later.
        """
        wanted: list[tuple[Branch, str, int]] = []
        looks: list[Coroutine[Any, Any, None]] = []
        for branch_id, routes in snapshot.branches.items():
            branch = self._branches.get(branch_id)
            # Most are the very object that is served: to compare thousands would keep every client waiting.
            if branch is None or branch.routes is routes or branch.routes == routes:
                continue
            looked = self._looked.get(branch_id)
            held = looked is not None and self._keeper.is_held(looked.hold_id)
            for keyspace, tables in concerned(branch.routes, routes).items():
                since = branch.tracker.moment + 1
                if looked is not None and held and tables <= looked.tables:
                    # Nobody but the holder makes or drops them meanwhile: what was read for it is good.
                    since = looked.moment
                wanted.append((branch, keyspace, since))
                if branch.tracker.read(keyspace) and same_place(branch.routes, routes, keyspace):
                    looks.append(self._look(branch, (keyspace,), since))
        await asyncio.gather(*looks)
        return wanted

    def _take(
        self,
        snapshot: RoutingSnapshot,
        wanted: list[tuple[Branch, str, int]],
        broken_off: frozenset[str] = frozenset(),
    ) -> None:
        """Serve ``snapshot``. What is known of the ``wanted`` keyspaces and is older than that is forgotten:
        whoever needs it waits until it has been read.

        :param broken_off: branches of which nothing on moving tables is under way.
        """
        made: dict[str, Branch] = {}
        changed: list[tuple[Branch, Callable[[], None]]] = []
        for branch_id, published in snapshot.branches.items():
            branch = self._branches.get(branch_id)
            routes = self._closings.servable(published, fresh=branch is None or branch_id in broken_off)
            if branch is None:
                holds = self._keeper.holds_of(branch_id)
                made[branch_id] = Branch(routes, self._router_factory, holds, self._lease)
            elif branch.routes is not routes and branch.routes != routes:
                router = branch.router_for(routes)
                changed.append((branch, lambda b=branch, r=routes, o=router: b.replace_routes(r, o)))
        # Every router could be made: from here on nothing fails.
        self._snapshot = snapshot
        flavors = {routes.flavor for routes in snapshot.branches.values()}
        self._flavor = Flavor.MARIADB if flavors == {Flavor.MARIADB} else Flavor.MYSQL
        self.accounts.replace(snapshot.accounts)
        self._branches.update(made)
        for branch, keyspace, since in wanted:
            if branch.tracker.read(keyspace) < since:
                branch.tracker.forget(keyspace)
        for branch_id in self._branches.keys() - snapshot.branches.keys():
            self._branches.pop(branch_id).resumed()
            self._looked.pop(branch_id, None)
            self._closings.serve(branch_id, None)
        for branch, replace in changed:
            replace()
            self._effects.forget_sequences(branch.routes.branch_id)
            for session in branch.sessions:
                session.renew()
        for branch in [*made.values(), *(branch for branch, _ in changed)]:
            branch_id, closing = branch.routes.branch_id, branch.routes.closing
            if self._closings.opens(branch_id, closing):
                branch.opened()
            self._closings.serve(branch_id, closing)
        for branch in [*made.values(), *(branch for branch, _ in changed)]:
            for keyspace in branch.routes.keyspaces:
                if not branch.tracker.read(keyspace):
                    self._effects.refresh(branch, keyspace)
        self._end_unwelcome()

    def _end_unwelcome(self) -> None:
        """End sessions whose account is gone, has expired or may not connect from where it does."""
        for connection in list(self._connections):
            session = connection.session
            if session is not None and not may_stay(self, session):
                _LOG.info("connection %d of %s ends: revoked", session.number, session.account.username)
                session.end()
        self._annex.end_unwelcome()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now = self.clock.now()
        following = self.accounts.next_expiry(now)
        if following is not None and self._loop is not None:
            # At most an hour ahead: clocks are set, and timers must not outlive their sense.
            wait = min(max((following - now).total_seconds(), 0.0) + 0.01, 3600.0)
            self._expiry = self._loop.call_later(wait, self._end_unwelcome)

    # ---------------------------------------------------------------- what connections and sessions need

    def next_number(self) -> int:
        """The number of a new session."""
        self._next_number += 1
        return self._next_number

    def admit(self, connection: Visitor, descriptor: int) -> bool:
        """Count a new connection; false if there are too many. The kernel gives the lowest descriptor that is
        free, so its number tells how many are in use: the last ones are kept for the process itself.
        """
        self._connections.add(connection)
        return (
            len(self._connections) <= self._max_connections
            and descriptor < self._last_descriptor
            and not self._stopping.is_set()
        )

    def left(self, connection: Visitor) -> None:
        """The connection is gone."""
        self._connections.discard(connection)

    async def know(self, branch: Branch, keyspace: str) -> None:
        """Return once the keyspace's tables are known."""
        await self._effects.load_schema(branch, keyspace, since=1)

    def welcomes(self, session: Session) -> bool:
        """Whether the session's account is as it was, and may be connected from where it is."""
        return self.accounts.welcomes(session.account, session.peer, self.clock.now())

    def branch_of(self, account: Account) -> Branch | None:
        """The branch an account belongs to, if it is served."""
        return self._branches.get(account.branch_id)

    def entered(self, session: Session) -> None:
        """A client has logged in."""
        self._sessions[session.number] = session
        session.branch.sessions.add(session)

    def gone(self, session: SessionState) -> None:
        """A session has ended and nothing of it is under way."""
        found = self._sessions.pop(session.number, None)
        if found is not None:
            found.branch.sessions.discard(found)
            if found.branch.draining:
                self.progress(found.branch)

    def give_back(self, link: Link) -> None:
        """Take a link back."""
        self._pool.give_back(link)

    def progress(self, branch: Branch) -> None:
        """Something has ended that a hold may be waiting for."""
        self._keeper.progress(branch)

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Perform a session's effect."""
        assert isinstance(session, Session)  # noqa: S101 only sessions ask
        self._effects.perform(session, effect)

    def greeting_version(self) -> str:
        """By the flavour of the branches served; MySQL where they differ."""
        return self._versions[self._flavor]

    def tls_for(self, peer: str) -> tuple[ssl.SSLContext | None, bool]:
        """The TLS context, and whether a client at ``peer`` must use it."""
        return self._tls, self._tls_mode.required_of(peer)
