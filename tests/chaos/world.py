"""A world for many runs: servers, store, proxies, and one worker process at a time.

Servers and store outlive the runs; between two the tables are made anew from a template, and whatever a run
left anywhere fails the next one's start (:meth:`World.leftovers`). Knows no fault.
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from homeworld.model.machine import Kind
from homeworld.model.names import quote
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.topology import BackendRole, Flavor
from homeworld.store.guards import facts
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.provisioning import Placement
from tests.chaos import ledger as money
from tests.chaos.asking import Asking
from tests.chaos.clock import Offset
from tests.chaos.control import Control
from tests.chaos.deadlines import LONG_SECONDS, ROLES_LONG_SECONDS
from tests.chaos.nursery import Forked, Nursery
from tests.chaos.proxy import Proxies
from tests.chaos.servers import Machines, Server
from tests.chaos.worker import engine_of
from tests.support.bank import OPENING_BALANCE, Login
from tests.support.mysqld import binary, free_port
from tests.support.postgres import Postgres
from tests.support.stack import Stack
from tests.support.warden import guard

GATEWAYS = 2
SOURCE, TARGET = "shop", "shop_sharded"
TEMPLATE = "chaos_template"
SIDECARS = ("streams", "copies", "ddls", "verdicts")


class Layout(StrEnum):
    """How homeworld's roles are spread: all in one process over SQLite, or each in processes of its own (an
    API, two workers, two gateways) over PostgreSQL.
    """

    UP = "up"
    ROLES = "roles"


@dataclass(eq=False, slots=True)
class Member:
    """One process of homeworld. ``become``: all, worker, gateway or api."""

    become: str
    number: int
    process: Forked


class World:
    """See the module. ``folder`` is absolute and empty."""

    def __init__(self, flavor: Flavor, folder: Path, layout: Layout = Layout.UP) -> None:
        self.flavor = flavor
        self.layout = layout
        self.postgres: Postgres | None = None
        self.folder = folder
        self.mysqld = str(binary(flavor))
        self.proxies = Proxies()
        self.control = Control(folder / "control.sock")
        self.store: Store
        self.machines: Machines
        self.logins: list[Login] = []
        self.processes: list[Member] = []
        self.at = 0  # the pid of the worker that waits at a gate, or did
        self.nursery: Nursery | None = None
        self.api_port = free_port()
        self.refusal = ""  # why the last thing asked was not granted
        self.asking: Asking | None = None
        self.log = folder / "worker.log"
        self.clock = Offset(folder / "clock")
        self.workflow_id = ""
        self.branch_id = ""
        self.database_id = ""
        self._proxied = False
        self._logs: dict[str, str] = {}
        self._chance = random.Random(1)
        self.old: dict[int, money.Entry] = {}
        self.groups: list[list[int]] = []
        guard(folder, delete=True)

    # -- making ----------------------------------------------------------------------------------------------

    def make(self, *, disks: bool = True) -> None:
        """Servers, database, keyspaces, template. Takes a while, once.

        :param disks: give each primary a file system of its own where that can be had, so that it can be
            full.
        """
        engine = engine_of(self.folder, self.mysqld)
        if self.layout is Layout.ROLES:
            self.postgres = Postgres()
        stack = Stack(engine, self.folder, Placement.DEDICATED, store_url=self.store_url)
        stack.start()
        try:
            stack.open(replicas=1)
            stack.add_keyspace(TARGET, money.VSCHEMA, shards=2, replicas=1)
            self.branch_id, self.database_id = stack.branch_id, stack.database_id
            servers: list[Server] = []
            with stack.store.read() as tx:
                for name, side in ((SOURCE, "source"), (TARGET, "target")):
                    for shard in tx.keyspaces.shards(stack.keyspace(name).id):
                        assert shard.primary_server_id is not None
                        made = Server(
                            shard.primary_server_id, side, True, shard.name, quote(shard.schema_name)
                        )
                        servers.append(made)
                        servers += (
                            replace(made, server_id=replica, primary=False)
                            for replica in shard.replica_server_ids
                        )
            self.machines = Machines(engine, self.folder, servers)
            self._make_template()
        finally:
            user, password = stack.login
            stack.close()
        self.store = Store.open(self.store_url)
        for _ in range(1 if self.layout is Layout.UP else GATEWAYS):
            self.logins.append(Login("127.0.0.1", free_port(), user, password))
        for server in self.machines.all:
            for group in ("gateway", "worker"):
                self.proxies.open(
                    f"{server.server_id}/{group}",
                    lambda server_id=server.server_id: engine.endpoint(server_id, BackendRole.OWNER).port,
                )
        if disks and Machines.can_have_disks():
            engine.stop_all()
            self.machines.give_disks()

    @property
    def store_url(self) -> str:
        """Where the control plane's memory is."""
        if self.postgres is not None:
            return self.postgres.url("postgres")
        return f"sqlite:///{self.folder / 'homeworld.db'}"

    def _make_template(self) -> None:
        chance = random.Random(7)
        shards = [server.shard for server in self.machines.of("target")]
        by_shard: dict[str, list[int]] = {shard: [] for shard in shards}
        for account in range(1, money.ACCOUNTS + 1):
            by_shard[money.shard_of(account, shards)].append(account)
        self.groups = list(by_shard.values())
        balances = dict.fromkeys(range(1, money.ACCOUNTS + 1), OPENING_BALANCE)
        for ref in range(-money.OLD_TRANSFERS, 0):
            source, target = chance.sample(self.groups[chance.randrange(len(self.groups))], 2)
            amount = chance.randrange(1, 100)
            self.old[ref] = (source, target, amount)
            balances[source] -= amount
            balances[target] += amount
        pad = "x" * money.PADDING
        (source,) = self.machines.of("source")
        with self.machines.connect(source) as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {TEMPLATE} CHARACTER SET utf8mb4")
            cursor.execute(f"USE {TEMPLATE}")
            for statement in money.SCHEMA:
                cursor.execute(statement)
            cursor.executemany(
                "INSERT INTO accounts VALUES (%s, %s, %s)", [(i, b, pad) for i, b in balances.items()]
            )
            cursor.executemany(
                "INSERT INTO transfers (ref, source, target, amount, note) VALUES (%s, %s, %s, %s, %s)",
                [(ref, *entry, pad) for ref, entry in self.old.items()],
            )

    def close(self) -> None:
        """End everything and delete it."""
        self.kill()
        if self.nursery is not None:
            self.nursery.close()
        self.control.close()
        self.proxies.close()
        if self.asking is not None:
            self.asking.close()
        self.store.close()
        for server in self.machines.all:
            if server.server_id in self.machines.disks:
                self.machines.free_disk(server)
        if self.postgres is not None:
            self.postgres.close()
        self.machines.engine.stop_all(0)
        self.machines.take_disks()
        shutil.rmtree(self.folder)

    # -- homeworld's processes -------------------------------------------------------------------------------

    def start(self, *, proxied: bool = False) -> None:
        """Start all processes and return once they serve.

        :param proxied: they reach servers through the proxies.
        """
        self._proxied = proxied
        config = {
            "folder": str(self.folder),
            "mysqld": self.mysqld,
            "store": self.store_url,
            "control": str(self.folder / "control.sock"),
            "proxies": self.proxies.ports if proxied else {},
        }
        if self.nursery is None:
            self.nursery = Nursery(self.folder / "nursery.sock", self.log, self.mysqld, self.folder / "clock")
        config["nursery"] = self.nursery.path
        (self.folder / "worker.json").write_text(json.dumps(config))
        if self.layout is Layout.UP:
            self.processes = [self._make("all", 0)]
        else:
            self.processes = [self._make("worker", 0), self._make("worker", 1)]
            self.processes += [self._make("gateway", number) for number in range(GATEWAYS)]
            self.processes.append(self._make("api", 0))
        for process in self.processes:
            self._await(process)
        if self.layout is Layout.ROLES and self.asking is None:
            self.asking = Asking(self.folder, self.api_port)

    def _make(self, become: str, number: int) -> Member:
        assert self.nursery is not None
        port = {"worker": 0, "api": self.api_port}.get(become) or self.logins[number].port
        made = self.nursery.make(become, self.folder / "worker.json", self.log, port)
        return Member(become, number, made)

    def _await(self, member: Member) -> None:
        self.control.hello(member.process.pid, 90.0, lambda: member.process.poll() is None)

    def ready(self, *, proxied: bool) -> None:
        """Have processes of that kind."""
        if not self.processes or not self.alive() or self._proxied is not proxied:
            self.kill()
            self.start(proxied=proxied)

    @property
    def workers(self) -> list[int]:
        """The pids of those that perform steps."""
        return [one.process.pid for one in self._workers()]

    def _workers(self) -> list[Member]:
        return [one for one in self.processes if one.become in {"all", "worker"}]

    def alive(self) -> bool:
        """Whether all of them run."""
        return all(one.process.poll() is None for one in self.processes)

    def kill(self) -> None:
        """kill -9 of all."""
        for one in self.processes:
            one.process.kill()
            one.process.wait()
        self.processes = []

    def worker_at(self, pid: int) -> Member:
        """The worker of that pid, or the first one."""
        workers = self._workers()
        return next((one for one in workers if one.process.pid == pid), workers[0])

    @property
    def api(self) -> Member:
        """The process of the API."""
        return next(one for one in self.processes if one.become == "api")

    def gateway(self, number: int) -> Member:
        """A gateway process."""
        return next(one for one in self.processes if (one.become, one.number) == ("gateway", number))

    def kill_one(self, member: Member) -> None:
        """kill -9 of one process."""
        member.process.kill()
        member.process.wait()

    def restart(self, member: Member) -> None:
        """Start it anew, on the same port; returns once it serves."""
        made = self._make(member.become, member.number)
        self.processes[self.processes.index(member)] = made
        self._await(made)

    def mover_pids(self) -> list[int]:
        """The processes that move rows."""
        return [] if self.nursery is None else self.nursery.movers()

    @property
    def long_seconds(self) -> float:
        """What outlasts every deadline."""
        return LONG_SECONDS if self.layout is Layout.UP else ROLES_LONG_SECONDS

    # -- the workflow ----------------------------------------------------------------------------------------

    def workflow(self) -> Workflow:
        """As it is stored now."""
        with self.store.read() as tx:
            return tx.workflows.get(self.workflow_id)

    def create(self) -> None:
        """Ask for a workflow, as the API does."""
        with self.store.write() as tx:
            ids = [tx.keyspaces.by_name(self.branch_id, name).id for name in (SOURCE, TARGET)]
            self.workflow_id = tx.workflows.create(
                self.database_id, self.branch_id, "move", ids[0], ids[1], money.TABLES
            ).id

    def ask(self, trigger: Trigger) -> bool:
        """Ask for a transition; whether it was allowed. Where there is no API it is written as the API does,
        and lag is not asked.
        """
        if self.asking is not None:
            with self.store.read() as tx:
                number = tx.workflows.get(self.workflow_id).number
            self.refusal = self.asking.ask(number, trigger)
            return not self.refusal
        with self.store.write() as tx:
            workflow = tx.workflows.get(self.workflow_id)
            now = replace(facts(workflow), lag_low=True)
            offered = {(row.source, row.trigger) for row in MOVE_TABLES.rows if row.kind is Kind.ASKED}
            if (workflow.state, trigger) not in offered:
                return False
            row = MOVE_TABLES.take(workflow.state, trigger, now.holds)
            tx.workflows.transition(workflow.id, workflow.state, row)
            return True

    def wait(self, what: str, holds: Callable[[], object], seconds: float) -> None:
        """Until it is so; fails with ``what`` otherwise."""
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
            assert self.alive(), f"{what}: the worker has ended"
            time.sleep(0.02)

    # -- between runs ----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """The tables as in the template, vschemas and rules as at first, and nothing else anywhere."""
        for server in self.machines.primaries:
            self.wait("a server answers", lambda server=server: self.machines.answers(server), 60)
            self._empty(server)
        self._forget_logs()
        (source,) = self.machines.of("source")
        for table in money.TABLES:
            self.machines.run(
                source,
                f"CREATE TABLE {source.schema}.{table} LIKE {TEMPLATE}.{table}",
                f"INSERT INTO {source.schema}.{table} SELECT * FROM {TEMPLATE}.{table}",
            )
        with self.store.write() as tx:
            for name, vschema in ((SOURCE, {}), (TARGET, money.VSCHEMA)):
                tx.keyspaces.update(tx.keyspaces.by_name(self.branch_id, name).id, vschema=vschema)
            tx.routes.replace_rules(self.branch_id, {})
        self.wait("the reset is served", self._served, 60)

    def _served(self) -> bool:
        # The worker publishes what others store within half a second; a statement that names a table of the
        # source proves it.
        time.sleep(0.6)
        for login in self.logins:
            with login.connect(SOURCE) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT COUNT(*) FROM transfers")
                if cursor.fetchone() != (money.OLD_TRANSFERS,):
                    return False
        return True

    def _forget_logs(self) -> None:
        """Binlogs of runs before the last go, so that disks last; replicas have them by then."""
        for server in self.machines.primaries:
            oldest = self._logs.get(server.server_id)
            if oldest:
                self.machines.run(server, f"PURGE BINARY LOGS TO '{oldest}'")
            self.machines.run(server, "FLUSH BINARY LOGS")
            self._logs[server.server_id] = str(self.machines.run(server, "SHOW BINARY LOGS")[-1][0])

    def _empty(self, server: Server) -> None:
        rows = self.machines.run(server, f"SHOW TABLES FROM {server.schema}")
        names = ", ".join(f"{server.schema}.`{row[0]}`" for row in rows)
        if names:
            self.machines.run(server, f"DROP TABLE {names}")

    def begin_anew(self) -> None:
        """After a run that ended nobody knows how: no workflow is under way, no sidecar has rows."""
        self.kill()
        self.clock.set(0.0)
        for server in self.machines.primaries:
            self.machines.free_disk(server)
        self.machines.engine.start_all()
        with self.store.write() as tx:
            workflow = tx.workflows.get(self.workflow_id) if self.workflow_id else None
            if workflow is not None and workflow.state not in MOVE_TABLES.terminal:
                self._bury(tx)
        for server in self.machines.primaries:
            for table in SIDECARS:
                if self.machines.has_table(server, "_homeworld", table):
                    self.machines.run(server, f"DELETE FROM _homeworld.{table}")

    def _bury(self, tx: Any) -> None:
        from homeworld.store.tables.workflows import workflows

        tx.work.connection.execute(
            workflows.update()
            .where(workflows.c.id == self.workflow_id)
            .values(state=State.CANCELLED.value, settled=True, facts={})
        )
        tx.routes.replace_rules(self.branch_id, {})
        closing = tx.routes.closing(self.branch_id)
        if closing is not None:
            tx.routes.forget_closing(self.branch_id, closing.subject)
