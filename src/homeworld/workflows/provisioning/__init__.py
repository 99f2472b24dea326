"""Making and unmaking databases, branches and keyspaces: servers, schemas, routes."""

from __future__ import annotations

from homeworld.workflows.provisioning.ports import Placement, Ports

__all__ = ["Placement", "Ports"]
