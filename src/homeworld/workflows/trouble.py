"""Failures in a row, and the growing pause after each.

Lives in memory only: after a restart everything may be tried at once. Time is monotonic.
"""

from __future__ import annotations

import time

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
LONGEST_OUTAGE_SECONDS = 3.0
PATIENCE_SECONDS = 900.0
FORGET_SECONDS = 60.0


class Troubles:
    """Counts the failures of one thing. An *outage* (a server that does not answer) ends by itself sooner or
    later, so it is tried again often and counts only where it has lasted for ``PATIENCE_SECONDS``.
    """

    def __init__(self) -> None:
        self._all = 0
        self._own = 0
        self._first = 0.0
        self._newest = 0.0
        self.reason = ""

    @property
    def tries(self) -> int:
        """All failures in a row, outages too."""
        return self._all

    @property
    def count(self) -> int:
        """The failures in a row that count."""
        return self._own if time.monotonic() - self._first < PATIENCE_SECONDS else self._all

    def add(self, reason: str, *, outage: bool = False) -> None:
        """It failed once more."""
        self._newest = time.monotonic()
        if not self._all:
            self._first = self._newest
        self._all += 1
        self._own += not outage
        self.reason = reason

    def clear(self) -> None:
        """It went well."""
        self._all = self._own = 0
        self.reason = ""

    def forget_old(self) -> None:
        """Clear when the newest failure is long ago; for things whose going well is only seen in time."""
        if self._all and time.monotonic() - self._newest > FORGET_SECONDS:
            self.clear()

    @property
    def waiting(self) -> bool:
        """Whether the pause after the newest failure is still on."""
        return self.left_seconds > 0.0

    @property
    def left_seconds(self) -> float:
        """For how long the pause after the newest failure is still on."""
        if not self._all:
            return 0.0
        longest = LONGEST_SECONDS if self._own else LONGEST_OUTAGE_SECONDS
        pause = min(FIRST_SECONDS * 2.0 ** min(self._all - 1, 16), longest)
        return max(0.0, self._newest + pause - time.monotonic())
