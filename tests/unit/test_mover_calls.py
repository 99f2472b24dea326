"""The owner's side of a mover's process: whose answer is whose."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import threading
from typing import Any

import pytest

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.movers import MoverSpec, OnDdl
from homeworld.model.topology import Flavor
from homeworld.replication import mover_process
from homeworld.replication.mover_process import ProcessMover

# Answers the first call only when the second has come, and the second never.
CHILD = """
import json, sys
sys.stdin.readline()
print(json.dumps({"started": True}), flush=True)
first = json.loads(sys.stdin.readline())
sys.stdin.readline()
print(json.dumps({"answer": first["call"], "error": None}), flush=True)
sys.stdin.readline()
"""


def test_an_answer_that_comes_late_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mover_process, "_GRACE_SECONDS", 0.5)
    spec = MoverSpec(
        workflow_id="w",
        direction="forward",
        epoch=1,
        flavor=Flavor.MYSQL,
        sources=(),
        targets=(),
        placements=(),
        copy_rows=True,
        start_positions={},
        defer_secondary_keys=False,
        on_ddl=OnDdl.STOP,
    )
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    mover = ProcessMover(spec, child)
    try:
        mover.begin(1000)
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                mover.drain({"-": "x"}, 0.5)
    finally:
        mover.stop(5)


def test_no_progress_is_told_behind_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does by itself is told from one thread, what it was asked from others."""
    begun, asked = threading.Event(), threading.Event()
    out = io.BytesIO()
    child = mover_process._Child(io.BytesIO(), out)  # pyright: ignore[reportPrivateUsage]

    class Mover:
        state = "older"

        def progress(self) -> str:
            return self.state

        def verify(self, _verify_id: str, *, repair: bool) -> None:
            assert not repair
            self.state = "newer"

        def news(self, _seconds: float) -> bool:
            return True

    mover: Any = Mover()

    def told(state: str) -> str:
        if threading.current_thread() is threading.main_thread() and not begun.is_set():
            begun.set()
            asked.wait(1)  # meanwhile the other one would like to tell what it has done
        return state

    def ask() -> None:
        assert begun.wait(60)
        child._perform(mover, {"verify": "v", "repair": False, "call": 1})  # pyright: ignore[reportPrivateUsage]
        asked.set()

    monkeypatch.setattr(mover_process, "progress_to_json", told)
    asking = threading.Thread(target=ask)
    asking.start()
    child._tell(mover)  # pyright: ignore[reportPrivateUsage]
    asking.join(60)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["progress"] for line in lines] == ["older", "newer"]
