"""Organizations as published. What homeworld does not have (billing, SSO) is said to be off."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.model.errors import InvalidError
from homeworld.store.tenants import Organization


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
            created_at=organization.created_at,
            updated_at=organization.updated_at,
            database_count=counts.get(organization.id, 0),
        )
        for organization in organizations
    ]


CLUSTER_SIZE = "homeworld"
_SIZES = (CLUSTER_SIZE,)
# PlanetScale's own, as scripts and clients' defaults have them: PS_10, PS-DEV, M_160_AWS_INTEL_D_METAL_118.
_ELSEWHERE = re.compile(r"(?:PS|M)[_-][A-Z0-9_-]+\Z", re.IGNORECASE | re.ASCII)


def checked_cluster_size(asked: str, otherwise: str = CLUSTER_SIZE) -> str:
    """The size asked for, or ``otherwise`` where none is. PlanetScale's names are taken for it.

    :raises InvalidError: there is no such size.
    """
    if not asked or asked in _SIZES or _ELSEWHERE.match(asked):
        return asked or otherwise
    raise InvalidError(
        f"cluster_size {asked!r} does not exist; the sizes are: {', '.join(_SIZES)} "
        "(PlanetScale's own, such as PS_10, are taken and mean the same)"
    )


class ClusterSizeOut(BaseModel):
    """The one size that there is: servers take what the machine has. Its rates are 0, not null, because
    clients leave out sizes that have none.
    """

    name: str = CLUSTER_SIZE
    display_name: str = "Homeworld"
    cpu: str = ""
    storage: int | None = None
    ram: int = 0
    metal: bool = False
    enabled: bool = True
    provider: str | None = None
    default_vtgate: str = CLUSTER_SIZE
    default_vtgate_rate: int | None = 0
    replica_rate: int | None = 0
    rate: int | None = 0
    sort_order: int = 1
    architecture: str | None = None
    development: bool = True
    production: bool = True
