"""A Vitess cluster that others run becomes a database: attached while it serves, used by its new clients,
moved within, followed where its owners change it, and let go of as it was.

The cluster is one of another installation, on servers of MySQL; homeworld's own servers are MariaDB where
there is one, as those have nothing to do with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.client import ApiError
from homeworld.engines.vitess import certificates
from homeworld.engines.vitess.cluster import LocalClusters
from homeworld.model.attachments import server_id
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.topology import BackendRole, Flavor
from homeworld.store.store import Store
from tests.conftest import SMALL
from tests.support import mysqld
from tests.support.bank import VSCHEMA, Bank, Login
from tests.support.engines import run
from tests.support.ledger_walk import walk
from tests.support.platform import Platform
from tests.support.vitess import VitessWorld, make_engine, programs, scratch_home
from tests.support.warden import guard

MAIN = (Platform.DATABASE, "main")
PATIENCE = 180.0
OWNER, PASSWORD = "operator", "of the servers"
EMPTY: dict[str, Any] = {"sharded": True, "vindexes": {"xxhash": {"type": "xxhash"}}, "tables": {}}
pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def foreign(server_root: Path) -> Iterator[VitessWorld]:
    """Somebody else's cluster: ``shop`` with a replica, ``shop_sharded`` in two shards, and an administrator
    of its servers who may come over the network."""
    found, data_dir, home = programs(), server_root / "theirs", scratch_home()
    engine = make_engine(data_dir, SMALL)
    clusters = LocalClusters(engine, data_dir, home=home, programs=found)
    shop = ClusterKeyspace("shop", False, {"tables": {}}, (ClusterShard("-", "shop", "one", ("copy",)),))
    sharded = ClusterKeyspace(
        Platform.TARGET,
        True,
        EMPTY,
        (ClusterShard("-80", "low", "two", ()), ClusterShard("80-", "high", "three", ())),
    )
    world = VitessWorld(engine, clusters, ClusterSpec("theirs", (shop, sharded)), data_dir, home)
    try:
        for server, schema in (("one", "shop"), ("two", "low"), ("three", "high")):
            engine.create_server(server)
            engine.create_schema(server, schema)
            world.owner(server, f"CREATE USER '{OWNER}'@'127.0.0.1' IDENTIFIED BY '{PASSWORD}'")
            world.owner(server, f"GRANT ALL PRIVILEGES ON *.* TO '{OWNER}'@'127.0.0.1' WITH GRANT OPTION")
        engine.create_server("copy", replica_of="one")
        engine.wait_replica("copy", 60)
        world.follow()
        yield world
    finally:
        clusters.stop_all()
        for each in engine.list_servers():
            engine.destroy_server(each)


@pytest.fixture
def platform(server_root: Path, request: pytest.FixtureRequest) -> Iterator[Platform]:
    """homeworld with nothing in it."""
    folder = server_root / f"ours-{request.node.name[:20]}"
    guard(folder)
    platform = Platform(folder, mysqld.binary(Flavor.MARIADB) or mysqld.binary(Flavor.MYSQL), 0)
    try:
        platform.start()
        yield platform
    finally:
        platform.installation.destroy()


def attach(
    platform: Platform, foreign: VitessWorld, *options: str, owner: str = PASSWORD, name: str = "shop"
) -> subprocess.CompletedProcess[str]:
    """``homeworld engine attach`` as its user types it."""
    record, identity = foreign.clusters.record("theirs"), certificates.ensure(foreign.home / "tls")
    user, password = foreign.engine.credentials()[BackendRole.ADMIN]
    logins = {
        "vtgate": {"user": user, "password": password},
        "mysql": {"user": OWNER, "password": owner},
    }
    return subprocess.run(
        [
            sys.executable, "-m", "homeworld.main", "engine", "attach", name,
            "--vtctld", f"127.0.0.1:{record.vtctld_port}", "--vtgate", f"127.0.0.1:{record.vtgate_port}",
            "--vtgate-http", f"127.0.0.1:{record.vtgate_http_port}", "--logins", "-",
            "--vtctld-ca", str(identity.ca), "--vtctld-cert", str(identity.certificate),
            "--vtctld-key", str(identity.key), "--data-dir", str(platform.installation.data_dir), *options,
        ],
        input=json.dumps(logins), capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip


def attached(platform: Platform, foreign: VitessWorld) -> Login:
    """The cluster as a database that is served, and a password of it."""
    done = attach(platform, foreign)
    assert done.returncode == 0, done.stderr
    assert "it is served" in done.stdout, done.stderr
    platform.client.enable_safe_migrations(platform.organization, *MAIN)
    return platform.login()


def execute(login: Login, schema: str, *statements: str) -> list[tuple[Any, ...]]:
    with closing(login.connect(schema, autocommit=True)) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return list(cursor.fetchall())


def until(what: str, holds: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.2)


def clear(foreign: VitessWorld) -> None:
    """The cluster as it was, without the tests' tables."""
    clusters = foreign.clusters
    clusters.apply_rules("theirs", {})
    foreign.follow()
    for server, schema in (("one", "shop"), ("two", "low"), ("three", "high")):
        for (table,) in foreign.owner(server, f"SHOW TABLES FROM `{schema}`"):
            foreign.owner(server, f"DROP TABLE `{schema}`.`{table}`")


@pytest.mark.long
def test_no_commit_is_lost_on_the_whole_walk(platform: Platform, foreign: VitessWorld) -> None:
    """Clients of the gateway write through a whole move within a cluster of others."""
    login = attached(platform, foreign)
    try:
        platform.client.update_vschema(platform.organization, *MAIN, Platform.TARGET, VSCHEMA)
        bank = Bank(accounts=200)
        with login.connect("shop") as connection:
            bank.open(connection)

        def reach(state: str) -> None:
            if state == "verified_data":
                platform.verify(PATIENCE)
            else:
                platform.persist(state, PATIENCE)

        walk(platform, login, bank, reach, connections=4, dwell=0.5, seconds=PATIENCE)
        assert platform.workflow()["state"] == "completed"
    finally:
        clear(foreign)


@pytest.mark.long
def test_killed_in_the_middle_it_goes_on(platform: Platform, foreign: VitessWorld) -> None:
    """A move while homeworld dies; the cluster's own clients go on, and homeworld finds it again."""
    login = attached(platform, foreign)
    client = platform.client
    try:
        client.update_vschema(platform.organization, *MAIN, Platform.TARGET, VSCHEMA)
        bank = Bank(accounts=2000)
        with login.connect("shop") as connection:
            bank.open(connection)
        platform.begin()
        platform.installation.kill()
        theirs = "UPDATE accounts SET balance = balance + 1 WHERE id = 1"
        foreign.query(BackendRole.ADMIN, theirs, "shop")
        platform.start()
        login = platform.login()
        platform.reaches("running", PATIENCE)
        platform.verify(PATIENCE)
        platform.persist("switched_primaries", PATIENCE)
        platform.installation.kill()
        platform.start()
        login = platform.login()
        until("served again", lambda: _answers(login))
        assert execute(login, "shop", "SELECT COUNT(*), SUM(balance) FROM accounts") == [
            (2000, 2000 * 1_000_000 + 1)
        ]
        assert execute(login, "shop_sharded:-80", "SELECT COUNT(*) FROM accounts")[0][0] > 0
        platform.cancel(PATIENCE)
        assert execute(login, "shop", "SELECT COUNT(*) FROM shop.accounts") == [(2000,)]
    finally:
        clear(foreign)


def _answers(login: Login) -> bool:
    try:
        execute(login, "shop", "SELECT 1 FROM accounts LIMIT 1")
    except pymysql.MySQLError:  # its gateway comes up
        return False
    return True


def test_what_its_owners_change_is_followed(platform: Platform, foreign: VitessWorld) -> None:
    """Primaries, vschemas and rules are the cluster's to say; what is not ours to do is refused."""
    login = attached(platform, foreign)
    client, organization = platform.client, platform.organization
    store = Store.open(f"sqlite:///{platform.installation.data_dir / 'homeworld.db'}")
    try:
        execute(login, "shop", "CREATE TABLE things (id INT PRIMARY KEY)", "INSERT INTO things VALUES (1)")
        with store.read() as tx:
            branch = tx.branches.default(
                tx.databases.by_name(tx.organizations.by_name(organization).id, "shop").id
            )
            keyspace = tx.keyspaces.by_name(branch.id, "shop")

        def primary() -> str | None:
            with store.read() as tx:
                return tx.keyspaces.shards(keyspace.id)[0].primary_server_id

        uids = {tablet.server_id: tablet.uid for tablet in foreign.clusters.record("theirs").tablets}
        ids = {name: server_id(branch.id, f"local-{uid:010d}") for name, uid in uids.items()}
        assert primary() == ids["one"]

        # Another primary: the store names it, and clients write on.
        foreign.engine.promote("copy")
        shop, sharded = foreign.spec.keyspaces
        turned = replace(shop, shards=(ClusterShard("-", "shop", "copy", ("one",)),))
        foreign.follow(replace(foreign.spec, keyspaces=(turned, sharded)))
        until("the new primary is stored", lambda: primary() == ids["copy"])
        until("it is written to", lambda: _writes(login))
        foreign.engine.promote("one")
        foreign.follow()
        until("the first primary is stored again", lambda: primary() == ids["one"])

        # A vschema and rules of theirs, and one of ours.
        wanted = {**EMPTY, "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}}}
        theirs = replace(sharded, vschema=wanted)
        foreign.follow(replace(foreign.spec, keyspaces=(shop, theirs)))
        until(
            "their vschema is told",
            lambda: "orders" in json.dumps(client.get_vschema(organization, *MAIN, Platform.TARGET)),
        )
        execute(login, "shop_sharded", "CREATE TABLE orders (id BIGINT PRIMARY KEY, note VARCHAR(9))")
        execute(login, "shop_sharded", "INSERT INTO orders (id, note) VALUES (1, 'a'), (2, 'b'), (3, 'c')")
        foreign.clusters.apply_rules("theirs", {"things": "shop.things"})
        until("their rules are told", lambda: _rules(store, branch.id) == {"things": "shop.things"})
        with pytest.raises(ApiError, match="table orders of keyspace shop_sharded has rows"):
            client.update_vschema(organization, *MAIN, Platform.TARGET, VSCHEMA)
        ours = {**VSCHEMA, "tables": {**VSCHEMA["tables"], **wanted["tables"]}}
        client.update_vschema(organization, *MAIN, Platform.TARGET, ours)
        assert "accounts" in json.dumps(foreign.clusters.vschema("theirs", Platform.TARGET))

        # What only whoever runs the cluster can do.
        for refused in (
            lambda: client.create_keyspace(organization, *MAIN, "more", shards=1),
            lambda: client.create_branch(organization, "shop", "dev"),
            lambda: client.change_engine(organization, "shop", "vitess"),
        ):
            with pytest.raises(ApiError, match=r"others run|goes from local") as error:
                refused()
            assert error.value.status == 422

        # Let go of: homeworld forgets, the cluster has all of it.
        client.delete_database(organization, "shop")
        folder = platform.installation.data_dir / "vitess" / "attached"
        until("it is forgotten", lambda: list(folder.iterdir()) == [])
        assert foreign.query(BackendRole.ADMIN, "SELECT COUNT(*) FROM things", "shop") == [(2,)]
        assert foreign.query(BackendRole.ADMIN, "SELECT COUNT(*) FROM orders", "shop_sharded") == [(3,)]
    finally:
        store.close()
        clear(foreign)


def _writes(login: Login) -> bool:
    try:
        execute(login, "shop", "INSERT INTO things VALUES (2)")
    except pymysql.MySQLError:  # held by nobody, their change of primaries may break off a statement
        return False
    return True


def _rules(store: Store, branch_id: str) -> dict[str, str]:
    with store.read() as tx:
        return dict(tx.routes.rules(branch_id))


def test_what_cannot_be_attached_is_said_and_leaves_nothing(platform: Platform, foreign: VitessWorld) -> None:
    folder = platform.installation.data_dir / "vitess" / "attached"
    wrong = attach(platform, foreign, owner="something else")
    assert wrong.returncode == 1
    assert "the server of tablet local-" in wrong.stderr
    assert f"cannot be used as {OWNER}" in wrong.stderr
    far = attach(platform, foreign, "--vtctld", "127.0.0.1:1")
    assert far.returncode == 1, far.stdout
    unknown = attach(platform, foreign, "--default-keyspace", "nowhere")
    assert unknown.returncode == 1
    assert "no keyspace nowhere; it has shop, shop_sharded" in unknown.stderr
    assert list(folder.iterdir()) == []
    assert attach(platform, foreign).returncode == 0
    again = attach(platform, foreign, name="other")
    assert again.returncode == 1
    assert "is database shop already" in again.stderr
    run(foreign.engine.endpoint("one", BackendRole.OWNER), "SELECT 1")
