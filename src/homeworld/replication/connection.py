"""A blocking connection to one server for the data path: rows streamed as raw bytes, LOAD DATA from memory.

It knows the dialogue of :mod:`homeworld.wire.client` and owns its socket; it knows no table. One thread uses
a connection at a time; only :meth:`Connection.abort` may be called from another.

Invariant: after any error that leaves an answer half read the socket is closed, so no later statement can
ever read an answer that is not its own.
"""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from homeworld.model.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    HomeworldError,
    MalformedPacketError,
    ServerError,
)
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication.changes import Row
from homeworld.replication.row_parser import RowStream
from homeworld.wire.client import DEFAULT_CAPABILITIES, Collector, Credentials, Login, drive
from homeworld.wire.commands import query
from homeworld.wire.constants import Cap
from homeworld.wire.packets import MAX_PAYLOAD, frame

RECEIVE = 1 << 18
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 300.0

# NAMES binary: statements and results pass unconverted, identifiers are UTF-8. No strictness, because the
# source may hold what a strict mode refuses (zero dates, ENUM's empty error value); whoever writes looks at
# ``Executed.warnings`` instead.
SQL_MODE = "NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_ENGINE_SUBSTITUTION"
_FIDELITY = (
    "SET NAMES binary",
    "SET SESSION time_zone='+00:00', autocommit=1, foreign_key_checks=0, sql_safe_updates=0, "
    "sql_select_limit=18446744073709551615, net_write_timeout=3600, net_read_timeout=3600, "
    # A year: a stream may have nothing to say for days, and is to be there when it has.
    f"wait_timeout=31536000, sql_mode='{SQL_MODE}'",
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
)
_FIDELITY_OF = {
    # Lists of types and of placements are never cut.
    Flavor.MYSQL: ("SET SESSION max_execution_time=0, group_concat_max_len=1073741824",),
    Flavor.MARIADB: (
        "SET SESSION max_statement_time=0, check_constraint_checks=0, idle_transaction_timeout=0, "
        "idle_write_transaction_timeout=0, idle_readonly_transaction_timeout=0",
    ),
}
_HUNG_UP_ON_IDLE = 4031  # MySQL's last word to a session that was idle for longer than its wait_timeout


@dataclass(frozen=True, slots=True)
class Executed:
    """What an OK said. ``info`` is the server's line such as ``Records: 3  Deleted: 0 …``."""

    affected: int
    warnings: int
    info: str


class Connection:
    """One session on one server as the endpoint's account.

    :param schema: the default schema; empty for none.
    :param fidelity: set the session so that bytes pass unconverted and nothing the source accepted is
        refused: UTC, ``NAMES binary``, no strictness, no foreign key checks, REPEATABLE READ, no limits.
        Without it the session is as the server gives it, with utf8mb4.
    :param connect_seconds: how long connecting and logging in may take.
    :param timeout_seconds: how long the server may be silent while an answer is due.
    :raises ServerError: the server refused the login.
    :raises ConnectionLostError: it cannot be reached.
    :raises DeadlineExceededError: it did not answer in time.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        schema: str = "",
        fidelity: bool = True,
        connect_seconds: float = CONNECT_SECONDS,
        timeout_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.endpoint = endpoint
        self.timeout_seconds = timeout_seconds
        self._result_open = False
        self._closed = False
        self._socket = _dial(endpoint, connect_seconds)
        local = self._socket.family == socket.AF_UNIX
        login = Login(
            Credentials(endpoint.user, endpoint.password, schema),
            secure=local,
            # With SESSION_TRACK the OK's info has a length of its own, whatever the server.
            capabilities=DEFAULT_CAPABILITIES | Cap.LOCAL_FILES | Cap.SESSION_TRACK,
            attributes={"program_name": "homeworld"},
        )
        try:
            drive(login, self._send, self._receive)
            greeting = login.greeting
            if greeting is None:
                raise MalformedPacketError("the server let us in without a greeting")
            self.connection_id = greeting.connection_id
            self.server_version = greeting.server_version
            self._capabilities = login.capabilities
            self._socket.settimeout(timeout_seconds)
            if fidelity:
                for statement in (*_FIDELITY, *_FIDELITY_OF[endpoint.flavor]):
                    self.execute(statement)
        except BaseException:
            self.close()
            raise

    @property
    def closed(self) -> bool:
        """Whether the connection can no longer be used."""
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; the server rolls back what was not committed. No-op where it is closed."""
        self._closed = True
        self._socket.close()

    def abort(self) -> None:
        """Cut the connection from any thread: a call under way in another ends with ConnectionLostError."""
        with contextlib.suppress(OSError):  # already cut by the other side, or closed
            self._socket.shutdown(socket.SHUT_RDWR)

    def execute(self, sql: str | bytes) -> Executed:
        """Run a statement that has no result; a result that comes all the same is read and thrown away.

        :raises ServerError: the server refused it; the connection stays usable.
        """
        answer = self._ask(sql)
        if answer.infile:
            self.close()
            raise MalformedPacketError("the server asks for a file where no load was meant")
        ok = answer.ok
        return Executed(ok.affected_rows, ok.warnings, _text(ok.info)) if ok else Executed(0, 0, "")

    def query_rows(self, sql: str | bytes) -> Generator[Row]:
        """Run a statement and give its rows one by one, as the text protocol has them.

        :raises ServerError: the server refused it, or failed among the rows.
        """
        for batch in self.query_batches(sql):
            yield from batch

    def query_all(self, sql: str | bytes) -> list[Row]:
        """Run a statement with a small result and give all its rows."""
        return [row for batch in self.query_batches(sql) for row in batch]

    def query_one(self, sql: str | bytes) -> Row:
        """Run a statement that has exactly one row.

        :raises MalformedPacketError: it had none or several.
        """
        rows = self.query_all(sql)
        if len(rows) != 1:
            raise MalformedPacketError(f"expected one row, the server gave {len(rows)}")
        return rows[0]

    def query_batches(self, sql: str | bytes) -> Iterator[list[Row]]:
        """Run a statement and give its rows in lists, as they come from the network.

        Only what was just received is in memory. Whoever stops before the end closes the connection, because
        the rest of the result would be in the way of the next statement.
        """
        self._begin(sql)
        stream = RowStream(self._capabilities)
        self._result_open = True
        try:
            while not stream.done:
                batch = stream.feed(self._receive())
                if batch:
                    yield batch
        except ServerError as error:
            self._result_open = False
            raise self._or_lost(error) from error
        finally:
            if stream.done:
                self._result_open = False
            elif self._result_open:
                self.close()

    def load_data(self, sql: str | bytes, chunks: Iterable[bytes]) -> Executed:
        """Run a ``LOAD DATA LOCAL INFILE`` statement (any file name) with ``chunks`` as the file.

        A loss of the connection or an error out of ``chunks`` ends the session before the statement has
        ended; run it inside a transaction, and nothing of it stays. LOCAL turns errors of rows (a duplicate
        key, a value cut short) into warnings: compare ``affected`` with the rows given and look at
        ``warnings``.

        :raises ServerError: the server refused it; the connection stays usable.
        """
        answer = self.begin_load(sql)
        try:
            for piece in file_packets(chunks, answer.sequence):
                self._send(piece)
        except BaseException:
            self.close()
            raise
        return self.end_load(answer)

    def begin_load(self, sql: str | bytes) -> Collector:
        """The first part of :meth:`load_data`: the server asks for the file. What is to be sent is
        :func:`file_packets` of it, then comes :meth:`end_load`.

        :raises ServerError: the server refused it; the connection stays usable.
        """
        answer = self._ask(sql)
        if not answer.infile:
            raise MalformedPacketError("the statement loads no local file")
        return answer

    def send_some(self, data: memoryview) -> int:
        """Send as much of ``data`` as goes at once; how many bytes that is. The caller knows that some do."""
        try:
            return self._socket.send(data)
        except OSError as error:
            raise self._lost(error) from error

    def fileno(self) -> int:
        """The socket's file descriptor, to wait for it."""
        return self._socket.fileno()

    def end_load(self, answer: Collector) -> Executed:
        """The last part of :meth:`load_data`: what the server made of the file.

        :raises ServerError: it failed; the connection stays usable.
        """
        answer.file_sent()
        self._finish(answer)
        ok = answer.ok
        if ok is None:
            raise MalformedPacketError("a load ended without an OK")
        return Executed(ok.affected_rows, ok.warnings, _text(ok.info))

    def command(self, payload: bytes) -> None:
        """Send a command whose answer the caller reads with :meth:`receive` (the feed's dump)."""
        self._check()
        self._send(frame(payload))

    def receive(self, wait_seconds: float) -> bytes | None:
        """The bytes that came, or None where none came in time.

        :raises ConnectionLostError: the server hung up.
        """
        self._check()
        try:
            ready = select.poll()
            ready.register(self._socket, select.POLLIN)
            if not ready.poll(max(0.0, wait_seconds) * 1000):
                return None
        except OSError as error:
            self.close()
            raise ConnectionLostError(f"lost connection to {self._where()}: {error}") from error
        data = self._receive()
        if not data:
            self.close()
            raise ConnectionLostError(f"{self._where()} closed the connection")
        return data

    def _ask(self, sql: str | bytes) -> Collector:
        """Send a statement and read its answer up to its end or up to the request for a file."""
        self._begin(sql)
        answer = Collector(self._capabilities)
        self._finish(answer)
        return answer

    def _finish(self, answer: Collector) -> None:
        try:
            while not answer.done and not answer.infile:
                answer.feed(self._receive())
        except ServerError as error:
            raise self._or_lost(error) from error
        except BaseException:
            self.close()
            raise

    def _begin(self, sql: str | bytes) -> None:
        self._check()
        self._send(frame(query(sql)))

    def _check(self) -> None:
        if self._closed:
            raise ConnectionLostError(f"the connection to {self._where()} is closed")
        if self._result_open:
            raise MalformedPacketError("the result of the statement before has not been read to its end")

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise self._lost(error) from error

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(RECEIVE)
        except OSError as error:
            raise self._lost(error) from error

    def _or_lost(self, error: ServerError) -> HomeworldError:
        """The error, or that the connection is lost where the server had hung up already."""
        if error.server_errno != _HUNG_UP_ON_IDLE:
            return error
        self.close()
        return ConnectionLostError(f"{self._where()} closed the connection: {error.message}")

    def _lost(self, error: OSError) -> HomeworldError:
        self.close()
        if isinstance(error, TimeoutError):
            return DeadlineExceededError(f"{self._where()} did not answer in time")
        return ConnectionLostError(f"lost connection to {self._where()}: {error}")

    def _where(self) -> str:
        return self.endpoint.socket or f"{self.endpoint.host}:{self.endpoint.port}"


def file_packets(chunks: Iterable[bytes], sequence: int) -> Iterator[bytes]:
    """A local file as the server is sent it: packets from number ``sequence`` on, the last one empty."""
    for chunk in chunks:
        for start in range(0, len(chunk), MAX_PAYLOAD - 1):
            yield frame(chunk[start : start + MAX_PAYLOAD - 1], sequence)
            sequence += 1
    yield frame(b"", sequence)


def kill_query(endpoint: Endpoint, connection_id: int) -> None:
    """End the statement that another session of the same account runs; no-op where the session is gone.

    :raises ServerError: the account may not.
    """
    with Connection(endpoint, fidelity=False) as connection:
        try:
            connection.execute(f"KILL QUERY {connection_id:d}")
        except ServerError as error:
            if error.server_errno != 1094:  # no such thread
                raise


def _dial(endpoint: Endpoint, seconds: float) -> socket.socket:
    local = bool(endpoint.socket) and Path(endpoint.socket).exists()
    made = socket.socket(socket.AF_UNIX) if local else None
    try:
        if made is not None:
            made.settimeout(seconds)
            made.connect(endpoint.socket)
        else:
            made = socket.create_connection((endpoint.host, endpoint.port), seconds)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    except OSError as error:
        if made is not None:
            made.close()
        where = endpoint.socket if local else f"{endpoint.host}:{endpoint.port}"
        raise ConnectionLostError(f"cannot reach {where}: {error}") from error
    return made


def _text(info: bytes) -> str:
    return info.decode("utf-8", "replace")
