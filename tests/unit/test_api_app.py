"""The app itself, before anybody asks it."""

from __future__ import annotations

import asyncio
import cProfile

import httpx

from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.store.store import Store
from tests.support.api import StatedPreconditions


def test_the_first_request_waits_for_no_routes(sqlite_store: Store) -> None:
    """FastAPI would make them with the first request, with everybody else behind it. Counted in calls, which
    are the same on each machine. The path is nobody's, so that all routes are passed.
    """
    app = create_app(sqlite_store, Settings(StatedPreconditions()))

    async def ask() -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://homeworld") as client:
            return (await client.get("/nobody")).status_code

    profile = cProfile.Profile()
    profile.enable()
    try:
        status = asyncio.run(ask())
    finally:
        profile.disable()
    assert status == 404
    made = [entry for entry in profile.getstats() if "create_model_field" in str(entry.code)]
    assert not made, "a route was put together"
