# pyright: reportPrivateUsage=false
"""Messages unpacked: what is large once it is unpacked counts as large, however few bytes came."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from typing import Any

import pytest

from homeworld.edge.codes import RefusedError
from homeworld.edge.purse import Charge, Purse
from homeworld.edge.service import METHODS, Ready, Service
from homeworld.edge.sessions import Limits

NOBODY: Any = None
LARGEST = 1 << 20


def service() -> Service:
    return Service(NOBODY, NOBODY, Limits(largest_body=LARGEST))


def packed(size: int) -> bytes:
    """A request whose statement has so many bytes."""
    return gzip.compress(json.dumps({"query": "x" * size}).encode())


def ready(encoding: str) -> Ready:
    return Ready(METHODS["Execute"], NOBODY, NOBODY, "127.0.0.1", True, encoding, False, 0.0, "org")


def test_what_a_message_becomes_is_held() -> None:
    async def run() -> None:
        at, purse = service(), Purse(LARGEST)
        for size, held in ((1000, False), (400_000, True)):
            charge = Charge(purse, "org")
            asked = await at._asked(ready("gzip"), packed(size), charge)
            assert asked.query == b"x" * size
            assert (purse.held > size) is held
            charge.give_back()
        assert purse.held == 0
        for size, status in ((600_000, 503), (LARGEST, 413)):
            body = packed(size)
            assert len(body) < 5000
            with pytest.raises(RefusedError) as told:
                await at._asked(ready("gzip"), body, Charge(purse, "org"))
            assert told.value.status == status
        assert purse.held == 0

    asyncio.run(run())


def test_what_nobody_waits_for_is_counted_until_it_is_done() -> None:
    async def run() -> None:
        at, may_end, begun = service(), threading.Event(), threading.Semaphore(0)

        def work() -> None:
            begun.release()
            may_end.wait(120)

        waiting = [asyncio.create_task(at._aside(work)) for _ in range(3)]
        try:
            for _ in range(2):
                assert await asyncio.to_thread(begun.acquire, timeout=120)
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
            await asyncio.sleep(0)
            assert at._beside.locked()
            assert not begun.acquire(blocking=False)
        finally:
            may_end.set()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert begun.acquire(blocking=False)
        assert not at._beside.locked()

    asyncio.run(run())
