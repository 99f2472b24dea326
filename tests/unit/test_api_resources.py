"""Resources through the API as real clients ask for them: bodies, envelopes, errors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event

from homeworld.api.calls import Settings
from homeworld.model.errors import UnavailableError
from homeworld.model.ports import MoveWish
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.topology import Flavor
from homeworld.store.store import Store
from tests.support.api import ServedApi, StatedPreconditions, client_of
from tests.support.desk import BRANCH, DB, ORG, Desk, open_desk, refused
from tests.support.stores import TestClock, make_shop


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def test_a_database_is_asked_for_as_clients_do(desk: Desk) -> None:
    body = {
        "Organization": "acme",
        "name": "new",
        "region": "local",
        "cluster_size": "PS_10",
        "notes": "",
        "kind": "mysql",
        "replicas": 1,
    }
    answer = desk.http.post(f"{ORG}/databases", json=body)
    shown = answer.json()
    assert answer.status_code == 201
    assert (shown["state"], shown["ready"], shown["kind"]) == ("pending", False, "mysql")
    assert (shown["default_branch"], shown["branches_count"]) == ("main", 1)
    assert (shown["region"]["slug"], shown["flavor"]) == ("local", "mysql")
    assert shown["url"] == f"{desk.served.url}{ORG}/databases/new"
    with desk.store.write() as tx:
        database = tx.databases.by_name(desk.shop.organization.id, "new")
        row = life_row(Life.PENDING, LifeTrigger.MADE)
        tx.databases.transition(database.id, Life.PENDING, row)
    shown = desk.http.get(f"{ORG}/databases/new").json()
    assert (shown["state"], shown["ready"]) == ("ready", True)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"name": "shop"}, "unprocessable"),
        ({"name": "no/slash"}, "unprocessable"),
        ({"name": ""}, "invalid_params"),
        ({"name": "x" * 300}, "invalid_params"),
        ({"name": "nul\0"}, "invalid_params"),
        ({"kind": "postgresql"}, "unprocessable"),
        ({"region": "moon"}, "unprocessable"),
        ({"replicas": -1}, "invalid_params"),
        ({"flavor": "oracle"}, "invalid_params"),
    ],
)
def test_a_database_that_cannot_be_is_refused(desk: Desk, fields: dict[str, Any], code: str) -> None:
    body = {"name": "new", "cluster_size": "PS_10", **fields}
    assert refused(desk.http.post(f"{ORG}/databases", json=body)) == (422, code)


def test_settings_change_and_names_follow(desk: Desk) -> None:
    body = {
        "new_name": "store",
        "allow_foreign_key_constraints": True,
        "deletion_protected": True,
        "migration_framework": "rails",
    }
    shown = desk.http.patch(DB, json=body).json()
    assert (shown["name"], shown["foreign_keys_enabled"]) == ("store", True)
    assert (shown["deletion_protected"], shown["migration_framework"]) == (True, "rails")
    assert refused(desk.http.get(DB)) == (404, "not_found")
    assert refused(desk.http.delete(f"{ORG}/databases/store")) == (422, "unprocessable")
    desk.http.patch(f"{ORG}/databases/store", json={"deletion_protected": False})
    gone = desk.http.delete(f"{ORG}/databases/store")
    assert (gone.status_code, gone.content) == (204, b"")
    assert refused(desk.http.get(f"{ORG}/databases/store")) == (404, "not_found")


def test_the_default_branch_is_a_production_branch(desk: Desk) -> None:
    desk.http.post(f"{DB}/branches", json={"name": "next", "parent_branch": ""})
    assert refused(desk.http.patch(DB, json={"default_branch": "next"})) == (422, "unprocessable")
    assert desk.http.post(f"{DB}/branches/next/promote").json()["production"] is True
    assert desk.http.patch(DB, json={"default_branch": "next"}).json()["default_branch"] == "next"
    assert refused(desk.http.post(f"{DB}/branches/next/demote")) == (422, "unprocessable")
    demoted = desk.http.post(f"{BRANCH}/demote").json()
    assert (demoted["production"], demoted["safe_migrations"]) == (False, False)


def test_a_branch_is_made_from_its_parent(desk: Desk) -> None:
    body = {"name": "dev", "parent_branch": "main", "region": "", "backup_id": "", "seed_data": ""}
    answer = desk.http.post(f"{DB}/branches", json=body)
    shown = answer.json()
    assert answer.status_code == 201
    assert (shown["parent_branch"], shown["production"], shown["ready"]) == ("main", False, False)
    assert (shown["keyspace_count"], shown["shard_count"], shown["sharded"]) == (2, 3, True)
    assert shown["actor"]["display_name"] == "tests"
    deeper = desk.http.post(f"{DB}/branches", json={"name": "deeper", "parent_branch": "dev"})
    assert deeper.status_code == 201
    assert refused(desk.http.delete(f"{DB}/branches/dev")) == (422, "unprocessable")
    assert desk.http.delete(f"{DB}/branches/dev?delete_descendants=true").status_code == 204
    assert refused(desk.http.get(f"{DB}/branches/deeper")) == (404, "not_found")
    assert refused(desk.http.delete(BRANCH)) == (422, "unprocessable")
    for unknown in ({"parent_branch": "nowhere"}, {"seed_data": "last_successful_backup"}):
        asked = desk.http.post(f"{DB}/branches", json={"name": "x", **unknown})
        assert refused(asked) == (422, "unprocessable")


def test_descendants_in_production_want_their_own_access(desk: Desk) -> None:
    desk.http.post(f"{DB}/branches", json={"name": "dev"})
    desk.http.post(f"{DB}/branches", json={"name": "live", "parent_branch": "dev"})
    assert desk.http.post(f"{DB}/branches/live/promote").status_code == 200
    with client_of(desk.served, desk.store, desk.shop.organization, ["delete_branch"]) as http:
        assert refused(http.delete(f"{DB}/branches/live")) == (403, "forbidden")
        assert refused(http.delete(f"{DB}/branches/dev?delete_descendants=true")) == (403, "forbidden")
    both = ["delete_branch", "delete_production_branch"]
    with client_of(desk.served, desk.store, desk.shop.organization, both) as http:
        assert http.delete(f"{DB}/branches/dev?delete_descendants=true").status_code == 204
    logged = desk.http.get(f"{ORG}/audit-log?per_page=100").json()["data"]
    deleted = [one["target_display_name"] for one in logged if one["audit_action"] == "branch.deleted"]
    assert set(deleted) == {"dev", "live"}, "each of them stands in the audit log"


def test_safe_migrations_have_three_verbs(desk: Desk) -> None:
    at = f"{BRANCH}/safe-migrations"
    assert desk.http.delete(at).json()["safe_migrations"] is False
    assert desk.http.post(at).json()["safe_migrations"] is True
    assert desk.http.put(at, json={"safe_migrations": False}).json()["safe_migrations"] is False
    assert refused(desk.http.put(at, json={})) == (422, "invalid_params")


def test_a_keyspace_is_made_with_shards(desk: Desk) -> None:
    body = {"name": "more", "cluster_size": "PS_10", "extra_replicas": 1, "shards": 4}
    answer = desk.http.post(f"{BRANCH}/keyspaces", json=body)
    shown = answer.json()
    assert answer.status_code == 200
    assert (shown["shards"], shown["sharded"], shown["ready"]) == (4, True, False)
    assert (shown["replicas"], shown["extra_replicas"], shown["default"]) == (1, 1, False)
    with desk.store.read() as tx:
        keyspace = tx.keyspaces.by_name(desk.shop.branch.id, "more")
        assert [s.name for s in tx.keyspaces.shards(keyspace.id)] == ["-40", "40-80", "80-c0", "c0-"]
    names = [k["name"] for k in desk.http.get(f"{BRANCH}/keyspaces").json()["data"]]
    assert names == ["more", "shop", "shop_sharded"]
    changed = desk.http.patch(
        f"{BRANCH}/keyspaces/more",
        json={
            "replication_durability_constraints": {"strategy": "lag"},
            "vreplication_flags": {"optimize_inserts": False},
        },
    ).json()
    assert changed["replication_durability_constraints"] == {"strategy": "lag"}
    assert changed["vreplication_flags"]["optimize_inserts"] is False
    assert changed["vreplication_flags"]["vplayer_batching"] is True
    assert desk.http.delete(f"{BRANCH}/keyspaces/more").status_code == 204
    assert refused(desk.http.delete(f"{BRANCH}/keyspaces/shop")) == (422, "unprocessable")
    too_many = {**body, "shards": 257}
    assert refused(desk.http.post(f"{BRANCH}/keyspaces", json=too_many)) == (422, "invalid_params")


VSCHEMA = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}


def test_a_vschema_is_checked_before_it_is_served(desk: Desk) -> None:
    at = f"{BRANCH}/keyspaces/shop_sharded/vschema"
    before = len(desk.published)
    answer = desk.http.patch(at, json={"vschema": json.dumps(VSCHEMA)})
    assert answer.status_code == 200
    assert json.loads(answer.json()["raw"]) == VSCHEMA
    assert answer.json()["html"].startswith("<pre>{")
    assert json.loads(desk.http.get(at).json()["raw"]) == VSCHEMA
    assert len(desk.published) == before + 1
    for wrong in (
        "{",
        "[]",
        '{"sharded": false}',
        '{"sharded": true, "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "no"}]}}}',
    ):
        assert refused(desk.http.patch(at, json={"vschema": wrong})) == (422, "unprocessable"), wrong
    assert refused(desk.http.patch(at, json={"vschema": ""})) == (422, "invalid_params")
    assert json.loads(desk.http.get(at).json()["raw"]) == VSCHEMA


def test_a_table_with_rows_stays_placed_as_it_is(desk: Desk) -> None:
    at = f"{BRANCH}/keyspaces/shop_sharded/vschema"

    def ask(vindex: str, *tables: str, name: str = "v") -> int:
        bound = {"column_vindexes": [{"column": "id", "name": name}]}
        wanted = {
            "sharded": True,
            "vindexes": {name: {"type": vindex}},
            "tables": dict.fromkeys(tables, bound),
        }
        return desk.http.patch(at, json={"vschema": json.dumps(wanted)}).status_code

    assert ask("hash", "orders") == 200
    assert ask("xxhash", "orders") == 200, "it is empty"
    desk.placements.filled = {"orders", "lines"}
    before = desk.http.get(at).json()["raw"]
    assert ask("hash", "orders") == 422, "another vindex"
    assert ask("xxhash") == 422, "no vindex"
    assert ask("xxhash", "orders", "lines") == 422, "a vindex for rows that lie somewhere"
    assert desk.http.get(at).json()["raw"] == before
    assert desk.placements.asked[-3:] == [("orders",), ("orders",), ("lines",)]
    assert ask("xxhash", "orders", "others", name="w") == 200, "only another name, and a new table"
    assert desk.placements.asked[-1] == ("others",)


def test_where_nobody_can_look_a_placement_stays(desk: Desk) -> None:
    desk.served.use(desk.store, Settings(StatedPreconditions()))
    at = f"{BRANCH}/keyspaces/shop_sharded/vschema"
    assert refused(desk.http.patch(at, json={"vschema": json.dumps(VSCHEMA)})) == (503, "unavailable")
    assert desk.http.patch(at, json={"vschema": '{"sharded": true}'}).status_code == 200


def test_routing_rules_are_read_and_replaced(desk: Desk) -> None:
    at = f"{BRANCH}/routing-rules"
    assert json.loads(desk.http.get(at).json()["raw"]) == {"rules": []}
    rules = {"rules": [{"from_table": "orders", "to_tables": ["shop_sharded.orders"]}]}
    assert desk.http.patch(at, json={"routing_rules": json.dumps(rules)}).status_code == 200
    assert json.loads(desk.http.get(at).json()["raw"]) == rules
    rules["rules"][0]["to_tables"] = ["nowhere.orders"]
    assert refused(desk.http.patch(at, json={"routing_rules": json.dumps(rules)})) == (422, "unprocessable")


def test_a_password_is_told_once_and_gateways_hear_of_it(desk: Desk) -> None:
    body = {"name": "app", "role": "readwriter", "ttl": 300, "replica": False, "cidrs": ["10.1.0.0/16"]}
    before = len(desk.published)
    answer = desk.http.post(f"{BRANCH}/passwords", json=body)
    made = answer.json()
    assert (answer.status_code, len(desk.published)) == (201, before + 1)
    assert made["plain_text"].startswith("pscale_pw_")
    assert (made["role"], made["ttl_seconds"], made["renewable"]) == ("readwriter", 300, True)
    assert (made["cidrs"], made["access_host_url"]) == (["10.1.0.0/16"], "db.test")
    assert made["database_branch"]["name"] == "main"
    assert made["database_branch"]["mysql_edge_address"] == "127.0.0.1:3306"
    at = f"{BRANCH}/passwords/{made['id']}"
    assert desk.http.get(at).json()["plain_text"] is None
    assert desk.http.patch(at, json={"name": "web"}).json()["name"] == "web"
    desk.clock.forward(200)
    renewed = desk.http.post(f"{at}/renew").json()
    assert renewed["expires_at"] > made["expires_at"]
    desk.clock.forward(301)
    assert desk.http.get(at).json()["expired"] is True
    assert refused(desk.http.post(f"{at}/renew")) == (422, "unprocessable")
    assert desk.http.delete(at).status_code == 204
    assert refused(desk.http.get(at)) == (404, "not_found")
    assert len(desk.published) == before + 4


def test_a_password_needs_no_body(desk: Desk) -> None:
    for content in (b"", b"{}"):
        answer = desk.http.post(
            f"{BRANCH}/passwords", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 201
        made = answer.json()
        assert (made["role"], made["ttl_seconds"], made["cidrs"]) == ("admin", None, None)
    for wrong in (
        {"role": "root"},
        {"cidrs": ["nowhere"]},
        {"cidrs": ["fe80::1%eth0"]},
        {"read_only_region_id": "x"},
    ):
        assert refused(desk.http.post(f"{BRANCH}/passwords", json=wrong)) == (422, "unprocessable")
    assert refused(desk.http.post(f"{BRANCH}/passwords", json={"ttl": -1})) == (422, "invalid_params")
    assert len(desk.http.get(f"{DB}/passwords").json()["data"]) == 2


def test_service_tokens_and_their_grants(desk: Desk) -> None:
    at = f"{ORG}/service-tokens"
    made = desk.http.post(at, json={"name": "ci", "ttl": 0}).json()
    assert len(made["id"]) == 12
    assert made["token"].startswith("pscale_tkn_")
    one = f"{at}/{made['id']}"
    body: dict[str, Any] = {"database": "", "access": ["create_databases"]}
    added = desk.http.post(f"{one}/access", json=body).json()["data"]
    assert [(a["access"], a["resource"]["type"]) for a in added] == [("create_databases", "Organization")]
    body = {"database": "shop", "access": ["read_branch", "connect_branch"]}
    desk.http.post(f"{one}/access", json=body)
    grants = desk.http.get(f"{one}/grants").json()["data"]
    shown = {g["resource_name"]: [a["access"] for a in g["accesses"]] for g in grants}
    assert shown == {"acme": ["create_databases"], "shop": ["connect_branch", "read_branch"]}
    body = {"database": "shop", "access": ["connect_branch"]}
    assert desk.http.request("DELETE", f"{one}/access", json=body).status_code == 204
    assert [a["access"] for a in desk.http.get(f"{one}/access").json()["data"]] == [
        "create_databases",
        "read_branch",
    ]
    told = desk.http.get(one).json()
    assert told["token"] is None
    assert [a["resource_name"] for a in told["service_token_accesses"]] == ["acme", "shop"]
    listed = desk.http.get(at).json()
    assert {t["display_name"] for t in listed["data"]} == {"ci", "tests"}
    assert desk.http.delete(one).status_code == 204
    assert refused(desk.http.get(one)) == (404, "not_found")


def test_pages_have_the_published_envelope(desk: Desk) -> None:
    with desk.store.write() as tx:
        for number in range(5):
            tx.branches.create(desk.shop.database.id, f"b{number}", desk.shop.region.id)
    page = desk.http.get(f"{DB}/branches?per_page=2&page=2&q=").json()
    assert [branch["name"] for branch in page["data"]] == ["b2", "b3"]
    del page["data"]
    assert page == {
        "type": "list",
        "current_page": 2,
        "per_page": 2,
        "next_page": 3,
        "next_page_url": f"{desk.served.url}{DB}/branches?per_page=2&page=3",
        "prev_page": 1,
        "prev_page_url": f"{desk.served.url}{DB}/branches?per_page=2&page=1",
        "total_count": 6,
        "total_pages": 3,
    }
    following = desk.http.get(page["next_page_url"]).json()
    assert ([b["name"] for b in following["data"]], following["next_page"]) == (["b4", "main"], None)
    found = desk.http.get(f"{DB}/branches?q=b&production=false").json()
    assert found["total_count"] == 5
    assert desk.http.get(f"{DB}/branches?per_page=1000").json()["per_page"] == 100
    assert desk.http.get(f"{DB}/branches").json()["per_page"] == 25
    for wrong in ("page=0", "per_page=0", "page=x", f"page={10**30}"):
        assert refused(desk.http.get(f"{DB}/branches?{wrong}")) == (422, "invalid_params"), wrong


LISTS = (
    "/v1/organizations",
    "/v1/regions",
    f"{ORG}/regions",
    f"{ORG}/databases",
    f"{ORG}/service-tokens",
    f"{DB}/branches",
    f"{DB}/regions",
    f"{DB}/read-only-regions",
    f"{DB}/passwords",
    f"{DB}/workflows",
    f"{BRANCH}/keyspaces",
    f"{BRANCH}/passwords",
)


def test_a_list_costs_as_many_queries_with_many_rows_as_with_few(desk: Desk) -> None:
    queries: list[str] = []

    def count(*given: Any) -> None:
        queries.append(given[2])

    def counts() -> dict[str, int]:
        found: dict[str, int] = {}
        for path in LISTS:
            queries.clear()
            answer = desk.http.get(f"{path}?per_page=100")
            assert answer.status_code == 200, path
            found[path] = len(queries)
        return found

    def grow(name: str) -> None:
        with desk.store.write() as tx:
            shop = make_shop(tx, name)
            for branch_id in (shop.branch.id, desk.shop.branch.id):
                tx.passwords.create(branch_id)
                tx.keyspaces.create(branch_id, f"of-{name}")
            token, _ = tx.tokens.create(desk.shop.organization.id, name)
            tx.tokens.grant(token.id, "database", shop.database.id, ["read_branch"])
            branch = tx.branches.create(
                desk.shop.database.id, name, shop.region.id, parent_branch_id=desk.shop.branch.id
            )
            keyspaces = [tx.keyspaces.create(branch.id, f"k{n}") for n in range(2)]
            tx.workflows.create(
                desk.shop.database.id, branch.id, "move", keyspaces[0].id, keyspaces[1].id, ["a", "b"]
            )

    grow("first")
    counts()
    event.listen(desk.store.engine, "before_cursor_execute", count)
    try:
        few = counts()
        event.remove(desk.store.engine, "before_cursor_execute", count)
        for number in range(8):
            grow(f"more-{number}")
        event.listen(desk.store.engine, "before_cursor_execute", count)
        assert counts() == few
    finally:
        event.remove(desk.store.engine, "before_cursor_execute", count)


def test_paths_begin_with_any_number_of_slashes(desk: Desk) -> None:
    for slashes in ("/", "//", "///"):
        answer = desk.http.get(f"{desk.served.url}{slashes}v1/organizations/acme")
        assert (answer.status_code, answer.json()["name"]) == (200, "acme")


def test_errors_have_one_form(desk: Desk) -> None:
    assert refused(desk.http.get("/v1/nothing")) == (404, "not_found")
    assert refused(desk.http.get("/nothing")) == (404, "not_found")
    assert refused(desk.http.get(f"{ORG}/databases/no%00where")) == (404, "not_found")
    assert refused(desk.http.get(f"{ORG}/databases/{'x' * 5000}")) == (404, "not_found")
    assert refused(desk.http.get(f"{BRANCH}/passwords/no%00where")) == (404, "not_found")
    assert refused(desk.http.get(f"{ORG}/service-tokens/%ff")) == (404, "not_found")
    assert refused(desk.http.get(f"{DB}/branches?q=%00")) == (422, "unprocessable")
    assert refused(desk.http.put(f"{ORG}/databases")) == (405, "method_not_allowed")
    assert refused(desk.http.post(f"{ORG}/databases", content=b"{")) == (400, "bad_request")
    assert refused(desk.http.post(f"{ORG}/databases", content=b"\xff")) == (400, "bad_request")
    for body in (b"[]", b'"x"', b"1", b"null", b""):
        answer = desk.http.post(f"{ORG}/databases", content=body)
        assert refused(answer) == (422, "invalid_params"), body


@pytest.mark.parametrize("text", ["nul\0", "\ud800"])
def test_text_that_cannot_be_kept_is_refused(desk: Desk, text: str) -> None:
    body = json.dumps({"name": "w", "source_keyspace": "a", "target_keyspace": "b", "tables": ["t", text]})
    assert refused(desk.http.post(f"{DB}/workflows", content=body)) == (422, "invalid_params")
    body = json.dumps({"name": "p", "notes": text, "cluster_size": "homeworld"})
    assert refused(desk.http.post(f"{ORG}/databases", content=body)) == (422, "invalid_params")


def test_a_form_is_taken_for_json(desk: Desk) -> None:
    """A body sent by curl without a header is JSON all the same."""
    answer = desk.http.post(
        f"{ORG}/databases",
        content=b'{"name": "curled"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert answer.status_code == 422
    answer = desk.http.post(f"{ORG}/databases", content=b'{"name": "curled", "cluster_size": "homeworld"}')
    assert answer.status_code == 201


def test_a_change_that_gateways_do_not_take_at_once_is_stored(desk: Desk) -> None:
    def away() -> None:
        raise UnavailableError

    desk.served.use(desk.store, Settings(StatedPreconditions(), routes_changed=away, replicas=2))
    assert desk.http.post(f"{BRANCH}/passwords").status_code == 201
    assert len(desk.http.get(f"{BRANCH}/passwords").json()["data"]) == 1
    made = desk.http.post(f"{ORG}/databases", json={"name": "new", "cluster_size": "homeworld"})
    assert made.status_code == 201
    keyspace = desk.http.get(f"{ORG}/databases/new/branches/main/keyspaces/new").json()
    assert keyspace["replicas"] == 2


class Silent:
    """Preconditions whose servers do not answer."""

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        raise UnavailableError(f"the server of {wish.tables[0]} does not answer")

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        return self.reasons(wish)


class Broken:
    """Preconditions with a mistake in them."""

    def reasons(self, wish: MoveWish) -> tuple[str, ...]:
        raise ZeroDivisionError(f"a secret about {wish.tables[0]}")

    def lasting(self, wish: MoveWish) -> tuple[str, ...]:
        return self.reasons(wish)


def test_what_cannot_be_said_now_is_not_made_and_mistakes_stay_inside(desk: Desk) -> None:
    body = {"name": "w", "source_keyspace": "shop", "target_keyspace": "shop_sharded", "tables": ["t"]}
    desk.served.use(desk.store, Settings(Silent()))
    assert refused(desk.http.post(f"{DB}/workflows", json=body)) == (503, "unavailable")
    desk.served.use(desk.store, Settings(Broken()))
    answer = desk.http.post(f"{DB}/workflows", json=body)
    assert refused(answer) == (500, "internal_error")
    assert "secret" not in answer.text
    assert desk.http.get(f"{DB}/workflows").json()["data"] == []


def test_the_process_says_that_it_serves(desk: Desk) -> None:
    assert desk.http.get("/healthz").json() == {"status": "ok"}
    described = desk.http.get("/v1/openapi.json").json()
    assert all(path.startswith("/v1/") for path in described["paths"])
    operations = [o for methods in described["paths"].values() for o in methods.values()]
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorOut"}}}
    assert all(operation["responses"]["422"]["content"] == error for operation in operations)


def test_a_database_may_name_its_flavor(desk: Desk) -> None:
    answer = desk.http.post(
        f"{ORG}/databases", json={"name": "maria", "cluster_size": "homeworld", "flavor": "mariadb"}
    )
    assert answer.json()["flavor"] == "mariadb"
    with desk.store.read() as tx:
        assert tx.databases.by_name(desk.shop.organization.id, "maria").flavor is Flavor.MARIADB


def test_a_path_may_have_ids(desk: Desk) -> None:
    """Terraform's provider asks for what it has made by its id."""
    shop = desk.shop
    at = f"{ORG}/databases/{shop.database.id}"
    assert desk.http.get(at).json()["name"] == "shop"
    assert desk.http.get(f"{at}/branches/{shop.branch.id}").json()["name"] == "main"
    shown = desk.http.get(f"{DB}/branches/{shop.branch.id}/keyspaces/{shop.source.id}").json()
    assert shown["name"] == shop.source.name
    # An id is one within what is above it in the path, and a name goes before an id.
    with desk.store.write() as tx:
        other = tx.databases.create(shop.organization.id, "other", shop.region.id, Flavor.MARIADB)
        elsewhere = tx.branches.create(other.id, "elsewhere", shop.region.id)
        tx.branches.create(shop.database.id, elsewhere.id, shop.region.id)
    assert refused(desk.http.get(f"{DB}/branches/{shop.source.id}")) == (404, "not_found")
    assert desk.http.get(f"{DB}/branches/{elsewhere.id}").json()["name"] == elsewhere.id
    assert desk.http.get(f"{ORG}/databases/other/branches/{elsewhere.id}").json()["name"] == "elsewhere"
    refusal = refused(desk.http.get(f"{ORG}/databases/other/branches/{shop.branch.id}"))
    assert refusal == (404, "not_found")
