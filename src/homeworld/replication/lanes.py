"""Sessions that hold a snapshot of one shard each and work side by side, and what they are asked in.

A lane knows no table. Invariant: what goes wrong in one says which shard it was; a lost session is told from
a statement that the server refused.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from homeworld.model.errors import (
    HomeworldError,
    MalformedPacketError,
    ServerError,
    UnavailableError,
    is_outage,
)
from homeworld.model.names import quote
from homeworld.model.topology import ShardPlace
from homeworld.replication.chunks import Span
from homeworld.replication.connection import Connection
from homeworld.replication.keyorder import TableKey

_T = TypeVar("_T")
# Deprecated syntax, utf8 for utf8mb3, collations of utf8mb3.
_DEPRECATED = frozenset({1287, 3719, 3778})


class IncomparableError(HomeworldError):
    """A table could not be compared; the message says which, where and why."""

    code = "incomparable"


class LostLaneError(IncomparableError):
    """A shard does not answer any more, or ended its session."""

    code = "lost_lane"
    retryable = True


class Lane:
    """A session that holds a snapshot of one shard, and the thread that talks to it."""

    def __init__(self, place: ShardPlace, connection: Connection) -> None:
        self.place = place
        self.connection = connection
        self._pool = ThreadPoolExecutor(1, f"compare {place.shard}")

    def ask(self, table: str, work: Callable[[Connection], _T]) -> Future[_T]:
        """Run ``work``, which is for ``table``, in the lane's thread, after what it was asked before.

        Its errors say where they come from: IncomparableError, or LostLaneError where the shard is gone.
        """

        def told() -> _T:
            try:
                return work(self.connection)
            except (UnavailableError, ServerError, MalformedPacketError) as error:
                if is_outage(error) or self.connection.closed:
                    raise LostLaneError(f"shard {self._name} does not answer: {error}") from error
                raise IncomparableError(
                    f"table {table!r} on shard {self._name} cannot be compared: {error}"
                ) from error

        return self._pool.submit(told)

    @property
    def _name(self) -> str:
        return f"{self.place.keyspace}/{self.place.shard}"

    def close(self) -> None:
        """End the thread and the session."""
        self._pool.shutdown(cancel_futures=True)
        self.connection.close()


def walked(place: ShardPlace, key: TableKey, table: str) -> str:
    """The table of one shard, to be walked by its key."""
    return f"{quote(place.schema, table)} FORCE INDEX ({quote(key.index)})"


def where(key: TableKey, span: Span) -> str:
    """The condition for the keys of the span, with its WHERE; empty for all of them."""
    parts = [key.after(span.low)] if span.low is not None else []
    if span.high is not None:
        parts.append(key.upto(span.high))
    return f"WHERE {' AND '.join(parts)}" if parts else ""


def hold_clean(connection: Connection) -> None:
    """Hold the statement before to have given no warning: it might have left something out.

    Only what MySQL says of a character set's future, which a key's literal names, says nothing of values.
    """
    # All are counted, and so many kept as max_error_count says, which may be none.
    count = int(connection.query_one("SHOW COUNT(*) WARNINGS")[0] or 0)
    if not count:
        return
    kept = connection.query_all("SHOW WARNINGS")
    warnings = [row for row in kept if int(row[1] or 0) not in _DEPRECATED]
    if warnings or len(kept) < count:
        texts = [(text or b"").decode("utf-8", "replace") for _, _, text in warnings[:3]]
        told = "; ".join(texts) or f"{count} times, and keeps {len(kept)} of it (max_error_count)"
        raise MalformedPacketError(f"the server warns: {told}")
