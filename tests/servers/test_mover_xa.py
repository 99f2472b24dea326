"""Transactions in two phases (XA) around the beginning of a mover."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager, suppress

import pymysql
import pytest

from homeworld.model.errors import UnavailableError
from homeworld.model.movers import Phase, Placement
from homeworld.model.topology import Flavor
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio, "-", "-")
    made.create("CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE stays (id INT PRIMARY KEY)")
    made.prepare(Placement("t"))
    return made


@contextmanager
def prepared(move: Move, table: str) -> Generator[pymysql.cursors.Cursor]:
    """A transaction that has written to the table and waits for its decision."""
    xid = f"'{move.workflow_id}'"
    with move.source.connect(schema=move.schema) as connection, connection.cursor() as cursor:
        for statement in (f"XA START {xid}", f"INSERT INTO {table} VALUES (1)", f"XA END {xid}"):
            cursor.execute(statement)
        cursor.execute(f"XA PREPARE {xid}")
        try:
            yield cursor
        finally:
            with suppress(pymysql.err.Error):  # it has been decided
                cursor.execute(f"XA ROLLBACK {xid}")


def test_what_was_prepared_elsewhere_before_a_mover_began_anew_may_be_committed(move: Move) -> None:
    first, second = RunningMover(move.spec()), RunningMover(move.spec(epoch=2))
    first.start()
    try:
        wait_copied(first)
        with prepared(move, "stays") as cursor:
            if move.source.flavor is Flavor.MARIADB:  # MySQL's position waits for the decision
                first.drain(move.positions(), 60)
            first.stop(60)
            second.start()
            cursor.execute(f"XA COMMIT '{move.workflow_id}'")
        move.source.query("INSERT INTO t VALUES (7)", move.schema)
        second.drain(move.positions(), 60)
        move.assert_equal()
        assert second.progress().phase is Phase.FOLLOWING
    finally:
        first.stop(60)
        second.stop(60)


def test_no_stream_begins_while_something_is_prepared(move: Move) -> None:
    if move.source.flavor is Flavor.MYSQL:
        pytest.skip("its log tells of the commit of what was prepared before")
    mover = RunningMover(move.spec())
    with prepared(move, "t") as cursor:
        with pytest.raises(UnavailableError, match="prepared"):
            mover.start()
        cursor.execute(f"XA COMMIT '{move.workflow_id}'")
    mover = RunningMover(move.spec(epoch=2))
    mover.start()
    try:
        wait_copied(mover)
        move.assert_equal()
    finally:
        mover.stop(60)


def test_a_stream_back_outlives_what_was_prepared_elsewhere_when_it_began(move: Move) -> None:
    """The positions of a switch name it, so the stream never sees its preparation."""
    with prepared(move, "stays") as cursor:
        mover = RunningMover(move.spec(copy_rows=False, start_positions=move.positions()))
        mover.start()
        try:
            cursor.execute(f"XA COMMIT '{move.workflow_id}'")
            move.source.query("INSERT INTO t VALUES (7)", move.schema)
            mover.drain(move.positions(), 60)
            move.assert_equal()
            assert mover.progress().phase is Phase.FOLLOWING
        finally:
            mover.stop(60)
