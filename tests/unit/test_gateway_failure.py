"""A gateway that a fault of its own ends: whoever sees that it has ended is told why."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
import uvloop

from homeworld.gateway.calls import call
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.errors import DeadlineExceededError, UnavailableError


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


async def _forever() -> None:
    await asyncio.Event().wait()


def test_a_call_whose_work_is_ended_with_the_gateway_is_told_so() -> None:
    loop, begun = asyncio.new_event_loop(), threading.Event()

    async def work() -> None:
        begun.set()
        await _forever()

    def end() -> None:
        assert begun.wait(60)
        loop.call_soon_threadsafe(lambda: [task.cancel() for task in asyncio.all_tasks(loop)])

    running = threading.Thread(target=loop.run_forever, daemon=True)
    ending = threading.Thread(target=end, daemon=True)
    running.start()
    ending.start()
    with pytest.raises(UnavailableError, match="has ended"):
        call(loop, work(), 60.0)
    with pytest.raises(DeadlineExceededError):
        call(loop, _forever(), 0.05)
    loop.call_soon_threadsafe(loop.stop)
    running.join(60)
    loop.close()
    with pytest.raises(UnavailableError, match="has ended"):
        call(loop, _forever(), 60.0)
    with pytest.raises(UnavailableError, match="does not run"):
        call(None, _forever(), 60.0)
