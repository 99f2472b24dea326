"""A workflow as a picture: state, a bar for each table, rate, lag, what the streams say."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_COLOURS = {"error": "bold red", "stopped": "bold yellow", "completed": "bold green", "cancelled": "dim"}


@dataclass(slots=True)
class Rate:
    """Rows copied a second, from how the count grows between looks."""

    rows: int = 0
    at: float = field(default_factory=time.monotonic)
    value: float = 0.0

    def see(self, rows: int) -> float:
        """Take a new count; the newest rate, refreshed about once a second."""
        now = time.monotonic()
        if now - self.at >= 1.0:
            self.value = max(0.0, (rows - self.rows) / (now - self.at))
            self.rows, self.at = rows, now
        return self.value


def rows_copied(workflow: dict[str, Any]) -> int:
    """Rows of all tables so far."""
    return sum(int(table["rows_copied"]) for table in workflow.get("tables") or ())


def draw(workflow: dict[str, Any], rate: float) -> RenderableType:
    """The workflow as the API tells it, as a picture."""
    state = str(workflow["state"])
    table = Table.grid(padding=(0, 2))
    table.add_row("workflow", Text(state, _COLOURS.get(state, "bold cyan")), "", "")
    left = 0
    for moved in workflow.get("tables") or ():
        total = max(int(moved["rows_total"]), 1)
        done = min(int(moved["rows_copied"]), total)
        left += total - done
        table.add_row(
            str(moved["name"]),
            ProgressBar(total=total, completed=done, width=40),
            f"{moved['rows_percentage']} %",
            f"{moved['rows_copied']:,} of {moved['rows_total']:,} rows",
        )
    if rate >= 1 and state == "copying":
        table.add_row("rate", f"{rate:,.0f} rows/s", "", f"about {left / rate:,.0f} s left")
    for stream in workflow.get("streams") or ():
        name = f"{stream['source_shard']} → {stream['target_shard']}"
        told = str(stream.get("info") or stream["state"])
        throttled = stream.get("component_throttled")
        table.add_row(name, Text(told, "dim"), "", Text(f"waits: {throttled}" if throttled else "", "yellow"))
    parts: list[RenderableType] = [table]
    if workflow.get("vdiff"):
        parts.append(_verification(workflow["vdiff"]))
    if workflow.get("workflow_errors"):
        parts.append(Text(str(workflow["workflow_errors"]), "red"))
    return Group(*parts)


def _verification(vdiff: dict[str, Any]) -> RenderableType:
    """A verification: a bar for each table while it lasts, then what it said and the rows that differ."""
    table = Table.grid(padding=(0, 2))
    under_way = vdiff["state"] in {"pending", "started"}
    if under_way:
        left = f"about {vdiff['eta_seconds']:,} s left" if vdiff["rows_per_second"] else ""
        table.add_row(
            "verifying",
            ProgressBar(total=100, completed=int(vdiff["progress_percentage"]), width=40),
            f"{vdiff['progress_percentage']} %",
            f"{vdiff['rows_per_second']:,} rows/s {left}".rstrip(),
        )
    else:
        text, colour = _verdict(vdiff)
        table.add_row("verified", Text(text, colour), "", f"{vdiff['rows_compared']:,} rows")
    parts: list[RenderableType] = [table]
    for report in vdiff.get("table_reports") or ():
        total, done = max(int(report["rows_total"]), 1), int(report["rows_compared"])
        if under_way:
            bar = ProgressBar(total=total, completed=min(done, total), width=40)
            table.add_row(
                f"  {report['table_name']}",
                bar,
                f"{report['rows_percentage']} %",
                f"{done:,} of {total:,} rows",
            )
        parts += _differences(report)
    parts += [Text(f"round {one['number']}: {one['note']}", "dim") for one in vdiff["rounds"] if one["note"]]
    return Group(*parts)


def _verdict(vdiff: dict[str, Any]) -> tuple[str, str]:
    if vdiff["state"] == "error":
        return f"could not be verified: {vdiff['error']}", "bold red"
    return ("differs", "bold red") if vdiff["has_mismatch"] else ("equal", "bold green")


def _differences(report: dict[str, Any]) -> list[RenderableType]:
    """The rows of one table that differ, as far as they are told, and how many there are."""
    kinds = {
        "mismatched": ("differ", report["mismatched_rows_count"]),
        "extra_source": ("are missing on the target", report["extra_source_rows_count"]),
        "extra_target": ("exist only on the target", report["extra_target_rows_count"]),
        "wrong_shard": ("lie on a wrong shard", report["wrong_shard_rows_count"]),
    }
    found: list[RenderableType] = []
    samples = [
        *report["mismatched_rows"],
        *report["extra_source_rows"],
        *report["extra_target_rows"],
    ]
    for kind, (what, count) in kinds.items():
        if not count:
            continue
        found.append(Text(f"{report['table_name']}: {count:,} rows {what}", "red"))
        for row in samples:
            if row["kind"] == kind:
                found.append(Text(f"    {_where(row)}", "dim"))
    return found


def _where(row: dict[str, Any]) -> str:
    key = ", ".join(f"{column}={value}" for column, value in row["key"].items())
    text = f"{key} on shard {row['shard']}"
    owner = row.get("owner")
    if owner and owner != row["shard"]:
        text += f", belongs on {owner}"
    if row.get("columns"):
        text += f": {', '.join(row['columns'])}"
    return text
