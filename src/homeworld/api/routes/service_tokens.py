"""Service tokens and what they may do."""

from __future__ import annotations

from homeworld.api.calls import ApiDep, Call, CallerDep, Id, InOrganization
from homeworld.api.listing import Routes
from homeworld.api.pages import CountedListing, PageDep, counted_listing
from homeworld.api.schemas.service_tokens import (
    AccessesOut,
    ChangeAccesses,
    CreateServiceToken,
    GrantsOut,
    ServiceTokenOut,
    show_accesses,
    show_grants,
    show_tokens,
)
from homeworld.api.scopes import ACCESSES, ORGANIZATION_ONLY
from homeworld.model.errors import ForbiddenError, InvalidError, NotFoundError
from homeworld.store.tokens import ServiceToken

router = Routes(tags=["Service tokens"])

_ALL = "/organizations/{organization}/service-tokens"
_ONE = _ALL + "/{id}"
_ON_TOKENS = frozenset({"write_service_tokens", "delete_service_tokens"})


@router.get(_ALL, operation_id="list_service_tokens")
def list_service_tokens(
    api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep
) -> CountedListing[ServiceTokenOut]:
    """The organization's tokens, newest first."""
    with api.read(caller, "list_service_tokens", path) as call:
        found = call.tx.tokens.page(call.organization.id, page)
        return counted_listing(caller, found, show_tokens(call, found.items))


@router.post(_ALL, operation_id="create_service_token")
def create_service_token(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: CreateServiceToken | None = None
) -> ServiceTokenOut:
    """A new token that may do nothing yet. The secret is in this answer only."""
    asked = body or CreateServiceToken()
    with api.write(caller, "create_service_token", path) as call:
        token, secret = call.tx.tokens.create(
            call.organization.id, asked.name, ttl_seconds=asked.ttl or None, creator_id=call.actor_id
        )
        call.audit("service_token.created", "service_token", token.id, asked.name or token.id)
        return show_tokens(call, [token], {token.id: secret})[0]


@router.get(_ONE, operation_id="get_service_token")
def get_service_token(api: ApiDep, caller: CallerDep, path: InOrganization, token_id: Id) -> ServiceTokenOut:
    """A token without its secret."""
    with api.read(caller, "get_service_token", path) as call:
        return show_tokens(call, [call.tx.tokens.get(call.organization.id, token_id)])[0]


@router.delete(_ONE, operation_id="delete_service_token", status_code=204)
def delete_service_token(api: ApiDep, caller: CallerDep, path: InOrganization, token_id: Id) -> None:
    """Make a token useless."""
    with api.write(caller, "delete_service_token", path) as call:
        token = _to_change(call, token_id)
        for grant in call.tx.tokens.grants(token.id):
            _check_taking(call, grant.access, grant.resource_id, grant.resource_type)
        call.tx.tokens.delete(call.organization.id, token.id)
        call.audit("service_token.deleted", "service_token", token.id, token.name or token.id)


@router.get(_ONE + "/grants", operation_id="list_service_token_grants")
def list_service_token_grants(
    api: ApiDep, caller: CallerDep, path: InOrganization, token_id: Id
) -> GrantsOut:
    """What a token may do, by resource."""
    with api.read(caller, "list_service_token_grants", path) as call:
        token = call.tx.tokens.get(call.organization.id, token_id)
        return show_grants(call, call.tx.tokens.grants(token.id))


@router.get(_ONE + "/access", operation_id="list_service_token_accesses")
def list_service_token_accesses(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    token_id: Id,
) -> AccessesOut:
    """What a token may do, one by one."""
    with api.read(caller, "list_service_token_accesses", path) as call:
        token = call.tx.tokens.get(call.organization.id, token_id)
        return show_accesses(call, call.tx.tokens.grants(token.id))


@router.post(_ONE + "/access", operation_id="add_service_token_accesses")
def add_service_token_accesses(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    token_id: Id,
    body: ChangeAccesses,
) -> AccessesOut:
    """Allow a token more; nobody gives what they do not have."""
    with api.write(caller, "add_service_token_accesses", path) as call:
        token = _to_change(call, token_id)
        kind, resource_id = _resource(call, body)
        for access in body.access:
            _check(call, access, resource_id, kind)
        grants = call.tx.tokens.grant(token.id, kind, resource_id, body.access)
        call.audit(
            "service_token.granted_access",
            "service_token",
            token.id,
            token.name or token.id,
            access=body.access,
            database=body.database,
        )
        return show_accesses(call, grants)


def _check(call: Call, access: str, resource_id: str, kind: str) -> None:
    if access not in ACCESSES:
        raise InvalidError(f"{access} is not an access")
    if kind == "database" and access in ORGANIZATION_ONLY:
        raise InvalidError(f"{access} is given on the organization, not on a database")
    database_id = resource_id if kind == "database" else None
    call.require_held([access], database_id)
    # Members have these for their own tokens only; a token would have them for everybody's.
    if access in _ON_TOKENS and call.user_id is not None and not _administers(call):
        raise ForbiddenError(f"only administrators let a token change tokens: {access}")


def _check_taking(call: Call, access: str, resource_id: str, kind: str) -> None:
    """A token takes from others no more than it has: it could not give it back, and might take it from the
    one that administers.
    """
    database_id = resource_id if kind == "database" else None
    if call.user_id is None and not call.bearer.may([access], call.organization.id, database_id):
        raise ForbiddenError(f"no token takes what it does not have: {access}")


def _administers(call: Call) -> bool:
    return call.organization.id in call.bearer.admin_of


def _to_change(call: Call, token_id: str) -> ServiceToken:
    token = call.tx.tokens.get(call.organization.id, token_id)
    # Members have tokens of their own; what others made is the administrators' to change.
    if call.user_id not in (None, token.creator_id) and not _administers(call):
        raise ForbiddenError("this token was made by somebody else; ask an administrator")
    return token


@router.delete(_ONE + "/access", operation_id="delete_service_token_accesses", status_code=204)
def delete_service_token_accesses(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    token_id: Id,
    body: ChangeAccesses,
) -> None:
    """Allow a token less."""
    with api.write(caller, "delete_service_token_accesses", path) as call:
        token = _to_change(call, token_id)
        kind, resource_id = _resource(call, body)
        for access in body.access:
            _check_taking(call, access, resource_id, kind)
        call.tx.tokens.revoke(token.id, kind, resource_id, body.access)
        call.audit(
            "service_token.access_taken",
            "service_token",
            token.id,
            token.name or token.id,
            access=body.access,
            database=body.database,
        )


def _resource(call: Call, body: ChangeAccesses) -> tuple[str, str]:
    if body.database is None:
        return "organization", call.organization.id
    try:
        return "database", call.tx.databases.by_name(call.organization.id, body.database).id
    except NotFoundError:
        raise InvalidError(f"database {body.database} does not exist") from None
