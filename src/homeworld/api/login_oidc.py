"""An OpenID Connect provider, asked as a client: where to send a browser, and who came back.

Knows no store and no page. Invariant: whom it names was named by the provider, for this client, for this
browser's own attempt: signature, issuer, audience, time and nonce of the id token are held, and algorithms
are only such where nobody but the provider can sign.
"""

from __future__ import annotations

import base64
import hashlib
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, cast
from urllib.parse import urlencode, urlsplit

import httpx
import jwt

from homeworld.model.errors import ForbiddenError, InvalidError, UnavailableError

_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_REMEMBERED_SECONDS = 600.0
_KEYS_NOT_MORE_OFTEN_SECONDS = 10.0
_TIMEOUT_SECONDS = 5.0
_ASK_AT_ONCE = 8
_MOST_BYTES = 1_000_000
_LEEWAY_SECONDS = 60
_LOOPBACK = {"127.0.0.1", "::1", "localhost"}


@dataclass(frozen=True, slots=True)
class Provider:
    """What an operator says of the identity provider.

    :param issuer: its URL, as in its tokens; https, or http on this machine.
    :param name: for the button on the login page.
    :param domains: of email addresses that it speaks for; nobody else comes in by it.
    :param organization: where those belong who come in first.
    :param role_claim: with ``admin`` or ``member``, for organizations whose roles it manages; of the id
        token, or of the user info where that has to be asked for the address.
    """

    issuer: str
    client_id: str
    client_secret: str
    name: str
    domains: Sequence[str]
    organization: str
    role_claim: str = "homeworld_role"


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whom the provider named."""

    issuer: str
    subject: str
    email: str
    name: str
    role: str | None


@dataclass(frozen=True, slots=True)
class _Endpoints:
    authorization: str
    token: str
    keys: str
    user_info: str
    basic: bool
    read_at: float


def checked_endpoint(url: object, issuer: str) -> str:
    """A URL of the provider, if it may be asked: https, or on this machine where the issuer is.

    :raises UnavailableError: it may not.
    """
    parts = urlsplit(url) if isinstance(url, str) else urlsplit("")
    local = parts.scheme == "http" and parts.hostname in _LOOPBACK
    own = urlsplit(issuer).hostname in _LOOPBACK
    if not parts.hostname or not (parts.scheme == "https" or (local and own)):
        raise UnavailableError(f"the identity provider names {url!r}, which is no https:// address")
    return cast("str", url)


class Oidc:
    """The provider, with what it told of itself for a while. Safe among threads.

    :param http: asks it; made here by default, without any proxy of the environment.
    """

    def __init__(self, provider: Provider, http: httpx.Client | None = None) -> None:
        checked_endpoint(provider.issuer, provider.issuer)
        self.provider = provider
        self._http = http or httpx.Client(timeout=_TIMEOUT_SECONDS, trust_env=False, follow_redirects=False)
        self._lock = threading.Lock()
        # Its threads are the whole API's: a provider that hangs may keep a few of them.
        self._asking = threading.BoundedSemaphore(_ASK_AT_ONCE)
        self._endpoints: _Endpoints | None = None
        self._keys: jwt.PyJWKSet | None = None
        self._keys_read_at = 0.0

    def speaks_for(self, email: str) -> bool:
        """Whether it says who has this address."""
        return _domain(email) in {domain.lower() for domain in self.provider.domains}

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def closing(self) -> Generator[Self]:
        """Close the connections when the block ends."""
        try:
            yield self
        finally:
            self.close()

    def send(self, state: str, nonce: str, verifier: str, redirect_uri: str) -> str:
        """Where a browser goes to log in.

        :raises UnavailableError: the provider does not answer.
        """
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        asked = {
            "response_type": "code",
            "client_id": self.provider.client_id,
            "redirect_uri": redirect_uri,
            "scope": "openid email profile",
            "state": state,
            "nonce": nonce,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
        place = self._discover().authorization
        return f"{place}{'&' if '?' in place else '?'}{urlencode(asked)}"

    def receive(self, code: str, nonce: str, verifier: str, redirect_uri: str) -> Identity:
        """Who came back with a code.

        :raises ForbiddenError: nobody whom the provider names for us.
        :raises UnavailableError: the provider does not answer.
        """
        endpoints = self._discover()
        fields = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
        }
        provider = self.provider
        auth = (provider.client_id, provider.client_secret) if endpoints.basic else None
        if auth is None:
            fields |= {"client_id": provider.client_id, "client_secret": provider.client_secret}
        status, told = self._ask("POST", endpoints.token, data=fields, auth=auth)
        if status != 200 or not isinstance(told.get("id_token"), str):
            raise ForbiddenError("the identity provider did not take the code; log in again")
        claims = self._verified(told["id_token"], nonce)
        if endpoints.user_info and "email" not in claims and isinstance(told.get("access_token"), str):
            status, more = self._ask(
                "GET", endpoints.user_info, headers={"Authorization": f"Bearer {told['access_token']}"}
            )
            # Only of the same person: the user info has no signature of its own.
            if status == 200 and more.get("sub") == claims["sub"]:
                claims = {**more, **claims}
        return identity_of(provider, claims)

    def _verified(self, token: str, nonce: str) -> Mapping[str, Any]:
        try:
            claims = jwt.decode(
                token,
                self._key(token),
                algorithms=_ALGORITHMS,
                audience=self.provider.client_id,
                issuer=self.provider.issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise ForbiddenError(f"the identity provider's token is not valid: {error}") from None
        if claims.get("nonce") != nonce:
            raise ForbiddenError("the identity provider's token is another attempt's; log in again")
        if claims.get("azp", self.provider.client_id) != self.provider.client_id:
            raise ForbiddenError("the identity provider's token is another client's")
        return claims

    def _key(self, token: str) -> jwt.PyJWK:
        header = jwt.get_unverified_header(token)  # raises a PyJWTError where the token is none
        key_id, algorithm = header.get("kid"), str(header.get("alg"))
        if algorithm not in _ALGORITHMS:
            raise jwt.InvalidAlgorithmError(f"algorithm {algorithm[:20]!r} is not taken")
        for _ in range(2):
            keys = self._read_keys(anew=False).keys
            for key in keys:
                fits = key.key_id == key_id or (key_id is None and len(keys) == 1)
                if fits and key.public_key_use in {None, "sig"} and key.algorithm_name in _ALGORITHMS:
                    return key
            self._read_keys(anew=True)  # it may have new ones
        raise jwt.InvalidKeyError("its key is not among the provider's")

    def _read_keys(self, *, anew: bool) -> jwt.PyJWKSet:
        with self._lock:
            keys, age = self._keys, time.monotonic() - self._keys_read_at
        if keys is not None and (age < _KEYS_NOT_MORE_OFTEN_SECONDS if anew else age < _REMEMBERED_SECONDS):
            return keys
        status, told = self._ask("GET", self._discover().keys)
        if status != 200:
            raise UnavailableError(f"the identity provider does not tell its keys (status {status})")
        try:
            keys = jwt.PyJWKSet.from_dict(told)
        except jwt.PyJWTError as error:
            raise UnavailableError(f"the identity provider's keys cannot be read: {error}") from None
        with self._lock:
            self._keys, self._keys_read_at = keys, time.monotonic()
        return keys

    def _discover(self) -> _Endpoints:
        with self._lock:
            known = self._endpoints
        if known is not None and time.monotonic() - known.read_at < _REMEMBERED_SECONDS:
            return known
        issuer = self.provider.issuer
        status, told = self._ask("GET", f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if status != 200 or told.get("issuer") != issuer:
            raise UnavailableError(
                f"the identity provider at {issuer} does not describe itself as {issuer} (status {status})"
            )
        methods = told.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        user_info = told.get("userinfo_endpoint")
        found = _Endpoints(
            authorization=checked_endpoint(told.get("authorization_endpoint"), issuer),
            token=checked_endpoint(told.get("token_endpoint"), issuer),
            keys=checked_endpoint(told.get("jwks_uri"), issuer),
            user_info=checked_endpoint(user_info, issuer) if user_info else "",
            basic="client_secret_basic" in methods,
            read_at=time.monotonic(),
        )
        with self._lock:
            self._endpoints = found
        return found

    def _ask(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        if not self._asking.acquire(timeout=1.0):
            raise UnavailableError("the identity provider is slow to answer; try again in a moment")
        try:
            return self._asked(method, url, **options)
        finally:
            self._asking.release()

    def _asked(self, method: str, url: str, **options: Any) -> tuple[int, dict[str, Any]]:
        # Each read has its own time: an answer that drips would keep a thread for as long as it likes.
        deadline = time.monotonic() + 2 * _TIMEOUT_SECONDS
        try:
            with self._http.stream(method, url, **options) as answer:
                body = b""
                for part in answer.iter_bytes():
                    if time.monotonic() > deadline:
                        raise UnavailableError("the identity provider's answer does not end")
                    body += part
                    if len(body) > _MOST_BYTES:
                        raise UnavailableError("the identity provider's answer is too long")
            told: object = httpx.Response(200, content=body).json() if body else {}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"the identity provider does not answer: {error!r}") from error
        except ValueError:
            raise UnavailableError("the identity provider's answer is no JSON") from None
        return answer.status_code, cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def _domain(email: str) -> str:
    return email.rpartition("@")[2].lower()


def identity_of(provider: Provider, claims: Mapping[str, Any]) -> Identity:
    """Who claims name.

    :raises ForbiddenError: nobody whom the provider speaks for.
    """
    email = claims.get("email")
    if not isinstance(email, str) or claims.get("email_verified") not in (True, "true"):
        raise ForbiddenError("the identity provider tells no verified email address of you")
    email = email.strip().lower()
    if _domain(email) not in {domain.lower() for domain in provider.domains}:
        raise ForbiddenError(f"the identity provider does not speak for {email}")
    role: object = claims.get(provider.role_claim)
    name = claims.get("name")
    return Identity(
        issuer=provider.issuer,
        subject=str(claims["sub"])[:255],
        email=email,
        name=" ".join(name.split())[:100] if isinstance(name, str) and name.isprintable() else "",
        role=role if role in ("admin", "member") else None,
    )


def checked_provider(provider: Provider) -> Provider:
    """What an operator said, if a provider can be asked by it.

    :raises InvalidError: it cannot.
    """
    if not provider.client_id or not provider.client_secret or not provider.domains:
        raise InvalidError("single sign-on needs issuer, client id, client secret and at least one domain")
    try:
        checked_endpoint(provider.issuer, provider.issuer)
    except UnavailableError:
        raise InvalidError("the issuer of single sign-on is an https:// address") from None
    return provider
