"""Movers on real servers in every topology, while writers never pause; compared byte for byte afterwards."""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress

import pymysql
import pytest
import xxhash

from homeworld.model.errors import (
    FencedError,
    HomeworldError,
    InvalidError,
    PreconditionsFailedError,
    UnavailableError,
)
from homeworld.model.movers import MoverSpec, Phase, Placement
from homeworld.replication import reading, sidecar
from homeworld.replication.mover import RunningMover
from tests.support.moves import Act, Move, Writers, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

ACCOUNTS = """CREATE TABLE accounts (
  id BIGINT NOT NULL AUTO_INCREMENT, owner BIGINT NOT NULL, handle INT NULL, name VARCHAR(80) NOT NULL,
  note TEXT, amount DECIMAL(12,2), changed TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP(3)
  ON UPDATE CURRENT_TIMESTAMP(3), PRIMARY KEY (id), UNIQUE KEY handle (handle), KEY owner (owner, name))"""
EVENTS = """CREATE TABLE events (
  tag VARCHAR(30) NOT NULL, owner BIGINT NOT NULL, n INT NOT NULL, what VARCHAR(40),
  PRIMARY KEY (tag, n), KEY what (what))"""
BY_OWNER = (Placement("accounts", "xxhash", ("owner",)), Placement("events", "xxhash", ("owner",)))
ROWS = 8_000
HANDLES = 400


def on_the_right(number: int) -> bool:
    """Whether xxhash puts the number on 80- rather than on -80."""
    return xxhash.xxh64_intdigest(str(number).encode()) & 0x80 != 0


def fill(move: Move, rows: int = ROWS) -> None:
    move.create(ACCOUNTS, EVENTS)
    with move.source.connect(schema=move.schema) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO accounts (owner, handle, name, note, amount) VALUES (%s, %s, %s, %s, %s)",
            [
                (n % 500, n if n < HANDLES else None, f"name {n}", "é" * (n % 50) if n % 3 else None, n / 7)
                for n in range(rows)
            ],
        )
        cursor.executemany(
            "INSERT INTO events VALUES (%s, %s, %s, %s)",
            [(f"{'Tag' if n % 2 else 'tag'} {n % 97}", n % 500, n, "x" * (n % 40)) for n in range(rows)],
        )


def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    """One transaction of what applications do, and of what they rarely do."""
    for _ in range(numbers.randint(1, 3)):
        draw = numbers.random()
        a, b = numbers.randint(1, ROWS), numbers.randint(1, ROWS)
        if draw < 0.2:
            cursor.execute("INSERT INTO accounts (owner, name) VALUES (%s, 'new')", (a % 500,))
        elif draw < 0.35:
            cursor.execute("UPDATE accounts SET name=CONCAT('n', %s), owner=%s WHERE id=%s", (b, b % 500, a))
        elif draw < 0.45:
            cursor.execute("UPDATE accounts SET id=id+%s WHERE id=%s", (100_000 * numbers.randint(1, 3), a))
        elif draw < 0.5:
            cursor.execute("UPDATE accounts SET id=%s WHERE id=%s", (a, a + 100_000))
        elif draw < 0.6:
            cursor.execute("DELETE FROM accounts WHERE id=%s", (a,))
        elif draw < 0.75:  # a unique value wanders from row to row
            handle = numbers.randint(0, HANDLES)
            cursor.execute("UPDATE accounts SET handle=NULL WHERE handle=%s", (handle,))
            cursor.execute("UPDATE accounts SET handle=%s WHERE id=%s", (handle, a))
        elif draw < 0.85:
            cursor.execute("UPDATE events SET tag=UPPER(tag), what=%s WHERE n=%s", (f"w{b}", a))
        elif draw < 0.93:
            cursor.execute("DELETE FROM events WHERE n=%s", (a,))
        else:
            cursor.execute(
                "INSERT INTO events VALUES (%s, %s, %s, 'again') ON DUPLICATE KEY UPDATE what='twice'",
                (f"tag {a % 97}", b % 500, a),
            )


@contextmanager
def running(spec: MoverSpec) -> Generator[RunningMover]:
    mover = RunningMover(spec, chunk_bytes=20_000)
    mover.start()
    try:
        yield mover
    finally:
        mover.stop(60)


def settle(move: Move, mover: RunningMover) -> None:
    """The sources are quiet: bring the targets to their end and compare."""
    mover.drain(move.positions(mover.spec.sources), 60)
    move.assert_equal()


@pytest.mark.parametrize("targets", ["-80 80-", "-", "-40 40-c0 c0-"])
def test_unsharded_to(trio: list[TestServer], targets: str) -> None:
    move = make_move(trio, "-", targets)
    fill(move)
    sharded = BY_OWNER if targets != "-" else (Placement("accounts"), Placement("events"))
    move.prepare(*sharded)
    with Writers(move.source, move.schema, act, seed=len(targets)) as writers, running(move.spec()) as mover:
        wait_copied(mover)
        writers.wait(200)
        writers.stop()
        settle(move, mover)
        progress = mover.progress()
    assert progress.phase is Phase.FOLLOWING
    assert {table.table for table in progress.tables} == {"accounts", "events"}
    assert all(table.rows_copied == table.rows_total > 0 for table in progress.tables)
    assert len(progress.streams) == len(move.targets)
    assert sum(stream.events_applied for stream in progress.streams) > 0
    for place in move.targets:
        keys = move.server_of(place).query(f"SHOW INDEX FROM {place.schema}.accounts")
        assert {row[2] for row in keys} == {"PRIMARY", "handle", "owner"}
    assert mover.progress().phase is Phase.STOPPED


def test_two_shards_to_three(trio: list[TestServer]) -> None:
    move = make_move(trio, "-80 80-", "-55 55-aa aa-")
    move.create("CREATE TABLE rows_ (id BIGINT NOT NULL PRIMARY KEY, v VARCHAR(60), KEY v (v))")
    owned: list[list[int]] = [[], []]
    for number in range(1, 9000):
        owned[on_the_right(number)].append(number)
    for place, numbers in zip(move.sources, owned, strict=True):
        with move.server_of(place).connect(schema=place.schema) as connection, connection.cursor() as cursor:
            cursor.executemany("INSERT INTO rows_ VALUES (%s, 'v')", [(n,) for n in numbers[::2]])

    def act_on(numbers: list[int]) -> Act:
        def act(cursor: pymysql.cursors.Cursor, draw: random.Random) -> None:
            number = draw.choice(numbers)
            if draw.random() < 0.3:
                cursor.execute("DELETE FROM rows_ WHERE id=%s", (number,))
            else:
                cursor.execute("REPLACE INTO rows_ VALUES (%s, %s)", (number, f"v{draw.random()}"))

        return act

    move.prepare(Placement("rows_", "xxhash", ("id",)))
    writers = [
        Writers(move.server_of(place), place.schema, act_on(numbers), 1, seed)
        for seed, (place, numbers) in enumerate(zip(move.sources, owned, strict=True))
    ]
    with writers[0], writers[1], running(move.spec()) as mover:
        wait_copied(mover)
        for each in writers:
            each.wait(100)
        for each in writers:
            each.stop()
        settle(move, mover)
        assert len(mover.progress().streams) == 6


def test_there_and_back_and_there(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 3000)
    move.prepare(*BY_OWNER)
    with running(move.spec()) as mover:
        wait_copied(mover)
        settle(move, mover)
    unsharded = (Placement("accounts"), Placement("events"))
    with running(move.reverse_spec(unsharded)) as back:
        assert back.progress().copied
        for at, place in enumerate(move.targets):
            server = move.server_of(place)
            server.query("UPDATE accounts SET name=CONCAT(name, '!') WHERE id % 7 = 0", place.schema)
            server.query("DELETE FROM events WHERE n % 11 = 0", place.schema)
            owner = next(n for n in range(500) if on_the_right(n) == bool(at))
            server.query(
                f"INSERT INTO accounts (id, owner, name) VALUES (90000{at}, {owner}, 'b')", place.schema
            )
        back.drain(move.positions(move.targets), 60)
        move.assert_equal()
    start = move.positions()
    sidecar.forget(move.targets, move.workflow_id, "forward")
    with running(move.spec(2, copy_rows=False, start_positions=start)) as again:
        move.source.query("UPDATE accounts SET note='third' WHERE id % 3 = 0", move.schema)
        settle(move, again)
        assert again.progress().copied


def test_resumes_where_it_stopped(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move)
    move.prepare(*BY_OWNER)
    before = 0
    with Writers(move.source, move.schema, act, 1, seed=9) as writers:
        for epoch in range(1, 5):
            with running(move.spec(epoch, copy_threads=1)) as mover:
                before = sum(table.rows_copied for table in mover.progress().tables)
                wait_for(
                    mover,
                    lambda p, before=before: p.copied or sum(t.rows_copied for t in p.tables) > before + 2500,
                )
        with running(move.spec(5)) as mover:
            assert sum(table.rows_copied for table in mover.progress().tables) >= before
            wait_copied(mover)
            writers.stop()
            settle(move, mover)


def test_a_newer_epoch_fences_the_older(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 2000)
    move.prepare(*BY_OWNER)
    with running(move.spec(1)) as old:
        wait_copied(old)
        with running(move.spec(2)) as new:
            move.source.query("UPDATE accounts SET name='fence' WHERE id < 50", move.schema)
            progress = wait_over(old)
            assert progress.phase is Phase.FAILED
            assert not progress.retryable
            assert "epoch 1 has been taken over" in progress.error
            settle(move, new)
            with pytest.raises(FencedError):
                RunningMover(move.spec(1)).start()


@pytest.mark.parametrize(
    ("create", "placement", "alter", "reason"),
    [
        ("CREATE TABLE t (a INT)", Placement("t"), "", "no unique key"),
        ("CREATE TABLE t (a FLOAT PRIMARY KEY)", Placement("t"), "", "no unique key"),
        ("CREATE TABLE t (a INT PRIMARY KEY) ENGINE=MyISAM", Placement("t"), "", "no transactions"),
        ("CREATE TABLE t (a INT PRIMARY KEY)", Placement("t", "xxhash", ("b",)), "", "lacks a column"),
        (
            "CREATE TABLE t (a INT PRIMARY KEY, v VARCHAR(9) CHARACTER SET latin1)", Placement("t"),
            "MODIFY v VARCHAR(9) CHARACTER SET utf8mb4", "'v' of table 't' is varchar(9) latin1",
        ),
        ("CREATE TABLE t (a INT PRIMARY KEY, b INT)", Placement("t"), "DROP COLUMN b", "is missing on"),
        (
            "CREATE TABLE t (a INT PRIMARY KEY, b INT)", Placement("t"), "ADD UNIQUE KEY b (b)",
            "unique key 'b' of table 't' on ",
        ),
    ],
)  # fmt: skip
def test_refuses(trio: list[TestServer], create: str, placement: Placement, alter: str, reason: str) -> None:
    targets = "-80 80-" if placement.vindex_type else "-"
    move = make_move(trio, "-", targets)
    move.create(create)
    move.prepare(placement)
    for place in move.targets if alter else ():
        move.server_of(place).query(f"ALTER TABLE t {alter}", place.schema)
    with pytest.raises(PreconditionsFailedError) as refused:
        RunningMover(move.spec()).start()
    assert reason in str(refused.value)


def test_needs_a_position_to_follow_from(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 10)
    move.prepare(*BY_OWNER)
    with pytest.raises(InvalidError):
        RunningMover(move.spec(copy_rows=False)).start()


def test_a_target_that_is_not_empty_is_refused(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 100)
    move.prepare(*BY_OWNER)
    strange = move.targets[0]
    move.server_of(strange).query("INSERT INTO events VALUES ('tag 0', 1, 0, 'mine')", strange.schema)
    with pytest.raises(PreconditionsFailedError, match="'events' on target shard -80 is not empty"):
        RunningMover(move.spec()).start()


@pytest.mark.parametrize("unique", ["", ", UNIQUE KEY v (v)"])
def test_two_source_rows_with_one_key_are_never_made_one(trio: list[TestServer], unique: str) -> None:
    move = make_move(trio, "-80 80-", "-")
    move.create(f"CREATE TABLE t (id INT PRIMARY KEY, v INT NULL{unique})")
    for number, place in enumerate(move.sources):
        row = f"({number + 1}, 5)" if unique else f"(1, {number})"
        move.server_of(place).query(f"INSERT INTO t VALUES {row}", place.schema)
    move.prepare(Placement("t"))
    mover = RunningMover(move.spec())
    mover.start()
    progress = wait_over(mover)
    assert progress.phase is Phase.FAILED
    assert not progress.retryable
    assert "several source shards have rows with the same key" in progress.error


def test_verify_waits_for_the_copy(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 4000)
    move.prepare(*BY_OWNER)
    with running(move.spec(copy_threads=1)) as mover:
        if not mover.progress().copied:
            with suppress(UnavailableError):
                mover.verify("early")
                wait_for(mover, lambda p: p.verification is not None and p.verification.state == "completed")
        wait_copied(mover)
        with pytest.raises(HomeworldError):
            mover.drain({"nowhere": ""}, 1)


def test_several_shards_and_both_sides_on_one_server(trio: list[TestServer]) -> None:
    move = make_move(trio[:1], "-80 80-", "-")
    move.create("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(20))")

    def insert(numbers: range, value: str) -> None:
        for side, place in enumerate(move.sources):
            rows = [f"({number}, '{value}')" for number in numbers if on_the_right(number) == bool(side)]
            move.server_of(place).query(f"INSERT INTO t VALUES {', '.join(rows)}", place.schema)

    insert(range(1000), "before")
    move.prepare(Placement("t"))
    with running(move.spec()) as mover:
        wait_copied(mover)
        insert(range(1000, 1200), "after")
        settle(move, mover)
        mover.verify("v")
        told = wait_for(mover, lambda p: p.verification is not None and p.verification.state == "completed")
        assert told.verification is not None
        assert told.verification.equal


@pytest.mark.parametrize("moment", ["while copying", "while following"])
def test_a_transaction_larger_than_a_batch(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    monkeypatch.setattr(reading, "EVENTS_A_BATCH", 500)
    move = make_move(trio)
    fill(move, 6000)
    move.prepare(*BY_OWNER)
    with running(move.spec(copy_threads=1)) as mover:
        if moment == "while following":
            wait_copied(mover)
        place = move.targets[0]
        with move.server_of(place).connect(schema=place.schema, autocommit=False) as other:
            with other.cursor() as cursor, suppress(pymysql.err.OperationalError):
                # Somebody else's lock on a late row: the whole transaction has to be begun anew.
                cursor.execute("SELECT * FROM accounts WHERE id > 5000 FOR UPDATE")
            with move.source.connect(schema=move.schema, autocommit=False) as big, big.cursor() as cursor:
                cursor.execute("UPDATE accounts SET note='big', owner=owner+1")
                cursor.execute("DELETE FROM events WHERE n % 3 = 0")
                cursor.execute("UPDATE events SET tag=CONCAT('x', tag)")
                big.commit()
            time.sleep(2.5 if moment == "while following" else 0.5)
            other.rollback()
        wait_copied(mover)
        settle(move, mover)


def test_a_throttle_holds_the_copy_but_not_the_stream(trio: list[TestServer]) -> None:
    move = make_move(trio)
    fill(move, 3000)
    move.prepare(*BY_OWNER)
    reasons = ["replica"]
    mover = RunningMover(move.spec(), throttle=(lambda: reasons[0],), chunk_bytes=20_000)
    mover.start()
    try:
        progress = wait_for(mover, lambda p: any(stream.throttled_by for stream in p.streams))
        assert {stream.throttled_by for stream in progress.streams} == {"copy: replica"}
        move.source.query("UPDATE accounts SET note='throttled' WHERE id < 9", move.schema)
        mover.drain(move.positions(), 30)
        assert not mover.progress().copied
        reasons[0] = ""
        wait_copied(mover)
        settle(move, mover)
        assert {stream.throttled_by for stream in mover.progress().streams} == {""}
    finally:
        mover.stop(60)
