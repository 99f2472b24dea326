"""Calls of the gateway from other threads: done on its loop, and never waited for in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from homeworld.model.errors import DeadlineExceededError, UnavailableError

T = TypeVar("T")


def call(loop: asyncio.AbstractEventLoop | None, work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Do ``work`` on the loop and wait for it, from a thread that is not the loop's.

    :param loop: None: the gateway does not run.
    :returns: what it returned; what it raised is raised.
    :raises UnavailableError: the gateway does not run, or has ended meanwhile.
    :raises DeadlineExceededError: not within ``seconds``; the work is cancelled.
    """
    if loop is None:
        work.close()
        raise UnavailableError("the gateway does not run")
    try:
        future = asyncio.run_coroutine_threadsafe(work, loop)
    except RuntimeError as error:  # closed since it was looked at
        work.close()
        raise UnavailableError("the gateway has ended") from error
    try:
        return future.result(seconds)
    except CancelledError as error:  # what it waited for was ended with the gateway
        raise UnavailableError("the gateway has ended") from error
    except TimeoutError as error:
        future.cancel()
        raise DeadlineExceededError("the gateway did not answer in time") from error
