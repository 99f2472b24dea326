"""Every step of every plan, from the code's own list: interrupted, failed, undone, while a client writes.

The servers are in memory, the store is a real one. Each test ends with the same question: is every row that a
client was told is written on the side that owns writes?
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from homeworld.model.errors import HomeworldError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch
from tests.support.workflow_scene import (
    BEGINNINGS,
    PLANS,
    STEPS,
    TABLE,
    Died,
    Process,
    Scene,
    Scenes,
    essence,
    writing,
)

S, T = State, Trigger


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(steps_switch, "BETWEEN_SECONDS", 0.0)
    monkeypatch.setattr(steps_switch, "HOLD_SECONDS", 600.0)
    monkeypatch.setattr(steps_switch, "SWITCH_SECONDS", 590.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def make_scene(scenes: Scenes) -> Callable[[], Scene]:
    return scenes.new


def test_every_plan_has_a_beginning_here() -> None:
    assert set(BEGINNINGS) == set(PLANS)


@pytest.mark.parametrize("plan", BEGINNINGS)
def test_undisturbed_it_ends_where_it_should_and_no_row_is_lost(scenes: Scenes, plan: str) -> None:
    scene = scenes.at(plan)
    performed: list[str] = []

    def note(when: str, step: str) -> None:
        if when == "before":
            performed.append(step)

    process = Process(scene, writing(scene, note))
    process.run()
    assert scene.state is BEGINNINGS[plan][2]
    assert scene.workflow.workflow_errors == ""
    assert performed == [step.name for step in PLANS[plan].steps]
    scene.write()
    process.run()
    scene.check()


# Gateways that outlive the executor matter where they hold.
KILLS = [
    pytest.param(plan, step, when, gateways_too, id=f"{plan}-{when}-{step}{'' if gateways_too else '-alone'}")
    for plan, step in STEPS
    for when in ("before", "after")
    for gateways_too in ((True, False) if plan in (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES) else (True,))
]


@pytest.mark.parametrize(("plan", "step", "when", "gateways_too"), KILLS)
def test_killed_at_any_step_it_ends_the_same_and_no_row_is_lost(
    scenes: Scenes, plan: str, step: str, when: str, gateways_too: bool
) -> None:
    scene = scenes.at(plan)

    def kill(now: str, at: str) -> None:
        if (now, at) == (when, step):
            raise Died

    first = Process(scene, writing(scene, kill))
    with pytest.raises(Died):
        first.run()
    first.die(gateways_too=gateways_too)
    scene.write()  # gateways that live on still hold
    scene.gateways.expire()
    scene.write()  # and then serve what they were last given
    scene.publish()
    scene.write()  # or what anybody tells them of, before the next process acts
    second = Process(scene, writing(scene))
    second.run()
    assert scene.state is BEGINNINGS[plan][2]
    scene.write()
    second.run()
    scene.check()


@pytest.mark.parametrize(("plan", "step"), STEPS)
def test_a_step_that_fails_once_is_undone_or_repeated(scenes: Scenes, plan: str, step: str) -> None:
    scene = scenes.at(plan)
    before = essence(scene)
    failures: list[str] = []

    def fail(when: str, at: str) -> None:
        if when == "after" and at == step and not failures:
            failures.append(at)
            raise HomeworldError("boom")

    process = Process(scene, writing(scene, fail))
    process.run()
    _, _, end, early = BEGINNINGS[plan]
    names = [s.name for s in PLANS[plan].steps]
    # The commit step's own transaction took place before the failure after it: only forward.
    committed = early is None or PLANS[plan].commit in names[: names.index(step) + 1]
    if plan == d.START:
        committed = False
    assert scene.state is (end if committed else early)
    if not committed:
        assert "boom" in scene.workflow.workflow_errors
        assert essence(scene) == before, "everything is as it was"
    scene.write()
    process.run()
    scene.check()


# A resting state has no error: it is settled by trying for ever.
@pytest.mark.parametrize("plan", [plan for plan in BEGINNINGS if plan != d.SETTLE])
def test_a_step_that_always_fails_ends_in_an_error_that_retry_mends(scenes: Scenes, plan: str) -> None:
    scene = scenes.at(plan)
    last = PLANS[plan].steps[-1].name
    broken = [True]

    def fail(when: str, at: str) -> None:
        if broken[0] and when == "before" and at == last:
            raise HomeworldError("still broken")

    process = Process(scene, writing(scene, fail))
    process.run()
    assert scene.state is S.ERROR
    assert "still broken" in scene.workflow.workflow_errors
    assert scene.workflow.may_retry
    assert not scene.gateways.holds, "nobody waits for a person"
    assert not scene.world.locked
    broken[0] = False
    scene.go(process, T.RETRY)
    assert scene.state is BEGINNINGS[plan][2]
    scene.check()


def test_an_undo_that_fails_is_repeated_and_then_told(scenes: Scenes) -> None:
    scene = scenes.at(d.START)
    broken = [True]

    def fail(when: str, at: str) -> None:
        if broken[0] and (
            (when, at) == ("before", "publish") or (when, at) == ("undo", "make target tables")
        ):
            raise HomeworldError("broken")

    process = Process(scene, fail)
    process.run()
    assert scene.state is S.ERROR
    assert "undoing make target tables" in scene.workflow.workflow_errors
    broken[0] = False
    scene.go(process, T.RETRY)
    assert scene.state is S.ERROR, "the undo goes on, and says why it began"
    assert ("shop_sharded", TABLE) not in scene.world.rows
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()
