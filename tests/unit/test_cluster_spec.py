"""What a branch's cluster has to be, from its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeworld.model.states.lifecycle import Life
from homeworld.store.store import Store
from homeworld.workflows.clusters.spec import cluster_spec, rules_digest, spec_digest
from tests.support.stores import Shop, make_shop


@pytest.fixture
def shop(sqlite_store: Store) -> Shop:
    with sqlite_store.write() as tx:
        return make_shop(tx)


def test_it_has_every_ready_keyspace_with_its_servers(sqlite_store: Store, shop: Shop) -> None:
    with sqlite_store.read() as tx:
        keyspaces = tx.keyspaces.of_branch(shop.branch.id)
        shards = tx.keyspaces.shards_of([one.id for one in keyspaces])
        primary, replica = tx.servers.of_branch(shop.branch.id)
    spec = cluster_spec(shop.branch, keyspaces, shards)
    assert [(one.name, one.sharded, [shard.name for shard in one.shards]) for one in spec.keyspaces] == [
        ("shop", False, ["-"]),
        ("shop_sharded", True, ["-80", "80-"]),
    ]
    for keyspace in spec.keyspaces:
        for shard in keyspace.shards:
            assert {shard.primary_server_id, *shard.replica_server_ids} == {primary.id, replica.id}
    assert spec_digest(spec) == spec_digest(cluster_spec(shop.branch, keyspaces[::-1], shards))


def test_it_has_a_pending_keyspace_once_that_joined_and_none_that_is_asked_away(
    sqlite_store: Store, shop: Shop
) -> None:
    with sqlite_store.read() as tx:
        shards = tx.keyspaces.shards(shop.target.id)
    pending = replace(shop.target, state=Life.PENDING)
    assert cluster_spec(shop.branch, [pending], shards).keyspaces == ()
    joined = cluster_spec(shop.branch, [pending], shards, {pending.id})
    assert [one.name for one in joined.keyspaces] == ["shop_sharded"]
    deleting = replace(shop.target, state=Life.DELETING)
    assert cluster_spec(shop.branch, [deleting], shards, {deleting.id}).keyspaces == ()


def test_it_has_no_keyspace_of_which_a_shard_has_no_place(sqlite_store: Store, shop: Shop) -> None:
    with sqlite_store.read() as tx:
        one, other = tx.keyspaces.shards(shop.target.id)
    unplaced = replace(other, primary_server_id=None)
    assert cluster_spec(shop.branch, [shop.target], [one, unplaced]).keyspaces == ()


def test_whatever_differs_is_told_apart(sqlite_store: Store, shop: Shop) -> None:
    with sqlite_store.read() as tx:
        shards = tx.keyspaces.shards(shop.target.id)
    known = spec_digest(cluster_spec(shop.branch, [shop.target], shards))
    other = replace(shop.target, vschema={"sharded": True, "vindexes": {"x": {"type": "xxhash"}}})
    swapped = [replace(shards[0], primary_server_id="another"), shards[1]]
    assert spec_digest(cluster_spec(shop.branch, [other], shards)) != known
    assert spec_digest(cluster_spec(shop.branch, [shop.target], swapped)) != known
    assert rules_digest({"a": "k.a"}) != rules_digest({"a": "k.b"})
    assert rules_digest({"a": "k.a", "b": "k.b"}) == rules_digest({"b": "k.b", "a": "k.a"})
