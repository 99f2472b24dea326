"""A client that speaks the protocol packet by packet, for what libraries do not let a test do."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Self

from homeworld.wire import commands
from homeworld.wire.client import DEFAULT_CAPABILITIES, Collector, Credentials, Login, drive
from homeworld.wire.packets import frame
from homeworld.wire.responses import Expect, Walker
from homeworld.wire.results import Ok, parse_err

LONGLONG = b"\x08\0"
UNSIGNED_TINY = b"\x01\x80"


class WireClient:
    """One connection to a MySQL server (or gateway) on loopback."""

    def __init__(
        self,
        port: int,
        user: str,
        password: str,
        schema: str,
        *,
        capabilities: int = DEFAULT_CAPABILITIES,
        charset: int = 45,
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        login = Login(
            Credentials(user, password, schema), secure=False, capabilities=capabilities, charset=charset
        )
        try:
            drive(login, self.socket.sendall, lambda: self.socket.recv(65536))
        except BaseException:
            self.socket.close()
            raise
        self.capabilities = login.capabilities

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def ask(self, payload: bytes, expect: int = Expect.RESULT) -> tuple[bytes, Walker]:
        """Send a command; the whole answer and what it said."""
        self.socket.sendall(frame(payload))
        return self.read(expect)

    def read(self, expect: int = Expect.RESULT) -> tuple[bytes, Walker]:
        walker = Walker(self.capabilities)
        walker.begin(expect)
        data = b""
        while True:
            chunk = self.socket.recv(65536)
            assert chunk, "the server hung up"
            data += chunk
            end = walker.feed(chunk)
            if end >= 0:
                assert end == len(chunk), "bytes behind the answer"
                break
        if walker.error:
            raise parse_err(walker.error)
        return data, walker

    def query(self, sql: str) -> list[tuple[bytes | None, ...]]:
        data, _ = self.ask(commands.query(sql))
        collector = Collector(self.capabilities)
        collector.feed(data)
        return collector.text_rows()

    def prepare(self, sql: str) -> int:
        _, walker = self.ask(commands.stmt_prepare(sql.encode()), Expect.PREPARE)
        return int.from_bytes(walker.prepared[1:5], "little")

    def execute(
        self, statement: int, values: Sequence[int] = (), *,
        bind: bool = True, flags: int = 0, kind: bytes = LONGLONG, size: int = 8,
    ) -> Ok | None:  # fmt: skip
        """Execute with numbers as values; ``bind=False`` relies on types bound before.

        :param kind: the type of each value, as it is bound: a byte, and one of flags; ``size`` bytes of it.
        """
        payload = b"\x17" + statement.to_bytes(4, "little") + bytes((flags, 1, 0, 0, 0))
        if values:
            payload += bytes((len(values) + 7) // 8) + (b"\1" + kind * len(values) if bind else b"\0")
            below = 1 << (8 * size)
            payload += b"".join((value % below).to_bytes(size, "little") for value in values)
        _, walker = self.ask(payload)
        return Ok.parse(walker.ok, self.capabilities) if walker.ok else None

    def open_cursor(self, statement: int) -> None:
        self.execute(statement, flags=1)

    def fetch(self, statement: int, count: int) -> list[int]:
        """The first column (LONGLONG) of up to ``count`` rows."""
        data, _ = self.ask(
            b"\x1c" + statement.to_bytes(4, "little") + count.to_bytes(4, "little"), Expect.ROWS
        )
        found: list[int] = []
        pos = 0
        while pos < len(data):
            length = int.from_bytes(data[pos : pos + 3], "little")
            payload = data[pos + 4 : pos + 4 + length]
            pos += 4 + length
            if payload[0] == 0 and pos < len(data):
                found.append(int.from_bytes(payload[2:10], "little", signed=True))
        return found
