"""The part of a switch that clients do not wait for: our gateways and rules have made it, and Vitess makes it
once more behind them, as its own.

Theory of operation. While our gateways held the tables, the origin's last writes were followed and the rules
were changed: that was the switch. Vitess, asked for it now, finds an origin that nobody writes to; it denies
it writes, lets the streams come to their end and makes those in the other direction, but begins them where
the other side is by then. What clients wrote there since would be missing on the origin. So Vitess is asked
not to let them run, and they are brought back to where that side was before its first write: Vitess takes a
stream's position from its row when the stream is started.

Invariant: a stream is placed before it runs for the first time, and never afterwards.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping

from homeworld.engines.vitess import moves_look as look
from homeworld.engines.vitess.moves_commands import ANSWER_SECONDS, Commands
from homeworld.engines.vitess.moves_look import VStream
from homeworld.engines.vitess.moves_traffic import (
    AGAIN_SECONDS,
    ANY_LAG,
    PRIMARIES,
    SILENT_SECONDS,
    Traffic,
    switch_arguments,
)
from homeworld.model.clusters import ClusterMove
from homeworld.model.errors import HomeworldError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor, TabletType

# For each of the waits of one call; they are short, as the origin is quiet. Three times as long a lock on a
# keyspace outlives a vtctld that dies.
CALL_SECONDS = 8.0
_log = logging.getLogger(__name__)


class Conclusion:
    """The part of ``model.clusters.ClusterMoves`` that is peculiar to clusters which only we use. Safe among
    threads.
    """

    def __init__(self, commands: Commands, traffic: Traffic) -> None:
        self._ask = commands
        self._traffic = traffic

    def admit(self, move: ClusterMove) -> None:
        """Let the primaries of both sides take writes to the tables."""
        for keyspace in (move.source, move.target):
            shards = look.shards_of(self._ask.run(move, "FindAllShardsInKeyspace", keyspace))
            for shard, record in shards.items():
                if look.denied_tables(record) & frozenset(move.tables):
                    self._ask.deny(move, f"{keyspace}/{shard}", denied=False)

    def conclude(
        self,
        move: ClusterMove,
        *,
        back: bool,
        starts: Mapping[str, str],
        timeout_seconds: float,
        check: Callable[[], None],
    ) -> None:
        """Let Vitess make the switch that its rules have made, and place the streams in the other direction.

        :raises UnavailableError: it is not there yet; calling again goes on.
        """
        deadline = time.monotonic() + timeout_seconds
        to = move.source if back else move.target
        while not self._is_ended(move, back=back):
            if look.leads_to(self._ask.rules(move), move, TabletType.PRIMARY) != to:
                raise UnavailableError(f"the rules lead the tables elsewhere than to {to}")
            said = ""
            check()
            try:
                self._call(move, back=back, seconds=min(CALL_SECONDS, deadline - time.monotonic()))
                if self._is_ended(move, back=back):
                    break
            except HomeworldError as error:
                _log.warning("move %s: concluding: %s", move.name, error)
                said = f": {error.message}"
                if isinstance(error, UnavailableError):
                    time.sleep(SILENT_SECONDS)
            # Everything is looked at only where something has gone wrong: each question is a process.
            seen = self._traffic.look_closed(move)
            journaled = seen.reverse_journaled if back else seen.journaled
            if seen.denied and not journaled:
                check()
                # Vitess takes for the serving side the one that served before, and lets that one take writes.
                self._traffic.serve_from(move, to)
            if time.monotonic() > deadline:
                raise UnavailableError(f"Vitess has not made the switch its own{said}")
            time.sleep(AGAIN_SECONDS)
        check()
        self._place(move, reverse=not back, starts=starts)

    def _is_ended(self, move: ClusterMove, *, back: bool) -> bool:
        found = self._ask.streams(move, reverse=back)
        return found is not None and all(stream.frozen for stream in found.streams)

    def _call(self, move: ClusterMove, *, back: bool, seconds: float) -> None:
        # The way back is asked for by its own name, as by whoever switches with clients waiting.
        arguments = switch_arguments(PRIMARIES, seconds, back=False, lag=ANY_LAG, reverse_replication=False)
        self._ask.move(move, *arguments, reverse=back, timeout_seconds=max(1.0, seconds) + ANSWER_SECONDS)

    def _place(self, move: ClusterMove, *, reverse: bool, starts: Mapping[str, str]) -> None:
        """Let the streams of a direction, none of which has run yet, begin there."""
        if not starts:
            return
        for stream in self._streams_at_rest(move, reverse=reverse, starts=starts):
            if not _is_at(stream, starts):
                start = look.position_text(starts[stream.source_shard])
                _position(stream)  # no more than that goes into a statement
                now = look.FLAVOR + _printed(stream)
                query = (
                    f"update _vt.vreplication set pos = '{start}' where id = {stream.number:d} "  # noqa: S608
                    f"and state = 'Stopped' and pos = '{now}'"
                )
                self._ask.run(move, "ExecuteFetchAsDBA", "--json", stream.tablet, query)
        # It may have gone to a tablet that was a primary, or somebody may have been there before.
        for stream in self._streams_at_rest(move, reverse=reverse, starts=starts):
            if not _is_at(stream, starts):
                raise UnavailableError(f"a stream to shard {stream.shard} is not where it has to begin yet")

    def _streams_at_rest(
        self, move: ClusterMove, *, reverse: bool, starts: Mapping[str, str]
    ) -> tuple[VStream, ...]:
        name = look.direction_name(move, reverse=reverse)
        found = self._ask.streams(move, reverse=reverse)
        if found is None:
            raise UnavailableError(f"Vitess has no streams {name}")
        for stream in found.streams:
            if stream.source_shard not in starts:
                raise UnavailableError(
                    f"nobody knows where {name} begins to read shard {stream.source_shard}"
                )
            if stream.state != "Stopped":
                raise UnavailableError(
                    f"somebody has started {name} before it was where it has to begin: what was written "
                    "since the switch would be missing where traffic went back; stop it (MoveTables stop)"
                )
        return found.streams


def _is_at(stream: VStream, starts: Mapping[str, str]) -> bool:
    return _position(stream) == Position.parse(Flavor.MYSQL, starts[stream.source_shard])


def _position(stream: VStream) -> Position:
    return Position.parse(Flavor.MYSQL, _printed(stream))


def _printed(stream: VStream) -> str:
    """The GTID set that a stream has. Vitess prints it without the flavor that it has in the stream's row."""
    return stream.position.rpartition("/")[2]
