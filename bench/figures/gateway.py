"""The gateway's CPU for one query, against HAProxy before the same server: point selects, text and prepared.

The gateway lives in the one process of ``homeworld up``; what that takes without clients is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.context import Context, vitess_note
from bench.goals import GATEWAY
from bench.harness import Figure, against_peer, cpu_seconds, interleave
from bench.installed import install
from bench.lab import BenchError, Lab
from bench.loads.sysbench import Server, command, watch
from bench.peers import haproxy

THREADS = 4
ROWS = 10_000
PEER = "HAProxy, TCP mode"
MODES = {"gateway-text": "disable", "gateway-prepared": "auto"}


def take(context: Context) -> list[Figure]:
    """The figures ``gateway-text`` and ``gateway-prepared``."""
    with Lab(context.flavor) as lab:
        installed = install(lab, "--placement", "shared", "--replicas", "0")
        installed.create_database()
        login = installed.login("admin")
        installed.fill(login, ROWS, lab.folder)
        direct = installed.backend()
        port, proxy = haproxy.start(lab, direct.port)
        through_proxy = replace(direct, port=port)
        alone = idle([installed.pid])
        figures: list[Figure] = []
        for name, mode in MODES.items():
            context.say(f"{name}: {context.runs} pairs of {context.sizes.gateway_seconds:g} s")

            def side(server: Server, pid: int, usual: float, mode: str = mode) -> Callable[[], float]:
                return lambda: cpu_per_query(server, [pid], usual, mode, context.sizes.gateway_seconds)

            ours = None if context.peer_only else side(login, installed.pid, alone)
            mine, theirs = interleave(ours, side(through_proxy, proxy.pid, 0.0), context.runs)
            note = (
                f"oltp_point_select, {THREADS} connections, --db-ps-mode={mode}, no TLS on either side;"
                f" {alone * 1e6:,.0f} µs a second without clients are subtracted; {vitess_note()}"
            )
            figures.append(against_peer(name, "µs CPU a query", mine, theirs, PEER, GATEWAY, note=note))
        return figures


def cpu_per_query(server: Server, pids: Sequence[int], idle: float, mode: str, seconds: float) -> float:
    """µs of CPU that processes take for one query, logins and preparations left out.

    :param idle: what they take without clients, in CPU seconds a second.
    """
    line = command(
        "oltp_point_select", server, ROWS, THREADS, "--events=0", f"--time={int(seconds) + 2}",
        "--report-interval=1", f"--db-ps-mode={mode}",
    )  # fmt: skip
    queries = taken = 0.0
    last: tuple[float, float] | None = None
    for interval in watch(line):
        if interval.errors_per_second:
            raise BenchError(f"{interval.errors_per_second} errors a second under a load of point selects")
        now = (interval.at, sum(map(cpu_seconds, pids)))
        if last is not None:
            elapsed = now[0] - last[0]
            queries += interval.queries_per_second * elapsed
            taken += now[1] - last[1] - idle * elapsed
        last = now
    if not queries:
        raise BenchError("sysbench told of no queries")
    return taken / queries * 1e6


def idle(pids: Sequence[int]) -> float:
    """What processes take without clients, in CPU seconds a second."""
    before, begun = sum(map(cpu_seconds, pids)), time.monotonic()
    time.sleep(5.0)
    return (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - begun)
