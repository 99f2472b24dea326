"""What there has to be, on disk: the installation's etcd, and of each branch its spec, processes and ports.

Small JSON files under ``data_dir/vitess``, each written whole or not at all, before anything that they tell
is made. Whoever starts after a crash finds by them what was begun. A tablet's number is never given twice in
a branch: Vitess knows tablets by them. Knows no processes.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from homeworld.engines.layout import choose_port
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.errors import InvalidError, NotFoundError

log = logging.getLogger(__name__)
# Apart from the servers' own, so that neither takes what the other has for when it is started again.
PORTS = range(15000, 21000)
FIRST_UID = 100
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")


@dataclass(frozen=True, slots=True)
class Installation:
    """Of all branches.

    :param home: the folder of whoever runs Vitess's processes.
    :param etcd_port: for clients; ``etcd_peer_port``: unused, but etcd wants one.
    """

    home: str
    etcd_port: int
    etcd_peer_port: int


@dataclass(frozen=True, slots=True)
class Tablet:
    """A vttablet: one shard on one server."""

    uid: int
    keyspace: str
    shard: str
    schema: str
    server_id: str
    grpc_port: int
    http_port: int

    @property
    def alias(self) -> str:
        """As Vitess names it, without the zeros in front."""
        return f"local-{self.uid}"


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch's cluster.

    :param tablets: all that were made and are not yet wholly gone; ``wanted`` are those of the spec.
    :param next_uid: of the next tablet.
    :param ending: it has to go; nothing of it is started any more.
    :param made: the keyspaces that the topology has; None: all of the spec. A tablet that starts before would
        make its keyspace itself, for good, with a schema of Vitess's that all branches would share.
    """

    spec: ClusterSpec
    vtctld_port: int
    vtctld_http_port: int
    vtgate_port: int
    vtgate_http_port: int
    next_uid: int
    tablets: tuple[Tablet, ...]
    ending: bool = False
    made: tuple[str, ...] | None = None

    def is_made(self, keyspace: str) -> bool:
        """Whether the topology has a keyspace."""
        return self.made is None or keyspace in self.made

    @property
    def branch_id(self) -> str:
        """Homeworld's id of the branch."""
        return self.spec.branch_id

    @property
    def wanted(self) -> tuple[Tablet, ...]:
        """The tablets that the spec wants."""
        places = set(places_of(self.spec))
        return tuple(tablet for tablet in self.tablets if place_of(tablet) in places)

    @property
    def leaving(self) -> tuple[Tablet, ...]:
        """The tablets that have to go."""
        wanted = self.wanted
        return tuple(tablet for tablet in self.tablets if tablet not in wanted)

    def ports(self) -> Iterator[int]:
        """All that are taken."""
        yield from (self.vtctld_port, self.vtctld_http_port, self.vtgate_port, self.vtgate_http_port)
        for tablet in self.tablets:
            yield from (tablet.grpc_port, tablet.http_port)


Place = tuple[str, str, str, str]


def place_of(tablet: Tablet) -> Place:
    """What makes a tablet this one: keyspace, shard, schema, server."""
    return tablet.keyspace, tablet.shard, tablet.schema, tablet.server_id


def places_of(spec: ClusterSpec) -> Iterator[Place]:
    """Where the spec wants a tablet."""
    for keyspace in spec.keyspaces:
        for shard in keyspace.shards:
            for server_id in (shard.primary_server_id, *shard.replica_server_ids):
                yield keyspace.name, shard.name, shard.schema, server_id


def shared(spec: ClusterSpec) -> str:
    """Where two shards of a keyspace would share a server, which the server's one sidecar schema for that
    keyspace forbids: of two source shards the second could not be switched. In one sentence; empty: nowhere.
    """
    for keyspace in spec.keyspaces:
        seen: dict[str, str] = {}
        for shard in keyspace.shards:
            for server_id in (shard.primary_server_id, *shard.replica_server_ids):
                if server_id in seen:
                    return (
                        f"shards {seen[server_id]} and {shard.name} of keyspace {keyspace.name} are both on "
                        f"server {server_id}; on Vitess each shard of a keyspace needs servers of its own"
                    )
                seen[server_id] = shard.name
    return ""


class Records:
    """The records of one data directory. The caller holds the lock of what it changes.

    :param folder: ``data_dir/vitess``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._branches = folder / "branches"
        self._installation = folder / "installation.json"

    def branch_ids(self) -> list[str]:
        """The ids of all branches that have a cluster, sorted."""
        if not self._branches.is_dir():
            return []
        return sorted(entry.stem for entry in self._branches.glob("[!.]*.json"))

    def branches(self) -> Iterator[Branch]:
        """All clusters; left out are one that ends meanwhile, and one whose record cannot be understood: the
        others go on.
        """
        for branch_id in self.branch_ids():
            try:
                yield self.branch(branch_id)
            except NotFoundError:
                continue
            except InvalidError as error:
                log.warning("a cluster is left alone: %s", error)

    def installation(self) -> Installation | None:
        """What all branches share; None: nothing was made yet."""
        fields = _read(self._installation)
        return None if fields is None else Installation(**fields)

    def branch(self, branch_id: str) -> Branch:
        """A branch's cluster.

        :raises NotFoundError: it has none. :raises InvalidError: the record cannot be understood.
        """
        file = self._file(branch_id)
        fields = _read(file)
        if fields is None:
            raise NotFoundError(f"branch {branch_id!r} has no Vitess cluster")
        try:
            return Branch(
                spec=_spec(fields["spec"]),
                tablets=tuple(Tablet(**tablet) for tablet in fields["tablets"]),
                ending=bool(fields["ending"]),
                made=None if fields.get("made") is None else tuple(map(str, fields["made"])),
                **{name: int(fields[name]) for name in _NUMBERS},
            )
        except (TypeError, KeyError, ValueError) as error:
            raise InvalidError(f"{file} was written by another version: {error!r}") from error

    def write_installation(self, installation: Installation) -> None:
        """Store it."""
        _write(self._installation, asdict(installation))

    def write(self, branch: Branch) -> None:
        """Store it; after a crash either the old or the new one is there."""
        _write(self._file(branch.branch_id), asdict(branch))

    def forget(self, branch_id: str) -> None:
        """The branch has no cluster any more."""
        self._file(branch_id).unlink(missing_ok=True)

    @property
    def locks(self) -> Path:
        """The folder of the files that lock."""
        return self.folder / "locks"

    def taken(self) -> set[int]:
        """The ports in all records."""
        ports = {port for branch in self.branches() for port in branch.ports()}
        installation = self.installation()
        if installation is not None:
            ports |= {installation.etcd_port, installation.etcd_peer_port}
        return ports

    def _file(self, branch_id: str) -> Path:
        if not _ID.match(branch_id):
            raise InvalidError(f"{branch_id!r} cannot be the id of a branch")
        return self._branches / f"{branch_id}.json"


class Ports:
    """Gives free ports, each once.

    :param taken: those in records.
    """

    def __init__(self, taken: set[int], ports: range = PORTS) -> None:
        self._taken = set(taken)
        self._ports = ports

    def take(self) -> int:
        """A free one.

        :raises UnavailableError: there is none.
        """
        port = choose_port(self._taken, self._ports)
        self._taken.add(port)
        return port


def adjusted(known: Branch | None, spec: ClusterSpec, ports: Ports) -> Branch:
    """The branch's record with this spec: what is new gets a number and ports, the rest keeps its own."""
    if known is None:
        known = Branch(
            spec, ports.take(), ports.take(), ports.take(), ports.take(), next_uid=FIRST_UID, tablets=(),
            made=(),
        )  # fmt: skip
    there = {place_of(tablet) for tablet in known.tablets}
    tablets, uid = list(known.tablets), known.next_uid
    for place in places_of(spec):
        if place not in there:
            tablets.append(Tablet(uid, *place, grpc_port=ports.take(), http_port=ports.take()))
            uid += 1
    before = [keyspace.name for keyspace in known.spec.keyspaces] if known.made is None else known.made
    now = {keyspace.name for keyspace in spec.keyspaces}
    made = tuple(sorted(now.intersection(before)))
    return replace(known, spec=spec, tablets=tuple(tablets), next_uid=uid, ending=False, made=made)


_NUMBERS = ("vtctld_port", "vtctld_http_port", "vtgate_port", "vtgate_http_port", "next_uid")


def plain(spec: ClusterSpec) -> ClusterSpec:
    """The spec with its vschemas as JSON would have them."""
    return _spec(
        {
            "branch_id": spec.branch_id,
            "keyspaces": [
                {
                    "name": keyspace.name,
                    "sharded": keyspace.sharded,
                    "vschema": json.loads(json.dumps(keyspace.vschema, default=dict)),
                    "shards": [asdict(shard) for shard in keyspace.shards],
                }
                for keyspace in spec.keyspaces
            ],
        }
    )


def _spec(fields: Mapping[str, Any]) -> ClusterSpec:
    return ClusterSpec(
        branch_id=str(fields["branch_id"]),
        keyspaces=tuple(
            ClusterKeyspace(
                name=str(keyspace["name"]),
                sharded=bool(keyspace["sharded"]),
                vschema=dict(keyspace["vschema"]),
                shards=tuple(
                    ClusterShard(
                        name=str(shard["name"]),
                        schema=str(shard["schema"]),
                        primary_server_id=str(shard["primary_server_id"]),
                        replica_server_ids=tuple(shard["replica_server_ids"]),
                    )
                    for shard in keyspace["shards"]
                ),
            )
            for keyspace in fields["keyspaces"]
        ),
    )


def _read(file: Path) -> dict[str, Any] | None:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return None
    try:
        fields: object = json.loads(text)
    except ValueError as error:
        raise InvalidError(f"{file} cannot be understood: {error}") from error
    if not isinstance(fields, dict):
        raise InvalidError(f"{file} cannot be understood: it is no object")
    return cast("dict[str, Any]", fields)


def _write(file: Path, fields: Mapping[str, object]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = file.with_name(f".{file.name}.new")
    with new.open("w") as out:
        json.dump(fields, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    new.replace(file)
