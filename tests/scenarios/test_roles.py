"""Several of each role over one PostgreSQL: a move with processes that die, sleep and wake up in the middle.

What is asked each time: no client of a gateway that lives sees an error, nothing that was acknowledged is
missing, nothing is there that nobody was told of, and both sides are equal when the traffic is back.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from homeworld.model.topology import Flavor
from homeworld.store.store import Store
from tests.support.bank import Bank, Login, Teller, all_work, stop
from tests.support.mysqld import binary
from tests.support.roles import GATEWAY, WORKER, Process, Roles, RolesPlatform

pytestmark = [pytest.mark.scenario, pytest.mark.timeout(600), pytest.mark.one_flavor(Flavor.MARIADB)]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def roles(flavor: Flavor, server_root: Any) -> Iterator[Roles]:
    """Two APIs, two workers, three gateways; all at once, as they would after a reboot."""
    folder = server_root / f"roles-{flavor.value}-{time.monotonic_ns() % 100_000}"
    made = Roles(folder, mysqld=binary(flavor))
    try:
        made.start(api=2, worker=2, gateway=3)
        yield made
    finally:
        made.close()


@pytest.fixture
def platform(roles: Roles) -> RolesPlatform:
    """A database of the test's own."""
    made = RolesPlatform(roles, f"shop_{next(_numbers)}")
    made.start()
    made.make_database()
    return made


@pytest.fixture
def store(roles: Roles) -> Iterator[Store]:
    """What the processes remember."""
    opened = Store.open(roles.store)
    yield opened
    opened.close()


def begin(platform: RolesPlatform, accounts: int = 100) -> tuple[Bank, list[Login]]:
    """A ledger whose tables are being moved, and a way in through each gateway."""
    logins = platform.logins()
    bank = Bank(accounts=accounts)
    with logins[0].connect(platform.DATABASE) as connection:
        bank.open(connection)
    platform.make_keyspace()
    platform.begin()
    platform.reaches("running", 120)
    return bank, logins


def workflow_id(platform: RolesPlatform) -> str:
    """The workflow's id in the store."""
    return str(platform.workflow()["id"])


def in_the_middle(platform: RolesPlatform, store: Store, goal: str) -> None:
    """Return while gateways hold; or once all is over, which a busy machine may not let us see before."""
    number = workflow_id(platform)

    def now() -> bool:
        with store.read() as tx:
            return bool(tx.gateways.posted()) or tx.workflows.get(number).state == goal

    soon("a hold", now)


def soon(what: str, holds: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait until it holds, looking often."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.002)


def owner_of(platform: RolesPlatform, store: Store) -> Process:
    """The worker that has the workflow's lease, or any where nobody has it any more."""
    with store.read() as tx:
        lease = tx.leases.get(f"workflow:{workflow_id(platform)}")
    return next(
        one
        for one in platform.roles.processes[WORKER]
        if one.alive and (lease is None or f":{one.pid}:" in lease.owner)
    )


def errors_of(bank: Bank, tellers: list[Teller]) -> list[str]:
    """The errors that these tellers saw."""
    return [error for error in bank.errors if error.partition(":")[0] in {one.name for one in tellers}]


def back_and_equal(platform: RolesPlatform) -> None:
    """Bring the traffic back and compare both sides row by row."""
    platform.ask("running", 120)
    platform.verify()


def test_a_whole_walk_with_writers_at_every_gateway(platform: RolesPlatform) -> None:
    bank, logins = begin(platform)
    tellers = [Teller(number + 1, logins[number % 3], platform.DATABASE, bank) for number in range(6)]
    for teller in tellers:
        teller.start()
    try:
        for state in ("verified_data", "switched_replicas", "switched_primaries", "running"):
            platform.api = 1 - platform.api
            platform.ask(state)
            all_work(tellers)
        platform.ask("switched_primaries")
        all_work(tellers)
        for teller in tellers:
            teller.aim("@primary")
        for state in ("cutover", "completed"):
            platform.ask(state)
    finally:
        stop(tellers)
    assert bank.errors == []
    print(f"longest wait {bank.longest:.3f} s")
    for login in logins:
        with login.connect("@primary") as connection:
            assert bank.audit(connection) == []


class Client(threading.Thread):
    """One statement on a connection of its own; what came of it."""

    def __init__(self, connection: pymysql.connections.Connection[Any], sql: str) -> None:
        super().__init__(daemon=True)
        self.connection = connection
        self.sql = sql
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(self.sql)
        except (pymysql.MySQLError, OSError) as error:
            self.error = error


def test_a_gateway_that_sleeps_through_a_switch_writes_nothing_to_the_old_side(
    roles: Roles, platform: RolesPlatform
) -> None:
    bank, logins = begin(platform)
    sleeper = roles.processes[GATEWAY][2]
    tellers = [Teller(number + 1, logins[number % 2], platform.DATABASE, bank) for number in range(4)]
    for teller in tellers:
        teller.start()
    try:
        # In the sleeper: a transaction that has written, a statement that waits behind it at the server, and
        # clients that ask while it sleeps.
        open_ = logins[2].connect(platform.DATABASE)
        with open_.cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("UPDATE accounts SET balance = balance + 0 WHERE id = 1")
            cursor.execute("INSERT INTO transfers (ref, source, target, amount) VALUES (1, 1, 2, 0)")
        waiting = Client(
            logins[2].connect(platform.DATABASE, autocommit=True),
            "UPDATE accounts SET balance = balance + 1000000 WHERE id = 1",
        )
        waiting.start()
        time.sleep(0.3)
        late = logins[2].connect(platform.DATABASE, autocommit=True)
        sleeper.stop()
        asked = Client(late, "INSERT INTO transfers (ref, source, target, amount) VALUES (2, 1, 2, 0)")
        asked.start()
        platform.ask("switched_primaries", 120)
        assert not errors_of(bank, tellers)
        time.sleep(0.5)
        sleeper.cont()
        asked.join(30)
        waiting.join(30)
        assert not asked.is_alive()
        assert asked.error is None, "what had not been sent goes on at the new side"
        if waiting.error is None:
            # It got its lock, and was through, before it could be ended: then it counts at the new side.
            with logins[0].connect(platform.DATABASE, autocommit=True) as other, other.cursor() as cursor:
                cursor.execute("UPDATE accounts SET balance = balance - 1000000 WHERE id = 1")
        with pytest.raises(pymysql.MySQLError):
            open_.commit()
        bank.acknowledged[2] = (1, 2, 0)
        # Woken up, it is a gateway as any other.
        more = [Teller(11, logins[2], platform.DATABASE, bank)]
        more[0].start()
        tellers += more
        time.sleep(0.5)
        back_and_equal(platform)
    finally:
        if sleeper.alive:
            sleeper.cont()
        stop(tellers)
    assert bank.errors == []
    with logins[2].connect(platform.DATABASE) as connection:
        found = bank.audit(connection)
        if waiting.error is not None and "the sum of balances is off by 1000000" in found:
            # In doubt, as its gateway was told to break off: it was through before the tables were locked.
            with connection.cursor() as cursor:
                cursor.execute("UPDATE accounts SET balance = balance - 1000000 WHERE id = 1")
            connection.commit()
            found = bank.audit(connection)
        assert found == []


def test_processes_that_die_in_the_middle_of_a_switch(
    roles: Roles, platform: RolesPlatform, store: Store
) -> None:
    bank, logins = begin(platform)
    tellers = [Teller(number + 1, logins[0], platform.DATABASE, bank) for number in range(3)]
    doomed = [Teller(number + 11, logins[2], platform.DATABASE, bank, patient=True) for number in range(2)]
    for teller in (*tellers, *doomed):
        teller.start()
    try:
        # A gateway dies while it holds: the others hold on, and the switch goes on without it.
        platform.act("switch-primaries")
        in_the_middle(platform, store, "switched_primaries")
        roles.processes[GATEWAY][2].kill()
        platform.comes_to("switched_primaries")
        assert not bank.errors
        roles.processes[GATEWAY][2].restart()
        # A worker dies in the middle: the other one finishes what it began.
        platform.act("reverse-traffic")
        in_the_middle(platform, store, "running")
        dead = owner_of(platform, store)
        dead.kill()
        # And the API that was asked with it; the other one answers.
        roles.processes["api"][0].kill()
        platform.api = 1
        platform.comes_to("running")
        assert not bank.errors
        dead.restart()
        # A worker sleeps in the middle: the other one finishes, and the sleeper changes nothing any more.
        platform.act("switch-primaries")
        in_the_middle(platform, store, "switched_primaries")
        asleep = owner_of(platform, store)
        asleep.stop()
        platform.comes_to("switched_primaries")
        asleep.cont()
        time.sleep(1.0)
        assert platform.workflow()["state"] == "switched_primaries"
        back_and_equal(platform)
        all_work([*tellers, *doomed])
    finally:
        stop([*tellers, *doomed])
    assert bank.errors == []
    print(f"longest wait {bank.longest:.3f} s")
    with logins[1].connect(platform.DATABASE) as connection:
        assert bank.audit(connection) == []
