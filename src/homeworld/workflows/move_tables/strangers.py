"""Connections of gateways that the others go on without: ended before anybody relies on their being silent.

A gateway that has ended, or that is set apart, may have left a statement at a server, or have a connection
over which it would send one as soon as it wakes up. A hold says nothing of those. So once the hold is in
force everywhere, every connection of the gateways' accounts at the servers concerned that no living gateway
calls its own is ended, and its end waited for.

On Vitess there are none: gateways reach vtgate only, which has one truth, and the gateways' accounts at the
servers are its tablets'. What such a gateway has sent through vtgate waits at the locked tables, and is ended
before they are free (``vitess_switch.unfence``), or is broken off by tablets that deny the tables.

Invariant: when :func:`end_strangers` has returned, no statement reaches the places over a connection of a
gateway that did not acknowledge the hold, and none that it sent is still at work there.
"""

from __future__ import annotations

from homeworld.model.ports import Knowing
from homeworld.model.topology import BackendRole, ShardPlace
from homeworld.workflows.move_tables.context import Context, Side

SECONDS = 2.0
_GATEWAYS = (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)


def end_fences(context: Context, *sides: Side) -> None:
    """End what a process of before keeps locked: one that is stopped holds on, and whoever writes to the
    tables waits for it, so that no hold would drain. Only while this process has nothing locked.

    :raises UnavailableError: a server does not answer.
    """
    if isinstance(context.ports.gateways, Knowing):
        for side in sides:
            context.tools.end_fences(context.owner(side), context.tables)


def end_strangers(context: Context, *sides: Side) -> None:
    """End what is nobody's on the primaries of the sides; nothing where there is one gateway only.

    :raises DeadlineExceededError: one does not end.
    :raises UnavailableError: a gateway or a server does not answer.
    """
    gateways = context.ports.gateways
    if not isinstance(gateways, Knowing) or context.ports.vitess is not None:
        return
    places: dict[str, ShardPlace] = {}
    for side in sides:
        places.update((place.endpoint.server_id, place) for place in context.owner(side))
    users = frozenset(
        context.ports.engine.endpoint(server_id, role).user for server_id in places for role in _GATEWAYS
    )
    context.tools.end_strangers(tuple(places.values()), users, gateways.connections, SECONDS)
