"""Reading what tables keyspaces have, each once for everybody who waits for it.

Knows no session and no routes' rules. The invariant: whoever asks for what is so since a moment gets what was
read from then on, or an error within the deadline; never more than one reading of a keyspace is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from homeworld.gateway.branch import Branch
from homeworld.model.errors import DeadlineExceededError, HomeworldError, NotFoundError, UnavailableError

_LOG = logging.getLogger(__name__)
_LOAD_SECONDS = 10.0
_PAUSE_SECONDS = 0.05


def _noticed(task: asyncio.Task[None]) -> None:
    """Whoever still waits for a reading gets its error. Perhaps nobody does: a fault of ours is logged."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, HomeworldError):
        _LOG.error("the tables of a keyspace could not be read", exc_info=error)


Read = Callable[[Branch, str, int], Awaitable[None]]
"""Reads a keyspace's tables into the branch's tracker; the number says when the reading began."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was read before a hold: everything that rules name together with ``tables``, at ``moment`` (the
    tracker's) or later.
    """

    hold_id: str
    moment: int
    tables: frozenset[str]


class SchemaLoads:
    """The readings of one gateway.

    :param read: performs one.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._under_way: dict[tuple[Branch, str], asyncio.Task[None]] = {}
        self._begun: dict[tuple[Branch, str], float] = {}

    async def load(self, branch: Branch, keyspace: str, *, since: int, patient: bool = False) -> None:
        """Return once what is known of the keyspace was read at the tracker's moment ``since`` or later.

        :param patient: wait a little between one reading and the next, for what clients can cause at will.
        :raises DeadlineExceededError: that took too long.
        :raises NotFoundError: the branch has no such keyspace.
        :raises UnavailableError: the keyspace's server cannot be asked.
        """
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                while branch.tracker.read(keyspace) < since:
                    await self._once(branch, keyspace, patient=patient)
        except TimeoutError as error:
            raise DeadlineExceededError(
                f"the tables of keyspace {keyspace} could not be read within {_LOAD_SECONDS:g} s"
            ) from error
        except NotFoundError:
            raise
        except HomeworldError as error:
            raise UnavailableError(
                f"the tables of keyspace {keyspace} could not be read: {error.message}"
            ) from error

    async def _once(self, branch: Branch, keyspace: str, *, patient: bool) -> None:
        """Wait for the reading that is under way, or else for one that begins now."""
        key = (branch, keyspace)
        task = self._under_way.get(key)
        loop = asyncio.get_running_loop()
        if task is None and patient:
            wait = self._begun.get(key, 0.0) + _PAUSE_SECONDS - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)
                return
        if task is None:
            self._note(key, loop.time())
            task = self._under_way[key] = asyncio.ensure_future(self._reading(branch, keyspace))
            task.add_done_callback(_noticed)
        await asyncio.shield(task)

    def _note(self, key: tuple[Branch, str], now: float) -> None:
        """A reading begins now; of earlier ones only those are kept that somebody may have to wait behind."""
        self._begun.pop(key, None)
        self._begun[key] = now
        # In the order in which they began: many thousand begin at once where a gateway starts.
        while self._begun:
            oldest = next(iter(self._begun))
            if self._begun[oldest] > now - _PAUSE_SECONDS:
                break
            del self._begun[oldest]

    async def _reading(self, branch: Branch, keyspace: str) -> None:
        try:
            await self._read(branch, keyspace, branch.tracker.begin())
        finally:
            # Not in a callback, which comes later: who waits for a task that is done waits for nothing, and
            # would go round for ever.
            del self._under_way[branch, keyspace]

    async def close(self) -> None:
        """End what is under way."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
