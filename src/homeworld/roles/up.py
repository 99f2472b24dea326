"""``homeworld up``: all roles in one process.

Order of starting: lock and ports (so that what cannot work fails at once, with one line), the store, the
servers, Vitess's clusters, the gateway with the routes as stored, the executor, the API; only then the ready
file. Order of stopping is the reverse. An orderly end stops clusters and MySQL servers too; they survive any
other end and are found again.
"""

from __future__ import annotations

import logging
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from homeworld.api.app import create_app
from homeworld.api.calls import Settings as ApiSettings
from homeworld.edge.server import Edge
from homeworld.engines.servers import Servers
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.engines.vitess.tablet_vars import HttpVars
from homeworld.engines.watcher import Watcher
from homeworld.gateway.routers import make_router
from homeworld.gateway.server import Gateway
from homeworld.gateway.tls import context_for
from homeworld.metering.prices import Prices
from homeworld.model.addresses import Network, parse_networks
from homeworld.model.engines import EngineKind
from homeworld.model.errors import HomeworldError
from homeworld.model.topology import BackendRole
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.roles import commands, users
from homeworld.roles.access import FAILURES_PER_MINUTE, AccessOptions
from homeworld.roles.errands import make_errands
from homeworld.roles.ground import (
    SETTLE_SECONDS,
    begin,
    certificates,
    free_port,
    http_listeners,
    http_told,
    listen,
)
from homeworld.roles.lock import data_dir_lock
from homeworld.roles.serving import ApiServer
from homeworld.roles.vitess import Vitess
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.workflows.assemble import make_executor, make_placements, make_preconditions
from homeworld.workflows.failover import catch_up
from homeworld.workflows.inspection import ServerInspection
from homeworld.workflows.placements import altering
from homeworld.workflows.provisioning.ports import Placement

STOP_SECONDS = 10.0
_log = logging.getLogger("homeworld")


@dataclass(frozen=True, slots=True)
class Settings:
    """What ``up`` was asked for."""

    data_dir: Path
    api_port: int
    gateway_port: int
    http_port: int | None
    http_plain_port: int | None
    mysqld: Path | None
    placement: Placement
    engine: EngineKind
    replicas: int
    organization: str
    ready_file: Path | None
    webhook_networks: tuple[Network, ...] = ()
    prices: Prices = Prices()  # noqa: RUF009 - frozen
    access: AccessOptions = AccessOptions()  # noqa: RUF009 - frozen


class Homeworld:
    """All roles of one installation in this process.

    :param stack: what was begun; leaving it ends everything in order.
    """

    def __init__(self, settings: Settings, stack: ExitStack) -> None:
        self.settings = settings
        self._stack = stack
        self._deadline: float | None = None

    def start(self) -> dict[str, object]:
        """Start everything; returns what clients need to know, once everything serves.

        :raises HomeworldError: something cannot start; the message says what to do.
        """
        settings, stack = self.settings, self._stack
        stack.enter_context(data_dir_lock(settings.data_dir))
        api_socket = stack.enter_context(listen(settings.api_port, "--api-port"))
        gateway_port = free_port(settings.gateway_port, "--gateway-port")
        https, http = http_listeners(stack, settings.http_port, settings.http_plain_port, gateway_port)

        engine = Servers(settings.data_dir, settings.mysqld)
        vitess = Vitess(engine, settings.data_dir)
        vitess.require(settings.engine)
        store = Store.open(f"sqlite:///{settings.data_dir / 'homeworld.db'}")
        stack.callback(store.close)
        token_id, token = begin(store, settings.data_dir, settings.organization)
        users.make_first_user(store, settings.data_dir, settings.organization)

        failures = engine.start_all()
        stack.callback(self._stop_servers, engine)
        for server_id, why in failures.items():
            _log.error("server %s did not start and is tried again: %s", server_id, why)
        # So that the gateway's first routes name those that take writes.
        catch_up(store, engine)
        watcher = Watcher(engine)
        watcher.start()
        stack.callback(lambda: watcher.stop(self._left()))
        # So that nobody is served through a cluster that is not what is stored.
        stack.callback(lambda: vitess.stop_all(self._left() / 2))
        vitess.begin(store)

        ca_file, certificate, key = certificates(settings.data_dir)
        with store.write() as tx:
            secret = tx.gateways.secret()

        def publish() -> None:
            gateway.publish(routing.snapshot())

        def routes_changed() -> None:
            try:
                publish()
            except HomeworldError as error:  # the executor publishes what is not served yet
                _log.warning("the routes could not be published at once: %s", error)

        def alter_vschema(branch_id: str, keyspace: str, text: str, base_text: str) -> None:
            altering(store, placements, publish)(branch_id, keyspace, text, base_text)

        gateway = Gateway(
            router_factory=make_router,
            port=gateway_port,
            tls=context_for(certificate, key),
            on_alter_vschema=alter_vschema,
            annex=Edge(secret=secret, tls=(https, certificate, key), plain=http),
        )
        routing = Routing(
            store,
            lambda server_id: engine.endpoint(server_id, BackendRole.READER),
            vitess.credentials,
            vitess.vtgates(store),
        )
        placements = make_placements(store, engine, gateway, publish, vitess)
        self._gateway = gateway
        gateway.start(routing.snapshot())
        stack.callback(lambda: gateway.stop(self._left() / 3))
        movers = MoverProcesses()
        stack.callback(movers.close)
        executor = make_executor(
            store, engine, gateway, movers, TableFence(), publish,
            # The data directory's lock says that the process before is dead: its leases are ours at once.
            owner=f"up:{socket.gethostname()[:40]}", clusters=vitess,
            moves=VitessMoves(vitess, HttpVars(vitess, vitess.is_foreign)), placement=settings.placement,
        )  # fmt: skip
        self._executor = executor
        executor.start()
        stack.callback(lambda: executor.stop(self._left() / 2))

        api_url = f"http://127.0.0.1:{api_socket.getsockname()[1]}"
        api_settings = ApiSettings(
            preconditions=make_preconditions(store, engine),
            placements=placements,
            inspection=ServerInspection(store, engine),
            flavor=engine.flavor,
            engine=settings.engine,
            missing_engines=vitess.missing,
            gateway_address=f"127.0.0.1:{gateway.port}",
            http_address=f"127.0.0.1:{https.getsockname()[1]}",
            settle_seconds=SETTLE_SECONDS,
            routes_changed=routes_changed,
            replicas=settings.replicas,
            webhook_networks=settings.webhook_networks,
            public_url=settings.access.public_url,
            requests_per_minute=settings.access.requests_per_minute,
            failures_per_minute=FAILURES_PER_MINUTE,
            sso=settings.access.oidc(settings.organization),
        )
        errands = make_errands(
            store, engine, f"up:{socket.gethostname()[:40]}", api_settings, api_url, settings.prices
        )
        self._errands = errands
        errands.start()
        stack.callback(lambda: errands.stop(self._left() / 2))
        proxied = bool(settings.access.public_url)
        server = ApiServer(create_app(store, api_settings), api_socket, behind_proxy=proxied)
        self._api = server
        server.start()
        stack.callback(lambda: server.stop(self._left() / 2))
        return {
            "api_url": api_url,
            "gateway_host": "127.0.0.1",
            "gateway_port": gateway.port,
            **http_told(https, http),
            "ca_file": str(ca_file),
            "organization": settings.organization,
            "service_token_id": token_id,
            "service_token": token,
            "flavor": engine.flavor.value,
            "engine": settings.engine.value,
            "server_version": engine.version,
        }

    def check(self) -> None:
        """Raise where a part of this program has failed for good.

        :raises HomeworldError: the executor met a fault of its own, or the API or the gateway is gone.
        """
        if not self._gateway.alive:
            raise HomeworldError(
                f"the gateway has ended by itself: {self._gateway.failure!r}; the log says more"
            )
        if not self._api.alive:
            raise HomeworldError("the API has ended by itself; the log says more")
        for part, failure in (("executor", self._executor.failure), ("errands", self._errands.failure)):
            if failure is not None:
                raise HomeworldError(f"the {part} failed: {failure!r}; the log says more")

    def _left(self) -> float:
        """Seconds that are left for ending; they begin to count when it is asked first."""
        if self._deadline is None:
            self._deadline = time.monotonic() + STOP_SECONDS - 1.0
        return max(0.1, self._deadline - time.monotonic())

    def _stop_servers(self, engine: Servers) -> None:
        killed = engine.stop_all(self._left())
        for server_id in killed:
            _log.warning(
                "server %s did not end in time and was killed; it recovers at its next start", server_id
            )


def up(
    data_dir: Annotated[Path, typer.Option(help="Everything homeworld keeps.")] = Path("~/.homeworld"),
    api_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8080,
    gateway_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 3306,
    http_port: commands.HttpPort = None,
    http_plain_port: commands.HttpPlainPort = None,
    mysqld: Annotated[Path | None, typer.Option(help="The mysqld or mariadbd for new servers.")] = None,
    placement: Annotated[
        Placement, typer.Option(help="One server a branch, or one a shard.")
    ] = Placement.SHARED,
    engine: commands.Engine = EngineKind.LOCAL,
    replicas: Annotated[int, typer.Option(min=0, max=5, help="Replicas of each primary.")] = 1,
    organization: Annotated[
        str, typer.Option(help="The organization that is made at the first start.")
    ] = "homeworld",
    ready_file: Annotated[Path | None, typer.Option(help="Written once everything serves.")] = None,
    webhook_networks: commands.WebhookNetworks = "",
    prices: commands.PriceList = "",
    requests_per_minute: commands.RequestsPerMinute = 600,
    public_url: commands.PublicUrl = "",
    sso_issuer: commands.SsoIssuer = "",
    sso_client_id: commands.SsoClientId = "",
    sso_client_secret_file: commands.SsoSecretFile = None,
    sso_domains: commands.SsoDomains = "",
    sso_name: commands.SsoName = "single sign-on",
) -> None:
    """Run the whole platform on this machine until SIGTERM or Ctrl-C."""
    access = commands.access_options(
        requests_per_minute, public_url, sso_issuer, sso_client_id, sso_client_secret_file, sso_domains,
        sso_name,
    )  # fmt: skip

    def make(stack: ExitStack) -> Homeworld:
        settings = Settings(
            data_dir.expanduser().absolute(), api_port, gateway_port, http_port, http_plain_port, mysqld,
            placement, engine, replicas, organization, ready_file, parse_networks(webhook_networks),
            Prices.parse(prices), access,
        )  # fmt: skip
        return Homeworld(settings, stack)

    commands.run(make, ready_file)
