"""Moves give way: to real replicas that stop or are delayed, to real load, to a real long transaction.

Each time the copy waits, goes on when the cause is gone, and nothing is lost.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pymysql
import pytest

from homeworld.model.movers import MoverProgress, MoverSpec, Placement, ReplicaPlace, ThrottleLimits
from homeworld.model.topology import Flavor
from homeworld.replication.gauges import Gauges
from homeworld.replication.mover import RunningMover
from homeworld.replication.mover_process import MoverProcesses
from homeworld.replication.throttle import YIELD_SECONDS, Gauge
from tests.servers.conftest import SMALL
from tests.support import mysqld
from tests.support.moves import Move, Writers, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer
from tests.support.replicas import Pair

pytestmark = pytest.mark.servers

ROWS = 4000
CREATE = "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(200), KEY v (v))"
FILL = "INSERT INTO t VALUES " + ", ".join(f"({n}, REPEAT('x', 150))" for n in range(1, ROWS))
SLOW = 95  # percent: so that the copy is under way for a while


@pytest.fixture(scope="module")
def pairs(flavor: Flavor, server_root: Path) -> Iterator[tuple[Pair, Pair]]:
    """The source and the target, each with a replica."""
    with ExitStack() as stack:
        servers: list[TestServer] = []
        for _ in range(4):
            servers.append(mysqld.start_server(flavor, server_root, *SMALL))
            stack.callback(servers[-1].close)
        made = Pair(*servers[:2]), Pair(*servers[2:])
        for pair in made:
            pair.follow()
        yield made


@pytest.fixture
def move(pairs: tuple[Pair, Pair]) -> Move:
    source, target = pairs
    made = make_move([source.primary, target.primary], "-", "-")
    made.create(CREATE, FILL)
    made.prepare(Placement("t"))
    for pair in pairs:
        pair.wait_equal()
    return made


def act(cursor: pymysql.cursors.Cursor, numbers: random.Random) -> None:
    key = numbers.randint(1, ROWS)
    cursor.execute("UPDATE t SET v = %s WHERE id = %s", (f"v{numbers.random()}", key))
    if numbers.random() < 0.2:
        cursor.execute("REPLACE INTO t VALUES (%s, 'new')", (key + 20_000,))
    time.sleep(0.01)


def spec(move: Move, pairs: tuple[Pair, Pair], limits: ThrottleLimits) -> MoverSpec:
    source, target = pairs
    return move.spec(
        limits=limits, source_replicas=(source.place,), target_replicas=(target.place,), copy_threads=1,
    )  # fmt: skip


@contextmanager
def running(spec: MoverSpec) -> Generator[RunningMover]:
    mover = RunningMover(spec, chunk_bytes=2000)
    mover.start()
    try:
        yield mover
    finally:
        mover.stop(60)


def told(word: str) -> Callable[[MoverProgress], bool]:
    return lambda progress: all(word in stream.throttled_by for stream in progress.streams)


def rows(progress: MoverProgress) -> int:
    return sum(table.rows_copied for table in progress.tables)


def stands(mover: RunningMover, limits: ThrottleLimits) -> bool:
    """Whether the copy does not move by these limits, although it need not rest any more."""
    mover.limit(replace(limits, ratio=0))
    time.sleep(0.5)  # a chunk that had begun may end
    before = rows(mover.progress())
    time.sleep(0.7)
    return rows(mover.progress()) == before and not mover.progress().copied


def ends_equal(move: Move, mover: RunningMover) -> None:
    mover.limit(ThrottleLimits(ratio=0))
    wait_copied(mover)
    mover.drain(move.positions(), 60)
    move.assert_equal()
    assert {stream.throttled_by for stream in mover.progress().streams} == {""}


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("how", ["stopped", "delayed"])
def test_a_replica_that_lags_holds_the_copy(
    move: Move, pairs: tuple[Pair, Pair], side: str, how: str
) -> None:
    pair = pairs[side == "target"]
    limits = ThrottleLimits(replica_lag_seconds=1, ratio=SLOW)
    with (
        Writers(move.source, move.schema, act, threads=1) as writers,
        running(spec(move, pairs, limits)) as mover,
    ):
        wait_for(mover, lambda p: rows(p) > 0)
        if how == "stopped":
            pair.stop_applying()
        else:
            pair.delay(600)
        progress = wait_for(mover, told(f"copy: lag of a replica of the {side}"))
        assert not progress.copied
        assert stands(mover, limits)
        if how == "stopped":
            pair.apply_again()
        else:
            pair.delay(0)
        writers.wait(50)
        writers.stop()
        ends_equal(move, mover)
    pair.wait_equal()


def test_load_on_the_source_holds_the_copy(move: Move, pairs: tuple[Pair, Pair]) -> None:
    limits = ThrottleLimits(source_threads_running=25, ratio=SLOW)
    stop = threading.Event()

    def work() -> None:
        with closing(move.source.connect(schema=move.schema)) as client, client.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("SELECT COUNT(*), SLEEP(3) FROM t AS a WHERE v LIKE '%y%'")

    with running(spec(move, pairs, limits)) as mover:
        wait_for(mover, lambda p: rows(p) > 0)
        clients = [threading.Thread(target=work, daemon=True) for _ in range(30)]
        for client in clients:
            client.start()
        try:
            progress = wait_for(mover, told("copy: Threads_running"))
            assert not progress.copied
            assert stands(mover, limits)
        finally:
            stop.set()
            for client in clients:
                client.join()
        ends_equal(move, mover)


def test_a_long_transaction_on_the_source_holds_the_copy(move: Move, pairs: tuple[Pair, Pair]) -> None:
    move.create("CREATE TABLE busy (id INT PRIMARY KEY, n INT)", "INSERT INTO busy VALUES (1, 1)")
    history = "SHOW ENGINE INNODB STATUS"
    limits = ThrottleLimits(source_history_length=400, ratio=SLOW)
    with (
        closing(move.source.connect(schema=move.schema)) as client,
        running(spec(move, pairs, limits)) as mover,
    ):
        client.cursor().execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
        with closing(move.source.connect(schema=move.schema)) as other, other.cursor() as cursor:
            cursor.execute("SET SESSION sql_log_bin = 0")
            for number in range(1000):
                cursor.execute("UPDATE busy SET n = %s", (number,))
        progress = wait_for(mover, told("copy: history list length"))
        assert not progress.copied, move.source.query(history)
        assert stands(mover, limits)
        client.rollback()
        ends_equal(move, mover)


def test_applying_gives_way_for_a_moment_and_never_holds_a_switch_up(
    move: Move, pairs: tuple[Pair, Pair]
) -> None:
    _, target = pairs
    limits = ThrottleLimits(replica_lag_seconds=0.5)
    with running(spec(move, pairs, limits)) as mover:
        mover.limit(ThrottleLimits(replica_lag_seconds=None))
        wait_copied(mover)
        target.stop_applying()
        mover.limit(limits)
        worst = 0.0
        with Writers(move.source, move.schema, act, threads=1) as writers:
            wait_for(mover, told("apply: lag of a replica of the target"))
            until = time.monotonic() + 2 * YIELD_SECONDS
            while time.monotonic() < until:
                worst = max(worst, mover.lag_seconds)
                time.sleep(0.02)
            assert worst > 0.5, "it gave way"
            before = mover.progress().streams[0].events_applied
            wait_for(mover, lambda p: p.streams[0].events_applied > before)  # and goes on all the same
            mover.hurry(30)
            wait_for(mover, lambda p: p.lag_seconds < 1 and not p.streams[0].throttled_by)
            writers.stop()
        move.source.query("UPDATE t SET v = 'last' WHERE id < 50", move.schema)
        mover.drain(move.positions(), 30)
        move.assert_equal()
        target.apply_again()


def test_what_does_not_answer_lets_pass_and_says_so(move: Move, pairs: tuple[Pair, Pair]) -> None:
    source, target = pairs
    nobody = replace(target.place.endpoint, socket="", port=mysqld.free_port())
    made = move.spec(
        target_replicas=(ReplicaPlace(target.primary.server_id, nobody),), source_replicas=(source.place,),
        limits=ThrottleLimits(replica_lag_seconds=1, ratio=SLOW),
    )  # fmt: skip
    with running(made) as mover:
        progress = wait_for(mover, lambda p: bool(p.streams[0].unmeasured))
        assert "the lag of a replica of the target" in progress.streams[0].unmeasured
        assert "is not known: cannot reach" in progress.streams[0].unmeasured
        ends_equal(move, mover)


def test_limits_reach_a_mover_in_a_process_of_its_own(move: Move, pairs: tuple[Pair, Pair]) -> None:
    movers = MoverProcesses(chunk_bytes=2000)
    try:
        mover = movers.start(spec(move, pairs, ThrottleLimits(ratio=95)))
        wait_for(mover, told("copy: ratio 95 %"))
        mover.limit(ThrottleLimits(source_threads_running=0))
        wait_for(mover, told("copy: Threads_running"))
        mover.limit(ThrottleLimits())
        wait_copied(mover)
        mover.hurry(1)
        mover.drain(move.positions(), 30)
        move.assert_equal()
        mover.stop(10)
        mover.limit(ThrottleLimits(ratio=95))
        mover.hurry(1)
    finally:
        movers.close()


def test_the_mover_s_own_account_may_ask_everything(move: Move, pairs: tuple[Pair, Pair]) -> None:
    stopping = threading.Event()
    made = Gauges(spec(move, pairs, ThrottleLimits()), stopping)
    assert [reading.value for reading in made.readings()] == [None] * 4
    _, target = pairs
    target.stop_applying()
    target.primary.create_schema("behind")
    time.sleep(1.1)  # so that the replica's own word is needed, for a time before the first look
    made.start()
    deadline = time.monotonic() + 20
    try:
        while any(reading.value is None for reading in made.readings()):
            assert time.monotonic() < deadline, made.readings()
            time.sleep(0.05)
        found = {reading.gauge: reading.value for reading in made.readings()}
        assert found[Gauge.SOURCE_REPLICA] == 0
        assert (found[Gauge.THREADS] or 0) >= 1
        (column,) = _columns(target.replica)[32:33]
        assert column in {"Seconds_Behind_Source", "Seconds_Behind_Master"}
    finally:
        stopping.set()
        target.apply_again()


def _columns(replica: TestServer) -> list[str]:
    status = "SHOW REPLICA STATUS" if replica.flavor is Flavor.MYSQL else "SHOW SLAVE STATUS"
    with closing(replica.connect()) as connection, connection.cursor() as cursor:
        cursor.execute(status)
        return [column[0] for column in cursor.description or ()]
