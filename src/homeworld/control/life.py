"""Whether a process of this data directory lives: by a lock that the kernel gives back when it ends.

Invariant: :meth:`Lives.ended` says yes only of a process that has ended, whose connections the kernel has
closed; of one that is stopped, or that nothing is known of, it says no.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from homeworld.model.errors import ConflictError


class Lives:
    """The living processes of one folder, each by an id of its own.

    :param folder: made where it is absent; readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def _file(self, life_id: str) -> Path:
        return self._folder / f"{life_id}.life"

    @contextmanager
    def live(self, life_id: str) -> Generator[None]:
        """Live under this id while the block runs, or until the process ends.

        :raises ConflictError: somebody lives under it.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(self._file(life_id), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConflictError(f"somebody lives as {life_id}") from None
            yield
        finally:
            os.close(handle)

    def ended(self, life_id: str) -> bool:
        """Whether whoever lived under this id has ended for certain."""
        try:
            handle = os.open(self._file(life_id), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)
        return True

    def forget(self, life_id: str) -> None:
        """Remove all files of one that has ended and that nobody asks for any more."""
        for left in self._folder.glob(f"{life_id}.*"):
            left.unlink(missing_ok=True)
