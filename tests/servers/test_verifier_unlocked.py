"""Snapshots of a source are opened without holding up a writer, and what they show is known all the same."""

from __future__ import annotations

import itertools
import logging
import random
import threading
import time
from typing import Any

import pymysql
import pytest

from homeworld.model.gtid import Position
from homeworld.model.movers import Placement, Verification
from homeworld.model.topology import Flavor
from homeworld.replication import meeting, touched, unlocked
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from homeworld.replication.follower import Follower
from homeworld.replication.mover import RunningMover
from homeworld.replication.tables import read_tables
from homeworld.replication.touched import Touched, touched_by
from homeworld.replication.unlocked import Look, changes_within, open_between
from tests.support.moves import Move, Writers, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

ROWS = 300


def mysql_only(trio: list[TestServer]) -> None:
    if trio[0].flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB says which position a snapshot shows")


def two_tables(trio: list[TestServer]) -> Move:
    move = make_move(trio, "-", "-80 80-")
    for name in ("a", "b"):
        move.create(f"CREATE TABLE {name} (id INT PRIMARY KEY, v INT NOT NULL)")
    with move.source.connect(schema=move.schema) as connection, connection.cursor() as cursor:
        for name in ("a", "b"):
            cursor.executemany(f"INSERT INTO {name} VALUES (%s, 0)", [(n,) for n in range(ROWS)])
    move.prepare(Placement("a", "xxhash", ("id",)), Placement("b", "xxhash", ("id",)))
    return move


def verified(mover: RunningMover, name: str = "v") -> Verification:
    mover.verify(name)
    found = wait_for(
        mover,
        lambda progress: (
            progress.verification is not None
            and progress.verification.verify_id == name
            and progress.verification.state in {"completed", "error"}
        ),
    ).verification
    assert found is not None
    return found


class Locks:
    """Counts how often the tables were locked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken = 0
        locking = meeting.locked_for_reading

        def counted(*arguments: Any) -> Any:
            self.taken += 1
            return locking(*arguments)

        monkeypatch.setattr(meeting, "locked_for_reading", counted)


def writing(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    """One transaction over both tables in the one order or the other; rows of a thread of its own."""
    mine = threading.get_ident() % 7
    names = ["a", "b"] if numbers.random() < 0.5 else ["b", "a"]
    cursor.execute("START TRANSACTION")
    for name in names:
        at = mine + 7 * numbers.randrange(ROWS // 7)
        cursor.execute(f"UPDATE {name} SET v=v+1 WHERE id={at:d}")
    cursor.execute("COMMIT")


def test_no_writer_is_locked_out_or_ended(trio: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> None:
    move = two_tables(trio)
    locks = Locks(monkeypatch)
    mover = RunningMover(move.spec())
    mover.start()
    errors: list[BaseException] = []
    stop = threading.Event()

    def write(number: int) -> None:
        numbers = random.Random(number)
        try:
            with move.source.connect(schema=move.schema) as connection, connection.cursor() as cursor:
                while not stop.is_set():
                    cursor.execute("START TRANSACTION")
                    # Tables in either order, rows that nobody else writes: without locks nobody can wait.
                    for name in numbers.sample(["a", "b"], 2):
                        row = number + 8 * numbers.randrange(ROWS // 8)
                        cursor.execute(f"UPDATE {name} SET v=v+1 WHERE id={row:d}")
                    cursor.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  told by the test
            errors.append(error)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    try:
        wait_copied(mover)
        for thread in threads:
            thread.start()
        for number in range(6):
            found = verified(mover, f"v{number}")
            assert found.equal, found
            assert found.rows_compared == 2 * ROWS
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        mover.stop(60)
    assert (errors, locks.taken) == ([], 0)


def test_what_lies_beyond_the_window_is_of_its_beginning(trio: list[TestServer]) -> None:
    """The one fact that it rests on, held against the log: rows that no change of the window touched are as
    the transactions before it left them.
    """
    mysql_only(trio)
    move = make_move(trio, "-", "-")
    move.create("CREATE TABLE a (id INT PRIMARY KEY, v INT NOT NULL)")
    move.create("CREATE TABLE b (id INT PRIMARY KEY, v INT NOT NULL)")
    start = move.source.position()
    for name in ("a", "b"):
        move.create(f"INSERT INTO {name} WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i+1 FROM n "
                    f"WHERE i < {ROWS - 1}) SELECT i, 0 FROM n")  # fmt: skip
    place = move.sources[0]
    tables = {(place.schema, name): table for name, table in read_tables(place, ["a", "b"]).items()}
    seen: list[tuple[Position, dict[str, set[Any]], dict[str, dict[bytes, bytes]]]] = []
    windows = 0
    with Writers(move.source, move.schema, writing, threads=8) as writers:
        writers.wait(50)
        for _ in range(60):
            with Connection(place.endpoint, schema=place.schema) as session:
                window = open_between([session])
                look = Look(place.endpoint, window, window.begin, tables)
                found: dict[str, Touched] = {}
                changes, rested = changes_within(look, threading.Event(), lambda made: made)
                assert rested == 0, "the window begins where the targets would rest"
                touched_by(changes, rested, tables, found)
                keys = {name: set(one.rows) for name, one in found.items()}
                shown = {
                    name: {id_ or b"": v or b"" for id_, v in session.query_all(f"SELECT id, v FROM {name}")}
                    for name in ("a", "b")
                }
            windows += sum(map(len, keys.values()))
            seen.append((Position.parse(Flavor.MYSQL, window.begin), keys, shown))
    assert windows, "no window had anything in it"
    end = Position.parse(Flavor.MYSQL, move.source.position())
    reached = Position.parse(Flavor.MYSQL, start)
    states: dict[str, dict[bytes, bytes]] = {"a": {}, "b": {}}
    left = list(seen)
    held = 0
    with Feed(place.endpoint, start, tables) as feed:
        feed.give_singly(singly=True)
        while not reached.contains(end):
            batch = feed.read_batch(1000, 5)
            reached = Position.parse(Flavor.MYSQL, batch.position)
            for (_, name), _, after in batch.changes:
                assert after is not None
                states[name][after[0] or b""] = after[1] or b""
            for begin, keys, shown in tuple(left):
                if reached.contains(begin):
                    left.remove((begin, keys, shown))
                    for name, rows in shown.items():
                        expected = {
                            i: v for i, v in states[name].items() if (i,) not in keys.get(name, set())
                        }
                        assert {i: rows[i] for i in expected} == expected
                    held += 1
    assert held == len(seen)


@pytest.mark.parametrize("why", ["rows differ", "too much was changed"])
def test_where_it_does_not_come_out_even_the_tables_are_locked_after_all(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    mysql_only(trio)
    move = two_tables(trio)
    locks = Locks(monkeypatch)
    monkeypatch.setattr(meeting, "UNLOCKED_SECONDS", 3.0)
    tried: list[bool] = []
    if why == "rows differ":

        def differ(*_: object) -> bool:
            tried.append(True)
            return False

        monkeypatch.setattr(unlocked, "same_moment", differ)
    else:
        monkeypatch.setattr(unlocked, "CHANGES_LOOKED_UP", -1)
        looking = unlocked.changes_within

        def told(*arguments: Any) -> Any:
            tried.append(True)
            return looking(*arguments)

        monkeypatch.setattr(unlocked, "changes_within", told)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        found = verified(mover)
        assert found.equal, found
    finally:
        mover.stop(60)
    assert len(tried) > 1
    assert locks.taken == 1


def test_a_part_of_the_window_is_not_taken_for_equal(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that commits between the snapshot and the log's end makes the sides uneven: tried again,
    and no difference is told.
    """
    mysql_only(trio)
    move = two_tables(trio)
    opening = meeting.open_between
    opened: list[str] = []

    def late(sessions: Any) -> unlocked.Window:
        window = opening(sessions)
        opened.append(window.begin)
        if len(opened) < 3:
            # The appliers get it, because it is read as a part of what the snapshot must show.
            move.source.query(f"UPDATE a SET v=v+1 WHERE id={len(opened)}", move.schema)
            return unlocked.Window(window.begin, unlocked.log_end(sessions[0]), window.server_uuid)
        return window

    going_on = Follower.advance

    def further(self: Follower, _: str) -> None:
        going_on(self, move.source.position())

    monkeypatch.setattr(meeting, "open_between", late)
    monkeypatch.setattr(Follower, "advance", further)
    locks = Locks(monkeypatch)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        found = verified(mover)
        assert found.equal, found
        assert len(opened) == 3
    finally:
        mover.stop(60)
    assert locks.taken == 0


def counting(cursor: pymysql.cursors.Cursor, _: random.Random) -> None:
    cursor.execute("UPDATE a SET v=v+1")


def test_several_shards_of_one_server(trio: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> None:
    mysql_only(trio)
    locks = Locks(monkeypatch)
    move = make_move([trio[0], trio[0], trio[0]], "-80 80-", "-")
    move.create("CREATE TABLE a (id INT PRIMARY KEY, v INT NOT NULL)")
    for number, place in enumerate(move.sources):
        move.server_of(place).query(f"INSERT INTO a VALUES ({number}, 0)", place.schema)
    move.prepare(Placement("a"))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        with Writers(move.source, move.sources[0].schema, counting):
            for number in range(3):
                found = verified(mover, f"v{number}")
                assert found.equal, found
                assert found.rows_compared == 2
    finally:
        mover.stop(60)
    assert locks.taken == 0


@pytest.mark.parametrize("locked", [False, True])
def test_a_transaction_that_is_only_prepared_lets_nobody_go_too_far(
    trio: list[TestServer],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    locked: bool,
) -> None:
    """MySQL counts it as executed; who waited for its decision would apply what the snapshot is without."""
    mysql_only(trio)
    move = two_tables(trio)
    move.create("CREATE TABLE stays (id INT PRIMARY KEY)")
    if locked:
        monkeypatch.setattr(meeting, "UNLOCKED_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger=meeting.__name__)
    opening = meeting._snapshot  # pyright: ignore[reportPrivateUsage]  the moment that counts
    decided = threading.Event()

    def decide(connection: Any) -> None:
        decided.wait(1)
        with connection.cursor() as cursor:
            cursor.execute("XA COMMIT 'waits'")
        decided.set()

    threads: list[threading.Thread] = []

    def with_prepared(*arguments: Any) -> str:
        connection = move.source.connect(schema=move.schema)
        with connection.cursor() as cursor:
            for sql in ("START 'waits'", "END 'waits'", "PREPARE 'waits'"):
                cursor.execute(f"XA {sql}")
                if sql.startswith("START"):
                    cursor.execute("INSERT INTO stays VALUES (1)")
        found = opening(*arguments)
        move.source.query("UPDATE a SET v=v+1 WHERE id<9", move.schema)
        threads.append(threading.Thread(target=decide, args=(connection,)))
        threads[0].start()
        monkeypatch.setattr(meeting, "_snapshot", opening)
        return found

    monkeypatch.setattr(meeting, "_snapshot", with_prepared)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        found = verified(mover)
        assert found.equal, found
        assert "may not be of one moment" not in caplog.text, "it came out at once"
        threads[0].join(30)
        mover.drain(move.positions(), 30)
        move.assert_equal()
    finally:
        mover.stop(60)


def test_what_is_prepared_and_decided_all_the_time_is_no_difference(trio: list[TestServer]) -> None:
    mysql_only(trio)
    move = two_tables(trio)
    numbers = itertools.count()

    deciders = threading.local()

    def prepared(cursor: pymysql.cursors.Cursor, numbers_: random.Random) -> None:
        """Every other one is decided by another session than the one that has prepared it."""
        name = f"x{next(numbers)}"
        cursor.execute(f"XA START '{name}'")
        for table in ("a", "b"):
            at = threading.get_ident() % 7 + 7 * numbers_.randrange(ROWS // 7)
            cursor.execute(f"UPDATE {table} SET v=v+1 WHERE id={at:d}")
        cursor.execute(f"XA END '{name}'")
        cursor.execute(f"XA PREPARE '{name}'")
        decider = cursor
        if numbers_.random() < 0.5:
            if not hasattr(deciders, "cursor"):
                deciders.cursor = move.source.connect(schema=move.schema).cursor()
            decider = deciders.cursor
        decider.execute(f"XA {'COMMIT' if numbers_.random() < 0.8 else 'ROLLBACK'} '{name}'")

    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        with Writers(move.source, move.schema, prepared, threads=4) as writers:
            writers.wait(20)
            for number in range(5):
                found = verified(mover, f"v{number}")
                assert found.equal, found
        mover.drain(move.positions(), 30)
        move.assert_equal()
    finally:
        mover.stop(60)


def test_a_row_that_differs_is_told_although_it_is_written_all_the_time(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    move = two_tables(trio)
    locks = Locks(monkeypatch)
    mover = RunningMover(move.spec())
    mover.start()

    def hot(cursor: pymysql.cursors.Cursor, _: random.Random) -> None:
        cursor.execute("UPDATE a SET v=v+1 WHERE id=5")

    try:
        wait_copied(mover)
        holders = [place for place in move.targets if rows_of(move, place, "id=5")]
        (wrong,) = [place for place in move.targets if place not in holders]
        # A second copy where the row does not belong: no change of it goes there.
        move.server_of(wrong).query("INSERT INTO a VALUES (5, -1)", wrong.schema)
        with Writers(move.source, move.schema, hot, threads=3) as writers:
            writers.wait(20)
            found = verified(mover)
    finally:
        mover.stop(60)
    assert (found.state, found.equal) == ("completed", False)
    told = {table.table: (table.extra_target, table.mismatched) for table in found.tables}
    assert told["b"] == (0, 0)
    assert told["a"][0] == 1
    assert locks.taken == 0


def rows_of(move: Move, place: Any, condition: str) -> int:
    ((count,),) = move.server_of(place).query(f"SELECT COUNT(*) FROM a WHERE {condition}", place.schema)
    return int(count)


def test_a_log_that_goes_on_in_another_file_and_keys_that_change(trio: list[TestServer]) -> None:
    mysql_only(trio)
    move = two_tables(trio)

    def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
        mine = threading.get_ident() % 5
        row = mine + 5 * numbers.randrange(ROWS // 5)
        match numbers.randrange(8):
            case 0:
                cursor.execute("FLUSH BINARY LOGS")
            case 1:
                cursor.execute(f"UPDATE a SET id=id+{ROWS} WHERE id={row:d}")
            case 2:
                cursor.execute(f"UPDATE a SET id=id-{ROWS} WHERE id={row + ROWS:d}")
            case 3:
                cursor.execute(f"DELETE FROM b WHERE id={row:d}")
            case 4:
                cursor.execute(f"INSERT IGNORE INTO b VALUES ({row:d}, 7)")
            case _:
                cursor.execute(f"UPDATE b SET v=v+1 WHERE id={row:d}")

    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        with Writers(move.source, move.schema, act, threads=4) as writers:
            writers.wait(20)
            for number in range(6):
                found = verified(mover, f"v{number}")
                assert found.equal, found
        mover.drain(move.positions(), 30)
        move.assert_equal()
    finally:
        mover.stop(60)


def test_nobody_who_alters_a_table_waits_for_a_try_that_came_to_nothing(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    mysql_only(trio)
    move = two_tables(trio)
    judging = unlocked.same_moment
    waited: list[float] = []

    def uneven_once(*arguments: Any) -> bool:
        if waited:
            return judging(*arguments)
        waited.append(0.0)
        # What a lookup of rows leaves behind on both sides.
        for place, session in (*arguments[1], *arguments[2]):
            session.query_all(f"SELECT COUNT(*) FROM {place.schema}.a")
        return False

    pausing = meeting._let_go  # pyright: ignore[reportPrivateUsage]  right behind it the next try begins

    def altering(*sides: Any) -> None:
        pausing(*sides)
        begun = time.monotonic()
        for place in (*move.sources, *move.targets):
            server = move.server_of(place)
            with server.connect(schema=place.schema) as connection, connection.cursor() as cursor:
                cursor.execute("SET SESSION lock_wait_timeout=5, sql_log_bin=0")
                cursor.execute("ALTER TABLE a COMMENT='altered'")
        waited.append(time.monotonic() - begun)

    monkeypatch.setattr(unlocked, "same_moment", uneven_once)
    monkeypatch.setattr(meeting, "_let_go", altering)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        found = verified(mover)
        assert found.equal, found
        assert len(waited) == 2
    finally:
        mover.stop(60)


@pytest.mark.parametrize("lost", [False, True])
def test_a_change_that_both_sides_lack_is_seen(trio: list[TestServer], lost: bool) -> None:
    """The targets rest behind a change that the source's snapshot was opened in front of. Where they have it
    not, both sides show the row as it was, and that is no proof.
    """
    mysql_only(trio)
    move = two_tables(trio)
    place = move.sources[0]
    tables = {(place.schema, name): table for name, table in read_tables(place, ["a", "b"]).items()}
    with Connection(place.endpoint, schema=place.schema) as session:
        window = open_between([session])
        move.source.query("UPDATE a SET v=v+1 WHERE id=1", move.schema)
        rest = move.source.position()
        move.source.query("UPDATE a SET v=v+1 WHERE id=2", move.schema)
        window = unlocked.Window(window.begin, unlocked.log_end(session), window.server_uuid)
        look = Look(place.endpoint, window, rest, tables)
        changes, rested = changes_within(look, threading.Event(), lambda made: made)
        assert (len(changes), rested) == (2, 1)
        found: dict[str, Touched] = {}
        touched_by(changes, rested, tables, found)
        assert {key: row and row[1] for key, row in found["a"].rest.items()} == {(b"1",): b"1"}
        side = [(place, session)]
        if not lost:
            found["a"].rest.clear()
        assert touched.same_moment(found, side, side) is not lost
