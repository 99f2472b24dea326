"""MoveTables as the command line's vtctld family asks for it.

Invariant: each of these is the published operation of the same meaning, asked by another name; what would
mean something else is refused before anything is asked. Answers of actions are operations to poll.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from fastapi import Query

from homeworld.api import asking
from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, InBranch, Path, WorkflowName
from homeworld.api.listing import Routes
from homeworld.api.routes.databases import checked_term
from homeworld.api.schemas.databases import Name
from homeworld.api.schemas.vtctld import (
    CancelMoveTables,
    CompleteMoveTables,
    CreateMoveTables,
    ReverseTraffic,
    SwitchTraffic,
)
from homeworld.api.schemas.vtctld_views import (
    DataOut,
    MoveTablesListOut,
    OperationRefOut,
    StatusOut,
    show_move_tables,
    show_status,
    sides,
)
from homeworld.api.schemas.workflows import MOST_TABLES, CreateWorkflow
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.guards import THEN_COMPLETE, facts
from homeworld.store.workflows import Workflow

router = Routes(tags=["vtctld"])

BRANCH = "/organizations/{organization}/databases/{database}/branches/{branch}"
_ALL = BRANCH + "/move-tables/workflows"
_ONE = _ALL + "/{workflow}"
TargetKeyspace = Annotated[str, Query(description="The workflow's target keyspace", max_length=255)]

_GOALS: Mapping[Trigger, State] = {
    Trigger.SWITCH_REPLICAS: State.SWITCHED_REPLICAS,
    Trigger.SWITCH_PRIMARIES: State.SWITCHED_PRIMARIES,
    Trigger.REVERSE_TRAFFIC: State.RUNNING,
    Trigger.CANCEL: State.CANCELLED,
    Trigger.COMPLETE: State.COMPLETED,
}


def named(call: Call, target_keyspace: str, name: str) -> Workflow:
    """The branch's workflow of that name into that keyspace.

    :raises InvalidError: no keyspace is given.
    :raises NotFoundError: there is none.
    """
    if not target_keyspace:
        raise InvalidError("name the workflow's target keyspace")
    try:
        keyspace = call.tx.keyspaces.by_name(call.branch.id, checked_term(target_keyspace, "keyspace"))
        return call.tx.workflows.by_name(call.branch.id, keyspace.id, name)
    except NotFoundError:
        raise NotFoundError(
            f"there is no workflow {name} into keyspace {target_keyspace} on branch {call.branch.name}"
        ) from None


@router.post(_ALL, operation_id="create_move_tables", status_code=202)
def create_move_tables(
    api: ApiDep, caller: CallerDep, path: InBranch, body: CreateMoveTables
) -> OperationRefOut:
    """Ask for a workflow, as create_workflow does; the operation is complete when copying has begun."""
    body.check()
    tables = body.tables or _all_tables(api, caller, path, body)
    wish = CreateWorkflow(
        name=body.workflow,
        source_keyspace=body.source_keyspace,
        target_keyspace=body.target_keyspace,
        tables=tables,
        global_keyspace=body.global_keyspace,
        branch_name=path.branch,
        defer_secondary_keys=body.defer_secondary_keys,
        on_ddl=body.on_ddl,
    )

    def begun(call: Call, workflow: Workflow) -> OperationRefOut:
        return _wait(call, workflow, "create", State.COPYING)

    return asking.create(api, caller, path, "create_move_tables", wish, begun)


def _all_tables(api: Api, caller: Caller, path: Path, body: CreateMoveTables) -> list[Name]:
    """The source's tables but those that are excluded, as its servers show them.

    :raises InvalidError: nothing is left, or an excluded one is not there.
    """
    with api.read(caller, "create_move_tables", path) as call:
        try:
            source = call.tx.keyspaces.by_name(call.branch.id, body.source_keyspace)
        except NotFoundError:
            raise InvalidError(
                f"source keyspace {body.source_keyspace} does not exist on branch {call.branch.name}"
            ) from None
    there = [one.name for one in api.settings.inspection.definitions(source.id) if not one.view]
    if strange := sorted(set(body.exclude_tables) - set(there)):
        raise InvalidError(f"keyspace {source.name} has no table {', '.join(strange)} to exclude")
    left = [name for name in there if name not in body.exclude_tables]
    if not left:
        raise InvalidError(f"keyspace {source.name} has no table to move")
    if len(left) > MOST_TABLES:
        raise InvalidError(
            f"keyspace {source.name} has {len(left)} tables; a move has at most {MOST_TABLES}: name them"
        )
    return left


@router.get(_ONE, operation_id="get_move_tables")
def get_move_tables(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    workflow: WorkflowName,
    target_keyspace: TargetKeyspace = "",
) -> DataOut[MoveTablesListOut]:
    """A workflow with its streams and their history."""
    with api.read(caller, "get_move_tables", path) as call:
        found = named(call, target_keyspace, workflow)
        return DataOut(data=MoveTablesListOut(workflows=[show_move_tables(call, found, logs=True)]))


@router.get(_ONE + "/status", operation_id="get_move_tables_status")
def get_move_tables_status(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    workflow: WorkflowName,
    target_keyspace: TargetKeyspace = "",
) -> DataOut[StatusOut]:
    """How far a workflow is: tables, streams, traffic."""
    with api.read(caller, "get_move_tables_status", path) as call:
        return DataOut(data=show_status(call, named(call, target_keyspace, workflow)))


@router.post(_ONE + "/switch-traffic", operation_id="switch_move_tables_traffic", status_code=202)
def switch_move_tables_traffic(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: SwitchTraffic
) -> OperationRefOut:
    """Switch replica traffic, or all traffic, to the target, as the tablet types say."""
    with api.write(caller, "switch_move_tables_traffic", path) as call:
        found = named(call, body.target_keyspace, workflow)
        trigger = body.trigger(found)
        lag = body.max_replication_lag_allowed
        if body.dry_run:
            asking.row_for(call, found, trigger, lag)
            what = "all traffic" if trigger is Trigger.SWITCH_PRIMARIES else "replica traffic"
            return _dry(call, found, "switch_traffic", trigger, _moves(call, found, what, back=False))
        found = asking.take(call, found, trigger, lag_limit_seconds=lag)
        return _wait(call, found, "switch_traffic", _GOALS[trigger], tablet_types=body.tablet_types)


@router.post(_ONE + "/reverse-traffic", operation_id="reverse_move_tables_traffic", status_code=202)
def reverse_move_tables_traffic(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: ReverseTraffic
) -> OperationRefOut:
    """Bring all traffic that is switched back to the source."""
    with api.write(caller, "reverse_move_tables_traffic", path) as call:
        found = named(call, body.target_keyspace, workflow)
        asking.row_for(call, found, Trigger.REVERSE_TRAFFIC)
        body.check(found)
        _hold_lag(call, found, body.max_replication_lag_allowed)
        if body.dry_run:
            told = _moves(call, found, "all traffic that is switched", back=True)
            return _dry(call, found, "reverse_traffic", Trigger.REVERSE_TRAFFIC, told)
        found = asking.take(call, found, Trigger.REVERSE_TRAFFIC)
        return _wait(call, found, "reverse_traffic", State.RUNNING, tablet_types=body.tablet_types)


def _hold_lag(call: Call, workflow: Workflow, allowed: int | None) -> None:
    """The way back asks for no lag by itself: it comes close, or is not in time.

    :raises InvalidError: the workflow is further behind than is allowed, or nobody knows.
    """
    if allowed is None:
        return
    if not facts(workflow, allowed, call.now).lag_low:
        raise InvalidError(
            f"the workflow's replication lag is above {allowed} s, or not known; try again when it is lower"
        )


@router.post(_ONE + "/cancel", operation_id="cancel_move_tables", status_code=202)
def cancel_move_tables(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: CancelMoveTables
) -> OperationRefOut:
    """Give the workflow up; traffic that is switched comes back first."""
    with api.write(caller, "cancel_move_tables", path) as call:
        body.check()
        found = asking.take(call, named(call, body.target_keyspace, workflow), Trigger.CANCEL)
        return _wait(call, found, "cancel", State.CANCELLED)


@router.post(_ONE + "/complete", operation_id="complete_move_tables", status_code=202)
def complete_move_tables(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: CompleteMoveTables
) -> OperationRefOut:
    """Cut over, which drops the source's tables, and complete; from a cutover on complete alone."""
    with api.write(caller, "complete_move_tables", path) as call:
        found = named(call, body.target_keyspace, workflow)
        cut_over = found.state in (State.CUTOVER, State.REVERSED_CUTOVER)
        body.check(cut_over=cut_over)
        triggers = _completing(found, keep_rules=body.keep_routing_rules)
        if body.dry_run:
            asking.row_for(call, found, triggers[0])
            told = _completion(call, found, triggers, keep_rules=body.keep_routing_rules)
            return _dry(call, found, "complete", Trigger.COMPLETE, told)
        for trigger in triggers:
            noted = None if cut_over else {THEN_COMPLETE: call.actor_id}
            found = asking.take(call, found, trigger, noted=noted)
        if not cut_over:
            call.audit("workflow.complete", "workflow", found.id, found.name, after=Trigger.CUTOVER.value)
        return _wait(
            call,
            found,
            "complete",
            State.COMPLETED,
            taken=len(triggers),
            keep_routing_rules=body.keep_routing_rules,
        )


def _completing(workflow: Workflow, *, keep_rules: bool) -> Sequence[Trigger]:
    """What leads from here to completed: the last of a cutover's is asked for by whoever ends it."""
    if workflow.state is State.CUTOVER:
        return (Trigger.REVERSE_CUTOVER, Trigger.COMPLETE) if keep_rules else (Trigger.COMPLETE,)
    if workflow.state is State.REVERSED_CUTOVER:
        return (Trigger.COMPLETE,) if keep_rules else (Trigger.CUTOVER, Trigger.COMPLETE)
    return (Trigger.CUTOVER,)


# -- what is answered ----------------------------------------------------------------------------------------


def _wait(
    call: Call, workflow: Workflow, action: str, goal: State, *, taken: int = 1, **metadata: object
) -> OperationRefOut:
    """An operation on what was just asked.

    :param taken: how many transitions asking took.
    """
    since = call.tx.journal.transitions("workflow", workflow.id)[-taken].id
    return _operation(call, workflow, action, goal, since, metadata)


def _dry(
    call: Call, workflow: Workflow, action: str, trigger: Trigger, told: Sequence[str]
) -> OperationRefOut:
    """An operation that is complete and did nothing."""
    return _operation(call, workflow, action, _GOALS[trigger], None, {"dry_run": True}, told)


def _operation(
    call: Call,
    workflow: Workflow,
    action: str,
    goal: State,
    since: int | None,
    metadata: Mapping[str, object],
    told: Sequence[str] = (),
) -> OperationRefOut:
    target = sides(call, workflow)[1].name
    made = call.tx.operations.add(
        workflow,
        f"move_tables_{action}",
        goal,
        since=since,
        metadata={
            "workflow": workflow.name,
            "target_keyspace": target,
            "number": workflow.number,
            **metadata,
        },
        told=tuple(told),
        actor_id=call.actor_id,
    )
    return OperationRefOut(id=made.id)


def _moves(call: Call, workflow: Workflow, what: str, *, back: bool) -> Sequence[str]:
    source, target = (keyspace.name for keyspace in sides(call, workflow))
    first, last = (target, source) if back else (source, target)
    tables = ", ".join(table.name for table in call.tx.progress.tables_of([workflow.id]))
    return (
        f"{what} of table(s) {tables} would be switched from keyspace {first} to keyspace {last}",
        "what was required of tables and servers when the workflow was created would be asked again before",
    )


def _completion(
    call: Call, workflow: Workflow, triggers: Sequence[Trigger], *, keep_rules: bool
) -> Sequence[str]:
    source = sides(call, workflow)[0].name
    tables = ", ".join(table.name for table in call.tx.progress.tables_of([workflow.id]))
    rules = "would be kept" if keep_rules else "would be as before the workflow"
    told = [f"routing rules of table(s) {tables} {rules}", "the workflow would be over"]
    if triggers == (Trigger.CUTOVER,):
        told.insert(0, f"table(s) {tables} would be dropped in keyspace {source}, and the way back would end")
    return told
