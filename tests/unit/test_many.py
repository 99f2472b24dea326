"""Many branches, shards and servers: what is done costs no more than its own part, however much else there
is, and what must be done for all of them is done in portions.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import event

from homeworld.api.calls import Settings
from homeworld.api.event_subjects import EventSubjects
from homeworld.gateway import effects, loading, server
from homeworld.gateway.pool import Pool
from homeworld.gateway.server import VERSIONS, Gateway
from homeworld.metering import meter as metering
from homeworld.metering.meter import Meter
from homeworld.metering.prices import Prices
from homeworld.model.addresses import Reach
from homeworld.model.routing import BranchRoutes, RoutingSnapshot
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import BackendRole, Flavor
from homeworld.store import outbox
from homeworld.store.keyspaces import Keyspace
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.webhooks.dispatcher import CONSUMER, KEPT_DAYS, Dispatcher
from homeworld.webhooks.sending import Post
from homeworld.workflows import executor
from homeworld.workflows.failover import CatchingUp
from homeworld.workflows.leases import Keeper, Lease
from homeworld.workflows.provisioning import keyspaces as making
from homeworld.workflows.provisioning.ports import Placement, Ports
from tests.support.api import StatedPreconditions
from tests.support.fleet_engine import FleetEngine
from tests.support.plain_router import PlainRouter
from tests.support.routing_world import branch as routes_of
from tests.support.routing_world import keyspace as route_of
from tests.support.stores import Shop, TestClock, make_shop

MADE = life_row(Life.PENDING, LifeTrigger.MADE)


@contextmanager
def statements(store: Store) -> Generator[list[str]]:
    """The statements that the store is asked meanwhile."""
    seen: list[str] = []

    def see(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        seen.append(" ".join(statement.split()))

    event.listen(store.engine, "before_cursor_execute", see)
    try:
        yield seen
    finally:
        event.remove(store.engine, "before_cursor_execute", see)


def shop_in(store: Store, name: str = "shop") -> Shop:
    with store.write() as tx:
        return make_shop(tx, name)


def leased(store: Store, resource: str) -> Lease:
    lease = Keeper(store, "me", ttl_seconds=600.0).take(resource)
    assert lease is not None
    return lease


# -- a keyspace of many shards -------------------------------------------------------------------------------


def make_keyspace(store: Store, shop: Shop, name: str, shards: int, placement: Placement) -> list[str]:
    """Place it and make its servers; the reads of servers and shards that took."""
    with store.write() as tx:
        keyspace = tx.keyspaces.create(shop.branch.id, name, shards=shards, replicas=1)
    engine = FleetEngine(Flavor.MYSQL)
    with store.read() as tx:
        engine.adopt((server.id, server.replica_of, []) for server in tx.servers.of_branch(shop.branch.id))
    ports = Ports(store, engine, lambda: None, placement)
    context = making.Context(ports, leased(store, f"keyspace:{keyspace.id}"), keyspace, shop.branch)
    with statements(store) as seen:
        making.choose_places(context)
        making.make_servers(context)
        making.size_servers(context)
        assert making.servers_run(context) == ""
    return [one for one in seen if one.startswith("SELECT") and "WHERE servers.id =" not in one]


@pytest.mark.parametrize("placement", Placement)
def test_shards_are_placed_and_made_without_reading_all_for_each(store: Store, placement: Placement) -> None:
    shop = shop_in(store)
    few, many = (
        [one for one in made if "FROM servers" in one or "FROM shards" in one]
        for made in (make_keyspace(store, shop, f"of_{n}", n, placement) for n in (2, 32))
    )
    assert len(few) == len(many)
    with store.read() as tx:
        shards = tx.keyspaces.shards(tx.keyspaces.by_name(shop.branch.id, "of_32").id)
        servers = {server.id: server for server in tx.servers.of_branch(shop.branch.id)}
    primaries = {shard.primary_server_id for shard in shards}
    assert len(primaries) == (32 if placement is Placement.DEDICATED else 1)
    for shard in shards:
        (replica,) = shard.replica_server_ids
        assert servers[replica].replica_of == shard.primary_server_id
        assert servers[replica].state is Life.READY


def test_gateways_are_told_once_of_all_places_of_a_keyspace(store: Store) -> None:
    shop = shop_in(store)
    with store.write() as tx:
        keyspace = tx.keyspaces.create(shop.branch.id, "wide", shards=8)
        places = {
            shard.id: (tx.servers.create(shop.branch.id, Flavor.MYSQL).id, ())
            for shard in tx.keyspaces.shards(keyspace.id)
        }
        before = tx.routes.version()
        tx.keyspaces.place_all(keyspace.id, {})
        assert tx.routes.version() == before
        tx.keyspaces.place_all(keyspace.id, places)
        assert tx.routes.version() == before + 1
        assert {s.id: s.primary_server_id for s in tx.keyspaces.shards(keyspace.id)} == {
            shard_id: primary for shard_id, (primary, _) in places.items()
        }
        (one, _), (other, _) = list(places.values())[:2]
        assert tx.keyspaces.stands_on(one, shop.source.id)
        assert not tx.keyspaces.stands_on(one, keyspace.id)
        assert other != one


# -- routes of many branches ---------------------------------------------------------------------------------


def test_many_branches_are_read_by_as_many_queries_as_one(store: Store) -> None:
    fleet = FleetEngine(Flavor.MYSQL)

    def routing() -> Routing:
        with store.read() as tx:
            fleet.adopt((server.id, server.replica_of, []) for server in tx.servers.own())
        return Routing(
            store,
            lambda server_id: fleet.endpoint(server_id, BackendRole.READER),
            lambda _: fleet.credentials(),
        )

    first = shop_in(store, "shop")
    with store.write() as tx:
        tx.routes.guard(first.branch.id, [("shop", "t")])
        tx.routes.move_rules(first.branch.id, {"t": "shop.t"}, "run", [("shop", "t")])
        tx.passwords.create(first.branch.id)
    reading = routing()
    with statements(store) as one:
        alone = reading.snapshot()
    for number in range(11):
        shop_in(store, f"shop{number}")
    reading = routing()
    with statements(store) as dozen:
        whole = reading.snapshot()
    assert len(dozen) == len(one)
    assert whole.branches[first.branch.id] == alone.branches[first.branch.id]
    assert whole.accounts == alone.accounts
    assert sorted(each.database for each in whole.branches.values()) == sorted(
        ["shop", *(f"shop{number}" for number in range(11))]
    )
    for each in whole.branches.values():
        assert set(each.keyspaces) == {each.database, f"{each.database}_sharded"}
        assert each.default_keyspace == each.database


class Counted(BranchRoutes):
    """Routes that count how often they are compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as of what is compared by value


class CountedRead(dict[str, BranchRoutes]):
    """Branches that count how often all of them are looked at."""

    looked = 0

    def values(self):  # type: ignore[override]  # as a dict's
        self.looked += 1
        return super().values()


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    # Whom it has begun to read it waits for, however long the others take to begin.
    monkeypatch.setattr(server, "Pool", partial(Pool, 300.0))
    monkeypatch.setattr(loading, "_LOAD_SECONDS", 300.0)
    made = Gateway(router_factory=PlainRouter)
    made.start()
    yield made
    made.stop(1.0)


def routes(name: str, flavor: Flavor = Flavor.MARIADB, version: int = 1, port: int = 1) -> BranchRoutes:
    keyspace = route_of("main")
    shards = tuple(
        replace(shard, primary=replace(shard.primary, server_id=name, port=port)) for shard in keyspace.shards
    )
    made = routes_of(replace(keyspace, shards=shards))
    accounts = {role: (f"hw_{role}", "secret") for role in BackendRole}
    return replace(made, branch_id=name, flavor=flavor, version=version, credentials=accounts)


def test_a_publication_compares_no_branch_that_is_the_same(gateway: Gateway) -> None:
    Counted.compared = 0
    still = {
        name: Counted(**{field: getattr(routes(name), field) for field in BranchRoutes.__slots__})
        for name in ("a", "b", "c")
    }
    gateway.publish(RoutingSnapshot(1, {**still, "d": routes("d")}, {}))
    gateway.publish(RoutingSnapshot(2, {**still, "d": routes("d", version=2)}, {}))
    assert gateway.version == 2
    assert Counted.compared == 0


def test_a_client_is_greeted_without_a_look_at_all_branches(gateway: Gateway) -> None:
    assert gateway.greeting_version() == VERSIONS[Flavor.MYSQL], "nothing is served yet"
    for version, flavors, greeting in (
        (1, (Flavor.MARIADB, Flavor.MARIADB), Flavor.MARIADB),
        (2, (Flavor.MARIADB, Flavor.MYSQL), Flavor.MYSQL),
    ):
        branches = CountedRead(
            {str(number): routes(str(number), flavor, version) for number, flavor in enumerate(flavors)}
        )
        gateway.publish(RoutingSnapshot(version, branches, {}))
        looked = branches.looked
        assert {gateway.greeting_version() for _ in range(3)} == {VERSIONS[greeting]}
        assert branches.looked == looked


def test_a_gateway_that_starts_reads_so_many_keyspaces_at_once(gateway: Gateway) -> None:
    """A server that takes connections and says nothing: whoever begins is still there when it is counted."""
    most = effects.MOST_REFRESHES
    taken: list[socket.socket] = []
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(256)
        listener.settimeout(0.3)
        port = int(listener.getsockname()[1])
        count = most + 20
        branches = {f"b{number}": routes(f"b{number}", port=port) for number in range(count)}
        threading.Thread(
            target=gateway.publish, args=(RoutingSnapshot(1, branches, {}),), daemon=True
        ).start()
        deadline = time.monotonic() + 30.0
        while len(taken) < most and time.monotonic() < deadline:
            with suppress(TimeoutError):
                taken.append(listener.accept()[0])
        with pytest.raises(TimeoutError):
            taken.append(listener.accept()[0])
    for one in taken:
        one.close()
    assert len(taken) == most


# -- all servers, in portions --------------------------------------------------------------------------------


class Looks:
    version = "9.7.4"

    def running_version(self, server_id: str) -> str:
        return self.version + server_id[:0]

    def storage_bytes(self, server_id: str) -> int:
        return len(server_id)


def test_hours_are_counted_in_portions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        shop_in(store, f"shop{number}")
    monkeypatch.setattr(metering, "_PORTION", 2)
    lease = leased(store, "metering")
    meter = Meter(store, Looks(), Prices())
    with statements(store) as seen:
        meter.turn(lease)
    counted: list[int] = [0]
    for one in seen:
        if one.startswith("SELECT usage_hours.server_id"):
            counted.append(0)
        counted[-1] += one.startswith("INSERT INTO usage_hours")
    assert sum(counted) == 6
    assert max(counted) == 2
    with statements(store) as seen:
        meter.turn(lease)
    assert not [one for one in seen if one.startswith("INSERT")]


def test_promotions_that_nobody_told_of_are_looked_for_in_portions(store: Store) -> None:
    shops = [shop_in(store, f"shop{number}") for number in range(5)]
    fleet = FleetEngine(Flavor.MYSQL)
    with store.read() as tx:
        servers = tx.servers.own()
    fleet.adopt((server.id, server.replica_of, []) for server in servers)
    heirs = sorted(server.id for server in servers if server.replica_of is not None)
    fleet.promote(heirs[-1])
    looking = CatchingUp(store, fleet, portion=2)
    assert [looking() for _ in range(3)] == [True, True, False]
    with store.read() as tx:
        assert tx.servers.get(heirs[-1]).replica_of is None
        assert len([shop for shop in shops if tx.servers.of_branch(shop.branch.id)]) == 5
    fleet.promote(heirs[0])
    while looking():  # it begins again with the first
        pass
    with store.read() as tx:
        assert tx.servers.get(heirs[0]).replica_of is None


def test_to_look_for_work_takes_a_part_of_the_time() -> None:
    assert executor.pause_after(0.0) == executor.LEAST_POLL_SECONDS
    took = 0.1
    assert took / (took + executor.pause_after(took)) == pytest.approx(executor.POLL_SHARE)
    assert executor.pause_after(100.0) == executor.MOST_POLL_SECONDS


# -- events of long ago --------------------------------------------------------------------------------------


def seqs(store: Store) -> list[int]:
    with store.read() as tx:
        return [one.seq for one in tx.outbox.after(0, 10_000)]


def test_old_events_are_forgotten_but_for_the_newest(
    store: Store, clock: TestClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop_in(store)
    every = seqs(store)
    monkeypatch.setattr(outbox, "MOST_FORGOTTEN", 3)

    def forget(upto: int) -> int:
        with store.write() as tx:
            return tx.outbox.forget(tx.work.now - timedelta(days=KEPT_DAYS), upto)

    assert forget(every[-1]) == 0, "they are of today"
    clock.forward(KEPT_DAYS * 86400 + 1)
    assert forget(every[4]) == 3
    assert forget(every[4]) == 2
    assert forget(every[4]) == 0
    assert seqs(store) == every[5:]
    while forget(every[-1]):
        pass
    assert seqs(store) == every[-1:]
    with store.write() as tx:
        tx.outbox.emit("branch.ready", "branch", "b", {})
        assert tx.outbox.last() == every[-1] + 1


def test_what_a_webhook_is_still_to_be_told_is_not_forgotten(store: Store, clock: TestClock) -> None:
    shop = shop_in(store)
    before = seqs(store)
    with store.write() as tx:
        tx.webhooks.create(shop.database.id, "https://example.com/hook", enabled=True)
    with store.write() as tx:
        tx.branches.create(shop.database.id, "dev", shop.region.id)
    after = [one for one in seqs(store) if one > before[-1]]
    clock.forward(KEPT_DAYS * 86400 + 1)
    errand = Dispatcher(store, EventSubjects(Settings(StatedPreconditions()), ""), Post(Reach(())))
    lease = leased(store, "webhooks")
    errand.forget(lease)
    assert seqs(store) == after, "only what came before anybody listened"
    with store.write() as tx:
        tx.outbox.advance(CONSUMER, after[-1])
    errand.forget(lease)
    assert seqs(store) == after[-1:]
    errand.stop(1.0)


def test_a_keyspace_is_a_row_of_its_own_branch(store: Store) -> None:
    shops = [shop_in(store, name) for name in ("one", "two")]
    with store.read() as tx:
        found = tx.keyspaces.of_branches([shop.branch.id for shop in shops])
    assert {branch_id: [keyspace.name for keyspace in several] for branch_id, several in found.items()} == {
        shop.branch.id: [shop.source.name, shop.target.name] for shop in shops
    }
    assert all(isinstance(each, Keyspace) for several in found.values() for each in several)
