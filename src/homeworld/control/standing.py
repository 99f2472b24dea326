"""How a gateway stands to the others: its lease as its own clock tells it. Pure but for reading that clock.

Theory of operation::

    OUT       serves nothing that moves
       | entered: a row in the store, from which on it is told of everything
    ENTERING  reads what it has to keep: routes and holds
       | joined
    MEMBER    serves what moves while ``now < until``; each renewal moves ``until`` on
       | refused: others went on without it
    OUT

The invariant: ``until`` is before the moment at which anybody may go on without this gateway. It is counted
from *before* the renewal was asked for, by a clock that also counts while the machine sleeps, and ends some
time before the store's own count (``margin``), for clocks that do not run alike. A lease that has ended by
this count and is renewed all the same is good again: nobody had set the gateway apart, or there would have
been nothing to renew.
"""

from __future__ import annotations

import time

TTL_SECONDS = 4.0
RENEW_SECONDS = 1.0
MARGIN_SECONDS = 0.5


def now() -> float:
    """Seconds by a clock that nobody sets and that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Standing:
    """One gateway's. Its calls come from one thread at a time, but for :meth:`live`, which any may ask."""

    def __init__(self, ttl_seconds: float = TTL_SECONDS, margin_seconds: float = MARGIN_SECONDS) -> None:
        self._good_for = ttl_seconds - margin_seconds
        self._granted = 0.0
        self.until = 0.0
        self.incarnation = 0
        self.joined = False

    def live(self) -> bool:
        """Whether what moves may be served now."""
        return time.clock_gettime(time.CLOCK_BOOTTIME) < self.until

    def enter(self, incarnation: int, asked: float) -> None:
        """Entered, as asked for at that moment. Nothing is served before :meth:`join`."""
        self.until = 0.0
        self.joined = False
        self.incarnation = incarnation
        self._granted = asked + self._good_for

    def join(self, incarnation: int) -> bool:
        """Everything is as routes and holds say; false: refused meanwhile."""
        if not incarnation or incarnation != self.incarnation:
            return False
        self.joined = True
        self.until = self._granted
        return True

    def renewed(self, incarnation: int, asked: float) -> None:
        """The lease was renewed, as asked for at that moment."""
        if incarnation == self.incarnation:
            self._granted = max(self._granted, asked + self._good_for)
            if self.joined:
                self.until = self._granted

    def refused(self, incarnation: int) -> None:
        """The lease was not renewed, because others went on."""
        if incarnation == self.incarnation:
            self.until = 0.0
            self.joined = False
            self.incarnation = 0
