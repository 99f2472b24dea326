"""When copying and applying give way to others: figures against limits, and how long to rest.

It measures nothing itself (see :mod:`homeworld.replication.gauges`) and knows no chunks and no batches; those
who work ask before they begin. A figure that is not known lets pass and is told: a replica that does not
answer must not stop a move for ever.

Invariant: it is never what keeps a stream from catching up: see :meth:`Throttle.applying`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from homeworld.model.movers import ThrottleLimits

#: The reason to wait, or the empty string.
ThrottleRule: TypeAlias = Callable[[], str]

YIELD_SECONDS = 3.0
"""By no more than this the applier makes a stream late."""
REST_SECONDS = 30.0
"""The longest rest after one piece of work."""


class Gauge(StrEnum):
    """What is measured."""

    SOURCE_REPLICA = "lag of a replica of the source"
    TARGET_REPLICA = "lag of a replica of the target"
    THREADS = "Threads_running"
    HISTORY = "history list length"


@dataclass(frozen=True, slots=True)
class Reading:
    """One figure. ``value`` None: not known, and ``why`` says why (empty: not measured yet).

    :param where: of which server, for people.
    """

    gauge: Gauge
    where: str
    value: float | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why copying and applying should wait (empty: they need not), and what is not known."""

    copy: str = ""
    apply: str = ""
    unknown: str = ""


def judge(readings: Sequence[Reading], limits: ThrottleLimits) -> Verdict:
    """Hold figures against limits. The words do not depend on the figure, so that they last as long as it."""
    copy = apply = unknown = ""
    for reading in readings:
        most = _limit(reading.gauge, limits)
        if most is None:
            continue
        if reading.value is None:
            if reading.why and not unknown:
                unknown = f"the {reading.gauge} ({reading.where}) is not known: {reading.why}"
            continue
        if reading.value <= most:
            continue
        unit = " s" if reading.gauge in (Gauge.SOURCE_REPLICA, Gauge.TARGET_REPLICA) else ""
        reason = f"{reading.gauge} ({reading.where}) above {most:g}{unit}"
        copy = copy or reason
        if reading.gauge is Gauge.TARGET_REPLICA:
            apply = apply or reason
    return Verdict(copy, apply, unknown)


def _limit(gauge: Gauge, limits: ThrottleLimits) -> float | None:
    if gauge is Gauge.THREADS:
        return limits.source_threads_running
    if gauge is Gauge.HISTORY:
        return limits.source_history_length
    return limits.replica_lag_seconds


def limit(name: str, measure: Callable[[], float | None], most: float) -> ThrottleRule:
    """Wait while ``measure`` (None: unknown) is above ``most``.

    :param name: what is said in ``throttled_by``.
    """

    def rule() -> str:
        value = measure()
        return name if value is not None and value > most else ""

    return rule


def rest_after(work_seconds: float, ratio: int) -> float:
    """How long to rest after so much work, so that rest is ``ratio`` percent of the time."""
    return min(REST_SECONDS, work_seconds * ratio / (100 - ratio)) if ratio else 0.0


class Throttle:
    """Judges for all threads of a mover, not more often than every ``seconds``.

    :param rules: reasons of the mover's own for which copying waits.
    :param readings: the newest figures.
    """

    def __init__(
        self,
        rules: Sequence[ThrottleRule] = (),
        seconds: float = 0.25,
        readings: Callable[[], Sequence[Reading]] = tuple,
        limits: ThrottleLimits | None = None,
    ) -> None:
        self._rules = tuple(rules)
        self._seconds = seconds
        self._readings = readings
        self._limits = limits or ThrottleLimits()
        self._lock = threading.Lock()
        self._asked = float("-inf")
        self._verdict = Verdict()
        self._hurry_until = float("-inf")

    def limit(self, limits: ThrottleLimits) -> None:
        """Take other limits from now on."""
        with self._lock:
            self._limits = limits
            self._asked = float("-inf")

    def hurry(self, seconds: float) -> None:
        """Hold no applying back for so long, counted from now."""
        self._hurry_until = max(self._hurry_until, time.monotonic() + seconds)

    @property
    def ratio(self) -> int:
        """How many percent of the time work rests whatever is measured."""
        return self._limits.ratio

    def reason(self) -> str:
        """Why copying has to wait now; empty: go on."""
        return self._now().copy

    def applying(self) -> str:
        """Why applying should wait now; empty: go on. The caller waits for YIELD_SECONDS at most, and not at
        all with what is later already.
        """
        return "" if time.monotonic() < self._hurry_until else self._now().apply

    def resting(self) -> str:
        """What is told of applying that rests for its share of the time; empty: it need not."""
        return "" if not self.ratio or time.monotonic() < self._hurry_until else f"ratio {self.ratio} %"

    def unknown(self) -> str:
        """Which figure is not known, and why; empty: all are, or are not wanted."""
        return self._now().unknown

    def told(self) -> str:
        """What people are told of copying: a reason, or that it rests for a share of the time."""
        return self.reason() or (f"ratio {self.ratio} %" if self.ratio else "")

    def _now(self) -> Verdict:
        now = time.monotonic()
        with self._lock:
            if now - self._asked < self._seconds:
                return self._verdict
            self._asked = now
            limits = self._limits
        found = judge(self._readings(), limits)
        own = next(filter(None, (rule() for rule in self._rules)), "")
        verdict = Verdict(own or found.copy, found.apply, found.unknown)
        with self._lock:
            self._verdict = verdict
        return verdict
