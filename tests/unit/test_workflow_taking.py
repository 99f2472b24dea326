"""An empty table stands on the target before the workflow: rows that come into it are not dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from homeworld.model.errors import DeadlineExceededError, InvalidError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import decide as d
from tests.support.workflow_scene import PLANS, TABLE, Died, Process, Scene, Scenes

S, T = State, Trigger
TARGET = ("shop_sharded", TABLE)
SOURCE = ("shop", TABLE)
STEPS = [(when, step.name) for step in PLANS[d.START].steps for when in ("before", "after")]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder: Path = tmp_path_factory.mktemp("taking")
    return Scenes(folder)


@pytest.fixture
def scene(scenes: Scenes) -> Scene:
    made = scenes.new()
    made.world.rows[TARGET] = {}
    return made


def everywhere(scene: Scene) -> list[str]:
    return [value for key in (SOURCE, TARGET) for value in scene.world.rows.get(key, {}).values()]


@pytest.mark.parametrize("die", [False, True], ids=["lives", "dies"])
@pytest.mark.parametrize(("when", "step"), STEPS, ids=[f"{when}-{step}" for when, step in STEPS])
def test_a_row_that_was_acknowledged_is_somewhere_after_cancel(
    scene: Scene, when: str, step: str, die: bool
) -> None:
    written: list[str] = []

    def hook(now: str, at: str) -> None:
        if (now, at) == (when, step) and not written:
            assert scene.gateways.write(f"shop_sharded.{TABLE}", "a client's own")
            written.append("a client's own")
            if die:
                raise Died

    process = Process(scene, hook)
    try:
        process.run()
    except Died:
        process.die(gateways_too=False)
        process = Process(scene)
        if step != "publish":
            scene.ask(T.CANCEL)
            process.run()
    if scene.state is not S.CANCELLED:
        process.run()
        scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED
    assert written
    assert set(written) <= set(everywhere(scene))
    assert not scene.gateways.holds


def test_a_start_that_fails_leaves_the_table_that_was_there(scene: Scene) -> None:
    failing = [InvalidError("no")]

    def hook(when: str, step: str) -> None:
        if (when, step) == ("before", "make sequences") and failing:
            raise failing.pop()

    process = Process(scene, hook)
    process.run()
    assert scene.state is S.ERROR
    assert scene.world.rows[TARGET] == {}
    assert "taken_tables" not in scene.workflow.facts
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()
    scene.go(process, T.CANCEL)
    assert TARGET not in scene.world.rows


def test_a_start_that_dies_at_its_stream_and_is_undone_leaves_the_table_as_it_was(scene: Scene) -> None:
    """Whatever stream it has begun by then has had all the time it wants."""

    def hook(when: str, step: str) -> None:
        if (when, step) == ("after", "begin the stream"):
            for mover in process.movers.live.values():
                mover.pump()
            raise Died

    process = Process(scene, hook)
    with pytest.raises(Died):
        process.run()
    assert scene.state is S.PENDING
    process.die(gateways_too=False)
    scene.tools.unfit = "column note is missing"
    process = Process(scene)
    process.run()
    assert scene.state is S.ERROR
    assert "the tables were changed while the move began" in scene.workflow.workflow_errors
    assert scene.world.rows[TARGET] == {}
    assert not scene.world.sidecars
    scene.tools.unfit = ""
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()


def test_a_table_that_somebody_uses_is_waited_for(scene: Scene) -> None:
    process = Process(scene)
    scene.gateways.stuck = True
    for _ in range(20):
        process.tick()
    assert scene.state is S.PENDING
    assert "cannot be taken while somebody uses them" in scene.workflow.workflow_errors
    scene.gateways.stuck = False
    filled = scene.tools.filled

    def kept(*_args: object) -> list[str]:
        raise DeadlineExceededError("an open transaction keeps table orders")

    scene.tools.filled = kept  # type: ignore[method-assign]
    for _ in range(20):
        process.tick()
    assert scene.state is S.PENDING
    assert "keeps table orders" in scene.workflow.workflow_errors
    scene.tools.filled = filled  # type: ignore[method-assign]
    process.run()
    assert scene.state is S.RUNNING
    assert scene.workflow.workflow_errors == ""
