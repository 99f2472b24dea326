"""Who else wrote to the moving tables on the targets: their own logs are read between two positions.

Each transaction of a mover changes a row of the sidecar beside the rows it writes; one that changes rows of a
moving table and no such row is somebody else's. It compares no rows and knows no verification.

Invariant: a table that is not named was changed by movers only, and by no schema statement, between the two
positions, as far as the log tells (a session with ``sql_log_bin=0`` writes none).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping, Sequence

from homeworld.model.errors import DeadlineExceededError, HomeworldError, StoppedError
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.changes import FeedBatch, TableName, reached_by
from homeworld.replication.feed import Feed
from homeworld.replication.snapshots import common_position
from homeworld.replication.tables import definition_session, read_table

SECONDS = 120.0
_EVENTS = 5000
_WAIT = 0.2
_PREPARED = re.compile(r"\s*CREATE (DATABASE|TABLE) IF NOT EXISTS\b", re.IGNORECASE)
_MARKS = frozenset({(sidecar.SCHEMA, "streams"), (sidecar.SCHEMA, "copies")})


def foreign_writes(
    targets: Sequence[ShardPlace],
    names: Sequence[str],
    since: Mapping[str, str],
    until: Mapping[str, str],
    stopping: threading.Event,
) -> dict[str, str]:
    """The tables that somebody else wrote to, each with what was found.

    :param since: target shard to position; ``until`` the same.
    :raises HomeworldError: it cannot be told.
    """
    found: dict[str, str] = {}
    servers: dict[str, list[ShardPlace]] = {}
    for place in targets:
        servers.setdefault(place.endpoint.server_id, []).append(place)
    for places in servers.values():
        endpoint = places[0].endpoint
        begin, end = (
            [Position.parse(endpoint.flavor, told[place.shard]) for place in places]
            for told in (since, until)
        )
        if not all(later.contains(earlier) for earlier, later in zip(begin, end, strict=True)):
            raise HomeworldError(
                f"the log of the server of {places[0].keyspace}/{places[0].shard} began anew"
            )
        log = _Log(endpoint, places, names)
        log.read(common_position(begin), end, stopping)
        found.update(log.found)
    return found


class _Log:
    """One server's log."""

    def __init__(self, endpoint: Endpoint, places: Sequence[ShardPlace], names: Sequence[str]) -> None:
        self.found: dict[str, str] = {}
        self._endpoint = endpoint
        self._where = {place.schema: f"{place.keyspace}/{place.shard}" for place in places}
        self._tables: dict[TableName, Table] = {}
        with definition_session(endpoint) as connection:
            for schema, name in (*_MARKS, *((place.schema, name) for place in places for name in names)):
                self._tables[schema, name] = read_table(connection, schema, name)
        self._changed: set[TableName] = set()
        self._own = False

    def read(self, begin: Position, end: Sequence[Position], stopping: threading.Event) -> None:
        deadline = time.monotonic() + SECONDS
        with Feed(self._endpoint, str(begin), self._tables) as feed:
            feed.give_singly(singly=True)
            reached = begin
            while not all(reached.contains(each) for each in end):
                if stopping.is_set():
                    raise StoppedError("the comparison was stopped")
                if time.monotonic() > deadline:
                    raise DeadlineExceededError("reading the targets' logs takes too long")
                batch = feed.read_batch(_EVENTS, _WAIT)
                self._take(batch)
                if batch.ddl:
                    feed.set_tables(self._tables)
                if not batch.mid_transaction:
                    reached = reached_by(self._endpoint.flavor, batch)

    def _take(self, batch: FeedBatch) -> None:
        if batch.discard_unfinished:
            self._changed.clear()
            self._own = False
        for table, _, _ in batch.changes:
            if table in _MARKS:
                self._own = True
            else:
                self._changed.add(table)
        if not batch.mid_transaction:
            if not self._own:
                for schema, name in self._changed:
                    self.found[name] = f"somebody else wrote to it on {self._where[schema]}"
            self._changed.clear()
            self._own = False
        for ddl in batch.ddl:
            for schema, name in ddl.tables:
                if schema == sidecar.SCHEMA:
                    if _PREPARED.match(ddl.sql):
                        continue  # each mover begins so; MySQL logs it where the table was there, too
                    raise HomeworldError("the sidecar's tables were altered")
                self.found[name] = f"its definition was changed on {self._where[schema]}"
                self._tables.pop((schema, name), None)
