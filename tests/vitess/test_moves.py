"""MoveTables on a real Vitess cluster while an application writes: the whole life, and deaths within it."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeworld.model.engines import EngineKind
from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.vitess_plans import attached_plans
from tests.conftest import SMALL
from tests.support.ground_vitess import OnVitess
from tests.support.move_scenarios import (
    KILLS,
    SCENARIOS,
    Scenario,
    killed_at_a_step_it_ends_the_same,
    the_whole_walk,
)
from tests.support.moving_shop import Died
from tests.support.vitess_moves import (
    PLAIN,
    SOURCE,
    TARGET,
    Acting,
    Application,
    MovingShop,
    begin_shop,
    check,
)

pytestmark = pytest.mark.timeout(900)

S, T = State, Trigger


SAMPLE = (d.SWITCH_PRIMARIES, "after", "set the rules in Vitess")
"""Of the steps at which a process is killed, the one that is tried every time."""


@pytest.fixture(scope="module")
def cluster(server_root: Path) -> Iterator[MovingShop]:
    yield from begin_shop(server_root / "moves", SMALL)


@pytest.fixture
def shop(cluster: MovingShop) -> Iterator[MovingShop]:
    """With rows in ``shop.orders`` and nothing else."""
    cluster.fill()
    yield cluster
    cluster.clear()


def begin(shop: MovingShop, **options: Any) -> Acting:
    """A running workflow."""
    acting = Acting(shop, shop.move(**options))
    assert not acting.run(S.RUNNING)
    return acting


def give_up(acting: Acting) -> None:
    """The workflow is over, so that another may begin."""
    if acting.shop.workflow(acting.workflow).state not in (S.CANCELLED, S.COMPLETED):
        assert acting.go(T.CANCEL, S.CANCELLED).workflow_errors == ""


@pytest.fixture
def ground(cluster: MovingShop) -> Iterator[OnVitess]:
    """Where every engine's scenarios are played."""
    yield OnVitess(cluster)
    cluster.clear()


def nothing_left(shop: MovingShop) -> None:
    """Vitess knows of no workflow."""
    for keyspace in (SOURCE, TARGET, PLAIN):
        left = shop.clusters.run(shop.branch_id, "GetWorkflows", "--show-all", keyspace, timeout_seconds=30.0)
        assert left in ({"workflows": []}, {}, None), keyspace


def test_the_whole_walk(ground: OnVitess) -> None:
    the_whole_walk(ground)
    nothing_left(ground.shop)


@pytest.mark.long
def test_the_whole_walk_to_one_shard(cluster: MovingShop) -> None:
    the_whole_walk(OnVitess(cluster, PLAIN), streams=1)
    nothing_left(cluster)
    cluster.clear()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_scenario(ground: OnVitess, scenario: Scenario) -> None:
    scenario.play(ground)
    give_up(ground.acting)
    if ground.shop.workflow(ground.workflow_id).state is S.CANCELLED:
        nothing_left(ground.shop)
        assert "auto_increment" not in str(ground.shop.clusters.vschema(ground.shop.branch_id, TARGET))


@pytest.mark.parametrize(
    ("plan", "when", "step"),
    [
        pytest.param(*kill, id="-".join(kill), marks=() if kill == SAMPLE else pytest.mark.long)
        for kill in KILLS[EngineKind.VITESS]
    ],
)
def test_killed_at_a_step_it_ends_the_same(ground: OnVitess, plan: str, when: str, step: str) -> None:
    killed_at_a_step_it_ends_the_same(ground, plan, when, step)
    if plan == d.CUT_OVER:
        ground.go(T.COMPLETE, S.COMPLETED)
    give_up(ground.acting)


@pytest.mark.long
@pytest.mark.parametrize(("plan", "when", "step"), KILLS[EngineKind.ATTACHED])
def test_killed_at_a_step_of_a_switch_by_vitess_it_ends_the_same(
    cluster: MovingShop, plan: str, when: str, step: str
) -> None:
    ground = OnVitess(cluster, plans=attached_plans)
    killed_at_a_step_it_ends_the_same(ground, plan, when, step)
    give_up(ground.acting)
    cluster.clear()


class Broken:
    """A vtctld whose caller dies in the middle of a switch. The command itself goes on, as a child of a
    process that was killed does; ``vtctld`` is killed, too, where that is asked for.
    """

    def __init__(self, shop: MovingShop, seconds: float, *, vtctld: bool) -> None:
        self._shop, self._seconds, self._vtctld = shop, seconds, vtctld

    def run_with_file(
        self, branch_id: str, flag: str, content: object, *args: str, timeout_seconds: float
    ) -> None:
        self._shop.clusters.run_with_file(branch_id, flag, content, *args, timeout_seconds=timeout_seconds)

    def run(self, branch_id: str, *args: str, timeout_seconds: float) -> object:
        switching = {"SwitchTraffic", "ReverseTraffic"} & set(args) and "--tablet-types=primary" in args
        if not switching or "--dry-run" in args:
            return self._shop.clusters.run(branch_id, *args, timeout_seconds=timeout_seconds)

        def go_on() -> None:
            with contextlib.suppress(Exception):  # nobody is there any more who could hear it
                # Not by the cluster: the lock of its rules went with the process that died.
                self._shop.clusters.vtctldclient(branch_id).run(*args, timeout_seconds=timeout_seconds)

        threading.Thread(target=go_on, daemon=True).start()
        time.sleep(self._seconds)
        if self._vtctld:
            for pid in vtctlds(self._shop):
                os.kill(pid, signal.SIGKILL)
        raise Died


def vtctlds(shop: MovingShop) -> list[int]:
    """The processes of the branch's vtctld."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0].endswith(b"/vtctld") and any(shop.branch_id.encode() in word for word in words):
                found.append(int(entry.name))
    assert found
    return found


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("vtctld", [False, True], ids=["worker", "vtctld-too"])
def test_a_worker_that_dies_while_vitess_makes_the_switch_its_own(
    shop: MovingShop, seconds: float, vtctld: bool
) -> None:
    """Clients go on all the time, and all that they write is there once traffic has gone back."""
    acting = begin(shop)
    application = Application(shop)
    application.start()
    shop.ask(acting.workflow, T.SWITCH_PRIMARIES)
    first = Acting(shop, acting.workflow, vtctld=Broken(shop, seconds, vtctld=vtctld))
    assert first.run(S.SWITCHED_PRIMARIES)
    first.die()
    if vtctld:
        shop.followed(shop.branch_id, lambda: None)  # whoever watches the cluster starts it again
    time.sleep(0.3)
    second = Acting(shop, acting.workflow)
    assert not second.run(S.SWITCHED_PRIMARIES)
    time.sleep(0.5)
    second.go(T.REVERSE_TRAFFIC, S.RUNNING)
    time.sleep(0.3)
    check(shop, application.finish(), SOURCE)
    assert second.go(T.VERIFY_DATA, S.VERIFIED_DATA).verified
    give_up(second)


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("vtctld", [False, True], ids=["worker", "vtctld-too"])
def test_a_worker_that_dies_in_the_middle_of_a_switch_by_vitess(
    shop: MovingShop, seconds: float, vtctld: bool
) -> None:
    acting = begin(shop)
    shop.ask(acting.workflow, T.SWITCH_PRIMARIES)
    broken = Broken(shop, seconds, vtctld=vtctld)
    first = Acting(shop, acting.workflow, vtctld=broken, plans=attached_plans)
    assert first.run(S.SWITCHED_PRIMARIES)
    first.die()
    if vtctld:
        shop.followed(shop.branch_id, lambda: None)
    time.sleep(0.3)
    second = Acting(shop, acting.workflow, plans=attached_plans)
    assert not second.run(S.SWITCHED_PRIMARIES, S.RUNNING)
    if shop.workflow(acting.workflow).state is S.RUNNING:
        second.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    application = Application(shop)
    application.start()
    time.sleep(0.5)
    second.go(T.REVERSE_TRAFFIC, S.RUNNING)
    time.sleep(0.3)
    check(shop, application.finish(), SOURCE)
    assert second.go(T.VERIFY_DATA, S.VERIFIED_DATA).verified
    give_up(second)
