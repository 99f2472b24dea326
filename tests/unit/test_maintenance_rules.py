"""When windows open, and what is next in one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import InvalidError
from homeworld.model.maintenance import Rhythm, Unit
from homeworld.workflows.maintenance.decide import Promote, Restart, decide

# A Sunday.
SINCE = date(2026, 3, 1)


def rhythm(unit: Unit, value: int = 1, day: int = 7, hour: int = 3, week: int = 0) -> Rhythm:
    made = Rhythm(unit, value, day, hour, week, SINCE)
    made.check()
    return made


def at(day: int, hour: int = 0, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


def times(of: Rhythm, count: int, after: datetime) -> list[datetime]:
    found: list[datetime] = []
    for _ in range(count):
        after = of.following(after)
        found.append(after)
    return found


def test_days() -> None:
    assert times(rhythm(Unit.DAY), 2, at(1, 2)) == [at(1, 3), at(2, 3)]
    assert rhythm(Unit.DAY).following(at(1, 3)) == at(2, 3)
    assert times(rhythm(Unit.DAY, 3), 3, at(1, 3)) == [at(4, 3), at(7, 3), at(10, 3)]


def test_weeks() -> None:
    assert times(rhythm(Unit.WEEK, day=0), 2, at(1, 5)) == [at(8, 3), at(15, 3)]
    assert times(rhythm(Unit.WEEK, day=6), 2, at(1)) == [at(7, 3), at(14, 3)]
    assert times(rhythm(Unit.WEEK, 2, day=3), 2, at(1)) == [at(4, 3), at(18, 3)]
    assert times(rhythm(Unit.WEEK, day=7), 2, at(1)) == [at(1, 3), at(2, 3)]


def test_months() -> None:
    assert times(rhythm(Unit.MONTH, day=1, week=0), 2, at(1)) == [at(2, 3), at(6, 3, 4)]
    assert times(rhythm(Unit.MONTH, day=0, week=3), 2, at(1)) == [at(22, 3), at(26, 3, 4)]
    assert times(rhythm(Unit.MONTH, 2, day=7, week=1), 2, at(1)) == [at(8, 3), at(8, 3, 5)]


def test_a_single_time_has_no_next_one() -> None:
    with pytest.raises(ValueError, match="no next"):
        rhythm(Unit.ONCE).following(at(1))


@pytest.mark.parametrize(
    "wrong", [{"value": 0}, {"value": 53}, {"day": 8}, {"day": -1}, {"hour": 24}, {"week": 4}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidError, match="must be from"):
        rhythm(Unit.WEEK, **wrong)


@given(
    st.sampled_from([Unit.DAY, Unit.WEEK, Unit.MONTH]), st.integers(1, 52), st.integers(0, 7),
    st.integers(0, 23), st.integers(0, 3), st.integers(0, 4 * 366 * 86400),
)  # fmt: skip
def test_the_next_time_is_later_and_none_is_between(
    unit: Unit, value: int, day: int, hour: int, week: int, after: int
) -> None:
    moment = at(1) + timedelta(seconds=after)
    of = rhythm(unit, value, day, hour, week)
    found = of.following(moment)
    assert found > moment
    assert found.hour == hour
    assert of.following(found - timedelta(seconds=1)) == found


@dataclass
class Server:
    id: str
    replica_of: str | None


def walk(servers: list[Server], wanting: set[str]) -> list[str]:
    """Perform what is decided until nothing is left."""
    done: list[str] = []
    told: list[str] = []
    while (act := decide(servers, done, wanting)) is not None:
        assert len(told) < 50
        if isinstance(act, Promote):
            told.append(f"promote {act.server_id}")
            for server in servers:
                if act.former in {server.replica_of, server.id}:
                    server.replica_of = act.server_id
                if server.id == act.server_id:
                    server.replica_of = None
        else:
            assert act == Restart(
                act.server_id, next(s for s in servers if s.id == act.server_id).replica_of is None
            )
            told.append(f"restart {act.server_id}")
            done.append(act.server_id)
    assert set(done) == wanting
    return told


def test_replicas_come_first_and_a_primary_is_none_when_it_is_restarted() -> None:
    servers = [Server("p", None), Server("r", "p"), Server("s", "p")]
    assert walk(servers, {"p", "r", "s"}) == ["restart r", "restart s", "promote r", "restart p"]


def test_only_what_wants_it_is_restarted() -> None:
    assert walk([Server("p", None), Server("r", "p")], {"r"}) == ["restart r"]
    assert walk([Server("p", None), Server("r", "p")], {"p"}) == ["promote r", "restart p"]
    assert walk([Server("p", None)], set()) == []
    assert walk([Server("p", None)], {"p"}) == ["restart p"]


def test_several_shards() -> None:
    servers = [Server("a", None), Server("ar", "a"), Server("b", None), Server("br", "b")]
    told = walk(servers, {"a", "ar", "b", "br"})
    assert told == ["restart ar", "restart br", "promote ar", "restart a", "promote br", "restart b"]
