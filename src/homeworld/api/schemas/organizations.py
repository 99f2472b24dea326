"""Organizations as published. What homeworld does not have (billing, SSO) is said to be off."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, StrictBool

from homeworld.api.calls import Call
from homeworld.api.schemas.common import Body
from homeworld.model.errors import InvalidError
from homeworld.model.sizes import CLUSTER_SIZES, DEFAULT_SIZE, Host, told
from homeworld.store.tenants import Organization
from homeworld.store.users import checked_email


def _email(given: str) -> str:
    try:
        return checked_email(given)
    except InvalidError as error:
        raise ValueError(error.message) from None


class UpdateOrganization(Body):
    """The body of update_organization."""

    billing_email: Annotated[str, AfterValidator(_email)] | None = None
    idp_managed_roles: StrictBool | None = None
    invoice_budget_amount: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None


class OrganizationOut(BaseModel):
    """An organization."""

    id: str
    name: str
    billing_email: str = ""
    created_at: datetime
    updated_at: datetime
    plan: str = "self_hosted"
    valid_billing_info: bool = True
    sso: bool = False
    sso_directory: bool = False
    single_tenancy: bool = True
    managed_tenancy: bool = False
    has_past_due_invoices: bool = False
    database_count: int
    sso_portal_url: str | None = None
    features: dict[str, bool] = Field(default_factory=dict)
    idp_managed_roles: bool = False
    invoice_budget_amount: str = "0"
    keyspace_shard_limit: int = 256
    has_card: bool = False
    payment_info_required: bool = False


def show_organizations(call: Call, organizations: Sequence[Organization]) -> list[OrganizationOut]:
    """Organizations as published."""
    counts = call.tx.organizations.database_counts([o.id for o in organizations])
    return [
        OrganizationOut(
            id=organization.id,
            name=organization.name,
            billing_email=organization.billing_email,
            idp_managed_roles=organization.idp_managed_roles,
            invoice_budget_amount=str(organization.invoice_budget_amount),
            created_at=organization.created_at,
            updated_at=organization.updated_at,
            database_count=counts.get(organization.id, 0),
        )
        for organization in organizations
    ]


class ClusterSizeOut(BaseModel):
    """A size as it is given here: ``cpu`` and ``ram`` are what a server gets on this host, which may be less
    than the name promises elsewhere. Rates are 0 where they are asked for, not null, because clients leave
    out sizes that have none.
    """

    name: str
    display_name: str
    cpu: str
    storage: int | None = None
    ram: int
    metal: bool = False
    enabled: bool = True
    provider: str | None = None
    default_vtgate: str = DEFAULT_SIZE
    default_vtgate_rate: int | None
    replica_rate: int | None
    rate: int | None
    sort_order: int
    architecture: str | None = None
    development: bool = True
    production: bool = True


def show_cluster_sizes(host: Host, *, rates: bool) -> list[ClusterSizeOut]:
    """All sizes, the smallest first, as they are given on the host."""
    rate = 0 if rates else None
    shown: list[ClusterSizeOut] = []
    for order, size in enumerate(CLUSTER_SIZES, 1):
        cpus, memory_mb = told(size, host)
        shown.append(
            ClusterSizeOut(
                name=size.name,
                display_name=display_size(size.name),
                cpu=str(cpus),
                ram=memory_mb * 1024 * 1024,
                default_vtgate_rate=rate,
                replica_rate=rate,
                rate=rate,
                sort_order=order,
            )
        )
    return shown


def display_size(name: str) -> str:
    """A size's name as people read it."""
    return "Homeworld" if name == DEFAULT_SIZE else name.replace("_", "-")
