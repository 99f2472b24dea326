"""VDiff's summaries as verifications: pure.

Invariant: a verification is completed only where Vitess says so for the whole and for every table that moves
on every shard; a summary that names fewer tables, or no shard, says nothing yet. NULLs are printed as empty
texts by Vitess, so a sample may show two rows alike that are not; the counts are right.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from homeworld.engines.vitess.answers import list_of, number_of, object_of, text_of
from homeworld.model.movers import RowDifference, TableVerification, Verification

_NAMESPACE = uuid.UUID("5e1bb7c1-6f0c-4c53-9d4e-3c0d3a6f8b57")
_TIME = "%Y-%m-%d %H:%M:%S"
# A VDiff that was stopped is to be resumed by whoever still asks for it.
_STATES: Mapping[str, str] = {
    "pending": "pending",
    "started": "started",
    "stopped": "pending",
    "completed": "completed",
    "error": "error",
}


def uuid_of(verify_id: str) -> str:
    """The id under which Vitess knows a verification of ours: always the same for the same one."""
    try:
        return str(uuid.UUID(verify_id))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, verify_id))


@dataclass(frozen=True, slots=True)
class Shown:
    """A verification, and whether Vitess has stopped working on it before its end."""

    verification: Verification
    stopped: bool


def shown(answer: object, verify_id: str, tables: Sequence[str], now: float) -> Shown:
    """What ``VDiff … show <uuid> --verbose --format json`` printed.

    :param tables: those that move; all have to be compared.
    :param now: unix seconds.
    :raises UnavailableError: another form.
    """
    summary = object_of(answer)
    told = text_of(summary.get("State")).lower()
    summaries, reports = object_of(summary.get("TableSummary")), object_of(summary.get("Reports"))
    found = tuple(
        _table(table, object_of(summaries.get(table)), object_of(reports.get(table))) for table in tables
    )
    state = _STATES.get(told, "pending")
    if state == "completed" and any(table.state != "completed" for table in found):
        state = "started"  # not every table, or not on every shard
    errors = object_of(summary.get("Errors"))
    error = "; ".join(f"shard {shard}: {text_of(errors[shard])}" for shard in sorted(errors))
    if state == "completed" and summary.get("HasMismatch") and not any(table.different for table in found):
        state, error = "error", "Vitess says that rows differ, and not which"
    compared = number_of(summary.get("RowsCompared"))
    progress = object_of(summary.get("Progress"))
    begun = _seconds(text_of(summary.get("StartedAt")))
    return Shown(
        Verification(
            verify_id=verify_id,
            state=state,
            rows_compared=compared,
            rows_total=compared if state == "completed" else _total(compared, progress.get("Percentage")),
            eta_seconds=max(0.0, (_seconds(text_of(progress.get("ETA"))) or now) - now),
            tables=found,
            error=(error or "Vitess gave it up without a reason") if state == "error" else "",
            rows_per_second=compared / (now - begun) if begun is not None and now > begun else 0.0,
        ),
        stopped=told == "stopped",
    )


def is_known(answer: object, wanted: str) -> bool:
    """Whether a VDiff of that uuid is among those that ``VDiff … show all --format json`` printed."""
    return any(text_of(object_of(one).get("UUID")) == wanted for one in list_of(answer))


def _table(table: str, summary: Mapping[str, object], reports: Mapping[str, object]) -> TableVerification:
    differences = [
        difference
        for shard in sorted(reports)
        for difference in _differences(shard, object_of(reports[shard]))
    ]
    compared = number_of(summary.get("RowsCompared"))
    state = _STATES.get(text_of(summary.get("State")).lower(), "pending")
    return TableVerification(
        table=table,
        rows_compared=compared,
        mismatched=number_of(summary.get("MismatchedRows")),
        extra_source=number_of(summary.get("ExtraRowsSource")),
        extra_target=number_of(summary.get("ExtraRowsTarget")),
        wrong_shard=0,
        differences=tuple(differences),
        rows_total=compared if state == "completed" else 0,
        state=state,
    )


def _differences(shard: str, report: Mapping[str, object]) -> list[RowDifference]:
    found: list[RowDifference] = []
    for one in list_of(report.get("MismatchedRowsSample")):
        source, target = _row(object_of(one).get("Source")), _row(object_of(one).get("Target"))
        columns = tuple(sorted(name for name in source if source[name] != target.get(name)))
        found.append(RowDifference("mismatched", shard, source, source, target, columns, owner=shard))
    for one in list_of(report.get("ExtraRowsSourceSample")):
        row = _row(one)
        found.append(RowDifference("extra_source", shard, row, row, None, owner=shard))
    for one in list_of(report.get("ExtraRowsTargetSample")):
        row = _row(one)
        found.append(RowDifference("extra_target", shard, row, None, row, owner=shard))
    return found


def _row(told: object) -> dict[str, str]:
    """A sample's row; as its key is not told apart, it is its own."""
    row = object_of(object_of(told).get("Row"))
    return {name.strip("`"): text_of(value) for name, value in row.items()}


def _total(compared: int, percentage: object) -> int:
    if not isinstance(percentage, int | float) or percentage <= 0:
        return 0
    return max(compared, round(compared * 100 / percentage))


def _seconds(time: str) -> float | None:
    try:
        return datetime.strptime(time, _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
