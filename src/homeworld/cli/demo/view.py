"""What a person sees while the demo runs: steps, bars, rate, lag, state, and what the application feels.

On a terminal this is one live picture; elsewhere each finished step is one line.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from homeworld.cli.workflow_view import draw


@dataclass(slots=True)
class StepResult:
    """One step of the walk, measured. Times in seconds, the stall in milliseconds."""

    name: str
    state: str = ""
    seconds: float = 0.0
    rows: int = 0
    rows_per_second: float = 0.0
    rows_verified: int = 0
    longest_stall_ms: float = 0.0
    statements: int = 0
    note: str = ""


@dataclass(slots=True)
class Scene:
    """What the picture is drawn from; the walk fills it, the view only reads."""

    title: str = "homeworld demo"
    steps: list[StepResult] = field(default_factory=list[StepResult])
    current: str = ""
    since: float = field(default_factory=time.monotonic)
    workflow: dict[str, Any] = field(default_factory=dict[str, Any])
    rate: float = 0.0
    statements: int = 0
    statements_per_second: float = 0.0
    errors: int = 0
    clients: int = 0


class View:
    """Draws a :class:`Scene`."""

    def __init__(self, scene: Scene, console: Console | None = None) -> None:
        self.scene = scene
        self.console = console or Console()
        self._live = (
            Live(get_renderable=self._draw, console=self.console, refresh_per_second=8, transient=True)
            if self.console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def finished(self, step: StepResult) -> None:
        """A step is done."""
        self.scene.steps.append(step)
        if self._live is None:
            facts = [f"{step.seconds:6.2f} s"]
            if step.rows:
                facts.append(f"{step.rows:,} rows, {step.rows_per_second:,.0f} rows/s")
            if step.rows_verified:
                facts.append(f"{step.rows_verified:,} rows verified")
            if step.statements:
                facts.append(f"{step.statements:,} statements, longest {step.longest_stall_ms:.0f} ms")
            self.console.print(f"{step.name:<32} {'; '.join(facts)}", highlight=False)

    def _draw(self) -> RenderableType:
        scene = self.scene
        steps = Table.grid(padding=(0, 2))
        for step in scene.steps:
            stall = f"longest stall {step.longest_stall_ms:.0f} ms" if step.statements else ""
            rows = f"{step.rows:,} rows" if step.rows else ""
            steps.add_row(Text("✓", "green"), step.name, f"{step.seconds:.2f} s", rows, Text(stall, "dim"))
        elapsed = time.monotonic() - scene.since
        steps.add_row(Text("▸", "yellow"), Text(scene.current, "bold"), f"{elapsed:.1f} s", "", "")
        parts: list[RenderableType] = [steps]
        if scene.workflow:
            parts += [Text(""), draw(scene.workflow, scene.rate)]
        if scene.clients:
            parts += [Text(""), self._application()]
        return Panel(Group(*parts), title=scene.title, border_style="blue")

    def _application(self) -> RenderableType:
        scene = self.scene
        errors = Text(f"{scene.errors} errors", "green" if not scene.errors else "bold red")
        line = Table.grid(padding=(0, 2))
        line.add_row(
            "application",
            f"{scene.clients} connections",
            f"{scene.statements_per_second:,.0f} statements/s",
            f"{scene.statements:,} in all",
            errors,
        )
        return line


def final_table(steps: list[StepResult]) -> Table:
    """The closing table: each step with what it took and what the application felt."""
    table = Table(
        title="What happened",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1),
        collapse_padding=True,
    )
    table.add_column("step", no_wrap=True)
    for name in ("seconds", "rows", "rows/s", "verified", "queries", "stall ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        table.add_row(
            step.name,
            f"{step.seconds:.2f}",
            f"{step.rows:,}" if step.rows else "",
            f"{step.rows_per_second:,.0f}" if step.rows_per_second else "",
            f"{step.rows_verified:,}" if step.rows_verified else "",
            f"{step.statements:,}" if step.statements else "",
            f"{step.longest_stall_ms:.0f}" if step.statements else "",
        )
    return table
