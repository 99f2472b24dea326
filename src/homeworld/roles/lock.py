"""Who has a data directory: one ``homeworld up``, or any number of roles that share it."""

from __future__ import annotations

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from homeworld.model.errors import InvalidError


@contextmanager
def data_dir_lock(data_dir: Path, *, shared: bool = False) -> Generator[None]:
    """Own the data directory while the block runs; the kernel frees it when the process dies.

    :param shared: among others that share it.
    :raises InvalidError: another homeworld uses it, or it cannot be made.
    """
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        data_dir.chmod(0o700)  # what is in it is for its owner only, whoever made the folder
        file = (data_dir / "lock").open("a+")
    except OSError as error:
        raise InvalidError(f"the data directory {data_dir} cannot be used: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidError(
                f"the data directory {data_dir} is in use by another homeworld; stop that one or name another"
            ) from None
        yield
