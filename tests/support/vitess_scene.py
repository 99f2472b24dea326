"""Scenes for workflow steps on Vitess: a cluster in memory that keeps the contracts of ``model/clusters``.

Its switch of writes has the places at which a real one can stop: before anything, with the origin denied,
behind the journal, behind the rules, and at its end. A test's hook is called at each of them and may raise.
Clients reach tables through gateways and through the cluster's rules, as they do behind a vtgate.
"""
# ruff: noqa: ARG002 - fakes keep the signatures of their Protocols, also where they need less

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import pytest

from homeworld.model.agreement import merged
from homeworld.model.clusters import ClusterSpec
from homeworld.model.engines import EngineKind
from homeworld.model.errors import (
    DeadlineExceededError,
    NotFoundError,
    UnavailableError,
)
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.store.store import Store
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import steps_switch, vitess_mover, vitess_switch
from homeworld.workflows.move_tables.context import Ports, VitessPorts
from homeworld.workflows.move_tables.handler import Means, MoveTables
from homeworld.workflows.move_tables.tools import VitessStream
from homeworld.workflows.move_tables.vitess_known import cluster_move
from homeworld.workflows.move_tables.vitess_mover import Known, VitessMovers
from homeworld.workflows.move_tables.vitess_plans import attached_plans, vitess_plans
from tests.support.stores import Shop
from tests.support.vitess_fakes import NUMBERS, FakeMoves, VitessWorld, gtid
from tests.support.workflow_scene import TABLE, Hook, Process, Scene, Scenes, hooked
from tests.support.workflow_world import FakeGateways, FakeMovers, FakeTools, World, make_fence, make_table


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

    def begin_rules(self, branch_id: str) -> FakeRules:
        assert not self.world.claimed, "one after the other"
        self.world.claimed = True
        return FakeRules(self)

    def sidecar(self, branch_id: str, keyspace: str) -> str:
        return f"_vt_{keyspace}"

    def await_rules(self, branch_id: str, rules: Mapping[str, str], timeout_seconds: float) -> None:
        if dict(rules) != self.world.cluster.rules:
            raise DeadlineExceededError("vtgate serves by other rules")

    def vschema(self, branch_id: str, keyspace: str) -> Mapping[str, object]:
        return self.world.cluster.vschemas[keyspace]

    def check_vschema(self, branch_id: str, keyspace: str, vschema: Mapping[str, object]) -> None: ...


class FakeRules:
    """Rules about to be set, as ``RuleSetter``."""

    def __init__(self, clusters: FakeClusters) -> None:
        self.clusters = clusters
        self.rules = dict(clusters.world.cluster.rules)

    def set(self, rules: Mapping[str, str], timeout_seconds: float) -> None:
        self.clusters.world.calls.append("set rules")
        self.rules = dict(rules)
        self.clusters.world.cluster.rules = dict(rules)

    def close(self) -> None:
        self.clusters.world.claimed = False


class VitessTools(FakeTools):
    """Servers that tell positions as MySQL does, and what tablets keep on them."""

    world: VitessWorld

    def positions(self, places: Sequence[ShardPlace]) -> Mapping[str, str]:
        return {place.shard: gtid(len(self.world.logs.get(place.keyspace, []))) for place in places}

    def stream_positions(self, place: ShardPlace, sidecar: str) -> Mapping[int, VitessStream]:
        assert sidecar == f"_vt_{place.keyspace}"
        self.world.pump("shop", "shop_sharded")
        back = place.keyspace == "shop"
        streams = self.world.cluster.reverse if back else self.world.cluster.forward
        if streams is None:
            return {}
        state = "Running" if streams.state == "running" else "Stopped"
        message = f"Stopped at DDL {streams.ddl}" if streams.state == "ddl" else ""
        told = VitessStream(state, gtid(streams.position or 0), message)
        return dict.fromkeys(NUMBERS, told)


def fence_of(world: VitessWorld) -> Any:
    """As ``make_fence``, with positions as MySQL tells them."""
    plain = make_fence(world)

    @contextmanager
    def fence(
        places: Sequence[ShardPlace], tables: Sequence[str], timeout_seconds: float
    ) -> Generator[Mapping[str, str]]:
        with plain(places, tables, timeout_seconds) as finals:
            yield {shard: gtid(int(at)) for shard, at in finals.items()}

    return fence


class VitessGateways(FakeGateways):
    """Gateways that hand statements to a vtgate."""

    world: VitessWorld

    def __init__(self, world: VitessWorld) -> None:
        super().__init__(world)
        self.refused = 0

    def write(self, name: str, value: str) -> bool:
        """A client's write: held by the gateways' routes, carried out by the cluster's."""
        physical, _, table = self.rules.get(name, name).partition(".")
        if self.holding((physical, table)):
            return False
        if (physical, table) in self.closed:
            return False
        world = self.world
        keyspace = world.cluster.rules.get(name, name).partition(".")[0]
        if keyspace in world.locked:
            return False
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
        scene.world.claimed = False  # the kernel's, when whoever had it died
        self.movers = FakeMovers(scene.world)
        self.moves = FakeMoves(scene.world, scene.shards, at)
        clusters, fence = FakeClusters(scene.world), fence_of(scene.world)
        local = Ports(
            scene.store, scene.engine, scene.gateways, self.movers, fence, scene.publish, lambda: scene.tools
        )
        ports = Ports(
            scene.store, scene.engine, scene.gateways, VitessMovers(self.moves, scene.known),
            fence, scene.publish, lambda: scene.tools,
            VitessPorts(
                clusters, self.moves, scene.followed, lambda _vtgate, names: scene.used_up.append(list(names))
            ),
        )  # fmt: skip
        ours, others = (
            Means(ports, {name: hooked(plan, hook) for name, plan in plans(scene.preconditions).items()})
            for plans in (vitess_plans, attached_plans)
        )
        self.handler = MoveTables(local, scene.preconditions, vitess=ours, attached=others)
        self.lease = self.take()


class VitessScene(Scene):
    """A shop on Vitess."""

    world: VitessWorld
    gateways: VitessGateways
    engine_kind = EngineKind.VITESS

    def __init__(self, store: Store, shop: Shop, workflow_id: str, world: World) -> None:
        assert isinstance(world, VitessWorld)
        super().__init__(store, shop, workflow_id, world)
        self.gateways = VitessGateways(world)
        self.tools = VitessTools(world)
        with store.read() as tx:
            self.shards = {
                keyspace.name: [shard.name for shard in tx.keyspaces.shards(keyspace.id)]
                for keyspace in tx.keyspaces.of_branch(shop.branch.id)
            }
        self.used_up: list[list[tuple[str, str]]] = []
        self.publish()

    @classmethod
    def world_of(cls, store: Store, shop: Shop) -> VitessWorld:
        with store.write() as tx:
            tx.databases.update(shop.database.id, engine=cls.engine_kind)
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
        assert not self.world.claimed, "others may set rules"


class AttachedScene(VitessScene):
    """The same on a cluster that others run: Vitess's own switch, for which clients wait."""

    engine_kind = EngineKind.ATTACHED


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


def scene_at(scenes: Scenes, plan: str) -> VitessScene:
    """A scene in which the plan is about to begin."""
    scene = scenes.at(plan)
    assert isinstance(scene, VitessScene)
    return scene


def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for what takes no time in memory."""
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(steps_switch, "BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(vitess_switch, "UP_SECONDS", 0.0)
    monkeypatch.setattr(vitess_switch, "CALM_SECONDS", 0.0)
    monkeypatch.setattr(vitess_mover, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(vitess_mover, "ATTACH_SECONDS", 0.0)
