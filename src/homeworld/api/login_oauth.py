"""The endpoints of OAuth 2 that programs call: a device asks and waits, codes become tokens, tokens end.

Answers are as RFC 6749, 7009 and 8628 say, errors with them: ``{"error", "error_description"}``. Invariant:
a client that is registered here proves who it is before it gets or ends anything; one that is not (a tool
on the user's own machine) gets what the user says yes to, and no more.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from homeworld.api.calls import Api, ApiDep, Caller, CallerDep
from homeworld.api.errors import retry_after
from homeworld.api.login import note
from homeworld.api.login_exchange import exchange
from homeworld.api.login_forms import Form
from homeworld.model.errors import HomeworldError, InvalidError
from homeworld.model.oauth_scopes import checked
from homeworld.store.oauth import Application
from homeworld.store.oauth_devices import GOOD_FOR, INTERVAL_SECONDS, Wait
from homeworld.store.oauth_tokens import ACCESS_FOR, Issued
from homeworld.store.store import Transaction

DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
_LONGEST_CLIENT_ID = 255
_SENTENCES = {
    Wait.PENDING: "The user has not answered yet.",
    Wait.SLOW_DOWN: "Ask less often.",
    Wait.DENIED: "The user said no.",
    Wait.EXPIRED: "The code has expired; ask for another one.",
    Wait.UNKNOWN: "The code is not valid or was used already.",
}


class OAuthError(Exception):
    """A refusal as OAuth clients read it."""

    def __init__(self, error: str, sentence: str, status: int = 400) -> None:
        self.error = error
        self.sentence = sentence
        self.status = status
        super().__init__(f"{error}: {sentence}")


class OAuthRoute(APIRoute):
    """A route whose refusals OAuth clients read."""

    def get_route_handler(self) -> Any:
        """The handler, with its refusals in their form."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except OAuthError as error:
                return _answer(
                    {"error": error.error, "error_description": error.sentence}, status=error.status
                )
            except HomeworldError as error:
                if error.http_status >= 500 and error.http_status != 503:
                    raise
                name = {429: "slow_down", 503: "temporarily_unavailable"}.get(
                    error.http_status, "invalid_request"
                )
                told = _answer({"error": name, "error_description": error.message}, status=error.http_status)
                told.headers.update(retry_after(error))
                return told

        return answer


router = APIRouter(prefix="/oauth", include_in_schema=False, route_class=OAuthRoute)


def _answer(body: Mapping[str, object], *, status: int = 200) -> JSONResponse:
    return JSONResponse(dict(body), status, {"Cache-Control": "no-store", "Pragma": "no-cache"})


@router.post("/authorize_device")
def authorize_device(api: ApiDep, caller: CallerDep, request: Request, form: Form) -> Response:
    """A device asks: a code for itself, and one for its user.

    Under a registered application's name only that application asks: the page tells the user its name.
    """
    api.limits.request("", caller.remote_ip)
    form = {**form, **_basic(request.headers.get("authorization", ""))}
    client_id = _client_id(form)
    with api.store.write() as tx:
        application = _proven(api, caller, tx, client_id, form.get("client_secret", ""))
        scopes = None if application is None else _scopes(application, form.get("scope", ""))
        device, code = tx.devices.ask(
            client_id, application_id=application.id if application else None, scopes=scopes
        )
    page = f"{caller.base_url}/oauth/device"
    return _answer(
        {
            "device_code": code,
            "user_code": device.user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={device.user_code}",
            "expires_in": int(GOOD_FOR.total_seconds()),
            "interval": INTERVAL_SECONDS,
        }
    )


def _scopes(application: Application, asked: str) -> tuple[str, ...]:
    try:
        scopes = checked(asked.split()) or tuple(application.scopes)
    except InvalidError as error:
        raise OAuthError("invalid_scope", error.message) from None
    if not set(scopes) <= set(application.scopes):
        raise OAuthError("invalid_scope", "The application was not registered with these scopes.")
    return scopes


def _client_id(form: Mapping[str, str]) -> str:
    client_id = form.get("client_id", "")
    if not client_id or len(client_id) > _LONGEST_CLIENT_ID or not client_id.isprintable():
        raise OAuthError("invalid_request", "client_id is required.")
    return client_id


@router.post("/token")
def token(api: ApiDep, caller: CallerDep, request: Request, form: Form) -> Response:
    """A code, or a refresh token, becomes a token."""
    grant = form.get("grant_type", "")
    form = {**form, **_basic(request.headers.get("authorization", ""))}
    if grant == DEVICE_GRANT:
        return _device_token(api, caller, form)
    if grant not in {"authorization_code", "refresh_token"}:
        raise OAuthError(
            "unsupported_grant_type",
            f"grant_type is authorization_code, refresh_token or {DEVICE_GRANT}.",
        )
    client_id = _client_id(form)
    with api.store.write() as tx:
        application = _proven(api, caller, tx, client_id, form.get("client_secret", ""))
        if application is None and grant == "refresh_token":
            issued = tx.oauth_tokens.refresh(form.get("refresh_token", ""), client_id)
        elif application is None:
            raise OAuthError("invalid_client", "There is no application of this client_id.", 401)
        else:
            issued = exchange(
                tx.oauth_tokens,
                application,
                code=form.get("code", "") if grant == "authorization_code" else None,
                refresh_token=form.get("refresh_token", "") if grant == "refresh_token" else None,
                redirect_uri=form.get("redirect_uri", ""),
                verifier=form.get("code_verifier", ""),
            )
    # Told behind the transaction: what ended because something was used twice has to stay ended.
    if issued is None:
        api.limits.failure(caller.remote_ip)
        raise OAuthError("invalid_grant", "The code or refresh token is not valid, has expired or was used.")
    return _issued(issued)


def _device_token(api: Api, caller: Caller, form: Mapping[str, str]) -> Response:
    client_id = _client_id(form)
    with api.store.write() as tx:
        _proven(api, caller, tx, client_id, form.get("client_secret", ""))
        taken = tx.devices.take(form.get("device_code", ""), client_id)
    if taken is Wait.UNKNOWN:
        api.limits.failure(caller.remote_ip)
    if isinstance(taken, Wait):
        raise OAuthError(taken.value, _SENTENCES[taken])
    return _issued(taken)


def _issued(issued: Issued) -> Response:
    scopes = issued.token.scopes
    return _answer(
        {
            "access_token": issued.access,
            "token_type": "Bearer",
            "expires_in": int(ACCESS_FOR.total_seconds()),
            "refresh_token": issued.refresh,
            "scope": "" if scopes is None else " ".join(scopes),
        }
    )


def _proven(api: Api, caller: Caller, tx: Transaction, client_id: str, secret: str) -> Application | None:
    application = tx.applications.by_client_id(client_id)
    if application is not None and not application.is_secret(secret):
        api.limits.failure(caller.remote_ip)
        raise OAuthError("invalid_client", "The client_secret is not this application's.", 401)
    return application


def _basic(authorization: str) -> dict[str, str]:
    kind, _, sent = authorization.partition(" ")
    if kind.lower() != "basic":
        return {}
    try:
        client_id, _, secret = base64.b64decode(sent.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, or not ASCII, or no text
        raise OAuthError("invalid_client", "The Authorization header cannot be read.", 401) from None
    return {"client_id": unquote(client_id), "client_secret": unquote(secret)}


@router.post("/revoke")
def revoke(api: ApiDep, caller: CallerDep, request: Request, form: Form) -> Response:
    """End a token; one that is none is fine."""
    form = {**form, **_basic(request.headers.get("authorization", ""))}
    if "token" not in form:
        raise OAuthError("invalid_request", "token is required.")
    # An application ends the tokens of all its users from one address.
    known = None
    if (client_id := form.get("client_id")) and (secret := form.get("client_secret")):
        with api.store.read() as tx:
            known = _proven(api, caller, tx, client_id, secret)
    api.limits.request("" if known is None else f"application {known.client_id}", caller.remote_ip)
    with api.store.write() as tx:
        ended = tx.oauth_tokens.revoke_text(form["token"])
        if ended is not None and ended.revoked_at is None:
            user = tx.users.get(ended.user_id)
            note(
                tx, user, "user.ended_token", caller.remote_ip, token=ended.id, client_id=ended.client_id
            )  # fmt: skip
        if ended is not None and ended.application_id is not None:
            application = _proven(api, caller, tx, ended.client_id, form.get("client_secret", ""))
            if application is not None and form.get("client_id") != application.client_id:
                raise OAuthError("invalid_client", "The token is another client's.", 401)
    return _answer({})


@router.get("/token/info")
def token_info(api: ApiDep, caller: CallerDep) -> Response:
    """What the token in the Authorization header is, if it lives."""
    kind, _, text = caller.authorization.partition(" ")
    api.limits.request(caller.authorization, caller.remote_ip)
    with api.store.read() as tx:
        living = tx.oauth_tokens.authenticate(text.strip()) if kind.lower() == "bearer" else None
        token = tx.oauth_tokens.by_id(living.id) if living else None
    if token is None:
        return _answer({"active": False})
    return _answer(
        {
            "active": True,
            "scope": "" if token.scopes is None else " ".join(token.scopes),
            "client_id": token.client_id,
            "token_type": "Bearer",
            "exp": int(token.expires_at.timestamp()),
            "iat": int(token.created_at.timestamp()),
            "sub": token.user_id,
        }
    )
