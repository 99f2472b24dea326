"""Backend connections: opened, logged in, lent to one session at a time, reset before the next.

asyncio lives here and in ``server``. A connection that comes back is reset at once (which rolls back what was
open and frees what was locked) and waits, clean, for the next session of the same account with the same
capabilities; one to a vtgate, which no reset cleans, is closed. The invariant: what is lent carries nothing
of an earlier session.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from homeworld.gateway.link import Channel, Link, LinkOwner, Reply
from homeworld.gateway.vtgate import CAPABILITIES as OF_VTGATE
from homeworld.gateway.vtgate import UTF8MB4_ID
from homeworld.model.errors import ConnectionLostError, HomeworldError, ServerError, UnavailableError
from homeworld.model.topology import Endpoint
from homeworld.wire import commands
from homeworld.wire.client import Credentials, Login
from homeworld.wire.constants import Cap
from homeworld.wire.packets import frame

_LOG = logging.getLogger(__name__)
_ALWAYS = int(
    Cap.LONG_FLAG
    | Cap.PROTOCOL_41
    | Cap.TRANSACTIONS
    | Cap.SECURE_CONNECTION
    | Cap.PLUGIN_AUTH
    | Cap.PLUGIN_AUTH_LENENC_DATA
)
_AS_CLIENT = int(
    Cap.FOUND_ROWS
    | Cap.NO_SCHEMA
    | Cap.LOCAL_FILES
    | Cap.IGNORE_SPACE
    | Cap.MULTI_STATEMENTS
    | Cap.MULTI_RESULTS
    | Cap.PS_MULTI_RESULTS
    | Cap.SESSION_TRACK
    | Cap.DEPRECATE_EOF
)
"""Capabilities that shape answers: a backend connection has exactly its client's."""

_CHARSETS = b"SELECT @@character_set_client, @@character_set_results, @@collation_connection"
_CONNECT_SECONDS = 10.0
_RESET_SECONDS = 30.0
_VTGATE_SECONDS = 5.0
_AGAIN_SECONDS = 0.1
_MOST_IDLE = 64
_IDLE_SECONDS = 60.0
OWN_CAPABILITIES = int(Cap.MULTI_RESULTS | Cap.DEPRECATE_EOF)
"""For the gateway's own questions."""


@dataclass(frozen=True, slots=True)
class _Key:
    server_id: str
    address: str
    user: str
    capabilities: int
    charset: int


class _LoginProtocol(asyncio.Protocol):
    """Drives one login over an asyncio transport."""

    def __init__(self, login: Login, done: asyncio.Future[None]) -> None:
        self._login = login
        self._done = done
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self._done.done():
            return
        try:
            self._login.feed(data)
        except HomeworldError as error:
            self._done.set_exception(error)
            return
        out = self._login.take()
        if out:
            self.transport.write(out)
        if self._login.done:
            self._done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            error = ConnectionLostError("the server closed the connection during the login")
            error.__cause__ = exc
            self._done.set_exception(error)


class _Asker(LinkOwner):
    """Owns a link while the gateway asks something on its own account."""

    def __init__(self, link: Link, count: int) -> None:
        self._link = link
        self._count = count
        self.replies: list[Reply] = []
        self.done: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def answered(self, link: Link, reply: Reply) -> None:
        if link is self._link:
            self.replies.append(reply)
        if len(self.replies) == self._count and not self.done.done():
            self.done.set_result(self.replies)

    def lost(self, link: Link, error: HomeworldError) -> None:
        if link is self._link and not self.done.done():
            self.done.set_exception(error)

    def relayed(self, link: Link) -> None:
        """Nothing is relayed here."""

    def link_full(self, link: Link, *, full: bool) -> None:
        """What is asked here is small."""


async def ask(link: Link, packets: Sequence[bytes], seconds: float) -> list[Reply]:
    """Send payloads on a link that no session has; give the replies, errors as replies.

    :raises ConnectionLostError: the link was lost.
    :raises UnavailableError: no answer within ``seconds``; the link is closed.
    """
    if not link.alive:
        raise ConnectionLostError
    asker = _Asker(link, len(packets))
    before, link.owner = link.owner, asker
    for packet in packets:
        link.ask(frame(packet))
    try:
        async with asyncio.timeout(seconds):
            return await asker.done
    except TimeoutError as error:
        link.close()
        raise UnavailableError("a server did not answer in time") from error
    except asyncio.CancelledError:
        link.close()
        raise
    finally:
        if link.alive:
            link.owner = before


class Pool(LinkOwner):
    """All backend connections that no session has right now.

    :param connect_seconds: how long opening and logging in may take.
    :param most_descriptors: connections whose file descriptor has this number or a higher one are not kept:
        the last ones are for telling clients so.
    """

    def __init__(
        self, connect_seconds: float = _CONNECT_SECONDS, most_descriptors: int = sys.maxsize
    ) -> None:
        self._connect_seconds = connect_seconds
        self._most_descriptors = most_descriptors
        self._idle: dict[_Key, list[tuple[float, Link]]] = {}
        self._restore: dict[_Key, bytes] = {}
        self._resets: dict[asyncio.Task[None], Link] = {}
        self._links: weakref.WeakSet[Link] = weakref.WeakSet()
        self._logins: dict[Login, str] = {}
        self._closing = False

    async def lease(self, endpoint: Endpoint, capabilities: int, charset: int, schema: str = "") -> Link:
        """A clean connection for one session; the session becomes its owner.

        :param capabilities: the client's, which the answers' form follows.
        :raises UnavailableError: the server cannot be reached, or is not fit for it.
        :raises ServerError: the server refuses (too many connections).
        """
        key = _Key(
            endpoint.server_id,
            endpoint.socket or f"{endpoint.host}:{endpoint.port}",
            endpoint.user,
            capabilities & (OF_VTGATE if endpoint.vtgate else _AS_CLIENT),
            UTF8MB4_ID if endpoint.vtgate else charset & 0xFF,
        )
        idle = self._idle.get(key)
        while idle:
            _, link = idle.pop()
            if link.alive and not link.busy:
                return link
        return await self._open(key, endpoint, schema)

    def connections(self) -> frozenset[tuple[str, int]]:
        """Every connection that is open or being opened: the server's id, and its number there. One that is
        logged in at its server by now is among them.
        """
        opened = {(link.endpoint_id, link.thread_id) for link in self._links if link.alive}
        opening = {
            (server_id, login.greeting.connection_id)
            for login, server_id in self._logins.items()
            if login.greeting is not None
        }
        return frozenset(opened | opening)

    async def _open(self, key: _Key, endpoint: Endpoint, schema: str) -> Link:
        loop = asyncio.get_running_loop()
        login = Login(
            Credentials(endpoint.user, endpoint.password, schema),
            secure=bool(endpoint.socket),
            capabilities=key.capabilities | _ALWAYS,
            charset=key.charset,
        )
        done: asyncio.Future[None] = loop.create_future()
        transport: Any = None
        self._logins[login] = endpoint.server_id
        try:
            async with asyncio.timeout(self._connect_seconds):
                transport = await _connected(endpoint, lambda: _LoginProtocol(login, done))
                if transport.get_extra_info("socket").fileno() >= self._most_descriptors:
                    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
                await done
            link = self._made(key, login, transport)
            transport.set_protocol(link)
            link.schema = schema
            link.endpoint = endpoint
            link.vtgate = endpoint.vtgate
            if not link.vtgate and key not in self._restore:
                await self._learn_charsets(key, link)
        except TimeoutError as error:
            _abort(transport)
            raise _cannot_connect("no answer in time") from error
        except OSError as error:
            _abort(transport)
            raise _cannot_connect(error.strerror or "refused") from error
        except ServerError as error:
            _abort(transport)
            if error.server_errno == 1045:
                _LOG.error("server %s refuses account %s", endpoint.server_id, endpoint.user)
                raise _cannot_connect("the server refuses the gateway's account") from error
            raise
        except BaseException:
            _abort(transport)
            raise
        finally:
            del self._logins[login]
        return link

    def _made(self, key: _Key, login: Login, transport: Channel) -> Link:
        agreed = login.capabilities & _AS_CLIENT
        if agreed != key.capabilities:
            missing = Cap(key.capabilities & ~agreed)
            raise UnavailableError(f"the server lacks what the client asked for: {missing!r}")
        thread_id = login.greeting.connection_id if login.greeting else 0
        link = Link(key.server_id, transport, login.capabilities, self, thread_id=thread_id)
        self._links.add(link)
        link.key = key
        link.clean(multi=bool(agreed & Cap.MULTI_STATEMENTS))
        return link

    async def _learn_charsets(self, key: _Key, link: Link) -> None:
        """A reset gives MySQL connections the server's character set; keep what the handshake had given."""
        (reply,) = await ask(link, [commands.query(_CHARSETS)], self._connect_seconds)
        row = reply.result().one_row(3)
        client, results, collation = ((value or b"").decode("ascii", "replace") for value in row)
        if not all(name.replace("_", "").isalnum() for name in (client, results, collation)):
            raise UnavailableError("the server names a character set that cannot be read")
        self._restore[key] = (
            f"SET character_set_client = {client}, character_set_results = {results}, "
            f"collation_connection = {collation}"
        ).encode()

    def give_back(self, link: Link) -> None:
        """Take a link back from its session, in whatever state."""
        link.owner = self
        if not link.alive:
            return
        if link.busy or self._closing or link.vtgate:
            # A vtgate rolls back and unlocks by either, and by a reset keeps settings, variables and target.
            link.close()
            return
        link.channel.resume_reading()
        task = asyncio.get_running_loop().create_task(self._reset(link), name=f"reset {link.endpoint_id}")
        self._resets[task] = link
        task.add_done_callback(lambda done: self._resets.pop(done, None))

    async def _reset(self, link: Link) -> None:
        key = link.key
        assert isinstance(key, _Key)  # noqa: S101 made here
        try:
            restore = commands.query(self._restore[key])
            replies = await ask(link, [commands.RESET_CONNECTION, restore], _RESET_SECONDS)
        except HomeworldError:
            # Lost or silent: it is closed, and the server ends what was open on it.
            return
        if any(reply.error is not None for reply in replies):
            link.close()
            return
        link.clean(multi=link.multi)
        idle = self._idle.setdefault(key, [])
        if (
            self._closing
            or len(idle) >= _MOST_IDLE
            or link.multi != bool(key.capabilities & Cap.MULTI_STATEMENTS)
        ):
            link.close()
        else:
            idle.append((asyncio.get_running_loop().time(), link))

    def prune(self) -> None:
        """Close connections that have been idle for long; called every now and then."""
        horizon = asyncio.get_running_loop().time() - _IDLE_SECONDS
        for key, idle in list(self._idle.items()):
            kept = [(since, link) for since, link in idle if link.alive and since >= horizon]
            for since, link in idle:
                if since < horizon and link.alive:
                    link.close()
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]

    async def close(self) -> None:
        """Close everything."""
        self._closing = True
        for idle in self._idle.values():
            for _, link in idle:
                link.close()
        self._idle.clear()
        for task, link in list(self._resets.items()):
            task.cancel()
            link.close()
        await asyncio.gather(*self._resets, return_exceptions=True)

    # What links of the pool's own tell; a lost idle link is passed over when it is its turn.

    def lost(self, link: Link, error: HomeworldError) -> None:
        """An idle link is gone."""

    def answered(self, link: Link, reply: Reply) -> None:
        """Nothing was asked."""

    def relayed(self, link: Link) -> None:
        """Nothing was relayed."""

    def link_full(self, link: Link, *, full: bool) -> None:
        """Nothing is sent."""


async def _connected(endpoint: Endpoint, make: Callable[[], _LoginProtocol]) -> Any:
    """A transport to the server. A vtgate that is not there is waited for a little: it holds nothing, and one
    that has ended is begun anew at the same place.

    :raises OSError: there is none.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + (_VTGATE_SECONDS if endpoint.vtgate else 0.0)
    while True:
        try:
            if endpoint.socket:
                transport, _ = await loop.create_unix_connection(make, endpoint.socket)
            else:
                transport, _ = await loop.create_connection(make, endpoint.host, endpoint.port)
                keep_alive(transport.get_extra_info("socket"))
        except ConnectionRefusedError:
            if loop.time() >= until:
                raise
            await asyncio.sleep(_AGAIN_SECONDS)
        else:
            return transport


def keep_alive(sock: Any) -> None:
    """Have the kernel notice within two minutes that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _abort(transport: Any) -> None:
    if transport is not None:
        transport.abort()


def _cannot_connect(why: str) -> ServerError:
    return ServerError(1105, "HY000", f"Can't connect to MySQL server behind the gateway: {why}")
