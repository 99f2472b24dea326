"""Where a managed server's files are, and the small record that outlives this process.

A server is one folder ``servers/<server_id>/`` with ``server.json`` (the record), ``my.cnf``, ``data/``,
``files/``, ``server.log`` and ``pid``. The record is written before anything else is made, so a server that
was half made when the process died is found and finished. Knows nothing of processes or SQL.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import socket
import stat
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from homeworld.model.errors import InvalidError, NotFoundError, UnavailableError
from homeworld.model.sizes import ServerSize
from homeworld.model.topology import Flavor

# The kernel allows 108 bytes with the final NUL.
SOCKET_LIMIT = 107
# Below the range from which the kernel takes ports for outgoing connections (32768 and up by default).
PORTS = range(21000, 32000)
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a server whether it runs or not.

    :param mysql_server_id: MySQL's own ``server_id``, unique among the servers of this data directory.
    :param accounts: digest of the accounts and rights that the server has.
    :param promoted_at: of a replica that was made a primary: the GTID set that it had then. What its former
        primary has beyond it is lost, and must never come back.
    :param promoting: the replica that is taking this server's place (see ``promotion``); empty: none.
    :param size: what it may use; None: what the installation's configuration says.
    :param starts: how often its process was started.
    """

    server_id: str
    mysql_server_id: int
    flavor: Flavor
    version: str
    port: int
    socket: str
    replica_of: str | None
    accounts: str
    promoted_at: str = ""
    promoting: str = ""
    size: ServerSize | None = None
    starts: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """The files of one server.

    :param files: the only folder the server may read and write files in for SQL (secure_file_priv).
    """

    folder: Path
    record: Path
    config: Path
    data: Path
    files: Path
    log: Path
    pid: Path


class Layout:
    """The data directory of a LocalEngine."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.absolute()
        self.servers = self.root / "servers"
        self.templates = self.root / "templates"
        self.secrets = self.root / "secrets.json"
        self.locks = self.root / "locks"

    def make(self) -> None:
        """Create the folders (mode 0700)."""
        for folder in (self.root, self.servers, self.templates):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def place(self, server_id: str) -> Place:
        """The files of that server, whether it exists or not.

        :raises InvalidError: the id cannot be a folder's name.
        """
        if not _ID.match(server_id):
            raise InvalidError(f"{server_id!r} cannot be the id of a server")
        folder = self.servers / server_id
        return Place(
            folder=folder,
            record=folder / "server.json",
            config=folder / "my.cnf",
            data=folder / "data",
            files=folder / "files",
            log=folder / "server.log",
            pid=folder / "pid",
        )

    def ids(self) -> list[str]:
        """The ids of all servers, sorted."""
        if not self.servers.is_dir():
            return []
        return sorted(entry.parent.name for entry in self.servers.glob("[!.]*/server.json"))

    def read(self, server_id: str) -> Record:
        """The record of a server.

        :raises NotFoundError: there is no such server.
        :raises InvalidError: the record is there but cannot be understood.
        """
        file = self.place(server_id).record
        try:
            fields = json.loads(file.read_text())
        except FileNotFoundError:
            raise NotFoundError(f"no server {server_id!r} in {self.servers}") from None
        except ValueError as error:
            raise InvalidError(f"{file} cannot be understood: {error}") from error
        try:
            return Record(
                server_id=str(fields["server_id"]),
                mysql_server_id=int(fields["mysql_server_id"]),
                flavor=Flavor(fields["flavor"]),
                version=str(fields["version"]),
                port=int(fields["port"]),
                socket=str(fields["socket"]),
                replica_of=fields["replica_of"],
                accounts=str(fields["accounts"]),
                promoted_at=str(fields.get("promoted_at", "")),
                promoting=str(fields.get("promoting", "")),
                size=ServerSize(**fields["size"]) if fields.get("size") else None,
                starts=int(fields.get("starts", 0)),
            )
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidError(f"{file} was written by another version: {error!r}") from error

    def write(self, record: Record) -> None:
        """Store the record; after a crash either the old or the new one is there."""
        place = self.place(record.server_id)
        place.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = place.folder / ".server.json.new"
        with new.open("w") as out:
            json.dump(asdict(record), out, indent=1)
            out.flush()
            os.fsync(out.fileno())
        new.replace(place.record)

    def records(self) -> Iterator[Record]:
        """All records; servers that are destroyed meanwhile are left out."""
        for server_id in self.ids():
            try:
                yield self.read(server_id)
            except NotFoundError:
                continue

    def socket_for(self, server_id: str) -> str:
        """A path for the server's unix socket that the kernel accepts: in its folder where that is short
        enough, else in a folder of this user's in the system's place for temporary files.
        """
        inside = str(self.place(server_id).folder / "mysql.sock")
        if len(os.fsencode(inside)) <= SOCKET_LIMIT:
            return inside
        digest = hashlib.sha256(os.fsencode(inside)).hexdigest()[:16]
        return str(_runtime_folder() / f"{digest}.sock")


def prepare_socket(path: str) -> None:
    """Make way for the socket of a server that does not run: its folder (a reboot empties the temporary one),
    and no leftovers of a server that was killed, whose pid may by now be somebody else's.

    :raises UnavailableError: somebody else owns a folder of that name.
    """
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
        raise UnavailableError(f"{folder} for server sockets belongs to somebody else")
    remove_socket(path)


def remove_socket(path: str) -> None:
    """Delete the socket of a server that does not run, and the file that locks it."""
    Path(path).unlink(missing_ok=True)
    Path(path + ".lock").unlink(missing_ok=True)


def _runtime_folder() -> Path:
    own = os.environ.get("XDG_RUNTIME_DIR", "")
    # A runtime folder that is itself long would not help.
    if own and len(os.fsencode(own)) <= 60 and Path(own).is_dir():
        return Path(own) / "homeworld"
    return Path(tempfile.gettempdir()) / f"homeworld-{os.geteuid()}"


def port_is_free(port: int) -> bool:
    """Whether a server could listen on that loopback port now."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(taken: Iterable[int], ports: range = PORTS) -> int:
    """A port of ``ports`` that is in nobody's record (``taken``) and free now.

    :raises UnavailableError: there is none.
    """
    avoid = set(taken)
    candidates = [port for port in ports if port not in avoid]
    random.shuffle(candidates)
    for port in candidates:
        if port_is_free(port):
            return port
    raise UnavailableError(f"no free loopback port between {ports.start} and {ports.stop - 1}")
