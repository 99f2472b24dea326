"""When servers of a simulated fleet fail, and how long they take for what they do: data, and a function of
time.

Knows no server's state. Invariant: what happens to a server depends on the seed, its id and the time alone,
so that a run can be repeated.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from math import floor


class Fault(StrEnum):
    """What happens to a server: its process ends, or it runs and answers nobody for a while."""

    DEATH = "death"
    SILENCE = "silence"


@dataclass(frozen=True, slots=True)
class Latency:
    """How many seconds a server takes.

    :param start: for its process to accept, each time it is started.
    :param look: for one look at it.
    :param act: for anything else that is asked of it.
    """

    start: float = 0.0
    look: float = 0.0
    act: float = 0.0


@dataclass(frozen=True, slots=True)
class Weather:
    """Which servers fail when.

    :param every_seconds: on average so long from one fault of a server to its next; 0: they never fail.
    :param silent_seconds: how long a silence lasts.
    """

    seed: int = 0
    every_seconds: float = 0.0
    silent_seconds: float = 5.0

    def faults(self, server_id: str, since: float, until: float) -> list[tuple[float, Fault]]:
        """The server's faults after ``since`` up to ``until``, as (moment, fault) in their order.

        >>> Weather().faults("a", 0.0, 1e9)
        []
        >>> fair = Weather(seed=1, every_seconds=60.0)
        >>> fair.faults("a", 0.0, 600.0) == fair.faults("a", 0.0, 300.0) + fair.faults("a", 300.0, 600.0)
        True
        >>> len(fair.faults("a", 0.0, 600.0))
        10
        """
        if not self.every_seconds or until <= since:
            return []
        found: list[tuple[float, Fault]] = []
        for period in range(floor(since / self.every_seconds), floor(until / self.every_seconds) + 1):
            # One fault a period, at any moment of it.
            chance = random.Random(f"{self.seed}:{server_id}:{period}")
            moment = (period + chance.random()) * self.every_seconds
            fault = chance.choice((Fault.DEATH, Fault.SILENCE))
            if since < moment <= until:
                found.append((moment, fault))
        return found
