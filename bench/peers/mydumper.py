"""mydumper and myloader: the peer of the copy. A dump to files, then a load of the files, all in one schema.

At its best settings as tried here: chunked rows, statements of 1 MB, no compression, over unix sockets, only
errors logged. It does not split rows by shard, and it makes the secondary key before the rows.
"""

from __future__ import annotations

import shutil
import time

from tests.support.mysqld import TestServer, password_of, user_of

from bench.lab import Lab, program, run
from bench.tables import SCHEMA
from homeworld.model.names import quote
from homeworld.model.topology import BackendRole

CHUNK_ROWS = 25_000
_SECONDS = 900.0
_LOGIN = ("-u", user_of(BackendRole.OWNER), "-p", password_of(BackendRole.OWNER), "-v", "1")


def copy(lab: Lab, source: TestServer, target: TestServer, threads: int, *, binlog: bool = True) -> float:
    """Dump the bench's schema and load it into ``target``, where it must not exist; the seconds both took.

    :param binlog: write the loaded rows to the target's binlog, so that its replicas get them. Without, the
        load is cheaper and the target cannot have replicas.
    """
    folder = lab.folder / "dump"
    begun = time.perf_counter()
    run(
        [
            program("mydumper"), "-S", source.socket, *_LOGIN, "-B", SCHEMA, "-t", str(threads),
            "-r", str(CHUNK_ROWS), "-o", str(folder),
        ],
        _SECONDS,
    )  # fmt: skip
    run(
        [
            program("myloader"), "-S", target.socket, *_LOGIN, "-B", SCHEMA, "-t", str(threads),
            "-d", str(folder), *(["-e"] if binlog else []),
        ],
        _SECONDS,
    )  # fmt: skip
    seconds = time.perf_counter() - begun
    shutil.rmtree(folder)
    return seconds


def forget(target: TestServer) -> None:
    """Make the target ready for another run."""
    target.query(f"DROP DATABASE IF EXISTS {quote(SCHEMA)}")
