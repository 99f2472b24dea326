"""When maintenance windows open. Pure; all times are UTC.

Invariant: the next window is the first of the schedule's times that is later than asked, however long nobody
has asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum

from homeworld.model.errors import InvalidError

EVERY_DAY = 7
LONGEST_HOURS = 24
MOST_UNITS = 52


class Unit(StrEnum):
    """How often windows open: every so many days, weeks, months, or one time only."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ONCE = "once"


class Action(StrEnum):
    """What is done: servers of another version are restarted with the installed one, or all are restarted."""

    UPGRADE = "upgrade"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When windows open.

    :param value: every how many units.
    :param day: of the week, 0 is Sunday; EVERY_DAY: any.
    :param hour: of the day.
    :param week: of the month, 0 to 3.
    :param since: the day from which units are counted.
    """

    unit: Unit
    value: int
    day: int
    hour: int
    week: int
    since: date

    def check(self) -> None:
        """Hold it to what can be.

        :raises InvalidError: something cannot.
        """
        for name, number, low, high in (
            ("frequency_value", self.value, 1, MOST_UNITS),
            ("day", self.day, 0, EVERY_DAY),
            ("hour", self.hour, 0, 23),
            ("week", self.week, 0, 3),
        ):
            if not low <= number <= high:
                raise InvalidError(f"{name} must be from {low} to {high}")

    def following(self, after: datetime) -> datetime:
        """The first time later than ``after``.

        :raises ValueError: it has one time only, which is no rhythm.
        """
        if self.unit is Unit.ONCE:
            raise ValueError("a single time has no next one")
        start = max(after.astimezone(UTC).date(), self.since)
        for day in self._days(start):
            found = datetime.combine(day, time(self.hour), UTC)
            if found > after:
                return found
        raise AssertionError("days do not end")

    def _days(self, start: date) -> Iterator[date]:
        """The days of windows from ``start`` on."""
        day = start
        while True:
            if self._has(day):
                yield day
            day += timedelta(days=1)

    def _has(self, day: date) -> bool:
        weekday = day.isoweekday() % 7
        if self.unit is Unit.DAY:
            return (day - self.since).days % self.value == 0
        fits = self.day in {weekday, EVERY_DAY}
        if self.unit is Unit.WEEK:
            # Weeks begin on Sunday, as their days are counted.
            weeks = (_sunday(day) - _sunday(self.since)).days // 7
            return fits and weeks % self.value == 0
        months = (day.year - self.since.year) * 12 + day.month - self.since.month
        # The week of a month is the how-manieth of its weekday it is; of every day, the first of these seven.
        in_week = (day.day - 1) // 7 == self.week
        first = self.day != EVERY_DAY or (day.day - 1) % 7 == 0
        return fits and in_week and first and months % self.value == 0


def _sunday(day: date) -> date:
    return day - timedelta(days=day.isoweekday() % 7)
