"""Ids from sequence tables (Vitess's ``id, next_id, cache``), taken in blocks and never given twice.

A block belongs to this gateway alone from the moment its transaction has committed; ids that are left in a
block when the routes change are dropped, because a workflow may have set the sequence anew.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from homeworld.gateway.branch import Branch
from homeworld.gateway.plan import Destination
from homeworld.gateway.pool import OWN_CAPABILITIES, Pool, ask
from homeworld.model.errors import ServerError
from homeworld.model.names import quote
from homeworld.model.topology import BackendRole, TabletType
from homeworld.wire import commands
from homeworld.wire.client import UTF8MB4_BIN
from homeworld.wire.constants import Cap

_SECONDS = 10.0


@dataclass(slots=True)
class _Block:
    next_id: int
    end: int


class Sequences:
    """The blocks of one branch in one gateway."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._blocks: dict[tuple[str, str], _Block] = {}
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}
        self._forgotten = 0

    def forget(self) -> None:
        """Drop what is left of all blocks, those that are on their way included."""
        self._blocks.clear()
        self._forgotten += 1

    async def take(self, branch: Branch, keyspace: str, table: str, count: int) -> tuple[int, ...]:
        """``count`` ids, ascending.

        :raises ServerError: the table is no sequence, or the server refuses.
        :raises UnavailableError: its server does not answer.
        """
        key = (keyspace, table)
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            block = self._blocks.get(key)
            while block is None or block.end - block.next_id < count:
                before = self._forgotten
                fetched = await self._fetch(branch, keyspace, table, count)
                if self._forgotten == before:
                    block = self._blocks[key] = fetched
            first = block.next_id
            block.next_id += count
            return tuple(range(first, first + count))

    async def _fetch(self, branch: Branch, keyspace: str, table: str, count: int) -> _Block:
        place = branch.place(Destination(keyspace, "", TabletType.PRIMARY), BackendRole.READWRITER, 0)
        name = quote(place.schema, table)
        link = await self._pool.lease(
            place.endpoint, OWN_CAPABILITIES | Cap.FOUND_ROWS, UTF8MB4_BIN, place.schema
        )
        try:
            begun, read = await ask(
                link,
                [
                    commands.query("BEGIN"),
                    commands.query(f"SELECT next_id, cache FROM {name} WHERE id = 0 FOR UPDATE"),  # noqa: S608
                ],
                _SECONDS,
            )
            begun.check()
            if not read.result().rows:
                raise ServerError(1105, "HY000", f"sequence {table} has no row with id 0")
            values = [value or b"" for value in read.result().one_row(2)]
            if not all(value.removeprefix(b"-").isdigit() for value in values):
                raise ServerError(1105, "HY000", f"sequence {table} has no numbers in its row")
            next_id, cache = max(1, int(values[0])), int(values[1])
            if cache < 1:
                raise ServerError(1105, "HY000", f"sequence {table} has an impossible cache")
            end = next_id + -(-count // cache) * cache
            written, committed = await ask(
                link,
                [
                    commands.query(f"UPDATE {name} SET next_id = {end} WHERE id = 0"),  # noqa: S608
                    commands.query("COMMIT"),
                ],
                _SECONDS,
            )
            ok = written.result().ok
            committed.check()
            if ok is None or ok.affected_rows != 1:
                raise ServerError(1105, "HY000", f"sequence {table} could not be moved on")
            return _Block(next_id, end)
        finally:
            self._pool.give_back(link)
