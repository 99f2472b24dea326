"""Verifying a move: both sides are looked at as of one exact position of each source.

Theory of operation. The appliers are held and the feeds give transactions one by one. A snapshot of each
source is opened whose position *g* is known exactly: on MariaDB the snapshot says it; on MySQL the moving
tables are locked for reading while position and snapshot are taken, so that nothing of them lies between.
Each applier goes on to the first end of a transaction that has all of *g* and is held again; what it has
beyond *g* touches none of the tables. Then the targets' snapshots are opened, the appliers go on, and the
comparison has all the time it needs.

Invariant: a verification is completed only when every table was compared to its end on such snapshots;
everything else is an error with its reason.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from homeworld.model.errors import DeadlineExceededError, HomeworldError, ServerError
from homeworld.model.movers import TableVerification, Verification
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.assembly import Assembly
from homeworld.replication.checksum import Sum
from homeworld.replication.coalesce import Route
from homeworld.replication.comparing import Lane, TableComparison
from homeworld.replication.connection import Connection
from homeworld.replication.fence import locked_for_reading
from homeworld.replication.positions import current_position, snapshot_position

HOLD_SECONDS = 30.0
REACH_SECONDS = 600.0
LOCK_SECONDS = 1.0
LOCK_ATTEMPTS = 60
_BETWEEN_ATTEMPTS = 0.5
_LONG_LIST = 1 << 30
_NO_SUCH_FUNCTION = 1305


class Verifier:
    """One verification. ``run`` is one thread's work; the rest may be called from any.

    :param made: a mover whose copy is complete.
    """

    def __init__(self, made: Assembly, verify_id: str, stopping: threading.Event) -> None:
        self._made = made
        self._id = verify_id
        self._stopping = stopping
        self._lock = threading.Lock()
        self._state = "pending"
        self._error = ""
        self._begun = 0.0
        self._tables: list[TableVerification] = []
        self._comparison: TableComparison | None = None
        self._sessions: list[Connection] = []
        self._total = sum(table.rows_total for table in made.tables)

    @property
    def done(self) -> bool:
        """Whether it has come to its end."""
        return self._state in {"completed", "error"}

    def progress(self) -> Verification:
        """How far it is."""
        with self._lock:
            tables = list(self._tables)
            comparison, state, error = self._comparison, self._state, self._error
        if comparison is not None:
            tables.append(comparison.result())
        compared = sum(table.rows_compared for table in tables)
        total = compared if state == "completed" else max(self._total, compared)
        spent = time.monotonic() - self._begun
        eta = spent / compared * (total - compared) if compared and state == "started" else 0.0
        return Verification(self._id, state, compared, total, eta, tuple(tables), error)

    def run(self) -> None:
        """Compare all tables. What goes wrong is told by :meth:`progress`; the mover goes on."""
        self._begun = time.monotonic()
        self._state = "started"
        try:
            self._run()
        except HomeworldError as error:
            self._end("error", str(error) or error.message)
        except BaseException as error:
            self._end("error", f"{type(error).__name__}: {error}")
            raise
        else:
            self._end("completed", "")
        finally:
            self._close()

    def _end(self, state: str, error: str) -> None:
        with self._lock:
            if self._comparison is not None:
                self._tables.append(self._comparison.result())
                self._comparison = None
            self._state, self._error = state, error

    def cut(self) -> None:
        """End all sessions from any thread."""
        for session in tuple(self._sessions):
            session.abort()

    def _close(self) -> None:
        for session in self._sessions:
            session.close()

    def _open(self, place: ShardPlace) -> Connection:
        session = Connection(place.endpoint, timeout_seconds=3600.0)
        self._sessions.append(session)
        session.execute(f"SET SESSION group_concat_max_len={_LONG_LIST:d}")
        return session

    def _run(self) -> None:
        spec = self._made.spec
        with ExitStack() as stack:
            sources = [self._open(place) for place in spec.sources]
            targets = [self._open(place) for place in spec.targets]
            bounds = [self._open(place) for place in spec.sources]
            self._meet(sources, targets)
            source_lanes = [
                stack.enter_context(_lane(place, session))
                for place, session in zip(spec.sources, sources, strict=True)
            ]
            target_lanes = [
                stack.enter_context(_lane(place, session))
                for place, session in zip(spec.targets, targets, strict=True)
            ]
            way = _best_sum(spec.flavor, (*sources, *targets))
            for route in self._routes():
                comparison = TableComparison(route, source_lanes, target_lanes, bounds, way, self._stopping)
                with self._lock:
                    self._comparison = comparison
                found = comparison.run()
                with self._lock:
                    self._comparison = None
                    self._tables.append(found)

    def _routes(self) -> list[Route]:
        first = self._made.spec.sources[0]
        return [table.route for table in self._made.tables if table.source == first]

    def _meet(self, sources: Sequence[Connection], targets: Sequence[Connection]) -> None:
        """Open snapshots of all shards at one position of each source server."""
        spec = self._made.spec
        followers = self._made.followers
        try:
            for follower in followers.values():
                follower.hold(HOLD_SECONDS)
            reached: dict[str, str] = {}
            for server, follower in followers.items():
                mine = [
                    (place, session)
                    for place, session in zip(spec.sources, sources, strict=True)
                    if place.endpoint.server_id == server
                ]
                reached[server] = self._snapshot(follower.endpoint, mine)
            for server, follower in followers.items():
                follower.advance(reached[server], REACH_SECONDS)
            for session in targets:
                session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        finally:
            for follower in followers.values():
                follower.release()

    def _snapshot(self, endpoint: Endpoint, mine: Sequence[tuple[ShardPlace, Connection]]) -> str:
        """Open snapshots of one server's shards that show the same; the position that they show."""
        places = [place for place, _ in mine]
        sessions = [session for _, session in mine]
        if endpoint.flavor is Flavor.MARIADB:
            position = _same_snapshot(sessions)
            if position is not None:
                return position
        with self._locked(places) as lock:
            position = current_position(lock, endpoint.flavor)
            for session in sessions:
                session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
            return position

    @contextmanager
    def _locked(self, places: Sequence[ShardPlace]) -> Generator[Connection]:
        """The moving tables locked for reading for a moment, tried so that no writer waits for long."""
        names = [placement.table for placement in self._made.spec.placements]
        with ExitStack() as stack:
            for attempt in range(LOCK_ATTEMPTS):
                try:
                    lock = stack.enter_context(locked_for_reading(places, names, LOCK_SECONDS))
                except DeadlineExceededError:
                    if attempt == LOCK_ATTEMPTS - 1 or self._stopping.wait(_BETWEEN_ATTEMPTS):
                        raise
                else:
                    yield lock
                    return


@contextmanager
def _lane(place: ShardPlace, session: Connection) -> Generator[Lane]:
    lane = Lane(place, session)
    try:
        yield lane
    finally:
        lane.close()


def _best_sum(flavor: Flavor, sessions: Sequence[Connection]) -> Sum:
    if flavor is Flavor.MYSQL:
        return Sum.SHA
    return Sum.CRCS if all(map(_has_castagnoli, sessions)) else Sum.SHORT_SHA


def _has_castagnoli(session: Connection) -> bool:
    try:
        session.query_one("SELECT CRC32C('')")
    except ServerError as error:
        if error.server_errno != _NO_SUCH_FUNCTION:
            raise
        return False
    return True


def _same_snapshot(sessions: Sequence[Connection]) -> str | None:
    """MariaDB: snapshots that all show the same, without any lock; None where commits came between them."""
    for _ in range(LOCK_ATTEMPTS):
        found: set[str] = set()
        for session in sessions:
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        for session in sessions:
            found.add(snapshot_position(session))
        if len(found) == 1:
            return found.pop()
    return None
