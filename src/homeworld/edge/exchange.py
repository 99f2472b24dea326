"""One HTTP request and its answer: the head, what it is judged to be, the answer's parts.

Owns no socket; bytes leave by a :class:`Wire`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from homeworld.edge.codes import RefusedError

_SLICE = 1 << 18
"""Of a large answer so much is handed over at once."""
REASONS = {
    100: "Continue", 200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 411: "Length Required",
    413: "Content Too Large", 415: "Unsupported Media Type", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 499: "Client Closed Request", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
"""What the statuses are called."""


class Wire(Protocol):
    """What an answer is written to."""

    stopping: bool
    drained: asyncio.Event

    def write(self, data: bytes) -> None:
        """Send bytes, if the client is still there."""
        ...


@dataclass(slots=True)
class Head:
    """A request's head. Header names are in lower case; of one that came twice the last stands here."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def plain_json(self) -> bool:
        """Whether the client speaks JSON."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower() == "application/json"


def header_of(head: Head, name: str) -> str:
    """A header's value in lower case, without what stands behind a semicolon."""
    return head.headers.get(name, "").partition(";")[0].strip().lower()


@dataclass(slots=True)
class Refusal:
    """A request that is not served, and how long its client waits for hearing so.

    :param hang_up: without a word.
    """

    error: RefusedError
    delay: float = 0.0
    hang_up: bool = False
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class Exchange:
    """A request as it comes in.

    * ``ready``: what :class:`Answering` made of its head.
    * ``size``: bytes of the body that have come; ``held``: those that :class:`Answering` holds for it.
    * ``awaits_word``: its client waits for being told to send the body.
    """

    head: Head
    keep_alive: bool
    version: str
    ready: object | None = None
    refusal: Refusal | None = None
    body: bytearray = field(default_factory=bytearray)
    size: int = 0
    held: int = 0
    awaits_word: bool = False


class Answering(Protocol):
    """Serves requests."""

    def judge(self, head: Head, peer: str, *, secure: bool) -> object | Refusal:
        """Look at a head before anything of its body is kept."""
        ...

    def largest_body(self, ready: object) -> int:
        """How many bytes the body may have."""
        ...

    def hold(self, ready: object, size: int) -> bool:
        """Bytes of its body are to be kept (or, negative, are not any more); false: there are too many."""
        ...

    async def answer(self, ready: object, body: bytes, out: Out) -> None:
        """Answer a request whose body has come.

        :raises RefusedError: it cannot be served; nothing was sent.
        """
        ...


class Out:
    """One answer on its way to the client.

    * ``streaming``: its head has been sent, and parts follow.
    * ``on_full``: called when the client takes no more for now (True), or does again (False).
    """

    def __init__(self, connection: Wire, exchange: Exchange) -> None:
        self._connection = connection
        self._exchange = exchange
        self._chunked = exchange.version != "1.0"
        self.streaming = False
        self.sent = False
        self.on_full: Callable[[bool], None] | None = None
        self._closes = not exchange.keep_alive

    def _head(self, status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> str:
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", f"Content-Type: {content_type}"]
        lines += (f"{name}: {value}" for name, value in headers)
        lines.append("Cache-Control: no-store")
        if self._closes or self._connection.stopping:
            self._closes = True
            lines.append("Connection: close")
        elif self._exchange.version == "1.0":
            lines.append("Connection: keep-alive")
        return "\r\n".join(lines)

    async def send(
        self, status: int, content_type: str, body: bytes, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        """The whole answer; returns once the client has taken nearly all of it."""
        head = self._head(status, content_type, headers)
        self.sent = True
        begun = f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode("latin-1")
        if self._exchange.head.method == "HEAD":
            body = b""  # its client takes what follows for the next answer
        self._connection.write(begun + body[:_SLICE])
        for at in range(_SLICE, len(body), _SLICE):
            await self._connection.drained.wait()
            self._connection.write(body[at : at + _SLICE])

    def begin(self, content_type: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        """The head of an answer in parts."""
        if not self._chunked:
            self._closes = True
        head = self._head(200, content_type, headers)
        self.sent = self.streaming = True
        rest = "\r\nTransfer-Encoding: chunked\r\n\r\n" if self._chunked else "\r\n\r\n"
        self._connection.write((head + rest).encode("latin-1"))

    def part(self, data: bytes) -> None:
        """A part of the answer."""
        if self._chunked:
            data = f"{len(data):x}\r\n".encode() + data + b"\r\n"
        self._connection.write(data)

    def end(self) -> None:
        """No more parts follow."""
        if self._chunked:
            self._connection.write(b"0\r\n\r\n")

    @property
    def closes(self) -> bool:
        """Whether the connection ends behind this answer."""
        return self._closes
