"""The login pages and the OAuth endpoints, as browsers and programs use them and as others abuse them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from homeworld.api.calls import Settings
from homeworld.api.login_forms import way_back
from homeworld.api.login_oauth import DEVICE_GRANT
from homeworld.api.schemas.oauth import origin_of
from homeworld.model.errors import InvalidError
from homeworld.store.store import Store
from homeworld.store.users import User
from tests.support.api import ServedApi, StatedPreconditions
from tests.support.people import PASSWORD, Browser, acting_as, make_user
from tests.support.stores import Shop, TestClock, make_shop

TOOL = "a-tool-on-the-users-machine"
CALLBACK = "https://app.example.com/callback"


@dataclass
class Desk:
    """An API with a shop, an administrator and a browser."""

    store: Store
    clock: TestClock
    shop: Shop
    served: ServedApi
    ann: User
    browser: Browser

    def post(self, path: str, **fields: str) -> httpx.Response:
        """Send a form as a program does."""
        return httpx.post(self.served.url + path, data=fields, timeout=60, trust_env=False)

    def device(self) -> dict[str, Any]:
        """A device asks."""
        return self.post("/oauth/authorize_device", client_id=TOOL, scope="read_user").json()

    def poll(self, device: dict[str, Any], client_id: str = TOOL) -> httpx.Response:
        """A device asks whether its user said yes."""
        return self.post(
            "/oauth/token", grant_type=DEVICE_GRANT, device_code=device["device_code"], client_id=client_id
        )


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    ann = make_user(sqlite_store, "ann@example.com", shop.organization.id, "admin")
    served_api.use(sqlite_store, Settings(StatedPreconditions()))
    browser = Browser(served_api.url)
    yield Desk(sqlite_store, clock, shop, served_api, ann, browser)
    browser.close()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def path_of(url: str) -> str:
    return urlsplit(url).path


def error_of(answer: httpx.Response) -> tuple[int, str]:
    told = answer.json()
    assert set(told) == {"error", "error_description"}
    return answer.status_code, told["error"]


# devices


def test_a_device_login_from_its_beginning_to_its_end(desk: Desk) -> None:
    device = desk.device()
    assert device["verification_uri"] == f"{desk.served.url}/oauth/device"
    assert error_of(desk.poll(device)) == (400, "authorization_pending")
    # Whoever opens the link logs in first and comes back to it.
    desk.browser.open(device["verification_uri_complete"])
    assert desk.browser.place.startswith("/login?next=")
    page = desk.browser.log_in("ann@example.com")
    assert device["user_code"] in page
    assert "everything that you are allowed" in page
    page = desk.browser.submit("/oauth/device", answer="allow")
    assert "connected" in page
    token = desk.poll(device)
    assert token.status_code == 200
    assert token.headers["cache-control"] == "no-store"
    told = token.json()
    assert (told["token_type"], told["expires_in"]) == ("Bearer", 30 * 24 * 3600)
    with httpx.Client(
        base_url=desk.served.url, timeout=60, trust_env=False, headers=bearer(told["access_token"])
    ) as http:
        assert http.get("/v1/user").json()["email"] == "ann@example.com"
        assert [one["name"] for one in http.get("/v1/organizations").json()["data"]] == ["acme"]
        assert http.get("/oauth/token/info").json()["sub"] == desk.ann.id
        assert error_of(desk.poll(device)) == (400, "invalid_grant")
        answer = desk.post("/oauth/revoke", client_id=TOOL, client_secret="any", token=told["access_token"])
        assert (answer.status_code, answer.json()) == (200, {})
        refused = http.get("/v1/organizations")
        assert (refused.status_code, refused.json()["error"]) == (401, "invalid_token")
        assert http.get("/oauth/token/info").json() == {"active": False}
    assert desk.post("/oauth/revoke", client_id=TOOL, token="never was one").status_code == 200


def test_a_device_that_is_denied_or_unknown(desk: Desk) -> None:
    device = desk.device()
    desk.browser.open(device["verification_uri_complete"])
    desk.browser.log_in("ann@example.com")
    assert "denied" in desk.browser.submit("/oauth/device", answer="deny")
    assert error_of(desk.poll(device)) == (400, "access_denied")
    assert error_of(desk.poll({"device_code": "x"})) == (400, "invalid_grant")
    assert error_of(desk.poll(desk.device(), "another")) == (400, "invalid_grant")
    late = desk.device()
    desk.clock.forward(15 * 60)
    assert error_of(desk.poll(late)) == (400, "expired_token")
    assert "No device waits" in desk.browser.open(late["verification_uri_complete"])


def test_user_codes_cannot_be_tried_for_long(desk: Desk) -> None:
    desk.browser.open("/login")
    desk.browser.log_in("ann@example.com")
    for _ in range(20):
        desk.browser.open("/oauth/device?user_code=BBBB-BBBB")
        assert desk.browser.status == 404
    desk.browser.open("/oauth/device?user_code=BBBB-BBBB")
    assert desk.browser.status == 429
    assert 0 < int(desk.browser.headers["retry-after"]) <= 600
    device = desk.device()
    desk.browser.open(device["verification_uri_complete"])
    assert desk.browser.status == 429
    desk.clock.forward(600)
    desk.browser.open(device["verification_uri_complete"])
    assert desk.browser.status == 200


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, (400, "unsupported_grant_type")),
        ({"grant_type": "password"}, (400, "unsupported_grant_type")),
        ({"grant_type": DEVICE_GRANT}, (400, "invalid_request")),
        ({"grant_type": DEVICE_GRANT, "client_id": "x" * 300}, (400, "invalid_request")),
        ({"grant_type": DEVICE_GRANT, "client_id": "x\0"}, (400, "invalid_request")),
        ({"grant_type": DEVICE_GRANT, "client_id": "x" * 100_000}, (400, "invalid_request")),
        ({"grant_type": DEVICE_GRANT, "client_id": TOOL}, (400, "invalid_grant")),
        ({"grant_type": "refresh_token", "client_id": TOOL}, (400, "invalid_grant")),
        ({"grant_type": "authorization_code", "client_id": TOOL}, (401, "invalid_client")),
    ],
)
def test_bad_token_requests_are_told_in_oauths_form(
    desk: Desk, fields: dict[str, str], expected: tuple[int, str]
) -> None:
    assert error_of(desk.post("/oauth/token", **fields)) == expected


@pytest.mark.parametrize("body", [b"\xff\xfe", b"a=%ff", b"&".join(b"a=1" for _ in range(100)), b"[" * 1000])
def test_bytes_that_are_no_form(desk: Desk, body: bytes) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = httpx.post(
        desk.served.url + "/oauth/token", content=body, headers=kind, timeout=60, trust_env=False
    )
    assert 400 <= answer.status_code < 500
    assert answer.json()


# the pages


def test_pages_let_a_browser_load_and_run_nothing(desk: Desk) -> None:
    desk.browser.open("/login?next=/oauth/device")
    headers = desk.browser.headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self'" in policy
    assert "script" not in policy + desk.browser.page
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    cookies = headers.get_list("set-cookie")
    assert all("HttpOnly" in cookie and "SameSite=lax" in cookie for cookie in cookies)
    assert "http" not in desk.browser.page.replace("http-equiv", "")


def test_what_is_filled_in_is_escaped(desk: Desk) -> None:
    evil = '"><script>alert(1)</script>'
    desk.browser.open("/login")
    page = desk.browser.submit("/login", email=evil, password="x")
    assert desk.browser.status == 401
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    desk.browser.log_in("ann@example.com")
    page = desk.browser.open(f"/oauth/device?user_code={evil}")
    assert "<script" not in page


def test_a_form_from_elsewhere_is_not_taken(desk: Desk) -> None:
    device = desk.device()
    desk.browser.open(device["verification_uri_complete"])
    desk.browser.log_in("ann@example.com")
    hidden = desk.browser.hidden()
    assert hidden["user_code"] == device["user_code"]
    http = desk.browser.http
    fields = {"user_code": device["user_code"], "answer": "allow"}
    stranger = Browser(desk.served.url)
    stranger.open("/login")
    tries: list[tuple[dict[str, str], dict[str, str]]] = [
        (fields, {}),
        ({**fields, "form_token": "x"}, {}),
        ({**fields, "form_token": stranger.hidden()["form_token"]}, {}),
        ({**fields, "form_token": hidden["form_token"]}, {"Sec-Fetch-Site": "cross-site"}),
        ({**fields, "form_token": hidden["form_token"]}, {"Sec-Fetch-Site": "same-site"}),
    ]
    stranger.close()
    for data, headers in tries:
        assert http.post("/oauth/device", data=data, headers=headers).status_code == 403
    for path in ("/login", "/logout", "/login/password", "/oauth/authorize", "/invitations/x"):
        assert http.post(path, data={}).status_code == 403
    assert error_of(desk.poll(device)) == (400, "authorization_pending")


@pytest.mark.parametrize(
    "asked",
    [
        "https://evil.example", "//evil.example", "/\\evil.example", "http:/oauth/device", "/v1/user", "",
        "javascript:alert(1)", "/oauth/device\r\nSet-Cookie: a=b", "/oauth/../x\\",
        "//evil.example/oauth/device",
    ],
)  # fmt: skip
def test_a_login_leads_to_our_own_pages_only(asked: str) -> None:
    assert way_back(asked) == "/login"


def test_a_login_leads_back() -> None:
    assert way_back("/oauth/device?user_code=BCDF-GHJK") == "/oauth/device?user_code=BCDF-GHJK"


def test_passwords_cannot_be_tried_for_long(desk: Desk) -> None:
    browser = desk.browser
    browser.open("/login")
    for wrong in ("", "x", PASSWORD.upper(), PASSWORD * 50):
        browser.log_in("ann@example.com", wrong)
        assert (browser.status, "not right" in browser.page) == (401, True)
    # A right one begins the count anew.
    browser.log_in("ann@example.com")
    assert "logged in" in browser.page
    browser.submit("/logout")
    assert "Log in" in browser.page
    for _ in range(10):
        browser.log_in("ann@example.com", "wrong")
        assert browser.status == 401
        browser.open("/login")
    browser.log_in("ann@example.com")
    assert browser.status == 429
    assert int(browser.headers["retry-after"]) > 0
    # Other accounts are not concerned, and nobody is told who exists.
    browser.open("/login")
    browser.log_in("nobody@example.com", "wrong")
    assert browser.status == 401
    desk.clock.forward(601)
    browser.open("/login")
    assert "logged in" in browser.log_in("ann@example.com")


def test_who_is_disabled_is_out(desk: Desk) -> None:
    desk.browser.open("/login")
    desk.browser.log_in("ann@example.com")
    with acting_as(desk.served, desk.store, desk.ann) as http:
        with desk.store.write() as tx:
            tx.users.disable(desk.ann.id)
        assert http.get("/v1/user").status_code == 401
    assert "Log in" in desk.browser.open("/login")
    desk.browser.log_in("ann@example.com")
    assert desk.browser.status == 401


def test_a_changed_password_ends_other_sessions(desk: Desk) -> None:
    other = Browser(desk.served.url)
    for browser in (desk.browser, other):
        browser.open("/login")
        browser.log_in("ann@example.com")
    page = desk.browser.submit("/login/password", password="wrong", new_password="another horse battery")
    assert "not right" in page
    page = desk.browser.submit("/login/password", password=PASSWORD, new_password="short")
    assert "10 to 256" in page
    page = desk.browser.submit("/login/password", password=PASSWORD, new_password="another horse battery")
    assert "You are logged in" in page
    assert "Log in" in other.open("/login")
    other.log_in("ann@example.com")
    assert other.status == 401
    assert "You are logged in" in other.log_in("ann@example.com", "another horse battery")
    other.close()


# invitations


def test_an_invitation_makes_a_member(desk: Desk) -> None:
    invitations = "/v1/organizations/acme/invitations"
    desk.clock.forward(1)
    with acting_as(desk.served, desk.store, desk.ann) as http:
        made = http.post(invitations, json={"email": "New@example.com", "role": "admin"}).json()
        assert (made["email"], made["role"], made["expired"]) == ("new@example.com", "admin", False)
        assert made["sender"]["id"] == desk.ann.id
        (listed,) = http.get(invitations).json()["data"]
        assert listed == {**made, "url": None}
        path = path_of(made["url"])
        page = desk.browser.open(path)
        assert "acme" in page
        assert "10 to 256" in desk.browser.submit(path, name="New One", password="short")
        assert "You belong to acme" in desk.browser.submit(path, name="New One", password=PASSWORD)
        assert desk.browser.open("/login").count("new@example.com") == 1
        members = http.get("/v1/organizations/acme/members").json()
        assert [(m["user"]["name"], m["role"]) for m in members["data"]] == [
            ("Ann", "admin"),
            ("New One", "admin"),
        ]
        assert http.get(invitations).json()["data"] == []
        assert desk.browser.open(path).count("not good any more") == 1
        assert desk.browser.status == 404
        log = http.get("/v1/organizations/acme/audit-log").json()["data"]
        assert {"organization.joined", "organization_membership.created", "user.signed_in"} <= {
            entry["audit_action"] for entry in log
        }
        assert path.rpartition("/")[2] not in str(log)


def test_an_invitation_is_for_one_person(desk: Desk) -> None:
    make_user(desk.store, "bob@example.com", None)
    with acting_as(desk.served, desk.store, desk.ann) as http:
        made = http.post("/v1/organizations/acme/invitations", json={"email": "bob@example.com"}).json()
        path = path_of(made["url"])
        # Ann has the link too, and is not Bob.
        desk.browser.open("/login")
        desk.browser.log_in("ann@example.com")
        desk.browser.open(path)
        assert desk.browser.place.startswith("/login?next=")
        desk.browser.submit("/logout")
        desk.browser.open(path)
        assert "You (bob@example.com)" in desk.browser.log_in("bob@example.com")
        assert "You belong" in desk.browser.submit(path)
        again = http.post("/v1/organizations/acme/invitations", json={"email": "bob@example.com"})
        assert (again.status_code, again.json()["code"]) == (422, "unprocessable")
        made = http.post("/v1/organizations/acme/invitations", json={"email": "eve@example.com"}).json()
        assert http.delete(f"/v1/organizations/acme/invitations/{made['id']}").status_code == 204
        assert http.delete(f"/v1/organizations/acme/invitations/{made['id']}").status_code == 404
        desk.browser.open(path_of(made["url"]))
        assert desk.browser.status == 404


# applications


def application(desk: Desk, scopes: list[str]) -> dict[str, Any]:
    with acting_as(desk.served, desk.store, desk.ann) as http:
        body = {"name": "App", "redirect_uri": CALLBACK, "scopes": scopes}
        answer = http.post("/v1/organizations/acme/oauth-applications", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()


def test_an_application_gets_what_its_user_allows(desk: Desk) -> None:
    app = application(desk, ["read_user", "read_databases"])
    verifier = "v" * 43
    proof = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")
    asked = httpx.QueryParams(
        client_id=app["client_id"], redirect_uri=CALLBACK, state="s & s", code_challenge=proof,
        code_challenge_method="S256", response_type="code",
    )  # fmt: skip
    desk.browser.open(f"/oauth/authorize?{asked}")
    page = desk.browser.log_in("ann@example.com")
    assert "Read all databases" in page
    assert "https://app.example.com" in desk.browser.headers["content-security-policy"]
    desk.browser.submit("/oauth/authorize", answer="allow")
    sent = urlsplit(desk.browser.place)
    assert f"{sent.scheme}://{sent.netloc}{sent.path}" == CALLBACK
    fields = parse_qs(sent.query)
    assert fields["state"] == ["s & s"]
    exchange = {
        "grant_type": "authorization_code", "code": fields["code"][0], "redirect_uri": CALLBACK,
        "client_id": app["client_id"], "client_secret": app["client_secret"], "code_verifier": verifier,
    }  # fmt: skip
    wrong = {**exchange, "client_secret": "wrong"}
    assert error_of(desk.post("/oauth/token", **wrong)) == (401, "invalid_client")
    token = desk.post("/oauth/token", **exchange).json()
    assert token["scope"] == "organization:read_databases user:read_user"
    with httpx.Client(
        base_url=desk.served.url, timeout=60, trust_env=False, headers=bearer(token["access_token"])
    ) as http:
        assert http.get("/v1/organizations/acme/databases").status_code == 200
        assert http.get("/v1/user").status_code == 200
        assert http.delete("/v1/organizations/acme/databases/shop").status_code == 403
    secret = base64.b64encode(f"{app['client_id']}:{app['client_secret']}".encode()).decode()
    renewed = httpx.post(
        f"{desk.served.url}/oauth/token", timeout=60, trust_env=False,
        headers={"Authorization": f"Basic {secret}"},
        data={"grant_type": "refresh_token", "refresh_token": token["refresh_token"]},
    )  # fmt: skip
    assert renewed.status_code == 200
    # The code once more: what came of it ends.
    assert error_of(desk.post("/oauth/token", **exchange)) == (400, "invalid_grant")
    headers = bearer(renewed.json()["access_token"])
    assert (
        httpx.get(f"{desk.served.url}/v1/user", headers=headers, timeout=60, trust_env=False).status_code
        == 401
    )


def test_nobody_is_sent_where_no_application_is_registered(desk: Desk) -> None:
    app = application(desk, ["read_user"])
    desk.browser.open("/login")
    desk.browser.log_in("ann@example.com")
    for asked in (
        {"client_id": "x", "redirect_uri": CALLBACK},
        {"client_id": app["client_id"], "redirect_uri": "https://evil.example/"},
        {"client_id": app["client_id"], "redirect_uri": CALLBACK + "/.."},
    ):
        desk.browser.open(f"/oauth/authorize?{httpx.QueryParams(asked)}")
        assert desk.browser.status == 422
    for asked, told in (
        ({"scope": "delete_databases"}, "invalid_scope"),
        ({"scope": "fly"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": "x", "code_challenge_method": "plain"}, "invalid_request"),
    ):
        desk.browser.open(f"/oauth/authorize?{httpx.QueryParams(client_id=app['client_id'], **asked)}")
        assert parse_qs(urlsplit(desk.browser.place).query) == {"error": [told]}
    desk.browser.open(f"/oauth/authorize?client_id={app['client_id']}")
    desk.browser.submit("/oauth/authorize", answer="deny")
    assert parse_qs(urlsplit(desk.browser.place).query) == {"error": ["access_denied"]}


@pytest.mark.parametrize(
    "uri",
    [
        "", "x", "ftp://a.b/", "http://a.b/", "https://", "https://u:p@a.b/", "https://a.b/#x", "https://a.b:x/",
        "https://a.b/ x", "https://a.b/;x", 'https://a.b/"', "https://a.b,c", "https://[::1", "https://ä.b/",
    ],
)  # fmt: skip
def test_an_application_cannot_send_users_just_anywhere(uri: str) -> None:
    with pytest.raises(InvalidError, match="redirect_uri"):
        origin_of(uri)


@pytest.mark.parametrize(
    ("uri", "origin"),
    [
        ("https://a.b/c?d=e", "https://a.b"),
        ("http://127.0.0.1:8000/c", "http://127.0.0.1:8000"),
        ("http://[::1]:80/c", "http://[::1]:80"),
    ],
)
def test_origins(uri: str, origin: str) -> None:
    assert origin_of(uri) == origin


def test_a_registered_device_is_narrowed_to_its_scopes(desk: Desk) -> None:
    app = application(desk, ["read_user", "read_databases"])
    client_id = app["client_id"]
    itself = {"client_id": client_id, "client_secret": app["client_secret"]}
    refused = desk.post("/oauth/authorize_device", **itself, scope="delete_databases")
    assert error_of(refused) == (400, "invalid_scope")
    # Nobody else asks users under its name, nor fetches what they said yes to.
    for secret in ({}, {"client_secret": "wrong"}):
        asked = desk.post("/oauth/authorize_device", client_id=client_id, scope="read_databases", **secret)
        assert error_of(asked) == (401, "invalid_client")
    device = desk.post("/oauth/authorize_device", **itself, scope="read_databases").json()
    desk.browser.open(device["verification_uri_complete"])
    assert "Read all databases" in desk.browser.log_in("ann@example.com")
    desk.browser.submit("/oauth/device", answer="allow")
    assert error_of(desk.poll(device, client_id)) == (401, "invalid_client")
    fetch = {"grant_type": DEVICE_GRANT, "device_code": device["device_code"], **itself}
    token = desk.post("/oauth/token", **fetch).json()
    headers = bearer(token["access_token"])
    with httpx.Client(base_url=desk.served.url, headers=headers, timeout=60, trust_env=False) as http:
        assert http.get("/v1/user").status_code == 403
        assert http.get("/v1/organizations/acme/databases/shop").status_code == 200
        assert http.delete("/v1/organizations/acme/databases/shop").status_code == 403
    # Only the application ends its own tokens.
    body = {"client_id": client_id, "client_secret": "wrong", "token": token["access_token"]}
    assert error_of(desk.post("/oauth/revoke", **body)) == (401, "invalid_client")
    body["client_secret"] = app["client_secret"]
    assert desk.post("/oauth/revoke", **body).status_code == 200
