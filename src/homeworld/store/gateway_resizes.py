"""Resizes of a branch's gateways: how many clients each gateway takes for the branch.

Invariant: of a branch at most one waits and at most one is under way; asking again changes what waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from homeworld.model.errors import InvalidError
from homeworld.model.machine import Transition
from homeworld.model.names import new_id
from homeworld.model.states.resizing import WAITING, Resize, ResizeTrigger, resize_row
from homeworld.store.branches import Branch
from homeworld.store.pages import Page, PageRequest
from homeworld.store.resize_rows import ResizeRows
from homeworld.store.tables import resizes
from homeworld.store.work import Work

KIND = "gateway_resize"


@dataclass(frozen=True, slots=True)
class GatewayResize:
    """A resize as stored. ``error`` says why it does not go on, if it does not."""

    id: str
    branch_id: str
    state: Resize
    error: str
    size: str
    previous_size: str
    actor_id: str | None
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None


class GatewayResizes(ResizeRows[GatewayResize]):
    """Resizes of gateways within one transaction; of what branch."""

    def __init__(self, work: Work) -> None:
        table = resizes.gateway_resizes
        super().__init__(work, KIND, table, table.c.branch_id, GatewayResize)

    def ask(self, branch: Branch, size: str, *, actor_id: str | None = None) -> GatewayResize | None:
        """Ask for a resize, or change the one that waits; None: the branch has that size, or will have.

        :param size: a checked name.
        """
        unfinished = self.unfinished([branch.id]).get(branch.id, ())
        waiting = next((one for one in unfinished if one.state in WAITING), None)
        if waiting is not None:
            return self._change(waiting.id, {"size": size})
        before = unfinished[-1].size if unfinished else branch.gateway_size
        if before == size:
            return None
        now = self._work.now
        state = Resize.QUEUED if unfinished else Resize.PENDING
        made = GatewayResize(new_id(), branch.id, state, "", size, before, actor_id, now, now, None, None)
        return self._make(made, state, actor_id, branch_id=branch.id, size=size)

    def page(self, branch_id: str, request: PageRequest) -> Page[GatewayResize]:
        """The branch's resizes, newest first."""
        return self._page(branch_id, request)

    def transition(
        self,
        resize_id: str,
        expected: Resize,
        row: Transition[Resize, ResizeTrigger],
        *,
        actor_id: str | None = None,
    ) -> GatewayResize:
        """Take a row of RESIZES.

        :raises ConflictError: it is not in ``expected`` any more, or another of the branch is under way.
        """
        return self._move(resize_id, expected, row, actor_id, {})

    def cancel(self, branch: Branch, actor_id: str | None = None) -> GatewayResize:
        """Take back the resize that waits.

        :raises InvalidError: none waits; one that has begun comes to its end.
        """
        for one in self.unfinished([branch.id]).get(branch.id, ()):
            if one.state in WAITING:
                row = resize_row(one.state, ResizeTrigger.CANCEL)
                return self.transition(one.id, one.state, row, actor_id=actor_id)
        raise InvalidError(f"no resize of the gateways of branch {branch.name} waits")
