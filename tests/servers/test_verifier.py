"""Verification finds every kind of difference, says which rows, and never passes without comparing."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pymysql
import pytest
import xxhash

from homeworld.model.movers import MoverProgress, Phase, Placement, TableVerification, Verification
from homeworld.model.topology import Flavor
from homeworld.replication import comparing, meeting, narrowing
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, Writers, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = """CREATE TABLE t (
  k VARCHAR(20) NOT NULL, o BIGINT NOT NULL, v VARCHAR(30), c CHAR(9) COLLATE utf8mb4_bin, b VARBINARY(9),
  d DOUBLE, f FLOAT, e ENUM('a','b'), j JSON, x LONGTEXT, n DECIMAL(9,3), t DATETIME(3), PRIMARY KEY (k))"""
COLUMNS = "'text', 'c', 'b', 0.5, 0.25, 'a', '{\"a\": 1}', 'long', 1.5, '2024-01-01'"
ROWS = 3000


def on_the_right(number: int) -> bool:
    return xxhash.xxh64_intdigest(str(number).encode()) & 0x80 != 0


@pytest.fixture
def move(trio: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> Move:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 250)
    made = make_move(trio)
    made.create(CREATE)
    with made.source.connect(schema=made.schema) as connection, connection.cursor() as cursor:
        cursor.executemany(
            f"INSERT INTO t VALUES (%s, %s, {COLUMNS})",
            [(f"{'Key' if n % 2 else 'key'} {n:05}", n) for n in range(ROWS)],
        )
    made.prepare(Placement("t", "xxhash", ("o",)))
    return made


@pytest.fixture
def mover(move: Move) -> Iterator[RunningMover]:
    made = RunningMover(move.spec())
    made.start()
    wait_copied(made)
    yield made
    made.stop(60)


def verified(mover: RunningMover, name: str = "v") -> Verification:
    mover.verify(name)

    def done(progress: MoverProgress) -> bool:
        found = progress.verification
        return found is not None and found.verify_id == name and found.state in {"completed", "error"}

    found = wait_for(mover, done).verification
    assert found is not None
    return found


def the_table(found: Verification) -> TableVerification:
    assert found.state == "completed", found
    (table,) = found.tables
    assert table.rows_compared == ROWS
    return table


def corrupt(move: Move, number: int, change: str) -> None:
    """Run a statement on the shard that owns row ``number``."""
    place = move.targets[on_the_right(number)]
    changed = move.server_of(place).connect(schema=place.schema)
    with changed as connection, connection.cursor() as cursor:
        cursor.execute("SET sql_mode='NO_AUTO_VALUE_ON_ZERO'")
        assert cursor.execute(change) > 0, change


def key(number: int) -> str:
    return f"{'Key' if number % 2 else 'key'} {number:05}"


@dataclass
class Damage:
    name: str
    set: str
    mariadb: bool = True


DAMAGES = [
    Damage("one letter's case", "v='Text'"),
    Damage("a trailing space", "v='text '"),
    Damage("NULL for empty", "v=NULL"),
    Damage("empty", "v=''"),
    Damage("a NUL byte", "b=CONCAT(b, x'00')"),
    Damage("an accent", "x='löng'"),
    Damage("the last digit of a double", "d=0.5e0+1.1102230246251565e-16"),
    Damage("a float", "f=0.25000003"),
    Damage("minus zero", "d=0e0*-1", mariadb=False),
    Damage("an ENUM", "e='b'"),
    Damage("ENUM's error value", "e='?'"),
    Damage("a JSON number", "j='{\"a\": 2}'"),
    Damage("a JSON type", 'j=\'{"a": "1"}\''),
    Damage("a thousandth", "n=1.501"),
    Damage("a millisecond", "t='2024-01-01 00:00:00.001'"),
    Damage("the key's case", "k=UPPER(k)"),
    Damage("the same text in other columns", "v='c', c='text'"),
]


def test_equal_sides_are_equal_again_and_again(move: Move, mover: RunningMover) -> None:
    for name in ("first", "second"):
        found = verified(mover, name)
        assert found.equal
        assert (found.rows_compared, found.rows_total) == (ROWS, ROWS)
        assert the_table(found).differences == ()


def test_every_kind_of_damage_is_seen(move: Move, mover: RunningMover) -> None:
    damages = [damage for damage in DAMAGES if damage.mariadb or move.source.flavor is Flavor.MYSQL]
    move.create(
        f"UPDATE t SET d=0 WHERE v='text' AND k='{key(10 + [d.name for d in DAMAGES].index('minus zero'))}'"
    )
    mover.drain(move.positions(), 30)
    for at, damage in enumerate(DAMAGES):
        if damage not in damages:
            continue
        corrupt(move, 10 + at, f"UPDATE t SET {damage.set} WHERE k='{key(10 + at)}'")
    found = the_table(verified(mover))
    renamed = 1  # a key that differs in bytes is one row too few and one too many
    assert found.mismatched == len(damages) - renamed
    assert (found.extra_source, found.extra_target, found.wrong_shard) == (renamed, renamed, 0)
    assert len([d for d in found.differences if d.kind == "mismatched"]) == narrowing.SAMPLES
    shown = next(d for d in found.differences if d.key == {"k": key(12)})
    assert shown.source is not None
    assert shown.target is not None
    assert (shown.source["v"], shown.target["v"]) == ("text", None)
    assert shown.shard == ("80-" if on_the_right(12) else "-80")


def test_rows_missing_added_and_misplaced(move: Move, mover: RunningMover) -> None:
    left, right = move.targets
    corrupt(move, 100, f"DELETE FROM t WHERE k='{key(100)}'")
    corrupt(move, 101, f"DELETE FROM t WHERE k='{key(101)}'")
    corrupt(move, 7, "INSERT INTO t (k, o) VALUES ('key 00000x', 7)")
    number = next(n for n in range(500, ROWS) if not on_the_right(n))
    move.server_of(left).query(f"DELETE FROM t WHERE k='{key(number)}'", left.schema)
    move.server_of(right).query(f"INSERT INTO t VALUES ('{key(number)}', {number}, {COLUMNS})", right.schema)
    twice = next(n for n in range(900, ROWS) if not on_the_right(n))
    move.server_of(right).query(f"INSERT INTO t VALUES ('{key(twice)}', {twice}, {COLUMNS})", right.schema)
    found = the_table(verified(mover))
    assert (found.extra_source, found.extra_target, found.mismatched, found.wrong_shard) == (2, 2, 0, 2)
    by_kind = {
        kind: [d for d in found.differences if d.kind == kind] for kind in ("extra_source", "wrong_shard")
    }
    assert {d.key["k"] for d in by_kind["extra_source"]} == {key(100), key(101)}
    assert {d.key["k"] for d in by_kind["wrong_shard"]} == {key(number), key(twice)}
    assert all(d.target is None for d in by_kind["extra_source"])
    assert not verified(mover, "again").equal


def test_a_change_past_the_last_row_of_the_source(move: Move, mover: RunningMover) -> None:
    corrupt(move, 5, "INSERT INTO t (k, o) VALUES ('zzz', 5)")
    assert the_table(verified(mover)).extra_target == 1


def test_both_sides_are_compared_as_of_one_position(move: Move, mover: RunningMover) -> None:
    def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
        number = numbers.randrange(ROWS)
        cursor.execute("UPDATE t SET v=%s WHERE k=%s", (str(numbers.random()), key(number)))
        cursor.execute("UPDATE t SET n=n+1 WHERE k=%s", (key(ROWS - 1 - number),))

    with Writers(move.source, move.schema, act) as writers:
        for name in ("one", "two", "three"):
            before = writers.done
            found = verified(mover, name)
            assert found.equal, found
            writers.wait(1)
            assert writers.done > before
        writers.stop()
    mover.drain(move.positions(), 30)
    move.assert_equal()


def test_an_open_transaction_keeps_nobody_from_comparing(move: Move, mover: RunningMover) -> None:
    with move.source.connect(schema=move.schema, autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE t SET v='open' WHERE o=1")
        assert verified(mover, "while open").equal
        connection.commit()
    assert verified(mover, "committed").equal


def test_where_only_a_lock_is_left_an_open_transaction_keeps_from_comparing_but_writers_go_on(
    move: Move, mover: RunningMover, monkeypatch: pytest.MonkeyPatch
) -> None:
    if move.source.flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB needs no lock")
    monkeypatch.setattr(meeting, "UNLOCKED_SECONDS", 0.0)
    monkeypatch.setattr(meeting, "LOCK_ATTEMPTS", 2)
    with move.source.connect(schema=move.schema, autocommit=False) as connection:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE t SET v='open' WHERE o=1")
        found = verified(mover, "locked out")
        assert found.state == "error"
        assert not found.equal
        assert "open transaction" in found.error
        connection.commit()
    assert mover.progress().phase is Phase.FOLLOWING
    assert verified(mover, "free").equal


def test_what_cannot_be_compared_is_an_error(move: Move, mover: RunningMover) -> None:
    place = move.targets[0]
    move.server_of(place).query("RENAME TABLE t TO gone", place.schema)
    found = verified(mover)
    assert found.state == "error"
    assert not found.equal
    move.server_of(place).query("RENAME TABLE gone TO t", place.schema)
    assert verified(mover, "again").equal
