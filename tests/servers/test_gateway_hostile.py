"""A gateway on a socket between clients and a server that do not keep to the protocol, or do not go on."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from homeworld.gateway import pool
from homeworld.gateway.connection import Patience
from homeworld.gateway.session import Session
from homeworld.model.errors import ConnectionLostError, HomeworldError, MalformedPacketError, ServerError
from homeworld.model.topology import Flavor
from homeworld.wire import commands
from homeworld.wire.client import Credentials, Login, LoginState, drive
from homeworld.wire.handshake import Greeting, build_ssl_request
from homeworld.wire.packets import PacketBuffer, frame
from homeworld.wire.responses import Expect
from homeworld.wire.results import ColumnDefinition, Ok, build_err, lenenc_int, parse_err
from tests.fuzz.gateway import packets, sockets
from tests.fuzz.gateway.storm import Failures
from tests.support.gateway import GatewayFixture
from tests.support.hostile import (
    PATIENT,
    QUICK,
    HostileServer,
    descriptors,
    enter,
    gateway_before,
    held,
    nothing_left,
    settles,
    usual,
)

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]


@pytest.fixture
def server() -> Iterator[HostileServer]:
    with HostileServer() as found:
        yield found


@pytest.fixture
def gw(server: HostileServer, tmp_path: Path) -> Iterator[GatewayFixture]:
    with Failures() as logged, gateway_before(server.port, tmp_path) as found:
        yield found
        assert nothing_left(found.gateway), held(found.gateway)
        assert not logged.found, logged.found


@pytest.fixture
def quick(server: HostileServer, tmp_path: Path) -> Iterator[GatewayFixture]:
    """A gateway with little patience."""
    with Failures() as logged, gateway_before(server.port, tmp_path, patience=QUICK) as found:
        yield found
        assert nothing_left(found.gateway), held(found.gateway)
        assert not logged.found, logged.found


def _served(gw: GatewayFixture) -> bool:
    with enter(gw) as client:
        return client.query("SELECT 1") == [(b"1",)]


def _hung_up(sock: socket.socket) -> bytes:
    """What comes until the other side hangs up."""
    sock.settimeout(20)
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            found += chunk
    return found


def _plain(gw: GatewayFixture) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=20)
    sock.recv(65536)
    return sock


# ------------------------------------------------------------------------ servers


def _columns(count: int) -> bytes:
    return frame(lenenc_int(count), 1) + frame(ColumnDefinition(b"c", 253).build(), 2)


WRONG_ANSWERS = {
    "hangs up": None,
    "a result cut in its columns": frame(b"\2", 1) + frame(ColumnDefinition(b"c", 253).build(), 2)[:9],
    "fewer columns than it counted": _columns(3) + frame(b"\1x", 3) + frame(Ok().build(0, 0xFE), 4),
    "an empty packet": frame(b"", 1),
    "noise": bytes(range(255, 0, -1)),
    "an answer and a half": frame(Ok().build(0), 1) + b"\5\0",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("said", list(WRONG_ANSWERS.values()), ids=list(WRONG_ANSWERS))
def test_a_server_that_answers_wrongly(server: HostileServer, gw: GatewayFixture, said: bytes | None) -> None:
    def answer(payload: bytes, caps: int) -> bytes | None:
        return said if b"SELECT 1" in payload else usual(payload, caps)

    server.answer = answer
    with enter(gw) as client:
        client.socket.settimeout(1.0)
        with pytest.raises((HomeworldError, AssertionError, TimeoutError)):
            client.query("SELECT 1")
    server.well()
    assert _served(gw)


WRONG_LOGINS = {
    "hangs up": (None, None),
    "noise": (b"\xff" * 40, None),
    "too many connections": (frame(build_err(1040, "08004", "Too many connections")), None),
    "an older protocol": (frame(b"\x095.0\0" + bytes(20)), None),
    "offers no protocol 4.1": (frame(Greeting("8.0.1", 7, bytes(20), 0, 45, 2, "").build()), None),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", None),
    "hangs up at the proof": ("usual", None),
    "answers the proof with noise": ("usual", b"\5\0\0\2\x07abcd"),
    "asks for an unknown plugin": ("usual", frame(b"\xfeauth_gssapi\0" + bytes(21), 2)),
    "refuses": ("usual", frame(build_err(1045, "28000", "Access denied"), 2)),
}


@pytest.mark.parametrize(("greeting", "proof"), list(WRONG_LOGINS.values()), ids=list(WRONG_LOGINS))
def test_a_server_that_cannot_be_logged_in_to(
    server: HostileServer, gw: GatewayFixture, greeting: bytes | str | None, proof: bytes | None
) -> None:
    plain = server.greet
    server.greet = plain if greeting == "usual" else lambda: greeting  # type: ignore[assignment,return-value]
    server.let_in = lambda _caps: proof
    before = descriptors()
    with enter(gw) as client:
        for _ in range(3):
            with pytest.raises(ServerError):
                client.query("SELECT 1")
    server.well()
    assert _served(gw)
    assert settles(lambda: descriptors() <= before + 4)


def test_a_server_that_accepts_and_says_nothing(
    server: HostileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool.Pool.__init__, "__defaults__", (0.3, 1 << 20))
    server.greet = lambda: b""
    with gateway_before(server.port, tmp_path) as gw:
        with enter(gw) as client, pytest.raises(ServerError, match="no answer in time"):
            client.query("SELECT 1")
        server.well()
        gw.gateway._pool._connect_seconds = 20.0  # type: ignore[reportPrivateUsage]  # enough for one that is well
        assert _served(gw)
        assert nothing_left(gw.gateway)


def test_random_servers_and_clients(gw: GatewayFixture, server: HostileServer) -> None:
    failures = sockets.play(gw, server, range(120))
    assert not failures, failures[0]
    server.well()
    assert _served(gw)


# ------------------------------------------------------------------------ clients that do not go on


def test_who_never_logs_in_is_sent_away(quick: GatewayFixture) -> None:
    slow = [_plain(quick) for _ in range(20)]
    for sock in slow:
        sock.sendall(b"\x20")
    assert _served(quick)  # meanwhile
    for sock in slow:
        assert _hung_up(sock) == b""
        sock.close()
    assert quick.gateway.counts.slow_logins == 20


def test_a_login_that_trickles_in_has_the_same_deadline(quick: GatewayFixture) -> None:
    with contextlib.closing(_plain(quick)) as sock:
        begun = time.monotonic()
        with contextlib.suppress(OSError):
            for byte in frame(b"\x0d\xa6\x0f\0" + bytes(60), 1) * 10:
                sock.sendall(bytes([byte]))
                time.sleep(0.05)
        assert time.monotonic() - begun < 20
    assert quick.gateway.counts.slow_logins + quick.gateway.counts.garbled == 1


def test_half_a_packet(quick: GatewayFixture) -> None:
    with enter(quick) as client:
        client.socket.sendall(frame(commands.query("SELECT 1"))[:9])
        said = _hung_up(client.socket)
    assert parse_err(said[4:]).server_errno == 1159
    assert quick.gateway.counts.half_sent == 1


def test_half_a_file(quick: GatewayFixture, server: HostileServer) -> None:
    def answer(payload: bytes, caps: int) -> bytes | None:
        if payload == b"some rows":
            return b""
        return frame(b"\xfbfile", 1) if b"LOAD DATA" in payload else usual(payload, caps)

    server.answer = answer
    with enter(quick, capabilities=0xA6 << 8 | 0x1CF7FA6) as client:
        client.socket.sendall(frame(commands.query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")))
        assert b"file" in client.socket.recv(100)
        client.socket.sendall(frame(b"some rows", 2) + b"\5\0\0\3ro")
        _hung_up(client.socket)
    assert quick.gateway.counts.half_sent == 1


def _all_sessions(gw: GatewayFixture) -> list[Session]:
    return list(gw.gateway._sessions.values())  # type: ignore[reportPrivateUsage]


def test_a_server_that_takes_no_more_of_a_file_is_no_client_that_stopped(
    quick: GatewayFixture, server: HostileServer
) -> None:
    rows, stop, read_on, last = b"a row\n" * 100_000, threading.Event(), threading.Event(), [2]

    def answer(payload: bytes, caps: int) -> bytes | None:
        if payload == rows:
            read_on.wait(300)  # nothing is read meanwhile
            return b""
        if payload == b"":
            return frame(Ok().build(caps), last[0] + 1)
        return frame(b"\xfbfile", 1) if b"LOAD DATA" in payload else usual(payload, caps)

    def send() -> None:
        while not stop.is_set():
            client.socket.sendall(frame(rows, last[0]))
            last[0] += 1
        client.socket.sendall(frame(b"", last[0]))

    server.answer = answer
    quick.gateway.patience = PATIENT
    sender = threading.Thread(target=send, daemon=True)
    try:
        with enter(quick, capabilities=0xA6 << 8 | 0x1CF7FA6) as client, enter(quick) as stopped:
            client.socket.settimeout(300)
            client.socket.sendall(frame(commands.query("LOAD DATA LOCAL INFILE 'x' INTO TABLE t")))
            assert b"file" in client.socket.recv(100)
            sender.start()
            assert settles(lambda: any(one._full_link is not None for one in _all_sessions(quick)))  # type: ignore[reportPrivateUsage]
            stop.set()
            # One that does stop in the middle of a packet tells when that would have been found.
            quick.gateway.patience = replace(PATIENT, read=0.4)
            stopped.socket.sendall(frame(commands.query("SELECT 1"))[:9])
            assert settles(lambda: quick.gateway.counts.half_sent > 0)
            assert held(quick.gateway).sessions == 1
            quick.gateway.patience = PATIENT
            read_on.set()
            sender.join(60)
            client.read()
    finally:
        read_on.set()
    assert quick.gateway.counts.half_sent == 1


def test_who_is_idle_for_long_is_sent_away(server: HostileServer, tmp_path: Path) -> None:
    with gateway_before(server.port, tmp_path, patience=Patience(idle=3.0)) as gw:
        with enter(gw) as client:
            assert client.query("SELECT 1") == [(b"1",)]
            assert _hung_up(client.socket) == b""
        assert gw.gateway.counts.idle == 1
        assert nothing_left(gw.gateway)


def test_who_does_not_read_stops_the_server(quick: GatewayFixture, server: HostileServer) -> None:
    server.stream = server.endless
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    clients = [enter(quick) for _ in range(5)]
    for client in clients:
        client.socket.sendall(frame(commands.query("SELECT * FROM t")))
    assert settles(lambda: quick.gateway.counts.not_reading == 5)
    # What is in the kernel's buffers on both ways, and not a byte more.
    assert server.sent < 5 * (16 << 20)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown
    assert grown < 200_000
    for client in clients:
        client.socket.close()
    assert settles(lambda: server.open <= 1)
    server.well()
    assert _served(quick)


def test_what_an_ended_session_leaves_is_not_kept_for_who_reads_nothing(
    quick: GatewayFixture, server: HostileServer
) -> None:
    server.stream = server.endless
    quick.gateway.patience = PATIENT
    with enter(quick) as client:
        client.socket.sendall(frame(commands.query("SELECT * FROM t")))
        assert settles(lambda: any(one._full for one in _all_sessions(quick)))  # type: ignore[reportPrivateUsage]
        account = quick.accounts.pop("admin")
        quick.publish()
        assert settles(lambda: held(quick.gateway).sessions == 0)
        assert held(quick.gateway).connections == 1, "it is closed once all is sent"
        quick.gateway.patience = QUICK
        assert nothing_left(quick.gateway)
    assert quick.gateway.counts.not_reading == 0
    server.well()
    quick.accounts["admin"], quick.gateway.patience = account, PATIENT
    quick.publish()
    assert _served(quick)


def test_who_asks_without_reading_is_heard_no_further(quick: GatewayFixture) -> None:
    with enter(quick) as client:
        client.socket.settimeout(0.2)
        asked = frame(commands.query("SHOW VITESS_TABLETS")) * 200
        sent = 0
        end = time.monotonic() + 60
        while not quick.gateway.counts.not_reading and time.monotonic() < end:
            try:
                sent += client.socket.send(asked)
            except TimeoutError:
                continue
            except OSError:
                break
        # What the kernel takes of questions, and answers, on both ways.
        assert sent < 32 << 20
        assert settles(lambda: quick.gateway.counts.not_reading == 1)
    assert _served(quick)


def _reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def _close(sock: socket.socket) -> None:
    sock.close()


def _half_close(sock: socket.socket) -> None:
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("how", [_reset, _close, _half_close])
def test_leaving_in_each_phase(
    gw: GatewayFixture, server: HostileServer, how: Callable[[socket.socket], None]
) -> None:
    gone: list[socket.socket] = []

    def leave(sock: socket.socket) -> None:
        how(sock)
        gone.append(sock)

    leave(socket.create_connection(("127.0.0.1", gw.gateway.port)))
    leave(_plain(gw))
    half = _plain(gw)
    half.sendall(b"\x50\0\0\1\x0d")
    leave(half)
    leave(enter(gw).socket)
    for sent in (
        frame(commands.query("SELECT 1"))[:7],
        frame(commands.query("SELECT 1")),
        frame(commands.query("BEGIN")) + frame(commands.query("SELECT 1")) * 3,
        frame(commands.stmt_prepare(b"SELECT ?")),
        frame(b"\x11admin\0\0app\0"),
    ):
        client = enter(gw)
        client.socket.sendall(sent)
        leave(client.socket)
    server.stream = server.endless
    client = enter(gw)
    client.socket.sendall(frame(commands.query("SELECT * FROM t")))
    client.socket.recv(1000)
    leave(client.socket)
    for sock in gone:
        with contextlib.suppress(OSError):
            sock.close()
    assert nothing_left(gw.gateway), held(gw.gateway)
    server.well()
    assert _served(gw)


def test_half_a_change_of_user(quick: GatewayFixture) -> None:
    with enter(quick) as client:
        client.socket.sendall(frame(b"\x11admin\0\0app\0"))
        said = _hung_up(client.socket)
    assert parse_err(said[-(len(said) - 4 - int.from_bytes(said[:3], "little") - 4) :]).server_errno == 1159
    assert quick.gateway.counts.half_sent == 1


# ------------------------------------------------------------------------ TLS


def _over_tls(gw: GatewayFixture) -> ssl.SSLSocket:
    """A client that has logged in over TLS."""
    sock = socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=20)
    login = Login(Credentials("admin", "pw-admin", "app"), secure=True, use_tls=True)
    login.feed(sock.recv(65536))
    sock.sendall(login.take())
    assert login.state is LoginState.TLS
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    channel = context.wrap_socket(sock)
    login.tls_started()
    drive(login, channel.sendall, lambda: channel.recv(65536))
    return channel


def test_a_channel_that_breaks_while_an_answer_comes(gw: GatewayFixture, server: HostileServer) -> None:
    server.stream = server.endless
    channel = _over_tls(gw)
    channel.sendall(frame(commands.query("SELECT * FROM t")))
    assert channel.recv(65536)
    socket.socket.send(channel, b"\x17\x03\x03\0\x20" + b"not what was agreed" * 2)
    with contextlib.suppress(OSError):
        while channel.recv(1 << 20):
            pass
    channel.close()
    assert nothing_left(gw.gateway)
    assert gw.gateway.counts.garbled == 1


def test_noise_instead_of_a_handshake(gw: GatewayFixture) -> None:
    for noise in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + bytes(100), bytes(2000)):
        with contextlib.closing(_plain(gw)) as sock:
            sock.sendall(frame(build_ssl_request(0xFA68D, 1 << 24, 45), 1) + noise)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            _hung_up(sock)
    assert _served(gw)


# ------------------------------------------------------------------------ large packets


def test_a_statement_of_64_megabytes(gw: GatewayFixture, server: HostileServer) -> None:
    seen: list[int] = []

    def answer(payload: bytes, caps: int) -> bytes | None:
        if len(payload) > 1000:
            seen.append(len(payload))
        return usual(payload, caps)

    server.answer = answer
    most = gw.gateway.max_packet
    with enter(gw) as client:
        client.socket.settimeout(60)
        for size in (0xFFFFFF - 1, 0xFFFFFF, 0xFFFFFF + 1, most):
            text = b"\x03SELECT '" + b"x" * (size - 11) + b"' "
            assert len(text) == size
            assert client.ask(text)[0]
    assert seen == [0xFFFFFF - 1, 0xFFFFFF, 0xFFFFFF + 1, most]


def test_a_statement_that_is_larger_is_refused_in_mysqls_words(gw: GatewayFixture) -> None:
    with enter(gw) as client:
        client.socket.settimeout(60)
        data = frame(b"\x03SELECT '" + b"x" * (gw.gateway.max_packet + (1 << 20)))
        client.socket.sendall(data)
        with pytest.raises(ServerError) as refused:
            client.read()
        assert refused.value.server_errno == 1153
        assert client.query("SELECT 1") == [(b"1",)]
    with pytest.raises(pymysql.err.OperationalError) as caught:
        gw.query("SELECT '" + "x" * (gw.gateway.max_packet + 100) + "'")
    assert caught.value.args[0] == 1153


def test_a_login_that_is_too_large(gw: GatewayFixture) -> None:
    with contextlib.closing(_plain(gw)) as sock:
        sock.sendall(b"\xff\xff\xff\1" + bytes(1000))
        said = _hung_up(sock)
    assert parse_err(said[4:]).message.startswith("Got a packet bigger")
    assert gw.gateway.counts.garbled == 1


def test_packets_out_of_order(gw: GatewayFixture) -> None:
    with enter(gw) as client:
        client.socket.sendall(frame(b"\x0e", 3))
        said = _hung_up(client.socket)
    assert parse_err(said[4:]).server_errno == 1156
    with contextlib.closing(_plain(gw)) as sock:
        sock.sendall(frame(packets.handshake_response(random.Random(1)), 0))
        assert parse_err(_hung_up(sock)[4:]).server_errno == 1156


# ------------------------------------------------------------------------ wrong passwords


def _wrong(user: str) -> bytes:
    """A login with a proof that is none."""
    head = (0x000FA68D).to_bytes(4, "little") + bytes(4) + b"\x2d" + bytes(23)
    return frame(head + user.encode() + b"\0\x20" + b"x" * 32 + b"app\0caching_sha2_password\0", 1)


def test_what_follows_a_wrong_proof_counts_once(gw: GatewayFixture) -> None:
    """Bytes behind a wrong proof are not one more attempt, and are not kept."""
    buffer = PacketBuffer()
    with contextlib.closing(socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=20)) as sock:
        buffer.feed(sock.recv(65536))
        assert buffer.next() is not None
        sock.sendall(_wrong("admin"))
        for _ in range(50):
            with contextlib.suppress(OSError):
                sock.sendall(b"more")
        assert parse_err(_hung_up(sock)[4:]).server_errno == 1045
    assert gw.gateway.counts.refused == 1
    assert gw.gateway.accounts.failures("127.0.0.1") == 1


def test_many_wrong_passwords_at_once_leave_room_for_others(gw: GatewayFixture) -> None:
    with contextlib.ExitStack() as open_:
        socks = [
            open_.enter_context(socket.create_connection(("127.0.0.1", gw.gateway.port), timeout=20))
            for _ in range(120)
        ]
        for sock in socks:
            sock.recv(65536)
            sock.sendall(_wrong("nobody"))
        assert settles(lambda: gw.gateway.counts.refused == 120)
        assert held(gw.gateway).connections <= 51
        assert _served(gw)
        answers = [_hung_up(sock) for sock in socks]
    told = [parse_err(said[4:]).server_errno for said in answers if said]
    # At most 50 wait for their answer at the same time; whoever has had it makes room for another.
    assert 1 <= len(told) < 120
    assert set(told) == {1045}


def test_errors_of_the_protocol_are_what_clients_get(gw: GatewayFixture) -> None:
    """An unknown command and a garbled one leave the session as it is."""
    with enter(gw) as client:
        for payload in (b"\x50", b"\x00", b"\x17\1", b"\x1c\1\0\0\0\1", b"\x11", b"\x1b\7"):
            with pytest.raises((ServerError, MalformedPacketError, ConnectionLostError)):
                client.ask(payload, Expect.RESULT)
        assert client.query("SELECT 1") == [(b"1",)]
