"""A short-lived control connection to a managed server. Never on the path of a client's query.

Each has a time limit for connecting and for every answer, so a server that hangs costs a known time.
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.cursors import DictCursor

from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.model.topology import Endpoint

# Client-side errors, and the server's "shutting down" and "too many connections": nobody answers right now.
_NO_ANSWER = {1040, 1053, 1077, 1927, 2002, 2003, 2006, 2013, 2055}


class Control:
    """An open connection, autocommit."""

    def __init__(self, connection: pymysql.Connection[Any], server_id: str) -> None:
        self._connection = connection
        self._server_id = server_id

    def run(self, sql: str, arguments: Sequence[object] = ()) -> list[dict[str, Any]]:
        """Run a statement; its rows by column name.

        :raises UnavailableError: the connection broke or the answer did not come in time.
        :raises HomeworldError: the server refused the statement.
        """
        try:
            with self._connection.cursor(DictCursor) as cursor:
                cursor.execute(sql, arguments or None)
                return list(cursor.fetchall())
        except (pymysql.MySQLError, OSError) as error:
            raise _translated(error, self._server_id) from error

    def value(self, sql: str, arguments: Sequence[object] = ()) -> Any:
        """The first column of the first row, or None."""
        rows = self.run(sql, arguments)
        return next(iter(rows[0].values())) if rows else None


if TYPE_CHECKING:
    _Connection = pymysql.Connection[Any]  # generic for type checkers only
else:
    _Connection = pymysql.Connection


class _OverSocket(_Connection):
    """A connection over a socket file that we have opened: nobody listens in, passwords go as they are."""

    _secure = True


@contextmanager
def control(endpoint: Endpoint, *, timeout_seconds: float = 10.0) -> Generator[Control]:
    """Connect to the server through its socket; where it has none that we know, over the network.

    :raises UnavailableError: it does not accept within the time.
    """
    wire: socket.socket | None = None
    try:
        if endpoint.socket:
            wire = socket.socket(socket.AF_UNIX)
            wire.settimeout(timeout_seconds)
            wire.connect(endpoint.socket)
        else:
            wire = socket.create_connection((endpoint.host, endpoint.port), timeout_seconds)
        # The limit for reading counts for the handshake too: a server that accepts and then says nothing.
        connection = (_OverSocket if endpoint.socket else _Connection)(
            user=endpoint.user,
            password=endpoint.password,
            charset="utf8mb4",
            autocommit=True,
            read_timeout=timeout_seconds,
            write_timeout=timeout_seconds,
            # To read what authorities there are takes 40 ms each time.
            ssl_disabled=True,
            defer_connect=True,
        )
        connection.connect(wire)
    except (pymysql.MySQLError, OSError) as error:
        if wire is not None:
            wire.close()
        raise _translated(error, endpoint.server_id) from error
    with closing(connection):
        yield Control(connection, endpoint.server_id)


def _translated(error: Exception, server_id: str) -> HomeworldError:
    number = error.args[0] if error.args and isinstance(error.args[0], int) else 0
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    if isinstance(error, OSError) or number in _NO_ANSWER or isinstance(error, pymysql.err.InterfaceError):
        return UnavailableError(f"server {server_id} does not answer: {text}")
    return HomeworldError(f"server {server_id} refused: {number} {text}", mysql_errno=number)
