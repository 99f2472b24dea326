"""The feed: one server's committed row changes and DDL of the wanted tables, from a position on.

It connects as a replica, reads the log once for all tables, and survives lost connections, restarts and a
failover to a server with the same transactions, always going on from the last complete transaction. It knows
no target and no workflow.

Invariant: between two batches nothing is lost and nothing is given twice, except what ``discard_unfinished``
takes back.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from uuid import uuid4

from homeworld.model.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    HomeworldError,
    MalformedPacketError,
    PositionPurgedError,
    ServerError,
    SourceLogError,
    StoppedError,
    UnavailableError,
    UnsupportedLogError,
)
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication.changes import FeedBatch, RowChange, TableName
from homeworld.replication.connection import Connection
from homeworld.replication.transactions import Pause, Transactions
from homeworld.wire.binlog import EventReader
from homeworld.wire.binlog_dump import announcements, dump_command

HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 15.0
"""Without even a heartbeat for this long the connection counts as lost."""
RECONNECT_SECONDS = 60.0
CONNECT_SECONDS = 5.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 3.0
_CAUGHT_UP_SECONDS = 0.05

# What a server says when it stops, is full, or ended our session: as good as a lost connection.
_PASSING = frozenset({1040, 1053, 1077, 1079, 1152, 1158, 1159, 1160, 1161, 1317, 1927, 3169, 4031})
_FATAL_READING = 1236

_REQUIRED = {
    Flavor.MYSQL: {
        "log_bin": "ON",
        "binlog_format": "ROW",
        "binlog_row_image": "FULL",
        "binlog_row_value_options": "",
        "gtid_mode": "ON",
    },
    Flavor.MARIADB: {"log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL"},
}


class Feed:
    """Reads one server's binlog for the wanted tables. One thread reads; any thread may stop it.

    :param endpoint: the source, or a function that says where it is now; asked before each connection, so
        that after a failover the feed goes on with the new server.
    :param start_position: give what comes after it (empty: everything that the log has).
    :param tables: the wanted tables by (schema, table), as they are at ``start_position``.
    :param server_id: the replica's number, 1 to 2**32-1, unlike that of every other replica of the source;
        0 takes a random one.
    :param heartbeat_seconds: how often an idle source shows that it is there.
    :param reconnect_seconds: for how long a lost source is tried again before reading raises.
    :param prepared_elsewhere: transactions that were prepared (XA) before ``start_position`` and not decided
        are known to have no rows of the tables; otherwise it is an error when one is committed.
    """

    def __init__(
        self,
        endpoint: Endpoint | Callable[[], Endpoint],
        start_position: str,
        tables: Mapping[TableName, Table],
        *,
        server_id: int = 0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        reconnect_seconds: float = RECONNECT_SECONDS,
        prepared_elsewhere: bool = False,
    ) -> None:
        self._where: Callable[[], Endpoint] = endpoint if callable(endpoint) else lambda: endpoint
        self._flavor = self._where().flavor
        self._transactions = Transactions(
            Position.parse(self._flavor, start_position), tables, prepared_elsewhere=prepared_elsewhere
        )
        self._server_id = server_id or secrets.randbelow((1 << 32) - (1 << 20)) + (1 << 20)
        self._uuid = str(uuid4())
        self._heartbeat = heartbeat_seconds
        self._reconnect = reconnect_seconds
        self._connection: Connection | None = None
        self._reader = EventReader(checksums=True)
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._position = self._transactions.progress.text()
        self._reached = self._position  # at the last loss
        self._heard = 0.0
        self._connected_at = 0.0
        self._lost_since = 0.0
        self._next_try = 0.0
        self._pause = _FIRST_PAUSE
        self._failure: HomeworldError | None = None

    @property
    def position(self) -> str:
        """The position of the last batch given."""
        return self._position

    def give_singly(self, *, singly: bool) -> None:
        """From the next transaction on end a batch with each one (or no more), so that a consumer can stop
        at an exact position. From any thread; a batch under way may hold earlier ones too.
        """
        self._transactions.singly = singly

    def set_tables(self, tables: Mapping[TableName, Table]) -> None:
        """What the wanted tables are from here on; to be called after a batch with ``ddl`` (or before the
        first batch), by the thread that reads.
        """
        self._transactions.set_tables(tables)

    def stop(self) -> None:
        """End the feed from any thread: a :meth:`read_batch` under way raises StoppedError."""
        self._stopped.set()
        with self._lock:
            if self._connection is not None:
                self._connection.abort()

    def close(self) -> None:
        """Stop, and give the connection back; by the thread that reads."""
        self.stop()
        self._disconnect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read_batch(self, max_events: int, max_wait_seconds: float) -> FeedBatch:
        """What happened since the batch before.

        Returns as soon as there are changes and nothing more has arrived, with ``max_events`` changes or a
        few more (fewer where they are large), after a DDL, or empty after ``max_wait_seconds``.

        :raises PositionPurgedError: the source has deleted the logs that follow the position.
        :raises UnsupportedLogError: the log holds what cannot be applied exactly; the message names the
            setting that would help.
        :raises SchemaDriftError: a wanted table has changed without :meth:`set_tables`.
        :raises SourceLogError: the log cannot be followed for another reason that stays.
        :raises UnavailableError: the source was not reached for ``reconnect_seconds``; reading again goes on.
        :raises ServerError: the source refuses the account.
        :raises StoppedError: it was stopped.
        """
        if self._failure is not None:
            raise self._failure
        deadline = time.monotonic() + max_wait_seconds
        transactions = self._transactions
        try:
            if transactions.part_waits(max_events) and not transactions.changes:
                return self._give_part()
            while True:
                pause = transactions.run(max_events)
                if pause is Pause.FULL and not transactions.changes and transactions.holding:
                    return self._give_part()
                if pause is not Pause.EMPTY:
                    return self._give()
                ready = bool(transactions.changes) or transactions.moved or transactions.void
                left = max(0.0, deadline - time.monotonic())
                if (ready and not left) or not self._more(0.0 if ready else left):
                    return self._give()
        except (SourceLogError, MalformedPacketError) as error:
            self._failure = error
            if not transactions.changes and not transactions.moved:
                raise
            return self._give()

    def _give(self) -> FeedBatch:
        """A batch of what is complete."""
        transactions = self._transactions
        changes, transactions.changes = transactions.changes, []
        size, transactions.size = transactions.size, 0
        return self._batch(changes, size)

    def _give_part(self) -> FeedBatch:
        """A batch of a part of the transaction under way."""
        size = self._transactions.size
        return self._batch(self._transactions.take_part(), size)

    def _batch(self, changes: list[RowChange], size: int) -> FeedBatch:
        transactions = self._transactions
        if transactions.moved:
            self._position = transactions.progress.text()
        silent = time.monotonic() - self._heard >= _CAUGHT_UP_SECONDS
        batch = FeedBatch(
            changes=changes,
            ddl=(transactions.ddl,) if transactions.ddl is not None else (),
            position=self._position,
            timestamp=transactions.timestamp,
            caught_up=silent and self._connection is not None and not changes and not transactions.holding,
            mid_transaction=transactions.partly_given,
            discard_unfinished=transactions.void,
            unfinished=transactions.unfinished() if transactions.partly_given else "",
            undecided=transactions.undecided(),
            size=size,
        )
        transactions.ddl = None
        transactions.moved = transactions.void = False
        return batch

    def _more(self, wait_seconds: float) -> bool:
        """Wait for more events and hand them on; False where none came in time."""
        deadline = time.monotonic() + wait_seconds
        while True:
            if self._stopped.is_set():
                raise StoppedError("the feed was stopped")
            try:
                connection = self._connection or self._reconnect_by(deadline)
                if connection is None:
                    return False
                left = deadline - time.monotonic()
                data = connection.receive(max(0.0, min(left, 1.0)))
                now = time.monotonic()
                if data is not None:
                    self._heard = now
                    self._transactions.feed(self._reader.events(data))
                    return True
                if now - self._heard > SILENCE_SECONDS:
                    raise ConnectionLostError("the source has been silent for too long")
                if now >= deadline:
                    return False
            except (ConnectionLostError, DeadlineExceededError) as error:
                self._lose(error)
            except ServerError as error:
                if error.server_errno in _PASSING:
                    self._lose(error)
                    continue
                self._disconnect()
                self._transactions.restart()
                if error.server_errno == _FATAL_READING:
                    raise _fatal(error) from error
                raise

    def _lose(self, error: HomeworldError) -> None:
        """The connection is gone: forget the unfinished transaction, and give up after too long.

        A connection that brought something forward, or lived for a while, counts as success.
        """
        if self._stopped.is_set():
            raise StoppedError("the feed was stopped") from error
        now = time.monotonic()
        connected = self._connection is not None
        self._disconnect()
        self._transactions.restart()
        reached = self._transactions.progress.text()
        if connected and (reached != self._reached or now - self._connected_at > SILENCE_SECONDS):
            self._lost_since = 0.0
            self._pause = _FIRST_PAUSE
        self._reached = reached
        self._lost_since = self._lost_since or now
        self._next_try = now + self._pause
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        if now - self._lost_since > self._reconnect:
            self._lost_since = 0.0
            raise UnavailableError(f"the source could not be reached: {error}") from error

    def _reconnect_by(self, deadline: float) -> Connection | None:
        """Connect once the pause after the last loss is over; None where that is beyond ``deadline``."""
        now = time.monotonic()
        if now < self._next_try:
            self._stopped.wait(max(0.0, min(self._next_try, deadline) - now))
            if self._stopped.is_set():
                raise StoppedError("the feed was stopped")
            if time.monotonic() < self._next_try:
                return None
        return self._connect()

    def _connect(self) -> Connection:
        position = self._transactions.progress.position()
        connection = Connection(
            self._where(), fidelity=False, connect_seconds=CONNECT_SECONDS, timeout_seconds=SILENCE_SECONDS
        )
        with self._lock:
            self._connection = connection
        try:
            if self._stopped.is_set():
                raise StoppedError("the feed was stopped")
            checksums = _check_settings(connection)
            # Whoever applies may be busy for long, and nobody reads on meanwhile.
            connection.execute("SET SESSION net_write_timeout=3600")
            for statement in announcements(
                position, heartbeat_seconds=self._heartbeat, replica_uuid=self._uuid
            ):
                connection.execute(statement)
            connection.command(dump_command(position, self._server_id))
        except BaseException:
            self._disconnect()
            raise
        self._reader = EventReader(checksums=checksums)
        self._heard = self._connected_at = time.monotonic()
        return connection

    def _disconnect(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _check_settings(connection: Connection) -> bool:
    """Refuse a server whose log cannot hold every row; whether it writes checksums.

    :raises UnsupportedLogError: a setting is not as it must be, with all of them named.
    """
    required = _REQUIRED[connection.endpoint.flavor]
    names = ", ".join(f"'{name}'" for name in (*required, "binlog_checksum"))
    rows = connection.query_all(f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
    found = {(name or b"").decode().lower(): (value or b"").decode() for name, value in rows}
    wrong = [
        f"{name} is {found[name] or 'empty'} and must be {value or 'empty'}"
        for name, value in required.items()
        if name in found and found[name].upper() != value
    ]
    if wrong:
        raise UnsupportedLogError("the source's binlog cannot be followed: " + "; ".join(wrong))
    return found.get("binlog_checksum", "NONE").upper() != "NONE"


def _fatal(error: ServerError) -> SourceLogError:
    """What the server's error on reading its log means."""
    text = error.message.lower()
    if "purged" in text or "could not find first log" in text or "could not find gtid state" in text:
        return PositionPurgedError(
            f"the source has purged the binlogs that are needed: {error.message}. Nothing can give those "
            "changes any more: cancel and create the workflow anew, and let the source keep its binlogs for "
            "longer (binlog_expire_logs_seconds) than a stream may be away"
        )
    return SourceLogError(f"the source cannot send its binlog: {error.message}")
