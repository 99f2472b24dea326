"""How work gives way, as clients ask for it: the published ratios, and homeworld's limits of a workflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from homeworld.cli.workflow import app
from homeworld.client import HomeworldClient
from homeworld.model.movers import ThrottleLimits
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.move_tables.context import limits_of
from tests.support.api import ServedApi
from tests.support.desk import DB, Desk, open_desk, refused
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
    limits = limits_of(stored, database.throttler_ratios, "shop", "shop_sharded")
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
