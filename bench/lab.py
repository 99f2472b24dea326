"""Servers, folders and child processes of one figure; leaving the ``with`` ends and deletes all of them.

It knows no figure. Invariant: whatever way a figure ends (an error, ctrl-C, kill -9 of the bench), nothing
that it started outlives it: in order by :meth:`Lab.close`, else by the warden, which knows every folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.mysqld import TestServer, binary, start_server
from tests.support.warden import guard

from homeworld.cli.installation import Installation
from homeworld.engines.vitess.crew import home_of
from homeworld.model.topology import Flavor


class BenchError(Exception):
    """A figure could not be taken; the message says why."""


# Durability is that of production (sync_binlog=1, flush at each commit: the engine's own settings); memory is
# such that the tables fit and both sides are bound by the same things.
SERVER_OPTIONS = ("innodb-buffer-pool-size=768M", "max-allowed-packet=256M", "max-binlog-size=1G")
FLAVOR_OPTIONS = {
    Flavor.MYSQL: ("innodb-redo-log-capacity=1G",),
    Flavor.MARIADB: ("innodb-log-file-size=1G",),
}


class Lab:
    """One figure's folder with everything that runs in it."""

    def __init__(self, flavor: Flavor) -> None:
        self.flavor = flavor
        self.folder = Path(tempfile.mkdtemp(prefix="homeworld-bench-"))
        self._stack = contextlib.ExitStack()
        self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
        guard(self.folder, delete=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything, newest first; all is tried even where one fails."""
        self._stack.close()

    def server(self, *options: str) -> TestServer:
        """A fresh server with the bench's settings; ``options`` win over them."""
        made = start_server(self.flavor, self.folder, *SERVER_OPTIONS, *FLAVOR_OPTIONS[self.flavor], *options)
        self._stack.callback(made.close)
        return made

    def copy_of(self, original: TestServer, *options: str) -> TestServer:
        """A server with the data of another one, which must be stopped: same rows and position, other ids."""
        made = TestServer(
            self.flavor, self.folder / f"copy-of-{original.server_id}", (*original.options, *options)
        )
        self._stack.callback(made.close)
        made.data_dir.parent.mkdir(parents=True)
        subprocess.run(
            ["cp", "-a", "--reflink=auto", "--sparse=always", original.data_dir, made.data_dir], check=True
        )
        (made.data_dir / "auto.cnf").unlink(missing_ok=True)
        made.start()
        return made

    def installation(self, *options: str) -> Installation:
        """A running ``homeworld up`` on free ports."""
        program = binary(self.flavor)
        if program is None:
            raise BenchError(f"no {self.flavor} server program on this machine")
        number = len(list(self.folder.glob("installation-*")))
        made = Installation(
            self.folder / f"installation-{number}",
            ("--mysqld", str(program), "--api-port", "0", "--gateway-port", "0", *options),
        )
        if "vitess" in options:
            home = home_of(made.data_dir)
            guard(home, delete=True)
            self._stack.callback(shutil.rmtree, home, ignore_errors=True)
        self._stack.callback(made.destroy)
        made.start()
        return made

    def process(
        self, command: Sequence[str], log: Path, *, cwd: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a child; it is killed at the end where it still runs."""
        with log.open("wb") as out:
            child = subprocess.Popen(
                list(command), stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=cwd
            )
        self._stack.callback(_kill, child)
        return child


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()


def run(command: Sequence[str], timeout_seconds: float) -> str:
    """Run a program to its end and return what it printed.

    :raises BenchError: it failed or took too long; its last words are in the message.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MYSQL")}
    try:
        done = subprocess.run(
            list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", timeout=timeout_seconds, check=False, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"{command[0]} did not end within {timeout_seconds:g} s") from None
    if done.returncode != 0:
        raise BenchError(f"{command[0]} ended with {done.returncode}: {done.stdout[-1500:].strip()}")
    return done.stdout


def program(name: str) -> str:
    """The path of a peer's program.

    :raises BenchError: it is not installed.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/local/sbin")
    if found is None:
        raise BenchError(f"{name} is not installed: scripts/install-debian bench")
    return found


def wait_until(
    holds: Callable[[], bool], what: str, timeout_seconds: float, pause_seconds: float = 0.02
) -> None:
    """Return once ``holds()`` is true.

    :raises BenchError: it was not within the time.
    """
    deadline = time.monotonic() + timeout_seconds
    while not holds():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {timeout_seconds:g} s")
        time.sleep(pause_seconds)
