"""A wall clock that the controller can move, for the worker and its movers.

The product asks for the wall clock's time in three ways: ``time.time``, the store's ``SystemClock`` and the
gateway's own. :func:`install` puts an offset into all of them, in the process that calls it and its forks;
the offset lies in a file that is mapped into memory, so that all of them step at the same moment. Monotonic
time is not touched, as it is not when a machine's clock is set. (A preloaded library that would do it for the
whole process, libfaketime, lets ``time.sleep`` fail on Python 3.11.) The servers' clocks stay.
"""

from __future__ import annotations

import mmap
import struct
import time
from datetime import UTC, datetime
from pathlib import Path

from homeworld.gateway import server
from homeworld.store import engine

_FORMAT = struct.Struct("d")


class Offset:
    """Seconds by which clocks are off, in a file."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_FORMAT.pack(0.0))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _FORMAT.size)

    def set(self, seconds: float) -> None:
        """Step."""
        self._memory[:] = _FORMAT.pack(seconds)

    def get(self) -> float:
        """How far it is off."""
        return float(_FORMAT.unpack(self._memory[:])[0])


def install(path: Path) -> None:
    """From now on this process's wall clock is off by what stands at ``path``."""
    offset, real = Offset(path), time.time

    def stepped() -> float:
        return real() + offset.get()

    def now(self: object) -> datetime:
        return datetime.fromtimestamp(stepped(), UTC)

    time.time = stepped
    engine.SystemClock.now = now  # type: ignore[method-assign]
    server._UtcClock.now = now  # type: ignore[reportPrivateUsage]
