"""A move between test servers: places, writers that never pause, and the final comparison by other means.

The comparison reads every row of every shard and compares bytes; it uses nothing of the verifier.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Self

import pymysql

from homeworld.model.keyranges import KeyRange
from homeworld.model.movers import MoverProgress, MoverSpec, OnDdl, Phase, Placement
from homeworld.model.names import quote
from homeworld.model.ports import Mover
from homeworld.model.topology import ShardPlace
from homeworld.model.vindexes import make_vindex, shard_picker
from homeworld.replication.changes import Row
from homeworld.replication.column_types import select_expression
from homeworld.replication.connection import Connection
from homeworld.replication.ddl import TargetForm, target_table
from homeworld.replication.tables import create_table, read_tables
from tests.support.mysqld import TestServer

Act = Callable[[pymysql.cursors.Cursor, random.Random], None]
PATIENCE = 60.0
PAUSE_SECONDS = 0.002  # of a writer between two transactions: it shares the machine with what it tests
_numbers = count(1)


@dataclass
class Move:
    """A move of tables from shards to shards. ``servers`` are taken in turn for places."""

    servers: Sequence[TestServer]
    sources: tuple[ShardPlace, ...]
    targets: tuple[ShardPlace, ...]
    workflow_id: str
    placements: tuple[Placement, ...] = ()
    spec_changes: dict[str, object] = field(default_factory=dict[str, object])

    @property
    def source(self) -> TestServer:
        """The first source shard's server."""
        return self.server_of(self.sources[0])

    @property
    def schema(self) -> str:
        return self.sources[0].schema

    def server_of(self, place: ShardPlace) -> TestServer:
        return next(server for server in self.servers if server.server_id == place.endpoint.server_id)

    def create(self, *statements: str) -> None:
        """Run statements on every source shard."""
        for place in self.sources:
            self.server_of(place).execute(list(statements), place.schema)

    def prepare(self, *placements: Placement, defer: bool = True) -> None:
        """Make the targets' tables from the sources'."""
        self.placements = placements
        tables = read_tables(self.sources[0], [placement.table for placement in placements])
        for placement in placements:
            form = TargetForm(
                defer_keys=defer, keep_auto_increment=not placement.vindex_type, keep_foreign_keys=False
            )
            made = target_table(tables[placement.table], form)
            for place in self.targets:
                create_table(place, placement.table, made.create_sql)

    def spec(self, epoch: int = 1, **changes: object) -> MoverSpec:
        made = MoverSpec(
            workflow_id=self.workflow_id, direction="forward", epoch=epoch, flavor=self.servers[0].flavor,
            sources=self.sources, targets=self.targets, placements=self.placements, copy_rows=True,
            start_positions={}, defer_secondary_keys=True, on_ddl=OnDdl.STOP,
        )  # fmt: skip
        return replace(made, **{**self.spec_changes, **changes})

    def reverse_spec(self, placements: Sequence[Placement], epoch: int = 1) -> MoverSpec:
        """The way back, from where the targets are now."""
        return replace(
            self.spec(epoch), direction="reverse", sources=self.targets, targets=self.sources,
            placements=tuple(placements), copy_rows=False, defer_secondary_keys=False,
            start_positions={place.shard: self.server_of(place).position() for place in self.targets},
        )  # fmt: skip

    def positions(self, places: Iterable[ShardPlace] | None = None) -> dict[str, str]:
        return {place.shard: self.server_of(place).position() for place in places or self.sources}

    def rows(self, place: ShardPlace, table: str, columns: str) -> list[Row]:
        with Connection(place.endpoint) as connection:
            return connection.query_all(f"SELECT {columns} FROM {quote(place.schema, table)}")

    def assert_equal(self) -> None:
        """Every row is on the shard that owns it, byte for byte, and no other is there."""
        for placement in self.placements:
            table = read_tables(self.sources[0], [placement.table])[placement.table]
            columns = ", ".join(select_expression(column) for column in table.columns)
            expected = sorted(
                (row for place in self.sources for row in self.rows(place, table.name, columns)), key=repr
            )
            found: list[Row] = []
            for place in self.targets:
                mine = self.rows(place, table.name, columns)
                owns = _owner(placement, place, [c.name for c in table.columns], table.columns)
                strays = [row for row in mine if not owns(row)]
                assert not strays, f"{table.name} on {place.shard}: {strays[:3]}"
                found += mine
            found.sort(key=repr)
            assert len(found) == len(expected), (len(expected), len(found))
            differing = [(a, b) for a, b in zip(expected, found, strict=True) if a != b]
            assert not differing, f"{table.name}: {differing[:3]}"


def _owner(
    placement: Placement, place: ShardPlace, names: Sequence[str], columns: Sequence[object]
) -> Callable[[Row], bool]:
    if not placement.vindex_type:
        return lambda _row: True
    positions = [names.index(column) for column in placement.vindex_columns]
    own = KeyRange.parse(place.shard)
    others = [KeyRange(b"", own.start)] if own.start else []
    ranges = [*others, own, *([KeyRange(own.end, b"")] if own.end else [])]
    vindex = make_vindex(placement.vindex_type, placement.vindex_params)
    pick = shard_picker(vindex, ranges, [columns[at] for at in positions])  # type: ignore[misc]
    return lambda row: pick(tuple(row[at] for at in positions)) == len(others)


def make_move(servers: Sequence[TestServer], sources: str = "-", targets: str = "-80 80-") -> Move:
    """Places for shards (names separated by spaces) in new schemas, one server after another."""
    number = next(_numbers)
    places: list[ShardPlace] = []
    ring = 0
    for side, shards in (("s", sources), ("t", targets)):
        for at, shard in enumerate(shards.split()):
            server = servers[ring % len(servers)]
            ring += 1
            schema = f"m{number}{side}{at}"
            server.create_schema(schema)
            places.append(server.place(f"{side}{number}", shard, schema))
    cut = len(sources.split())
    return Move(servers, tuple(places[:cut]), tuple(places[cut:]), f"w{number}")


def wait_for(
    mover: Mover, ready: Callable[[MoverProgress], bool], seconds: float = PATIENCE
) -> MoverProgress:
    """The first progress for which ``ready`` holds."""
    deadline = time.monotonic() + seconds
    while True:
        progress = mover.progress()
        if ready(progress):
            return progress
        assert time.monotonic() < deadline, f"not in time: {progress}"
        time.sleep(0.02)


def wait_copied(mover: Mover) -> MoverProgress:
    """Wait until the copy is complete; a mover that failed fails the test."""

    def copied(progress: MoverProgress) -> bool:
        assert progress.phase not in {Phase.FAILED, Phase.DDL, Phase.STOPPED}, progress
        return progress.copied

    return wait_for(mover, copied)


def wait_over(mover: Mover) -> MoverProgress:
    """Wait for a mover that ends by itself."""
    return wait_for(mover, lambda progress: progress.phase in {Phase.FAILED, Phase.DDL, Phase.STOPPED})


class Writers:
    """Threads that change a source until told.

    :param act: (cursor, random) runs one transaction's statements; errors of duplicate keys, deadlocks and
        lost servers are part of the game.
    """

    PASSING = frozenset({1062, 1205, 1213, 2003, 2006, 2013, 1053, 1927, 0})

    def __init__(
        self, server: TestServer, schema: str, act: Act,
        threads: int = 2, seed: int = 0,
    ) -> None:  # fmt: skip
        self._server = server
        self._schema = schema
        self._act = act
        self._stop = threading.Event()
        self.done = 0
        self._failures: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(seed * 100 + at,), daemon=True) for at in range(threads)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        if self._failures:
            raise self._failures[0]

    def wait(self, transactions: int) -> None:
        """Return once this many more transactions have been tried."""
        goal = self.done + transactions
        deadline = time.monotonic() + PATIENCE
        while self.done < goal and not self._failures:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _run(self, seed: int) -> None:
        numbers = random.Random(seed)
        while not self._stop.is_set():
            # PyMySQL leaks a socket of its own making where nobody listens.
            channel = socket.socket(socket.AF_UNIX)
            try:
                channel.connect(self._server.socket)
                made = self._server.connect(schema=self._schema, autocommit=False, defer_connect=True)
                with closing(made) as connection:
                    connection.connect(channel)
                    self._write(connection, numbers)
            except (OSError, pymysql.err.OperationalError, pymysql.err.InterfaceError):
                time.sleep(0.05)
            except BaseException as error:  # noqa: BLE001  told by stop(), in the test's own thread
                self._failures.append(error)
                return
            finally:
                channel.close()

    def _write(self, connection: pymysql.Connection, numbers: random.Random) -> None:
        with connection.cursor() as cursor:
            while not self._stop.is_set():
                try:
                    self._act(cursor, numbers)
                    if numbers.random() < 0.05:
                        connection.rollback()
                    else:
                        connection.commit()
                except (pymysql.err.IntegrityError, pymysql.err.OperationalError) as error:
                    if error.args[0] not in self.PASSING:
                        raise
                    with suppress(pymysql.err.Error):
                        connection.rollback()
                    if error.args[0] not in {1062, 1205, 1213}:
                        raise
                self.done += 1
                self._stop.wait(PAUSE_SECONDS)


def values(mapping: Mapping[str, object]) -> str:
    """``SET`` list for tests that write one row of many columns."""
    return ", ".join(f"{quote(name)}={value}" for name, value in mapping.items())
