"""Tables that are not there, or not yet, while a keyspace's server is down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.model.names import new_id
from homeworld.model.routing import KeyspaceRoute, ShardRoute
from homeworld.model.topology import Flavor
from tests.conftest import ServerFactory
from tests.support.gateway import GatewayFixture, start_gateway, unsharded
from tests.support.mysqld import TestServer

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]

KEYED = {"column_vindexes": [{"column": "id", "name": "xxhash"}]}
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"t": KEYED, "late": KEYED, "never": KEYED},
}


@dataclass
class World:
    """A branch of two keyspaces, both known: sharded ``sh``, and ``down``, whose server is down by now."""

    gw: GatewayFixture
    up: TestServer
    schemas: tuple[str, str]

    def make(self, table: str) -> None:
        """Past the gateway."""
        for schema in self.schemas:
            self.up.query(f"CREATE TABLE {table} (id BIGINT PRIMARY KEY, v INT)", schema)

    def refusal(self, sql: str, database: str = "app") -> tuple[int, str]:
        with pytest.raises(pymysql.err.MySQLError) as caught:
            self.gw.query(sql, database=database)
        return caught.value.args[0], caught.value.args[1]


@pytest.fixture
def world(
    shared_server: Callable[[Flavor], TestServer],
    server_factory: ServerFactory,
    flavor: Flavor,
    tmp_path: Path,
) -> Iterator[World]:
    up, down = shared_server(flavor), server_factory()
    schemas = (f"missing_{new_id()}", f"missing_{new_id()}")
    for schema in schemas:
        up.create_schema(schema)
    down.create_schema("down")
    down.query("CREATE TABLE other (id INT)", "down")
    places = unsharded("sh", up).shards[0]
    shards = tuple(
        ShardRoute(name, schema, places.primary, ())
        for name, schema in zip(("-80", "80-"), schemas, strict=True)
    )
    keyspaces = {"sh": KeyspaceRoute("sh", True, VSCHEMA, shards), "down": unsharded("down", down)}
    made = World(start_gateway(up, keyspaces, "sh", tmp_path), up, schemas)
    made.make("t")
    assert made.gw.query("SELECT * FROM t") == []
    assert made.gw.query("SELECT * FROM other") == []
    down.kill()
    yield made
    made.gw.gateway.stop(1.0)
    for schema in schemas:
        up.drop_schema(schema)


def test_a_table_that_only_one_keyspace_could_have_is_missing_whoever_else_is_down(world: World) -> None:
    missing = (1146, "Table 'sh.never' doesn't exist")
    assert world.refusal("SELECT * FROM sh.never") == missing
    assert world.refusal("SELECT * FROM never", "sh") == missing
    assert world.refusal("INSERT INTO sh.t (id, w) VALUES (1, 1)")[0] == 1054
    assert world.refusal("INSERT INTO t (id, w) VALUES (1, 1)")[0] == 1054
    world.make("late")
    assert world.gw.query("SELECT * FROM sh.late") == []


def test_a_table_that_a_keyspace_which_is_down_could_have_is_not_called_missing(world: World) -> None:
    for sql in ("SELECT * FROM never", "SELECT * FROM nowhere", "SELECT * FROM never"):
        errno, message = world.refusal(sql)
        assert errno == 1105
        assert sql.rpartition(" ")[2] in message
        assert "the tables of keyspace down could not be read" in message
    # The same words for a table that only one could have are believed.
    assert world.refusal("SELECT * FROM sh.never") == (1146, "Table 'sh.never' doesn't exist")
    assert "of keyspace down" in world.refusal("SELECT * FROM never")[1]
    world.make("late")
    assert world.gw.query("SELECT * FROM late") == []
