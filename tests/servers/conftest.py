"""Servers that tests of moves share, and a gateway in front of a shared server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homeworld.model.names import new_id
from homeworld.model.topology import Flavor
from tests import conftest
from tests.support import mysqld
from tests.support.gateway import GatewayFixture, start_gateway, unsharded

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
