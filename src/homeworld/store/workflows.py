"""Workflows: their state, the facts beside it, and who asked for what.

Invariants: the state changes only by a row of MOVE_TABLES, compare-and-set; a branch has one workflow that is
not over (held by the schema). A switch's commit point is one transaction: ``transition`` and
``Routes.replace_rules`` of the same transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict, Unpack

from sqlalchemy import func, or_, select
from sqlalchemy.exc import IntegrityError

from homeworld.model.errors import InvalidError
from homeworld.model.machine import Kind, Transition
from homeworld.model.movers import OnDdl
from homeworld.model.names import check_resource_name, new_id
from homeworld.model.states.move_tables import MOVING_TRAFFIC, TERMINAL, State, Trigger
from homeworld.model.states.reparenting import Reparent
from homeworld.store.databases import Databases
from homeworld.store.journal import Journal
from homeworld.store.pages import Page, PageRequest, fetch_page
from homeworld.store.routing import Routes
from homeworld.store.tables import reparents
from homeworld.store.tables import workflows as tables
from homeworld.store.work import Work

KIND = "workflow"


@dataclass(frozen=True, slots=True)
class Workflow:
    """A workflow as stored.

    :param verified: the last verification still stands; False from the moment a stream is started anew.
    :param interrupted_state: where retry goes on, while the state is error or stopped.
    :param settled: what a resting state asks of routes and servers is done; any transition says it is not.
    :param asked: the last asked trigger, for the executor and for people.
    :param epoch: grows with each owner that starts movers.
    :param lag_seconds: the worst stream's lag as told at ``lag_told_at``; None: not known.
    :param rules_before: all of the branch's rules before the workflow; what cutover and cancel put back.
    :param rules_saved: all of the branch's rules as they were when cutover took them away; what
        reverse-cutover puts back.
    :param forward_positions: source shard to the position where the forward stream starts or goes on.
    :param reverse_positions: target shard to the position where the reverse stream starts.
    :param facts: whatever else the executor wants to find again.
    :param limits: what the user asked of throttling, by the names of ThrottleLimits; None: no limit.
    """

    id: str
    database_id: str
    branch_id: str
    number: int
    name: str
    state: State
    source_keyspace_id: str
    target_keyspace_id: str
    global_keyspace_id: str | None
    defer_secondary_keys: bool
    on_ddl: OnDdl
    replicas_switched: bool
    primaries_switched: bool
    verified: bool
    interrupted_state: State | None
    settled: bool
    sequence_tables_applied: bool
    asked: str
    epoch: int
    lag_seconds: float | None
    lag_told_at: datetime | None
    workflow_errors: str
    may_retry: bool
    may_restart: bool
    rules_before: Mapping[str, str] | None
    rules_saved: Mapping[str, str] | None
    forward_positions: Mapping[str, str]
    reverse_positions: Mapping[str, str]
    facts: Mapping[str, object]
    limits: Mapping[str, float | None]
    actor_id: str | None
    started_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    reversed_at: datetime | None
    retried_at: datetime | None
    data_copy_completed_at: datetime | None
    cutover_at: datetime | None
    switch_replicas_at: datetime | None
    switch_primaries_at: datetime | None
    verify_data_at: datetime | None
    verify_data_by: str | None
    reversed_by: str | None
    switch_replicas_by: str | None
    switch_primaries_by: str | None
    cancelled_by: str | None
    completed_by: str | None
    retried_by: str | None
    cutover_by: str | None
    reversed_cutover_by: str | None
    created_at: datetime
    updated_at: datetime


class WorkflowFields(TypedDict, total=False):
    """What may be changed beside the state."""

    replicas_switched: bool
    primaries_switched: bool
    verified: bool
    interrupted_state: State | None
    settled: bool
    sequence_tables_applied: bool
    epoch: int
    lag_seconds: float | None
    workflow_errors: str
    may_retry: bool
    may_restart: bool
    rules_before: Mapping[str, str] | None
    rules_saved: Mapping[str, str] | None
    forward_positions: Mapping[str, str]
    reverse_positions: Mapping[str, str]
    facts: Mapping[str, object]
    limits: Mapping[str, float | None]


class Workflows:
    """Workflows within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._journal = Journal(work)

    def create(
        self,
        database_id: str,
        branch_id: str,
        name: str,
        source_keyspace_id: str,
        target_keyspace_id: str,
        table_names: Sequence[str],
        *,
        global_keyspace_id: str | None = None,
        defer_secondary_keys: bool = True,
        on_ddl: OnDdl = OnDdl.STOP,
        limits: Mapping[str, float | None] | None = None,
        actor_id: str | None = None,
    ) -> Workflow:
        """A new pending workflow with its tables.

        :raises InvalidError: the name is not valid, or the branch has a workflow that is not over.
        """
        check_resource_name(name, "workflow")
        workflow_id = new_id()
        now = self._work.now
        number = Databases(self._work).next_workflow_number(database_id)
        try:
            self._work.add(
                tables.workflows,
                {
                    "id": workflow_id,
                    "database_id": database_id,
                    "branch_id": branch_id,
                    "number": number,
                    "name": name,
                    "state": State.PENDING,
                    "source_keyspace_id": source_keyspace_id,
                    "target_keyspace_id": target_keyspace_id,
                    "global_keyspace_id": global_keyspace_id,
                    "defer_secondary_keys": defer_secondary_keys,
                    "on_ddl": on_ddl,
                    "replicas_switched": False,
                    "primaries_switched": False,
                    "verified": False,
                    "settled": False,
                    "sequence_tables_applied": False,
                    "asked": "",
                    "epoch": 0,
                    "workflow_errors": "",
                    "may_retry": False,
                    "may_restart": False,
                    "forward_positions": {},
                    "reverse_positions": {},
                    "facts": {},
                    "limits": dict(limits or {}),
                    "actor_id": actor_id,
                    "created_at": now,
                    "updated_at": now,
                },
            )
        except IntegrityError as error:
            if source_keyspace_id == target_keyspace_id:
                raise InvalidError("source and target keyspace are the same") from error
            raise InvalidError("the branch has a workflow that is not over; one at a time") from error
        for table in table_names:
            self._work.add(
                tables.workflow_tables,
                {
                    "id": new_id(),
                    "workflow_id": workflow_id,
                    "name": table,
                    "rows_copied": 0,
                    "rows_total": 0,
                    "created_at": now,
                    "updated_at": now,
                },
            )
        self._journal.born(
            KIND,
            workflow_id,
            State.PENDING,
            actor_id=actor_id,
            payload={"name": name, "number": number, "branch_id": branch_id},
        )
        return self.get(workflow_id)

    def get(self, workflow_id: str) -> Workflow:
        """The workflow.

        :raises NotFoundError: no such id.
        """
        table = tables.workflows
        return self._work.only(select(table).where(table.c.id == workflow_id), Workflow)

    def by_number(self, database_id: str, number: int) -> Workflow:
        """The workflow of a database.

        :raises NotFoundError: no such number.
        """
        table = tables.workflows
        query = select(table).where(table.c.database_id == database_id, table.c.number == number)
        return self._work.only(query, Workflow)

    def by_name(self, branch_id: str, target_keyspace_id: str, name: str) -> Workflow:
        """The newest workflow of that name into a keyspace of a branch; all older ones are over.

        :raises NotFoundError: there is none.
        """
        table = tables.workflows
        query = select(table).where(
            table.c.branch_id == branch_id,
            table.c.target_keyspace_id == target_keyspace_id,
            table.c.name == name,
        )
        return self._work.only(query.order_by(table.c.number.desc()), Workflow)

    def active_on(self, branch_ids: Iterable[str]) -> Mapping[str, Workflow]:
        """The workflows that are not over, by branch id."""
        table = tables.workflows
        query = select(table).where(table.c.branch_id.in_(list(branch_ids)), tables.ACTIVE)
        return {workflow.branch_id: workflow for workflow in self._work.all(query, Workflow)}

    def unsettled_on(self, branch_id: str) -> bool:
        """Whether a completed workflow of the branch has something to put right yet."""
        table = tables.workflows
        query = select(table.c.id).where(
            table.c.branch_id == branch_id, table.c.state == State.COMPLETED, table.c.settled.is_(False)
        )
        return self._work.connection.execute(query.limit(1)).first() is not None

    def page(
        self,
        database_id: str,
        request: PageRequest,
        between: tuple[datetime, datetime] | None = None,
    ) -> Page[Workflow]:
        """Workflows, newest number first.

        :param between: only those that were active at some time from the first to the second.
        """
        table = tables.workflows
        query = select(table).where(table.c.database_id == database_id).order_by(table.c.number.desc())
        if between is not None:
            ended = func.coalesce(table.c.completed_at, table.c.cancelled_at)
            query = query.where(table.c.created_at <= between[1], or_(ended.is_(None), ended >= between[0]))
        return fetch_page(self._work.connection, query, request, Workflow)

    def update(self, workflow_id: str, **fields: Unpack[WorkflowFields]) -> Workflow:
        """Change facts beside the state."""
        table = tables.workflows
        self._work.change(table, table.c.id, workflow_id, {**fields, "updated_at": self._work.now})
        return self.get(workflow_id)

    def transition(
        self,
        workflow_id: str,
        expected: State,
        row: Transition[State, Trigger],
        *,
        actor_id: str | None = None,
        why: str = "",
        **fields: Unpack[WorkflowFields],
    ) -> Workflow:
        """Take a row of MOVE_TABLES: state, stamps, ``fields``, journal row and event at once.

        Going to error or stopped, ``interrupted_state`` is ``expected`` unless ``fields`` says otherwise.

        :raises ConflictError: the workflow is not in ``expected`` any more, or facts contradict the state.
        :raises InvalidError: traffic is asked to move while a primary of the branch is being replaced.
        """
        values: dict[str, object] = {"settled": False, **fields}
        if row.to in {State.ERROR, State.STOPPED}:
            values.setdefault("interrupted_state", expected)
        known = self.get(workflow_id)
        database_id = known.database_id
        if row.kind is Kind.ASKED and row.to in MOVING_TRAFFIC:
            self._await_reparent(known.branch_id)
        if row.to in TERMINAL:
            Routes(self._work).unguard(known.branch_id)
        self._journal.move(
            KIND,
            tables.workflows,
            workflow_id,
            expected,
            row,
            actor_id=actor_id,
            why=why,
            fields=values,
            payload={"database_id": database_id, "why": why},
        )
        return self.get(workflow_id)

    def _await_reparent(self, branch_id: str) -> None:
        table = reparents.reparents
        query = select(table.c.id).where(table.c.branch_id == branch_id, table.c.state == Reparent.RUNNING)
        if self._work.connection.execute(query).first() is not None:
            raise InvalidError("a primary of the branch is being replaced; ask again when that is over")
