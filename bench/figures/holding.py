"""Hold: how long clients wait when primaries are switched under a read-write load, to the shards and back.

Every switch and every way back is one value: the longest statement that any client had under way from the
moment the switch was asked for until its state was seen. An error that any client saw makes it not met.
"""

from __future__ import annotations

import json
import sqlite3
import statistics
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass

from bench.context import Context, vitess_note
from bench.goals import HOLD
from bench.harness import Figure, alone, percentile
from bench.installed import Installed, install
from bench.lab import BenchError, Lab
from bench.loads import stalls
from bench.loads.sysbench import command


@dataclass(frozen=True, slots=True)
class Load:
    """How many clients there are, and how long each pauses between two transactions."""

    clients: int
    think_ms: int


USUAL = Load(clients=8, think_ms=10)
# As sysbench's own oltp_read_write runs: no core is idle, and waiting for one is part of a stall.
FULL = Load(clients=16, think_ms=0)
# How long the application runs in each state before the next switch; also the stretch that is compared.
DWELL_SECONDS = 0.7
LAST_SECONDS = 3.0
# What clients wait for, in the order of the plan.
HELD = (
    "hold", "fence", "look again", "drain", "raise ids", "read positions", "still held", "commit", "publish",
    "sweep", "release",
)  # fmt: skip
_OWN_FAULT = "--mysql-ignore-errors=1213,1020,1205"


def take(context: Context) -> list[Figure]:
    """The figure ``hold``."""
    return _take(context, "hold", USUAL, context.sizes.hold_switches)


def take_full(context: Context) -> list[Figure]:
    """The figure ``hold-full``."""
    return _take(context, "hold-full", FULL, context.sizes.hold_full_switches)


def _take(context: Context, name: str, kind: Load, count: int) -> list[Figure]:
    if context.peer_only:
        return []
    with Lab(context.flavor) as lab:
        context.say(f"{name}: an installation with a workflow that is running")
        installed = install(lab, "--placement", "dedicated", "--replicas", "0")
        installed.create_database()
        installed.fill(installed.login("admin"), context.sizes.hold_rows, lab.folder)
        installed.create_shards()
        installed.move()
        log = lab.folder / "load.log"
        load = lab.process(
            command(
                str(stalls.SCRIPT), installed.login("readwriter"), context.sizes.hold_rows, kind.clients,
                "--time=0", "--events=0", f"--think_ms={kind.think_ms}", _OWN_FAULT,
            ),
            log,
        )  # fmt: skip
        time.sleep(2.0)
        if load.poll() is not None:
            raise BenchError(f"the load ended: {log.read_text()[-1500:]}")
        context.say(f"{name}: {count} switches and as many ways back under {kind.clients} clients")
        switches, quiet = _switch(installed, count)
        steps = _steps(installed)
        last = time.time()
        time.sleep(LAST_SECONDS)
        ended_early = load.poll() is not None
        load.terminate()
        load.wait()
        felt = stalls.read(log.read_text().splitlines())
    switched = [felt.longest(*window) * 1000 for window in switches]
    usual = [felt.longest(*window) * 1000 for window in quiet]
    errors = list(felt.errors) + (["the load ended before its time"] if ended_early else [])
    # A statement that is never answered is never told of: each client must be heard once more.
    errors += [f"client {n} hangs" for n in range(kind.clients) if n not in felt.clients_since(last)]
    note = (
        f"{count} switches and {count} ways back, {kind.clients} clients, {kind.think_ms} ms between"
        f" transactions; median {statistics.median(switched):.0f} ms, longest {max(switched):.0f} ms;"
        f" without a switch the longest of {DWELL_SECONDS:g} s: median {statistics.median(usual):.0f} ms,"
        f" p99 {percentile(usual, 99):.0f} ms;"
        f" steps under the hold, median and longest in ms: {steps};"
        f" client errors: {len(errors)}{': ' + errors[0] if errors else ''}; {vitess_note()}"
    )
    value = percentile(switched, 99)
    return [alone(name, "ms, p99 of the longest stall", value, HOLD, note=note, failed=bool(errors))]


def _steps(installed: Installed) -> str:
    """How long each step under the hold took, by the installation's own journal."""
    took: dict[str, list[float]] = defaultdict(list)
    database = installed.installation.data_dir / "homeworld.db"
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for step, data in connection.execute("SELECT step, data FROM steps WHERE status = 'done'"):
            if "seconds" in (told := json.loads(data)):
                took[step].append(told["seconds"] * 1000)
    return ", ".join(
        f"{step} {statistics.median(took[step]):.1f}/{max(took[step]):.0f}" for step in HELD if took[step]
    )


Window = tuple[float, float]


def _switch(installed: Installed, count: int) -> tuple[list[Window], list[Window]]:
    """Switch to and fro; the stretches of the switches and of the rests between them (unix seconds)."""
    switches: list[Window] = []
    quiet: list[Window] = []
    for _ in range(count):
        for action, state in (("switch-primaries", "switched_primaries"), ("reverse-traffic", "running")):
            switches.append(installed.ask(action, state))
            begun = time.time()
            time.sleep(DWELL_SECONDS)
            quiet.append((begun + 0.1, time.time() - 0.1))
    return switches, quiet
