"""What the executor has to look at: every resource whose state asks for work.

Invariant: the answer depends on states alone, so that work that a crash interrupted is found again without
anybody having to remember it.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, Table, TextClause, false, or_, select

from homeworld.model.states.engine_changes import UNFINISHED as CHANGING
from homeworld.model.states.engine_changes import EngineChange
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import WORKING, State
from homeworld.model.states.reparenting import UNFINISHED as REPARENTING
from homeworld.model.states.reparenting import Reparent
from homeworld.model.states.resizing import UNFINISHED, Resize
from homeworld.store.followings import Followings
from homeworld.store.tables import engines, maintenance, reparents, resizes, resources
from homeworld.store.tables import workflows as workflow_tables
from homeworld.store.tables.maintenance import WindowState
from homeworld.store.work import Work

# Deletions before creations: a name that is asked for again waits for the old one to be gone.
UNSETTLED = (Life.DELETING, Life.PENDING)
# A stopped workflow is looked at too: whether its tables fit again is seen, not told.
WATCHED = (*WORKING, State.STOPPED)
_NOTHING_ELSE = false()


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A resource to look at; ``kind`` is database, branch, cluster (of a branch, whose id it has), keyspace,
    resize, gateway_resize, reparent, engine_change, workflow or maintenance (an open window).
    """

    kind: str
    id: str
    state: str

    @property
    def lease(self) -> str:
        """The resource name for Leases."""
        return f"{self.kind}:{self.id}"


class Queue:
    """The work queue within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def resources_with_work(self) -> tuple[WorkItem, ...]:
        """Databases, branches and keyspaces that are pending or being deleted, clusters that do not have what
        is stored, resizes, reparents and changes of engine that are not over, workflows in a state where
        something is under way, a stream runs, or what the state asks is not settled, and open maintenance
        windows. Oldest change first within a kind.
        """
        return (
            *self._of("database", resources.databases, UNSETTLED),
            *self._of("branch", resources.branches, UNSETTLED),
            *self._of("keyspace", resources.keyspaces, UNSETTLED),
            *(WorkItem("cluster", *found) for found in self._clusters()),
            *self._of("resize", resizes.keyspace_resizes, UNFINISHED),
            *self._of("gateway_resize", resizes.gateway_resizes, UNFINISHED),
            *self._of("reparent", reparents.reparents, REPARENTING),
            *self._of("engine_change", engines.engine_changes, CHANGING),
            *self._of("workflow", workflow_tables.workflows, WATCHED, workflow_tables.UNSETTLED),
            *self._of("maintenance", maintenance.maintenance_windows, (WindowState.OPEN,)),
        )

    def _clusters(self) -> list[tuple[str, str]]:
        """With the version that each is to have: where that grows it is looked at anew at once."""
        return [(branch_id, str(version)) for branch_id, version in Followings(self._work).with_work()]

    def _of(
        self,
        kind: str,
        table: Table,
        states: tuple[Life, ...]
        | tuple[State, ...]
        | tuple[Resize, ...]
        | tuple[Reparent, ...]
        | tuple[EngineChange, ...]
        | tuple[WindowState, ...],
        also: ColumnElement[bool] | TextClause = _NOTHING_ELSE,
    ) -> list[WorkItem]:
        rows = self._work.connection.execute(
            select(table.c.id, table.c.state)
            .where(or_(table.c.state.in_(states), also))
            .order_by(table.c.updated_at, table.c.id)
        )
        return [WorkItem(kind, row.id, row.state.value) for row in rows]
