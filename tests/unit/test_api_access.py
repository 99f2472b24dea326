"""Who may do what: credentials, scopes, other organizations, and tokens that give what they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.api.scopes import ACCESSES, SCOPES
from homeworld.store.store import Store
from homeworld.store.tables.journal import audit_log
from homeworld.store.tenants import Organization
from tests.support.api import ServedApi, StatedPreconditions, client_of
from tests.support.stores import Shop, TestClock, make_shop


@dataclass
class Desk:
    """An API with a shop of acme and one of others."""

    store: Store
    clock: TestClock
    shop: Shop
    others: Organization
    served: ServedApi
    http: httpx.Client
    app: Any

    def operations(self) -> dict[str, tuple[str, str]]:
        """Operation to method and a path that names the shop."""
        names = {
            "organization": "acme",
            "database": "shop",
            "branch": "main",
            "keyspace": "shop_sharded",
            "id": "0" * 12,
            "number": "1",
            "kind": "query",
            "team": "crew",
            "application_id": "0" * 12,
            "token_id": "0" * 12,
            "workflow": "w",
            "uuid": "0" * 12,
        }
        found: dict[str, tuple[str, str]] = {}
        for path, methods in self.app.openapi()["paths"].items():
            for method, operation in methods.items():
                filled = re.sub(r"{(\w+)}", lambda match: names[match[1]], path)
                found[operation["operationId"]] = (method.upper(), filled)
        return found


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    settings = Settings(StatedPreconditions())
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
        others = tx.organizations.ensure("others")
    served_api.use(sqlite_store, settings)
    with httpx.Client(base_url=served_api.url, timeout=60, trust_env=False) as http:
        yield Desk(sqlite_store, clock, shop, others, served_api, http, create_app(sqlite_store, settings))


def test_the_table_has_exactly_the_mounted_operations(desk: Desk) -> None:
    assert set(desk.operations()) == set(SCOPES)
    assert {a for s in SCOPES.values() for a in s.accesses | s.production | s.readers} <= set(ACCESSES)


def test_nothing_is_told_without_a_valid_token(desk: Desk) -> None:
    wrong = {
        "none": None,
        "no colon": "secret",
        "unknown": f"{'x' * 12}:pscale_tkn_none",
        "empty": ":",
        "odd": "%00 x:y",
    }
    for operation, (method, path) in desk.operations().items():
        for header in wrong.values():
            headers = {"Authorization": header} if header else {}
            answer = desk.http.request(method, path, headers=headers, json={})
            if SCOPES[operation].public:
                assert answer.status_code == 200
            elif answer.status_code != 401:
                # A body that cannot be read is refused before anybody asks who sent it.
                assert (answer.status_code, answer.json()["code"]) == (422, "invalid_params"), operation
            else:
                assert answer.json()["code"] == "unauthorized"


def test_an_oauth_token_is_told_to_log_in_again(desk: Desk) -> None:
    answer = desk.http.get("/v1/organizations", headers={"Authorization": "Bearer abc"})
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_token"
    assert "code" not in answer.json()


BODIES: dict[str, dict[str, Any]] = {
    "create_database": {"name": "new", "cluster_size": "PS_10"},
    "create_branch": {"name": "new"},
    "create_keyspace": {"name": "new", "cluster_size": "PS_10"},
    "update_branch_cluster_config": {"cluster_size": "PS_20"},
    "update_keyspace_resize_request": {"extra_replicas": 1},
    "update_keyspace_read_only_regions": {"read_only_regions": []},
    "kill_branch_process": {"id": 1, "keyspace": "shop"},
    "create_planned_reparent": {"keyspace": "shop", "shard": "-"},
    "create_emergency_reparent": {"keyspace": "shop", "shard": "-"},
    "create_engine_change": {"engine": "vitess"},
    "refresh_vtctld_shard_state": {"keyspace": "shop", "shard": "-"},
    "check_vtctld_throttler": {"tablet_alias": "local-none"},
    "update_vtctld_throttler_config": {"keyspace": "shop"},
    "update_safe_migrations": {"safe_migrations": True},
    "update_keyspace_vschema": {"vschema": '{"sharded": true}'},
    "update_branch_routing_rules": {"routing_rules": '{"rules": []}'},
    "create_webhook": {"url": "https://example.com/hook"},
    "create_workflow": {
        "name": "w",
        "source_keyspace": "shop",
        "target_keyspace": "shop_sharded",
        "tables": ["t"],
    },
    "check_workflow": {
        "source_keyspace": "shop",
        "target_keyspace": "shop_sharded",
        "tables": ["t"],
    },
    "create_move_tables": {
        "workflow": "w",
        "source_keyspace": "shop",
        "target_keyspace": "shop_sharded",
        "tables": ["t"],
    },
    **{
        operation: {"target_keyspace": "shop_sharded"}
        for operation in (
            "switch_move_tables_traffic",
            "reverse_move_tables_traffic",
            "cancel_move_tables",
            "complete_move_tables",
            "create_vdiff",
            "stop_vdiff",
            "resume_vdiff",
        )
    },
    "start_vtctld_workflow": {"keyspace": "shop_sharded"},
    "stop_vtctld_workflow": {"keyspace": "shop_sharded"},
    "update_organization_membership": {"role": "member"},
    "create_organization_invitation": {"email": "a@example.com"},
    "create_organization_team": {"name": "crew"},
    "add_organization_team_member": {"user_id": "0" * 12},
    "create_oauth_application": {
        "name": "app",
        "redirect_uri": "https://app.example.com/",
        "scopes": ["read_user"],
    },
    "create_oauth_token": {"client_id": "x", "client_secret": "x", "grant_type": "refresh_token"},
    "add_service_token_accesses": {"access": []},
    "delete_service_token_accesses": {"access": []},
}


def test_every_operation_asks_for_its_access(desk: Desk) -> None:
    acme = desk.shop.organization
    with client_of(desk.served, desk.store, acme, []) as nobody:
        for operation, (method, path) in desk.operations().items():
            answer = nobody.request(method, path, json=BODIES.get(operation, {}))
            scope = SCOPES[operation]
            if scope.accesses:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), operation
            elif scope.users:
                assert answer.status_code == 403, operation
            else:
                assert answer.status_code == 200, operation


def test_each_access_opens_what_the_table_says(desk: Desk) -> None:
    """For each operation, every access of its row opens it and no other does."""
    acme = desk.shop.organization
    reads = {name: at for name, at in desk.operations().items() if at[0] == "GET"}
    for access in ACCESSES:
        with client_of(desk.served, desk.store, acme, [access]) as client:
            for operation, (_, path) in reads.items():
                scope = SCOPES[operation]
                if scope.users:
                    continue
                opens = not scope.accesses or access in scope.wanted(production=True) | scope.readers
                assert (client.get(path).status_code != 403) == opens, (operation, access)


def test_production_asks_for_more(desk: Desk) -> None:
    acme = desk.shop.organization
    base = "/v1/organizations/acme/databases/shop/branches"
    with desk.store.write() as tx:
        tx.branches.create(desk.shop.database.id, "dev", desk.shop.region.id)
        password, _ = tx.passwords.create(desk.shop.branch.id)
    with client_of(desk.served, desk.store, acme, ["connect_branch", "delete_branch"]) as developer:
        assert developer.post(f"{base}/dev/passwords").status_code == 201
        assert developer.post(f"{base}/main/passwords").status_code == 403
        assert developer.delete(f"{base}/main").status_code == 403
        assert developer.delete(f"{base}/dev").status_code == 204
    with client_of(desk.served, desk.store, acme, ["connect_production_read_only_branch"]) as reader:
        assert reader.post(f"{base}/main/passwords", json={"role": "reader"}).status_code == 201
        assert reader.post(f"{base}/main/passwords", json={"role": "admin"}).status_code == 403
        assert reader.post(f"{base}/main/passwords/{password.id}/renew").status_code == 403


def test_other_organizations_do_not_exist(desk: Desk) -> None:
    with client_of(desk.served, desk.store, desk.others) as stranger:
        assert [o["name"] for o in stranger.get("/v1/organizations").json()["data"]] == ["others"]
        for operation, (method, path) in desk.operations().items():
            if "/acme" in path:
                answer = stranger.request(method, path, json=BODIES.get(operation, {}))
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), operation


def test_a_grant_on_a_database_ends_there(desk: Desk) -> None:
    with desk.store.write() as tx:
        make_shop(tx, "secret")
        token, secret = tx.tokens.create(desk.shop.organization.id, "narrow")
        tx.tokens.grant(token.id, "database", desk.shop.database.id, ["read_branch"])
    headers = {"Authorization": f"{token.id}:{secret}"}

    def get(path: str) -> httpx.Response:
        return desk.http.get(f"/v1/organizations/acme{path}", headers=headers)

    listed = get("/databases").json()
    assert ([d["name"] for d in listed["data"]], listed["total_count"]) == (["shop"], 1)
    assert get("/databases/shop/branches/main").status_code == 200
    assert get("/databases/secret/branches/main").status_code == 403
    assert get("").status_code == 403


def test_a_token_gives_only_what_it_has(desk: Desk) -> None:
    acme = desk.shop.organization
    with client_of(desk.served, desk.store, acme, ["write_service_tokens", "read_branch"]) as client:
        made = client.post("/v1/organizations/acme/service-tokens", json={"name": "child"}).json()
        at = f"/v1/organizations/acme/service-tokens/{made['id']}/access"
        body: dict[str, Any] = {"database": "shop", "access": ["read_branch"]}
        assert client.post(at, json=body).status_code == 200
        assert client.post(at, json={"access": ["delete_database"]}).status_code == 403
        assert client.post(at, json={"access": ["fly"]}).status_code == 422
        body = {"database": "shop", "access": ["write_service_tokens"]}
        assert client.post(at, json=body).status_code == 422


def test_a_token_takes_only_what_it_has(desk: Desk) -> None:
    acme = desk.shop.organization
    with desk.store.write() as tx:
        strong, _ = tx.tokens.create(acme.id, "strong")
        tx.tokens.grant(strong.id, "organization", acme.id, ["write_database", "read_branch"])
    at = f"/v1/organizations/acme/service-tokens/{strong.id}"
    with client_of(
        desk.served, desk.store, acme, ["write_service_tokens", "delete_service_tokens"]
    ) as client:
        taken = client.request("DELETE", f"{at}/access", json={"access": ["write_database"]})
        assert (taken.status_code, client.delete(at).status_code) == (403, 403)
    with desk.store.read() as tx:
        assert {grant.access for grant in tx.tokens.grants(strong.id)} == {"write_database", "read_branch"}
    accesses = ["write_service_tokens", "delete_service_tokens", "write_database", "read_branch"]
    with client_of(desk.served, desk.store, acme, accesses) as client:
        taken = client.request("DELETE", f"{at}/access", json={"access": ["write_database"]})
        assert (taken.status_code, client.delete(at).status_code) == (204, 204)


def test_a_use_is_noted_to_the_minute(desk: Desk) -> None:
    acme = desk.shop.organization
    with client_of(desk.served, desk.store, acme) as client:
        token_id = client.headers["Authorization"].partition(":")[0]

        def last_used() -> Any:
            client.get("/v1/organizations")
            with desk.store.read() as tx:
                return tx.tokens.get(acme.id, token_id).last_used_at

        first = last_used()
        assert first == desk.clock.now()
        desk.clock.forward(59)
        assert last_used() == first
        desk.clock.forward(1)
        assert last_used() == desk.clock.now()
        # A call that writes notes it too.
        desk.clock.forward(60)
        client.post("/v1/organizations/acme/service-tokens")
        with desk.store.read() as tx:
            assert tx.tokens.get(acme.id, token_id).last_used_at == desk.clock.now()


def test_an_expired_or_deleted_token_is_none(desk: Desk) -> None:
    acme = desk.shop.organization
    with client_of(desk.served, desk.store, acme) as client:
        made = client.post("/v1/organizations/acme/service-tokens", json={"ttl": 60}).json()
        other = client.post("/v1/organizations/acme/service-tokens").json()
        both = [{"Authorization": f"{t['id']}:{t['token']}"} for t in (made, other)]
        assert [desk.http.get("/v1/organizations", headers=h).status_code for h in both] == [200, 200]
        desk.clock.forward(61)
        assert client.delete(f"/v1/organizations/acme/service-tokens/{other['id']}").status_code == 204
        assert [desk.http.get("/v1/organizations", headers=h).status_code for h in both] == [401, 401]


def test_what_changed_is_in_the_audit_log(desk: Desk) -> None:
    acme = desk.shop.organization
    with client_of(desk.served, desk.store, acme) as client:
        made = client.post("/v1/organizations/acme/databases/shop/branches/main/passwords").json()
        client.delete("/v1/organizations/acme/databases/shop")
    with desk.store.read() as tx:
        rows = tx.work.connection.execute(select(audit_log)).all()
    assert sorted(row.action for row in rows) == ["database.deleted", "password.created"]
    assert {row.remote_ip for row in rows} == {"127.0.0.1"}
    assert made["plain_text"] not in str(rows)
