"""One line of what was measured, and which lines grew by more than what they are about. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

#: A figure that grew by so much more than the fleet did is told.
TOLERANCE = 1.5


@dataclass(frozen=True, slots=True)
class Row:
    """A figure.

    :param store: ``sqlite`` or ``postgresql``; empty: no store has a part in it.
    :param branches: how many there were; ``shards``: of the wide keyspaces beside them.
    :param total: whether it is about all of them, so that it may grow as they do; otherwise about one.
    """

    name: str
    unit: str
    value: float
    store: str
    branches: int
    shards: int
    total: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Growth:
    """A figure of a small and of the large fleet.

    :param factor: how many times as much; ``allowed``: how many times as large what it is about is.
    """

    small: Row
    large: Row
    factor: float
    allowed: float

    @property
    def steeper(self) -> bool:
        """Whether it grows by more than what it is about."""
        return self.factor > self.allowed * TOLERANCE


def growths(rows: Sequence[Row]) -> list[Growth]:
    """Each figure that was taken of two fleets, the smallest and the largest.

    >>> few, many = Row("a", "s", 1.0, "", 10, 1, True), Row("a", "s", 40.0, "", 100, 1, True)
    >>> [(one.factor, one.allowed, one.steeper) for one in growths([few, many])]
    [(40.0, 10.0, True)]
    """
    found: list[Growth] = []
    for name, store in dict.fromkeys((row.name, row.store) for row in rows):
        same = sorted(
            (row for row in rows if (row.name, row.store) == (name, store)), key=lambda row: row.branches
        )
        small, large = same[0], same[-1]
        if small.branches < large.branches and small.value > 0:
            allowed = large.branches / max(1, small.branches) if large.total else 1.0
            found.append(Growth(small, large, large.value / small.value, allowed))
    return found


def as_json(rows: Sequence[Row], machine: str, command: str) -> str:
    """Everything, for programs."""
    return (
        json.dumps({"machine": machine, "command": command, "rows": [asdict(row) for row in rows]}, indent=1)
        + "\n"
    )


def number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def as_text(rows: Sequence[Row]) -> str:
    """A table: a line a figure, a column a fleet."""
    sizes = sorted({row.branches for row in rows})
    lines = [f"{'figure':46} {'unit':12} {'store':10} " + " ".join(f"{size:>11,}" for size in sizes)]
    for name, unit, store in dict.fromkeys((row.name, row.unit, row.store) for row in rows):
        cells = {row.branches: number(row.value) for row in rows if (row.name, row.store) == (name, store)}
        lines.append(
            f"{name:46} {unit:12} {store:10} " + " ".join(f"{cells.get(size, '-'):>11}" for size in sizes)
        )
    for growth in growths(rows):
        if growth.steeper:
            lines.append(
                f"more than linear: {growth.large.name} ({growth.large.store}), "
                f"{number(growth.factor)} times as much for {number(growth.allowed)} times as many"
            )
    return "\n".join(lines)
