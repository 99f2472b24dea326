"""The pscale command line tool on sizes, resizes, schemas, connections and all else of a branch's resources.

The tool is unmodified and not part of this project; without it this module is skipped (see ``test_pscale``).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.cli.installation import Installation
from homeworld.model.topology import Flavor
from tests.conftest import FLAVORS
from tests.scenarios.test_pscale import Pscale
from tests.support.clients import pscale as program
from tests.support.mysqld import binary

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300), pytest.mark.one_flavor(Flavor.MYSQL)]

AT = ("shop", "main")
SHOP = (*AT, "shop")
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def pscale(flavor: Flavor, server_root: Path) -> Iterator[Pscale]:
    program()
    if flavor is not FLAVORS[0]:
        pytest.skip("what it drives is tested on both kinds of servers")
    folder = Path(tempfile.mkdtemp(prefix=f"pscale-res-{flavor.value}-", dir=server_root))
    server = binary(flavor)
    assert server is not None
    installation = Installation(
        folder / "homeworld",
        ("--api-port", "0", "--gateway-port", "0", "--replicas", "0", "--mysqld", str(server)),
    )
    try:
        installation.start()
        made = Pscale(folder, installation)
        made.run("database", "create", "shop", "--cluster-size", "PS-10", "--wait")
        yield made
    finally:
        installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def login(pscale: Pscale) -> dict[str, Any]:
    return dict(pscale.ask("password", "create", *AT, "app"))


def connect(pscale: Pscale, login: dict[str, Any], schema: str = "shop") -> Any:
    # Another port after a restart.
    port = int(pscale.installation.ready["gateway_port"])
    return pymysql.connect(
        host="127.0.0.1", port=port, user=login["username"], password=login["plain_text"], database=schema,
        ssl_ca=pscale.installation.ready["ca_file"], ssl_verify_cert=True, autocommit=True, read_timeout=60,
    )  # fmt: skip


def run(pscale: Pscale, login: dict[str, Any], *statements: str, schema: str = "shop") -> Any:
    with connect(pscale, login, schema) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall()


def until(what: str, holds: Callable[[], Any], seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.1)
    return found


def resized(pscale: Pscale, *at: str) -> dict[str, Any]:
    """The newest resize, once it is done."""

    def done() -> Any:
        told = pscale.ask("keyspace", "resize", "status", *at)
        return told if told["state"] == "completed" else None

    return dict(until("the resize is done", done))


def server_pids(pscale: Pscale) -> dict[str, int]:
    """Each server's process, by its id."""
    folder = pscale.folder / "homeworld" / "servers"
    return {one.parent.name: int(one.read_text()) for one in folder.glob("[!.]*/pid")}


def test_sizes_and_regions(pscale: Pscale) -> None:
    sizes = {one["name"]: one for one in pscale.ask("size", "cluster", "list", "--engine", "mysql")}
    assert {"homeworld", "PS_10", "PS_2800"} <= set(sizes)
    assert sizes["PS_10"]["ram"] == 1024 * MIB
    shown = pscale.run("size", "cluster", "list", "--region", "local")
    assert "PS-10" in shown
    assert [one["slug"] for one in pscale.ask("region", "list")] == ["local"]
    assert pscale.ask("branch", "show", *AT)["ready"]
    code, sentence = pscale.refused("database", "create", "odd", "--cluster-size", "PS-7")
    # Before 0.308.0 the tool makes its code of the sentence, which says that there is no such size.
    assert (code in {"unprocessable", "NOT_FOUND"}, "PS_7" in sentence) == (True, True), sentence


def test_schema_diff_and_lint(pscale: Pscale, login: dict[str, Any]) -> None:
    run(
        pscale, login,
        "CREATE TABLE orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, note VARCHAR(40))",
        "INSERT INTO orders (note) VALUES ('a'), ('b')",
    )  # fmt: skip
    assert "successfully created" in pscale.run("branch", "create", "shop", "dev", "--wait")
    (shown,) = pscale.ask("branch", "schema", *AT)
    assert (shown["name"], "AUTO_INCREMENT=" in shown["raw"]) == ("orders", False)
    assert "CREATE TABLE `orders`" in pscale.run("branch", "schema", *AT, "--keyspace", "shop")
    assert pscale.ask("branch", "diff", "shop", "dev") == []
    dev = dict(pscale.ask("password", "create", "shop", "dev", "app"))
    run(
        pscale, dev, "ALTER TABLE orders ADD COLUMN price INT", "CREATE TABLE loose (v INT) COMMENT 'no key'",
    )  # fmt: skip
    told = {one["name"]: one["raw"] for one in pscale.ask("branch", "diff", "shop", "dev")}
    assert sorted(told) == ["loose", "orders"]
    assert "+  `price` int" in told["orders"]
    assert "+CREATE TABLE `loose`" in told["loose"]
    assert "`price`" in pscale.run("branch", "diff", "shop", "dev")
    linted = pscale.ask("branch", "lint", "shop", "dev")
    assert [(one["table_name"], one["lint_error"]) for one in linted] == [("loose", "NO_UNIQUE_KEY")]
    assert pscale.refused("branch", "diff", *AT)[0] == "unprocessable"
    pscale.run("branch", "refresh-schema", "shop", "dev")
    pscale.run("branch", "promote", "shop", "dev")
    pscale.run("branch", "safe-migrations", "enable", "shop", "dev")
    pscale.run("branch", "demote", "shop", "dev")
    assert not pscale.ask("branch", "show", "shop", "dev")["safe_migrations"]
    pscale.run("branch", "delete", "shop", "dev", "--force")
    assert [one["name"] for one in pscale.ask("branch", "list", "shop")] == ["main"]


def test_routing_rules(pscale: Pscale) -> None:
    file = pscale.folder / "rules.json"
    rules = {"rules": [{"from_table": "purchases", "to_tables": ["shop.orders"]}]}
    file.write_text(json.dumps(rules))
    pscale.run("branch", "routing-rules", "update", *AT, "--routing-rules", str(file))
    assert json.loads(pscale.run("branch", "routing-rules", "get", *AT)) == rules
    file.write_text('{"rules": []}')
    pscale.run("branch", "routing-rules", "update", *AT, "--routing-rules", str(file))


def test_connections_are_seen_and_ended(pscale: Pscale, login: dict[str, Any]) -> None:
    ended: list[BaseException] = []

    def sleep() -> None:
        try:
            run(pscale, login, "SELECT SLEEP(50)")
        except pymysql.err.MySQLError as error:
            ended.append(error)

    def sleeping() -> Any:
        listed = pscale.ask("branch", "connections", "show", *AT)
        assert listed["database_kind"] == "mysql"
        assert [one["role"] for one in listed["instances"]] == ["primary"]
        return next((c for c in listed["connections"] if "SLEEP" in c["query_text"]), None)

    for words in (("--query",), ()):
        sleeper = threading.Thread(target=sleep, daemon=True)
        sleeper.start()
        one = until("it sleeps", sleeping)
        wanted = one["query_id"] if words else one["connection_id"]
        assert "SLEEP" in pscale.run("branch", "processlist", "show", *AT)
        done = pscale.ask("branch", "connections", "kill", *AT, wanted, *words)
        assert (done["success"], done["kind"]) == (True, "query" if words else "connection")
        sleeper.join(30)
        assert not sleeper.is_alive()
        told = pscale.run("branch", "connections", "kill", *AT, wanted, *words, expect=2)
        assert "not found" in told
    assert len(ended) >= 1
    assert run(pscale, login, "SELECT COUNT(*) FROM orders") == ((2,),)


def test_infrastructure(pscale: Pscale) -> None:
    deadline = time.monotonic() + 60
    while (found := pscale.ask("branch", "infra", *AT)) and time.monotonic() < deadline:
        if all(one["ready"] == "1/1" for one in found):
            break  # a server that does not answer within a second is not ready
        time.sleep(0.2)
    (pod,) = found
    assert (pod["component"], pod["keyspace"], pod["tablet_type"]) == ("vttablet", "shop", "primary")
    assert (pod["ready"], pod["size"], pod["cell"]) == ("1/1", "PS_10", "local")
    assert "shop/-" in pscale.run("branch", "infra", *AT)


def test_a_keyspace_is_resized(pscale: Pscale, login: dict[str, Any]) -> None:
    at = (*AT, "shop")
    pool = "SELECT @@innodb_buffer_pool_size"
    assert run(pscale, login, pool) == ((512 * MIB,),)
    stop, errors, count = threading.Event(), list[BaseException](), [0]

    def work() -> None:
        try:
            with connect(pscale, login) as connection, connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("INSERT INTO orders (note) VALUES ('c')")
                    count[0] += 1
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            errors.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    words = ("--cluster-size", "PS-20", "--additional-replicas", "1")
    asked = pscale.ask("keyspace", "resize", *at, *words)
    assert (asked["cluster_name"], asked["extra_replicas"]) == ("PS_20", 1)
    done = resized(pscale, *at)
    assert (done["id"], done["previous_cluster_name"]) == (asked["id"], "PS_10")
    stop.set()
    worker.join(60)
    assert errors == []
    shown = pscale.ask("keyspace", "show", *at)
    assert (shown["replicas"], shown["extra_replicas"], shown["resizing"]) == (1, 1, False)
    assert run(pscale, login, pool) == ((1024 * MIB,),)
    assert run(pscale, login, pool, schema="shop@replica") == ((1024 * MIB,),)
    assert run(pscale, login, "SELECT COUNT(*) FROM orders") == ((count[0] + 2,),)
    (shard,) = pscale.ask("keyspace", "rollout-status", *at)
    assert (shard["name"], shard["state"]) == ("-", "complete")
    assert "Complete" in pscale.run("keyspace", "rollout-status", *at)
    assert len(pscale.ask("branch", "infra", *AT)) == 2


def test_what_waits_is_cancelled(pscale: Pscale, login: dict[str, Any]) -> None:
    """A server that hangs keeps a resize from ending; the next one waits behind it."""
    at = (*AT, "shop")
    pids = server_pids(pscale)
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)
    try:
        pscale.run("keyspace", "resize", *at, "--cluster-size", "PS-40")
        until("it has begun", lambda: pscale.ask("keyspace", "resize", "status", *at)["state"] == "resizing")
        assert pscale.ask("keyspace", "show", *at)["resizing"]
        assert pscale.refused("keyspace", "resize", "cancel", *at)[0] == "unprocessable"
        waiting = pscale.ask("keyspace", "resize", *at, "--cluster-size", "PS-80")
        assert waiting["state"] == "queued"
        pscale.run("keyspace", "resize", "cancel", *at)
        assert pscale.ask("keyspace", "resize", "status", *at)["state"] == "canceled"
    finally:
        for pid in pids.values():
            os.kill(pid, signal.SIGCONT)

    def in_force() -> bool:
        return not pscale.ask("keyspace", "show", *at)["resizing"]

    until("the first one is done", in_force)
    assert run(pscale, login, "SELECT @@innodb_buffer_pool_size") == ((2048 * MIB,),)


def test_a_resize_goes_on_after_kill_9(pscale: Pscale, login: dict[str, Any]) -> None:
    at = (*AT, "shop")
    for size in ("PS-20", "PS-10"):
        pscale.run("keyspace", "resize", *at, "--cluster-size", size, "--additional-replicas", "2")
        until("it goes on", lambda: pscale.ask("keyspace", "resize", "status", *at)["state"] != "pending")
        pscale.installation.kill()
        pscale.installation.start()
        pscale.follow()
        resized(pscale, *at)
    assert run(pscale, login, "SELECT @@innodb_buffer_pool_size") == ((512 * MIB,),)
    shown = pscale.ask("keyspace", "show", *at)
    assert (shown["replicas"], shown["cluster_name"]) == (2, "PS_10")
    assert len(server_pids(pscale)) == 3
    pscale.run("keyspace", "resize", *at, "--additional-replicas", "0")
    resized(pscale, *at)
    assert len(server_pids(pscale)) == 1


def test_settings_and_keyspaces(pscale: Pscale) -> None:
    told = pscale.run("keyspace", "create", *AT, "wide", "--shards", "2", "--cluster-size", "PS-10", "--wait")
    assert "successfully created" in told
    at = (*AT, "wide")
    words = (
        "--vreplication-optimize-inserts=false",
        "--replication-durability-constraints-strategy",
        "dynamic",
    )
    pscale.run("keyspace", "update-settings", *at, *words)
    settings = pscale.ask("keyspace", "settings", *at)
    assert settings["replication_durability_constraints"] == {"strategy": "lag"}
    assert not settings["vreplication_flags"]["optimize_inserts"]
    if pscale.knows("keyspace", "read-only-regions"):
        assert pscale.ask("keyspace", "read-only-regions", *at) == []
        told = pscale.refused("keyspace", "read-only-regions", "add", *at, "local")
        assert told[0] == "unprocessable"
    rollout = pscale.ask("keyspace", "rollout-status", *at)
    assert [one["name"] for one in rollout] == ["-80", "80-"]
    assert pscale.run("branch", "connections", "show", *AT, expect=2).count("wide")


def test_gateways_are_resized(pscale: Pscale) -> None:
    if not pscale.knows("branch", "vtgate"):
        pytest.skip("this pscale has no `branch vtgate`")
    assert pscale.ask("branch", "vtgate", "show", *AT)["vtgate_size"] == "homeworld"
    assert pscale.run("branch", "vtgate", "resize", "status", *AT, expect=2)
    asked = pscale.ask("branch", "vtgate", "resize", *AT, "--vtgate-size", "VTG-10")
    assert asked["vtgate_name"] == "VTG_10"

    def done() -> bool:
        return pscale.ask("branch", "vtgate", "resize", "status", *AT)["state"] == "completed"

    until("every gateway has it", done)
    assert pscale.ask("branch", "vtgate", "show", *AT)["vtgate_size"] == "VTG_10"
    assert pscale.refused("branch", "vtgate", "resize", *AT, "--vtgate-count", "3")[0] == "unprocessable"
    assert pscale.refused("branch", "vtgate", "resize", "cancel", *AT)[0] == "unprocessable"
