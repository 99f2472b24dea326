"""Which rules of a committed switch this gateway may serve, and when it opens the tables again.

For each branch whose routes have a closing this gateway is, as to its subject, in one of these states::

    not taken   serves the rules from before
       | routes are published while a hold of the subject is HELD here, or the branch is new here
    closed      serves the new rules; every primary statement on the tables waits, without a deadline
       | told to open, or routes are published without the closing
    open        serves the new rules

The invariant: it leaves *not taken* only while nothing on the tables is under way, and *closed* only when
told; no deadline does either. Knows no socket and no time; its calls come on the loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from homeworld.gateway.hold import Hold, Holds, HoldState
from homeworld.model.routing import BranchRoutes, Closing, HoldRequest
from homeworld.model.topology import TabletType


@dataclass(slots=True)
class _Taken:
    """A closing whose rules are served here; ``hold`` is None once its tables are open."""

    closing: Closing
    hold: Hold | None


class Closings:
    """All closings of one gateway.

    :param holds_of: the holds of a branch.
    :param is_drained: whether a hold of a subject is in force here with nothing on its tables under way.
    """

    def __init__(self, holds_of: Callable[[str], Holds], is_drained: Callable[[str], bool]) -> None:
        self._holds_of = holds_of
        self._is_drained = is_drained
        self._taken: dict[str, _Taken] = {}

    def servable(self, routes: BranchRoutes, *, fresh: bool) -> BranchRoutes:
        """What of ``routes`` may be served now; :meth:`serve` has to be told once it is.

        :param fresh: nothing of the branch has been served here yet.
        """
        if routes.closing is None:
            return routes
        subject = routes.closing.subject
        taken = self._taken.get(routes.branch_id)
        if fresh or (taken is not None and taken.closing.subject == subject) or self._is_drained(subject):
            return routes
        return routes.without_closing()

    def opens(self, branch_id: str, closing: Closing | None) -> bool:
        """Whether :meth:`serve` will open tables that are closed now."""
        taken = self._taken.get(branch_id)
        if taken is None or taken.hold is None:
            return False
        return closing is None or taken.closing.subject != closing.subject

    def serve(self, branch_id: str, closing: Closing | None) -> None:
        """Routes with this closing are served from now on (None: with none, or the branch is gone)."""
        taken = self._taken.get(branch_id)
        if taken is not None:
            if closing is not None and taken.closing.subject == closing.subject:
                return
            del self._taken[branch_id]
            self._end(branch_id, taken)
        if closing is not None:
            hold = self._holds_of(branch_id).begin(_request(branch_id, closing))
            hold.state = HoldState.HELD
            self._taken[branch_id] = _Taken(closing, hold)

    def closed_by(self, subject: str) -> list[str]:
        """The branches in which tables are closed for this subject."""
        return [
            branch_id
            for branch_id, taken in self._taken.items()
            if taken.closing.subject == subject and taken.hold is not None
        ]

    def open(self, subject: str) -> None:
        """Let go on what waits for the tables of this closing, and keep them open."""
        for branch_id in self.closed_by(subject):
            self._end(branch_id, self._taken[branch_id])

    def _end(self, branch_id: str, taken: _Taken) -> None:
        hold, taken.hold = taken.hold, None
        if hold is None:
            return
        self._holds_of(branch_id).end(hold.request.hold_id)
        waiters, hold.waiters = hold.waiters, []
        for wake in waiters:
            wake()


def as_hold(branch_id: str, tables: frozenset[tuple[str, str]]) -> Hold:
    """Primary statements on tables as what a hold of nobody matches."""
    return Hold(HoldRequest("", branch_id, tables, frozenset({TabletType.PRIMARY}), 0.0, 0.0))


def _request(branch_id: str, closing: Closing) -> HoldRequest:
    """The closed tables as a hold that nobody else names."""
    primaries = frozenset({TabletType.PRIMARY})
    return HoldRequest(f"closing {closing.subject}", branch_id, closing.tables, primaries, 0.0, 0.0)
