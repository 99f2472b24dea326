"""The owner's side of a mover's process: whose answer is whose."""

from __future__ import annotations

import subprocess
import sys

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
