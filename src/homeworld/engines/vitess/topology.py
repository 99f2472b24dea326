"""Brings a branch's topology in line with its spec: cell, keyspaces, shards, vschemas.

What to do is decided by a pure function from what the topology has; each act can be done again. Vitess's own
tablets make their records themselves. A keyspace that is not in the spec goes last, once its tablets do not
run any more (``forget``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from homeworld.engines.vitess.arguments import CELL, sidecar, topology_root
from homeworld.engines.vitess.looks import canonical
from homeworld.engines.vitess.vtctldclient import Vtctldclient
from homeworld.model.clusters import ClusterSpec
from homeworld.model.errors import ConflictError, NotFoundError


@dataclass(frozen=True, slots=True)
class Seen:
    """What the topology has.

    :param cell: etcd's address as the cell has it; None: no cell.
    :param shards: by keyspace. ``vschemas`` likewise.
    """

    cell: str | None
    shards: Mapping[str, frozenset[str]]
    vschemas: Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, slots=True)
class Step:
    """A vtctld command; ``content`` goes as a file where it is there."""

    arguments: tuple[str, ...]
    content: Mapping[str, object] | None = None


def in_line(spec: ClusterSpec, served: Mapping[str, Mapping[str, object]] | None) -> bool:
    """Whether what the cell serves has the spec's keyspaces and vschemas, and none beyond.

    :param served: vschemas by keyspace; None: nothing yet.
    """
    if served is None or set(served) != {keyspace.name for keyspace in spec.keyspaces}:
        return False
    return all(canonical(served[one.name]) == canonical(one.vschema) for one in spec.keyspaces)


def decide(spec: ClusterSpec, seen: Seen, address: str) -> list[Step]:
    """What has to be done so that the topology has all of the spec.

    :param address: of etcd.
    """
    steps: list[Step] = []
    if seen.cell != address:
        how = "AddCellInfo" if seen.cell is None else "UpdateCellInfo"
        root = f"{topology_root(spec.branch_id)}/{CELL}"
        steps.append(Step((how, f"--root={root}", f"--server-address={address}", CELL)))
    for keyspace in spec.keyspaces:
        there = seen.shards.get(keyspace.name)
        if there is None:
            steps.append(
                Step(
                    (
                        "CreateKeyspace",
                        "--durability-policy=none",
                        f"--sidecar-db-name={sidecar(spec.branch_id, keyspace.name)}",
                        keyspace.name,
                    )
                )
            )
        missing = [shard.name for shard in keyspace.shards if shard.name not in (there or ())]
        steps += [Step(("CreateShard", f"{keyspace.name}/{name}")) for name in missing]
        if missing:
            steps.append(Step(("RebuildKeyspaceGraph", f"--cells={CELL}", keyspace.name)))
        known = seen.vschemas.get(keyspace.name, {})
        if there is None or canonical(known) != canonical(keyspace.vschema):
            steps.append(Step(("ApplyVSchema", keyspace.name), keyspace.vschema))
    return steps


class Topology:
    """A branch's topology through its vtctld.

    :param left: seconds that are left for one command.
    """

    def __init__(self, client: Vtctldclient, left: Callable[[], float]) -> None:
        self._client = client
        self._left = left

    def served(self) -> Mapping[str, Mapping[str, object]] | None:
        """The vschemas that the cell's vtgates are given, by keyspace; None: nothing yet."""
        try:
            answer = self._client.json("GetSrvVSchema", CELL, timeout_seconds=self._left())
        except NotFoundError:
            return None
        return cast("Mapping[str, Mapping[str, object]]", answer.get("keyspaces") or {})

    def correct(self, address: str) -> None:
        """Let the cell be asked at this address of etcd, where it is there and says another."""
        try:
            known = str(self._json("GetCellInfo", CELL).get("server_address", ""))
        except NotFoundError:
            return
        if known != address:
            step = ("UpdateCellInfo", f"--server-address={address}", CELL)
            self._client.run(*step, timeout_seconds=self._left())

    def look(self) -> Seen:
        """What it has now."""
        try:
            cell = str(self._json("GetCellInfo", CELL).get("server_address", ""))
        except NotFoundError:
            cell = None
        shards: dict[str, frozenset[str]] = {}
        vschemas: dict[str, Mapping[str, object]] = {}
        for keyspace in self._json("GetKeyspaces") or ():
            name = str(keyspace["name"])
            shards[name] = frozenset(self._json("FindAllShardsInKeyspace", name).get("shards") or ())
            try:
                vschemas[name] = self._json("GetVSchema", name)
            except NotFoundError:
                vschemas[name] = {}
        return Seen(cell, shards, vschemas)

    def follow(self, spec: ClusterSpec, address: str) -> None:
        """Bring it in line.

        :raises InvalidError: Vitess refuses a vschema.
        """
        for step in decide(spec, self.look(), address):
            try:
                if step.content is None:
                    self._client.run(*step.arguments, timeout_seconds=self._left())
                else:
                    self._client.run_with_file(
                        "--vschema-file", step.content, *step.arguments, timeout_seconds=self._left()
                    )
            except ConflictError:
                continue  # somebody has made it meanwhile: a tablet that starts does
        if not in_line(spec, self.served()):
            # A vschema is saved first; whoever died before it was told has left it so.
            self._client.run("RebuildVSchemaGraph", f"--cells={CELL}", timeout_seconds=self._left())

    def forget(self, keyspaces: Sequence[str], aliases: Sequence[str]) -> None:
        """Delete keyspaces with all of theirs, and tablets of others; what is not there is fine."""
        for keyspace in keyspaces:
            self._delete("DeleteKeyspace", "--recursive", "--force", keyspace)
        for alias in aliases:
            self._delete("DeleteTablets", "--allow-primary", alias)
        if keyspaces:
            self._client.run("RebuildVSchemaGraph", f"--cells={CELL}", timeout_seconds=self._left())

    def _delete(self, *arguments: str) -> None:
        try:
            self._client.run(*arguments, timeout_seconds=self._left())
        except NotFoundError:
            return

    def _json(self, *arguments: str) -> Any:
        return self._client.json(*arguments, timeout_seconds=self._left())
