"""How far a stream is behind does not depend on whose wall clock is right."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from homeworld.model.movers import Placement
from homeworld.replication import source_clock
from homeworld.replication.assembly import assemble
from homeworld.replication.changes import FeedBatch
from homeworld.replication.mover import RunningMover
from homeworld.replication.source_clock import SourceClock
from tests.conftest import ServerFactory
from tests.support.moves import Writers, make_move, wait_copied
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
HOUR = 3600.0


def _behind(clock: SourceClock, stamp: float) -> float:
    moment = clock.moment(stamp)
    assert moment is not None
    return time.monotonic() - moment


def test_a_stamp_of_now_is_now_whatever_our_clock_says(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time
    endpoint = server.endpoint()
    monkeypatch.setattr(time, "time", lambda: real() + HOUR)
    clock = SourceClock(endpoint)
    assert abs(_behind(clock, real())) < 60
    assert abs(_behind(clock, real() - HOUR) - HOUR) < 60
    assert _behind(clock, real() + HOUR) >= 0, "nothing is known before it happened"


def test_a_server_whose_clock_was_set_is_asked_again(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_clock, "AGAIN_SECONDS", 0.0)
    clock = SourceClock(server.endpoint())
    for step in (HOUR, -HOUR):
        assert abs(_behind(clock, time.time())) < 60
        # What was learnt before the server's clock was set by as much the other way.
        clock._ahead = (clock._ahead or 0.0) + step  # type: ignore[reportPrivateUsage]
        assert abs(_behind(clock, time.time())) < 60


def test_a_server_that_does_not_answer_leaves_what_is_known(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_clock, "AGAIN_SECONDS", 0.0)
    clock, unknown = SourceClock(server.endpoint()), SourceClock(server.endpoint())
    assert abs(_behind(clock, time.time())) < 60
    server.kill()
    assert unknown.moment(time.time()) is None
    assert abs(_behind(clock, time.time() - HOUR) - HOUR) < 60


def test_a_stream_among_writers_is_close_whatever_our_clock_says(
    server_factory: ServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While writers never pause the newest event is never the last one that is known to come."""
    move = make_move([server_factory(), server_factory()], targets="-")
    move.create("CREATE TABLE ticks (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, at INT)")
    move.prepare(Placement("ticks"))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + HOUR)

    def tick(cursor: Any, _numbers: object) -> None:
        cursor.execute("INSERT INTO ticks (at) VALUES (1)")

    told: list[float] = []
    with Writers(move.source, move.schema, tick, threads=3) as writers:
        mover = RunningMover(move.spec())
        mover.start()
        try:
            wait_copied(mover)
            for _ in range(20):
                writers.wait(20)
                told.append(mover.progress().lag_seconds)
        finally:
            mover.stop(30)
    assert max(told) < HOUR / 2, told


def test_a_source_that_is_quiet_is_not_late(server_factory: ServerFactory) -> None:
    """After a sign of life it is not known at once that nothing comes; the newest event is of long ago."""
    move = make_move([server_factory()], targets="-")
    move.create("CREATE TABLE t (id INT PRIMARY KEY)")
    move.prepare(Placement("t"))
    made = assemble(move.spec(), threading.Event())
    try:
        follower = made.follower_of("-")
        stamp = int(time.time() - HOUR)
        for caught_up, position in ((False, move.positions()["-"]), (True, ""), (False, ""), (True, "")):
            follower._take(  # type: ignore[reportPrivateUsage]
                FeedBatch([], (), position or follower.position, stamp, caught_up, False, False)
            )
            if position:
                assert follower.lag_seconds > HOUR / 2, "what came is an hour old"
            else:
                assert follower.lag_seconds < HOUR / 2
    finally:
        for follower in made.followers.values():
            follower.reader.stop()
            follower.appliers.close()
