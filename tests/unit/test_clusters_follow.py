"""Clusters follow what is stored: before anybody is served, and after any death."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.errors import FencedError, InvalidError, UnavailableError
from homeworld.model.states.lifecycle import Life
from homeworld.model.vschema import parse
from homeworld.store.engine import SystemClock
from homeworld.store.keyspaces import Keyspace
from homeworld.store.provision import (
    bootstrap,
    create_branch,
    delete_branch,
    delete_database,
    delete_keyspace,
)
from homeworld.store.store import Store, Transaction
from homeworld.store.vschemas import judge_vschema, replace_vschema
from homeworld.workflows.clusters.following import await_followed, let_all_follow, let_follow
from homeworld.workflows.failover import promote
from homeworld.workflows.placements import altering
from tests.support.clusters import Platform, until
from tests.support.stores import SqliteStores, TestClock

WANTED: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}


@pytest.fixture
def platform(sqlite_stores: SqliteStores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with sqlite_stores.fresh(TestClock()) as made:
        store = Store(made.engine, SystemClock())
        bootstrap(store, "acme", "local", "Local")
        platform = Platform(store, monkeypatch)
        yield platform
        platform.clusters.gate.set()
        platform.stop()


def ready(platform: Platform) -> None:
    until(lambda: platform.database().state is Life.READY, "the database is ready")


def add_keyspace(platform: Platform) -> Keyspace:
    with platform.store.write() as tx:
        database = platform.database()
        return tx.keyspaces.create(platform.main().id, "wide", shards=2, replicas=database.replicas)


def keyspace_of(platform: Platform, keyspace_id: str) -> Keyspace:
    with platform.store.read() as tx:
        return tx.keyspaces.get(keyspace_id)


def keyspace_ready(platform: Platform, keyspace: Keyspace) -> None:
    until(lambda: keyspace_of(platform, keyspace.id).state is Life.READY, "the keyspace is ready")


def test_a_keyspace_is_served_once_the_cluster_has_it_and_dropped_once_it_has_it_no_more(
    platform: Platform,
) -> None:
    platform.make(replicas=1)
    with platform.works():
        ready(platform)
        wide = add_keyspace(platform)
        keyspace_ready(platform, wide)
        with platform.store.read() as tx:
            shards = tx.keyspaces.shards_of([k.id for k in tx.keyspaces.of_branch(platform.main().id)])
        # Whatever the installation's placement is, each shard has a primary and a replica of its own.
        assert len({shard.primary_server_id for shard in shards}) == len(shards) == 3
        spec = platform.clusters.specs[platform.main().id]
        assert [(one.name, one.sharded, len(one.shards)) for one in spec.keyspaces] == [
            ("shop", False, 1),
            ("wide", True, 2),
        ]
        assert all(len(shard.replica_server_ids) == 1 for one in spec.keyspaces for shard in one.shards)
        events = platform.events
        assert events.at("schema shop") < events.at("follow shop")
        assert events.at("schema wide_80-") < events.at("follow shop,wide")
        with platform.store.write() as tx:
            delete_keyspace(tx, tx.keyspaces.get(wide.id))
        until(lambda: keyspace_of(platform, wide.id).state is Life.DELETED, "it is gone")
    servers = [event for event in events.all() if event.startswith("destroy")]
    assert len(servers) == 4
    assert events.last("follow shop") < events.at(servers[0])
    assert events.last("follow shop") > events.at("follow shop,wide")


def test_nobody_is_told_of_a_keyspace_before_its_cluster_has_it(platform: Platform) -> None:
    platform.clusters.gate.clear()
    platform.make()
    with platform.works():
        until(lambda: platform.following().standing, "the cluster is being made")
        assert platform.database().state is Life.PENDING
        platform.clusters.gate.set()
        ready(platform)
    assert platform.following().followed > 0


def test_why_a_cluster_does_not_come_up_stands_beside_what_waits_for_it(platform: Platform) -> None:
    platform.clusters.down = True
    platform.make()
    with platform.works():
        until(lambda: "vtctld does not answer" in platform.database().error, "the reason is told")
        platform.clusters.down = False
        ready(platform)
    assert (platform.database().error, platform.following().error) == ("", "")


def test_a_branch_has_a_cluster_of_its_own_that_ends_before_its_servers(platform: Platform) -> None:
    database = platform.make()
    with platform.works():
        ready(platform)
        with platform.store.write() as tx:
            tx.routes.replace_rules(platform.main().id, {"t": "shop.t"})
            child = create_branch(tx, database, "dev")
        until(lambda: child.id in platform.clusters.specs, "the child has a cluster")
        # The rules that it has from its parent, too.
        until(lambda: platform.clusters.routing.get(child.id) == {"t": "shop.t"}, "the rules are there")
        with platform.store.read() as tx:
            theirs = {server.id for server in tx.servers.of_branch(child.id)}
        with platform.store.write() as tx:
            delete_branch(tx, tx.branches.get(child.id))
        until(lambda: not theirs & platform.servers.servers, "its servers are gone")
        assert platform.events.at(f"end {child.id}") < min(
            platform.events.at(f"destroy {server_id}") for server_id in theirs
        )
        assert not platform.following(child.id).standing
        main = platform.main()
        with platform.store.write() as tx:
            delete_database(tx, tx.databases.get(database.id))

        def gone() -> bool:
            with platform.store.read() as tx:
                return tx.databases.get(database.id).state is Life.DELETED

        until(gone, "the database is gone")
    assert platform.clusters.specs == {}
    assert platform.servers.servers == set()
    assert f"end {main.id}" in platform.events.all()


def test_a_local_database_has_no_cluster_and_waits_for_none(platform: Platform) -> None:
    platform.make(EngineKind.LOCAL)
    platform.clusters.down = True
    with platform.works():
        ready(platform)
    assert not platform.following().standing
    assert not [event for event in platform.events.all() if event.startswith("follow")]


# -- vschemas ------------------------------------------------------------------------------------------------


@pytest.fixture
def wide(platform: Platform) -> Iterator[tuple[Platform, Keyspace]]:
    """A platform that works, with a keyspace of two shards."""
    platform.make()
    with platform.works():
        ready(platform)
        made = add_keyspace(platform)
        keyspace_ready(platform, made)
        yield platform, made


def test_a_vschema_that_the_cluster_refuses_is_not_stored(wide: tuple[Platform, Keyspace]) -> None:
    platform, keyspace = wide
    platform.clusters.ignorant.add("xxhash")
    alter = altering(platform.store, platform.placements, platform.publish)
    wanted, base = parse(WANTED), parse(keyspace.vschema)
    with pytest.raises(InvalidError, match="vindexType 'xxhash' not found"):
        alter(keyspace.branch_id, "wide", wanted.to_json(), base.to_json())
    assert keyspace_of(platform, keyspace.id).vschema == keyspace.vschema
    assert platform.clusters.vschema(keyspace.branch_id, "wide") == keyspace.vschema


def test_a_vschema_is_the_clusters_before_the_gateways_hear_of_it(wide: tuple[Platform, Keyspace]) -> None:
    platform, keyspace = wide
    alter = altering(platform.store, platform.placements, platform.publish)
    began = len(platform.events.all())
    alter(keyspace.branch_id, "wide", parse(WANTED).to_json(), parse(keyspace.vschema).to_json())
    assert platform.clusters.vschema(keyspace.branch_id, "wide") == WANTED
    assert "follow shop,wide" in platform.events.all()[began:]


def test_a_vschema_that_was_stored_by_one_that_died_is_followed(wide: tuple[Platform, Keyspace]) -> None:
    platform, keyspace = wide

    def store_it(tx: Transaction) -> None:
        judged = judge_vschema(tx, tx.keyspaces.get(keyspace.id), parse(WANTED))
        replace_vschema(tx, tx.keyspaces.get(keyspace.id), judged)

    platform.stop()
    with platform.store.write() as tx:
        store_it(tx)
    assert platform.clusters.vschema(keyspace.branch_id, "wide") == keyspace.vschema
    platform.start()
    until(lambda: platform.clusters.vschema(keyspace.branch_id, "wide") == WANTED, "it is followed")


# -- rules ---------------------------------------------------------------------------------------------------


def test_rules_follow_unless_a_workflow_has_them(wide: tuple[Platform, Keyspace]) -> None:
    platform, keyspace = wide
    branch_id = keyspace.branch_id
    with platform.store.write() as tx:
        tx.routes.replace_rules(branch_id, {"a": "shop.a"})
    until(lambda: platform.clusters.routing.get(branch_id) == {"a": "shop.a"}, "they are applied")
    with platform.store.write() as tx:
        shop = tx.keyspaces.by_name(branch_id, "shop")
        tx.workflows.create(platform.database().id, branch_id, "move", shop.id, keyspace.id, ["orders"])
        version = tx.routes.replace_rules(branch_id, {"a": "wide.a"})
    await_followed(platform.store, branch_id)
    assert platform.following().followed >= version
    assert platform.clusters.routing[branch_id] == {"a": "shop.a"}


# -- deaths --------------------------------------------------------------------------------------------------


def test_who_lost_the_lease_leaves_a_cluster_that_is_looked_at_again(platform: Platform) -> None:
    platform.make()
    with platform.works():
        ready(platform)
    branch_id = platform.main().id
    with platform.store.write() as tx:
        tx.routes.bump(branch_id)
    known = platform.following()
    bound: list[int] = []

    def lose(_tx: Transaction) -> None:
        bound.append(1)
        if len(bound) > 1:
            raise FencedError("lost")

    with pytest.raises(FencedError):
        let_follow(platform.store, platform.clusters, branch_id, bind=lose)
    found = platform.following()
    assert (found.digest, found.standing) == ("", True)
    assert 0 < found.followed <= known.followed
    assert let_follow(platform.store, platform.clusters, branch_id)
    assert not let_follow(platform.store, platform.clusters, branch_id)


@pytest.mark.parametrize(("ends", "passes"), [(False, 1), (False, 2), (True, 0)])
def test_whoever_lets_a_cluster_follow_has_the_lease_looked_at_where_it_is_changed(
    platform: Platform, ends: bool, passes: int
) -> None:
    """What was read before a wait is not what is stored now: by then another one may have done that."""
    platform.make()
    with platform.works():
        ready(platform)
    branch_id = platform.main().id
    with platform.store.write() as tx:
        if ends:
            delete_database(tx, platform.database())
        else:
            tx.followings.look_again(branch_id)
    specs, events = dict(platform.clusters.specs), platform.events.all()
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) > passes:
            raise FencedError("lost")

    with pytest.raises(FencedError):
        let_follow(platform.store, platform.clusters, branch_id, check=check)
    assert platform.clusters.specs[branch_id] is specs[branch_id]
    assert platform.events.all() == events
    assert let_follow(platform.store, platform.clusters, branch_id)
    assert (branch_id in platform.clusters.specs) is not ends


def test_a_start_looks_at_every_cluster_and_goes_on_without_one_that_does_not_come_up(
    platform: Platform,
) -> None:
    platform.make()
    with platform.works():
        ready(platform)
    branch_id = platform.main().id
    platform.clusters.specs.clear()
    platform.clusters.down = True
    let_all_follow(platform.store, platform.clusters)
    with platform.store.read() as tx:
        assert not tx.followings.known(branch_id)
        assert tx.followings.behind(branch_id) == "vtctld does not answer"
    platform.clusters.down = False
    version = platform.routing.version()
    let_all_follow(platform.store, platform.clusters)
    assert branch_id in platform.clusters.specs
    with platform.store.read() as tx:
        assert tx.followings.known(branch_id)
        assert tx.followings.behind(branch_id) is None
    # Whoever serves nothing of the branch meanwhile hears that it is there again.
    assert platform.routing.version() > version


# -- promotions ----------------------------------------------------------------------------------------------


def test_a_promotion_is_the_clusters_before_the_gateways_hear_of_it(platform: Platform) -> None:
    platform.make(replicas=1)
    with platform.works():
        ready(platform)
        with platform.store.read() as tx:
            shard = tx.keyspaces.shards(tx.keyspaces.by_name(platform.main().id, "shop").id)[0]
        heir = shard.replica_server_ids[0]
        published: list[str] = []

        def publish() -> None:
            spec = platform.clusters.specs[platform.main().id]
            published.append(spec.keyspaces[0].shards[0].primary_server_id)

        platform.servers.schemas.add((heir, "shop"))  # a replica has its primary's
        promote(platform.store, platform.servers, publish, heir)
    assert published == [heir]


def test_who_waits_for_a_cluster_that_does_not_follow_is_told_why(platform: Platform) -> None:
    platform.make()
    with platform.works():
        ready(platform)
        platform.clusters.down = True
        with platform.store.write() as tx:
            tx.followings.look_again(platform.main().id)
        until(lambda: bool(platform.following().error), "the reason is told")
        with pytest.raises(UnavailableError, match="vtctld does not answer"):
            await_followed(platform.store, platform.main().id, 0.0)


@pytest.mark.parametrize("moment", ["before it stands", "before it is written down"])
def test_who_asks_to_look_again_while_a_cluster_follows_is_heard(platform: Platform, moment: str) -> None:
    platform.make()
    with platform.works():
        ready(platform)
    main = platform.main().id
    with platform.store.write() as tx:
        tx.routes.bump(main)  # something is stored that leaves the spec as it is
    bound = 0

    def bind(tx: Transaction) -> None:
        # Within the transaction that comes next, in the place of another one before it.
        nonlocal bound
        bound += 1
        if bound == (1 if moment == "before it stands" else 2):
            tx.followings.look_again(main)

    followed = platform.events.all().count("follow shop")
    assert let_follow(platform.store, platform.clusters, main, bind=bind)
    with platform.store.read() as tx:
        assert tx.followings.behind(main) is not None, "what was asked for is forgotten"
    assert platform.events.all().count("follow shop") == followed
    assert let_follow(platform.store, platform.clusters, main)
    with platform.store.read() as tx:
        assert tx.followings.behind(main) is None
    assert platform.events.all().count("follow shop") == followed + 1
