"""What a drain leaves behind: no target that a later start of the stream would give old changes again."""

from __future__ import annotations

import pytest
import xxhash

from homeworld.model.gtid import Position
from homeworld.model.movers import Placement
from homeworld.replication.mover import RunningMover
from tests.support.moves import make_move, wait_copied
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


def test_every_target_has_the_final_position(trio: list[TestServer]) -> None:
    move = make_move(trio)
    move.create("CREATE TABLE t (id BIGINT NOT NULL PRIMARY KEY, v INT)")
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        upper = [n for n in range(400) if xxhash.xxh64_intdigest(str(n).encode()) & 0x80]
        for number in upper[:100]:  # rows for one shard only
            move.source.execute(f"INSERT INTO t VALUES ({number}, 1)", move.schema)
        final = move.positions()
        mover.drain(final, 30.0)
        flavor = move.source.flavor
        wanted = Position.parse(flavor, final[move.sources[0].shard])
        for place in move.targets:
            (row,) = move.server_of(place).query(
                "SELECT position FROM _homeworld.streams WHERE workflow_id = %s AND target_shard = %s",
                args=(move.workflow_id, place.shard),
            )
            stored = Position.parse(flavor, bytes(row[0]).decode())
            assert stored.contains(wanted), place.shard
        assert mover.progress().error == ""
    finally:
        mover.stop(10.0)
