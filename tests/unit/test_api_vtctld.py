"""The vtctld family: views of the same workflows, operations that are polled, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from homeworld.api.asking import STOPPED_ON_REQUEST
from homeworld.api.calls import Settings
from homeworld.model.inspection import Definition
from homeworld.model.movers import (
    MoverProgress,
    Phase,
    RowDifference,
    StreamProgress,
    TableProgress,
    TableVerification,
    Verification,
)
from homeworld.model.states.move_tables import MOVE_TABLES, State, Trigger
from homeworld.store.guards import THEN_COMPLETE, VERIFY_ID
from homeworld.store.store import Store
from homeworld.store.tables.journal import audit_log
from homeworld.store.tables.workflows import workflows
from homeworld.store.workflows import Workflow
from tests.support.api import ServedApi, StatedInspection, StatedPlacements, StatedPreconditions, client_of
from tests.support.stores import Shop, TestClock, make_shop

PUBLISHED = "/v1/organizations/acme/databases/shop/workflows"
BRANCH = "/v1/organizations/acme/databases/shop/branches/main"
MOVES = f"{BRANCH}/move-tables/workflows"
MOVE = f"{MOVES}/move"
VDIFFS = f"{BRANCH}/vdiff/workflows/move/vdiffs"
INTO: dict[str, Any] = {"target_keyspace": "shop_sharded"}
CREATE: dict[str, Any] = {"workflow": "move", "source_keyspace": "shop", **INTO, "tables": ["orders"]}
ALL_TYPES = ["primary", "replica", "rdonly"]


@dataclass
class Desk:
    """An API with a shop in its store, and its executor's hand."""

    store: Store
    clock: TestClock
    shop: Shop
    inspection: StatedInspection
    preconditions: StatedPreconditions
    http: httpx.Client

    def post(self, path: str, *, expect: int = 202, **body: Any) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def get(self, path: str, *, expect: int = 200, **query: str) -> dict[str, Any]:
        answer = self.http.get(path, params=query)
        assert answer.status_code == expect, answer.text
        return answer.json()

    def refused(self, path: str, **body: Any) -> str:
        told = self.post(path, expect=422, **body)
        assert told["code"] in {"unprocessable", "invalid_params"}
        return str(told["message"])

    def operation(self, made: dict[str, Any]) -> dict[str, Any]:
        return self.get(f"{BRANCH}/vtctld/operations/{made['id']}")

    def workflow(self) -> Workflow:
        with self.store.read() as tx:
            return tx.workflows.by_name(self.shop.branch.id, self.shop.target.id, "move")

    def observe(self, trigger: Trigger, why: str = "", **fields: Any) -> Workflow:
        """What the executor does when it has seen something."""
        workflow = self.workflow()
        facts = {"from:running": True, "primaries_on_source": True}
        row = MOVE_TABLES.take(workflow.state, trigger, lambda guard: facts.get(guard, False))
        with self.store.write() as tx:
            return tx.workflows.transition(workflow.id, workflow.state, row, why=why, **fields)

    def force(self, **values: Any) -> Workflow:
        workflow = self.workflow()
        with self.store.write() as tx:
            tx.work.connection.execute(update(workflows).where(workflows.c.id == workflow.id).values(values))
        return self.workflow()

    def runs(self) -> Workflow:
        """A workflow that was created, has copied and is close behind."""
        self.post(MOVES, **CREATE)
        self.observe(Trigger.STARTED)
        self.observe(Trigger.COPIED)
        return self.force(lag_seconds=0.1, lag_told_at=self.clock.now())

    def audited(self) -> list[str]:
        with self.store.read() as tx:
            return list(tx.work.connection.scalars(select(audit_log.c.action)))


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    preconditions, inspection = StatedPreconditions(), StatedInspection()
    with sqlite_store.write() as tx:
        shop = make_shop(tx)
    served_api.use(sqlite_store, Settings(preconditions, StatedPlacements(), inspection))
    with client_of(served_api, sqlite_store, shop.organization) as http:
        http.timeout = httpx.Timeout(300)
        yield Desk(sqlite_store, clock, shop, inspection, preconditions, http)


def test_a_workflow_is_one_whichever_family_asks(desk: Desk) -> None:
    made = desk.post(MOVES, **CREATE, defer_secondary_keys=False, on_ddl="EXEC")
    assert set(made) == {"id"}
    published = desk.get(f"{PUBLISHED}/1")
    assert (published["name"], published["state"], published["on_ddl"]) == ("move", "pending", "EXEC")
    waiting = desk.operation(made)
    assert (waiting["action"], waiting["state"], waiting["completed"]) == (
        "move_tables_create", "running", False,
    )  # fmt: skip
    assert (waiting["result"], waiting["completed_at"], waiting["error"]) == (None, None, "")
    assert waiting["metadata"] == {"workflow": "move", "target_keyspace": "shop_sharded", "number": 1}
    assert waiting["timeout"] > 900
    desk.observe(Trigger.STARTED)
    done = desk.operation(made)
    assert (done["state"], done["completed"]) == ("completed", True)
    assert done["result"]["traffic_state"] == "Reads Not Switched. Writes Not Switched"
    (listed,) = desk.get(f"{BRANCH}/vtctld/workflows", keyspace="shop_sharded")["data"]["workflows"]
    (shown,) = desk.get(MOVE, **INTO)["data"]["workflows"]
    assert shown == listed
    assert (shown["name"], shown["number"], shown["state"]) == ("move", 1, "copying")
    assert shown["target"] == {"keyspace": "shop_sharded", "shards": ["-80", "80-"]}
    assert desk.get(f"{BRANCH}/vtctld/workflows", keyspace="shop")["data"]["workflows"] == []
    assert desk.get(f"{BRANCH}/vtctld/workflows", workflow="other")["data"]["workflows"] == []
    desk.get(f"{BRANCH}/vtctld/workflows", keyspace="none", expect=404)
    # The other way round: what the published operations began.
    desk.http.delete(f"{PUBLISHED}/1").raise_for_status()
    desk.observe(Trigger.DONE)
    body = {"name": "move", "source_keyspace": "shop", "target_keyspace": "shop_sharded", "tables": ["parts"]}
    desk.http.post(PUBLISHED, json=body).raise_for_status()
    assert desk.get(MOVE, **INTO)["data"]["workflows"][0]["tables"] == ["parts"]
    assert desk.operation(made)["state"] == "completed", "an operation's end stays what it was"
    assert {"workflow.created", "workflow.cancel"} <= set(desk.audited())


def test_creation_is_refused_as_by_the_published_operation(desk: Desk) -> None:
    desk.preconditions.against = ("table orders has a trigger", "no binlog")
    assert desk.refused(MOVES, **CREATE) == "table orders has a trigger; no binlog"
    desk.preconditions.against = ()
    desk.post(MOVES.replace("main", "nothing"), expect=404, **CREATE)
    assert "does not exist" in desk.refused(MOVES, **{**CREATE, "source_keyspace": "nothing"})
    desk.post(MOVES, **CREATE)
    assert "is not over" in desk.refused(MOVES, **{**CREATE, "workflow": "second"})


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tables": []}, "name tables, or all_tables"),
        ({"all_tables": True}, "not both"),
        ({"exclude_tables": ["parts"]}, "goes with all_tables"),
        ({"auto_start": False}, "starts when it is created"),
        ({"stop_after_copy": True}, "stop it afterwards"),
        ({"atomic_copy": True}, "atomic_copy"),
        ({"source_time_zone": "Europe/Berlin"}, "source_time_zone"),
        ({"tenant_id": "7"}, "tenant_id"),
        ({"cells": ["zone1"]}, "cells"),
        ({"tablet_types": ["replica"]}, "only tablet type is primary"),
        ({"sharded_auto_increment_handling": "LEAVE"}, "REPLACE"),
        ({"on_ddl": "PRAY"}, "on_ddl"),
        ({"tables": "orders"}, "tables"),
        ({"workflow": ""}, "workflow is required"),
        ({"workflow": "no such/name"}, "workflow"),
        ({"tablet_types": ["replica"], "tenant_id": "7"}, "; "),
    ],
)
def test_what_creation_cannot_do_is_said(desk: Desk, fields: dict[str, Any], told: str) -> None:
    assert told in desk.refused(MOVES, **{**CREATE, **fields})
    assert desk.get(f"{BRANCH}/vtctld/workflows")["data"]["workflows"] == []


def test_all_tables_are_those_of_the_source_now(desk: Desk) -> None:
    wish: dict[str, Any] = {**CREATE, "tables": [], "all_tables": True}
    assert desk.refused(MOVES, **wish) == "keyspace shop has no table to move"
    desk.inspection.tables[desk.shop.source.id] = [
        Definition("shop", name, "CREATE …", view=name == "seen") for name in ("orders", "parts", "seen")
    ]
    assert "no table nothing" in desk.refused(MOVES, **wish, exclude_tables=["nothing", "parts"])
    same: dict[str, Any] = {
        "tablet_types": ["PRIMARY"],
        "sharded_auto_increment_handling": "replace",
        "auto_start": True,
    }
    desk.post(MOVES, **wish, exclude_tables=["parts"], **same)
    assert [one["name"] for one in desk.get(f"{PUBLISHED}/1")["tables"]] == ["orders"]


def test_traffic_is_switched_and_reversed(desk: Desk) -> None:
    desk.runs()
    made = desk.post(f"{MOVE}/switch-traffic", **INTO, tablet_types=["replica", "rdonly"])
    assert desk.workflow().state is State.SWITCHING_REPLICAS
    desk.observe(Trigger.DONE, replicas_switched=True)
    told = desk.operation(made)["result"]
    assert told["start_state"] == "Reads Not Switched. Writes Not Switched"
    assert told["current_state"] == "All Reads Switched. Writes Not Switched"
    desk.force(lag_seconds=0.1, lag_told_at=desk.clock.now())
    made = desk.post(f"{MOVE}/switch-traffic", **INTO, tablet_types=["primary"])
    assert not desk.operation(made)["completed"]
    desk.observe(Trigger.DONE, primaries_switched=True)
    told = desk.operation(made)["result"]
    assert told["summary"] == "SwitchTraffic was successful for workflow shop_sharded.move"
    assert told["current_state"] == "All Reads Switched. Writes Switched"
    status = desk.get(f"{MOVE}/status", **INTO)["data"]
    assert (status["traffic_state"], status["state"]) == (told["current_state"], "switched_primaries")
    for types in (["primary"], ["replica"]):
        assert "comes back together" in desk.refused(f"{MOVE}/reverse-traffic", **INTO, tablet_types=types)
    desk.clock.forward(60)  # nobody knows the lag any more
    assert "above 5 s" in desk.refused(f"{MOVE}/reverse-traffic", **INTO, max_replication_lag_allowed=5)
    made = desk.post(f"{MOVE}/reverse-traffic", **INTO)
    desk.observe(Trigger.DONE, replicas_switched=False, primaries_switched=False)
    told = desk.operation(made)["result"]
    assert told["summary"] == "ReverseTraffic was successful for workflow shop_sharded.move"
    assert told["start_state"] == "All Reads Switched. Writes Switched"
    assert desk.audited().count("workflow.switch-primaries") == 1


def test_a_switch_that_was_not_in_time_says_why(desk: Desk) -> None:
    desk.runs()
    made = desk.post(f"{MOVE}/switch-traffic", **INTO, tablet_types=ALL_TYPES)
    assert desk.workflow().state is State.SWITCHING_PRIMARIES
    desk.observe(Trigger.NOT_IN_TIME, "a transaction was open for too long")
    told = desk.operation(made)
    assert (told["state"], told["completed"], told["result"]) == ("failed", True, None)
    assert told["error"] == "a transaction was open for too long"
    again = desk.post(f"{MOVE}/switch-traffic", **INTO, tablet_types=ALL_TYPES)
    desk.observe(Trigger.DONE, replicas_switched=True, primaries_switched=True)
    assert [desk.operation(one)["state"] for one in (made, again)] == ["failed", "completed"]


def test_what_a_switch_cannot_do_is_said(desk: Desk) -> None:
    desk.runs()
    at = f"{MOVE}/switch-traffic"
    assert "does not go alone" in desk.refused(at, **INTO, tablet_types=["primary"])
    assert "name replica" in desk.refused(at, **INTO, tablet_types=["rdonly"])
    assert "unknown tablet type 'spare'" in desk.refused(at, **INTO, tablet_types=["spare"])
    assert "sequences" in desk.refused(at, **INTO, tablet_types=ALL_TYPES, initialize_target_sequences=False)
    assert "max_replication_lag_allowed" in desk.refused(at, **INTO, max_replication_lag_allowed=0)
    assert desk.refused(at, tablet_types=ALL_TYPES) == "target_keyspace is required"
    desk.force(lag_seconds=20.0)
    assert "lag" in desk.refused(at, **INTO, tablet_types=ALL_TYPES)
    desk.post(at, **INTO, tablet_types=ALL_TYPES, max_replication_lag_allowed=30, dry_run=True)
    assert "lag" in desk.refused(at, **INTO, max_replication_lag_allowed=10, dry_run=True)
    assert desk.workflow().state is State.RUNNING
    assert "while the workflow is running" in desk.refused(f"{MOVE}/reverse-traffic", **INTO)


def test_a_dry_run_changes_nothing(desk: Desk) -> None:
    before = desk.runs()
    made = desk.post(f"{MOVE}/switch-traffic", **INTO, tablet_types=["primary", "replica"], dry_run=True)
    told = desk.operation(made)
    assert (told["state"], told["completed"], told["metadata"]["dry_run"]) == ("completed", True, True)
    assert "all traffic of table(s) orders" in told["result"]["dry_run_results"][0]
    assert desk.workflow() == before
    assert "complete" not in "".join(desk.audited())
    assert "while the workflow is running" in desk.refused(f"{MOVE}/complete", **INTO, dry_run=True)


def test_a_cancel_is_over_when_everything_is_gone(desk: Desk) -> None:
    created = desk.post(MOVES, **CREATE)
    kept: dict[str, Any]
    for kept in ({"keep_data": True}, {"keep_routing_rules": True}):
        assert "is not possible" in desk.refused(f"{MOVE}/cancel", **INTO, **kept)
    made = desk.post(f"{MOVE}/cancel", **INTO, keep_data=False, keep_routing_rules=False)
    told = desk.operation(created)
    assert (told["state"], told["completed"], told["error"]) == (
        "cancelled", True, "the workflow was cancelled",
    )  # fmt: skip
    assert not desk.operation(made)["completed"]
    desk.observe(Trigger.DONE)
    told = desk.operation(made)
    assert (
        told["result"]["summary"] == "Successfully cancelled the move workflow in the shop_sharded keyspace"
    )
    assert desk.get(f"{BRANCH}/vtctld/workflows", keyspace="shop_sharded")["data"]["workflows"] == []
    assert "workflow is cancelled" in desk.refused(f"{MOVE}/cancel", **INTO)


def test_complete_cuts_over_and_completes(desk: Desk) -> None:
    desk.runs()
    desk.force(state=State.SWITCHED_PRIMARIES, replicas_switched=True, primaries_switched=True)
    at = f"{MOVE}/complete"
    kept: dict[str, Any]
    for kept in ({"keep_data": True}, {"rename_tables": True}, {"keep_routing_rules": True}):
        assert "cutover" in desk.refused(at, **INTO, **kept)
    made = desk.post(at, **INTO, keep_data=False, keep_routing_rules=False)
    workflow = desk.workflow()
    assert workflow.state is State.CUTTING_OVER
    assert workflow.facts[THEN_COMPLETE] == workflow.cutover_by
    assert {"workflow.cutover", "workflow.complete"} <= set(desk.audited())
    desk.observe(Trigger.DONE)
    assert not desk.operation(made)["completed"], "a cutover is on the way, not the end"
    second = desk.post(at, **INTO)
    assert desk.workflow().state is State.COMPLETED
    assert desk.operation(made)["state"] == desk.operation(second)["state"] == "completed"


@pytest.mark.parametrize(
    ("state", "keep", "last"),
    [
        (State.CUTOVER, False, "cutover"),
        (State.CUTOVER, True, "reversed_cutover"),
        (State.REVERSED_CUTOVER, True, "reversed_cutover"),
        (State.REVERSED_CUTOVER, False, "cutover"),
    ],
)
def test_from_a_cutover_the_rules_may_be_kept_or_not(desk: Desk, state: State, keep: bool, last: str) -> None:
    desk.runs()
    desk.force(state=state)
    made = desk.post(f"{MOVE}/complete", **INTO, keep_routing_rules=keep)
    assert desk.workflow().state is State.COMPLETED
    assert desk.operation(made)["completed"]
    with desk.store.read() as tx:
        # What the executor settles the rules by.
        assert tx.journal.transitions("workflow", desk.workflow().id)[-1].from_state == last


def test_a_stopped_workflow_is_started_again(desk: Desk) -> None:
    desk.runs()
    stop, start = (f"{BRANCH}/vtctld/workflows/move/{word}" for word in ("stop", "start"))
    assert "runs" in desk.post(start, expect=200, keyspace="shop_sharded")["data"]["summary"]
    desk.post(stop, expect=200, keyspace="shop_sharded")
    stopped = desk.workflow()
    assert (stopped.state, stopped.interrupted_state) == (State.STOPPED, State.RUNNING)
    assert (stopped.may_retry, stopped.workflow_errors) == (True, STOPPED_ON_REQUEST)
    assert "while the workflow is stopped" in desk.refused(stop, keyspace="shop_sharded")
    told = desk.post(start, expect=200, keyspace="shop_sharded")["data"]["summary"]
    assert told == "Successfully started the move workflow in the shop_sharded keyspace"
    assert desk.workflow().state is State.RUNNING
    assert {"workflow.stop", "workflow.retry"} <= set(desk.audited())
    desk.force(state=State.SWITCHED_PRIMARIES, replicas_switched=True, primaries_switched=True)
    assert "switched_primaries" in desk.refused(stop, keyspace="shop_sharded")
    desk.post(stop, expect=404, keyspace="shop")


def verification(uuid: str, state: str, *differences: RowDifference) -> Verification:
    table = TableVerification("orders", 60, len(differences), 0, 0, 0, differences, rows_total=60)
    return Verification(uuid, state, 60, 60, 0.0, (table,))


def test_comparisons(desk: Desk) -> None:
    workflow = desk.runs()
    created = desk.post(VDIFFS, expect=200, **INTO, tables=["orders"], auto_retry=True, only_pks=True)
    uuid = created["data"]["UUID"]
    assert desk.workflow().state is State.VERIFYING_DATA
    assert desk.workflow().facts[VERIFY_ID] == uuid
    assert desk.get(f"{VDIFFS}/{uuid}", **INTO)["data"]["State"] == "pending"
    assert "under way" in desk.http.delete(f"{VDIFFS}/{uuid}", params=INTO).json()["message"]
    assert "verifying_data" in desk.refused(VDIFFS, **INTO)
    stop, resume = (f"{VDIFFS}/{uuid}/{word}" for word in ("stop", "resume"))
    assert "all of them" in desk.refused(stop, **INTO, target_shards=["-80"])
    desk.post(stop, expect=200, **INTO, target_shards=["80-", "-80"])
    assert (desk.workflow().state, VERIFY_ID in desk.workflow().facts) == (State.RUNNING, False)
    assert desk.get(f"{VDIFFS}/last", **INTO)["data"]["State"] == "stopped"
    assert "stopped" in desk.refused(stop, **INTO)
    desk.post(resume, expect=200, **INTO)
    assert desk.workflow().facts[VERIFY_ID] == uuid
    differs = RowDifference("mismatched", "-80", {"id": "7"}, {"id": "7"}, {"id": "7"}, ("note",))
    with desk.store.write() as tx:
        tx.progress.tell_verification(workflow.id, verification(uuid, "completed", differs))
    desk.observe(Trigger.DIFFERENT, "1 row differs")
    found = desk.get(f"{VDIFFS}/{uuid}", **INTO)["data"]
    assert (found["State"], found["HasMismatch"], found["RowsCompared"]) == ("completed", True, 60)
    assert (found["Workflow"], found["Keyspace"], found["Shards"]) == ("move", "shop_sharded", "-80,80-")
    assert found["Progress"]["Percentage"] == 100
    assert found["TableSummary"]["orders"]["MismatchedRowsSample"][0]["key"] == {"id": "7"}
    assert "only a stopped one" in desk.refused(resume, **INTO)
    (listed,) = desk.get(VDIFFS, **INTO)["data"]["vdiffs"]
    assert (listed["UUID"], listed["State"]) == (uuid, "completed")
    desk.http.delete(f"{VDIFFS}/{uuid}", params=INTO).raise_for_status()
    assert desk.get(VDIFFS, **INTO)["data"]["vdiffs"] == []
    desk.get(f"{VDIFFS}/{uuid}", expect=404, **INTO)
    desk.get(f"{VDIFFS}/last", expect=404, **INTO)
    assert desk.audited().count("workflow.vdiff_deleted") == 1
    again = desk.post(VDIFFS, expect=200, **INTO)["data"]["UUID"]
    assert "under way" in desk.http.delete(f"{VDIFFS}/all", params=INTO).json()["message"]
    desk.post(f"{VDIFFS}/{again}/stop", expect=200, **INTO)
    for _ in range(2):  # the second time there is none
        desk.http.delete(f"{VDIFFS}/all", params=INTO).raise_for_status()
        assert desk.get(VDIFFS, **INTO)["data"]["vdiffs"] == []
    assert desk.audited().count("workflow.vdiff_deleted") == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 10},
        {"max_extra_rows_to_compare": 0},
        {"debug_query": True},
        {"tables": ["parts"]},
        {"tablet_types": ["replica"]},
        {"auto_start": False},
        {"auto_retry": False},
    ],
)
def test_what_a_comparison_cannot_do_is_said(desk: Desk, fields: dict[str, Any]) -> None:
    desk.runs()
    assert desk.refused(VDIFFS, **INTO, **fields)
    assert desk.workflow().state is State.RUNNING


def test_streams_and_copies_are_told(desk: Desk) -> None:
    workflow = desk.runs()
    stream = StreamProgress("-", "-80", "0-1-7", 30, 5, 0.4)
    tables = (TableProgress("orders", 30, 60),)
    progress = MoverProgress(Phase.FOLLOWING, True, tables, (stream,), 0.4, 0.0, 0.0)
    with desk.store.write() as tx:
        tx.progress.tell(workflow.id, "forward", progress)
    status = desk.get(f"{MOVE}/status", **INTO)["data"]
    assert status["table_copy_state"] == {
        "orders": {"rows_copied": "30", "rows_total": "60", "rows_percentage": 50.0}
    }
    (told,) = status["shard_streams"]["shop_sharded/-80"]["streams"]
    assert (told["source_shard"], told["status"], told["info"]) == ("shop/-", "Running", "VStream Lag: 0s")
    (shown,) = desk.get(MOVE, **INTO)["data"]["workflows"]
    streams = shown["shard_streams"]["shop_sharded/-80"]
    assert streams["is_primary_serving"] is False
    assert streams["streams"][0]["binlog_source"] == {"keyspace": "shop", "shard": "-", "on_ddl": "STOP"}
    assert len(streams["streams"][0]["logs"]) == 1
    (shown,) = desk.get(f"{BRANCH}/vtctld/workflows", include_logs="false")["data"]["workflows"]
    assert shown["shard_streams"]["shop_sharded/-80"]["streams"][0]["logs"] == []
    desk.post(f"{BRANCH}/vtctld/workflows/move/stop", expect=200, keyspace="shop_sharded")
    (told,) = desk.get(f"{MOVE}/status", **INTO)["data"]["shard_streams"]["shop_sharded/-80"]["streams"]
    assert told["status"] == "Stopped"


def test_keyspaces_and_routing_rules(desk: Desk) -> None:
    keyspaces = desk.get(f"{BRANCH}/vtctld/keyspaces")["data"]["keyspaces"]
    assert [one["name"] for one in keyspaces] == ["shop", "shop_sharded"]
    (one,) = desk.get(f"{BRANCH}/vtctld/keyspaces", name="shop_sharded")["data"]["keyspaces"]
    assert (one["shards"], one["keyspace"]["keyspace_type"]) == (["-80", "80-"], "NORMAL")
    assert desk.get(f"{BRANCH}/vtctld/keyspaces", name="none")["data"]["keyspaces"] == []
    assert desk.get(f"{BRANCH}/vtctld/routing-rules") == {"data": {"rules": []}}
    with desk.store.write() as tx:
        tx.routes.replace_rules(desk.shop.branch.id, {"t": "shop.t"})
    rules = desk.get(f"{BRANCH}/vtctld/routing-rules")["data"]["rules"]
    assert rules == [{"from_table": "t", "to_tables": ["shop.t"]}]


def test_what_is_not_there(desk: Desk) -> None:
    assert desk.get(MOVE, expect=422)["message"] == "name the workflow's target keyspace"
    for where in (MOVE, f"{MOVE}/status", VDIFFS):
        told = desk.get(where, expect=404, **INTO)
        assert told["message"] == "there is no workflow move into keyspace shop_sharded on branch main"
    assert "NUL" in desk.get(MOVE, expect=422, target_keyspace="sh\0p")["message"]
    made = desk.post(MOVES, **CREATE)
    desk.get(MOVE, expect=404, target_keyspace="shop")
    desk.get(f"{MOVES}/m%C3%B6ve", expect=404, **INTO)
    desk.get(f"{BRANCH}/vtctld/operations/{'0' * 12}", expect=404)
    with desk.store.write() as tx:
        tx.branches.create(desk.shop.database.id, "dev", desk.shop.region.id)
    desk.get(f"{BRANCH.replace('main', 'dev')}/vtctld/operations/{made['id']}", expect=404)
    for unmounted in ("materialize/workflows", "lookup-vindex/vindexes", "vtctld/keyspace-routing-rules"):
        assert desk.http.get(f"{BRANCH}/{unmounted}").status_code == 404
