"""Ours in the data path's figures: one table moved from a server to two shards, as production does it.

The mover runs in a child process, and the target's tables are made as the workflow makes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.mysqld import TestServer

from bench.lab import BenchError, wait_until
from bench.tables import SCHEMA, TABLE
from homeworld.model.movers import MoverProgress, MoverSpec, OnDdl, Phase, Placement, Verification
from homeworld.model.names import new_id
from homeworld.model.topology import ShardPlace
from homeworld.replication.ddl import TargetForm, target_table
from homeworld.replication.mover_process import MoverProcesses, ProcessMover
from homeworld.replication.tables import create_table, read_tables

SHARDS = ("-80", "80-")
VINDEX = "xxhash"
_FORM = TargetForm(defer_keys=True, keep_auto_increment=False, keep_foreign_keys=False)
_SECONDS = 900.0


@dataclass(slots=True)
class Move:
    """A move of the bench's table; each copy is a workflow of its own, each restart a newer epoch."""

    source: TestServer
    shards: tuple[TestServer, ...]
    threads: int
    _movers: MoverProcesses | None = None
    _workflow_id: str = ""
    _epoch: int = 0
    _mover: ProcessMover | None = None

    def prepare(self) -> None:
        """Empty the shards and make the target's table on each; ends what ran before."""
        self.stop()
        self._workflow_id, self._epoch = new_id(), 0
        definition = read_tables(self._source(), [TABLE])[TABLE]
        for server, place in zip(self.shards, self._targets(), strict=True):
            server.drop_schema(SCHEMA)
            server.create_schema(SCHEMA)
            create_table(place, TABLE, target_table(definition, _FORM).create_sql)

    def copy(self) -> float:
        """Copy all rows and build the deferred keys; the seconds from the start of the mover to that."""
        begun = time.perf_counter()
        self.follow()
        self.wait(lambda progress: progress.copied, "the copy")
        return time.perf_counter() - begun

    def follow(self) -> None:
        """Start the mover (again): it goes on from where it stood."""
        self._epoch += 1
        spec = MoverSpec(
            workflow_id=self._workflow_id,
            direction="forward",
            epoch=self._epoch,
            flavor=self.source.flavor,
            sources=(self._source(),),
            targets=self._targets(),
            placements=(Placement(TABLE, VINDEX, ("id",)),),
            copy_rows=True,
            start_positions={},
            defer_secondary_keys=True,
            on_ddl=OnDdl.STOP,
            copy_threads=self.threads,
        )
        if self._movers is None:
            self._movers = MoverProcesses()
        self._mover = self._movers.start(spec)

    def catch_up(self, position: str) -> None:
        """Return once everything up to the source's ``position`` is applied on both shards."""
        self.mover.drain({"-": position}, _SECONDS)

    def verify(self) -> float:
        """Compare both sides; the seconds it took.

        :raises BenchError: they differ, or the verification failed.
        """
        verify_id = new_id()
        begun = time.perf_counter()
        self.mover.verify(verify_id)
        self.wait(lambda progress: _done(progress.verification, verify_id), "the verification")
        seconds = time.perf_counter() - begun
        verification = self.mover.progress().verification
        if verification is None or not verification.equal:
            raise BenchError(f"the verification did not find both sides equal: {verification}")
        return seconds

    @property
    def mover(self) -> ProcessMover:
        """The mover under way."""
        if self._mover is None:
            raise BenchError("no mover runs")
        return self._mover

    def wait(self, holds: Callable[[MoverProgress], bool], what: str) -> None:
        """Follow the mover's progress until it is so.

        :raises BenchError: the mover failed or it took too long.
        """

        def look() -> bool:
            progress = self.mover.progress()
            if progress.phase in {Phase.FAILED, Phase.DDL, Phase.STOPPED}:
                raise BenchError(f"{what}: the mover is {progress.phase}: {progress.error or progress.ddl}")
            return holds(progress)

        wait_until(look, what, _SECONDS)

    def stop(self) -> None:
        """Stop the mover where one runs."""
        if self._mover is not None:
            mover, self._mover = self._mover, None
            mover.stop(60.0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._movers is not None:
            self._movers.close()
            self._movers = None

    def _source(self) -> ShardPlace:
        return self.source.place("bench", "-", SCHEMA)

    def _targets(self) -> tuple[ShardPlace, ...]:
        return tuple(
            server.place("sharded", shard, SCHEMA) for server, shard in zip(self.shards, SHARDS, strict=True)
        )


def _done(verification: Verification | None, verify_id: str) -> bool:
    return (
        verification is not None
        and verification.verify_id == verify_id
        and verification.state in {"completed", "error"}
    )
