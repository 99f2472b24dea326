"""A gateway in front of a test cluster's vtgate, with one password a role and one for replicas."""

from __future__ import annotations

import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from homeworld.edge.server import Edge
from homeworld.edge.sessions import Limits
from homeworld.gateway.routers import make_router
from homeworld.gateway.server import Gateway
from homeworld.gateway.tls import context_for, make_certificates
from homeworld.model.clusters import ClusterKeyspace
from homeworld.model.routing import BranchRoutes, KeyspaceRoute, ShardRoute
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.wire.auth import sha1_twice, sha256_twice
from tests.support.gateway import DATABASE, ROLES, GatewayFixture, account
from tests.support.vitess import VitessWorld

REPLICA = "replica"
"""The name of the password that is for replicas; its text is ``pw-replica``."""


def _keyspace(world: VitessWorld, told: ClusterKeyspace) -> KeyspaceRoute:
    def server(server_id: str) -> Endpoint:
        return replace(world.engine.endpoint(server_id, BackendRole.READER), user="", password="")

    shards = tuple(
        ShardRoute(
            one.name, one.schema, server(one.primary_server_id), tuple(map(server, one.replica_server_ids))
        )
        for one in told.shards
    )
    return KeyspaceRoute(told.name, told.sharded, told.vschema, shards)


@contextmanager
def gateway_of(world: VitessWorld, folder: Path) -> Generator[GatewayFixture]:
    """A gateway that serves the world's branch, over HTTP, too."""
    ca, certificate, key = make_certificates(folder / "tls", ("localhost", "127.0.0.1"))
    https, http = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    edge = Edge(
        secret="secret", tls=(https, certificate, key), plain=http, limits=Limits(transaction_seconds=30.0)
    )
    gateway = Gateway(router_factory=make_router, tls=context_for(certificate, key), annex=edge)
    credentials = world.engine.credentials()
    routes = BranchRoutes(
        branch_id=world.branch_id,
        organization="org",
        database=DATABASE,
        branch="main",
        flavor=Flavor.MYSQL,
        version=0,
        keyspaces={told.name: _keyspace(world, told) for told in world.spec.keyspaces},
        rules={},
        default_keyspace=world.spec.keyspaces[0].name,
        credentials={role: credentials[role] for role in ROLES},
        vtgate=replace(world.clusters.vtgate(world.branch_id), vtgate=True),
    )
    accounts = {role.value: account(role) for role in ROLES}
    text = f"pw-{REPLICA}"
    accounts[REPLICA] = replace(
        account(BackendRole.READWRITER), username=REPLICA, replica=True,
        sha1_twice=sha1_twice(text), sha256_twice=sha256_twice(text),
    )  # fmt: skip
    ports = [int(one.getsockname()[1]) for one in (https, http)]
    fixture = GatewayFixture(gateway, routes, accounts, ca=ca, https=ports[0], http=ports[1], edge=edge)
    gateway.start()
    try:
        fixture.publish()
        yield fixture
    finally:
        gateway.stop(1.0)
