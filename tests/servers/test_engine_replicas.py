"""Replicas of a LocalEngine: complete whenever added, read-only, brought back by the watcher."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pymysql
import pytest

from homeworld.engines.flavors import rules
from homeworld.engines.local import LocalEngine
from homeworld.engines.watcher import Did, Watcher, WatchEvent
from homeworld.model.errors import DeadlineExceededError, InvalidError, NotFoundError, UnavailableError
from homeworld.model.topology import BackendRole, Flavor
from tests.support.engines import as_role, owner, pid_of, position, until
from tests.support.mysqld import binary

pytestmark = pytest.mark.servers


@pytest.fixture
def pair(engine: LocalEngine) -> LocalEngine:
    """An engine with the primary ``p`` (schema ``a_b``, table ``t`` with a row) and its replica ``r``."""
    engine.create_server("p")
    engine.create_schema("p", "a_b")
    owner(engine, "p", "CREATE TABLE a_b.t (id INT PRIMARY KEY)")
    as_role(engine, "p", BackendRole.WRITER, "INSERT INTO a_b.t VALUES (1)")
    engine.create_server("r", replica_of="p")
    return engine


def rows(engine: LocalEngine, server_id: str) -> list[int]:
    found = as_role(engine, server_id, BackendRole.READER, "SELECT id FROM a_b.t ORDER BY id")
    return [row[0] for row in found]


def test_a_replica_is_complete_and_read_only(pair: LocalEngine) -> None:
    pair.wait_replica("r", 30)
    assert rows(pair, "r") == [1]
    for number in range(2, 12):
        owner(pair, "p", f"INSERT INTO a_b.t VALUES ({number})")
        pair.wait_replica("r", 30)
        assert rows(pair, "r") == list(range(1, number + 1)), "wait_replica returned too early"
    pair.create_schema("p", "later")
    owner(pair, "p", "CREATE TABLE later.t (id INT)")
    pair.wait_replica("r", 30)
    assert as_role(pair, "r", BackendRole.READER, "SELECT * FROM later.t") == []
    for role in (BackendRole.WRITER, BackendRole.ADMIN, BackendRole.MOVER):
        with pytest.raises(pymysql.MySQLError, match="read-only"):
            as_role(pair, "r", role, "INSERT INTO a_b.t VALUES (100)")
    status = pair.status("r")
    assert (status.replica_of, status.replication_error) == ("p", "")
    assert status.replica_lag_seconds is not None
    assert pair.replicas_of("p") == ["r"]
    assert position(pair, "r") == position(pair, "p")


def test_what_makes_no_sense_is_refused(pair: LocalEngine) -> None:
    for act in (pair.create_schema, pair.drop_schema):
        with pytest.raises(InvalidError, match="r is a replica"):
            act("r", "shop")
    with pytest.raises(InvalidError, match="exists already as a primary"):
        pair.create_server("p", replica_of="r")
    with pytest.raises(InvalidError, match="exists already as a replica of p"):
        pair.create_server("r")
    with pytest.raises(InvalidError, match="is a replica itself"):
        pair.create_server("rr", replica_of="r")
    with pytest.raises(NotFoundError):
        pair.create_server("x", replica_of="never_there")
    with pytest.raises(InvalidError, match="is no replica"):
        pair.wait_replica("p", 1)
    assert pair.list_servers() == ["p", "r"]


def test_purged_binlogs_are_refused_with_the_reason(pair: LocalEngine) -> None:
    owner(pair, "p", "FLUSH BINARY LOGS")
    owner(pair, "p", "INSERT INTO a_b.t VALUES (2)")
    pair.wait_replica("r", 30)
    newest = owner(pair, "p", "SHOW BINARY LOGS")[-1][0]
    until(lambda: _purged(pair, newest), "the binlogs before the newest are purged")
    with pytest.raises(InvalidError, match="binlogs no longer have the transactions"):
        pair.create_server("late", replica_of="p")
    assert pair.status("late").replication_error != ""
    # The replica that was there before has what the binlogs lost.
    pair.stop_server("r")
    owner(pair, "p", "INSERT INTO a_b.t VALUES (3)")
    pair.start_server("r")
    pair.wait_replica("r", 30)
    assert rows(pair, "r") == [1, 2, 3]


def _purged(engine: LocalEngine, newest: str) -> bool:
    # A binlog that is still being sent is kept, so this may take more than one attempt.
    owner(engine, "p", f"PURGE BINARY LOGS TO '{newest}'")
    return owner(engine, "p", "SHOW BINARY LOGS")[0][0] == newest


def test_wait_tells_why_it_was_not_in_time(pair: LocalEngine) -> None:
    pair.wait_replica("r", 30)
    # A row that only the replica has: the same row from the primary breaks replication.
    statement = rules(pair.flavor)
    owner(pair, "r", statement.writable)
    owner(pair, "r", "SET STATEMENT sql_log_bin=0 FOR INSERT INTO a_b.t VALUES (7)"
          if pair.flavor is Flavor.MARIADB else "INSERT INTO a_b.t VALUES (7)")  # fmt: skip
    owner(pair, "r", statement.read_only)
    owner(pair, "p", "INSERT INTO a_b.t VALUES (7)")
    until(lambda: pair.status("r").replication_error != "", "replication breaks")
    with pytest.raises(DeadlineExceededError, match=r"did not catch up within 0.5 s: .*7"):
        pair.wait_replica("r", 0.5)
    status = pair.status("r")
    assert "Duplicate entry '7'" in status.replication_error
    assert status.replica_lag_seconds is None
    # The watcher tries, and skips nothing.
    Watcher(pair).look()
    until(lambda: pair.status("r").replication_error != "", "replication is still broken")
    owner(pair, "r", statement.writable)
    owner(pair, "r", "SET STATEMENT sql_log_bin=0 FOR DELETE FROM a_b.t WHERE id = 7"
          if pair.flavor is Flavor.MARIADB else "DELETE FROM a_b.t WHERE id = 7")  # fmt: skip
    owner(pair, "r", statement.read_only)
    events = Watcher(pair).look()
    assert [(event.server_id, event.did) for event in events] == [("r", Did.MENDED)]
    pair.wait_replica("r", 30)
    assert rows(pair, "r") == [1, 7]


def test_stopped_threads_and_a_moved_primary_are_mended(pair: LocalEngine) -> None:
    owner(pair, "r", rules(pair.flavor).stop_replica)
    assert pair.status("r").replication_error == "replication is stopped"
    events = Watcher(pair).look()
    assert [(event.server_id, event.did) for event in events] == [("r", Did.MENDED)]
    # Its connection to the server survives a restart of either side by itself.
    os.kill(pid_of(pair, "p"), signal.SIGKILL)
    pair.start_server("p")
    owner(pair, "p", "INSERT INTO a_b.t VALUES (2)")
    pair.wait_replica("r", 30)
    # The primary comes back on another port: the replica has to be told.
    port = pair.endpoint("p", BackendRole.OWNER).port
    pair.stop_server("p")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        thief.bind(("127.0.0.1", port))
        thief.listen()
        pair.start_server("p")
    assert pair.endpoint("p", BackendRole.OWNER).port != port
    until(lambda: pair.status("r").replication_error != "", "the replica loses its primary")
    watcher = Watcher(pair)
    watcher.look()
    owner(pair, "p", "INSERT INTO a_b.t VALUES (3)")
    pair.wait_replica("r", 30)
    assert rows(pair, "r") == [1, 2, 3]


def test_the_watcher_brings_killed_servers_back(pair: LocalEngine) -> None:
    events: list[WatchEvent] = []
    before = {name: pid_of(pair, name) for name in ("p", "r")}
    pair.create_server("off")
    pair.stop_server("off")
    watcher = pair.watch(interval_seconds=0.05, report=events.append)
    try:
        for number, name in enumerate(("p", "r", "p"), start=10):
            os.kill(pid_of(pair, name), signal.SIGKILL)
            until(lambda name=name: (name, Did.ACCEPTS) in told(events), f"{name} accepts again")
            events.clear()
            owner(pair, "p", f"INSERT INTO a_b.t VALUES ({number})")
            pair.wait_replica("r", 60)
    finally:
        watcher.stop(60)
    assert rows(pair, "p") == rows(pair, "r") == [1, 10, 11, 12]
    assert all(pid_of(pair, name) != pid for name, pid in before.items())
    assert not pair.status("off").running, "what was stopped on purpose stays so"
    # A stopped watcher does nothing any more.
    os.kill(pid_of(pair, "r"), signal.SIGKILL)
    until(lambda: not pair.status("r").running, "r is dead")
    assert not pair.status("r").accepting


def told(events: list[WatchEvent]) -> list[tuple[str, Did]]:
    return [(event.server_id, event.did) for event in events]


def test_a_server_that_cannot_live_is_tried_less_and_less(engine: LocalEngine, engine_root: Path) -> None:
    engine.create_server("one")
    data = engine_root / "servers" / "one" / "data"
    watcher = Watcher(engine)
    os.kill(pid_of(engine, "one"), signal.SIGKILL)
    until(lambda: not engine.status("one").running, "it is dead")
    (data / "ibdata1").rename(data / "aside")
    (data / "ibdata1").mkdir()
    attempts: list[int] = []
    for second in range(16):
        for event in watcher.look(now=1000.0 + second):
            assert event.did is Did.RESTARTED
            attempts.append(second)
            until(lambda: not engine.status("one").running, "it ends again")
    assert attempts == [0, 1, 3, 7, 15]
    (data / "ibdata1").rmdir()
    (data / "aside").rename(data / "ibdata1")
    assert watcher.look(now=1020.0) == []
    assert told(watcher.look(now=1031.0)) == [("one", Did.RESTARTED)]
    until(lambda: engine.status("one").accepting, "it accepts")
    assert told(watcher.look(now=1032.0)) == [("one", Did.ACCEPTS)]


def test_a_new_engine_starts_all_and_replicas_go_on(
    pair: LocalEngine, engine_root: Path, flavor: Flavor
) -> None:
    pair.wait_replica("r", 30)
    assert pair.stop_all(30) == []
    again = LocalEngine(engine_root, binary(flavor), buffer_pool_mb=32)
    with pytest.raises(UnavailableError):
        again.wait_replica("r", 1)
    assert again.start_all() == {}
    owner(again, "p", "INSERT INTO a_b.t VALUES (2)")
    again.wait_replica("r", 30)
    assert rows(again, "r") == [1, 2]
    with pytest.raises(pymysql.MySQLError, match="read-only"):
        as_role(again, "r", BackendRole.ADMIN, "INSERT INTO a_b.t VALUES (100)")
