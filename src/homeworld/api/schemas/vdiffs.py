"""Comparisons of a workflow's two sides in the words that Vitess's own clients print.

Invariant: only what is known is said; ``Error``, ``WrongShardRows`` and the samples beside the counts are
beyond theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, Field

from homeworld.api.asking import VERIFICATION_STOPPED
from homeworld.api.calls import Call
from homeworld.api.schemas.vtctld_views import places_of, sides
from homeworld.store.progress import VDiff, VDiffReport
from homeworld.store.workflows import Workflow

_TIME = "%Y-%m-%d %H:%M:%S"


class VDiffRefOut(BaseModel):
    """A comparison's name."""

    uuid: Annotated[str, Field(serialization_alias="UUID")]


class VDiffListedOut(BaseModel):
    """A comparison in a list."""

    uuid: Annotated[str, Field(serialization_alias="UUID")]
    workflow: Annotated[str, Field(serialization_alias="Workflow")]
    keyspace: Annotated[str, Field(serialization_alias="Keyspace")]
    shards: Annotated[str, Field(serialization_alias="Shards")]
    state: Annotated[str, Field(serialization_alias="State")]


class VDiffsOut(BaseModel):
    """Comparisons, newest first."""

    vdiffs: Sequence[VDiffListedOut]


class VDiffProgressOut(BaseModel):
    """How far a comparison is; ``ETA`` is empty where nobody knows."""

    percentage: Annotated[float, Field(serialization_alias="Percentage")]
    eta: Annotated[str, Field(serialization_alias="ETA")]


class TableSummaryOut(BaseModel):
    """A table's comparison. The rows are samples, the counts complete."""

    table_name: Annotated[str, Field(serialization_alias="TableName")]
    state: Annotated[str, Field(serialization_alias="State")]
    rows_compared: Annotated[int, Field(serialization_alias="RowsCompared")]
    mismatched_rows: Annotated[int, Field(serialization_alias="MismatchedRows")]
    extra_rows_source: Annotated[int, Field(serialization_alias="ExtraRowsSource")]
    extra_rows_target: Annotated[int, Field(serialization_alias="ExtraRowsTarget")]
    wrong_shard_rows: Annotated[int, Field(serialization_alias="WrongShardRows")]
    mismatched_sample: Annotated[
        Sequence[Mapping[str, object]], Field(serialization_alias="MismatchedRowsSample")
    ]
    source_sample: Annotated[
        Sequence[Mapping[str, object]], Field(serialization_alias="ExtraRowsSourceSample")
    ]
    target_sample: Annotated[
        Sequence[Mapping[str, object]], Field(serialization_alias="ExtraRowsTargetSample")
    ]


class VDiffOut(VDiffListedOut):
    """A comparison. ``Error`` says why it did not come to its end."""

    rows_compared: Annotated[int, Field(serialization_alias="RowsCompared")]
    has_mismatch: Annotated[bool, Field(serialization_alias="HasMismatch")]
    started_at: Annotated[str, Field(serialization_alias="StartedAt")]
    completed_at: Annotated[str, Field(serialization_alias="CompletedAt")]
    error: Annotated[str, Field(serialization_alias="Error")]
    progress: Annotated[VDiffProgressOut, Field(serialization_alias="Progress")]
    tables: Annotated[Mapping[str, TableSummaryOut], Field(serialization_alias="TableSummary")]


def show_vdiffs(call: Call, workflow: Workflow, vdiffs: Sequence[VDiff]) -> VDiffsOut:
    """Comparisons of one workflow."""
    target = places_of(call, sides(call, workflow)[1])
    return VDiffsOut(
        vdiffs=[
            VDiffListedOut(
                uuid=vdiff.id,
                workflow=workflow.name,
                keyspace=target.keyspace,
                shards=",".join(target.shards),
                state=vdiff_state(vdiff),
            )
            for vdiff in vdiffs
        ]
    )


def show_vdiff(call: Call, workflow: Workflow, vdiff: VDiff) -> VDiffOut:
    """One comparison with what it found."""
    (listed,) = show_vdiffs(call, workflow, [vdiff]).vdiffs
    done = vdiff.state == "completed"
    share = 100 * vdiff.rows_compared / vdiff.rows_total if vdiff.rows_total else 0.0
    known = vdiff.state == "started" and vdiff.eta_seconds > 0
    eta = vdiff.updated_at + timedelta(seconds=vdiff.eta_seconds) if known else None
    return VDiffOut(
        **listed.model_dump(),
        rows_compared=vdiff.rows_compared,
        has_mismatch=vdiff.has_mismatch,
        started_at=_time(vdiff.started_at),
        completed_at=_time(vdiff.completed_at),
        error=vdiff.error,
        progress=VDiffProgressOut(percentage=100.0 if done else min(round(share, 2), 99.99), eta=_time(eta)),
        tables={report.table_name: _table(report) for report in call.tx.progress.reports_of([vdiff.id])},
    )


def vdiff_state(vdiff: VDiff) -> str:
    """pending, started, stopped, completed or error."""
    return "stopped" if vdiff.state == "error" and vdiff.error == VERIFICATION_STOPPED else vdiff.state


def _table(report: VDiffReport) -> TableSummaryOut:
    return TableSummaryOut(
        table_name=report.table_name,
        state=report.state,
        rows_compared=report.rows_compared,
        mismatched_rows=report.mismatched_rows_count,
        extra_rows_source=report.extra_source_rows_count,
        extra_rows_target=report.extra_target_rows_count,
        wrong_shard_rows=report.wrong_shard_rows_count,
        mismatched_sample=report.mismatched_rows,
        source_sample=report.extra_source_rows,
        target_sample=report.extra_target_rows,
    )


def _time(at: datetime | None) -> str:
    return "" if at is None else at.strftime(_TIME)
