"""``python -m tests.chaos``: many runs of the fault matrix in a row; see ``docs/decisions/chaos.md``."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

from homeworld.model.topology import Flavor
from tests.chaos import cells, faults
from tests.chaos.report import matrix, repeat
from tests.chaos.run import Outcome, Run
from tests.chaos.world import Layout, World


def arguments() -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None, help="without one: a new one, which is printed")
    parser.add_argument("--flavor", type=Flavor, choices=list(Flavor), default=None, help="default: both")
    parser.add_argument("--layout", type=Layout, choices=list(Layout), default=None, help="default: both")
    parser.add_argument(
        "--cell", action="append", default=[], help="plan/step/moment/fault/seed, again and again"
    )
    parser.add_argument("--faults", default="", help="only these, with commas")
    parser.add_argument("--plans", default="", help="only these, with commas")
    parser.add_argument(
        "--jobs", type=int, default=2, help="worlds that run beside each other, each a process of its own"
    )
    parser.add_argument("--part", action="store_true", help="what a job is: no matrix at the end")
    parser.add_argument("--json", type=Path, default=Path("chaos-report.json"))
    parser.add_argument("--keep", action="store_true", help="keep the worker's log of runs with findings")
    return parser.parse_args()


def chosen(asked: argparse.Namespace, layout: Layout, runs: int, seed: int) -> list[cells.Cell]:
    """The cells in their order."""
    if asked.cell:
        return [cells.Cell.parse(text) for text in asked.cell]
    names = [name for name in asked.faults.split(",") if name] or faults.possible(layout)
    plans = [name for name in asked.plans.split(",") if name]
    found = cells.choose(runs * (1 if not plans else 12), seed, names, faults.WEIGHTS)
    return [cell for cell in found if not plans or cell.plan in plans][:runs]


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(1)


def main() -> int:
    """Run; 0 where nothing was found."""
    # So that what was mounted and started is taken away, whoever ends this.
    signal.signal(signal.SIGTERM, _end)
    asked = arguments()
    seed = asked.seed if asked.seed is not None else int(time.time()) % 1_000_000
    flavors = [asked.flavor] if asked.flavor else list(Flavor)
    layouts = [asked.layout] if asked.layout else list(Layout)
    count = len(asked.cell) or asked.runs
    print(f"{count} runs, seed {seed}, {', '.join(flavors)}, {', '.join(layouts)}", flush=True)
    shares = [
        (flavor, layout, todo if asked.cell else todo[number :: len(flavors)])
        for at, layout in enumerate(layouts)
        for todo in [chosen(asked, layout, len(range(at, asked.runs, len(layouts))), seed)]
        # Each flavour has every n-th cell, so that both see all steps and all faults.
        for number, flavor in enumerate(flavors)
        if asked.cell or todo[number :: len(flavors)]
    ]
    outcomes: list[Outcome] = []
    if asked.jobs > 1 and not asked.part:
        outcomes = beside_each_other(shares, asked, seed)
    else:
        for flavor, layout, mine in shares:
            outcomes += walk(flavor, layout, mine, asked, seed, outcomes)
    if asked.part:
        return 1 if any(outcome.findings for outcome in outcomes) else 0
    print(matrix(outcomes))
    failed = [outcome for outcome in outcomes if outcome.findings]
    for outcome in failed:
        print(f"\n{outcome.cell} on {outcome.flavor}: {outcome.findings[0][:300]}\n  {repeat(outcome)}")
    print(f"\n{len(outcomes)} runs, {len(failed)} with findings; seed {seed}")
    return 1 if failed else 0


Share = tuple[Flavor, Layout, list[cells.Cell]]


def beside_each_other(shares: list[Share], asked: argparse.Namespace, seed: int) -> list[Outcome]:
    """Run each share in a process of its own, ``jobs`` at a time; what came of all.

    :raises RuntimeError: a process ended without having run all of its share.
    """
    folder = Path(tempfile.mkdtemp(prefix="chaos-parts-"))
    running: list[subprocess.Popen[bytes]] = []

    def run(number: int, share: Share) -> list[Outcome]:
        flavor, layout, todo = share
        report = folder / f"{number}.json"
        words = [sys.executable, "-m", "tests.chaos", "--part", "--jobs", "1", "--json", str(report)]
        words += ["--flavor", flavor.value, "--layout", layout.value, "--seed", str(seed)]
        words += ["--keep"] if asked.keep else []
        words += [word for cell in todo for word in ("--cell", str(cell))]
        process = subprocess.Popen(words)
        running.append(process)
        ended = process.wait()
        found = [Outcome(**one) for one in json.loads(report.read_text())["runs"]] if report.exists() else []
        if len(found) != len(todo):
            told = f"{flavor}, {layout}: {len(found)} of {len(todo)} runs, then the process ended ({ended})"
            raise RuntimeError(told)
        return found

    # With more jobs than there are kinds of worlds some kinds have several.
    pieces = -(-asked.jobs // len(shares))
    shares = [
        (flavor, layout, todo[number::pieces])
        for flavor, layout, todo in shares
        for number in range(pieces)
        if todo[number::pieces]
    ]
    with ThreadPoolExecutor(asked.jobs) as pool:
        try:
            parts = list(pool.map(run, range(len(shares)), shares))
        finally:
            for process in running:
                process.terminate()
    outcomes = [outcome for part in parts for outcome in part]
    write(asked.json, seed, outcomes)
    return outcomes


def walk(
    flavor: Flavor,
    layout: Layout,
    todo: list[cells.Cell],
    asked: argparse.Namespace,
    seed: int,
    before: list[Outcome],
) -> list[Outcome]:
    """Run cells in one world, which is made anew after a finding that it did not recover from."""
    outcomes: list[Outcome] = []
    world: World | None = None
    try:
        for number, cell in enumerate(todo, 1):
            if world is None:
                memory = Path("/dev/shm")
                root = Path(tempfile.mkdtemp(prefix="chaos-", dir=memory if memory.is_dir() else None))
                world = World(flavor, root, layout)
                world.make()
            outcome = Run(world, cell).run()
            outcomes.append(outcome)
            write(asked.json, seed, [*before, *outcomes])
            told = f"{number}/{len(todo)} {flavor} {outcome.cell}: {outcome.how}, {outcome.seconds} s"
            print(told + "".join(f"\n    {text[:600]}" for text in outcome.findings[:6]), flush=True)
            if outcome.findings:
                if asked.keep:
                    name = f"chaos-{flavor}-{os.getpid()}-{number}.log"
                    Path(tempfile.gettempdir(), name).write_bytes(world.log.read_bytes())
                    print(
                        f"    log: {Path(tempfile.gettempdir(), name)}\n    " + "\n    ".join(outcome.story)
                    )
                try:
                    world.begin_anew()
                except Exception as error:  # noqa: BLE001 - then everything is made anew
                    print(f"    a new world is made: {error!r}", flush=True)
                    world.close()
                    world = None
    finally:
        if world is not None:
            world.close()
    return outcomes


def write(path: Path, seed: int, outcomes: list[Outcome]) -> None:
    """The report."""
    path.write_text(json.dumps({"seed": seed, "runs": [one.as_json() for one in outcomes]}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
