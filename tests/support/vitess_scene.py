"""Scenes for workflow steps on Vitess: a cluster in memory that keeps the contracts of ``model/clusters``.

Its switch of writes has the places at which a real one can stop: before anything, with the origin denied,
behind the journal, behind the rules, and at its end. A test's hook is called at each of them and may raise.
Clients reach tables through gateways and through the cluster's rules, as they do behind a vtgate.
"""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from homeworld.model.agreement import merged
from homeworld.model.clusters import HANDED_OVER, ClusterMove, ClusterSpec, MoveLook
from homeworld.model.engines import EngineKind
from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.movers import MoverProgress, Phase, StreamProgress, TableVerification, Verification
from homeworld.model.routing_rules import TrafficPhase, rules_for
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, TabletType
from homeworld.store.store import Store
from homeworld.workflows.move_tables.context import Ports, VitessPorts
from homeworld.workflows.move_tables.handler import Means, MoveTables
from homeworld.workflows.move_tables.vitess_known import cluster_move
from homeworld.workflows.move_tables.vitess_mover import Known, VitessMovers
from homeworld.workflows.move_tables.vitess_plans import vitess_plans
from tests.support.stores import Shop
from tests.support.workflow_scene import TABLE, Hook, Process, Scene, hooked
from tests.support.workflow_world import FakeGateways, FakeMovers, World, make_fence, make_table


@dataclass
class Streams:
    """One direction: ``running``, ``stopped``, at a statement (``ddl``), stopped for a ``cutover``, or
    ``frozen``.
    """

    state: str = "stopped"
    position: int | None = None
    copied: bool = False
    journaled: bool = False
    ddl: str = ""
    ddl_at: str = ""

    def meet(self, ddl: str, at: str) -> None:
        """Stop at a schema statement."""
        self.state, self.ddl, self.ddl_at = "ddl", ddl, at


@dataclass
class Cluster:
    """What Vitess remembers. ``denied`` are keyspaces whose primaries refuse the tables."""

    rules: dict[str, str] = field(default_factory=dict[str, str])
    vschemas: dict[str, Any] = field(default_factory=dict[str, Any])
    forward: Streams | None = None
    reverse: Streams | None = None
    denied: set[str] = field(default_factory=set[str])
    verified: dict[str, Verification] = field(default_factory=dict[str, Verification])


@dataclass
class VitessWorld(World):
    """Servers and the cluster beside them."""

    cluster: Cluster = field(default_factory=Cluster)

    def pump(self, source: str, target: str) -> None:
        """Let the streams that run come to where the logs are."""
        for streams, origin, to in (
            (self.cluster.forward, source, target),
            (self.cluster.reverse, target, source),
        ):
            if streams is None or streams.state != "running":
                continue
            if not streams.copied:
                for key, value in self.rows[origin, TABLE].items():
                    self.apply(to, TABLE, key, value)
                streams.position, streams.copied = len(self.logs.get(origin, [])), True
            log = self.logs.setdefault(origin, [])
            for table, key, value in log[streams.position or 0 :]:
                if table == TABLE and value is not None:
                    self.apply(to, TABLE, key, value)
            streams.position = len(log)


class FakeClusters:
    """The cluster as ``Clusters``."""

    def __init__(self, world: VitessWorld) -> None:
        self.world = world

    def follow(
        self, spec: ClusterSpec, timeout_seconds: float, check: Callable[[], None] = lambda: None
    ) -> None: ...

    def end(self, branch_id: str, check: Callable[[], None] = lambda: None) -> None: ...

    def vtgate(self, branch_id: str) -> Endpoint:
        return Endpoint("", Flavor.MYSQL, "127.0.0.1", 1, "", "", "")

    def rules(self, branch_id: str) -> Mapping[str, str]:
        return dict(self.world.cluster.rules)

    def apply_rules(self, branch_id: str, rules: Mapping[str, str]) -> None:
        self.world.calls.append("apply rules")
        self.world.cluster.rules = dict(rules)

    def set_rules(
        self, branch_id: str, rules: Mapping[str, str], names: Collection[str], timeout_seconds: float
    ) -> None:
        assert timeout_seconds > 0
        self.apply_rules(branch_id, merged(self.world.cluster.rules, rules, names))

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        if dict(rules) != self.world.cluster.rules:
            raise DeadlineExceededError("vtgate serves by other rules")

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        return self.world.cluster.vschemas[keyspace]

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None: ...


class FakeMoves:
    """The cluster as ``ClusterMoves``.

    :param at: called with each place that a switch passes.
    """

    def __init__(self, world: VitessWorld, at: Callable[[str], None] = lambda _place: None) -> None:
        self.world = world
        self.at = at
        self.refusal = ""

    @property
    def cluster(self) -> Cluster:
        return self.world.cluster

    def create(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            return
        assert "auto_increment" in str(self.cluster.vschemas[move.target]), "the vschema is there first"
        self.world.rows.setdefault((move.target, TABLE), {})
        self.cluster.forward = Streams()
        self._route(move, TrafficPhase.SOURCE)
        self.cluster.denied = {move.target}

    def _route(self, move: ClusterMove, phase: TrafficPhase) -> None:
        self.cluster.rules = rules_for(phase, move.tables, move.source, move.target, self.cluster.rules)
        if phase is TrafficPhase.TARGET:  # Vitess needs no rule from a name to itself
            del self.cluster.rules[f"{move.target}.{TABLE}"]

    def _leads(self, move: ClusterMove, suffix: str = "") -> str:
        return self.cluster.rules.get(f"{move.source}.{TABLE}{suffix}", move.source).partition(".")[0]

    def look(self, move: ClusterMove) -> MoveLook:
        cluster, switched = self.cluster, self._leads(move) == move.target
        forward, reverse = cluster.forward, cluster.reverse
        return MoveLook(
            exists=forward is not None,
            reverse_exists=reverse is not None,
            replicas_switched=self._leads(move, "@replica") == move.target,
            primaries_switched=switched,
            frozen=forward is not None and forward.state == "frozen",
            reverse_frozen=reverse is not None and reverse.state == "frozen",
            journaled=forward is not None and forward.journaled,
            reverse_journaled=reverse is not None and reverse.journaled,
            denied=(move.target if switched else move.source) in cluster.denied,
        )

    def _streams(self, *, reverse: bool) -> Streams:
        streams = self.cluster.reverse if reverse else self.cluster.forward
        if streams is None:
            raise UnavailableError("Vitess has no such streams")
        return streams

    def start(self, move: ClusterMove, *, reverse: bool) -> None:
        streams, seen = self._streams(reverse=reverse), self.look(move)
        if (
            streams.state in ("stopped", "ddl", "cutover")
            and not seen.halfway
            and seen.primaries_switched is reverse
        ):
            streams.state, streams.ddl, streams.ddl_at = "running", "", ""

    def stop(self, move: ClusterMove, *, reverse: bool) -> None:
        streams = self.cluster.reverse if reverse else self.cluster.forward
        if streams is not None and streams.state == "running":
            streams.state = "stopped"

    def progress(self, move: ClusterMove, *, reverse: bool, verify_id: str = "") -> MoverProgress:
        streams = self._streams(reverse=reverse)
        self.world.pump(move.source, move.target)
        over = streams.state in ("frozen", "cutover")
        phase = {"stopped": Phase.STOPPED, "ddl": Phase.DDL}.get(streams.state, Phase.FOLLOWING)
        told = StreamProgress("-", "-80", "", 0, 0, 0.0, unmeasured=HANDED_OVER if over else "")
        found = self.cluster.verified.get(verify_id)
        return MoverProgress(
            phase, streams.copied, (), (told,), 0.0, 0.0, 0.0, found, ddl=streams.ddl, ddl_at=streams.ddl_at
        )

    def check(self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool) -> None:
        if self.refusal:
            raise DeadlineExceededError(self.refusal)

    def switch_replicas(
        self, move: ClusterMove, tablet_types: frozenset[TabletType], *, back: bool, timeout_seconds: float
    ) -> None:
        for name, to in self.cluster.rules.items():
            if "@" in name:
                self.cluster.rules[name] = f"{move.source if back else move.target}.{TABLE}"
                assert to

    def switch_primaries(
        self, move: ClusterMove, *, back: bool, timeout_seconds: float, untouched: bool = False
    ) -> Mapping[str, str]:
        if untouched:
            seen = self.look(move)
            assert not seen.halfway, "a switch was begun"
            assert not seen.at(back=back), "the switch was made"
        try:
            while not self.look(move).at(back=back):
                self._go_on(move, back=back)
        except HomeworldError as error:
            seen = self.look(move)
            if seen.halfway:
                raise UnavailableError(f"begun: {error}") from error
            if not seen.at(back=back):
                raise DeadlineExceededError(f"not moved: {error}") from error
        return dict(self.cluster.rules)

    def _go_on(self, move: ClusterMove, *, back: bool) -> None:
        """One call of Vitess's own: from wherever it stands to its end."""
        cluster = self.cluster
        origin, to = (move.target, move.source) if back else (move.source, move.target)
        streams = self._streams(reverse=back)
        if not streams.journaled:
            self.at("begun")
            cluster.denied = {origin}
            self.at("denied")
            streams.state = "running"
            self.world.pump(move.source, move.target)
            streams.state = "cutover"
            other = Streams(position=len(self.world.logs.setdefault(to, [])), copied=True)
            if back:
                cluster.forward = other
            else:
                cluster.reverse = other
            self.at("streams made")
            streams.journaled = True
            self.at("journaled")
        cluster.denied = {origin}
        for name in [name for name in cluster.rules if "@" not in name]:
            cluster.rules[name] = f"{to}.{TABLE}"
        self.at("routed")
        other_streams = self._streams(reverse=not back)
        other_streams.state = "running"
        self.at("started")
        streams.state = "frozen"
        self.at("ended")

    def settle(self, move: ClusterMove, *, back: bool, timeout_seconds: float) -> None:
        for _ in range(6):
            seen = self.look(move)
            if seen.at(back=back) and not seen.halfway:
                return
            self._go_on(move, back=seen.begun_back if seen.halfway else back)
        raise UnavailableError("it does not settle")

    def verify(self, move: ClusterMove, verify_id: str) -> None:
        self.world.pump(move.source, move.target)
        ours, theirs = self.world.rows[move.source, TABLE], self.world.rows[move.target, TABLE]
        wrong = sum(ours.get(key) != theirs.get(key) for key in ours.keys() | theirs.keys())
        found = TableVerification(TABLE, len(ours), wrong, 0, 0, 0)
        self.cluster.verified[verify_id] = Verification(
            verify_id, "completed", len(ours), len(ours), 0.0, (found,)
        )

    def stop_verifying(self, move: ClusterMove, verify_id: str) -> None: ...

    def complete(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            assert self.look(move).at(back=False)
            self.world.rows.pop((move.source, TABLE), None)
            self._forget()

    def cancel(self, move: ClusterMove) -> None:
        if self.cluster.forward is not None:
            assert not self.look(move).primaries_switched, "Vitess refuses to cancel then"
            self.world.rows.pop((move.target, TABLE), None)
            self._forget()

    def _forget(self) -> None:
        self.cluster.forward = self.cluster.reverse = None
        self.cluster.denied = set()


class VitessGateways(FakeGateways):
    """Gateways that hand statements to a vtgate."""

    world: VitessWorld

    def __init__(self, world: VitessWorld) -> None:
        super().__init__(world)
        self.refused = 0

    def write(self, name: str, value: str) -> bool:
        """A client's write: held by the gateways' routes, carried out by the cluster's."""
        physical, _, table = self.rules.get(name, name).partition(".")
        if any((physical, table) in hold.tables for hold in self.holds.values()):
            return False
        if (physical, table) in self.closed:
            return False
        world = self.world
        keyspace = world.cluster.rules.get(name, name).partition(".")[0]
        if keyspace in world.cluster.denied:
            self.refused += 1
            return False
        if (keyspace, table) not in world.rows:
            raise NotFoundError(f"table {keyspace}.{table} does not exist")
        return self.carry_out(keyspace, table, value)


class VitessProcess(Process):
    """An executor's process for a database on Vitess."""

    scene: VitessScene

    def __init__(
        self,
        scene: VitessScene,
        hook: Hook = lambda _when, _step: None,
        at: Callable[[str], None] = lambda _place: None,
    ) -> None:
        self.scene = scene
        self.movers = FakeMovers(scene.world)
        self.moves = FakeMoves(scene.world, at)
        clusters = FakeClusters(scene.world)
        local = Ports(
            scene.store, scene.engine, scene.gateways, self.movers, make_fence(scene.world), scene.publish,
            lambda: scene.tools,
        )  # fmt: skip
        ports = Ports(
            scene.store, scene.engine, scene.gateways, VitessMovers(self.moves, scene.known),
            make_fence(scene.world), scene.publish, lambda: scene.tools,
            VitessPorts(
                clusters, self.moves, scene.followed, lambda _vtgate, names: scene.used_up.append(list(names))
            ),
        )  # fmt: skip
        plans = {name: hooked(plan, hook) for name, plan in vitess_plans(scene.preconditions).items()}
        self.handler = MoveTables(local, scene.preconditions, vitess=Means(ports, plans))
        self.lease = self.take()


class VitessScene(Scene):
    """A shop on Vitess."""

    world: VitessWorld
    gateways: VitessGateways

    def __init__(self, store: Store, shop: Shop, workflow_id: str, world: World) -> None:
        assert isinstance(world, VitessWorld)
        super().__init__(store, shop, workflow_id, world)
        self.gateways = VitessGateways(world)
        self.used_up: list[list[tuple[str, str]]] = []
        self.publish()

    @classmethod
    def world_of(cls, store: Store, shop: Shop) -> VitessWorld:
        with store.write() as tx:
            tx.databases.update(shop.database.id, engine=EngineKind.VITESS)
        world = VitessWorld(shop.branch.id, rows={("shop", TABLE): {}})
        world.cluster.vschemas = vschemas_of(store, shop.branch.id)
        return world

    @classmethod
    def new(cls, store: Store) -> Self:
        return super().new(store)

    def process(
        self, hook: Hook = lambda _when, _step: None, at: Callable[[str], None] = lambda _place: None
    ) -> VitessProcess:
        return VitessProcess(self, hook, at)

    def followed(self, branch_id: str, check: Callable[[], None]) -> None:
        """The cluster is what is stored, but for rules."""
        check()
        self.world.cluster.vschemas = vschemas_of(self.store, branch_id)

    def known(self, workflow_id: str) -> Known:
        workflow = self.workflow

        def tables(_reverse: bool) -> Mapping[str, Table]:
            return {TABLE: make_table(TABLE)}

        move = cluster_move(workflow, "shop", "shop_sharded", (TABLE,), "shop")
        return Known(move, str(workflow.facts.get("ddl", "")), str(workflow.facts.get("ddl_at", "")), tables)

    def check(self) -> None:
        super().check()
        with self.store.read() as tx:
            stored = dict(tx.routes.rules(self.shop.branch.id))
        assert self.world.cluster.rules == stored, "the cluster serves by what is stored"
        keyspace = self.gateways.rules.get(self.name, self.name).partition(".")[0]
        assert keyspace not in self.world.cluster.denied, "the side that has the writes takes them"


def vschemas_of(store: Store, branch_id: str) -> dict[str, Any]:
    with store.read() as tx:
        return {keyspace.name: dict(keyspace.vschema) for keyspace in tx.keyspaces.of_branch(branch_id)}


def places(script: Sequence[str]) -> Callable[[str], None]:
    """A hook that breaks off at each of these places, once, in order."""
    left = list(script)

    def at(place: str) -> None:
        if left and left[0] == place:
            left.pop(0)
            raise UnavailableError(f"nobody answers at {place}")

    return at
