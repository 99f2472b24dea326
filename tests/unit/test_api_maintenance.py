"""Maintenance schedules and windows through the API and the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from homeworld.model.errors import ConflictError
from homeworld.store.maintenance import ServerFacts
from homeworld.store.store import Store
from homeworld.workflows.leases import Keeper
from homeworld.workflows.maintenance.handler import Opening
from tests.support.api import ServedApi
from tests.support.desk import DB, Desk, open_desk, refused
from tests.support.stores import TestClock

ALL = f"{DB}/maintenance-schedules"


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def create(desk: Desk, **fields: Any) -> dict[str, Any]:
    answer = desk.http.post(ALL, json=fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


def windows(desk: Desk, schedule: dict[str, Any]) -> list[dict[str, Any]]:
    return desk.http.get(f"{ALL}/{schedule['id']}/windows").json()["data"]


def test_a_schedule_is_made_shown_changed_and_deleted(desk: Desk) -> None:
    # The clock stands at Sunday, 2026-03-01 12:00.
    made = create(desk, frequency_unit="week", day=3, hour=4, duration=2, name="nightly")
    assert (made["next_window_datetime"], made["last_window_datetime"]) == (
        "2026-03-04T04:00:00Z", "2026-03-01T12:00:00Z",
    )  # fmt: skip
    assert (made["enabled"], made["required"], made["expires_at"], made["action"]) == (
        True,
        False,
        None,
        "upgrade",
    )
    one = f"{ALL}/{made['id']}"
    assert desk.http.get(one).json() == made
    assert desk.http.get(ALL).json()["data"] == [made]
    changed = desk.http.patch(one, json={"hour": 5, "action": "restart"}).json()
    assert (changed["next_window_datetime"], changed["action"]) == ("2026-03-04T05:00:00Z", "restart")
    assert windows(desk, made) == []
    assert desk.http.delete(one).status_code == 204
    assert refused(desk.http.get(one)) == (404, "not_found")
    assert refused(desk.http.get(f"{one}/windows")) == (404, "not_found")
    assert create(desk)["frequency_unit"] == "week"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"frequency_unit": "fortnight"}, "invalid_params"),
        ({"day": 8}, "invalid_params"),
        ({"hour": 24}, "invalid_params"),
        ({"duration": 0}, "invalid_params"),
        ({"frequency_value": 0}, "invalid_params"),
        ({"frequency_unit": "once"}, "unprocessable"),
        ({"starts_at": "2026-03-05T01:00:00Z"}, "unprocessable"),
        ({"frequency_unit": "once", "starts_at": "2026-02-05T01:00:00Z"}, "unprocessable"),
        ({"frequency_unit": "once", "starts_at": "2026-03-05T01:00:00"}, "invalid_params"),
        ({"frequency_unit": "once", "starts_at": "9999-12-31T23:59:59-14:00"}, "unprocessable"),
        ({"frequency_unit": "once", "starts_at": "9999-12-31T23:30:00Z"}, "unprocessable"),
        ({"name": "x" * 300}, "invalid_params"),
        ({"action": "destroy"}, "invalid_params"),
    ],
)
def test_what_cannot_be_is_refused(desk: Desk, fields: dict[str, Any], code: str) -> None:
    assert refused(desk.http.post(ALL, json=fields)) == (422, code)


def test_once_is_once(desk: Desk) -> None:
    made = create(desk, frequency_unit="once", starts_at="2026-03-05T03:00:00+02:00", duration=3)
    assert (made["next_window_datetime"], made["expires_at"]) == (
        "2026-03-05T01:00:00Z",
        "2026-03-05T04:00:00Z",
    )
    assert (made["day"], made["hour"]) == (4, 1)
    one = f"{ALL}/{made['id']}"
    assert refused(desk.http.patch(one, json={"frequency_unit": "day"})) == (422, "unprocessable")
    assert refused(desk.http.patch(one, json={"hour": 7})) == (422, "unprocessable"), "of no use"
    assert desk.http.patch(one, json={"hour": made["hour"], "duration": 3}).status_code == 200
    desk.clock.forward(5 * 86400)
    assert refused(desk.http.patch(one, json={"enabled": True})) == (422, "unprocessable")


def test_a_time_that_has_come_is_not_lost_by_another_name(desk: Desk) -> None:
    made = create(desk, frequency_unit="day", hour=13)
    one = f"{ALL}/{made['id']}"
    desk.clock.forward(3600 + 5)
    for fields in ({"name": "later"}, {"enabled": True}, {"hour": 13}, {"duration": 2}):
        assert desk.http.patch(one, json=fields).json()["next_window_datetime"] == "2026-03-01T13:00:00Z"
    assert desk.http.patch(one, json={"hour": 14}).json()["next_window_datetime"] == "2026-03-01T14:00:00Z"
    desk.http.patch(one, json={"enabled": False})
    desk.clock.forward(3600)
    enabled = desk.http.patch(one, json={"enabled": True}).json()
    assert enabled["next_window_datetime"] == "2026-03-02T14:00:00Z", "nobody waited for the one that is past"


def test_what_is_pending_is_shown(desk: Desk) -> None:
    made = create(desk)
    one = f"{ALL}/{made['id']}"
    assert (made["pending_mysql_version_update"], made["pending_mysql_version"]) == (False, None)
    with desk.store.write() as tx:
        first, second = tx.servers.of_branch(desk.shop.branch.id)
        tx.maintenance.saw(ServerFacts(first.id, "9.7.4", "9.7.4", 10, tx.work.now))
        tx.maintenance.saw(ServerFacts(second.id, "9.7.3", "9.7.4", 10, tx.work.now))
    shown = desk.http.get(one).json()
    assert (shown["pending_mysql_version_update"], shown["pending_mysql_version"]) == (True, "9.7.4")
    with desk.store.write() as tx:
        tx.maintenance.saw(ServerFacts(second.id, "9.7.4", "9.7.4", 11, tx.work.now))
    assert desk.http.get(one).json()["pending_mysql_version_update"] is False


def test_a_window_is_opened_by_hand_one_at_a_time(desk: Desk) -> None:
    made, other = create(desk, duration=2), create(desk)
    window = desk.http.post(f"{ALL}/{made['id']}/windows").json()
    assert (window["state"], window["ends_at"]) == ("open", "2026-03-01T14:00:00Z")
    assert (window["started_at"], window["finished_at"]) == ("2026-03-01T12:00:00Z", None)
    for schedule in (made, other):
        assert refused(desk.http.post(f"{ALL}/{schedule['id']}/windows")) == (422, "unprocessable")
    assert windows(desk, made) == [window]
    with desk.store.read() as tx:
        (item,) = [one for one in tx.queue.resources_with_work() if one.kind == "maintenance"]
        told = [one for one in tx.outbox.after(0, 1000) if one.event == "branch.start_maintenance"]
    assert (item.id, item.lease) == (window["id"], f"maintenance:{window['id']}")
    assert [one.resource_id for one in told] == [desk.shop.branch.id]
    with desk.store.write() as tx:
        tx.maintenance.did(tx.maintenance.window(window["id"]), "somebody")
        tx.maintenance.finish(tx.maintenance.window(window["id"]))
    (shown,) = windows(desk, made)
    assert (shown["state"], shown["restarted_servers"]) == ("finished", ["somebody"])
    with pytest.raises(ConflictError), desk.store.write() as tx:
        tx.maintenance.tell(tx.maintenance.window(window["id"]), "late")
    assert desk.http.post(f"{ALL}/{other['id']}/windows").status_code == 201
    desk.http.delete(DB)
    assert refused(desk.http.post(f"{ALL}/{made['id']}/windows")) == (404, "not_found")


def test_the_errand_opens_what_is_due_and_moves_the_schedule_on(desk: Desk) -> None:
    daily = create(desk, frequency_unit="day", hour=13, duration=1)
    once = create(desk, frequency_unit="once", starts_at="2026-03-01T13:00:00Z")
    create(desk, frequency_unit="day", hour=13, enabled=False)
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take("maintenance")
    assert lease is not None
    errand = Opening(desk.store)
    errand.turn(lease)
    assert windows(desk, daily) == windows(desk, once) == []
    desk.clock.forward(3600)
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take("maintenance")
    assert lease is not None
    errand.turn(lease)
    errand.turn(lease)
    opened = [*windows(desk, daily), *windows(desk, once)]
    assert len(opened) == 1, "of a database one window is open at a time"
    with desk.store.write() as tx:
        tx.maintenance.finish(tx.maintenance.window(opened[0]["id"]))
    errand.turn(lease)
    assert (len(windows(desk, daily)), len(windows(desk, once))) == (1, 1)
    assert desk.http.get(f"{ALL}/{daily['id']}").json()["next_window_datetime"] == "2026-03-02T13:00:00Z"
    assert desk.http.get(f"{ALL}/{once['id']}").json()["enabled"] is False
    with desk.store.write() as tx:
        open_one = tx.maintenance.open_one(desk.shop.database.id)
        assert open_one is not None
        tx.maintenance.finish(open_one)
    # Whoever was away for the whole window opens the next one and no late one.
    desk.clock.forward(2 * 86400 + 2 * 3600)
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take("maintenance")
    assert lease is not None
    errand.turn(lease)
    assert len(windows(desk, daily)) == 1
    assert desk.http.get(f"{ALL}/{daily['id']}").json()["next_window_datetime"] == "2026-03-04T13:00:00Z"
