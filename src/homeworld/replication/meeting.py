"""Opening snapshots of both sides that show the same moment of each source.

The streams come close first, as fast as they can. The appliers are held then and the feeds give
transactions one by one. A snapshot of each source is opened whose position *g* is known: on MariaDB the
snapshot says it; on MySQL it is known but for what was committed in that very moment, and the rows of that
are looked up on both sides once all is open (see :mod:`homeworld.replication.unlocked`). Only where that does
not come out even time and again are the moving tables of a MySQL server locked for reading while position
and snapshot are taken. It shows everything that the feeds had read by then. The appliers go on, side by side,
because one may wait for what another has to apply, each to the first end of a transaction that has all of
its *g*, and are held again; what they have beyond *g* touches none of the tables, or is among what is looked
up. Then the targets' snapshots are opened and the appliers go on. Where a row goes from one server to another
between their snapshots, one applier would wait for another that is held: then all is done again.

Invariant: when :func:`meet` returns, the targets' snapshots show what their streams make of what the sources'
show, but for what a comparison has to find; nobody is held any more, whatever happened.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from homeworld.model.errors import DeadlineExceededError, StoppedError
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.assembly import Assembly
from homeworld.replication.connection import Connection
from homeworld.replication.fence import locked_for_reading
from homeworld.replication.follower import CrossedError, Follower
from homeworld.replication.positions import current_position, snapshot_position
from homeworld.replication.snapshots import log_end, open_snapshot, snapshot_coordinates
from homeworld.replication.unlocked import (
    Adopt,
    Look,
    UnevenError,
    Window,
    await_visible,
    hold_even,
    open_between,
)

_log = logging.getLogger(__name__)
HOLD_SECONDS = 30.0
REACH_SECONDS = 600.0
# Until a stream is held it comes to where the log is, again until that takes so little. What is left comes
# transaction by transaction, maybe no faster than writers make more: one that is held far behind falls behind
# further.
CLOSE_ENOUGH_SECONDS = 1.0
CLOSE_ATTEMPTS = 5
CLOSE_SECONDS = 300.0
SNAPSHOT_SECONDS = 10.0
LOCK_SECONDS = 1.0
LOCK_ATTEMPTS = 60
MEETINGS_TRIED = 20
UNLOCKED_SECONDS = 60.0
_BETWEEN_ATTEMPTS = 0.5
_BETWEEN_LOOKS = 0.005


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where both sides' snapshots are.

    :param sources: source shard to the position that the targets show; of the rows the sources show the same.
    :param targets: target shard to a position of its server of which its snapshot shows everything.
    :param until: target shard to a position that has everything which its snapshot shows.
    :param passed: how many schema statements the streams had passed there.
    """

    sources: Mapping[str, str]
    targets: Mapping[str, str]
    until: Mapping[str, str]
    passed: int


def meet(
    made: Assembly,
    sources: Sequence[Connection],
    targets: Sequence[Connection],
    stopping: threading.Event,
    adopt: Adopt = lambda connection: connection,
) -> Meeting:
    """Open snapshots of all shards, one in each session, at one position of each source server.

    :param adopt: is given each further session, so that somebody else can cut it.
    :raises DeadlineExceededError: a source's tables could not be locked, or an applier did not come there, in
        time.
    :raises CrossedError: rows went from server to server each time that it was tried.
    """
    tried, uneven, locked_at = 1, 0, time.monotonic() + UNLOCKED_SECONDS
    while True:
        try:
            return _meet(made, sources, targets, stopping, adopt, unlocked=time.monotonic() < locked_at)
        except UnevenError as error:
            uneven += 1
            pause = min(_BETWEEN_LOOKS * 2**uneven, 1.0)
            _log.info("snapshots opened without a lock may not be of one moment (%d): %s", uneven, error)
            _let_go(sources, targets)
            if stopping.wait(pause):
                raise StoppedError("the comparison was stopped") from error
        except CrossedError:
            _let_go(sources, targets)
            if tried == MEETINGS_TRIED or stopping.wait(_BETWEEN_ATTEMPTS):
                raise
            tried += 1


def _let_go(*sides: Sequence[Connection]) -> None:
    """End what the sessions have begun: whoever alters a table waits for those who have looked at it."""
    for session in itertools.chain(*sides):
        session.execute("ROLLBACK")


def _meet(
    made: Assembly,
    sources: Sequence[Connection],
    targets: Sequence[Connection],
    stopping: threading.Event,
    adopt: Adopt,
    *,
    unlocked: bool,
) -> Meeting:
    spec, followers = made.spec, made.followers

    def crossed() -> bool:
        return any(follower.blocked for follower in followers.values())

    def passed() -> int:
        return sum(rule.passed for rule in made.rules)

    for server, follower in followers.items():
        asked = next(
            session
            for place, session in zip(spec.sources, sources, strict=True)
            if place.endpoint.server_id == server
        )
        _come_close(follower, asked, crossed, stopping)
    windows: dict[str, Window] | None = {} if unlocked else None
    try:
        for follower in followers.values():
            follower.hold(HOLD_SECONDS, crossed)
        known = passed()
        reached: dict[str, str] = {}
        for server, follower in followers.items():
            mine = [
                (place, session)
                for place, session in zip(spec.sources, sources, strict=True)
                if place.endpoint.server_id == server
            ]
            if windows is not None and follower.endpoint.flavor is Flavor.MYSQL:
                await_visible(mine[0][1], follower.position, stopping)
            reached[server] = _snapshot(made, follower.endpoint, mine, stopping, windows)
        for server, follower in followers.items():
            follower.advance(reached[server])
        for follower in followers.values():
            follower.come_to_rest(REACH_SECONDS, crossed)
        if any(follower.passes_over for follower in followers.values()):
            raise CrossedError
        for server in windows or ():
            reached[server] = followers[server].position
        defined = {
            server: {name: table.table for name, table in follower.tables.items()}
            for server, follower in followers.items()
        }
        # Read before: each snapshot shows all that it names, and no log has to be read for that.
        after = {
            place.shard: current_position(session, spec.flavor)
            for place, session in zip(spec.targets, targets, strict=True)
        }
        for place, session in zip(spec.targets, targets, strict=True):
            open_snapshot(session, after[place.shard], SNAPSHOT_SECONDS)
        until = {
            place.shard: current_position(session, spec.flavor)
            for place, session in zip(spec.targets, targets, strict=True)
        }
        passed_now = passed()
    finally:
        for follower in followers.values():
            follower.release()
    if windows and passed_now != known:
        raise UnevenError("a table was altered meanwhile")
    looks = [
        Look(followers[server].endpoint, window, reached[server], defined[server])
        for server, window in (windows or {}).items()
    ]
    if looks:
        hold_even(looks, (spec.sources, sources), (spec.targets, targets), stopping, adopt)
    shown = {place.shard: reached[place.endpoint.server_id] for place in spec.sources}
    return Meeting(shown, after, until, passed_now)


def _come_close(
    follower: Follower, source: Connection, crossed: Callable[[], bool], stopping: threading.Event
) -> None:
    """Let a stream apply what has piled up, put together as it may be; give up where that takes very long."""
    deadline = time.monotonic() + CLOSE_SECONDS
    for _ in range(CLOSE_ATTEMPTS):
        begun = time.monotonic()
        end = current_position(source, follower.endpoint.flavor)
        while not follower.passed(end, _BETWEEN_LOOKS):
            if crossed() or stopping.is_set():
                return
            if time.monotonic() > deadline:
                _log.warning("the stream did not come to %s in %g s", end, CLOSE_SECONDS)
                return
        if time.monotonic() - begun < CLOSE_ENOUGH_SECONDS:
            return


def _snapshot(
    made: Assembly,
    endpoint: Endpoint,
    mine: Sequence[tuple[ShardPlace, Connection]],
    stopping: threading.Event,
    windows: dict[str, Window] | None,
) -> str:
    """Open snapshots of one server's shards that show the same; the position that they show, on MySQL but for
    the window that is added to ``windows``, where there are any.
    """
    places = [place for place, _ in mine]
    sessions = [session for _, session in mine]
    if endpoint.flavor is Flavor.MARIADB:
        position = _same_snapshot(sessions, stopping)
        if position is not None:
            return position
    elif windows is not None:
        window = windows[endpoint.server_id] = open_between(sessions)
        return window.begin
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


def _same_snapshot(sessions: Sequence[Connection], stopping: threading.Event) -> str | None:
    """MariaDB: snapshots that all show the same, without any lock; None where commits came between them, or
    where one that the log has, and the feeds may have read, cannot be seen: it waits for a replica's word.
    """
    end = log_end(sessions[0])
    deadline = time.monotonic() + SNAPSHOT_SECONDS
    attempts = 0
    while attempts < LOCK_ATTEMPTS and time.monotonic() < deadline:
        for session in sessions:
            session.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        shown = {snapshot_coordinates(session) for session in sessions}
        if min(shown) < end:
            if stopping.wait(_BETWEEN_LOOKS):
                raise StoppedError("the comparison was stopped")
        elif len(shown) == 1:
            return snapshot_position(sessions[0])
        else:
            attempts += 1
    return None
