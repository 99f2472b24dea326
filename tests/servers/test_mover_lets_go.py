"""A mover that loses a session in the middle of a transaction lets go of everything and ends."""

from __future__ import annotations

from typing import Any

import pytest

from homeworld.model.errors import ConnectionLostError
from homeworld.model.movers import Phase, Placement, ThrottleLimits
from homeworld.model.topology import BackendRole
from homeworld.replication.applier import Appliers, TargetApplier
from homeworld.replication.connection import Connection
from homeworld.replication.mover import RunningMover
from tests.support.moves import make_move, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


def lost(*_arguments: Any, **_options: Any) -> None:
    raise ConnectionLostError("lost")


def test_copiers_do_not_wait_for_a_follower_that_could_not_roll_back(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds the gate then, and they have to pass it also to end."""
    move = make_move(trio)
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, o INT NOT NULL, v VARCHAR(20))",
        "INSERT INTO t VALUES " + ", ".join(f"({n}, {n % 10}, 'v{n}')" for n in range(2000)),
    )
    move.prepare(Placement("t", "xxhash", ("o",)))
    mover = RunningMover(move.spec(limits=ThrottleLimits(ratio=90)), chunk_bytes=400)
    mover.start()
    try:
        wait_for(mover, lambda progress: any(table.rows_copied for table in progress.tables))
        monkeypatch.setattr(Appliers, "apply", lost)
        monkeypatch.setattr(Appliers, "rollback", lost)
        move.create("INSERT INTO t VALUES (-1, 1, 'new')")
        told = wait_over(mover)
        assert (told.phase, told.error, told.copied, told.retryable) == (Phase.FAILED, "lost", False, True)
    finally:
        mover.stop(30)


def test_what_was_open_on_a_session_that_is_lost_is_rolled_back_by_the_server(
    server: TestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    applier = TargetApplier(server.place("shop", "-", "_homeworld", BackendRole.MOVER), 1, (), {}, 5)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(applier, "_open", True)
            patched.setattr(Connection, "execute", lost)
            applier.rollback()
            applier.rollback()
    finally:
        applier.close()
