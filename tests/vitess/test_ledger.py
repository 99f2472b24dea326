"""The ledger on Vitess: money moves through gateway and vtgate during every step of a move, and not a cent is
lost, nor does a client meet an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bank import VSCHEMA, Bank, Teller, stop
from tests.support.platform import Platform
from tests.vitess.test_platform import installed, make_database, program

__all__ = ["program"]  # a fixture of theirs

CONNECTIONS = 4
DWELL = 1.0
PATIENCE = 180.0


@pytest.fixture
def platform(server_root: Path, program: Path) -> Iterator[Platform]:
    yield from installed(server_root / "up-ledger", program, "vitess", 0)


def make_keyspace(platform: Platform) -> None:
    """As the platform does, with the time that two more tablets may take."""
    client, at = platform.client, (platform.organization, platform.DATABASE, "main")
    client.create_keyspace(*at, platform.TARGET, shards=2)
    platform.until("keyspace", lambda: bool(client.get_keyspace(*at, platform.TARGET)["ready"]), PATIENCE)
    client.update_vschema(*at, platform.TARGET, VSCHEMA)
    client.enable_safe_migrations(*at)


@pytest.mark.timeout(900)
def test_no_commit_is_lost_on_the_whole_walk(platform: Platform) -> None:
    make_database(platform)
    make_keyspace(platform)
    login = platform.login()
    bank = Bank(accounts=200)
    with login.connect("shop") as connection:
        bank.open(connection)
    tellers = [Teller(number + 1, login, "shop", bank) for number in range(CONNECTIONS)]
    for teller in tellers:
        teller.start()
    try:
        time.sleep(DWELL)
        platform.begin()
        platform.reaches("running", PATIENCE)
        platform.verify(PATIENCE)
        for state in ("switched_replicas", "switched_primaries", "running", "switched_primaries"):
            platform.persist(state, PATIENCE)
            time.sleep(DWELL)
        for teller in tellers:
            teller.aim("@primary")
        time.sleep(DWELL)
        for state in ("cutover", "reversed_cutover", "cutover", "completed"):
            platform.persist(state, PATIENCE)
            time.sleep(DWELL)
    finally:
        stop(tellers)
    assert bank.errors == []
    assert all(teller.commits > 5 for teller in tellers)
    with login.connect("@primary") as connection:
        assert bank.audit(connection) == []
