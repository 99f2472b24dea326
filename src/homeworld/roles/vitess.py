"""What an installation has of Vitess: found out when it is first asked for, so that nobody else pays for it.

Invariant: at most one process of a data directory looks after the clusters' processes; the others only use
them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from homeworld.engines.servers import Servers
from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.attached import AttachedClusters
from homeworld.engines.vitess.cluster import LocalClusters
from homeworld.engines.vitess.records import Records
from homeworld.engines.vitess.watcher import ClusterWatcher
from homeworld.model.clusters import ClusterSpec, RuleSetter
from homeworld.model.engines import EngineKind, refusal
from homeworld.model.errors import DeadlineExceededError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.topology import BackendRole, Endpoint
from homeworld.store.store import Store
from homeworld.workflows.clusters.adopting import Adopting
from homeworld.workflows.clusters.following import let_all_follow

_log = logging.getLogger("homeworld")


class Vitess:
    """Clusters beside an engine; where there is no Vitess, why. Implements
    ``model.clusters.SwitchedClusters``: what would need Vitess raises UnavailableError with that reason.
    """

    def __init__(self, engine: Servers, data_dir: Path) -> None:
        self._engine = engine
        self._foreign = AttachedClusters(engine.attachments, binaries.client, data_dir.absolute() / "vitess")
        self._adopting: Adopting | None = None
        self._data_dir = data_dir
        self._guard = threading.Lock()
        self._found: LocalClusters | None = None
        self._watcher: ClusterWatcher | None = None
        self._looks_after = False

    def missing(self) -> Mapping[EngineKind, str]:
        """The engines that cannot be had here, and why. What was installed meanwhile is found."""
        try:
            self._real()
        except UnavailableError as error:
            return {EngineKind.VITESS: error.message}
        return {}

    def require(self, engine: EngineKind) -> None:
        """Hold that new databases can have this engine.

        :raises InvalidError: they cannot; what to do.
        """
        missing: Mapping[EngineKind, str] = self.missing() if engine is EngineKind.VITESS else {}
        if why := refusal(engine, self._engine.flavor, missing):
            raise InvalidError(why)

    def _real(self) -> LocalClusters:
        with self._guard:
            if self._found is None:
                try:
                    self._found = LocalClusters(self._engine, self._data_dir)
                except InvalidError as error:
                    raise UnavailableError(error.message) from error
            if self._looks_after and self._watcher is None:
                self._watcher = self._found.watch()
            return self._found

    def _of(self, branch_id: str) -> LocalClusters | AttachedClusters:
        """Who has the branch's cluster.

        :raises UnavailableError: there is no Vitess here.
        """
        return self._foreign if self._engine.attachments.has(branch_id) else self._real()

    def credentials(self, branch_id: str) -> Mapping[BackendRole, tuple[str, str]]:
        """What gateways log in with, as each role, at the branch's servers or at its vtgate."""
        try:
            if self._engine.attachments.has(branch_id):
                return self._foreign.credentials(branch_id)
        except (NotFoundError, InvalidError) as error:  # others are served all the same
            _log.warning("%s", error.message)
        return self._engine.credentials()

    def is_foreign(self, branch_id: str) -> bool:
        """Whether others run the branch's cluster."""
        return self._engine.attachments.has(branch_id)

    # -- all clusters ----------------------------------------------------------------------------------------

    def begin(self, store: Store) -> None:
        """At the start of a process that is alone: clusters run and are what is stored, as far as that can be
        had now. From now on this process looks after them.

        :raises UnavailableError: the store does not answer.
        """
        self._looks_after = True
        with store.read() as tx:
            standing = tx.followings.standing()
        if any(not self.is_foreign(branch_id) for branch_id in standing):
            self._start_all()
        if standing:
            let_all_follow(store, self)
        self._adopt(store)

    def take_over(self, store: Store) -> None:
        """Look after the clusters from now on, beside processes that only use them: what does not run is
        started, and every cluster is looked at again. A no-op where this is done already, or there is no
        Vitess.

        :raises UnavailableError: the store does not answer.
        """
        if self._looks_after and self._watcher is not None:
            return
        self._looks_after = True
        if self._adopting is None:
            self._adopt(store)
            with store.write() as tx:
                for branch_id in filter(self.is_foreign, tx.followings.standing()):
                    tx.followings.glance_again(branch_id)
        if self.missing():
            return
        self._start_all()
        with store.write() as tx:
            for branch_id in tx.followings.standing():
                if not self.is_foreign(branch_id):
                    tx.followings.look_again(branch_id)

    def _adopt(self, store: Store) -> None:
        with self._guard:
            if self._adopting is None:
                self._adopting = Adopting(store, self._foreign)
                self._adopting.start()

    def leave(self, seconds: float = 10.0) -> None:
        """Look after them no more; they go on."""
        with self._guard:
            self._looks_after = False
            watcher, self._watcher = self._watcher, None
            adopting, self._adopting = self._adopting, None
        if adopting is not None:
            adopting.stop(seconds)
        if watcher is not None:
            try:
                watcher.stop(seconds)
            except DeadlineExceededError as error:
                _log.warning("%s", error)

    def stop_all(self, seconds: float) -> None:
        """End all their processes; :meth:`begin` starts them again."""
        self.leave(seconds / 3)
        if self._found is not None:
            for name in self._found.stop_all(seconds / 2):
                _log.warning("%s did not end in time and was killed", name)

    def _start_all(self) -> None:
        try:
            failures = self._real().start_all()
        except UnavailableError as error:
            _log.error("databases on Vitess are not served: %s", error.message)
            return
        for branch_id, why in failures.items():
            _log.error("the cluster of branch %s did not start and is tried again: %s", branch_id, why)

    def vtgates(self, store: Store) -> Callable[[str], Endpoint]:
        """Tells by a branch's id where its vtgate is, for who builds routes. NotFoundError: it has none that
        anybody may be served through, as nobody knows what its cluster has.
        """

        def vtgate(branch_id: str) -> Endpoint:
            with store.read() as tx:
                if not tx.followings.known(branch_id):
                    raise NotFoundError(f"the cluster of branch {branch_id} was not looked at yet")
            return self.vtgate(branch_id)

        return vtgate

    # -- Clusters --------------------------------------------------------------------------------------------

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """See Clusters."""
        # By what is stored, not by what is on disk: an attachment that was lost is no cluster of ours.
        clusters = self._real() if spec.given is None else self._foreign
        clusters.follow(spec, timeout_seconds, check)

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None:
        """See Clusters."""
        records = Records(self._data_dir.absolute() / "vitess")
        if self.is_foreign(branch_id) or branch_id in records.branch_ids():
            self._of(branch_id).end(branch_id, check)

    def vtgate(self, branch_id: str) -> Endpoint:
        """See Clusters."""
        try:
            return self._of(branch_id).vtgate(branch_id)
        except (UnavailableError, InvalidError) as error:
            raise NotFoundError(error.message) from error

    def rules(self, branch_id: str) -> Mapping[str, str]:
        """See Clusters."""
        return self._of(branch_id).rules(branch_id)

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        """See Clusters."""
        self._of(branch_id).apply_rules(branch_id, rules)

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        """See Clusters."""
        self._of(branch_id).set_rules(branch_id, rules, names, timeout_seconds)

    def begin_rules(self, branch_id: str) -> RuleSetter:
        """See SwitchedClusters."""
        return self._real().begin_rules(branch_id)

    def sidecar(self, branch_id: str, keyspace: str) -> str:
        """See SwitchedClusters."""
        return self._real().sidecar(branch_id, keyspace)

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """See Clusters."""
        self._of(branch_id).await_rules(branch_id, rules, timeout_seconds)

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        """See Clusters."""
        return self._of(branch_id).vschema(branch_id, keyspace)

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None:
        """See Clusters."""
        self._of(branch_id).check_vschema(branch_id, keyspace, vschema)

    # -- moves -----------------------------------------------------------------------------------------------

    def run(self, branch_id: str, *arguments: str, timeout_seconds: float) -> object:
        """See LocalClusters: a command of vtctldclient in the branch's cluster."""
        return self._of(branch_id).run(branch_id, *arguments, timeout_seconds=timeout_seconds)

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *arguments: str, timeout_seconds: float
    ) -> None:
        """See LocalClusters: the same with JSON in a file that ``flag`` names."""
        self._of(branch_id).run_with_file(
            branch_id, flag, content, *arguments, timeout_seconds=timeout_seconds
        )
