"""How a figure is taken: runs of ours and of the peer in turn, medians, a ratio, and what was not comparable.

Invariants: both sides run in the same minutes on the same machine with the same durability settings and the
same number of threads; a figure without a peer says so; nothing is left out because it looks bad, and a
figure that could not be taken is a line of the report that is not met.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure is to reach, and what would be beyond it: a ratio, or a value where there is no peer."""

    target: float
    beyond: float
    higher_is_better: bool

    def met_by(self, value: float) -> bool:
        """Whether ``value`` reaches the target."""
        return value >= self.target if self.higher_is_better else value <= self.target

    def surpassed_by(self, value: float) -> bool:
        """Whether ``value`` reaches what is beyond."""
        return value >= self.beyond if self.higher_is_better else value <= self.beyond


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    :param ours: the median of our runs; None where it was not taken.
    :param peer: the median of the peer's runs; None where there is no peer or it was not taken.
    :param ratio: ours / peer, the median over the pairs of runs; None where one of them is None.
    :param met: the ratio (or ours, where the figure has no peer) reaches the target and nothing went wrong.
    """

    name: str
    unit: str
    ours: float | None
    peer: float | None
    peer_name: str
    ratio: float | None
    target: float
    beyond: float
    higher_is_better: bool
    met: bool
    surpassed: bool
    note: str = ""


def interleave(
    ours: Callable[[], float] | None,
    peer: Callable[[], float] | None,
    runs: int,
    before: Callable[[int], None] | None = None,
) -> tuple[list[float], list[float]]:
    """Measure in turn, ours first and peer first alternating, so that a drift of the machine hits both.

    :param ours: takes one run of ours; None: not taken. The same for ``peer``.
    :param before: called before each pair with its number from 0, not measured.
    :returns: what each side gave, a run an entry; empty for a side that is None.
    """
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(runs):
        if before is not None:
            before(number)
        sides = [(ours, mine), (peer, theirs)]
        for act, results in sides if number % 2 == 0 else reversed(sides):
            if act is not None:
                results.append(act())
    return mine, theirs


def against_peer(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: Sequence[float],
    peer_name: str,
    goal: Goal,
    *,
    note: str = "",
) -> Figure:
    """A figure from the pairs of an interleaved run. A side without values was not taken (not met)."""
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True)) if ours and peer else None
    return Figure(
        name, unit, _median(ours), _median(peer), peer_name,
        None if ratio is None else round(ratio, 3), goal.target, goal.beyond, goal.higher_is_better,
        ratio is not None and goal.met_by(ratio), ratio is not None and goal.surpassed_by(ratio), note,
    )  # fmt: skip


def alone(name: str, unit: str, value: float, goal: Goal, *, note: str = "", failed: bool = False) -> Figure:
    """A figure without a peer.

    :param failed: something went wrong beside the figure (client errors …), so that it is not met.
    """
    return Figure(
        name, unit, round(value, 2), None, "", None, goal.target, goal.beyond, goal.higher_is_better,
        goal.met_by(value) and not failed, goal.surpassed_by(value) and not failed, note,
    )  # fmt: skip


def not_taken(name: str, unit: str, goal: Goal, why: str) -> Figure:
    """A figure that could not be taken: not met, with the reason."""
    return Figure(
        name, unit, None, None, "", None, goal.target, goal.beyond, goal.higher_is_better, False, False, why
    )


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def seconds_of(act: Callable[[], object]) -> float:
    """How long ``act`` takes, in seconds."""
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def cpu_seconds(pid: int) -> float:
    """User and system time that a process and all its threads have taken so far, in seconds (Linux)."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS


def peak_rss_mib(pid: int) -> float:
    """The most memory a process has held so far, in MiB (Linux)."""
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} tells no VmHWM")
