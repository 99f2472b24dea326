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
        table.add_row(name, Text(told, "dim"), "", f"throttled by {throttled}" if throttled else "")
    vdiff = workflow.get("vdiff")
    if vdiff and state == "verifying_data":
        percent = int(vdiff["progress_percentage"])
        bar = ProgressBar(total=100, completed=percent, width=40)
        table.add_row("verified", bar, f"{percent} %", f"about {vdiff['eta_seconds']} s left")
    parts: list[RenderableType] = [table]
    if workflow.get("workflow_errors"):
        parts.append(Text(str(workflow["workflow_errors"]), "red"))
    return Group(*parts)
