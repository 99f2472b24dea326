"""The ledger under the fault matrix: transfers and their returns, each commit noted by its client.

A transaction moves money between two accounts of one shard and writes or deletes the transfer's row there, so
that it is one server's transaction on either side: whatever dies, all of it is there or nothing. The
invariant that :meth:`Ledger.audit` holds the end to: each acknowledged transfer is there exactly once, each
acknowledged return has taken its transfer away, a commit whose answer was lost took place whole or not at
all, everything that failed before its COMMIT did not, and every balance is what the transfers make it.
Readers hold every sum of balances that they ever see to what it was at the opening.
"""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pymysql

from homeworld.model.keyranges import KeyRange
from homeworld.model.vindexes import make_vindex, range_finder
from tests.chaos.owners import Work
from tests.support.bank import OPENING_BALANCE, OWN_FAULT, Login

ACCOUNTS = 400
OLD_TRANSFERS = 1600
PADDING = 80
SCHEMA = (
    "CREATE TABLE accounts (id BIGINT NOT NULL PRIMARY KEY, balance BIGINT NOT NULL, pad VARCHAR(100))",
    "CREATE TABLE transfers (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, ref BIGINT NOT NULL,"
    " source BIGINT NOT NULL, target BIGINT NOT NULL, amount BIGINT NOT NULL, note VARCHAR(100),"
    " KEY by_ref (ref))",
)
VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "accounts": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "transfers": {"column_vindexes": [{"column": "source", "name": "xxhash"}]},
    },
}
TABLES = ("accounts", "transfers")
Entry = tuple[int, int, int]


def shard_of(account: int, shards: Sequence[str]) -> str:
    """The shard on which an account lies."""
    find = range_finder([KeyRange.parse(shard) for shard in shards])
    keyspace_id = make_vindex("xxhash", {}).map((account,))
    return shards[find(keyspace_id)]


@dataclass(frozen=True, slots=True)
class Trouble:
    """An error that a client got, and whether it was in the middle of a transaction."""

    at: float
    who: str
    gateway: int
    text: str


@dataclass(slots=True)
class Ledger:
    """Shared by all clients of a run. ``rows`` and ``gone`` are certain, ``doubt`` is not known."""

    groups: Sequence[Sequence[int]]
    old: Mapping[int, Entry]
    rows: dict[int, Entry] = field(default_factory=dict[int, Entry])
    gone: set[int] = field(default_factory=set[int])
    doubt: dict[int, Entry] = field(default_factory=dict[int, Entry])
    troubles: list[Trouble] = field(default_factory=list[Trouble])
    wrong: list[str] = field(default_factory=list[str])
    works: list[Work] = field(default_factory=list[Work])
    longest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def audit(self, transfers: Sequence[tuple[int, ...]], accounts: Sequence[tuple[int, int]]) -> list[str]:
        """Everything that is not as acknowledged, as sentences.

        :param transfers: all rows as (ref, source, target, amount); ``accounts``: all as (id, balance).
        """
        found: list[str] = []
        seen = Counter(row[0] for row in transfers)
        entries = {row[0]: (row[1], row[2], row[3]) for row in transfers}
        expected = {**self.old, **self.rows}
        for ref, entry in expected.items():
            if ref in self.doubt or ref in self.gone:
                continue
            if seen[ref] != 1:
                found.append(f"transfer {ref} was acknowledged once and is there {seen[ref]} times")
            elif entries[ref] != entry:
                found.append(f"transfer {ref} is {entries[ref]} and was {entry}")
        for ref, times in seen.items():
            if times > 1:
                found.append(f"transfer {ref} is there {times} times")
            elif ref in self.gone and ref not in self.doubt:
                found.append(f"transfer {ref} was returned and is there")
            elif ref not in expected and ref not in self.doubt:
                found.append(f"transfer {ref} was never acknowledged, nor its commit sent, and is there")
        balances = {account: OPENING_BALANCE for group in self.groups for account in group}
        for source, target, amount in entries.values():
            balances[source] -= amount
            balances[target] += amount
        held = dict(accounts)
        if len(accounts) != len(held) or held.keys() != balances.keys():
            found.append(f"{len(accounts)} accounts where {len(balances)} are expected")
        wrong = [account for account, balance in balances.items() if held.get(account) != balance]
        if wrong:
            first = wrong[0]
            found.append(
                f"{len(wrong)} balances do not fit their transfers, e.g. account {first}: "
                f"{held.get(first)} instead of {balances[first]}"
            )
        return found


class _Client(threading.Thread, ABC):
    """One connection that works until it is halted, and reconnects where it is lost."""

    gateway = 0

    def __init__(self, name: str, login: Login, schema: str, ledger: Ledger) -> None:
        super().__init__(name=name, daemon=True)
        self.login = login
        self.schema = schema
        self.ledger = ledger
        self.done = 0
        self._halt = threading.Event()
        self._again = threading.Event()
        self._rest = threading.Event()
        self._resting = threading.Event()
        self.pause = 0.012

    def aim(self, schema: str) -> None:
        """Connect anew with another schema name after the present piece of work."""
        self.schema = schema
        self._again.set()

    def halt(self) -> None:
        """Stop after the present piece of work."""
        self._halt.set()

    def rest(self, on: bool) -> None:
        """Pause between two pieces of work, or go on."""
        if on:
            self._rest.set()
        else:
            self._rest.clear()

    @property
    def resting(self) -> bool:
        """Whether it has paused, or has ended."""
        return self._resting.is_set() or not self.is_alive()

    def run(self) -> None:
        while not self._halt.is_set():
            self._again.clear()
            try:
                with self.login.connect(self.schema, autocommit=True) as connection:
                    while not (self._halt.is_set() or self._again.is_set()):
                        if self._rest.is_set():
                            self._resting.set()
                            self._halt.wait(0.01)
                            continue
                        self._resting.clear()
                        begun = time.monotonic()
                        self.work(connection)
                        self.done += 1
                        took = time.monotonic() - begun
                        with self.ledger.lock:
                            self.ledger.longest = max(self.ledger.longest, took)
                        self._halt.wait(self.pause)
            except (pymysql.MySQLError, OSError) as error:
                with self.ledger.lock:
                    self.ledger.troubles.append(
                        Trouble(time.monotonic(), self.name, self.gateway, repr(error))
                    )
                self._halt.wait(0.05)

    @abstractmethod
    def work(self, connection: pymysql.connections.Connection[Any]) -> None:
        """One round of what this client does."""


class Teller(_Client):
    """Transfers money, and returns some of it."""

    def __init__(self, number: int, login: Login, schema: str, ledger: Ledger, seed: int) -> None:
        super().__init__(f"teller-{number}", login, schema, ledger)
        self._ref = number * 1_000_000
        self._chance = random.Random(f"{seed} {number}")
        self._mine: list[int] = []
        self.commits = 0

    def work(self, connection: pymysql.connections.Connection[Any]) -> None:
        returns = len(self._mine) > 3 and self._chance.random() < 0.3
        if returns:
            ref = self._mine.pop(self._chance.randrange(len(self._mine)))
            entry = self.ledger.rows[ref]
        else:
            self._ref += 1
            ref = self._ref
            group = self.ledger.groups[self._chance.randrange(len(self.ledger.groups))]
            source, target = self._chance.sample(list(group), 2)
            entry = (source, target, self._chance.randrange(1, 100))
        try:
            self._move(connection, ref, entry, returns=returns)
        except pymysql.MySQLError as error:
            if returns and ref not in self.ledger.doubt:
                self._mine.append(ref)
            if error.args and error.args[0] in OWN_FAULT:
                with self.ledger.lock:
                    self.ledger.doubt.pop(ref, None)
                connection.rollback()
                return
            raise
        with self.ledger.lock:
            self.ledger.doubt.pop(ref, None)
            if returns:
                self.ledger.gone.add(ref)
            else:
                self.ledger.rows[ref] = entry
                self._mine.append(ref)
        self.commits += 1

    def _move(
        self, connection: pymysql.connections.Connection[Any], ref: int, entry: Entry, *, returns: bool
    ) -> None:
        source, target, amount = entry
        if returns:
            amount = -amount
        with connection.cursor() as cursor:
            cursor.execute("BEGIN")
            for account, change in sorted(((source, -amount), (target, amount))):
                cursor.execute("UPDATE accounts SET balance = balance + %s WHERE id = %s", (change, account))
                if cursor.rowcount != 1:
                    self._wrong(f"account {account}: an UPDATE changed {cursor.rowcount} rows")
            if returns:
                cursor.execute("DELETE FROM transfers WHERE ref = %s AND source = %s", (ref, source))
                if cursor.rowcount != 1:
                    self._wrong(f"transfer {ref}: a DELETE took {cursor.rowcount} rows")
            else:
                cursor.execute(
                    "INSERT INTO transfers (ref, source, target, amount, note) VALUES (%s, %s, %s, %s, %s)",
                    (ref, *entry, f"ünï {ref}"),
                )
            with self.ledger.lock:
                self.ledger.doubt[ref] = entry
            sent = time.monotonic()
            cursor.execute("COMMIT")
            work = Work(ref, returns, sent, time.monotonic())
            with self.ledger.lock:
                self.ledger.works.append(work)

    def _wrong(self, text: str) -> None:
        with self.ledger.lock:
            self.ledger.wrong.append(f"{self.name}: {text}")


class Reader(_Client):
    """Sums all balances, again and again: at any moment, from wherever it is served, the sum is the same."""

    def __init__(self, name: str, login: Login, schema: str, ledger: Ledger) -> None:
        super().__init__(name, login, schema, ledger)
        self.pause = 0.05

    def work(self, connection: pymysql.connections.Connection[Any]) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT SUM(balance), COUNT(*) FROM accounts")
            row = cursor.fetchone()
        count = sum(len(group) for group in self.ledger.groups)
        if row is None or (int(row[0]), int(row[1])) != (count * OPENING_BALANCE, count):
            with self.ledger.lock:
                self.ledger.wrong.append(f"{self.name} read {row} in schema {self.schema}")
