"""sysbench as a load: its command lines, and what its reports say.

It knows no figure. sysbench's default distribution picks a few rows again and again; here every row is as
likely as any other, so that neither side gains from a hot set.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bench.lab import BenchError, program
from bench.tables import SCHEMA

_REPORT = re.compile(r"^\[ [\d.]+s \] thds: \d+ tps: [\d.]+ qps: ([\d.]+) .* err/s: ([\d.]+)")


@dataclass(frozen=True, slots=True)
class Server:
    """Where sysbench connects, as whom. ``socket`` wins over host and port where it is not empty."""

    user: str
    password: str = field(repr=False)
    socket: str = ""
    host: str = "127.0.0.1"
    port: int = 0
    schema: str = SCHEMA

    def options(self) -> list[str]:
        """sysbench's options for it."""
        where = (
            [f"--mysql-socket={self.socket}"]
            if self.socket
            else [f"--mysql-host={self.host}", f"--mysql-port={self.port}"]
        )
        return [
            "--db-driver=mysql", *where, f"--mysql-user={self.user}", f"--mysql-password={self.password}",
            f"--mysql-db={self.schema}",
        ]  # fmt: skip


def command(script: str, server: Server, rows: int, threads: int, *options: str) -> list[str]:
    """A sysbench command on the bench's one table."""
    return [
        program("sysbench"), script, *server.options(), "--tables=1", f"--table-size={rows}",
        f"--threads={threads}", "--rand-type=uniform", *options, "run",
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Interval:
    """One report of a running sysbench: queries of the last stretch, and when the report came (monotonic)."""

    at: float
    queries_per_second: float
    errors_per_second: float


def watch(line: Sequence[str]) -> Iterator[Interval]:
    """Run a sysbench command with reports each second and give them as they come.

    Whoever stops early ends sysbench.

    :raises BenchError: sysbench failed; its last words are in the message.
    """
    with subprocess.Popen(
        list(line), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        said: list[str] = []
        try:
            for text in child.stdout or ():
                match = _REPORT.match(text)
                if match is None:
                    said.append(text)
                else:
                    yield Interval(time.monotonic(), float(match[1]), float(match[2]))
        except GeneratorExit:
            child.kill()
            raise
        if child.wait() != 0:
            raise BenchError(f"sysbench ended with {child.returncode}: {''.join(said)[-1500:].strip()}")
