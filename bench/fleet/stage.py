"""The figures of one fleet: a control plane over a store that has it, and a gateway beside.

Every figure is a :class:`~bench.fleet.rows.Row`. Knows no fleet's making but that of the few resources that
are made to be measured.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.fleet.asked import ROOT, Child
from bench.fleet.rows import Row
from bench.harness import cpu_seconds, percentile, seconds_of
from bench.lab import BenchError
from homeworld.store.store import Store

WIDE = "wide"
PER_PAGE = 10
_MS = 1000.0
_CLIENTS = 4


@dataclass(slots=True)
class Stage:
    """One fleet over one store.

    :param branches: how many; ``shards``: of the wide keyspaces.
    :param size: bytes that the store takes on disk.
    """

    store: str
    url: str
    branches: int
    shards: int
    size: Callable[[], int]
    say: Callable[[str], None]
    rows: list[Row] = field(default_factory=list[Row])

    def note(self, name: str, unit: str, value: float, *, total: bool = False, note: str = "") -> None:
        """One figure more."""
        self.rows.append(
            Row(name, unit, round(value, 4), self.store, self.branches, self.shards, total, note)
        )
        self.say(f"{self.store} {self.branches:,}: {name} {value:.4g} {unit}")

    def start(self, plane: Child) -> str:
        """Start the control plane; its API's address."""
        ready = plane.ask("start")
        self.note("start to ready", "s", ready["seconds"], total=True, note=json.dumps(ready["phases"]))
        plane.ask("settled")
        self.note("memory of the control plane", "MiB", resident(plane.pid), total=True)
        return str(ready["api"])

    def at_rest(self, plane: Child, database: str, times: int, seconds: float) -> None:
        """What goes on by itself, and how soon something new is begun."""
        time.sleep(2.0)
        self.note("CPU at rest", "% of a core", 100 * plane.ask("rest", seconds=seconds), total=True)
        loops = plane.ask("loops", times=5)
        self.note("a look for work", "ms, best", _MS * loops["work"])
        self.note("a look for promotions", "ms, best", _MS * loops["promotions"])
        self.note("a look at the routes' version", "ms, best", _MS * loops["version"])
        self.note(
            "a watcher's round",
            "ms, best",
            _MS * loops["watch"],
            total=True,
            note="without the servers' answers",
        )
        self._pick_up(plane, database, "rest", times, "at rest")

    def at_work(self, plane: Child, database: str, times: int) -> None:
        """The same while one branch of a hundred has something that does not come to its end."""
        count = max(1, self.branches // 100)
        working = plane.ask("stuck", database=database, count=count)
        note = f"{count} branches whose servers do not come up, {working} resources"
        share = plane.ask("rest", seconds=5.0)
        self.note("CPU with 1 % at work", "% of a core", 100 * share, note=note, total=True)
        loops = plane.ask("loops", times=5)
        self.note("a look for work, 1 % at work", "ms, best", _MS * loops["work"], total=True)
        self._pick_up(plane, database, "work", times, "1 % at work")
        self.note("1 % come up", "s", plane.ask("relent"), total=True)

    def _pick_up(self, plane: Child, database: str, prefix: str, times: int, when: str) -> None:
        took = plane.ask("pick_up", database=database, prefix=prefix, times=times)
        self.note(f"asked to begun, {when}", "ms, p50", _MS * statistics.median(took["begun"]))
        self.note(f"asked to begun, {when}, worst", "ms, p95", _MS * percentile(took["begun"], 95))
        self.note(f"asked to ready, {when}", "ms, p50", _MS * statistics.median(took["ready"]))

    def publication(self, plane: Child, times: int) -> None:
        """One changed branch among all."""
        took = plane.ask("snapshots", times=times)
        self.note("snapshot after one change", "ms, best", _MS * took["read"])
        self.note("publication of one change", "ms, best", _MS * took["publish"])

    def hour(self, plane: Child) -> None:
        """What one hour leaves in the store; what a day does is 24 of them."""
        before = self.size()
        took = plane.ask("hour")
        self.note("an hour counted", "s", took["seconds"], total=True)
        self.note("another writer waits meanwhile", "ms, worst", _MS * took["waited"])
        self.note(
            "store's growth a branch and day", "KiB", 24 * (self.size() - before) / 1024 / self.branches,
            note="24 hours of both servers, as the files grew by one",
        )  # fmt: skip

    def made(self, api: str, token: str, plane: Child, database: str, prefix: str, count: int) -> None:
        """Branches asked for over HTTP, by a few clients at once."""
        path = f"/v1/organizations/fleet/databases/{database}/branches"
        with client(api, token) as http, ThreadPoolExecutor(_CLIENTS) as pool:
            begun, used = time.monotonic(), cpu_seconds(plane.pid)

            def ask(number: int) -> float:
                return seconds_of(lambda: checked(http.post(path, json={"name": f"{prefix}-{number}"}), 201))

            asked = list(pool.map(ask, range(count)))
            answered = time.monotonic() - begun
            plane.ask("settled")
            seconds, used = time.monotonic() - begun, cpu_seconds(plane.pid) - used
        self.note("CPU of a branch made", "ms", _MS * used / count, note="of the control plane's process")
        self.note(
            "a branch made", "ms", _MS * seconds / count,
            note=f"{count}, asked for over HTTP by {_CLIENTS} at once; {count / answered:.0f}/s are answered",
        )  # fmt: skip
        self.note("a branch asked for", "ms, p50", _MS * statistics.median(asked))

    def wide(self, plane: Child, name: str, shards: int) -> None:
        """A keyspace of many shards, each on servers of its own."""
        seconds = plane.ask("keyspace", database=WIDE, name=name, shards=shards)
        self.note("a shard made", "ms", _MS * seconds / shards, note=f"{shards} of one keyspace")

    def backlog(self, plane: Child, database: str, count: int) -> None:
        """Branches that are all asked for in one moment."""
        seconds = plane.ask("branches", database=database, prefix="backlog", count=count)
        self.note("a backlog's branch made", "ms", _MS * seconds / count, note=f"{count} at once")

    def reads(self, api: str, token: str, database: str, times: int) -> None:
        """What people and programs look at."""
        at = "/v1/organizations/fleet"
        one = f"{at}/databases/{database}/branches"
        page = max(1, self.branches // 100 // PER_PAGE // 2)
        kinds = {
            "databases": f"{at}/databases?per_page={PER_PAGE}",
            "databases, middle page": f"{at}/databases?per_page={PER_PAGE}&page={page}",
            "branches of a database": f"{one}?per_page={PER_PAGE}",
            "one branch": f"{one}/main",
            "keyspaces of a branch": f"{one}/main/keyspaces",
            "passwords of a branch": f"{one}/main/passwords",
            "keyspaces of many shards": f"{at}/databases/{WIDE}/branches/main/keyspaces",
            "audit log": f"{at}/audit-log?limit={PER_PAGE}",
        }
        with client(api, token) as http:
            taken: dict[str, list[float]] = {kind: [] for kind in kinds}
            for turn in range(times + 5):
                for kind, path in kinds.items():
                    seconds = seconds_of(lambda path=path: checked(http.get(path), 200))
                    if turn >= 5:
                        taken[kind].append(seconds)
        for kind, seconds in taken.items():
            self.note(
                f"read: {kind}",
                "ms, best",
                _MS * min(seconds),
                note=f"p50 {_MS * statistics.median(seconds):.1f}",
            )

    def gateway(self) -> None:
        """A gateway's process beside."""
        done = subprocess.run(
            [sys.executable, "-m", "bench.fleet.gateway_alone", self.url],
            cwd=ROOT, stdout=subprocess.PIPE, check=False, text=True, timeout=1800.0,
        )  # fmt: skip
        if done.returncode:
            raise BenchError("the gateway's process failed")
        found = json.loads(done.stdout.splitlines()[-1])
        many = max(1, found["branches"])
        self.note("gateway: empty", "MiB", found["empty"])
        self.note("gateway: snapshot of all read", "s", found["read_all"], total=True)
        self.note("gateway: all taken", "s", found["take_all"], total=True)
        self.note("gateway: first looks at all keyspaces", "CPU s", found["first_looks_cpu"], total=True)
        self.note("gateway: memory with all", "MiB", found["memory"], total=True)
        self.note("gateway: memory a branch", "KiB", 1024 * (found["memory"] - found["empty"]) / many)
        self.note("gateway: of it the snapshot", "KiB", 1024 * (found["read_memory"] - found["empty"]) / many)
        self.note("gateway: a table of 12 columns", "KiB", found["table_bytes"] / 1024)
        self.note("gateway: snapshot after one change", "ms, best", _MS * found["read_one"])
        self.note("gateway: one change taken", "ms, best", _MS * found["take_one"])
        self.note("gateway: CPU at rest", "% of a core", 100 * found["rest"], total=True)

    def whole(self) -> None:
        """A snapshot of everything, and the store's size."""
        store = Store.open(self.url)
        try:
            self.note("store on disk", "MiB", self.size() / 2**20, total=True)
            with store.read() as tx:
                servers = len(tx.servers.own())
            self.note("servers", "", servers, total=True)
        finally:
            store.close()


def client(api: str, token: str) -> httpx.Client:
    """A client of the API, as the bench's token."""
    return httpx.Client(base_url=api, headers={"Authorization": token}, timeout=120.0, trust_env=False)


def checked(answer: httpx.Response, status: int) -> httpx.Response:
    """The answer, which is of that status.

    :raises BenchError: it is of another.
    """
    if answer.status_code != status:
        raise BenchError(f"{answer.request.url}: {answer.status_code} {answer.text[:500]}")
    return answer


def resident(pid: int) -> float:
    """MiB of memory that a process has now (Linux)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"process {pid} tells no VmRSS")
