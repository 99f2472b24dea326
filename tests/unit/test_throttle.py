"""Figures against limits; how long to rest; how far behind a replica is at the least."""

from __future__ import annotations

import pytest

from homeworld.model.gtid import Position
from homeworld.model.movers import ThrottleLimits
from homeworld.model.topology import Flavor
from homeworld.replication import gauges
from homeworld.replication.gauges import Trail
from homeworld.replication.throttle import Gauge, Reading, Throttle, Verdict, judge, rest_after

LIMITS = ThrottleLimits(replica_lag_seconds=5, source_threads_running=10, source_history_length=100)


@pytest.mark.parametrize(
    ("gauge", "most", "copy", "apply"),
    [
        (Gauge.SOURCE_REPLICA, 5, True, False),
        (Gauge.TARGET_REPLICA, 5, True, True),
        (Gauge.THREADS, 10, True, False),
        (Gauge.HISTORY, 100, True, False),
    ],
)
def test_what_is_above_its_limit_waits(gauge: Gauge, most: float, *, copy: bool, apply: bool) -> None:
    assert judge((Reading(gauge, "k/-", most),), LIMITS) == Verdict()
    found = judge((Reading(gauge, "k/-", most + 0.5),), LIMITS)
    assert (bool(found.copy), bool(found.apply), found.unknown) == (copy, apply, "")
    assert gauge in found.copy
    assert "k/-" in found.copy
    assert found == judge((Reading(gauge, "k/-", most + 90),), LIMITS), "the words last"
    off = ThrottleLimits(None, None, None)
    assert judge((Reading(gauge, "k/-", most + 0.5),), off) == Verdict()
    assert judge((Reading(gauge, "k/-", None, "gone"),), off) == Verdict()


def test_what_is_not_known_lets_pass_and_is_told() -> None:
    unknown = Reading(Gauge.TARGET_REPLICA, "k/-80", None, "it is gone")
    assert judge((unknown,), LIMITS) == Verdict(
        unknown="the lag of a replica of the target (k/-80) is not known: it is gone"
    )
    assert judge((Reading(Gauge.TARGET_REPLICA, "k/-80", None),), LIMITS) == Verdict(), "not asked yet"
    found = judge((unknown, Reading(Gauge.THREADS, "k/-", 11)), LIMITS)
    assert found.unknown
    assert found.copy == "Threads_running (k/-) above 10"


def test_hurrying_ends_by_itself_and_holds_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    lags = Reading(Gauge.TARGET_REPLICA, "k/-", 9.0)
    throttle = Throttle(readings=lambda: (lags,), limits=ThrottleLimits(ratio=50))
    assert throttle.applying()
    assert throttle.resting() == "ratio 50 %"
    throttle.hurry(20)
    throttle.hurry(1)
    assert (throttle.applying(), throttle.resting()) == ("", "")
    assert throttle.reason(), "the copy waits all the same"
    now[0] += 20.1
    assert throttle.applying()
    throttle.limit(ThrottleLimits(replica_lag_seconds=None))
    assert (throttle.applying(), throttle.reason(), throttle.told()) == ("", "", "")


def test_rest_is_the_share_of_the_time_that_was_asked_for() -> None:
    assert rest_after(1.0, 0) == 0
    assert rest_after(1.0, 50) == 1.0
    assert rest_after(1.0, 95) == pytest.approx(19.0)
    assert rest_after(90.0, 95) == 30.0


def position(number: int) -> Position:
    return Position.parse(Flavor.MARIADB, f"0-1-{number}")


def test_a_replica_is_behind_since_the_first_that_it_lacks() -> None:
    trail = Trail()
    trail.saw(10.0, position(5))
    assert trail.behind(10.5, position(3)) == (0.5, False), "who knows since when"
    trail.saw(11.0, position(5))
    trail.saw(12.0, position(9))
    assert trail.behind(13.0, position(4)) == (3.0, False)
    assert trail.behind(13.0, position(6)) == (1.0, True)
    assert trail.behind(20.0, position(6)) == (8.0, True)
    assert trail.behind(21.0, position(9)) == (0.0, True)
    assert trail.behind(90.0, position(9)) == (0.0, True), "an idle primary"


def test_a_long_trail_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "SAMPLES", 8)
    trail = Trail()
    for second in range(1000):
        trail.saw(float(second), position(second + 10))
        assert trail.behind(second + 1.0, position(3))[0] == second + 1.0
    behind, known = trail.behind(1000.0, position(600))
    assert known
    assert 0 < behind <= 1000 - 591
