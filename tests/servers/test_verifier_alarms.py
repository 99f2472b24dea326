"""No false alarm: while rows that all want change, move between shards and come and go, nothing differs.

``HOMEWORLD_VERIFY_ROUNDS=50`` compares more often.
"""

from __future__ import annotations

import os
import random
import threading
import time
from typing import Any

import pymysql
import pytest

from homeworld.model.movers import Placement
from homeworld.model.topology import Endpoint, Flavor
from homeworld.replication import comparing, meeting, rivals
from homeworld.replication.assembly import Assembly
from homeworld.replication.mover import RunningMover
from tests.servers.test_verifier import verified
from tests.support.moves import Writers, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
ROUNDS = int(os.environ.get("HOMEWORLD_VERIFY_ROUNDS", "5"))
ROWS = 400
HOT = 6


def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    """One transaction on hot rows of both tables."""
    for _ in range(numbers.randint(1, 6)):
        hot = numbers.randrange(HOT) if numbers.random() < 0.6 else numbers.randrange(ROWS)
        choice = numbers.random()
        if choice < 0.5:
            cursor.execute("UPDATE a SET n=n+1, v=%s WHERE id=%s", (str(numbers.random()), hot))
        elif choice < 0.65:  # to another shard
            cursor.execute("UPDATE a SET o=%s WHERE id=%s", (numbers.randrange(1 << 30), hot))
        elif choice < 0.75:
            cursor.execute("DELETE FROM a WHERE id=%s", (hot,))
        elif choice < 0.9:
            cursor.execute("REPLACE INTO a VALUES (%s, %s, 0, 'new')", (hot, numbers.randrange(1 << 30)))
        else:
            cursor.execute("UPDATE b SET n=n+%s WHERE id=%s", (numbers.randrange(1, 9), hot))
    if numbers.random() < 0.02:
        cursor.execute("UPDATE a SET n=n+1")


@pytest.mark.parametrize("sources", ["-", "-80 80-"])
def test_hot_rows_raise_no_alarm(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch, sources: str
) -> None:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 50)
    move = make_move(trio, sources)
    move.create(
        "CREATE TABLE a (id INT PRIMARY KEY, o BIGINT NOT NULL, n INT NOT NULL, v VARCHAR(40), KEY o (o))",
        "CREATE TABLE b (id INT PRIMARY KEY, n INT NOT NULL)",
    )
    first = move.server_of(move.sources[0])
    first.execute(
        [
            "INSERT INTO a VALUES " + ", ".join(f"({n}, {n}, 0, 'v')" for n in range(ROWS)),
            "INSERT INTO b SELECT id, 0 FROM a",
        ],
        move.schema,
    )
    move.prepare(Placement("a", "xxhash", ("o",)), Placement("b", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        with Writers(move.source, move.schema, act, threads=3, seed=ROUNDS) as writers:
            for number in range(ROUNDS):
                before = writers.done
                found = verified(mover, f"round {number}")
                assert found.equal, found
                writers.wait(1)
                assert writers.done > before
            writers.stop()
        mover.drain(move.positions(), 60)
        move.assert_equal()
        assert verified(mover, "at rest").equal
    finally:
        mover.stop(60)


def test_what_the_log_has_and_nobody_sees_yet_is_no_difference(
    trio: list[TestServer], flavor: Flavor
) -> None:
    """A commit that waits for a replica's word is in the log: the stream has it before it can be seen."""
    mysql = flavor is Flavor.MYSQL
    prefix = "rpl_semi_sync_source" if mysql else "rpl_semi_sync_master"
    move = make_move(trio)
    move.create("CREATE TABLE a (id INT PRIMARY KEY, v INT)", "INSERT INTO a VALUES (1, 0)")
    move.prepare(Placement("a", "xxhash", ("id",)))
    server, shards = move.source, [(move.server_of(place), place.schema) for place in move.targets]
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        if mysql:
            server.query("INSTALL PLUGIN rpl_semi_sync_source SONAME 'semisync_source.so'")
        server.execute(
            [
                f"SET GLOBAL {prefix}_wait_point='AFTER_SYNC'",
                f"SET GLOBAL {prefix}_wait_no_{'replica' if mysql else 'slave'}=ON",
                f"SET GLOBAL {prefix}_timeout=3000",
                f"SET GLOBAL {prefix}_enabled=ON",
            ]
        )
        writer = threading.Thread(target=move.create, args=("UPDATE a SET v=1",))
        begun = time.monotonic()
        writer.start()
        wait_for(mover, lambda _: [(1,)] in [there.query("SELECT v FROM a", name) for there, name in shards])
        # Until it waits no more for a replica to have it.
        assert server.query("SELECT v FROM a", move.schema) == [(0,)] or time.monotonic() - begun > 3
        found = verified(mover)
        writer.join(30)
        assert found.equal, found
    finally:
        server.query(f"SET GLOBAL {prefix}_enabled=OFF")
        if mysql:
            server.query("UNINSTALL PLUGIN rpl_semi_sync_source")
        mover.stop(60)


@pytest.mark.parametrize("moment", [1, 2])
def test_rows_may_go_from_server_to_server_while_snapshots_are_opened(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before the first server's snapshot, or between it and the next one's."""
    monkeypatch.setattr(rivals, "PATIENCE_SECONDS", 50.0)
    move = make_move(trio, "-80 80-", "-")
    move.create("CREATE TABLE a (id INT PRIMARY KEY, v INT)")
    for number, place in enumerate(move.sources):
        move.server_of(place).query(f"INSERT INTO a VALUES ({number}, 0)", place.schema)
    move.prepare(Placement("a"))
    opened: list[str] = []
    opening = meeting._snapshot  # pyright: ignore[reportPrivateUsage]  the moment that counts

    def moving(made: Assembly, endpoint: Endpoint, *rest: Any) -> str:
        opened.append(endpoint.server_id)
        if len(opened) == moment:
            # to the server whose snapshot comes next, from the other
            at = next(n for n, place in enumerate(move.sources) if place.endpoint == endpoint)
            there, gone = move.sources[at], move.sources[1 - at]
            move.server_of(gone).query(f"DELETE FROM a WHERE id={1 - at}", gone.schema)
            move.server_of(there).query(f"INSERT INTO a VALUES ({1 - at}, 7)", there.schema)
        return opening(made, endpoint, *rest)

    monkeypatch.setattr(meeting, "_snapshot", moving)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        found = verified(mover)
        assert found.equal, found
        assert len(opened) == 2 or moment == 2
        mover.drain(move.positions(), 30)
        move.assert_equal()
    finally:
        mover.stop(60)
