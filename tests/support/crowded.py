"""A gateway, and a server behind it, each in a process of its own: for crowds of clients.

``python -m tests.support.crowded server`` and ``… gateway PORT DESCRIPTORS`` print their port and stay until
their standard input ends. :func:`crowded` starts both.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from homeworld.model.topology import BackendRole
from tests.support.gateway import DATABASE, secret
from tests.support.hostile import HostileServer, gateway_before
from tests.support.wire import WireClient


@dataclass
class Crowded:
    """The gateway's port, and its process."""

    port: int
    pid: int

    def enter(self) -> WireClient:
        """A client, logged in."""
        return WireClient(self.port, BackendRole.ADMIN.value, secret(BackendRole.ADMIN), DATABASE)

    @property
    def resident(self) -> int:
        """Bytes of memory that the gateway's process has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the gateway's process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def descriptors(self) -> int:
        """File descriptors that it has."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())


def _start(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.crowded", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@contextlib.contextmanager
def crowded(descriptors: int = 0) -> Generator[Crowded]:
    """A gateway in front of a server that answers everything; both end with the block.

    :param descriptors: the most that the gateway's process may have; 0: as many as this machine lets it.
    """
    started: list[subprocess.Popen[str]] = []
    try:
        server, server_port = _start("server")
        started.append(server)
        gateway, port = _start("gateway", str(server_port), str(descriptors))
        started.append(gateway)
        yield Crowded(port, gateway.pid)
    finally:
        for process in reversed(started):
            process.communicate(timeout=60)


def raise_descriptors(most: int = 0) -> None:
    """Let this process have that many file descriptors; 0: as many as it may."""
    most = most or resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    logging.disable(logging.INFO)
    if sys.argv[1] == "server":
        raise_descriptors()
        with HostileServer() as server:
            print(server.port, flush=True)
            sys.stdin.read()
        return
    raise_descriptors(int(sys.argv[3]))
    with tempfile.TemporaryDirectory() as folder, gateway_before(int(sys.argv[2]), Path(folder)) as gw:
        print(gw.gateway.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
