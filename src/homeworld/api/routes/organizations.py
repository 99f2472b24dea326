"""Organizations and regions."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Query

from homeworld.api.calls import ApiDep, CallerDep, InOrganization
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.routes.databases import checked_term, region_named
from homeworld.api.schemas.common import RegionOut
from homeworld.api.schemas.organizations import (
    ClusterSizeOut,
    OrganizationOut,
    UpdateOrganization,
    show_cluster_sizes,
    show_organizations,
)
from homeworld.store.tenants import OrganizationFields

router = Routes(tags=["Organizations"])


@router.get("/organizations", operation_id="list_organizations")
def list_organizations(api: ApiDep, caller: CallerDep, page: PageDep) -> Listing[OrganizationOut]:
    """The organizations that the token or its user belongs to."""
    with api.read(caller, "list_organizations") as call:
        found = call.tx.organizations.page(call.bearer.organization_ids, page)
        return listing(caller, found, show_organizations(call, found.items))


@router.get("/organizations/{organization}", operation_id="get_organization")
def get_organization(api: ApiDep, caller: CallerDep, path: InOrganization) -> OrganizationOut:
    """An organization."""
    with api.read(caller, "get_organization", path) as call:
        return show_organizations(call, [call.organization])[0]


@router.patch("/organizations/{organization}", operation_id="update_organization")
def update_organization(
    api: ApiDep, caller: CallerDep, path: InOrganization, body: UpdateOrganization | None = None
) -> OrganizationOut:
    """Change what is kept of an organization."""
    asked = body or UpdateOrganization()
    fields = OrganizationFields()
    if asked.billing_email is not None:
        fields["billing_email"] = asked.billing_email
    if asked.invoice_budget_amount is not None:
        fields["invoice_budget_amount"] = asked.invoice_budget_amount
    if asked.idp_managed_roles is not None:
        fields["idp_managed_roles"] = asked.idp_managed_roles
    with api.write(caller, "update_organization", path) as call:
        changed = call.tx.organizations.update(call.organization.id, **fields)
        call.audit("organization.updated", "organization", changed.id, changed.name, fields=dict(fields))
        return show_organizations(call, [changed])[0]


@router.get("/regions", operation_id="list_public_regions")
def list_public_regions(api: ApiDep, caller: CallerDep, page: PageDep) -> Listing[RegionOut]:
    """Where branches can run."""
    with api.read(caller, "list_public_regions") as call:
        found = call.tx.regions.page(page)
        return listing(caller, found, [RegionOut.of(region) for region in found.items])


@router.get("/organizations/{organization}/regions", operation_id="list_regions_for_organization")
def list_regions_for_organization(
    api: ApiDep, caller: CallerDep, path: InOrganization, page: PageDep
) -> Listing[RegionOut]:
    """Where the organization's branches can run."""
    with api.read(caller, "list_regions_for_organization", path) as call:
        found = call.tx.regions.page(page)
        return listing(caller, found, [RegionOut.of(region) for region in found.items])


@router.get("/organizations/{organization}/cluster-size-skus", operation_id="list_cluster_size_skus")
def list_cluster_size_skus(
    api: ApiDep,
    caller: CallerDep,
    path: InOrganization,
    engine: Annotated[Literal["mysql", "postgresql"], Query()] = "mysql",
    rates: Annotated[bool, Query()] = False,
    region: Annotated[str, Query()] = "",
    database: Annotated[str, Query()] = "",
    postgresql: Annotated[bool, Query(description="The same as engine=postgresql.")] = False,
) -> list[ClusterSizeOut]:
    """The sizes that a database, branch or keyspace can have, and what each is given on this host."""
    with api.read(caller, "list_cluster_size_skus", path) as call:
        # Every region and database has the same; one that does not exist has none.
        if region:
            region_named(call, checked_term(region, "region"))
        if database:
            call.tx.databases.by_name(call.organization.id, checked_term(database, "database"))
    if postgresql or engine == "postgresql":
        return []
    return show_cluster_sizes(api.settings.inspection.host(), rates=rates)
