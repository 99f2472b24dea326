"""A workflow's tables, streams and verification as the command line reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from pydantic import BaseModel

from homeworld.api.calls import Call
from homeworld.model.names import quote
from homeworld.store.progress import LOGS_SHOWN, VDiff, VDiffReport


class StreamLogOut(BaseModel):
    """A line of a stream's history."""

    id: str
    state: str
    created_at: datetime
    updated_at: datetime
    message: str
    log_type: str


class WorkflowStreamOut(BaseModel):
    """One stream. ``direction``, ``events_applied`` and ``lag_seconds`` are beyond what others tell."""

    id: str
    direction: str
    state: str
    created_at: datetime
    updated_at: datetime
    target_shard: str
    source_shard: str
    position: str
    stop_position: str
    rows_copied: int
    events_applied: int
    lag_seconds: float | None
    component_throttled: str
    component_throttled_at: datetime | None
    primary_serving: bool
    info: str
    logs: Sequence[StreamLogOut]


class WorkflowTableOut(BaseModel):
    """One moving table."""

    id: str
    name: str
    created_at: datetime
    updated_at: datetime
    rows_copied: int
    rows_total: int
    rows_percentage: int


class VDiffReportOut(BaseModel):
    """A verification's result for one table. The queries find the sampled rows on a server.

    ``state`` and figures of rows are beyond what others tell, and each sampled row says its ``key``, the
    ``shard`` it was found on, the one it belongs to (``owner``) and the ``columns`` that differ.
    """

    id: str
    table_name: str
    shard: str
    state: str
    rows_compared: int
    rows_total: int
    rows_percentage: int
    mismatched_rows_count: int
    extra_source_rows_count: int
    extra_target_rows_count: int
    wrong_shard_rows_count: int
    extra_source_rows: Sequence[Mapping[str, object]]
    extra_target_rows: Sequence[Mapping[str, object]]
    mismatched_rows: Sequence[Mapping[str, object]]
    sample_extra_source_rows_query: str
    sample_extra_target_rows_query: str
    sample_mismatched_rows_query: str
    created_at: datetime
    updated_at: datetime


class VDiffRoundOut(BaseModel):
    """One time at which both sides were read; a verification that went on after a death has several."""

    number: int
    begun_at: datetime
    positions: Mapping[str, str]
    rows_compared: int
    note: str


class WorkflowVDiffOut(BaseModel):
    """The newest verification. ``rows_…``, ``rounds`` and ``error`` are beyond what others tell."""

    id: str
    state: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    has_mismatch: bool
    progress_percentage: int
    eta_seconds: int
    rows_compared: int
    rows_total: int
    rows_per_second: int
    rounds: Sequence[VDiffRoundOut]
    error: str
    table_reports: Sequence[VDiffReportOut]


def show_tables(call: Call, workflow_ids: Sequence[str]) -> dict[str, list[WorkflowTableOut]]:
    """Tables by workflow id."""
    shown: dict[str, list[WorkflowTableOut]] = {}
    for table in call.tx.progress.tables_of(workflow_ids):
        shown.setdefault(table.workflow_id, []).append(
            WorkflowTableOut(
                id=table.id,
                name=table.name,
                created_at=table.created_at,
                updated_at=table.updated_at,
                rows_copied=table.rows_copied,
                rows_total=table.rows_total,
                rows_percentage=_percentage(table.rows_copied, table.rows_total),
            )
        )
    return shown


def show_streams(
    call: Call, workflow_ids: Sequence[str], *, logs: bool
) -> dict[str, list[WorkflowStreamOut]]:
    """Streams by workflow id; ``logs`` says whether their newest history comes with them."""
    streams = call.tx.progress.streams_of(workflow_ids)
    history: dict[str, list[StreamLogOut]] = {}
    if logs:
        for log in call.tx.progress.logs_of([stream.id for stream in streams]):
            lines = history.setdefault(log.stream_id, [])
            if len(lines) < LOGS_SHOWN:
                lines.append(
                    StreamLogOut(
                        id=log.id,
                        state=log.state,
                        created_at=log.created_at,
                        updated_at=log.updated_at,
                        message=log.message,
                        log_type=log.log_type,
                    )
                )
    shown: dict[str, list[WorkflowStreamOut]] = {}
    for stream in streams:
        shown.setdefault(stream.workflow_id, []).append(
            WorkflowStreamOut(
                id=stream.id,
                direction=stream.direction,
                state=stream.state,
                created_at=stream.created_at,
                updated_at=stream.updated_at,
                target_shard=stream.target_shard,
                source_shard=stream.source_shard,
                position=stream.position,
                stop_position=stream.stop_position,
                rows_copied=stream.rows_copied,
                events_applied=stream.events_applied,
                lag_seconds=stream.lag_seconds,
                component_throttled=stream.component_throttled,
                component_throttled_at=stream.component_throttled_at,
                primary_serving=stream.primary_serving,
                info=stream.info,
                logs=history.get(stream.id, []),
            )
        )
    return shown


def show_vdiffs(call: Call, workflow_ids: Sequence[str], *, reports: bool) -> dict[str, WorkflowVDiffOut]:
    """Each workflow's newest verification, by workflow id."""
    vdiffs = call.tx.progress.newest_vdiffs(workflow_ids)
    found: dict[str, list[VDiffReportOut]] = {}
    if reports:
        for report in call.tx.progress.reports_of(vdiff.id for vdiff in vdiffs.values()):
            found.setdefault(report.vdiff_id, []).append(_report(report))
    return {workflow_id: _vdiff(vdiff, found.get(vdiff.id, [])) for workflow_id, vdiff in vdiffs.items()}


def _vdiff(vdiff: VDiff, reports: Sequence[VDiffReportOut]) -> WorkflowVDiffOut:
    done = vdiff.state == "completed"
    return WorkflowVDiffOut(
        id=vdiff.id,
        state=vdiff.state,
        created_at=vdiff.created_at,
        updated_at=vdiff.updated_at,
        started_at=vdiff.started_at,
        completed_at=vdiff.completed_at,
        has_mismatch=vdiff.has_mismatch,
        progress_percentage=100 if done else min(_percentage(vdiff.rows_compared, vdiff.rows_total), 99),
        eta_seconds=max(0, round(vdiff.eta_seconds)),
        rows_compared=vdiff.rows_compared,
        rows_total=vdiff.rows_total,
        rows_per_second=round(vdiff.rows_per_second),
        rounds=[VDiffRoundOut.model_validate(one) for one in vdiff.rounds],
        error=vdiff.error,
        table_reports=reports,
    )


def _report(report: VDiffReport) -> VDiffReportOut:
    return VDiffReportOut(
        id=report.id,
        table_name=report.table_name,
        shard=report.shard,
        state=report.state,
        rows_compared=report.rows_compared,
        rows_total=report.rows_total,
        rows_percentage=_done(report),
        mismatched_rows_count=report.mismatched_rows_count,
        extra_source_rows_count=report.extra_source_rows_count,
        extra_target_rows_count=report.extra_target_rows_count,
        wrong_shard_rows_count=report.wrong_shard_rows_count,
        extra_source_rows=report.extra_source_rows,
        extra_target_rows=report.extra_target_rows,
        mismatched_rows=report.mismatched_rows,
        sample_extra_source_rows_query=_query(report.table_name, report.extra_source_rows),
        sample_extra_target_rows_query=_query(report.table_name, report.extra_target_rows),
        sample_mismatched_rows_query=_query(report.table_name, report.mismatched_rows),
        created_at=report.created_at,
        updated_at=report.updated_at,
    )


def _done(report: VDiffReport) -> int:
    if report.state == "completed":
        return 100
    return min(99, _percentage(report.rows_compared, report.rows_total))


def _percentage(part: int, whole: int) -> int:
    return min(100, part * 100 // whole) if whole else 0


def _query(table: str, samples: Sequence[Mapping[str, object]]) -> str:
    """A query for people to paste: it finds the sampled rows by their keys."""
    keys = [cast("Mapping[str, str]", sample["key"]) for sample in samples]
    wanted = [
        str(sample.get("condition") or "")
        or " AND ".join(f"{quote(column)} = {_literal(value)}" for column, value in key.items())
        for sample, key in zip(samples, keys, strict=True)
    ]
    return f"SELECT * FROM {quote(table)} WHERE ({') OR ('.join(wanted)})" if wanted else ""  # noqa: S608 - shown, not run


def _literal(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
