"""Locks by name that hold among threads and among the processes of one data directory.

The kernel frees a process's when it ends. Invariant: at most one thread of one process holds a name; the same
thread may take it again. Lock files stay: removing one while another process opens it would make two locks.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from homeworld.model.errors import UnavailableError

# Longer than anybody works on one server: bringing it up twice, with its recovery. Who takes longer does not
# go on (a process that is stopped), and nobody should wait for it for ever.
PATIENCE_SECONDS = 300.0
_LOOK_SECONDS = 0.02


class _Lock:
    """One name's: the thread lock in front makes threads of this process sleep, the file keeps others out."""

    def __init__(self) -> None:
        self.thread = threading.RLock()
        self.depth = 0
        self.handle = -1


class NamedLocks:
    """The locks of one folder.

    :param folder: made at the first use.
    :param patience_seconds: how long whoever has a name is waited for.
    """

    def __init__(self, folder: Path, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._folder = folder
        self._patience = patience_seconds
        self._guard = threading.Lock()
        self._locks: dict[str, _Lock] = {}

    @contextmanager
    def hold(self, name: str) -> Generator[None]:
        """Hold the name while the block runs; waits for whoever has it.

        :raises UnavailableError: who has it does not let go in time.
        """
        if not self._take(name, self._patience):
            raise UnavailableError(
                f"another process or thread has been at work on {name} for {self._patience:g} s; it has to "
                "go on, or to end"
            )
        try:
            yield
        finally:
            self._give(name)

    @contextmanager
    def attempt(self, name: str, seconds: float = 0.0) -> Generator[bool]:
        """Hold the name if nobody has it, or not for longer than that; whether that is so."""
        taken = self._take(name, seconds)
        try:
            yield taken
        finally:
            if taken:
                self._give(name)

    def claim(self, name: str, seconds: float) -> Callable[[], None]:
        """Hold the name until what is returned is called, by whichever thread; nobody takes it twice. For
        names that are held by nothing else here.

        :raises UnavailableError: whoever has it does not let go in time.
        """
        handle = self._claimed(name, time.monotonic() + seconds)
        if handle is None:
            raise UnavailableError(f"somebody else has been at work on {name} for {seconds:g} s")
        left = [handle]

        def release() -> None:
            while left:
                os.close(left.pop())

        return release

    def _take(self, name: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        with self._guard:
            lock = self._locks.setdefault(name, _Lock())
        if not lock.thread.acquire(timeout=seconds):
            return False
        if lock.depth == 0:
            try:
                taken = self._open(name, lock, deadline)
            except BaseException:
                lock.thread.release()
                raise
            if not taken:
                lock.thread.release()
                return False
        lock.depth += 1
        return True

    def _open(self, name: str, lock: _Lock, deadline: float) -> bool:
        handle = self._claimed(name, deadline)
        if handle is None:
            return False
        lock.handle = handle
        return True

    def _claimed(self, name: str, deadline: float) -> int | None:
        """The lock file, locked: it is let go by closing it. None: not in time."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(handle):
                if time.monotonic() >= deadline:
                    os.close(handle)
                    return None
                time.sleep(_LOOK_SECONDS)
        except BaseException:
            os.close(handle)
            raise
        return handle

    def _give(self, name: str) -> None:
        lock = self._locks[name]
        lock.depth -= 1
        if lock.depth == 0:
            handle, lock.handle = lock.handle, -1
            os.close(handle)
        lock.thread.release()


def _locked(handle: int) -> bool:
    """Take the file's lock, if nobody has it. The kernel's own wait has no deadline."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
