"""Metering: hours are counted once, priced when they are seen, and add up to invoices."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import event, func, select

from homeworld.engines.usage import storage_bytes
from homeworld.metering.meter import Meter
from homeworld.metering.prices import GIB, Prices
from homeworld.model.errors import FencedError, InvalidError, UnavailableError
from homeworld.model.states.lifecycle import Life, LifeTrigger, life_row
from homeworld.store.store import Store
from homeworld.store.tables.usage import usage_hours
from homeworld.store.usage import KEPT_DAYS, month_of
from homeworld.workflows.leases import Keeper
from tests.support.api import ServedApi, client_of
from tests.support.desk import ORG, Desk, open_desk, refused
from tests.support.stores import TestClock


class Looks:
    """Servers as a test states them."""

    version = "9.7.4"

    def __init__(self) -> None:
        self.size = 3 * GIB
        self.away = False

    def running_version(self, server_id: str) -> str:
        """What was stated."""
        if self.away:
            raise UnavailableError(server_id)
        return "9.7.3"

    def storage_bytes(self, server_id: str) -> int:
        """What was stated."""
        return self.size + len(server_id) - 12


@pytest.fixture
def desk(store: Store, clock: TestClock, served_api: ServedApi) -> Iterator[Desk]:
    with open_desk(store, clock, served_api) as made:
        yield made


def turn(desk: Desk, meter: Meter) -> None:
    lease = Keeper(desk.store, "tests", ttl_seconds=600.0).take("metering")
    assert lease is not None
    meter.turn(lease)


def rows(desk: Desk) -> int:
    with desk.store.read() as tx:
        return tx.work.connection.execute(select(func.count()).select_from(usage_hours)).scalar_one()


def test_prices_are_read_and_whole_billionths() -> None:
    prices = Prices.parse("server_hour=0.05, storage_gib_hour=0.0002")
    assert (prices.of_server(), prices.of_storage(GIB), prices.of_storage(1)) == (50_000_000, 200_000, 0)
    assert Prices.parse("") == Prices(Decimal(0), Decimal(0))
    assert Prices().of_storage(10**15) == 0
    for wrong in (
        "server_hour=x",
        "cpu=1",
        "server_hour",
        "server_hour=-1",
        "server_hour=NaN",
        "server_hour=1e99",
    ):
        with pytest.raises(InvalidError, match="price"):
            Prices.parse(wrong)


def test_months_begin_and_end() -> None:
    start, end = month_of(datetime(2026, 12, 31, 23, 59, tzinfo=UTC))
    assert (start, end) == (datetime(2026, 12, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC))


def test_an_hour_is_counted_once_and_adds_up(desk: Desk) -> None:
    looks = Looks()
    meter = Meter(desk.store, looks, Prices.parse("server_hour=0.05,storage_gib_hour=0.0001"))
    assert desk.http.get(f"{ORG}/invoices").json()["data"] == []
    for _ in range(3):
        turn(desk, meter)
    assert rows(desk) == 2
    desk.clock.forward(3600)
    looks.size = GIB
    looks.away = True
    turn(desk, meter)
    assert rows(desk) == 4
    (invoice,) = desk.http.get(f"{ORG}/invoices").json()["data"]
    assert invoice["billing_period_start"] == "2026-03-01T00:00:00Z"
    assert invoice["billing_period_end"] == "2026-04-01T00:00:00Z"
    # Two servers for two hours, and 2 x 3 + 2 x 1 GiB hours.
    assert (invoice["total"], invoice["paid"], invoice["overdue"]) == ("0.2008", False, False)
    one = f"{ORG}/invoices/{invoice['id']}"
    assert desk.http.get(one).json() == invoice
    hours, storage = desk.http.get(f"{one}/line-items").json()["data"]
    assert (hours["metric_name"], hours["subtotal"], hours["quantity"]) == ("server_hours", 0.2, 4)
    assert (storage["metric_name"], storage["subtotal"], storage["quantity"]) == (
        "storage_gib_hours",
        0.0008,
        8,
    )
    assert (hours["database_name"], hours["resource"]["name"]) == ("shop", "main")
    assert "4 server hours of branch main" in hours["description"]
    with desk.store.read() as tx:
        facts = tx.maintenance.facts([desk.shop.database.id])[desk.shop.database.id]
    assert {(one.version, one.program_version, one.storage_bytes) for one in facts} == {
        ("9.7.3", "9.7.4", 3 * GIB)
    }


def test_without_prices_nothing_is_owed_and_a_new_month_is_a_new_invoice(desk: Desk) -> None:
    meter = Meter(desk.store, Looks(), Prices())
    turn(desk, meter)
    desk.clock.forward(31 * 86400)
    turn(desk, meter)
    found = desk.http.get(f"{ORG}/invoices").json()["data"]
    assert [one["billing_period_start"] for one in found] == ["2026-04-01T00:00:00Z", "2026-03-01T00:00:00Z"]
    assert {(one["total"], one["paid"]) for one in found} == {("0.00", True)}
    first = desk.http.get(f"{ORG}/invoices", params={"per_page": 1}).json()
    assert (len(first["data"]), first["next_page"]) == (1, 2)
    desk.clock.forward(KEPT_DAYS * 86400 + 3600)
    turn(desk, meter)
    assert rows(desk) == 2
    assert len(desk.http.get(f"{ORG}/invoices").json()["data"]) == 3


def test_what_cannot_be_looked_at_is_not_counted_and_keeps_nothing_else_from_it(desk: Desk) -> None:
    class Broken(Looks):
        def storage_bytes(self, server_id: str) -> int:
            self.size += 1
            if self.size % 2:
                raise PermissionError(server_id)
            return self.size

    turn(desk, Meter(desk.store, Broken(), Prices()))
    assert rows(desk) == 1


def test_who_has_lost_the_lease_counts_nothing(desk: Desk) -> None:
    mine = Keeper(desk.store, "me", ttl_seconds=600.0)
    lease = mine.take("metering")
    assert lease is not None
    mine.give_back(lease)
    with pytest.raises(FencedError):
        Meter(desk.store, Looks(), Prices()).turn(lease)
    assert rows(desk) == 0


def test_invoices_are_the_organization_s_own(desk: Desk) -> None:
    turn(desk, Meter(desk.store, Looks(), Prices()))
    (invoice,) = desk.http.get(f"{ORG}/invoices").json()["data"]
    with desk.store.write() as tx:
        others = tx.organizations.ensure("others")
    with client_of(desk.served, desk.store, others) as http:
        assert refused(http.get(f"{ORG}/invoices")) == (404, "not_found")
        assert refused(http.get(f"/v1/organizations/others/invoices/{invoice['id']}")) == (404, "not_found")
    assert refused(desk.http.get(f"{ORG}/invoices/nothing")) == (404, "not_found")
    assert refused(desk.http.get(f"{ORG}/invoices/nothing/line-items")) == (404, "not_found")


def test_lists_cost_the_same_however_long(desk: Desk) -> None:
    count = 0

    def seen(*_given: object) -> None:
        nonlocal count
        count += 1

    meter = Meter(desk.store, Looks(), Prices())
    event.listen(desk.store.engine, "before_cursor_execute", seen)
    try:
        costs: list[int] = []
        for number in range(2):
            turn(desk, meter)
            (invoice, *_) = desk.http.get(f"{ORG}/invoices").json()["data"]
            count = 0
            desk.http.get(f"{ORG}/invoices")
            desk.http.get(f"{ORG}/invoices/{invoice['id']}/line-items")
            costs.append(count)
            with desk.store.write() as tx:
                for extra in range(20):
                    branch = tx.branches.create(
                        desk.shop.database.id, f"b{number}-{extra}", desk.shop.region.id
                    )
                    server = tx.servers.create(branch.id, desk.shop.database.flavor)
                    tx.servers.transition(server.id, Life.PENDING, life_row(Life.PENDING, LifeTrigger.MADE))
            desk.clock.forward(3600)
        assert costs[0] == costs[1]
    finally:
        event.remove(desk.store.engine, "before_cursor_execute", seen)


def test_a_folder_s_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").write_bytes(b"x" * 100_000)
    (tmp_path / "y").write_bytes(b"y" * 5000)
    (tmp_path / "link").symlink_to(tmp_path)
    assert 105_000 <= storage_bytes(tmp_path) < 200_000
    assert storage_bytes(tmp_path / "nowhere") == 0
