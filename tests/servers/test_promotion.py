"""Promotions that break off, wait in vain, or are two at once: one server takes writes, and one alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pymysql
import pytest

from homeworld.engines import promotion
from homeworld.engines.flavors import rules
from homeworld.engines.layout import Layout
from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Did, Watcher
from homeworld.model.errors import DeadlineExceededError, InvalidError
from homeworld.model.topology import BackendRole, Flavor
from tests.support.engines import as_role, owner, until
from tests.support.mysqld import binary

pytestmark = pytest.mark.servers

DIE = """
import os, signal, sys
from pathlib import Path
from typing import Any
from homeworld.engines import replicas
from homeworld.engines.layout import Layout
from homeworld.engines.local import LocalEngine

at, written, write = int(sys.argv[3]), 0, Layout.write

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def count(self, record):
    global written
    write(self, record)
    written += 1
    if written == at:
        die()

Layout.write = count
if not at:
    replicas.wait = die
LocalEngine(Path(sys.argv[1]), Path(sys.argv[2]), 32).promote("r")
"""


@pytest.fixture
def pair(engine: LocalEngine) -> LocalEngine:
    """The primary ``p`` with a table, and its replica ``r``."""
    engine.create_server("p")
    engine.create_schema("p", "a_b")
    owner(engine, "p", "CREATE TABLE a_b.t (id INT PRIMARY KEY AUTO_INCREMENT)")
    engine.create_server("r", replica_of="p")
    engine.wait_replica("r", 30)
    return engine


def takes_writes(engine: LocalEngine, server_id: str) -> bool:
    if server_id in writable(engine):
        as_role(engine, server_id, BackendRole.WRITER, "INSERT INTO a_b.t VALUES ()")
        return True
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        as_role(engine, server_id, BackendRole.WRITER, "INSERT INTO a_b.t VALUES ()")
    return False


def writable(engine: LocalEngine) -> list[str]:
    return [each for each in engine.list_servers() if not owner(engine, each, "SELECT @@read_only")[0][0]]


def test_whoever_dies_in_the_middle_leaves_one_that_takes_writes(
    pair: LocalEngine, engine_root: Path, flavor: Flavor
) -> None:
    for at in range(6):
        done = subprocess.run(
            [sys.executable, "-c", DIE, str(engine_root), str(binary(flavor)), str(at)],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL, (at, done.stderr)
        watcher = Watcher(pair)
        events = watcher.look()
        assert not [event for event in events if event.did is Did.FAILED], (at, events)
        heir, former = ("p", "r") if at < 3 else ("r", "p")
        assert writable(pair) == [heir], at
        assert takes_writes(pair, heir), at
        assert not takes_writes(pair, former), at
        assert (pair.is_primary(heir), pair.is_primary(former)) == (True, False), at
        watcher.look()
        pair.wait_replica(former, 30)
        if heir == "r":
            pair.promote("p")
            pair.wait_replica("r", 30)
        assert not pair.unsettled("p"), at


def test_a_fence_that_waits_in_vain_is_taken_back(pair: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "_LOCK_SECONDS", 3)
    endpoint = pair.endpoint("p", BackendRole.OWNER)
    locker = pymysql.connect(unix_socket=endpoint.socket, user=endpoint.user, password=endpoint.password)
    with closing(locker), locker.cursor() as cursor:
        cursor.execute("LOCK TABLES a_b.t WRITE")
        with pytest.raises(DeadlineExceededError, match="keeps tables of p locked"):
            pair.promote("r")
        cursor.execute("UNLOCK TABLES")
        assert takes_writes(pair, "p")
    assert writable(pair) == ["p"]
    assert not pair.unsettled("p")
    pair.promote("r")
    assert writable(pair) == ["r"]


def test_a_fence_that_a_dead_process_has_left_waiting_does_not_come_true_later(pair: LocalEngine) -> None:
    endpoint = pair.endpoint("p", BackendRole.OWNER)
    account: dict[str, Any] = {
        "unix_socket": endpoint.socket, "user": endpoint.user, "password": endpoint.password,
    }  # fmt: skip
    locker, fencing = pymysql.connect(**account), pymysql.connect(**account)
    fenced: list[object] = []

    def fence() -> None:
        with fencing.cursor() as cursor:
            cursor.execute(f"SELECT GET_LOCK('{promotion._FENCING}', 1)")  # type: ignore[reportPrivateUsage]
            try:
                cursor.execute("SET GLOBAL read_only=ON")
            except pymysql.MySQLError as error:
                fenced.append(error)

    layout = pair._layout  # type: ignore[reportPrivateUsage]
    with closing(locker), locker.cursor() as cursor:
        cursor.execute("LOCK TABLES a_b.t WRITE")
        thread = threading.Thread(target=fence)
        thread.start()
        until(
            lambda: any(
                "read_only" in str(row)
                for row in owner(pair, "p", "SHOW PROCESSLIST")
                if "SHOW" not in str(row)
            ),
            "it waits",
        )
        layout.write(replace(layout.read("p"), promoting="r"))
        assert pair.settle("p")
        cursor.execute("UNLOCK TABLES")
    thread.join(30)
    fencing.close()
    assert fenced
    assert writable(pair) == ["p"]


def test_of_two_promotions_at_once_one_counts(
    pair: LocalEngine, engine_root: Path, flavor: Flavor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.create_server("q", replica_of="p")
    pair.wait_replica("q", 30)
    locks = pair._locks  # type: ignore[reportPrivateUsage]
    arrived, locked = threading.Semaphore(0), promotion.Promotions._locked  # type: ignore[reportPrivateUsage]

    def known(self: Any, *whom: Any) -> Any:
        arrived.release()
        return locked(self, *whom)

    monkeypatch.setattr(promotion.Promotions, "_locked", known)

    def promote(server_id: str) -> str:
        try:
            LocalEngine(engine_root, binary(flavor), 32).promote(server_id)
        except InvalidError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(2) as pool:
        with locks.hold("p"):
            asked = [pool.submit(promote, "r"), pool.submit(promote, "q")]
            assert all(arrived.acquire(timeout=60) for _ in asked)  # both know by now whom they follow
        told = [each.result(120) for each in asked]
    assert sorted(map(bool, told)) == [False, True], told
    primaries = [each for each in pair.list_servers() if pair.is_primary(each)]
    assert len(primaries) == 1
    assert writable(pair) == primaries
    for other in {"p", "q", "r"} - set(primaries):
        assert pair.status(other).replica_of == primaries[0]


def test_a_start_that_began_before_a_promotion_starts_no_second_primary(
    pair: LocalEngine, engine_root: Path, flavor: Flavor
) -> None:
    locks = pair._locks  # type: ignore[reportPrivateUsage]
    with ThreadPoolExecutor(1) as pool:
        with locks.hold("p"):
            starting = pool.submit(LocalEngine(engine_root, binary(flavor), 32).start_all)
            with pytest.raises(TimeoutError):
                starting.result(1.0)
            pair.promote("r")
            pair.stop_server("p")
        assert starting.result(120) == {}
    assert writable(pair) == ["r"]
    assert not pair.is_primary("p")


def test_one_who_was_asked_what_it_has_fetches_again_before_it_is_waited_for(pair: LocalEngine) -> None:
    assert pair.furthest(["r"]) == "r"
    owner(pair, "p", "INSERT INTO a_b.t VALUES (77)")
    pair.promote("r", accept_loss=True, timeout_seconds=30)
    assert writable(pair) == ["r"]
    assert (77,) in owner(pair, "r", "SELECT id FROM a_b.t")


@pytest.mark.parametrize("first", ["runs", "is dead"])
def test_one_that_was_given_up_does_not_stand_in_the_way_of_the_next(pair: LocalEngine, first: str) -> None:
    pair.create_server("s", replica_of="p")
    pair.wait_replica("s", 30)
    for name in ("r", "s"):
        owner(pair, name, rules(pair.flavor).stop_receiving)
    owner(pair, "p", "INSERT INTO a_b.t VALUES (77)")
    pair.stop_server("p", 0)
    pair.promote("r", accept_loss=True)
    until(lambda: pair.follows("s") == "", "the other one follows")
    if first == "runs":
        with pytest.raises(InvalidError, match="they are lost"):
            pair.start_server("p")
        assert pair.status("p").accepting
    owner(pair, "r", "INSERT INTO a_b.t VALUES (88)")
    pair.wait_replica("s", 30)
    pair.stop_server("r", 0)
    pair.promote("s", accept_loss=True)
    as_role(pair, "s", BackendRole.WRITER, "INSERT INTO a_b.t VALUES ()")
    assert (88,) in owner(pair, "s", "SELECT id FROM a_b.t")


def test_a_promotion_does_not_wait_for_long_for_who_is_at_work(pair: LocalEngine) -> None:
    pair.create_server("s", replica_of="p")
    locks, go = pair._locks, threading.Event()  # type: ignore[reportPrivateUsage]
    taken = threading.Event()

    def work() -> None:
        with locks.hold("s"):
            taken.set()
            go.wait(60)

    working = threading.Thread(target=work)
    working.start()
    assert taken.wait(60)
    with pytest.raises(DeadlineExceededError, match="somebody is at work on server s"):
        pair.promote("r", timeout_seconds=1)
    assert takes_writes(pair, "p")
    go.set()
    working.join(60)
    pair.promote("r")
    assert writable(pair) == ["r"]


def test_a_replica_that_is_made_while_its_primary_is_replaced_follows_the_new_one(
    pair: LocalEngine, engine_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    concerned = promotion.Promotions._concerned  # type: ignore[reportPrivateUsage]
    late: list[str] = []

    def told(self: Any, former: str, *more: str) -> list[str]:
        found = concerned(self, former, *more)
        if not late:
            late.append("made")
            pair.create_server("late", replica_of="p")
        return found

    monkeypatch.setattr(promotion.Promotions, "_concerned", told)
    pair.promote("r")
    assert Layout(engine_root).read("late").replica_of == "r"
    until(lambda: pair.follows("late") == "", "it follows")
