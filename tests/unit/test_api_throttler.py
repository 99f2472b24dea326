"""How work gives way, as clients ask for it: the published ratios, and homeworld's limits of a workflow."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from typer.testing import CliRunner

from homeworld.cli.workflow import app
from homeworld.client import HomeworldClient
from homeworld.model.movers import ThrottleLimits
from homeworld.model.throttling import limits_between, throttle_of
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from tests.support.api import ServedApi
from tests.support.desk import BRANCH, DB, Desk, open_desk, refused
from tests.support.stores import TestClock

ONE = f"{DB}/workflows/1/throttler"
USUAL = {
    "replica_lag_seconds": 5.0,
    "source_threads_running": 100,
    "source_history_length": 1_000_000,
    "ratio": 0,
}


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def begin(desk: Desk, **further: object) -> Workflow:
    body = {
        "name": "move",
        "source_keyspace": "shop",
        "target_keyspace": "shop_sharded",
        "tables": ["orders"],
        **further,
    }
    answer = desk.http.post(f"{DB}/workflows", json=body)
    assert answer.status_code == 201, answer.text
    with desk.store.read() as tx:
        return tx.workflows.by_number(desk.shop.database.id, answer.json()["number"])


def test_ratios_are_kept_by_keyspace(desk: Desk) -> None:
    before = desk.http.get(f"{DB}/throttler").json()
    assert before["keyspaces"] == ["shop", "shop_sharded"]
    assert before["configurable"]["name"] == "shop"
    assert set(before["configurable"]) == {"id", "name", "created_at", "updated_at", "deleted_at"}
    assert [one["ratio"] for one in before["configurations"]] == [0, 0]
    answer = desk.http.patch(f"{DB}/throttler", json={"ratio": 40})
    assert answer.status_code == 200
    assert [one["ratio"] for one in answer.json()["configurations"]] == [40, 40]
    for one in ({"keyspace_name": "shop", "ratio": 7}, '{"keyspace_name": "shop", "ratio": 7}'):
        shown = desk.http.patch(f"{DB}/throttler", json={"configurations": [one]}).json()
        assert shown == desk.http.get(f"{DB}/throttler").json()
        assert [(c["keyspace_name"], c["ratio"]) for c in shown["configurations"]] == [
            ("shop", 7),
            ("shop_sharded", 40),
        ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"ratio": 96}, "invalid_params"),
        ({"ratio": -1}, "invalid_params"),
        ({"ratio": 1.5}, "invalid_params"),
        ({"configurations": [{"keyspace_name": "shop", "ratio": 100}]}, "invalid_params"),
        ({"configurations": ["shop"]}, "invalid_params"),
        ({"configurations": [{"keyspace_name": "nowhere", "ratio": 1}]}, "unprocessable"),
    ],
)
def test_ratios_that_cannot_be_are_refused(desk: Desk, body: dict[str, Any], code: str) -> None:
    assert refused(desk.http.patch(f"{DB}/throttler", json=body)) == (422, code)
    assert [one["ratio"] for one in desk.http.get(f"{DB}/throttler").json()["configurations"]] == [0, 0]


def test_a_keyspace_may_have_any_name(desk: Desk) -> None:
    names = ("name", "kind", "action", "self")
    for name in names:
        answer = desk.http.post(f"{DB}/branches/main/keyspaces", json={"name": name})
        assert answer.status_code == 200, answer.text
    assert desk.http.patch(f"{DB}/throttler", json={"ratio": 5}).status_code == 200
    shown = desk.http.get(f"{DB}/throttler").json()["configurations"]
    assert {one["keyspace_name"] for one in shown if one["ratio"] == 5} >= set(names)


def test_an_entry_of_a_text_nested_too_deeply_is_refused(desk: Desk) -> None:
    for text in ("[" * 100_000, '{"a":' * 3000, "9" * 5000):
        answer = desk.http.patch(f"{DB}/throttler", json={"configurations": [text]})
        assert refused(answer) == (422, "invalid_params")


def test_a_workflow_s_limits_are_kept_and_its_movers_get_them(desk: Desk) -> None:
    workflow = begin(desk)
    assert desk.http.get(ONE).json() == USUAL
    shown = desk.http.patch(ONE, json={"replica_lag_seconds": 2.5, "source_threads_running": "off"}).json()
    assert shown == {**USUAL, "replica_lag_seconds": 2.5, "source_threads_running": None}
    desk.http.patch(f"{DB}/throttler", json={"configurations": [{"keyspace_name": "shop", "ratio": 30}]})
    assert desk.http.patch(ONE, json={}).json() == {**shown, "ratio": 30}
    with desk.store.read() as tx:
        stored, database = tx.workflows.get(workflow.id), tx.databases.get(workflow.database_id)
    limits = limits_between(
        stored.limits,
        *(
            throttle_of(name, database.throttler_ratios, database.throttler_configs, desk.clock.now())
            for name in ("shop", "shop_sharded")
        ),
    )
    assert limits == ThrottleLimits(2.5, None, 1_000_000, 30)
    for wrong in (-1, "fast", 1e400, [1]):
        text = f'{{"replica_lag_seconds": {wrong!r}}}'.replace("'", '"').replace("inf", "1e999")
        answer = desk.http.patch(ONE, content=text, headers={"Content-Type": "application/json"})
        assert refused(answer) == (422, "invalid_params"), wrong
    assert desk.http.get(f"{DB}/workflows/2/throttler").status_code == 404


def test_a_workflow_can_begin_with_limits(desk: Desk) -> None:
    begin(desk, throttler={"source_history_length": 5000, "replica_lag_seconds": "off"})
    shown = desk.http.get(ONE).json()
    assert shown == {**USUAL, "source_history_length": 5000, "replica_lag_seconds": None}


def test_the_command_line_shows_and_changes(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(desk)
    token_id, _, token = desk.http.headers["Authorization"].partition(":")
    for name, value in (
        ("API_URL", desk.served.url),
        ("ORG", "acme"),
        ("SERVICE_TOKEN_ID", token_id),
        ("SERVICE_TOKEN", token),
    ):
        monkeypatch.setenv(f"PLANETSCALE_{name}", value)
    runner = CliRunner()
    words = ["throttle", "shop", "1", "--replica-lag", "1.5", "--history-length", "off", "--ratio", "20"]
    result = runner.invoke(app, words)
    assert result.exit_code == 0, result.output
    with HomeworldClient(desk.served.url, token_id, token) as client:
        limits = client.get_workflow_throttler("acme", "shop", 1)
        assert limits == {
            **USUAL,
            "replica_lag_seconds": 1.5,
            "source_history_length": None,
            "ratio": 20,
        }
        ratios = client.get_throttler("acme", "shop")["configurations"]
        assert {one["keyspace_name"]: one["ratio"] for one in ratios} == {"shop": 20, "shop_sharded": 20}
    assert "off" in result.output
    result = runner.invoke(app, ["throttle", "shop", "1", "--history-length", "1234567"])
    assert "1234567" in result.output
    assert runner.invoke(app, ["throttle", "shop", "1", "--replica-lag", "nan"]).exit_code == 2
    assert runner.invoke(app, ["throttle", "shop", "1", "--replica-lag", "much"]).exit_code == 2


CONFIG = f"{BRANCH}/vtctld/throttler/config"


def replica_of(desk: Desk) -> str:
    with desk.store.read() as tx:
        return tx.keyspaces.shards(desk.shop.source.id)[0].replica_server_ids[0]


def test_vtctld_s_clients_set_a_keyspace_and_moves_get_it(desk: Desk) -> None:
    begin(desk)
    until = desk.clock.now() + timedelta(hours=1)
    body = {
        "keyspace": "shop",
        "threshold": 2.5,
        "apps": [{"name": "vreplication", "ratio": 0.4, "expire_at": until.isoformat()}],
    }
    told = desk.http.put(CONFIG, json=body).json()["data"]
    assert (told["enabled"], told["threshold"]) == (True, 2.5)
    assert told["throttled_apps"]["vreplication"]["ratio"] == 0.4
    wanted = {**USUAL, "replica_lag_seconds": 2.5, "ratio": 40}
    assert desk.http.get(ONE).json() == wanted
    # A workflow's own limit counts before.
    assert desk.http.patch(ONE, json={"replica_lag_seconds": 9}).json()["replica_lag_seconds"] == 9
    desk.clock.forward(3601)
    assert desk.http.get(ONE).json()["ratio"] == 0
    assert desk.http.get(f"{DB}/throttler").json()["configurations"][0]["ratio"] == 0
    desk.http.patch(f"{DB}/throttler", json={"ratio": 30})
    assert desk.http.get(ONE).json()["ratio"] == 30, "a published ratio has no end"
    desk.http.put(CONFIG, json={"keyspace": "shop", "enabled": False})
    assert desk.http.get(ONE).json()["ratio"] == 30, "the other side's still counts"
    desk.http.put(CONFIG, json={"keyspace": "shop_sharded", "enabled": False})
    assert desk.http.get(ONE).json() == {
        "replica_lag_seconds": None,
        "source_threads_running": None,
        "source_history_length": None,
        "ratio": 0,
    }
    told = desk.http.put(CONFIG, json={"keyspace": "shop", "unthrottle_apps": ["vreplication"]}).json()
    assert told["data"]["throttled_apps"] == {}


def test_a_server_s_throttler_is_checked_and_shown(desk: Desk) -> None:
    begin(desk)
    replica = replica_of(desk)
    check = f"{BRANCH}/vtctld/throttler/check"
    told = desk.http.post(check, json={"tablet_alias": f"local-{replica}", "scope": "self"}).json()["data"]
    assert (told["response_code"], told["value"], told["threshold"]) == ("THROTTLER_RESPONSE_CODE_OK", 0, 5)
    status = f"{BRANCH}/vtctld/throttler/status?tablet_alias="
    shown = desk.http.get(f"{status}{replica}").json()["data"]
    assert (shown["tablet_alias"], shown["keyspace"], shown["shard"]) == (f"local-{replica}", "shop", "-")
    assert shown["metric_thresholds"] == {"lag": 5, "threads_running": 100, "history_list": 1_000_000}
    assert set(shown["aggregated_metrics"]) == {"self/lag", "shard/lag"}
    desk.inspection.silent = True
    told = desk.http.post(check, json={"tablet_alias": replica}).json()["data"]
    assert told["response_code"] == "THROTTLER_RESPONSE_CODE_UNKNOWN_METRIC"
    assert "does not answer" in told["error"]
    fine = {"tablet_alias": replica, "ok_if_not_exists": True}
    assert desk.http.post(check, json=fine).json()["data"]["response_code"] == "THROTTLER_RESPONSE_CODE_OK"
    assert refused(desk.http.post(check, json={"tablet_alias": "local-none"}))[0] == 404
    assert refused(desk.http.get(status))[0] == 422


@pytest.mark.parametrize(
    "further",
    [
        {"threshold": -1},
        {"threshold": True},
        {"apps": [{"name": "online-ddl", "ratio": 0.5}]},
        {"apps": [{"name": "vreplication"}]},
        {"apps": [{"name": "vreplication", "ratio": 1.5}]},
        {"apps": [{"name": "vreplication", "ratio": 0.5, "expire_at": "2020-01-01T00:00:00Z"}]},
        {"apps": [{"name": "vreplication", "ratio": 0.5, "expire_at": "2050-01-01T00:00:00"}]},
        {"apps": [{"name": "vreplication", "ratio": 0.5, "expire_at": "9999-12-31T23:59:59-14:00"}]},
        {"unthrottle_apps": ["rowstreamer"]},
        {"app_checked_metrics": {"vreplication": ["loadavg"]}},
    ],
)
def test_what_a_keyspace_s_throttler_cannot_do_is_refused(desk: Desk, further: dict[str, Any]) -> None:
    assert refused(desk.http.put(CONFIG, json={"keyspace": "shop", **further}))[0] == 422
    assert refused(desk.http.put(CONFIG, json={**further, "keyspace": "none"}))[0] in (404, 422)
    assert [one["ratio"] for one in desk.http.get(f"{DB}/throttler").json()["configurations"]] == [0, 0]
