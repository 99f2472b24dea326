"""kill -9 of homeworld in each state, and of each MySQL server: everything restarts and ends right.

The tellers are patient here: a commit whose answer died with the gateway is in doubt and may be there once or
not at all; whatever was acknowledged must be there exactly once.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.support.bank import Bank, Login, Teller, all_work, stop
from tests.support.mysqld import binary
from tests.support.platform import Platform


@pytest.fixture
def platform(server_folder: Path, flavor: Flavor) -> Iterator[Platform]:
    made = Platform(server_folder / "homeworld", binary(flavor), 0, "--placement", "dedicated")
    try:
        made.start()
        yield made
    finally:
        made.installation.destroy()


def opened(platform: Platform) -> tuple[Login, Bank, list[Teller]]:
    platform.make_database()
    login = platform.login()
    bank = Bank(accounts=200)
    with login.connect("shop") as connection:
        bank.open(connection)
    platform.make_keyspace()
    return login, bank, [Teller(number + 1, login, "shop", bank, patient=True) for number in range(4)]


def restart(platform: Platform) -> None:
    platform.installation.kill()
    platform.start()


@pytest.mark.scenario
@pytest.mark.timeout(600)
@pytest.mark.one_flavor(Flavor.MYSQL)
def test_killed_in_each_state(platform: Platform) -> None:
    login, bank, tellers = opened(platform)
    for teller in tellers:
        teller.start()
    try:
        platform.begin()
        restart(platform)  # pending or copying
        platform.reaches("running", 120)
        all_work(tellers)
        for number, (state, action) in enumerate(
            (
                ("verified_data", "verify-data"),
                ("switched_replicas", "switch-replicas"),
                ("switched_primaries", "switch-primaries"),
                ("running", "reverse-traffic"),
                ("switched_primaries", "switch-primaries"),
            )
        ):
            platform.act(action)
            restart(platform)  # in the middle of it
            platform.comes_to(state)
            if number % 2:
                restart(platform)  # at rest
                platform.reaches(state, 90)
            all_work(tellers)
        for teller in tellers:
            teller.aim("@primary")
        all_work(tellers)
        for state, action in (
            ("cutover", "cutover"),
            ("reversed_cutover", "reverse-cutover"),
            ("cutover", "cutover"),
            ("completed", "complete"),
        ):
            platform.act(action)
            restart(platform)
            platform.comes_to(state)
            all_work(tellers)
    finally:
        stop(tellers)
    assert bank.errors == []
    with login.connect("@primary") as connection:
        assert bank.audit(connection) == []


def server_pids(platform: Platform) -> dict[str, int]:
    """The MySQL servers' pids by server id."""
    folder = platform.installation.data_dir / "servers"
    texts = {path.parent.name: path.read_text().split() for path in folder.glob("*/pid")}
    return {name: int(text[0]) for name, text in texts.items() if text}  # empty while it is written


@pytest.mark.scenario
@pytest.mark.timeout(600)
def test_each_server_killed_once_in_copying_running_and_switched(platform: Platform) -> None:
    login, bank, tellers = opened(platform)
    with login.connect("shop") as connection, connection.cursor() as cursor:
        # Something to copy for a while.
        cursor.execute("INSERT INTO transfers (ref, source, target, amount) SELECT 0, 1, 1, 0 FROM accounts")
        for _ in range(9):
            cursor.execute(
                "INSERT INTO transfers (ref, source, target, amount) SELECT 0, 1, 1, 0 FROM transfers"
            )
        cursor.execute("UPDATE transfers SET ref = -id WHERE ref = 0")
        connection.commit()
        cursor.execute("SELECT ref FROM transfers")
        bank.acknowledged.update({int(row[0]): (1, 1, 0) for row in cursor.fetchall()})
    for teller in tellers:
        teller.start()
    servers = sorted(server_pids(platform))
    assert len(servers) == 3
    try:
        platform.begin()
        for server in servers:
            os.kill(server_pids(platform)[server], signal.SIGKILL)
            all_work(tellers)
        platform.reaches("running", 120)
        for server in servers:
            os.kill(server_pids(platform)[server], signal.SIGKILL)
            all_work(tellers)
        platform.reaches("running", 120)
        platform.verify()
        platform.persist("switched_primaries")
        for server in servers:
            os.kill(server_pids(platform)[server], signal.SIGKILL)
            all_work(tellers)
        platform.reaches("switched_primaries", 90)
        platform.persist("running")
        platform.verify()
    finally:
        stop(tellers)
    assert bank.errors == []
    with login.connect("shop") as connection:
        assert bank.audit(connection) == []
