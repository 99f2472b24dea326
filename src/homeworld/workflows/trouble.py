"""Failures in a row, and the growing pause after each.

Lives in memory only: after a restart everything may be tried at once. Time is monotonic.
"""

from __future__ import annotations

import time

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
FORGET_SECONDS = 60.0


class Troubles:
    """Counts the failures of one thing."""

    def __init__(self) -> None:
        self.count = 0
        self.reason = ""
        self._newest = 0.0

    def add(self, reason: str) -> None:
        """It failed once more."""
        self.count += 1
        self.reason = reason
        self._newest = time.monotonic()

    def clear(self) -> None:
        """It went well."""
        self.count = 0
        self.reason = ""

    def forget_old(self) -> None:
        """Clear when the newest failure is long ago; for things whose going well is only seen in time."""
        if self.count and time.monotonic() - self._newest > FORGET_SECONDS:
            self.clear()

    @property
    def waiting(self) -> bool:
        """Whether the pause after the newest failure is still on."""
        if not self.count:
            return False
        pause = min(FIRST_SECONDS * 2 ** (self.count - 1), LONGEST_SECONDS)
        return time.monotonic() - self._newest < pause
