"""The gateway as a process part: one thread, one event loop, many clients.

The only interpreter of what sessions ask for (``dialogue``), and the gateway's side of
:class:`~homeworld.model.ports.Gateways`, whose calls come from other threads, block, and have deadlines. It
serves from the newest snapshot it was given and never asks the control plane while it serves.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from ipaddress import ip_address
from typing import Any, TypeVar

import uvloop

from homeworld.gateway.accounts import Accounts, Proof
from homeworld.gateway.branch import Branch, RouterFactory
from homeworld.gateway.connection import ClientConnection
from homeworld.gateway.dialogue import (
    Authenticate,
    Connect,
    Effect,
    Kill,
    LoadSchema,
    StoreVschema,
    TakeSequence,
    WaitHold,
)
from homeworld.gateway.hold import Hold, Holds, HoldState
from homeworld.gateway.link import Link
from homeworld.gateway.plan import Destination
from homeworld.gateway.pool import OWN_CAPABILITIES, Pool, ask
from homeworld.gateway.sequences import Sequences
from homeworld.gateway.session import Session
from homeworld.gateway.state import SessionState
from homeworld.gateway.tracker import load_query
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    ServerError,
    UnauthorizedError,
    UnavailableError,
)
from homeworld.model.ports import Clock
from homeworld.model.routing import Account, HoldRequest, RoutingSnapshot
from homeworld.model.topology import BackendRole, Flavor, TabletType
from homeworld.wire import commands
from homeworld.wire.client import UTF8MB4_BIN

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
_LOAD_SECONDS = 30.0
_HOUSEKEEPING_SECONDS = 1.0


class TlsMode(StrEnum):
    """Who must use TLS. AUTO: clients that are not on this machine."""

    AUTO = "auto"
    REQUIRED = "required"
    OPTIONAL = "optional"


class _UtcClock:
    def now(self) -> datetime:
        return datetime.now(UTC)


@dataclass(slots=True)
class _InForce:
    """A hold with its own deadline (``time.monotonic`` seconds)."""

    hold: Hold
    until: float
    timer: asyncio.TimerHandle


class Gateway:
    """One gateway. Implements ``ports.Gateways`` for itself.

    :param host: address to listen on; ``port`` 0 takes a free one (see :attr:`port`).
    :param router_factory: makes a branch's router for one version of its routes.
    :param tls: a server context (``gateway.tls.context_for``); None offers no TLS.
    :param on_alter_vschema: stores a vschema: branch id, keyspace, JSON text; called on a worker thread and
        may raise HomeworldError, which the client then gets.
    :param max_packet: the largest command a client may send, in bytes.
    """

    def __init__(
        self,
        *,
        router_factory: RouterFactory,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        tls_mode: TlsMode = TlsMode.AUTO,
        on_alter_vschema: Callable[[str, str, str], None] | None = None,
        clock: Clock | None = None,
        max_connections: int = 2000,
        max_packet: int = 1 << 26,
        handshake_seconds: float = 10.0,
        versions: Mapping[Flavor, str] = VERSIONS,
    ) -> None:
        self.host = host
        self.port = port
        self.accounts = Accounts()
        self.clock: Clock = clock or _UtcClock()
        self.max_packet = max_packet
        self.handshake_seconds = handshake_seconds
        self._router_factory = router_factory
        self._tls = tls
        self._tls_mode = tls_mode
        self._on_alter_vschema = on_alter_vschema
        self._max_connections = max_connections
        self._versions = versions
        self._snapshot = RoutingSnapshot(0, {}, {})
        self._branches: dict[str, Branch] = {}
        self._holds: dict[str, Holds] = {}
        self._in_force: dict[str, _InForce] = {}
        self._sequences: dict[str, Sequences] = {}
        self._connections: set[ClientConnection] = set()
        self._sessions: dict[int, Session] = {}
        self._next_number = _FIRST_NUMBER
        self._tasks: set[asyncio.Task[None]] = set()
        self._settling: set[Branch] = set()
        self._expiry: asyncio.TimerHandle | None = None
        self._pool: Pool
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event
        self._stop_seconds = 0.0

    # ---------------------------------------------------------------- start and stop, from any thread

    def start(self) -> None:
        """Listen; returns once clients can connect.

        :raises UnavailableError: the address cannot be listened on.
        """
        started: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(started,), name="gateway", daemon=True)
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

    def _run(self, started: Future[None]) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(self._serve(started))
            except OSError as error:
                if started.done():
                    raise
                failed = UnavailableError(f"cannot listen on {self.host}:{self.port}: {error.strerror}")
                failed.__cause__ = error
                started.set_exception(failed)
            finally:
                self._loop = None

    async def _serve(self, started: Future[None]) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        self._pool = Pool()
        server = await loop.create_server(self._connection, self.host, self.port, backlog=512)
        self.port = server.sockets[0].getsockname()[1]
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
            await self._wind_down()
            await server.wait_closed()

    def _connection(self) -> ClientConnection:
        self._next_number += 1
        return ClientConnection(self, self._next_number)

    def _housekeeping(self) -> None:
        self._pool.prune()
        for branch in self._branches.values():
            for keyspace in branch.tracker.take_suspects():
                self._spawn(self._refresh(branch, keyspace), f"load {keyspace}")

    async def _wind_down(self) -> None:
        deadline = time.monotonic() + self._stop_seconds
        while self._sessions and time.monotonic() < deadline:
            for session in list(self._sessions.values()):
                if session.idle:
                    session.end()
            await asyncio.sleep(0.02)
        for in_force in list(self._in_force.values()):
            self._end_hold(in_force.hold.request.hold_id)
        for session in list(self._sessions.values()):
            session.end()
        grace = time.monotonic() + 1.0
        while (self._sessions or self._connections) and time.monotonic() < grace:
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
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
        loop = self._loop
        if loop is None:
            work.close()
            raise UnavailableError("the gateway does not run")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(seconds)
        except FutureTimeoutError as error:
            future.cancel()
            raise DeadlineExceededError("the gateway did not answer in time") from error

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

    def release(self, hold_id: str) -> None:
        """Let held statements go on, by the newest snapshot."""
        self._call(self._release(hold_id), _CALL_SECONDS)

    def is_held(self, hold_id: str) -> bool:
        """Whether the hold is in force and its own deadline has not passed."""
        found = self._in_force.get(hold_id)
        return found is not None and found.hold.state is HoldState.HELD and time.monotonic() < found.until

    # ---------------------------------------------------------------- snapshots

    async def _publish(self, snapshot: RoutingSnapshot) -> None:
        if snapshot.version < self._snapshot.version:
            return
        made: dict[str, Branch] = {}
        changed: list[tuple[Branch, Callable[[], None]]] = []
        for branch_id, routes in snapshot.branches.items():
            branch = self._branches.get(branch_id)
            if branch is None:
                made[branch_id] = Branch(
                    routes, self._router_factory, self._holds.setdefault(branch_id, Holds())
                )
            elif branch.routes != routes:
                router = branch.router_for(routes)
                changed.append((branch, lambda b=branch, r=routes, o=router: b.replace_routes(r, o)))
        # Every router could be made: from here on nothing fails.
        self._snapshot = snapshot
        self.accounts.replace(snapshot.accounts)
        self._branches.update(made)
        for branch_id in self._branches.keys() - snapshot.branches.keys():
            del self._branches[branch_id]
            self._sequences.pop(branch_id, None)
        for branch, replace in changed:
            replace()
            sequences = self._sequences.get(branch.routes.branch_id)
            if sequences is not None:
                sequences.forget()
            for session in branch.sessions:
                session.renew()
            for keyspace in branch.tracker.known():
                self._spawn(self._refresh(branch, keyspace), f"load {keyspace}")
        self._end_unwelcome()

    def _end_unwelcome(self) -> None:
        """End sessions whose account is gone, has expired or may not connect from where it does."""
        for connection in list(self._connections):
            session = connection.session
            if session is not None and (
                session.account.branch_id not in self._branches or not connection.still_allowed()
            ):
                _LOG.info("connection %d of %s ends: revoked", session.number, session.account.username)
                session.end()
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        now = self.clock.now()
        following = self.accounts.next_expiry(now)
        if following is not None and self._loop is not None:
            # At most an hour ahead: clocks are set, and timers must not outlive their sense.
            wait = min(max((following - now).total_seconds(), 0.0) + 0.01, 3600.0)
            self._expiry = self._loop.call_later(wait, self._end_unwelcome)

    async def _refresh(self, branch: Branch, keyspace: str) -> None:
        try:
            await self._load_schema(branch, keyspace)
        except HomeworldError as error:
            _LOG.info("the tables of %s could not be read: %s", keyspace, error)

    async def _load_schema(self, branch: Branch, keyspace: str) -> None:
        place = branch.place(Destination(keyspace, "", TabletType.PRIMARY), BackendRole.ADMIN, 0)
        link = await self._pool.lease(place.endpoint, OWN_CAPABILITIES, UTF8MB4_BIN)
        try:
            (reply,) = await ask(link, [commands.query(load_query(place.schema))], _LOAD_SECONDS)
            branch.tracker.loaded(keyspace, reply.result().text_rows())
        finally:
            self._pool.give_back(link)

    # ---------------------------------------------------------------- holds

    async def _hold(self, request: HoldRequest) -> None:
        loop = asyncio.get_running_loop()
        known = self._in_force.get(request.hold_id)
        if known is not None:
            known.timer.cancel()
        holds = self._holds.setdefault(request.branch_id, Holds())
        hold = holds.begin(request)
        timer = loop.call_later(request.hold_seconds, self._end_hold, request.hold_id)
        self._in_force[request.hold_id] = _InForce(hold, time.monotonic() + request.hold_seconds, timer)
        branch = self._branches.get(request.branch_id)
        if branch is None:
            hold.state = HoldState.HELD
            return
        for session in branch.sessions:
            session.ready.clear()
        drained: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not drained.done():
                drained.set_result(None)

        hold.drained.append(tell)
        branch.draining = True
        self._settle(branch)
        if hold.state is HoldState.HELD:
            return
        try:
            async with asyncio.timeout(request.drain_seconds):
                await drained
        except TimeoutError as error:
            self._end_hold(request.hold_id)
            raise DeadlineExceededError(
                f"transactions on the tables did not end within {request.drain_seconds:g} s"
            ) from error
        except asyncio.CancelledError:
            self._end_hold(request.hold_id)
            raise
        if self._in_force.get(request.hold_id) is None:
            raise DeadlineExceededError("the hold was over before everything had ended")

    def _settle(self, branch: Branch) -> None:
        self._settling.discard(branch)
        for hold in branch.holds.settle(branch.sessions):
            for tell in hold.drained:
                tell()
            hold.drained.clear()
        branch.draining = branch.holds.draining

    def _end_hold(self, hold_id: str) -> None:
        found = self._in_force.pop(hold_id, None)
        if found is None:
            return
        found.timer.cancel()
        branch_id = found.hold.request.branch_id
        hold = self._holds[branch_id].end(hold_id)
        branch = self._branches.get(branch_id)
        if branch is not None:
            branch.draining = branch.holds.draining
        if hold is not None:
            waiters, hold.waiters = hold.waiters, []
            for wake in (*hold.drained, *waiters):
                wake()

    async def _release(self, hold_id: str) -> None:
        self._end_hold(hold_id)

    # ---------------------------------------------------------------- what connections and sessions need

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection; false if there are too many."""
        self._connections.add(connection)
        return len(self._connections) <= self._max_connections and not self._stopping.is_set()

    def left(self, connection: ClientConnection) -> None:
        """The connection is gone."""
        self._connections.discard(connection)

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
        """Look at what is under way once everything of this moment has been done."""
        if branch not in self._settling and self._loop is not None:
            self._settling.add(branch)
            self._loop.call_soon(self._settle, branch)

    def greeting_version(self) -> str:
        """By the flavour of the branches served; MySQL where they differ."""
        flavors = {routes.flavor for routes in self._snapshot.branches.values()}
        return self._versions[Flavor.MARIADB if flavors == {Flavor.MARIADB} else Flavor.MYSQL]

    def tls_for(self, peer: str) -> tuple[ssl.SSLContext | None, bool]:
        """The TLS context, and whether a client at ``peer`` must use it."""
        if self._tls_mode is TlsMode.REQUIRED:
            return self._tls, True
        if self._tls_mode is TlsMode.OPTIONAL:
            return self._tls, False
        try:
            near = ip_address(peer).is_loopback
        except ValueError:
            near = False
        return self._tls, not near

    # ---------------------------------------------------------------- effects

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        assert self._loop is not None  # noqa: S101 called on the loop
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Perform a session's effect; the session hears of it later."""
        assert isinstance(session, Session)  # noqa: S101 only sessions ask
        if isinstance(effect, WaitHold):

            def go_on() -> None:
                session.resume(effect, None)

            effect.hold.waiters.append(go_on)
            return
        self._spawn(self._perform(session, effect), type(effect).__name__)

    async def _perform(self, session: Session, effect: Effect) -> None:
        try:
            result = await self._result(session, effect)
        except HomeworldError as error:
            session.fail(effect, error)
        except Exception:  # noqa: BLE001 a fault of ours must not leave the client waiting; it is logged
            _LOG.exception("session %d: %s failed", session.number, type(effect).__name__)
            session.fail(effect, HomeworldError("internal error"))
        else:
            if not session.resume(effect, result) and isinstance(result, Link):
                self._pool.give_back(result)

    async def _result(self, session: Session, effect: Effect) -> object:
        branch = session.branch
        match effect:
            case Connect(endpoint, capabilities, charset, schema):
                return await self._pool.lease(endpoint, capabilities, charset, schema)
            case LoadSchema(keyspace):
                await self._load_schema(branch, keyspace)
            case TakeSequence(keyspace, table, count):
                sequences = self._sequences.setdefault(branch.routes.branch_id, Sequences(self._pool))
                return await sequences.take(branch, keyspace, table, count)
            case StoreVschema(keyspace, vschema_json):
                await self._store_vschema(branch, keyspace, vschema_json)
            case Authenticate(user, plugin, answer, scramble):
                return await self._authenticate(session, Proof(user, plugin, answer, scramble))
            case Kill(number, query_only):
                await self._kill(session, number, query_only=query_only)
            case _:
                raise HomeworldError(f"nobody performs {type(effect).__name__}")
        return None

    async def _store_vschema(self, branch: Branch, keyspace: str, vschema_json: str) -> None:
        if self._on_alter_vschema is None:
            raise UnavailableError("vschemas cannot be changed here")
        await asyncio.to_thread(self._on_alter_vschema, branch.routes.branch_id, keyspace, vschema_json)

    async def _authenticate(self, session: Session, proof: Proof) -> Account:
        try:
            return self.accounts.check(proof, session.peer, self.clock.now())
        except UnauthorizedError:
            await asyncio.sleep(self.accounts.delay(session.peer))
            raise

    async def _kill(self, session: Session, number: int, *, query_only: bool) -> None:
        victim = self._victim(session, number)
        links = [link for link in victim.links.values() if link.busy]
        victim.interrupt(ServerError(1317, "70100", "Query execution was interrupted"))
        for link in links:
            if link.endpoint is None:
                continue
            helper = await self._pool.lease(link.endpoint, OWN_CAPABILITIES, UTF8MB4_BIN)
            try:
                kind = "QUERY" if query_only else "CONNECTION"
                (reply,) = await ask(helper, [commands.query(f"KILL {kind} {link.thread_id}")], _CALL_SECONDS)
                if not isinstance(reply.error, ServerError) or reply.error.server_errno != 1094:
                    reply.check()
            finally:
                self._pool.give_back(helper)
        if not query_only:
            victim.end()

    def _victim(self, session: Session, number: int) -> Session:
        found = self._sessions.get(number)
        candidates = (
            [found]
            if found is not None
            else [
                other
                for other in session.branch.sessions
                if any(link.thread_id == number for link in other.links.values())
            ]
        )
        if len(candidates) != 1 or candidates[0].branch is not session.branch:
            raise ServerError(1094, "HY000", f"Unknown thread id: {number}")
        victim = candidates[0]
        if (
            victim.account.username != session.account.username
            and session.account.role is not BackendRole.ADMIN
        ):
            raise ServerError(1095, "HY000", f"You are not owner of thread {number}")
        return victim
