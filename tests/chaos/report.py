"""The matrix of steps and faults as text, and the command that repeats a run. Pure."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.cells import Cell, places
from tests.chaos.run import Outcome


def repeat(outcome: Outcome) -> str:
    """What runs exactly this cell again."""
    return f"make chaos FLAVOR={outcome.flavor} LAYOUT={outcome.layout} CELL={shlex.quote(outcome.cell)}"


def matrix(outcomes: Sequence[Outcome]) -> str:
    """A line for each step, a column for each fault: runs, and ``!`` with how many of them had findings."""
    faults = sorted({Cell.parse(one.cell).fault for one in outcomes})
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0])
    for one in outcomes:
        cell = Cell.parse(one.cell)
        for key in (
            (cell.plan, cell.step, cell.fault),
            (cell.plan, cell.step, "all"),
            ("", "all", cell.fault),
        ):
            counts[key][0] += 1
            counts[key][1] += bool(one.findings)
    lines = ["", "columns: " + ", ".join(f"{number} {name}" for number, name in enumerate(faults, 1)), ""]
    head = [str(number) for number in range(1, len(faults) + 1)]
    lines.append(f"{'':48}{_cells(head)}  all")
    for place in (*((one.plan, one.step) for one in places()), ("", "all")):
        row = [_told(counts.get((*place, fault))) for fault in faults]
        lines.append(
            f"{' / '.join(filter(None, place)):48}{_cells(row)}  {_told(counts.get((*place, 'all')))}"
        )
    return "\n".join(lines)


def _told(count: list[int] | None) -> str:
    if count is None:
        return "·"
    return f"{count[0]}!{count[1]}" if count[1] else str(count[0])


def _cells(texts: Iterable[str]) -> str:
    return "".join(f"{text:>5}" for text in texts)
