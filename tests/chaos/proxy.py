"""Loopback proxies between homeworld and the servers, in which the network fails on purpose.

Each proxy listens on a port of its own and leads to a server's port (not its unix socket: a server takes a
session there for safe, and the dialogue of MySQL's passwords is another one). What fails is a *link*: nothing
passes towards the server, or nothing towards homeworld, or every connection is reset and new ones are
refused. What was held back passes when the link is mended, as it does in TCP after a short cut. One event
loop in a thread of its own serves all.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import StrEnum

CHUNK = 1 << 16


class Cut(StrEnum):
    """How a link fails."""

    NONE = "none"
    TO_SERVER = "to-server"
    FROM_SERVER = "from-server"
    RESET = "reset"


@dataclass(eq=False, slots=True)
class Link:
    """One proxy. ``cut`` is what it suffers from now."""

    name: str
    upstream: Callable[[], int]
    port: int = 0
    cut: Cut = Cut.NONE
    mended: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set[asyncio.StreamWriter])


class Proxies:
    """All links of a world."""

    def __init__(self) -> None:
        self._links: dict[str, Link] = {}
        self._servers: list[asyncio.Server] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._thread.start()

    def open(self, name: str, upstream: Callable[[], int]) -> int:
        """A link to the server whose port ``upstream`` says for each connection; the link's own port."""
        link = self._links[name] = Link(name, upstream)
        link.mended.set()
        self._call(lambda: self._listen(link)).result(60)
        return link.port

    @property
    def ports(self) -> dict[str, int]:
        """Port by name."""
        return {name: link.port for name, link in self._links.items()}

    def cut(self, names: list[str], how: Cut) -> None:
        """Let links fail, or mend them with ``Cut.NONE``."""
        self._call(lambda: self._cut(names, how)).result(60)

    def close(self) -> None:
        """End all."""
        self._call(self._end).result(60)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _call(self, act: Callable[[], object]) -> Future[None]:
        async def run() -> None:
            found = act()
            if asyncio.iscoroutine(found):
                await found

        return asyncio.run_coroutine_threadsafe(run(), self._loop)

    async def _listen(self, link: Link) -> None:
        server = await asyncio.start_server(lambda r, w: self._serve(link, r, w), "127.0.0.1", 0)
        self._servers.append(server)
        link.port = server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        mine = asyncio.current_task()
        pumping = [task for task in asyncio.all_tasks() if task is not mine]
        for task in pumping:
            task.cancel()
        await asyncio.gather(*pumping, return_exceptions=True)
        await asyncio.sleep(0)  # for transports to close

    def _cut(self, names: list[str], how: Cut) -> None:
        for name in names:
            link = self._links[name]
            link.cut = how
            if how is Cut.NONE:
                link.mended.set()
                continue
            link.mended.clear()
            if how is Cut.RESET:
                for writer in list(link.writers):
                    _reset(writer)

    async def _serve(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if link.cut is Cut.RESET:
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", link.upstream())
        except OSError:
            _reset(writer)  # the server is down: as if its port were closed
            return
        both = {writer, up_writer}
        link.writers |= both
        try:
            await asyncio.gather(
                self._pump(link, Cut.TO_SERVER, reader, up_writer),
                self._pump(link, Cut.FROM_SERVER, up_reader, writer),
            )
        finally:
            link.writers -= both
            for one in both:
                one.close()

    async def _pump(
        self, link: Link, stalled_by: Cut, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            while data := await reader.read(CHUNK):
                while link.cut is stalled_by:
                    await link.mended.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # reset by either side, or by us
        finally:
            writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close so that the peer gets a reset."""
    made = writer.get_extra_info("socket")
    if made is not None and made.family == socket.AF_INET:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
