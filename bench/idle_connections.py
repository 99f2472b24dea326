"""``python -m bench.idle_connections [--connections 5000]``: what idle clients cost a gateway.

Twice: clients that have only logged in, and clients that have asked something, each of which keeps a
connection of its own to the server. Told are memory each, the gateway's CPU while nobody asks, and how long
another client waits for ``SELECT 1``.
"""

from __future__ import annotations

import argparse
import statistics
import time

from tests.support.crowded import Crowded, crowded, raise_descriptors
from tests.support.wire import WireClient

_QUESTIONS = 300
_QUIET_SECONDS = 5.0


def _waits(gateway: Crowded) -> str:
    """How long one more client waits, from its login on."""
    begun = time.perf_counter()
    with gateway.enter() as client:
        login = time.perf_counter() - begun
        times: list[float] = []
        for _ in range(_QUESTIONS):
            begun = time.perf_counter()
            assert client.query("SELECT 1") == [(b"1",)]
            times.append(time.perf_counter() - begun)
    times.sort()
    return (
        f"login {login * 1e3:.1f} ms, SELECT 1: p50 {statistics.median(times) * 1e3:.2f} ms, "
        f"p99 {times[int(len(times) * 0.99)] * 1e3:.2f} ms"
    )


def _crowd(connections: int, *, asked: bool) -> None:
    with crowded() as gateway:
        print(f"  nobody else:  {_waits(gateway)}", flush=True)
        empty = gateway.resident
        clients: list[WireClient] = []
        try:
            for _ in range(connections):
                clients.append(gateway.enter())
                if asked:
                    assert clients[-1].query("SELECT 1")
            grown = gateway.resident - empty
            used = gateway.cpu_seconds
            time.sleep(_QUIET_SECONDS)
            used = gateway.cpu_seconds - used
            print(
                f"  {len(clients)} idle:    {_waits(gateway)}\n"
                f"  memory {grown / connections / 1024:.1f} KiB each ({grown / 2**20:.0f} MiB over "
                f"{empty / 2**20:.0f}), CPU {used / _QUIET_SECONDS:.1%}, {gateway.descriptors} descriptors",
                flush=True,
            )
        finally:
            for client in clients:
                client.socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.idle_connections")
    parser.add_argument("--connections", type=int, default=5000)
    options = parser.parse_args()
    raise_descriptors()
    for asked in (False, True):
        print(f"{options.connections} clients that {'have asked' if asked else 'have only logged in'}")
        _crowd(options.connections, asked=asked)


if __name__ == "__main__":
    main()
