"""The mover's memory: the most its child process holds while it copies a small and a larger table."""

from __future__ import annotations

from bench.context import Context
from bench.goals import MEMORY
from bench.harness import Figure, against_peer, peak_rss_mib
from bench.lab import BenchError, Lab
from bench.moves import Move
from bench.tables import CREATE_WITHOUT_INDEX, count, fill

THREADS = 2


def take(context: Context) -> list[Figure]:
    """The figure ``memory``."""
    small, large = context.sizes.memory_rows
    unit, peer = "MiB peak RSS", f"itself, {small:,} rows"
    if context.peer_only:
        return [against_peer("memory", unit, [], [], peer, MEMORY, note="it has no peer but itself")]
    of_small, of_large = (_peak(context, rows) for rows in (small, large))
    note = f"{large:,} rows against {small:,}; copy to its end, {THREADS} threads, 2 shards"
    return [against_peer("memory", unit, [of_large], [of_small], peer, MEMORY, note=note)]


def _peak(context: Context, rows: int) -> float:
    with Lab(context.flavor) as lab:
        context.say(f"memory: filling {rows:,} rows")
        source = lab.server()
        fill(source, rows, CREATE_WITHOUT_INDEX)
        shards = (lab.server(), lab.server())
        with Move(source, shards, threads=THREADS) as move:
            move.prepare()
            context.say(f"memory: copying {rows:,} rows")
            move.follow()
            move.wait(lambda progress: progress.copied, "the copy")
            peak = peak_rss_mib(move.mover.pid)
            move.stop()
            found = sum(count(shard) for shard in shards)
            if found != rows:
                raise BenchError(f"{found} rows of {rows} have arrived")
            return peak
