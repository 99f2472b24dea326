"""Asking something of a workflow: what the published operations and the vtctld family have in common.

Invariant: an action is one look-up in MOVE_TABLES with the stored facts and one compare-and-set, with its
audit entry, in the caller's transaction. What the state asks for is the executor's to find and do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from homeworld.api.calls import Api, Call, Caller, Path
from homeworld.api.schemas.workflows import CreateWorkflow
from homeworld.model.errors import NotFoundError, PreconditionsFailedError
from homeworld.model.machine import Transition
from homeworld.model.ports import MoveWish
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.store.branches import Branch
from homeworld.store.guards import DDL, EMPTIED, REPAIR, VERIFY_ID, facts
from homeworld.store.keyspaces import Keyspace
from homeworld.store.workflows import Workflow, WorkflowFields

T = TypeVar("T")

STOPPED_ON_REQUEST = "it was stopped on request; start it again to go on"
VERIFICATION_STOPPED = "it was stopped on request; resume it, or verify again"


def row_for(
    call: Call, workflow: Workflow, trigger: Trigger, lag_limit_seconds: float | None = None
) -> Transition[State, Trigger]:
    """The transition that ``trigger`` would take now.

    :param lag_limit_seconds: how far behind the workflow may be; None: the installation's limit.
    :raises TransitionRefusedError: none, with the reason.
    """
    limit = call.settings.lag_limit_seconds if lag_limit_seconds is None else lag_limit_seconds
    return MOVE_TABLES.take(workflow.state, trigger, facts(workflow, limit, call.now).holds)


def take(
    call: Call,
    workflow: Workflow,
    trigger: Trigger,
    *,
    lag_limit_seconds: float | None = None,
    noted: Mapping[str, object] | None = None,
) -> Workflow:
    """Take the transition of an asked trigger, with all that goes with it.

    :param noted: facts that are written with it; None as a value removes one.
    :raises TransitionRefusedError: it is not possible now; nothing has changed.
    :raises ConflictError: somebody was quicker.
    """
    row = row_for(call, workflow, trigger, lag_limit_seconds)
    changed: dict[str, object] = dict(noted or {})
    fields = WorkflowFields()
    if trigger is Trigger.VERIFY_DATA:
        changed.setdefault(VERIFY_ID, None)  # an older one says nothing of what is asked now
    if trigger is Trigger.RETRY:
        fields = WorkflowFields(workflow_errors="", may_retry=False, may_restart=False)
    if trigger is Trigger.STOP:
        fields = WorkflowFields(workflow_errors=STOPPED_ON_REQUEST, may_retry=True, lag_seconds=None)
        changed |= {DDL: STOPPED_ON_REQUEST, EMPTIED: None}
    if row.source is State.VERIFYING_DATA:
        changed |= {VERIFY_ID: None, REPAIR: None}
    if changed:
        kept = {**workflow.facts, **changed}
        fields["facts"] = {name: value for name, value in kept.items() if value is not None}
    workflow = call.tx.workflows.transition(
        workflow.id, workflow.state, row, actor_id=call.actor_id, **fields
    )
    if row.source is State.VERIFYING_DATA:
        stopped = trigger is Trigger.STOP_VERIFICATION
        why = VERIFICATION_STOPPED if stopped else f"{trigger} was asked for before it had ended"
        call.tx.progress.end_verifications(workflow.id, why)
    call.audit(f"workflow.{trigger}", "workflow", workflow.id, workflow.name)
    return workflow


def create(
    api: Api,
    caller: Caller,
    path: Path,
    operation: str,
    body: CreateWorkflow,
    then: Callable[[Call, Workflow], T],
) -> T:
    """Make the workflow that ``body`` asks for, and answer with what ``then`` makes of it.

    :param then: called in the transaction that makes it.
    :raises PreconditionsFailedError: all reasons against it at once.
    """
    tables = tuple(dict.fromkeys(body.tables))
    wish, reasons = ask_everybody(api, caller, path, operation, body)
    if reasons or wish is None:
        raise PreconditionsFailedError(tuple(reasons))
    with api.write(caller, operation, path) as call:
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
        return then(call, workflow)


def ask_everybody(
    api: Api, caller: Caller, path: Path, operation: str, body: CreateWorkflow
) -> tuple[MoveWish | None, list[str]]:
    """What store and servers say of a workflow before it is made; each reason once."""
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
