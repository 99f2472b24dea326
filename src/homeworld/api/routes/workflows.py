"""MoveTables workflows: list, create, get, and one action for each asked trigger.

Invariant: what is asked is judged and written by api.asking, in one transaction; this names and shows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Query

from homeworld.api import asking
from homeworld.api.calls import Api, ApiDep, Call, Caller, CallerDep, InDatabase, Path
from homeworld.api.listing import Routes
from homeworld.api.pages import Listing, PageDep, listing
from homeworld.api.schemas.workflows import (
    CheckedWorkflowOut,
    CheckWorkflow,
    CreateWorkflow,
    WorkflowOut,
    show_workflow,
    show_workflows,
)
from homeworld.model.engines import CAPABILITIES
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.guards import REPAIR
from homeworld.store.workflows import Workflow

router = Routes(tags=["Workflows"])

_ALL = "/organizations/{organization}/databases/{database}/workflows"
_ONE = _ALL + "/{number}"
_LARGEST = 2**31 - 1
_PERIOD = "{} must be FROM..TO, both RFC 3339, such as 2026-01-01T00:00:00Z..2026-01-31T00:00:00Z"

# States that asking leads to in one step; the routes follow.
_AT_ONCE = frozenset({State.CUTOVER, State.REVERSED_CUTOVER})
_SETTLED_PAUSE = 0.02

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
    return asking.create(api, caller, path, "create_workflow", body, show_workflow)


@router.post(f"{_ALL}/check", operation_id="check_workflow")
def check_workflow(
    api: ApiDep, caller: CallerDep, path: InDatabase, body: CheckWorkflow
) -> CheckedWorkflowOut:
    """What create_workflow would say of this body: every reason against it at once. Nothing is made."""
    _, reasons = asking.ask_everybody(api, caller, path, "check_workflow", body)
    return CheckedWorkflowOut(allowed=not reasons, reasons=reasons)


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
        if repair and not CAPABILITIES[call.database.engine].repair:
            raise InvalidError(
                f"a verification repairs nothing on the engine {call.database.engine}; cancel the workflow "
                "and create it anew, and the rows are copied again"
            )
        workflow = asking.take(call, workflow, trigger, noted={REPAIR: True} if repair else None)
        answer = show_workflow(call, workflow)
    if workflow.state not in _AT_ONCE:
        return answer
    # A client that reads or writes right behind the answer finds the tables where the state says.
    _await_settled(api, workflow.id)
    with api.read(caller, operation, path) as call:
        return show_workflow(call, call.tx.workflows.get(workflow.id))


def _await_settled(api: Api, workflow_id: str) -> None:
    """Return once the routes of the workflow's state are served, or it takes too long: then they will be."""
    deadline = time.monotonic() + api.settings.settle_seconds
    while time.monotonic() < deadline:
        with api.store.read() as tx:
            if tx.workflows.get(workflow_id).settled:
                return
        time.sleep(_SETTLED_PAUSE)


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
    router.declare(_method, _ONE + _suffix, operation_id=_operation)(_action(_operation, _trigger))
