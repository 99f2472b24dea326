"""Service tokens and what they may do.

Invariant: the secret is told once and never kept; what is kept is its SHA-256, which is enough because the
secret is random and long (a slow hash protects guessable passwords, and would cost every request).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select

from homeworld.model.accesses import ALL_ACCESSES
from homeworld.model.errors import UnauthorizedError
from homeworld.model.names import new_id, new_secret
from homeworld.store.pages import Page, PageRequest, fetch_counted_page
from homeworld.store.tables import tenants
from homeworld.store.tenants import Actors
from homeworld.store.work import Work

PREFIX = "pscale_tkn_"
# A token's last use is told to the minute: an exact time would make every read a write.
LAST_USED_EVERY = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """A service token. ``token_sha256`` never leaves the control plane."""

    id: str
    organization_id: str
    name: str | None
    token_sha256: bytes
    ttl_seconds: int | None
    expires_at: datetime | None
    last_used_at: datetime | None
    deleted_at: datetime | None
    actor_id: str
    creator_id: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """One access on one organization or database."""

    id: str
    token_id: str
    resource_type: str
    resource_id: str
    access: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whoever calls, authenticated: a service token, or a user by an OAuth token.

    :param id: of the credential; it has a limit of its own.
    :param actor_id: who acts: a service token's actor has its id.
    :param organization_ids: where the bearer is anybody at all.
    :param accesses: resource id (organization or database) to what is allowed on it.
    :param user_id: None for a service token.
    :param scopes: what the user allowed an application; None: all that the user may.
    :param admin_of: organizations that the user administers.
    """

    id: str
    actor_id: str
    organization_ids: frozenset[str]
    accesses: Mapping[str, frozenset[str]]
    last_used_at: datetime | None
    user_id: str | None = None
    scopes: frozenset[str] | None = None
    admin_of: frozenset[str] = frozenset()

    def may(self, wanted: Iterable[str], organization_id: str, database_id: str | None = None) -> bool:
        """Whether any of the wanted accesses is granted on the organization or on the database."""
        if organization_id not in self.organization_ids:
            return False
        held = self.accesses.get(organization_id, frozenset())
        if database_id is not None:
            held |= self.accesses.get(database_id, frozenset())
        return not held.isdisjoint(wanted)

    def may_anywhere(self, wanted: Iterable[str]) -> bool:
        """Whether any of the wanted accesses is granted on anything."""
        wanted = frozenset(wanted)
        return any(not held.isdisjoint(wanted) for held in self.accesses.values())

    def use_is_news(self, now: datetime) -> bool:
        """Whether the last noted use is so long ago that a new one should be noted."""
        return self.last_used_at is None or now - self.last_used_at >= LAST_USED_EVERY


class ServiceTokens:
    """Service tokens within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def create(
        self,
        organization_id: str,
        name: str | None,
        *,
        ttl_seconds: int | None = None,
        token_id: str | None = None,
        secret: str | None = None,
        creator_id: str | None = None,
    ) -> tuple[ServiceToken, str]:
        """A new token without any access, and its secret, told only here.

        :param secret: for tokens that an operator brings along; by default a new random one.
        """
        secret = secret or PREFIX + new_secret()
        token_id = token_id or new_id()
        Actors(self._work).add("service_token", name or token_id, actor_id=token_id)
        now = self._work.now
        expires_at = now + timedelta(seconds=ttl_seconds) if ttl_seconds else None
        made = ServiceToken(
            token_id,
            organization_id,
            name,
            _digest(secret),
            ttl_seconds,
            expires_at,
            None,
            None,
            token_id,
            creator_id,
            now,
            now,
        )
        self._work.add(tenants.service_tokens, {field: getattr(made, field) for field in made.__slots__})
        return made, secret

    def authenticate(self, token_id: str, secret: str) -> Bearer:
        """The token, if the secret is right and it has neither ended nor been deleted.

        :raises UnauthorizedError: anything else, without saying which.
        """
        table = tenants.service_tokens
        token = self._work.first(select(table).where(table.c.id == token_id), ServiceToken)
        # Compared also where there is no such token, so that the answer takes as long.
        right = hmac.compare_digest(_digest(secret), token.token_sha256 if token else bytes(32))
        if token is None or not right or token.deleted_at is not None:
            raise UnauthorizedError
        if token.expires_at is not None and token.expires_at <= self._work.now:
            raise UnauthorizedError
        accesses: dict[str, set[str]] = {}
        for grant in self.grants(token_id):
            accesses.setdefault(grant.resource_id, set()).add(grant.access)
        return Bearer(
            id=token.id,
            actor_id=token.id,
            organization_ids=frozenset({token.organization_id}),
            accesses={resource: frozenset(held) for resource, held in accesses.items()},
            last_used_at=token.last_used_at,
        )

    def note_use(self, token_id: str) -> None:
        """Note that the token was used now."""
        table = tenants.service_tokens
        self._work.change(table, table.c.id, token_id, {"last_used_at": self._work.now})

    def get(self, organization_id: str, token_id: str) -> ServiceToken:
        """The token.

        :raises NotFoundError: none of that id, or deleted.
        """
        table = tenants.service_tokens
        query = select(table).where(
            table.c.id == token_id,
            table.c.organization_id == organization_id,
            table.c.deleted_at.is_(None),
        )
        return self._work.only(query, ServiceToken)

    def page(self, organization_id: str, request: PageRequest) -> Page[ServiceToken]:
        """The organization's live tokens, newest first."""
        table = tenants.service_tokens
        query = (
            select(table)
            .where(
                table.c.organization_id == organization_id,
                table.c.deleted_at.is_(None),
                or_(table.c.expires_at.is_(None), table.c.expires_at > self._work.now),
            )
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_counted_page(self._work.connection, query, request, ServiceToken)

    def delete(self, organization_id: str, token_id: str) -> None:
        """Make the token useless from now on.

        :raises NotFoundError: none of that id, or deleted.
        """
        token = self.get(organization_id, token_id)
        table = tenants.service_tokens
        self._work.change(
            table, table.c.id, token.id, {"deleted_at": self._work.now, "updated_at": self._work.now}
        )
        self._work.connection.execute(delete(tenants.grants).where(tenants.grants.c.token_id == token.id))

    def grants(self, token_id: str) -> tuple[Grant, ...]:
        """What the token may do."""
        return self.grants_of([token_id])

    def grants_of(self, token_ids: Sequence[str]) -> tuple[Grant, ...]:
        """What several tokens may do, in one query."""
        table = tenants.grants
        query = (
            select(table)
            .where(table.c.token_id.in_(token_ids))
            .order_by(table.c.resource_type.desc(), table.c.resource_id, table.c.access)
        )
        return self._work.all(query, Grant)

    def grant(
        self, token_id: str, resource_type: str, resource_id: str, accesses: Iterable[str]
    ) -> tuple[Grant, ...]:
        """Allow accesses on a resource; what was allowed before stays. Gives the token's grants on it."""
        held = {
            grant.access
            for grant in self.grants(token_id)
            if (grant.resource_type, grant.resource_id) == (resource_type, resource_id)
        }
        for access in sorted(set(accesses) - held):
            self._work.add(
                tenants.grants,
                {
                    "id": new_id(),
                    "token_id": token_id,
                    "resource_type": resource_type,
                    "resource_id": resource_id,
                    "access": access,
                    "created_at": self._work.now,
                },
            )
        return tuple(grant for grant in self.grants(token_id) if grant.resource_id == resource_id)

    def grant_all(self, token_id: str, organization_id: str) -> None:
        """Allow everything in an organization: for an installation's own first token."""
        self.grant(token_id, "organization", organization_id, ALL_ACCESSES)

    def revoke(self, token_id: str, resource_type: str, resource_id: str, accesses: Iterable[str]) -> None:
        """Take accesses on a resource away; those not held are fine."""
        table = tenants.grants
        self._work.connection.execute(
            delete(table).where(
                table.c.token_id == token_id,
                table.c.resource_type == resource_type,
                table.c.resource_id == resource_id,
                table.c.access.in_(sorted(accesses)),
            )
        )


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
