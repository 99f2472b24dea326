"""What is held against a run at its end, read past homeworld: from the servers, the store and the ledger.

Every sentence that these functions give is a finding. Knows no fault but what it is told may be excused.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pymysql

from homeworld.model.errors import HomeworldError
from homeworld.model.states.move_tables import State
from homeworld.model.vschema import parse
from tests.chaos import ledger as money
from tests.chaos.servers import Server
from tests.chaos.world import SIDECARS, SOURCE, TARGET, World

_TABLES_UNREAD = re.compile("tables of keyspace .* could not be read")
Rows = list[tuple[Any, ...]]


def read_side(world: World, side: str) -> tuple[Rows, Rows]:
    """All transfers and accounts of a side, from its servers, past the gateway.

    :raises pymysql.MySQLError: a table is not there.
    """
    transfers: Rows = []
    accounts: Rows = []
    for server in world.machines.of(side):
        at = server.schema
        transfers += world.machines.run(
            server, f"SELECT ref, source, target, amount, id, note FROM {at}.transfers"
        )
        accounts += world.machines.run(server, f"SELECT id, balance, pad FROM {at}.accounts")
    return sorted(transfers), sorted(accounts)


def different(world: World, seconds: float = 30.0) -> list[str]:
    """Both sides, while nobody writes: empty once they are equal, row by row and column by column."""
    deadline = time.monotonic() + seconds
    source: tuple[Rows, Rows]
    target: tuple[Rows, Rows]
    while True:
        try:
            source, target = read_side(world, "source"), read_side(world, "target")
        except (pymysql.MySQLError, OSError) as error:  # a server that was killed is not back yet
            source, target = ([], []), ([(repr(error),)], [])
        if source == target:
            return []
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    found: list[str] = []
    for name, ours, theirs in zip(("transfers", "accounts"), source, target, strict=True):
        only_source, only_target = set(ours) - set(theirs), set(theirs) - set(ours)
        if only_source or only_target or len(ours) != len(theirs):
            found.append(
                f"{name}: {len(only_source)} rows only on the source ({sorted(only_source)[:3]}), "
                f"{len(only_target)} only on the target ({sorted(only_target)[:3]}), "
                f"{len(ours)} and {len(theirs)} in all"
            )
    return [f"after {seconds:g} s without writes the sides differ: {text}" for text in found]


def misplaced(world: World) -> list[str]:
    """Rows that lie on another shard than theirs."""
    servers = world.machines.of("target")
    shards = [server.shard for server in servers]
    found: list[str] = []
    for server in servers:
        for table, column in (("accounts", "id"), ("transfers", "source")):
            rows = world.machines.run(server, f"SELECT DISTINCT {column} FROM {server.schema}.{table}")
            wrong = [row[0] for row in rows if money.shard_of(int(row[0]), shards) != server.shard]
            if wrong:
                found.append(f"{table} of {server.shard} has rows of another shard: {wrong[:3]}")
    return found


def audit(world: World, ledger: money.Ledger, side: str) -> list[str]:
    """The ledger against the side that owns the rows."""
    transfers, accounts = read_side(world, side)
    return ledger.audit([row[:4] for row in transfers], [row[:2] for row in accounts])


def unlocked(world: World, seconds: float = 60.0) -> list[str]:
    """Every primary takes writes and DDL's locks at once, every replica is read-only and follows."""
    found: list[str] = []
    for server in world.machines.all:
        why = _until(lambda server=server: _locked(world, server), seconds)
        found += [f"{server.side} {server.shard} primary={server.primary}: {text}" for text in why]
    return found


def _until(look: Callable[[], list[str]], seconds: float) -> list[str]:
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = look()
        except (pymysql.MySQLError, OSError) as error:
            found = [repr(error)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.2)


def _locked(world: World, server: Server) -> list[str]:
    found: list[str] = []
    with world.machines.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT @@GLOBAL.read_only, @@GLOBAL.server_id")
        row = cursor.fetchone()
        assert row is not None
        read_only = str(row[0]) not in {"0", "OFF"}
        if read_only is server.primary:
            found.append(f"read_only is {row[0]}")
        cursor.execute("SHOW PROCESSLIST")
        for one in cursor.fetchall():
            state = str(one[6] or "")
            if "metadata lock" in state or "table lock" in state.lower() or "global read lock" in state:
                found.append(f"waits: {one[4:8]}")
        if not server.primary:
            try:
                world.machines.engine.wait_replica(server.server_id, 2.0)
            except HomeworldError as error:
                found.append(f"does not follow: {error}")
            return found
        cursor.execute("SET SESSION lock_wait_timeout=2, innodb_lock_wait_timeout=2")
        cursor.execute(f"SHOW TABLES FROM {server.schema}")
        for (table,) in cursor.fetchall():
            # Taken and let go at once: whoever else holds the table would keep us from it.
            cursor.execute(f"LOCK TABLES {server.schema}.`{table}` WRITE")
            cursor.execute("UNLOCK TABLES")
        cursor.execute(f"CREATE TABLE {server.schema}.chaos_probe (id INT PRIMARY KEY)")
        cursor.execute(f"INSERT INTO {server.schema}.chaos_probe VALUES (1)")
        cursor.execute(f"DROP TABLE {server.schema}.chaos_probe")
    return found


def sessions(world: World) -> list[str]:
    """What all servers do just now, for whoever reads of a finding."""
    found: list[str] = []
    for pid in (*world.mover_pids(), *world.workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGUSR1)
    for server in world.machines.all:
        try:
            rows = world.machines.run(server, "SHOW FULL PROCESSLIST")
        except (pymysql.MySQLError, OSError) as error:
            rows = [(repr(error),)]
        found += [
            f"{server.side} {server.shard} primary={server.primary}: {[str(value)[:150] for value in row]}"
            for row in rows
            if len(row) < 5 or row[4] != "Daemon"
        ]
    return found


def leftovers(world: World, state: State) -> list[str]:
    """What a finished workflow has left where nothing may be."""
    found: list[str] = []
    gone = "target" if state is State.CANCELLED else "source"
    for server in world.machines.primaries:
        tables = {str(row[0]) for row in world.machines.run(server, f"SHOW TABLES FROM {server.schema}")}
        if server.side == gone and tables & set(money.TABLES):
            found.append(f"{server.side} {server.shard} still has {sorted(tables)}")
        if state is State.CANCELLED and tables - set(money.TABLES):
            found.append(f"{server.side} {server.shard} has {sorted(tables - set(money.TABLES))}")
        for table in SIDECARS:
            if world.machines.has_table(server, "_homeworld", table):
                rows = world.machines.run(server, f"SELECT COUNT(*) FROM _homeworld.{table}")
                if rows != [(0,)]:
                    found.append(f"{server.side} {server.shard}: {rows[0][0]} rows in _homeworld.{table}")
    with world.store.read() as tx:
        rules = dict(tx.routes.rules(world.branch_id))
        closing = tx.routes.closing(world.branch_id)
        vschemas = {name: tx.keyspaces.by_name(world.branch_id, name).vschema for name in (SOURCE, TARGET)}
    if closing is not None:
        found.append(f"the routes are still closed by {closing.subject}")
    if state is State.CANCELLED:
        if rules:
            found.append(f"rules are left: {rules}")
        if parse(vschemas[TARGET]).render() != parse(_text(money.VSCHEMA)).render():
            found.append(f"the target's vschema is {vschemas[TARGET]}")
        if parse(vschemas[SOURCE]).tables:
            found.append(f"the source's vschema is {vschemas[SOURCE]}")
    return found


def _text(vschema: dict[str, Any]) -> str:
    import json

    return json.dumps(vschema)


def unexcused(
    ledger: money.Ledger, struck: float, over: float, hits: frozenset[str], owners: frozenset[str]
) -> list[str]:
    """Errors of clients that the fault does not explain.

    :param hits: sides whose clients may notice; ``owners``: the sides that owned writes while it lasted.
    """
    found = list(ledger.wrong)
    for trouble in ledger.troubles:
        who = {f"gateway-{trouble.gateway}"}
        if not trouble.who.startswith("replica"):
            # The sequences that give ids are in the source's keyspace, whoever owns the rows.
            who |= {*owners, "source"}
        elif _TABLES_UNREAD.search(trouble.text):
            # Which tables a keyspace has, gateways read from its primary.
            who |= {"replica", "source", "target"}
        else:
            who.add("replica")
        if not (struck <= trouble.at <= over and hits & who):
            found.append(f"{trouble.at - struck:+.1f} s of the fault, {trouble.who}: {trouble.text}")
    return found
