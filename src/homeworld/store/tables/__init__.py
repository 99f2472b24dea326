"""The schema of the control plane's memory, as SQLAlchemy metadata. Migrations must say the same."""

from __future__ import annotations

from homeworld.store.tables import (
    access,
    engines,
    gateways,
    journal,
    maintenance,
    operations,
    reparents,
    resizes,
    resources,
    routing,
    tenants,
    usage,
    webhooks,
    workflows,
)
from homeworld.store.tables.base import metadata

__all__ = [
    "access",
    "engines",
    "gateways",
    "journal",
    "maintenance",
    "metadata",
    "operations",
    "reparents",
    "resizes",
    "resources",
    "routing",
    "tenants",
    "usage",
    "webhooks",
    "workflows",
]
