"""The roles of which there may be any number: ``api``, ``worker``, ``gateway``, over one PostgreSQL.

Each is made and started by :meth:`start`, which returns what its ready file says, and looked at by
:meth:`check`; everything is ended by leaving the stack. All of one machine share the data directory: the
MySQL servers, the token, the certificates and the gateways' control sockets are in it. What only one role is
made of is imported where it starts: reading the API takes longer than all the rest of a start, and a gateway
has no use for it.
"""

from __future__ import annotations

import logging
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from homeworld.control.life import Lives
from homeworld.control.member import Member
from homeworld.control.service import ControlServer
from homeworld.control.several import SeveralGateways
from homeworld.engines.layout import SOCKET_LIMIT
from homeworld.engines.servers import Servers
from homeworld.engines.vitess.moves import VitessMoves
from homeworld.engines.vitess.tablet_vars import HttpVars
from homeworld.metering.prices import Prices
from homeworld.model.addresses import Network
from homeworld.model.engines import EngineKind
from homeworld.model.errors import HomeworldError, InvalidError
from homeworld.model.names import new_id
from homeworld.model.routing import RoutingSnapshot
from homeworld.model.topology import BackendRole
from homeworld.replication.fence import TableFence
from homeworld.replication.mover_process import MoverProcesses
from homeworld.roles.access import FAILURES_PER_MINUTE, AccessOptions
from homeworld.roles.ground import (
    SETTLE_SECONDS,
    Ending,
    begin,
    certificates,
    http_listeners,
    http_told,
    listen,
)
from homeworld.roles.keeper import EngineKeeper
from homeworld.roles.lock import data_dir_lock
from homeworld.roles.vitess import Vitess
from homeworld.store.routing import Routing
from homeworld.store.store import Store
from homeworld.workflows.assemble import make_executor, make_placements, make_preconditions
from homeworld.workflows.placements import altering
from homeworld.workflows.provisioning.ports import Placement

STOP_SECONDS = 9.0
_log = logging.getLogger("homeworld")


@dataclass(frozen=True, slots=True)
class Common:
    """What every role is told.

    :param store: ``postgresql://…``; the same for all.
    """

    data_dir: Path
    store: str
    mysqld: Path | None
    organization: str


class Role(Protocol):
    """A role in this process."""

    def start(self) -> dict[str, object]:
        """Start; returns what the ready file says, once it serves.

        :raises HomeworldError: it cannot start; the message says what to do.
        """
        ...

    def check(self) -> None:
        """Raise where a part has failed for good.

        :raises HomeworldError: it has.
        """
        ...


class _Ground:
    """What every role begins with: the data directory, the store, the servers' addresses, all gateways."""

    def __init__(self, common: Common, stack: ExitStack) -> None:
        if not common.store.startswith("postgresql://"):
            raise InvalidError(
                "several roles need a PostgreSQL: --store postgresql://user:password@host/name"
            )
        stack.enter_context(data_dir_lock(common.data_dir, shared=True))
        self.engine = Servers(common.data_dir, common.mysqld)
        self.vitess = Vitess(self.engine, common.data_dir)
        self.store = Store.open(common.store)
        stack.callback(self.store.close)
        self.token_id, self.token = begin(self.store, common.data_dir, common.organization)
        with self.store.write() as tx:
            self.secret = tx.gateways.secret()
        self.lives = Lives(common.data_dir / "gateways")
        self.gateways = SeveralGateways(self.store, self.secret, self.lives)
        stack.callback(self.gateways.stop)
        self.placements = make_placements(self.store, self.engine, self.gateways, self.publish, self.vitess)

    def publish(self) -> None:
        """Return once every gateway serves what is stored; each reads it itself."""
        with self.store.read() as tx:
            version = tx.routes.version()
        self.gateways.publish(RoutingSnapshot(version, {}, {}))


class ApiRole:
    """The REST API."""

    def __init__(
        self,
        common: Common,
        stack: ExitStack,
        *,
        port: int,
        gateway_address: str,
        replicas: int,
        access: AccessOptions,
        engine: EngineKind = EngineKind.LOCAL,
        http_address: str = "",
        webhook_networks: tuple[Network, ...] = (),
    ) -> None:
        """:param gateway_address: what clients are told to connect to, ``host:port``; ``http_address``: those
        that speak HTTPS.
        """
        self._webhook_networks = webhook_networks
        self._common = common
        self._stack = stack
        self._port = port
        self._gateway_address = gateway_address
        self._http_address = http_address
        self._replicas = replicas
        self._engine = engine
        self._access = access

    def start(self) -> dict[str, object]:
        """See :class:`Role`."""
        from homeworld.api.app import create_app
        from homeworld.api.calls import Settings as ApiSettings
        from homeworld.roles.serving import ApiServer
        from homeworld.roles.users import make_first_user
        from homeworld.workflows.inspection import ServerInspection

        stack, ending = self._stack, Ending(STOP_SECONDS)
        listener = stack.enter_context(listen(self._port, "--api-port"))
        ground = _Ground(self._common, stack)
        ground.vitess.require(self._engine)
        make_first_user(ground.store, self._common.data_dir, self._common.organization)

        def routes_changed() -> None:
            try:
                ground.publish()
            except HomeworldError as error:  # a worker publishes what is not served yet
                _log.warning("the routes could not be published at once: %s", error)

        api = create_app(
            ground.store,
            ApiSettings(
                preconditions=make_preconditions(ground.store, ground.engine),
                placements=ground.placements,
                inspection=ServerInspection(ground.store, ground.engine),
                flavor=ground.engine.flavor,
                gateway_address=self._gateway_address,
                http_address=self._http_address,
                settle_seconds=SETTLE_SECONDS,
                routes_changed=routes_changed,
                replicas=self._replicas,
                engine=self._engine,
                missing_engines=ground.vitess.missing,
                webhook_networks=self._webhook_networks,
                public_url=self._access.public_url,
                requests_per_minute=self._access.requests_per_minute,
                failures_per_minute=FAILURES_PER_MINUTE,
                one_of_several=True,
                sso=self._access.oidc(self._common.organization),
            ),
        )
        self._server = ApiServer(api, listener, behind_proxy=bool(self._access.public_url))
        self._server.start()
        stack.callback(lambda: self._server.stop(ending.left()))
        return {
            "api_url": f"http://127.0.0.1:{listener.getsockname()[1]}",
            "organization": self._common.organization,
            "service_token_id": ground.token_id,
            "service_token": ground.token,
            "flavor": ground.engine.flavor.value,
            "server_version": ground.engine.version,
        }

    def check(self) -> None:
        """See :class:`Role`."""
        if not self._server.alive:
            raise HomeworldError("the API has ended by itself; the log says more")


class WorkerRole:
    """The executor, and for one of all workers the MySQL servers and each errand."""

    def __init__(
        self,
        common: Common,
        stack: ExitStack,
        *,
        placement: Placement,
        gateway_address: str,
        api_url: str,
        webhook_networks: tuple[Network, ...] = (),
        prices: Prices = Prices(),  # noqa: B008 - frozen
    ) -> None:
        """:param gateway_address: what clients are told to connect to, ``host:port``.
        :param api_url: where links in webhooks lead.
        """
        self._gateway_address = gateway_address
        self._api_url = api_url
        self._prices = prices
        self._webhook_networks = webhook_networks
        self._common = common
        self._stack = stack
        self._placement = placement

    def start(self) -> dict[str, object]:
        """See :class:`Role`."""
        from homeworld.api.calls import Settings as ApiSettings
        from homeworld.roles.errands import make_errands

        stack, ending = self._stack, Ending(STOP_SECONDS)
        ground = _Ground(self._common, stack)
        owner = f"worker:{socket.gethostname()[:30]}:{os.getpid()}:{new_id()}"
        self._keeper = keeper = EngineKeeper(ground.store, ground.engine, owner, ground.vitess)
        stack.callback(lambda: keeper.stop(ending.left()))
        keeper.start()
        self._gateways = ground.gateways
        self._gateways.start()
        movers = MoverProcesses()
        stack.callback(movers.close)
        self._executor = make_executor(
            ground.store, ground.engine, ground.gateways, movers, TableFence(), ground.publish,
            owner=owner, clusters=ground.vitess,
            moves=VitessMoves(ground.vitess, HttpVars(ground.vitess, ground.vitess.is_foreign)),
            placement=self._placement,
        )  # fmt: skip
        self._executor.start()
        stack.callback(lambda: self._executor.stop(ending.left() / 2))
        settings = ApiSettings(
            preconditions=make_preconditions(ground.store, ground.engine),
            flavor=ground.engine.flavor,
            gateway_address=self._gateway_address,
            webhook_networks=self._webhook_networks,
        )
        self._errands = make_errands(
            ground.store, ground.engine, owner, settings, self._api_url, self._prices
        )
        self._errands.start()
        stack.callback(lambda: self._errands.stop(ending.left() / 2))
        return {"owner": owner}

    def check(self) -> None:
        """See :class:`Role`."""
        for part, failure in (
            ("executor", self._executor.failure),
            ("server keeper", self._keeper.failure),
            ("watch over the gateways", self._gateways.failure),
            ("errands", self._errands.failure),
        ):
            if failure is not None:
                raise HomeworldError(f"the {part} failed: {failure!r}; the log says more")


class GatewayRole:
    """A gateway that is one of several."""

    def __init__(
        self, common: Common, stack: ExitStack, *, port: int, http_port: int | None = 0,
        http_plain_port: int | None = None,
    ) -> None:  # fmt: skip
        self._common = common
        self._stack = stack
        self._port = port
        self._http_port = http_port
        self._http_plain_port = http_plain_port

    def start(self) -> dict[str, object]:
        """See :class:`Role`."""
        from homeworld.edge.server import Edge
        from homeworld.gateway.routers import make_router
        from homeworld.gateway.server import Gateway
        from homeworld.gateway.tls import context_for

        stack, ending = self._stack, Ending(STOP_SECONDS)
        listener = stack.enter_context(listen(self._port, "--gateway-port"))
        https, http = http_listeners(stack, self._http_port, self._http_plain_port, self._port)
        ground = _Ground(self._common, stack)
        ca_file, certificate, key = certificates(self._common.data_dir)
        gateway_id = new_id()
        engine = ground.engine
        routing = Routing(
            ground.store,
            lambda server_id: engine.endpoint(server_id, BackendRole.READER),
            ground.vitess.credentials,
            ground.vitess.vtgates(ground.store),
        )
        control = self._common.data_dir / "gateways" / f"{gateway_id}.sock"
        if len(os.fsencode(control)) > SOCKET_LIMIT:
            raise InvalidError(f"the data directory's path is too long for a socket in it: {control}")
        member = Member(ground.store, gateway_id, str(control), routing.snapshot)
        # Where its row is left (the store is away), others have to be able to see that it has ended.
        stack.callback(lambda: None if member.known else ground.lives.forget(gateway_id))
        stack.enter_context(ground.lives.live(gateway_id))
        server = ControlServer(control, ground.secret, member)
        stack.callback(server.stop)
        self._gateway = Gateway(
            router_factory=make_router,
            listener=listener,
            tls=context_for(certificate, key),
            on_alter_vschema=altering(ground.store, ground.placements, ground.publish),
            lease=member.standing,
            annex=Edge(secret=ground.secret, tls=(https, certificate, key), plain=http),
        )
        self._member = member
        port = int(listener.getsockname()[1])
        member.start(self._gateway, f"127.0.0.1:{port}")
        stack.callback(member.stop)
        stack.callback(lambda: self._gateway.stop(ending.left() / 2))
        member.wait_joined(30.0)
        return {
            "gateway_id": gateway_id,
            "gateway_host": "127.0.0.1",
            "gateway_port": port,
            **http_told(https, http),
            "ca_file": str(ca_file),
        }

    def check(self) -> None:
        """See :class:`Role`."""
        if not self._gateway.alive:
            raise HomeworldError(
                f"the gateway has ended by itself: {self._gateway.failure!r}; the log says more"
            )
        if self._member.failure is not None:
            raise HomeworldError(
                f"the gateway's membership failed: {self._member.failure!r}; the log says more"
            )
