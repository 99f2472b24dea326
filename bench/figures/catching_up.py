"""Catch-up: a backlog of single-row transactions, followed into two shards, against native replication of it.

Both sides rest while several connections build the backlog, then follow it from where they stood to its end;
the next run goes on from there. At the end every side must hold as many rows as the source.
"""

from __future__ import annotations

import re

from tests.support.mysqld import TestServer, password_of, user_of

from bench.context import Context
from bench.goals import CATCH_UP
from bench.harness import Figure, against_peer, interleave, seconds_of
from bench.lab import BenchError, Lab, run
from bench.loads.sysbench import Server, command
from bench.moves import Move
from bench.peers import replication
from bench.tables import count, fill
from homeworld.model.topology import BackendRole

CONNECTIONS = 8
PEER = f"native replication, {replication.WORKERS} workers"
# A row of a delete or insert may just be gone or there by another connection's doing: the write has no event.
_OWN_FAULT = "--mysql-ignore-errors=1062,1213,1020,1205"
_SECONDS = 900.0


def take(context: Context) -> list[Figure]:
    """The figure ``catch-up``."""
    with Lab(context.flavor) as lab:
        source = lab.server()
        fill(source, context.sizes.backlog_rows)
        source.stop()
        replica = lab.copy_of(source, *replication.OPTIONS[context.flavor])
        source.start()
        replication.attach(source, replica)
        shards = () if context.peer_only else (lab.server(), lab.server())
        with Move(source, shards, threads=2) as move:
            if shards:
                move.prepare()
                move.copy()
                move.stop()
            return _measure(context, source, replica, move)


def _measure(context: Context, source: TestServer, replica: TestServer, move: Move) -> list[Figure]:
    position = ""
    events = 0

    def build(number: int) -> None:
        nonlocal position, events
        context.say(f"catch-up {number + 1}/{context.runs}: building the backlog")
        events = build_backlog(source, context.sizes.backlog_rows, context.sizes.backlog_events)
        position = source.position()
        context.say(f"catch-up {number + 1}/{context.runs}: following {events:,} events")

    def native() -> float:
        def follow() -> None:
            replication.start(replica)
            replication.wait(replica, position, _SECONDS)

        rate = events / seconds_of(follow)
        replication.stop(replica)
        return rate

    def ours() -> float:
        def follow() -> None:
            move.follow()
            move.catch_up(position)

        rate = events / seconds_of(follow)
        move.stop()
        return rate

    mine, theirs = interleave(None if context.peer_only else ours, native, context.runs, build)
    rows = count(source)
    sides = {"the replica": count(replica)}
    if move.shards:
        sides["the shards"] = sum(count(shard) for shard in move.shards)
    for side, found in sides.items():
        if found != rows:
            raise BenchError(f"{side} hold {found} rows, the source {rows}: not the same work")
    note = (
        f"{events:,} single-row transactions of {CONNECTIONS} connections; starting is part of the time; "
        "the peer follows into one unsharded server, one commit a transaction"
    )
    return [against_peer("catch-up", "row events/s", mine, theirs, PEER, CATCH_UP, note=note)]


def build_backlog(source: TestServer, rows: int, events: int) -> int:
    """Write about ``events`` single-row transactions as sysbench's write mix does.

    Building is not measured, so the source need not sync each commit meanwhile.

    :returns: how many row events there are.
    """
    login = Server(user_of(BackendRole.OWNER), password_of(BackendRole.OWNER), source.socket)
    before = _transactions(source)
    source.query("SET GLOBAL sync_binlog=0")
    source.query("SET GLOBAL innodb_flush_log_at_trx_commit=0")
    # Four statements an event of sysbench, each committed by itself.
    mix = ("--skip_trx=on", f"--events={events // 4}", "--time=0", _OWN_FAULT)
    run(command("oltp_write_only", login, rows, CONNECTIONS, *mix), _SECONDS)
    source.query("SET GLOBAL innodb_flush_log_at_trx_commit=1")
    source.query("SET GLOBAL sync_binlog=1")
    return _transactions(source) - before


def _transactions(source: TestServer) -> int:
    """Transactions in the server's binlog so far: its GTIDs' last numbers (one source, no holes)."""
    last = re.findall(r"[:-](\d+)(?:,|$)", source.position())
    return sum(int(number) for number in last)
