"""The servers that tests run on do what the tests rely on."""

from __future__ import annotations

from collections.abc import Callable

import pymysql
import pytest

from homeworld.model.topology import BackendRole, Flavor
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


def test_data_survive_kill_and_stop(server: TestServer) -> None:
    server.create_schema("shop")
    server.execute("CREATE TABLE t (id INT PRIMARY KEY);\nINSERT INTO t VALUES (1)", "shop")
    server.kill()
    server.start()
    server.query("INSERT INTO t VALUES (2)", "shop")
    server.restart()
    assert server.query("SELECT id FROM t ORDER BY id", "shop") == [(1,), (2,)]


def test_shared_server_serves_every_role(
    shared_server: Callable[[Flavor], TestServer], flavor: Flavor
) -> None:
    server = shared_server(flavor)
    assert shared_server(flavor) is server
    server.create_schema("roles_a")
    server.execute("CREATE TABLE t (id INT PRIMARY KEY)", "roles_a")
    server.query("INSERT INTO t VALUES (1)", "roles_a", role=BackendRole.WRITER)
    assert server.query("SELECT id FROM t", "roles_a", role=BackendRole.READER) == [(1,)]
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        server.query("INSERT INTO t VALUES (2)", "roles_a", role=BackendRole.READER)
    server.drop_schema("roles_a")


def test_options_reach_the_server(server_factory: Callable[..., TestServer]) -> None:
    server = server_factory("sort-buffer-size=262144")
    assert server.query("SELECT @@sort_buffer_size, @@binlog_format, @@time_zone") == [
        (262144, "ROW", "+00:00")
    ]
