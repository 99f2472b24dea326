"""Snapshots of a source whose content is known, and what several positions have in common.

MySQL adds a transaction to ``gtid_executed`` after the engine's commit: a snapshot opened after the set was
read shows all of it. MariaDB's ``gtid_binlog_pos`` runs ahead of what is visible, but a consistent snapshot
says which coordinates of the log it shows exactly. Both facts are held by tests/servers/test_snapshots.py.

Invariant: a snapshot handed out shows every transaction of the position that was asked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from homeworld.model.errors import DeadlineExceededError, UnsupportedLogError
from homeworld.model.gtid import IntervalSet, MariadbPosition, MysqlPosition, Position
from homeworld.model.topology import Flavor
from homeworld.replication.connection import Connection
from homeworld.replication.positions import log_statuses

_PAUSE_SECONDS = 0.005
#: Log file and offset in it; compared, the later is the greater.
Coordinates = tuple[str, int]


def open_snapshot(connection: Connection, position: str, timeout_seconds: float) -> None:
    """Begin a consistent snapshot that shows everything in ``position``, which the server's log must hold.

    :raises DeadlineExceededError: the server did not make it visible in time.
    """
    deadline = time.monotonic() + timeout_seconds
    if connection.endpoint.flavor is Flavor.MYSQL:
        _wait(lambda: shows(connection, position), deadline, position)
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return
    # What has been read from the log stands before its end, so a snapshot at the end or later shows it.
    end = log_end(connection)

    def opened() -> bool:
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        if snapshot_coordinates(connection) >= end:
            return True
        connection.execute("ROLLBACK")
        return False

    _wait(opened, deadline, position)


def snapshot_coordinates(connection: Connection) -> Coordinates:
    """MariaDB: log file and offset of the consistent snapshot that this connection holds."""
    status = {
        (name or b"").decode().lower(): (value or b"").decode()
        for name, value in connection.query_all("SHOW STATUS LIKE 'binlog_snapshot_%'")
    }
    return _checked(status.get("binlog_snapshot_file"), status.get("binlog_snapshot_position"))


def shows(connection: Connection, position: str) -> bool:
    """MySQL: whether a snapshot that is begun now shows everything in ``position``."""
    return connection.query_one(f"SELECT GTID_SUBSET('{position}', @@global.gtid_executed)")[0] == b"1"


def log_end(connection: Connection) -> Coordinates:
    """Where the log ends; what has been read from it stands before, and so does what a snapshot shows that
    was opened before this is asked.
    """
    statuses = log_statuses(connection)
    file, offset = statuses[0][:2] if statuses else (b"", b"")
    return _checked((file or b"").decode(), (offset or b"").decode())


def coordinates(file: str, offset: int) -> Coordinates:
    """Coordinates as the server tells them, made to be compared."""
    # Files are numbered with leading zeros, which end after a million of them.
    stem, _, number = file.rpartition(".")
    return f"{stem}.{number:>20}", offset


def _checked(file: str | None, offset: str | None) -> Coordinates:
    if not file or not offset or not offset.isdigit():
        raise UnsupportedLogError("the server writes no binlog; set log_bin on it")
    return coordinates(file, int(offset))


def _wait(ready: Callable[[], bool], deadline: float, position: str) -> None:
    while not ready():
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"the server does not show transaction set {position!r} in time")
        time.sleep(_PAUSE_SECONDS)


def common_position(positions: Sequence[Position]) -> Position:
    """The position that holds what all of ``positions`` (at least one) hold."""
    first, *rest = positions
    for other in rest:
        if other.contains(first):
            continue
        first = other if first.contains(other) else _intersection(first, other)
    return first


def _intersection(one: Position, other: Position) -> Position:
    if isinstance(one, MariadbPosition) and isinstance(other, MariadbPosition):
        return MariadbPosition(
            {
                domain: min(last, other.domains[domain], key=lambda found: found[1])
                for domain, last in one.domains.items()
                if domain in other.domains
            }
        )
    if isinstance(one, MysqlPosition) and isinstance(other, MysqlPosition):
        return MysqlPosition(
            {
                source: _shared(intervals, other.sources[source])
                for source, intervals in one.sources.items()
                if source in other.sources
            }
        )
    raise UnsupportedLogError("positions of different flavours have nothing in common")


def _shared(one: IntervalSet, other: IntervalSet) -> IntervalSet:
    made = IntervalSet()
    for first, last in one:
        for begin, end in other:
            if max(first, begin) <= min(last, end):
                made.add(max(first, begin), min(last, end))
    return made
