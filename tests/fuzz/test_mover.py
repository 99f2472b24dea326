"""A short sample of the random moves; ``make fuzz AREA=mover`` plays as many as there is time for.

What a longer run has found is kept beside its kind: in tests/hard_cases where it is one of those, else as a
test of the part that was mended.
"""

from __future__ import annotations

import pytest

from homeworld.model.topology import Flavor
from tests.fuzz.mover.campaign import run

pytestmark = pytest.mark.servers
CASES = 24
SECONDS = 25.0


def test_random_moves_end_in_equal_data(flavor: Flavor) -> None:
    told: list[str] = []
    failures = run(flavor, 1, SECONDS, told.append, CASES)
    assert not failures, "\n".join(failures)
    assert "'equal'" in told[-1], told
