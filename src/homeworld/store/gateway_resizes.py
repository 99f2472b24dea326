"""Resizes of a branch's gateways: how many clients each gateway takes for the branch.

Invariant: of a branch at most one waits and at most one is under way; asking again changes what waits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from homeworld.model.errors import InvalidError
from homeworld.model.machine import Transition
from homeworld.model.names import new_id
from homeworld.model.states.resizing import UNFINISHED, WAITING, Resize, ResizeTrigger, resize_row
from homeworld.store.branches import Branch
from homeworld.store.journal import Journal
from homeworld.store.pages import Page, PageRequest, fetch_page
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


class GatewayResizes:
    """Resizes of gateways within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def ask(self, branch: Branch, size: str, *, actor_id: str | None = None) -> GatewayResize | None:
        """Ask for a resize, or change the one that waits; None: the branch has that size, or will have.

        :param size: a checked name.
        """
        unfinished = self.unfinished([branch.id]).get(branch.id, ())
        waiting = next((one for one in unfinished if one.state in WAITING), None)
        if waiting is not None:
            table = resizes.gateway_resizes
            values = {"size": size, "updated_at": self._work.now}
            self._work.change(table, table.c.id, waiting.id, values)
            return self.get(waiting.id)
        before = unfinished[-1].size if unfinished else branch.gateway_size
        if before == size:
            return None
        now = self._work.now
        state = Resize.QUEUED if unfinished else Resize.PENDING
        made = GatewayResize(new_id(), branch.id, state, "", size, before, actor_id, now, now, None, None)
        self._work.add(resizes.gateway_resizes, {field: getattr(made, field) for field in made.__slots__})
        self._journal.born(
            KIND, made.id, state, actor_id=actor_id, payload={"branch_id": branch.id, "size": size}
        )
        return made

    def get(self, resize_id: str) -> GatewayResize:
        """The resize in whatever state.

        :raises NotFoundError: no such id.
        """
        table = resizes.gateway_resizes
        return self._work.only(select(table).where(table.c.id == resize_id), GatewayResize)

    def of_branch(self, branch_id: str, resize_id: str) -> GatewayResize:
        """The branch's resize of that id.

        :raises NotFoundError: it has none of that id.
        """
        table = resizes.gateway_resizes
        query = select(table).where(table.c.id == resize_id, table.c.branch_id == branch_id)
        return self._work.only(query, GatewayResize)

    def page(self, branch_id: str, request: PageRequest) -> Page[GatewayResize]:
        """The branch's resizes, newest first."""
        table = resizes.gateway_resizes
        query = (
            select(table)
            .where(table.c.branch_id == branch_id)
            .order_by(table.c.created_at.desc(), table.c.id.desc())
        )
        return fetch_page(self._work.connection, query, request, GatewayResize)

    def unfinished(self, branch_ids: Iterable[str]) -> Mapping[str, tuple[GatewayResize, ...]]:
        """Those that wait or are under way, by branch, oldest first; in one query."""
        table = resizes.gateway_resizes
        query = (
            select(table)
            .where(table.c.branch_id.in_(list(branch_ids)), table.c.state.in_(UNFINISHED))
            .order_by(table.c.created_at, table.c.id)
        )
        found: dict[str, tuple[GatewayResize, ...]] = {}
        for one in self._work.all(query, GatewayResize):
            found[one.branch_id] = (*found.get(one.branch_id, ()), one)
        return found

    def tell(self, resize_id: str, error: str) -> None:
        """Say why it does not go on; empty: it does."""
        if self.get(resize_id).error != error:
            table = resizes.gateway_resizes
            self._work.change(table, table.c.id, resize_id, {"error": error, "updated_at": self._work.now})

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
        self._journal.move(
            KIND,
            resizes.gateway_resizes,
            resize_id,
            expected,
            row,
            actor_id=actor_id,
            why="",
            fields={},
            payload={},
        )
        return self.get(resize_id)

    def cancel(self, branch: Branch, actor_id: str | None = None) -> GatewayResize:
        """Take back the resize that waits.

        :raises InvalidError: none waits; one that has begun comes to its end.
        """
        for one in self.unfinished([branch.id]).get(branch.id, ()):
            if one.state in WAITING:
                row = resize_row(one.state, ResizeTrigger.CANCEL)
                return self.transition(one.id, one.state, row, actor_id=actor_id)
        raise InvalidError(f"no resize of the gateways of branch {branch.name} waits")
