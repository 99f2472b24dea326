"""What differs is put right on request, while clients go on writing, and only where that is exact."""

from __future__ import annotations

import random
from contextlib import closing

import pymysql
import pytest

from homeworld.model.movers import MoverProgress, Placement, Verification
from homeworld.replication import comparing, repairing
from homeworld.replication.mover import RunningMover
from homeworld.replication.repairing import Repairer
from tests.servers.test_verifier import on_the_right
from tests.support.moves import Move, Writers, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
ROWS = 600


def make(servers: list[TestServer], monkeypatch: pytest.MonkeyPatch, sources: str = "-") -> Move:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 60)
    monkeypatch.setattr(repairing, "KEYS_AT_ONCE", 7)
    move = make_move(servers, sources)
    move.create(
        "CREATE TABLE t (id INT PRIMARY KEY, u BIGINT NOT NULL, v VARCHAR(30), j JSON, "
        "g INT AS (id + 1) STORED, UNIQUE KEY u (u, id))"
    )
    move.server_of(move.sources[0]).query(
        "INSERT INTO t (id, u, v, j) VALUES " + ", ".join(f"({n}, {n}, 'v', '[{n}]')" for n in range(ROWS)),
        move.schema,
    )
    move.prepare(Placement("t", "xxhash", ("id",)))
    return move


def spoil(server: TestServer, schema: str, statements: list[str]) -> None:
    """Run each statement until it went through: the stream writes the same rows, and either is a victim."""
    connection = server.connect(schema=schema)
    with closing(connection), connection.cursor() as cursor:
        for statement in statements:
            for _ in range(50):
                try:
                    cursor.execute(statement)
                    break
                except pymysql.err.OperationalError as error:
                    if error.args[0] not in {1205, 1213}:
                        raise
            else:
                pytest.fail(f"deadlocks without end: {statement}")


def damage(move: Move) -> None:
    """Rows missing, changed, added, on the wrong shard, and on both."""
    left, right = move.targets
    mine = [n for n in range(ROWS) if not on_the_right(n)]
    row = "INSERT INTO t (id, u, v, j) SELECT {0}, {0}, 'v', '[{0}]'"
    spoil(
        move.server_of(left), left.schema,
        [
            f"DELETE FROM t WHERE id IN ({', '.join(map(str, mine[:40]))})",
            f"UPDATE t SET v='bad', j='[0]' WHERE id IN ({', '.join(map(str, mine[40:80]))})",
            f"DELETE FROM t WHERE id={mine[81]}",
            row.format(ROWS + 5),
        ],
    )  # fmt: skip
    spoil(
        move.server_of(right), right.schema,
        [row.format(mine[81]), row.format(mine[82]), row.format(mine[3]), row.format(ROWS + 6)],
    )  # fmt: skip


def outcome(mover: RunningMover, name: str, *, repair: bool) -> Verification:
    mover.verify(name, repair=repair)

    def done(progress: MoverProgress) -> bool:
        found = progress.verification
        return found is not None and found.verify_id == name and found.state in {"completed", "error"}

    found = wait_for(mover, done).verification
    assert found is not None
    return found


def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    number = numbers.randrange(ROWS)
    if numbers.random() < 0.2:
        cursor.execute("REPLACE INTO t (id, u, v) VALUES (%s, %s, 'new')", (number, numbers.randrange(99)))
    elif numbers.random() < 0.2:
        cursor.execute("DELETE FROM t WHERE id=%s", (number,))
    else:
        cursor.execute("UPDATE t SET v=%s WHERE id=%s", (str(numbers.random()), number))


def test_rows_are_put_right_under_writers(trio: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> None:
    move = make(trio, monkeypatch)
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        with Writers(move.source, move.schema, act) as writers:
            for number in range(4):
                damage(move)
                if number == 0:
                    assert not outcome(mover, "look", repair=False).equal
                found = outcome(mover, f"repair {number}", repair=True)
                assert found.equal, found
                assert len(found.rounds) == 2
                assert "rows were copied once more" in found.rounds[1].note
                writers.wait(1)
            writers.stop()
        mover.drain(move.positions(), 30)
        move.assert_equal()
        assert outcome(mover, "after", repair=True).equal
        assert len(outcome(mover, "again", repair=True).rounds) == 1
    finally:
        mover.stop(60)


def test_a_repair_that_is_cut_off_is_gone_on_with(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    move = make(trio, monkeypatch)
    mover = RunningMover(move.spec())
    mover.start()
    wait_copied(mover)
    damage(move)
    parts: list[int] = []
    whole = Repairer.repair

    def first_only(repairer: Repairer, name: str, keys: list[tuple[bytes, ...]]) -> None:
        whole(repairer, name, keys[:10])
        parts.append(len(keys))
        mover._let_go()  # pyright: ignore[reportPrivateUsage]  the mover is told to stop, in the middle
        whole(repairer, name, keys[10:])

    monkeypatch.setattr(Repairer, "repair", first_only)
    mover.verify("v", repair=True)
    wait_for(mover, lambda _: bool(parts))
    mover.stop(60)
    found = mover.progress().verification
    assert found is not None
    assert not found.equal
    monkeypatch.setattr(Repairer, "repair", whole)
    mover = RunningMover(move.spec(2))
    mover.start()
    try:
        wait_copied(mover)
        found = outcome(mover, "v", repair=True)
        assert found.equal, found
        assert len(found.rounds) == 3
        move.assert_equal()
    finally:
        mover.stop(60)


def test_rows_of_several_sources_are_not_put_right(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    move = make(trio, monkeypatch, sources="-80 80-")
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        damage(move)
        found = outcome(mover, "v", repair=True)
        assert (found.state, found.equal) == ("error", False)
        assert "cannot be put right: rows come from several source shards" in found.error
        assert found.tables[0].different
        assert not outcome(mover, "again", repair=False).equal
    finally:
        mover.stop(60)
