"""How often somebody may ask: each credential so many requests a minute, each address so many wrong
credentials.

Invariants: a credential is counted before it is looked whether it is one, by what was sent, so that nobody
uses up another's requests; whoever has a right one is never kept from it by others at the same address, who
guess. What is remembered is bounded. Several processes tell each other of a credential's requests, many at a
time, so that together they allow hardly more than one would.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from homeworld.model.errors import TooManyError, UnavailableError

WINDOW_SECONDS = 60.0
_MOST_KEYS = 20_000
# In how many parts of the limit a process tells the others what it counted. Who asks seldom is never told of.
_TOLD_PARTS = 10

# Tell all processes of a key's requests: key, how many more, for how many seconds they count where nobody
# told of any yet. Gives how many there are in all, and for how many seconds they count.
Tell = Callable[[str, int, float], tuple[int, float]]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Window:
    """``told``: of ``count``, what the other processes know; ``others``: what is known of theirs."""

    ends: float
    count: int
    told: int = 0
    others: int = 0
    telling: bool = False


class Windows:
    """Counts by key within a minute that begins with the key's first.

    :param most: how many are allowed; 0: any number.
    :param tell: where other processes count the same keys.
    """

    def __init__(
        self, most: int, clock: Callable[[], float] = time.monotonic, tell: Tell | None = None
    ) -> None:
        self._most = most
        self._clock = clock
        self._tell = tell
        self._told_at_once = max(1, most // _TOLD_PARTS)
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
            if window.count + window.others >= self._most:
                return window.ends - now
            window.count += 1
            # One thread tells at a time, so that it is known which of all that were told are others'.
            if self._tell is None or window.telling or window.count - window.told < self._told_at_once:
                return 0.0
            window.telling, more = True, window.count - window.told
        self._tell_others(self._tell, key, window, more)
        return 0.0

    def _tell_others(self, tell: Tell, key: str, window: _Window, more: int) -> None:
        told = None
        try:
            told = tell(key, more, max(0.0, window.ends - self._clock()))
        except UnavailableError:
            # What this process counts is held all the same.
            _log.warning("the other APIs were not told of requests", exc_info=True)
        finally:
            with self._lock:
                window.telling = False
                if told is not None:
                    total, seconds = told
                    window.told += more
                    window.others = max(0, total - window.told)
                    window.ends = min(window.ends, self._clock() + seconds)


def _credential(authorization: str) -> str:
    """What was sent, however it was written: one credential has one limit."""
    kind, _, rest = authorization.strip().partition(" ")
    return f"bearer {rest.strip()}" if kind.lower() == "bearer" else authorization.strip()


class Limits:
    """What is allowed.

    :param requests: a minute, of each credential; 0: any number.
    :param failures: wrong credentials a minute, from each address, in this process; 0: any number.
    :param tell: where other processes allow the same requests.
    """

    def __init__(
        self,
        requests: int = 0,
        failures: int = 0,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell | None = None,
    ) -> None:
        self._most = requests
        self._requests = Windows(requests, clock, tell)
        self._failures = Windows(failures, clock)

    def request(self, authorization: str, address: str) -> None:
        """Count a request.

        :param authorization: as sent; without any the address is counted.
        :raises TooManyError: there were as many as allowed.
        """
        sent = _credential(authorization) or f"address {address}"
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
