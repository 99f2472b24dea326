"""The HTTP door of a gateway: listens, and looks after what is kept behind it (``gateway.annex.Annex``).

Everything is on the gateway's loop. The invariant: a password that may not connect any more has no session
left once :meth:`Edge.end_unwelcome` has returned, whoever is in the middle of what.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from homeworld.edge.http import HttpConnection
from homeworld.edge.service import Service
from homeworld.edge.sessions import Limits, Sessions
from homeworld.edge.tokens import Signer
from homeworld.gateway.annex import may_stay
from homeworld.gateway.connection import House
from homeworld.gateway.tls import context_for


class Edge:
    """One gateway's.

    :param secret: the installation's, of which session tokens are signed; the same for all its gateways.
    :param tls: a socket that listens, for HTTPS, with the PEM certificate chain and key; None: none.
    :param plain: a socket that listens, for HTTP in the clear; None: none.
    """

    def __init__(
        self,
        *,
        secret: str,
        tls: tuple[socket.socket, Path, Path] | None = None,
        plain: socket.socket | None = None,
        limits: Limits = Limits(),  # noqa: B008 it is frozen
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._signer = Signer(secret.encode())
        self._tls = tls
        self._plain = plain
        self._limits = limits
        self._wall = wall
        self._house: House
        self._servers: list[asyncio.Server] = []
        self._connections: set[HttpConnection] = set()
        self.sessions: Sessions

    async def open(self, house: House) -> None:
        """See ``gateway.annex.Annex``."""
        self._house = house
        self.sessions = Sessions(house, self._signer, self._limits, self._wall)
        service = Service(house, self.sessions, self._limits)
        loop = asyncio.get_running_loop()

        def factory(context: ssl.SSLContext | None) -> Callable[[], HttpConnection]:
            return lambda: HttpConnection(house, service, context, self._connections)

        if self._tls is not None:
            listener, certificate, key = self._tls
            context = context_for(certificate, key)
            context.set_alpn_protocols(["http/1.1"])
            self._servers.append(await loop.create_server(factory(context), sock=listener, backlog=512))
        if self._plain is not None:
            self._servers.append(await loop.create_server(factory(None), sock=self._plain, backlog=512))

    def look(self) -> None:
        """See ``gateway.annex.Annex``."""
        self.sessions.look()

    def end_unwelcome(self) -> None:
        """See ``gateway.annex.Annex``."""
        if self._servers:
            self.sessions.end_where(lambda talk: not may_stay(self._house, talk.session))

    def stop(self) -> None:
        """See ``gateway.annex.Annex``."""
        for server in self._servers:
            server.close()
        for connection in list(self._connections):
            connection.stop()

    async def close(self) -> None:
        """See ``gateway.annex.Annex``."""
        if not self._servers:
            return
        self.sessions.close_all()
        for connection in list(self._connections):
            connection.abort()
        for server in self._servers:
            await server.wait_closed()
