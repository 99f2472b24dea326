"""Snapshots: complete, versioned, and read anew only where something changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from homeworld.model.engines import EngineKind
from homeworld.model.errors import NotFoundError
from homeworld.model.routing import Closing
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.store import provision
from homeworld.store.routing import Routing
from homeworld.store.store import Store, Transaction
from tests.support.stores import Shop, make_shop

CREDENTIALS = {BackendRole.READER: ("hw_reader", "secret")}


class Addresses:
    """Endpoints that remember who asked for them."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.unknown: set[str] = set()

    def __call__(self, server_id: str) -> Endpoint:
        self.asked.append(server_id)
        if server_id in self.unknown:
            raise NotFoundError
        return Endpoint(server_id, Flavor.MYSQL, "127.0.0.1", 3306, "", "", "")


def routed(store: Store) -> tuple[Shop, Addresses, Routing]:
    with store.write() as tx:
        shop = make_shop(tx)
    addresses = Addresses()
    return shop, addresses, Routing(store, addresses, lambda _branch: CREDENTIALS)


def test_a_snapshot_holds_all_of_a_branch(store: Store) -> None:
    shop, _, routing = routed(store)
    with store.write() as tx:
        password, plain = tx.passwords.create(
            shop.branch.id, role=BackendRole.READER, ttl_seconds=60, cidrs=["10.0.0.1"], replica=True
        )
        tx.routes.replace_rules(shop.branch.id, {"orders@replica": "shop_sharded.orders"})
    snapshot = routing.snapshot()
    branch = snapshot.branches[shop.branch.id]
    assert (branch.organization, branch.database, branch.branch) == ("acme", "shop", "main")
    assert branch.rules == {"orders@replica": "shop_sharded.orders"}
    assert branch.default_keyspace == "shop"
    assert branch.credentials == CREDENTIALS
    assert {name: [s.name for s in k.shards] for name, k in branch.keyspaces.items()} == {
        "shop": ["-"],
        "shop_sharded": ["-80", "80-"],
    }
    assert [s.schema for s in branch.keyspaces["shop_sharded"].shards] == [
        "shop_sharded_-80",
        "shop_sharded_80-",
    ]
    assert branch.keyspaces["shop"].shards[0].schema == "shop"
    assert len(branch.keyspaces["shop"].shards[0].replicas) == 1
    account = snapshot.accounts[password.username]
    assert (account.role, account.cidrs, account.replica) == (BackendRole.READER, ("10.0.0.1/32",), True)
    assert account.expires_at == password.expires_at
    assert account.sha256_twice == hashlib.sha256(hashlib.sha256(plain.encode()).digest()).digest()
    assert account.sha1_twice == hashlib.sha1(hashlib.sha1(plain.encode()).digest()).digest()
    assert snapshot.version == branch.version == routing.version()


def test_every_change_of_what_gateways_see_grows_the_version(store: Store) -> None:
    shop, _, routing = routed(store)
    with store.write() as tx:
        password, _ = tx.passwords.create(shop.branch.id, ttl_seconds=60)
    versions = [routing.version()]
    changes: tuple[Callable[[Transaction], object], ...] = (
        lambda tx: tx.routes.replace_rules(shop.branch.id, {"a": "shop.a"}),
        lambda tx: tx.routes.move_rules(shop.branch.id, {"a": "shop.a"}, "run", [("shop", "a")]),
        lambda tx: tx.routes.forget_closing(shop.branch.id, "run"),
        lambda tx: tx.keyspaces.update(shop.source.id, vschema={"tables": {"a": {}}}),
        lambda tx: tx.keyspaces.create(shop.branch.id, "third"),
        lambda tx: tx.passwords.update(password, name="renamed"),
        lambda tx: tx.passwords.renew(password),
        lambda tx: tx.passwords.delete(password),
        lambda tx: tx.branches.update(shop.branch.id, name="trunk"),
        lambda tx: tx.databases.update(shop.database.id, name="store"),
        lambda tx: tx.branches.create(shop.database.id, "dev", shop.region.id),
    )
    for change in changes:
        with store.write() as tx:
            change(tx)
        versions.append(routing.version())
    assert versions == sorted(set(versions))


def test_rules_that_a_switch_moved_are_served_closed_until_it_says_so(store: Store) -> None:
    shop, _, routing = routed(store)
    before = {"a": "shop.a", "b": "shop.b", "gone": "shop.a"}
    after = {"a": "shop_sharded.a", "b": "shop.b", "new": "shop_sharded.a"}
    both = [("shop_sharded", "a"), ("shop", "a")]
    with store.write() as tx:
        tx.routes.replace_rules(shop.branch.id, before)
    with store.write() as tx:
        tx.routes.move_rules(shop.branch.id, after, "run", both)
    moved = routing.snapshot().branches[shop.branch.id]
    assert moved.rules == after
    assert moved.closing == Closing("run", frozenset(both), {"a": "shop.a", "gone": "shop.a", "new": ""})
    assert moved.without_closing() == replace(moved, rules=before, closing=None)
    with store.write() as tx:
        tx.routes.forget_closing(shop.branch.id, "another run")
    assert routing.snapshot().branches[shop.branch.id] == moved
    with store.write() as tx:
        tx.routes.forget_closing(shop.branch.id, "run")
    opened = routing.snapshot().branches[shop.branch.id]
    assert (opened.rules, opened.closing, opened.version) == (after, None, moved.version + 1)
    assert opened.without_closing() is opened


def test_only_changed_branches_are_read_again(store: Store) -> None:
    shop, addresses, routing = routed(store)
    with store.write() as tx:
        other = make_shop(tx, "other")
    first = routing.snapshot()
    assert set(first.branches) == {shop.branch.id, other.branch.id}
    addresses.asked.clear()
    assert routing.snapshot() == first
    assert addresses.asked == []
    with store.write() as tx:
        servers = {server.id for server in tx.servers.of_branch(other.branch.id)}
        tx.routes.replace_rules(other.branch.id, {"a": "other.a"})
    second = routing.snapshot()
    assert set(addresses.asked) <= servers
    assert second.branches[shop.branch.id] is first.branches[shop.branch.id]
    assert second.branches[other.branch.id].rules == {"a": "other.a"}
    assert second.version == first.version + 1


def test_what_is_not_ready_or_asked_away_is_not_served(store: Store) -> None:
    shop, _, routing = routed(store)
    with store.write() as tx:
        tx.keyspaces.create(shop.branch.id, "pending")
        password, _ = tx.passwords.create(shop.branch.id)
    assert "pending" not in routing.snapshot().branches[shop.branch.id].keyspaces
    with store.write() as tx:
        provision.delete_database(tx, tx.databases.get(shop.database.id))
    gone = routing.snapshot()
    assert gone.branches == {}
    assert password.username not in gone.accounts


def test_a_keyspace_with_an_unreachable_primary_is_left_out_whole(store: Store) -> None:
    shop, addresses, routing = routed(store)
    with store.write() as tx:
        lonely = tx.servers.create(shop.branch.id, Flavor.MYSQL)
        tx.keyspaces.place(tx.keyspaces.shards(shop.target.id)[1].id, lonely.id)
    addresses.unknown.add(lonely.id)
    assert set(routing.snapshot().branches[shop.branch.id].keyspaces) == {"shop"}
    addresses.unknown.clear()
    with store.write() as tx:
        tx.servers.transition(lonely.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))
    assert set(routing.snapshot().branches[shop.branch.id].keyspaces) == {"shop", "shop_sharded"}


def test_only_vitess_databases_have_a_vtgate_and_it_is_asked_for_anew(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
    found: dict[str, Endpoint | None] = {}

    def vtgate(branch_id: str) -> Endpoint | None:
        if branch_id not in found:
            raise NotFoundError
        return found[branch_id]

    routing = Routing(store, Addresses(), lambda _branch: CREDENTIALS, vtgate)
    assert routing.snapshot().branches[shop.branch.id].vtgate is None
    with store.write() as tx:
        tx.databases.update(shop.database.id, engine=EngineKind.VITESS)
    # It has none yet: nobody else serves its statements.
    for missing in ({}, {shop.branch.id: None}):
        found.clear()
        found.update(missing)
        absent = routing.snapshot().branches[shop.branch.id].vtgate
        assert absent is not None
        assert absent.vtgate
        assert (absent.port, absent.socket) == (0, "")
    for port in (4711, 4712):
        found[shop.branch.id] = Endpoint("", Flavor.MYSQL, "127.0.0.1", port, "", "", "")
        served = routing.snapshot().branches[shop.branch.id].vtgate
        assert served is not None
        assert (served.port, served.vtgate) == (port, True)
        assert served.server_id
