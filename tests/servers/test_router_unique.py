"""What the gateway learns of unique keys and of values that servers make, from real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homeworld.gateway.plan import MadeValues
from homeworld.gateway.tracker import SchemaTracker, load_queries
from homeworld.model.topology import Flavor
from tests.support.mysqld import TestServer, start_server

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def server(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestServer]:
    made = start_server(flavor, tmp_path_factory.mktemp("router-unique"))
    try:
        yield made
    finally:
        made.close()


def test_unique_keys_and_made_values_are_learned(server: TestServer, flavor: Flavor) -> None:
    server.create_schema("learned")
    server.query(
        "CREATE TABLE t (id BIGINT PRIMARY KEY, a INT, b VARCHAR(20) DEFAULT 'now', "
        "c DATETIME DEFAULT CURRENT_TIMESTAMP, d DATETIME(3) NULL ON UPDATE CURRENT_TIMESTAMP(3), "
        "e CHAR(36) DEFAULT (uuid()), f INT DEFAULT 5, g VARCHAR(20) DEFAULT (concat('x', 'now')), "
        "h DATETIME DEFAULT '2020-01-01 00:00:00', i DECIMAL(5,2) DEFAULT 1.5, j INT DEFAULT (1 + 2), "
        "UNIQUE (b(3), id), UNIQUE two (a, id), KEY (c))",
        "learned",
    )
    if flavor is Flavor.MYSQL:
        server.query("CREATE UNIQUE INDEX twice ON t ((a * 2))", "learned")
    columns, views, unique = (
        [tuple(None if v is None else str(v).encode() for v in row) for row in server.query(query)]
        for query in load_queries("learned")
    )
    tracker = SchemaTracker()
    tracker.loaded("k", "learned", columns, views, unique)
    assert tracker.made_values("k", "t") == MadeValues(frozenset("ce"), frozenset("d"))
    keys = {("id",), ("a", "id"), ("", "id")}
    assert set(tracker.unique_keys("k", "t") or ()) == (keys | {("",)} if flavor is Flavor.MYSQL else keys)
