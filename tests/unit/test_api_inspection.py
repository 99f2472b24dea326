"""What servers tell through the API: schemas, differences, faults, connections and how they are ended."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from homeworld.api.calls import Call
from homeworld.model.inspection import Definition, ServerConnection, TableFacts
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.store.provision import create_branch
from homeworld.store.store import Store
from tests.support.api import ServedApi, client_of
from tests.support.desk import BRANCH, DB, Desk, open_desk, refused
from tests.support.stores import TestClock

ONE = "keyspace=shop"


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def connection(number: int, **changes: Any) -> ServerConnection:
    facts: dict[str, Any] = {
        "user": "homeworld_admin", "host": "localhost", "schema": "shop", "command": "Query", "seconds": 2.5,
        "state": "executing", "text": f"SELECT {number}", "ours": False, **changes,
    }  # fmt: skip
    return ServerConnection(number=number, **facts)


def primary(desk: Desk) -> str:
    with desk.store.read() as tx:
        return tx.keyspaces.shards(desk.shop.source.id)[0].primary_server_id or ""


def test_a_schema_is_what_servers_show(desk: Desk) -> None:
    desk.inspection.tables[desk.shop.source.id] = [Definition("shop", "t", "CREATE TABLE `t` (a < b)")]
    desk.inspection.tables[desk.shop.target.id] = [Definition("shop_sharded", "u", "CREATE TABLE `u` (…)")]
    told = desk.http.get(f"{BRANCH}/schema").json()["data"]
    assert [(one["keyspace"], one["name"]) for one in told] == [("shop", "t"), ("shop_sharded", "u")]
    assert told[0]["raw"] == "CREATE TABLE `t` (a < b)"
    assert told[0]["html"] == "<pre>CREATE TABLE `t` (a &lt; b)</pre>"
    (one,) = desk.http.get(f"{BRANCH}/schema?{ONE}").json()["data"]
    assert one["name"] == "t"
    assert refused(desk.http.get(f"{BRANCH}/schema?keyspace=none")) == (404, "not_found")
    assert refused(desk.http.get(f"{BRANCH}/schema?namespace=a.b")) == (422, "unprocessable")
    desk.inspection.silent = True
    assert refused(desk.http.get(f"{BRANCH}/schema")) == (503, "unavailable")


def test_a_diff_is_between_a_branch_and_its_parent(desk: Desk) -> None:
    with desk.store.write() as tx:
        dev = create_branch(tx, desk.shop.database, "dev")
        keyspaces = {one.name: one for one in tx.keyspaces.of_branch(dev.id)}
    at = f"{DB}/branches/dev/diff"
    assert refused(desk.http.get(at)) == (503, "unavailable"), "it is not ready yet"
    with desk.store.write() as tx:
        made = life_row(Life.PENDING, LifeTrigger.MADE)
        for keyspace in keyspaces.values():
            tx.keyspaces.transition(keyspace.id, Life.PENDING, made)
    assert desk.http.get(at).json() == {"data": []}
    same = Definition("shop", "same", "CREATE TABLE `same`")
    desk.inspection.tables[desk.shop.source.id] = [
        same,
        Definition("shop", "t", "CREATE TABLE `t` (\n  a\n)"),
    ]
    desk.inspection.tables[keyspaces["shop"].id] = [
        same,
        Definition("shop", "new", "CREATE TABLE `new`"),
        Definition("shop", "t", "CREATE TABLE `t` (\n  b\n)"),
    ]
    told = desk.http.get(at).json()["data"]
    assert [(one["name"], one["raw"]) for one in told] == [
        ("new", "+CREATE TABLE `new`"),
        ("t", " CREATE TABLE `t` (\n-  a\n+  b\n )"),
    ]
    assert "<ins>+  b</ins>" in told[1]["html"]
    assert refused(desk.http.get(f"{BRANCH}/diff")) == (422, "unprocessable"), "it has no parent"


def test_a_refresh_says_when_the_schema_changed(desk: Desk) -> None:
    at = f"{BRANCH}/refresh-schema"
    assert desk.http.get(BRANCH).json()["schema_last_updated_at"] is None
    assert desk.http.post(at).status_code == 204
    first = desk.http.get(BRANCH).json()["schema_last_updated_at"]
    desk.clock.forward(60)
    assert desk.http.post(at, json={}).status_code == 204
    assert desk.http.get(BRANCH).json()["schema_last_updated_at"] == first, "nothing has changed"
    desk.inspection.tables[desk.shop.source.id] = [Definition("shop", "t", "CREATE TABLE `t`")]
    desk.http.post(at)
    assert desk.http.get(BRANCH).json()["schema_last_updated_at"] > first
    database = desk.http.get(DB).json()
    assert database["default_branch_table_count"] == 1
    assert database["schema_last_updated_at"] == desk.http.get(BRANCH).json()["schema_last_updated_at"]


def test_the_lint_is_paged(desk: Desk) -> None:
    at = f"{BRANCH}/schema/lint"
    told = desk.http.get(at).json()
    assert (told["type"], told["data"]) == ("list", [])
    desk.inspection.found[desk.shop.source.id] = [
        TableFacts("shop", f"t{n}", "InnoDB", "utf8mb4", False, (), (), frozenset()) for n in range(3)
    ]
    told = desk.http.get(f"{at}?per_page=2").json()
    assert ([one["table_name"] for one in told["data"]], told["next_page"]) == (["t0", "t1"], 2)
    (last,) = desk.http.get(f"{at}?per_page=2&page=2").json()["data"]
    assert (last["table_name"], last["lint_error"]) == ("t2", "NO_UNIQUE_KEY")
    assert (last["subject_type"], last["keyspace_name"]) == ("table", "shop")


def test_connections_are_a_shards(desk: Desk) -> None:
    at = f"{BRANCH}/connections"
    began = datetime(2026, 3, 1, 11, 59, tzinfo=UTC)
    desk.inspection.connected = [
        connection(7, transaction_began=began, waits_for_lock=True, blocked_by=(9,)),
        connection(8, command="Sleep", text="", state=""),
        connection(9, user="homeworld_mover", ours=True),
    ]
    told = desk.http.get(at, params={"keyspace": "shop"}).json()
    server = primary(desk)
    assert (told["database_kind"], told["captured_at"]) == ("mysql", "2026-03-01T12:00:00Z")
    assert told["topology"] == {"keyspace": "shop", "shard": "-", "tablet": server}
    assert told["instances"] == [{"id": server, "role": "primary", "error": ""}]
    waiting, idle, ours = told["data"]
    assert (waiting["pid"], waiting["duration_ms"], waiting["wait_event_type"]) == (7, 2500, "Lock")
    assert (waiting["blocked_by"], waiting["query_text"]) == ([9], "SELECT 7")
    assert waiting["connection_id"] == f"{server}-7"
    assert waiting["transaction_id"] == f"{server}-7-{int(began.timestamp())}"
    assert waiting["query_id"].startswith(f"{server}-7-")
    assert (idle["query_id"], idle["transaction_id"], idle["query_start"]) == (None, None, None)
    assert (ours["connection_id"], ours["backend_type"]) == (None, "internal")


def test_which_shard_is_meant_has_to_be_said(desk: Desk) -> None:
    at = f"{BRANCH}/connections"
    answer = desk.http.get(at)
    assert (answer.status_code, answer.json()["available"]) == (422, {"keyspaces": ["shop", "shop_sharded"]})
    answer = desk.http.get(at, params={"keyspace": "shop_sharded"})
    assert (answer.status_code, answer.json()["available"]) == (422, {"shards": ["-80", "80-"]})
    assert desk.http.get(at, params={"keyspace": "shop_sharded", "shard": "80-"}).status_code == 200
    assert desk.http.get(at, params={"keyspace": "none"}).json()["available"]["keyspaces"]
    assert desk.http.get(at, params={"keyspace": "shop", "shard": "80-"}).json()["available"] == {
        "shards": ["-"]
    }


def test_who_is_not_ready_says_when_to_ask_again(desk: Desk) -> None:
    with desk.store.write() as tx:
        tx.keyspaces.create(desk.shop.branch.id, "young")
    answer = desk.http.get(f"{BRANCH}/connections", params={"keyspace": "young"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    desk.inspection.silent = True
    told = desk.http.get(f"{BRANCH}/connections?{ONE}").json()
    assert (told["data"], told["instances"][0]["error"] != "") == ([], True)


def test_only_what_was_seen_is_ended(desk: Desk) -> None:
    at = f"{BRANCH}/connections"
    desk.inspection.connected = [connection(7, transaction_began=datetime(2026, 3, 1, tzinfo=UTC))]
    server = primary(desk)
    (seen,) = desk.http.get(f"{at}?{ONE}").json()["data"]
    done = desk.http.delete(f"{at}/query/{seen['query_id']}?{ONE}").json()
    assert done == {
        "success": True, "keyspace": "shop", "shard": "-", "tablet": server, "id": 7, "kind": "query",
    }  # fmt: skip
    assert desk.http.delete(f"{at}/transaction/{seen['transaction_id']}").json()["kind"] == "transaction"
    assert desk.http.delete(f"{at}/connection/{seen['connection_id']}").json()["kind"] == "connection"
    assert desk.inspection.ended == [(server, 7, True), (server, 7, False), (server, 7, False)]
    desk.inspection.connected = [connection(7, text="SELECT 8")]
    for kind in ("query", "transaction"):
        gone = desk.http.delete(f"{at}/{kind}/{seen[f'{kind}_id']}?{ONE}")
        assert refused(gone) == (404, "not_found"), "it is at another one"
    for wrong in ("7", f"{server}-8", f"elsewhere-{server}-7", "'; DROP TABLE t", "%00", "x" * 5000):
        assert refused(desk.http.delete(f"{at}/connection/{wrong}?{ONE}")) == (404, "not_found"), wrong
    assert refused(desk.http.delete(f"{at}/server/{server}-7?{ONE}")) == (422, "invalid_params")
    assert len(desk.inspection.ended) == 3


def test_what_goes_on_while_the_entry_is_written_is_not_ended(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.inspection.connected = [connection(7)]
    (seen,) = desk.http.get(f"{BRANCH}/connections?{ONE}").json()["data"]
    audit = Call.audit

    def slowly(call: Call, action: str, kind: str, target_id: str, name: str, **metadata: object) -> None:
        audit(call, action, kind, target_id, name, **metadata)
        desk.inspection.connected = [connection(7, text="SELECT 'of another client'")]

    monkeypatch.setattr(Call, "audit", slowly)
    gone = desk.http.delete(f"{BRANCH}/connections/query/{seen['query_id']}?{ONE}")
    assert (refused(gone), desk.inspection.ended) == ((404, "not_found"), [])


def test_what_is_homeworlds_own_is_not_ended(desk: Desk) -> None:
    desk.inspection.connected = [connection(7, ours=True)]
    killed = desk.http.post(f"{BRANCH}/processlist/kill", json={"id": 7, "keyspace": "shop"})
    assert refused(killed) == (403, "forbidden")
    gone = desk.http.delete(f"{BRANCH}/connections/connection/{primary(desk)}-7")
    assert refused(gone) == (403, "forbidden")
    assert desk.inspection.ended == []


def test_the_process_list_has_its_own_form(desk: Desk) -> None:
    desk.inspection.connected = [connection(7)]
    told = desk.http.get(f"{BRANCH}/processlist?{ONE}").json()["data"]
    assert (told["keyspace"], told["shard"], told["tablet"]) == ("shop", "-", primary(desk))
    assert told["processes"] == [
        {
            "id": 7, "user": "homeworld_admin", "host": "localhost", "db": "shop", "command": "Query",
            "time": 2, "state": "executing", "info": "SELECT 7",
        }
    ]  # fmt: skip
    at = f"{BRANCH}/processlist/kill"
    done = desk.http.post(at, json={"id": 7, "keyspace": "shop", "kind": "query"}).json()["data"]
    assert (done["success"], done["kind"], desk.inspection.ended) == (
        True,
        "query",
        [(primary(desk), 7, True)],
    )
    assert refused(desk.http.post(at, json={"id": 8, "keyspace": "shop"})) == (404, "not_found")
    for wrong in ({}, {"id": 0}, {"id": "x"}, {"id": 7, "kind": "server"}, {"id": 2**63}):
        assert refused(desk.http.post(at, json={"keyspace": "shop", **wrong})) == (422, "invalid_params"), (
            wrong
        )


def test_statements_are_shown_to_who_may_connect(desk: Desk) -> None:
    with client_of(desk.served, desk.store, desk.shop.organization, ["read_branch"]) as reader:
        assert reader.get(f"{BRANCH}/schema?{ONE}").status_code == 200
        assert refused(reader.get(f"{BRANCH}/connections?{ONE}")) == (403, "forbidden")
        assert refused(reader.get(f"{BRANCH}/processlist?{ONE}")) == (403, "forbidden")


def test_infrastructure_is_every_server_of_every_shard(desk: Desk) -> None:
    told = desk.http.get(f"{BRANCH}/infrastructure").json()
    assert (told["type"], told["ready"]) == ("VitessInfrastructure", True)
    rows = [(one["keyspace"], one["shard"], one["tablet_type"]) for one in told["pods"]]
    assert sorted(rows) == [
        (keyspace, shard, kind)
        for keyspace, shard in (("shop", "-"), ("shop_sharded", "-80"), ("shop_sharded", "80-"))
        for kind in ("primary", "replica")
    ]
    assert {(one["ready"], one["status"], one["cell"]) for one in told["pods"]} == {
        ("1/1", "Running", "local")
    }
    desk.inspection.silent = True
    told = desk.http.get(f"{BRANCH}/infrastructure").json()
    assert (told["ready"], {one["ready"] for one in told["pods"]}) == (False, {"0/1"})
