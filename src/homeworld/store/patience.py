"""Connections to PostgreSQL that wait for nobody for ever. Read only where there is one."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

import psycopg

from homeworld.store import engine


class Patient(psycopg.Connection[Any]):
    """A connection whose every wait has an end: a server that is stopped, or behind a network that is gone,
    says nothing, and the driver by itself waits for it for ever.
    """

    def wait(self, gen: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        """As the driver's, until the server has been silent for ANSWER_SECONDS longer than it may wait for a
        lock. Nobody knows what comes of it then, so the connection is closed.
        """
        silent = False

        def limited() -> Generator[Any, Any, Any]:
            nonlocal silent
            most = engine.LOCK_SECONDS + engine.ANSWER_SECONDS
            heard = time.monotonic()
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    if ready:
                        heard = time.monotonic()
                    elif time.monotonic() - heard >= most:
                        silent = True
                        raise psycopg.OperationalError(f"the server has said nothing for {most:g} s")
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value

        try:
            return super().wait(limited(), *args, **options)
        finally:
            if silent:
                self.close()
