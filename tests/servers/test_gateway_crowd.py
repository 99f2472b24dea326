"""A gateway whose process comes to the end of its file descriptors."""

from __future__ import annotations

import contextlib
import socket

import pytest

from homeworld.model.errors import ConnectionLostError, ServerError
from homeworld.model.topology import Flavor
from homeworld.wire.results import parse_err
from tests.support.crowded import Crowded, crowded
from tests.support.hostile import settles
from tests.support.wire import WireClient

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]
DESCRIPTORS = 220


def _told(sock: socket.socket) -> int:
    """The error that a new connection begins with; 0: a greeting, or nothing at all."""
    sock.settimeout(60)
    with contextlib.suppress(ConnectionResetError):
        said = sock.recv(1000)
        if said[4:5] == b"\xff":
            return parse_err(said[4:]).server_errno
    return 0


def test_the_last_descriptors_are_kept_and_clients_are_told() -> None:
    with crowded(DESCRIPTORS) as gateway:
        first = gateway.enter()
        assert first.query("SELECT 1") == [(b"1",)]
        taken: list[WireClient] = []
        while (found := _enters(gateway)) is not None:
            taken.append(found)
        assert 100 < len(taken) < DESCRIPTORS - 60
        # However many more come, they are told (but where a great many come in the same moment), and the
        # gateway has descriptors of its own left.
        more = [socket.create_connection(("127.0.0.1", gateway.port)) for _ in range(DESCRIPTORS)]
        told = [_told(sock) for sock in more]
        assert set(told) <= {1040, 0}
        assert told.count(1040) > DESCRIPTORS / 2
        assert gateway.descriptors < DESCRIPTORS
        assert first.query("SELECT 2") == [(b"1",)]
        # Connections to servers come out of what is kept; beyond it they fail, and nothing else does.
        outcomes = [_asks(client) for client in taken]
        assert outcomes.count(True) >= 10
        assert first.query("SELECT 3") == [(b"1",)]
        used = gateway.cpu_seconds
        assert not settles(lambda: False, 1.0)
        assert gateway.cpu_seconds - used < 0.5, "it is busy with nothing"
        for sock in more:
            sock.close()
        for client in taken:
            client.socket.close()

        def let_in() -> bool:
            try:
                with gateway.enter() as client:
                    return client.query("SELECT 4") == [(b"1",)]
            except (ServerError, ConnectionLostError):
                return False

        assert settles(let_in)
        first.socket.close()


def _enters(gateway: Crowded) -> WireClient | None:
    """One more client, or None where it is told that there are too many."""
    try:
        return gateway.enter()
    except ServerError as error:
        if error.server_errno != 1040:
            raise
        return None


def _asks(client: WireClient) -> bool:
    """Whether it gets an answer, or else an error that says why not."""
    try:
        return client.query("SELECT 1") == [(b"1",)]
    except ServerError as error:
        if "Can't connect" not in error.message:
            raise
        return False
