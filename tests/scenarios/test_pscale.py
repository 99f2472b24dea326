"""The pscale command line tool, unmodified, drives an installation from nothing to a moved table and back.

The tool is not part of this project; ``make test`` builds it where there is Go (``scripts/get-pscale``), and
where there is none, nor one on PATH or named by ``HOMEWORLD_PSCALE``, this module is skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pymysql
import pytest

from homeworld.cli.installation import Installation
from homeworld.model.topology import Flavor
from tests.support.clients import pscale as program
from tests.support.mysqld import binary

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(300), pytest.mark.one_flavor(Flavor.MARIADB)]

VSCHEMA = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "parts": {"column_vindexes": [{"column": "order_id", "name": "xxhash"}]},
    },
}
SUCCESS, ACTION_REQUIRED, FAILURE = 0, 1, 2


class Pscale:
    """The tool, logged in by a service token in its environment as in a CI job."""

    def __init__(self, folder: Path, installation: Installation) -> None:
        ready = installation.ready
        self.folder = folder
        self.installation = installation
        self._program = program()
        self._environment = {
            # A home of its own: no settings of whoever runs the tests, no word to any other host.
            "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": os.environ["PATH"],
            "PSCALE_NO_UPDATE_NOTIFIER": "1", "PSCALE_DISABLE_DEV_WARNING": "true",
            "PLANETSCALE_API_URL": str(ready["api_url"]), "PLANETSCALE_ORG": str(ready["organization"]),
            "PLANETSCALE_SERVICE_TOKEN_ID": str(ready["service_token_id"]),
            "PLANETSCALE_SERVICE_TOKEN": str(ready["service_token"]),
        }  # fmt: skip

    def follow(self) -> None:
        """The installation was started again, maybe at another address."""
        self._environment["PLANETSCALE_API_URL"] = str(self.installation.ready["api_url"])

    def run(self, *words: str, expect: int = SUCCESS, **environment: str) -> str:
        """Run a command; what it printed on both channels."""
        done = subprocess.run(
            [str(self._program), *words, "--no-color"], env=self._environment | environment, cwd=self.folder,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def ask(self, *words: str, expect: int = SUCCESS) -> Any:
        """The JSON object that a command prints."""
        text = self.run(*words, "--format", "json", expect=expect)
        return json.loads(text[min(at for at in (text.find("["), text.find("{")) if at >= 0) :])

    def knows(self, *words: str) -> bool:
        """Whether the tool at hand has the command; of one that it lacks it tells the family's usage."""
        return f"pscale {' '.join(words)}" in self.run(*words, "--help")

    def refused(self, *words: str, expect: int = FAILURE) -> tuple[str, str]:
        """The code and sentence of a command that must fail. Before 0.308.0 the tool has one code of its own
        for whatever the API finds wrong in what was asked for.
        """
        told = self.ask(*words, expect=expect)
        (issue,) = told["issues"]
        code = str(issue["code"])
        return "unprocessable" if code == "COMMAND_FAILED" else code, str(told["error"])

    def reaches(self, number: int, state: str) -> dict[str, Any]:
        """Ask until the workflow is in ``state``."""
        deadline = time.monotonic() + 90
        while True:
            workflow = cast("dict[str, Any]", self.ask("workflow", "show", "shop", str(number)))
            if workflow["state"] == state:
                return workflow
            told = f"workflow {number} is {workflow['state']}, not {state}"
            assert workflow["state"] not in {"error", "stopped", "verify_data_error"}, told
            assert time.monotonic() < deadline, told
            time.sleep(0.2)


@pytest.fixture(scope="module")
def pscale(flavor: Flavor, server_root: Path) -> Iterator[Pscale]:
    program()
    folder = Path(tempfile.mkdtemp(prefix=f"pscale-{flavor.value}-", dir=server_root))
    server = binary(flavor)
    assert server is not None
    installation = Installation(
        folder / "homeworld",
        ("--api-port", "0", "--gateway-port", "0", "--replicas", "1", "--mysqld", str(server)),
    )
    try:
        installation.start()
        yield Pscale(folder, installation)
    finally:
        installation.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def test_organizations_and_regions(pscale: Pscale) -> None:
    assert [one["name"] for one in pscale.ask("org", "list")] == ["homeworld"]
    assert "homeworld" in pscale.run("org", "list")
    # Which organization is the present one is known to the tool's own settings only.
    settings = pscale.folder / ".config" / "planetscale" / "pscale.yml"
    settings.parent.mkdir(parents=True)
    settings.touch()
    pscale.run("org", "switch", "homeworld")
    assert "homeworld" in pscale.run("org", "show")
    (region,) = pscale.ask("region", "list")
    assert (region["slug"], region["enabled"]) == ("local", True)
    assert "local" in pscale.run("region", "list")
    assert [one["name"] for one in pscale.ask("size", "cluster", "list")][:2] == ["homeworld", "PS_10"]
    assert "homeworld" in pscale.run("size", "cluster", "list", "--engine", "mysql").lower()
    assert "You are authenticated" in pscale.run("auth", "check")
    told = pscale.run(
        "org", "list", PLANETSCALE_SERVICE_TOKEN="pscale_tkn_wrong", expect=FAILURE
    )  # fmt: skip
    assert "token" in told.lower()


def test_databases(pscale: Pscale) -> None:
    assert pscale.ask("database", "list") == []
    assert "successfully created" in pscale.run("database", "create", "shop", "--wait")
    (listed,) = pscale.ask("database", "list")
    assert (listed["name"], listed["kind"], listed["state"]) == ("shop", "mysql", "ready")
    assert pscale.ask("database", "show", "shop")["region"]["slug"] == "local"
    assert "shop" in pscale.run("database", "show", "shop")
    assert pscale.ask("database", "create", "spare", "--region", "local")["name"] == "spare"
    code, sentence = pscale.refused("database", "create", "spare")
    assert (code, "spare" in sentence) == ("unprocessable", True)
    assert "successfully deleted" in pscale.run("database", "delete", "spare", "--force")
    assert pscale.refused("database", "show", "spare")[0] == "NOT_FOUND"
    assert pscale.refused("database", "show", "nothing")[0] == "NOT_FOUND"
    assert [one["name"] for one in pscale.ask("database", "list")] == ["shop"]


def test_branches(pscale: Pscale) -> None:
    (main,) = pscale.ask("branch", "list", "shop")
    assert (main["name"], main["production"], main["ready"], main["safe_migrations"]) == (
        "main", True, True, False,
    )  # fmt: skip
    assert "successfully created" in pscale.run("branch", "create", "shop", "dev", "--wait")
    dev = pscale.ask("branch", "show", "shop", "dev")
    assert (dev["parent_branch"], dev["production"], dev["ready"]) == ("main", False, True)
    pscale.run("branch", "promote", "shop", "dev")
    assert pscale.ask("branch", "show", "shop", "dev")["production"]
    pscale.run("branch", "demote", "shop", "dev")
    assert not pscale.ask("branch", "show", "shop", "dev")["production"]
    pscale.run("branch", "delete", "shop", "dev", "--force")
    assert pscale.refused("branch", "show", "shop", "dev")[0] == "NOT_FOUND"
    assert pscale.refused("branch", "delete", "shop", "dev", "--force")[0] == "NOT_FOUND"
    assert pscale.ask("branch", "safe-migrations", "enable", "shop", "main")["safe_migrations"]
    assert "Yes" in pscale.run("branch", "show", "shop", "main")
    assert not pscale.ask("branch", "safe-migrations", "disable", "shop", "main")["safe_migrations"]
    assert "enabled safe migrations" in pscale.run("branch", "safe-migrations", "enable", "shop", "main")


def test_keyspaces_and_vschemas(pscale: Pscale) -> None:
    at = ("shop", "main")
    assert [one["name"] for one in pscale.ask("keyspace", "list", *at)] == ["shop"]
    size = ("--cluster-size", "homeworld")
    told = pscale.run("keyspace", "create", *at, "wide", "--shards", "2", *size, "--wait")
    assert "successfully created" in told
    wide = pscale.ask("keyspace", "show", *at, "wide")
    assert (wide["shards"], wide["sharded"], wide["ready"]) == (2, True, True)
    assert "wide" in pscale.run("keyspace", "list", *at)
    again = pscale.refused("keyspace", "create", *at, "wide", "--shards", "2", *size)
    assert again[0] == "unprocessable"
    file = pscale.folder / "vschema.json"
    file.write_text(json.dumps(VSCHEMA))
    pscale.run("keyspace", "vschema", "update", *at, "wide", "--vschema", str(file))
    raw = pscale.ask("keyspace", "vschema", "show", *at, "wide")["raw"]
    assert json.loads(raw) == VSCHEMA
    assert '"sharded": true' in pscale.run("keyspace", "vschema", "show", *at, "wide")
    wrong: dict[str, Any] = {
        "sharded": True,
        "tables": {"t": {"column_vindexes": [{"column": "a", "name": "x"}]}},
    }
    file.write_text(json.dumps(wrong))
    code, sentence = pscale.refused("keyspace", "vschema", "update", *at, "wide", "--vschema", str(file))
    assert (code, "'x' not found" in sentence) == ("unprocessable", True)
    assert json.loads(pscale.ask("keyspace", "vschema", "show", *at, "wide")["raw"]) == VSCHEMA
    assert pscale.refused("keyspace", "show", *at, "nothing")[0] == "NOT_FOUND"
    assert "Yes" in pscale.run("keyspace", "settings", *at, "wide")
    assert json.loads(pscale.run("branch", "routing-rules", "get", *at)) == {"rules": []}


@pytest.fixture(scope="module")
def login(pscale: Pscale) -> dict[str, Any]:
    return cast("dict[str, Any]", pscale.ask("password", "create", "shop", "main", "app"))


def connect(pscale: Pscale, login: dict[str, Any], schema: str = "shop") -> Any:
    ready = pscale.installation.ready
    return pymysql.connect(
        host=ready["gateway_host"], port=int(ready["gateway_port"]), user=login["username"],
        password=login["plain_text"], database=schema, ssl_ca=ready["ca_file"],
        ssl_verify_cert=True, autocommit=True, read_timeout=30,
    )  # fmt: skip


def test_passwords(pscale: Pscale, login: dict[str, Any]) -> None:
    with connect(pscale, login) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE orders (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, note VARCHAR(40))"
        )
        cursor.execute(
            "CREATE TABLE parts (order_id BIGINT NOT NULL, n INT NOT NULL, PRIMARY KEY (order_id, n))"
        )
        cursor.executemany("INSERT INTO orders (note) VALUES (%s)", [(f"order {i}",) for i in range(60)])
        cursor.execute("INSERT INTO parts SELECT id, 1 FROM orders UNION SELECT id, 2 FROM orders")
    words = ("shop", "main", "reading", "--role", "reader", "--ttl", "600s")
    reading = pscale.ask("password", "create", *words)
    assert (reading["role"], reading["ttl_seconds"], reading["renewable"]) == ("reader", 600, True)
    listed = {one["name"]: one for one in pscale.ask("password", "list", "shop", "main")}
    assert set(listed) == {"app", "reading"}
    assert listed["reading"]["plain_text"] == ""
    assert "Can Read" in pscale.run("password", "list", "shop", "main")
    pscale.run("password", "renew", "shop", "main", reading["id"])
    pscale.run("password", "delete", "shop", "main", reading["id"], "--force")
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        connect(pscale, reading)
    assert pscale.refused("password", "delete", "shop", "main", reading["id"], "--force")[0] == "NOT_FOUND"
    told = pscale.run("password", "create", "shop", "main", "short", "--role", "writer")
    assert "pscale_pw_" in told
    pscale.run("password", "delete", "shop", "main", "--name", "short", "--force")
    assert [one["name"] for one in pscale.ask("password", "list", "shop", "main")] == ["app"]


def orders(pscale: Pscale, login: dict[str, Any], schema: str) -> int:
    with connect(pscale, login, schema) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM orders")
        return int(cursor.fetchall()[0][0])


def test_a_whole_move(pscale: Pscale, login: dict[str, Any]) -> None:
    made = create(pscale, "walk")
    number = str(made["number"])
    again = pscale.refused(*CREATE, "--name", "second")
    assert again[0] == "unprocessable"
    shown = pscale.reaches(made["number"], "running")
    assert sorted(table["name"] for table in shown["tables"]) == ["orders", "parts"]
    assert (shown["source_keyspace"]["name"], shown["target_keyspace"]["name"]) == ("shop", "wide")
    assert [one["number"] for one in pscale.ask("workflow", "list", "shop")] == [made["number"]]
    assert "running" in pscale.run("workflow", "show", "shop", number)
    assert "walk" in pscale.run("workflow", "list", "shop")
    assert pscale.refused("workflow", "complete", "shop", number)[0] == "unprocessable"

    def step(state: str, *words: str) -> dict[str, Any]:
        pscale.run("workflow", *words, number)
        return pscale.reaches(made["number"], state)

    verified = step("verified_data", "verify-data", "shop")
    assert (verified["vdiff"]["state"], verified["vdiff"]["has_mismatch"]) == ("completed", False)
    switched = step("switched_replicas", "switch-traffic", "--replicas-only", "--force", "shop")
    assert (switched["replicas_switched"], switched["primaries_switched"]) == (True, False)
    switched = step("switched_primaries", "switch-traffic", "--force", "shop")
    assert (switched["replicas_switched"], switched["primaries_switched"]) == (True, True)
    assert "Primary & replicas" in pscale.run("workflow", "show", "shop", number)
    assert orders(pscale, login, "shop") == 60
    rules = json.loads(pscale.run("branch", "routing-rules", "get", "shop", "main"))["rules"]
    assert {"from_table": "shop.orders", "to_tables": ["wide.orders"]} in rules
    refusal = pscale.refused("workflow", "switch-traffic", "--force", "shop", number)
    assert refusal[0] == "unprocessable"
    reversed_ = step("running", "reverse-traffic", "shop")
    assert not reversed_["primaries_switched"]
    step("switched_primaries", "switch-traffic", "--force", "shop")
    step("cutover", "cutover", "--force", "shop")
    assert orders(pscale, login, "@primary") == 60
    step("reversed_cutover", "reverse-cutover", "shop")
    assert orders(pscale, login, "shop") == 60
    step("cutover", "cutover", "--force", "shop")
    completed = step("completed", "complete", "shop")
    assert completed["completed_at"] is not None
    assert orders(pscale, login, "wide") == 60
    for action in ("retry", "verify-data", "reverse-traffic", "reverse-cutover"):
        assert pscale.refused("workflow", action, "shop", number)[0] == "unprocessable"
    assert pscale.refused("workflow", "cancel", "shop", number, "--force")[0] == "unprocessable"
    assert pscale.refused("workflow", "show", "shop", "99")[0] == "NOT_FOUND"


CREATE = (
    "workflow", "create", "shop", "main", "--source-keyspace", "shop", "--target-keyspace", "wide",
    "--tables", "orders,parts",
)  # fmt: skip


def create(pscale: Pscale, name: str) -> dict[str, Any]:
    return cast("dict[str, Any]", pscale.ask(*CREATE, "--name", name))


def test_a_cancelled_move(pscale: Pscale, login: dict[str, Any]) -> None:
    with connect(pscale, login, "wide") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE shop.orders (id BIGINT PRIMARY KEY, note VARCHAR(40))")
        cursor.execute("INSERT INTO shop.orders VALUES (1, 'a'), (2, 'b')")
        cursor.execute("DROP TABLE orders")
        cursor.execute("DROP TABLE parts")
    made = pscale.ask(*CREATE[:-1], "orders", "--name", "cancelled")
    pscale.reaches(made["number"], "running")
    told = pscale.run("workflow", "cancel", "shop", str(made["number"]), "--force")
    assert "cancel" in told.lower()
    cancelled = pscale.reaches(made["number"], "cancelled")
    assert cancelled["cancelled_at"] is not None
    assert orders(pscale, login, "shop") == 2
    states = {one["name"]: one["state"] for one in pscale.ask("workflow", "list", "shop")}
    assert states == {"walk": "completed", "cancelled": "cancelled"}


VTCTLD = ("branch", "vtctld")
INTO_WIDE = ("--workflow", "vt", "--target-keyspace", "wide")
EVERYTHING = ("--tablet-types", "primary,replica,rdonly")


def vtctld(pscale: Pscale, command: str, *words: str) -> Any:
    """What a command of the hidden family prints, which waits for its operation by itself."""
    group, _, action = command.partition(" ")
    return pscale.ask(*VTCTLD, group, *([action] if action else []), "shop", "main", *words)


def until(pscale: Pscale, state: str) -> dict[str, Any]:
    """The status of the move, once it is in that state and, where it runs, known to be close behind."""
    deadline = time.monotonic() + 90
    while True:
        told = cast("dict[str, Any]", vtctld(pscale, "move-tables status", *INTO_WIDE))
        if told["state"] == state and (told["lag_seconds"] is not None or state == "stopped"):
            return told
        assert told["state"] != "error", told
        assert time.monotonic() < deadline, told
        time.sleep(0.2)


def begin(pscale: Pscale) -> None:
    words = ("--source-keyspace", "shop", "--tables", "orders")
    made = vtctld(pscale, "move-tables create", *INTO_WIDE, *words)
    assert made["traffic_state"] == "Reads Not Switched. Writes Not Switched"
    until(pscale, "running")


def test_a_move_cancelled_by_vtctld(pscale: Pscale, login: dict[str, Any]) -> None:
    create_ = (*VTCTLD, "move-tables", "create", "shop", "main", *INTO_WIDE, "--source-keyspace", "shop")
    assert "cells" in pscale.refused(*create_, "--tables", "orders", "--cells", "zone1")[1]
    status = (*VTCTLD, "move-tables", "status", "shop", "main", *INTO_WIDE)
    assert "there is no workflow vt" in pscale.refused(*status)[1]
    begin(pscale)
    (listed,) = vtctld(pscale, "list-workflows", "--keyspace", "wide")["workflows"]
    assert (listed["name"], listed["tables"]) == ("vt", ["orders"])
    # One workflow: whoever asks by its number sees it, and may stop what the other began.
    assert pscale.ask("workflow", "show", "shop", str(listed["number"]))["name"] == "vt"
    told = vtctld(pscale, "move-tables cancel", *INTO_WIDE, "--keep-data=false", "--keep-routing-rules=false")
    assert told["summary"] == "Successfully cancelled the vt workflow in the wide keyspace"
    assert vtctld(pscale, "list-workflows", "--keyspace", "wide") == {"workflows": []}
    assert orders(pscale, login, "shop") == 2


def test_a_whole_move_by_vtctld(pscale: Pscale, login: dict[str, Any]) -> None:
    begin(pscale)
    vtctld(pscale, "stop-workflow", "vt", "--keyspace", "wide")
    stopped = until(pscale, "stopped")
    assert {one["status"] for to in stopped["shard_streams"].values() for one in to["streams"]} == {"Stopped"}
    with connect(pscale, login) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO orders VALUES (3, 'while it stood still')")
    assert "started" in vtctld(pscale, "start-workflow", "vt", "--keyspace", "wide")["summary"]
    until(pscale, "running")
    uuid = vtctld(pscale, "vdiff create", *INTO_WIDE)["UUID"]
    deadline = time.monotonic() + 60
    while (vdiff := vtctld(pscale, "vdiff show", *INTO_WIDE, "--uuid", uuid))["State"] != "completed":
        assert vdiff["State"] in {"pending", "started"}, vdiff
        assert time.monotonic() < deadline, vdiff
    assert (vdiff["HasMismatch"], vdiff["RowsCompared"]) == (False, 3)
    assert [one["UUID"] for one in vtctld(pscale, "vdiff list", *INTO_WIDE)["vdiffs"]] == [uuid]
    until(pscale, "verified_data")
    planned = vtctld(pscale, "move-tables switch-traffic", *INTO_WIDE, *EVERYTHING, "--dry-run")
    assert "orders" in planned["dry_run_results"][0]
    told = vtctld(pscale, "move-tables switch-traffic", *INTO_WIDE, *EVERYTHING)
    assert told["current_state"] == "All Reads Switched. Writes Switched"
    assert orders(pscale, login, "shop") == 3
    rules = vtctld(pscale, "get-routing-rules")["rules"]
    assert {"from_table": "shop.orders", "to_tables": ["wide.orders"]} in rules
    told = vtctld(pscale, "move-tables reverse-traffic", *INTO_WIDE)
    assert told["current_state"] == "Reads Not Switched. Writes Not Switched"
    until(pscale, "running")
    vtctld(pscale, "move-tables switch-traffic", *INTO_WIDE, *EVERYTHING)
    (shown,) = vtctld(pscale, "move-tables show", *INTO_WIDE)["workflows"]
    assert shown["shard_streams"]["wide/-80"]["is_primary_serving"]
    kept = ("--keep-data=true", "--keep-routing-rules=false")
    words = (*VTCTLD, "move-tables", "complete", "shop", "main", *INTO_WIDE)
    assert "keep_data is not possible" in pscale.refused(*words, *kept)[1]
    done = vtctld(
        pscale, "move-tables complete", *INTO_WIDE, "--keep-data=false", "--keep-routing-rules=false"
    )
    assert done["summary"] == "Successfully completed the vt workflow in the wide keyspace"
    assert pscale.ask("workflow", "show", "shop", str(shown["number"]))["completed_by"]["display_name"]
    assert orders(pscale, login, "wide") == 3
    names = [one["name"] for one in vtctld(pscale, "list-keyspaces")["keyspaces"]]
    assert names == ["shop", "wide"]


def tablet(pscale: Pscale, role: str) -> str:
    """The alias of the server of keyspace ``shop`` in that role."""
    (group,) = vtctld(pscale, "list-tablets", "--keyspace", "shop", "--tablet-type", role)
    (one,) = group["tablets"]
    return str(one["alias"])


def ticks(pscale: Pscale, login: dict[str, Any]) -> list[int]:
    with connect(pscale, login) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM ticks ORDER BY id")
        return [int(row[0]) for row in cursor.fetchall()]


def test_planned_reparents(pscale: Pscale, login: dict[str, Any]) -> None:
    at = ("--keyspace", "shop", "--shard", "-")
    primary, replica = tablet(pscale, "primary"), tablet(pscale, "replica")
    with connect(pscale, login) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE ticks (id BIGINT NOT NULL PRIMARY KEY)")
    record = vtctld(pscale, "get-shard", *at)
    assert record["shard"]["primary_alias"]["uid"] == primary.rpartition("-")[2]
    ending, errors, written = threading.Event(), list[BaseException](), list[int]()

    def write() -> None:
        try:
            with connect(pscale, login) as connection, connection.cursor() as cursor:
                while not ending.wait(0.01):
                    cursor.execute("INSERT INTO ticks VALUES (%s)", (len(written),))
                    written.append(len(written))
        except pymysql.MySQLError as error:
            errors.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    told = vtctld(pscale, "planned-reparent-shard", *at, "--new-primary", replica)
    assert f"local-{told['promoted_primary']['uid']}" == replica
    ending.set()
    writer.join()
    assert (errors, bool(written)) == ([], True)
    assert (tablet(pscale, "primary"), tablet(pscale, "replica")) == (replica, primary)
    assert ticks(pscale, login) == written
    vtctld(pscale, "refresh-state-by-shard", *at)
    # Back again, and homeworld dies while it is at it.
    asked = vtctld(pscale, "planned-reparent-shard", *at, "--new-primary", primary, "--wait=false")
    pscale.installation.kill()
    pscale.installation.start()
    pscale.follow()
    deadline = time.monotonic() + 90
    while not (found := vtctld(pscale, "planned-reparent-shard status", asked["id"]))["completed"]:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    assert (found["state"], found["error"]) == ("completed", "")
    assert tablet(pscale, "primary") == primary
    login["database_branch"]["mysql_edge_address"] = f"127.0.0.1:{pscale.installation.ready['gateway_port']}"
    assert ticks(pscale, login) == written
    words = (*VTCTLD, "planned-reparent-shard", "shop", "main", *at, "--new-primary", "nobody")
    assert "there is no tablet nobody" in pscale.refused(*words)[1]


def test_the_throttler(pscale: Pscale) -> None:
    alias = ("--tablet-alias", tablet(pscale, "replica"))
    config = ("throttler update-config", "--keyspace", "shop")
    deadline = time.monotonic() + 60
    while (checked := vtctld(pscale, "throttler check", *alias)) and time.monotonic() < deadline:
        if checked["response_code"] == "THROTTLER_RESPONSE_CODE_OK":
            break  # a server that does not answer within a second is none to ask
        time.sleep(0.2)
    assert (checked["response_code"], checked["threshold"]) == ("THROTTLER_RESPONSE_CODE_OK", 5)
    told = vtctld(pscale, *config, "--enabled=true", "--threshold", "2.5")
    assert (told["enabled"], told["threshold"]) == (True, 2.5)
    status = vtctld(pscale, "throttler status", *alias)
    assert (status["enabled"], status["default_threshold"]) == (True, 2.5)
    assert not vtctld(pscale, *config, "--enabled=false")["enabled"]
    assert vtctld(pscale, *config, "--enabled=true")["threshold"] == 2.5


def test_deleting_the_database(pscale: Pscale, login: dict[str, Any]) -> None:
    pscale.run("database", "delete", "shop", "--force")
    assert pscale.ask("database", "list") == []
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        connect(pscale, login)
