"""Workflows through the API: the whole machine, creation with all its reasons, and what is shown."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from homeworld.api.calls import Settings
from homeworld.api.routes.workflows import ACTIONS
from homeworld.cli.workflow import app
from homeworld.model.errors import TransitionRefusedError
from homeworld.model.machine import Kind, Transition
from homeworld.model.movers import (
    MoverProgress,
    Phase,
    RowDifference,
    StreamProgress,
    TableProgress,
    TableVerification,
    Verification,
    VerificationRound,
)
from homeworld.model.states.move_tables import MOVE_TABLES, WORKING, State, Trigger
from homeworld.store.guards import REPAIR, facts
from homeworld.store.store import Store
from homeworld.store.tables.workflows import workflows
from homeworld.store.workflows import Workflow
from tests.support.api import ServedApi, StatedPlacements, StatedPreconditions, client_of
from tests.support.stores import Shop, TestClock, make_shop

ALL = "/v1/organizations/acme/databases/shop/workflows"


@dataclass
class Desk:
    """An API with a shop in its store."""

    store: Store
    clock: TestClock
    shop: Shop
    preconditions: StatedPreconditions
    http: httpx.Client

    def ask(self, **fields: Any) -> httpx.Response:
        body = {
            "name": "move",
            "source_keyspace": "shop",
            "target_keyspace": "shop_sharded",
            "tables": ["orders"],
            **fields,
        }
        return self.http.post(ALL, json=body)

    def begin(self, **fields: Any) -> Workflow:
        answer = self.ask(**fields)
        assert answer.status_code == 201, answer.text
        with self.store.read() as tx:
            return tx.workflows.get(answer.json()["id"])

    def force(self, workflow: Workflow, **values: Any) -> Workflow:
        with self.store.write() as tx:
            if values:
                tx.work.connection.execute(
                    update(workflows).where(workflows.c.id == workflow.id).values(values)
                )
            return tx.workflows.get(workflow.id)


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    preconditions = StatedPreconditions()
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    served_api.use(sqlite_store, Settings(preconditions, StatedPlacements()))
    with client_of(served_api, sqlite_store, shop.organization) as http:
        yield Desk(sqlite_store, clock, shop, preconditions, http)


FACTS: dict[str, dict[str, Any]] = {
    "nothing known": {},
    "close behind": {"lag_seconds": 0.1, "verified": True},
    "far behind": {"lag_seconds": 99.0},
    "replicas switched": {"replicas_switched": True, "lag_seconds": 0.1},
    "all switched": {"replicas_switched": True, "primaries_switched": True},
    "may be retried": {
        "may_retry": True,
        "interrupted_state": State.SWITCHED_PRIMARIES,
        "replicas_switched": True,
        "primaries_switched": True,
    },
    "cutting over may be retried": {"may_retry": True, "interrupted_state": State.CUTTING_OVER},
}


def test_every_asked_trigger_has_one_route() -> None:
    asked = {row.trigger for row in MOVE_TABLES.rows if row.kind is Kind.ASKED}
    asked -= {Trigger.STOP, Trigger.STOP_VERIFICATION}  # of the vtctld family
    assert sorted(trigger for _, _, _, trigger in ACTIONS) == sorted(asked)


def test_what_is_in_force_at_once_by_its_state_is_answered_once_it_is(
    sqlite_store: Store, clock: TestClock, served_api: ServedApi
) -> None:
    preconditions = StatedPreconditions()
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    served_api.use(sqlite_store, Settings(preconditions, StatedPlacements(), settle_seconds=30.0))
    with client_of(served_api, sqlite_store, shop.organization) as http:
        desk = Desk(sqlite_store, clock, shop, preconditions, http)
        workflow = desk.force(desk.begin(), state=State.CUTOVER, settled=True)

        def settle() -> None:
            while desk.force(workflow).state is not State.REVERSED_CUTOVER:
                time.sleep(0.01)
            time.sleep(0.2)
            desk.force(workflow, settled=True)

        executor = threading.Thread(target=settle)
        executor.start()
        answer = http.patch(f"{ALL}/1/reverse-cutover").json()
        with sqlite_store.read() as tx:
            found = tx.workflows.get(workflow.id)
        executor.join()
    assert (answer["state"], found.settled) == ("reversed_cutover", True)


def outcome(workflow: Workflow, trigger: Trigger, clock: TestClock) -> Transition[State, Trigger] | str:
    """What the table says: the row, or the sentence of the refusal."""
    try:
        return MOVE_TABLES.take(workflow.state, trigger, facts(workflow, now=clock.now()).holds)
    except TransitionRefusedError as refusal:
        return refusal.message


@pytest.mark.parametrize("known", FACTS)
def test_every_state_meets_every_asked_trigger(desk: Desk, known: str) -> None:
    """The API does what the table says, and where it refuses it says why and changes nothing."""
    first = desk.begin()
    for state, (_, method, suffix, trigger) in product(State, ACTIONS):
        values = {
            "interrupted_state": State.RUNNING if state in {State.ERROR, State.STOPPED} else None,
            "replicas_switched": state is State.SWITCHED_REPLICAS,
            "primaries_switched": state is State.SWITCHED_PRIMARIES,
            "lag_told_at": desk.clock.now(),
            "lag_seconds": None,
            "verified": False,
            "may_retry": False,
        }
        values |= FACTS[known]
        if state is State.SWITCHED_REPLICAS:
            values["replicas_switched"] = True
        if state is State.SWITCHED_PRIMARIES:
            values["primaries_switched"] = True
        workflow = desk.force(first, state=state, **values)
        answer = desk.http.request(method, f"{ALL}/1{suffix}")
        with desk.store.read() as tx:
            after = tx.workflows.get(workflow.id)
        expected = outcome(workflow, trigger, desk.clock)
        if isinstance(expected, str):
            assert answer.status_code == 422, (state, trigger)
            assert answer.json() == {"code": "unprocessable", "message": expected}
            assert after == workflow
        else:
            assert answer.status_code == 200, (state, trigger, answer.text)
            assert answer.json()["state"] == after.state == expected.to
            for stamp in expected.stamps:
                shown = answer.json()[stamp]
                assert shown if stamp.endswith("_at") else shown["display_name"] == "tests"


def test_a_repair_is_a_verification_that_says_so(desk: Desk) -> None:
    first = desk.begin()
    for suffix, wanted in (("repair", True), ("verify-data", None)):
        workflow = desk.force(first, state=State.RUNNING, facts={})
        answer = desk.http.patch(f"{ALL}/1/{suffix}")
        assert (answer.status_code, answer.json()["state"]) == (200, "verifying_data")
        with desk.store.read() as tx:
            assert tx.workflows.get(workflow.id).facts.get(REPAIR) is wanted
    desk.force(first, state=State.COPYING)
    assert desk.http.patch(f"{ALL}/1/repair").status_code == 422


def test_a_verification_ends_where_it_is_left(desk: Desk) -> None:
    first = desk.begin()
    desk.force(first, state=State.VERIFYING_DATA)
    row = TableVerification("orders", 2, 1, 0, 0, 0, (), 8, "started")
    with desk.store.write() as tx:
        rounds = (VerificationRound(1, 60.0, {"-": "gtid"}, 1),)
        told = Verification("v", "started", 2, 8, 3.0, (row,), rows_per_second=2.0, rounds=rounds)
        tx.progress.tell_verification(first.id, told)
    shown = desk.http.get(f"{ALL}/1").json()["vdiff"]
    assert (shown["state"], shown["progress_percentage"], shown["rows_per_second"]) == ("started", 25, 2)
    (report,) = shown["table_reports"]
    assert (report["state"], report["rows_total"], report["rows_percentage"]) == ("started", 8, 25)
    assert shown["rounds"] == [
        {"number": 1, "begun_at": "1970-01-01T00:01:00Z", "positions": {"-": "gtid"}, "rows_compared": 1,
         "note": ""}
    ]  # fmt: skip
    assert desk.http.delete(f"{ALL}/1").status_code == 200
    shown = desk.http.get(f"{ALL}/1").json()["vdiff"]
    assert (shown["state"], shown["eta_seconds"]) == ("error", 0)
    assert "cancel was asked for" in shown["error"]


@pytest.mark.parametrize("interrupted", WORKING)
@pytest.mark.parametrize("halted", [State.ERROR, State.STOPPED])
def test_retry_goes_on_where_it_was_interrupted(desk: Desk, halted: State, interrupted: State) -> None:
    workflow = desk.begin()
    switched = {
        "replicas_switched": interrupted is State.SWITCHED_REPLICAS,
        "primaries_switched": interrupted is State.SWITCHED_PRIMARIES,
    }
    desk.force(
        workflow,
        state=halted,
        interrupted_state=interrupted,
        may_retry=True,
        workflow_errors="the disk was full",
        **switched,
    )
    answer = desk.http.patch(f"{ALL}/1/retry")
    offered = any(
        row.source is halted and row.trigger is Trigger.RETRY and row.to is interrupted
        for row in MOVE_TABLES.rows
    )
    assert answer.status_code == (200 if offered else 422)
    if offered:
        shown = answer.json()
        assert (shown["state"], shown["workflow_errors"], shown["may_retry"]) == (interrupted, "", False)


def test_a_lag_told_long_ago_is_not_known(desk: Desk) -> None:
    workflow = desk.begin()
    desk.force(workflow, state=State.RUNNING, lag_seconds=0.0, lag_told_at=desk.clock.now())
    desk.clock.forward(31)
    refused = desk.http.patch(f"{ALL}/1/switch-primaries")
    assert refused.status_code == 422
    assert "replication lag" in refused.json()["message"]


def test_creation_has_the_published_defaults(desk: Desk) -> None:
    shown = desk.ask(global_keyspace="", branch_name="").json()
    assert (shown["number"], shown["state"], shown["name"]) == (1, "pending", "move")
    assert (shown["defer_secondary_keys"], shown["on_ddl"]) == (True, "STOP")
    assert shown["workflow_type"] == "move_tables"
    assert shown["branch"]["name"] == "main"
    assert (shown["source_keyspace"]["name"], shown["target_keyspace"]["shards"]) == ("shop", 2)
    assert shown["global_keyspace"]["name"] == ""
    assert shown["actor"]["display_name"] == "tests"
    assert shown["cancelled_by"] == {"id": "", "display_name": "", "avatar_url": ""}
    assert [table["name"] for table in shown["tables"]] == ["orders"]
    assert (shown["streams"], shown["vdiff"]) == ([], None)
    (wish,) = desk.preconditions.asked
    assert (wish.branch_id, wish.tables) == (desk.shop.branch.id, ("orders",))


def test_creation_takes_what_is_asked(desk: Desk) -> None:
    shown = desk.ask(
        branch_name="main",
        tables=["lines", "orders", "lines"],
        global_keyspace="shop",
        on_ddl="IGNORE",
        defer_secondary_keys=False,
    ).json()
    assert (shown["on_ddl"], shown["defer_secondary_keys"]) == ("IGNORE", False)
    assert [table["name"] for table in shown["tables"]] == ["lines", "orders"]
    assert shown["global_keyspace"]["id"] == desk.shop.source.id


def test_creation_tells_all_reasons_at_once(desk: Desk) -> None:
    desk.preconditions.against = ("table orders has no unique key", "table lines has triggers")
    with desk.store.write() as tx:
        tx.branches.update(desk.shop.branch.id, safe_migrations=False)
    answer = desk.ask(tables=["orders", "lines"])
    assert answer.status_code == 422
    assert answer.json()["code"] == "unprocessable"
    assert answer.json()["message"].split("; ") == [
        "safe migrations must be enabled on production branch main",
        "table orders has no unique key",
        "table lines has triggers",
    ]
    with desk.store.read() as tx:
        assert tx.databases.get(desk.shop.database.id).last_workflow_number == 0


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"source_keyspace": "nowhere"}, "source keyspace nowhere does not exist"),
        ({"target_keyspace": "nowhere"}, "target keyspace nowhere does not exist"),
        ({"global_keyspace": "nowhere"}, "global keyspace nowhere does not exist"),
        ({"target_keyspace": "shop"}, "source and target keyspace are the same"),
        ({"branch_name": "nowhere"}, "branch nowhere does not exist"),
        ({"name": "-"}, "workflow name '-' is not valid"),
    ],
)
def test_creation_names_what_is_wrong(desk: Desk, fields: dict[str, str], reason: str) -> None:
    answer = desk.ask(**fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "unprocessable")
    assert reason in answer.json()["message"]


@pytest.mark.parametrize(
    "fields", [{"tables": []}, {"tables": "orders"}, {"on_ddl": "SOMETIMES"}, {"name": None}, {"name": ""}]
)
def test_creation_refuses_wrong_parameters(desk: Desk, fields: dict[str, Any]) -> None:
    answer = desk.ask(**fields)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_params")


def test_a_branch_has_one_active_workflow(desk: Desk) -> None:
    first = desk.begin()
    refused = desk.ask(name="second")
    assert refused.status_code == 422
    assert "workflow 1 on branch main is not over" in refused.json()["message"]
    desk.force(first, state=State.COMPLETED)
    assert desk.ask(name="second").json()["number"] == 2


def test_what_needs_a_workflow_is_not_taken_away(desk: Desk) -> None:
    desk.begin()
    branch = "/v1/organizations/acme/databases/shop/branches/main"
    for method, path in (
        ("DELETE", "/v1/organizations/acme/databases/shop"),
        ("DELETE", f"{branch}/keyspaces/shop_sharded"),
        ("DELETE", f"{branch}/safe-migrations"),
    ):
        refused = desk.http.request(method, path)
        assert (refused.status_code, refused.json()["code"]) == (422, "unprocessable"), path
    rules = desk.http.patch(f"{branch}/routing-rules", json={"routing_rules": '{"rules":[]}'})
    assert rules.status_code == 422


def test_between_keeps_what_was_active(desk: Desk) -> None:
    first = desk.begin()
    desk.clock.forward(3600)
    desk.force(first, state=State.COMPLETED, completed_at=desk.clock.now())
    desk.clock.forward(3600)
    desk.begin(name="second")

    def numbers(between: str) -> list[int]:
        answer = desk.http.get(ALL, params={"between": between})
        assert answer.status_code == 200, answer.text
        return [workflow["number"] for workflow in answer.json()["data"]]

    assert numbers("2026-03-01T00:00:00Z..2026-03-02T00:00:00Z") == [2, 1]
    assert numbers("2026-03-01T12:30:00Z..2026-03-01T12:40:00Z") == [1]
    assert numbers("2026-03-01T13:30:00Z..2026-03-01T13:40:00Z") == []
    assert numbers("2026-03-01T16:00:00+01:00..2026-03-01T17:00:00+01:00") == [2]
    for wrong in ("yesterday", "2026-03-01T12:30:00Z", "a..b"):
        answer = desk.http.get(ALL, params={"between": wrong})
        assert answer.status_code == 422


def test_progress_is_shown(desk: Desk) -> None:
    workflow = desk.begin()
    difference = RowDifference("mismatched", "-80", {"id": "7", "k": "it's"}, {"id": "7"}, {"id": "7"})
    progress = MoverProgress(
        phase=Phase.COPYING,
        copied=False,
        tables=(TableProgress("orders", 50, 200),),
        streams=(StreamProgress("-", "-80", "gtid", 50, 3, 0.5, "replica lag"),),
        lag_seconds=0.5,
        rows_per_second=10,
        eta_seconds=15,
        verification=Verification(
            "v" * 12, "completed", 200, 200, 0, (TableVerification("orders", 200, 1, 0, 0, 0, (difference,)),)
        ),
    )
    with desk.store.write() as tx:
        tx.progress.tell(workflow.id, "forward", progress)
    shown = desk.http.get(f"{ALL}/1").json()
    table, stream, vdiff = shown["tables"][0], shown["streams"][0], shown["vdiff"]
    assert (table["rows_copied"], table["rows_total"], table["rows_percentage"]) == (50, 200, 25)
    assert (stream["source_shard"], stream["target_shard"], stream["position"]) == ("-", "-80", "gtid")
    assert stream["component_throttled"] == "replica lag"
    assert [log["state"] for log in stream["logs"]] == ["copying"]
    assert (vdiff["has_mismatch"], vdiff["progress_percentage"], vdiff["eta_seconds"]) == (True, 100, 0)
    report = vdiff["table_reports"][0]
    assert report["mismatched_rows_count"] == 1
    assert report["mismatched_rows"][0]["key"] == {"id": "7", "k": "it's"}
    assert (
        report["sample_mismatched_rows_query"]
        == "SELECT * FROM `orders` WHERE (`id` = '7' AND `k` = 'it''s')"
    )
    listed = desk.http.get(ALL).json()["data"][0]
    assert (listed["streams"][0]["logs"], listed["vdiff"]["table_reports"]) == ([], [])
    assert listed["vdiff"]["has_mismatch"] is True


def test_verified_data_goes_stale(desk: Desk) -> None:
    workflow = desk.begin()

    def stale() -> bool:
        return desk.http.get(f"{ALL}/1").json()["verified_data_stale"]

    assert stale() is False
    desk.force(workflow, state=State.VERIFIED_DATA, verified=True, verify_data_at=desk.clock.now())
    assert stale() is False
    desk.clock.forward(24 * 3600 + 1)
    assert stale() is True
    desk.force(workflow, verified=False, verify_data_at=desk.clock.now())
    assert stale() is True


@pytest.mark.parametrize("number", ["2", "0", "-1", str(2**63), str(2**200)])
def test_a_workflow_that_does_not_exist_is_not_found(desk: Desk, number: str) -> None:
    desk.begin()
    answer = desk.http.get(f"{ALL}/{number}")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_a_moving_table_s_placement_cannot_change_before_the_move_is_over(desk: Desk) -> None:
    at = ALL.replace("/workflows", "/branches/main/keyspaces/shop_sharded/vschema")

    def ask(vindex: str, *, more: bool = False) -> httpx.Response:
        bound = {"column_vindexes": [{"column": "id", "name": "v"}]}
        tables = {"orders": bound, **({"lines": bound} if more else {})}
        vschema = {"sharded": True, "vindexes": {"v": {"type": vindex}}, "tables": tables}
        return desk.http.patch(at, json={"vschema": json.dumps(vschema)})

    assert ask("xxhash").status_code == 200
    workflow = desk.begin()
    answer = ask("hash")
    assert answer.status_code == 422
    assert "is moving orders" in answer.json()["message"]
    assert ask("xxhash", more=True).status_code == 200, "other tables' entries may change"
    desk.force(workflow, state=State.CANCELLED)
    assert ask("hash", more=True).status_code == 200


@pytest.mark.parametrize(
    "between",
    [
        "0001-01-01T00:00:00%2B14:00..2026-01-01",
        "2026-01-01..9999-12-31T23:59:59-23:59",
        "..",
        "a..b",
    ],
)
def test_times_that_are_none_in_utc_are_refused(desk: Desk, between: str) -> None:
    answer = desk.http.get(f"{ALL}?between={between}")
    assert (answer.status_code, answer.json()["code"]) == (422, "unprocessable")


def test_all_reasons_are_told_before_anything_is_created(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the API and the command: what creation would say, each reason once, and nothing is made."""
    body = {"source_keyspace": "shop", "target_keyspace": "shop_sharded", "tables": ["orders", "orders"]}
    assert desk.http.post(f"{ALL}/check", json=body).json() == {"allowed": True, "reasons": []}
    desk.preconditions.against = ("table orders has no key", "it cascades", "it cascades")
    told = ["table orders has no key", "it cascades"]
    answer = desk.http.post(f"{ALL}/check", json=body)
    assert (answer.status_code, answer.json()) == (200, {"allowed": False, "reasons": told})
    created = desk.ask()
    assert (created.status_code, created.json()["message"]) == (422, "; ".join(told))
    token_id, _, token = desk.http.headers["Authorization"].partition(":")
    url = str(desk.http.base_url).rstrip("/")
    where = {"API_URL": url, "ORG": "acme", "SERVICE_TOKEN_ID": token_id, "SERVICE_TOKEN": token}
    for name, value in where.items():
        monkeypatch.setenv(f"PLANETSCALE_{name}", value)
    asked = CliRunner().invoke(app, ["check", "shop", "shop", "shop_sharded", "orders"])
    assert asked.exit_code == 1
    assert asked.output == "- table orders has no key\n- it cascades\n"
    desk.preconditions.against = ()
    asked = CliRunner().invoke(app, ["check", "shop", "shop", "shop_sharded", "orders"])
    assert asked.exit_code == 0
    assert "nothing speaks against moving orders" in asked.output
    assert desk.http.get(ALL).json()["data"] == []
