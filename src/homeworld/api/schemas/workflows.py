"""Workflows as published, with what the command line reads beyond: streams, tables, vdiff, whole branches.

Invariant: showing many workflows costs as many queries as showing one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from pydantic import BaseModel, Field

from homeworld.api.calls import Call
from homeworld.api.schemas.branches import BranchOut, show_branches
from homeworld.api.schemas.common import ActorOut, Body
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.keyspaces import KeyspaceOut, show_keyspace
from homeworld.api.schemas.progress import (
    WorkflowStreamOut,
    WorkflowTableOut,
    WorkflowVDiffOut,
    show_streams,
    show_tables,
    show_vdiffs,
)
from homeworld.api.schemas.throttler import UpdateLimits
from homeworld.model.movers import OnDdl
from homeworld.model.states.move_tables import State
from homeworld.store.keyspaces import Keyspace
from homeworld.store.tables.workflows import STAMPS_AT, STAMPS_BY
from homeworld.store.tenants import Actor
from homeworld.store.workflows import Workflow

MOST_TABLES = 10000
# As published: data counts as verified for a day.
STALE_AFTER = timedelta(hours=24)


class CreateWorkflow(Body):
    """The body of create_workflow. ``branch_name`` is not published, but the command line sends it;
    ``throttler`` is homeworld's own.
    """

    name: Name
    source_keyspace: Name
    target_keyspace: Name
    tables: Annotated[list[Name], Field(min_length=1, max_length=MOST_TABLES)]
    global_keyspace: Name | None = None
    branch_name: Name | None = None
    defer_secondary_keys: bool = True
    on_ddl: OnDdl = OnDdl.STOP
    throttler: UpdateLimits | None = None


class CheckWorkflow(CreateWorkflow):
    """The body of check_workflow, homeworld's own: that of create_workflow, which needs no name yet."""

    name: Name = "check"


class CheckedWorkflowOut(BaseModel):
    """Whether a workflow could be created, and every reason why not."""

    allowed: bool
    reasons: list[str]


class GlobalKeyspaceOut(BaseModel):
    """The keyspace for sequences. Its id and name are empty where there is none: it is never null."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class WorkflowOut(BaseModel):
    """A workflow. In lists, streams come without their logs and the vdiff without its table reports."""

    id: str
    name: str
    number: int
    state: State
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    reversed_at: datetime | None
    retried_at: datetime | None
    data_copy_completed_at: datetime | None
    cutover_at: datetime | None
    replicas_switched: bool
    primaries_switched: bool
    switch_replicas_at: datetime | None
    switch_primaries_at: datetime | None
    verify_data_at: datetime | None
    workflow_type: str = "move_tables"
    workflow_subtype: str
    defer_secondary_keys: bool
    on_ddl: OnDdl
    workflow_errors: str
    may_retry: bool
    may_restart: bool
    verified_data_stale: bool
    sequence_tables_applied: bool
    actor: ActorOut
    verify_data_by: ActorOut
    reversed_by: ActorOut
    switch_replicas_by: ActorOut
    switch_primaries_by: ActorOut
    cancelled_by: ActorOut
    completed_by: ActorOut
    retried_by: ActorOut
    cutover_by: ActorOut
    reversed_cutover_by: ActorOut
    branch: BranchOut
    source_keyspace: KeyspaceOut
    target_keyspace: KeyspaceOut
    global_keyspace: GlobalKeyspaceOut
    streams: Sequence[WorkflowStreamOut]
    tables: Sequence[WorkflowTableOut]
    vdiff: WorkflowVDiffOut | None
    lag_seconds: float | None


@dataclass(frozen=True, slots=True)
class _Around:
    """What several workflows refer to, read at once."""

    actors: Mapping[str, Actor]
    branches: Mapping[str, BranchOut]
    keyspaces: Mapping[str, Keyspace]
    streams: Mapping[str, list[WorkflowStreamOut]]
    tables: Mapping[str, list[WorkflowTableOut]]
    vdiffs: Mapping[str, WorkflowVDiffOut]


def show_workflow(call: Call, workflow: Workflow) -> WorkflowOut:
    """One workflow with all details."""
    return _show(call, workflow, _around(call, [workflow], details=True))


def show_workflows(call: Call, workflows: Sequence[Workflow]) -> list[WorkflowOut]:
    """Workflows as a list shows them."""
    around = _around(call, workflows, details=False)
    return [_show(call, workflow, around) for workflow in workflows]


def _around(call: Call, workflows: Sequence[Workflow], *, details: bool) -> _Around:
    ids = [workflow.id for workflow in workflows]
    branches = call.tx.branches.by_ids({workflow.branch_id for workflow in workflows})
    return _Around(
        actors=call.actors(
            actor_id
            for workflow in workflows
            for actor_id in (workflow.actor_id, *(getattr(workflow, name) for name in STAMPS_BY))
        ),
        branches={shown.id: shown for shown in show_branches(call, list(branches.values()))},
        keyspaces=call.tx.keyspaces.by_ids(
            keyspace_id
            for w in workflows
            for keyspace_id in (w.source_keyspace_id, w.target_keyspace_id, w.global_keyspace_id)
        ),
        streams=show_streams(call, ids, logs=details),
        tables=show_tables(call, ids),
        vdiffs=show_vdiffs(call, ids, reports=details),
    )


def _show(call: Call, workflow: Workflow, around: _Around) -> WorkflowOut:
    source = around.keyspaces[workflow.source_keyspace_id]
    target = around.keyspaces[workflow.target_keyspace_id]
    stamps: dict[str, Any] = {name: getattr(workflow, name) for name in STAMPS_AT}
    stamps |= {name: ActorOut.of(around.actors, getattr(workflow, name)) for name in STAMPS_BY}
    return WorkflowOut(
        id=workflow.id,
        name=workflow.name,
        number=workflow.number,
        state=workflow.state,
        created_at=workflow.created_at,
        updated_at=workflow.updated_at,
        replicas_switched=workflow.replicas_switched,
        primaries_switched=workflow.primaries_switched,
        workflow_subtype=f"{_kind(source)}_to_{_kind(target)}",
        defer_secondary_keys=workflow.defer_secondary_keys,
        on_ddl=workflow.on_ddl,
        workflow_errors=workflow.workflow_errors,
        may_retry=workflow.may_retry,
        may_restart=workflow.may_restart,
        verified_data_stale=_stale(workflow, call.now),
        sequence_tables_applied=workflow.sequence_tables_applied,
        actor=ActorOut.of(around.actors, workflow.actor_id),
        branch=around.branches[workflow.branch_id],
        source_keyspace=show_keyspace(source),
        target_keyspace=show_keyspace(target),
        global_keyspace=_global(workflow, around.keyspaces),
        streams=around.streams.get(workflow.id, []),
        tables=around.tables.get(workflow.id, []),
        vdiff=around.vdiffs.get(workflow.id),
        lag_seconds=workflow.lag_seconds,
        **stamps,
    )


def _kind(keyspace: Keyspace) -> str:
    return "sharded" if keyspace.sharded else "unsharded"


def _stale(workflow: Workflow, now: datetime) -> bool:
    verified_at = workflow.verify_data_at
    return verified_at is not None and (not workflow.verified or now - verified_at > STALE_AFTER)


def _global(workflow: Workflow, keyspaces: Mapping[str, Keyspace]) -> GlobalKeyspaceOut:
    keyspace = keyspaces.get(workflow.global_keyspace_id or "")
    if keyspace is None:
        return GlobalKeyspaceOut(
            id="",
            name="",
            created_at=workflow.created_at,
            updated_at=workflow.created_at,
            deleted_at=None,
        )
    return GlobalKeyspaceOut(
        id=keyspace.id,
        name=keyspace.name,
        created_at=keyspace.created_at,
        updated_at=keyspace.updated_at,
        deleted_at=keyspace.deleted_at,
    )
