"""What a gateway has to end when it comes back among others that may have gone on without it.

Knows no socket and no time. Invariant: when :func:`break_off` has returned, nothing is under way on moving
tables whose routes are others by now, and nothing that was admitted by the old ones will be sent.
"""

from __future__ import annotations

from collections.abc import Mapping

from homeworld.gateway.branch import Branch
from homeworld.gateway.closing import as_hold
from homeworld.model.routing import RoutingSnapshot


def break_off(
    branches: Mapping[str, Branch], snapshot: RoutingSnapshot, *, lapsed_only: bool = False
) -> frozenset[str]:
    """End what goes by routes that have changed meanwhile: connections are closed, for the client as if their
    servers were lost. Whoever moved the tables has told the servers to close them, too.

    :param branches: as they are served, by id.
    :param lapsed_only: where the lease lives others have gone on with this gateway, not without.
    :returns: the ids of the branches concerned.
    """
    changed: set[str] = set()
    for branch_id, published in snapshot.branches.items():
        branch = branches.get(branch_id)
        if branch is None or (branch.routes.moving or published.moving) is None:
            continue
        if lapsed_only and (branch.guard is None or branch.guard.live()):
            continue
        old = branch.routes
        if published.rules == old.rules and published.closing in (None, old.closing):
            continue
        changed.add(branch_id)
        branch.epoch += 1
        tables = [moving.tables for moving in (old.moving, published.moving) if moving is not None]
        touching = as_hold(branch_id, frozenset[tuple[str, str]]().union(*tables))
        for session in list(branch.sessions):
            if any(map(touching.matches, session.touches())):
                for link in list(session.links.values()):
                    link.sever()
    return frozenset(changed)
