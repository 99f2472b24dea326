"""Snapshots of a MySQL server whose content is known although no writer was held up for them.

MySQL does not say which transactions a snapshot shows. Locking the tables would settle it, but LOCK TABLES …
READ waits behind every later writer (the server prefers them), holds up those of the tables that it already
has, and where one of them has written to its other tables first, the server ends the writer as a deadlock.

Theory of operation. A snapshot that is opened between reading ``gtid_executed`` (*g*) and reading where the
log ends (*e*) shows at least *g*, because a transaction enters the set after the engine's commit, and at most
what stands in the log before *e*, because it is written there before. What lies between is read from the log:
the window. The targets show some position that has *g* and lies before *e*, too (that is held: the window is
read until it has that position). Rows that no transaction of the window touched are therefore of the same
moment on both sides. Those that one touched are looked up in all snapshots: where such a row is the same on
both sides, the snapshots are as good as of one moment; where it is not, and both sides have something that it
was within the window, whoever asked tries again; where the target has what it never was, the sides differ,
and the comparison will find it.

Invariant: where :func:`hold_even` comes back, the source's and the targets' snapshots differ in nothing but
what a comparison has to find.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from homeworld.model.errors import (
    ConnectionLostError,
    MalformedPacketError,
    ServerError,
    SourceLogError,
    StoppedError,
    is_outage,
)
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.changes import RowChange, TableName
from homeworld.replication.connection import Connection
from homeworld.replication.positions import current_position
from homeworld.replication.snapshots import Coordinates, common_position, coordinates, log_end, shows
from homeworld.replication.touched import Touched, same_moment, touched_by
from homeworld.replication.transactions import Pause, Transactions
from homeworld.wire.binlog import EventReader, EventType
from homeworld.wire.binlog_dump import announcements, dump_command
from homeworld.wire.binlog_events import read_rotate

CHANGES_LOOKED_UP = 5000
OPENINGS_TRIED = 100
VISIBLE_SECONDS = 15.0
"""A commit may wait for a replica's word before anybody sees it (semi-sync: 10 s where nothing is set)."""
WINDOW_SECONDS = 60.0
"""The server goes through its log file from the beginning to find where a window begins."""
_HEARTBEAT_SECONDS = 0.5
_SESSION_SECONDS = 15.0
_WAIT = 0.2
_ROTATE = int(EventType.ROTATE)
_TABLE_CHANGED = 1412

Adopt = Callable[[Connection], Connection]


class UnevenError(SourceLogError):
    """The snapshots cannot be shown to be of one moment; others may."""

    code = "uneven_snapshots"


@dataclass(frozen=True, slots=True)
class Window:
    """What a snapshot may show: everything of ``begin``, and nothing behind ``end``; of the server's log."""

    begin: str
    end: Coordinates
    server_uuid: str


@dataclass(frozen=True, slots=True)
class Look:
    """One server's window, and what the targets show of it.

    :param rest: the position that they show; it has all of the window's beginning but what is prepared (XA)
        there. ``tables``: those that move, as they are defined at that position.
    """

    endpoint: Endpoint
    window: Window
    rest: str
    tables: Mapping[TableName, Table]


def await_visible(session: Connection, position: str, stopping: threading.Event) -> None:
    """Return once everything in ``position``, which was read from the server's log, can be seen there.

    :raises UnevenError: it cannot in time.
    """
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not shows(session, position):
        if stopping.wait(0.005):
            raise StoppedError("the comparison was stopped")
        if time.monotonic() > deadline:
            raise UnevenError("what the log has cannot be seen yet")


def open_between(sessions: Sequence[Connection]) -> Window:
    """Open a snapshot in each session; all are of one MySQL server. Done anew, for a while, where something
    was committed meanwhile: such snapshots hardly ever show the window's beginning only.
    """
    begin = after = current_position(sessions[0], Flavor.MYSQL)
    for _ in range(OPENINGS_TRIED):
        begin = after
        for session in sessions:
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        after = current_position(sessions[0], Flavor.MYSQL)
        if after == begin:
            break
    end = log_end(sessions[0])
    return Window(begin, end, _server_uuid(sessions[0]))


def hold_even(
    looks: Sequence[Look],
    sources: tuple[Sequence[ShardPlace], Sequence[Connection]],
    targets: tuple[Sequence[ShardPlace], Sequence[Connection]],
    stopping: threading.Event,
    adopt: Adopt,
) -> None:
    """Hold both sides' snapshots to show the same of every row that a window's transactions touched.

    :param sources: all source shards with their sessions; ``targets`` likewise.
    :param adopt: is given each connection that is made, so that somebody else can cut it.
    :raises UnevenError: they do not, or that cannot be told; others may.
    :raises UnavailableError: a server was lost.
    """
    touched: dict[str, Touched] = {}
    for look in looks:
        changes, rested = changes_within(look, stopping, adopt)
        touched_by(changes, rested, look.tables, touched)
    try:
        same = same_moment(touched, *(list(zip(*side, strict=True)) for side in (sources, targets)))
    except ServerError as error:
        if error.server_errno != _TABLE_CHANGED:
            raise
        raise UnevenError(str(error)) from error
    if not same:
        raise UnevenError("rows that were changed meanwhile are not the same on both sides")


def changes_within(look: Look, stopping: threading.Event, adopt: Adopt) -> tuple[list[RowChange], int]:
    """The changes of the tables by transactions of the window and maybe a few more, in the log's order; and
    how many of them the targets have where they rest.

    :raises UnevenError: a schema statement, more than CHANGES_LOOKED_UP changes, or the log cannot be read.
    :raises UnavailableError: the server was lost.
    """
    window = look.window
    wanted = Position.parse(Flavor.MYSQL, look.rest)
    position = common_position([Position.parse(Flavor.MYSQL, window.begin), wanted])
    transactions = Transactions(position, look.tables)
    deadline = time.monotonic() + WINDOW_SECONDS
    transactions.singly = True
    reached: Coordinates = ("", 0)
    rested = 0 if position.contains(wanted) else -1
    with adopt(Connection(look.endpoint, fidelity=False, timeout_seconds=_SESSION_SECONDS)) as connection:
        if _server_uuid(connection) != window.server_uuid:
            raise ConnectionLostError("another server answers at the source's address")
        checksum = (connection.query_one("SELECT @@global.binlog_checksum")[0] or b"").upper()
        reader = EventReader(checksums=checksum != b"NONE")
        for statement in announcements(
            position, heartbeat_seconds=_HEARTBEAT_SECONDS, replica_uuid=str(uuid4())
        ):
            connection.execute(statement)
        connection.command(dump_command(position, secrets.randbelow((1 << 32) - (1 << 20)) + (1 << 20)))
        try:
            while reached < window.end or rested < 0:
                if stopping.is_set():
                    raise StoppedError("the comparison was stopped")
                if time.monotonic() > deadline:
                    raise UnevenError("the log was not read in time up to where it ended")
                data = connection.receive(_WAIT)
                if data is None:
                    continue
                events = reader.events(data)
                for kind, _, _, _, next_position, buffer, start, end in events:
                    if kind == _ROTATE:
                        reached = coordinates(*read_rotate(buffer, start, end))
                    elif next_position and reached[0]:
                        reached = (reached[0], next_position)
                transactions.feed(events)
                rested = _take(transactions, wanted, rested)
        except (SourceLogError, MalformedPacketError) as error:
            raise UnevenError(str(error)) from error
        except ServerError as error:
            if is_outage(error):
                raise ConnectionLostError(str(error)) from error
            raise UnevenError(str(error)) from error
        return transactions.changes, rested


def _take(transactions: Transactions, wanted: Position, rested: int) -> int:
    """Go through what came; ``rested``: how many changes there were as all of ``wanted`` was, -1: not yet."""
    while True:
        pause = transactions.run(CHANGES_LOOKED_UP)
        if pause is Pause.DDL:
            raise UnevenError("the schema of a table was changed while snapshots were opened")
        if len(transactions.changes) > CHANGES_LOOKED_UP or transactions.part_waits(CHANGES_LOOKED_UP):
            raise UnevenError("too many rows were changed while snapshots were opened")
        if rested < 0 and transactions.progress.position().contains(wanted):
            rested = len(transactions.changes)
        if pause is Pause.EMPTY:
            return rested


def _server_uuid(session: Connection) -> str:
    return (session.query_one("SELECT @@global.server_uuid")[0] or b"").decode()
