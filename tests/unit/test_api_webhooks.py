"""Webhooks through the API: as published, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from homeworld.api.calls import Settings
from homeworld.api.event_subjects import KINDS, EventSubjects
from homeworld.model.addresses import parse_networks
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.model.states.move_tables import State
from homeworld.model.states.resizing import Resize
from homeworld.model.webhooks import BEYOND
from homeworld.store.pages import PageRequest
from homeworld.store.store import Store
from homeworld.store.tables.journal import audit_log
from homeworld.store.webhooks import DISABLED_AFTER, KEPT
from homeworld.workflows.leases import Keeper
from tests.support.api import ServedApi, StatedPreconditions
from tests.support.desk import BRANCH, DB, ORG, Desk, open_desk, refused
from tests.support.hooks import dispatcher
from tests.support.stores import TestClock

HOOKS = f"{DB}/webhooks"
URL = "https://example.com/hook"


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def create(desk: Desk, **fields: Any) -> dict[str, Any]:
    answer = desk.http.post(HOOKS, json={"url": URL, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_webhook_is_made_shown_changed_and_deleted(desk: Desk) -> None:
    made = create(desk, events=["branch.ready", "branch.ready", "deploy_request.opened"])
    assert made["events"] == ["branch.ready", "deploy_request.opened"]
    assert (made["enabled"], made["last_sent_result"], made["last_sent_success"]) == (False, "", False)
    assert made["last_sent_at"] is None
    assert len(made["secret"]) == 64
    one = f"{HOOKS}/{made['id']}"
    assert desk.http.get(one).json() == made
    listed = desk.http.get(HOOKS).json()
    assert (listed["type"], listed["data"]) == ("list", [made])
    desk.clock.forward(5)
    changed = desk.http.patch(one, json={"enabled": True}).json()
    assert {**made, "enabled": True, "updated_at": changed["updated_at"]} == changed
    changed = desk.http.patch(one, json={"events": []}).json()
    assert (changed["events"], changed["enabled"], changed["url"]) == ([], True, URL)
    assert desk.http.patch(one, json={"url": URL + "/2"}).json()["url"] == URL + "/2"
    assert desk.http.patch(one, json={}).status_code == 200
    assert desk.http.delete(one).status_code == 204
    for method, path in (("GET", one), ("PATCH", one), ("DELETE", one), ("POST", f"{one}/test")):
        assert refused(desk.http.request(method, path, json={})) == (404, "not_found")
    assert desk.http.get(HOOKS).json()["data"] == []
    with desk.store.read() as tx:
        found = tx.work.connection.execute(select(audit_log.c.action, audit_log.c.metadata)).all()
    actions = [row.action for row in found if row.action.startswith("webhook.")]
    assert actions.count("webhook.updated") == 4
    assert {"webhook.created", "webhook.updated", "webhook.deleted"} == set(actions)
    assert made["secret"] not in str(found)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"url": None}, "invalid_params"),
        ({"url": ""}, "invalid_params"),
        ({"url": 7}, "invalid_params"),
        ({"url": "x" * 1_000_000}, "invalid_params"),
        ({"url": "http://example.com"}, "unprocessable"),
        ({"url": "https://127.0.0.1/"}, "unprocessable"),
        ({"url": "https://a:b@example.com/"}, "unprocessable"),
        ({"events": ["branch.exploded"]}, "unprocessable"),
        ({"events": "branch.ready"}, "invalid_params"),
        ({"events": [1]}, "invalid_params"),
        ({"events": ["x"] * 101}, "invalid_params"),
        ({"events": ["nul\0"]}, "invalid_params"),
        ({"enabled": "perhaps"}, "invalid_params"),
    ],
)
def test_what_cannot_be_a_webhook_is_refused(desk: Desk, fields: dict[str, Any], code: str) -> None:
    assert refused(desk.http.post(HOOKS, json={"url": URL, **fields})) == (422, code)
    one = f"{HOOKS}/{create(desk)['id']}"
    if fields.get("url", URL) not in (None, ""):
        assert refused(desk.http.patch(one, json=fields)) == (422, code)


def test_where_networks_are_allowed_so_are_their_urls(desk: Desk) -> None:
    settings = Settings(StatedPreconditions(), webhook_networks=parse_networks("127.0.0.0/8"))
    desk.served.use(desk.store, settings)
    assert create(desk, url="http://127.0.0.1:8000/x")["url"] == "http://127.0.0.1:8000/x"
    assert refused(desk.http.post(HOOKS, json={"url": "http://10.0.0.1/"})) == (422, "unprocessable")


def test_a_database_has_five(desk: Desk) -> None:
    made: list[str] = []
    for number in range(5):
        made.append(create(desk, url=f"{URL}/{number}")["id"])
        desk.clock.forward(1)
    answer = desk.http.post(HOOKS, json={"url": URL})
    assert refused(answer) == (422, "unprocessable")
    assert "delete one first" in answer.json()["message"]
    assert [one["id"] for one in desk.http.get(HOOKS).json()["data"]] == made
    second = desk.http.get(HOOKS, params={"page": 2, "per_page": 2}).json()
    assert ([one["id"] for one in second["data"]], second["next_page"]) == (made[2:4], 3)
    desk.http.delete(f"{HOOKS}/{made[0]}")
    create(desk)


def test_what_is_over_is_kept_within_bounds_however_it_ended(desk: Desk) -> None:
    with desk.store.write() as tx:
        made = tx.webhooks.create(desk.shop.database.id, URL, enabled=True)
        for number in range(KEPT + 5):
            tx.webhooks.queue(made.id, number, "branch.ready", "", failure="it cannot be shown")
    assert total(desk, made.id) == KEPT
    with desk.store.write() as tx:
        for number in range(KEPT + 5):
            tx.webhooks.queue(made.id, KEPT + 5 + number, "branch.ready", "{}")
        tx.webhooks.update(made, enabled=False)
    assert total(desk, made.id) == KEPT


def total(desk: Desk, webhook_id: str) -> int:
    with desk.store.read() as tx:
        pages = [tx.webhooks.deliveries(webhook_id, PageRequest(number, 100)).items for number in (1, 2, 3)]
    return sum(map(len, pages))


def test_webhooks_go_with_their_database(desk: Desk) -> None:
    with desk.store.write() as tx:
        made = tx.webhooks.create(desk.shop.database.id, URL, events=["branch.ready"], enabled=True)
        tx.webhooks.queue(made.id, 1, "branch.ready", "{}")
    assert desk.http.delete(DB).status_code == 204
    with desk.store.read() as tx:
        assert (tx.webhooks.at_hand(), tx.webhooks.listens_since()) == ((), None)


def test_a_webhook_is_its_database_s_own(desk: Desk) -> None:
    made = create(desk)
    desk.http.post(f"{ORG}/databases", json={"name": "other", "cluster_size": "PS_10"})
    elsewhere = f"{ORG}/databases/other/webhooks/{made['id']}"
    for method in ("GET", "PATCH", "DELETE"):
        assert refused(desk.http.request(method, elsewhere, json={})) == (404, "not_found")
    assert desk.http.delete(DB).status_code == 204
    assert refused(desk.http.get(f"{HOOKS}/{made['id']}")) == (404, "not_found")


def test_a_test_is_queued_once_in_twenty_seconds(desk: Desk) -> None:
    one = f"{HOOKS}/{create(desk)['id']}"
    assert desk.http.post(f"{one}/test").status_code == 204
    assert refused(desk.http.post(f"{one}/test")) == (422, "unprocessable")
    desk.clock.forward(21)
    assert desk.http.post(f"{one}/test").status_code == 204
    (second, first) = desk.http.get(f"{one}/deliveries").json()["data"]
    assert (first["event"], first["state"], first["attempts"]) == ("webhook.test", "pending", 0)
    assert int(second["id"]) > int(first["id"])
    with desk.store.read() as tx:
        ((webhook, delivery),) = tx.webhooks.at_hand()
    assert one.endswith(webhook.id)
    assert delivery.body.startswith(
        f'{{"timestamp":1772366400,"event":"webhook.test","organization":"acme","database":"shop",'
        f'"resource":{{"id":"{desk.shop.database.id}","type":"Database",'
    )


def test_an_event_shows_what_the_api_shows(desk: Desk) -> None:
    shown = desk.http.get(BRANCH).json()
    subjects = EventSubjects(
        replace(Settings(StatedPreconditions()), gateway_address="127.0.0.1:3306"), desk.served.url
    )
    with desk.store.read() as tx:
        assert subjects.database_of(tx, "branch", desk.shop.branch.id) == desk.shop.database.id
        assert subjects.database_of(tx, "password", "x") is None
        subject = subjects.show(tx, "branch", desk.shop.branch.id)
    assert (subject.organization, subject.database) == ("acme", "shop")
    assert subject.resource == {**shown, "type": "Branch"}
    asked = {"name": "m", "source_keyspace": "shop", "target_keyspace": "shop_sharded", "tables": ["t"]}
    workflow = desk.http.post(f"{DB}/workflows", json=asked).json()
    keyspace = f"{BRANCH}/keyspaces/shop_sharded"
    resize = desk.http.put(f"{keyspace}/resizes", json={"extra_replicas": 1}).json()
    expected = {
        ("keyspace", desk.shop.target.id): {
            **desk.http.get(keyspace).json(), "type": "Keyspace", "branch_name": "main",
        },
        ("resize", resize["id"]): {
            **desk.http.get(f"{keyspace}/resizes/{resize['id']}").json(),
            "type": "KeyspaceResizeRequest", "branch_name": "main", "keyspace_name": "shop_sharded",
        },
        ("workflow", workflow["id"]): {
            **desk.http.get(f"{DB}/workflows/{workflow['number']}").json(), "type": "Workflow",
        },
    }  # fmt: skip
    with desk.store.read() as tx:
        for (kind, of), told in expected.items():
            assert subjects.database_of(tx, kind, of) == desk.shop.database.id
            assert subjects.show(tx, kind, of).resource == told


def test_what_happens_here_can_be_asked_for(desk: Desk) -> None:
    """Each name beyond the published ones is one that the store writes, of a kind that can be shown."""
    kinds: dict[str, set[str]] = {
        "branch": set(Life), "keyspace": set(Life), "resize": set(Resize), "workflow": {"created", *State},
    }  # fmt: skip
    for event in BEYOND:
        kind, _, what = event.partition(".")
        assert what in kinds[kind], event
        assert kind in KINDS
    made = create(desk, enabled=True, events=["keyspace.ready", "workflow.created", "workflow.running"])
    assert made["events"] == ["keyspace.ready", "workflow.created", "workflow.running"]
    desk.http.post(f"{BRANCH}/keyspaces", json={"name": "more"})
    with desk.store.write() as tx:
        more = tx.keyspaces.by_name(desk.shop.branch.id, "more")
        tx.keyspaces.transition(more.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))
    asked = {"name": "m", "source_keyspace": "shop", "target_keyspace": "shop_sharded", "tables": ["t"]}
    assert desk.http.post(f"{DB}/workflows", json=asked).status_code == 201
    errand = dispatcher(desk.store)
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take("webhooks")
    assert lease is not None
    errand.stop(0)  # it sends nothing, and writes deliveries all the same
    errand.turn(lease)
    told = desk.http.get(f"{HOOKS}/{made['id']}/deliveries").json()["data"]
    assert [(one["event"], one["state"]) for one in told] == [
        ("workflow.created", "pending"),
        ("keyspace.ready", "pending"),
    ]


def test_a_webhook_that_always_fails_is_disabled_and_deliveries_are_bounded(desk: Desk) -> None:
    made = create(desk, enabled=True, events=["branch.ready"])
    with desk.store.write() as tx:
        for seq in range(1000, 1000 + KEPT + DISABLED_AFTER + 5):
            tx.webhooks.queue(made["id"], seq, "branch.ready", "{}")
    for number in range(1, KEPT + DISABLED_AFTER + 1):
        with desk.store.write() as tx:
            ((_, delivery),) = tx.webhooks.at_hand()
            assert delivery.seq == 999 + number
            fine = number <= KEPT
            disabled = tx.webhooks.told(delivery, success=fine, result="200" if fine else "500")
        assert bool(disabled) == (number == KEPT + DISABLED_AFTER)
    shown = desk.http.get(f"{HOOKS}/{made['id']}").json()
    assert (shown["enabled"], shown["last_sent_success"], shown["last_sent_result"]) == (False, False, "500")
    with desk.store.read() as tx:
        assert tx.webhooks.at_hand() == ()
    kept = desk.http.get(f"{HOOKS}/{made['id']}/deliveries", params={"per_page": 100}).json()["data"]
    assert len(kept) == KEPT
    assert [one["state"] for one in kept[:5]] == ["dropped"] * 5
    assert "disabled" in kept[0]["result"]


def test_disabling_drops_what_waits_and_deleting_tests_too(desk: Desk) -> None:
    made = create(desk, enabled=True, events=["branch.ready"])
    one = f"{HOOKS}/{made['id']}"
    with desk.store.write() as tx:
        tx.webhooks.queue(made["id"], 1000, "branch.ready", "{}")
    desk.http.post(f"{one}/test")
    with desk.store.read() as tx:
        assert [delivery.test for _, delivery in tx.webhooks.at_hand()] == [False, True]
    desk.http.patch(one, json={"enabled": False})
    with desk.store.read() as tx:
        assert [delivery.test for _, delivery in tx.webhooks.at_hand()] == [True]
    desk.http.delete(one)
    with desk.store.read() as tx:
        assert tx.webhooks.at_hand() == ()
