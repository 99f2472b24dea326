"""``python -m tests.limits``: moves of very many rows, very many tables, very large rows; figures as JSON.

Every figure is of a move that came to its end and was compared; nothing is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from homeworld.engines.config import Sizes
from homeworld.engines.local import LocalEngine
from homeworld.model.movers import Placement, ThrottleLimits
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import Flavor
from homeworld.replication.mover_process import MoverProcesses
from tests.support import mysqld
from tests.support.moves import Move, make_move, wait_for
from tests.support.moving_shop import ORDERS, check, fill
from tests.support.stack import Application, Stack
from tests.support.warden import guard

ROOM = ("innodb-use-native-aio=0", "loose-innodb-redo-log-capacity=2G", "loose-innodb-log-file-size=1G")
POOL = "innodb-buffer-pool-size=1G"
NO_LIMITS = ThrottleLimits(None, None, None)
HOUR = 3600.0
Figures = dict[str, Any]


def rows(flavor: Flavor, folder: Path, number: int) -> Figures:
    """Copy a table of ``number`` rows of about 120 bytes to two shards, and compare it there."""
    with ExitStack() as stack:
        servers = [mysqld.start_server(flavor, folder, *ROOM, POOL) for _ in range(2)]
        for server in servers:
            stack.callback(server.close)
        move = make_move(servers)
        move.create("CREATE TABLE t (id BIGINT AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL, c CHAR(80))")
        _fill(move, number)
        move.create("ALTER TABLE t ADD KEY k (k)")  # at once: row by row it takes several times as long
        move.prepare(Placement("t", "xxhash", ("id",)))
        movers = MoverProcesses()
        stack.callback(movers.close)
        begun = time.monotonic()
        mover = movers.start(move.spec(limits=NO_LIMITS))
        wait_for(mover, lambda progress: progress.copied or bool(progress.error), HOUR)
        copied = time.monotonic() - begun
        mover.drain(move.positions(), HOUR)
        mover.verify("limits")
        wait_for(mover, lambda p: p.verification is not None and p.verification.state != "started", HOUR)
        told = mover.progress().verification
        assert told is not None
        assert told.equal, told
        assert told.rows_compared == number, told
        memory = Path(f"/proc/{mover.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        mover.stop(10)
        return {
            "rows": number,
            "copy_seconds": round(copied, 1),
            "with_verify_seconds": round(time.monotonic() - begun, 1),
            "mover_mib": int(memory) // 1024,
        }


def _fill(move: Move, number: int) -> None:
    with move.source.connect(schema=move.schema) as client, client.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        made = 0
        while made < number:
            if not made:
                made = cursor.execute("INSERT INTO t (k, c) VALUES (1, REPEAT('x', 80))")
            else:
                more = min(made, number - made, 250_000)
                made += cursor.execute(f"INSERT INTO t (k, c) SELECT id, c FROM t ORDER BY id LIMIT {more}")


def tables(flavor: Flavor, folder: Path, number: int) -> Figures:
    """A workflow of ``number`` tables, there and back, while an application writes to one of them."""
    engine_folder = folder / "engine"
    engine_folder.mkdir()
    guard(engine_folder)
    engine = LocalEngine(
        engine_folder, mysqld.binary(flavor), 128, sizes=Sizes(options=ROOM), start_timeout_seconds=120
    )
    store = folder / "store"
    store.mkdir()
    made = Stack(engine, store)
    try:
        made.start()
        made.open()
        made.add_keyspace("target")
        fill(made)
        names = [f"t{at}" for at in range(number - 1)]
        for name in names:
            made.run(
                f"{ORDERS.replace('orders', name)}", f"INSERT INTO {name} (customer, amount) VALUES (1, 1)"
            )
        begun = time.monotonic()
        workflow = made.move("shop", "target", ["orders", *names])
        asked = time.monotonic() - begun
        told = made.reaches(workflow, State.RUNNING, State.ERROR, seconds=HOUR)
        assert told.state is State.RUNNING, told
        running = time.monotonic() - begun
        application = Application(made)
        application.start()
        time.sleep(3)
        usual, application.longest = application.longest, 0.0
        begun = time.monotonic()
        _ask(made, workflow, Trigger.SWITCH_PRIMARIES, State.SWITCHED_PRIMARIES)
        there, hold = time.monotonic() - begun, application.longest
        application.longest = 0.0
        _ask(made, workflow, Trigger.REVERSE_TRAFFIC, State.RUNNING)
        back = application.longest
        check(made, application.finish(), "shop")
        return {
            "tables": number,
            "preconditions_seconds": round(asked, 1),
            "create_to_running_seconds": round(running, 1),
            "switch_seconds": round(there, 1),
            "longest_statement_before_ms": round(usual * 1000),
            "longest_statement_in_the_switch_ms": round(hold * 1000),
            "longest_statement_in_the_way_back_ms": round(back * 1000),
        }
    finally:
        made.close()
        for server_id in engine.list_servers():
            engine.destroy_server(server_id)


def _ask(made: Stack, workflow: str, trigger: Trigger, state: State) -> None:
    made.transition(workflow, trigger)
    told = made.reaches(workflow, state, State.ERROR, State.RUNNING if state is not State.RUNNING else state)
    assert told.state is state, told.workflow_errors


def huge(flavor: Flavor, folder: Path, mebibytes: int) -> Figures:
    """Rows with one value of so many MiB, copied, changed and compared by their digests."""
    with ExitStack() as stack:
        servers = [mysqld.start_server(flavor, folder, *ROOM) for _ in range(2)]
        for server in servers:
            stack.callback(server.close)
        move = make_move(servers, "-", "-")
        size = mebibytes << 20
        move.create(
            "CREATE TABLE t (id INT PRIMARY KEY, b LONGBLOB)",
            rf"INSERT INTO t VALUES (1, REPEAT('\0\\\n\t', {size // 4})), (2, 'b')",
        )
        move.prepare(Placement("t"))
        movers = MoverProcesses()
        stack.callback(movers.close)
        mover = movers.start(move.spec(limits=NO_LIMITS))
        wait_for(mover, lambda progress: progress.copied or bool(progress.error), HOUR)
        told = mover.progress()
        outcome = told.error
        if not outcome:
            move.create(
                f"UPDATE t SET b = REPEAT('z', {size}) WHERE id = 2",
                "UPDATE t SET b = CONCAT(b, '!') WHERE id=1",
            )
            try:
                mover.drain(move.positions(), 600)
            except Exception as error:  # noqa: BLE001  what became of it is what is asked
                outcome = mover.progress().error or str(error)
        digests = "SELECT id, LENGTH(b), SHA2(b, 256) FROM t ORDER BY id"
        sides = [server.query(digests, place.schema) for server, place in _sides(move)]
        memory = Path(f"/proc/{mover.pid}/status").read_text().split("VmHWM:")[1].split()[0]
        mover.stop(10)
        assert outcome or sides[0] == sides[1], "cut short"
        return {"mebibytes": mebibytes, "outcome": outcome or "equal", "mover_mib": int(memory) // 1024}


def _sides(move: Move) -> list[tuple[mysqld.TestServer, Any]]:
    return [(move.server_of(place), place) for place in (move.sources[0], move.targets[0])]


PARTS: dict[str, Callable[[Flavor, Path, int], Figures]] = {"rows": rows, "tables": tables, "huge": huge}
USUAL = {"rows": (0, 1, 100_000, 5_000_000), "tables": (500,), "huge": (64, 100)}


def main() -> None:
    """Run what is asked for and print a line of JSON for each."""
    parser = argparse.ArgumentParser(prog="python -m tests.limits")
    parser.add_argument("--flavor", type=Flavor, choices=list(Flavor), action="append")
    parser.add_argument("--part", choices=list(PARTS), action="append")
    parser.add_argument("--size", type=int, action="append", help="instead of the usual sizes")
    parser.add_argument("--json", type=Path, default=None, help="also written here")
    asked = parser.parse_args()
    found: list[Figures] = []
    for flavor in asked.flavor or list(Flavor):
        for part in asked.part or list(PARTS):
            for size in asked.size or USUAL[part]:
                folder = Path(tempfile.mkdtemp(prefix="homeworld-limits-", dir=os.environ.get("TMPDIR")))
                guard(folder, delete=True)
                try:
                    figures = {"flavor": flavor.value, "part": part, **PARTS[part](flavor, folder, size)}
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
                found.append(figures)
                print(json.dumps(figures), flush=True)
    if asked.json is not None:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
