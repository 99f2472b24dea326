"""Copy and verify: a table with one secondary index to two shards, against mydumper and myloader; then both
sides compared, against that same copy.
"""

from __future__ import annotations

from tests.support.mysqld import TestServer

from bench.context import Context, vitess_note
from bench.goals import COPY, VERIFY
from bench.harness import Figure, against_peer, interleave
from bench.lab import BenchError, Lab
from bench.moves import Move
from bench.peers import mydumper
from bench.tables import SCHEMA, TABLE, count, fill

THREADS = 2
PEER = "mydumper + myloader"


def take(context: Context) -> list[Figure]:
    """The figures ``copy`` and ``verify``."""
    rows = context.sizes.copy_rows
    with Lab(context.flavor) as lab:
        context.say(f"copy: filling {rows:,} rows")
        source = lab.server()
        fill(source, rows)
        whole = lab.server()
        shards = () if context.peer_only else (lab.server(), lab.server())
        verified: list[float] = []
        with Move(source, shards, threads=THREADS) as move:

            def ours() -> float:
                move.prepare()
                copied = rows / move.copy()
                verified.append(rows / move.verify())
                move.stop()
                _check(shards, rows)
                return copied

            def peer() -> float:
                mydumper.forget(whole)
                rate = rows / mydumper.copy(lab, source, whole, THREADS)
                _check((whole,), rows)
                return rate

            mine, theirs = interleave(
                None if context.peer_only else ours,
                peer,
                context.runs,
                lambda number: context.say(f"copy and verify {number + 1}/{context.runs}"),
            )
        mydumper.forget(whole)
        unlogged = rows / mydumper.copy(lab, source, whole, THREADS, binlog=False)
    size = f"{rows:,} rows of ~190 bytes, {THREADS} threads, sync_binlog=1"
    return [
        against_peer(
            "copy", "rows/s", mine, theirs, PEER, COPY,
            note=f"{size}, index and the mover's start included; the peer does not split by shard: it loads"
            f" one server; its load without binlog (no replica could follow): {unlogged:,.0f} rows/s;"
            f" {vitess_note()}",
        ),
        against_peer(
            "verify", "rows/s", verified, mine, "our copy", VERIFY,
            note=f"{size}; a row counts once, read on both sides; {vitess_note()}",
        ),
    ]  # fmt: skip


def _check(servers: tuple[TestServer, ...], rows: int) -> None:
    """Hold what has arrived against what was to be copied: all rows, and the index on each server."""
    for server in servers:
        if "KEY `k_1`" not in server.query(f"SHOW CREATE TABLE {TABLE}", SCHEMA)[0][1]:
            raise BenchError("the index is missing: not the same work")
    found = sum(count(server) for server in servers)
    if found != rows:
        raise BenchError(f"{found} rows of {rows} have arrived: not the same work")
