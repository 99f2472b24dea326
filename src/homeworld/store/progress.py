"""What is told of a workflow's progress: tables, streams with their logs, verifications.

Invariant: these rows describe and never decide; the data path's own truth stands in the sidecar schema of
each target. Each write replaces what stood there, so telling twice is harmless.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import delete, select

from homeworld.model.movers import (
    MoverProgress,
    RowDifference,
    StreamProgress,
    TableProgress,
    Verification,
    VerificationRound,
)
from homeworld.model.names import new_id
from homeworld.store.tables import workflows as tables
from homeworld.store.work import Work

LOGS_KEPT = 100
THROTTLED_LENGTH = 255
_NOT_THROTTLED = {"component_throttled": "", "component_throttled_at": None}
LOGS_SHOWN = 20
_OVER = ("completed", "error")


@dataclass(frozen=True, slots=True)
class WorkflowTable:
    """One moving table."""

    id: str
    workflow_id: str
    name: str
    rows_copied: int
    rows_total: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream: a source shard to a target shard. ``direction`` is forward or reverse."""

    id: str
    workflow_id: str
    direction: str
    source_shard: str
    target_shard: str
    state: str
    position: str
    stop_position: str
    rows_copied: int
    events_applied: int
    lag_seconds: float | None
    component_throttled: str
    component_throttled_at: datetime | None
    primary_serving: bool
    info: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StreamLog:
    """A line of a stream's history."""

    id: str
    stream_id: str
    state: str
    log_type: str
    message: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class VDiff:
    """A verification."""

    id: str
    workflow_id: str
    state: str
    rows_compared: int
    rows_total: int
    eta_seconds: float
    rows_per_second: float
    rounds: Sequence[Mapping[str, object]]
    has_mismatch: bool
    error: str
    started_at: datetime | None
    completed_at: datetime | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class VDiffReport:
    """A verification's result for one table; the rows are samples, the counts complete.

    :param shard: where the samples are, separated by commas.
    :param state: pending, started, completed or error.
    """

    id: str
    vdiff_id: str
    table_name: str
    shard: str
    state: str
    rows_compared: int
    rows_total: int
    mismatched_rows_count: int
    extra_source_rows_count: int
    extra_target_rows_count: int
    wrong_shard_rows_count: int
    mismatched_rows: Sequence[Mapping[str, object]]
    extra_source_rows: Sequence[Mapping[str, object]]
    extra_target_rows: Sequence[Mapping[str, object]]
    created_at: datetime
    updated_at: datetime


class Progress:
    """Progress within one transaction."""

    def __init__(self, work: Work) -> None:
        self._work = work

    # telling

    def tell(self, workflow_id: str, direction: str, progress: MoverProgress) -> None:
        """Write what a mover says of itself: streams, lag, and (forward) tables."""
        if direction == "forward":
            for table in progress.tables:
                self._tell_table(workflow_id, table)
        for stream in progress.streams:
            self._tell_stream(workflow_id, direction, progress, stream)
        workflow = tables.workflows
        lag = {"lag_seconds": progress.lag_seconds, "lag_told_at": self._work.now}
        self._work.change(workflow, workflow.c.id, workflow_id, lag)
        if progress.verification is not None:
            self.tell_verification(workflow_id, progress.verification)

    def _tell_table(self, workflow_id: str, progress: TableProgress) -> None:
        table = tables.workflow_tables
        values: dict[str, object] = {"updated_at": self._work.now}
        figures = {
            "rows_copied": progress.rows_copied,
            "rows_total": max(progress.rows_total, progress.rows_copied),
        }
        # A stream that follows only, as after a way back, knows of no copy: what was told of it stays.
        if any(figures.values()):
            values |= figures
        changed = self._work.connection.execute(
            table.update()
            .where(table.c.workflow_id == workflow_id, table.c.name == progress.table)
            .values(values)
        ).rowcount
        if not changed:
            self._work.add(
                table,
                {
                    **values,
                    **figures,
                    "id": new_id(),
                    "workflow_id": workflow_id,
                    "name": progress.table,
                    "created_at": self._work.now,
                },
            )

    def _tell_stream(
        self, workflow_id: str, direction: str, progress: MoverProgress, stream: StreamProgress
    ) -> None:
        now = self._work.now
        known = self._stream(workflow_id, direction, stream.source_shard, stream.target_shard)
        throttled_at = now if stream.throttled_by else None
        if known and known.component_throttled == stream.throttled_by[:THROTTLED_LENGTH]:
            throttled_at = known.component_throttled_at
        values: dict[str, object] = {
            "state": progress.phase.value,
            "position": stream.position,
            "rows_copied": stream.rows_copied or (known.rows_copied if known and progress.copied else 0),
            "events_applied": stream.events_applied,
            "lag_seconds": stream.lag_seconds,
            "component_throttled": stream.throttled_by[:THROTTLED_LENGTH],
            "component_throttled_at": throttled_at,
            "info": progress.error or progress.ddl or stream.unmeasured,
            "updated_at": now,
        }
        stream_id = known.id if known else self._add_stream(workflow_id, direction, stream, values)
        if known:
            self._work.change(tables.workflow_streams, tables.workflow_streams.c.id, stream_id, values)
        if known is None or known.state != progress.phase.value:
            self.log(stream_id, progress.phase.value, "State Changed", progress.error or progress.ddl)

    def _add_stream(
        self, workflow_id: str, direction: str, stream: StreamProgress, values: Mapping[str, object]
    ) -> str:
        stream_id = new_id()
        self._work.add(
            tables.workflow_streams,
            {
                **values,
                "id": stream_id,
                "workflow_id": workflow_id,
                "direction": direction,
                "source_shard": stream.source_shard,
                "target_shard": stream.target_shard,
                "stop_position": "",
                "primary_serving": False,
                "created_at": self._work.now,
            },
        )
        return stream_id

    def _stream(self, workflow_id: str, direction: str, source: str, target: str) -> Stream | None:
        table = tables.workflow_streams
        query = select(table).where(
            table.c.workflow_id == workflow_id,
            table.c.direction == direction,
            table.c.source_shard == source,
            table.c.target_shard == target,
        )
        return self._work.first(query, Stream)

    def set_streams(
        self,
        workflow_id: str,
        direction: str,
        *,
        state: str,
        primary_serving: bool,
        stop_positions: Mapping[str, str] | None = None,
        message: str = "",
    ) -> None:
        """Say of all streams of a direction what a switch made of them.

        :param state: for instance ``stopped``.
        :param primary_serving: whether primary traffic is served by this direction's target.
        :param stop_positions: source shard to the position where its streams end.
        """
        table = tables.workflow_streams
        for stream in self.streams_of([workflow_id]):
            if stream.direction != direction:
                continue
            stop = (stop_positions or {}).get(stream.source_shard, stream.stop_position)
            self._work.change(
                table,
                table.c.id,
                stream.id,
                {
                    "state": state,
                    "primary_serving": primary_serving,
                    "stop_position": stop,
                    "updated_at": self._work.now,
                    **_NOT_THROTTLED,
                },
            )
            if stream.state != state or message:
                self.log(stream.id, state, "State Changed", message)

    def fail_streams(
        self, workflow_id: str, direction: str, shards: Iterable[tuple[str, str]], why: str
    ) -> None:
        """Say of a direction's streams, each from one shard to another, that they do not run, and why."""
        table = tables.workflow_streams
        for source, target in shards:
            known = self._stream(workflow_id, direction, source, target)
            values: dict[str, object] = {"state": "failed", "info": why, "updated_at": self._work.now}
            values |= _NOT_THROTTLED
            if known is None:
                never = StreamProgress(source, target, "", 0, 0, 0.0)
                values |= {"position": "", "rows_copied": 0, "events_applied": 0, "lag_seconds": None}
                stream_id = self._add_stream(workflow_id, direction, never, values)
            elif (known.state, known.info) != ("failed", why):
                stream_id = known.id
                self._work.change(table, table.c.id, stream_id, values)
            else:
                continue
            self.log(stream_id, "failed", "State Changed", why)

    def log(self, stream_id: str, state: str, log_type: str, message: str) -> None:
        """Add a line to a stream's history, of which the newest LOGS_KEPT are kept."""
        table = tables.stream_logs
        self._work.add(
            table,
            {
                "id": new_id(),
                "stream_id": stream_id,
                "state": state,
                "log_type": log_type,
                "message": message,
                "created_at": self._work.now,
                "updated_at": self._work.now,
            },
        )
        kept = (
            select(table.c.id)
            .where(table.c.stream_id == stream_id)
            .order_by(table.c.created_at.desc(), table.c.id)
            .limit(LOGS_KEPT)
        )
        self._work.connection.execute(
            delete(table).where(table.c.stream_id == stream_id, table.c.id.not_in(kept))
        )

    def start_verification(self, workflow_id: str, *, vdiff_id: str | None = None) -> str:
        """Note that a verification was asked for; its id, by which ``tell_verification`` finds it."""
        vdiff_id = vdiff_id or new_id()
        self._work.add(
            tables.vdiffs,
            {
                "id": vdiff_id,
                "workflow_id": workflow_id,
                "state": "pending",
                "rows_compared": 0,
                "rows_total": 0,
                "eta_seconds": 0.0,
                "has_mismatch": False,
                "error": "",
                "created_at": self._work.now,
                "updated_at": self._work.now,
            },
        )
        return vdiff_id

    def tell_verification(self, workflow_id: str, verification: Verification) -> None:
        """Write what a verification says of itself; made if ``start_verification`` was not called.

        One that was ended stays so, whatever is still said of it.
        """
        table = tables.vdiffs
        known = self._work.first(select(table).where(table.c.id == verification.verify_id), VDiff)
        if known is None:
            self.start_verification(workflow_id, vdiff_id=verification.verify_id)
        elif known.state in _OVER and verification.state != known.state:
            return
        over = verification.state in _OVER
        started_at = known.started_at if known else None
        if verification.state != "pending":
            started_at = started_at or self._work.now
        mismatch = any(found.different for found in verification.tables)
        self._work.change(
            table,
            table.c.id,
            verification.verify_id,
            {
                "state": verification.state,
                "rows_compared": verification.rows_compared,
                "rows_total": verification.rows_total,
                "eta_seconds": verification.eta_seconds,
                "rows_per_second": verification.rows_per_second,
                "rounds": [_round(one) for one in verification.rounds],
                "has_mismatch": mismatch,
                "error": verification.error,
                "started_at": started_at,
                "completed_at": ((known and known.completed_at) or self._work.now) if over else None,
                "updated_at": self._work.now,
            },
        )
        self._replace_reports(verification)

    def end_verifications(self, workflow_id: str, why: str) -> None:
        """Say of what was begun and not ended that it will not be, and why."""
        table = tables.vdiffs
        self._work.connection.execute(
            table.update()
            .where(table.c.workflow_id == workflow_id, table.c.state.not_in(_OVER))
            .values(
                state="error",
                error=why,
                eta_seconds=0.0,
                completed_at=self._work.now,
                updated_at=self._work.now,
            )
        )

    def reopen_verification(self, vdiff_id: str) -> None:
        """Say of a verification that had ended that it goes on."""
        table = tables.vdiffs
        fresh = {"state": "pending", "error": "", "completed_at": None, "updated_at": self._work.now}
        self._work.change(table, table.c.id, vdiff_id, fresh)

    def delete_verification(self, vdiff_id: str) -> None:
        """Forget a verification and what it found."""
        run = self._work.connection.execute
        run(delete(tables.vdiff_reports).where(tables.vdiff_reports.c.vdiff_id == vdiff_id))
        run(delete(tables.vdiffs).where(tables.vdiffs.c.id == vdiff_id))

    def _replace_reports(self, verification: Verification) -> None:
        table = tables.vdiff_reports
        self._work.connection.execute(delete(table).where(table.c.vdiff_id == verification.verify_id))
        for found in verification.tables:
            rows: dict[str, list[dict[str, object]]] = {}
            for difference in found.differences:
                rows.setdefault(difference.kind, []).append(_shown(difference))
            self._work.add(
                table,
                {
                    "id": new_id(),
                    "vdiff_id": verification.verify_id,
                    "table_name": found.table,
                    "shard": ",".join(sorted({difference.shard for difference in found.differences})),
                    "state": found.state,
                    "rows_compared": found.rows_compared,
                    "rows_total": max(found.rows_total, found.rows_compared),
                    "mismatched_rows_count": found.mismatched,
                    "extra_source_rows_count": found.extra_source,
                    "extra_target_rows_count": found.extra_target,
                    "wrong_shard_rows_count": found.wrong_shard,
                    "mismatched_rows": rows.get("mismatched", []) + rows.get("wrong_shard", []),
                    "extra_source_rows": rows.get("extra_source", []),
                    "extra_target_rows": rows.get("extra_target", []),
                    "created_at": self._work.now,
                    "updated_at": self._work.now,
                },
            )

    # reading, always for several workflows at once

    def tables_of(self, workflow_ids: Sequence[str]) -> tuple[WorkflowTable, ...]:
        """Tables by workflow and name."""
        table = tables.workflow_tables
        query = (
            select(table)
            .where(table.c.workflow_id.in_(workflow_ids))
            .order_by(table.c.workflow_id, table.c.name)
        )
        return self._work.all(query, WorkflowTable)

    def streams_of(self, workflow_ids: Sequence[str]) -> tuple[Stream, ...]:
        """Streams by workflow, direction and shards."""
        table = tables.workflow_streams
        query = (
            select(table)
            .where(table.c.workflow_id.in_(workflow_ids))
            .order_by(table.c.workflow_id, table.c.direction, table.c.source_shard, table.c.target_shard)
        )
        return self._work.all(query, Stream)

    def logs_of(self, stream_ids: Sequence[str]) -> tuple[StreamLog, ...]:
        """The history of streams, newest first."""
        table = tables.stream_logs
        query = (
            select(table)
            .where(table.c.stream_id.in_(stream_ids))
            .order_by(table.c.stream_id, table.c.created_at.desc(), table.c.id)
        )
        return self._work.all(query, StreamLog)

    def vdiffs_of(self, workflow_id: str) -> tuple[VDiff, ...]:
        """All verifications of a workflow, newest first."""
        table = tables.vdiffs
        query = select(table).where(table.c.workflow_id == workflow_id)
        return self._work.all(query.order_by(table.c.created_at.desc(), table.c.id.desc()), VDiff)

    def newest_vdiffs(self, workflow_ids: Sequence[str]) -> Mapping[str, VDiff]:
        """Each workflow's newest verification; workflows without one are left out."""
        table = tables.vdiffs
        query = (
            select(table)
            .where(table.c.workflow_id.in_(workflow_ids))
            .order_by(table.c.workflow_id, table.c.created_at, table.c.id)
        )
        return {vdiff.workflow_id: vdiff for vdiff in self._work.all(query, VDiff)}

    def reports_of(self, vdiff_ids: Iterable[str]) -> tuple[VDiffReport, ...]:
        """Reports by verification and table."""
        table = tables.vdiff_reports
        query = (
            select(table)
            .where(table.c.vdiff_id.in_(list(vdiff_ids)))
            .order_by(table.c.vdiff_id, table.c.table_name, table.c.shard)
        )
        return self._work.all(query, VDiffReport)


def _round(one: VerificationRound) -> dict[str, object]:
    return {
        "number": one.number,
        "begun_at": one.begun_at,
        "positions": dict(one.positions),
        "rows_compared": one.rows_compared,
        "note": one.note,
    }


def _shown(difference: RowDifference) -> dict[str, object]:
    shown = asdict(difference)
    shown["key"] = dict(difference.key)
    return shown
