"""Tables that are altered while they are copied and the stream is behind; and locks of others."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import Any

import pytest

from homeworld.model.movers import MoverProgress, OnDdl, Phase, Placement, ThrottleLimits
from homeworld.replication import applier, copier
from homeworld.replication.connection import Connection
from homeworld.replication.mover import RunningMover
from homeworld.replication.reading import FeedReader
from homeworld.replication.snapshots import open_snapshot
from tests.support.moves import Move, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
SLOWLY = ThrottleLimits(ratio=90)


def started(move: Move, answer: OnDdl = OnDdl.EXEC) -> RunningMover:
    mover = RunningMover(move.spec(on_ddl=answer, limits=SLOWLY, copy_threads=1), chunk_bytes=400)
    mover.start()
    return mover


def rows_copied(progress: MoverProgress) -> int:
    return sum(table.rows_copied for table in progress.tables)


def ends_equal(move: Move, mover: RunningMover) -> None:
    mover.limit(ThrottleLimits())
    wait_copied(mover)
    mover.drain(move.positions(), 60)
    move.assert_equal()


def test_what_a_stream_does_not_know_yet_is_not_copied(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts are copied as bytes: read by a newer character set they would be others in the older one."""
    move = make_move(trio)
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, o INT NOT NULL, v VARCHAR(20) CHARACTER SET latin1)",
        "INSERT INTO t VALUES " + ", ".join(f"({n}, {n % 10}, 'é{n}')" for n in range(2000)),
    )
    move.prepare(Placement("t", "xxhash", ("o",)))
    behind, take = threading.Event(), FeedReader.take

    def late(self: FeedReader, wait_seconds: float) -> Any:
        if behind.is_set():
            time.sleep(wait_seconds)
            return None
        return take(self, wait_seconds)

    monkeypatch.setattr(FeedReader, "take", late)
    mover = started(move)
    try:
        wait_for(mover, lambda progress: rows_copied(progress) > 0)
        behind.set()
        time.sleep(0.5)  # what was being taken has been dealt with
        move.create("ALTER TABLE t CONVERT TO CHARACTER SET utf8mb4")
        time.sleep(1.5)  # chunks would land
        behind.clear()
        ends_equal(move, mover)
    finally:
        mover.stop(60)


def test_a_table_that_is_rebuilt_under_a_snapshot_is_read_anew(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    move = make_move(trio)
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, o INT NOT NULL, v VARCHAR(20))",
        "INSERT INTO t VALUES " + ", ".join(f"({n}, {n % 10}, 'v{n}')" for n in range(2000)),
    )
    move.prepare(Placement("t", "xxhash", ("o",)))
    opened: list[int] = []

    def rebuilt(connection: Connection, *rest: Any) -> None:
        open_snapshot(connection, *rest)
        if not opened:
            opened.append(connection.connection_id)
            move.source.query("OPTIMIZE TABLE t", move.schema)

    monkeypatch.setattr(copier, "open_snapshot", rebuilt)
    mover = RunningMover(move.spec(copy_threads=1), chunk_bytes=400)
    mover.start()
    try:
        ends_equal(move, mover)
        assert opened
    finally:
        mover.stop(60)


def test_keys_that_come_to_be_in_another_order_end_the_copy(trio: list[TestServer]) -> None:
    move = make_move(trio)
    move.create(
        "CREATE TABLE t (id VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, o INT NOT NULL)",
        "INSERT INTO t VALUES "
        + ", ".join(f"('{'aBcDeFgHiJkLmNoPqRsTuVwXyZ'[n % 26]}{n}', {n % 10})" for n in range(2000)),
    )
    move.prepare(Placement("t", "xxhash", ("o",)))
    mover = started(move)
    try:
        wait_for(mover, lambda progress: rows_copied(progress) > 0)
        move.create("ALTER TABLE t MODIFY id VARCHAR(20) COLLATE utf8mb4_bin NOT NULL")
        told = wait_over(mover)
        assert (told.phase, told.retryable) == (Phase.FAILED, False)
        assert "the order of the keys of table 't' was changed during its copy" in told.error
    finally:
        mover.stop(60)


def test_a_lock_on_where_a_stream_is_ends_nothing(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(applier, "FLUSH_SECONDS", 0.0)
    move = make_move(trio)
    move.create("CREATE TABLE t (id INT PRIMARY KEY)", "INSERT INTO t VALUES (1), (2), (3)")
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        mover.drain(move.positions(), 60)
        locking = "SELECT * FROM _homeworld.streams LOCK IN SHARE MODE"
        with closing(move.server_of(move.targets[0]).connect(autocommit=False)) as other:
            other.begin()
            with other.cursor() as cursor:
                cursor.execute(locking)
            move.source.query("CREATE TABLE unrelated (id INT)", move.schema)
            begun = threading.Thread(target=mover.drain, args=(move.positions(), 60), daemon=True)
            begun.start()
            time.sleep(3)  # longer than a session of a stream waits for a lock
            assert mover.progress().phase is Phase.FOLLOWING
            other.rollback()
        begun.join(60)
        assert not begun.is_alive()
        assert mover.progress().phase is Phase.FOLLOWING
    finally:
        mover.stop(60)
