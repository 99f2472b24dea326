"""The ledger over HTTP: money moves by requests, each transaction a session of its own, while primaries
switch there and back; no client sees an error and not a cent is lost.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from homeworld.model.topology import Flavor
from tests.support.bank import OWN_FAULT, Bank, all_work
from tests.support.edge import HttpSqlError, JsonClient
from tests.support.mysqld import binary
from tests.support.platform import Platform

TELLERS = 6
DWELL = 1.5


@pytest.fixture
def platform(server_folder: Path, flavor: Flavor) -> Iterator[Platform]:
    made = Platform(server_folder / "homeworld", binary(flavor), 0, "--http-plain-port", "0")
    try:
        made.start()
        yield made
    finally:
        made.installation.destroy()


class HttpTeller(threading.Thread):
    """Transfers money by requests until it is stopped; each transfer begins without a session, as the
    JavaScript client begins a transaction.
    """

    def __init__(self, number: int, client: JsonClient, bank: Bank) -> None:
        super().__init__(name=f"http-teller-{number}", daemon=True)
        self.client = client
        self._bank = bank
        self._ref = number * 10_000_000
        self._random = random.Random(number)
        self.halt = threading.Event()
        self.commits = 0

    def run(self) -> None:
        while not self.halt.is_set():
            try:
                self._transfer()
            except HttpSqlError as error:
                if not any(f"(errno {errno})" in str(error) for errno in OWN_FAULT):
                    self._failed(error)
                    return
                # A deadlock is the application's own doing: it ends the transaction and tries again.
                self.client.execute("ROLLBACK")
            except (httpx.HTTPError, AssertionError) as error:
                self._failed(error)
                return

    def _failed(self, error: Exception) -> None:
        with self._bank.lock:
            self._bank.errors.append(f"{self.name}: {error!r}")

    def _transfer(self) -> None:
        client = self.client
        self._ref += 1
        source, target = self._random.sample(range(1, self._bank.accounts + 1), 2)
        amount = self._random.randrange(1, 100)
        client.session = None
        client.execute("BEGIN")
        for account, change in sorted(((source, -amount), (target, amount))):
            done = client.execute(f"UPDATE accounts SET balance = balance + {change} WHERE id = {account}")
            assert done.affected == 1, f"account {account}: {done.affected} rows changed"
        client.execute(
            "INSERT INTO transfers (ref, source, target, amount, note) VALUES "
            f"({self._ref}, {source}, {target}, {amount}, 'ünï')"
        )
        client.execute("COMMIT")
        with self._bank.lock:
            self._bank.acknowledged[self._ref] = (source, target, amount)
        self.commits += 1


@pytest.mark.scenario
@pytest.mark.timeout(300)
@pytest.mark.one_flavor(Flavor.MARIADB)
def test_primaries_switch_under_clients_over_http(platform: Platform) -> None:
    platform.make_database()
    login = platform.login()
    bank = Bank(accounts=200)
    with login.connect("shop") as connection:
        bank.open(connection)
    platform.make_keyspace()
    url = f"http://127.0.0.1:{platform.installation.ready['http_plain_port']}"
    tellers = [
        HttpTeller(number + 1, JsonClient(url, login.user, login.password), bank) for number in range(TELLERS)
    ]
    for teller in tellers:
        teller.start()
    try:
        platform.begin()
        platform.reaches("running", 120)
        for state in ("switched_primaries", "running", "switched_primaries"):
            all_work(tellers)
            time.sleep(DWELL)
            platform.ask(state)
        all_work(tellers)
    finally:
        for teller in tellers:
            teller.halt.set()
        for teller in tellers:
            teller.join(60)
            teller.client.close()
    assert not any(teller.is_alive() for teller in tellers)
    assert bank.errors == []
    with login.connect("@primary") as connection:
        assert bank.audit(connection) == []
    with closing(JsonClient(url, login.user, login.password)) as client:
        total = client.one("SELECT SUM(balance) FROM accounts")
    assert total == str(200 * 1_000_000)
