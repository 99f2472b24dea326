"""One client's TCP connection: login, TLS, then bytes between the transport and the session.

The only code that sees a client's transport. Whatever bytes come, the worst that happens is that this one
connection ends.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any, Protocol

from homeworld.gateway.accounts import Accounts, may_connect
from homeworld.gateway.branch import Branch
from homeworld.gateway.dialogue import Effect
from homeworld.gateway.handlers import HANDLERS, greet
from homeworld.gateway.link import Link
from homeworld.gateway.login import LoginState, ServerLogin
from homeworld.gateway.pool import keep_alive
from homeworld.gateway.session import Session
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


class House(Protocol):
    """What a connection needs of its gateway."""

    accounts: Accounts
    clock: Clock
    max_packet: int
    handshake_seconds: float

    def admit(self, connection: ClientConnection) -> bool:
        """Count a new connection; false if there are too many."""
        ...

    def left(self, connection: ClientConnection) -> None:
        """The connection is gone."""
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

    # ---------------------------------------------------------------- what asyncio calls

    def connection_made(self, transport: Any) -> None:  # noqa: D102 asyncio's
        self._transport = transport
        self.send = transport.write
        self.peer = str(transport.get_extra_info("peername")[0])
        keep_alive(transport.get_extra_info("socket"))
        if not self._house.admit(self):
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
        self._timer = asyncio.get_running_loop().call_later(self._house.handshake_seconds, self._too_slow)
        self.send(frame(self._login.greeting()))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102 asyncio's
        self._over = True
        self._cancel_timer()
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
        if self._over:
            return
        self._packets.feed(data)
        try:
            while self._login.state is not LoginState.DONE:
                payload = self._packets.next()
                if payload is None:
                    return
                out = self._login.feed(payload)
                if out:
                    self.send(frame(out, self._packets.sequence))
                if self._login.state is LoginState.TLS and self._filter is None:
                    self._begin_tls()
                    return
        except HomeworldError as error:
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
            self._transport.abort()
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
        try:
            account = self._house.accounts.check(proof, self.peer, self._house.clock.now())
        except HomeworldError as error:
            delay = self._house.accounts.delay(self.peer)
            _LOG.info("connection %d from %s: %s", self.number, self.peer, error)
            asyncio.get_running_loop().call_later(delay, self._reject, error)
            return
        branch = self._house.branch_of(account)
        if branch is None:
            self._reject(UnavailableError("the branch is not served yet"))
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
            self._transport.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # ---------------------------------------------------------------- what the session calls

    def close(self) -> None:
        """Close once everything has been sent."""
        if not self._over:
            self._over = True
            self._transport.close()

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

    def gone(self, session: SessionState) -> None:
        """Tell that the session has ended."""
        self._house.gone(session)

    def still_allowed(self) -> bool:
        """Whether the session's account may still be connected from here."""
        if self.session is None:
            return True
        held = self.session.account
        account = self._house.accounts.current(held)
        if account is None or account.role is not held.role or account.replica != held.replica:
            return False
        return may_connect(account, self.peer, self._house.clock.now())
