"""Comparisons as the command line's vtctld family asks for them; they are the workflow's verifications.

Invariant: a comparison runs exactly while the workflow is verifying its data; one at a time.
"""

from __future__ import annotations

from homeworld.api import asking
from homeworld.api.calls import ApiDep, Call, CallerDep, InBranch, Uuid, WorkflowName
from homeworld.api.listing import Routes
from homeworld.api.routes.move_tables import BRANCH, TargetKeyspace, named
from homeworld.api.schemas.vdiffs import (
    VDiffOut,
    VDiffRefOut,
    VDiffsOut,
    show_vdiff,
    show_vdiffs,
    vdiff_state,
)
from homeworld.api.schemas.vtctld import CreateVDiff, VDiffShards
from homeworld.api.schemas.vtctld_views import DataOut, places_of, sides
from homeworld.model.errors import InvalidError, NotFoundError
from homeworld.model.names import new_id
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.guards import VERIFY_ID
from homeworld.store.progress import VDiff
from homeworld.store.workflows import Workflow

router = Routes(tags=["vtctld"])

_ALL = BRANCH + "/vdiff/workflows/{workflow}/vdiffs"
_ONE = _ALL + "/{uuid}"
_LAST = "last"
_EVERY = "all"


@router.get(_ALL, operation_id="list_vdiffs")
def list_vdiffs(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    workflow: WorkflowName,
    target_keyspace: TargetKeyspace = "",
) -> DataOut[VDiffsOut]:
    """The workflow's comparisons, newest first."""
    with api.read(caller, "list_vdiffs", path) as call:
        found = named(call, target_keyspace, workflow)
        return DataOut(data=show_vdiffs(call, found, call.tx.progress.vdiffs_of(found.id)))


@router.post(_ALL, operation_id="create_vdiff")
def create_vdiff(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, body: CreateVDiff
) -> DataOut[VDiffRefOut]:
    """Begin a comparison of all tables, as verify_workflow does; its UUID tells how it goes."""
    with api.write(caller, "create_vdiff", path) as call:
        found = named(call, body.target_keyspace, workflow)
        body.check(table.name for table in call.tx.progress.tables_of([found.id]))
        uuid = new_id()
        asking.take(call, found, Trigger.VERIFY_DATA, noted={VERIFY_ID: uuid})
        call.tx.progress.start_verification(found.id, vdiff_id=uuid)
        return DataOut(data=VDiffRefOut(uuid=uuid))


@router.get(_ONE, operation_id="get_vdiff")
def get_vdiff(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    workflow: WorkflowName,
    uuid: Uuid,
    target_keyspace: TargetKeyspace = "",
) -> DataOut[VDiffOut]:
    """A comparison with what it found; ``last`` is the newest."""
    with api.read(caller, "get_vdiff", path) as call:
        found = named(call, target_keyspace, workflow)
        return DataOut(data=show_vdiff(call, found, _numbered(call, found, uuid)))


@router.delete(_ONE, operation_id="delete_vdiff")
def delete_vdiff(
    api: ApiDep,
    caller: CallerDep,
    path: InBranch,
    workflow: WorkflowName,
    uuid: Uuid,
    target_keyspace: TargetKeyspace = "",
) -> DataOut[VDiffRefOut]:
    """Forget a comparison that has ended; ``all``: every one. What it said of the data stands."""
    with api.write(caller, "delete_vdiff", path) as call:
        found = named(call, target_keyspace, workflow)
        doomed = call.tx.progress.vdiffs_of(found.id) if uuid == _EVERY else [_numbered(call, found, uuid)]
        if any(vdiff.state in ("pending", "started") for vdiff in doomed):
            raise InvalidError("the comparison is under way; stop it first")
        for vdiff in doomed:
            call.tx.progress.delete_verification(vdiff.id)
            call.audit("workflow.vdiff_deleted", "workflow", found.id, found.name, vdiff=vdiff.id)
        return DataOut(data=VDiffRefOut(uuid=uuid if uuid == _EVERY else doomed[0].id))


@router.post(_ONE + "/stop", operation_id="stop_vdiff")
def stop_vdiff(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, uuid: Uuid, body: VDiffShards
) -> DataOut[VDiffRefOut]:
    """Stop a comparison that is under way; the workflow's streams go on."""
    with api.write(caller, "stop_vdiff", path) as call:
        found, vdiff = _asked(call, workflow, uuid, body)
        running = found.state is State.VERIFYING_DATA and vdiff.state in ("pending", "started")
        if not running:
            raise InvalidError(f"the comparison is {vdiff_state(vdiff)}; only one under way can be stopped")
        asking.take(call, found, Trigger.STOP_VERIFICATION)
        return DataOut(data=VDiffRefOut(uuid=vdiff.id))


@router.post(_ONE + "/resume", operation_id="resume_vdiff")
def resume_vdiff(
    api: ApiDep, caller: CallerDep, path: InBranch, workflow: WorkflowName, uuid: Uuid, body: VDiffShards
) -> DataOut[VDiffRefOut]:
    """Go on with a comparison that was stopped: with what had not been found equal."""
    with api.write(caller, "resume_vdiff", path) as call:
        found, vdiff = _asked(call, workflow, uuid, body)
        if vdiff_state(vdiff) != "stopped":
            raise InvalidError(f"the comparison is {vdiff_state(vdiff)}; only a stopped one can be resumed")
        if call.tx.progress.vdiffs_of(found.id)[0].id != vdiff.id:
            raise InvalidError("a later comparison has begun; create a new one")
        asking.take(call, found, Trigger.VERIFY_DATA, noted={VERIFY_ID: vdiff.id})
        call.tx.progress.reopen_verification(vdiff.id)
        return DataOut(data=VDiffRefOut(uuid=vdiff.id))


def _asked(call: Call, workflow: str, uuid: str, body: VDiffShards) -> tuple[Workflow, VDiff]:
    found = named(call, body.target_keyspace, workflow)
    body.check(places_of(call, sides(call, found)[1]).shards)
    return found, _numbered(call, found, uuid)


def _numbered(call: Call, workflow: Workflow, uuid: str) -> VDiff:
    """The workflow's comparison of that id, or the newest.

    :raises NotFoundError: there is none.
    """
    known = call.tx.progress.vdiffs_of(workflow.id)
    found = known[:1] if uuid == _LAST else [one for one in known if one.id == uuid]
    if not found:
        raise NotFoundError(f"workflow {workflow.name} has no comparison {uuid}")
    return found[0]
