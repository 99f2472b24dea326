"""The processes of all clusters of a data directory: which there have to be, started, watched over, ended.

Below LocalClusters: knows records and processes, and asks of the topology nothing. Every act begins from what
is on disk and running. The caller holds the lock of the branch it works on; ports and the installation are
shared, and have a lock of their own here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from homeworld.engines.layout import port_is_free
from homeworld.engines.local import LocalEngine
from homeworld.engines.locks import NamedLocks
from homeworld.engines.vitess import arguments, binaries, certificates, records, sidecars
from homeworld.engines.vitess.arguments import Surroundings
from homeworld.engines.vitess.etcd import Etcd
from homeworld.engines.vitess.members import (
    Members,
    branch_folder,
    known,
    known_etcd,
    left,
    with_free_ports,
)
from homeworld.engines.vitess.processes import Act, Runner, last_words
from homeworld.engines.vitess.records import Branch, Installation, Ports, Records, Tablet
from homeworld.engines.vitess.vtctldclient import Vtctldclient
from homeworld.model.clusters import ClusterSpec
from homeworld.model.errors import NotFoundError, UnavailableError
from homeworld.model.topology import BackendRole

log = logging.getLogger(__name__)

_ALL = ".installation"  # no branch's id begins with a dot
_STATE = Path("/var/lib/homeworld")
_ETCD_SECONDS = 20.0
_AGAIN_SECONDS = 1.0
_OF_TABLETS = "vdiff"
END_SECONDS = 10.0


def home_of(data_dir: Path) -> Path:
    """Where the processes of an installation keep their files: in the data directory; but where this user is
    root, in a place that whoever runs them can reach, of a name of this data directory.
    """
    if os.geteuid() != 0:
        return data_dir / "vitess" / "home"
    return _STATE / f"vitess-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]}"


def stop_all(data_dir: Path, timeout_seconds: float = 10.0) -> list[str]:
    """Stop all processes of a data directory, etcd last; needs neither programs of Vitess nor records of
    branches.

    :returns: the names of those that had to be killed.
    """
    deadline = time.monotonic() + timeout_seconds
    installation = Records(data_dir.absolute() / "vitess").installation()
    if installation is None:
        return []
    home, runner = Path(installation.home), Runner()
    killed = runner.end_all(list(left(home)), max(0.1, (deadline - time.monotonic()) * 0.8))
    return killed + runner.end_all([known_etcd(home)], max(0.1, deadline - time.monotonic()))


class Crew:
    """The processes of one data directory.

    :param home: where they keep their files, for a new installation; None: :func:`home_of`.
    :raises InvalidError: processes of Vitess cannot be run here.
    """

    def __init__(
        self,
        engine: LocalEngine,
        data_dir: Path,
        programs: binaries.Binaries,
        home: Path | None,
        ports: range,
    ) -> None:
        self.records = Records(data_dir.absolute() / "vitess")
        self.locks = NamedLocks(self.records.locks)
        self.runner = Runner()
        self._engine = engine
        self._binaries = programs
        self._home = (home or home_of(data_dir)).absolute()
        self._ports = ports
        self._built: tuple[Surroundings, Members] | None = None

    # -- what there has to be --------------------------------------------------------------------------------

    def intend(self, spec: ClusterSpec) -> tuple[Branch, bool]:
        """The branch's record with this spec, on disk; and whether it is another than before.

        :raises NotFoundError: a server is not there.
        """
        for _, _, _, server_id in records.places_of(spec):
            self._engine.endpoint(server_id, BackendRole.OWNER)
        with self.locks.hold(_ALL):
            self._install()
            try:
                before = self.records.branch(spec.branch_id)
            except NotFoundError:
                before = None
            branch = records.adjusted(before, spec, self._free())
            if branch != before:
                self.records.write(branch)
        return branch, branch != before

    def made(self, branch_id: str) -> None:
        """The topology has all keyspaces of the branch's spec: tablets may start."""
        with self.locks.hold(_ALL):
            branch = self.records.branch(branch_id)
            made = tuple(sorted(keyspace.name for keyspace in branch.spec.keyspaces))
            if branch.made != made:
                self.records.write(replace(branch, made=made))

    def surroundings(self) -> Surroundings:
        """What all processes share, made where it is missing."""
        return self._build()[0]

    def members(self) -> Members:
        """The processes as they have to be."""
        return self._build()[1]

    def etcd(self) -> Etcd:
        """The installation's etcd."""
        around = self.surroundings()
        return Etcd(around.installation.etcd_port, around.identity)

    def client(self, branch_id: str) -> Vtctldclient:
        """The client of the branch's vtctld, wherever that is when it is asked."""
        around = self.surroundings()
        return Vtctldclient(
            lambda seconds: arguments.vtctldclient(around, self.records.branch(branch_id), seconds),
            self.records.folder,
        )

    def _build(self) -> tuple[Surroundings, Members]:
        built = self._built
        if built is not None and built[0].installation == self.records.installation():
            return built
        with self.locks.hold(_ALL):
            installation = self._install()
            home = Path(installation.home)
            home.mkdir(parents=True, exist_ok=True)
            identity = certificates.ensure(home / "tls")
            self.runner.share(home / "tls", identity.ca.parent)
            self.runner.share(identity.ca, identity.certificate, identity.key)
            programs = self._binaries.paths
            if self.runner.other_user:
                programs = binaries.linked(self._binaries, home / "bin")
            around = Surroundings(programs, identity, installation, self._engine.version)
            self._built = around, Members(self._engine, around, home)
            return self._built

    def _install(self) -> Installation:
        installed = self.records.installation()
        if installed is None:
            ports = self._free()
            installed = Installation(str(self._home), ports.take(), ports.take())
            self.records.write_installation(installed)
        return installed

    def _free(self) -> Ports:
        return Ports(self.records.taken(), self._ports)

    # -- started ---------------------------------------------------------------------------------------------

    def ensure(self, branch_id: str, names: Collection[str] | None = None) -> list[str]:
        """Start what does not run as it should, etcd first; returns without waiting for it to serve.

        :param names: of the processes that may be started; None: all.
        :returns: what was started.
        """
        branch, members = self._settle_ports(branch_id), self.members()
        vtgate, vtctld = members.vtgate(branch).name, members.vtctld(branch).name
        started: list[str] = []

        def before_vtgate() -> None:
            for why in sidecars.let_go(self._engine, branch):
                log.warning("what a dead vtgate of branch %s has left open stays: %s", branch_id, why)

        def before_vtctld() -> None:
            self._forget_locks(branch_id, lambda action: action != _OF_TABLETS)

        def before_tablet(keyspace: str) -> None:
            # Another one of the keyspace may be who has it.
            others = [each for each in branch.tablets if each.keyspace == keyspace]
            home = Path(self.surroundings().installation.home)
            if not any(self.runner.pid(each) is not None for each in known(home, branch, others)):
                self._forget_locks(branch_id, lambda action: action == _OF_TABLETS, keyspace)

        befores: dict[str, Callable[[], None]] = {vtgate: before_vtgate, vtctld: before_vtctld}
        for tablet in branch.wanted:
            name = next(each.name for each in known(Path(), branch, [tablet]))
            befores[name] = partial(before_tablet, tablet.keyspace)
        for one in members.all_of(branch):
            before = befores.get(one.name)
            if (names is None or one.name in names) and self.runner.ensure(one, before=before):
                started.append(one.name)
            if one.name == "etcd":
                # The others end where they do not find it.
                self.until(time.monotonic() + _ETCD_SECONDS, "etcd does not serve", self.etcd().healthy)
        return started

    def _forget_locks(self, branch_id: str, whose: Callable[[str], bool], keyspace: str = "") -> None:
        root = arguments.global_root(branch_id)
        for name in self.etcd().forget_locks(root, whose, keyspace):
            log.warning("branch %s: a dead process had left a lock on %s", branch_id, name)

    def ensure_etcd(self) -> None:
        """Start etcd; returns once it serves.

        :raises UnavailableError: it does not.
        """
        self.runner.ensure(self.members().etcd())
        self.until(time.monotonic() + _ETCD_SECONDS, "etcd does not serve", self.etcd().healthy)

    def ailing(self, branch_id: str) -> list[str]:
        """The names of the branch's processes that do not run as they should.

        :raises NotFoundError: the branch has no cluster.
        """
        every = self.members().all_of(self.records.branch(branch_id))
        return [one.name for one in every if self.runner.look(one) is not Act.NOTHING]

    def _settle_ports(self, branch_id: str) -> Branch:
        """The branch's record, with other ports where somebody has taken those of what does not run."""
        with self.locks.hold(_ALL):
            installation = self._install()
            home = Path(installation.home)
            if self.runner.pid(known_etcd(home)) is None:
                ports, mine = self._free(), (installation.etcd_port, installation.etcd_peer_port)
                client, peer = (port if port_is_free(port) else ports.take() for port in mine)
                if (client, peer) != mine:
                    self.records.write_installation(
                        replace(installation, etcd_port=client, etcd_peer_port=peer)
                    )
            branch = self.records.branch(branch_id)
            moved = with_free_ports(branch, self.runner, home, self._free())
            if moved != branch:
                self.records.write(moved)
            return moved

    # -- ended -----------------------------------------------------------------------------------------------

    def end(self, branch: Branch, tablets: Iterable[Tablet] | None = None) -> list[str]:
        """End the processes of a branch, or of some of its tablets, and delete their files.

        :returns: the names of those that had to be killed.
        """
        installation = self.records.installation()
        if installation is None:
            return []
        home = Path(installation.home)
        every = list(known(home, branch, tablets))
        killed = self.runner.end_all(every, END_SECONDS)
        for one in every:
            shutil.rmtree(one.folder.path, ignore_errors=True)
        if tablets is None:
            shutil.rmtree(branch_folder(home, branch.branch_id), ignore_errors=True)
        return killed

    def end_etcd(self) -> None:
        """End etcd where no branch needs it any more."""
        with self.locks.hold(_ALL):
            if not self.records.branch_ids():
                self.runner.end(self.members().etcd(), END_SECONDS)

    # -- waiting ---------------------------------------------------------------------------------------------

    def until(self, deadline: float, what: str, so: Callable[[], bool], branch_id: str | None = None) -> None:
        """Return once something is so.

        :param branch_id: whose processes are started again where they die meanwhile.
        :raises UnavailableError: it is not in time; with what its processes said last.
        """
        pause, again, why = 0.02, time.monotonic() + _AGAIN_SECONDS, ""
        while True:
            try:
                if so():
                    return
            except UnavailableError as error:
                why = error.message
            now = time.monotonic()
            if now >= deadline:
                raise UnavailableError(f"{what}: {why or 'no answer'}{self._complaints(branch_id)}")
            if branch_id is not None and now >= again:
                self.ensure(branch_id)
                again = time.monotonic() + _AGAIN_SECONDS
            time.sleep(pause)
            pause = min(pause * 1.4, 0.25)

    def _complaints(self, branch_id: str | None) -> str:
        members = self.members()
        every = [members.etcd()] if branch_id is None else members.all_of(self.records.branch(branch_id))
        dead = [one for one in every if self.runner.pid(one) is None]
        return "".join(f"; {one.name} has ended: {last_words(one.folder)}" for one in dead[:2])
