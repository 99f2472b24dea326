"""The gateway under bad input: parsers, logins and sessions without sockets, then a gateway on a socket.

``campaign`` plays cases until the time is over. Each case is one seed, and a failure names it:
``make fuzz-gateway SEED=n`` begins there.
"""

from __future__ import annotations

import itertools
import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from homeworld.gateway.accounts import Accounts
from homeworld.model.topology import Flavor
from tests.fuzz.gateway import parsers
from tests.fuzz.gateway.storm import Failures, Storm

_MOST_FAILURES = 10
_ACCOUNTS = Accounts()


def storm(seed: int) -> None:
    """A session, its client and its servers."""
    Storm(seed).run()


def parsing(seed: int) -> None:
    """A dozen payloads through the parsers, the walker, the packet buffer, both sides' logins."""
    rng = random.Random(seed)
    for _ in range(4):
        parsers.parse(rng)
        parsers.walk(rng)
        parsers.frames(rng)
        parsers.login_of_client(rng, _ACCOUNTS)
        parsers.login_at_server(rng)


KINDS: Sequence[Callable[[int], None]] = (storm, parsing)
"""What one seed plays, one after the other."""


def play(seeds: Iterator[int], seconds: float = float("inf")) -> tuple[int, list[str]]:
    """Play cases.

    :returns: how many were played, and what failed.
    """
    end = time.monotonic() + seconds
    failures: list[str] = []
    played = 0
    with Failures() as logged:
        for seed in seeds:
            for kind in KINDS:
                logged.found.clear()
                try:
                    kind(seed)
                    assert not logged.found, logged.found[0]
                except Exception:  # noqa: BLE001 - whatever it was, it is the finding
                    failures.append(f"gateway {kind.__name__} SEED={seed}\n{traceback.format_exc()}")
                played += 1
            if time.monotonic() > end or len(failures) >= _MOST_FAILURES:
                break
    return played, failures


def campaign(seconds: float, seed: int, flavors: Sequence[Flavor]) -> list[str]:
    """See ``tests.fuzz``. No database is asked: the servers here say what no real one would."""
    from tests.fuzz.gateway import sockets

    assert flavors
    begun = time.monotonic()
    played, failures = play(itertools.count(seed), seconds * 0.7)
    took = time.monotonic() - begun
    print(f"  {played} cases without sockets, {played / took:.0f} a second", flush=True)
    return failures + sockets.campaign(seconds * 0.3, seed)
