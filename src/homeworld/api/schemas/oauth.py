"""OAuth applications and their tokens as published."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.api.schemas.service_tokens import (
    OAuthAccessesOut,
    OAuthAccessOut,
    OAuthBranchesOut,
    OAuthDatabasesOut,
    OAuthOrganizationOut,
    OAuthOrganizationsOut,
    OAuthUserOut,
    OAuthUsersOut,
    ServiceTokenOut,
)
from homeworld.model.accesses import ACCESSES
from homeworld.model.errors import InvalidError
from homeworld.model.oauth_scopes import KINDS, SCOPES, by_kind
from homeworld.store.oauth import Application
from homeworld.store.oauth_tokens import OAuthToken

_LONGEST_HOST = 253
Text = Annotated[str, Field(max_length=1000)]


class CreateApplication(Body):
    """The body of create_oauth_application."""

    name: Annotated[str, Field(max_length=100)]
    redirect_uri: Text
    domain: Annotated[str, Field(max_length=500)] | None = None
    scopes: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=100)]


class CreateToken(Body):
    """The body of create_oauth_token."""

    client_id: Text
    client_secret: Text
    grant_type: Literal["authorization_code", "refresh_token"]
    code: Text | None = None
    redirect_uri: Text | None = None
    refresh_token: Text | None = None


class ApplicationOut(BaseModel):
    """An OAuth application. ``client_secret`` is null but in the answer to its creation."""

    id: str
    name: str
    redirect_uri: str
    domain: str
    created_at: datetime
    updated_at: datetime
    scopes: str
    avatar: str = ""
    client_id: str
    client_secret: str | None = None
    tokens: int
    dcr: bool = False
    single_org_authorization: bool = False
    requires_org_scope: bool = False
    scopes_by_resource: Mapping[str, Sequence[str]]
    all_scopes_by_resource: Mapping[str, Sequence[str]]


def origin_of(redirect_uri: str) -> str:
    """Scheme, host and port of where an application's users are sent back to.

    :raises InvalidError: it is no such address. Plain HTTP goes to the user's own machine only.
    """
    try:
        parts = urlsplit(redirect_uri)
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        raise InvalidError("redirect_uri is not a URL") from None
    host = parts.hostname or ""
    local = host in {"127.0.0.1", "localhost", "::1"}
    if parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not local) or not host:
        raise InvalidError(
            "redirect_uri is an https:// URL, or http:// on the user's own machine (127.0.0.1)"
        )
    if parts.fragment or parts.username or not redirect_uri.isascii() or not redirect_uri.isprintable():
        raise InvalidError("redirect_uri has neither a fragment nor a user, and ASCII characters only")
    if len(host) > _LONGEST_HOST or not re.fullmatch(r"[a-z0-9._-]+|[0-9a-f:.]+", host):
        raise InvalidError("redirect_uri has no host that there can be")
    if any(character in redirect_uri for character in " \"'<>;,\\"):
        raise InvalidError("redirect_uri has characters that a URL does not have")
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}"


def show_applications(
    call: Call, applications: Sequence[Application], secret: str | None = None
) -> list[ApplicationOut]:
    """Applications as published, in one query.

    :param secret: of one that was just created.
    """
    counts = call.tx.applications.token_counts([one.id for one in applications])
    return [
        ApplicationOut(
            id=one.id,
            name=one.name,
            redirect_uri=one.redirect_uri,
            domain=one.domain,
            created_at=one.created_at,
            updated_at=one.updated_at,
            scopes=" ".join(one.scopes),
            client_id=one.client_id,
            client_secret=secret,
            tokens=counts.get(one.id, 0),
            scopes_by_resource=by_kind(one.scopes),
            all_scopes_by_resource={kind: list(names) for kind, names in KINDS.items()},
        )
        for one in applications
    ]


def describe(scope: str) -> str:
    """What a scope allows, for people."""
    allowed = [ACCESSES[access] for access in sorted(SCOPES[scope])]
    return "; ".join(allowed) or "Read who you are"


def show_oauth_tokens(
    call: Call, tokens: Sequence[OAuthToken], secrets: tuple[str, str] | None = None
) -> list[ServiceTokenOut]:
    """Tokens as published, in three queries however many there are.

    :param secrets: access and refresh token of one that was just issued.
    """
    users = call.tx.users.by_ids([token.user_id for token in tokens])
    memberships = call.tx.members.organizations_of(users)
    known = call.tx.organizations.by_ids({one for several in memberships.values() for one in several})
    access, refresh = secrets or (None, None)

    def scopes_of(token: OAuthToken) -> OAuthAccessesOut:
        split = by_kind(token.scopes or ())
        allowed = {
            kind: [OAuthAccessOut(name=name, description=describe(f"{kind}:{name}")) for name in names]
            for kind, names in split.items()
        }
        user = users[token.user_id]
        mine = memberships.get(token.user_id, ())
        # Of a user's other organizations those alone are told that the reader belongs to; whom the token was
        # just issued to may know where it is good.
        told = mine if secrets else [one for one in mine if one in call.bearer.organization_ids]
        organizations = [known[one] for one in told]
        return OAuthAccessesOut(
            database=OAuthDatabasesOut(accesses=allowed["database"]),
            branch=OAuthBranchesOut(accesses=allowed["branch"]),
            organization=OAuthOrganizationsOut(
                organizations=[
                    OAuthOrganizationOut(
                        name=one.name, id=one.id, url=f"{call.caller.base_url}/v1/organizations/{one.name}"
                    )
                    for one in organizations
                ]
                if allowed["organization"]
                else [],
                accesses=allowed["organization"],
            ),
            user=OAuthUsersOut(users=[OAuthUserOut(name=user.name, id=user.id)], accesses=allowed["user"]),
        )

    return [
        ServiceTokenOut(
            id=token.id,
            type="OauthAccessToken",
            name=None,
            display_name=users[token.user_id].name,
            token=access,
            plain_text_refresh_token=refresh,
            created_at=token.created_at,
            updated_at=token.updated_at,
            expires_at=token.expires_at,
            last_used_at=token.last_used_at,
            actor_id=token.user_id,
            actor_display_name=users[token.user_id].name,
            actor_type="User",
            service_token_accesses=None,
            oauth_accesses_by_resource=scopes_of(token),
        )
        for token in tokens
    ]
