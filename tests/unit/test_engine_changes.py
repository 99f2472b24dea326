"""A running database is taken into Vitess: what is looked at before, what is held, and who may die where."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.states.engine_changes import EngineChange
from homeworld.model.states.lifecycle import Life
from homeworld.store.engine import SystemClock
from homeworld.store.engine_changes import EngineChangeRecord
from homeworld.store.provision import bootstrap, create_branch
from homeworld.store.store import Store
from homeworld.workflows.engine_changes.context import Context
from homeworld.workflows.engine_changes.handler import EngineChanges
from homeworld.workflows.engine_changes.looking import Content, hindrances
from homeworld.workflows.engine_changes.plans import COMMIT, plan
from homeworld.workflows.leases import Lease
from homeworld.workflows.steps import Plan, Step
from tests.support.clusters import Platform, until
from tests.support.stores import SqliteStores, TestClock

WIDE: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}


class DiedError(BaseException):
    """The executor's process is killed here."""


@pytest.fixture
def platform(sqlite_stores: SqliteStores, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A local database with a second branch, all of it ready."""
    with sqlite_stores.fresh(TestClock()) as made:
        store = Store(made.engine, SystemClock())
        bootstrap(store, "acme", "local", "Local")
        platform = Platform(store, monkeypatch)
        database = platform.make(EngineKind.LOCAL)
        with platform.works():
            until(lambda: platform.database().state is Life.READY, "the database is ready")
            with store.write() as tx:
                dev = create_branch(tx, database, "dev")

            def made_ready() -> bool:
                with store.read() as tx:
                    return tx.branches.get(dev.id).state is Life.READY

            until(made_ready, "the branch is ready")
        yield platform
        platform.stop()


def ask(platform: Platform) -> str:
    with platform.store.write() as tx:
        return tx.engine_changes.ask(platform.database().id, EngineKind.VITESS).id


def record(platform: Platform, change_id: str) -> EngineChangeRecord:
    with platform.store.read() as tx:
        return tx.engine_changes.get(change_id)


def over(platform: Platform, change_id: str) -> EngineChangeRecord:
    until(
        lambda: record(platform, change_id).state in (EngineChange.COMPLETED, EngineChange.FAILED), "its end"
    )
    return record(platform, change_id)


def branches(platform: Platform) -> list[str]:
    with platform.store.read() as tx:
        return [branch.id for branch in tx.branches.of_database(platform.database().id)]


def test_every_branch_has_a_cluster_before_the_database_is_taken_over_under_a_hold(
    platform: Platform,
) -> None:
    platform.sight.has["shop"] = Content(("orders", "lines"), ("seen",))
    with platform.store.write() as tx:
        tx.routes.replace_rules(platform.main().id, {"x": "shop.orders"})
    change_id = ask(platform)
    with platform.works():
        found = over(platform, change_id)
    assert (found.state, found.error) == (EngineChange.COMPLETED, "")
    assert platform.database().engine is EngineKind.VITESS
    assert sorted(platform.clusters.specs) == sorted(branches(platform))
    assert platform.clusters.routing[platform.main().id] == {"x": "shop.orders"}
    assert platform.sight.asked == [("shop", ("orders", "lines", "seen"))] * 2
    events = platform.events.all()
    held = [at for at, event in enumerate(events) if event == "hold"]
    released = [at for at, event in enumerate(events) if event == "release"]
    assert (len(held), len(released)) == (2, 2)
    assert "publish" in events[held[-1] : released[0]]
    assert max(at for at, event in enumerate(events[: held[0]]) if event == "follow shop") < held[0]
    assert platform.gateways.holds == {}


def test_what_vitess_could_not_serve_is_told_all_together_and_clusters_end(platform: Platform) -> None:
    platform.sight.has["shop"] = Content(("orders", "_vt_hld_1"))
    change_id = ask(platform)
    with platform.works():
        found = over(platform, change_id)
        assert found.state is EngineChange.FAILED
        assert "names that begin with _vt_ are Vitess's own; rename _vt_hld_1" in found.error
        until(lambda: platform.clusters.specs == {}, "no cluster is left")
        until(lambda: not platform.following().standing, "and nobody believes that one is")
    assert platform.database().engine is EngineKind.LOCAL


def test_a_table_that_vtgate_does_not_serve_keeps_the_database_local(platform: Platform) -> None:
    platform.sight.has["shop"] = Content(("orders",))
    platform.sight.wrong["orders"] = "table orders not found"
    change_id = ask(platform)
    with platform.works():
        until(lambda: "vtgate does not serve" in record(platform, change_id).error, "the reason is told")
        assert "shop.orders: table orders not found" in record(platform, change_id).error
        assert platform.database().engine is EngineKind.LOCAL
        platform.sight.wrong.clear()
        assert over(platform, change_id).state is EngineChange.COMPLETED


def test_it_waits_for_what_is_at_work_also_where_that_began_at_the_last_moment(platform: Platform) -> None:
    def busy(context: Context) -> None:
        with platform.store.write() as tx:
            if not tx.workflows.active_on([platform.main().id]):
                shop = tx.keyspaces.by_name(platform.main().id, "shop")
                other = tx.keyspaces.by_name(platform.main().id, "other")
                tx.workflows.create(
                    context.database.id, platform.main().id, "m", shop.id, other.id, ["orders"]
                )

    with platform.works():
        with platform.store.write() as tx:
            other = tx.keyspaces.create(platform.main().id, "other")

        def made() -> bool:
            with platform.store.read() as tx:
                return tx.keyspaces.get(other.id).state is Life.READY

        until(made, "the keyspace is ready")
    change_id = ask(platform)
    platform.start([EngineChanges(platform.changing, _with(plan(), COMMIT, before=busy))])
    until(lambda: "is not over" in record(platform, change_id).error, "it says what it waits for")
    assert platform.database().engine is EngineKind.LOCAL
    until(lambda: platform.gateways.holds == {}, "nobody waits meanwhile")
    platform.stop()


def test_transactions_that_do_not_end_are_let_go_and_tried_again(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homeworld.workflows.engine_changes.plans.BETWEEN_SECONDS", 0.01)
    platform.gateways.stuck = True
    change_id = ask(platform)
    with platform.works():
        until(lambda: "did not end in time" in record(platform, change_id).error, "the reason is told")
        assert platform.gateways.holds == {}
        platform.gateways.stuck = False
        assert over(platform, change_id).state is EngineChange.COMPLETED


def _with(steps: Plan[Context], name: str, *, before: Any = None, after: Any = None) -> Plan[Context]:
    """The plan with something that happens around a step."""

    def around(step: Step[Context]) -> Step[Context]:
        def perform(context: Context) -> None:
            if before is not None:
                before(context)
            step.perform(context)
            if after is not None:
                after(context)

        return replace(step, perform=perform)

    return replace(steps, steps=tuple(around(one) if one.name == name else one for one in steps.steps))


class Acting:
    """An executor's process that handles one change, until it is killed."""

    def __init__(self, platform: Platform, change_id: str, steps: Plan[Context]) -> None:
        self.platform = platform
        self.change_id = change_id
        self.handler = EngineChanges(platform.changing, steps)

    def run(self) -> bool:
        """Until it is killed or the change is over; whether it was killed."""
        resource = f"engine_change:{self.change_id}"
        with self.platform.store.write() as tx:
            token = tx.leases.acquire(resource, "acting", 600.0)
        assert token is not None
        lease = Lease(resource, token, time.monotonic() + 600.0)
        states = (EngineChange.PENDING, EngineChange.RUNNING)
        try:
            while record(self.platform, self.change_id).state in states:
                rest = self.handler.tick(self.change_id, lease)
                time.sleep(rest.seconds / 10 if rest else 0.0)
        except DiedError:
            return True
        return False


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("name", [step.name for step in plan().steps])
def test_whoever_goes_on_after_a_death_brings_it_to_its_end(platform: Platform, name: str, when: str) -> None:
    def die(_context: Context) -> None:
        raise DiedError

    steps = [step.name for step in plan().steps]
    committed = steps.index(name) + (when == "after") > steps.index(COMMIT)
    change_id = ask(platform)
    platform.start([])
    assert Acting(platform, change_id, _with(plan(), name, **{when: die})).run()
    assert (platform.database().engine is EngineKind.VITESS) == committed
    assert not Acting(platform, change_id, plan()).run()
    found = record(platform, change_id)
    assert (found.state, found.error) == (EngineChange.COMPLETED, "")
    assert platform.database().engine is EngineKind.VITESS
    assert platform.gateways.holds == {}
    served = platform.gateways.served
    assert served is not None
    assert all(branch_id in served.branches for branch_id in branches(platform))


def test_what_hinders_is_said_of_sharded_keyspaces_only_where_it_hinders() -> None:
    content = Content(("orders", "strange"), ("seen",), (("fires", "orders"),))
    found = hindrances("main", "wide", WIDE, [content, content])
    assert len(found) == 3
    assert "no entry for strange" in found[0]
    assert "no triggers in sharded keyspaces; drop fires (on orders)" in found[1]
    assert "drop seen" in found[2]
    assert hindrances("main", "shop", {"tables": {}}, [content]) == []
    assert hindrances("main", "wide", WIDE, [Content(("orders",))], ["a", "b"]) == []
    (shared,) = hindrances("main", "wide", WIDE, [Content(("orders",))], ["a", "a"])
    assert "its shards share a server" in shared
