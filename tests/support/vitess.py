"""A real Vitess cluster beside a LocalEngine, for tests.

``begin`` makes the smallest one that has everything: keyspace ``shop`` (unsharded) with a replica, and
``customer`` with two shards, on three MySQL servers. Everything ends with the test process (see warden).
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.engines.config import Sizes
from homeworld.engines.local import LocalEngine
from homeworld.engines.vitess import binaries
from homeworld.engines.vitess.cluster import LocalClusters
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.errors import InvalidError
from homeworld.model.topology import BackendRole, Flavor
from tests.support import mysqld
from tests.support.engines import run
from tests.support.warden import guard

FOLLOW_SECONDS = 180.0
SHOP, CUSTOMER = "shop", "customer"
CUSTOMER_VSCHEMA: dict[str, object] = {
    "sharded": True,
    "vindexes": {"hash": {"type": "xxhash"}},
    "tables": {"buyers": {"column_vindexes": [{"column": "id", "name": "hash"}]}},
}
BUYERS = "CREATE TABLE {schema}.buyers (id BIGINT PRIMARY KEY, name VARCHAR(40) NOT NULL)"
ITEMS = "CREATE TABLE {schema}.items (id BIGINT PRIMARY KEY, label VARCHAR(40) NOT NULL, amount INT NOT NULL)"


def programs() -> binaries.Binaries:
    """The programs of this machine; the test is skipped where there are none."""
    required = bool(os.environ.get("HOMEWORLD_REQUIRE_VITESS"))
    try:
        found = binaries.find()
    except InvalidError as error:
        if required:
            raise
        pytest.skip(f"{error.message} (scripts/get-vitess)")
    if mysqld.binary(Flavor.MYSQL) is None:
        if required:
            pytest.fail("no MySQL here, and Vitess stands on nothing else")
        pytest.skip("no MySQL here: scripts/get-mysql-9.7 makes one")
    return found


@dataclass(frozen=True)
class VitessWorld:
    """An engine with servers, clusters beside it, and the branch's spec that the cluster follows.

    ``first`` is the primary of ``shop`` and of ``customer/-80``, ``copy`` its replica, of which ``shop`` has
    a tablet, and ``second`` the primary of ``customer/80-``.
    """

    engine: LocalEngine
    clusters: LocalClusters
    spec: ClusterSpec
    data_dir: Path
    home: Path
    first: str = "first"
    copy: str = "copy"
    second: str = "second"

    @property
    def branch_id(self) -> str:
        return self.spec.branch_id

    def follow(self, spec: ClusterSpec | None = None) -> None:
        self.clusters.follow(spec or self.spec, FOLLOW_SECONDS)

    @contextmanager
    def connect(self, role: BackendRole, database: str = "") -> Generator[pymysql.Connection[Any]]:
        """A connection to vtgate as a role; ``database`` as ``keyspace``, ``keyspace@replica`` …"""
        with contextlib.closing(connect(self.clusters, self.engine, self.branch_id, role, database)) as made:
            yield made

    def query(self, role: BackendRole, sql: str, database: str = "") -> list[tuple[Any, ...]]:
        """One statement through vtgate on a connection of its own."""
        with self.connect(role, database) as connection, connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def owner(self, server_id: str, sql: str) -> list[tuple[Any, ...]]:
        """One statement on a server itself, as its administrator."""
        return run(self.engine.endpoint(server_id, BackendRole.OWNER), sql)


def connect(
    clusters: LocalClusters, engine: LocalEngine, branch_id: str, role: BackendRole, database: str = ""
) -> pymysql.Connection[Any]:
    where = clusters.vtgate(branch_id)
    user, password = engine.credentials()[role]
    return pymysql.connect(
        host=where.host,
        port=where.port,
        user=user,
        password=password,
        database=database or None,
        autocommit=True,
        connect_timeout=30,
        read_timeout=60,
    )


def shop(primary: str, *replicas: str) -> ClusterKeyspace:
    return ClusterKeyspace(SHOP, False, {"tables": {}}, (ClusterShard("-", SHOP, primary, tuple(replicas)),))


def customer(low: str, high: str, vschema: dict[str, object] | None = None) -> ClusterKeyspace:
    return ClusterKeyspace(
        CUSTOMER,
        True,
        CUSTOMER_VSCHEMA if vschema is None else vschema,
        (
            ClusterShard("-80", "customer_low", low, ()),
            ClusterShard("80-", "customer_high", high, ()),
        ),
    )


def scratch_home() -> Path:
    """A folder that whoever runs Vitess can reach; it goes with this process."""
    home = Path(tempfile.mkdtemp(prefix="homeworld-vitess-"))
    home.chmod(0o711)
    guard(home, delete=True)
    return home


def make_engine(data_dir: Path, options: tuple[str, ...]) -> LocalEngine:
    data_dir.mkdir(parents=True, exist_ok=True)
    guard(data_dir)
    return LocalEngine(
        data_dir,
        mysqld.binary(Flavor.MYSQL),
        32,
        sizes=Sizes(options=options),
        start_timeout_seconds=120,
    )


def begin(data_dir: Path, options: tuple[str, ...], branch_id: str = "branch1") -> Iterator[VitessWorld]:
    """The world, once its cluster serves; ends all of it after."""
    found = programs()
    engine = make_engine(data_dir, options)
    home = scratch_home()
    clusters = LocalClusters(engine, data_dir, home=home, programs=found)
    spec = ClusterSpec(branch_id, (shop("first", "copy"), customer("first", "second")))
    world = VitessWorld(engine, clusters, spec, data_dir, home)
    try:
        engine.create_server(world.first)
        engine.create_server(world.second)
        for server_id, schema in (
            (world.first, SHOP),
            (world.first, "customer_low"),
            (world.second, "customer_high"),
        ):
            engine.create_schema(server_id, schema)
        world.owner(world.first, ITEMS.format(schema=SHOP))
        world.owner(world.first, BUYERS.format(schema="customer_low"))
        world.owner(world.second, BUYERS.format(schema="customer_high"))
        engine.create_server(world.copy, replica_of=world.first)
        engine.wait_replica(world.copy, 60)
        world.follow()
        yield world
    finally:
        clusters.stop_all()
        for server_id in engine.list_servers():
            engine.destroy_server(server_id)
