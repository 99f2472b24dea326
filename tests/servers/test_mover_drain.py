"""What a drain leaves behind: no target that a later start of the stream would give old changes again."""

from __future__ import annotations

from contextlib import closing, suppress

import pymysql
import pytest
import xxhash

from homeworld.model.errors import UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.movers import Placement
from homeworld.replication import applier
from homeworld.replication.mover import RunningMover
from tests.support.moves import make_move, wait_copied, wait_over
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


def test_a_target_lost_while_nothing_comes_is_found_out_by_the_drain(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody writes, so nothing else would use the target's session: the mover must end, to begin anew."""
    monkeypatch.setattr(applier, "FLUSH_SECONDS", 3600.0)  # nor does the follower, on a slow machine
    move = make_move(trio)
    move.create("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    wait_copied(mover)
    mover.drain(move.positions(), 30)
    move.source.query("CREATE TABLE unrelated (id INT)", move.schema)  # a position to be written down
    user = move.targets[0].endpoint.user
    for server in {move.server_of(place).server_id: move.server_of(place) for place in move.targets}.values():
        with closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = %s", (user,))
            for (number,) in cursor.fetchall():
                with suppress(pymysql.err.Error):  # it has ended by itself
                    cursor.execute(f"KILL {number}")
    with suppress(UnavailableError):
        mover.drain(move.positions(), 30)
    progress = wait_over(mover)
    assert progress.retryable
    again = RunningMover(move.spec(2))
    again.start()
    again.drain(move.positions(), 30)
    move.assert_equal()
    again.stop(60)
