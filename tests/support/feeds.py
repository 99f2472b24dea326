"""Reading a feed in tests: everything up to a position, within a deadline."""

from __future__ import annotations

import time
from collections.abc import Iterable

from homeworld.model.gtid import Position
from homeworld.model.tables import Table
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.changes import DdlEvent, FeedBatch, Row, RowChange, TableName
from homeworld.replication.feed import Feed
from homeworld.replication.tables import read_tables
from tests.support.mysqld import TestServer

DEADLINE = 60.0


def wanted(server: TestServer, schema: str, *names: str) -> dict[TableName, Table]:
    """The tables as they are now, as a feed wants them."""
    found = read_tables(server.place("k", "-", schema, BackendRole.OWNER), names)
    return {(schema, name): table for name, table in found.items()}


def batches_until(feed: Feed, flavor: Flavor, position: str, max_events: int = 1000) -> list[FeedBatch]:
    """All batches until the feed's position holds ``position``."""
    target = Position.parse(flavor, position)
    found: list[FeedBatch] = []
    deadline = time.monotonic() + DEADLINE
    while not Position.parse(flavor, feed.position).contains(target):
        assert time.monotonic() < deadline, f"the feed is at {feed.position}, not at {position}"
        found.append(feed.read_batch(max_events, 1.0))
    return found


def changes_of(batches: Iterable[FeedBatch]) -> list[RowChange]:
    """All changes of the batches, as a consumer has them that undoes what is void."""
    whole: list[RowChange] = []
    parts: list[RowChange] = []
    for batch in batches:
        if batch.discard_unfinished:
            parts.clear()
        parts += batch.changes
        if not batch.mid_transaction:
            whole += parts
            parts.clear()
    assert not parts
    return whole


def ddl_of(batches: Iterable[FeedBatch]) -> list[DdlEvent]:
    return [ddl for batch in batches for ddl in batch.ddl]


def apply(changes: Iterable[RowChange], key: int = 0) -> dict[TableName, dict[bytes | None, Row]]:
    """Tables as the changes leave them, beginning empty; every change must fit what was there before."""
    tables: dict[TableName, dict[bytes | None, Row]] = {}
    for name, before, after in changes:
        rows = tables.setdefault(name, {})
        if before is not None:
            assert rows.pop(before[key]) == before
        if after is not None:
            assert after[key] not in rows
            rows[after[key]] = after
    return tables
