"""Engines through the API and the command line: asked for, told, refused, changed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from homeworld.main import make_app
from homeworld.model.engines import ASKED_FOR, CAPABILITIES, NO_VITESS, EngineKind, refusal
from homeworld.model.states.engine_changes import EngineTrigger
from homeworld.model.topology import Flavor
from homeworld.store.store import Store
from tests.support.api import ServedApi
from tests.support.desk import DB, ORG, Desk, open_desk, refused
from tests.support.stores import TestClock

CHANGES = f"{DB}/engine-changes"


@pytest.fixture
def desk(sqlite_store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    """Of an installation that has Vitess."""
    with open_desk(sqlite_store, clock, served_api, missing={}) as made:
        yield made


def test_a_database_has_the_engine_that_was_asked_for(desk: Desk) -> None:
    assert desk.http.get(DB).json()["engine"] == "local"
    for asked, engine in (({}, "local"), ({"engine": "vitess"}, "vitess"), ({"engine": ""}, "local")):
        body = {"name": f"db-{len(asked)}{asked.get('engine', '')}", "cluster_size": "homeworld", **asked}
        made = desk.http.post(f"{ORG}/databases", json=body)
        assert (made.status_code, made.json()["engine"]) == (201, engine)


def test_an_engine_that_cannot_be_had_is_refused_with_what_to_do(
    sqlite_store: Store, clock: TestClock, served_api: ServedApi
) -> None:
    body = {"name": "new", "cluster_size": "homeworld"}
    with open_desk(sqlite_store, clock, served_api) as desk:
        unknown = desk.http.post(f"{ORG}/databases", json={**body, "engine": "warp"})
        assert refused(unknown) == (422, "invalid_params")
        answer = desk.http.post(f"{ORG}/databases", json={**body, "engine": "vitess"})
        assert refused(answer) == (422, "unprocessable")
        why = NO_VITESS[EngineKind.VITESS]
        assert answer.json()["message"] == (
            f"engine vitess cannot be had here: {why}; until then ask for engine local"
        )
        changed = desk.http.post(CHANGES, json={"engine": "vitess"})
        assert refused(changed) == (422, "unprocessable")
        assert why in changed.json()["message"]


def test_without_a_word_the_installations_engine_is_taken_and_its_limits_hold(
    sqlite_store: Store, clock: TestClock, served_api: ServedApi
) -> None:
    with open_desk(sqlite_store, clock, served_api, engine=EngineKind.VITESS, missing={}) as desk:
        made = desk.http.post(f"{ORG}/databases", json={"name": "new", "cluster_size": "homeworld"})
        assert made.json()["engine"] == "vitess"
        body = {"name": "maria", "cluster_size": "homeworld", "flavor": "mariadb"}
        answer = desk.http.post(f"{ORG}/databases", json=body)
        assert answer.json()["message"] == (
            "engine vitess stands on mysql servers only, not on mariadb; ask for engine local"
        )
        local = desk.http.post(f"{ORG}/databases", json={**body, "engine": "local"})
        assert (local.status_code, local.json()["engine"]) == (201, "local")


def test_a_running_database_is_asked_into_vitess_and_polled(desk: Desk) -> None:
    asked = desk.http.post(CHANGES, json={"engine": "vitess"})
    made = asked.json()
    assert asked.status_code == 201
    assert (made["state"], made["completed"], made["engine"]) == ("pending", False, "vitess")
    again = desk.http.post(CHANGES, json={"engine": "vitess"})
    assert refused(again) == (422, "unprocessable")
    assert "not over" in again.json()["message"]
    for trigger in (EngineTrigger.BEGIN, EngineTrigger.FAIL):
        with desk.store.write() as tx:
            state = tx.engine_changes.get(made["id"]).state
            error = "table t has no entry" if trigger is EngineTrigger.FAIL else ""
            tx.engine_changes.transition(made["id"], state, trigger, error=error)
    found = desk.http.get(f"{CHANGES}/{made['id']}").json()
    assert (found["state"], found["completed"], found["error"]) == ("failed", True, "table t has no entry")
    assert refused(desk.http.get(f"{CHANGES}/nosuchchange")) == (404, "not_found")


@pytest.mark.parametrize(
    ("body", "says"),
    [({"engine": "local"}, "is local already"), ({}, "engine"), ({"engine": "warp"}, "engine")],
)
def test_a_change_that_cannot_be_is_refused(desk: Desk, body: dict[str, str], says: str) -> None:
    answer = desk.http.post(CHANGES, json=body)
    code = "unprocessable" if body.get("engine") == "local" else "invalid_params"
    assert refused(answer) == (422, code)
    assert says in answer.json()["message"]


def test_there_is_no_way_back(desk: Desk) -> None:
    with desk.store.write() as tx:
        tx.databases.update(desk.shop.database.id, engine=EngineKind.VITESS)
    answer = desk.http.post(CHANGES, json={"engine": "local"})
    assert "goes from local to vitess only" in answer.json()["message"]


def test_what_is_at_work_refuses_a_change(desk: Desk) -> None:
    with desk.store.write() as tx:
        shop = desk.shop
        tx.workflows.create(shop.database.id, shop.branch.id, "m", shop.source.id, shop.target.id, ["t"])
    answer = desk.http.post(CHANGES, json={"engine": "vitess"})
    assert answer.json()["message"] == "workflow 1 on branch main is not over; ask again when that is over"


def run(words: list[str]) -> Result:
    return CliRunner().invoke(make_app(words), words)


def test_the_command_line_says_the_apis_sentence(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    token, secret = str(desk.http.headers["Authorization"]).split(":", 1)
    monkeypatch.setenv("PLANETSCALE_API_URL", desk.served.url)
    monkeypatch.setenv("PLANETSCALE_ORG", "acme")
    monkeypatch.setenv("PLANETSCALE_SERVICE_TOKEN_ID", token)
    monkeypatch.setenv("PLANETSCALE_SERVICE_TOKEN", secret)
    shown = run(["engine", "show", "shop"])
    assert (shown.exit_code, shown.stdout.strip()) == (0, "local")
    wrong = run(["engine", "change", "shop", "local"])
    assert wrong.exit_code == 2
    assert "is local already" in wrong.output
    asked = run(["engine", "change", "shop", "vitess", "--no-wait"])
    assert asked.exit_code == 0
    found = desk.http.get(f"{CHANGES}/{asked.stdout.strip()}").json()
    assert found["state"] == "pending"


@pytest.mark.parametrize("engine", list(EngineKind))
@pytest.mark.parametrize("flavor", list(Flavor))
def test_what_is_refused_is_what_the_table_says(engine: EngineKind, flavor: Flavor) -> None:
    can = engine in ASKED_FOR and flavor in CAPABILITIES[engine].flavors
    assert (refusal(engine, flavor, {}) == "") == can
