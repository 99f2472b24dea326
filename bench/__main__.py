"""``python -m bench``: take the figures, show them, write them.

A figure that fails does not stop the others: it is a line that is not met, with the reason, and the exit code
says so. A target that is not reached is a result and no failure.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from rich.console import Console
from tests.support.mysqld import prepared

from bench import goals, report
from bench.context import Context, machine
from bench.figures import api_reads, branches, catching_up, copying, engines, gateway, holding, memory
from bench.harness import Figure, Goal, not_taken
from bench.sizes import FULL, QUICK
from homeworld.model.topology import Flavor

Taker = Callable[[Context], list[Figure]]
#: Name for ``--only``, what takes it, and the lines it gives: (name, unit, goal).
FAMILIES: dict[str, tuple[Taker, tuple[tuple[str, str, Goal], ...]]] = {
    "copy": (copying.take, (("copy", "rows/s", goals.COPY), ("verify", "rows/s", goals.VERIFY))),
    "catch-up": (catching_up.take, (("catch-up", "row events/s", goals.CATCH_UP),)),
    "hold": (holding.take, (("hold", "ms, p99 of the longest stall", goals.HOLD),)),
    "hold-full": (holding.take_full, (("hold-full", "ms, p99 of the longest stall", goals.HOLD),)),
    "gateway": (
        gateway.take,
        tuple((name, "µs CPU a query", goals.GATEWAY) for name in gateway.MODES),
    ),
    "memory": (memory.take, (("memory", "MiB peak RSS", goals.MEMORY),)),
    "api": (api_reads.take, (("api-reads", "ms, p50", goals.API_READS),)),
    "api-lists": (api_reads.take_lists, (("api-lists", "ms, p50", goals.API_READS),)),
    "engines": (engines.take, engines.LINES),
    "branch": (
        branches.take,
        tuple((f"branch-ready-{replicas}", "s", goals.BRANCH_READY) for replicas in branches.REPLICAS),
    ),
}
#: Other names that people may use for ``--only``.
ALIASES = {"verify": "copy"}


def chosen(only: str) -> list[str]:
    """The families that ``--only`` names, in the order of the report.

    :raises ValueError: a name is unknown.
    """
    if not only:
        return list(FAMILIES)
    wanted = [ALIASES.get(name.strip(), name.strip()) for name in only.split(",")]
    for name in wanted:
        if name not in FAMILIES:
            raise ValueError(f"no figure {name!r}; there are {', '.join([*FAMILIES, *ALIASES])}")
    return [name for name in FAMILIES if name in wanted]


def take(name: str, context: Context) -> tuple[list[Figure], bool]:
    """One family's lines, and whether they could be taken."""
    taker, lines = FAMILIES[name]
    try:
        return taker(context), True
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the other figures are still to be taken
        traceback.print_exc()
        why = f"could not be taken: {type(error).__name__}: {error}"
        return [not_taken(line, unit, goal, why) for line, unit, goal in lines], False


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser("python -m bench", description="The figures, each against its peer.")
    parser.add_argument("--json", type=Path, help="write the figures as JSON rows to this file")
    parser.add_argument("--markdown", type=Path, help="write the figures as a page to this file")
    parser.add_argument("--only", default="", help=f"some of: {', '.join(FAMILIES)}")
    parser.add_argument("--runs", type=int, help="pairs of runs of each figure that has a peer")
    parser.add_argument("--quick", action="store_true", help="small sizes: shows that it runs, not how fast")
    parser.add_argument("--flavor", choices=[flavor.value for flavor in Flavor], default="mariadb")
    parser.add_argument("--peer-only", action="store_true", help="take the peers' side only")
    options = parser.parse_args(given)
    try:
        chosen(options.only)
    except ValueError as error:
        parser.error(str(error))
    if options.runs is not None and options.runs < 1:
        parser.error("--runs must be at least 1")
    return options


def told(options: argparse.Namespace) -> list[str]:
    """The options that decide what is measured, as they would be given; not where it is written to."""
    flags = [f"--{name}" for name in ("quick", "peer-only") if getattr(options, name.replace("-", "_"))]
    values = {"--only": options.only, "--runs": options.runs, "--flavor": options.flavor}
    return [*flags, *(f"{name} {value}" for name, value in values.items() if value)]


def main(given: Sequence[str]) -> int:
    """Run; 0 where every figure could be taken, whatever it says."""
    options = arguments(given)
    # An ordinary exit, so that every ``with`` ends what it started.
    signal.signal(signal.SIGTERM, _leave)
    console = Console(stderr=True)
    flavor = Flavor(options.flavor)
    sizes = QUICK if options.quick else FULL
    program, _ = prepared(flavor)
    context = Context(
        flavor, sizes, options.runs or sizes.runs, options.peer_only,
        lambda line: console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {line}", highlight=False),
    )  # fmt: skip
    begun = time.monotonic()
    busy = os.getloadavg()[0]
    figures: list[Figure] = []
    whole = True
    for name in chosen(options.only):
        lines, taken = take(name, context)
        figures += lines
        whole = whole and taken
    seconds = time.monotonic() - begun
    server = f"{flavor.value} {program.version_text}"
    conditions = [machine(), f"{server}, sync_binlog=1, innodb_flush_log_at_trx_commit=1"]
    conditions += [
        f"{time.strftime('%Y-%m-%d')}, {seconds:.0f} s in all, medians of {context.runs} pairs of runs",
        f"load average of the machine before the run: {busy:.1f} (others at work make figures doubtful)",
    ]
    report.show(figures, f"{server}, {context.runs} pairs of runs, {seconds:.0f} s")
    if options.json is not None:
        options.json.write_text(report.as_json(figures))
    if options.markdown is not None:
        command = " ".join(["python -m bench", *told(options)])
        options.markdown.write_text(report.as_markdown(figures, command, conditions))
    return 0 if whole else 1


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
