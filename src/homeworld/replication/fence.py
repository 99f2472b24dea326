"""Stopping every writer on the source for a moment: LOCK TABLES … READ, and the position at that moment.

The lock is granted once every transaction that wrote to the tables has ended, and a transaction's metadata
locks go only after its GTID is in the position; so the position read under the lock holds all that was ever
written to them. All servers are locked at the same time, or none.

Invariant: a fence that was entered holds until it is left or :meth:`Fence.holding` says no; if this process
dies the servers release it with the connection.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from homeworld.model.errors import DeadlineExceededError, HomeworldError, ServerError, UnavailableError
from homeworld.model.names import quote
from homeworld.model.topology import Flavor, ShardPlace
from homeworld.replication.connection import Connection
from homeworld.replication.positions import current_position

_LOCK_WAIT_TIMEOUT = 1205
_IDLE_SECONDS = 60
_PING_SECONDS = 5.0


def name_of(schema: str, tables: Sequence[str]) -> str:
    """The name by which a server knows the session that locks these tables, so that whoever comes after a
    process which does not go on can end it (``IS_USED_LOCK``).
    """
    digest = hashlib.sha256("\0".join((schema, *sorted(tables))).encode()).hexdigest()
    return f"homeworld fence {digest[:40]}"


@contextmanager
def locked_for_reading(
    places: Sequence[ShardPlace], tables: Sequence[str], timeout_seconds: float
) -> Generator[Connection]:
    """A session on one server (of all ``places``) that keeps the tables from being written.

    :raises DeadlineExceededError: a transaction held one of them for too long; nothing is locked.
    """
    # Servers count this wait in whole seconds.
    seconds = max(1, int(timeout_seconds))
    connection = Connection(places[0].endpoint, timeout_seconds=seconds + 5.0)
    with connection:
        connection.execute(f"SET SESSION lock_wait_timeout={seconds:d}, wait_timeout={_IDLE_SECONDS:d}")
        # No lock that anybody waits for: a name.
        connection.query_all(f"SELECT GET_LOCK('{name_of(places[0].schema, tables)}', 0)")
        wanted = ", ".join(f"{quote(place.schema, table)} READ" for place in places for table in tables)
        try:
            connection.execute(f"LOCK TABLES {wanted}")
        except ServerError as error:
            if error.server_errno == _LOCK_WAIT_TIMEOUT:
                raise DeadlineExceededError(
                    "an open transaction keeps the tables from being locked"
                ) from error
            raise
        _hold_without_prepared(connection)
        yield connection
        if not connection.closed:
            connection.execute("UNLOCK TABLES")


def _hold_without_prepared(connection: Connection) -> None:
    """Hold the server to have no prepared XA transaction, which could still commit under the lock.

    MariaDB lets go of a prepared transaction's metadata locks when its session ends; MySQL keeps them.

    :raises DeadlineExceededError: it has some.
    """
    if connection.endpoint.flavor is not Flavor.MARIADB:
        return
    prepared = connection.query_all("XA RECOVER")
    if prepared:
        raise DeadlineExceededError(
            f"{len(prepared)} prepared XA transactions may still write to the tables: commit them or roll"
            " them back (XA RECOVER lists them)"
        )


class Fence(Mapping[str, str]):
    """What a fence gives while it is held: source shard to position. Made by :class:`TableFence`."""

    def __init__(self, positions: Mapping[str, str], sessions: Sequence[Connection]) -> None:
        self._positions = dict(positions)
        self._sessions = tuple(sessions)
        self._lost = threading.Event()
        self._left = threading.Event()
        self._busy = threading.Lock()

    def __getitem__(self, shard: str) -> str:
        return self._positions[shard]

    def __iter__(self):  # noqa: ANN204  as Mapping has it
        return iter(self._positions)

    def __len__(self) -> int:
        return len(self._positions)

    def holding(self) -> bool:
        """Whether every server still holds the lock, asked now."""
        with self._busy:
            if self._lost.is_set() or self._left.is_set():
                return False
            try:
                for session in self._sessions:
                    session.query_one("SELECT 1")
            except HomeworldError:
                self._lost.set()
                return False
            return True

    def keep(self) -> None:
        """Keep the sessions alive until the fence is left: the work of a thread of its own."""
        while not self._left.wait(_PING_SECONDS) and self.holding():
            pass

    def leave(self) -> None:
        """No more use of the sessions from here on."""
        self._left.set()
        with self._busy:
            pass


class TableFence:
    """ports.SourceFence by table locks."""

    @contextmanager
    def __call__(
        self, places: Sequence[ShardPlace], tables: Sequence[str], timeout_seconds: float
    ) -> Generator[Fence]:
        """Enter: the tables are locked on all shards; gives source shard to position. Leave: unlocked.

        :raises DeadlineExceededError: some lock was not had in time; none is held.
        :raises UnavailableError: on leaving, when a server had let go before.
        """
        deadline = time.monotonic() + timeout_seconds
        servers: dict[str, list[ShardPlace]] = {}
        for place in places:
            servers.setdefault(place.endpoint.server_id, []).append(place)
        groups = list(servers.values())
        with ExitStack() as stack, ThreadPoolExecutor(len(groups), "fence") as pool:
            entered = [locked_for_reading(group, tables, timeout_seconds) for group in groups]
            opening = [pool.submit(manager.__enter__) for manager in entered]
            sessions: list[Connection] = []
            failure: BaseException | None = None
            for manager, future in zip(entered, opening, strict=True):
                error = future.exception()
                if error is None:
                    stack.push(manager)
                    sessions.append(future.result())
                else:
                    failure = failure or error
            if failure is not None:
                raise failure
            if time.monotonic() > deadline + 1.0:
                raise DeadlineExceededError("the tables were locked too late")
            positions = {
                place.shard: position
                for group, session in zip(groups, sessions, strict=True)
                for position in [current_position(session, session.endpoint.flavor)]
                for place in group
            }
            fence = Fence(positions, sessions)
            keeper = pool.submit(fence.keep)
            try:
                yield fence
            finally:
                held = fence.holding()
                fence.leave()
                keeper.result()
            if not held:
                raise UnavailableError("a source server let go of the locked tables before it was told to")
