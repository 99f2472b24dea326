"""A cluster follows its spec, serves by the roles' rights, and comes back whatever of it dies."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import replace

import pymysql
import pytest

from homeworld.engines.vitess.cluster import LocalClusters
from homeworld.engines.vitess.members import known, known_etcd
from homeworld.engines.vitess.processes import Runner
from homeworld.model.clusters import ClusterKeyspace, ClusterShard, ClusterSpec
from homeworld.model.errors import DeadlineExceededError, FencedError, InvalidError, NotFoundError
from homeworld.model.routing_rules import render
from homeworld.model.topology import BackendRole
from tests.support.vitess import (
    CUSTOMER,
    CUSTOMER_VSCHEMA,
    FOLLOW_SECONDS,
    SHOP,
    VitessWorld,
    customer,
    shop,
)

READER, WRITER, READWRITER, ADMIN = (
    BackendRole.READER,
    BackendRole.WRITER,
    BackendRole.READWRITER,
    BackendRole.ADMIN,
)


def pids(world: VitessWorld) -> dict[str, int | None]:
    """The processes of the branch, by name."""
    runner, branch = Runner(), world.clusters.record(world.branch_id)
    every = [known_etcd(world.home), *known(world.home, branch)]
    return {one.name: runner.pid(one) for one in every}


def lease_for(passes: int) -> Callable[[], None]:
    """A lease that is lost after it was looked at so many times."""
    calls: list[int] = []

    def check() -> None:
        calls.append(1)
        if len(calls) > passes:
            raise FencedError("lost")

    return check


@contextmanager
def watched(world: VitessWorld) -> Generator[None]:
    watcher = world.clusters.watch(interval_seconds=0.2)
    try:
        yield
    finally:
        watcher.stop(60)


def until_serves(world: VitessWorld, sql: str, database: str, role: BackendRole = READER) -> None:
    """Ask again and again until vtgate answers; the deadline only ends what would never end."""
    deadline = time.monotonic() + 90
    while True:
        try:
            world.query(role, sql, database)
            return
        except pymysql.MySQLError:
            assert time.monotonic() < deadline, f"never answered again: {sql}"
            time.sleep(0.1)


def test_following_twice_changes_nothing(vitess: VitessWorld) -> None:
    before = pids(vitess)
    assert all(before.values())
    assert len(before) == 7  # etcd, vtctld, vtgate, and a tablet for each shard on each of its servers
    vitess.follow()
    assert pids(vitess) == before


def test_roles_have_their_rights(vitess: VitessWorld) -> None:
    vitess.query(READWRITER, "INSERT INTO items (id, label, amount) VALUES (1, 'one', 10)", SHOP)
    vitess.query(WRITER, "INSERT INTO items (id, label, amount) VALUES (2, 'two', 20)", SHOP)
    vitess.query(WRITER, "UPDATE items SET amount = 21 WHERE id = 2", SHOP)
    assert vitess.query(READER, "SELECT id, amount FROM items ORDER BY id", SHOP) == [(1, 10), (2, 21)]
    for sql in (
        "INSERT INTO items (id, label, amount) VALUES (3, 'three', 30)",
        "UPDATE items SET amount = 0",
        "DELETE FROM items",
        "CREATE TABLE more (id INT PRIMARY KEY)",
    ):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            vitess.query(READER, sql, SHOP)
    with pytest.raises(pymysql.MySQLError, match="denied"):
        vitess.query(READWRITER, "CREATE TABLE more (id INT PRIMARY KEY)", SHOP)
    vitess.query(ADMIN, "CREATE TABLE more (id INT PRIMARY KEY)", SHOP)
    vitess.query(ADMIN, "DROP TABLE more", SHOP)
    vitess.query(ADMIN, "DELETE FROM items", SHOP)


def test_servers_errors_keep_their_words(vitess: VitessWorld) -> None:
    with pytest.raises(pymysql.MySQLError, match="Duplicate entry") as caught:
        vitess.query(
            READWRITER, "INSERT INTO items (id, label, amount) VALUES (5, 'five', 1), (5, 'five', 2)", SHOP
        )
    number, words = caught.value.args
    assert number == 1062
    assert "Duplicate entry '5' for key 'items.PRIMARY'" in words


def test_nobody_sees_the_servers_own_schemas(vitess: VitessWorld) -> None:
    with pytest.raises(pymysql.MySQLError, match="denied"):
        vitess.query(ADMIN, "SELECT user, authentication_string FROM mysql.user", SHOP)


def test_routines_are_nobodys(vitess: VitessWorld) -> None:
    vitess.owner(vitess.first, "CREATE PROCEDURE shop.wipe() DELETE FROM shop.items")
    vitess.query(READWRITER, "INSERT INTO items (id, label, amount) VALUES (4, 'four', 40)", SHOP)
    for role in (READER, READWRITER, ADMIN):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            vitess.query(role, "CALL wipe()", SHOP)
    assert vitess.query(READER, "SELECT count(*) FROM items", SHOP) == [(1,)]
    vitess.owner(vitess.first, "DROP PROCEDURE shop.wipe")
    vitess.query(READWRITER, "DELETE FROM items", SHOP)


def test_nobody_else_connects(vitess: VitessWorld) -> None:
    where = vitess.clusters.vtgate(vitess.branch_id)
    user, _ = vitess.engine.credentials()[ADMIN]
    owner, password = vitess.engine.credentials()[BackendRole.OWNER]
    for name, secret in ((user, "wrong"), (owner, password), ("root", "")):
        with pytest.raises(pymysql.MySQLError, match="denied"):
            pymysql.connect(host=where.host, port=where.port, user=name, password=secret)


def test_rows_go_to_their_shards(vitess: VitessWorld) -> None:
    for number in range(1, 21):
        vitess.query(READWRITER, f"INSERT INTO buyers (id, name) VALUES ({number}, 'n{number}')", CUSTOMER)
    low = {row[0] for row in vitess.owner(vitess.first, "SELECT id FROM customer_low.buyers")}
    high = {row[0] for row in vitess.owner(vitess.second, "SELECT id FROM customer_high.buyers")}
    assert low | high == set(range(1, 21))
    assert low
    assert high
    assert not low & high
    assert vitess.query(READER, "SELECT count(*) FROM buyers", CUSTOMER) == [(20,)]
    vitess.query(READWRITER, "DELETE FROM buyers", CUSTOMER)


def test_replicas_serve_reads(vitess: VitessWorld) -> None:
    vitess.query(READWRITER, "INSERT INTO items (id, label, amount) VALUES (7, 'seven', 70)", SHOP)
    vitess.engine.wait_replica(vitess.copy, 30)
    until_serves(vitess, "SELECT 1 FROM items", f"{SHOP}@replica")
    assert vitess.query(READER, "SELECT label FROM items WHERE id = 7", f"{SHOP}@replica") == [("seven",)]
    vitess.query(READWRITER, "DELETE FROM items", SHOP)


def test_rules_lead_where_they_say(vitess: VitessWorld) -> None:
    branch = vitess.branch_id
    assert vitess.clusters.rules(branch) == {}
    rules = {"goods": "shop.items", "customer.goods": "shop.items", "goods@replica": "shop.items"}
    vitess.clusters.apply_rules(branch, rules)
    assert vitess.clusters.rules(branch) == rules
    vitess.clusters.await_rules(branch, rules, 5)
    assert vitess.query(READER, "SELECT count(*) FROM goods") == [(0,)]
    with pytest.raises(DeadlineExceededError):
        vitess.clusters.await_rules(branch, {"goods": "customer.buyers"}, 0.2)
    vitess.clusters.apply_rules(branch, {})
    assert vitess.clusters.rules(branch) == {}


@pytest.mark.parametrize("how", ["given nothing", "its owner dies", "given half", "set"])
def test_rules_that_wait_are_set_whole_or_not_at_all(vitess: VitessWorld, how: str) -> None:
    """Clients wait for it, so the command is up before; whoever was to give it rules may die first."""
    before = dict(vitess.clusters.rules(vitess.branch_id))
    after = {**before, "waiting": "shop.items"}
    setter = vitess.clusters.begin_rules(vitess.branch_id)
    try:
        assert setter.rules == before
        assert setter.waiting is not None
        process = setter.waiting.process
        assert process.stdin is not None
        if how == "set":
            setter.set(after, 10.0)
            assert dict(vitess.clusters.seen_by_vtgate(vitess.branch_id).rules) == after
        elif how != "given nothing":
            if how == "given half":
                process.stdin.write(json.dumps(render(after))[:-20])
            process.stdin.close()  # as the kernel does for whoever dies
            assert process.wait(10) != 0
    finally:
        setter.close()
    assert dict(vitess.clusters.rules(vitess.branch_id)) == (after if how == "set" else before)
    vitess.clusters.apply_rules(vitess.branch_id, before)


def test_vschemas_follow_and_are_judged(vitess: VitessWorld) -> None:
    more: dict[str, object] = {
        **CUSTOMER_VSCHEMA,
        "tables": {
            "buyers": {"column_vindexes": [{"column": "id", "name": "hash"}]},
            "orders": {"column_vindexes": [{"column": "buyer_id", "name": "hash"}]},
        },
    }
    vitess.clusters.check_vschema(vitess.branch_id, CUSTOMER, more)
    shop_keyspace = vitess.spec.keyspaces[0]
    vitess.follow(replace(vitess.spec, keyspaces=(shop_keyspace, customer("first", "second", more))))
    assert vitess.clusters.vschema(vitess.branch_id, CUSTOMER) == more
    wrong: dict[str, object] = {**more, "vindexes": {"hash": {"type": "no_such_vindex"}}}
    with pytest.raises(InvalidError, match="no_such_vindex"):
        vitess.clusters.check_vschema(vitess.branch_id, CUSTOMER, wrong)
    with pytest.raises(InvalidError, match="no_such_vindex"):
        vitess.follow(replace(vitess.spec, keyspaces=(shop_keyspace, customer("first", "second", wrong))))
    vitess.follow()
    assert vitess.clusters.vschema(vitess.branch_id, CUSTOMER) == CUSTOMER_VSCHEMA


def test_two_shards_on_one_server_are_refused(vitess: VitessWorld) -> None:
    shop_keyspace = vitess.spec.keyspaces[0]
    with pytest.raises(InvalidError, match="servers of its own"):
        vitess.follow(replace(vitess.spec, keyspaces=(shop_keyspace, customer("first", "first"))))


def test_a_keyspace_comes_and_goes(vitess: VitessWorld) -> None:
    vitess.engine.create_schema(vitess.second, "extra")
    vitess.owner(vitess.second, "CREATE TABLE extra.notes (id INT PRIMARY KEY)")
    extra = ClusterKeyspace("extra", False, {}, (ClusterShard("-", "extra", vitess.second, ()),))
    vitess.follow(replace(vitess.spec, keyspaces=(*vitess.spec.keyspaces, extra)))
    vitess.query(READWRITER, "INSERT INTO notes VALUES (1)", "extra")  # its columns are known
    sidecars = len(vitess.owner(vitess.second, "SHOW DATABASES LIKE '\\_vt\\_%'"))
    # Who loses the lease behind the wait for others, or before anything is let go, takes nothing away.
    for passes in (0, 1):
        with pytest.raises(FencedError):
            vitess.clusters.follow(vitess.spec, FOLLOW_SECONDS, lease_for(passes))
        assert vitess.clusters.vschema(vitess.branch_id, "extra") == {}
        assert len(pids(vitess)) == 8
        assert vitess.query(READER, "SELECT id FROM notes", "extra") == [(1,)]
    vitess.follow()
    assert len(pids(vitess)) == 7
    assert len(vitess.owner(vitess.second, "SHOW DATABASES LIKE '\\_vt\\_%'")) == sidecars - 1
    with pytest.raises(NotFoundError):
        vitess.clusters.vschema(vitess.branch_id, "extra")
    vitess.engine.drop_schema(vitess.second, "extra")


def test_a_promotion_is_followed(vitess: VitessWorld) -> None:
    vitess.query(READWRITER, "INSERT INTO items (id, label, amount) VALUES (9, 'nine', 90)", SHOP)
    turned = replace(
        vitess.spec, keyspaces=(shop(vitess.copy, vitess.first), customer(vitess.copy, vitess.second))
    )
    for primary, spec in ((vitess.copy, turned), (vitess.first, vitess.spec)):
        vitess.engine.promote(primary)
        vitess.follow(spec)
        assert vitess.clusters.primaries(vitess.branch_id, SHOP)["-"].server_id == primary
        assert vitess.clusters.primaries(vitess.branch_id, CUSTOMER)["-80"].server_id == primary
        vitess.query(READWRITER, "UPDATE items SET amount = amount + 1", SHOP)
        vitess.query(READWRITER, "INSERT INTO buyers (id, name) VALUES (1, 'one'), (2, 'two')", CUSTOMER)
        vitess.query(READWRITER, "DELETE FROM buyers", CUSTOMER)
    assert vitess.query(READER, "SELECT amount FROM items", SHOP) == [(92,)]
    assert len(pids(vitess)) == 7
    vitess.query(READWRITER, "DELETE FROM items", SHOP)


@pytest.mark.parametrize("who", ["etcd", "vtctld", "vtgate", "tablet"])
def test_what_is_killed_comes_back(vitess: VitessWorld, who: str) -> None:
    before = pids(vitess)
    (name, pid) = next((name, pid) for name, pid in before.items() if name.startswith(who))
    assert pid is not None
    with watched(vitess):
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 90
        while (now := pids(vitess)[name]) is None or now == pid:
            assert time.monotonic() < deadline, f"{name} never came back"
            time.sleep(0.05)
        until_serves(vitess, "SELECT count(*) FROM items", SHOP)
        until_serves(vitess, "SELECT count(*) FROM buyers", CUSTOMER)
    vitess.follow()
    after = pids(vitess)
    assert {other for other in after if after[other] != before[other]} == {name}


def test_another_object_finds_everything(vitess: VitessWorld) -> None:
    before = pids(vitess)
    other = LocalClusters(vitess.engine, vitess.data_dir)
    assert other.branch_ids() == [vitess.branch_id]
    other.follow(vitess.spec, FOLLOW_SECONDS)
    assert pids(vitess) == before


def test_all_stop_and_start(vitess: VitessWorld) -> None:
    assert vitess.clusters.stop_all(30) == []
    assert not any(pids(vitess).values())
    assert vitess.clusters.ailing(vitess.branch_id) == []  # stopped on purpose
    assert vitess.clusters.start_all() == {}
    vitess.follow()
    assert vitess.query(READER, "SELECT count(*) FROM buyers", CUSTOMER) == [(0,)]


def test_the_end_leaves_nothing(vitess: VitessWorld) -> None:
    branch = "branch2"
    vitess.engine.create_schema(vitess.second, "other")
    other = ClusterKeyspace("other", False, {}, (ClusterShard("-", "other", vitess.second, ()),))
    vitess.clusters.follow(ClusterSpec(branch, (other,)), FOLLOW_SECONDS)
    record, runner = vitess.clusters.record(branch), Runner()
    mine = list(known(vitess.home, record))
    assert all(runner.pid(one) is not None for one in mine)
    before = pids(vitess)
    with pytest.raises(FencedError):
        vitess.clusters.end(branch, lease_for(0))
    assert all(runner.pid(one) is not None for one in mine)
    vitess.clusters.end(branch)
    assert [runner.pid(one) for one in mine] == [None] * len(mine)
    assert not (vitess.home / "branches" / branch).exists()
    assert vitess.clusters.branch_ids() == [vitess.branch_id]
    with pytest.raises(NotFoundError):
        vitess.clusters.vtgate(branch)
    vitess.clusters.end(branch)
    assert pids(vitess) == before
    vitess.engine.drop_schema(vitess.second, "other")
