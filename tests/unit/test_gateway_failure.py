"""A gateway that a fault of its own ends: whoever sees that it has ended is told why."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import uvloop

from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway


def test_it_has_not_ended_before_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    closing, close = threading.Event(), threading.Event()

    def fail(_: Gateway) -> None:
        raise RuntimeError("nobody expected this")

    class SlowToClose(uvloop.Loop):
        def close(self) -> None:
            closing.set()
            close.wait(60)
            super().close()

    def slow() -> asyncio.AbstractEventLoop:
        return SlowToClose()

    monkeypatch.setattr(uvloop, "new_event_loop", slow)
    monkeypatch.setattr(Gateway, "_housekeeping", fail)
    gateway = Gateway(router_factory=Router)
    gateway.start()
    try:
        deadline = time.monotonic() + 60
        while gateway.alive:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        assert closing.wait(60)  # its thread is still at closing the loop
        assert repr(gateway.failure) == "RuntimeError('nobody expected this')"
    finally:
        close.set()
        gateway.stop()
