"""Copying rows chunk by chunk, while the follower keeps what changes meanwhile.

A copier is one thread with a session on each source and target. For each chunk it takes a gap of a table's
map, cuts it, begins it between two applied batches, reads a snapshot that shows all that had been passed by
then, loads each target's rows in a transaction, and ends it under the gate: what was kept goes on top, the
checkpoint goes along, commit. It knows no feed.

Invariant: a chunk's rows, kept changes and checkpoint become visible on a target together or not at all, and
rows older than the follower's position never displace others (docs/decisions/data-path.md, rule 4).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

from homeworld.model.errors import HomeworldError, RowRefusedError, ServerError, UnavailableError
from homeworld.model.names import quote
from homeworld.model.topology import Endpoint, ShardPlace
from homeworld.replication import sidecar
from homeworld.replication.applier import TryAgainError, or_again, write_session
from homeworld.replication.changes import Row
from homeworld.replication.chunks import Chunk, Outcome, Span
from homeworld.replication.coalesce import lay_over
from homeworld.replication.connection import Connection
from homeworld.replication.contest import Hit, hits, holders, still_had, told
from homeworld.replication.ddl import alike
from homeworld.replication.follower import Follower
from homeworld.replication.json_types import DocumentReader, with_documents
from homeworld.replication.keyorder import Key
from homeworld.replication.loading import Addition, add_together, select_list
from homeworld.replication.moving import MovingTable
from homeworld.replication.positions import current_position
from homeworld.replication.rivals import PATIENCE_SECONDS
from homeworld.replication.snapshots import open_snapshot
from homeworld.replication.tables import read_columns
from homeworld.replication.throttle import Throttle, rest_after

AIM_BYTES = 2 << 20
MOST_BYTES = 16 << 20
MOST_ROWS = 50_000
SNAPSHOT_SECONDS = 60.0
LOCK_SECONDS = 1
ATTEMPTS = 30
"""How often one chunk is begun anew before the mover gives up (and may be started again); with several source
shards, where no two of them have a key at one time, it goes on until their logs have told what they had to.
"""

ALTERED_SECONDS = 0.5
AGAIN_SECONDS = 0.1
LATER_SECONDS = 1.0

_PAUSE_SECONDS = 0.02
_WAIT_SECONDS = 0.1
# The table was altered under the snapshot, or has not the columns that the log says it has by now.
_CHANGED = 1412
_ALTERED = frozenset({1054, _CHANGED, 1146})


class _NothingNowError(HomeworldError):
    """The table has no chunk to give now."""


@dataclass(frozen=True, slots=True)
class _Begun:
    """A chunk under way. Its snapshot must show ``position``; it is void once the table's version moves."""

    chunk: Chunk
    position: str
    version: int


class _Patience:
    """Until all followers have passed what their logs had when it was asked first, and a try after that."""

    def __init__(self, followers: Mapping[str, Follower]) -> None:
        self._followers = followers
        self._wanted: dict[str, str] = {}
        self._passed = False
        self._deadline = time.monotonic() + PATIENCE_SECONDS

    def over(self) -> bool:
        """Whether there is nothing left to wait for."""
        if self._passed or time.monotonic() > self._deadline:
            return True
        for server_id, follower in self._followers.items():
            if server_id not in self._wanted:
                time.sleep(AGAIN_SECONDS)  # a position names a transaction a moment after that can be seen
                with Connection(follower.endpoint) as connection:
                    self._wanted[server_id] = current_position(connection, follower.endpoint.flavor)
        self._passed = all(self._followers[at].passed(until, 0.0) for at, until in self._wanted.items())
        return False


@dataclass(slots=True, eq=False)
class CopyBoard:
    """What the copiers of a mover share: the tables in the order in which they are taken up.

    :param followers: by source server id.
    """

    epoch: int
    tables: Sequence[MovingTable]
    targets: Sequence[ShardPlace]
    followers: Mapping[str, Follower]
    throttle: Throttle
    stopping: threading.Event
    several_sources: bool
    chunk_bytes: int = AIM_BYTES

    def follower(self, table: MovingTable) -> Follower:
        """Who follows the table's server."""
        return self.followers[table.source.endpoint.server_id]

    def complete(self) -> bool:
        """Whether every row of every table has landed."""
        for table in self.tables:
            with self.follower(table).gate:
                if not table.map.complete:
                    return False
        return True


class Copier:
    """One copying thread. ``run`` returns when nothing is left to copy."""

    def __init__(self, board: CopyBoard) -> None:
        self._board = board
        self._sources: dict[str, Connection] = {}
        self._lookers: dict[str, Connection] = {}
        self._targets: dict[int, Connection] = {}
        self._altered = 0

    def run(self) -> None:
        """Copy until every table is complete, or stopped.

        :raises HomeworldError: copying cannot go on.
        """
        board = self._board
        try:
            while not board.stopping.is_set():
                begun = time.monotonic()
                if board.throttle.reason():
                    board.stopping.wait(_WAIT_SECONDS)
                elif any(self._copy_next(table) for table in board.tables):
                    self._rest(time.monotonic() - begun)
                elif board.complete():
                    return
                else:
                    board.stopping.wait(_PAUSE_SECONDS)
        finally:
            self.close()

    def _rest(self, worked_seconds: float) -> None:
        """Rest for the share of the time that is asked for; what is asked may change meanwhile."""
        board, begun = self._board, time.monotonic()
        while not board.stopping.is_set() and not board.complete():
            left = rest_after(worked_seconds, board.throttle.ratio) - (time.monotonic() - begun)
            if left <= 0:
                return
            board.stopping.wait(min(left, _WAIT_SECONDS))

    def cut(self) -> None:
        """End all sessions from any thread."""
        for connection in (*self._sources.values(), *self._lookers.values(), *self._targets.values()):
            connection.abort()

    def close(self) -> None:
        """Give the sessions back; what is open is rolled back."""
        for connection in (*self._sources.values(), *self._lookers.values(), *self._targets.values()):
            connection.close()

    def _copy_next(self, table: MovingTable) -> bool:
        """Copy one chunk of the table; False where it has none to give now."""
        if not table.planning.acquire(blocking=False):
            return False
        try:
            begun = self._begin(table)
        except _NothingNowError:
            return False
        finally:
            table.planning.release()
        gate = self._board.follower(table).gate
        try:
            self._copy(table, begun)
        except ServerError as error:
            if error.server_errno not in _ALTERED:
                raise
            self._undo()
            # Its view would be the same at the next try, and it keeps others from altering the table.
            for session in self._sources.values():
                if not session.closed:
                    session.execute("ROLLBACK")
            self._altered += 1
            if self._altered > ATTEMPTS:
                raise UnavailableError(f"table {table.table.name!r} cannot be read: {error}") from error
            self._board.stopping.wait(ALTERED_SECONDS)
        else:
            self._altered = 0
        finally:
            with gate:
                table.map.give_up(begun.chunk)
        return True

    def _begin(self, table: MovingTable) -> _Begun:
        follower = self._board.follower(table)
        with follower.gate:
            gap = None if table.closed else table.map.next_gap()
        if gap is None:
            raise _NothingNowError
        try:
            high = self._cut_at(table, gap)
        except ServerError as error:
            if error.server_errno in _ALTERED:
                raise _NothingNowError from error
            raise
        while not self._board.stopping.is_set():
            with follower.gate:
                if table.closed:
                    break
                if follower.settled:
                    return _Begun(table.map.begin(Span(gap.low, high)), follower.position, table.version)
            self._board.stopping.wait(_PAUSE_SECONDS)
        raise _NothingNowError

    def _cut_at(self, table: MovingTable, gap: Span) -> Key | None:
        """Where a chunk of the wanted size that begins the gap ends."""
        key = table.key
        columns = ", ".join(column.name for column in key.columns)
        rows = self._source(table.source.endpoint).query_all(
            f"SELECT {columns} FROM {_walked(table)} {_where(table, gap)} ORDER BY {key.order_by} "
            f"LIMIT 1 OFFSET {table.rows_a_chunk - 1:d}"
        )
        return tuple(value or b"" for value in rows[0]) if rows else gap.high

    def _copy(self, table: MovingTable, begun: _Begun) -> None:
        """Read the chunk and land it on its targets, unless the table changes meanwhile."""
        rows = self._read(table, begun)
        held_back: set[int] = set()
        gate = self._board.follower(table).gate
        patience = _Patience(self._board.followers)
        for attempt in count(1):
            held_back |= self._load(table, rows, sorted(set(begun.chunk.targets) - held_back))
            with gate:
                if self._board.stopping.is_set() or table.version != begun.version:
                    self._undo()
                    return
                for target in begun.chunk.targets:
                    self._land(table, begun.chunk, target, rows[target], held_back)
            if not begun.chunk.kept:
                return
            if attempt >= ATTEMPTS:
                self._judge(table, begun.chunk, rows, held_back, patience)
            self._board.stopping.wait(AGAIN_SECONDS if attempt < ATTEMPTS else LATER_SECONDS)

    def _read(self, table: MovingTable, begun: _Begun) -> dict[int, list[Row]]:
        """The chunk's rows for each target that needs them. Where they are too many it ends earlier."""
        chunk = begun.chunk
        rows: dict[int, list[Row]] = {target: [] for target in chunk.targets}
        appends = [rows[at].append if at in rows else _pass for at in range(len(self._board.targets))]
        place = table.route.place
        needed = {*table.key.positions, *table.route.vindex_columns}
        source = self._source(table.source.endpoint)
        open_snapshot(source, begun.position, SNAPSHOT_SECONDS)
        documents = DocumentReader(table.table)
        sql = (
            f"SELECT {select_list(table.table, needed)}{documents.listed} FROM {_walked(table)} "
            f"{_where(table, chunk.span)} ORDER BY {table.key.order_by}"
        )
        stream = cast("Generator[list[Row]]", source.query_batches(sql))
        count = size = 0
        for read in stream:
            batch = with_documents(documents, read)
            for row in batch:
                appends[place(row)](row)
            count += len(batch)
            size += _size(batch)
            if size > MOST_BYTES:
                stream.close()  # ends the session too: the rest of the answer is in its way
                self._end_early(table, chunk, table.key.of(batch[-1]))
                break
        # Behind what was read, and before its transaction ends, beside which nobody can alter the table: by
        # another definition than the stream's bytes may mean something else, and no change would ever correct
        # them. On another session, as MySQL's catalogue is as old as the snapshot.
        looking = self._looking(table.source.endpoint)
        if not alike(read_columns(looking, table.source.schema, table.table.name), table.table.columns):
            raise ServerError(_CHANGED, "HY000", "the table is not yet as the stream knows it")
        self._source(table.source.endpoint).execute("COMMIT")
        if count:
            table.rows_a_chunk = max(1, min(MOST_ROWS, self._board.chunk_bytes * count // max(size, 1)))
        return rows

    def _end_early(self, table: MovingTable, chunk: Chunk, high: Key) -> None:
        follower = self._board.follower(table)
        order = self._source(table.source.endpoint) if table.key.on_server else None
        with follower.gate:
            if chunk.span.high == high:
                return
            table.map.shorten(chunk, high)
            for kept in chunk.kept.values():
                keys = list(kept)
                for key, rank in zip(keys, table.key.ranks(order, keys, [high]), strict=True):
                    if rank:
                        del kept[key]

    def _load(
        self, table: MovingTable, rows: Mapping[int, Sequence[Row]], targets: Sequence[int]
    ) -> set[int]:
        """Load each target's rows in a transaction that stays open, all at the same time; the targets where
        unique keys are in their way, on which nothing is open.

        Met by locks, it is tried again.
        """
        held_back: set[int] = set()
        for _ in range(ATTEMPTS):
            additions: list[Addition] = []
            for target in targets:
                session = self._target(target)
                session.execute("START TRANSACTION")
                additions.append(Addition(table.writers[target], session, rows[target]))
            met: list[int] = []
            problem: ServerError | None = None
            for target, added in zip(targets, add_together(additions), strict=True):
                if added is True:
                    continue
                self._target(target).execute("ROLLBACK")
                if added is False:
                    held_back.add(target)
                elif isinstance(or_again(added), TryAgainError):
                    met.append(target)
                else:
                    problem = added
            if problem is not None:
                raise problem
            if held_back and table.alone and not self._board.several_sources:
                raise RowRefusedError(told(table, ()))
            if not met or self._board.stopping.wait(_PAUSE_SECONDS):
                return held_back  # where it is to stop, the gate is next, and sends us home
            targets = met
        raise UnavailableError("rows of the target have been locked by another for too long")

    def _land_beside_others(
        self, table: MovingTable, target: int, rows: Sequence[Row], kept: Outcome
    ) -> bool:
        """Lay what was kept over rows just loaded, where other source shards' rows are in the table, too.
        False: it is in the way of one of theirs; roll back.
        """
        session, writer = self._target(target), table.writers[target]
        loaded = set(map(table.key.of, rows)) if kept else set[Key]()
        writer.take_out(session, [key for key in kept if key in loaded])
        return writer.add(session, [row for row in kept.values() if row is not None])

    def _judge(
        self,
        table: MovingTable,
        chunk: Chunk,
        rows: Mapping[int, Sequence[Row]],
        held_back: Collection[int],
        patience: _Patience,
    ) -> None:
        """Give a chunk up that does not land, unless a follower may only be behind: it has yet to say that a
        key has gone from one shard to another.

        :raises RowRefusedError: several shards have rows of one key, or whose they are does not show.
        :raises UnavailableError: somebody else has rows of the target locked.
        """
        if not held_back or not self._board.several_sources:
            # Of one source's rows none is in another's way: what is left is locks.
            raise UnavailableError("rows of the target have been locked by another for too long")
        met = self._met(table, chunk, rows)
        if met or patience.over():
            raise RowRefusedError(told(table, met))

    def _met(
        self, table: MovingTable, chunk: Chunk, rows: Mapping[int, Sequence[Row]]
    ) -> Sequence[tuple[Hit, Sequence[str]]]:
        """What of the chunk is in the way of which other shards, as both have it now; on one target."""
        others = [t for t in self._board.tables if t.name != table.name and t.table.name == table.table.name]
        for target, kept in chunk.kept.items():
            place = self._board.targets[target]
            newest = lay_over(rows[target], table.key, kept)
            found = hits(self._target(target), place.schema, table.table, newest)
            asked = holders(others, list(dict.fromkeys(hit.holder for hit in found)))
            held = [(hit, asked[hit.holder]) for hit in found if hit.holder in asked]
            mine = {table.key.of(row): row for row in newest}
            had, _ = still_had(table, {hit: mine[hit.key] for hit, _ in held if hit.key in mine})
            held = [(hit, shards) for hit, shards in held if hit in had or hit.key not in mine]
            if held:
                return held
        return ()

    def _land(
        self, table: MovingTable, chunk: Chunk, target: int, rows: Sequence[Row], held_back: set[int]
    ) -> None:
        """Under the gate: bring the target up to the follower's position and commit; where locks or (with
        several sources) unique keys forbid it, the target stays among the chunk's.
        """
        session = self._target(target)
        writer = table.writers[target]
        kept = chunk.kept[target]
        try:
            if target in held_back:
                session.execute("START TRANSACTION")
                newest = lay_over(rows, table.key, kept)
                if not self._board.several_sources:
                    writer.put(session, newest)
                elif not writer.add(session, newest):
                    session.execute("ROLLBACK")
                    return
            elif not self._board.several_sources:
                writer.take_out(session, [key for key, row in kept.items() if row is None])
                writer.put(session, [row for row in kept.values() if row is not None])
            elif not self._land_beside_others(table, target, rows, kept):
                session.execute("ROLLBACK")
                held_back.add(target)
                return
            spans = table.map.done_spans(target, landing=chunk)
            stream = table.streams[target]
            sidecar.save_copy(session, stream, self._board.epoch, table.table.name, spans, len(rows))
            session.execute("COMMIT")
        except ServerError as error:
            session.execute("ROLLBACK")
            if not isinstance(or_again(error), TryAgainError):
                raise
            return
        except BaseException:
            session.close()
            raise
        table.map.landed(chunk, target)
        table.rows_copied[target] += len(rows)

    def _undo(self) -> None:
        for session in self._targets.values():
            session.execute("ROLLBACK")

    def _source(self, endpoint: Endpoint) -> Connection:
        session = self._sources.get(endpoint.server_id)
        if session is None or session.closed:
            session = self._sources[endpoint.server_id] = Connection(endpoint)
        return session

    def _looking(self, endpoint: Endpoint) -> Connection:
        session = self._lookers.get(endpoint.server_id)
        if session is None or session.closed:
            session = self._lookers[endpoint.server_id] = Connection(endpoint)
        return session

    def _target(self, target: int) -> Connection:
        if target not in self._targets:
            self._targets[target] = write_session(self._board.targets[target], LOCK_SECONDS)
        return self._targets[target]


def _pass(_row: Row) -> None:
    """The row's target has it already."""


def _size(batch: Sequence[Row]) -> int:
    """About how many bytes the rows have."""
    some = batch if len(batch) < 16 else (batch[0], batch[len(batch) // 2], batch[-1])
    return (
        sum([len(value) + 1 for row in some for value in row if value is not None]) * len(batch) // len(some)
    )


def _walked(table: MovingTable) -> str:
    return f"{quote(table.source.schema, table.table.name)} FORCE INDEX ({quote(table.key.index)})"


def _where(table: MovingTable, span: Span) -> str:
    parts = [table.key.after(span.low)] if span.low is not None else []
    if span.high is not None:
        parts.append(table.key.upto(span.high))
    return f"WHERE {' AND '.join(parts)}" if parts else ""
