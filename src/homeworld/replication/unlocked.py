"""Snapshots of a MySQL server whose content is known although no writer was held up for them.

MySQL does not say which transactions a snapshot shows. Locking the tables would settle it, but LOCK TABLES …
READ waits behind every later writer (the server prefers them), holds up those of the tables that it already
has, and where one of them has written to its other tables first, the server ends the writer as a deadlock.

Theory of operation. A snapshot that is opened between reading ``gtid_executed`` (*g*) and reading where the
log ends (*e*) shows at least *g*, because a transaction enters the set after the engine's commit, and at most
what stands in the log before *e*, because it is written there before. What lies between is read from the log:
the window. The targets show some position that has *g* and lies before *e*, too. Rows that no transaction of
the window touched are therefore of the same moment on both sides; those that one touched are looked up in all
snapshots. If each of them is the same on both sides, the snapshots are as good as exact; if one is not, the
source's may show only a part of the window, or the sides do differ: who asked tries again.

Invariant: where :func:`same_moment` says yes, the source's and the targets' snapshots differ in nothing but
what a comparison has to find.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from homeworld.model.errors import SourceLogError, StoppedError
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.changes import RowChange, TableName
from homeworld.replication.checksum import row_hash
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key, TableKey
from homeworld.replication.lanes import walked
from homeworld.replication.positions import current_position
from homeworld.replication.snapshots import Coordinates, coordinates, log_end
from homeworld.replication.transactions import Pause, Transactions
from homeworld.wire.binlog import EventReader, EventType
from homeworld.wire.binlog_dump import announcements, dump_command
from homeworld.wire.binlog_events import read_rotate

KEYS_LOOKED_UP = 5000
WINDOW_SECONDS = 60.0
"""The server goes through its log file from the beginning to find where a window begins."""
OPENINGS_TRIED = 100
_KEYS_A_STATEMENT = 500
_HEARTBEAT_SECONDS = 0.5
_WAIT = 0.2
_ROTATE = int(EventType.ROTATE)

Place = tuple[ShardPlace, Connection]


class WideWindowError(SourceLogError):
    """What happened while a snapshot was opened is too much, or of a kind that rows do not tell."""

    code = "wide_window"


@dataclass(frozen=True, slots=True)
class Window:
    """What a snapshot may show: everything of ``begin``, and nothing behind ``end``."""

    begin: str
    end: Coordinates


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
    return Window(begin, log_end(sessions[0]))


def changes_within(
    endpoint: Endpoint, window: Window, tables: Mapping[TableName, Table], stopping: threading.Event
) -> list[RowChange]:
    """The changes of ``tables``, as these are defined, by transactions of the window and maybe a few more.

    :raises SourceLogError: a schema statement, an XA transaction that was prepared before, more than
        KEYS_LOOKED_UP changes, or the end was not reached in time; or the log cannot be followed.
    :raises UnavailableError: the server was lost.
    """
    position = Position.parse(Flavor.MYSQL, window.begin)
    transactions = Transactions(position, tables)
    deadline = time.monotonic() + WINDOW_SECONDS
    reached: Coordinates = ("", 0)
    with Connection(endpoint, fidelity=False, timeout_seconds=WINDOW_SECONDS) as connection:
        checksum = (connection.query_one("SELECT @@global.binlog_checksum")[0] or b"").upper()
        for statement in announcements(
            position, heartbeat_seconds=_HEARTBEAT_SECONDS, replica_uuid=str(uuid4())
        ):
            connection.execute(statement)
        connection.command(dump_command(position, secrets.randbelow((1 << 32) - (1 << 20)) + (1 << 20)))
        reader = EventReader(checksums=checksum != b"NONE")
        while reached < window.end or transactions.holding:
            if stopping.is_set():
                raise StoppedError("the comparison was stopped")
            if time.monotonic() > deadline:
                raise WideWindowError("the log was not read in time up to where it ended")
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
            while True:
                pause = transactions.run(KEYS_LOOKED_UP)
                if pause is Pause.DDL:
                    raise WideWindowError("the schema of a table was changed while snapshots were opened")
                if len(transactions.changes) > KEYS_LOOKED_UP or transactions.part_waits(KEYS_LOOKED_UP):
                    raise WideWindowError("too many rows were changed while snapshots were opened")
                if pause is Pause.EMPTY:
                    break
        return transactions.changes


def keys_of(changes: Iterable[RowChange], tables: Mapping[TableName, Table]) -> dict[str, set[Key]]:
    """Table to the keys that its changed rows had before and have now."""
    keys = {name: TableKey(table) for name, table in tables.items()}
    found: dict[str, set[Key]] = {}
    for name, before, after in changes:
        found.setdefault(name[1], set()).update(
            keys[name].of(row) for row in (before, after) if row is not None
        )
    return found


def same_moment(
    touched: Mapping[str, set[Key]],
    tables: Mapping[str, Table],
    sources: Sequence[Place],
    targets: Sequence[Place],
) -> bool:
    """Whether each row of the keys ``touched``, by table, is the same in the snapshots of both sides."""
    for name, keys in touched.items():
        table = tables[name]
        key = TableKey(table)
        listed = sorted(keys)
        for start in range(0, len(listed), _KEYS_A_STATEMENT):
            part = listed[start : start + _KEYS_A_STATEMENT]
            ours, theirs = (_digests(side, key, table, part) for side in (sources, targets))
            if ours != theirs or b"" in ours:
                return False
    return True


def _digests(places: Sequence[Place], key: TableKey, table: Table, keys: Sequence[Key]) -> list[bytes]:
    found: list[bytes] = []
    for place, session in places:
        rows = session.query_all(
            f"SELECT {row_hash(table)} FROM {walked(place, key, table.name)} WHERE {key.any_of(keys)}"
        )
        found += [digest or b"" for (digest,) in rows]
    return sorted(found)
