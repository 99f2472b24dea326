"""The server's side of a login, packet by packet, without sockets.

Theory of operation::

    GREETED   waits for the client's answer to the greeting (or its wish for TLS)
    TLS       the owner wraps the channel; the client then answers over it
    SWITCHED  was asked to prove itself by another plugin, or over again
    FULL      was asked for the password itself (TLS only)
    DONE      :attr:`Login.proof` says what there is to check

A client whose plugin is known proves itself at once; fast authentication always works, because the gateway
knows the twice-hashed passwords.
"""

from __future__ import annotations

from enum import StrEnum

from homeworld.gateway.accounts import PLUGINS, Proof
from homeworld.model.errors import MalformedPacketError, ServerError
from homeworld.wire.auth import FULL_NEEDED, REQUEST_KEY, new_scramble
from homeworld.wire.constants import CACHING_SHA2, CLEAR, NATIVE, Cap, Status
from homeworld.wire.handshake import (
    Greeting,
    HandshakeResponse,
    build_auth_more,
    build_auth_switch,
    is_ssl_request,
    parse_response,
)

OFFERED = int(
    Cap.LONG_PASSWORD
    | Cap.FOUND_ROWS
    | Cap.LONG_FLAG
    | Cap.CONNECT_WITH_DB
    | Cap.NO_SCHEMA
    | Cap.ODBC
    | Cap.LOCAL_FILES
    | Cap.IGNORE_SPACE
    | Cap.PROTOCOL_41
    | Cap.INTERACTIVE
    | Cap.IGNORE_SIGPIPE
    | Cap.TRANSACTIONS
    | Cap.RESERVED
    | Cap.SECURE_CONNECTION
    | Cap.MULTI_STATEMENTS
    | Cap.MULTI_RESULTS
    | Cap.PS_MULTI_RESULTS
    | Cap.PLUGIN_AUTH
    | Cap.CONNECT_ATTRS
    | Cap.PLUGIN_AUTH_LENENC_DATA
    | Cap.CAN_HANDLE_EXPIRED_PASSWORDS
    | Cap.SESSION_TRACK
    | Cap.DEPRECATE_EOF
)
"""What the gateway offers: what every backend it knows can do, so that answers pass through untouched."""

_SHA2_LENGTH = 32


class LoginState(StrEnum):
    """Where a login stands."""

    GREETED = "greeted"
    TLS = "tls"
    SWITCHED = "switched"
    FULL = "full"
    DONE = "done"


class ServerLogin:
    """One client's login.

    :param tls: whether TLS can be had; ``tls_required``: whether it must be used.
    """

    def __init__(self, *, version: str, number: int, tls: bool, tls_required: bool) -> None:
        self.state = LoginState.GREETED
        self.scramble = new_scramble()
        self.response: HandshakeResponse | None = None
        self.proof: Proof | None = None
        self.secure = False
        self._version = version
        self._number = number
        self._tls = tls
        self._tls_required = tls_required
        self._offered = OFFERED | (Cap.SSL if tls else 0)

    @property
    def capabilities(self) -> int:
        """What was agreed."""
        return self.response.capabilities & OFFERED if self.response else 0

    def greeting(self) -> bytes:
        """The first payload of the connection."""
        return Greeting(
            server_version=self._version,
            connection_id=self._number,
            scramble=self.scramble,
            capabilities=self._offered,
            charset=45,
            status=Status.AUTOCOMMIT,
            plugin=PLUGINS[0],
        ).build()

    def feed(self, payload: bytes) -> bytes:
        """Take the client's next packet.

        :returns: the payload to answer with; empty where none is due.
        :raises ServerError: the client is refused.
        :raises MalformedPacketError: it speaks something else.
        """
        if self.state in {LoginState.GREETED, LoginState.TLS}:
            if self.state is LoginState.GREETED and self._tls and is_ssl_request(payload):
                self.state = LoginState.TLS
                self.secure = True
                return b""
            return self._responded(payload)
        if self.state is LoginState.DONE or self.proof is None:
            raise MalformedPacketError
        if self.state is LoginState.FULL:
            self._prove(CLEAR, payload)
            return b""
        return self._answered(self.proof.plugin, payload)

    def _responded(self, payload: bytes) -> bytes:
        response = self.response = parse_response(payload)
        if self._tls_required and not self.secure:
            raise ServerError(
                3159, "08004", "Connections using insecure transport are prohibited: connect with TLS"
            )
        plugin = response.plugin or NATIVE
        if plugin not in PLUGINS:
            return self._switch(PLUGINS[0])
        if not response.auth or (plugin == NATIVE and len(response.auth) != 20):
            return self._switch(plugin)
        return self._answered(plugin, response.auth)

    def _switch(self, plugin: str) -> bytes:
        """Have the client prove itself by ``plugin``; its first answer was for another, or empty."""
        if self.response is None or not self.response.capabilities & Cap.PLUGIN_AUTH:
            raise ServerError(
                1251, "08004", "Client does not support the authentication protocol; upgrade it"
            )
        self.scramble = new_scramble()
        self._prove(plugin, b"")
        self.state = LoginState.SWITCHED
        return build_auth_switch(plugin, self.scramble)

    def _answered(self, plugin: str, answer: bytes) -> bytes:
        if plugin == CACHING_SHA2 and len(answer) != _SHA2_LENGTH and answer.strip(b"\0"):
            # A client that begins with full authentication.
            if not self.secure:
                what = "asked for a public key" if answer == REQUEST_KEY else "sent no proof"
                raise ServerError(
                    1045, "28000", f"Access denied: the client {what}; use TLS or a newer client"
                )
            if answer == REQUEST_KEY:
                self._prove(CLEAR, b"")
                self.state = LoginState.FULL
                return build_auth_more(FULL_NEEDED)
            self._prove(CLEAR, answer)
            return b""
        self._prove(plugin, answer.rstrip(b"\0") if not answer.strip(b"\0") else answer)
        return b""

    def _prove(self, plugin: str, answer: bytes) -> None:
        user = self.response.user if self.response else ""
        self.proof = Proof(user, plugin, answer, self.scramble)
        self.state = LoginState.DONE
