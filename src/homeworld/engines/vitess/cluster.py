"""Vitess clusters beside the servers of a LocalEngine: ``model.clusters.Clusters`` on this host.

What a branch's cluster has to be is on disk before anything of it is made, and every call begins from what is
really there, so each can be called again after it failed or the process died midway; a new object on the same
data directory finds everything again. Every act on one branch holds that branch's lock. At most one process
of a data directory has a watcher, or what one stops on purpose the other starts.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess import arguments, binaries, crew, looks, records, sidecars
from homeworld.engines.vitess.asking import Asking
from homeworld.engines.vitess.crew import Crew
from homeworld.engines.vitess.records import Branch, Tablet
from homeworld.engines.vitess.rule_setting import PreparedRules
from homeworld.engines.vitess.topology import Topology, in_line
from homeworld.engines.vitess.vtctldclient import Vtctldclient
from homeworld.engines.vitess.watcher import ClusterWatcher
from homeworld.model.clusters import ClusterSpec
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.topology import BackendRole, Endpoint, Flavor

log = logging.getLogger(__name__)

home_of = crew.home_of
_ASK_SECONDS = 30.0
_READ_SECONDS = 30.0
_PATIENCE_SECONDS = 60.0
_RULES_PATIENCE_SECONDS = 30.0
# The words of MoveTables at which Vitess reads all rules, and writes them back. Those that end a move are
# asked for with --keep-routing-rules.
_CHANGES_RULES = frozenset({"create", "SwitchTraffic", "ReverseTraffic"})


class LocalClusters(Asking):
    """Implements ``model.clusters.SwitchedClusters`` beside an engine on this host.

    :param data_dir: of the engine.
    :param home: where the processes keep their files, for a new installation; None: ``crew.home_of``.
    :param programs: None: those of this machine.
    :raises InvalidError: Vitess is not installed, cannot stand on the engine's servers, or cannot be run.
    """

    def __init__(
        self,
        engine: LocalEngine,
        data_dir: Path,
        *,
        home: Path | None = None,
        programs: binaries.Binaries | None = None,
        ports: range = records.PORTS,
    ) -> None:
        found = programs or binaries.find()
        if why := found.refusal(engine.flavor, engine.version):
            raise InvalidError(why)
        self.version = found.version_text
        self._engine = engine
        self._data_dir = data_dir
        self._crew = Crew(engine, data_dir, found, home, ports)
        self._records = self._crew.records
        self._held_down = False

    # -- the Clusters protocol -------------------------------------------------------------------------------

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Make the cluster what the spec says; returns once vtgate serves every shard's primary.

        :raises UnavailableError: not in time; calling again goes on.
        :raises InvalidError: Vitess refuses a vschema, or two shards of a keyspace share a server.
        :raises NotFoundError: a server is not there.
        """
        deadline = time.monotonic() + timeout_seconds
        wanted, branch_id = records.plain(spec), spec.branch_id
        if why := records.shared(wanted):
            raise InvalidError(why)
        with self._crew.locks.hold(branch_id):
            check()  # whoever had the lock may have been told something newer
            branch, changed = self._crew.intend(wanted)
            sidecars.allow(self._engine, branch)
            self._crew.ensure(branch_id, {"etcd", self._crew.members().vtctld(branch).name})
            client = self._crew.client(branch_id)
            self._crew.until(deadline, "vtctld does not answer", lambda: _answers(client), branch_id)
            topology = Topology(client, lambda: max(0.5, min(_ASK_SECONDS, deadline - time.monotonic())))
            address = arguments.etcd_address(self._crew.surroundings().installation)
            topology.correct(address)
            if changed or not in_line(wanted, topology.served()):
                topology.follow(wanted, address)
            self._crew.made(branch_id)
            changed = bool(self._crew.ensure(branch_id)) or changed
            self._crew.until(
                deadline, "a shard has no primary yet", lambda: self._elect(branch_id, client), branch_id
            )
            self._crew.until(
                deadline, "vtgate does not serve everything yet", lambda: self._serves(branch_id), branch_id
            )
            if changed:
                self._let_it_read(branch_id, deadline)
            check()
            self._clear(branch_id, topology)

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None:
        """Stop the branch's processes and forget its topology. Unknown ids are fine."""
        with self._crew.locks.hold(branch_id):
            check()
            try:
                branch = self._records.branch(branch_id)
            except NotFoundError:
                return
            # First: from now on nobody starts anything of it.
            self._records.write(replace(branch, ending=True))
            for name in self._crew.end(branch):
                log.warning("%s did not end in time and was killed", name)
            self._crew.ensure_etcd()
            self._crew.etcd().delete_under(arguments.topology_root(branch_id))
            for why in sidecars.drop(self._engine, branch, {tablet.keyspace for tablet in branch.tablets}):
                log.warning("what Vitess kept of branch %s stays on a server: %s", branch_id, why)
            self._records.forget(branch_id)
        self._crew.end_etcd()

    def vtgate(self, branch_id: str) -> Endpoint:
        """Where the branch's vtgate takes MySQL clients, without user and password.

        :raises NotFoundError: the branch has no cluster.
        """
        branch = self._records.branch(branch_id)
        if branch.ending:
            raise NotFoundError(f"the Vitess cluster of branch {branch_id!r} is being ended")
        return Endpoint(
            server_id=f"vtgate-{branch_id}",
            flavor=Flavor.MYSQL,
            host="127.0.0.1",
            port=branch.vtgate_port,
            socket="",
            user="",
            password="",
            vtgate=True,
        )

    # -- for moves, and for people ---------------------------------------------------------------------------

    def vtctldclient(self, branch_id: str) -> Vtctldclient:
        """The client of the branch's vtctld.

        :raises NotFoundError: the branch has no cluster.
        """
        self._records.branch(branch_id)
        return self._crew.client(branch_id)

    def record(self, branch_id: str) -> Branch:
        """The branch's record: spec, tablets, ports.

        :raises NotFoundError: the branch has no cluster.
        """
        return self._records.branch(branch_id)

    def primaries(self, branch_id: str, keyspace: str) -> Mapping[str, Tablet]:
        """The tablets of a keyspace's primaries, by shard, as the spec has them.

        :raises NotFoundError: the branch has no cluster, or no such keyspace.
        """
        branch = self._records.branch(branch_id)
        found = {tablet.shard: tablet for tablet in _primaries(branch) if tablet.keyspace == keyspace}
        if not found:
            raise NotFoundError(f"the cluster of branch {branch_id!r} has no keyspace {keyspace!r}")
        return found

    def keyspaces(self, branch_id: str) -> list[str]:
        """The names of the spec's keyspaces."""
        return [one.name for one in self._records.branch(branch_id).spec.keyspaces]

    def seen_by_vtgate(self, branch_id: str) -> looks.VtgateView:
        """By what the branch's vtgate serves now.

        :raises UnavailableError: it does not answer. :raises NotFoundError: the branch has no cluster.
        """
        branch = self._records.branch(branch_id)
        return looks.vtgate_view(looks.get_json(branch.vtgate_http_port, "/debug/vschema"))

    def sidecar(self, branch_id: str, keyspace: str) -> str:
        """The schema in which the tablets of a keyspace keep what they must know.

        :raises NotFoundError: the branch has no cluster.
        """
        self._records.branch(branch_id)
        return arguments.sidecar(branch_id, keyspace)

    # -- rules: Vitess reads and writes all of them at once, so one after the other ----------------------

    def begin_rules(self, branch_id: str) -> PreparedRules:
        """Get ready to set rules while clients wait.

        :raises UnavailableError: it cannot be got ready now.
        """
        client = self.vtctldclient(branch_id)
        return PreparedRules(
            client,
            lambda rules, seconds: self.await_rules(branch_id, rules, seconds),
            self._claim_rules(branch_id),
        )

    def _claim_rules(self, branch_id: str) -> Callable[[], None]:
        return self._crew.locks.claim(f"{branch_id}.rules", _RULES_PATIENCE_SECONDS)

    @contextmanager
    def _rules_claimed(self, branch_id: str) -> Generator[None]:
        release = self._claim_rules(branch_id)
        try:
            yield
        finally:
            release()

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        """Set all routing rules; returns once vtgate serves by them."""
        with self._rules_claimed(branch_id):
            super().apply_rules(branch_id, rules)

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        """Set the rules of some names; all others stay as they are.

        :raises DeadlineExceededError: vtgate does not serve by them in time.
        """
        with self._rules_claimed(branch_id):
            super().set_rules(branch_id, rules, names, timeout_seconds)

    def run(self, branch_id: str, *arguments: str, timeout_seconds: float) -> object:
        """Run a command of vtctldclient; one that changes rules alone.

        :raises HomeworldError: it was not reached, or refuses; see ``Asking``.
        """
        changes = arguments[0] == "MoveTables" and _CHANGES_RULES & set(arguments)
        if not changes or "--dry-run" in arguments:
            return super().run(branch_id, *arguments, timeout_seconds=timeout_seconds)
        with self._rules_claimed(branch_id):
            return super().run(branch_id, *arguments, timeout_seconds=timeout_seconds)

    # -- all clusters ----------------------------------------------------------------------------------------

    def branch_ids(self) -> list[str]:
        """The branches that have a cluster, sorted."""
        return self._records.branch_ids()

    def start_all(self) -> dict[str, str]:
        """Start the processes of all clusters, and end those that were being ended; waits for none to serve.

        :returns: what could not be started, and why, by branch.
        """
        self._held_down = False
        failures: dict[str, str] = {}
        for branch_id in self._records.branch_ids():
            try:
                self.revive(branch_id)
            except HomeworldError as error:
                failures[branch_id] = error.message
            except OSError as error:  # of this one's folder; the others are served
                failures[branch_id] = str(error)
        return failures

    def stop_all(self, timeout_seconds: float = 10.0) -> list[str]:
        """Stop all processes, etcd last; :meth:`start_all` starts them again.

        :returns: the names of those that had to be killed.
        """
        self._held_down = True
        return crew.stop_all(self._data_dir, timeout_seconds)

    def watch(self, *, interval_seconds: float = 1.0) -> ClusterWatcher:
        """Start a watcher over all clusters; the caller stops it (before ``stop_all``)."""
        watcher = ClusterWatcher(self, interval_seconds=interval_seconds)
        watcher.start()
        return watcher

    def ailing(self, branch_id: str) -> list[str]:
        """The names of the branch's processes that do not run as they should; for the watcher."""
        if self._held_down:
            return []
        try:
            if self._records.branch(branch_id).ending:
                return [f"the end of branch {branch_id}"]
            return self._crew.ailing(branch_id)
        except NotFoundError:
            return []

    def revive(
        self,
        branch_id: str,
        names: Collection[str] | None = None,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> list[str]:
        """Start what does not run of a branch, or end a branch whose end broke off; waits for none to serve.

        :param names: of the processes that may be started; None: all.
        :param patience_seconds: how long somebody who is at work on the branch is waited for.
        :returns: what was started. Empty also where somebody else is at work on it.
        """
        with self._crew.locks.attempt(branch_id, patience_seconds) as ours:
            if not ours or self._held_down:
                return []
            try:
                if not self._records.branch(branch_id).ending:
                    return self._crew.ensure(branch_id, names)
            except NotFoundError:
                return []
            self.end(branch_id)
            return []

    # -- parts of following ----------------------------------------------------------------------------------

    def _elect(self, branch_id: str, client: Vtctldclient) -> bool:
        """Let the topology have the spec's primaries; whether it has."""
        why = ""
        for tablet in _primaries(self._records.branch(branch_id)):
            try:
                if not looks.is_primary(looks.variables(tablet.http_port)):
                    client.run("TabletExternallyReparented", tablet.alias, timeout_seconds=10.0)
                    why = why or f"{tablet.alias} was told to be the primary of {_shard_of(tablet)}"
            # Refused: it has not made itself known yet.
            except (UnavailableError, NotFoundError, InvalidError) as error:
                why = f"{tablet.alias}, which should be the primary of {_shard_of(tablet)}: {error.message}"
        if why:
            raise UnavailableError(why)
        return True

    def _serves(self, branch_id: str) -> bool:
        branch = self._records.branch(branch_id)
        user, password = self._engine.credentials()[BackendRole.READER]
        seen = {
            (one.keyspace, one.shard, one.alias)
            for one in looks.tablets_of(replace(self.vtgate(branch_id), user=user, password=password))
            if one.serves and one.tablet_type == "primary"
        }
        for tablet in _primaries(branch):
            if (tablet.keyspace, tablet.shard, tablet.alias) not in seen:
                raise UnavailableError(f"it has no primary of {_shard_of(tablet)}")
        view = self.seen_by_vtgate(branch_id)
        return all(looks.knows(view, keyspace) for keyspace in branch.spec.keyspaces)

    def _let_it_read(self, branch_id: str, deadline: float) -> None:
        """Wait until vtgate has read the tables' columns. What it cannot read stays so, and is no reason not
        to serve the rest.
        """
        tables = sidecars.tables_of(self._engine, self._records.branch(branch_id))

        def has_read() -> bool:
            view = self.seen_by_vtgate(branch_id)
            unread = [
                f"{keyspace}.{name}"
                for keyspace, names in tables.items()
                for name in looks.unread(view, keyspace, names)
            ]
            if unread:
                raise UnavailableError(", ".join(unread[:5]))
            return True

        try:
            patience = min(deadline, time.monotonic() + _READ_SECONDS)
            self._crew.until(patience, "vtgate knows no columns", has_read, branch_id)
        except UnavailableError as error:
            log.warning("branch %s: %s", branch_id, error.message)

    def _clear(self, branch_id: str, topology: Topology) -> None:
        """Let go what the spec has no more."""
        branch = self._records.branch(branch_id)
        leaving, kept = branch.leaving, {keyspace.name for keyspace in branch.spec.keyspaces}
        gone = sorted((topology.served() or {}).keys() - kept)
        if not leaving and not gone:
            return
        self._crew.end(branch, leaving)
        topology.forget(gone, [tablet.alias for tablet in leaving if tablet.keyspace in kept])
        if left := sidecars.drop(self._engine, branch, {tablet.keyspace for tablet in leaving} - kept):
            raise UnavailableError(f"what Vitess kept of a keyspace that goes stays on a server: {left[0]}")
        self._records.write(replace(branch, tablets=branch.wanted))


def _answers(client: Vtctldclient) -> bool:
    try:
        client.run("GetCellInfoNames", timeout_seconds=5.0)
    except DeadlineExceededError as error:
        raise UnavailableError(error.message) from error
    return True


def _shard_of(tablet: Tablet) -> str:
    return f"{tablet.keyspace}/{tablet.shard}"


def _primaries(branch: Branch) -> list[Tablet]:
    """The tablets of the spec's primaries."""
    by_place = {records.place_of(tablet): tablet for tablet in branch.tablets}
    return [
        by_place[keyspace.name, shard.name, shard.schema, shard.primary_server_id]
        for keyspace in branch.spec.keyspaces
        for shard in keyspace.shards
    ]
