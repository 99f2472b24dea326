"""Which processes a cluster is made of, each with its command line and files, from the records alone.

The order is that of starting: what others need comes first. Knows the engine only for how its servers are
reached; starts nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from homeworld.engines.accounts import user_of
from homeworld.engines.layout import port_is_free
from homeworld.engines.vitess import arguments, sidecars
from homeworld.engines.vitess.arguments import Folder, Surroundings
from homeworld.engines.vitess.processes import Runner, Wanted
from homeworld.engines.vitess.records import Branch, Ports, Tablet
from homeworld.model.errors import NotFoundError
from homeworld.model.topology import BackendRole, Endpoint

log = logging.getLogger(__name__)

_LAST = {"vtgate": 0, "vtctld": 2}  # where others are 1: in which order they end


class Servers(Protocol):
    """What is needed of an engine; LocalEngine has it."""

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint: ...  # noqa: D102 - as on LocalEngine
    def credentials(self) -> Mapping[BackendRole, tuple[str, str]]: ...  # noqa: D102


class Members:
    """The processes of an installation's clusters.

    :param home: the folder of their folders.
    """

    def __init__(self, servers: Servers, around: Surroundings, home: Path) -> None:
        self._servers = servers
        self._around = around
        self._home = home

    def etcd(self) -> Wanted:
        """The installation's etcd."""
        known = known_etcd(self._home)
        return replace(known, command=arguments.etcd(self._around, known.folder))

    def vtctld(self, branch: Branch) -> Wanted:
        """The branch's vtctld."""
        folder = self._folder(branch, "vtctld")
        return _wanted(branch, "vtctld", arguments.vtctld(self._around, branch, folder), folder)

    def vtgate(self, branch: Branch) -> Wanted:
        """The branch's vtgate."""
        folder = self._folder(branch, "vtgate")
        command = arguments.vtgate(self._around, branch, folder)
        files = {"accounts.json": arguments.accounts(self._servers.credentials())}
        return replace(_wanted(branch, "vtgate", command, folder), files=files)

    def vttablet(self, branch: Branch, tablet: Tablet) -> Wanted:
        """A tablet of the branch.

        :raises NotFoundError: its server is gone.
        """
        folder = self._folder(branch, f"tablet-{tablet.uid}")
        owner = self._servers.endpoint(tablet.server_id, BackendRole.OWNER)
        clients = sidecars.clients(owner)
        command = arguments.vttablet(self._around, branch, tablet, folder, clients, owner)
        files = {
            "acl.json": arguments.table_acl({role: user_of(role) for role in arguments.ROLES}),
            "servers.json": arguments.server_credentials(clients, owner),
        }
        return replace(_wanted(branch, f"tablet-{tablet.uid}", command, folder), files=files)

    def all_of(self, branch: Branch) -> list[Wanted]:
        """What there has to be of a branch, etcd first. Left out are tablets whose server is gone or whose
        keyspace the topology does not have yet, and vtgate where it has none.
        """
        tablets: list[Wanted] = []
        for tablet in branch.wanted:
            if not branch.is_made(tablet.keyspace):
                continue
            try:
                tablets.append(self.vttablet(branch, tablet))
            except NotFoundError as error:
                log.debug("tablet %s of branch %s: %s", tablet.alias, branch.branch_id, error.message)
        vtgates = [] if branch.made == () else [self.vtgate(branch)]
        return [self.etcd(), self.vtctld(branch), *tablets, *vtgates]

    def _folder(self, branch: Branch, name: str) -> Folder:
        return Folder(branch_folder(self._home, branch.branch_id) / name)


def branch_folder(home: Path, branch_id: str) -> Path:
    """The folder of a branch's processes."""
    return home / "branches" / branch_id


def known_etcd(home: Path) -> Wanted:
    """etcd, to be found or ended: without its command line."""
    folder = Folder(home / "etcd")
    return Wanted("etcd", (), arguments.etcd_mark(folder), folder)


def known(home: Path, branch: Branch, tablets: Iterable[Tablet] | None = None) -> Iterator[Wanted]:
    """All processes of a branch that may run, to be found or ended: without their command lines.

    :param tablets: of these only, and nothing else.
    """
    names = [f"tablet-{tablet.uid}" for tablet in (branch.tablets if tablets is None else tablets)]
    for name in names if tablets is not None else ("vtgate", *names, "vtctld"):
        folder = Folder(branch_folder(home, branch.branch_id) / name)
        yield _wanted(branch, name, (), folder)


def left(home: Path) -> Iterator[Wanted]:
    """All processes of all branches that may run, by their folders alone: also those of a branch whose record
    cannot be read, or is not there any more.
    """
    folders = [path for path in (home / "branches").glob("*/*") if path.is_dir()]
    for path in sorted(folders, key=lambda path: _LAST.get(path.name, 1)):
        folder = Folder(path)
        yield Wanted(f"{path.name} of branch {path.parent.name}", (), folder.mark, folder)


def _wanted(branch: Branch, name: str, command: tuple[str, ...], folder: Folder) -> Wanted:
    return Wanted(f"{name} of branch {branch.branch_id}", command, folder.mark, folder)


def with_free_ports(branch: Branch, runner: Runner, home: Path, ports: Ports) -> Branch:
    """The record with other ports for processes that do not run and whose ports somebody has taken."""
    running = {wanted.folder.path.name for wanted in known(home, branch) if runner.pid(wanted) is not None}

    def kept(process: str, port: int) -> int:
        return port if process in running or port_is_free(port) else ports.take()

    tablets = tuple(
        replace(
            tablet,
            grpc_port=kept(f"tablet-{tablet.uid}", tablet.grpc_port),
            http_port=kept(f"tablet-{tablet.uid}", tablet.http_port),
        )
        for tablet in branch.tablets
    )
    return replace(
        branch,
        vtctld_port=kept("vtctld", branch.vtctld_port),
        vtctld_http_port=kept("vtctld", branch.vtctld_http_port),
        vtgate_port=kept("vtgate", branch.vtgate_port),
        vtgate_http_port=kept("vtgate", branch.vtgate_http_port),
        tablets=tablets,
    )
