"""How large each figure is: the sizes of a full run and of a quick one."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sizes:
    """:param runs: pairs of runs of the figures that have a peer (``--runs`` overrides).
    :param copy_rows: rows of the table that is copied and verified.
    :param backlog_events: row events of a catch-up's backlog, each a transaction of its own.
    :param hold_switches: how often primaries are switched, and as often reversed.
    :param hold_full_switches: the same under clients that never pause.
    :param gateway_seconds: the length of one measured stretch of point selects.
    :param memory_rows: the smaller and the larger table.
    :param api_branches: the smaller and the larger number of branches and workflows.
    :param branch_rounds: how many branches are made for each number of replicas.
    :param engine_rows: rows of the table that both engines move.
    :param engine_switches: how often each switches primaries, and as often back.
    """

    runs: int
    copy_rows: int
    backlog_rows: int
    backlog_events: int
    hold_rows: int
    hold_switches: int
    hold_full_switches: int
    gateway_seconds: float
    memory_rows: tuple[int, int]
    api_branches: tuple[int, int]
    api_reads: int
    branch_rounds: int
    engine_rows: int
    engine_switches: int


FULL = Sizes(
    runs=3,
    copy_rows=1_000_000,
    backlog_rows=200_000,
    backlog_events=100_000,
    hold_rows=100_000,
    hold_switches=20,
    hold_full_switches=50,
    gateway_seconds=6.0,
    memory_rows=(1_000_000, 10_000_000),
    api_branches=(10, 10_000),
    api_reads=400,
    branch_rounds=5,
    engine_rows=300_000,
    engine_switches=5,
)
QUICK = Sizes(
    runs=1,
    copy_rows=200_000,
    backlog_rows=50_000,
    backlog_events=20_000,
    hold_rows=20_000,
    hold_switches=5,
    hold_full_switches=5,
    gateway_seconds=3.0,
    memory_rows=(100_000, 1_000_000),
    api_branches=(10, 10_000),
    api_reads=100,
    branch_rounds=3,
    engine_rows=20_000,
    engine_switches=2,
)
