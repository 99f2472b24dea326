"""Shorter deadlines for the fault matrix, in the same proportions as the product's.

A fault that has to outlast every deadline then takes ten seconds instead of minutes. Only times are changed,
in this process, before anything is composed; a mover's process changes its own. The invariant: the order of
the product's deadlines stays (a hold outlasts a lease and a switch, an answer outlasts a lock).
"""

from __future__ import annotations

from homeworld.gateway import pool
from homeworld.replication import connection, feed, mover_process
from homeworld.store import engine
from homeworld.workflows.move_tables import servers, steps_switch, taking

TTL_SECONDS = 4.0
STORE_SECONDS = 3
HOLD_SECONDS = 8.0
ANSWER_SECONDS = 6.0
# What outlasts all of them.
LONG_SECONDS = 11.0


def shorten() -> None:
    """For the process of executor and gateway."""
    engine.LOCK_SECONDS = STORE_SECONDS
    steps_switch.REPLICA_SECONDS = 6.0
    steps_switch.BEHIND_SECONDS = 6.0
    steps_switch.HOLD_SECONDS = HOLD_SECONDS
    steps_switch.SWITCH_SECONDS = 3.0
    steps_switch.DRAIN_SECONDS = (0.25, 0.5, 1.0)
    steps_switch.LOCK_SECONDS = 2.0
    steps_switch.STOP_SECONDS = 6.0
    taking.HOLD_SECONDS = HOLD_SECONDS
    servers.ANSWER_SECONDS = ANSWER_SECONDS
    servers.DROP_SECONDS = 4
    assert pool.Pool.__init__.__defaults__ == (10.0,), "the pool's deadline has changed its place"
    pool.Pool.__init__.__defaults__ = (4.0,)
    connection.CONNECT_SECONDS = 4.0
    _connections(4.0, ANSWER_SECONDS)


def shorten_mover() -> None:
    """For a mover's process."""
    _connections(4.0, ANSWER_SECONDS)
    feed.SILENCE_SECONDS = ANSWER_SECONDS
    feed.CONNECT_SECONDS = 4.0


def _connections(connect: float, answer: float) -> None:
    made = connection.Connection.__init__
    assert made.__kwdefaults__ is not None
    assert {"connect_seconds", "timeout_seconds"} <= made.__kwdefaults__.keys()
    made.__kwdefaults__ |= {"connect_seconds": connect, "timeout_seconds": answer}


def run_mover() -> None:
    """The product's mover, on this process's input and output."""
    mover_process.main()
