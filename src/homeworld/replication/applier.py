"""Carrying outcomes out on the targets: rows and position in one transaction per target shard.

It knows no feed and no chunks. Each target has one session and one thread of its own, so that the targets
work at the same time. A deadlock or lock timeout rolls the transaction of that target back and is told, not
repeated here, because the caller may have to let go of something first.

Invariant: a target's stored position and the rows that it names become visible together, for the newest epoch
only; what is open when anything fails is rolled back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from homeworld.model.errors import ConnectionLostError, HomeworldError, ServerError
from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.changes import TableName
from homeworld.replication.chunks import Outcome
from homeworld.replication.coalesce import Fresh
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import Key
from homeworld.replication.loading import RowWriter
from homeworld.replication.sidecar import StreamId

_log = logging.getLogger(__name__)
#: Lock timeout, deadlock: the transaction is gone and may be done again.
_AGAIN = frozenset({1205, 1213})
FLUSH_SECONDS = 5.0
ANSWER_SECONDS = 6 * 3600.0
"""A target may be silent for as long as building a key that lets no writer in takes."""


class TryAgainError(HomeworldError):
    """The target's transaction met another's locks and was rolled back."""

    code = "try_again"
    retryable = True


class ContestedError(TryAgainError):
    """A row that came to be on the source is on the target already: it may be another source shard's.

    :param name: the table on the source.
    """

    def __init__(self, name: TableName) -> None:
        self.name = name
        super().__init__(f"rows that are new to {'.'.join(name)} are on the target already")


def write_session(place: ShardPlace, lock_wait_seconds: int) -> Connection:
    """A session for writing rows: READ COMMITTED, so that no gaps are locked; unique keys are checked."""
    connection = Connection(place.endpoint, timeout_seconds=ANSWER_SECONDS)
    connection.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
    connection.execute(f"SET SESSION innodb_lock_wait_timeout={lock_wait_seconds:d}, unique_checks=1")
    return connection


def or_again(error: ServerError) -> HomeworldError:
    """TryAgainError where the error is a matter of locks, else ``error``. The caller rolls back."""
    return TryAgainError(str(error)) if error.server_errno in _AGAIN else error


class TargetApplier:
    """One target shard's session of one source server's applier. Used by one thread at a time.

    :param streams: the streams from this source server to this target.
    :param writers: by source table; may be exchanged between two transactions.
    :param kept: what the sidecar has of ``verdicts``.

    * ``verdicts``: what was decided of rows of several source shards; kept with the next position.
    """

    def __init__(
        self,
        place: ShardPlace,
        epoch: int,
        streams: Sequence[StreamId],
        writers: Mapping[TableName, RowWriter],
        lock_wait_seconds: int,
        kept: str = "",
    ) -> None:
        self.place = place
        self.streams = tuple(streams)
        self.writers = dict(writers)
        self.events = 0
        self.verdicts = self._kept = kept
        self._epoch = epoch
        self._connection = write_session(place, lock_wait_seconds)
        self._open = False
        self._waiting_events = 0
        self._flushed = time.monotonic()
        self._saved = ""

    def apply(
        self,
        outcome: Mapping[TableName, Outcome],
        events: int,
        position: str | None,
        fresh: Mapping[TableName, Collection[Key]] | None = None,
    ) -> None:
        """Carry out one batch. ``position`` None: the source's transaction goes on, so this one stays open.

        A position alone is written only now and then: what it saves is time after a restart.

        :param fresh: keys whose rows no other source shard may have put here; None: there is no other.
        :raises ContestedError: one of them is here already; rolled back.
        :raises TryAgainError: rolled back; nothing of the open transaction is there.
        :raises FencedError: another epoch has taken over; rolled back.
        """
        if not self._open and not any(outcome.values()):
            if position is not None and time.monotonic() - self._flushed >= FLUSH_SECONDS:
                try:
                    self.flush(position)
                except ServerError as error:
                    if not isinstance(or_again(error), TryAgainError):
                        raise
                    self._flushed = time.monotonic()  # somebody has the row locked: later
            return
        try:
            if not self._open:
                self._connection.execute("START TRANSACTION")
                self._open = True
            if fresh is None:
                self._carry_out(outcome)
            else:
                self._carry_out_beside_others(outcome, fresh)
            self._waiting_events += events
            if position is not None:
                self._commit(position)
        except ServerError as error:
            self.rollback()
            raise or_again(error) from error
        except BaseException:
            self.rollback()
            raise

    def _carry_out(self, outcome: Mapping[TableName, Outcome]) -> None:
        for name, keys in outcome.items():
            gone = [key for key, row in keys.items() if row is None]
            if gone:
                self.writers[name].take_out(self._connection, gone)
        for name, keys in outcome.items():
            here = [row for row in keys.values() if row is not None]
            if here:
                self.writers[name].put(self._connection, here)

    def _carry_out_beside_others(
        self, outcome: Mapping[TableName, Outcome], fresh: Mapping[TableName, Collection[Key]]
    ) -> None:
        """The same where rows of other source shards may be in the table: nothing of theirs is displaced."""
        for name, keys in outcome.items():
            writer, new = self.writers[name], fresh.get(name, ())
            gone = [key for key, row in keys.items() if key not in new and (row is None or not writer.alone)]
            passed = [key for key, row in keys.items() if row is None and key in new]
            if gone:
                writer.take_out(self._connection, gone)
            if passed and writer.any_there(self._connection, passed):
                raise ContestedError(name)
        for name, keys in outcome.items():
            writer, new = self.writers[name], fresh.get(name, ())
            # What was there before has only its own row in its way, where there is no other unique key.
            put = [row for key, row in keys.items() if row is not None and key not in new and writer.alone]
            added = [row for key, row in keys.items() if row is not None and (key in new or not writer.alone)]
            if put:
                writer.put(self._connection, put)
            if added and not writer.add(self._connection, added):
                raise ContestedError(name)

    def _commit(self, position: str) -> None:
        sidecar.save_position(self._connection, self.streams, self._epoch, position, self._waiting_events)
        if self.verdicts != self._kept:
            sidecar.save_verdicts(self._connection, self.streams[0], self.verdicts)
        self._connection.execute("COMMIT")
        self._kept = self.verdicts
        self._open = False
        self.events += self._waiting_events
        self._waiting_events = 0
        self._flushed = time.monotonic()
        self._saved = position

    def catch_up(self, position: str) -> None:
        """Write the position unless it is the last one written.

        :raises FencedError: another epoch has taken over.
        """
        if self._saved != position:
            self.flush(position)

    def flush(self, position: str, definitions: Sequence[tuple[StreamId, Table]] = ()) -> None:
        """Write the position now, and what the source's tables are from there on.

        :raises FencedError: another epoch has taken over.
        """
        self._connection.execute("START TRANSACTION")
        self._open = True
        try:
            for stream, table in definitions:
                sidecar.save_definition(self._connection, stream, self._epoch, table)
            self._commit(position)
        except BaseException:
            self.rollback()
            raise

    def rollback(self) -> None:
        """Undo what is open. No-op where nothing is, or the connection is lost (the server does it then)."""
        try:
            if self._open and not self._connection.closed:
                self._connection.execute("ROLLBACK")
        except ConnectionLostError as error:
            _log.info("the session of %s was lost before it was rolled back: %s", self.place.shard, error)
        finally:
            self._open = False
            self._waiting_events = 0

    def stop_before(self, position: str) -> None:
        """Remember that a DDL after ``position`` stopped the streams."""
        self._connection.execute("START TRANSACTION")
        self._open = True
        try:
            for stream in self.streams:
                sidecar.save_stop(self._connection, stream, self._epoch, position)
            self._connection.execute("COMMIT")
            self._open = False
        except BaseException:
            self.rollback()
            raise

    def cut(self) -> None:
        """End the session from any thread: a call under way fails."""
        self._connection.abort()

    def close(self) -> None:
        """End the session; what is open is rolled back."""
        self._connection.close()


class Appliers:
    """All targets of one source server's applier, working side by side.

    :param ahead: up to where targets have what others lack; what is read again is nothing for them.

    * ``contested``: on which targets a row was in the way, by its table; whoever decides it takes it out.
    """

    def __init__(self, targets: Sequence[TargetApplier], ahead: Mapping[int, Position] | None = None) -> None:
        self.targets = tuple(targets)
        self.contested: dict[int, TableName] = {}
        self._ahead = dict(ahead or {})
        self._pool = ThreadPoolExecutor(max_workers=len(self.targets), thread_name_prefix="apply")

    def apply(
        self,
        outcomes: Sequence[Mapping[TableName, Outcome]],
        events: Sequence[int],
        position: str | None,
        only: Sequence[int],
        fresh: Fresh | None = None,
    ) -> tuple[int, ...]:
        """Carry a batch out on the targets ``only``; those whose transaction has to be done again.

        :raises HomeworldError: the first failure that doing it again does not mend, once all have ended.
        """
        if len(only) == 1:
            (at,) = only
            return () if self._one(at, outcomes, events, position, fresh) else (at,)
        running: list[tuple[int, Future[bool]]] = [
            (at, self._pool.submit(self._one, at, outcomes, events, position, fresh)) for at in only
        ]
        failures = [error for _, future in running if (error := future.exception()) is not None]
        if failures:
            raise failures[0]
        return tuple(at for at, future in running if not future.result())

    def _one(
        self,
        at: int,
        outcomes: Sequence[Mapping[TableName, Outcome]],
        events: Sequence[int],
        position: str | None,
        fresh: Fresh | None,
    ) -> bool:
        try:
            self.targets[at].apply(outcomes[at], events[at], position, None if fresh is None else fresh[at])
        except ContestedError as error:
            self.contested[at] = error.name
            return False
        except TryAgainError:
            return False
        return True

    @property
    def uneven(self) -> bool:
        """Whether some target is ahead of others."""
        return bool(self._ahead)

    def lacking(self, position: Position) -> tuple[int, ...]:
        """The targets that have not all of a batch which ends at ``position``."""
        ahead = self._ahead
        return tuple(
            at for at in range(len(self.targets)) if at not in ahead or not ahead[at].contains(position)
        )

    def leave_behind(self, behind: Collection[int], position: Position) -> None:
        """All targets but these have everything up to ``position``, which is read again."""
        for at in range(len(self.targets)):
            if at not in behind and (at not in self._ahead or position.contains(self._ahead[at])):
                self._ahead[at] = position

    def reach(self, position: Position) -> None:
        """All targets have everything up to ``position``."""
        self._ahead = {at: until for at, until in self._ahead.items() if not position.contains(until)}

    def flush(self, position: str) -> None:
        """Write the position on all targets that are not ahead of it."""
        for at, target in enumerate(self.targets):
            if at not in self._ahead:
                target.flush(position)

    def catch_up(self, position: str) -> None:
        """Write the position on the targets that do not have it."""
        for at, target in enumerate(self.targets):
            if at not in self._ahead:
                target.catch_up(position)

    def rollback(self) -> None:
        """Undo what is open on any target."""
        for target in self.targets:
            target.rollback()

    def cut(self) -> None:
        """End all sessions from any thread."""
        for target in self.targets:
            target.cut()

    def close(self) -> None:
        """End all sessions and threads."""
        self._pool.shutdown()
        for target in self.targets:
            target.close()
