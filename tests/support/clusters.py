"""Clusters, servers and gateways in memory that keep their contracts, and an executor over them.

Everything that is done is one line in ``Events``, in order, so that tests can say what came before what. A
cluster takes only what exists: a keyspace whose schema was not made, or was dropped, is a failed test.
"""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import InitVar, dataclass, field

import pytest

from homeworld.model.agreement import merged
from homeworld.model.clusters import ClusterSpec
from homeworld.model.engines import EngineKind
from homeworld.model.errors import DeadlineExceededError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.names import new_id
from homeworld.model.ports import ServerStatus
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.model.sizes import Host, ServerSize
from homeworld.model.topology import BackendRole, Endpoint, Flavor, ShardPlace
from homeworld.store.branches import Branch
from homeworld.store.databases import Database
from homeworld.store.followings import Following
from homeworld.store.provision import create_database
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.workflows.clusters.handler import Followers
from homeworld.workflows.engine_changes.context import Ports
from homeworld.workflows.engine_changes.handler import EngineChanges
from homeworld.workflows.engine_changes.looking import Content
from homeworld.workflows.executor import Executor, Handler
from homeworld.workflows.placements import StillTables
from homeworld.workflows.provisioning import Placement, keyspaces
from homeworld.workflows.provisioning import Ports as MakingPorts
from homeworld.workflows.provisioning.branches import Branches, Databases
from homeworld.workflows.provisioning.keyspaces import Keyspaces

PATIENCE_SECONDS = 120.0


def _nothing(*_given: object) -> None:
    """What is done of what needs real servers."""


class Events:
    """What was done, in order."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lines: list[str] = []

    def add(self, line: str) -> None:
        """It was done now."""
        with self._guard:
            self._lines.append(line)

    def all(self) -> list[str]:
        """Everything so far."""
        with self._guard:
            return list(self._lines)

    def at(self, line: str) -> int:
        """When a line came first."""
        return self.all().index(line)

    def last(self, line: str) -> int:
        """When a line came last."""
        lines = self.all()
        return len(lines) - 1 - lines[::-1].index(line)


class MemoryServers:
    """An engine whose servers are names; they outlive the executor."""

    flavor = Flavor.MYSQL

    def __init__(self, events: Events) -> None:
        self.events = events
        self.servers: set[str] = set()
        self.schemas: set[tuple[str, str]] = set()

    def create_server(
        self, server_id: str, *, replica_of: str | None = None, size: ServerSize | None = None
    ) -> None:
        """See ports.Engine."""
        self.servers.add(server_id)

    def destroy_server(self, server_id: str) -> None:
        """See ports.Engine."""
        self.servers.discard(server_id)
        self.schemas = {one for one in self.schemas if one[0] != server_id}
        self.events.add(f"destroy {server_id}")

    def host(self) -> Host:
        """See ports.Engine."""
        return Host(2, 8192)

    def resize_server(self, server_id: str, size: ServerSize | None) -> bool:
        """See ports.Engine."""
        return True

    def restart_server(self, server_id: str) -> None:
        """See ports.Engine."""
        self.events.add(f"restart {server_id}")

    def restarts(self, server_id: str) -> int:
        """See ports.Engine."""
        return 0

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        """See ports.Engine."""
        if server_id not in self.servers:
            raise NotFoundError
        return Endpoint(server_id, Flavor.MYSQL, "127.0.0.1", 1, "", role.value, "secret")

    def create_schema(self, server_id: str, schema: str) -> None:
        """See ports.Engine."""
        assert server_id in self.servers
        self.schemas.add((server_id, schema))
        self.events.add(f"schema {schema}")

    def drop_schema(self, server_id: str, schema: str, confirm: Callable[[], None] = lambda: None) -> None:
        """See ports.Engine."""
        confirm()
        self.schemas.discard((server_id, schema))
        self.events.add(f"drop {schema}")

    def status(self, server_id: str) -> ServerStatus:
        """See ports.Engine."""
        return ServerStatus(
            server_id, server_id in self.servers, server_id in self.servers, 1, None, None, ""
        )

    def wait_replica(self, server_id: str, timeout_seconds: float) -> None:
        """See ports.Engine."""

    def promote(self, server_id: str, *, accept_loss: bool = False, timeout_seconds: float = 30.0) -> None:
        """See failover.Promotes."""
        self.events.add(f"promote {server_id}")

    def is_primary(self, server_id: str) -> bool:
        """See failover.Promotes."""
        return f"promote {server_id}" in self.events.all()

    def unsettled(self, server_id: str) -> bool:
        """See failover.Promotes."""
        return False

    def furthest(self, server_ids: Sequence[str], timeout_seconds: float = 10.0) -> str:
        """See failover.Promotes."""
        return server_ids[0]

    def follows(self, server_id: str) -> str:
        """See failover.Promotes."""
        return ""


class MemoryClusters:
    """Implements ``model.clusters.Clusters``.

    :param ignorant: names that no vschema may have for a vindex's type. ``down``: nothing answers.
        ``gate``: what a follow waits for before it is done.
    """

    def __init__(self, servers: MemoryServers) -> None:
        self.servers = servers
        self.events = servers.events
        self.specs: dict[str, ClusterSpec] = {}
        self.routing: dict[str, dict[str, str]] = {}
        self.ignorant: set[str] = set()
        self.down = False
        self.gate = threading.Event()
        self.gate.set()

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """See Clusters."""
        self._answer()
        check()
        for keyspace in spec.keyspaces:
            self._judge(keyspace.vschema)
            for shard in keyspace.shards:
                assert (shard.primary_server_id, shard.schema) in self.servers.schemas, "no such schema"
                assert set(shard.replica_server_ids) <= self.servers.servers, "no such server"
        assert self.gate.wait(PATIENCE_SECONDS)
        check()
        self.specs[spec.branch_id] = spec
        self.events.add(f"follow {','.join(keyspace.name for keyspace in spec.keyspaces)}")

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None:
        """See Clusters."""
        self._answer()
        check()
        self.specs.pop(branch_id, None)
        self.routing.pop(branch_id, None)
        self.events.add(f"end {branch_id}")

    def vtgate(self, branch_id: str) -> Endpoint:
        """See Clusters."""
        if branch_id not in self.specs:
            raise NotFoundError(f"branch {branch_id} has no cluster")
        return Endpoint("", Flavor.MYSQL, "127.0.0.1", 2, "", "", "")

    def rules(self, branch_id: str) -> Mapping[str, str]:
        """See Clusters."""
        self._answer()
        return self.routing.get(branch_id, {})

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        """See Clusters."""
        self._answer()
        assert branch_id in self.specs
        self.routing[branch_id] = dict(rules)
        self.events.add("rules")

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        """See Clusters."""
        assert timeout_seconds > 0
        self.apply_rules(branch_id, merged(self.rules(branch_id), rules, names))

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        """See Clusters."""
        if self.rules(branch_id) != rules:
            raise DeadlineExceededError("vtgate does not serve by these rules")

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        """See Clusters."""
        self._answer()
        return next(one.vschema for one in self.specs[branch_id].keyspaces if one.name == keyspace)

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None:
        """See Clusters."""
        self._answer()
        self._judge(vschema)

    def _judge(self, vschema: Mapping[str, object]) -> None:
        for word in self.ignorant:
            if word in str(vschema):
                raise InvalidError(f"vindexType {word!r} not found")

    def _answer(self) -> None:
        if self.down:
            raise UnavailableError("vtctld does not answer")


class MemoryGateways:
    """Gateways as one: what they serve, and what they hold."""

    def __init__(self, events: Events) -> None:
        self.events = events
        self.served: RoutingSnapshot | None = None
        self.holds: dict[str, HoldRequest] = {}
        self.stuck = False

    def publish(self, snapshot: RoutingSnapshot) -> None:
        """See ports.Gateways."""
        self.served = snapshot
        self.events.add("publish")

    def hold(self, request: HoldRequest) -> None:
        """See ports.Gateways."""
        if self.stuck:
            raise DeadlineExceededError("transactions under way did not end in time")
        self.holds = {
            known: hold
            for known, hold in self.holds.items()
            if not request.subject or hold.subject != request.subject
        }
        self.holds[request.hold_id] = request
        self.events.add("hold")

    def release(self, hold_id: str) -> None:
        """See ports.Gateways."""
        if self.holds.pop(hold_id, None) is not None:
            self.events.add("release")

    def open(self, subject: str) -> None:
        """See ports.Gateways."""

    def is_held(self, hold_id: str) -> bool:
        """See ports.Gateways."""
        return hold_id in self.holds


class StatedSight:
    """What shards have, as a test states it, and what vtgate does not serve."""

    def __init__(self) -> None:
        self.has: dict[str, Content] = {}
        self.wrong: dict[str, str] = {}
        self.asked: list[tuple[str, tuple[str, ...]]] = []

    def content(self, place: ShardPlace, seconds: float = 1.0) -> Content:
        """See engine_changes.looking.Sight."""
        assert seconds > 0
        return self.has.get(place.keyspace, Content(()))

    def unserved(self, vtgate: Endpoint, keyspace: str, names: Sequence[str]) -> Mapping[str, str]:
        """See engine_changes.looking.Sight."""
        assert (vtgate.user, vtgate.port) == (BackendRole.ADMIN.value, 2)
        self.asked.append((keyspace, tuple(names)))
        return {name: why for name, why in self.wrong.items() if name in names}


@dataclass
class Platform:
    """An installation in memory; executors come and go. What is read from real servers reads nothing here."""

    store: Store
    patch: InitVar[pytest.MonkeyPatch]
    placement: Placement = Placement.SHARED
    events: Events = field(default_factory=Events)
    running: Executor | None = None

    def __post_init__(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(keyspaces, "copy_definitions", _nothing)
        patch.setattr(StillTables, "_look", _nothing)
        self.servers = MemoryServers(self.events)
        self.clusters = MemoryClusters(self.servers)
        self.gateways = MemoryGateways(self.events)
        self.sight = StatedSight()
        self.routing = Routing(
            self.store,
            lambda server_id: self.servers.endpoint(server_id, BackendRole.READER),
            lambda _branch_id: {},
            self.clusters.vtgate,
        )
        self.placements = StillTables(self.store, self.servers, self.gateways, self.publish, self.clusters)

    def publish(self) -> None:
        """As the composition root does."""
        self.gateways.publish(self.routing.snapshot())

    @property
    def changing(self) -> Ports:
        """What changes of engine act on."""
        return Ports(self.store, self.servers, self.gateways, self.clusters, self.sight, self.publish)

    def start(self, changes: Sequence[Handler] | None = None) -> None:
        """An executor of its own name, with every handler that works with clusters.

        :param changes: who handles changes of engine; None: as usual.
        """
        making = MakingPorts(self.store, self.servers, self.publish, self.placement)
        self.running = Executor(
            self.store,
            [
                Databases(making),
                Branches(making),
                Keyspaces(making),
                Followers(self.store, self.clusters),
                *([EngineChanges(self.changing)] if changes is None else changes),
            ],
            f"one-{new_id()}",
            publish=self.publish,
            poll_seconds=0.02,
            ttl_seconds=30.0,
        )
        self.running.start()

    def stop(self) -> None:
        """End the executor."""
        if self.running is not None:
            running, self.running = self.running, None
            running.stop(PATIENCE_SECONDS)

    @contextmanager
    def works(self) -> Generator[None]:
        """An executor while the block runs."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def make(self, engine: EngineKind = EngineKind.VITESS, name: str = "shop", replicas: int = 0) -> Database:
        """Ask for a database."""
        with self.store.write() as tx:
            organization = tx.organizations.ensure("acme")
            return create_database(tx, organization.id, name, Flavor.MYSQL, engine=engine, replicas=replicas)

    def database(self, name: str = "shop") -> Database:
        """As it is now."""
        with self.store.read() as tx:
            return tx.databases.by_name(tx.organizations.by_name("acme").id, name)

    def main(self) -> Branch:
        """The shop's default branch."""
        with self.store.read() as tx:
            return tx.branches.default(self.database().id)

    def following(self, branch_id: str | None = None) -> Following:
        """How far a branch's cluster is."""
        with self.store.read() as tx:
            return tx.followings.get(branch_id or self.main().id)


def until(done: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait for it."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)
