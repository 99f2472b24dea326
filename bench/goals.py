"""What each figure is to reach: the targets of the design, in one place."""

from __future__ import annotations

from bench.harness import Goal

COPY = Goal(target=1.0, beyond=1.3, higher_is_better=True)
CATCH_UP = Goal(target=2.5, beyond=5.0, higher_is_better=True)
VERIFY = Goal(target=4.0, beyond=8.0, higher_is_better=True)
HOLD = Goal(target=250.0, beyond=50.0, higher_is_better=False)
GATEWAY = Goal(target=1.5, beyond=1.2, higher_is_better=False)
# Beyond is "constant" and "flat": as much as two runs of the same thing differ.
MEMORY = Goal(target=1.1, beyond=1.03, higher_is_better=False)
API_READS = Goal(target=1.5, beyond=1.1, higher_is_better=False)
BRANCH_READY = Goal(target=3.0, beyond=1.0, higher_is_better=False)
