"""Sizes and resizes through the API: what is taken, what is refused, what is told while it goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import event

from homeworld.model.maintenance import Rhythm, Unit
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.resizing import Resize, ResizeTrigger, resize_row
from homeworld.model.topology import Endpoint, Flavor
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.workflows.leases import Keeper
from homeworld.workflows.provisioning.ports import Ports
from homeworld.workflows.resizing.keyspaces import KeyspaceResizes
from tests.support.api import ServedApi, client_of
from tests.support.desk import BRANCH, DB, ORG, Desk, open_desk, refused
from tests.support.stores import TestClock

KEYSPACE = f"{BRANCH}/keyspaces/shop"
RESIZES = f"{KEYSPACE}/resizes"


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def advance(desk: Desk, resize_id: str, *triggers: ResizeTrigger) -> None:
    """As the executor does."""
    for trigger in triggers:
        with desk.store.write() as tx:
            resize = tx.resizes.get(resize_id)
            tx.resizes.transition(resize_id, resize.state, resize_row(resize.state, trigger))


def test_sizes_are_told_as_this_host_gives_them(desk: Desk) -> None:
    sizes = desk.http.get(f"{ORG}/cluster-size-skus").json()
    by_name = {size["name"]: size for size in sizes}
    assert sizes[0]["name"] == "homeworld"
    assert (by_name["PS_10"]["cpu"], by_name["PS_10"]["ram"]) == ("1", 1024**3)
    assert by_name["PS_2560"]["ram"] == 4 * 1024**3, "half of what the host has"
    assert by_name["PS_2560"]["cpu"] == "2"
    assert {size["rate"] for size in sizes} == {None}
    rated = desk.http.get(f"{ORG}/cluster-size-skus?rates=true&region=local&database=shop").json()
    assert {size["rate"] for size in rated} == {0}
    assert desk.http.get(f"{ORG}/cluster-size-skus?rates=true&postgresql=true").json() == []
    assert refused(desk.http.get(f"{ORG}/cluster-size-skus?region=moon")) == (422, "unprocessable")
    assert refused(desk.http.get(f"{ORG}/cluster-size-skus?database=none")) == (404, "not_found")
    assert desk.http.get(f"{BRANCH}/cluster-size-skus?rates=true").json() == rated


def test_a_resize_is_asked_for_changed_begun_and_done(desk: Desk) -> None:
    assert desk.http.get(RESIZES).json()["data"] == []
    asked = desk.http.put(RESIZES, json={"cluster_size": "PS-20"})
    made = asked.json()
    assert (asked.status_code, made["state"], made["started_at"]) == (200, "pending", None)
    assert (made["cluster_name"], made["cluster_display_name"]) == ("PS_20", "PS-20")
    assert made["actor"]["display_name"] == "tests"
    changed = desk.http.put(RESIZES, json={"extra_replicas": 2}).json()
    assert (changed["id"], changed["cluster_name"], changed["extra_replicas"]) == (made["id"], "PS_20", 2)
    assert (changed["replicas"], changed["previous_replicas"]) == (2, 0)
    told = desk.http.get(KEYSPACE).json()
    assert (told["resizing"], told["resize_in_progress"], told["resize_pending"]) == (False, True, True)
    assert told["replicas"] == 0, "not before it is so"
    assert desk.http.get(DB).json()["resize_queued"] is True
    advance(desk, made["id"], ResizeTrigger.BEGIN)
    told = desk.http.get(KEYSPACE).json()
    assert (told["resizing"], told["resize_in_progress"], told["resize_pending"]) == (True, True, False)
    assert (desk.http.get(DB).json()["resizing"], desk.http.get(DB).json()["resize_queued"]) == (True, False)
    assert refused(desk.http.delete(RESIZES)) == (422, "unprocessable")
    desk.clock.forward(1)
    following = desk.http.put(RESIZES, json={"extra_replicas": 1}).json()
    assert (following["state"], following["previous_replicas"]) == ("queued", 2)
    assert following["cluster_name"] == "PS_20"
    desk.clock.forward(60)
    advance(desk, made["id"], ResizeTrigger.DONE)
    done = desk.http.get(f"{RESIZES}/{made['id']}").json()
    assert (done["state"], done["completed_at"] is not None) == ("completed", True)
    listed = desk.http.get(RESIZES).json()["data"]
    assert [one["state"] for one in listed] == ["queued", "completed"]
    assert desk.http.delete(RESIZES).status_code == 204
    assert desk.http.get(RESIZES).json()["data"][0]["state"] == "canceled"
    assert refused(desk.http.delete(RESIZES)) == (422, "unprocessable")
    period = "2026-03-01T:00:00:00Z..2026-03-02T00:00:00Z"
    found = desk.http.get(RESIZES, params={"completed_at": period}).json()["data"]
    assert [one["id"] for one in found] == [made["id"]]
    assert desk.http.get(RESIZES, params={"completed_at": "2026-04-01..2026-05-01"}).json()["data"] == []
    assert refused(desk.http.get(RESIZES, params={"completed_at": "now"})) == (422, "unprocessable")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "unprocessable"),
        ({"cluster_size": None}, "unprocessable"),
        ({"cluster_size": "PS_7"}, "unprocessable"),
        ({"cluster_size": 7}, "invalid_params"),
        ({"cluster_size": "x" * 1_000_000}, "invalid_params"),
        ({"extra_replicas": -1}, "invalid_params"),
        ({"extra_replicas": 10**30}, "invalid_params"),
        ({"extra_replicas": "many"}, "invalid_params"),
        ({"extra_replicas": 1, "vector_pool_allocation": 30}, "unprocessable"),
    ],
)
def test_a_resize_that_cannot_be_is_refused(desk: Desk, body: dict[str, Any], code: str) -> None:
    assert refused(desk.http.put(RESIZES, json=body)) == (422, code)
    assert desk.http.get(RESIZES).json()["data"] == []


def test_a_resize_belongs_to_its_keyspace(desk: Desk) -> None:
    made = desk.http.put(RESIZES, json={"extra_replicas": 1}).json()
    other = f"{BRANCH}/keyspaces/shop_sharded/resizes/{made['id']}"
    assert refused(desk.http.get(other)) == (404, "not_found")
    assert refused(desk.http.get(f"{RESIZES}/nothing")) == (404, "not_found")
    assert refused(desk.http.put(f"{BRANCH}/keyspaces/none/resizes", json={})) == (404, "not_found")


def test_a_keyspaces_rollout_is_told_by_shard(desk: Desk) -> None:
    at = f"{BRANCH}/keyspaces/shop_sharded/rollout-status"
    told = desk.http.get(at).json()
    assert (told["name"], told["state"]) == ("shop_sharded", "complete")
    assert [(one["name"], one["state"]) for one in told["shards"]] == [
        ("-80", "complete"),
        ("80-", "complete"),
    ]
    assert all(one["last_rollout_started_at"] and one["last_rollout_finished_at"] for one in told["shards"])
    with desk.store.write() as tx:
        first, second = tx.keyspaces.shards(desk.shop.target.id)
        tx.resizes.roll_out(first.id, "pending")
        tx.resizes.roll_out(second.id, "pending")
    assert desk.http.get(at).json()["state"] == "pending"
    desk.clock.forward(10)
    with desk.store.write() as tx:
        tx.resizes.roll_out(first.id, "in_progress")
    told = desk.http.get(at).json()
    assert (told["state"], told["shards"][0]["state"]) == ("in_progress", "in_progress")
    assert told["shards"][0]["last_rollout_started_at"] > told["shards"][1]["last_rollout_started_at"]
    with desk.store.write() as tx:
        for shard in (first, second):
            tx.resizes.roll_out(shard.id, "complete")
    assert desk.http.get(at).json()["state"] == "complete"


def test_another_size_for_a_branch_takes_along_what_has_its_size(desk: Desk) -> None:
    with desk.store.write() as tx:
        tx.keyspaces.update(desk.shop.target.id, cluster_size="PS_160")
    at = f"{BRANCH}/cluster"
    answer = desk.http.patch(at, json={"cluster_size": "PS_20"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert desk.http.get(BRANCH).json()["cluster_name"] == "PS_20"
    assert desk.http.get(RESIZES).json()["data"][0]["cluster_name"] == "PS_20"
    assert desk.http.get(f"{BRANCH}/keyspaces/shop_sharded/resizes").json()["data"] == []
    assert refused(desk.http.patch(at, json={"cluster_size": "PS_7"})) == (422, "unprocessable")
    assert refused(desk.http.patch(at, json={})) == (422, "invalid_params")


def test_sizes_that_were_asked_for_count_before_they_are_there(desk: Desk) -> None:
    at, other = f"{BRANCH}/cluster", f"{BRANCH}/keyspaces/shop_sharded/resizes"
    assert desk.http.patch(at, json={"cluster_size": "PS_10"}).status_code == 204
    desk.clock.forward(1)
    assert desk.http.patch(at, json={"cluster_size": "PS_20"}).status_code == 204
    assert [one["cluster_name"] for one in desk.http.get(RESIZES).json()["data"]] == ["PS_20"]
    assert [one["cluster_name"] for one in desk.http.get(other).json()["data"]] == ["PS_20"]


def test_a_size_that_is_taken_back_is_the_branchs_no_more(desk: Desk) -> None:
    before = desk.http.get(BRANCH).json()["cluster_name"]
    desk.http.patch(f"{BRANCH}/cluster", json={"cluster_size": "PS_20"})
    assert desk.http.delete(RESIZES).status_code == 204
    assert desk.http.get(BRANCH).json()["cluster_name"] == before
    desk.http.patch(f"{BRANCH}/cluster", json={"cluster_size": "PS_20"})
    (begun,) = [one for one in desk.http.get(RESIZES).json()["data"] if one["state"] != "canceled"]
    advance(desk, begun["id"], *[ResizeTrigger.ADMIT] * (begun["state"] == "queued"), ResizeTrigger.BEGIN)
    desk.clock.forward(1)
    desk.http.patch(f"{BRANCH}/cluster", json={"cluster_size": "PS_40"})
    assert desk.http.delete(RESIZES).status_code == 204
    assert desk.http.get(BRANCH).json()["cluster_name"] == "PS_20", "what has begun goes on"


def test_a_resize_that_is_given_up_leaves_no_rollout_open(desk: Desk) -> None:
    made = desk.http.put(RESIZES, json={"extra_replicas": 1}).json()
    advance(desk, made["id"], ResizeTrigger.BEGIN)
    with desk.store.write() as tx:
        (shard,) = tx.keyspaces.shards(desk.shop.source.id)
        tx.resizes.roll_out(shard.id, "pending")
    assert desk.http.get(f"{KEYSPACE}/rollout-status").json()["state"] == "pending"
    advance(desk, made["id"], ResizeTrigger.GONE)
    assert desk.http.get(f"{KEYSPACE}/rollout-status").json()["state"] == "complete"


def test_a_resize_waits_for_an_open_maintenance_window(desk: Desk) -> None:
    made = desk.http.put(RESIZES, json={"extra_replicas": 1}).json()
    with desk.store.write() as tx:
        rhythm = Rhythm(Unit.DAY, 1, 7, 0, 0, tx.work.now.date())
        window = tx.maintenance.open(tx.maintenance.create(desk.shop.database.id, rhythm=rhythm))
    engine = cast("Any", None)  # nothing is asked of servers before it begins
    handler = KeyspaceResizes(Ports(desk.store, engine, lambda: None, engine), engine)
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take(f"resize:{made['id']}")
    assert lease is not None
    handler.tick(made["id"], lease)
    told = desk.http.get(f"{RESIZES}/{made['id']}").json()
    assert told["state"] == "pending"
    assert "maintenance window, which ends at 2026-03-01T13:00:00+00:00" in told["error"]
    with desk.store.write() as tx:
        tx.maintenance.finish(window)
    handler.tick(made["id"], lease)
    told = desk.http.get(f"{RESIZES}/{made['id']}").json()
    assert (told["state"], told["error"]) == ("resizing", "")


def test_gateways_have_sizes_and_a_number_that_is_not_asked_for(desk: Desk) -> None:
    at = f"{BRANCH}/resizes"
    told = desk.http.get(BRANCH).json()
    assert (told["vtgate_size"], told["vtgate_count"], told["vtgate_autoscaling"]) == ("homeworld", 1, False)
    assert desk.http.put(at, json={"vtgate_size": "homeworld"}).status_code == 204
    assert desk.http.put(at, json={"vtgate_count": 1}).status_code == 204
    made = desk.http.put(at, json={"vtgate_size": "VTG-10", "vtgate_autoscaling": False}).json()
    assert (made["state"], made["vtgate_size"], made["previous_vtgate_size"]) == (
        "pending",
        "VTG_10",
        "homeworld",
    )
    assert desk.http.put(at, json={"vtgate_size": "VTG_5"}).json()["id"] == made["id"]
    assert desk.http.get(f"{at}/{made['id']}").json()["vtgate_name"] == "VTG_5"
    assert [one["id"] for one in desk.http.get(at).json()["data"]] == [made["id"]]
    assert desk.http.delete(at).status_code == 204
    assert desk.http.get(at).json()["data"][0]["state"] == "canceled"
    assert refused(desk.http.delete(at)) == (422, "unprocessable")
    for wrong in (
        {"vtgate_size": "VTG_7"},
        {"vtgate_count": 3},
        {"vtgate_autoscaling": True},
        {"vtgate_max_count": 8},
        {"vtgate_target_cpu_utilization": 50},
    ):
        assert refused(desk.http.put(at, json=wrong)) == (422, "unprocessable"), wrong
    assert refused(desk.http.put(at, json={"vtgate_count": -1})) == (422, "invalid_params")


def test_gateways_are_told_how_many_clients_they_take(desk: Desk) -> None:
    def endpoint(server_id: str) -> Endpoint:
        return Endpoint(server_id, Flavor.MYSQL, "127.0.0.1", 1, "", "u", "p")

    routing = Routing(desk.store, endpoint, lambda _branch_id: {})
    assert routing.snapshot().branches[desk.shop.branch.id].most_clients == 0
    with desk.store.write() as tx:
        tx.branches.update(desk.shop.branch.id, gateway_size="VTG_5")
    assert routing.snapshot().branches[desk.shop.branch.id].most_clients == 1000


def test_replicas_elsewhere_are_refused_where_there_is_one_place(desk: Desk) -> None:
    at = f"{KEYSPACE}/read-only-regions"
    assert desk.http.put(at, json={"read_only_regions": []}).json() == []
    assert desk.http.get(f"{KEYSPACE}?full=true").json()["read_only_regions"] == []
    for region in ("local", "moon"):
        body = {"read_only_regions": [{"region": region, "cluster_size": "PS_10", "replicas": 1}]}
        assert refused(desk.http.put(at, json=body)) == (422, "unprocessable")
    assert refused(desk.http.put(at, json={})) == (422, "invalid_params")


def test_what_only_other_databases_have_is_refused(desk: Desk) -> None:
    for extra in ({"major_version": "17"}, {"storage": {"minimum_storage_bytes": 1}}):
        body = {"name": "new", "cluster_size": "PS_10", **extra}
        assert refused(desk.http.post(f"{ORG}/databases", json=body)) == (422, "unprocessable")
        assert refused(desk.http.post(f"{DB}/branches", json={"name": "n", **extra})) == (
            422,
            "unprocessable",
        )
    sizes = {"keyspace_cluster_sizes": [{"keyspace_name": "shop", "cluster_size": "PS_40"}]}
    assert refused(desk.http.post(f"{DB}/branches", json={"name": "n", **sizes})) == (422, "unprocessable")
    body = {"name": "new", "cluster_size": "PS_10", "storage": {"minimum_storage_bytes": None}}
    assert desk.http.post(f"{ORG}/databases", json=body).status_code == 201


def test_branches_stay_in_their_databases_region_where_that_is_asked(desk: Desk) -> None:
    with desk.store.write() as tx:
        tx.regions.ensure("moon", display_name="Moon", provider="H", location="Moon", current_default=False)
    desk.http.patch(DB, json={"restrict_branch_region": True})
    body = {"name": "there", "region": "moon"}
    assert refused(desk.http.post(f"{DB}/branches", json=body)) == (422, "unprocessable")
    assert desk.http.post(f"{DB}/branches", json={**body, "region": "local"}).status_code == 201
    desk.http.patch(DB, json={"restrict_branch_region": False})
    assert desk.http.post(f"{DB}/branches", json={**body, "name": "moon"}).json()["region"]["slug"] == "moon"


def test_branches_are_filtered_and_ordered(desk: Desk) -> None:
    for name in ("zz", "aa"):
        desk.clock.forward(1)
        desk.http.post(f"{DB}/branches", json={"name": name})

    def names(query: str) -> list[str]:
        return [one["name"] for one in desk.http.get(f"{DB}/branches?{query}").json()["data"]]

    assert names("") == ["aa", "main", "zz"]
    assert names("order=asc") == ["main", "zz", "aa"]
    assert names("order=desc") == ["aa", "zz", "main"]
    assert names("safe_migrations=true") == ["main"]
    assert names("safe_migrations=false&order=desc") == ["aa", "zz"]
    assert refused(desk.http.get(f"{DB}/branches?order=random")) == (422, "invalid_params")
    assert refused(desk.http.get(f"{DB}/branches?safe_migrations=perhaps")) == (422, "invalid_params")


def test_a_branch_may_bring_its_database_along(desk: Desk) -> None:
    at = f"{ORG}/databases/fresh/branches"
    assert refused(desk.http.post(at, json={"name": "dev"})) == (404, "not_found")
    body = {"name": "dev", "create_database_if_missing": True, "kind": "mysql", "cluster_size": "PS_10"}
    made = desk.http.post(at, json=body)
    assert (made.status_code, made.json()["parent_branch"]) == (201, "main")
    assert desk.http.get(f"{ORG}/databases/fresh").json()["default_branch"] == "main"
    assert desk.http.post(at, json={**body, "name": "other"}).status_code == 201, "it is there by now"
    main = desk.http.post(f"{ORG}/databases/fresher/branches", json={**body, "name": "main"})
    assert (main.status_code, main.json()["production"]) == (201, True)
    for wrong in ({"name": "d ev"}, {"parent_branch": "none"}, {"cluster_size": "PS_7"}):
        answer = desk.http.post(f"{ORG}/databases/freshest/branches", json={**body, **wrong})
        assert refused(answer) == (422, "unprocessable")
        assert refused(desk.http.get(f"{ORG}/databases/freshest")) == (404, "not_found"), "all or nothing"


def test_who_brings_a_database_along_administers_it(desk: Desk) -> None:
    body = {"name": "dev", "create_database_if_missing": True}
    with client_of(desk.served, desk.store, desk.shop.organization, ["create_databases"]) as http:
        assert http.post(f"{ORG}/databases/fresh/branches", json=body).status_code == 201
        assert http.delete(f"{ORG}/databases/fresh/branches/dev").status_code == 204
        answer = http.post(f"{DB}/branches", json=body)
        assert refused(answer) == (403, "forbidden"), "it is there, and somebody else's"


def test_passwords_are_filtered_and_may_be_direct(desk: Desk) -> None:
    made = desk.http.post(f"{BRANCH}/passwords", json={"name": "a", "ttl": 60, "direct_vtgate": True}).json()
    assert (made["direct_vtgate"], made["direct_vtgate_addresses"]) == (True, ["127.0.0.1:3306"])
    other = desk.http.post(f"{BRANCH}/passwords", json={"name": "b"}).json()
    assert (other["direct_vtgate"], other["direct_vtgate_addresses"]) == (False, [])
    desk.clock.forward(61)

    def names(query: str) -> list[str]:
        return [one["name"] for one in desk.http.get(f"{BRANCH}/passwords?{query}").json()["data"]]

    assert sorted(names("")) == ["a", "b"]
    assert (names("status=active"), names("status=expired")) == (["b"], ["a"])
    assert refused(desk.http.get(f"{BRANCH}/passwords?status=odd")) == (422, "invalid_params")
    assert refused(desk.http.get(f"{BRANCH}/passwords?read_only_region_id=x")) == (422, "unprocessable")


def test_lists_of_resizes_and_keyspaces_cost_the_same_however_long(desk: Desk) -> None:
    counted: list[str] = []
    event.listen(desk.store.engine, "before_cursor_execute", lambda *args: counted.append(str(args[2])))

    def cost(url: str) -> int:
        counted.clear()
        assert desk.http.get(url).status_code == 200
        return len(counted)

    urls = (
        RESIZES,
        f"{BRANCH}/resizes",
        f"{BRANCH}/keyspaces",
        f"{BRANCH}/keyspaces/shop_sharded/rollout-status",
    )

    def resize() -> None:
        desk.clock.forward(1)
        made = desk.http.put(RESIZES, json={"extra_replicas": 1}).json()
        advance(desk, made["id"], ResizeTrigger.BEGIN, ResizeTrigger.DONE)
        desk.http.put(f"{BRANCH}/resizes", json={"vtgate_size": "VTG_5"})
        desk.http.delete(f"{BRANCH}/resizes")

    resize()
    before = [cost(url) for url in urls]
    for _ in range(5):
        resize()
    with desk.store.write() as tx:
        for n in range(4):
            tx.keyspaces.create(desk.shop.branch.id, f"more{n}")
    assert [cost(url) for url in urls] == before


def test_what_was_asked_away_is_asked_no_more(desk: Desk) -> None:
    made = desk.http.put(f"{BRANCH}/keyspaces/shop_sharded/resizes", json={"extra_replicas": 1}).json()
    assert desk.http.delete(f"{BRANCH}/keyspaces/shop_sharded").status_code == 204
    with desk.store.read() as tx:
        assert tx.resizes.get(made["id"]).state is Resize.PENDING, "the executor ends it"
        assert ("resize", made["id"]) in {(item.kind, item.id) for item in tx.queue.resources_with_work()}
    assert refused(desk.http.get(f"{BRANCH}/keyspaces/shop_sharded/resizes")) == (404, "not_found")
    gone = life_row(Life.DELETING, LifeTrigger.GONE)
    assert gone.to is Life.DELETED
