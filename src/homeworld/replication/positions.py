"""Where a server's log stands: positions to start a feed from, and positions that a snapshot holds.

What may be relied on was measured (docs/decisions/binlog.md): MySQL adds a transaction to ``gtid_executed``
after the engine's commit, so a snapshot taken later shows it; MariaDB moves ``gtid_binlog_pos`` before, so
there only the snapshot's own coordinates tell what it shows.
"""

from __future__ import annotations

from homeworld.model.errors import ServerError, UnsupportedLogError
from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor
from homeworld.replication.changes import Row
from homeworld.replication.connection import Connection

_SYNTAX_ERROR = 1064


def current_position(connection: Connection, flavor: Flavor) -> str:
    """The position after everything that is in the server's binlog now.

    On MySQL everything in it is visible to a snapshot begun afterwards; on MariaDB the last transactions may
    not be yet, so there it is a place to read the log from or to wait for, not what a snapshot shows.
    """
    if flavor is Flavor.MYSQL:
        text = connection.query_one("SELECT @@global.gtid_executed")[0]
    else:
        # gtid_current_pos would add what the server applied as a replica without logging it, which no feed
        # of this log will ever give.
        text = connection.query_one("SELECT @@global.gtid_binlog_pos")[0]
    return str(Position.parse(flavor, (text or b"").decode()))


def log_statuses(connection: Connection) -> list[Row]:
    """Where the log ends: a row of file, offset and options that filter it; none where there is no log."""
    if connection.endpoint.flavor is Flavor.MYSQL:
        try:
            return connection.query_all("SHOW BINARY LOG STATUS")
        except ServerError as error:
            if error.server_errno != _SYNTAX_ERROR:
                raise  # MySQL before 8.2 knows the old name only
    return connection.query_all("SHOW MASTER STATUS")


def log_filters(connection: Connection) -> tuple[str, ...]:
    """The options of the server that keep some schemas' changes out of its binlog; no variable tells them."""
    return tuple(
        name
        for row in log_statuses(connection)
        for name, value in zip(("binlog-do-db", "binlog-ignore-db"), row[2:], strict=False)
        if value
    )


def begin_snapshot(connection: Connection) -> str:
    """Begin a consistent snapshot (REPEATABLE READ) and give a position of which it shows everything.

    On MariaDB the snapshot shows exactly this position. On MySQL it shows at least this position and may show
    a few later transactions too, whose changes the feed gives once more.

    :raises UnsupportedLogError: the server writes no binlog.
    """
    flavor = connection.endpoint.flavor
    if flavor is Flavor.MYSQL:
        position = current_position(connection, flavor)
        connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return position
    connection.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    return snapshot_position(connection)


def snapshot_position(connection: Connection) -> str:
    """MariaDB: the exact position of the consistent snapshot that this connection holds.

    The server reads the log file up to the snapshot's offset for it, which takes long in a large file.

    :raises UnsupportedLogError: the server writes no binlog.
    """
    status = {
        (name or b"").decode().lower(): (value or b"").decode()
        for name, value in connection.query_all("SHOW STATUS LIKE 'binlog_snapshot_%'")
    }
    file, offset = status.get("binlog_snapshot_file", ""), status.get("binlog_snapshot_position", "")
    if not file or not offset.isdigit():
        raise UnsupportedLogError("the server writes no binlog; set log_bin on it")
    sql = f"SELECT BINLOG_GTID_POS('{file}', {int(offset)})"
    text = connection.query_one(sql)[0]
    if text is None:
        raise UnsupportedLogError(f"the server cannot tell the position of {file}, {offset}")
    return str(Position.parse(Flavor.MARIADB, text.decode()))
