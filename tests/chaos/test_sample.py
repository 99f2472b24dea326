"""A few cells of the fault matrix, always the same ones; ``make chaos`` runs as many as one likes.

Those that once found a defect stay here; the others stand for faults that the scenarios do not have.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from homeworld.model.topology import Flavor
from tests.chaos.cells import Cell
from tests.chaos.run import Run
from tests.chaos.world import World

CELLS = {
    Flavor.MARIADB: (
        "switch-primaries/commit/middle/kill-worker/2",
        "start/make sequences/undo-before/kill-target/2",
        # Found: beside writers a stream with another clock than its source's was never close.
        "start/save the rules/middle/clock-forward/9565",
        "start/make sequences/undo-after/kill-target/2",
    ),
    Flavor.MYSQL: (
        # Found: the reverse stream was given again what the sweep had written, and its two followers waited
        # for each other.
        "switch-primaries/commit/middle/freeze-worker/5049",
        "switch-primaries/fence/middle/kill-source/1",
        "streams/copying/during/kill-mover/1",
        "cut-over/drop source tables/after/kill-source/1",
    ),
}


@pytest.fixture(scope="module")
def world(flavor: Flavor, server_root: Path) -> Iterator[World]:
    made = World(flavor, Path(tempfile.mkdtemp(prefix="chaos-", dir=server_root)))
    made.make(disks=False)
    yield made
    made.close()


@pytest.mark.scenario
@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", range(4))
def test_a_cell(world: World, flavor: Flavor, number: int) -> None:
    outcome = Run(world, Cell.parse(CELLS[flavor][number])).run()
    if outcome.findings:
        world.begin_anew()
    assert outcome.findings == [], outcome.story
    assert outcome.commits > 0
