"""OAuth applications and their tokens."""

from __future__ import annotations

from homeworld.api.calls import ApiDep, ApplicationId, Call, CallerDep, Id, InOrganization, TokenId
from homeworld.api.listing import Routes
from homeworld.api.login_exchange import exchange
from homeworld.api.pages import CountedListing, Listing, PageDep, counted_listing, listing
from homeworld.api.schemas.oauth import (
    ApplicationOut,
    CreateApplication,
    CreateToken,
    origin_of,
    show_applications,
    show_oauth_tokens,
)
from homeworld.api.schemas.service_tokens import ServiceTokenOut
from homeworld.model.errors import InvalidError
from homeworld.model.oauth_scopes import checked
from homeworld.store.oauth import Application
from homeworld.store.oauth_tokens import Issued

router = Routes(tags=["OAuth applications"])

_ALL = "/organizations/{organization}/oauth-applications"
_ONE = _ALL + "/{application_id}"
_TOKENS = _ONE + "/tokens"


@router.get(_ALL, operation_id="list_oauth_applications")
def list_oauth_applications(
    api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep
) -> Listing[ApplicationOut]:
    """The organization's OAuth applications, newest first."""
    with api.read(caller, "list_oauth_applications", path) as call:
        found = call.tx.applications.page(call.organization.id, page)
        return listing(caller, found, show_applications(call, found.items))


@router.post(_ALL, operation_id="create_oauth_application", status_code=201)
def create_oauth_application(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: CreateApplication
) -> ApplicationOut:
    """Register an application that asks users for access. Its secret is in this answer only."""
    origin = origin_of(body.redirect_uri)
    if body.domain is not None and origin_of(body.domain) != origin:
        raise InvalidError("redirect_uri is not on the domain")
    if not body.name.isprintable():
        raise InvalidError("name has characters that cannot be shown")
    scopes = checked(body.scopes)
    with api.write(caller, "create_oauth_application", path) as call:
        made, secret = call.tx.applications.create(
            call.organization.id, body.name, body.domain or origin, body.redirect_uri, scopes
        )
        call.audit("oauth_application.created", "oauth_application", made.id, made.name, scopes=scopes)
        return show_applications(call, [made], secret)[0]


@router.get(_ONE, operation_id="get_oauth_application")
def get_oauth_application(
    api: ApiDep, caller: CallerDep, path: InOrganization, application_id: ApplicationId
) -> ApplicationOut:
    """An OAuth application without its secret."""
    with api.read(caller, "get_oauth_application", path) as call:
        return show_applications(call, [_application(call, application_id)])[0]


@router.delete(_ONE, operation_id="delete_oauth_application", status_code=204)
def delete_oauth_application(
    api: ApiDep, caller: CallerDep, path: InOrganization, application_id: ApplicationId
) -> None:
    """Take an application away, and all tokens that users gave it."""
    with api.write(caller, "delete_oauth_application", path) as call:
        application = _application(call, application_id)
        call.tx.applications.delete(application)
        call.audit("oauth_application.deleted", "oauth_application", application.id, application.name)


@router.get(_TOKENS, operation_id="list_oauth_tokens")
def list_oauth_tokens(
    api: ApiDep, caller: CallerDep, path: InOrganization, application_id: ApplicationId, page: PageDep
) -> CountedListing[ServiceTokenOut]:
    """The tokens that users gave an application, newest first."""
    with api.read(caller, "list_oauth_tokens", path) as call:
        found = call.tx.oauth_tokens.page(_application(call, application_id).id, page)
        return counted_listing(caller, found, show_oauth_tokens(call, found.items))


@router.get(_TOKENS + "/{token_id}", operation_id="get_oauth_token")
def get_oauth_token(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    application_id: ApplicationId,
    token_id: TokenId,
) -> ServiceTokenOut:
    """A token without its secrets."""
    with api.read(caller, "get_oauth_token", path) as call:
        token = call.tx.oauth_tokens.get(_application(call, application_id).id, token_id)
        return show_oauth_tokens(call, [token])[0]


@router.delete(_TOKENS + "/{token_id}", operation_id="delete_oauth_token", status_code=204)
def delete_oauth_token(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    application_id: ApplicationId,
    token_id: TokenId,
) -> None:
    """Make a token useless."""
    with api.write(caller, "delete_oauth_token", path) as call:
        token = call.tx.oauth_tokens.get(_application(call, application_id).id, token_id)
        call.tx.oauth_tokens.revoke(token.id)
        call.audit("oauth_token.deleted", "oauth_token", token.id, token.id)


@router.post(_ALL + "/{id}/token", operation_id="create_oauth_token")
def create_oauth_token(
    api: ApiDep, caller: CallerDep, path: InOrganization, application_id: Id, body: CreateToken
) -> ServiceTokenOut:
    """A token for an authorization code, or new secrets for a refresh token."""
    with api.write(caller, "create_oauth_token", path) as call:
        application = _application(call, application_id)
        if application.client_id != body.client_id or not application.is_secret(body.client_secret):
            raise InvalidError("client_id and client_secret are not this application's")
        issued = exchange(
            call.tx.oauth_tokens,
            application,
            code=body.code if body.grant_type == "authorization_code" else None,
            refresh_token=body.refresh_token if body.grant_type == "refresh_token" else None,
            redirect_uri=body.redirect_uri or "",
        )
        # What ended because of a used code or token has to stay ended: refusing would take it back.
        renewed = body.grant_type == "refresh_token"
        shown = None if issued is None else _shown(call, issued, "renewed" if renewed else "created")
    if shown is None:
        raise InvalidError("the code or refresh token is not valid, has expired or was used already")
    return shown


def _application(call: Call, application_id: str) -> Application:
    return call.tx.applications.get(call.organization.id, application_id)


def _shown(call: Call, issued: Issued, done: str) -> ServiceTokenOut:
    call.audit(f"oauth_token.{done}", "oauth_token", issued.token.id, issued.token.id)
    return show_oauth_tokens(call, [issued.token], (issued.access, issued.refresh))[0]
