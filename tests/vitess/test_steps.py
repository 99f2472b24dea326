"""Every step of every plan on Vitess: killed before and after it, and failing once, with a cluster in memory.

Too long for every day (``make test-vitess-long``); what is peculiar to Vitess is in
``tests/unit/test_vitess_workflow.py``.
"""

from __future__ import annotations

from typing import cast

import pytest

from homeworld.model.errors import HomeworldError
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables.vitess_plans import attached_plans, vitess_plans
from tests.support.vitess_scene import AttachedScene, VitessScene, without_pauses
from tests.support.workflow_scene import BEGINNINGS, Died, Scenes, essence, writing
from tests.support.workflow_world import FakePreconditions

VITESS_PLANS = vitess_plans(FakePreconditions())
ATTACHED_PLANS = attached_plans(FakePreconditions())
PLANS_OF = {VitessScene: VITESS_PLANS, AttachedScene: ATTACHED_PLANS}
SWITCHES = (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES)
STEPS = [
    *((VitessScene, plan.name, step.name) for plan in VITESS_PLANS.values() for step in plan.steps),
    # What has other steps on a cluster that others run.
    *((AttachedScene, name, step.name) for name in SWITCHES for step in ATTACHED_PLANS[name].steps),
]


pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[type[VitessScene], Scenes]:
    return {kind: Scenes(tmp_path_factory.mktemp("scenes"), kind) for kind in PLANS_OF}


def at(scenes: dict[type[VitessScene], Scenes], kind: type[VitessScene], plan: str) -> VitessScene:
    scene = scenes[kind].at(plan)
    assert isinstance(scene, VitessScene)
    return scene


def id_of(kind: type[VitessScene], *rest: str) -> str:
    return "-".join([*(["attached"] if kind is AttachedScene else []), *rest])


KILLS = [
    pytest.param(kind, plan, step, when, id=id_of(kind, plan, when, step))
    for kind, plan, step in STEPS
    for when in ("before", "after")
]


@pytest.mark.parametrize(("kind", "plan", "step", "when"), KILLS)
def test_killed_at_any_step_it_ends_the_same_and_no_row_is_lost(
    scenes: dict[type[VitessScene], Scenes], kind: type[VitessScene], plan: str, step: str, when: str
) -> None:
    scene = at(scenes, kind, plan)

    def kill(now: str, name: str) -> None:
        if (now, name) == (when, step):
            raise Died

    first = scene.process(writing(scene, kill))
    with pytest.raises(Died):
        first.run()
    first.die(gateways_too=False)
    scene.write()  # gateways that live on still hold
    scene.gateways.expire()
    scene.write()  # and then hand on to a vtgate, which has one truth
    scene.publish()
    scene.write()
    second = scene.process(writing(scene))
    second.run()
    assert scene.state is BEGINNINGS[plan][2]
    scene.write()
    second.run()
    scene.check()


@pytest.mark.parametrize(("kind", "plan", "step"), [pytest.param(*step, id=id_of(*step)) for step in STEPS])
def test_a_step_that_fails_once_is_undone_or_repeated(
    scenes: dict[type[VitessScene], Scenes], kind: type[VitessScene], plan: str, step: str
) -> None:
    scene = at(scenes, kind, plan)
    before = essence(scene)
    failures: list[str] = []

    def fail(when: str, name: str) -> None:
        if when == "after" and name == step and not failures:
            failures.append(name)
            raise HomeworldError("boom")

    process = scene.process(writing(scene, fail))
    process.run()
    _, _, end, early = BEGINNINGS[plan]
    names = [s.name for s in PLANS_OF[kind][plan].steps]
    committed = early is None or PLANS_OF[kind][plan].commit in names[: names.index(step) + 1]
    if plan == d.START:
        committed = False
    assert scene.state is (end if committed else early)
    if not committed:
        assert "boom" in scene.workflow.workflow_errors
        assert meaning(essence(scene)) == meaning(before), "everything is as it was"
    scene.write()
    process.run()
    scene.check()


def meaning(found: object) -> object:
    """Vitess leaves out rules from a name to itself, once traffic has moved."""
    rules, *others = cast("tuple[dict[str, str], object]", found)
    return {name: to for name, to in rules.items() if name != to}, *others
