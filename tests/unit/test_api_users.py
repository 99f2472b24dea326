"""Users at the API: members, teams, service tokens under a login, OAuth operations, the audit log, limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from sqlalchemy import event

from homeworld.api.calls import Settings
from homeworld.api.limits import Windows
from homeworld.store.store import Store
from homeworld.store.users import User
from tests.support.api import ServedApi, StatedPreconditions, client_of
from tests.support.desk import refused
from tests.support.people import acting_as, make_user
from tests.support.stores import Shop, TestClock, make_shop

ORG = "/v1/organizations/acme"
DB = f"{ORG}/databases/shop"


@dataclass
class Desk:
    """An API with a shop, an administrator Ann and a member Bob."""

    store: Store
    clock: TestClock
    shop: Shop
    served: ServedApi
    ann: User
    bob: User
    as_ann: httpx.Client
    as_bob: httpx.Client
    published: list[int]


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    ann = make_user(sqlite_store, "ann@example.com", shop.organization.id, "admin")
    clock.forward(1)
    bob = make_user(sqlite_store, "bob@example.com", shop.organization.id)
    published: list[int] = []
    served_api.use(sqlite_store, Settings(StatedPreconditions(), routes_changed=lambda: published.append(1)))
    with (
        acting_as(served_api, sqlite_store, ann) as as_ann,
        acting_as(served_api, sqlite_store, bob) as as_bob,
    ):
        yield Desk(sqlite_store, clock, shop, served_api, ann, bob, as_ann, as_bob, published)


# members


def test_who_asks_is_told(desk: Desk) -> None:
    told = desk.as_bob.get("/v1/user").json()
    assert (told["id"], told["email"], told["display_name"]) == (desk.bob.id, "bob@example.com", "Bob")
    assert told["default_organization"]["name"] == "acme"
    assert (told["sso"], told["two_factor_auth_configured"]) == (False, False)
    with client_of(desk.served, desk.store, desk.shop.organization) as token:
        assert refused(token.get("/v1/user")) == (403, "forbidden")


def test_a_member_may_what_members_may(desk: Desk) -> None:
    bob = desk.as_bob
    assert bob.get(DB).status_code == 200
    assert bob.post(f"{DB}/branches", json={"name": "dev"}).status_code == 201
    assert bob.post(f"{DB}/branches/dev/passwords").status_code == 201
    for answer in (
        bob.post(f"{DB}/branches/main/passwords"),
        bob.delete(DB),
        bob.patch(DB, json={"insights_raw_queries": True}),
        bob.delete(f"{DB}/branches/main"),
        bob.get(f"{ORG}/audit-log"),
        bob.patch(ORG, json={"billing_email": "b@example.com"}),
        bob.post(f"{ORG}/teams", json={"name": "t"}),
        bob.patch(f"{ORG}/members/{desk.bob.id}", json={"role": "admin"}),
        bob.post(f"{ORG}/invitations", json={"email": "x@example.com"}),
    ):
        assert refused(answer) == (403, "forbidden")
    assert desk.as_ann.post(f"{DB}/branches/main/passwords").status_code == 201


def test_roles_are_given_and_taken(desk: Desk) -> None:
    ann, at = desk.as_ann, f"{ORG}/members"
    listed = ann.get(at).json()
    assert [(m["user"]["email"], m["role"]) for m in listed["data"]] == [
        ("ann@example.com", "admin"),
        ("bob@example.com", "member"),
    ]
    assert (listed["total_count"], listed["total_pages"]) == (2, 1)
    assert [m["user"]["id"] for m in ann.get(at, params={"q": "OB@ex"}).json()["data"]] == [desk.bob.id]
    assert ann.get(at, params={"q": "%"}).json()["data"] == []
    assert refused(ann.get(at, params={"q": "x" * 60_000})) == (422, "unprocessable")
    assert ann.get(f"{at}/{desk.bob.id}").json() == listed["data"][1]
    # Nobody changes their own role, and there is no other role.
    assert refused(ann.patch(f"{at}/{desk.ann.id}", json={"role": "member"})) == (422, "unprocessable")
    for role in ("owner", "", "admin'--", "x" * 300, 7, None):
        assert ann.patch(f"{at}/{desk.bob.id}", json={"role": role}).status_code == 422
    assert ann.patch(f"{at}/{desk.bob.id}", json={"role": "admin"}).json()["role"] == "admin"
    assert desk.as_bob.get(f"{ORG}/audit-log").status_code == 200
    assert desk.as_bob.patch(f"{at}/{desk.ann.id}", json={"role": "member"}).status_code == 200
    # What was asked with the old role a moment ago is refused now.
    assert refused(ann.get(f"{ORG}/audit-log")) == (403, "forbidden")
    assert refused(ann.get(f"{at}/{'x' * 12}")) == (404, "not_found")


def test_who_is_taken_out_has_lost_everything(desk: Desk) -> None:
    made = desk.as_bob.post(f"{DB}/branches", json={"name": "dev"})
    assert made.status_code == 201
    password = desk.as_bob.post(f"{DB}/branches/dev/passwords").json()
    token = desk.as_bob.post(f"{ORG}/service-tokens", json={"name": "bobs"}).json()
    headers = {"Authorization": f"{token['id']}:{token['token']}"}
    assert (
        httpx.get(
            f"{desk.served.url}/v1/organizations", headers=headers, timeout=60, trust_env=False
        ).status_code
        == 200
    )
    before = len(desk.published)
    at = f"{ORG}/members/{desk.bob.id}?delete_passwords=true&delete_service_tokens=true"
    assert desk.as_ann.delete(at).status_code == 204
    assert len(desk.published) == before + 1
    assert refused(desk.as_bob.get(DB)) == (404, "not_found")
    assert desk.as_bob.get("/v1/organizations").json()["data"] == []
    assert desk.as_bob.get("/v1/user").json()["default_organization"] is None
    assert (
        httpx.get(
            f"{desk.served.url}/v1/organizations", headers=headers, timeout=60, trust_env=False
        ).status_code
        == 401
    )
    assert desk.as_ann.get(f"{DB}/branches/dev/passwords/{password['id']}").status_code == 404
    assert refused(desk.as_ann.delete(f"{ORG}/members/{desk.ann.id}")) == (422, "unprocessable")
    assert refused(desk.as_ann.delete(at)) == (404, "not_found")


def test_whoever_creates_a_database_administers_it(desk: Desk) -> None:
    bob = desk.as_bob
    assert bob.post(f"{ORG}/databases", json={"name": "bobs", "cluster_size": "PS_10"}).status_code == 201
    assert bob.patch(f"{ORG}/databases/bobs", json={"insights_raw_queries": True}).status_code == 200
    assert bob.delete(f"{ORG}/databases/bobs").status_code == 204
    with client_of(desk.served, desk.store, desk.shop.organization, ["create_databases"]) as token:
        assert (
            token.post(f"{ORG}/databases", json={"name": "jobs", "cluster_size": "PS_10"}).status_code == 201
        )
        assert token.get(f"{ORG}/databases/jobs/branches/main").status_code == 200
        assert token.get(f"{DB}/branches/main").status_code == 403


def test_an_organization_is_changed(desk: Desk) -> None:
    ann = desk.as_ann
    body = {"billing_email": "Bills@Example.com", "invoice_budget_amount": 100}
    told = ann.patch(ORG, json=body).json()
    assert (told["billing_email"], told["invoice_budget_amount"]) == ("bills@example.com", "100")
    assert ann.patch(ORG).json() == ann.get(ORG).json()
    bad: list[dict[str, Any]] = [
        {"billing_email": "none"},
        {"invoice_budget_amount": -1},
        {"invoice_budget_amount": 2**31},
        {"idp_managed_roles": "yes please"},
        {"billing_email": ["a@b.de"]},
    ]
    for one in bad:
        assert refused(ann.patch(ORG, json=one))[0] == 422


# teams


def test_a_team_gives_rights_on_its_databases(desk: Desk) -> None:
    ann, bob, at = desk.as_ann, desk.as_bob, f"{ORG}/teams"
    made = ann.post(at, json={"name": "Data Team", "description": "all"}).json()
    assert (made["slug"], made["description"], made["members"], made["databases"]) == (
        "data-team",
        "all",
        [],
        [],
    )
    assert made["creator"]["id"] == desk.ann.id
    one = f"{at}/data-team"
    joined = ann.post(f"{one}/members", json={"user_id": desk.bob.id}).json()
    assert (joined["user"]["id"], joined["actor"]["id"], joined["passwords"]) == (
        desk.bob.id,
        desk.ann.id,
        [],
    )
    assert bob.post(f"{DB}/branches/main/passwords").status_code == 403
    told = ann.put(f"{one}/databases/shop", json={"role": "analyst"}).json()
    assert ([d["name"] for d in told["analyst_databases"]], told["databases"]) == (["shop"], [])
    reader = f"{DB}/branches/main/passwords"
    assert bob.post(reader, json={"role": "reader"}).status_code == 201
    assert bob.post(reader, json={"role": "admin"}).status_code == 403
    assert [d["name"] for d in ann.put(f"{one}/databases/shop").json()["databases"]] == ["shop"]
    assert bob.post(reader, json={"role": "admin"}).status_code == 201
    assert bob.patch(DB, json={"insights_raw_queries": True}).status_code == 200
    (member,) = ann.get(f"{one}/members").json()["data"]
    assert len(member["passwords"]) == 2
    assert ann.get(f"{one}/members/{desk.bob.id}").json() == member
    assert ann.get(f"{one}/members/{member['id']}").json() == member
    renamed = ann.patch(one, json={"name": "Crew"}).json()
    assert renamed["slug"] == "crew"
    assert refused(ann.get(one)) == (404, "not_found")
    one = f"{at}/crew"
    assert [team["slug"] for team in bob.get(at, params={"q": "cre"}).json()["data"]] == ["crew"]
    assert ann.delete(f"{one}/members/{desk.bob.id}?delete_passwords=true").status_code == 204
    assert ann.get(reader).json()["data"] == []
    assert bob.patch(DB, json={"insights_raw_queries": True}).status_code == 403
    ann.post(f"{one}/members", json={"user_id": desk.bob.id})
    assert bob.patch(DB, json={"insights_raw_queries": True}).status_code == 200
    assert ann.delete(f"{one}/databases/shop").status_code == 204
    assert bob.patch(DB, json={"insights_raw_queries": True}).status_code == 403
    assert ann.delete(one).status_code == 204
    assert refused(ann.delete(one)) == (404, "not_found")


def test_what_a_team_cannot_be(desk: Desk) -> None:
    ann, at = desk.as_ann, f"{ORG}/teams"
    stranger = make_user(desk.store, "eve@example.com", None)
    ann.post(at, json={"name": "crew"})
    bad: list[Any] = [
        {},
        {"name": ""},
        {"name": "!!!"},
        {"name": "Crew"},
        {"name": "x" * 101},
        {"name": 7},
        [],
        "x",
    ]
    for body in bad:
        assert refused(ann.post(at, json=body))[0] == 422, body
    for user_id in (stranger.id, "x" * 12, "' OR 1=1", ""):
        assert refused(ann.post(f"{at}/crew/members", json={"user_id": user_id}))[0] == 422
    assert refused(ann.put(f"{at}/crew/databases/shop", json={"role": "owner"}))[0] == 422
    assert refused(ann.put(f"{at}/crew/databases/none"))[0] == 404
    assert refused(ann.put(f"{at}/none/databases/shop"))[0] == 404
    assert refused(ann.get(f"{at}/%00"))[0] == 404


# service tokens


def test_members_have_tokens_of_their_own(desk: Desk) -> None:
    ann, bob, at = desk.as_ann, desk.as_bob, f"{ORG}/service-tokens"
    hers = ann.post(at, json={"name": "hers"}).json()
    his = bob.post(at, json={"name": "his", "ttl": 3600}).json()
    assert his["expires_at"] is not None
    assert {one["name"] for one in bob.get(at).json()["data"]} == {"hers", "his"}
    assert (
        bob.post(f"{at}/{his['id']}/access", json={"database": "shop", "access": ["read_branch"]}).status_code
        == 200
    )
    wide = {"database": "shop", "access": ["delete_database"]}
    assert refused(bob.post(f"{at}/{his['id']}/access", json=wide)) == (403, "forbidden")
    assert refused(bob.post(f"{at}/{hers['id']}/access", json={"access": []})) == (403, "forbidden")
    assert refused(bob.request("DELETE", f"{at}/{hers['id']}/access", json={"access": []})) == (
        403,
        "forbidden",
    )
    assert refused(bob.delete(f"{at}/{hers['id']}")) == (403, "forbidden")
    assert ann.post(f"{at}/{his['id']}/access", json=wide).status_code == 200
    assert ann.delete(f"{at}/{his['id']}").status_code == 204


# OAuth operations


def test_an_application_and_its_tokens(desk: Desk) -> None:
    ann, at = desk.as_ann, f"{ORG}/oauth-applications"
    callback = "https://app.example.com/callback"
    body = {"name": "App", "redirect_uri": callback, "scopes": ["read_user", "organization:read_databases"]}
    made = ann.post(at, json=body).json()
    assert (made["domain"], made["tokens"]) == ("https://app.example.com", 0)
    assert made["scopes"] == "organization:read_databases user:read_user"
    assert made["scopes_by_resource"]["organization"] == ["read_databases"]
    (listed,) = ann.get(at).json()["data"]
    assert listed == {**made, "client_secret": None}
    assert ann.get(f"{at}/{made['id']}").json() == listed
    bad: list[dict[str, Any]] = [
        {},
        {**body, "scopes": ["fly"]},
        {**body, "redirect_uri": "http://a.b/"},
        {**body, "domain": "https://b.c"},
        {**body, "name": "x" * 101},
        {**body, "name": "a\nb"},
        {**body, "scopes": "read_user"},
    ]
    for one in bad:
        assert refused(ann.post(at, json=one))[0] == 422, one

    def code() -> str:
        with desk.store.write() as tx:
            return tx.oauth_tokens.allow(made["id"], desk.bob.id, callback, ["user:read_user"], None)

    fields = {"client_id": made["client_id"], "client_secret": made["client_secret"]}
    exchange = {**fields, "grant_type": "authorization_code", "redirect_uri": callback}
    token = ann.post(f"{at}/{made['id']}/token", json={**exchange, "code": code()}).json()
    assert (token["actor_id"], token["actor_type"]) == (desk.bob.id, "User")
    accesses = token["oauth_accesses_by_resource"]
    assert [one["name"] for one in accesses["user"]["accesses"]] == ["read_user"]
    headers = {"Authorization": f"Bearer {token['token']}"}
    told = httpx.get(f"{desk.served.url}/v1/user", headers=headers, timeout=60, trust_env=False)
    assert told.json()["email"] == "bob@example.com"
    refresh = {**fields, "grant_type": "refresh_token", "refresh_token": token["plain_text_refresh_token"]}
    renewed = ann.post(f"{at}/{made['id']}/token", json=refresh).json()
    assert renewed["id"] == token["id"]
    for wrong in (
        refresh,
        {**exchange, "code": "x"},
        {**exchange, "code": code(), "client_secret": "x"},
        {**exchange},
        {**exchange, "grant_type": "password"},
    ):
        assert refused(ann.post(f"{at}/{made['id']}/token", json=wrong))[0] == 422
    # The refresh token that came twice ended the token.
    assert ann.get(f"{at}/{made['id']}/tokens").json()["total_count"] == 0
    token = ann.post(f"{at}/{made['id']}/token", json={**exchange, "code": code()}).json()
    shown = ann.get(f"{at}/{made['id']}/tokens/{token['id']}").json()
    assert (shown["token"], shown["plain_text_refresh_token"]) == (None, None)
    assert ann.get(at).json()["data"][0]["tokens"] == 1
    assert ann.delete(f"{at}/{made['id']}/tokens/{token['id']}").status_code == 204
    assert refused(ann.get(f"{at}/{made['id']}/tokens/{token['id']}")) == (404, "not_found")
    assert ann.delete(f"{at}/{made['id']}").status_code == 204
    assert refused(ann.get(f"{at}/{made['id']}")) == (404, "not_found")


def test_a_token_tells_its_application_alone_of_all_organizations_of_its_user(desk: Desk) -> None:
    ann, callback = desk.as_ann, "https://app.example.com/callback"
    body = {"name": "App", "redirect_uri": callback, "scopes": ["read_organization"]}
    app = ann.post(f"{ORG}/oauth-applications", json=body).json()
    at = f"{ORG}/oauth-applications/{app['id']}"
    with desk.store.write() as tx:
        tx.members.add(tx.organizations.ensure("secret-works").id, desk.bob.id, "admin")
        scopes = ["organization:read_organization"]
        code = tx.oauth_tokens.allow(app["id"], desk.bob.id, callback, scopes, None)

    def told(token: dict[str, Any]) -> list[str]:
        listed = token["oauth_accesses_by_resource"]["organization"]["organizations"]
        return sorted(one["name"] for one in listed)

    exchange = {
        "client_id": app["client_id"], "client_secret": app["client_secret"], "code": code,
        "grant_type": "authorization_code", "redirect_uri": callback,
    }  # fmt: skip
    made = ann.post(f"{at}/token", json=exchange).json()
    assert told(made) == ["acme", "secret-works"]
    assert told(ann.get(f"{at}/tokens/{made['id']}").json()) == ["acme"]
    with client_of(desk.served, desk.store, desk.shop.organization) as token:
        for reader in (ann, token):
            assert [told(one) for one in reader.get(f"{at}/tokens").json()["data"]] == [["acme"]]


# the audit log


def test_the_audit_log_is_read_with_its_filters(desk: Desk) -> None:
    desk.as_bob.post(f"{DB}/branches", json={"name": "dev"})
    desk.clock.forward(1)
    desk.as_ann.post(f"{DB}/branches", json={"name": "other"})
    desk.clock.forward(1)
    desk.as_ann.delete(f"{DB}/branches/dev")
    at = f"{ORG}/audit-log"

    def read(*filters: str, **asked: Any) -> dict[str, Any]:
        query = urlencode([*(("filters[]", one) for one in filters), *asked.items()])
        answer = desk.as_ann.get(f"{at}?{query}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    everything = read()
    assert [one["audit_action"] for one in everything["data"]] == [
        "branch.deleted",
        "branch.created",
        "branch.created",
    ]
    newest = everything["data"][0]
    assert (newest["actor_display_name"], newest["actor_type"]) == ("Ann", "User")
    assert (newest["auditable_type"], newest["auditable_display_name"]) == ("DatabaseBranch", "dev")
    assert (newest["action"], newest["remote_ip"]) == ("deleted", "127.0.0.1")
    assert (everything["has_next"], everything["has_prev"]) == (False, False)
    first = read(limit=2)
    assert (len(first["data"]), first["has_next"], first["cursor_end"]) == (2, True, first["data"][1]["id"])
    rest = read(limit=2, starting_after=first["cursor_end"])
    assert [one["id"] for one in rest["data"]] == [everything["data"][2]["id"]]
    assert (rest["has_next"], rest["has_prev"]) == (False, True)
    back = read(ending_before=rest["cursor_start"])
    assert [one["id"] for one in back["data"]] == [one["id"] for one in first["data"]]
    assert len(read("audit_action:branch.created")["data"]) == 2
    assert len(read("audit_action:branch.created", f"actor_id:{desk.bob.id}")["data"]) == 1
    assert len(read("audit_action:branch.created", "audit_action:branch.deleted")["data"]) == 3
    assert read("audit_action:nothing")["data"] == []
    assert len(read(limit=0)["data"]) == 3
    for bad in (
        [("filters[]", "audit_action:")],
        [("filters[]", "day:monday")],
        [("filters[]", "x\0:y")],
        [("starting_after", "nothing")],
        [("starting_after", "\0")],
        [("starting_after", newest["id"]), ("ending_before", newest["id"])],
        [("limit", "-1")],
        [("limit", "many")],
    ):
        assert refused(desk.as_ann.get(f"{at}?{urlencode(bad)}"))[0] == 422, bad


# costs


@pytest.mark.parametrize("path", ["/members", "/teams", "/teams/crew/members", "/invitations", "/audit-log"])
def test_lists_cost_the_same_however_long(desk: Desk, path: str) -> None:
    counted: list[str] = []

    def grow(begin: int, end: int) -> None:
        with desk.store.write() as tx:
            team = tx.teams.get(desk.shop.organization.id, "crew")
            for number in range(begin, end):
                user = tx.users.add(f"u{number}@example.com")
                tx.members.add(desk.shop.organization.id, user.id, "member")
                tx.teams.add_member(team, user.id, desk.ann.id)
                other = tx.teams.create(desk.shop.organization.id, f"team {number}", None, user.id)
                tx.teams.add_member(other, user.id, user.id)
                tx.invitations.create(desk.shop.organization.id, f"i{number}@example.com", "member", user.id)
                tx.passwords.create(desk.shop.branch.id, actor_id=user.id)

    def cost() -> int:
        counted.clear()
        assert desk.as_ann.get(f"{ORG}{path}?per_page=100").status_code == 200
        return len(counted)

    desk.as_ann.post(f"{ORG}/teams", json={"name": "crew"})
    desk.as_ann.put(f"{ORG}/teams/crew/databases/shop")
    grow(0, 3)
    event.listen(desk.store.engine, "before_cursor_execute", lambda *a: counted.append(a[2]))
    few = cost()
    grow(3, 30)
    assert cost() == few <= 18


# limits


def test_a_window_begins_with_its_first() -> None:
    now = [0.0]
    windows = Windows(2, lambda: now[0])
    assert [windows.count("a"), windows.count("a"), windows.count("b")] == [0, 0, 0]
    now[0] = 20
    assert windows.count("a") == 40
    now[0] = 60
    assert [windows.count("a"), windows.count("a")] == [0, 0]
    assert windows.count("a") == 60


def test_each_credential_has_its_requests(desk: Desk) -> None:
    settings = Settings(StatedPreconditions(), requests_per_minute=5, failures_per_minute=3)
    desk.served.use(desk.store, settings)
    assert [desk.as_ann.get(ORG).status_code for _ in range(7)] == [200] * 5 + [429] * 2
    answer = desk.as_ann.get(ORG)
    assert refused(answer) == (429, "rate_limited")
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert desk.as_ann.post(f"{ORG}/teams", json={"name": "x"}).status_code == 429
    # Others are not concerned, and what anybody may read is not counted.
    assert desk.as_bob.get(ORG).status_code == 200
    assert [desk.as_ann.get("/v1/regions").status_code for _ in range(7)] == [200] * 7


def test_wrong_credentials_are_slowed_and_right_ones_are_not(desk: Desk) -> None:
    settings = Settings(StatedPreconditions(), failures_per_minute=3)
    desk.served.use(desk.store, settings)
    wrong = [f"Bearer pscale_oauth_{number}" for number in range(3)] + [f"{'x' * 12}:{n}" for n in range(3)]
    told = [
        httpx.get(
            desk.served.url + ORG, headers={"Authorization": one}, timeout=60, trust_env=False
        ).status_code
        for one in wrong
    ]
    assert told == [401, 401, 401, 429, 429, 429]
    assert desk.as_ann.get(ORG).status_code == 200
