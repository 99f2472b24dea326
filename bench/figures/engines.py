"""Both engines side by side, on the same MySQL: an installation on servers alone and one on Vitess, each
moving the same table under the same API.

Ours is the local engine, the peer is Vitess as homeworld drives it. A switch of writes is homeworld's own on
both; its stall compares what stands below. Whole moves are measured as a user sees
them: from asking until the state is seen. Of a switch it is the longest statement of any client; of a query,
the CPU of everything that it passes before the server.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.context import Context
from bench.figures.gateway import cpu_per_query, idle
from bench.harness import Figure, Goal, against_peer, interleave, not_taken, seconds_of
from bench.installed import Installed, install
from bench.lab import BenchError, Lab
from bench.loads import stalls
from bench.loads.sysbench import Server, command
from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.members import known
from homeworld.engines.vitess.processes import Runner
from homeworld.engines.vitess.records import Records
from homeworld.model.errors import InvalidError
from homeworld.model.topology import Flavor

PEER = "Vitess, driven by homeworld"
# The local engine is to be no worse than what it stands beside.
FASTER = Goal(target=1.0, beyond=2.0, higher_is_better=True)
LESS = Goal(target=1.0, beyond=0.5, higher_is_better=False)
LINES = (
    ("engine-copy", "rows/s", FASTER),
    ("engine-verify", "rows/s", FASTER),
    ("engine-stall", "ms, the longest of a switch", LESS),
    ("engine-query", "µs CPU a query", LESS),
)
CLIENTS = 8
THINK_MS = 10
THREADS = 4
_OWN_FAULT = "--mysql-ignore-errors=1213,1020,1205"


@dataclass(slots=True)
class Side:
    """One installation with the table in it and two empty shards beside it."""

    installed: Installed
    login: Server
    rows: int
    verified: list[float]

    def copy(self) -> float:
        """Rows a second of a whole move up to *running*; then it is verified, and taken back."""
        copied = self.rows / seconds_of(self.installed.move)
        self.verified.append(self.rows / seconds_of(self.installed.verify))
        self.installed.cancel()
        return copied

    def pids(self) -> list[int]:
        """What a statement passes before the server."""
        return [self.installed.pid, *_vitess(self.installed.installation.data_dir)]


def _vitess(data_dir: Path) -> Iterator[int]:
    kept, runner = Records(data_dir / "vitess"), Runner()
    installation = kept.installation()
    if installation is None:
        return
    for branch in kept.branches():
        for one in known(Path(installation.home), branch):
            pid = runner.pid(one)
            if pid is not None and not one.name.startswith("vtctld "):
                yield pid


def take(context: Context) -> list[Figure]:
    """The four figures; not taken where there is no Vitess for these servers."""
    if context.flavor is not Flavor.MYSQL:
        return _none("Vitess stands on MySQL: --flavor mysql")
    try:
        version = binaries.find().version_text
    except InvalidError as error:
        return _none(error.message)
    rows = context.sizes.engine_rows
    with Lab(context.flavor) as lab:
        context.say("engines: an installation of each")
        local, vitess = (_side(lab, engine, rows) for engine in ("local", "vitess"))
        mine, theirs = interleave(
            None if context.peer_only else local.copy,
            vitess.copy,
            context.runs,
            lambda number: context.say(f"engines: copy and verify {number + 1}/{context.runs}"),
        )
        size = f"{rows:,} rows, from asking to the state, as the API tells it; Vitess {version}"
        figures = [
            against_peer("engine-copy", "rows/s", mine, theirs, PEER, FASTER, note=size),
            against_peer("engine-verify", "rows/s", local.verified, vitess.verified, PEER, FASTER, note=size),
        ]
        context.say("engines: queries")
        mine, theirs = _queries(context, local, vitess)
        note = f"oltp_point_select, {THREADS} connections; gateway, vtgate and tablets together, servers not"
        figures.append(against_peer("engine-query", "µs CPU a query", mine, theirs, PEER, LESS, note=note))
        context.say(f"engines: {context.sizes.engine_switches} switches and ways back of each")
        figures.insert(2, _stalls(context, lab, local, vitess))
        return figures


def _none(why: str) -> list[Figure]:
    return [not_taken(name, unit, goal, why) for name, unit, goal in LINES]


def _side(lab: Lab, engine: str, rows: int) -> Side:
    installed = install(lab, "--placement", "dedicated", "--replicas", "0", "--engine", engine)
    installed.create_database()
    login = installed.login("admin")
    installed.fill(login, rows, lab.folder)
    installed.create_shards()
    return Side(installed, login, rows, [])


def _queries(context: Context, local: Side, vitess: Side) -> tuple[list[float], list[float]]:
    seconds = context.sizes.gateway_seconds
    usual = {engine: idle(side.pids()) for engine, side in (("local", local), ("vitess", vitess))}
    return interleave(
        None
        if context.peer_only
        else lambda: cpu_per_query(local.login, local.pids(), usual["local"], "disable", seconds),
        lambda: cpu_per_query(vitess.login, vitess.pids(), usual["vitess"], "disable", seconds),
        context.runs,
    )


def _stalls(context: Context, lab: Lab, local: Side, vitess: Side) -> Figure:
    """Pairs are switches: the first of one with the first of the other."""
    felt: list[list[float]] = []
    errors: list[str] = []
    told: list[str] = []
    for name, side in (("local", local), ("vitess", vitess)):
        if name == "local" and context.peer_only:
            felt.append([])
            continue
        longest, quiet, wrong = _switches(lab, name, side, context.sizes.engine_switches)
        felt.append(longest)
        errors += [f"{name}: {text}" for text in wrong]
        told.append(
            f"{name}: median {statistics.median(longest):.0f}, longest {max(longest):.0f},"
            f" longest without a switch {quiet:.0f}"
        )
    note = (
        f"{CLIENTS} clients, {THINK_MS} ms between transactions, ms; {'; '.join(told)}; client errors:"
        f" {len(errors)}{': ' + errors[0] if errors else ''}"
    )
    if errors:
        return _none(note)[2]
    return against_peer(
        "engine-stall", "ms, the longest of a switch", felt[0], felt[1], PEER, LESS, note=note
    )


def _switches(lab: Lab, name: str, side: Side, count: int) -> tuple[list[float], float, list[str]]:
    """The longest statement of each switch and each way back, of all rests between them (ms), and errors."""
    side.installed.move()
    log = lab.folder / f"load-{name}.log"
    load = lab.process(
        command(
            str(stalls.SCRIPT), side.installed.login("readwriter"), side.rows, CLIENTS,
            "--time=0", "--events=0", f"--think_ms={THINK_MS}", _OWN_FAULT,
        ),
        log,
    )  # fmt: skip
    time.sleep(2.0)
    windows: list[tuple[float, float]] = []
    rests: list[tuple[float, float]] = []
    for _ in range(count):
        for action, state in (("switch-primaries", "switched_primaries"), ("reverse-traffic", "running")):
            windows.append(side.installed.ask(action, state))
            begun = time.time()
            time.sleep(1.0)
            rests.append((begun + 0.1, time.time() - 0.1))
    last = time.time()
    time.sleep(3.0)
    if load.poll() is not None:
        raise BenchError(f"the load ended: {log.read_text()[-1500:]}")
    load.terminate()
    load.wait()
    told = stalls.read(log.read_text().splitlines())
    hanging = [f"client {n} hangs" for n in range(CLIENTS) if n not in told.clients_since(last)]
    return (
        [told.longest(*window) * 1000 for window in windows],
        max(told.longest(*rest) * 1000 for rest in rests),
        [*told.errors, *hanging],
    )
