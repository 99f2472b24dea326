"""The client's side of the protocol as dialogues: bytes are fed in, bytes to send are taken out.

Owns no socket and no time, so a blocking socket (replication) and asyncio (gateway) drive the same code::

    login = Login(Credentials("mover", "secret"), secure=True)
    drive(login, sock.sendall, lambda: sock.recv(65536))

    reply = Collector(login.capabilities)
    sock.sendall(frame(commands.query("SELECT 1")))
    while not reply.done:
        reply.feed(sock.recv(65536))

A password leaves this dialogue in plain text only over a channel its owner called secure (a unix socket or
TLS); over any other it is encrypted for the server's public key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from homeworld.model.errors import ConnectionLostError, MalformedPacketError, UnavailableError
from homeworld.wire.auth import FAST_OK, FULL_NEEDED, REQUEST_KEY, proof, rsa_password
from homeworld.wire.constants import CACHING_SHA2, CLEAR, Cap
from homeworld.wire.handshake import Greeting, HandshakeResponse, build_ssl_request, parse_auth_switch
from homeworld.wire.packets import PacketBuffer, Reader, frame
from homeworld.wire.results import (
    ColumnDefinition,
    Ok,
    TextRow,
    end_status,
    is_end,
    parse_err,
    parse_text_row,
)

DEFAULT_CAPABILITIES = int(
    Cap.LONG_PASSWORD
    | Cap.LONG_FLAG
    | Cap.PROTOCOL_41
    | Cap.TRANSACTIONS
    | Cap.SECURE_CONNECTION
    | Cap.MULTI_RESULTS
    | Cap.PS_MULTI_RESULTS
    | Cap.PLUGIN_AUTH
    | Cap.PLUGIN_AUTH_LENENC_DATA
    | Cap.CONNECT_ATTRS
    | Cap.DEPRECATE_EOF
)
"""What a dialogue asks for where its owner says nothing. Add FOUND_ROWS, LOCAL_FILES … as needed."""

MAX_PACKET = 1 << 30
UTF8MB4_BIN = 46
"""Collation id of utf8mb4_bin, which every flavour knows."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who logs in, and into which schema."""

    user: str
    password: str = field(repr=False)
    schema: str = ""


class LoginState(StrEnum):
    """Where a login stands. TLS: the owner must wrap the channel now and call :meth:`Login.tls_started`."""

    GREETING = "greeting"
    TLS = "tls"
    PROOF = "proof"
    KEY = "key"
    DONE = "done"


class Dialogue(Protocol):
    """Anything that :func:`drive` can drive."""

    @property
    def done(self) -> bool:
        """Whether the dialogue has come to its end."""
        ...

    def feed(self, data: bytes) -> None:
        """Take bytes from the server; empty means the server has hung up."""
        ...

    def take(self) -> bytes:
        """The bytes to send now; may be empty."""
        ...


def drive(dialogue: Dialogue, send: Callable[[bytes], object], receive: Callable[[], bytes]) -> None:
    """Drive a dialogue to its end over a blocking channel.

    :raises HomeworldError: as the dialogue does; whatever ``send`` and ``receive`` raise passes through.
    """
    while not dialogue.done:
        out = dialogue.take()
        if out:
            send(out)
        if not dialogue.done:
            dialogue.feed(receive())


class Login:
    """Authenticates one connection.

    :param secure: the channel cannot be listened to (unix socket, or TLS already begun).
    :param use_tls: ask for TLS; the state is then TLS once :meth:`take` has given the request out.
    :param capabilities: what to ask for; what was agreed stands in ``capabilities`` once done.
    :raises ServerError: from :meth:`feed`, when the server refuses.
    :raises MalformedPacketError: from :meth:`feed`.
    :raises ConnectionLostError: from :meth:`feed`, when the server hangs up.
    :raises UnavailableError: from :meth:`feed`, when the server wants what this client cannot do.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        secure: bool,
        use_tls: bool = False,
        capabilities: int = DEFAULT_CAPABILITIES,
        charset: int = UTF8MB4_BIN,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.credentials = credentials
        self.state = LoginState.GREETING
        self.greeting: Greeting | None = None
        self.capabilities = capabilities
        self.ok: Ok | None = None
        self._secure = secure
        self._use_tls = use_tls
        self._wanted = capabilities
        self._charset = charset
        self._attributes = dict(attributes or {})
        self._packets = PacketBuffer(1 << 20)
        self._out = bytearray()
        self._plugin = ""
        self._scramble = b""

    @property
    def done(self) -> bool:
        """Whether the server has let us in."""
        return self.state is LoginState.DONE

    def take(self) -> bytes:
        """The bytes to send now."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def rest(self) -> bytes:
        """Bytes that came behind the end of the login (none from a well-behaved server)."""
        return self._packets.rest()

    def tls_started(self) -> None:
        """The channel is now wrapped in TLS; the login goes on."""
        self._secure = True
        self.state = LoginState.PROOF
        self._respond()

    def feed(self, data: bytes) -> None:
        """Take bytes from the server; empty means it has hung up."""
        if not data:
            raise ConnectionLostError("the server closed the connection during the login")
        self._packets.feed(data)
        while self.state is not LoginState.DONE:
            payload = self._packets.next()
            if payload is None:
                return
            if payload[:1] == b"\xff":
                raise parse_err(payload)
            if self.state is LoginState.GREETING:
                self._greeted(payload)
            else:
                self._answered(payload)

    def _send(self, payload: bytes) -> None:
        self._out += frame(payload, self._packets.sequence)

    def _greeted(self, payload: bytes) -> None:
        greeting = self.greeting = Greeting.parse(payload)
        if not greeting.capabilities & Cap.PROTOCOL_41:
            raise MalformedPacketError("the server is older than MySQL 4.1")
        capabilities = self._wanted & greeting.capabilities
        if self.credentials.schema:
            capabilities |= Cap.CONNECT_WITH_DB
        self.capabilities = capabilities & ~Cap.SSL
        self._plugin = greeting.plugin
        self._scramble = greeting.scramble
        if self._use_tls:
            if not greeting.capabilities & Cap.SSL:
                raise UnavailableError("the server offers no TLS")
            self.capabilities |= Cap.SSL
            self._send(build_ssl_request(self.capabilities, MAX_PACKET, self._charset))
            self._packets.sequence += 1
            self.state = LoginState.TLS
            return
        self.state = LoginState.PROOF
        self._respond()

    def _respond(self) -> None:
        answer = proof(self._plugin, self.credentials.password, self._scramble)
        if answer is None:
            # An unknown plugin: begin with what we can, the server will ask to switch.
            self._plugin = CACHING_SHA2
            answer = proof(self._plugin, self.credentials.password, self._scramble)
        response = HandshakeResponse(
            capabilities=self.capabilities,
            max_packet=MAX_PACKET,
            charset=self._charset,
            user=self.credentials.user,
            auth=answer or b"",
            database=self.credentials.schema,
            plugin=self._plugin,
            attributes=self._attributes,
        )
        self._send(response.build())

    def _answered(self, payload: bytes) -> None:
        head = payload[:1]
        if head == b"\x00":
            self.ok = Ok.parse(payload, self.capabilities)
            self.state = LoginState.DONE
        elif head == b"\xfe":
            self._switched(payload)
        elif head == b"\x01":
            self._more(payload[1:])
        else:
            raise MalformedPacketError("unexpected packet during the login")

    def _switched(self, payload: bytes) -> None:
        self._plugin, self._scramble = parse_auth_switch(payload)
        answer = proof(self._plugin, self.credentials.password, self._scramble)
        if answer is None and self._plugin == CLEAR and self._secure:
            answer = self.credentials.password.encode() + b"\0"
        if answer is None:
            raise UnavailableError(f"the server asks for authentication plugin {self._plugin}")
        self._send(answer)

    def _more(self, data: bytes) -> None:
        if self.state is LoginState.KEY:
            self.state = LoginState.PROOF
            try:
                encrypted = rsa_password(self.credentials.password, self._scramble, data)
            except ValueError as error:
                raise MalformedPacketError("the server's public key cannot be read") from error
            self._send(encrypted)
        elif self._plugin != CACHING_SHA2:
            raise MalformedPacketError("unexpected packet during the login")
        elif data == FULL_NEEDED:
            if self._secure:
                self._send(self.credentials.password.encode() + b"\0")
            else:
                self.state = LoginState.KEY
                self._send(REQUEST_KEY)
        elif data != FAST_OK:
            raise MalformedPacketError("unexpected packet during the login")


class _Stage(StrEnum):
    FIRST = "first"
    COLUMNS = "columns"
    COLUMNS_EOF = "columns eof"
    ROWS = "rows"
    FILE = "file"
    DONE = "done"


class Collector:
    """Collects one whole answer of the text protocol (the last result where there are several).

    ``ok`` is the OK of a statement without rows; else ``columns`` and ``rows`` hold the result (rows as raw
    payloads, read by :meth:`text_rows`). ``infile`` is true while the server waits for LOAD DATA LOCAL's
    data: send it framed from ``sequence`` on, then an empty packet, then call :meth:`file_sent`.

    :raises ServerError: from :meth:`feed`, when the server answers with an error.
    :raises ConnectionLostError: from :meth:`feed`, when the server hangs up.
    """

    def __init__(self, capabilities: int, *, limit: int = 1 << 30) -> None:
        self._caps = capabilities
        self._packets = PacketBuffer(limit)
        self._stage = _Stage.FIRST
        self._left = 0
        self.ok: Ok | None = None
        self.columns: list[ColumnDefinition] = []
        self.rows: list[bytes] = []
        self.status = 0
        self.warnings = 0

    @property
    def done(self) -> bool:
        """Whether the answer is complete."""
        return self._stage is _Stage.DONE

    @property
    def infile(self) -> bool:
        """Whether the server waits for a local file's data."""
        return self._stage is _Stage.FILE

    @property
    def sequence(self) -> int:
        """The number with which the next packet to the server begins."""
        return self._packets.sequence

    def take(self) -> bytes:
        """A collector has nothing to say."""
        return b""

    def rest(self) -> bytes:
        """Bytes that came behind the end of the answer."""
        return self._packets.rest()

    def file_sent(self) -> None:
        """The file's data and the empty packet behind it have been sent."""
        self._stage = _Stage.FIRST

    def text_rows(self) -> list[TextRow]:
        """The rows as bytes, None for NULL."""
        count = len(self.columns)
        return [parse_text_row(row, count) for row in self.rows]

    def one_row(self, columns: int) -> TextRow:
        """The only row of a result that must have just one, of so many columns.

        :raises MalformedPacketError: it has not.
        """
        rows = self.text_rows()
        if len(rows) != 1 or len(rows[0]) != columns:
            raise MalformedPacketError("a result has other rows or columns than were asked for")
        return rows[0]

    def feed(self, data: bytes) -> None:
        """Take bytes from the server; empty means it has hung up."""
        if not data:
            raise ConnectionLostError
        self._packets.feed(data)
        while self._stage not in {_Stage.DONE, _Stage.FILE}:
            payload = self._packets.next()
            if payload is None:
                return
            self._packet(payload)

    def _packet(self, payload: bytes) -> None:
        if payload[:1] == b"\xff" and self._stage is not _Stage.COLUMNS:
            raise parse_err(payload)
        match self._stage:
            case _Stage.FIRST:
                self._first(payload)
            case _Stage.COLUMNS:
                self.columns.append(ColumnDefinition.parse(payload))
                self._left -= 1
                if not self._left:
                    self._stage = _Stage.ROWS if self._caps & Cap.DEPRECATE_EOF else _Stage.COLUMNS_EOF
            case _Stage.COLUMNS_EOF:
                self._stage = _Stage.ROWS
            case _:
                if is_end(payload, self._caps):
                    self.status, self.warnings = end_status(payload, self._caps)
                    self._next_result()
                else:
                    self.rows.append(payload)

    def _first(self, payload: bytes) -> None:
        self.ok = None
        self.columns = []
        self.rows = []
        head = payload[:1]
        if head == b"\x00":
            self.ok = Ok.parse(payload, self._caps)
            self.status, self.warnings = self.ok.status, self.ok.warnings
            self._next_result()
        elif head == b"\xfe" and len(payload) < 9:
            self.ok = Ok()
            self._stage = _Stage.DONE
        elif head == b"\xfb":
            self._stage = _Stage.FILE
        else:
            self._left = Reader(payload).lenenc_int()
            self._stage = _Stage.COLUMNS

    def _next_result(self) -> None:
        self._stage = _Stage.FIRST if self.status & 8 else _Stage.DONE
