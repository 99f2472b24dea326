"""Asking for resources and asking them away, tokens and passwords, and the queue of what is left to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.errors import ConflictError, InvalidError, NotFoundError, UnauthorizedError
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.topology import BackendRole, Flavor
from homeworld.store import provision
from homeworld.store.guards import guards
from homeworld.store.pages import PageRequest
from homeworld.store.store import Store, Transaction
from tests.support.stores import Shop, TestClock, make_shop


def seeded(store: Store) -> Shop:
    with store.write() as tx:
        return make_shop(tx)


def test_a_database_comes_with_its_branch_and_keyspace(store: Store) -> None:
    provision.bootstrap(store, "acme", "local", "Local")
    provision.bootstrap(store, "acme", "local", "Local")
    with store.write() as tx:
        organization = tx.organizations.by_name("acme")
        database = provision.create_database(tx, organization.id, "shop", Flavor.MARIADB, replicas=1)
        branch = tx.branches.default(database.id)
        keyspace = tx.keyspaces.by_name(branch.id, "shop")
        assert (branch.name, branch.production, keyspace.replicas) == ("main", True, 1)
        assert {item.kind for item in tx.queue.resources_with_work()} == {"database", "branch", "keyspace"}
        assert tx.databases.totals([database.id])[database.id].default_branch == "main"


def test_a_branch_comes_with_its_parents_keyspaces_and_rules(store: Store) -> None:
    shop = seeded(store)
    with store.write() as tx:
        tx.keyspaces.update(shop.target.id, vschema={"sharded": True, "vindexes": {}, "tables": {"a": {}}})
        tx.routes.replace_rules(shop.branch.id, {"a": "shop_sharded.a"})
        child = provision.create_branch(tx, shop.database, "dev")
        copied = {k.name: (k.shard_count, k.is_default) for k in tx.keyspaces.of_branch(child.id)}
        assert copied == {"shop": (1, True), "shop_sharded": (2, False)}
        assert tx.keyspaces.by_name(child.id, "shop_sharded").vschema["tables"] == {"a": {}}
        assert tx.routes.rules(child.id) == {"a": "shop_sharded.a"}
        assert (child.production, child.parent_branch_id) == (False, shop.branch.id)


def test_asking_away_takes_everything_below_along_and_frees_the_name(store: Store) -> None:
    shop = seeded(store)
    with store.write() as tx:
        provision.create_branch(tx, shop.database, "dev")
        provision.delete_database(tx, shop.database)
        with pytest.raises(NotFoundError):
            tx.databases.by_name(shop.organization.id, "shop")
        states = {(item.kind, item.state) for item in tx.queue.resources_with_work()}
        assert states == {("database", "deleting"), ("branch", "deleting"), ("keyspace", "deleting")}
        tx.databases.create(shop.organization.id, "shop", shop.region.id, Flavor.MYSQL)


def test_a_keyspace_of_the_same_name_waits_for_the_old_ones_place(store: Store) -> None:
    shop = seeded(store)
    with store.write() as tx:
        provision.delete_keyspace(tx, shop.target)
        again = tx.keyspaces.create(shop.branch.id, shop.target.name, shards=2)
        shard = tx.keyspaces.shards(again.id)[0]
        server = next(s for s in tx.servers.of_branch(shop.branch.id) if s.replica_of is None)
    with pytest.raises(ConflictError), store.write() as tx:
        tx.keyspaces.place(shard.id, server.id)
    with store.write() as tx:
        tx.keyspaces.transition(shop.target.id, Life.DELETING, life_row(Life.DELETING, LifeTrigger.GONE))
        assert tx.keyspaces.place(shard.id, server.id).primary_server_id == server.id


def _work_on(tx: Transaction, shop: Shop) -> None:
    tx.workflows.create(shop.database.id, shop.branch.id, "w", shop.source.id, shop.target.id, ["orders"])


def _as_it_is(_tx: Transaction, _shop: Shop) -> None:
    """Nothing to prepare."""


Act = Callable[[Transaction, Shop], object]

REFUSALS: dict[str, tuple[Act, Act]] = {
    "a workflow needs the database": (_work_on, lambda tx, s: provision.delete_database(tx, s.database)),
    "a workflow needs the keyspace": (_work_on, lambda tx, s: provision.delete_keyspace(tx, s.target)),
    "the database is protected": (
        lambda tx, s: tx.databases.update(s.database.id, deletion_protected=True),
        lambda tx, s: provision.delete_database(tx, tx.databases.get(s.database.id)),
    ),
    "the branch is the default": (
        _as_it_is,
        lambda tx, s: provision.delete_branch(tx, s.branch),
    ),
    "the branch has children": (
        lambda tx, s: provision.create_branch(tx, s.database, "dev"),
        lambda tx, s: provision.delete_branch(tx, s.branch),
    ),
    "the keyspace is the default": (
        _as_it_is,
        lambda tx, s: provision.delete_keyspace(tx, s.source),
    ),
    "a rule leads to the keyspace": (
        lambda tx, s: tx.routes.replace_rules(s.branch.id, {"orders": "shop_sharded.orders"}),
        lambda tx, s: provision.delete_keyspace(tx, s.target),
    ),
    "the keyspace name is too long to be sharded": (
        _as_it_is,
        lambda tx, s: tx.keyspaces.create(s.branch.id, "k" * 62, shards=2),
    ),
    "a TTL is positive": (
        _as_it_is,
        lambda tx, s: tx.passwords.create(s.branch.id, ttl_seconds=0),
    ),
    "a CIDR is one": (
        _as_it_is,
        lambda tx, s: tx.passwords.create(s.branch.id, cidrs=["300.0.0.1/8"]),
    ),
    "a password is not the mover's": (
        _as_it_is,
        lambda tx, s: tx.passwords.create(s.branch.id, role=BackendRole.MOVER),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_refused_changes_nothing(sqlite_store: Store, case: str) -> None:
    prepare, ask = REFUSALS[case]
    shop = seeded(sqlite_store)
    with sqlite_store.write() as tx:
        prepare(tx, shop)
        before = tx.outbox.last()
    with pytest.raises(InvalidError), sqlite_store.write() as tx:
        ask(tx, shop)
    with sqlite_store.read() as tx:
        assert tx.outbox.last() == before


def test_descendants_go_along_when_asked(store: Store) -> None:
    shop = seeded(store)
    with store.write() as tx:
        child = provision.create_branch(tx, shop.database, "dev")
        provision.create_branch(tx, shop.database, "deeper", parent=child)
        with pytest.raises(InvalidError, match="deeper"):
            provision.delete_branch(tx, child)
        provision.delete_branch(tx, child, descendants=True)
        assert [branch.name for branch in tx.branches.of_database(shop.database.id)] == ["main"]


def test_the_queue_holds_a_workflow_until_it_is_settled(store: Store) -> None:
    shop = seeded(store)

    def queued() -> list[str]:
        with store.read() as tx:
            return [item.state for item in tx.queue.resources_with_work()]

    with store.write() as tx:
        made = tx.workflows.create(
            shop.database.id, shop.branch.id, "w", shop.source.id, shop.target.id, ["orders"]
        )
    assert queued() == ["pending"]
    for trigger in (Trigger.CANCEL, Trigger.DONE):
        with store.write() as tx:
            now = tx.workflows.get(made.id)
            row = MOVE_TABLES.take(now.state, trigger, guards(now))
            tx.workflows.transition(made.id, now.state, row)
    assert queued() == ["cancelled"]
    with store.write() as tx:
        tx.workflows.update(made.id, settled=True)
    assert queued() == []


def test_transitions_stamp_who_and_when(store: Store, clock: TestClock) -> None:
    shop = seeded(store)
    with store.write() as tx:
        ada = tx.actors.add("user", "Ada")
        made = tx.workflows.create(
            shop.database.id, shop.branch.id, "w", shop.source.id, shop.target.id, ["orders"]
        )
    clock.forward(60)
    with store.write() as tx:
        row = MOVE_TABLES.take(State.PENDING, Trigger.CANCEL, guards(made))
        moved = tx.workflows.transition(made.id, State.PENDING, row, actor_id=ada.id, why="changed my mind")
        last = tx.journal.transitions("workflow", made.id)[-1]
        event = tx.outbox.after(tx.outbox.last() - 1)[0]
    assert (moved.cancelled_by, moved.asked, moved.updated_at) == (ada.id, "cancel", clock.now())
    assert (last.actor_id, last.why, last.trigger, last.at) == (
        ada.id,
        "changed my mind",
        "cancel",
        clock.now(),
    )
    assert (event.event, event.payload["from"]) == ("workflow.cancelling", "pending")


def test_a_token_is_known_by_its_secret_until_it_ends(store: Store, clock: TestClock) -> None:
    shop = seeded(store)
    with store.write() as tx:
        token, secret = tx.tokens.create(shop.organization.id, "ci", ttl_seconds=3600)
        tx.tokens.grant(token.id, "organization", shop.organization.id, ["create_databases"])
        tx.tokens.grant(token.id, "database", shop.database.id, ["read_branch", "connect_branch"])
        tx.tokens.revoke(token.id, "database", shop.database.id, ["connect_branch"])
    assert len(token.id) == 12
    assert secret.startswith("pscale_tkn_")
    with store.read() as tx:
        bearer = tx.tokens.authenticate(token.id, secret)
        assert bearer.may(["create_databases"], shop.organization.id)
        assert bearer.may(["read_branch"], shop.organization.id, shop.database.id)
        assert not bearer.may(["read_branch"], shop.organization.id)
        assert not bearer.may(["connect_branch"], shop.organization.id, shop.database.id)
        assert not bearer.may(["create_databases"], "another-one")
        for wrong in ((token.id, "pscale_tkn_x"), ("0" * 12, secret), ("", ""), (token.id, "")):
            with pytest.raises(UnauthorizedError):
                tx.tokens.authenticate(*wrong)
        assert bearer.use_is_news(clock.now())
    with store.write() as tx:
        tx.tokens.note_use(token.id)
        assert not tx.tokens.authenticate(token.id, secret).use_is_news(clock.now())
    clock.forward(60)
    with store.write() as tx:
        assert tx.tokens.authenticate(token.id, secret).use_is_news(clock.now())
        endless, other = tx.tokens.create(shop.organization.id, None)
        tx.tokens.delete(shop.organization.id, endless.id)
        with pytest.raises(UnauthorizedError):
            tx.tokens.authenticate(endless.id, other)
    clock.forward(3600)
    with store.read() as tx, pytest.raises(UnauthorizedError):
        tx.tokens.authenticate(token.id, secret)


def test_no_secret_is_kept(sqlite_store: Store) -> None:
    shop = seeded(sqlite_store)
    with sqlite_store.write() as tx:
        _, secret = tx.tokens.create(shop.organization.id, "ci")
        _, plain = tx.passwords.create(shop.branch.id)
    path = sqlite_store.engine.url.database
    assert path is not None
    sqlite_store.close()
    kept = Path(path).read_bytes()
    assert secret.encode() not in kept
    assert plain.encode() not in kept


def test_a_password_is_renewed_while_it_lives(store: Store, clock: TestClock) -> None:
    shop = seeded(store)
    with store.write() as tx:
        password, _ = tx.passwords.create(shop.branch.id, ttl_seconds=60)
    clock.forward(30)
    with store.write() as tx:
        renewed = tx.passwords.renew(tx.passwords.get(shop.branch.id, password.id))
        assert renewed.expires_at is not None
        assert (renewed.expires_at - clock.now()).total_seconds() == 60
    clock.forward(61)
    with store.write() as tx:
        with pytest.raises(InvalidError, match="expired"):
            tx.passwords.renew(tx.passwords.get(shop.branch.id, password.id))
        forever, _ = tx.passwords.create(shop.branch.id)
        with pytest.raises(InvalidError, match="no ttl"):
            tx.passwords.renew(forever)
        tx.passwords.delete(forever)
        with pytest.raises(NotFoundError):
            tx.passwords.get(shop.branch.id, forever.id)


def test_pages_say_whether_more_follows(store: Store) -> None:
    shop = seeded(store)
    with store.write() as tx:
        for number in range(6):
            tx.branches.create(shop.database.id, f"b{number}", shop.region.id)
        first = tx.branches.page(shop.database.id, PageRequest(1, 3))
        last = tx.branches.page(shop.database.id, PageRequest(3, 3))
        beyond = tx.branches.page(shop.database.id, PageRequest(4, 3))
        found = tx.branches.page(shop.database.id, PageRequest(), q="B1")
        literal = tx.branches.page(shop.database.id, PageRequest(), q="%")
    assert ([b.name for b in first.items], first.has_next, first.total) == (["b0", "b1", "b2"], True, 7)
    assert ([b.name for b in last.items], last.has_next) == (["main"], False)
    assert (beyond.items, beyond.has_next) == ((), False)
    assert [b.name for b in found.items] == ["b1"]
    assert literal.items == ()


def test_the_queue_goes_by_kind_and_then_by_the_oldest_change(store: Store, clock: TestClock) -> None:
    """What something stands on comes before it, whatever is older: branches before keyspaces, these before
    the cluster that they join, all of them before workflows.
    """
    shop = seeded(store)
    with store.write() as tx:
        tx.workflows.create(shop.database.id, shop.branch.id, "w", shop.source.id, shop.target.id, ["orders"])
        tx.databases.update(shop.database.id, engine=EngineKind.VITESS)
    made: list[str] = []
    for name in ("one", "two", "three"):
        clock.forward(1)
        with store.write() as tx:
            made.append(
                provision.create_database(tx, shop.organization.id, name, Flavor.MYSQL, replicas=0).id
            )
    clock.forward(1)
    with store.write() as tx:
        tx.databases.update(made[0], name="one-more")
        found = [(item.kind, item.id) for item in tx.queue.resources_with_work()]
    kinds = [kind for kind, _ in found]
    assert kinds == ["database"] * 3 + ["branch"] * 3 + ["keyspace"] * 3 + ["cluster"] + ["workflow"]
    assert [id_ for kind, id_ in found if kind == "database"] == [made[1], made[2], made[0]]
