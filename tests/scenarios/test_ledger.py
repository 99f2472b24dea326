"""The ledger test: money moves through the gateway during every step of a move, and not a cent is lost."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.support.bank import Bank, Teller, stop
from tests.support.ledger_walk import walk
from tests.support.mysqld import binary
from tests.support.platform import Platform

CONNECTIONS = 16
# In each state; `make soak` stays longer.
DWELL = float(os.environ.get("HOMEWORLD_DWELL_SECONDS", "2"))


@pytest.fixture
def platform(tmp_path: Path, flavor: Flavor) -> Iterator[Platform]:
    made = Platform(tmp_path / "homeworld", binary(flavor), 1, "--placement", "dedicated")
    try:
        made.start()
        yield made
    finally:
        made.installation.destroy()


@pytest.mark.scenario
@pytest.mark.timeout(600 + 40 * DWELL)
def test_no_commit_is_lost_on_the_whole_walk(platform: Platform) -> None:
    platform.make_database()
    login = platform.login()
    bank = Bank(accounts=500)
    with login.connect("shop") as connection:
        bank.open(connection)
    platform.make_keyspace()
    walk(platform, login, bank, platform.ask, connections=CONNECTIONS, dwell=DWELL)


@pytest.mark.scenario
@pytest.mark.timeout(600 + 40 * DWELL)
@pytest.mark.one_flavor(Flavor.MARIADB)
def test_cancel_with_traffic_switched_brings_every_row_home(platform: Platform) -> None:
    platform.make_database()
    login = platform.login()
    bank = Bank(accounts=200)
    with login.connect("shop") as connection:
        bank.open(connection)
    platform.make_keyspace()
    tellers = [Teller(number + 1, login, "shop", bank) for number in range(CONNECTIONS)]
    for teller in tellers:
        teller.start()
    try:
        platform.begin()
        platform.reaches("running", 120)
        platform.ask("switched_primaries")
        time.sleep(DWELL)
        platform.cancel()
        time.sleep(DWELL)
    finally:
        stop(tellers)
    assert bank.errors == []
    with login.connect("shop") as connection:
        assert bank.audit(connection) == []
