"""Workflows and what is done with them in the words that Vitess's own clients print.

Invariant: only what is known is said; fields of Vitess's that nothing here stands behind are left out, and
``state``, ``number``, ``workflow_errors``, ``lag_seconds`` and ``tables`` are beyond them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Generic, TypeVar

from pydantic import BaseModel

from homeworld.api.calls import Call
from homeworld.api.outcomes import COMPLETED, RUNNING, outcome, traffic, traffic_in
from homeworld.api.schemas.progress import WorkflowStreamOut, show_streams, show_tables
from homeworld.model.states.move_tables import State
from homeworld.store.keyspaces import Keyspace
from homeworld.store.operations import Operation
from homeworld.store.workflows import Workflow

T = TypeVar("T")
# After which nobody waits any more: a server that does not answer is waited for 15 minutes.
TIMEOUT_SECONDS = 1200
_STATUSES: Mapping[str, str] = {
    "starting": "Init",
    "copying": "Copying",
    "indexing": "Copying",
    "following": "Running",
    "stopped": "Stopped",
    "ddl": "Stopped",
    "failed": "Error",
}
_LIVE = {"Init", "Copying", "Running"}
_STILL = (
    State.STOPPED,
    State.ERROR,
    State.CUTOVER,
    State.REVERSED_CUTOVER,
    State.COMPLETED,
    State.CANCELLING,
    State.CANCELLED,
)


class DataOut(BaseModel, Generic[T]):
    """The envelope of the family's answers."""

    data: T


# -- workflows -----------------------------------------------------------------------------------------------


class TableCopyOut(BaseModel):
    """How far a table's copy is."""

    rows_copied: str
    rows_total: str
    rows_percentage: float


class StatusStreamOut(BaseModel):
    """A stream, in short."""

    id: int
    source_shard: str
    position: str
    status: str
    info: str


class StatusStreamsOut(BaseModel):
    """The streams that lead to a shard."""

    streams: Sequence[StatusStreamOut]


class StatusOut(BaseModel):
    """How far a workflow is."""

    table_copy_state: Mapping[str, TableCopyOut]
    shard_streams: Mapping[str, StatusStreamsOut]
    traffic_state: str
    state: State
    workflow_errors: str
    lag_seconds: float | None


class LogOut(BaseModel):
    """A line of a stream's history."""

    id: str
    stream_id: str
    type: str
    state: str
    created_at: datetime
    updated_at: datetime
    message: str


class BinlogSourceOut(BaseModel):
    """Where a stream reads."""

    keyspace: str
    shard: str
    on_ddl: str


class ThrottlerStatusOut(BaseModel):
    """What a stream gives way to."""

    component_throttled: str
    time_throttled: datetime | None


class StreamOut(BaseModel):
    """A stream."""

    id: str
    shard: str
    binlog_source: BinlogSourceOut
    position: str
    stop_position: str
    state: str
    message: str
    rows_copied: str
    throttler_status: ThrottlerStatusOut
    logs: Sequence[LogOut]


class StreamsOut(BaseModel):
    """The streams that lead to a shard. Those of the way back lead to the source's."""

    streams: Sequence[StreamOut]
    is_primary_serving: bool


class PlacesOut(BaseModel):
    """A side of a workflow."""

    keyspace: str
    shards: Sequence[str]


class MoveTablesOut(BaseModel):
    """A workflow."""

    name: str
    source: PlacesOut
    target: PlacesOut
    max_v_replication_lag: str
    shard_streams: Mapping[str, StreamsOut]
    workflow_type: str = "MoveTables"
    workflow_sub_type: str = "None"
    defer_secondary_keys: bool
    traffic_state: str
    number: int
    state: State
    workflow_errors: str
    tables: Sequence[str]


class MoveTablesListOut(BaseModel):
    """Workflows."""

    workflows: Sequence[MoveTablesOut]


class SummaryOut(BaseModel):
    """What was done, in a sentence."""

    summary: str


def show_status(call: Call, workflow: Workflow) -> StatusOut:
    """How far the workflow is."""
    source, target = sides(call, workflow)
    streams: dict[str, list[StatusStreamOut]] = {}
    for number, stream in enumerate(show_streams(call, [workflow.id], logs=False).get(workflow.id, []), 1):
        origin, to = (target, source) if stream.direction == "reverse" else (source, target)
        streams.setdefault(f"{to.name}/{stream.target_shard}", []).append(
            StatusStreamOut(
                id=number,
                source_shard=f"{origin.name}/{stream.source_shard}",
                position=stream.position,
                status=_status(workflow, stream),
                info=stream.info or _lag(stream),
            )
        )
    return StatusOut(
        table_copy_state={
            table.name: TableCopyOut(
                rows_copied=str(table.rows_copied),
                rows_total=str(table.rows_total),
                rows_percentage=table.rows_percentage,
            )
            for table in show_tables(call, [workflow.id]).get(workflow.id, [])
        },
        shard_streams={shard: StatusStreamsOut(streams=found) for shard, found in streams.items()},
        traffic_state=_traffic(workflow),
        state=workflow.state,
        workflow_errors=workflow.workflow_errors,
        lag_seconds=workflow.lag_seconds,
    )


def show_move_tables(call: Call, workflow: Workflow, *, logs: bool) -> MoveTablesOut:
    """The workflow.

    :param logs: whether its streams' newest history comes with them.
    """
    source, target = sides(call, workflow)
    streams: dict[str, list[StreamOut]] = {}
    serving: dict[str, bool] = {}
    for number, stream in enumerate(show_streams(call, [workflow.id], logs=logs).get(workflow.id, []), 1):
        origin, to = (target, source) if stream.direction == "reverse" else (source, target)
        key = f"{to.name}/{stream.target_shard}"
        serving[key] = serving.get(key, False) or stream.primary_serving
        streams.setdefault(key, []).append(_stream(workflow, stream, str(number), origin))
    return MoveTablesOut(
        name=workflow.name,
        source=places_of(call, source),
        target=places_of(call, target),
        max_v_replication_lag=str(round(workflow.lag_seconds or 0)),
        shard_streams={
            key: StreamsOut(streams=found, is_primary_serving=serving[key]) for key, found in streams.items()
        },
        defer_secondary_keys=workflow.defer_secondary_keys,
        traffic_state=_traffic(workflow),
        number=workflow.number,
        state=workflow.state,
        workflow_errors=workflow.workflow_errors,
        tables=[table.name for table in call.tx.progress.tables_of([workflow.id])],
    )


def _stream(workflow: Workflow, stream: WorkflowStreamOut, number: str, origin: Keyspace) -> StreamOut:
    return StreamOut(
        id=number,
        shard=stream.target_shard,
        binlog_source=BinlogSourceOut(
            keyspace=origin.name, shard=stream.source_shard, on_ddl=workflow.on_ddl.value
        ),
        position=stream.position,
        stop_position=stream.stop_position,
        state=_status(workflow, stream),
        message=stream.info,
        rows_copied=str(stream.rows_copied),
        throttler_status=ThrottlerStatusOut(
            component_throttled=stream.component_throttled, time_throttled=stream.component_throttled_at
        ),
        logs=[
            LogOut(
                id=log.id,
                stream_id=number,
                type=log.log_type,
                state=log.state,
                created_at=log.created_at,
                updated_at=log.updated_at,
                message=log.message,
            )
            for log in stream.logs
        ],
    )


def _status(workflow: Workflow, stream: WorkflowStreamOut) -> str:
    """What the stream does; where the workflow runs no streams, none runs, whatever it said last."""
    told = _STATUSES.get(stream.state, stream.state)
    return "Stopped" if workflow.state in _STILL and told in _LIVE else told


def _lag(stream: WorkflowStreamOut) -> str:
    return "" if stream.lag_seconds is None else f"VStream Lag: {stream.lag_seconds:.0f}s"


def _traffic(workflow: Workflow) -> str:
    return traffic(replicas=workflow.replicas_switched, primaries=workflow.primaries_switched)


def sides(call: Call, workflow: Workflow) -> tuple[Keyspace, Keyspace]:
    """The workflow's source and target."""
    ids = (workflow.source_keyspace_id, workflow.target_keyspace_id)
    found = call.tx.keyspaces.by_ids(ids)
    return found[ids[0]], found[ids[1]]


def places_of(call: Call, keyspace: Keyspace) -> PlacesOut:
    """The keyspace and its shards' names."""
    return PlacesOut(
        keyspace=keyspace.name, shards=[shard.name for shard in call.tx.keyspaces.shards(keyspace.id)]
    )


# -- operations ----------------------------------------------------------------------------------------------


class OperationRefOut(BaseModel):
    """Where to ask how an action goes."""

    id: str


class OperationOut(BaseModel):
    """How an action goes. ``timeout`` is in seconds; ``result`` is null until it has ended well."""

    id: str
    type: str = "VtctldOperation"
    action: str
    timeout: int = TIMEOUT_SECONDS
    created_at: datetime
    completed_at: datetime | None
    state: str
    completed: bool
    metadata: Mapping[str, object]
    result: Mapping[str, object] | None
    error: str


def show_operation(call: Call, operation: Operation) -> OperationOut:
    """How the action goes now."""
    workflow = call.tx.workflows.get(operation.workflow_id)
    transitions = call.tx.journal.transitions("workflow", workflow.id)
    ended = outcome(operation, transitions)
    started = next((one.from_state for one in transitions if one.id == operation.since), "")
    result = _result(call, operation, workflow, started) if ended.state == COMPLETED else None
    return OperationOut(
        id=operation.id,
        action=operation.action,
        created_at=operation.created_at,
        completed_at=ended.at,
        state=ended.state,
        completed=ended.state != RUNNING,
        metadata=operation.metadata,
        result=result,
        error=ended.error,
    )


def _result(call: Call, operation: Operation, workflow: Workflow, started: str) -> Mapping[str, object]:
    action = operation.action.removeprefix("move_tables_")
    target = sides(call, workflow)[1].name
    where = f"{target}.{workflow.name}"
    if operation.since is None:
        return {"summary": f"{action} dry run of workflow {where}", "dry_run_results": operation.told}
    if action == "create":
        return show_status(call, workflow).model_dump(mode="json")
    if action in ("switch_traffic", "reverse_traffic"):
        words = {"switch_traffic": "SwitchTraffic", "reverse_traffic": "ReverseTraffic"}
        return {
            "summary": f"{words[action]} was successful for workflow {where}",
            "start_state": traffic_in(started),
            "current_state": traffic_in(operation.goal),
        }
    done = "cancelled" if action == "cancel" else "completed"
    return {"summary": f"Successfully {done} the {workflow.name} workflow in the {target} keyspace"}
