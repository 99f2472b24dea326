"""The API as an ASGI app: everything below /v1, the login pages and OAuth endpoints, and /healthz.

The composition root gives it a store and the ports; it makes nothing by itself and opens no connection to a
managed server.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader
from starlette.types import ASGIApp, Receive, Scope, Send

from homeworld.api import errors, login, login_oauth, login_sso
from homeworld.api.bodies import Bodies
from homeworld.api.calls import Api, ApiDep, Settings
from homeworld.api.routes import (
    audit,
    branches,
    databases,
    engine_changes,
    inspection,
    invoices,
    keyspaces,
    maintenance,
    members,
    move_tables,
    oauth,
    organizations,
    passwords,
    reparents,
    resizes,
    service_tokens,
    tablet_throttlers,
    teams,
    throttler,
    vdiffs,
    vtctld,
    webhooks,
    workflows,
)
from homeworld.store.store import Store

ROUTES = (
    organizations.router,
    members.router,
    teams.router,
    audit.router,
    oauth.router,
    databases.router,
    engine_changes.router,
    branches.router,
    keyspaces.router,
    resizes.router,
    inspection.router,
    reparents.router,
    passwords.router,
    service_tokens.router,
    workflows.router,
    throttler.router,
    move_tables.router,
    vdiffs.router,
    vtctld.router,
    tablet_throttlers.router,
    webhooks.router,
    maintenance.router,
    invoices.router,
)


class LeadingSlashes:
    """Takes ``//v1/…`` for ``/v1/…``: clients join a base URL that ends in a slash with an absolute path."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with one leading slash."""
        if scope["type"] == "http" and scope["path"].startswith("//"):
            path = "/" + scope["path"].lstrip("/")
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self._app(scope, receive, send)


class App(FastAPI):
    """FastAPI whose description has the schema of errors, which routes only name."""

    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document, made once."""
        made = super().openapi()
        schemas: dict[str, Any] = made["components"]["schemas"]
        if errors.ErrorOut.__name__ not in schemas:
            schemas[errors.ErrorOut.__name__] = errors.ErrorOut.model_json_schema()
            made["components"]["schemas"] = dict(sorted(schemas.items()))
        return made


def create_app(store: Store, settings: Settings) -> FastAPI:
    """The app. It keeps no state of its own; any number of processes may serve the same store."""
    app = App(
        title="Homeworld",
        version="1",
        openapi_url="/v1/openapi.json",
        # The interactive pages load their scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        strict_content_type=False,
        redirect_slashes=False,
    )
    app.state.api = Api(store, settings)
    token = APIKeyHeader(
        name="Authorization",
        auto_error=False,
        description="ID:TOKEN of a service token, or Bearer and a user's token",
    )
    for routes in ROUTES:
        routes.add_to(app, "/v1", [Security(token)], errors.DESCRIBED)
    app.include_router(login.router)
    app.include_router(login_sso.router)
    app.include_router(login_oauth.router)
    app.add_api_route("/healthz", _healthz, methods=["GET"], include_in_schema=False)
    app.add_middleware(LeadingSlashes)
    app.add_middleware(Bodies)
    errors.install(app)
    _build_routes(app)
    return app


def _build_routes(app: FastAPI) -> None:
    """Have all routes ready: FastAPI makes those of included routers with the first request that passes them,
    and whoever came first would wait for it, with everybody behind them (a second of CPU).
    """
    nowhere: Scope = {"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []}
    for route in app.router.routes:
        route.matches(nowhere)


def _healthz(api: ApiDep) -> dict[str, str]:
    """Whether this process can serve: its store answers."""
    with api.store.read() as tx:
        tx.routes.version()
    return {"status": "ok"}
