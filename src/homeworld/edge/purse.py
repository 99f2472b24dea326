"""How much of all requests and answers is in memory at once: one count for the whole gateway.

The invariant: nobody holds more than is left, so that there is always some left for others, however much one
organization asks for and however slowly it takes its answers.
"""

from __future__ import annotations


class Purse:
    """Bytes that may be held. :param most: together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0
        self._by: dict[str, int] = {}

    def take(self, whose: str, size: int) -> bool:
        """Hold so many more for an organization; false: there are too many, and none are added."""
        theirs = self._by.get(whose, 0) + size
        if self.held + size + theirs > self.most:
            return False
        self.held += size
        self._by[whose] = theirs
        return True

    def give(self, whose: str, size: int) -> None:
        """So many are not held any more."""
        self.held -= size
        left = self._by.pop(whose, 0) - size
        if left > 0:
            self._by[whose] = left


class Charge:
    """What one request holds of a purse. :param whose: organization it is of."""

    def __init__(self, purse: Purse, whose: str) -> None:
        self._purse = purse
        self._whose = whose
        self._size = 0

    def reach(self, size: int) -> bool:
        """Hold ``size`` bytes in all; false: there are too many."""
        more = size - self._size
        if more > 0 and not self._purse.take(self._whose, more):
            return False
        if more > 0:
            self._size = size
        return True

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._purse.give(self._whose, self._size)
        self._size = 0
