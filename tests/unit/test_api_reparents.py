"""Reparents through the API: what is taken, what is refused, what is told; servers and shards by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from homeworld.main import make_app
from homeworld.model.errors import InvalidError
from homeworld.model.states.move_tables import MOVE_TABLES, Trigger
from homeworld.model.states.reparenting import ReparentTrigger
from homeworld.store.guards import guards
from homeworld.store.store import Store
from tests.support.api import ServedApi
from tests.support.desk import BRANCH, Desk, open_desk, refused
from tests.support.stores import TestClock

PLANNED = f"{BRANCH}/planned-reparent"
SHOP = {"keyspace": "shop", "shard": "-"}


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def servers(desk: Desk) -> tuple[str, str]:
    """The primary and its replica."""
    with desk.store.read() as tx:
        shard = tx.keyspaces.shards(desk.shop.source.id)[0]
    assert shard.primary_server_id is not None
    return shard.primary_server_id, shard.replica_server_ids[0]


def advance(desk: Desk, reparent_id: str, *triggers: ReparentTrigger, error: str = "") -> None:
    """As the executor does."""
    for trigger in triggers:
        with desk.store.write() as tx:
            tx.reparents.transition(reparent_id, tx.reparents.get(reparent_id).state, trigger, error=error)


def test_a_planned_reparent_is_asked_for_and_polled(desk: Desk) -> None:
    primary, replica = servers(desk)
    asked = desk.http.post(PLANNED, json={**SHOP, "new_primary": f"local-{replica}"})
    made = asked.json()
    assert (asked.status_code, made["state"], made["completed"]) == (201, "pending", False)
    assert made["metadata"] == {
        "keyspace": "shop",
        "shard": "-",
        "new_primary": f"local-{replica}",
        "former_primary": f"local-{primary}",
        "emergency": False,
    }
    assert (made["action"], made["timeout"] > 0, made["result"]) == ("planned_reparent_shard", True, None)
    answer = desk.http.post(PLANNED, json=SHOP)
    assert refused(answer) == (422, "unprocessable")
    assert "not over" in answer.json()["message"]
    with desk.store.write() as tx:
        tx.servers.promote(replica)
    advance(desk, made["id"], ReparentTrigger.BEGIN, ReparentTrigger.DONE)
    found = desk.http.get(f"{PLANNED}/{made['id']}").json()
    assert (found["state"], found["completed"], found["error"]) == ("completed", True, "")
    assert found["result"]["promoted_primary"] == {"cell": "local", "uid": replica}
    assert (found["result"]["former_serves"], found["result"]["former_error"]) == (True, "")
    record = desk.http.get(f"{BRANCH}/vtctld/shard?keyspace=shop&shard=-").json()["data"]
    assert (record["keyspace"], record["name"]) == ("shop", "-")
    assert record["shard"]["primary_alias"] == {"cell": "local", "uid": replica}
    assert record["shard"]["primary_term_start_time"] == found["completed_at"]
    again = desk.http.post(PLANNED, json={**SHOP, "new_primary": primary}).json()
    advance(desk, again["id"], ReparentTrigger.BEGIN)
    advance(desk, again["id"], ReparentTrigger.FAIL, error="somebody keeps tables locked")
    failed = desk.http.get(f"{PLANNED}/{again['id']}").json()
    assert (failed["state"], failed["completed"]) == ("failed", True)
    assert failed["error"] == "somebody keeps tables locked"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, (422, "invalid_params")),
        ({"keyspace": "shop"}, (422, "invalid_params")),
        ({**SHOP, "new_primary": 7}, (422, "invalid_params")),
        ({"keyspace": "none", "shard": "-"}, (404, "not_found")),
        ({"keyspace": "shop", "shard": "-80"}, (404, "not_found")),
        ({**SHOP, "new_primary": "local-nobody"}, (404, "not_found")),
        ({**SHOP, "new_primary": "-"}, (404, "not_found")),
    ],
)
def test_what_cannot_be_is_refused(desk: Desk, body: dict[str, Any], told: tuple[int, str]) -> None:
    for path in (PLANNED, f"{BRANCH}/emergency-reparent"):
        assert refused(desk.http.post(path, json=body)) == told
    assert refused(desk.http.get(f"{PLANNED}/abcdefghijkl")) == (404, "not_found")


def test_moving_traffic_and_a_reparent_refuse_each_other(desk: Desk) -> None:
    ids = desk.shop.source.id, desk.shop.target.id
    with desk.store.write() as tx:
        workflow = tx.workflows.create(desk.shop.database.id, desk.shop.branch.id, "move", *ids, ["orders"])
        row = MOVE_TABLES.take(workflow.state, Trigger.CANCEL, guards(workflow))
    made = desk.http.post(PLANNED, json=SHOP).json()
    advance(desk, made["id"], ReparentTrigger.BEGIN)
    with pytest.raises(InvalidError, match="is being replaced"), desk.store.write() as tx:
        tx.workflows.transition(workflow.id, workflow.state, row)
    advance(desk, made["id"], ReparentTrigger.DONE)
    with desk.store.write() as tx:
        tx.workflows.transition(workflow.id, workflow.state, row)
    answer = desk.http.post(PLANNED, json=SHOP)
    assert refused(answer) == (422, "unprocessable")
    assert "workflow 1 moves traffic (cancelling)" in answer.json()["message"]
    # Whoever has lost a primary cannot wait for that.
    assert desk.http.post(f"{BRANCH}/emergency-reparent", json=SHOP).status_code == 201


def test_a_server_that_serves_nobody_is_told_and_cannot_be_chosen(desk: Desk) -> None:
    primary, replica = servers(desk)
    with desk.store.write() as tx:
        tx.servers.promote(replica, barred="it has more than others")
    groups = desk.http.get(f"{BRANCH}/tablets?keyspace=shop").json()
    assert [(group["type"], [one["alias"] for one in group["tablets"]]) for group in groups] == [
        ("primary", [f"local-{replica}"]),
        ("replica", [f"local-{primary}"]),
    ]
    told = groups[1]["tablets"][0]
    assert (told["serving"], told["error"]) == (False, "it has more than others")
    answer = desk.http.post(PLANNED, json={**SHOP, "new_primary": primary})
    assert "it has more than others" in answer.json()["message"]
    answer = desk.http.post(PLANNED, json=SHOP)
    assert refused(answer) == (422, "unprocessable")
    assert "has no replica" in answer.json()["message"]
    with desk.store.write() as tx:
        tx.servers.admit(primary)
    groups = desk.http.get(f"{BRANCH}/tablets?keyspace=shop_sharded&shard=-80").json()
    assert [one["tablets"][0]["serving"] for one in groups] == [True, True]


def test_servers_are_listed_by_what_is_asked_for(desk: Desk) -> None:
    primary, replica = servers(desk)
    groups = desk.http.get(f"{BRANCH}/tablets").json()
    assert {(one["keyspace"], one["shard"], one["type"]) for one in groups} == {
        (keyspace, shard, kind)
        for keyspace, shard in (("shop", "-"), ("shop_sharded", "-80"), ("shop_sharded", "80-"))
        for kind in ("primary", "replica")
    }
    found = desk.http.get(f"{BRANCH}/tablets?tablet_type=replica&keyspace=shop").json()
    assert [one["alias"] for group in found for one in group["tablets"]] == [f"local-{replica}"]
    assert found[0]["tablets"][0]["cell"] == "local"
    named = desk.http.get(f"{BRANCH}/tablets?tablet_alias=local-{primary},{replica}&keyspace=none").json()
    assert {one["alias"] for group in named for one in group["tablets"]} == {
        f"local-{primary}",
        f"local-{replica}",
    }
    assert refused(desk.http.get(f"{BRANCH}/tablets?shard=-80"))[0] == 422
    assert refused(desk.http.get(f"{BRANCH}/tablets?tablet_type=x"))[0] == 422
    assert refused(desk.http.get(f"{BRANCH}/tablets?keyspace=none"))[0] == 404
    assert refused(desk.http.get(f"{BRANCH}/tablets?tablet_alias=zone1-100"))[0] == 404
    assert refused(desk.http.get(f"{BRANCH}/vtctld/shard?keyspace=shop"))[0] == 422
    assert refused(desk.http.get(f"{BRANCH}/vtctld/shard?keyspace=shop&shard=80-"))[0] == 404
    record = desk.http.get(f"{BRANCH}/vtctld/shard?keyspace=shop_sharded&shard=-80").json()["data"]["shard"]
    assert record["key_range"] == {"start": "", "end": "80"}
    assert (record["is_primary_serving"], record["tablet_controls"]) == (True, [])
    desk.inspection.silent = True
    silent = desk.http.get(f"{BRANCH}/tablets?keyspace=shop").json()
    assert [one["tablets"][0]["error"] for one in silent] == ["it does not answer"] * 2


def test_refreshing_a_shard_lets_gateways_read_it_anew(desk: Desk) -> None:
    path = f"{BRANCH}/vtctld/shard/refresh-state"
    with desk.store.read() as tx:
        before = tx.routes.version()
    told = desk.http.post(path, json={**SHOP, "cells": ["local"]}).json()
    assert told == {"data": {"routes_version": before + 1}}
    assert desk.published
    assert refused(desk.http.post(path, json={**SHOP, "cells": ["zone1"]}))[0] == 422
    assert refused(desk.http.post(path, json={"keyspace": "shop", "shard": "x"}))[0] == 404


def test_the_command_line_asks_and_waits(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    token, secret = desk.http.headers["Authorization"].split(":", 1)
    for name, value in (
        ("API_URL", desk.served.url),
        ("ORG", "acme"),
        ("SERVICE_TOKEN_ID", token),
        ("SERVICE_TOKEN", secret),
    ):
        monkeypatch.setenv(f"PLANETSCALE_{name}", value)
    primary, replica = servers(desk)

    def run(words: list[str]) -> Result:
        return CliRunner().invoke(make_app(words), words)

    shown = run(["tablets", "shop", "main"])
    assert (shown.exit_code, primary in shown.output, replica in shown.output) == (0, True, True)
    asked = run(["reparent", "shop", "main", "shop/-", "--to", replica, "--no-wait"])
    assert asked.exit_code == 0, asked.output
    reparent_id = asked.output.strip()
    advance(desk, reparent_id, ReparentTrigger.BEGIN)
    advance(desk, reparent_id, ReparentTrigger.FAIL, error="no")
    assert run(["reparent", "shop", "main", "shop"]).exit_code == 2
    assert run(["reparent", "shop", "main", "none/-", "--emergency"]).exit_code == 2


def test_a_shard_need_not_list_the_replica_that_takes_its_primarys_place(desk: Desk) -> None:
    primary, replica = servers(desk)
    with desk.store.write() as tx:
        another = tx.servers.create(desk.shop.branch.id, tx.servers.get(primary).flavor, replica_of=primary)
        shard = tx.keyspaces.shards(desk.shop.target.id)[0]
        tx.keyspaces.place(shard.id, primary, [another.id])
        tx.servers.promote(replica, barred="it is gone")
        now = tx.keyspaces.shards(desk.shop.target.id)[0]
    assert (now.primary_server_id, list(now.replica_server_ids)) == (replica, [another.id])
