"""Service tokens, their accesses and grants as published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body, ResourceOut
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.passwords import Ttl
from homeworld.api.scopes import ACCESSES
from homeworld.store.databases import Database
from homeworld.store.tokens import Grant, ServiceToken

_TYPES = {"organization": "Organization", "database": "Database"}


class CreateServiceToken(Body):
    """The body of create_service_token. A ttl of 0 is none."""

    name: Name | None = None
    ttl: Ttl = 0


class ChangeAccesses(Body):
    """The body that adds or takes accesses; without a database they are the organization's."""

    database: Name | None = None
    access: Annotated[list[Name], Field(max_length=100)]


class GrantedOut(BaseModel):
    """One access of a token, with the resource it is on."""

    id: str
    access: str
    description: str
    resource_name: str
    resource_id: str
    resource_type: str
    resource: ResourceOut


class OAuthAccessOut(BaseModel):
    """A scope that a user allowed an application."""

    name: str
    description: str


class OAuthUserOut(BaseModel):
    """The user for whom a token acts."""

    name: str
    id: str


class OAuthOrganizationOut(BaseModel):
    """An organization in which a token acts."""

    name: str
    id: str
    url: str


class OAuthUsersOut(BaseModel):
    """Whom a token may ask about."""

    users: Sequence[OAuthUserOut]
    accesses: Sequence[OAuthAccessOut]


class OAuthOrganizationsOut(BaseModel):
    """What a token may do in organizations."""

    organizations: Sequence[OAuthOrganizationOut]
    accesses: Sequence[OAuthAccessOut]


class OAuthDatabasesOut(BaseModel):
    """What a token may do with databases; none is named where it is with all of the user's."""

    databases: Sequence[Mapping[str, str]] = ()
    accesses: Sequence[OAuthAccessOut]


class OAuthBranchesOut(BaseModel):
    """What a token may do with branches; none is named where it is with all of the user's."""

    branches: Sequence[Mapping[str, str]] = ()
    accesses: Sequence[OAuthAccessOut]


class OAuthAccessesOut(BaseModel):
    """What a user allowed an application."""

    database: OAuthDatabasesOut
    organization: OAuthOrganizationsOut
    branch: OAuthBranchesOut
    user: OAuthUsersOut


class ServiceTokenOut(BaseModel):
    """A service token, or an OAuth token. ``token`` is null but in the answer to its creation."""

    id: str
    type: str = "ServiceToken"
    name: str | None
    display_name: str
    token: str | None = None
    plain_text_refresh_token: str | None = None
    avatar_url: str = ""
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    actor_id: str | None
    actor_display_name: str | None
    actor_type: str | None = "ServiceToken"
    service_token_accesses: Sequence[GrantedOut] | None
    oauth_accesses_by_resource: OAuthAccessesOut | None = None


class AccessResourceOut(BaseModel):
    """The resource of an access."""

    id: str
    name: str
    type: str


class AccessOut(BaseModel):
    """One access, as the access list shows it."""

    id: str
    access: str
    type: str = "ServiceTokenAccess"
    description: str
    resource: AccessResourceOut


class GrantAccessOut(BaseModel):
    """An access within a grant."""

    access: str
    description: str


class GrantOut(BaseModel):
    """All accesses on one resource."""

    id: str
    resource_name: str
    resource_type: str
    resource_id: str
    accesses: Sequence[GrantAccessOut]


class AccessesOut(BaseModel):
    """A list of accesses."""

    data: Sequence[AccessOut]


class GrantsOut(BaseModel):
    """A list of grants."""

    data: Sequence[GrantOut]


def _resources(call: Call, grants: Sequence[Grant]) -> Mapping[str, Database]:
    return call.tx.databases.by_ids(
        grant.resource_id for grant in grants if grant.resource_type == "database"
    )


def _resource(call: Call, grant: Grant, databases: Mapping[str, Database]) -> ResourceOut:
    database = databases.get(grant.resource_id)
    if database is not None:
        return ResourceOut(
            id=database.id,
            name=database.name,
            created_at=database.created_at,
            updated_at=database.updated_at,
            deleted_at=database.deleted_at,
        )
    organization = call.organization
    return ResourceOut(
        id=organization.id,
        name=organization.name,
        created_at=organization.created_at,
        updated_at=organization.updated_at,
        deleted_at=None,
    )


def show_tokens(
    call: Call, tokens: Sequence[ServiceToken], secrets: Mapping[str, str] | None = None
) -> list[ServiceTokenOut]:
    """Tokens as published, in two queries however many there are.

    :param secrets: token id to secret, for those just created.
    """
    grants = call.tx.tokens.grants_of([token.id for token in tokens])
    databases = _resources(call, grants)
    held: dict[str, list[GrantedOut]] = {}
    for grant in grants:
        resource = _resource(call, grant, databases)
        held.setdefault(grant.token_id, []).append(
            GrantedOut(
                id=grant.id,
                access=grant.access,
                description=ACCESSES.get(grant.access, ""),
                resource_name=resource.name,
                resource_id=resource.id,
                resource_type=_TYPES[grant.resource_type],
                resource=resource,
            )
        )
    return [
        ServiceTokenOut(
            id=token.id,
            name=token.name,
            display_name=token.name or token.id,
            token=(secrets or {}).get(token.id),
            created_at=token.created_at,
            updated_at=token.updated_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            actor_id=token.actor_id,
            actor_display_name=token.name or token.id,
            service_token_accesses=held.get(token.id, []),
        )
        for token in tokens
    ]


def show_accesses(call: Call, grants: Sequence[Grant]) -> AccessesOut:
    """Accesses one by one."""
    databases = _resources(call, grants)
    return AccessesOut(
        data=[
            AccessOut(
                id=grant.id,
                access=grant.access,
                description=ACCESSES.get(grant.access, ""),
                resource=AccessResourceOut(
                    id=grant.resource_id,
                    name=_resource(call, grant, databases).name,
                    type=_TYPES[grant.resource_type],
                ),
            )
            for grant in grants
        ]
    )


def show_grants(call: Call, grants: Sequence[Grant]) -> GrantsOut:
    """Accesses by resource."""
    databases = _resources(call, grants)
    by_resource: dict[str, list[Grant]] = {}
    for grant in grants:
        by_resource.setdefault(grant.resource_id, []).append(grant)
    return GrantsOut(
        data=[
            GrantOut(
                id=several[0].id,
                resource_name=_resource(call, several[0], databases).name,
                resource_type=_TYPES[several[0].resource_type],
                resource_id=resource_id,
                accesses=[
                    GrantAccessOut(access=grant.access, description=ACCESSES.get(grant.access, ""))
                    for grant in several
                ],
            )
            for resource_id, several in by_resource.items()
        ]
    )
