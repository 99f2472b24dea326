"""Single sign-on, against a provider that really runs, and against tokens that such a one does not make."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from homeworld.api import login_oidc
from homeworld.api.calls import Settings
from homeworld.api.login_oidc import Oidc, Provider, checked_provider, identity_of
from homeworld.model.errors import ForbiddenError, HomeworldError, InvalidError, UnavailableError
from homeworld.store.store import Store
from tests.support.api import ServedApi, StatedPreconditions
from tests.support.people import Browser, make_user
from tests.support.stores import Shop, TestClock, make_shop

PEOPLE: list[dict[str, object]] = [
    {
        "sub": "1",
        "email": "Ann@corp.example",
        "email_verified": True,
        "name": "Ann A.",
        "homeworld_role": "admin",
    },
    {"sub": "2", "email": "bob@corp.example", "email_verified": True, "name": "Bob"},
    {"sub": "3", "email": "eve@elsewhere.example", "email_verified": True, "name": "Eve"},
    {"sub": "4", "email": "mallory@corp.example", "email_verified": False},
    {"sub": "5", "email": "bob@corp.example", "email_verified": True, "name": "Another Bob"},
]


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    """A provider on a free loopback port; it trusts whoever says who they are."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    people = [word for person in PEOPLE for word in ("--user-claims", json.dumps(person))]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "oidc_provider_mock", "--port", str(port), *people],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                httpx.get(f"{url}/jwks", timeout=60, trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                assert process.poll() is None, "the provider ended"
                assert time.monotonic() < deadline, "the provider did not start"
                time.sleep(0.1)
        yield url
    finally:
        process.kill()
        process.wait()


@dataclass
class Desk:
    """An API that trusts the provider, and a browser."""

    store: Store
    clock: TestClock
    shop: Shop
    served: ServedApi
    browser: Browser
    issuer: str
    back: str = ""

    def come_as(self, sub: str, way: str = "/login/sso") -> str:
        """Go to the provider, say there to be ``sub``, and come back; the page that it leads to."""
        self.browser.open(way)
        sent = self.browser.place
        assert sent.startswith(self.issuer)
        back = httpx.post(sent, data={"sub": sub}, timeout=60, trust_env=False)
        assert back.status_code == 302, back.text
        self.back = back.headers["location"]
        return self.browser.open(self.back)


@pytest.fixture
def desk(
    sqlite_store: Store, clock: TestClock, served_api: ServedApi, issuer: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    monkeypatch.setattr(login_oidc, "_TIMEOUT_SECONDS", 60.0)
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    back = f"{served_api.url}/login/sso/callback"
    made = httpx.post(
        f"{issuer}/oauth2/clients", json={"redirect_uris": [back]}, timeout=60, trust_env=False
    ).json()
    provider = Provider(
        issuer, made["client_id"], made["client_secret"], "Corp", ("corp.example",), shop.organization.name
    )
    oidc = Oidc(checked_provider(provider))
    served_api.use(sqlite_store, Settings(StatedPreconditions(), sso=oidc))
    browser = Browser(served_api.url)
    yield Desk(sqlite_store, clock, shop, served_api, browser, issuer)
    browser.close()
    oidc.close()


def roles(desk: Desk) -> dict[str, str]:
    with desk.store.read() as tx:
        members = tx.members.all(desk.shop.organization.id)
        users = tx.users.by_ids(member.user_id for member in members)
        return {users[member.user_id].email: member.role for member in members}


def test_nobody_chooses_a_password_for_whom_the_provider_speaks(desk: Desk) -> None:
    boss = make_user(desk.store, "boss@example.com", desk.shop.organization.id, "admin")
    with desk.store.write() as tx:
        _, secret = tx.invitations.create(desk.shop.organization.id, "bob@corp.example", "admin", boss.id)
    link = f"/invitations/{secret}"
    # Whoever has the link is asked who they are where that is known, and another is another.
    assert desk.browser.open("/login")
    form = {"form_token": desk.browser.hidden()["form_token"], "password": "a password of mine"}
    desk.browser.open(desk.browser.http.post(link, data=form).headers["location"])
    assert desk.browser.place.startswith(desk.issuer)
    assert "bob@corp.example" not in roles(desk)
    assert "You (bob@corp.example) are invited" in desk.come_as("2", link)
    assert "You belong" in desk.browser.submit(link)
    assert roles(desk)["bob@corp.example"] == "admin"
    with desk.store.read() as tx:
        user = tx.users.by_email("bob@corp.example")
        assert user is not None
        assert user.password_hash is None
    desk.browser.open(link)
    assert desk.browser.status == 404


def test_who_comes_first_becomes_a_member(desk: Desk) -> None:
    assert "Log in with Corp" in desk.browser.open("/login?next=/oauth/device")
    assert "code that your device shows" in desk.come_as("2", "/login/sso?next=/oauth/device")
    assert "bob@corp.example" in desk.browser.open("/login")
    assert "Password now" not in desk.browser.page
    assert roles(desk) == {"bob@corp.example": "member"}
    with desk.store.read() as tx:
        user = tx.users.by_email("bob@corp.example")
        assert user is not None
        assert (user.name, user.sso_subject, user.password_hash) == ("Bob", "2", None)
    # Again, they are the same; and nobody comes in by a password that was never set.
    desk.browser.submit("/logout")
    desk.come_as("2")
    assert roles(desk) == {"bob@corp.example": "member"}
    desk.browser.submit("/logout")
    for password in ("", "None"):
        desk.browser.log_in("bob@corp.example", password)
        assert desk.browser.status == 401
    # Somebody else of the same address is somebody else.
    desk.come_as("5")
    assert (desk.browser.status, "somebody else" in desk.browser.page) == (403, True)


@pytest.mark.parametrize(("sub", "told"), [("3", "does not speak for"), ("4", "no verified email")])
def test_who_is_not_let_in(desk: Desk, sub: str, told: str) -> None:
    assert told in desk.come_as(sub)
    assert desk.browser.status == 403
    assert roles(desk) == {}


def test_a_user_who_is_there_already_is_the_same(desk: Desk) -> None:
    ann = make_user(desk.store, "ann@corp.example", desk.shop.organization.id)
    make_user(desk.store, "boss@corp.example", desk.shop.organization.id, "admin")
    desk.come_as("1")
    assert "Password now" in desk.browser.page
    with desk.store.write() as tx:
        assert tx.users.get(ann.id).sso_subject == "1"
        # The provider says what somebody is only where the organization leaves it to it.
        assert roles(desk)["ann@corp.example"] == "member"
        tx.organizations.update(desk.shop.organization.id, idp_managed_roles=True)
    desk.come_as("1")
    assert roles(desk)["ann@corp.example"] == "admin"
    with desk.store.write() as tx:
        tx.users.disable(ann.id)
    desk.come_as("1")
    assert desk.browser.status == 403


def test_a_way_back_is_taken_once_and_by_the_same_browser(desk: Desk) -> None:
    desk.come_as("2")
    desk.browser.submit("/logout")
    assert "used already" in desk.browser.open(desk.back)
    other = Browser(desk.served.url)
    other.open("/login/sso")
    back = httpx.post(other.place, data={"sub": "2"}, timeout=60, trust_env=False).headers["location"]
    assert "another browser" in desk.browser.open(back)
    denied = httpx.post(other.place, data={"action": "deny"}, timeout=60, trust_env=False).headers["location"]
    assert other.open(denied).count("did not log you in") + other.page.count("another browser") == 1
    other.close()
    for bad in ("", "?state=x", "?state=x.y&code=z", "?code=z"):
        desk.browser.open(f"/login/sso/callback{bad}")
        assert desk.browser.status == 403
    desk.browser.open("/login/sso")
    late = httpx.post(desk.browser.place, data={"sub": "2"}, timeout=60, trust_env=False).headers["location"]
    desk.clock.forward(600)
    assert "begin it again" in desk.browser.open(late)


def test_a_provider_that_does_not_answer_is_told(desk: Desk) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    provider = Provider(f"http://127.0.0.1:{port}", "a", "b", "Corp", ("corp.example",), "acme")
    oidc = Oidc(provider)
    desk.served.use(desk.store, Settings(StatedPreconditions(), sso=oidc))
    desk.browser.open("/login/sso")
    assert desk.browser.status == 503
    oidc.close()
    desk.served.use(desk.store, Settings(StatedPreconditions()))
    desk.browser.open("/login/sso")
    assert desk.browser.status == 404


# forged tokens

PROVIDER = Provider("https://idp.example", "us", "secret", "Corp", ("corp.example",), "acme")
KEY, OTHER_KEY = (rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2))


def claims(**changed: object) -> dict[str, Any]:
    now = int(time.time())
    told: dict[str, Any] = {
        "iss": PROVIDER.issuer, "aud": "us", "sub": "1", "nonce": "n", "iat": now, "exp": now + 60,
        "email": "ann@corp.example", "email_verified": True,
    }  # fmt: skip
    told |= changed
    return {name: value for name, value in told.items() if value is not None}


def answering(token: str, described: dict[str, object] | None = None) -> Oidc:
    """A provider of which the token endpoint tells ``token``."""
    public: dict[str, object] = json.loads(RSAAlgorithm.to_jwk(KEY.public_key()))
    answers: dict[str, object] = {
        "/.well-known/openid-configuration": {
            "issuer": PROVIDER.issuer, "authorization_endpoint": "https://idp.example/a",
            "token_endpoint": "https://idp.example/t", "jwks_uri": "https://idp.example/k",
            **(described or {}),
        },
        "/t": {"id_token": token, "access_token": "x"},
        "/k": {"keys": [{**public, "kid": "1", "use": "sig"}]},
    }  # fmt: skip

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[urlsplit(str(request.url)).path])

    return Oidc(PROVIDER, httpx.Client(transport=httpx.MockTransport(answer)))


def signed(told: dict[str, Any], key: Any = KEY, algorithm: str = "RS256", kid: str = "1") -> str:
    return jwt.encode(told, key, algorithm, headers={"kid": kid})


def receive(oidc: Oidc) -> str:
    with oidc.closing():
        return oidc.receive("code", "n", "verifier", "https://us.example/back").email


def test_a_good_token_is_taken() -> None:
    assert receive(answering(signed(claims()))) == "ann@corp.example"


PUBLIC_AS_SECRET = "the provider's public key, taken for a secret that both know"


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(claims(), OTHER_KEY), id="another's signature"),
        pytest.param(signed(claims(), OTHER_KEY, kid="2"), id="another's key"),
        pytest.param(signed(claims(), PUBLIC_AS_SECRET, "HS256"), id="a shared secret"),
        pytest.param(signed(claims(), None, "none"), id="no signature"),
        pytest.param(signed(claims(aud="them")), id="for another client"),
        pytest.param(signed(claims(azp="them")), id="by another client"),
        pytest.param(signed(claims(iss="https://evil.example")), id="of another issuer"),
        pytest.param(signed(claims(exp=int(time.time()) - 3600)), id="of before"),
        pytest.param(signed(claims(exp=None)), id="for ever"),
        pytest.param(signed(claims(nonce="m")), id="of another attempt"),
        pytest.param(signed(claims(nonce=None)), id="of no attempt"),
        pytest.param(signed(claims(email_verified="false")), id="not verified"),
        pytest.param(signed(claims(email="ann@evil.example")), id="of another domain"),
        pytest.param(signed(claims(email="ann@evil.example@corp.example.evil")), id="of a longer domain"),
        pytest.param("x.y.z", id="no token"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_token_that_is_not_the_providers_for_us_is_refused(token: str) -> None:
    with pytest.raises(ForbiddenError):
        receive(answering(token))


@pytest.mark.parametrize(
    "described",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://idp.example/t"},
        {"token_endpoint": "http://127.0.0.1/t"},
        {"jwks_uri": "file:///etc/passwd"},
        {"jwks_uri": None},
        {"authorization_endpoint": 7},
    ],
)
def test_a_provider_names_no_address_that_may_not_be_asked(described: dict[str, object]) -> None:
    with pytest.raises(UnavailableError):
        receive(answering(signed(claims()), described))


def test_what_an_operator_must_say() -> None:
    assert checked_provider(PROVIDER) is PROVIDER
    for wrong in (
        replace(PROVIDER, issuer="http://idp.example"),
        replace(PROVIDER, client_secret=""),
        replace(PROVIDER, domains=()),
    ):
        with pytest.raises(InvalidError):
            checked_provider(wrong)
    with pytest.raises(HomeworldError):
        identity_of(PROVIDER, {"sub": "1", "email": ["a"], "email_verified": True})
