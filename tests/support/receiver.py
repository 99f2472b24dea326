"""A real HTTP receiver of webhooks that behaves as its paths say: well, slowly, never, wrongly.

/ok 200   /made 201   /slow 200 after a second   /hang never answers   /error 500   /redirect 302 to /ok
/drop closes without a word   /garbage is no HTTP   /trickle a byte at a time, for ever
/endless a head without an end   /flaky 500 twice for each delivery, then 200   /early 100, then 200
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Listens on a free port of ``host`` until it is closed."""

    host: str = "127.0.0.1"
    tls: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list[Received])
    connections: int = 0

    def __post_init__(self) -> None:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, 0), family=family)
        self._open: list[socket.socket] = []
        self.linger = 1.0  # seconds that /slow takes
        self._seen: Counter[str] = Counter()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="receiver", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._listener.getsockname()[1])

    def url(self, path: str, host: str = "") -> str:
        """A URL of it."""
        named = host or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"{'https' if self.tls else 'http'}://{named}:{self.port}{path}"

    def at(self, path: str) -> list[Received]:
        """What came to a path."""
        return [one for one in self.received if one.path == path]

    def close(self) -> None:
        """Listen no more; what is open is closed."""
        self._closing.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()
        self._thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            request = self._read(connection)
            if request is not None:
                self.received.append(request)
                self._answer(connection, request)
        except OSError:
            pass
        finally:
            connection.close()

    def _read(self, connection: socket.socket) -> Received | None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(4096)
            if not more:
                return None
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        while len(body) < int(headers["content-length"]):
            more = connection.recv(4096)
            if not more:
                return None
            body += more
        return Received(first.split(" ")[1], headers, body)

    def _answer(self, connection: socket.socket, request: Received) -> None:
        def say(status: str, *lines: str) -> None:
            head = "\r\n".join((f"HTTP/1.1 {status}", *lines, "Content-Length: 2", "", "ok"))
            connection.sendall(head.encode())

        def forever(data: bytes) -> None:
            while not self._closing.wait(0.05):
                connection.sendall(data)

        def flaky() -> None:
            name = request.headers["x-homeworld-delivery"]
            self._seen[name] += 1
            say("200 OK" if self._seen[name] > 2 else "500 Oh")

        def slow() -> None:
            self._closing.wait(self.linger)
            say("200 OK")

        def early() -> None:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            say("200 OK")

        def endless() -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\n")
            forever(b"X-More: " + b"x" * 4000 + b"\r\n")

        answers: dict[str, Callable[[], Any]] = {
            "/ok": lambda: say("200 OK"),
            "/made": lambda: say("201 Created"),
            "/slow": slow,
            "/hang": self._closing.wait,
            "/error": lambda: say("500 Oh"),
            "/redirect": lambda: say("302 Found", f"Location: {self.url('/ok')}"),
            "/drop": lambda: None,
            "/garbage": lambda: connection.sendall(b"SSH-2.0-nothing\r\n"),
            "/trickle": lambda: forever(b"H"),
            "/endless": endless,
            "/flaky": flaky,
            "/early": early,
        }
        answers[request.path.partition("?")[0]]()
