"""How a table's rows are placed may change only while it is empty: both entrances, on real servers."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pymysql
import pytest

from homeworld.api.calls import Settings
from homeworld.engines.local import LocalEngine
from homeworld.gateway.router import Router
from homeworld.gateway.server import Gateway
from homeworld.model.errors import InvalidError, UnavailableError
from homeworld.model.topology import BackendRole, Endpoint, Flavor
from homeworld.model.vschema import parse
from homeworld.store.vschemas import judge_vschema, replace_vschema
from homeworld.workflows import placements as module
from homeworld.workflows.assemble import make_placements
from homeworld.workflows.placements import StillTables, altering
from tests.support.api import ServedApi, StatedPreconditions, client_of
from tests.support.gateways import Several
from tests.support.stack import Stack, wait

pytestmark = [pytest.mark.servers, pytest.mark.one_flavor(Flavor.MARIADB)]


def vschema(vindex: str = "xxhash", *tables: str, name: str = "v") -> dict[str, Any]:
    bound = {"column_vindexes": [{"column": "id", "name": name}]}
    return {"sharded": True, "vindexes": {name: {"type": vindex}}, "tables": dict.fromkeys(tables, bound)}


class World:
    """A stack with a keyspace ``wide`` of two shards, whose gateway alters vschemas, and the API."""

    def __init__(self, stack: Stack, served: ServedApi, http: httpx.Client) -> None:
        self.stack = stack
        self.served = served
        self.http = http

    def patch(self, wanted: dict[str, Any]) -> tuple[int, str]:
        at = "/v1/organizations/acme/databases/shop/branches/main/keyspaces/wide/vschema"
        answer = self.http.patch(at, json={"vschema": json.dumps(wanted)})
        return answer.status_code, answer.json().get("message", "")

    def stored(self) -> dict[str, Any]:
        return dict(self.stack.keyspace("wide").vschema)


@pytest.fixture
def world(engine: LocalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.3)
    stack = Stack(engine, tmp_path)

    def alter_vschema(branch_id: str, keyspace: str, text: str, base_text: str) -> None:
        alter(branch_id, keyspace, text, base_text)  # made below

    gateway = Gateway(router_factory=Router, on_alter_vschema=alter_vschema)
    stack.gateway, stack.gateways = gateway, Several(gateway)
    still = make_placements(stack.store, engine, stack.gateways, stack.publish)
    alter = altering(stack.store, still, stack.publish)
    served = ServedApi()
    try:
        stack.start()
        stack.open()
        stack.add_keyspace("wide", vschema("xxhash", "users"), shards=2)
        for table in ("users", "notes"):
            stack.on_server("wide", f"CREATE TABLE {table} (id BIGINT NOT NULL PRIMARY KEY, n INT)")
        with stack.store.read() as tx:
            organization = tx.organizations.by_name("acme")
        settings = Settings(StatedPreconditions(), still, routes_changed=stack.publish)
        served.use(stack.store, settings)
        with client_of(served, stack.store, organization) as http:
            yield World(stack, served, http)
    finally:
        served.close()
        stack.close()


def refused_sql(stack: Stack, sql: str) -> str:
    with pytest.raises(pymysql.err.MySQLError) as refused:
        stack.run(sql, schema="wide")
    return str(refused.value)


def test_rows_stay_where_their_keys_say(world: World) -> None:
    stack = world.stack
    assert world.patch(vschema("hash", "users"))[0] == 200, "it is empty"
    stack.run("ALTER VSCHEMA ON wide.users DROP VINDEX v", schema="wide")
    stack.run("ALTER VSCHEMA ON wide.users ADD VINDEX x (id) USING xxhash", schema="wide")
    stack.run("INSERT INTO users VALUES " + ", ".join(f"({n}, {n})" for n in range(20)), schema="wide")
    before = world.stored()
    for wanted in (vschema("hash", "users"), vschema("xxhash"), vschema("unicode_loose_md5", "users")):
        code, message = world.patch(wanted)
        assert code == 422
        assert "users of keyspace wide has rows (on -80, 80-), placed by xxhash(id)" in message
        assert "Move the table with MoveTables" in message
    said = refused_sql(stack, "ALTER VSCHEMA ON wide.users DROP VINDEX x")
    assert "has rows (on -80, 80-)" in said
    assert "has rows" in refused_sql(stack, "ALTER VSCHEMA DROP TABLE wide.users")
    assert world.stored() == before
    # Names place no rows; nor do tables that are not there.
    assert world.patch(vschema("xxhash", "users", "ghosts", name="w"))[0] == 200
    # A table without a vindex whose rows somebody put on shards.
    stack.run("INSERT INTO notes VALUES (1, 1)", schema="wide:80-")
    said = refused_sql(stack, "ALTER VSCHEMA ON wide.notes ADD VINDEX w (id)")
    assert "notes of keyspace wide has rows (on 80-), placed by no vindex" in said
    assert world.patch(vschema("xxhash", "users", "notes"))[0] == 422
    stack.run("DELETE FROM notes", schema="wide:80-")
    stack.run("ALTER VSCHEMA ON wide.notes ADD VINDEX w (id)", schema="wide")
    stack.run("DELETE FROM users", schema="wide")
    assert world.patch(vschema("hash", "users", "notes"))[0] == 200
    assert stack.gateway.holds_in_force() == 0


def test_nobody_writes_between_the_look_and_the_new_placement(world: World) -> None:
    stack = world.stack
    with stack.connect("wide", autocommit=False) as writer, writer.cursor() as cursor:
        cursor.execute("INSERT INTO users VALUES (1, 1)")
        code, message = world.patch(vschema("hash", "users"))
        assert (code, "did not end" in message) == (503, True), "a transaction may yet commit its rows"
        writer.rollback()
    still = make_placements(stack.store, stack.engine, stack.gateways, stack.publish)
    keyspace = stack.keyspace("wide")
    with stack.store.read() as tx:
        judged = judge_vschema(tx, keyspace, parse(vschema("hash", "users")))
    statement = threading.Thread(
        target=stack.run, args=("INSERT INTO users VALUES " + ", ".join(f"({n}, 0)" for n in range(50)),),
        kwargs={"schema": "wide"},
    )  # fmt: skip
    with still.still(keyspace.id, judged.tables):
        statement.start()
        wait(lambda: any(s.dialogue is not None for s in list(stack.gateway._sessions.values())), "it waits")  # type: ignore[reportPrivateUsage]
        assert stack.on_server("wide", "SELECT COUNT(*) FROM users") == [(0,), (0,)]
        with stack.store.write() as tx:
            replace_vschema(tx, keyspace, judged)
    statement.join(30)
    for number in range(50):
        assert stack.run(f"SELECT COUNT(*) FROM users WHERE id = {number}", schema="wide") == [(1,)]
    assert sum(count for (count,) in stack.on_server("wide", "SELECT COUNT(*) FROM users")) == 50


class Deaf(LocalEngine):
    """An engine one of whose shards' servers nobody answers at."""

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine

    def endpoint(self, server_id: str, role: BackendRole) -> Endpoint:
        return replace(self._engine.endpoint(server_id, role), socket="/nowhere", port=1)


def test_a_shard_that_does_not_answer_is_not_taken_for_empty(world: World) -> None:
    stack = world.stack
    before = world.stored()
    deaf = StillTables(stack.store, Deaf(stack.engine), stack.gateways, stack.publish)
    world.served.use(stack.store, Settings(StatedPreconditions(), deaf))
    assert world.patch(vschema("hash", "users"))[0] == 503
    alter = altering(stack.store, deaf, stack.publish)
    base = json.dumps(before)
    with pytest.raises(UnavailableError):
        alter(stack.branch_id, "wide", json.dumps(vschema("hash", "users")), base)
    assert world.stored() == before
    assert stack.gateway.holds_in_force() == 0
    alter(stack.branch_id, "wide", json.dumps(vschema("xxhash", "users", name="w")), base)
    assert world.stored() == vschema("xxhash", "users", name="w"), "what places nothing anew asks nobody"


def test_a_publication_that_fails_leaves_the_tables_held(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    stack = world.stack

    def fails() -> None:
        raise UnavailableError("not now")

    still = StillTables(stack.store, stack.engine, stack.gateways, fails)
    with still.still(stack.keyspace("wide").id, ["users"]):
        pass
    assert stack.gateway.holds_in_force() == 1
    assert "not served yet" in caplog.text
    with pytest.raises(InvalidError), still.still(stack.keyspace("wide").id, ["notes"]):
        raise InvalidError("refused")
    assert stack.gateway.holds_in_force() == 1


def test_what_may_be_stored_or_not_is_read_anew_before_anybody_goes_on(world: World) -> None:
    stack = world.stack
    held: list[int] = []

    def publish() -> None:
        held.append(stack.gateway.holds_in_force())
        stack.publish()

    keyspace = stack.keyspace("wide")
    with stack.store.read() as tx:
        judged = judge_vschema(tx, keyspace, parse(vschema("hash", "users")))
    still = StillTables(stack.store, stack.engine, stack.gateways, publish)
    statement = threading.Thread(
        target=stack.run, args=("INSERT INTO users VALUES " + ", ".join(f"({n}, 0)" for n in range(50)),),
        kwargs={"schema": "wide"},
    )  # fmt: skip

    def change() -> None:
        statement.start()
        wait(lambda: any(s.dialogue is not None for s in list(stack.gateway._sessions.values())), "it waits")  # type: ignore[reportPrivateUsage]
        with stack.store.write() as tx:
            replace_vschema(tx, keyspace, judged)
        raise UnavailableError("the connection was lost, and the commit is in doubt")

    with pytest.raises(UnavailableError, match="in doubt"), still.still(keyspace.id, judged.tables):
        change()
    statement.join(60)
    assert held == [1], "published before it was let go of"
    for number in range(50):
        assert stack.run(f"SELECT COUNT(*) FROM users WHERE id = {number}", schema="wide") == [(1,)]
    assert stack.gateway.holds_in_force() == 0
