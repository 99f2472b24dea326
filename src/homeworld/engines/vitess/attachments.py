"""How clusters that others run are reached, on disk: addresses, accounts and certificates of each branch's.

A folder for each branch under ``data_dir/vitess/attached``, for its owner's eyes only, written whole before
the store names the branch. The addresses come from whoever runs homeworld, or from that cluster's own
topology; no API sets them. Knows no processes and asks nobody.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from homeworld.model.errors import InvalidError, NotFoundError

_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")
_RECORD = "attachment.json"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Address:
        """``host:port``, or ``[host]:port``.

        :param option: what gave it, for the message.
        :raises InvalidError: it is none.

        >>> Address.parse("[::1]:15999", "--vtctld")
        Address(host='::1', port=15999)
        """
        host, colon, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise InvalidError(f"{option} must be HOST:PORT, and is {text!r}")
        return cls(host, int(port))

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    def __str__(self) -> str:
        """As command lines take it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """A user with a password."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Server:
    """A tablet's MySQL server.

    :param server_id: homeworld's. ``alias``: the tablet's.
    :param primary_id: of its shard's primary; its own where it is that.
    """

    server_id: str
    alias: str
    host: str
    port: int
    primary_id: str


@dataclass(frozen=True, slots=True)
class Attachment:
    """How one cluster is reached.

    :param vtctld: takes gRPC. ``tls``: with the certificates that lie in its folder.
    :param server_name: what vtctld's certificate is to name; empty: its host.
    :param vtgate: takes MySQL clients, of which homeworld's gateway logs in as ``gate``.
    :param vtgate_http: tells ``/debug/vschema``.
    :param owner: an account of the tablets' MySQL servers, with all rights.
    :param in_the_clear: whether other machines may be reached without TLS.
    :param servers: of the tablets, as they were seen last.
    """

    branch_id: str
    vtctld: Address
    tls: bool
    server_name: str
    vtgate: Address
    vtgate_http: Address
    gate: Login
    owner: Login
    in_the_clear: bool = False
    servers: tuple[Server, ...] = ()

    def with_servers(self, servers: tuple[Server, ...]) -> Attachment:
        """The same with these servers."""
        return replace(self, servers=servers)


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of a client of vtctld's: its CA, and the client's certificate and key, or neither."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


class Attachments:
    """The attachments of one data directory. Safe among threads and processes: files change as a whole.

    :param folder: ``data_dir/vitess/attached``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.Lock()
        self._read: dict[str, tuple[tuple[int, int], Attachment]] = {}

    def branch_ids(self) -> list[str]:
        """The branches that are such clusters, sorted."""
        if not self._folder.is_dir():
            return []
        return sorted(path.parent.name for path in self._folder.glob(f"[!.]*/{_RECORD}"))

    def get(self, branch_id: str) -> Attachment:
        """How a branch's cluster is reached.

        :raises NotFoundError: it is no such cluster. :raises InvalidError: the file cannot be understood.
        """
        file = self.folder(branch_id) / _RECORD
        try:
            stat = file.stat()
            stamp = (stat.st_mtime_ns, stat.st_ino)
            with self._guard:
                known = self._read.get(branch_id)
            if known is not None and known[0] == stamp:
                return known[1]
            found = _parsed(file, json.loads(file.read_text()))
        except FileNotFoundError:
            raise NotFoundError(f"branch {branch_id!r} is no attached cluster") from None
        except ValueError as error:
            raise InvalidError(f"{file} cannot be understood: {error}") from error
        with self._guard:
            self._read[branch_id] = stamp, found
        return found

    def has(self, branch_id: str) -> bool:
        """Whether a branch is such a cluster."""
        return (self.folder(branch_id) / _RECORD).exists()

    def server(self, server_id: str) -> tuple[Attachment, Server]:
        """The server with its cluster.

        :raises NotFoundError: no such server of an attached cluster.
        """
        for branch_id in self.branch_ids():
            try:
                attachment = self.get(branch_id)
            except (NotFoundError, InvalidError):
                continue  # it has ended meanwhile, or is told where it is asked for itself
            for server in attachment.servers:
                if server.server_id == server_id:
                    return attachment, server
        raise NotFoundError(f"no server {server_id!r}")

    def certificates(self, branch_id: str) -> Certificates:
        """Where a branch's certificates lie, whether or not it has any."""
        folder = self.folder(branch_id)
        own = folder / "client.pem", folder / "client-key.pem"
        given = own[0].exists()
        return Certificates(folder / "ca.pem", *(own if given else (None, None)))

    def write(self, attachment: Attachment, certificates: Certificates | None = None) -> None:
        """Store one; after a crash either the old or the new one is there. The folder is made with the first,
        which names no servers yet; one that was forgotten meanwhile does not come back.

        :param certificates: to be copied here; None: those that are here stay.
        :raises InvalidError: a file of theirs cannot be read.
        :raises NotFoundError: it was forgotten.
        """
        folder = self.folder(attachment.branch_id)
        if not attachment.servers:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if certificates is not None:
            copies = {
                "ca.pem": certificates.ca,
                "client.pem": certificates.certificate,
                "client-key.pem": certificates.key,
            }
            for name, source in copies.items():
                if source is not None:
                    _write(folder / name, _text_of(source))
        try:
            _write(folder / _RECORD, json.dumps(asdict(attachment), indent=1))
        except FileNotFoundError:
            raise NotFoundError(f"branch {attachment.branch_id!r} is attached no more") from None

    def forget(self, branch_id: str, *, older_than_seconds: float = 0.0) -> None:
        """The branch is no such cluster any more. Unknown ids are fine.

        :param older_than_seconds: only if it was written that long ago.
        """
        folder = self.folder(branch_id)
        if older_than_seconds:
            with suppress(FileNotFoundError):
                if time.time() - (folder / _RECORD).stat().st_mtime < older_than_seconds:
                    return
        (folder / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)

    def folder(self, branch_id: str) -> Path:
        """A branch's folder.

        :raises InvalidError: no branch can have that id.
        """
        if not _ID.match(branch_id):
            raise InvalidError(f"{branch_id!r} cannot be the id of a branch")
        return self._folder / branch_id


def _text_of(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError) as error:
        raise InvalidError(f"{file} cannot be read: {error}") from error


def _parsed(file: Path, told: object) -> Attachment:
    if not isinstance(told, Mapping):
        raise InvalidError(f"{file} cannot be understood: it is no object")
    fields = dict(cast("Mapping[str, Any]", told))
    try:
        for name in ("vtctld", "vtgate", "vtgate_http"):
            fields[name] = Address(**fields[name])
        for name in ("gate", "owner"):
            fields[name] = Login(**fields[name])
        fields["servers"] = tuple(Server(**server) for server in fields["servers"])
        return Attachment(**fields)
    except (TypeError, KeyError) as error:
        raise InvalidError(f"{file} was written by another version: {error!r}") from error


def _write(file: Path, text: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(file)
    for folder in (file.parent, file.parent.parent):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
