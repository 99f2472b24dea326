"""No false alarm: while rows that all want change, move between shards and come and go, nothing differs.

``HOMEWORLD_VERIFY_ROUNDS=50`` compares more often.
"""

from __future__ import annotations

import os
import random

import pymysql
import pytest

from homeworld.model.movers import Placement
from homeworld.replication import comparing
from homeworld.replication.mover import RunningMover
from tests.servers.test_verifier import verified
from tests.support.moves import Writers, make_move, wait_copied
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
        mover.stop(20)
