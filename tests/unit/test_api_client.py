"""The client against the served API: every method, its errors, its pages."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from homeworld.api.calls import Settings
from homeworld.api.scopes import ALL_ACCESSES
from homeworld.client import ApiError, HomeworldClient, wait_for
from homeworld.store.store import Store
from tests.support.api import ServedApi, StatedPreconditions
from tests.support.stores import make_shop

AT = ("acme", "shop", "main")


@pytest.fixture
def client(sqlite_store: Store, served_api: ServedApi) -> Iterator[HomeworldClient]:
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
        token, secret = tx.tokens.create(shop.organization.id, "client")
        tx.tokens.grant_all(token.id, shop.organization.id)
    served_api.use(sqlite_store, Settings(StatedPreconditions()))
    with HomeworldClient(f"{served_api.url}/v1/", token.id, secret) as made:
        yield made


def test_databases_and_branches(client: HomeworldClient) -> None:
    assert [o["name"] for o in client.list_organizations()] == ["acme"]
    assert client.get_organization("acme")["database_count"] == 1
    assert [r["slug"] for r in client.list_regions("acme")] == ["local"]
    assert client.create_database("acme", "new", replicas=2)["name"] == "new"
    assert [d["name"] for d in client.list_databases("acme")] == ["new", "shop"]
    assert client.update_database("acme", "new", new_name="newer")["name"] == "newer"
    client.delete_database("acme", "newer")
    assert client.create_branch("acme", "shop", "dev", parent_branch="main")["parent_branch"] == "main"
    assert client.promote_branch("acme", "shop", "dev")["production"] is True
    assert client.demote_branch("acme", "shop", "dev")["production"] is False
    client.delete_branch("acme", "shop", "dev", descendants=True)
    assert [b["name"] for b in client.list_branches("acme", "shop")] == ["main"]
    assert client.disable_safe_migrations(*AT)["safe_migrations"] is False
    assert client.enable_safe_migrations(*AT)["safe_migrations"] is True
    assert client.get_branch(*AT)["ready"] is True


def test_keyspaces_and_routes(client: HomeworldClient) -> None:
    assert client.create_keyspace(*AT, "more", shards=2)["sharded"] is True
    assert [k["name"] for k in client.list_keyspaces(*AT)] == ["more", "shop", "shop_sharded"]
    vschema = {"sharded": True, "vindexes": {"h": {"type": "hash"}}}
    assert json.loads(client.update_vschema(*AT, "more", vschema)["raw"]) == vschema
    assert json.loads(client.update_vschema(*AT, "more", json.dumps(vschema))["raw"]) == vschema
    assert json.loads(client.get_vschema(*AT, "more")["raw"]) == vschema
    assert client.get_keyspace(*AT, "more")["ready"] is False
    client.delete_keyspace(*AT, "more")
    rules = {"rules": [{"from_table": "t", "to_tables": ["shop.t"]}]}
    assert json.loads(client.update_routing_rules(*AT, rules)["raw"]) == rules
    assert json.loads(client.get_routing_rules(*AT)["raw"]) == rules


def test_passwords_and_tokens(client: HomeworldClient) -> None:
    made = client.create_password(*AT, name="app", role="reader", ttl=60)
    assert made["plain_text"]
    assert client.update_password(*AT, made["id"], name="web")["name"] == "web"
    assert client.renew_password(*AT, made["id"])["name"] == "web"
    assert client.get_password(*AT, made["id"])["plain_text"] is None
    client.delete_password(*AT, made["id"])
    assert client.list_passwords(*AT) == []
    token = client.create_service_token("acme", "ci")
    granted = client.add_service_token_access("acme", token["id"], ALL_ACCESSES[:1])
    assert len(granted["data"]) == 1
    assert client.get_service_token("acme", token["id"])["name"] == "ci"
    client.delete_service_token("acme", token["id"])
    assert [t["name"] for t in client.list_service_tokens("acme")] == ["client"]


def test_what_would_be_said_of_a_workflow(client: HomeworldClient) -> None:
    wanted: dict[str, Any] = {"source_keyspace": "shop", "tables": ["orders"]}
    said = client.check_workflow("acme", "shop", target_keyspace="shop_sharded", **wanted)
    assert said == {"allowed": True, "reasons": []}
    said = client.check_workflow("acme", "shop", target_keyspace="nowhere", branch_name="main", **wanted)
    assert said["reasons"] == ["target keyspace nowhere does not exist on branch main"]
    assert client.list_workflows("acme", "shop") == [], "nothing was made"


def test_workflows(client: HomeworldClient) -> None:
    made = client.create_workflow(
        "acme",
        "shop",
        name="move",
        source_keyspace="shop",
        target_keyspace="shop_sharded",
        tables=["orders"],
        on_ddl="IGNORE",
    )
    assert (made["number"], made["on_ddl"]) == (1, "IGNORE")
    assert client.get_workflow("acme", "shop", 1)["id"] == made["id"]
    assert (
        len(client.list_workflows("acme", "shop", between="2026-01-01T00:00:00Z..2027-01-01T00:00:00Z")) == 1
    )
    with pytest.raises(ApiError, match="cutover is not possible") as refused:
        client.workflow_action("acme", "shop", 1, "cutover")
    assert (refused.value.status, refused.value.code) == (422, "unprocessable")
    assert client.workflow_action("acme", "shop", 1, "cancel")["state"] == "cancelling"
    with pytest.raises(ApiError):
        client.cancel_workflow("acme", "shop", 1)


def test_lists_are_followed_to_their_end(client: HomeworldClient, sqlite_store: Store) -> None:
    with sqlite_store.write() as tx:
        organization = tx.organizations.by_name("acme")
        database = tx.databases.by_name(organization.id, "shop")
        for number in range(205):
            tx.branches.create(database.id, f"b{number:03}", database.region_id)
    names = [branch["name"] for branch in client.list_branches("acme", "shop")]
    assert (len(names), names[0], names[-1]) == (206, "b000", "main")


def test_names_cannot_leave_their_place_in_the_path(client: HomeworldClient) -> None:
    for odd in ("../other", "a/b", "a?b", "%2e%2e", "a b"):
        with pytest.raises(ApiError) as refused:
            client.get_database("acme", odd)
        assert refused.value.status == 404


def test_a_wrong_token_is_told(client: HomeworldClient, served_api: ServedApi) -> None:
    with (
        HomeworldClient(served_api.url, "0" * 12, "pscale_tkn_wrong") as stranger,
        pytest.raises(ApiError) as refused,
    ):
        stranger.list_organizations()
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")


def test_nobody_there_is_not_an_api_error() -> None:
    client = HomeworldClient("http://127.0.0.1:1", "x", "y", timeout_seconds=1)
    with pytest.raises(httpx.ConnectError):
        client.list_organizations()
    # Connections of a client that nobody closed end with it.
    del client
    gc.collect()


def test_waiting_reads_until_it_is_so() -> None:
    readings = iter(range(10))
    assert wait_for(lambda: next(readings), lambda n: n == 3, timeout_seconds=120, every_seconds=0) == 3
    with pytest.raises(TimeoutError, match="last: 7"):
        wait_for(lambda: 7, lambda n: n == 8, timeout_seconds=0, every_seconds=0)
