"""The roles of homeworld as processes of their own: workers with gates, gateways, an API.

They are the product's own (``homeworld.roles.several``), made with short deadlines, with the plans gated and
the servers reached as the controller wants it. Nothing else of them is changed.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from homeworld.control import several as calls
from homeworld.replication.mover_process import MoverProcesses
from homeworld.roles import keeper, several
from homeworld.roles.access import AccessOptions
from homeworld.roles.several import ApiRole, Common, GatewayRole, Role, WorkerRole
from homeworld.workflows import leases
from homeworld.workflows.executor import Executor
from homeworld.workflows.provisioning import Placement
from tests.chaos import deadlines, worker
from tests.chaos.gates import Gates


def _shorten() -> None:
    deadlines.shorten(hold_seconds=deadlines.ROLES_HOLD_SECONDS, switch_seconds=5.0)
    # The gateways' own leases are short already; what waits for them has to be longer than they.
    calls.CALL_SECONDS = 6.0
    calls.LOOK_SECONDS = 5.0
    deadlines.set_default(leases.Keeper.__init__, ttl_seconds=deadlines.TTL_SECONDS)
    keeper.RENEW_SECONDS = deadlines.TTL_SECONDS / 4


def _begin(config: dict[str, Any]) -> tuple[Gates, Common, ExitStack]:
    worker.log_to_stderr()
    _shorten()

    def engine(_data_dir: Path, _mysqld: Path | None) -> worker.ProxiedEngine:
        made = worker.engine_of(Path(config["folder"]), config["mysqld"])
        made.proxies = config["proxies"]
        return made

    several.LocalEngine = engine  # type: ignore[assignment, misc]
    common = Common(Path(config["folder"]), config["store"], Path(config["mysqld"]), "acme")
    return Gates(config["control"]), common, ExitStack()


def run_worker(config: dict[str, Any]) -> None:
    """A worker, until it is killed."""
    gates, common, stack = _begin(config)

    def executor(*ports: Any, owner: str, **_options: Any) -> Executor:
        return worker.gated_executor(*ports, gates=gates, owner=owner, nursery_path=config["nursery"])

    several.make_executor = executor
    several.MoverProcesses = lambda: MoverProcesses(worker.CHUNK_BYTES)  # type: ignore[assignment, misc]
    made = WorkerRole(
        common, stack, placement=Placement.DEDICATED, gateway_address="127.0.0.1", api_url="http://127.0.0.1"
    )
    _serve(made, gates)


def run_gateway(config: dict[str, Any], port: int) -> None:
    """A gateway, until it is killed."""
    gates, common, stack = _begin(config)
    _serve(GatewayRole(common, stack, port=port, http_port=0), gates)


def run_api(config: dict[str, Any], port: int) -> None:
    """The API, until it is killed."""
    gates, common, stack = _begin(config)
    access = AccessOptions(requests_per_minute=0)
    made = ApiRole(common, stack, port=port, gateway_address="127.0.0.1", replicas=1, access=access)
    _serve(made, gates)


def _serve(role: Role, gates: Gates) -> None:
    role.start()
    gates.say(hello=os.getpid())
    while True:
        role.check()
        time.sleep(0.2)
