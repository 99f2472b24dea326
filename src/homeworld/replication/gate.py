"""The gate: a fair lock between one applier and the copiers.

Whoever holds it may change what is ahead, under way and done, and what was applied. It is handed on in the
order of asking, because an applier that always has the next batch at hand would otherwise never let a copier
in. It knows nothing of what it guards.
"""

from __future__ import annotations

import threading
from types import TracebackType


class Gate:
    """A lock that serves in the order of arrival. Not re-entrant."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._next = 0
        self._serving = 0

    @property
    def waiting(self) -> int:
        """How many ask for it while it is held."""
        with self._condition:
            return max(0, self._next - self._serving - 1)

    def acquire(self) -> None:
        """Wait for one's turn."""
        with self._condition:
            ticket = self._next
            self._next += 1
            while self._serving != ticket:
                self._condition.wait()

    def release(self) -> None:
        """Let the next one in."""
        with self._condition:
            self._serving += 1
            self._condition.notify_all()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
