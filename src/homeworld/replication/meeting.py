"""Opening snapshots of both sides that show the same moment of each source.

The appliers are held and the feeds give transactions one by one. A snapshot of each source is opened whose
position *g* is known exactly: on MariaDB the snapshot says it; on MySQL the moving tables are locked for
reading while position and snapshot are taken, so that nothing of them lies between. Each applier goes on to
the first end of a transaction that has all of *g* and is held again; what it has beyond *g* touches none of
the tables. Then the targets' snapshots are opened and the appliers go on.

Invariant: when :func:`meet` returns, the targets' snapshots show what their streams make of exactly what the
sources' show; nobody is held any more, whatever happened.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.assembly import Assembly
from homeworld.replication.connection import Connection
from homeworld.replication.fence import locked_for_reading
from homeworld.replication.positions import current_position, snapshot_position
from homeworld.replication.snapshots import open_snapshot

HOLD_SECONDS = 30.0
REACH_SECONDS = 600.0
SNAPSHOT_SECONDS = 10.0
LOCK_SECONDS = 1.0
LOCK_ATTEMPTS = 60
_BETWEEN_ATTEMPTS = 0.5


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where both sides' snapshots are.

    :param sources: source shard to the exact position that both sides show.
    :param targets: target shard to a position of its server of which its snapshot shows everything.
    :param passed: how many schema statements the streams had passed there.
    """

    sources: Mapping[str, str]
    targets: Mapping[str, str]
    passed: int


def meet(
    made: Assembly, sources: Sequence[Connection], targets: Sequence[Connection], stopping: threading.Event
) -> Meeting:
    """Open snapshots of all shards, one in each session, at one position of each source server.

    :raises DeadlineExceededError: a source's tables could not be locked, or an applier did not come there, in
        time.
    """
    spec, followers = made.spec, made.followers
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
            reached[server] = _snapshot(made, follower.endpoint, mine, stopping)
        for server, follower in followers.items():
            follower.advance(reached[server], REACH_SECONDS)
        # Read before: each snapshot shows all that it names, and no log has to be read for that.
        after = {
            place.shard: current_position(session, spec.flavor)
            for place, session in zip(spec.targets, targets, strict=True)
        }
        for place, session in zip(spec.targets, targets, strict=True):
            open_snapshot(session, after[place.shard], SNAPSHOT_SECONDS)
        passed = sum(rule.passed for rule in made.rules)
    finally:
        for follower in followers.values():
            follower.release()
    shown = {place.shard: reached[place.endpoint.server_id] for place in spec.sources}
    return Meeting(shown, after, passed)


def _snapshot(
    made: Assembly,
    endpoint: Endpoint,
    mine: Sequence[tuple[ShardPlace, Connection]],
    stopping: threading.Event,
) -> str:
    """Open snapshots of one server's shards that show the same; the position that they show."""
    places = [place for place, _ in mine]
    sessions = [session for _, session in mine]
    if endpoint.flavor is Flavor.MARIADB:
        position = _same_snapshot(sessions)
        if position is not None:
            return position
    with _locked(made, places, stopping) as lock:
        position = current_position(lock, endpoint.flavor)
        for session in sessions:
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        return position


@contextmanager
def _locked(made: Assembly, places: Sequence[ShardPlace], stopping: threading.Event) -> Generator[Connection]:
    """The moving tables locked for reading for a moment, tried so that no writer waits for long."""
    names = [placement.table for placement in made.spec.placements]
    with ExitStack() as stack:
        for attempt in range(LOCK_ATTEMPTS):
            try:
                lock = stack.enter_context(locked_for_reading(places, names, LOCK_SECONDS))
            except DeadlineExceededError:
                if attempt == LOCK_ATTEMPTS - 1 or stopping.wait(_BETWEEN_ATTEMPTS):
                    raise
            else:
                yield lock
                return


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
