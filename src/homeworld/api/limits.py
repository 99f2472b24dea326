"""How often somebody may ask: each credential so many requests a minute, each address so many wrong
credentials.

Invariants: a credential is counted before it is looked whether it is one, by what was sent, so that nobody
uses up another's requests; whoever has a right one is never kept from it by others at the same address, who
guess. What is remembered is bounded, and each process counts for itself.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from homeworld.model.errors import TooManyError

WINDOW_SECONDS = 60.0
_MOST_KEYS = 20_000


@dataclass(slots=True)
class _Window:
    ends: float
    count: int


class Windows:
    """Counts by key within a minute that begins with the key's first.

    :param most: how many are allowed; 0: any number.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def count(self, key: str) -> float:
        """Count one more; 0, or for how many seconds there are no more."""
        if not self._most:
            return 0.0
        now = self._clock()
        with self._lock:
            window = self._windows.get(key)
            if window is None or window.ends <= now:
                self._windows.pop(key, None)
                window = self._windows[key] = _Window(now + WINDOW_SECONDS, 0)
                # The oldest is the first to end: windows stand in the order in which they began.
                while len(self._windows) > _MOST_KEYS:
                    self._windows.popitem(last=False)
            if window.count >= self._most:
                return window.ends - now
            window.count += 1
            return 0.0


class Limits:
    """What one process allows.

    :param requests: a minute, of each credential; 0: any number.
    :param failures: wrong credentials a minute, from each address; 0: any number.
    """

    def __init__(
        self, requests: int = 0, failures: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = requests
        self._requests = Windows(requests, clock)
        self._failures = Windows(failures, clock)

    def request(self, authorization: str, address: str) -> None:
        """Count a request.

        :param authorization: as sent; without any the address is counted.
        :raises TooManyError: there were as many as allowed.
        """
        sent = authorization or f"address {address}"
        wait = self._requests.count(hashlib.sha256(sent.encode(errors="replace")).hexdigest())
        if wait:
            raise TooManyError(
                f"more than {self._most} requests a minute; wait {wait:.0f} seconds and ask again", wait
            )

    def failure(self, address: str) -> None:
        """Count a wrong credential.

        :raises TooManyError: there were as many as allowed from this address.
        """
        wait = self._failures.count(address)
        if wait:
            raise TooManyError(f"too many wrong credentials from this address; wait {wait:.0f} seconds", wait)
