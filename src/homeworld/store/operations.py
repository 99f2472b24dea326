"""What clients of the vtctld family wait for: an action on a workflow, since which journal row.

Invariant: a row is written with the transition that it waits for and never changed; how the action ended is
read from the journal after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from homeworld.model.names import new_id
from homeworld.model.states.move_tables import State
from homeworld.store.tables import operations
from homeworld.store.work import Work
from homeworld.store.workflows import Workflow


@dataclass(frozen=True, slots=True)
class Operation:
    """An operation as stored.

    :param action: such as ``move_tables_switch_traffic``.
    :param goal: the state that ends it well.
    :param since: the journal's row of the transition that was asked for; None: nothing was, it was a dry run.
    :param metadata: what was asked, for people.
    :param told: what a dry run found.
    """

    id: str
    branch_id: str
    workflow_id: str
    action: str
    goal: State
    since: int | None
    metadata: Mapping[str, object]
    told: tuple[str, ...]
    actor_id: str | None
    created_at: datetime


def _operation(goal: str, told: list[str], **columns: object) -> Operation:
    return Operation(goal=State(goal), told=tuple(told), **columns)  # pyright: ignore[reportArgumentType] - a row


class Operations:
    """Operations within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def add(
        self,
        workflow: Workflow,
        action: str,
        goal: State,
        *,
        since: int | None,
        metadata: Mapping[str, object],
        told: tuple[str, ...] = (),
        actor_id: str | None = None,
    ) -> Operation:
        """A new operation on the workflow."""
        made = Operation(
            new_id(),
            workflow.branch_id,
            workflow.id,
            action,
            goal,
            since,
            dict(metadata),
            told,
            actor_id,
            self._work.now,
        )
        values = {field: getattr(made, field) for field in made.__slots__}
        self._work.add(operations.vtctld_operations, {**values, "told": list(told)})
        return made

    def of_branch(self, branch_id: str, operation_id: str) -> Operation:
        """The branch's operation of that id.

        :raises NotFoundError: there is none.
        """
        table = operations.vtctld_operations
        query = select(table).where(table.c.id == operation_id, table.c.branch_id == branch_id)
        return self._work.only(query, _operation)
