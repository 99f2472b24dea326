"""What of vtctld concerns workflows and routes: lists, start and stop, operations to poll.

Invariant: reading changes nothing; how an operation goes is what the journal says (api.outcomes).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from homeworld.api import asking
from homeworld.api.calls import ApiDep, CallerDep, Id, InBranch, WorkflowName
from homeworld.api.listing import Routes
from homeworld.api.routes.move_tables import BRANCH, named
from homeworld.api.schemas.vtctld import WorkflowKeyspace
from homeworld.api.schemas.vtctld_places import (
    KeyspacesOut,
    RoutingRuleOut,
    RoutingRulesOut,
    show_keyspaces,
)
from homeworld.api.schemas.vtctld_views import (
    DataOut,
    MoveTablesListOut,
    OperationOut,
    SummaryOut,
    show_move_tables,
    show_operation,
)
from homeworld.model.errors import NotFoundError
from homeworld.model.states.move_tables import FORWARD, REVERSE, Trigger

router = Routes(tags=["vtctld"])

_WORKFLOWS = BRANCH + "/vtctld/workflows"
_Text = Query(max_length=255)


@router.get(_WORKFLOWS, operation_id="list_vtctld_workflows")
def list_vtctld_workflows(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    keyspace: Annotated[str, Query(description="Only workflows into this keyspace", max_length=255)] = "",
    workflow: Annotated[str, Query(description="Only of this name", max_length=255)] = "",
    include_logs: Annotated[bool, Query(description="Whether streams come with their history")] = True,
) -> DataOut[MoveTablesListOut]:
    """The branch's workflow that is not over, if it is into that keyspace and of that name."""
    with api.read(caller, "list_vtctld_workflows", path) as call:
        active = call.tx.workflows.active_on([call.branch.id]).values()
        if keyspace:
            wanted = {one.id for one in call.tx.keyspaces.of_branch(call.branch.id) if one.name == keyspace}
            if not wanted:
                raise NotFoundError(f"there is no keyspace {keyspace} on branch {call.branch.name}")
            active = [one for one in active if one.target_keyspace_id in wanted]
        found = [one for one in active if workflow in ("", one.name)]
        shown = [show_move_tables(call, one, logs=include_logs) for one in found]
        return DataOut(data=MoveTablesListOut(workflows=shown))


@router.post(_WORKFLOWS + "/{workflow}/start", operation_id="start_vtctld_workflow")
def start_vtctld_workflow(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: WorkflowKeyspace
) -> DataOut[SummaryOut]:
    """Let a workflow go on that is stopped or in error, as workflow_retry does; one that runs goes on."""
    with api.write(caller, "start_vtctld_workflow", path) as call:
        found = named(call, body.keyspace, workflow)
        if found.state in (*FORWARD, *REVERSE):
            return DataOut(data=SummaryOut(summary=f"the {found.name} workflow runs: it is {found.state}"))
        found = asking.take(call, found, Trigger.RETRY)
        told = f"Successfully started the {found.name} workflow in the {body.keyspace} keyspace"
        return DataOut(data=SummaryOut(summary=told))


@router.post(_WORKFLOWS + "/{workflow}/stop", operation_id="stop_vtctld_workflow")
def stop_vtctld_workflow(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: WorkflowKeyspace
) -> DataOut[SummaryOut]:
    """End a workflow's streams until it is started again; possible while primary traffic is on the source."""
    with api.write(caller, "stop_vtctld_workflow", path) as call:
        found = asking.take(call, named(call, body.keyspace, workflow), Trigger.STOP)
        told = f"Successfully stopped the {found.name} workflow in the {body.keyspace} keyspace"
        return DataOut(data=SummaryOut(summary=told))


@router.get(BRANCH + "/vtctld/operations/{id}", operation_id="get_vtctld_operation")
def get_vtctld_operation(api: ApiDep, caller: CallerDep, path: InBranch, id: Id) -> OperationOut:  # noqa: A002 - the name in the path
    """How an action goes: poll it until it is completed."""
    with api.read(caller, "get_vtctld_operation", path) as call:
        return show_operation(call, call.tx.operations.of_branch(call.branch.id, id))


@router.get(BRANCH + "/vtctld/keyspaces", operation_id="list_vtctld_keyspaces")
def list_vtctld_keyspaces(
    api: ApiDep, caller: CallerDep, path: InBranch, name: Annotated[str, _Text] = ""
) -> DataOut[KeyspacesOut]:
    """The branch's keyspaces, or the one of that name."""
    with api.read(caller, "list_vtctld_keyspaces", path) as call:
        found = [one for one in call.tx.keyspaces.of_branch(call.branch.id) if name in ("", one.name)]
        return DataOut(data=show_keyspaces(call, found))


@router.get(BRANCH + "/vtctld/routing-rules", operation_id="get_vtctld_routing_rules")
def get_vtctld_routing_rules(api: ApiDep, caller: CallerDep, path: InBranch) -> DataOut[RoutingRulesOut]:
    """The branch's routing rules as gateways get them."""
    with api.read(caller, "get_vtctld_routing_rules", path) as call:
        rules = call.tx.routes.rules(call.branch.id)
        shown = [RoutingRuleOut(from_table=name, to_tables=[rules[name]]) for name in sorted(rules)]
        return DataOut(data=RoutingRulesOut(rules=shown))
