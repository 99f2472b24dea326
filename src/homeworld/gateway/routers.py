"""Which router a branch has: the one place that chooses."""

from __future__ import annotations

from homeworld.gateway.plan import RouterPort, SchemaView
from homeworld.gateway.router import Router
from homeworld.gateway.router_vtgate import VtgateRouter
from homeworld.model.routing import BranchRoutes


def make_router(routes: BranchRoutes, schema: SchemaView) -> RouterPort:
    """The router of a branch at one version of its routes.

    :param schema: what is known of the tables on the servers.
    :raises InvalidError: a keyspace's vschema cannot be routed by.
    """
    return Router(routes, schema) if routes.vtgate is None else VtgateRouter(routes, schema)
