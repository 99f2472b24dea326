"""The ledger through the whole life of a move, the same on every engine: tellers write in every state, meet
no error, and in the end not a cent is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.support.bank import Bank, Login, Teller, all_work, stop
from tests.support.platform import Platform

BEFORE = (
    "verified_data",
    "switched_replicas",
    "switched_primaries",
    "running",
    "switched_primaries",
    "running",
    "verified_data",
    "switched_primaries",
)
"""The states while the source's name leads to the tables."""
AFTER = ("cutover", "reversed_cutover", "cutover", "completed")


def walk(
    platform: Platform, login: Login, bank: Bank, reach: Callable[[str], object],
    *, connections: int, dwell: float, seconds: float = 120.0,
) -> None:  # fmt: skip
    """Move the bank's tables, which are there already, and go through every state.

    :param reach: asks for a state and waits for it.
    :param dwell: seconds that the tellers write in each state.
    :param seconds: for the copy.
    """
    tellers = [Teller(number + 1, login, platform.DATABASE, bank) for number in range(connections)]
    begun = time.monotonic()
    for teller in tellers:
        teller.start()
    try:
        time.sleep(dwell)
        platform.begin()
        platform.reaches("running", seconds)
        for state in BEFORE:
            reach(state)
            time.sleep(dwell)
            all_work(tellers)
        for teller in tellers:
            teller.aim("@primary")
        time.sleep(dwell)
        for state in AFTER:
            reach(state)
            time.sleep(dwell)
            all_work(tellers)
    finally:
        stop(tellers)
    assert bank.errors == []
    total = sum(teller.commits for teller in tellers)
    print(f"{total:,} commits by {connections} connections in {time.monotonic() - begun:.0f} s")
    with login.connect("@primary") as connection:
        assert bank.audit(connection) == []
        with connection.cursor() as cursor:
            cursor.execute(f"SHOW TABLES FROM {platform.DATABASE}")
            left = {row[0] for row in cursor.fetchall()}
    assert not left & {"accounts", "transfers"}, "the source tables are dropped at the cutover"
