"""API reads: half of all reads are answered within how long, where there is little and where there is much.

``api-reads`` is about branches and workflows, ``api-lists`` about all other lists. Two real servers of the
API, one over a small store and one over a large, are asked in turn. The figure is that of the kind of read
that suffers most, so that a slow one cannot hide among fast ones. Pages have the same size on both sides.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import lists
from bench.context import Context
from bench.goals import API_READS
from bench.harness import Figure, against_peer, seconds_of
from bench.lab import BenchError, Lab, wait_until
from bench.stores import DATABASE, ORGANIZATION, branch_name, populate

PER_PAGE = 10
WARM_UP = 10  # reads of each kind that do not count
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Side:
    """One server of the API over a store with ``count`` of everything, and the paths of the reads by kind."""

    count: int
    client: httpx.Client
    paths: Mapping[str, str]

    def read(self, path: str) -> float:
        """Seconds of one read.

        :raises BenchError: the answer is not what was asked for.
        """
        found: list[httpx.Response] = []
        seconds = seconds_of(lambda: found.append(self.client.get(path)))
        answer = found[0]
        if answer.status_code != 200:
            raise BenchError(f"{path}: {answer.status_code} {answer.text[:500]}")
        if f"={PER_PAGE}" in path and "/keyspaces" not in path and len(answer.json()["data"]) != PER_PAGE:
            raise BenchError(f"{path}: {len(answer.json()['data'])} results where {PER_PAGE} are expected")
        return seconds


def take(context: Context) -> list[Figure]:
    """The figure ``api-reads``."""
    return [_figure(context, "api-reads", "branches", "branches and workflows", _reads)]


def take_lists(context: Context) -> list[Figure]:
    """The figure ``api-lists``."""
    return [_figure(context, "api-lists", "entries", "entries in each list", _lists)]


def _reads(_url: str, count: int) -> Mapping[str, str]:
    """The kinds of reads, each about the middle of what there is."""
    base = f"/v1/organizations/{ORGANIZATION}/databases/{DATABASE}"
    middle = max(1, count // 2)
    page = max(1, middle // PER_PAGE)
    return {
        "branches, first page": f"{base}/branches?per_page={PER_PAGE}",
        "branches, middle page": f"{base}/branches?per_page={PER_PAGE}&page={page}",
        "one branch": f"{base}/branches/{branch_name(middle)}",
        "keyspaces of a branch": f"{base}/branches/{branch_name(middle)}/keyspaces?per_page={PER_PAGE}",
        "workflows, first page": f"{base}/workflows?per_page={PER_PAGE}",
        "workflows, middle page": f"{base}/workflows?per_page={PER_PAGE}&page={page}",
        "one workflow": f"{base}/workflows/{middle}",
    }


def _lists(url: str, count: int) -> Mapping[str, str]:
    """The first page of each list; of those with pages also the one in the middle."""
    page = max(1, count // 2 // PER_PAGE)
    paths: dict[str, str] = {}
    for name, path in lists.fill(url, count).items():
        paths[f"{name}, first"] = f"{path}?{'limit' if name == lists.CURSORS else 'per_page'}={PER_PAGE}"
        if name != lists.CURSORS:
            paths[f"{name}, middle"] = f"{path}?per_page={PER_PAGE}&page={page}"
    return paths


def _figure(
    context: Context, name: str, peers: str, what: str, reads: Callable[[str, int], Mapping[str, str]]
) -> Figure:
    """One figure.

    :param reads: from the address of a store and how many there are of everything to the paths by kind.
    """
    small, large = context.sizes.api_branches
    unit, peer = "ms, p50", f"itself, {small} {peers}"
    if context.peer_only:
        return against_peer(name, unit, [], [], peer, API_READS, note="it has no peer but itself")
    with Lab(context.flavor) as lab:
        context.say(f"{name}: stores with {small} and {large:,} {what}")
        with serve(lab, small, reads) as few, serve(lab, large, reads) as many:
            context.say(f"{name}: {context.sizes.api_reads} reads of each kind")
            medians = _medians(few, many, context.sizes.api_reads)
    worst = max(medians, key=lambda kind: medians[kind][1] / medians[kind][0])
    listed = "; ".join(
        f"{kind}: {slow * 1000:.2f} against {fast * 1000:.2f} ms" for kind, (fast, slow) in medians.items()
    )
    note = (
        f"{large:,} {what} against {small}, SQLite, uvicorn over loopback, {PER_PAGE} a page;"
        f" the worst kind is the figure ({worst}). {listed}"
    )
    fast, slow = medians[worst]
    return against_peer(name, unit, [slow * 1000], [fast * 1000], peer, API_READS, note=note)


def _medians(few: Side, many: Side, reads: int) -> dict[str, tuple[float, float]]:
    """For each kind the medians of both sides, in seconds. Kinds and sides take turns, so that whatever else
    the machine does hits all of them.
    """
    sides = (few, many)
    seconds: dict[str, tuple[list[float], list[float]]] = {kind: ([], []) for kind in few.paths}
    for turn in range(WARM_UP + reads):
        for kind, taken in seconds.items():
            for at in (0, 1) if turn % 2 == 0 else (1, 0):
                took = sides[at].read(sides[at].paths[kind])
                if turn >= WARM_UP:
                    taken[at].append(took)
    return {
        kind: (statistics.median(fast), statistics.median(slow)) for kind, (fast, slow) in seconds.items()
    }


@contextmanager
def serve(lab: Lab, count: int, reads: Callable[[str, int], Mapping[str, str]]) -> Generator[Side]:
    """A store with so much in it, and a server over it."""
    url = f"sqlite:///{lab.folder / f'store-{count}.db'}"
    token = populate(url, count)
    paths = reads(url, count)
    ready = lab.folder / f"serving-{count}"
    log = lab.folder / f"serving-{count}.log"
    child = lab.process([sys.executable, "-m", "bench.serving", url, str(ready)], log, cwd=ROOT)

    def up() -> bool:
        if child.poll() is not None:
            raise BenchError(f"the API did not come up: {log.read_text()[-1500:]}")
        return ready.exists()

    wait_until(up, "the API serves", 60.0)
    headers = {"Authorization": token}
    base = f"http://127.0.0.1:{ready.read_text()}"
    with httpx.Client(base_url=base, headers=headers, timeout=30.0, trust_env=False) as client:
        yield Side(count, client, paths)
