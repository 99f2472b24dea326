"""One client's TCP connection: login, TLS, then bytes between the transport and the session.

The only code that sees a client's transport. Whatever bytes come, or do not come, the worst that happens is
that this one connection ends: a login has a deadline, and :meth:`ClientConnection.look` finds clients that
stopped in the middle of a packet, do not read, or have been idle for too long (``Patience``).
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from homeworld.gateway.accounts import Accounts
from homeworld.gateway.branch import Branch
from homeworld.gateway.counts import Counts
from homeworld.gateway.dialogue import Effect
from homeworld.gateway.handlers import HANDLERS, greet
from homeworld.gateway.link import Link
from homeworld.gateway.login import LoginState, ServerLogin
from homeworld.gateway.pool import keep_alive
from homeworld.gateway.session import Session, Wait
from homeworld.gateway.state import SessionState
from homeworld.gateway.tls import TlsFilter
from homeworld.model.errors import HomeworldError, ServerError, UnavailableError
from homeworld.model.ports import Clock
from homeworld.model.routing import Account
from homeworld.wire.auth import FAST_OK
from homeworld.wire.constants import CACHING_SHA2
from homeworld.wire.handshake import build_auth_more
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.results import err_of

_LOG = logging.getLogger(__name__)
_LOGIN_PACKET = 1 << 17
_LINGER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long clients are waited for, in seconds; the defaults are MySQL's own.

    * ``handshake``: for the whole login (connect_timeout).
    * ``read``: for more of a packet, or of an answer, that the client has begun (net_read_timeout).
    * ``write``: for a client to read anything of what is sent to it (net_write_timeout).
    * ``idle``: for the next command (wait_timeout).
    """

    handshake: float = 10.0
    read: float = 30.0
    write: float = 60.0
    idle: float = 28_800.0


class Visitor(Protocol):
    """A client's connection, as the gateway looks after it."""

    @property
    def session(self) -> Session | None:
        """Its session, once it has one of its own."""
        ...

    def look(self, now: float) -> None:
        """Look whether the client has been waited for long enough; called every now and then.

        :param now: the loop's time.
        """
        ...

    def abort(self) -> None:
        """Close at once."""
        ...


class House(Protocol):
    """What a connection needs of its gateway."""

    accounts: Accounts
    clock: Clock
    max_packet: int
    patience: Patience
    counts: Counts

    def admit(self, connection: Visitor, descriptor: int) -> bool:
        """Count a new connection with that file descriptor; false if there are too many."""
        ...

    def left(self, connection: Visitor) -> None:
        """The connection is gone."""
        ...

    def next_number(self) -> int:
        """The number of a new session."""
        ...

    async def know(self, branch: Branch, keyspace: str) -> None:
        """Return once the keyspace's tables are known.

        :raises HomeworldError: they cannot be read in time.
        """
        ...

    def welcomes(self, session: Session) -> bool:
        """Whether the session's account is as it was, and may be connected from where it is."""
        ...

    def branch_of(self, account: Account) -> Branch | None:
        """The branch an account belongs to, if this gateway serves it."""
        ...

    def entered(self, session: Session) -> None:
        """A client has logged in."""
        ...

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Perform a session's effect."""
        ...

    def give_back(self, link: Link) -> None:
        """Take a link back."""
        ...

    def progress(self, branch: Branch) -> None:
        """Something has ended that a hold may be waiting for."""
        ...

    def gone(self, session: SessionState) -> None:
        """A session has ended and nothing of it is under way."""
        ...

    def greeting_version(self) -> str:
        """The version to greet with."""
        ...

    def tls_for(self, peer: str) -> tuple[ssl.SSLContext | None, bool]:
        """The TLS context, if TLS can be had, and whether a client at ``peer`` must use it."""
        ...


def _nowhere(data: bytes) -> None:
    """What a client sends to whom it is not listened to any more."""


class ClientConnection(asyncio.BaseProtocol):
    """An asyncio protocol. ``data_received`` is exchanged as the connection moves on, so that in the end the
    transport calls the session directly.
    """

    def __init__(self, house: House, number: int) -> None:
        self._house = house
        self.number = number
        self.peer = ""
        self.session: Session | None = None
        self.data_received: Callable[[bytes], None] = self._login_data
        self.send: Callable[[bytes], None]
        self._transport: Any = None
        self._login: ServerLogin
        self._packets = PacketBuffer(_LOGIN_PACKET)
        self._filter: TlsFilter | None = None
        self._context: ssl.SSLContext | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._over = False
        self._judged = False
        self._waiting = False
        self._expected = 1
        self._seen: tuple[Wait, int] | None = None
        self._since = 0.0

    # ---------------------------------------------------------------- what asyncio calls

    def connection_made(self, transport: Any) -> None:  # noqa: D102 asyncio's
        self._transport = transport
        self.send = transport.write
        # A client that has gone already has no name any more.
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        sock = transport.get_extra_info("socket")
        keep_alive(sock)
        if not self._house.admit(self, sock.fileno()):
            self._house.counts.too_many += 1
            self.send(frame(err_of(ServerError(1040, "08004", "Too many connections"))))
            self.close()
            return
        self._context, required = self._house.tls_for(self.peer)
        self._login = ServerLogin(
            version=self._house.greeting_version(),
            number=self.number,
            tls=self._context is not None,
            tls_required=required,
        )
        self._timer = asyncio.get_running_loop().call_later(self._house.patience.handshake, self._too_slow)
        self.send(frame(self._login.greeting()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 asyncio's
        self._over = True
        self._cancel_timer()
        if self._waiting:
            self._waiting = False
            self._house.accounts.end_waiting(self.peer)
        self._packets = PacketBuffer(0)
        self._house.left(self)
        if self.session is not None:
            self.session.client_gone()
        if exc is not None:
            _LOG.debug("connection %d: %s", self.number, exc)

    def eof_received(self) -> bool:  # noqa: D102 asyncio's
        return False

    def pause_writing(self) -> None:  # noqa: D102 asyncio's
        if self.session is not None:
            self.session.client_full(full=True)

    def resume_writing(self) -> None:  # noqa: D102 asyncio's
        if self.session is not None:
            self.session.client_full(full=False)

    # ---------------------------------------------------------------- login

    def _receive_by(self, handler: Callable[[bytes], None]) -> None:
        self.data_received = handler
        # The transport has kept the old handler; this makes it look again.
        self._transport.set_protocol(self)

    def _login_data(self, data: bytes) -> None:
        if self._over or self._judged:
            return
        self._packets.feed(data)
        try:
            while self._login.state is not LoginState.DONE:
                payload = self._packets.next(self._expected)
                if payload is None:
                    return
                self._expected = self._packets.sequence
                out = self._login.feed(payload)
                if out:
                    self.send(frame(out, self._packets.sequence))
                    self._expected = (self._expected + 1) & 0xFF
                if self._login.state is LoginState.TLS and self._filter is None:
                    self._begin_tls()
                    return
        except HomeworldError as error:
            self._house.counts.garbled += 1
            _LOG.info("connection %d from %s: %s", self.number, self.peer, error)
            self._reject(error)
            return
        self._authenticate()

    def _begin_tls(self) -> None:
        assert self._context is not None  # noqa: S101 only offered with a context
        self._filter = TlsFilter(self._context, self._transport.write)
        self.send = self._filter.write
        rest = self._packets.rest()
        self._receive_by(self._tls_data)
        if rest:
            self._tls_data(rest)

    def _tls_data(self, data: bytes) -> None:
        assert self._filter is not None  # noqa: S101 set before this handler
        try:
            plain = self._filter.feed(data)
        except ssl.SSLError as error:
            _LOG.debug("connection %d: %s", self.number, error)
            self._house.counts.garbled += 1
            self.abort()
            return
        if not plain:
            return
        if self.session is not None:
            self.session.client_data(plain)
        else:
            self._login_data(plain)

    def _authenticate(self) -> None:
        proof = self._login.proof
        assert proof is not None  # noqa: S101 DONE has a proof
        self._judged = True
        accounts = self._house.accounts
        try:
            account = accounts.check(proof, self.peer, self._house.clock.now())
        except HomeworldError as error:
            self._house.counts.refused += 1
            failures = accounts.failures(self.peer)
            if not failures & (failures - 1):  # the first, second, fourth …: who tries for ever fills no disk
                _LOG.warning("connection %d (%d refused from there): %s", self.number, failures, error)
            if not accounts.begin_waiting(self.peer):
                # Many of them wait for their answer already; more would take the place of others.
                self.abort()
                return
            self._waiting = True
            self._packets.rest()
            asyncio.get_running_loop().call_later(accounts.delay(self.peer), self._reject, error)
            return
        branch = self._house.branch_of(account)
        if branch is None:
            self._reject(UnavailableError("the branch is not served yet"))
            return
        try:
            branch.check_room()
        except ServerError as error:
            self._reject(error)
            return
        self._accept(account, branch)

    def _accept(self, account: Account, branch: Branch) -> None:
        response, proof = self._login.response, self._login.proof
        assert response is not None  # noqa: S101 a proof comes with a response
        assert proof is not None  # noqa: S101 the caller has looked
        self._cancel_timer()
        session = self.session = Session(
            number=self.number,
            account=account,
            branch=branch,
            capabilities=self._login.capabilities,
            charset=response.charset,
            outside=self,
            max_packet=self._house.max_packet,
            handlers=HANDLERS,
        )
        session.peer = self.peer
        self._house.entered(session)
        session.sequence = self._packets.sequence
        if proof.plugin == CACHING_SHA2:
            session.answer(build_auth_more(FAST_OK))
        rest = self._packets.rest()
        session.start(greet(session, response.database))
        if self._filter is None:
            self._receive_by(session.client_data)
        if rest:
            session.client_data(rest)

    def _reject(self, error: HomeworldError) -> None:
        if not self._over:
            self.send(frame(err_of(error), self._packets.sequence))
            self.close()

    def _too_slow(self) -> None:
        if self.session is None:
            if not self._judged:
                self._house.counts.slow_logins += 1
                _LOG.info("connection %d from %s: no login in time", self.number, self.peer)
            self.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self, now: float) -> None:
        """Look whether the client has been waited for long enough; called every now and then.

        :param now: the loop's time.
        """
        if self._over:
            self._look_at_what_is_left(now)
            return
        session = self.session
        if session is None:
            return  # a login has its own timer
        wait, amount = session.waits_for
        if wait is Wait.READER:
            amount = self._transport.get_write_buffer_size()
        seen = (wait, amount)
        if session.touched or seen != self._seen or wait is Wait.SERVER:
            session.touched = False
            self._seen = seen
            self._since = now
            return
        patience, counts, lasted = self._house.patience, self._house.counts, now - self._since
        if wait is Wait.READER and lasted >= patience.write:
            counts.not_reading += 1
            why = "does not read"
        elif wait is Wait.REST and lasted >= patience.read:
            counts.half_sent += 1
            why = "stopped in the middle of a packet"
            session.refuse(ServerError(1159, "08S01", "Got timeout reading communication packets"))
        elif wait is Wait.COMMAND and lasted >= patience.idle:
            counts.idle += 1
            why = "was idle"
        else:
            return
        _LOG.info("connection %d of %s ends: it %s", self.number, session.account.username, why)
        session.end()
        if wait is Wait.READER:
            self.abort()  # what waits to be sent would wait for ever

    def _look_at_what_is_left(self, now: float) -> None:
        """It is closed once all is sent; who reads nothing of that would keep its place for ever."""
        seen = (Wait.READER, self._transport.get_write_buffer_size())
        if seen != self._seen:
            self._seen, self._since = seen, now
        elif now - self._since >= self._house.patience.write:
            self._transport.abort()

    # ---------------------------------------------------------------- what the session calls

    def gone(self, session: SessionState) -> None:
        """The session has ended. Nothing keeps it and this connection alive together: the collector does not
        look at what was there when the process had started.
        """
        self._house.gone(session)
        self.session = None
        self.data_received = _nowhere

    def close(self, *, linger: bool = False) -> None:
        """Close once everything has been sent.

        :param linger: the client is still sending. Were the connection closed on unread bytes, the kernel
            would throw away what the client has not read yet; so it is read from for a while.
        """
        if self._over:
            return
        self._over = True
        if not linger or self._filter is not None or not self._transport.can_write_eof():
            self._transport.close()
            return
        self._receive_by(_nowhere)
        self._transport.resume_reading()
        self._transport.write_eof()
        self._timer = asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()

    def pause(self, *, paused: bool) -> None:
        """Let no more bytes arrive, or let them arrive again."""
        if self._over or self._transport.is_closing():
            return
        if paused:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def perform(self, session: SessionState, effect: Effect) -> None:
        """Have an effect performed."""
        self._house.perform(session, effect)

    def give_back(self, link: Link) -> None:
        """Give a link back to the pool."""
        self._house.give_back(link)

    def progress(self, session: SessionState) -> None:
        """Tell that something has ended."""
        self._house.progress(session.branch)
