"""``python -m bench.fleet.gateway_alone STORE_URL``: a gateway as a process of its own, and what a fleet of
branches costs it. Nobody listens at the servers' addresses. Prints one JSON object.
"""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

from bench.harness import seconds_of
from homeworld.engines.accounts import user_of
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.gateway.tracker import SchemaTracker
from homeworld.model.routing import RoutingSnapshot
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.store.routing import Routing
from homeworld.store.store import Store

_TABLES, _COLUMNS = 100, 12
_QUIET_SECONDS = 600.0
_REST_SECONDS = 5.0


def resident() -> float:
    """MiB of memory that this process has now."""
    gc.collect()
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("this system tells no VmRSS")


def endpoint(server_id: str) -> Endpoint:
    """As LocalEngine's, of a server that is not there."""
    socket = f"/nowhere/homeworld/servers/{server_id}/mysql.sock"
    return Endpoint(server_id, Flavor.MARIADB, "127.0.0.1", 1, socket, "reader", "secret")


def quiet(gateway: Gateway) -> float:
    """Wait until the gateway looks at nothing any more; the CPU seconds that took."""
    before, deadline = time.process_time(), time.monotonic() + _QUIET_SECONDS
    # Nobody but a bench has to know what a gateway looks at.
    effects = gateway._effects  # noqa: SLF001  # type: ignore[reportPrivateUsage]
    tasks = effects._tasks  # noqa: SLF001  # type: ignore[reportPrivateUsage]
    while tasks and time.monotonic() < deadline:
        time.sleep(0.2)
    return time.process_time() - before


def table_bytes() -> float:
    """What a gateway remembers of one table."""
    kind = ("varchar", "varchar(100)", "NO", "utf8mb4", "utf8mb4_0900_ai_ci", "", "400", "")
    rows = [
        tuple(map(str.encode, (f"table_{table}", f"column_{column}", *kind)))
        for table in range(_TABLES)
        for column in range(_COLUMNS)
    ]
    tracemalloc.start()
    tracker = SchemaTracker()
    before = tracemalloc.get_traced_memory()[0]
    tracker.loaded("main", "main", rows, [])
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return grown / _TABLES


def measure(url: str, times: int) -> dict[str, float]:
    """All figures; MiB, seconds, shares of one CPU."""
    store = Store.open(url)
    roles = {role: (user_of(role), f"of {role}") for role in BackendRole}
    routing = Routing(store, endpoint, lambda _branch_id: roles)
    gateway = Gateway(router_factory=Router)
    gateway.start(RoutingSnapshot(0, {}, {}))
    routing.version()
    found = {"empty": resident(), "table_bytes": table_bytes()}
    found["read_all"] = seconds_of(routing.snapshot)
    found["read_memory"] = resident()
    snapshot = routing.snapshot()
    with_branches = seconds_of(lambda: gateway.publish(snapshot))
    found["take_all"] = with_branches
    found["first_looks_cpu"] = quiet(gateway)
    found["memory"] = resident()
    found["branches"] = len(snapshot.branches)
    reads: list[float] = []
    takes: list[float] = []
    branch_id = next(iter(snapshot.branches))
    for _ in range(times):
        with store.write() as tx:
            tx.routes.bump(branch_id)
        begun = time.perf_counter()
        snapshot = routing.snapshot()
        read = time.perf_counter()
        gateway.publish(snapshot)
        reads.append(read - begun)
        takes.append(time.perf_counter() - read)
    found["read_one"], found["take_one"] = min(reads), min(takes)
    quiet(gateway)
    used = time.process_time()
    time.sleep(_REST_SECONDS)
    found["rest"] = (time.process_time() - used) / _REST_SECONDS
    gateway.stop(1.0)
    store.close()
    return found


def main(given: Sequence[str]) -> None:
    """Measure and print."""
    logging.basicConfig(level=logging.ERROR)
    print(json.dumps(measure(given[0], 9)))


if __name__ == "__main__":
    main(sys.argv[1:])
