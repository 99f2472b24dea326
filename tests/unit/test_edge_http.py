"""HTTP connections without sockets: however bytes are cut, requests are answered in order; whatever comes,
nothing is left held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.edge.codes import Code, RefusedError
from homeworld.edge.exchange import Head, Out, Refusal
from homeworld.edge.http import HttpConnection
from homeworld.gateway.connection import Patience
from homeworld.gateway.counts import Counts


class FakeSocket:
    def setsockopt(self, *_: object) -> None:
        """Nothing."""

    def fileno(self) -> int:
        """Any."""
        return 9


class FakeTransport:
    """Notes what is written; a client that reads at once."""

    def __init__(self) -> None:
        self.out = b""
        self.closed = False
        self.paused = False
        self.unsent = 1000

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> Any:
        return ("127.0.0.1", 1) if name == "peername" else FakeSocket()

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.out += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class FakeHouse:
    """Admits everybody."""

    def __init__(self) -> None:
        self.patience = Patience()
        self.counts = Counts()
        self.left_by = 0

    def admit(self, *_: object) -> bool:
        return True

    def left(self, *_: object) -> None:
        self.left_by += 1


class Echo:
    """Answers with what was sent; a path says how."""

    LARGEST = 1000

    def __init__(self) -> None:
        self.held = 0
        self.asked: list[bytes] = []

    def judge(self, head: Head, peer: str, *, secure: bool) -> object:
        assert (peer, secure) == ("127.0.0.1", False)
        if head.path == "/no":
            return Refusal(RefusedError(Code.UNAUTHENTICATED, "no"))
        return head.path

    def largest_body(self, ready: object) -> int:
        assert ready
        return self.LARGEST

    def hold(self, ready: object, size: int) -> bool:
        assert ready
        if size > 0 and self.held + size > 10 * self.LARGEST:
            return False
        self.held += size
        return True

    async def answer(self, ready: object, body: bytes, out: Out) -> None:
        self.asked.append(body)
        if ready == "/later":
            await asyncio.sleep(0)
        if ready == "/ever":
            await asyncio.get_running_loop().create_future()
        if ready == "/fault":
            raise ValueError
        if ready == "/stream":
            out.begin("text/plain")
            out.part(body)
            out.end()
            return
        await out.send(200, "text/plain", body)


def opened() -> tuple[HttpConnection, FakeTransport, Echo, FakeHouse]:
    house: Any = FakeHouse()
    echo = Echo()
    connection = HttpConnection(house, echo, None, set())
    transport: Any = FakeTransport()
    connection.connection_made(transport)
    return connection, transport, echo, house


async def settled(connection: HttpConnection) -> None:
    for _ in range(200):
        if connection.at_rest:
            return
        await asyncio.sleep(0)


def request(path: str, body: bytes) -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


PATHS = st.sampled_from(["/", "/later", "/stream", "/no"])


@settings(max_examples=60)
@given(st.lists(st.tuples(PATHS, st.binary(max_size=40)), min_size=1, max_size=6), st.data())
def test_requests_are_answered_in_order_however_they_are_cut(
    requests: list[tuple[str, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(request(path, body) for path, body in requests)

    async def run() -> None:
        nonlocal stream
        connection, transport, echo, house = opened()
        while stream:
            if transport.paused:
                await settled(connection)
            size = data.draw(st.integers(1, len(stream)))
            connection.data_received(stream[:size])
            stream = stream[size:]
            if data.draw(st.booleans()):
                await asyncio.sleep(0)
        await settled(connection)
        assert echo.asked == [body for path, body in requests if path != "/no"]
        assert transport.out.count(b"HTTP/1.1 ") == len(requests)
        assert not transport.closed
        assert echo.held == 0
        connection.connection_lost(None)
        assert house.left_by == 1

    asyncio.run(run())


@settings(max_examples=150)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=80),
            st.sampled_from(
                [b"POST / HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"Content-Length: 9\r\n",
                 b"GET / HTTP/1.0\r\n\r\n",
                 b"Transfer-Encoding: chunked\r\n", b"5\r\nabcde\r\n", b"0\r\n\r\n", b"Connection: close\r\n"]
            ),
        ),
        max_size=12,
    )
)  # fmt: skip
def test_anything_ends_at_most_the_connection(pieces: list[bytes]) -> None:
    async def run() -> None:
        connection, transport, echo, _ = opened()
        for piece in pieces:
            if transport.closed:
                break
            connection.data_received(piece)
            await settled(connection)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert echo.held == 0

    asyncio.run(run())


def test_a_client_that_hangs_up_is_heard_whenever_it_asked() -> None:
    async def run() -> None:
        connection, transport, echo, _ = opened()
        # The second has come before the first was answered, and nothing is read meanwhile.
        connection.data_received(request("/later", b"first") + request("/ever", b"second"))
        assert transport.paused
        for _ in range(20):
            await asyncio.sleep(0)
        assert echo.asked == [b"first", b"second"]
        assert not transport.paused
        connection.connection_lost(None)
        await settled(connection)
        assert connection.at_rest
        assert echo.held == 0

    asyncio.run(run())


def answered(sent: bytes) -> bytes:
    """What one connection answers to all of it."""

    async def run() -> bytes:
        connection, transport, echo, _ = opened()
        connection.data_received(sent)
        await settled(connection)
        connection.connection_lost(None)
        assert echo.held == 0
        return transport.out

    return asyncio.run(run())


def test_what_is_too_large_is_read_past() -> None:
    large = request("/", b"x" * 2000) + request("/", b"next")
    out = answered(large)
    assert out.startswith(b"HTTP/1.1 413 ")
    assert out.endswith(b"next")
    chunked = (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n190\r\n" + b"y" * 400 + b"\r\n"
    )
    chunked += (b"190\r\n" + b"y" * 400 + b"\r\n") * 3 + b"0\r\n\r\n"
    assert answered(chunked).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("path", ["/fault", "/no"])
def test_what_fails_is_answered(path: str, caplog: pytest.LogCaptureFixture) -> None:
    out = answered(request(path, b"x") + request("/", b"next"))
    assert out.startswith(b"HTTP/1.1 500 " if path == "/fault" else b"HTTP/1.1 401 ")
    assert out.endswith(b"next")


def test_clients_that_keep_one_waiting_are_sent_away() -> None:
    async def run(sent: bytes, after: float, count: Callable[[Counts], int]) -> bytes:
        connection, transport, _, house = opened()
        now = asyncio.get_running_loop().time()
        connection.data_received(sent)
        await settled(connection)
        connection.look(now)
        assert not transport.closed
        connection.look(now + after)
        assert transport.closed
        assert count(house.counts) == 1
        return transport.out

    patience = Patience()
    asyncio.run(run(b"POST / HTTP/1.1\r\n", patience.handshake + 1, lambda counts: counts.slow_logins))
    half = request("/", b"first") + request("/", b"second")[:-2]
    out = asyncio.run(run(half, patience.read + 1, lambda counts: counts.half_sent))
    assert b"HTTP/1.1 408 " in out
    asyncio.run(run(request("/", b"first"), 3000.0, lambda counts: counts.idle))


CHUNKED = b"POST /no HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "begin",
    [CHUNKED + b"0\r\nx: ", CHUNKED + b"1;a=", CHUNKED + b"1\r\nx\r\n0\r\nx: ", b"POST / HTTP/1.1\r\nx: "],
)
def test_what_is_no_body_is_not_kept_without_end(begin: bytes) -> None:
    async def run() -> None:
        connection, transport, _, _ = opened()
        connection.data_received(begin)
        for _ in range(40):
            if not transport.closed:
                connection.data_received(b"a" * 4096)
        assert transport.closed
        connection.connection_lost(None)

    asyncio.run(run())


def test_small_parts_and_a_trailer_are_a_body() -> None:
    sent = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    sent += b"1\r\nx\r\n" * 900 + b"0\r\nx: y\r\n\r\n"

    async def run() -> None:
        connection, transport, echo, _ = opened()
        for at in range(0, len(sent), 7):
            connection.data_received(sent[at : at + 7])
        await settled(connection)
        assert echo.asked == [b"x" * 900]
        assert not transport.closed

    asyncio.run(run())


def test_who_is_not_known_has_no_more_time_by_asking() -> None:
    async def run() -> None:
        connection, transport, _, house = opened()
        now = asyncio.get_running_loop().time()
        connection.data_received(request("/no", b"x"))
        await settled(connection)
        assert b" 401 " in transport.out
        connection.look(now + 1)
        assert not transport.closed
        connection.look(now + house.patience.handshake + 1)
        assert transport.closed

    asyncio.run(run())


def test_who_sends_but_does_not_read_is_sent_away() -> None:
    async def run() -> None:
        connection, transport, _, house = opened()
        now = asyncio.get_running_loop().time()
        connection.data_received(request("/", b"x"))
        connection.pause_writing()
        connection._full_since -= house.patience.write + 1  # pyright: ignore[reportPrivateUsage] as if it were long ago
        connection.data_received(request("/", b"next")[:-1])
        connection.look(now)
        assert transport.closed
        assert house.counts.not_reading == 1

    asyncio.run(run())


def test_who_reads_slowly_is_not_taken_for_one_who_does_not() -> None:
    async def run() -> None:
        connection, transport, _, house = opened()
        now = asyncio.get_running_loop().time()
        connection.data_received(request("/", b"x"))
        connection.pause_writing()
        for _ in range(3):
            now += house.patience.write + 1
            transport.unsent -= 1
            connection.look(now)
        assert not transport.closed
        connection.look(now + house.patience.write + 1)
        assert transport.closed

    asyncio.run(run())


def test_a_body_that_drips_is_not_waited_for() -> None:
    async def run() -> None:
        connection, transport, echo, house = opened()
        now = asyncio.get_running_loop().time()
        connection.data_received(request("/", b"x" * 900)[:-5])
        connection._head_since -= house.patience.read + 1  # pyright: ignore[reportPrivateUsage] as if it were long ago
        connection.data_received(b"x")
        connection.look(now)
        assert b" 408 " in transport.out
        connection.connection_lost(None)
        assert echo.held == 0

    asyncio.run(run())


def test_a_client_that_waits_for_a_word_gets_it_between_answers() -> None:
    async def run() -> None:
        connection, transport, echo, _ = opened()
        waits = request("/", b"second").replace(b"Host: x", b"Host: x\r\nExpect: 100-continue")
        connection.data_received(request("/later", b"first") + waits[:-6])
        assert b" 100 " not in transport.out
        await settled(connection)
        assert transport.out.index(b"first") < transport.out.index(b"HTTP/1.1 100 ")
        connection.data_received(b"second")
        await settled(connection)
        assert echo.asked == [b"first", b"second"]

    asyncio.run(run())


def test_nothing_is_held_of_a_request_that_has_not_begun() -> None:
    async def run() -> None:
        connection, _, echo, _ = opened()
        connection.data_received(request("/", b"first") + request("/", b"second"))
        for _ in range(100):
            # Until the second one's task is made: its client is gone before it has run.
            if not connection._queue:  # pyright: ignore[reportPrivateUsage]
                break
            await asyncio.sleep(0)
        assert echo.asked == [b"first"]
        connection.connection_lost(None)
        await settled(connection)
        assert echo.held == 0

    asyncio.run(run())


def test_an_answer_without_a_body_is_told_as_one() -> None:
    asked = request("/no", b"").replace(b"POST", b"HEAD") + request("/", b"next")
    heads = answered(asked).split(b"\r\n\r\n")
    assert heads[0].startswith(b"HTTP/1.1 401 ")
    assert heads[1].startswith(b"HTTP/1.1 200 ")
    assert heads[2] == b"next"
