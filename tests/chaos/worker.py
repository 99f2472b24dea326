"""A homeworld of the fault matrix: the product's parts as ``main.py`` has them, with gates, short deadlines.

Forked by the nursery; says hello on the control socket once everything serves,
and runs until it is killed. Without an API: the controller writes what is asked into the store, as the API
does.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from homeworld.engines.config import Sizes
from homeworld.engines.local import LocalEngine
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.ports import Gateways
from homeworld.model.topology import BackendRole, Endpoint
from homeworld.replication import mover_process
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.workflows.assemble import make_preconditions
from homeworld.workflows.executor import Executor
from homeworld.workflows.move_tables.context import Ports
from homeworld.workflows.move_tables.handler import MoveTables
from homeworld.workflows.move_tables.plans import all_plans
from homeworld.workflows.move_tables.servers import ServerTools
from tests.chaos import deadlines, nursery
from tests.chaos.gates import GatedPerformer, Gates, gated

_log = logging.getLogger("chaos.worker")
SMALL = (
    "loose-innodb-redo-log-capacity=32M",
    "loose-innodb-log-file-size=32M",
    "innodb-use-native-aio=0",
    # The text of each client's statement stands in the binlog: the judge reads who wrote where.
    "loose-binlog-rows-query-log-events=ON",
)
CHUNK_BYTES = 4096
GATEWAY_ROLES = frozenset({BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN})


class ProxiedEngine(LocalEngine):
    """Servers reached through the controller's proxies where it has some: for each server one for the
    gateway's connections, one for all others.

    :param proxies: ``server id/gateway`` or ``server id/worker`` to a loopback port.
    """

    proxies: Mapping[str, int] = {}

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        found = super().endpoint(server_id, role)
        group = "gateway" if role in GATEWAY_ROLES else "worker"
        port = self.proxies.get(f"{server_id}/{group}")
        return found if port is None else replace(found, host="127.0.0.1", port=port, socket="")


def engine_of(folder: Path, mysqld: str) -> ProxiedEngine:
    """The servers under ``folder``."""
    return ProxiedEngine(folder, Path(mysqld), 32, sizes=Sizes(options=SMALL), start_timeout_seconds=60)


def log_to_stderr() -> None:
    """What there is to say goes to the worker's log."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    )


def gated_executor(
    store: Store,
    engine: LocalEngine,
    gateways: Gateways,
    movers: MoverProcesses,
    fence: TableFence,
    publish: Callable[[], None],
    *,
    gates: Gates,
    owner: str,
    nursery_path: str,
) -> Executor:
    """An executor of workflows alone, whose plans have gates; not started."""
    mover_process._spawn = lambda: nursery.spawn_mover(nursery_path)  # type: ignore[assignment, return-value]
    ports = Ports(store, engine, gateways, movers, fence, publish, ServerTools)
    preconditions = make_preconditions(store, engine)
    plans = gated(all_plans(preconditions), gates)
    handler = MoveTables(
        ports, preconditions, plans, performer=lambda ports, plans: GatedPerformer(ports, plans, gates)
    )
    return Executor(store, (handler,), owner, publish=publish, ttl_seconds=deadlines.TTL_SECONDS, workers=2)


def main(config: dict[str, Any], port: int) -> None:
    """All roles in one process: compose, start, serve clients on ``port``."""
    log_to_stderr()
    deadlines.shorten()
    gates = Gates(config["control"])
    engine = engine_of(Path(config["folder"]), config["mysqld"])
    engine.proxies = config["proxies"]
    store = Store.open(config["store"])
    failures = engine.start_all()
    for server_id, why in failures.items():
        _log.error("server %s did not start: %s", server_id, why)
    engine.watch()
    gateway = Gateway(router_factory=Router, port=port)
    routing = Routing(
        store,
        lambda server_id: engine.endpoint(server_id, BackendRole.READER),
        lambda _branch_id: engine.credentials(),
    )

    def publish() -> None:
        gateway.publish(routing.snapshot())

    gateway.start(routing.snapshot())
    executor = gated_executor(
        store, engine, gateway, MoverProcesses(CHUNK_BYTES), TableFence(), publish,
        gates=gates, owner="chaos", nursery_path=config["nursery"],
    )  # fmt: skip
    executor.start()
    gates.say(hello=os.getpid())
    while executor.failure is None and gateway.alive:
        threading.Event().wait(0.2)
    _log.critical("ended: executor %r, gateway %r", executor.failure, gateway.failure)
    sys.exit(3)
