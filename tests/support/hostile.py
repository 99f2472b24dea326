# pyright: reportPrivateUsage=false
"""A server that can be told to misbehave, and a gateway in front of it that can be asked what it still holds.

The server speaks enough of the protocol to be logged in to; what comes after, and whether the login itself is
well, is the test's. No database is behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from homeworld.gateway import pool
from homeworld.gateway.connection import Patience
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway, TlsMode
from homeworld.gateway.tls import context_for, make_certificates
from homeworld.model.errors import HomeworldError
from homeworld.model.routing import BranchRoutes, KeyspaceRoute, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.wire.client import DEFAULT_CAPABILITIES
from homeworld.wire.constants import Cap
from homeworld.wire.handshake import Greeting, parse_response
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.results import ColumnDefinition, Ok, build_result, build_text_row
from tests.support.gateway import BRANCH, DATABASE, ROLES, GatewayFixture, account
from tests.support.wire import WireClient

CAPABILITIES = 0xFFFFFFFF & ~int(Cap.SSL | Cap.COMPRESS)
Answer = bytes | None
"""Bytes to send, or None to hang up."""


def ok(caps: int) -> bytes:
    """A plain OK as the answer to a command."""
    return frame(Ok().build(caps), 1)


def rows(caps: int, *values: tuple[bytes | None, ...]) -> bytes:
    """A result."""
    columns = [ColumnDefinition(b"c", 253).build()] * len(values[0])
    return build_result(columns, [build_text_row(row) for row in values], caps, 2, 1)[0]


def usual(payload: bytes, caps: int) -> Answer:
    """What a well-behaved server with no tables says."""
    if payload[:1] == b"\x01":
        return None
    if b"@@character_set_client" in payload:
        return rows(caps, (b"utf8mb4", b"utf8mb4", b"utf8mb4_bin"))
    if b"information_schema" in payload:
        columns = [ColumnDefinition(b"c", 253).build()] * 10
        return build_result(columns, [], caps, 2, 1)[0]
    return rows(caps, (b"1",)) if payload.startswith(b"\x03SELECT") else ok(caps)


@dataclass
class HostileServer:
    """Listens on loopback in a thread of its own.

    * ``greet``: the bytes it begins with; ``let_in``: those that answer the login.
    * ``answer``: what it says to a command, by payload and agreed capabilities.
    * ``stream``: if set, it is called instead for COM_QUERY and writes as long as it likes.
    """

    greet: Callable[[], Answer] = field(
        default=lambda: frame(
            Greeting("8.0.1", 7, bytes(range(1, 21)), CAPABILITIES, 45, 2, "mysql_native_password").build()
        )
    )
    let_in: Callable[[int], Answer] = field(default=lambda caps: frame(Ok().build(caps), 2))
    answer: Callable[[bytes, int], Answer] = usual
    stream: Callable[[asyncio.StreamWriter, int], Any] | None = None
    open: int = 0
    sent: int = 0
    port: int = 0

    def __enter__(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="hostile", daemon=True)
        self._thread.start()
        assert started.wait(60)
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(60)

    def well(self, *, hang_up: bool = False) -> None:
        """Behave from now on.

        :param hang_up: end the connections that there are; they may still owe an answer.
        """
        if hang_up:
            self._loop.call_soon_threadsafe(lambda: [writer.close() for writer in self._writers])
        plain = HostileServer()
        self.greet, self.let_in, self.answer, self.stream = plain.greet, plain.let_in, usual, None

    async def endless(self, writer: asyncio.StreamWriter, caps: int) -> None:
        """A result without an end, as a ``stream``."""
        row = frame(b"\xfd" + (60_000).to_bytes(3, "little") + b"x" * 60_000, 3)
        writer.write(frame(b"\1", 1) + frame(ColumnDefinition(b"c", 253).build(), 2))
        assert caps
        while True:
            writer.write(row)
            self.sent += len(row)
            await writer.drain()

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._over = asyncio.Event()
        self._loop.run_until_complete(self._serve(started))
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        await self._over.wait()
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self._writers.add(writer)
        try:
            await self._talk(reader, writer)
        except (OSError, HomeworldError):
            pass  # it is as easily put off as it puts others off
        finally:
            self.open -= 1
            self._writers.discard(writer)
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter, said: Answer) -> bool:
        if said is None:
            return False
        writer.write(said)
        self.sent += len(said)
        await writer.drain()
        return True

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        packets = PacketBuffer(1 << 30)

        async def packet() -> bytes | None:
            while (payload := packets.next()) is None:
                data = await reader.read(1 << 18)
                if not data:
                    return None
                packets.feed(data)
            return payload

        if not await self._say(writer, self.greet()):
            return
        response = await packet()
        if response is None:
            return
        caps = parse_response(response).capabilities
        if not await self._say(writer, self.let_in(caps)):
            return
        while (payload := await packet()) is not None:
            if payload[:1] == b"\x03" and self.stream is not None and b" FROM t" in payload:
                await self.stream(writer, caps)
            elif payload[:1] not in {b"\x19", b"\x18"} and not await self._say(
                writer, self.answer(payload, caps)
            ):
                return


@dataclass
class Held:
    """What a gateway holds at a moment."""

    connections: int
    sessions: int
    links: int
    tasks: int
    holds: int
    waiting: int


def held(gateway: Gateway) -> Held:
    """Asked on the gateway's own thread."""

    async def look() -> Held:
        idle = sum(len(links) for links in gateway._pool._idle.values())
        used = sum(len(session.links) for session in gateway._sessions.values())
        return Held(
            connections=len(gateway._connections),
            sessions=sum(len(branch.sessions) for branch in gateway._branches.values()),
            links=idle + used,
            tasks=len(gateway._effects._tasks) + len(gateway._pool._resets),
            holds=gateway._keeper.count,
            waiting=sum(gateway.accounts._waiting.values()),
        )

    return gateway._call(look(), 60.0)


def settles(what: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether something comes to be so in time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def nothing_left(gateway: Gateway) -> bool:
    """Whether no client has left anything behind (idle connections of the pool are meant to stay)."""

    def clean() -> bool:
        now = held(gateway)
        return (now.connections, now.sessions, now.tasks, now.holds, now.waiting) == (0, 0, 0, 0, 0)

    return settles(clean)


def descriptors() -> int:
    """How many file descriptors this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


@contextlib.contextmanager
def gateway_before(
    port: int, folder: Path, *, tls_mode: TlsMode = TlsMode.AUTO, **options: Any
) -> Generator[GatewayFixture]:
    """A gateway whose branch has one keyspace, ``ks``, at that loopback port."""
    _, certificate, key = make_certificates(folder / "tls", ("localhost", "127.0.0.1"))
    gateway = Gateway(router_factory=Router, tls=context_for(certificate, key), tls_mode=tls_mode, **options)
    endpoint = Endpoint("hostile", Flavor.MYSQL, "127.0.0.1", port, "", "", "")
    keyspace = KeyspaceRoute("ks", False, {}, (ShardRoute("-", "ks", endpoint, ()),))
    routes = BranchRoutes(
        BRANCH, "org", DATABASE, "main", Flavor.MYSQL, 0, {"ks": keyspace}, {}, "ks",
        {role: (role.value, "x") for role in ROLES},
    )  # fmt: skip
    # A server that never answers a reset is given up much sooner than in real life.
    reset_seconds, pool._RESET_SECONDS = pool._RESET_SECONDS, 2.0
    fixture = GatewayFixture(gateway, routes, {role.value: account(role) for role in ROLES})
    gateway.start()
    fixture.publish()
    try:
        yield fixture
    finally:
        gateway.stop(0.5)
        pool._RESET_SECONDS = reset_seconds


def enter(gw: GatewayFixture, **options: Any) -> WireClient:
    """A client that speaks packet by packet, logged in as admin."""
    return WireClient(gw.gateway.port, "admin", f"pw-{BackendRole.ADMIN.value}", DATABASE, **options)


QUICK = Patience(handshake=2.0, read=0.4, write=0.6, idle=20.0)
"""For tests of what happens when patience ends."""
USUAL_CAPABILITIES = int(DEFAULT_CAPABILITIES)
PATIENT = replace(QUICK, read=30.0, write=60.0, handshake=10.0)
