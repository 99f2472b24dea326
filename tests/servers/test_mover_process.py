"""Movers in processes of their own, and what is left when a process or a server is killed at any moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.errors import (
    DeadlineExceededError,
    FencedError,
    PreconditionsFailedError,
    UnavailableError,
)
from homeworld.model.movers import Phase
from homeworld.replication.codec import spec_to_json
from homeworld.replication.mover_process import MoverProcesses, ProcessMover
from tests.servers.test_mover import BY_OWNER, act, fill
from tests.support.moves import Move, Writers, make_move, wait_copied, wait_for, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@pytest.fixture
def movers() -> Iterator[MoverProcesses]:
    made = MoverProcesses(chunk_bytes=20_000)
    yield made
    made.close()


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio)
    fill(made)
    made.prepare(*BY_OWNER)
    return made


def alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def events(mover: ProcessMover) -> int:
    return sum(stream.events_applied for stream in mover.progress().streams)


def finish(move: Move, mover: ProcessMover, writers: Writers) -> None:
    wait_copied(mover)
    writers.stop()
    mover.drain(move.positions(), 60)
    move.assert_equal()


def test_one_mover_for_each_workflow_and_direction(move: Move, movers: MoverProcesses) -> None:
    first = movers.start(move.spec(2))
    assert first.pid != os.getpid()
    assert movers.start(move.spec(2)) is first
    assert movers.running(move.workflow_id, "forward") is first
    assert movers.running(move.workflow_id, "reverse") is None
    with pytest.raises(FencedError):
        movers.start(move.spec(1))
    wait_copied(first)
    arguments = Path(f"/proc/{first.pid}/cmdline").read_bytes()
    environment = Path(f"/proc/{first.pid}/environ").read_bytes()
    assert b"test-password" not in arguments + environment
    with pytest.raises(DeadlineExceededError):
        first.drain({"-": move.positions()["-"] + "0"}, 0.2)
    first.verify("v1")
    told = wait_for(first, lambda p: p.verification is not None and p.verification.state == "completed")
    assert told.verification is not None
    assert told.verification.equal
    assert told.verification.rows_compared == 16_000
    second = movers.start(move.spec(3))
    assert not alive(first.pid)
    assert first.progress().phase is Phase.STOPPED
    second.stop(10)
    assert not alive(second.pid)
    assert second.progress().phase is Phase.STOPPED
    assert movers.running(move.workflow_id, "forward") is None
    with pytest.raises(FencedError):
        movers.start(move.spec(1))
    with pytest.raises(UnavailableError):
        second.verify("v2")


def test_a_refusal_comes_back_as_it_was(move: Move, movers: MoverProcesses) -> None:
    move.server_of(move.targets[0]).query("ALTER TABLE events DROP COLUMN what", move.targets[0].schema)
    with pytest.raises(PreconditionsFailedError) as refused:
        movers.start(move.spec())
    assert any("'what' of table 'events' is missing" in reason for reason in refused.value.reasons)


def test_killed_while_copying_and_while_following(move: Move, movers: MoverProcesses) -> None:
    with Writers(move.source, move.schema, act, seed=3) as writers:
        for epoch in range(1, 5):
            mover = movers.start(move.spec(epoch, copy_threads=1))
            start = sum(table.rows_copied for table in mover.progress().tables)
            wait_for(
                mover,
                lambda p, start=start: p.copied or sum(t.rows_copied for t in p.tables) > start + 1000,
            )
            if epoch == 4:
                wait_copied(mover)
                writers.wait(50)
            os.kill(mover.pid, signal.SIGKILL)
            progress = wait_over(mover)
            assert progress.phase is Phase.FAILED
            assert progress.retryable
            assert "process ended" in progress.error
        last = movers.start(move.spec(5))
        writers.wait(50)
        finish(move, last, writers)


def test_its_owner_is_killed(move: Move, tmp_path: Path) -> None:
    spec_file = tmp_path / "spec.json"
    program = tmp_path / "owner.py"
    program.write_text(
        "import json, sys\n"
        "from homeworld.replication.codec import spec_from_json\n"
        "from homeworld.replication.mover_process import MoverProcesses\n"
        f"spec = spec_from_json(json.loads(open({str(spec_file)!r}).read()))\n"
        "movers = MoverProcesses()\n"
        "print(movers.start(spec).pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    spec_file.write_text(json.dumps(spec_to_json(move.spec())))
    with subprocess.Popen(
        [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert alive(pid)
        owner.kill()
    deadline = time.monotonic() + 60
    while alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("victim", ["source", "target"])
def test_a_server_is_killed(move: Move, movers: MoverProcesses, victim: str) -> None:
    server = move.source if victim == "source" else move.server_of(move.targets[1])
    with Writers(move.source, move.schema, act, seed=5) as writers:
        epoch = 1
        mover = movers.start(move.spec(epoch, copy_threads=1))
        for rows in (2000, 16_000):
            wait_for(
                mover,
                lambda p, rows=rows: p.copied or sum(t.rows_copied for t in p.tables) > rows,
            )
            applied = events(mover)
            server.kill()
            time.sleep(0.3)
            server.start()
            # The feed connects again by itself; whatever else was lost ends the mover, which may begin again.
            deadline = time.monotonic() + 20
            while mover.progress().phase not in {Phase.FAILED, Phase.STOPPED} and time.monotonic() < deadline:
                now = mover.progress()
                if now.copied and now.lag_seconds < 1 and events(mover) > applied:
                    break
                time.sleep(0.05)
            if mover.progress().phase is Phase.FAILED:
                assert mover.progress().retryable, mover.progress()
                epoch += 1
                mover = movers.start(move.spec(epoch, copy_threads=1))
        writers.wait(50)
        if mover.progress().phase is Phase.FAILED:
            mover = movers.start(move.spec(epoch + 1))
        finish(move, mover, writers)
