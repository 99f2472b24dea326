"""Shorter deadlines for the fault matrix, in the same proportions as the product's.

A fault that has to outlast every deadline then takes ten seconds instead of minutes. Only times are changed,
in this process, before anything is composed; a mover's process changes its own. The invariant: the order of
the product's deadlines stays (a hold outlasts a lease and a switch, an answer outlasts a lock).
"""

from __future__ import annotations

import inspect
from typing import Any

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
# Where gateways are processes of their own a call waits for their leases, and a hold outlasts a call.
ROLES_HOLD_SECONDS = 12.0
ROLES_LONG_SECONDS = 15.0


def shorten(*, hold_seconds: float = HOLD_SECONDS, switch_seconds: float = 3.0) -> None:
    """For the process of executor and gateway."""
    engine.LOCK_SECONDS = STORE_SECONDS
    engine.IDLE_SECONDS = STORE_SECONDS - 1
    steps_switch.REPLICA_SECONDS = 6.0
    steps_switch.BEHIND_SECONDS = 6.0
    steps_switch.HOLD_SECONDS = hold_seconds
    steps_switch.SWITCH_SECONDS = switch_seconds
    steps_switch.DRAIN_SECONDS = (0.25, 0.5, 1.0)
    steps_switch.LOCK_SECONDS = 2.0
    steps_switch.STOP_SECONDS = 6.0
    taking.HOLD_SECONDS = hold_seconds
    servers.ANSWER_SECONDS = ANSWER_SECONDS
    servers.DROP_SECONDS = 4
    set_default(pool.Pool.__init__, connect_seconds=4.0)
    connection.CONNECT_SECONDS = 4.0
    _connections(4.0, ANSWER_SECONDS)


def shorten_mover() -> None:
    """For a mover's process."""
    _connections(4.0, ANSWER_SECONDS)
    feed.SILENCE_SECONDS = ANSWER_SECONDS
    feed.CONNECT_SECONDS = 4.0


def _connections(connect: float, answer: float) -> None:
    set_default(connection.Connection.__init__, connect_seconds=connect, timeout_seconds=answer)


def set_default(function: Any, **values: float) -> None:
    """Give parameters of a function other default values than it was defined with.

    :raises TypeError: it has no such parameter, or one without a default.
    """
    for name, value in values.items():
        parameters = inspect.signature(function).parameters
        if name not in parameters or parameters[name].default is inspect.Parameter.empty:
            raise TypeError(f"{function} has no parameter {name} with a default")
        if parameters[name].kind is inspect.Parameter.KEYWORD_ONLY:
            function.__kwdefaults__[name] = value
            continue
        with_default = [
            one.name
            for one in parameters.values()
            if one.kind is not inspect.Parameter.KEYWORD_ONLY and one.default is not inspect.Parameter.empty
        ]
        changed = list(function.__defaults__)
        changed[with_default.index(name)] = value
        function.__defaults__ = tuple(changed)


def run_mover() -> None:
    """The product's mover, on this process's input and output."""
    mover_process.main()
