"""Servers that tests of moves share, and a gateway in front of a shared server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from homeworld.edge.sessions import Limits
from homeworld.model.names import new_id
from homeworld.model.topology import BackendRole, Flavor
from tests import conftest
from tests.support import mysqld
from tests.support.edge import JsonClient, ProtoClient
from tests.support.gateway import GatewayFixture, secret, start_gateway, unsharded

SMALL = (*conftest.SMALL, "innodb-autoinc-lock-mode=2")


@pytest.fixture(scope="session")
def trio(flavor: Flavor, server_root: Path) -> Iterator[list[mysqld.TestServer]]:
    """Three running servers of the flavour, for the whole session; a test that kills one starts it again.

    Each test makes schemas of its own (tests.support.moves.make_move).
    """
    servers: list[mysqld.TestServer] = []
    try:
        servers.extend(mysqld.start_server(flavor, server_root, *SMALL) for _ in range(3))
        yield servers
    finally:
        for server in servers:
            server.close()


@pytest.fixture(scope="module")
def gateway_server(flavor: Flavor, shared_server: Callable[[Flavor], mysqld.TestServer]) -> mysqld.TestServer:
    """The session's shared server of the flavour."""
    return shared_server(flavor)


@pytest.fixture
def gateway_schema(gateway_server: mysqld.TestServer) -> Iterator[str]:
    """A schema of the test's own on it, and a keyspace's name."""
    name = f"ks_{new_id()}"
    gateway_server.create_schema(name)
    yield name
    gateway_server.drop_schema(name)


@pytest.fixture
def gw(gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path) -> Iterator[GatewayFixture]:
    """A gateway with that one keyspace."""
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    fixture = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path)
    yield fixture
    fixture.gateway.stop(1.0)


@pytest.fixture
def table(gateway_server: mysqld.TestServer, gateway_schema: str) -> str:
    """Table ``t`` in it."""
    gateway_server.execute(
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(200), n INT)", gateway_schema
    )
    return "t"


@pytest.fixture
def edge(gateway_server: mysqld.TestServer, gateway_schema: str, tmp_path: Path) -> Iterator[GatewayFixture]:
    """A gateway with one keyspace, over HTTP too."""
    keyspaces = {gateway_schema: unsharded(gateway_schema, gateway_server)}
    fixture = start_gateway(gateway_server, keyspaces, gateway_schema, tmp_path, edge=Limits())
    yield fixture
    fixture.gateway.stop(1.0)


@pytest.fixture
def connect(edge: GatewayFixture) -> Iterator[Callable[..., JsonClient]]:
    """Clients in the clear, closed with the test."""
    made: list[JsonClient] = []

    def connect(role: BackendRole = BackendRole.ADMIN) -> JsonClient:
        made.append(JsonClient(f"http://127.0.0.1:{edge.http}", role.value, secret(role)))
        return made[-1]

    yield connect
    for client in made:
        client.close()


@pytest.fixture
def proto(edge: GatewayFixture) -> Iterator[ProtoClient]:
    """A client of the other form, within TLS."""
    role = BackendRole.ADMIN
    with closing(ProtoClient(f"https://127.0.0.1:{edge.https}", role.value, secret(role), edge.ca)) as client:
        yield client
