"""An installation in the test's own process: real servers, gateway, movers and executor, without the API.

Each test gets databases of its own on servers of its own; the store is a fresh SQLite file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql

from homeworld.engines.local import LocalEngine
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.names import new_id
from homeworld.model.ports import MoveWish
from homeworld.model.states.lifecycle import Life
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.topology import BackendRole
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.store.guards import facts
from homeworld.store.keyspaces import Keyspace
from homeworld.store.provision import bootstrap, create_database
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.assemble import make_executor, make_preconditions
from homeworld.workflows.executor import Executor
from homeworld.workflows.move_tables import steps_switch
from homeworld.workflows.provisioning import Placement
from tests.support.gateways import Several

PATIENCE = 60.0
# A machine that runs other tests beside may be late by seconds; clients wait for a minute.
steps_switch.SWITCH_SECONDS, steps_switch.LOCK_SECONDS = 18.0, 15.0


class Stack:
    """One installation with one database ``shop``; see :meth:`open`."""

    def __init__(
        self, engine: LocalEngine, folder: Path, placement: Placement = Placement.SHARED, gateways: int = 1,
        *, store_url: str = "",
    ) -> None:  # fmt: skip
        self.engine = engine
        self.placement = placement
        self.store = Store.open(store_url or f"sqlite:///{folder / 'homeworld.db'}")
        bootstrap(self.store, "acme", "local", "Local")
        self.gateways = Several(*(Gateway(router_factory=Router) for _ in range(gateways)))
        self.gateway = self.gateways.gateways[0]
        self.routing = Routing(
            self.store,
            lambda server_id: engine.endpoint(server_id, BackendRole.READER),
            lambda _branch_id: engine.credentials(),
        )
        self.movers = MoverProcesses()
        self.executor: Executor | None = None
        self.branch_id = ""
        self.database_id = ""
        self.login: tuple[str, str] = ("", "")

    # -- life ------------------------------------------------------------------------------------------------

    def publish(self) -> None:
        self.gateways.publish(self.routing.snapshot())

    def start(self) -> None:
        """Start gateways and executor."""
        self.gateways.start()
        self.publish()
        self.start_executor()

    def start_executor(self) -> None:
        self.executor = make_executor(
            self.store, self.engine, self.gateways, self.movers, TableFence(), self.publish,
            owner=f"test-{new_id()}", placement=self.placement,
        )  # fmt: skip
        self.executor.start()

    def stop_executor(self) -> None:
        if self.executor is not None:
            self.executor.stop(30.0)
            assert self.executor.failure is None, self.executor.failure
            self.executor = None

    def close(self) -> None:
        self.stop_executor()
        self.movers.close()
        self.gateways.stop(1.0)
        self.store.close()

    # -- resources -------------------------------------------------------------------------------------------

    def open(self, *, replicas: int = 0) -> None:
        """Make the database ``shop`` and a password; returns once it is ready."""
        self.begin_database(replicas=replicas)
        self.finish_database()

    def begin_database(self, *, replicas: int = 0) -> str:
        """Ask for the database; its id."""
        with self.store.write() as tx:
            organization = tx.organizations.ensure("acme")
            database = create_database(tx, organization.id, "shop", self.engine.flavor, replicas=replicas)
            self.branch_id = tx.branches.default(database.id).id
            tx.branches.update(self.branch_id, safe_migrations=True)
            password, plain = tx.passwords.create(self.branch_id, role=BackendRole.ADMIN)
        self.login = (password.username, plain)
        self.database_id = database.id
        return database.id

    def finish_database(self) -> None:
        """Wait until it is ready."""

        def ready() -> bool:
            with self.store.read() as tx:
                return tx.databases.get(self.database_id).state is Life.READY

        wait(ready, "the database is ready")
        self.publish()

    def keyspace(self, name: str) -> Keyspace:
        with self.store.read() as tx:
            return tx.keyspaces.by_name(self.branch_id, name)

    def add_keyspace(
        self, name: str, vschema: Mapping[str, Any] | None = None, *, shards: int = 1, replicas: int = 0
    ) -> Keyspace:
        """A ready keyspace."""
        with self.store.write() as tx:
            made = tx.keyspaces.create(
                self.branch_id, name, shards=shards, vschema=vschema, replicas=replicas
            )
        wait(lambda: self.keyspace(name).state is Life.READY, f"keyspace {name} is ready")
        self.publish()
        return made

    # -- clients ---------------------------------------------------------------------------------------------

    def connect(
        self, schema: str = "shop", gateway: Gateway | None = None, **options: Any
    ) -> pymysql.connections.Connection[Any]:
        """Through the gateway, the first one where none is named."""
        user, password = self.login
        settings: dict[str, Any] = {"autocommit": True, "read_timeout": 60, "charset": "utf8mb4"}
        settings |= {"ssl_disabled": True, **options}  # there is no TLS at this gateway
        return pymysql.connect(
            host="127.0.0.1",
            port=(gateway or self.gateway).port,
            user=user,
            password=password,
            database=schema,
            **settings,
        )

    def run(self, *statements: str, schema: str = "shop") -> list[tuple[Any, ...]]:
        """Through the gateway; the last statement's rows."""
        with self.connect(schema) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def on_server(self, keyspace: str, sql: str) -> list[tuple[Any, ...]]:
        """On each shard's primary, past the gateway, as its owner; all rows together."""
        found: list[tuple[Any, ...]] = []
        with self.store.read() as tx:
            shards = tx.keyspaces.shards(self.keyspace(keyspace).id)
        for shard in shards:
            endpoint = self.engine.endpoint(shard.primary_server_id or "", BackendRole.OWNER)
            connection = pymysql.connect(
                unix_socket=endpoint.socket, user=endpoint.user, password=endpoint.password,
                database=shard.schema_name, autocommit=True, charset="utf8mb4", ssl_disabled=True,
            )  # fmt: skip
            with connection, connection.cursor() as cursor:
                cursor.execute(sql)
                found += cursor.fetchall()
        return found

    # -- workflows -------------------------------------------------------------------------------------------

    def wish(self, source: str, target: str, tables: Sequence[str]) -> MoveWish:
        ids = self.keyspace(source).id, self.keyspace(target).id
        return MoveWish(self.branch_id, *ids, None, tuple(tables))

    def reasons(self, source: str, target: str, tables: Sequence[str]) -> tuple[str, ...]:
        return make_preconditions(self.store, self.engine).reasons(self.wish(source, target, tables))

    def move(self, source: str, target: str, tables: Sequence[str], **options: Any) -> str:
        """Ask for a workflow, as the API does; its id."""
        wish = self.wish(source, target, tables)
        assert self.reasons(source, target, tables) == ()
        with self.store.write() as tx:
            return tx.workflows.create(
                self.database_id, self.branch_id, "move", wish.source_keyspace_id, wish.target_keyspace_id,
                tables, **options,
            ).id  # fmt: skip

    def workflow(self, workflow_id: str) -> Workflow:
        with self.store.read() as tx:
            return tx.workflows.get(workflow_id)

    def reaches(self, workflow_id: str, *states: State, seconds: float = PATIENCE) -> Workflow:
        """Wait for one of these states."""
        wait(
            lambda: self.workflow(workflow_id).state in states,
            lambda: f"{states}: {self.workflow(workflow_id)}",
            seconds,
        )
        return self.workflow(workflow_id)

    def ask(self, workflow_id: str, trigger: Trigger, state: State) -> Workflow:
        """Ask as the API does, and wait for the state; lag is waited for."""

        def allowed() -> bool:
            workflow = self.workflow(workflow_id)
            now = facts(workflow)
            return now.lag_low or not any(
                "lag_low" in row.guard_names
                for row in MOVE_TABLES.rows
                if row.source is workflow.state and row.trigger is trigger
            )

        wait(allowed, "lag is low")
        self.transition(workflow_id, trigger)
        return self.reaches(workflow_id, state, State.ERROR)

    def transition(self, workflow_id: str, trigger: Trigger) -> None:
        """Take an asked transition; whatever the lag is."""
        workflow = self.workflow(workflow_id)
        row = MOVE_TABLES.take(workflow.state, trigger, replace(facts(workflow), lag_low=True).holds)
        with self.store.write() as tx:
            tx.workflows.transition(workflow.id, workflow.state, row)


def wait(
    done: Callable[[], bool], what: str | Callable[[], str], seconds: float = PATIENCE, step: float = 0.02
) -> None:
    """Look until it is so."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"not in time: {what if isinstance(what, str) else what()}")
        time.sleep(step)


class Application(threading.Thread):
    """A client that inserts, updates and deletes through the gateway, and remembers what it was told.

    Every commit that was acknowledged is in :attr:`rows`; any error is in :attr:`errors`.

    :param pause: seconds between two rows.
    """

    def __init__(
        self,
        stack: Stack,
        schema: str = "shop",
        rows: dict[int, int] | None = None,
        gateway: Gateway | None = None,
        pause: float = 0.002,
    ) -> None:
        super().__init__(name="application", daemon=True)
        self.pause = pause
        self.stack = stack
        self.gateway = gateway
        self.schema = schema
        self.rows: dict[int, int] = dict(rows or {})
        self.errors: list[BaseException] = []
        self.longest = 0.0
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            with self.stack.connect(self.schema, self.gateway) as connection:
                self._work(connection)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def _work(self, connection: pymysql.connections.Connection[Any]) -> None:
        count = 0
        with connection.cursor() as cursor:
            while not self._ending.is_set():
                count += 1
                begun = time.monotonic()
                cursor.execute("INSERT INTO orders (customer, amount) VALUES (%s, %s)", (count % 7, count))
                key = int(cursor.lastrowid)
                assert key not in self.rows, f"id {key} was given out twice"
                self.rows[key] = count
                if count % 3 == 0:
                    cursor.execute("UPDATE orders SET amount = %s WHERE id = %s", (count * 10, key))
                    self.rows[key] = count * 10
                if count % 5 == 0:
                    cursor.execute("DELETE FROM orders WHERE id = %s", (key,))
                    del self.rows[key]
                self.longest = max(self.longest, time.monotonic() - begun)
                time.sleep(self.pause)

    def finish(self) -> dict[int, int]:
        """Stop, and give what has to be in the table."""
        self._ending.set()
        self.join(60.0)
        assert not self.is_alive()
        assert not self.errors, self.errors
        return self.rows
