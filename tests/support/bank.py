"""The ledger workload: accounts, transfers in transactions, every commit noted by the client.

After any number of switches: the sum of balances is what it was, every acknowledged transfer is there exactly
once, and every balance is what the acknowledged transfers make it. A commit whose answer was lost with the
connection (only where a test kills the gateway) is *in doubt*: it may be there once or not at all.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pymysql

SCHEMA = (
    "CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL)",
    "CREATE TABLE transfers (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, ref BIGINT NOT NULL,"
    " source BIGINT NOT NULL, target BIGINT NOT NULL, amount BIGINT NOT NULL, note VARCHAR(40),"
    " KEY by_ref (ref))",
)
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "accounts": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "transfers": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
    },
}
TABLES = ["accounts", "transfers"]
OPENING_BALANCE = 1_000_000
# Between two transactions. A soak is for load, too; a test shares its machine with others.
PAUSE_SECONDS = 0.002 if "HOMEWORLD_DWELL_SECONDS" in os.environ else 0.02
OWN_FAULT = {1213, 1205}  # deadlock, lock wait: the application's own doing, it tries again


@dataclass(frozen=True, slots=True)
class Login:
    """How to reach the gateway."""

    host: str
    port: int
    user: str
    password: str

    def connect(self, schema: str, **options: Any) -> pymysql.connections.Connection[Any]:
        """A PyMySQL connection with a read timeout, so that a hang shows as an error."""
        return pymysql.connect(
            host=self.host, port=self.port, user=self.user, password=self.password, database=schema,
            read_timeout=60, write_timeout=60, **options,
        )  # fmt: skip


@dataclass(slots=True)
class Bank:
    """Shared by all tellers."""

    accounts: int
    acknowledged: dict[int, tuple[int, int, int]] = field(default_factory=dict[int, tuple[int, int, int]])
    in_doubt: dict[int, tuple[int, int, int]] = field(default_factory=dict[int, tuple[int, int, int]])
    errors: list[str] = field(default_factory=list[str])
    longest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, connection: pymysql.connections.Connection[Any]) -> None:
        """Create the tables and the accounts."""
        with connection.cursor() as cursor:
            for statement in SCHEMA:
                cursor.execute(statement)
            cursor.executemany(
                "INSERT INTO accounts (id, balance) VALUES (%s, %s)",
                [(i, OPENING_BALANCE) for i in range(1, self.accounts + 1)],
            )
        connection.commit()

    def audit(self, connection: pymysql.connections.Connection[Any]) -> list[str]:
        """Everything that is not as acknowledged, as sentences."""
        found: list[str] = []
        with connection.cursor() as cursor:
            cursor.execute("SELECT ref, source, target, amount FROM transfers")
            rows = [tuple(int(value) for value in row) for row in cursor.fetchall()]
            cursor.execute("SELECT id, balance FROM accounts")
            balances = {int(row[0]): int(row[1]) for row in cursor.fetchall()}
        seen = Counter(row[0] for row in rows)
        for ref in self.acknowledged:
            if seen[ref] != 1:
                found.append(f"transfer {ref} was acknowledged once and is there {seen[ref]} times")
        for ref, times in seen.items():
            if times > 1 or (ref not in self.acknowledged and ref not in self.in_doubt):
                found.append(f"transfer {ref} is there {times} times and was not acknowledged")
        expected = dict.fromkeys(range(1, self.accounts + 1), OPENING_BALANCE)
        for _, source, target, amount in rows:
            expected[source] -= amount
            expected[target] += amount
        if balances.keys() != expected.keys():
            found.append(f"{len(balances)} accounts where {len(expected)} are expected")
        if sum(balances.values()) != self.accounts * OPENING_BALANCE:
            found.append(
                f"the sum of balances is off by {sum(balances.values()) - self.accounts * OPENING_BALANCE}"
            )
        wrong = [i for i, balance in expected.items() if balances.get(i) != balance]
        if wrong:
            found.append(f"{len(wrong)} balances do not fit their transfers, e.g. account {wrong[0]}")
        return found


class Teller(threading.Thread):
    """One connection that transfers money until it is stopped.

    :param patient: for tests that kill processes: reconnect after a lost connection and note what was under
        way as in doubt, instead of counting an error. Such a teller writes one row a transaction, because a
        transaction over several shards commits on one after the other and a death between is not atomic.
    """

    def __init__(self, number: int, login: Login, schema: str, bank: Bank, *, patient: bool = False) -> None:
        super().__init__(name=f"teller-{number}", daemon=True)
        self._login = login
        self._schema = schema
        self._bank = bank
        self._patient = patient
        self._ref = number * 10_000_000
        self._random = random.Random(number)
        self._halt = threading.Event()
        self._reconnect = threading.Event()
        self.commits = 0

    def aim(self, schema: str) -> None:
        """Reconnect with another schema name after the present transaction."""
        self._schema = schema
        self._reconnect.set()

    def halt(self) -> None:
        """Stop after the present transaction."""
        self._halt.set()

    def run(self) -> None:
        while not self._halt.is_set():
            try:
                self._reconnect.clear()  # first: who aims from here on is heard
                with self._login.connect(self._schema) as connection:
                    while not (self._halt.is_set() or self._reconnect.is_set()):
                        self._note(connection) if self._patient else self._transfer(connection)
                        self._halt.wait(PAUSE_SECONDS)
            except (pymysql.MySQLError, OSError) as error:
                if not self._patient:
                    with self._bank.lock:
                        self._bank.errors.append(f"{self.name}: {error!r}")
                self._halt.wait(0.1)

    def _note(self, connection: pymysql.connections.Connection[Any]) -> None:
        self._ref += 1
        entry = (self._ref % self._bank.accounts + 1, 1, 0)
        with self._bank.lock:
            self._bank.in_doubt[self._ref] = entry
        with connection.cursor() as cursor:
            self._felt(
                cursor.execute,
                "INSERT INTO transfers (ref, source, target, amount, note) VALUES (%s, %s, %s, %s, 'single')",
                (self._ref, *entry),
            )
            self._felt(connection.commit)
        with self._bank.lock:
            self._bank.acknowledged[self._ref] = self._bank.in_doubt.pop(self._ref)
        self.commits += 1

    def _transfer(self, connection: pymysql.connections.Connection[Any]) -> None:
        self._ref += 1
        source, target = self._random.sample(range(1, self._bank.accounts + 1), 2)
        amount = self._random.randrange(1, 100)
        entry = (source, target, amount)
        try:
            with connection.cursor() as cursor:
                self._felt(cursor.execute, "BEGIN")
                for account, change in sorted(((source, -amount), (target, amount))):
                    self._felt(
                        cursor.execute,
                        "UPDATE accounts SET balance = balance + %s WHERE id = %s",
                        (change, account),
                    )
                    if cursor.rowcount != 1:
                        raise AssertionError(f"account {account}: {cursor.rowcount} rows changed")
                self._felt(
                    cursor.execute,
                    "INSERT INTO transfers (ref, source, target, amount, note)"
                    " VALUES (%s, %s, %s, %s, 'ünï')",
                    (self._ref, *entry),
                )
                self._felt(cursor.execute, "COMMIT")
        except pymysql.MySQLError as error:
            if error.args[0] in OWN_FAULT:
                connection.rollback()
                return
            raise
        with self._bank.lock:
            self._bank.acknowledged[self._ref] = entry
        self.commits += 1

    def _felt(self, act: Any, *arguments: Any) -> None:
        begun = time.perf_counter()
        act(*arguments)
        took = time.perf_counter() - begun
        with self._bank.lock:
            self._bank.longest = max(self._bank.longest, took)


class Working(Protocol):
    """What counts its commits."""

    commits: int


def all_work(tellers: Sequence[Working], commits: int = 1, seconds: float = 60.0) -> None:
    """Every teller commits so many times more; fails the test where one does not."""
    before = [teller.commits for teller in tellers]
    deadline = time.monotonic() + seconds
    while any(teller.commits < count + commits for teller, count in zip(tellers, before, strict=True)):
        assert time.monotonic() < deadline, "tellers do not work"
        time.sleep(0.05)


def stop(tellers: list[Teller], timeout: float = 60.0) -> None:
    """Stop all tellers; fails the test where one hangs."""
    for teller in tellers:
        teller.halt()
    deadline = time.monotonic() + timeout
    for teller in tellers:
        teller.join(max(0.0, deadline - time.monotonic()))
    hanging = [teller.name for teller in tellers if teller.is_alive()]
    assert not hanging, f"hang in a statement: {hanging}"
