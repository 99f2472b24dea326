"""What anybody may send to the login pages, and what a provider that hangs may keep busy."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

import httpx
import pytest
from fastapi import Request

from homeworld.api import login_forms
from homeworld.api.login_oidc import Oidc, Provider
from homeworld.model.errors import BadRequestError, UnavailableError

CALLBACK = "https://app.example.com/callback"


def test_a_form_is_bounded_as_it_comes() -> None:
    asked: list[int] = []

    async def receive() -> dict[str, Any]:
        asked.append(1)
        return {"type": "http.request", "body": b"a" * 65_536, "more_body": True}

    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/login",
        "query_string": b"",
        "headers": [],
    }
    with pytest.raises(BadRequestError, match="too large"):
        asyncio.run(login_forms._form(Request(scope, receive)))  # type: ignore[reportPrivateUsage]
    assert len(asked) == 2


def test_a_provider_that_hangs_keeps_a_few_threads_only() -> None:
    go, waiting = threading.Event(), threading.Semaphore(0)

    def hang(_request: httpx.Request) -> httpx.Response:
        waiting.release()
        go.wait(60)
        return httpx.Response(500)

    provider = Provider("https://sso.example.com", "c", "s", "Corp", ("example.com",), "acme")
    oidc = Oidc(provider, httpx.Client(transport=httpx.MockTransport(hang)))
    with ThreadPoolExecutor(16) as pool:
        asked = [pool.submit(oidc.send, "state", "nonce", "v" * 43, CALLBACK) for _ in range(16)]
        for _ in range(8):
            assert waiting.acquire(timeout=60)
        refused: list[BaseException | None] = []
        for one in as_completed(asked, 60):
            refused.append(one.exception())
            if len(refused) == 8:
                assert all(isinstance(error, UnavailableError) for error in refused)
                go.set()  # not before: who comes later would find a place
    assert sum("slow to answer" in str(one.exception()) for one in asked) == 8
    oidc.close()
