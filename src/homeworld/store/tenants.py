"""Organizations, actors and regions: who asks, on whose behalf, and where.

Invariant: actors are never removed or renamed by anybody but themselves; history names them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import func, select

from homeworld.model.names import check_resource_name, new_id
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.tables import resources, tenants
from homeworld.store.work import Work


@dataclass(frozen=True, slots=True)
class Organization:
    """The owner of databases and service tokens."""

    id: str
    name: str
    billing_email: str
    invoice_budget_amount: int
    idp_managed_roles: bool
    created_at: datetime
    updated_at: datetime


class OrganizationFields(TypedDict, total=False):
    """What can be changed of an organization."""

    billing_email: str
    invoice_budget_amount: int
    idp_managed_roles: bool


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody who can do things: ``kind`` is user, service_token or system."""

    id: str
    kind: str
    display_name: str
    avatar_url: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Region:
    """A place where branches run."""

    id: str
    slug: str
    provider: str
    display_name: str
    location: str
    enabled: bool
    current_default: bool
    mysql_supported: bool
    postgresql_supported: bool
    public_ip_addresses: Sequence[str]
    created_at: datetime


class Organizations:
    """Organizations within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def ensure(self, name: str) -> Organization:
        """The organization of that name, made if there is none."""
        table = tenants.organizations
        known = self._work.first(select(table).where(table.c.name == name), Organization)
        if known is not None:
            return known
        check_resource_name(name, "organization")
        made = Organization(new_id(), name, "", 0, False, self._work.now, self._work.now)
        self._work.add(table, {field: getattr(made, field) for field in made.__slots__})
        return made

    def by_name(self, name: str) -> Organization:
        """The organization.

        :raises NotFoundError: no such organization.
        """
        table = tenants.organizations
        return self._work.only(select(table).where(table.c.name == name), Organization)

    def get(self, organization_id: str) -> Organization:
        """The organization.

        :raises NotFoundError: no such id.
        """
        table = tenants.organizations
        return self._work.only(select(table).where(table.c.id == organization_id), Organization)

    def update(self, organization_id: str, **fields: Unpack[OrganizationFields]) -> Organization:
        """Change settings."""
        table = tenants.organizations
        values: dict[str, object] = {**fields, "updated_at": self._work.now}
        self._work.change(table, table.c.id, organization_id, values)
        return self._work.only(select(table).where(table.c.id == organization_id), Organization)

    def by_ids(self, ids: Iterable[str]) -> Mapping[str, Organization]:
        """Organizations by id."""
        return self._work.by_key(tenants.organizations, ids, Organization)

    def page(self, ids: Iterable[str], request: PageRequest) -> Page[Organization]:
        """Those of ``ids``, by name."""
        table = tenants.organizations
        query = select(table).where(table.c.id.in_(list(ids))).order_by(table.c.name)
        return fetch_page(self._work.connection, query, request, Organization)

    def database_counts(self, ids: Iterable[str]) -> Mapping[str, int]:
        """Live databases by organization id; organizations without any are left out."""
        table = resources.databases
        query = (
            select(table.c.organization_id, func.count())
            .where(table.c.organization_id.in_(list(ids)), table.c.deleted_at.is_(None))
            .group_by(table.c.organization_id)
        )
        return {row[0]: row[1] for row in self._work.connection.execute(query)}


class Actors:
    """Actors within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(
        self, kind: str, display_name: str, *, actor_id: str | None = None, avatar_url: str = ""
    ) -> Actor:
        """A new actor."""
        made = Actor(actor_id or new_id(), kind, display_name, avatar_url, self._work.now)
        self._work.add(
            tenants.actors,
            {
                "id": made.id,
                "kind": kind,
                "display_name": display_name,
                "avatar_url": avatar_url,
                "created_at": made.created_at,
            },
        )
        return made

    def by_ids(self, ids: Iterable[str | None]) -> Mapping[str, Actor]:
        """Actors by id; None is skipped."""
        return self._work.by_key(tenants.actors, ids, Actor)


class Regions:
    """Regions within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def ensure(
        self, slug: str, *, display_name: str, provider: str, location: str, current_default: bool = True
    ) -> Region:
        """The region of that slug, made if there is none."""
        table = tenants.regions
        known = self._work.first(select(table).where(table.c.slug == slug), Region)
        if known is not None:
            return known
        made = Region(
            id=new_id(),
            slug=slug,
            provider=provider,
            display_name=display_name,
            location=location,
            enabled=True,
            current_default=current_default,
            mysql_supported=True,
            postgresql_supported=False,
            public_ip_addresses=[],
            created_at=self._work.now,
        )
        self._work.add(table, {name: getattr(made, name) for name in made.__slots__})
        return made

    def by_slug(self, slug: str) -> Region:
        """The region.

        :raises NotFoundError: no such region.
        """
        table = tenants.regions
        return self._work.only(select(table).where(table.c.slug == slug), Region)

    def default(self) -> Region:
        """The region for branches that name none.

        :raises NotFoundError: the store was never bootstrapped.
        """
        table = tenants.regions
        return self._work.only(select(table).order_by(table.c.current_default.desc(), table.c.slug), Region)

    def by_ids(self, ids: Iterable[str]) -> Mapping[str, Region]:
        """Regions by id."""
        return self._work.by_key(tenants.regions, ids, Region)

    def page(self, request: PageRequest) -> Page[Region]:
        """All regions, by slug."""
        table = tenants.regions
        return fetch_page(self._work.connection, select(table).order_by(table.c.slug), request, Region)
