"""When copying has to wait for others: asked before each chunk, answered with a reason or none.

Only copying is slowed; following never is, because falling behind helps nobody. It knows no chunks. A rule
that cannot find out lets pass: a replica that does not answer must not stop a move for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeAlias

#: The reason to wait, or the empty string.
ThrottleRule: TypeAlias = Callable[[], str]


def limit(name: str, measure: Callable[[], float | None], most: float) -> ThrottleRule:
    """Wait while ``measure`` (None: unknown) is above ``most``.

    :param name: what is said in ``throttled_by``.
    """

    def rule() -> str:
        value = measure()
        return name if value is not None and value > most else ""

    return rule


class Throttle:
    """Asks all rules, not more often than every ``seconds``; any thread."""

    def __init__(self, rules: Sequence[ThrottleRule], seconds: float = 0.25) -> None:
        self._rules = tuple(rules)
        self._seconds = seconds
        self._asked = float("-inf")
        self._reason = ""

    def reason(self) -> str:
        """Why to wait now; empty: go on."""
        now = time.monotonic()
        if now - self._asked >= self._seconds:
            self._asked = now
            self._reason = next(filter(None, (rule() for rule in self._rules)), "")
        return self._reason
