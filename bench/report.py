"""The report: a table for people, JSON rows for programs, a page for the docs. Pure but for writing files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from bench.harness import Figure

WIDTH = 130  # of what is written to a file


def number(value: float | None) -> str:
    """A value as people read it: three or so digits that say something."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def target(figure: Figure) -> str:
    """``≥ 1 (beyond 1.3)``."""
    sign = "≥" if figure.higher_is_better else "≤"
    return f"{sign} {figure.target:g} (beyond {figure.beyond:g})"


def verdict(figure: Figure) -> str:
    """Whether it was reached, in a word."""
    if figure.surpassed:
        return "beyond"
    return "met" if figure.met else "not met"


def table(figures: Sequence[Figure], title: str) -> Table:
    """The figures as a table for a terminal."""
    made = Table(title=title, show_lines=True)
    for column in ("figure", "unit", "ours", "peer", "ratio", "target", "verdict"):
        justify = "right" if column in {"ours", "peer", "ratio"} else "left"
        made.add_column(column, justify=justify, no_wrap=column in {"figure", "verdict"})
    for figure in figures:
        peer = f"{number(figure.peer)}\n{figure.peer_name}" if figure.peer_name else "-"
        colour = "green" if figure.met else "red"
        made.add_row(
            figure.name, figure.unit, number(figure.ours), peer, number(figure.ratio), target(figure),
            f"[{colour}]{verdict(figure)}[/]",
        )  # fmt: skip
    return made


def show(figures: Sequence[Figure], title: str) -> None:
    """Print the table, and below it what belongs to each figure."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    console.print(table(figures, title))
    for figure in figures:
        if figure.note:
            console.print(f"{figure.name}: {figure.note}", markup=False, highlight=False)


def as_json(figures: Sequence[Figure]) -> str:
    """The figures as a JSON list of objects, one a figure."""
    return json.dumps([asdict(figure) for figure in figures], indent=2) + "\n"


def as_markdown(figures: Sequence[Figure], command: str, conditions: Sequence[str]) -> str:
    """The page for the docs: what was run, where, and what came out."""
    lines = [
        "# Benchmarks",
        "",
        "Generated: the figures of one run. Each is a ratio against a real peer in the same run, so that it",
        "says something on other machines too; absolute figures belong to this one.",
        "",
        "```sh",
        command,
        "```",
        "",
        *(f"* {condition}" for condition in conditions),
        "",
        "| figure | unit | ours | peer | ratio | target | |",
        "|---|---|---|---|---|---|---|",
    ]
    for figure in figures:
        peer = f"{number(figure.peer)} ({figure.peer_name})" if figure.peer_name else "-"
        lines.append(
            f"| {figure.name} | {figure.unit} | {number(figure.ours)} | {peer} | {number(figure.ratio)} |"
            f" {target(figure)} | {verdict(figure)} |"
        )
    lines += ["", "## What is measured, and what is not comparable", ""]
    lines += [f"* **{figure.name}**: {figure.note}" for figure in figures if figure.note]
    return "\n".join(lines) + "\n"
