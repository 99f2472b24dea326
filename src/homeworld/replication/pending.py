"""What a source server's log has yet to say of some keys: read ahead of the follower, for the answer alone.

Whether a row on a target is another shard's can be told by nothing on the row. But if it is, and that shard
has it no more, its log takes it away between where its follower is and now. Reading on waits for nobody, so
that followers which need each other's answer do not wait in a circle.

Invariant: None is given only where no transaction in between takes a row of the keys that was there before.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor
from homeworld.replication.changes import FeedBatch, reached_by
from homeworld.replication.feed import Feed
from homeworld.replication.keyorder import Key
from homeworld.replication.moving import MovingTable

_EVENTS = 2000
_WAIT_SECONDS = 0.2


def last_taken(
    tables: Sequence[MovingTable],
    start: str,
    until: Position,
    keys: Collection[Key],
    stopping: threading.Event,
    deadline: float,
) -> str | None:
    """The end of the last transaction that takes or changes a row of ``keys`` which was there at ``start``.

    :param tables: of one server; a key is any of theirs.
    :param start: the position from which the log is read, to ``until``.
    :param deadline: monotonic time.
    :returns: a position; None: there is none. All of ``until`` where a schema change hides what follows.
    :raises DeadlineExceededError: it could not be read in time, or the mover is being stopped.
    :raises SourceLogError: the log cannot be read.
    """
    endpoint = tables[0].source.endpoint
    known = _Known({table.name: table for table in tables}, frozenset(keys))
    definitions = {table.name: table.table for table in tables}
    # As for the follower, whose position it reads from.
    elsewhere = endpoint.flavor is Flavor.MARIADB
    with Feed(endpoint, start, definitions, prepared_elsewhere=elsewhere) as feed:
        feed.give_singly(singly=True)
        reached = Position.parse(endpoint.flavor, start)
        found: str | None = None
        while not reached.contains(until):
            if stopping.is_set() or time.monotonic() > deadline:
                raise DeadlineExceededError("the log of another source server could not be read in time")
            batch = feed.read_batch(_EVENTS, _WAIT_SECONDS)
            if batch.ddl:
                return str(until)
            if known.taken(batch):
                found = batch.unfinished or batch.position
            reached = reached_by(endpoint.flavor, batch)
    return found


class _Known:
    """Which of the keys were there at the start, as far as the log says."""

    def __init__(self, tables: dict[tuple[str, str], MovingTable], keys: frozenset[Key]) -> None:
        self._of = {name: table.key.of for name, table in tables.items()}
        self._keys = keys
        self._came = {name: set[Key]() for name in tables}

    def taken(self, batch: FeedBatch) -> bool:
        """Whether the batch takes or changes such a row."""
        found = False
        for name, before, after in batch.changes:
            of, came = self._of[name], self._came[name]
            if before is not None:
                key = of(before)
                found = found or (key in self._keys and key not in came)
            if after is not None and (before is None or of(before) != of(after)):
                came.update({of(after)} & self._keys)
        return found
