"""The schema of the control plane's memory, as SQLAlchemy metadata. Migrations must say the same."""

from __future__ import annotations

from homeworld.store.tables import (
    gateways,
    journal,
    maintenance,
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
    "gateways",
    "journal",
    "maintenance",
    "metadata",
    "resizes",
    "resources",
    "routing",
    "tenants",
    "usage",
    "webhooks",
    "workflows",
]
