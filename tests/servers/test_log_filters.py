"""Options that keep changes out of the log are seen, though no variable tells them."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.connection import Connection
from homeworld.replication.positions import log_filters
from tests.support.mysqld import TestServer, start_server

pytestmark = pytest.mark.servers


def test_a_server_without_filters_has_none(server: TestServer) -> None:
    with Connection(server.endpoint(BackendRole.MOVER), fidelity=False) as connection:
        assert log_filters(connection) == ()


def test_a_filter_is_named(flavor: Flavor, tmp_path: Path) -> None:
    server = start_server(flavor, tmp_path, "binlog-ignore-db=secret")
    try:
        with Connection(server.endpoint(BackendRole.MOVER), fidelity=False) as connection:
            assert log_filters(connection) == ("binlog-ignore-db",)
    finally:
        server.close()
