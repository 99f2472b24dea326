"""The two facts about servers on which copying rests, held against servers under load.

MySQL: a snapshot opened after ``gtid_executed`` was read shows every transaction in it. MariaDB: a consistent
snapshot shows exactly the log up to the coordinates it names, while ``gtid_binlog_pos`` may be ahead of it.
"""

from __future__ import annotations

import random

import pymysql
import pytest

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.gtid import MariadbPosition, MysqlPosition, Position
from homeworld.model.topology import Flavor
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from homeworld.replication.positions import current_position, snapshot_position
from homeworld.replication.snapshots import common_position, open_snapshot
from homeworld.replication.tables import read_tables
from tests.support.moves import Writers, make_move
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


def test_what_a_position_names_is_shown(trio: list[TestServer]) -> None:
    move = make_move(trio, "-", "-")
    move.create("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, v INT)")
    place = move.sources[0]
    flavor = place.endpoint.flavor
    start = move.source.position()

    def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
        cursor.execute("INSERT INTO t (v) VALUES (%s)", (numbers.randrange(9),))

    seen: list[tuple[Position, set[bytes | None]]] = []
    with Writers(move.source, move.schema, act, threads=6) as writers:
        writers.wait(50)
        for _ in range(40):
            with Connection(place.endpoint, schema=place.schema) as connection:
                asked = current_position(connection, flavor)
                open_snapshot(connection, asked, 10)
                exact = snapshot_position(connection) if flavor is Flavor.MARIADB else asked
                assert Position.parse(flavor, exact).contains(Position.parse(flavor, asked))
                shown = {row[0] for row in connection.query_rows("SELECT id FROM t")}
            seen.append((Position.parse(flavor, exact), shown))
    table = read_tables(place, ["t"])["t"]
    end = Position.parse(flavor, move.source.position())
    reached = Position.parse(flavor, start)
    logged: list[tuple[Position, bytes | None]] = []
    with Feed(place.endpoint, start, {(place.schema, "t"): table}) as feed:
        feed.give_singly(singly=True)
        while not reached.contains(end):
            batch = feed.read_batch(100, 5)
            reached = Position.parse(flavor, batch.position)
            logged += ((reached, after[0]) for _, _, after in batch.changes if after is not None)
    assert len(logged) >= 50
    for position, shown in seen:
        named = {row for at, row in logged if position.contains(at)}
        assert named <= shown
        if flavor is Flavor.MARIADB:
            assert named == shown


def test_a_position_that_is_not_reached_is_not_shown(trio: list[TestServer]) -> None:
    if trio[0].flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB reads the end of its own log")
    with Connection(trio[0].endpoint()) as connection, pytest.raises(DeadlineExceededError):
        open_snapshot(connection, "00000000-0000-0000-0000-000000000001:7", 0.05)


def test_what_positions_have_in_common() -> None:
    source = "00000000-0000-0000-0000-00000000000a"
    sets = [MysqlPosition.from_text(f"{source}:{part}") for part in ("1-9:20-30", "1-5:8-25", "1-30")]
    assert str(common_position(sets)) == f"{source}:1-5:8-9:20-25"
    assert common_position(sets[:1]) is sets[0]
    lists = [MariadbPosition.from_text(text) for text in ("0-1-5,1-1-9", "0-2-7,1-1-3", "0-1-6,1-1-4,2-1-1")]
    assert str(common_position(lists)) == "0-1-5,1-1-3"
