"""Locks by name that hold among threads and among the processes of one data directory.

The kernel frees a process's when it ends. Invariant: at most one thread of one process holds a name; the same
thread may take it again. Lock files stay: removing one while another process opens it would make two locks.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


class _Lock:
    """One name's: the thread lock in front makes threads of this process sleep, the file keeps others out."""

    def __init__(self) -> None:
        self.thread = threading.RLock()
        self.depth = 0
        self.handle = -1


class NamedLocks:
    """The locks of one folder.

    :param folder: made at the first use.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._locks: dict[str, _Lock] = {}

    @contextmanager
    def hold(self, name: str) -> Generator[None]:
        """Hold the name while the block runs; waits for whoever has it."""
        self._take(name, wait=True)
        try:
            yield
        finally:
            self._give(name)

    @contextmanager
    def attempt(self, name: str) -> Generator[bool]:
        """Hold the name if nobody has it; whether that is so."""
        taken = self._take(name, wait=False)
        try:
            yield taken
        finally:
            if taken:
                self._give(name)

    def _take(self, name: str, *, wait: bool) -> bool:
        with self._guard:
            lock = self._locks.setdefault(name, _Lock())
        if not lock.thread.acquire(blocking=wait):
            return False
        if lock.depth == 0:
            try:
                taken = self._open(name, lock, wait=wait)
            except BaseException:
                lock.thread.release()
                raise
            if not taken:
                lock.thread.release()
                return False
        lock.depth += 1
        return True

    def _open(self, name: str, lock: _Lock, *, wait: bool) -> bool:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        lock.handle = handle
        return True

    def _give(self, name: str) -> None:
        lock = self._locks[name]
        lock.depth -= 1
        if lock.depth == 0:
            handle, lock.handle = lock.handle, -1
            os.close(handle)
        lock.thread.release()
