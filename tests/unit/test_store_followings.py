"""How far clusters follow, as stored: who has work, who is behind, who is known."""

from __future__ import annotations

from homeworld.model.engines import EngineKind
from homeworld.model.states.engine_changes import EngineTrigger
from homeworld.model.states.lifecycle import LifeTrigger, life_row
from homeworld.store.provision import delete_database
from homeworld.store.store import Store
from tests.support.stores import Shop, make_shop


def shop_on(store: Store, engine: EngineKind) -> Shop:
    with store.write() as tx:
        shop = make_shop(tx)
        tx.databases.update(shop.database.id, engine=engine)
    return shop


def work(store: Store) -> list[str]:
    with store.read() as tx:
        return [item.id for item in tx.queue.resources_with_work() if item.kind == "cluster"]


def behind(store: Store, shop: Shop) -> str | None:
    with store.read() as tx:
        return tx.followings.behind(shop.branch.id)


def test_a_branch_of_vitess_is_behind_until_its_cluster_has_the_newest_version(store: Store) -> None:
    shop = shop_on(store, EngineKind.VITESS)
    branch_id = shop.branch.id
    assert work(store) == [branch_id]
    assert behind(store, shop) == ""
    with store.write() as tx:
        tx.followings.stand(branch_id)
        tx.followings.tell(branch_id, "vtctld does not answer")
    assert behind(store, shop) == "vtctld does not answer"
    with store.write() as tx:
        tx.followings.have(branch_id, tx.followings.version(branch_id), "digest")
    assert (work(store), behind(store, shop)) == ([], None)
    with store.write() as tx:
        version = tx.followings.version(branch_id)
        tx.keyspaces.update(shop.target.id, vschema={"sharded": True})
        tx.followings.have(branch_id, version, "digest")  # what was read before is not what is stored
    assert (work(store), behind(store, shop)) == ([branch_id], "")


def test_a_local_branch_has_no_work(store: Store) -> None:
    shop = shop_on(store, EngineKind.LOCAL)
    assert (work(store), behind(store, shop)) == ([], None)
    with store.read() as tx:
        assert not tx.followings.serves(shop.branch.id)


def test_a_cluster_is_made_for_a_change_that_runs_and_ends_with_one_that_fails(store: Store) -> None:
    shop = shop_on(store, EngineKind.LOCAL)
    with store.write() as tx:
        change = tx.engine_changes.ask(shop.database.id, EngineKind.VITESS)
    assert work(store) == []
    with store.write() as tx:
        change = tx.engine_changes.transition(change.id, change.state, EngineTrigger.BEGIN)
    assert work(store) == [shop.branch.id]
    with store.write() as tx:
        assert not tx.followings.serves(shop.branch.id)
        tx.followings.stand(shop.branch.id)
        tx.followings.have(shop.branch.id, tx.followings.version(shop.branch.id), "digest")
    assert work(store) == []
    with store.write() as tx:
        tx.engine_changes.transition(change.id, change.state, EngineTrigger.FAIL, error="no")
    assert (work(store), behind(store, shop)) == ([shop.branch.id], "")
    with store.write() as tx:
        tx.followings.ended(shop.branch.id)
    assert (work(store), behind(store, shop)) == ([], None)


def test_a_deleted_branch_has_work_until_its_cluster_has_ended(store: Store) -> None:
    shop = shop_on(store, EngineKind.VITESS)
    with store.write() as tx:
        tx.followings.stand(shop.branch.id)
        delete_database(tx, tx.databases.get(shop.database.id))
    assert (work(store), behind(store, shop)) == ([shop.branch.id], "")
    with store.write() as tx:
        tx.followings.ended(shop.branch.id)
    assert (work(store), behind(store, shop)) == ([], None)
    with store.write() as tx:
        branch = tx.branches.get(shop.branch.id)
        tx.branches.transition(branch.id, branch.state, life_row(branch.state, LifeTrigger.GONE))
    assert work(store) == []


def test_what_a_doubted_cluster_has_nobody_knows_until_it_is_looked_at(store: Store) -> None:
    shop = shop_on(store, EngineKind.VITESS)
    branch_id = shop.branch.id
    with store.write() as tx:
        tx.followings.stand(branch_id)
        tx.followings.have(branch_id, tx.followings.version(branch_id), "digest")
        tx.followings.look_again(branch_id)
    with store.read() as tx:
        found = tx.followings.get(branch_id)
        assert (found.digest, tx.followings.known(branch_id)) == ("", True)
    assert work(store) == [branch_id]
    with store.write() as tx:
        tx.followings.doubt_all()
    with store.write() as tx:
        assert not tx.followings.known(branch_id)
        before = tx.followings.version(branch_id)
        tx.followings.have(branch_id, before, "digest")
        assert tx.followings.version(branch_id) > before
    assert (work(store), behind(store, shop)) == ([], None)


def test_a_keyspace_joins_once(store: Store) -> None:
    shop = shop_on(store, EngineKind.VITESS)
    with store.write() as tx:
        tx.followings.join(shop.branch.id, shop.target.id)
        version = tx.followings.version(shop.branch.id)
        tx.followings.join(shop.branch.id, shop.target.id)
        assert tx.followings.version(shop.branch.id) == version
        assert list(tx.followings.get(shop.branch.id).joining) == [shop.target.id]
