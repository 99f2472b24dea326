"""The servers of a world as the controller sees them: processes, disks, and sessions past the gateway.

The controller changes nothing of the engine's; who starts a dead server again is the worker's watcher. Knows
no workflow. A server's data lie on a file system of their own, of a known size, where that can be had.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql

from homeworld.engines.local import LocalEngine
from homeworld.model.topology import BackendRole

DISK_MB = 640


@dataclass(frozen=True, slots=True)
class Server:
    """One server. ``side`` is source or target, ``schema`` its shard's, quoted."""

    server_id: str
    side: str
    primary: bool
    shard: str
    schema: str


class Machines:
    """All servers of one world."""

    def __init__(self, engine: LocalEngine, folder: Path, servers: Sequence[Server]) -> None:
        self.engine = engine
        self.folder = folder
        self.all = tuple(servers)
        self.disks: set[str] = set()

    @property
    def primaries(self) -> tuple[Server, ...]:
        """Those that take writes."""
        return tuple(server for server in self.all if server.primary)

    def of(self, side: str, *, primary: bool = True) -> tuple[Server, ...]:
        """The servers of a side."""
        return tuple(server for server in self.all if server.side == side and server.primary is primary)

    # -- sessions --------------------------------------------------------------------------------------------

    def connect(self, server: Server, seconds: float = 60.0) -> pymysql.connections.Connection[Any]:
        """As the server's owner, through its own socket."""
        endpoint = self.engine.endpoint(server.server_id, BackendRole.OWNER)
        # PyMySQL leaks a socket of its own making where nobody listens.
        channel = socket.socket(socket.AF_UNIX)
        try:
            channel.settimeout(seconds)
            channel.connect(endpoint.socket)
            made = pymysql.connect(
                unix_socket=endpoint.socket, user=endpoint.user, password=endpoint.password, autocommit=True,
                charset="utf8mb4", read_timeout=seconds, write_timeout=seconds, connect_timeout=int(seconds),
                defer_connect=True,
            )  # fmt: skip
            made.connect(channel)
        except OSError as error:
            channel.close()
            raise pymysql.err.OperationalError(2002, f"{server.server_id}: {error}") from error
        except BaseException:
            channel.close()
            raise
        return made

    def run(self, server: Server, *statements: str) -> list[tuple[Any, ...]]:
        """The last statement's rows."""
        with self.connect(server) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def has_table(self, server: Server, schema: str, table: str) -> bool:
        """Whether it has the table."""
        where = f"table_schema = '{schema.strip('`')}' AND table_name = '{table}'"
        return self.run(server, f"SELECT COUNT(*) FROM information_schema.tables WHERE {where}") == [(1,)]

    def answers(self, server: Server) -> bool:
        """Whether it accepts and answers."""
        try:
            with self.connect(server, 10.0) as connection, connection.cursor() as cursor:
                return cursor.execute("SELECT 1") == 1
        except (pymysql.MySQLError, OSError):
            return False

    # -- processes -------------------------------------------------------------------------------------------

    def pid(self, server: Server) -> int:
        """Its process."""
        return int((self.folder / "servers" / server.server_id / "pid").read_text().split()[0])

    def kill(self, server: Server) -> None:
        """As a power cut would, for this process."""
        os.kill(self.pid(server), signal.SIGKILL)

    def freeze(self, server: Server, on: bool) -> None:
        """Stop its process, or let it go on."""
        os.kill(self.pid(server), signal.SIGSTOP if on else signal.SIGCONT)

    # -- disks -----------------------------------------------------------------------------------------------

    @staticmethod
    def can_have_disks() -> bool:
        """Whether file systems of a size can be mounted here."""
        return os.geteuid() == 0 and shutil.which("mount") is not None

    def give_disks(self) -> None:
        """Put each primary's folder onto a file system of its own. The servers are down."""
        for server in self.primaries:
            place = self.folder / "servers" / server.server_id
            aside = place.with_name(f".aside-{server.server_id}")
            place.rename(aside)
            place.mkdir(mode=0o700)
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=0700", "homeworld-chaos", str(place)],
                check=True,
            )
            self.disks.add(server.server_id)
            subprocess.run(["cp", "-a", "--sparse=always", f"{aside}/.", str(place)], check=True)
            shutil.rmtree(aside)

    def take_disks(self) -> None:
        """Unmount them; the servers are down."""
        for server_id in list(self.disks):
            place = self.folder / "servers" / server_id
            subprocess.run(["umount", "-l", str(place)], check=True)
            self.disks.discard(server_id)

    def fill_disk(self, server: Server) -> None:
        """Nothing more can be written."""
        place = self.folder / "servers" / server.server_id
        ballast = os.open(place / "ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            for size in (1 << 20, 4096):
                while True:
                    try:
                        os.write(ballast, b"\0" * size)
                    except OSError:
                        break
        finally:
            os.close(ballast)

    def free_disk(self, server: Server) -> None:
        """There is room again."""
        (self.folder / "servers" / server.server_id / "ballast").unlink(missing_ok=True)
