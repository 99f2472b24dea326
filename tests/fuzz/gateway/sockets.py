"""A running gateway between random clients and a random server, over real sockets.

Held: the gateway goes on serving, logs no fault of its own, and has nothing left of anybody in the end.
"""

from __future__ import annotations

import contextlib
import random
import socket
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path

from homeworld.model.errors import HomeworldError
from homeworld.wire.handshake import build_ssl_request
from homeworld.wire.packets import frame
from tests.fuzz.gateway import packets
from tests.fuzz.gateway.storm import Failures
from tests.support.gateway import GatewayFixture
from tests.support.hostile import (
    USUAL_CAPABILITIES,
    Answer,
    HostileServer,
    enter,
    gateway_before,
    held,
    nothing_left,
    usual,
)

_WAIT = 0.05


def _misbehave(server: HostileServer, rng: random.Random) -> None:
    """Have the server answer at random from now on."""
    plain = HostileServer()
    server.greet = (
        plain.greet if rng.random() < 0.85 else lambda: packets.mutated(rng, frame(packets.greeting(rng)))
    )
    server.let_in = (
        plain.let_in if rng.random() < 0.85 else lambda caps: frame(packets.login_answer(rng, caps), 2)
    )

    def answer(payload: bytes, caps: int) -> Answer:
        if rng.random() < 0.5:
            return usual(payload, caps)
        if rng.random() < 0.1:
            return None
        return packets.server_chunk(rng, payload[0] if payload else 0, caps)

    server.answer = answer


def _client(gw: GatewayFixture, rng: random.Random) -> None:
    """One client: to the login, or past it; then anything, and away."""
    port = gw.gateway.port
    if rng.random() < 0.3:
        with contextlib.closing(socket.create_connection(("127.0.0.1", port), timeout=2)) as sock:
            sock.settimeout(_WAIT)
            with contextlib.suppress(OSError):
                sock.recv(4096)
                if rng.random() < 0.3:
                    sock.sendall(frame(build_ssl_request(USUAL_CAPABILITIES, 1 << 24, 45), 1))
                    sock.sendall(packets.random_bytes(rng, 300))
                for number in range(rng.randrange(1, 4)):
                    sock.sendall(frame(packets.handshake_response(rng), number + 1))
                if rng.random() < 0.5:
                    sock.sendall(packets.random_bytes(rng, 2000))
                sock.recv(4096)
        return
    try:
        client = enter(gw)
    except (HomeworldError, OSError):
        return
    with client:
        client.socket.settimeout(_WAIT)
        with contextlib.suppress(OSError):
            for _ in range(rng.randrange(1, 8)):
                client.socket.sendall(packets.client_chunk(rng))
                if rng.random() < 0.7 and not client.socket.recv(65536):
                    break
            if rng.random() < 0.2:
                client.socket.shutdown(socket.SHUT_WR)


def play(gw: GatewayFixture, server: HostileServer, seeds: Iterable[int]) -> list[str]:
    """Play cases, one client each. :returns: what failed."""
    failures: list[str] = []
    with Failures() as logged:
        for seed in seeds:
            rng = random.Random(seed)
            logged.found.clear()
            try:
                _misbehave(server, rng)
                _client(gw, rng)
                assert gw.gateway.alive, "the gateway has ended"
                assert not logged.found, logged.found[0]
            except Exception:  # noqa: BLE001 - whatever it was, it is the finding
                failures.append(f"gateway sockets SEED={seed}\n{traceback.format_exc()}")
        # A write whose client has left is seen to its end, so the server has to come to one.
        server.well(hang_up=True)
        if not nothing_left(gw.gateway):
            failures.append(f"gateway sockets: something is left: {held(gw.gateway)}")
        failures += [f"gateway sockets: {line}" for line in logged.found]
    return failures


def campaign(seconds: float, seed: int) -> list[str]:
    """Play for so long."""
    failures: list[str] = []
    end = time.monotonic() + seconds
    played = 0
    with (
        tempfile.TemporaryDirectory() as folder,
        HostileServer() as server,
        gateway_before(server.port, Path(folder)) as gw,
    ):
        while time.monotonic() < end and len(failures) < 10:
            failures += play(gw, server, range(seed + played, seed + played + 50))
            played += 50
    print(f"  {played} clients on a socket", flush=True)
    return failures
