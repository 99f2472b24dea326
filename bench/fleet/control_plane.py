"""``python -m bench.fleet.control_plane STORE_URL``: all roles of an installation in one process, as
``homeworld up``, over servers that are only simulated.

Everything but the engine is the product's own. New branches' tables are not copied, for there are none. It
does what its stdin says (``asked``); measuring acts give seconds.
"""

from __future__ import annotations

import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from unittest.mock import patch

from tests.support.fleet_engine import FleetEngine

from bench.fleet import asked
from bench.harness import percentile, seconds_of
from bench.serving import NothingMoves
from homeworld.api.app import create_app
from homeworld.api.calls import Settings
from homeworld.api.event_subjects import EventSubjects
from homeworld.engines.watcher import Watcher
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.metering.meter import Meter
from homeworld.metering.prices import Prices
from homeworld.model.addresses import Reach
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import BackendRole
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.roles.errands import Errands
from homeworld.roles.ground import listen
from homeworld.roles.serving import ApiServer
from homeworld.store import provision
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.webhooks.dispatcher import Dispatcher
from homeworld.webhooks.sending import Post
from homeworld.workflows.assemble import make_executor, make_placements
from homeworld.workflows.failover import CatchingUp, catch_up
from homeworld.workflows.inspection import ServerInspection
from homeworld.workflows.leases import Keeper
from homeworld.workflows.maintenance.handler import Opening
from homeworld.workflows.provisioning.ports import Placement

ORGANIZATION = "fleet"
REPLICAS = 1
WAIT_SECONDS = 3600.0
_STEP_SECONDS = 0.002


class ControlPlane:
    """The roles, and what is measured of them."""

    def __init__(self, url: str, stack: ExitStack) -> None:
        self.url = url
        self._stack = stack
        self.engine = FleetEngine()
        self.phases: dict[str, float] = {}
        self.phases["open the store"] = seconds_of(self._open)
        self._adopt()  # LocalEngine reads the same from its disk

    def _open(self) -> None:
        self.store = Store.open(self.url)
        self._stack.callback(self.store.close)

    def _adopt(self) -> None:
        with self.store.read() as tx:
            servers = [server for server in tx.servers.own() if server.state is Life.READY]
        self.engine.adopt((server.id, server.replica_of, ()) for server in servers)

    def start(self) -> dict[str, object]:
        """Start everything in the order of ``up``; phases in seconds, and the API's address."""
        stack, engine, store = self._stack, self.engine, self.store
        provision.bootstrap(store, ORGANIZATION, "local", "Local")
        self.phases["catch up with promotions"] = seconds_of(lambda: catch_up(store, engine))
        self.routing = self._routing()
        self.phases["first snapshot"] = seconds_of(self.routing.snapshot)
        self.gateway = Gateway(router_factory=Router)
        snapshot = self.routing.snapshot()
        self.phases["gateway"] = seconds_of(lambda: self.gateway.start(snapshot))
        stack.callback(lambda: self.gateway.stop(1.0))
        movers = MoverProcesses()
        stack.callback(movers.close)
        # The fleet's tables are nowhere.
        stack.enter_context(patch("homeworld.workflows.provisioning.keyspaces.copy_definitions", _no_tables))
        self.executor = make_executor(
            store, engine, self.gateway, movers, TableFence(), self.publish,
            owner="up:fleet", placement=Placement.DEDICATED,
        )  # fmt: skip
        settings = Settings(
            NothingMoves(),
            placements=make_placements(store, engine, self.gateway, self.publish),
            inspection=ServerInspection(store, engine),
            flavor=engine.flavor,
            routes_changed=self.publish,
            replicas=REPLICAS,
        )
        webhooks = Dispatcher(store, EventSubjects(settings, ""), Post(Reach(())))
        self.errands = Errands(store, "up:fleet", [webhooks, Opening(store)])
        listener = stack.enter_context(listen(0, "--api-port"))
        self.phases["executor, errands, API"] = seconds_of(lambda: self._serve(settings, listener))
        return {
            "phases": self.phases,
            "seconds": sum(self.phases.values()),
            "api": f"http://127.0.0.1:{listener.getsockname()[1]}",
        }

    def _serve(self, settings: Settings, listener: socket.socket) -> None:
        self.executor.start()
        self._stack.callback(lambda: self.executor.stop(20.0))
        self.errands.start()
        self._stack.callback(lambda: self.errands.stop(5.0))
        api = ApiServer(create_app(self.store, settings), listener)
        api.start()
        self._stack.callback(lambda: api.stop(2.0))

    def _routing(self) -> Routing:
        return Routing(
            self.store,
            lambda server_id: self.engine.endpoint(server_id, BackendRole.READER),
            lambda _branch_id: self.engine.credentials(),
        )

    def publish(self) -> None:
        """As ``up`` does."""
        self.gateway.publish(self.routing.snapshot())

    # -- asking for resources --------------------------------------------------------------------------------

    def token(self) -> str:
        """The value of the Authorization header that may do anything."""
        with self.store.write() as tx:
            organization = tx.organizations.by_name(ORGANIZATION)
            token, secret = tx.tokens.create(organization.id, "bench")
            tx.tokens.grant_all(token.id, organization.id)
        return f"{token.id}:{secret}"

    def database(self, name: str) -> str:
        """A ready database of that name; its id."""
        with self.store.write() as tx:
            organization = tx.organizations.by_name(ORGANIZATION)
            made = provision.create_database(
                tx, organization.id, name, self.engine.flavor, replicas=REPLICAS
            ).id
        self.settled()
        return made

    def passwords(self, database: str) -> int:
        """A password for each branch of a database."""
        with self.store.write() as tx:
            branches = tx.branches.of_database(self._database(database))
            for branch in branches:
                tx.passwords.create(branch.id)
        return len(branches)

    def keyspace(self, database: str, name: str, shards: int) -> float:
        """Ask for a keyspace on servers of its own; seconds until it is ready."""
        begun = time.monotonic()
        with self.store.write() as tx:
            branch = tx.branches.default(self._database(database))
            tx.keyspaces.create(branch.id, name, shards=shards, replicas=REPLICAS)
        self.settled()
        return time.monotonic() - begun

    def branches(self, database: str, prefix: str, count: int) -> float:
        """Ask for so many branches at once; seconds until all are ready."""
        begun = time.monotonic()
        self._ask(database, [f"{prefix}-{number}" for number in range(count)])
        self.settled()
        return time.monotonic() - begun

    def _ask(self, database: str, names: Sequence[str]) -> list[str]:
        with self.store.write() as tx:
            found = tx.databases.get(self._database(database))
            return [provision.create_branch(tx, found, name).id for name in names]

    def _database(self, name: str) -> str:
        with self.store.read() as tx:
            return tx.databases.by_name(tx.organizations.by_name(ORGANIZATION).id, name).id

    def settled(self) -> float:
        """Wait until nothing asks for work; seconds."""
        begun = time.monotonic()
        while True:
            with self.store.read() as tx:
                if not tx.queue.resources_with_work():
                    return time.monotonic() - begun
            if self.executor.failure is not None or time.monotonic() - begun > WAIT_SECONDS:
                raise RuntimeError(f"it does not settle: {self.executor.failure!r}")
            time.sleep(0.05)

    def stuck(self, database: str, count: int) -> int:
        """Ask for branches whose servers do not come up; how many resources are at work."""
        self.engine.refusing = True
        self._ask(database, [f"stuck-{number}" for number in range(count)])
        while True:
            with self.store.read() as tx:
                work = [item for item in tx.queue.resources_with_work() if item.kind == "keyspace"]
                told = [tx.keyspaces.get(item.id).error for item in work]
            if len(told) == count and all(told):
                break
            time.sleep(0.1)
        self.engine.refusing = False
        with self.store.read() as tx:
            return len(tx.queue.resources_with_work())

    def relent(self) -> float:
        """Let the stuck ones come up; seconds until all are ready."""
        self.engine.relent()
        return self.settled()

    # -- measuring -------------------------------------------------------------------------------------------

    def pick_up(self, database: str, prefix: str, times: int) -> dict[str, list[float]]:
        """Ask for one branch after the other: from the commit, seconds until its first server is made, and
        until it is ready.
        """
        begun: list[float] = []
        ready: list[float] = []
        for number in range(times):
            before = set(self.engine.began)
            (branch_id,) = self._ask(database, [f"{prefix}-{number}"])
            asked_at = time.monotonic()
            while not (made := set(self.engine.began) - before):
                time.sleep(_STEP_SECONDS)
            begun.append(max(0.0, min(self.engine.began[one] for one in made) - asked_at))
            while True:
                with self.store.read() as tx:
                    if tx.branches.get(branch_id).state is Life.READY:
                        break
                time.sleep(_STEP_SECONDS)
            ready.append(time.monotonic() - asked_at)
        return {"begun": begun, "ready": ready}

    def snapshots(self, times: int) -> dict[str, float]:
        """Of one changed branch: reading it, and a gateway's taking it; the quickest of all times."""
        reads: list[float] = []
        takes: list[float] = []
        with self.store.read() as tx:
            branch_id = next(iter(tx.routes.changed_since(0)))
        for _ in range(times):
            with self.store.write() as tx:
                tx.routes.bump(branch_id)
            begun = time.perf_counter()
            snapshot = self.routing.snapshot()
            read = time.perf_counter()
            self.gateway.publish(snapshot)
            reads.append(read - begun)
            takes.append(time.perf_counter() - read)
        return {"read": min(reads), "publish": min(takes)}

    def loops(self, times: int) -> dict[str, float]:
        """What is done again and again, each once: seconds, of the quickest of all times."""
        watcher = Watcher(self.engine)
        catching_up = CatchingUp(self.store, self.engine)
        acts: dict[str, Callable[[], object]] = {
            "watch": watcher.look,
            "promotions": catching_up,
            "work": self._look_for_work,
            "version": self.routing.version,
        }
        return {name: min(seconds_of(act) for _ in range(times)) for name, act in acts.items()}

    def _look_for_work(self) -> None:
        with self.store.read() as tx:
            tx.queue.resources_with_work()

    def rest(self, seconds: float) -> float:
        """How much of one CPU this process takes meanwhile, without the watcher."""
        used, begun = time.process_time(), time.monotonic()
        time.sleep(seconds)
        return (time.process_time() - used) / (time.monotonic() - begun)

    def hour(self) -> dict[str, float]:
        """Count the servers' hour; seconds, and the longest that another writer waited meanwhile."""
        # Long enough for a busy machine: what is measured is the counting.
        lease = Keeper(self.store, "up:fleet", ttl_seconds=3600.0).take("metering")
        if lease is None:
            raise RuntimeError("somebody else counts hours")
        waits: list[float] = [0.0]
        over = threading.Event()

        def write() -> None:
            while not over.is_set():
                waits.append(seconds_of(self._touch))
                over.wait(0.02)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            seconds = seconds_of(lambda: Meter(self.store, self.engine, Prices()).turn(lease))
        finally:
            over.set()
            writer.join()
        return {"seconds": seconds, "waited": max(waits), "p50": percentile(waits, 50)}

    def _touch(self) -> None:
        with self.store.write() as tx:
            tx.outbox.advance("bench", tx.outbox.cursor("bench") + 1)


def _no_tables(*_places: object) -> None:
    """Of servers that are only simulated there is nothing to copy."""


def main(given: Sequence[str]) -> None:
    """Serve what is asked until stdin ends."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with ExitStack() as stack:
        plane = ControlPlane(given[0], stack)
        names = (
            "start", "token", "database", "passwords", "keyspace", "branches", "settled", "stuck", "relent",
            "pick_up", "snapshots", "loops", "rest", "hour",
        )  # fmt: skip
        asked.serve({name: getattr(plane, name) for name in names})


if __name__ == "__main__":
    main(sys.argv[1:])
