"""HTTP/1.1 for the data plane: one client's connection, requests in, answers out.

The only code of this room that sees a client's transport. It knows heads, bodies and patience; what a request
means is :class:`Answering`'s. Requests of one connection are answered one after the other, in order.

The invariant: whatever bytes come, or do not come, the worst that happens is that this one connection ends;
and what is held of it is one head, one body, and what has arrived in one piece behind it.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections import deque
from typing import Any

import httptools

from homeworld.edge.codes import Code, RefusedError, refusal_body
from homeworld.edge.exchange import REASONS, Answering, Exchange, Head, Out, Refusal
from homeworld.gateway.connection import House
from homeworld.gateway.pool import keep_alive
from homeworld.gateway.session import Session
from homeworld.gateway.tls import TlsFilter

_LOG = logging.getLogger(__name__)
_MOST_HEAD = 1 << 15
_MOST_HEADERS = 100
_MOST_DROPPED = 1 << 24
"""Bytes of a refused request's body that are read past, so that its client comes to reading the answer."""
_MOST_QUEUED = 100
_SLOWEST = 4096
"""Bytes of a body that have to come in a second, on the whole: what has come of it is held meanwhile."""
_IDLE_SECONDS = 2400.0
"""Longer than clients keep unused connections, so that it is they who close them."""


class HttpConnection(asyncio.Protocol):
    """An asyncio protocol.

    :param tls: what it has to be within; None: it is in the clear.
    :param living: where it is as long as it lives.
    """

    def __init__(
        self,
        house: House,
        answering: Answering,
        tls: ssl.SSLContext | None,
        living: set[HttpConnection],
    ) -> None:
        self._living = living
        self._house = house
        self._answering = answering
        self._tls = tls
        self._filter: TlsFilter | None = None
        self.peer = ""
        self.session: Session | None = None
        self.stopping = False
        self._transport: Any = None
        self._parser: Any = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[str, str] = {}
        self._loose = 0
        self._begun = False
        self._exchange: Exchange | None = None
        self._serving: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._task: asyncio.Task[None] | None = None
        self._out: Out | None = None
        self._over = False
        self._full = False
        self._paused = False
        self._came = 0.0
        self._since = 0.0
        self._head_since = 0.0
        self._full_since = 0.0
        self._full_size = 0
        self._known = False
        self.drained = asyncio.Event()
        self.drained.set()

    # ---------------------------------------------------------------- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102 asyncio's
        self._transport = transport
        self._living.add(self)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        sock = transport.get_extra_info("socket")
        keep_alive(sock)
        if self._tls is not None:
            self._filter = TlsFilter(self._tls, self._transport.write)
        self._touch()
        self._came = self._head_since = self._since
        if not self._house.admit(self, sock.fileno()):
            self._house.counts.too_many += 1
            if self._filter is None:
                self._refuse_connection(RefusedError(Code.RESOURCE_EXHAUSTED, "Too many connections", 503))
            self.abort() if self._filter is not None else self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102, ARG002 asyncio's
        self._over = True
        self.drained.set()
        for exchange in (self._exchange, self._serving, *self._queue):
            # Also of the one that is being served: its task may be cancelled before it has begun.
            if exchange is not None:
                self._release(exchange)
        self._queue.clear()
        self._exchange = None
        self._house.left(self)
        self._living.discard(self)
        if self._task is not None:
            self._task.cancel()

    def eof_received(self) -> bool:  # noqa: D102 asyncio's
        return False

    def pause_writing(self) -> None:  # noqa: D102 asyncio's
        self._full = True
        self._full_since = asyncio.get_running_loop().time()
        self._full_size = self._transport.get_write_buffer_size()
        self.drained.clear()
        if self._out is not None and self._out.on_full is not None:
            self._out.on_full(True)

    def resume_writing(self) -> None:  # noqa: D102 asyncio's
        self._full = False
        self.drained.set()
        if self._out is not None and self._out.on_full is not None:
            self._out.on_full(False)

    def data_received(self, data: bytes) -> None:  # noqa: D102 asyncio's
        if self._over:
            return
        self._touch()
        if self._filter is not None:
            try:
                data = self._filter.feed(data)
            except ssl.SSLError as error:
                _LOG.debug("a connection from %s: %s", self.peer, error)
                self._house.counts.garbled += 1
                self.abort()
                return
            if not data:
                return
        # Only so much is kept of what is no body: of a head, and of what may stand between and behind the
        # parts of a chunked one. What is behind its end in the same piece counts for a moment.
        self._loose += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse_connection(RefusedError(Code.INVALID_ARGUMENT, "no other protocol is spoken here"))
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            if isinstance(cause, RefusedError):
                self._refuse_connection(cause)
            else:
                self._house.counts.garbled += 1
                self._refuse_connection(RefusedError(Code.INVALID_ARGUMENT, "this is no HTTP/1.1 request"))
            return
        if (self._begun or self._exchange is not None) and self._loose > _MOST_HEAD:
            self._refuse_connection(
                RefusedError(Code.INVALID_ARGUMENT, "the request's head is too long", 431)
            )

    # ---------------------------------------------------------------- what the parser calls

    def on_message_begin(self) -> None:  # noqa: D102 httptools'
        self._begun = True
        self._head_since = asyncio.get_running_loop().time()
        self._url = b""
        self._headers = {}

    def on_url(self, url: bytes) -> None:  # noqa: D102 httptools'
        self._url += url
        if len(self._url) > _MOST_HEAD:
            raise RefusedError(Code.INVALID_ARGUMENT, "the request's address is too long", 431)

    def on_header(self, name: bytes, value: bytes) -> None:  # noqa: D102 httptools'
        known = name.decode("latin-1").lower()
        if known in self._headers and known in {"authorization", "content-length", "content-encoding"}:
            raise RefusedError(Code.INVALID_ARGUMENT, f"the header {known} came twice")
        self._headers[known] = value.decode("latin-1")
        if len(self._headers) > _MOST_HEADERS:
            raise RefusedError(Code.INVALID_ARGUMENT, "the request has too many headers", 431)

    def on_headers_complete(self) -> None:  # noqa: D102 httptools'
        self._loose = 0
        parser = self._parser
        head = Head(
            parser.get_method().decode("latin-1"),
            self._url.partition(b"?")[0].decode("latin-1"),
            self._headers,
        )
        exchange = Exchange(head, parser.should_keep_alive(), parser.get_http_version())
        self._exchange = exchange
        judged = self._answering.judge(head, self.peer, secure=self._filter is not None)
        if isinstance(judged, Refusal):
            exchange.refusal = judged
            return
        self._known = True
        exchange.ready = judged
        length = head.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._answering.largest_body(judged):
            self._too_large(exchange)
        elif head.headers.get("expect", "").lower() == "100-continue" and exchange.version == "1.1":
            exchange.awaits_word = True
            self._say_continue()

    def _say_continue(self) -> None:
        """Tell a client that waits for it to send its body: not in the middle of another answer."""
        exchange = self._exchange
        if exchange is not None and exchange.awaits_word and self._task is None:
            exchange.awaits_word = False
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _too_large(self, exchange: Exchange) -> None:
        self._release(exchange)
        exchange.refusal = Refusal(RefusedError(Code.RESOURCE_EXHAUSTED, "the request is too large", 413))

    def on_body(self, body: bytes) -> None:  # noqa: D102 httptools'
        self._loose = 0
        exchange = self._exchange
        if exchange is None:
            return
        exchange.awaits_word = False
        exchange.size += len(body)
        if exchange.refusal is not None:
            if exchange.size > _MOST_DROPPED:
                raise exchange.refusal.error
            return
        if exchange.size > self._answering.largest_body(exchange.ready):
            self._too_large(exchange)
        elif not self._answering.hold(exchange.ready, len(body)):
            self._release(exchange)
            exchange.refusal = Refusal(
                RefusedError(Code.RESOURCE_EXHAUSTED, "too much is being sent at once; try again", 503)
            )
        else:
            exchange.held += len(body)
            exchange.body += body

    def on_chunk_header(self) -> None:  # noqa: D102 httptools'
        self._loose = 0

    def _release(self, exchange: Exchange) -> None:
        """Keep nothing of its body any more."""
        exchange.body = bytearray()
        if exchange.held:
            self._answering.hold(exchange.ready, -exchange.held)
            exchange.held = 0

    def on_message_complete(self) -> None:  # noqa: D102 httptools'
        exchange, self._exchange = self._exchange, None
        self._begun = False
        self._loose = 0
        if exchange is None:
            return
        if len(self._queue) >= _MOST_QUEUED:
            raise RefusedError(Code.RESOURCE_EXHAUSTED, "too many requests were sent ahead")
        self._queue.append(exchange)
        if self._task is None:
            self._next()
        elif not self._paused:
            # What has come in this piece is read; the next one waits.
            self._paused = True
            self._transport.pause_reading()

    # ---------------------------------------------------------------- answering

    @property
    def at_rest(self) -> bool:
        """Whether nothing is being answered."""
        return self._task is None

    def _next(self) -> None:
        exchange = self._serving = self._queue.popleft()
        self._task = asyncio.get_running_loop().create_task(self._serve(exchange), name="http request")
        self._task.add_done_callback(self._served)

    async def _serve(self, exchange: Exchange) -> None:
        out = self._out = Out(self, exchange)
        refusal = exchange.refusal
        try:
            if refusal is None:
                body, exchange.body = bytes(exchange.body), bytearray()
                try:
                    await self._answering.answer(exchange.ready, body, out)
                except RefusedError as error:
                    refusal = Refusal(error)
                finally:
                    self._release(exchange)
            if refusal is not None:
                await self._refuse(refusal, exchange, out)
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 a fault of ours must not leave the client waiting; it is logged
            _LOG.exception("a request failed")
            if not out.sent:
                error = RefusedError(Code.INTERNAL, "internal error")
                body = refusal_body(error, plain_json=exchange.head.plain_json)
                await out.send(500, "application/json", body)
            else:
                self.abort()
        await self.drained.wait()
        if out.closes and not self._over:
            self.close()

    async def _refuse(self, refusal: Refusal, exchange: Exchange, out: Out) -> None:
        if refusal.delay:
            await asyncio.sleep(refusal.delay)
        if refusal.hang_up:
            self.abort()
            return
        error = refusal.error
        body = refusal_body(error, plain_json=exchange.head.plain_json)
        await out.send(error.status, "application/json", body, refusal.headers)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._task = self._out = self._serving = None
        self._touch()
        # Of what has come meanwhile no more was read: its client has not kept anybody waiting.
        self._head_since = self._since
        if not task.cancelled() and task.exception() is not None:
            _LOG.error("a connection failed", exc_info=task.exception())
            self.abort()
        if self._over:
            return
        if self._queue:
            self._next()
        elif self.stopping:
            self.close()
            return
        else:
            self._say_continue()
        if self._paused and not self._queue:
            # Also while one is being answered: only who reads hears that the client has hung up.
            self._paused = False
            self._transport.resume_reading()

    def write(self, data: bytes) -> None:
        """Send bytes, if the client is still there."""
        if self._over:
            return
        if self._filter is None:
            self._transport.write(data)
        else:
            self._filter.write(data)

    def _refuse_connection(self, error: RefusedError) -> None:
        """What comes cannot be read on: say so, where nothing else is being said, and end."""
        if self._over:
            return
        if self._task is None:
            body = refusal_body(error, plain_json=True)
            lines = (
                f"HTTP/1.1 {error.status} {REASONS.get(error.status, 'Unknown')}",
                "Content-Type: application/json",
                f"Content-Length: {len(body)}",
                "Connection: close\r\n\r\n",
            )
            self.write("\r\n".join(lines).encode() + body)
        self.close()

    # ---------------------------------------------------------------- patience, the end

    def _touch(self) -> None:
        self._since = asyncio.get_running_loop().time()

    def look(self, now: float) -> None:
        """Look whether the client has been waited for long enough; called every now and then.

        :param now: the loop's time.
        """
        patience, counts, lasted = self._house.patience, self._house.counts, now - self._since
        if self._over:
            if lasted >= patience.write:
                self.abort()  # what waits to be sent would wait for ever
        elif self._full:
            # Whatever it sends meanwhile. A slow one takes something of it.
            size = self._transport.get_write_buffer_size()
            taken, self._full_size = size < self._full_size, size
            if taken:
                self._full_since = now
            elif now - self._full_since >= patience.write:
                counts.not_reading += 1
                self.abort()
        elif self._task is not None:
            return
        elif not self._known:
            # Whatever it has asked: nobody has said yet who it is.
            if now - self._came >= patience.handshake:
                counts.slow_logins += 1
                self.abort()
        elif self._begun or self._exchange is not None:
            size = self._exchange.size if self._exchange is not None else 0
            if lasted >= patience.read or now - self._head_since >= patience.read + size / _SLOWEST:
                counts.half_sent += 1
                self._refuse_connection(
                    RefusedError(Code.DEADLINE_EXCEEDED, "the rest of the request did not come", 408)
                )
        elif lasted >= min(_IDLE_SECONDS, patience.idle):
            counts.idle += 1
            self.close()

    def stop(self) -> None:
        """Answer what is being asked, and end."""
        self.stopping = True
        if self._task is None:
            self.close()

    def close(self) -> None:
        """Close once everything has been sent."""
        if not self._over:
            self._over = True
            self._touch()
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._over = True
        if self._transport is not None:
            self._transport.abort()
