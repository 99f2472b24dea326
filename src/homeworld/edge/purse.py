"""How much of all requests and answers is in memory at once: one count for the whole gateway."""

from __future__ import annotations


class Purse:
    """Bytes that may be held. :param most: together."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def take(self, size: int) -> bool:
        """Hold so many more; false: there are too many, and none are added."""
        if self.held + size > self.most:
            return False
        self.held += size
        return True

    def give(self, size: int) -> None:
        """So many are not held any more."""
        self.held -= size


class Charge:
    """What one request holds of a purse."""

    def __init__(self, purse: Purse) -> None:
        self._purse = purse
        self._size = 0

    def reach(self, size: int) -> bool:
        """Hold ``size`` bytes in all; false: there are too many."""
        more = size - self._size
        if more > 0 and not self._purse.take(more):
            return False
        if more > 0:
            self._size = size
        return True

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._purse.give(self._size)
        self._size = 0
