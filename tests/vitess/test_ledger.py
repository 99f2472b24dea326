"""The ledger on Vitess: money moves through gateway and vtgate during every step of a move, and not a cent is
lost, nor does a client meet an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bank import Bank
from tests.support.ledger_walk import walk
from tests.support.platform import Platform
from tests.vitess.test_platform import installed, make_database, program

__all__ = ["program"]  # a fixture of theirs

CONNECTIONS = 4
DWELL = 1.0
PATIENCE = 180.0


@pytest.fixture
def platform(server_root: Path, program: Path) -> Iterator[Platform]:
    yield from installed(server_root / "up-ledger", program, "vitess", 0)


@pytest.mark.timeout(900)
def test_no_commit_is_lost_on_the_whole_walk(platform: Platform) -> None:
    make_database(platform)
    platform.make_keyspace(seconds=PATIENCE)
    login = platform.login()
    bank = Bank(accounts=200)
    with login.connect("shop") as connection:
        bank.open(connection)

    def reach(state: str) -> None:
        if state == "verified_data":
            platform.verify(PATIENCE)
        else:
            platform.persist(state, PATIENCE)

    walk(
        platform, login, bank, reach, connections=CONNECTIONS, dwell=DWELL, seconds=PATIENCE
    )  # fmt: skip
