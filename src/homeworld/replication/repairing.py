"""Putting right the rows that a verification found to differ: each is copied once more from the source.

The gate of the source's follower is held from the snapshot to the commits, at a settled position *p*. So the
snapshot shows everything that was applied, no change is applied in between, and what the snapshot shows
beyond *p* is a later change that the stream gives again: a put whose time is not older than the stream's
position, which is all that docs/decisions/data-path.md asks of one. It decides nothing: whether the sides are
equal then is for the comparison to say, which comes after.

Invariants: each target's rows and the proof that this epoch still owns the stream commit together; the shard
that a row belongs to has it before another shard's copy is taken away.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from homeworld.model.errors import InvalidError, ServerError, StoppedError, UnavailableError
from homeworld.model.topology import ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.applier import TryAgainError, or_again, write_session
from homeworld.replication.assembly import LOCK_SECONDS, Assembly, stream_id
from homeworld.replication.changes import Row
from homeworld.replication.connection import Connection
from homeworld.replication.follower import Follower
from homeworld.replication.json_types import DocumentReader, with_documents
from homeworld.replication.keyorder import Key
from homeworld.replication.lanes import walked
from homeworld.replication.loading import select_list
from homeworld.replication.moving import MovingTable
from homeworld.replication.snapshots import open_snapshot

KEYS_AT_ONCE = 100
ATTEMPTS = 100
SNAPSHOT_SECONDS = 5.0
_PAUSE_SECONDS = 0.05


def refusal(made: Assembly) -> str:
    """Why rows of this move cannot be put right exactly; empty: they can."""
    if len(made.spec.sources) > 1:
        return (
            "rows come from several source shards, and which of them is right nobody can tell; put them right"
            " on the sources, or cancel and create anew"
        )
    return ""


class Repairer:
    """Puts rows of a move with one source shard right. One thread's work; :meth:`close` it.

    :raises UnavailableError: a server cannot be reached.
    """

    def __init__(self, made: Assembly, stopping: threading.Event) -> None:
        self._made = made
        self._stopping = stopping
        self._source = Connection(made.spec.sources[0].endpoint)
        self._targets: list[Connection] = []
        try:
            for place in made.spec.targets:
                self._targets.append(write_session(place, LOCK_SECONDS))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the sessions; what was open is rolled back."""
        for session in (self._source, *self._targets):
            session.close()

    def cut(self) -> None:
        """Cut the sessions, from any thread."""
        for session in (self._source, *self._targets):
            session.abort()

    def repair(self, name: str, keys: Sequence[Key]) -> None:
        """Copy the rows of these keys of a table once more.

        :raises RowRefusedError: a target does not take a row as it is.
        :raises FencedError: a newer mover owns the stream.
        :raises UnavailableError: locks of others were in the way for too long.
        """
        follower = self._made.follower_of(self._made.spec.sources[0].shard)
        table = next(table for table in self._made.tables if table.table.name == name)
        for start in range(0, len(keys), KEYS_AT_ONCE):
            if self._stopping.is_set():
                raise StoppedError("the repair was stopped")
            self._part(follower, table, keys[start : start + KEYS_AT_ONCE])

    def _part(self, follower: Follower, table: MovingTable, keys: Sequence[Key]) -> None:
        for _ in range(ATTEMPTS):
            try:
                with follower.gate:
                    if follower.settled and not table.closed:
                        self._copy(follower.position, table, keys)
                        return
            except TryAgainError:
                pass  # whoever has the locks may be waiting for the gate
            if self._stopping.wait(_PAUSE_SECONDS):
                raise StoppedError("the repair was stopped")
        raise UnavailableError(f"rows of table {table.table.name!r} have been locked by another for too long")

    def _copy(self, position: str, table: MovingTable, keys: Sequence[Key]) -> None:
        rows = self._read(position, table, keys)
        # First where rows belong; the shards that have none of them come last.
        order = sorted(range(len(self._targets)), key=lambda at: not rows[at])
        for at in order:
            session, writer = self._targets[at], table.writers[at]
            stream = stream_id(self._made.spec, table.source, self._made.spec.targets[at])
            try:
                session.execute("START TRANSACTION")
                writer.take_out(session, keys)
                writer.put(session, rows[at])
                sidecar.save_position(session, [stream], self._made.spec.epoch, position, 0)
                session.execute("COMMIT")
            except BaseException as error:
                if not session.closed:
                    session.execute("ROLLBACK")
                if isinstance(error, ServerError):
                    raise or_again(error) from error
                raise

    def _read(self, position: str, table: MovingTable, keys: Sequence[Key]) -> list[list[Row]]:
        """The source's rows of these keys, for each target."""
        place: ShardPlace = table.source
        needed = {*table.key.positions, *table.route.vindex_columns}
        documents = DocumentReader(table.table)
        open_snapshot(self._source, position, SNAPSHOT_SECONDS)
        try:
            found = self._source.query_all(
                f"SELECT {select_list(table.table, needed)}{documents.listed} FROM "
                f"{walked(place, table.key, table.table.name)} WHERE {table.key.any_of(keys)}"
            )
        finally:
            if not self._source.closed:
                self._source.execute("ROLLBACK")
        rows: list[list[Row]] = [[] for _ in self._targets]
        for row in with_documents(documents, found):
            at = table.route.place(row)
            if not 0 <= at < len(rows):
                raise InvalidError(f"a row of table {table.table.name!r} belongs to no target shard")
            rows[at].append(row)
        return rows
