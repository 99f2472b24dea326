"""The thread that reads a feed ahead of its applier: a short queue of batches, and what the two agree on.

It knows no tables but to hand them to the feed, and no targets. Each batch carries the generation of the feed
it came from, so that after :meth:`FeedReader.begin_again` nothing of the feed before is seen.

Invariant: batches are taken in the order of the log, without a gap within a generation.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping
from dataclasses import replace
from enum import Enum, auto

from homeworld.model.errors import StoppedError
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication.changes import FeedBatch, RowChange, TableName
from homeworld.replication.feed import Feed
from homeworld.replication.transactions import MOST_BYTES

EVENTS_A_BATCH = 2000
EVENTS_JOINED = 6000
QUEUE = 4
WAIT_SECONDS = 0.2

_Item = tuple[int, FeedBatch | BaseException]


class Singly(Enum):
    """Why transactions are given one by one."""

    HELD = auto()  # somebody wants the applier to rest at an exact position
    AHEAD = auto()  # some target has a part of what is read
    CONTESTED = auto()  # whose row is whose is decided for each by itself


class FeedReader:
    """Reads one server's log ahead. :meth:`run` is one thread's work, the rest is its applier's.

    :param stopping: set by whoever ends the mover; :meth:`stop` must be called then.
    :param prepared_elsewhere: what was prepared (XA) before ``position`` has no rows of the tables.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        position: str,
        tables: Mapping[TableName, Table],
        stopping: threading.Event,
        *,
        prepared_elsewhere: bool = False,
    ) -> None:
        self._endpoint = endpoint
        self._elsewhere = prepared_elsewhere
        self._stopping = stopping
        self._queue: queue.Queue[_Item] = queue.Queue(QUEUE)
        self._generation = 0
        self._start = (position, dict(tables))
        self._feed = self._new_feed()
        self._tables_known = threading.Event()
        self._reading = False
        self._cycles = 0
        self._singly: set[Singly] = set()
        self._changing = threading.Lock()  # the feed, and how it gives transactions

    def _new_feed(self) -> Feed:
        # A MariaDB position names a preparation at once. Where it had rows of the tables it was refused;
        # and no stream begins while anything is prepared. So whatever else is decided is of no interest.
        elsewhere = self._elsewhere or self._endpoint.flavor is Flavor.MARIADB
        return Feed(self._endpoint, *self._start, prepared_elsewhere=elsewhere)

    def run(self) -> None:
        """Read until stopped. What ends a feed is told by :meth:`take`; then it may be begun again."""
        generation = 0
        try:
            while not self._stopping.is_set():
                try:
                    self._read(generation)
                except Exception as error:  # noqa: BLE001  raised again by take(), in the applier's thread
                    self._feed.close()
                    # Whatever ended a feed that nobody wants any more is of no interest.
                    if generation == self._generation:
                        self._put((generation, error))
                    # The applier may begin again before it comes to that, and needs this thread then.
                    while generation == self._generation:
                        if self._stopping.wait(WAIT_SECONDS):
                            return
                    with self._changing:
                        generation = self._generation
                        self._feed = self._new_feed()
                        self._feed.give_singly(singly=bool(self._singly))
        finally:
            self._feed.close()

    def _read(self, generation: int) -> None:
        while not self._stopping.is_set():
            if generation != self._generation:
                raise StoppedError
            self._reading = True
            batch = self._feed.read_batch(EVENTS_A_BATCH, WAIT_SECONDS)
            self._cycles += 1
            self._reading = False
            if batch.ddl:
                self._tables_known.clear()
            self._put((generation, batch))
            if batch.ddl:
                while not self._tables_known.wait(WAIT_SECONDS):
                    if self._stopping.is_set() or generation != self._generation:
                        raise StoppedError
                self._feed.set_tables(self._start[1])

    def _put(self, item: _Item) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(item, timeout=WAIT_SECONDS)
            except queue.Full:
                continue
            return

    def take(self, wait_seconds: float) -> FeedBatch | None:
        """The next batch, or None where none came in time.

        Small ones that wait become one unless they are to be given singly: the more often a key changes, the
        less is to do.

        :raises BaseException: what ended the feed.
        """
        batch = self._one(wait_seconds)
        if batch is None or self._singly or not _joinable(batch):
            return batch
        changes: list[RowChange] = batch.changes
        while len(changes) < EVENTS_JOINED and batch.size < MOST_BYTES:
            waiting = self._queue.queue
            if not waiting or not isinstance(waiting[0][1], FeedBatch) or not _joinable(waiting[0][1]):
                break
            following = self._one(0.0)
            if following is not None:
                changes = [*changes, *following.changes]
                batch = replace(following, changes=changes, size=batch.size + following.size)
        return batch

    def _one(self, wait_seconds: float) -> FeedBatch | None:
        try:
            generation, item = (
                self._queue.get(timeout=wait_seconds) if wait_seconds else self._queue.get_nowait()
            )
        except queue.Empty:
            return None
        if generation != self._generation:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def begin_again(self, position: str, tables: Mapping[TableName, Table]) -> None:
        """Forget what was read and read from ``position`` on."""
        with self._changing:
            self._start = (position, dict(tables))
            self._generation += 1
            ended = self._feed
        ended.stop()

    def go_on_after_ddl(self, tables: Mapping[TableName, Table]) -> None:
        """The batch with a DDL has been dealt with; the tables are these from here on."""
        self._start = (self._start[0], dict(tables))
        self._tables_known.set()

    def give_singly(self, why: Singly, *, singly: bool) -> None:
        """One transaction a batch from now on, or no more for this reason. From any thread.

        A batch under way may hold several; after :meth:`begin_again` none does.
        """
        with self._changing:
            if singly:
                self._singly.add(why)
            else:
                self._singly.discard(why)
            self._feed.give_singly(singly=bool(self._singly))

    def older_batch_is_out(self, seen: int) -> bool:
        """Whether a batch that was being put together at :attr:`cycles` ``seen`` has been closed since."""
        return self._cycles != seen or not self._reading

    @property
    def cycles(self) -> int:
        """How many batches have been read."""
        return self._cycles

    def stop(self) -> None:
        """Let :meth:`run` end; ``stopping`` must be set. From any thread."""
        self._feed.stop()


def _joinable(batch: FeedBatch) -> bool:
    return not batch.ddl and not batch.mid_transaction and not batch.discard_unfinished
