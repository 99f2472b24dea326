"""How a figure is taken: runs of ours and of the peer in turn, medians, a ratio, and what was not comparable.

Invariants: both sides run in the same minutes on the same machine with the same durability settings and the
same number of threads; a figure without a peer says so; nothing is left out because it looks bad.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from dataclasses import dataclass

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report.

    :param ratio: ours against the peer, such that a larger one is better where ``higher_is_better``.
    :param target: the ratio (or value, without a peer) to reach.
    """

    name: str
    unit: str
    ours: float
    peer: float | None
    peer_name: str
    ratio: float | None
    target: float
    higher_is_better: bool
    met: bool
    note: str = ""


def interleave(
    ours: Callable[[], float], peer: Callable[[], float], runs: int
) -> tuple[list[float], list[float]]:
    """Measure in turn, ours first and peer first alternating, so that a drift of the machine hits both."""
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(runs):
        if number % 2 == 0:
            mine.append(ours())
            theirs.append(peer())
        else:
            theirs.append(peer())
            mine.append(ours())
    return mine, theirs


def against_peer(
    name: str,
    unit: str,
    ours: list[float],
    peer: list[float],
    peer_name: str,
    target: float,
    *,
    higher_is_better: bool,
    note: str = "",
) -> Figure:
    """A figure from the pairs of an interleaved run; the ratio is the median of the pairs' ratios."""
    ratio = statistics.median(mine / theirs for mine, theirs in zip(ours, peer, strict=True))
    met = ratio >= target if higher_is_better else ratio <= target
    return Figure(
        name, unit, round(statistics.median(ours), 2), round(statistics.median(peer), 2), peer_name,
        round(ratio, 3), target, higher_is_better, met, note,
    )  # fmt: skip


def alone(name: str, unit: str, value: float, target: float, *, note: str = "") -> Figure:
    """A figure without a peer, smaller is better."""
    return Figure(name, unit, round(value, 2), None, "", None, target, False, value <= target, note)


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
