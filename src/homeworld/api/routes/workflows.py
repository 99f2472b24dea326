"""MoveTables workflows: list, create, get, and one action for each asked trigger.

Invariant: an action is one look-up in MOVE_TABLES with the stored facts and one compare-and-set, in one
transaction. What the state asks for is the executor's to find and do.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query

from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, InDatabase, Path
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.workflows import (
    CheckedWorkflowOut,
    CheckWorkflow,
    CreateWorkflow,
    WorkflowOut,
    show_workflow,
    show_workflows,
)
from homeworld.model.errors import InvalidError, NotFoundError, PreconditionsFailedError
from homeworld.model.ports import MoveWish
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.store.branches import Branch
from homeworld.store.guards import REPAIR, facts
from homeworld.store.keyspaces import Keyspace
from homeworld.store.workflows import Workflow, WorkflowFields

router = APIRouter(tags=["Workflows"])

_ALL = "/organizations/{organization}/databases/{database}/workflows"
_ONE = _ALL + "/{number}"
_LARGEST = 2**31 - 1
_PERIOD = "{} must be FROM..TO, both RFC 3339, such as 2026-01-01T00:00:00Z..2026-01-31T00:00:00Z"

# Operation, method, path below the workflow, trigger: one route each.
ACTIONS: tuple[tuple[str, str, str, Trigger], ...] = (
    ("verify_workflow", "PATCH", "/verify-data", Trigger.VERIFY_DATA),
    ("workflow_switch_replicas", "PATCH", "/switch-replicas", Trigger.SWITCH_REPLICAS),
    ("workflow_switch_primaries", "PATCH", "/switch-primaries", Trigger.SWITCH_PRIMARIES),
    ("workflow_reverse_traffic", "PATCH", "/reverse-traffic", Trigger.REVERSE_TRAFFIC),
    ("workflow_cutover", "PATCH", "/cutover", Trigger.CUTOVER),
    ("workflow_reverse_cutover", "PATCH", "/reverse-cutover", Trigger.REVERSE_CUTOVER),
    ("workflow_complete", "PATCH", "/complete", Trigger.COMPLETE),
    ("workflow_retry", "PATCH", "/retry", Trigger.RETRY),
    ("workflow_cancel", "DELETE", "", Trigger.CANCEL),
)


@router.get(_ALL, operation_id="list_workflows")
def list_workflows(
    api: ApiDep,
    caller: CallerDep,
    path: InDatabase,
    page: PageDep,
    between: Annotated[str, Query(description="Active in this time: FROM..TO, both RFC 3339")] = "",
) -> Listing[WorkflowOut]:
    """The database's workflows, newest first."""
    period = parse_period(between) if between else None
    with api.read(caller, "list_workflows", path) as call:
        found = call.tx.workflows.page(call.database.id, page, period)
        return listing(caller, found, show_workflows(call, found.items))


def parse_period(between: str, name: str = "between") -> tuple[datetime, datetime]:
    """Read ``from..to``; a time without a zone is UTC.

    :raises InvalidError: not of that form.
    """
    start, dots, end = between.partition("..")
    try:
        first, last = (_utc(text.strip().replace(" ", "+")) for text in (start, end))
    except (ValueError, OverflowError):
        raise InvalidError(_PERIOD.format(name)) from None
    if not dots:
        raise InvalidError(_PERIOD.format(name))
    return first, last


def _utc(text: str) -> datetime:
    """The time in UTC.

    :raises ValueError: no RFC 3339.
    :raises OverflowError: in UTC it is before the year 1 or behind the year 9999.
    """
    time = datetime.fromisoformat(text)
    return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)


@router.get(_ONE, operation_id="get_workflow")
def get_workflow(api: ApiDep, caller: CallerDep, path: InDatabase, number: int) -> WorkflowOut:
    """A workflow with the details of its progress."""
    with api.read(caller, "get_workflow", path) as call:
        return show_workflow(call, numbered(call, number))


def numbered(call: Call, number: int) -> Workflow:
    """The database's workflow of that number.

    :raises NotFoundError: there is none.
    """
    if not 0 < number <= _LARGEST:
        raise NotFoundError
    return call.tx.workflows.by_number(call.database.id, number)


@router.post(_ALL, operation_id="create_workflow", status_code=201)
def create_workflow(api: ApiDep, caller: CallerDep, path: InDatabase, body: CreateWorkflow) -> WorkflowOut:
    """Ask for a MoveTables workflow; all reasons against it are told at once."""
    tables = tuple(dict.fromkeys(body.tables))
    wish, reasons = _ask_everybody(api, caller, path, "create_workflow", body)
    if reasons or wish is None:
        raise PreconditionsFailedError(tuple(reasons))
    with api.write(caller, "create_workflow", path) as call:
        again, reasons = _judge(call, body, tables)
        if reasons or again != wish:
            raise PreconditionsFailedError(tuple(reasons) or ("the keyspaces have just changed; try again",))
        workflow = call.tx.workflows.create(
            call.database.id,
            wish.branch_id,
            body.name,
            wish.source_keyspace_id,
            wish.target_keyspace_id,
            tables,
            global_keyspace_id=wish.global_keyspace_id,
            defer_secondary_keys=body.defer_secondary_keys,
            on_ddl=body.on_ddl,
            limits=body.throttler.changes() if body.throttler else None,
            actor_id=call.actor_id,
        )
        call.audit("workflow.created", "workflow", workflow.id, workflow.name)
        return show_workflow(call, workflow)


@router.post(f"{_ALL}/check", operation_id="check_workflow")
def check_workflow(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: CheckWorkflow
) -> CheckedWorkflowOut:
    """What create_workflow would say of this body: every reason against it at once. Nothing is made."""
    _, reasons = _ask_everybody(api, caller, path, "check_workflow", body)
    return CheckedWorkflowOut(allowed=not reasons, reasons=reasons)


def _ask_everybody(
    api: Api, caller: Caller, path: Path, operation: str, body: CreateWorkflow
) -> tuple[MoveWish | None, list[str]]:
    """What store and servers say; each reason once."""
    with api.read(caller, operation, path) as call:
        wish, reasons = _judge(call, body, tuple(dict.fromkeys(body.tables)))
    if wish is not None:
        # Asks servers, so it stands in no transaction.
        reasons.extend(api.settings.preconditions.reasons(wish))
    return wish, list(dict.fromkeys(reasons))


def _judge(call: Call, body: CreateWorkflow, tables: tuple[str, ...]) -> tuple[MoveWish | None, list[str]]:
    """What the store alone says: the wish where everything named exists, and the reasons against it."""
    branch = _branch(call, body.branch_name)
    if branch is None:
        return None, [f"branch {body.branch_name} does not exist"]
    reasons: list[str] = []
    if branch.state is not Life.READY:
        reasons.append(f"branch {branch.name} is not ready")
    if branch.production and not branch.safe_migrations:
        reasons.append(f"safe migrations must be enabled on production branch {branch.name}")
    active = call.tx.workflows.active_on([branch.id]).get(branch.id)
    if active is not None:
        reasons.append(f"workflow {active.number} on branch {branch.name} is not over; one at a time")
    if body.source_keyspace == body.target_keyspace:
        reasons.append("source and target keyspace are the same")
    source = _keyspace(call, branch, body.source_keyspace, "source", reasons)
    target = _keyspace(call, branch, body.target_keyspace, "target", reasons)
    place = body.global_keyspace
    sequences = _keyspace(call, branch, place, "global", reasons) if place else None
    if source is None or target is None or (place and sequences is None) or source.id == target.id:
        return None, reasons
    sequences_id = sequences.id if sequences else None
    return MoveWish(branch.id, source.id, target.id, sequences_id, tables), reasons


def _branch(call: Call, name: str | None) -> Branch | None:
    if name is None:
        return call.tx.branches.default(call.database.id)
    try:
        return call.tx.branches.by_name(call.database.id, name)
    except NotFoundError:
        return None


def _keyspace(call: Call, branch: Branch, name: str, what: str, reasons: list[str]) -> Keyspace | None:
    try:
        keyspace = call.tx.keyspaces.by_name(branch.id, name)
    except NotFoundError:
        reasons.append(f"{what} keyspace {name} does not exist on branch {branch.name}")
        return None
    if keyspace.state is not Life.READY:
        reasons.append(f"{what} keyspace {name} is not ready")
    return keyspace


def _ask(
    api: Api,
    caller: Caller,
    path: Path,
    number: int,
    operation: str,
    trigger: Trigger,
    *,
    repair: bool = False,
) -> WorkflowOut:
    with api.write(caller, operation, path) as call:
        workflow = numbered(call, number)
        holds = facts(workflow, api.settings.lag_limit_seconds, call.now).holds
        row = MOVE_TABLES.take(workflow.state, trigger, holds)
        fields = WorkflowFields()
        if repair:
            fields = WorkflowFields(facts={**workflow.facts, REPAIR: True})
        if trigger is Trigger.RETRY:
            fields = WorkflowFields(workflow_errors="", may_retry=False, may_restart=False)
        workflow = call.tx.workflows.transition(
            workflow.id, workflow.state, row, actor_id=call.actor_id, **fields
        )
        if row.source is State.VERIFYING_DATA:
            call.tx.progress.end_verifications(workflow.id, f"{trigger} was asked for before it had ended")
        call.audit(f"workflow.{trigger}", "workflow", workflow.id, workflow.name)
        return show_workflow(call, workflow)


def _action(operation: str, trigger: Trigger) -> Callable[..., WorkflowOut]:
    def act(api: ApiDep, caller: CallerDep, path: InDatabase, number: int) -> WorkflowOut:
        return _ask(api, caller, path, number, operation, trigger)

    act.__name__ = operation
    act.__doc__ = f"Ask for {trigger}; refused where the workflow's state does not allow it."
    return act


@router.patch(_ONE + "/repair", operation_id="repair_workflow")
def repair_workflow(api: ApiDep, caller: CallerDep, path: InDatabase, number: int) -> WorkflowOut:
    """Verify, copy each row that differs once more from the source, and verify it again."""
    return _ask(api, caller, path, number, "repair_workflow", Trigger.VERIFY_DATA, repair=True)


for _operation, _method, _suffix, _trigger in ACTIONS:
    router.add_api_route(
        _ONE + _suffix, _action(_operation, _trigger), methods=[_method], operation_id=_operation
    )
