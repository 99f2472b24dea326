"""New branch: seconds from asking for it until the API says that it is ready, with and without a replica."""

from __future__ import annotations

import statistics
import time

from bench.context import Context
from bench.goals import BRANCH_READY
from bench.harness import Figure, alone
from bench.installed import BRANCH, DATABASE, Installed, install
from bench.lab import Lab, wait_until

REPLICAS = (0, 1)


def take(context: Context) -> list[Figure]:
    """The figures ``branch-ready-0`` and ``branch-ready-1``."""
    if context.peer_only:
        return []
    return [_measure(context, replicas) for replicas in REPLICAS]


def _measure(context: Context, replicas: int) -> Figure:
    rounds = context.sizes.branch_rounds
    context.say(f"branch-ready-{replicas}: {rounds} branches")
    with Lab(context.flavor) as lab:
        installed = install(lab, "--placement", "dedicated", "--replicas", str(replicas))
        installed.create_database()
        seconds = [_one(installed, f"branch-{number}") for number in range(rounds)]
    note = (
        f"{rounds} branches, one after another, the template is there; longest {max(seconds):.2f} s;"
        f" each is a server of its own with {replicas} replicas, empty"
    )
    return alone(f"branch-ready-{replicas}", "s", statistics.median(seconds), BRANCH_READY, note=note)


def _one(installed: Installed, name: str) -> float:
    at = (installed.organization, DATABASE)
    begun = time.perf_counter()
    installed.client.create_branch(*at, name, parent_branch=BRANCH)
    wait_until(lambda: bool(installed.client.get_branch(*at, name)["ready"]), f"{name} is ready", 120.0, 0.01)
    return time.perf_counter() - begun
