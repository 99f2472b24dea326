"""Access as others abuse it: rights through others' tokens, links and names, used secrets, long values,
limits by another spelling.
"""

from __future__ import annotations

import base64
import hashlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi import FastAPI, Request
from sqlalchemy import select
from typer.testing import CliRunner

from homeworld.api import login
from homeworld.api.calls import Api, Settings
from homeworld.api.limits import Limits, Windows
from homeworld.api.login_oauth import DEVICE_GRANT
from homeworld.api.login_oidc import Oidc, Provider
from homeworld.api.schemas.oauth import origin_of
from homeworld.model.errors import InvalidError, TooManyError, UnavailableError
from homeworld.roles import users as user_commands
from homeworld.roles.serving import ApiServer
from homeworld.store.oauth_devices import Wait
from homeworld.store.store import Store
from homeworld.store.tables.access import guesses
from homeworld.store.users import User
from homeworld.store.users_secrets import hash_password, verify_password
from tests.support.api import ServedApi, StatedPreconditions, client_of
from tests.support.desk import refused
from tests.support.people import Browser, acting_as, make_user
from tests.support.stores import Shop, TestClock, make_shop

ORG = "/v1/organizations/acme"
TOKENS = f"{ORG}/service-tokens"
CALLBACK = "https://app.example.com/callback"


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

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form as a program does."""
        return httpx.post(self.served.url + path, data=fields, trust_env=False, timeout=30)

    def application(self, **more: Any) -> dict[str, Any]:
        """A registered application."""
        body = {"name": "App", "redirect_uri": CALLBACK, "scopes": ["read_user"], **more}
        made = self.as_ann.post(f"{ORG}/oauth-applications", json=body)
        assert made.status_code == 201, made.text
        return made.json()

    def actions(self) -> list[str]:
        """What the audit log tells, newest first."""
        return [one["audit_action"] for one in self.as_ann.get(f"{ORG}/audit-log").json()["data"]]


def desk_over(store: Store, clock: TestClock, served: ServedApi, **settings: Any) -> Iterator[Desk]:
    with store.write() as tx:
        shop = make_shop(tx)
    ann = make_user(store, "ann@example.com", shop.organization.id, "admin")
    clock.forward(1)
    bob = make_user(store, "bob@example.com", shop.organization.id)
    served.use(store, Settings(StatedPreconditions(), **settings))
    with acting_as(served, store, ann) as as_ann, acting_as(served, store, bob) as as_bob:
        yield Desk(store, clock, shop, served, ann, bob, as_ann, as_bob)


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    yield from desk_over(sqlite_store, clock, served_api)


@pytest.fixture
def either_desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    """The same, on SQLite and on PostgreSQL, which holds how long a text may be."""
    provider = Provider("https://sso.example.com", "c", "s", "Corp", ("example.com",), "acme")
    yield from desk_over(store, clock, served_api, sso=_Sso(provider))


class _Sso(Oidc):
    """A provider that sends browsers away, as far as a browser sees."""

    def send(self, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:  # noqa: ARG002 - as declared
        return f"{self.provider.issuer}/?state={state}"


# service tokens


def test_a_member_reaches_no_others_tokens_through_a_token_of_their_own(desk: Desk) -> None:
    hers = desk.as_ann.post(TOKENS, json={"name": "hers"}).json()
    his = desk.as_bob.post(TOKENS, json={"name": "his"}).json()
    for access in ("write_service_tokens", "delete_service_tokens"):
        given = desk.as_bob.post(f"{TOKENS}/{his['id']}/access", json={"access": [access]})
        assert refused(given) == (403, "forbidden")
    allowed = {"access": ["read_service_tokens", "read_branch"]}
    assert desk.as_bob.post(f"{TOKENS}/{his['id']}/access", json=allowed).status_code == 200
    headers = {"Authorization": f"{his['id']}:{his['token']}"}
    url = f"{desk.served.url}{TOKENS}/{hers['id']}"
    assert refused(httpx.delete(url, headers=headers, trust_env=False, timeout=30)) == (403, "forbidden")
    # An administrator may let a token do so, and that token may pass it on.
    with client_of(desk.served, desk.store, desk.shop.organization) as wide:
        both = {"access": ["write_service_tokens", "delete_service_tokens"]}
        assert wide.post(f"{TOKENS}/{hers['id']}/access", json=both).status_code == 200
    assert desk.as_ann.post(f"{TOKENS}/{his['id']}/access", json=both).status_code == 200


# who belongs where


def test_other_organizations_of_a_member_are_not_told(desk: Desk) -> None:
    with desk.store.write() as tx:
        secret = tx.organizations.ensure("secret-works")
        eve = tx.users.add("eve@example.com")
        tx.members.add(secret.id, eve.id, "admin")
    desk.clock.forward(1)
    with desk.store.write() as tx:
        tx.members.add(desk.shop.organization.id, eve.id, "member")
        tx.invitations.create(desk.shop.organization.id, "x@example.com", "member", eve.id)
    listed = desk.as_ann.get(f"{ORG}/members").json()["data"][-1]
    assert (listed["user"]["id"], listed["user"]["default_organization"]["name"]) == (eve.id, "acme")
    assert "secret-works" not in desk.as_ann.get(f"{ORG}/invitations").text
    with acting_as(desk.served, desk.store, eve) as as_eve:
        assert as_eve.get("/v1/user").json()["default_organization"]["name"] == "secret-works"


@pytest.mark.parametrize("how", ["removed", "demoted", "disabled"])
def test_nobody_comes_back_by_a_link_of_their_own(desk: Desk, how: str) -> None:
    member = f"{ORG}/members/{desk.bob.id}"
    assert desk.as_ann.patch(member, json={"role": "admin"}).status_code == 200
    body = {"email": "bobs.other@example.com", "role": "admin"}
    link = desk.as_bob.post(f"{ORG}/invitations", json=body).json()["url"]
    with client_of(desk.served, desk.store, desk.shop.organization) as token:
        another = token.post(f"{ORG}/invitations", json={"email": "new@example.com"}).json()["url"]
    assert httpx.get(link, trust_env=False, timeout=30).status_code == 200
    if how == "removed":
        assert desk.as_ann.delete(member).status_code == 204
    elif how == "demoted":
        assert desk.as_ann.patch(member, json={"role": "member"}).status_code == 200
    else:
        with desk.store.write() as tx:
            tx.users.disable(desk.bob.id)
    assert httpx.get(link, trust_env=False, timeout=30).status_code == 404
    # What a service token sent, which is nobody's, stays good.
    assert httpx.get(another, trust_env=False, timeout=30).status_code == 200


def test_a_disabled_administrator_is_no_administrator_who_is_left(store: Store) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        for email in ("ann@example.com", "bob@example.com"):
            tx.members.add(shop.organization.id, tx.users.add(email).id, "admin")
        ann, bob = tx.members.all(shop.organization.id)
        tx.users.disable(bob.user_id)
        with pytest.raises(InvalidError, match="last administrator"):
            tx.members.set_role(ann, "member")
        with pytest.raises(InvalidError, match="last administrator"):
            tx.members.remove(ann)
        tx.members.remove(bob)


# used secrets


def test_a_refresh_token_from_long_ago_ends_the_token_too(store: Store, clock: TestClock) -> None:
    with store.write() as tx:
        shop = make_shop(tx)
        ann = tx.users.add("ann@example.com")
        tx.members.add(shop.organization.id, ann.id, "admin")
        stolen = last = tx.oauth_tokens.issue(ann.id, "tool", application_id=None, scopes=None)
        # The thief renews twice, so that the owner's is not the last one that was used.
        for _ in range(3):
            clock.forward(1)
            renewed = tx.oauth_tokens.refresh(last.refresh, "tool")
            assert renewed is not None
            last = renewed
        assert tx.oauth_tokens.authenticate(last.access) is not None
        assert tx.oauth_tokens.refresh(stolen.refresh, "another tool") is None
        assert tx.oauth_tokens.authenticate(last.access) is not None
        assert tx.oauth_tokens.refresh(stolen.refresh, "tool") is None
        assert tx.oauth_tokens.authenticate(last.access) is None
        assert tx.oauth_tokens.refresh(last.refresh, "tool") is None
        (entry,) = tx.audit.page(shop.organization.id, limit=5).entries
        assert (entry.action, entry.target_id) == ("oauth_token.ended", last.token.id)


def test_a_proof_that_nobody_asked_for_is_refused(desk: Desk) -> None:
    app = desk.application()

    def exchange(challenge: str | None, **more: str) -> httpx.Response:
        with desk.store.write() as tx:
            code = tx.oauth_tokens.allow(app["id"], desk.bob.id, CALLBACK, ["user:read_user"], challenge)
        return desk.post(
            "/oauth/token", grant_type="authorization_code", code=code, redirect_uri=CALLBACK,
            client_id=app["client_id"], client_secret=app["client_secret"], **more,
        )  # fmt: skip

    assert exchange(None).status_code == 200
    # Somebody else's code, put into the answer to a login that began with a challenge.
    assert exchange(None, code_verifier="v" * 43).json()["error"] == "invalid_grant"
    challenge = base64.urlsafe_b64encode(hashlib.sha256(b"v" * 43).digest()).rstrip(b"=").decode()
    assert exchange(challenge).json()["error"] == "invalid_grant"
    assert exchange(challenge, code_verifier="v" * 43).status_code == 200


def test_an_application_that_went_away_gets_no_token_for_its_devices(desk: Desk) -> None:
    app = desk.application()
    itself = {"client_id": app["client_id"], "client_secret": app["client_secret"]}
    device = desk.post("/oauth/authorize_device", **itself).json()
    with desk.store.write() as tx:
        waiting = tx.devices.waiting(device["user_code"])
        assert waiting is not None
        tx.devices.answer(waiting, desk.ann.id, allow=True)
    assert desk.as_ann.delete(f"{ORG}/oauth-applications/{app['id']}").status_code == 204
    fetch = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], **itself}
    assert desk.post("/oauth/token", **fetch).json()["error"] == "invalid_grant"


def test_whoever_ends_a_token_is_told_in_the_audit_log(desk: Desk) -> None:
    with desk.store.write() as tx:
        token = tx.oauth_tokens.issue(desk.ann.id, "tool", application_id=None, scopes=None)
    for _ in range(2):
        assert desk.post("/oauth/revoke", client_id="tool", token=token.refresh).status_code == 200
    assert desk.actions() == ["user.ended_token"]


@pytest.mark.parametrize("how", ["changed", "disabled"])
def test_a_password_that_is_changed_while_it_is_looked_at_lets_nobody_in(
    desk: Desk, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def verify(kept: str | None, password: str) -> bool:
        right = verify_password(kept, password)
        with desk.store.write() as tx:
            if how == "changed":
                tx.users.set_password(desk.bob.id, "another digest")
            else:
                tx.users.disable(desk.bob.id)
        return right

    monkeypatch.setattr(login, "verify_password", verify)
    browser = Browser(desk.served.url)
    browser.open("/login")
    browser.log_in("bob@example.com")
    assert (browser.status, "homeworld_session" in browser.http.cookies) == (401, False)
    browser.close()


def test_a_lost_device_is_logged_out_everywhere(desk: Desk) -> None:
    browser, other = Browser(desk.served.url), Browser(desk.served.url)
    for one in (browser, other):
        one.open("/login")
        assert "Log out everywhere" in one.log_in("ann@example.com")
    with desk.store.write() as tx:
        lost = tx.oauth_tokens.issue(desk.ann.id, "tool", application_id=None, scopes=None)
        device, waiting = tx.devices.ask("tool", application_id=None, scopes=None)
        tx.devices.answer(device, desk.ann.id, allow=True)
    assert browser.http.post("/logout/everywhere").status_code == 403
    browser.submit("/logout/everywhere")
    assert browser.status == 200
    assert "Log in to Homeworld" in other.open("/login")
    with desk.store.write() as tx:
        assert tx.oauth_tokens.authenticate(lost.access) is None
        assert tx.oauth_tokens.refresh(lost.refresh, "tool") is None
        assert tx.devices.take(waiting, "tool") is Wait.UNKNOWN
        newest = tx.audit.page(desk.shop.organization.id, limit=1).entries[0]
    assert newest.action in {"user.logged_out_everywhere", "user.signed_in"}
    assert "You are logged in" in browser.log_in("ann@example.com")
    for one in (browser, other):
        one.close()


# long values, which PostgreSQL refuses to keep


def test_long_values_are_refused_and_not_too_much_for_the_store(either_desk: Desk) -> None:
    desk = either_desk
    app, browser = desk.application(), Browser(desk.served.url)
    sent = browser.http.get("/login/sso", params={"next": "/oauth/authorize?state=" + "s" * 3000})
    assert sent.status_code == 303
    assert sent.headers["location"].startswith("https://sso.example.com/")
    browser.open("/login")
    browser.log_in("ann@example.com")
    for challenge in ("x" * 42, "x" * 44, "x" * 4000, "x" * 42 + "="):
        asked = httpx.QueryParams(
            client_id=app["client_id"], code_challenge=challenge, code_challenge_method="S256"
        )
        browser.open(f"/oauth/authorize?{asked}")
        assert parse_qs(urlsplit(browser.place).query) == {"error": ["invalid_request"]}
        browser.open("/login")
        form = {**browser.hidden(), **asked, "answer": "allow"}
        answer = browser.http.post("/oauth/authorize", data=form)
        assert (answer.status_code, "invalid_request" in answer.headers["location"]) == (303, True)
    browser.close()
    body = {"name": "App", "redirect_uri": f"https://{'a.' * 400}com/", "scopes": ["read_user"]}
    assert refused(desk.as_ann.post(f"{ORG}/oauth-applications", json=body)) == (422, "unprocessable")


@pytest.mark.parametrize("uri", ["https://*/x", "https://*.example.com/", "https://a%2eb/", "https://a$b/"])
def test_a_host_is_one_host(uri: str) -> None:
    with pytest.raises(InvalidError, match="host"):
        origin_of(uri)


# limits and addresses


def test_a_credential_has_one_limit_however_it_is_written(desk: Desk) -> None:
    desk.served.use(desk.store, Settings(StatedPreconditions(), requests_per_minute=3))
    token = desk.as_ann.headers["authorization"].partition(" ")[2]
    spelled = [f"Bearer {token}", f"bearer {token}", f"BEARER    {token}", f"beaRer  {token}"]
    told = [
        httpx.get(
            desk.served.url + ORG, headers={"Authorization": one}, trust_env=False, timeout=30
        ).status_code
        for one in spelled
    ]
    assert told == [200, 200, 200, 429]


def test_wrong_device_codes_are_wrong_credentials(desk: Desk) -> None:
    desk.served.use(desk.store, Settings(StatedPreconditions(), failures_per_minute=3))
    fields = {"grant_type": DEVICE_GRANT, "device_code": "x", "client_id": "tool"}
    assert [desk.post("/oauth/token", **fields).status_code for _ in range(4)] == [400] * 3 + [429]
    # Devices that wait are not concerned.
    device = desk.post("/oauth/authorize_device", client_id="tool").json()
    fields["device_code"] = device["device_code"]
    assert desk.post("/oauth/token", **fields).json()["error"] == "authorization_pending"


@pytest.mark.parametrize(
    ("behind_proxy", "expected"), [(False, "127.0.0.1 http"), (True, "203.0.113.9 https")]
)
def test_only_a_proxy_that_is_there_says_who_its_clients_are(behind_proxy: bool, expected: str) -> None:
    app = FastAPI(openapi_url=None)

    def who(request: Request) -> str:
        assert request.client is not None
        return f"{request.client.host} {request.url.scheme}"

    app.add_api_route("/", who)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = ApiServer(app, listener, behind_proxy=behind_proxy)
        server.start()
        headers = {"X-Forwarded-For": "x, 203.0.113.9", "X-Forwarded-Proto": "https"}
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        assert httpx.get(url, headers=headers, trust_env=False, timeout=30).json() == expected
        server.stop(10)


@pytest.mark.parametrize("told", ["unknown", "_hidden", "x" * 5000])
def test_an_address_is_an_address(either_desk: Desk, told: str) -> None:
    # The served API of these tests believes what it is told, as one behind a proxy does.
    desk = either_desk
    made = desk.as_ann.post(f"{ORG}/teams", json={"name": "crew"}, headers={"X-Forwarded-For": told})
    assert made.status_code == 200
    (entry,) = desk.as_ann.get(f"{ORG}/audit-log").json()["data"]
    assert entry["remote_ip"] is None


# operators


def test_what_the_operator_does_to_a_user_is_told(desk: Desk, tmp_path: Path) -> None:
    url = desk.store.engine.url.render_as_string(hide_password=False)
    runner = CliRunner()
    for word in ("set-password", "log-out", "disable", "enable"):
        more = [word, "bob@example.com", "--store", url, "--data-dir", str(tmp_path)]
        done = runner.invoke(user_commands.app, more)
        assert done.exit_code == 0, done.output
    assert sorted(desk.actions()) == [
        "user.changed_password", "user.disabled", "user.enabled", "user.logged_out_everywhere",
    ]  # fmt: skip
    assert desk.as_bob.get(ORG).status_code == 401
    with acting_as(desk.served, desk.store, desk.bob) as again:
        assert again.get(ORG).status_code == 200


def test_the_second_of_two_installations_tells_no_password_that_is_nobodys(
    sqlite_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    calls: list[int] = []

    def meanwhile(password: str) -> str:
        calls.append(1)
        if len(calls) == 1:
            user_commands.make_first_user(sqlite_store, other, "acme")
        return hash_password(password)

    monkeypatch.setattr(user_commands, "hash_password", meanwhile)
    user_commands.make_first_user(sqlite_store, one, "acme")
    assert not (one / "first-user.json").exists()
    kept = json.loads((other / "first-user.json").read_text())
    with sqlite_store.read() as tx:
        user = tx.users.by_email(kept["email"])
    assert user is not None
    assert verify_password(user.password_hash, kept["password"])
    # Once more, after a death behind the commit: nothing is taken away.
    user_commands.make_first_user(sqlite_store, other, "acme")
    assert (other / "first-user.json").exists()


def test_an_answer_of_the_provider_that_drips_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    class Drip(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            for _ in range(1000):
                now[0] += 4
                yield b" "

    now = [0.0]
    monkeypatch.setattr("homeworld.api.login_oidc.time.monotonic", lambda: now[0])
    provider = Provider("https://sso.example.com", "c", "s", "Corp", ("example.com",), "acme")
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, stream=Drip()))
    with httpx.Client(transport=transport) as http:
        oidc = Oidc(provider, http)
        with pytest.raises(UnavailableError, match="does not end"):
            oidc.send("state", "nonce", "verifier", "https://x/")
    assert now[0] < 60


def test_limits_know_a_credential_by_what_it_is() -> None:
    limits = Limits(1, clock=lambda: 0.0)
    limits.request("Bearer a", "x")
    limits.request("id:secret", "x")
    for same in ("bearer  a ", " BEARER a", "id:secret ", " id:secret"):
        with pytest.raises(TooManyError):
            limits.request(same, "x")
    limits.request("Bearer A", "x")


def test_several_apis_hold_one_limit_together(store: Store, clock: TestClock) -> None:
    settings = Settings(StatedPreconditions(), requests_per_minute=100, one_of_several=True)
    apis = [Api(store, settings) for _ in range(3)]
    for api in apis:
        api.limits = Limits(100, clock=lambda: 0.0, tell=api.tell_requests)

    def allowed(api: Api, asked: int, credential: str = "Bearer a") -> int:
        for number in range(asked):
            try:
                api.limits.request(credential, "x")
            except TooManyError:
                return number
        return asked

    assert [allowed(api, 45) for api in apis[:2]] == [45, 45]
    # Each tells a tenth at a time: the third hears of the first two's with its own first tenth.
    assert allowed(apis[2], 100) <= 20
    assert allowed(apis[0], 100) + allowed(apis[1], 100) <= 20
    assert allowed(apis[2], 45, "Bearer b") == 45
    # Who asks seldom is never written about; one API alone writes nothing at all.
    assert allowed(apis[0], 9, "Bearer c") == 9
    assert allowed(Api(store, replace(settings, one_of_several=False)), 45, "Bearer d") == 45
    with store.engine.connect() as connection:
        assert len(connection.execute(select(guesses)).all()) == 2
    assert allowed(Api(store, replace(settings, requests_per_minute=10)), 1, "Bearer e") == 1
    with store.engine.connect() as connection:
        assert len(connection.execute(select(guesses)).all()) == 3
    clock.forward(60)
    with store.write() as tx:
        assert tx.sessions.told("x", 3, timedelta(seconds=60)) == (3, timedelta(seconds=60))
        assert tx.sessions.told("x", 4, timedelta(seconds=60)) == (7, timedelta(seconds=60))
    clock.forward(59)
    with store.write() as tx:
        assert tx.sessions.told("x", 1, timedelta(seconds=60)) == (8, timedelta(seconds=1))
    clock.forward(1)
    with store.write() as tx:
        assert tx.sessions.told("x", 1, timedelta(seconds=60)) == (1, timedelta(seconds=60))


def test_a_window_ends_with_the_others() -> None:
    now, told = [0.0], [(9, 20.0), (10, 20.0), (1, 60.0)]
    windows = Windows(10, lambda: now[0], lambda _key, _more, _seconds: told.pop(0))
    assert [windows.count("a"), windows.count("a"), windows.count("a")] == [0, 0, 20]
    now[0] = 20.0
    assert windows.count("a") == 0
    assert told == []


def test_a_limit_is_held_where_the_others_cannot_be_told() -> None:
    def silent(_key: str, _more: int, _seconds: float) -> tuple[int, float]:
        raise UnavailableError("the store does not answer")

    windows = Windows(5, lambda: 0.0, silent)
    assert [windows.count("a") for _ in range(7)] == [0] * 5 + [60] * 2


def test_nobody_is_given_more_than_the_giver_has(desk: Desk) -> None:
    member = f"{ORG}/members/{desk.bob.id}"
    team = desk.as_ann.post(f"{ORG}/teams", json={"name": "Ops"}).json()["slug"]
    on_shop = f"{ORG}/teams/{team}/databases/shop"
    joins = {"user_id": desk.bob.id}
    narrow = ["write_organization", "write_teams", "read_databases"]
    with client_of(desk.served, desk.store, desk.shop.organization, narrow) as token:
        assert refused(token.patch(member, json={"role": "admin"})) == (403, "forbidden")
        assert refused(token.put(on_shop, json={"role": "admin"})) == (403, "forbidden")
        assert desk.as_ann.put(on_shop, json={"role": "admin"}).status_code == 200
        assert refused(token.post(f"{ORG}/teams/{team}/members", json=joins)) == (403, "forbidden")
    with client_of(desk.served, desk.store, desk.shop.organization) as token:
        assert token.patch(member, json={"role": "admin"}).status_code == 200
        assert token.post(f"{ORG}/teams/{team}/members", json=joins).status_code == 200
    # Who takes a role away gives nothing.
    with client_of(desk.served, desk.store, desk.shop.organization, narrow) as token:
        assert token.patch(member, json={"role": "member"}).status_code == 200


def test_half_a_character_is_no_vschema_and_no_rule(desk: Desk) -> None:
    branch = f"{ORG}/databases/shop/branches/main"
    half = chr(92) + "ud800"
    vschema = json.dumps({"vschema": '{"tables": {"' + half + '": {}}}'})
    keyspace = f"{branch}/keyspaces/shop/vschema"
    kind = {"Content-Type": "application/json"}
    before = desk.as_ann.get(keyspace).json()
    assert desk.as_ann.patch(keyspace, content=vschema, headers=kind).status_code == 422
    rules = json.dumps(
        {"routing_rules": '{"rules": [{"from_table": "' + half + '", "to_tables": ["shop.t"]}]}'}
    )
    assert desk.as_ann.patch(f"{branch}/routing-rules", content=rules, headers=kind).status_code == 422
    assert desk.as_ann.get(keyspace).json() == before
    assert desk.as_ann.get(f"{branch}/routing-rules").status_code == 200


def test_a_browser_that_is_logged_out_while_it_answers_allows_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = desk.post("/oauth/authorize_device", client_id="a-tool", scope="read_user").json()
    browser = Browser(desk.served.url)
    browser.open(device["verification_uri_complete"])
    browser.log_in("ann@example.com")
    known = login._user  # type: ignore[reportPrivateUsage]

    def logged_out(api: Api, visit: Any) -> User | None:
        found = known(api, visit)
        with api.store.write() as tx:
            tx.users.log_out(desk.ann.id)
        return found

    monkeypatch.setattr(login, "_user", logged_out)
    browser.submit("/oauth/device", answer="allow")
    assert browser.place.startswith("/login")
    browser.close()
    polled = desk.post(
        "/oauth/token", grant_type=DEVICE_GRANT, device_code=device["device_code"], client_id="a-tool"
    )
    assert (polled.status_code, polled.json()["error"]) == (400, "authorization_pending")


@pytest.mark.parametrize("path", ["token", "authorize_device", "revoke"])
def test_credentials_that_are_no_text_are_refused(desk: Desk, path: str) -> None:
    headers = [(b"Authorization", b"Basic \xe9")]
    told = httpx.post(
        f"{desk.served.url}/oauth/{path}", data={"token": "x"}, headers=headers, trust_env=False, timeout=60
    )
    assert (told.status_code, told.json()["error"]) == (401, "invalid_client")
