"""A shop on a real Vitess cluster whose tables move, with an executor's process that can be killed anywhere.

Clients reach vtgate past homeworld's gateways here; what a gateway does of holds and closings is a gate in
this process that each of their statements passes (:class:`Gate`).
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql

from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess.cluster import LocalClusters
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.engines.vitess.tablet_vars import HttpVars
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.engines import EngineKind
from homeworld.model.errors import DeadlineExceededError, InvalidError
from homeworld.model.ports import MoveWish, Preconditions
from homeworld.model.routing import HoldRequest, RoutingSnapshot
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.fence import TableFence
from homeworld.store.guards import facts
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.assemble import make_preconditions
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables.context import Context, Ports, VitessPorts
from homeworld.workflows.move_tables.handler import Means, MoveTables
from homeworld.workflows.move_tables.servers import ServerTools
from homeworld.workflows.move_tables.vitess_known import finder
from homeworld.workflows.move_tables.vitess_mover import VitessMovers
from homeworld.workflows.move_tables.vitess_plans import vitess_plans
from homeworld.workflows.steps import Plan, Step
from tests.support.moving_shop import Died, Hook
from tests.support.vitess import FOLLOW_SECONDS, connect, make_engine, programs, scratch_home

S, T = State, Trigger
ROWS = 500
SOURCE, TARGET, PLAIN = "shop", "wide", "plain"
ORDERS = (
    "CREATE TABLE orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, customer INT NOT NULL,"
    " amount BIGINT NOT NULL, note VARCHAR(40) DEFAULT 'é', KEY by_customer (customer))"
)
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
PATIENCE = 90.0


class Gate:
    """Implements ``model.ports.Gateways`` for statements of this process. ``stalled`` is the longest that one
    waited.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holds: dict[str, HoldRequest] = {}
        self._closed = ""
        self._under_way = 0
        self.stalled = 0.0

    @contextmanager
    def statement(self) -> Generator[None]:
        """Around each statement of a client."""
        begun = time.monotonic()
        with self._changed:
            while self._holds or self._closed:
                self._changed.wait(1.0)
            self._under_way += 1
        self.stalled = max(self.stalled, time.monotonic() - begun)
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def publish(self, snapshot: RoutingSnapshot) -> None: ...

    def close(self, subject: str) -> None:
        """What is published closes the tables for this run."""
        with self._changed:
            self._closed = subject

    def hold(self, request: HoldRequest) -> None:
        deadline = time.monotonic() + request.drain_seconds
        with self._changed:
            self._holds = {k: h for k, h in self._holds.items() if h.subject != request.subject}
            self._holds[request.hold_id] = request
            while self._under_way:
                if time.monotonic() > deadline:
                    del self._holds[request.hold_id]
                    self._changed.notify_all()
                    raise DeadlineExceededError("statements under way do not end")
                self._changed.wait(0.05)

    def release(self, hold_id: str) -> None:
        with self._changed:
            self._holds.pop(hold_id, None)
            self._changed.notify_all()

    def open(self, subject: str) -> None:
        with self._changed:
            assert self._closed in ("", subject)
            self._closed = ""
            self._changed.notify_all()

    def is_held(self, hold_id: str) -> bool:
        return hold_id in self._holds


class MovingShop:
    """One branch on Vitess: ``shop`` and ``plain`` unsharded, ``wide`` in two shards, on two servers."""

    def __init__(self, engine: LocalEngine, clusters: LocalClusters, folder: Path) -> None:
        self.engine, self.clusters = engine, clusters
        self.store = Store.open(f"sqlite:///{folder / 'homeworld.db'}")
        self.gate = Gate()
        made = life_row(Life.PENDING, LifeTrigger.MADE)
        with self.store.write() as tx:
            organization = tx.organizations.ensure("acme")
            region = tx.regions.ensure("local", display_name="Local", provider="Homeworld", location="Here")
            database = tx.databases.create(
                organization.id, SOURCE, region.id, Flavor.MYSQL, engine=EngineKind.VITESS
            )
            branch = tx.branches.create(database.id, "main", region.id, production=True, is_default=True)
            tx.branches.update(branch.id, safe_migrations=True)
            source = tx.keyspaces.create(branch.id, SOURCE, is_default=True)
            target = tx.keyspaces.create(branch.id, TARGET, shards=2, vschema=VSCHEMA)
            plain = tx.keyspaces.create(branch.id, PLAIN)
            servers = [tx.servers.create(branch.id, Flavor.MYSQL) for _ in range(2)]
            homes = [shard for one in (source, target, plain) for shard in tx.keyspaces.shards(one.id)]
            places = (servers[0], *servers, servers[1])
            for shard, server in zip(homes, places, strict=True):
                tx.keyspaces.place(shard.id, server.id, [])
            for keyspace in (source, target, plain):
                tx.keyspaces.transition(keyspace.id, Life.PENDING, made)
            for server in servers:
                tx.servers.transition(server.id, Life.PENDING, made)
            tx.branches.transition(branch.id, Life.PENDING, made)
            tx.databases.transition(database.id, Life.PENDING, made)
        self.database_id, self.branch_id = database.id, branch.id
        self.keyspaces = {SOURCE: source.id, TARGET: target.id, PLAIN: plain.id}
        for server in servers:
            engine.create_server(server.id)
        for shard, server in zip(homes, places, strict=True):
            engine.create_schema(server.id, shard.schema_name)
        self.followed(self.branch_id, lambda: None)

    def spec(self) -> ClusterSpec:
        """What is stored."""
        found: list[ClusterKeyspace] = []
        with self.store.read() as tx:
            for keyspace in sorted(tx.keyspaces.of_branch(self.branch_id), key=lambda one: one.name):
                shards = tuple(
                    ClusterShard(shard.name, shard.schema_name, shard.primary_server_id or "", ())
                    for shard in tx.keyspaces.shards(keyspace.id)
                )
                found.append(ClusterKeyspace(keyspace.name, keyspace.sharded, keyspace.vschema, shards))
        return ClusterSpec(self.branch_id, tuple(found))

    def followed(self, branch_id: str, check: Callable[[], None]) -> None:
        """The cluster is what is stored, but for rules."""
        assert branch_id == self.branch_id
        check()
        self.clusters.follow(self.spec(), FOLLOW_SECONDS)

    def publish(self) -> None:
        """Gateways take what is stored."""
        with self.store.read() as tx:
            closing = tx.routes.closing(self.branch_id)
        if closing is not None:
            self.gate.close(closing.subject)

    # -- clients ---------------------------------------------------------------------------------------------

    def connect(self, schema: str = SOURCE) -> pymysql.Connection[Any]:
        return connect(self.clusters, self.engine, self.branch_id, BackendRole.ADMIN, schema)

    def run(self, *statements: str, schema: str = SOURCE) -> list[tuple[Any, ...]]:
        """Through vtgate; the last statement's rows."""
        with contextlib.closing(self.connect(schema)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def insert(self, sql: str, schema: str = SOURCE) -> int:
        """Through vtgate; the id that the row was given."""
        with contextlib.closing(self.connect(schema)) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return int(cursor.lastrowid or 0)

    def on_server(self, keyspace: str, sql: str) -> list[tuple[Any, ...]]:
        """On each shard's primary, past Vitess, as the owner; all rows together."""
        found: list[tuple[Any, ...]] = []
        with self.store.read() as tx:
            shards = tx.keyspaces.shards(self.keyspaces[keyspace])
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

    def exists(self, keyspace: str, table: str = "orders") -> bool:
        return bool(self.on_server(keyspace, f"SHOW TABLES LIKE '{table}'"))

    # -- workflows -------------------------------------------------------------------------------------------

    def fill(self) -> None:
        """The source's table, with rows. Its schema is told to the cluster's tablets."""
        self.on_server(SOURCE, ORDERS)
        values = ", ".join(f"({number % 7}, {number})" for number in range(ROWS))
        self.on_server(SOURCE, f"INSERT INTO orders (customer, amount) VALUES {values}")
        self.clusters.run(
            self.branch_id, "ReloadSchemaKeyspace", "--include-primary", SOURCE, timeout_seconds=30.0
        )

    def reasons(self, source: str = SOURCE, target: str = TARGET) -> tuple[str, ...]:
        """Why the table could not be moved."""
        wish = MoveWish(self.branch_id, self.keyspaces[source], self.keyspaces[target], None, ("orders",))
        return make_preconditions(self.store, self.engine).reasons(wish)

    def move(self, source: str = SOURCE, target: str = TARGET, **options: Any) -> str:
        """Ask for a workflow, as the API does; its id."""
        assert self.reasons(source, target) == ()
        with self.store.write() as tx:
            return tx.workflows.create(
                self.database_id, self.branch_id, "move", self.keyspaces[source], self.keyspaces[target],
                ["orders"], **options,
            ).id  # fmt: skip

    def workflow(self, workflow_id: str) -> Workflow:
        with self.store.read() as tx:
            return tx.workflows.get(workflow_id)

    def ask(self, workflow_id: str, trigger: Trigger) -> None:
        """Take an asked transition, whatever the lag is."""
        workflow = self.workflow(workflow_id)
        row = MOVE_TABLES.take(workflow.state, trigger, replace(facts(workflow), lag_low=True).holds)
        with self.store.write() as tx:
            tx.workflows.transition(workflow.id, workflow.state, row)

    def rules(self) -> dict[str, str]:
        with self.store.read() as tx:
            return dict(tx.routes.rules(self.branch_id))

    def clear(self) -> None:
        """Nothing of a test is left, whatever became of its workflow."""
        with self.store.read() as tx:
            active = tx.workflows.active_on([self.branch_id]).get(self.branch_id)
        if active is not None:
            with contextlib.suppress(AssertionError, InvalidError):
                Acting(self, active.id).go(T.CANCEL, S.CANCELLED)
        for keyspace in (SOURCE, TARGET, PLAIN):
            self.on_server(keyspace, "DROP TABLE IF EXISTS orders, orders_seq")
        with self.store.write() as tx:
            tx.routes.replace_rules(self.branch_id, {})
            for keyspace in (SOURCE, PLAIN):
                tx.keyspaces.update(self.keyspaces[keyspace], vschema={})
            tx.keyspaces.update(self.keyspaces[TARGET], vschema=VSCHEMA)
        self.followed(self.branch_id, lambda: None)
        self.clusters.apply_rules(self.branch_id, {})


class Acting:
    """An executor's process that handles one workflow.

    :param hook: called with before or after and a step's name; it may raise Died.
    :param vtctld: what commands go through, where they are to be disturbed.
    :param plans: how writes are switched: ``attached_plans`` by Vitess alone.
    """

    def __init__(
        self,
        shop: MovingShop,
        workflow: str,
        hook: Hook = lambda _when, _step: None,
        vtctld: Any = None,
        plans: Callable[[Preconditions], Mapping[str, Plan[Context]]] = vitess_plans,
    ) -> None:
        self.shop, self.workflow = shop, workflow
        self.moves = VitessMoves(vtctld or shop.clusters, HttpVars(shop.clusters))
        preconditions = make_preconditions(shop.store, shop.engine)
        movers = VitessMovers(self.moves, finder(shop.store, shop.engine))
        ports = Ports(
            shop.store, shop.engine, shop.gate, movers, TableFence(), shop.publish, ServerTools,
            VitessPorts(shop.clusters, self.moves, shop.followed),
        )  # fmt: skip
        self.newest: list[Context] = []

        def noted(when: str, step: str, context: Context) -> None:
            self.newest = [context]
            hook(when, step)

        noting = {name: _hooked(plan, noted) for name, plan in plans(preconditions).items()}
        self.handler = MoveTables(ports, preconditions, vitess=Means(ports, noting))
        with shop.store.write() as tx:
            token = tx.leases.acquire(f"workflow:{workflow}", "me", 0.2)
        assert token is not None
        self.lease = Lease(f"workflow:{workflow}", token, time.monotonic() + 3600.0)

    def run(self, *ends: State, seconds: float = PATIENCE) -> bool:
        """Until the workflow is in one of these states and settled; whether it was killed meanwhile."""
        deadline = time.monotonic() + seconds
        try:
            while True:
                workflow = self.shop.workflow(self.workflow)
                if workflow.state in ends and (workflow.settled or workflow.state is not S.COMPLETED):
                    return False
                assert workflow.state is not S.ERROR, workflow.workflow_errors
                assert time.monotonic() < deadline, f"{workflow.state}: {workflow.workflow_errors}"
                rest = self.handler.tick(self.workflow, self.lease)
                time.sleep(min(0.2, rest.seconds) if rest else 0.0)
        except Died:
            return True

    def die(self) -> None:
        """What ends with a process: its connections to servers, its locks, and commands that wait for it."""
        for context in self.newest:
            context.hand.unlock()
            context.hand.leave_rules()
            context.hand.tools.close()

    def settle(self) -> None:
        """Until a resting state's rules are in force."""
        deadline = time.monotonic() + PATIENCE
        while not self.shop.workflow(self.workflow).settled:
            assert time.monotonic() < deadline
            rest = self.handler.tick(self.workflow, self.lease)
            time.sleep(0.05 if rest else 0.0)

    def go(self, trigger: Trigger, *ends: State) -> Workflow:
        """Ask, and run until it is there."""
        self.shop.ask(self.workflow, trigger)
        assert not self.run(*ends)
        return self.shop.workflow(self.workflow)


def _hooked(plan: Plan[Context], hook: Callable[[str, str, Context], None]) -> Plan[Context]:
    def wrap(step: Step[Context]) -> Step[Context]:
        def perform(context: Context) -> None:
            hook("before", step.name, context)
            step.perform(context)
            hook("after", step.name, context)

        return replace(step, perform=perform)

    return replace(plan, steps=tuple(map(wrap, plan.steps)))


class Application(threading.Thread):
    """A client that inserts, updates and deletes, and remembers what it was told."""

    def __init__(self, shop: MovingShop, schema: str = SOURCE, rows: Mapping[int, int] | None = None) -> None:
        super().__init__(name="application", daemon=True)
        self.shop, self.schema = shop, schema
        self.rows: dict[int, int] = dict(rows or {})
        self.errors: list[BaseException] = []
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            with contextlib.closing(self.shop.connect(self.schema)) as connection:
                self._work(connection)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.errors.append(error)

    def _work(self, connection: pymysql.Connection[Any]) -> None:
        count = 0
        with connection.cursor() as cursor:
            while not self._ending.is_set():
                count += 1
                with self.shop.gate.statement():
                    cursor.execute(
                        "INSERT INTO orders (customer, amount) VALUES (%s, %s)", (count % 7, count)
                    )
                key = int(cursor.lastrowid)
                assert key not in self.rows, f"id {key} was given out twice"
                self.rows[key] = count
                if count % 3 == 0:
                    with self.shop.gate.statement():
                        cursor.execute("UPDATE orders SET amount = %s WHERE id = %s", (count * 10, key))
                    self.rows[key] = count * 10
                if count % 5 == 0:
                    with self.shop.gate.statement():
                        cursor.execute("DELETE FROM orders WHERE id = %s", (key,))
                    del self.rows[key]
                time.sleep(0.01)

    def finish(self) -> dict[int, int]:
        """Stop, and give what has to be in the table."""
        self._ending.set()
        self.join(60.0)
        assert not self.is_alive()
        assert not self.errors, self.errors
        return self.rows


def check(shop: MovingShop, wanted: Mapping[int, int], keyspace: str) -> None:
    """Exactly the rows that were acknowledged, and those from before."""
    found = dict(shop.on_server(keyspace, "SELECT id, amount FROM orders"))
    assert {key: found.get(key) for key in wanted} == dict(wanted)
    assert len(found) == len(wanted) + ROWS


def begin_shop(folder: Path, options: tuple[str, ...]) -> Iterator[MovingShop]:
    """The shop, once its cluster serves; ends all of it after."""
    found = programs()
    engine = make_engine(folder, options)
    home = scratch_home()
    clusters = LocalClusters(engine, folder, home=home, programs=found)
    shop: MovingShop | None = None
    try:
        shop = MovingShop(engine, clusters, folder)
        yield shop
    finally:
        if shop is not None:
            shop.store.close()
        clusters.stop_all()
        for server_id in engine.list_servers():
            engine.destroy_server(server_id)
        shutil.rmtree(home, ignore_errors=True)
