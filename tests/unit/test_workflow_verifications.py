"""A verification as its workflow sees it: gone on with after a death, ended with a reason where it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from homeworld.model.errors import TransitionRefusedError
from homeworld.model.movers import TableVerification, Verification
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.guards import REPAIR
from homeworld.store.progress import VDiff
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import progress
from tests.support.workflow_scene import TABLE, Process, Scene, Scenes
from tests.support.workflow_world import FakeMover, failed

T, S = Trigger, State


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def make_scene(scenes: Scenes) -> Callable[[], Scene]:
    return scenes.new


def vdiff(scene: Scene) -> VDiff:
    with scene.store.read() as tx:
        return tx.progress.newest_vdiffs([scene.id])[scene.id]


def under_way(scene: Scene, process: Process) -> FakeMover:
    """A verification that does not come to its end."""
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None

    def begin(verify_id: str, *, repair: bool = False) -> None:
        assert not repair
        table = TableVerification(TABLE, 1, 0, 0, 0, 0, rows_total=5, state="started")
        mover.verification = Verification(verify_id, "started", 1, 5, 2.0, (table,))

    mover.verify = begin  # type: ignore[method-assign]
    scene.ask(T.VERIFY_DATA)
    look(process)
    assert scene.state is S.VERIFYING_DATA
    assert vdiff(scene).state == "started"
    return mover


def look(process: Process) -> None:
    """As often as is enough for whatever there is to do."""
    for _ in range(10):
        process.tick()


def test_it_is_gone_on_with_by_the_next_stream(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = under_way(scene, process)
    begun = vdiff(scene)
    mover.fault = failed("lost connection")
    process.run()
    process.run()
    assert scene.state is S.VERIFIED_DATA
    assert scene.workflow.verified
    ended = vdiff(scene)
    assert (ended.id, ended.state, ended.has_mismatch) == (begun.id, "completed", False)
    assert ended.started_at == begun.started_at


def test_it_is_gone_on_with_by_the_next_process(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    under_way(scene, process)
    begun = vdiff(scene)
    process.die(gateways_too=False)
    process = Process(scene)
    process.run()
    assert scene.state is S.VERIFIED_DATA
    assert (vdiff(scene).id, vdiff(scene).state) == (begun.id, "completed")
    # Asked for again, it is another one.
    scene.go(process, T.VERIFY_DATA)
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    assert mover.verification is not None
    assert mover.verification.verify_id != begun.id


@pytest.mark.parametrize("state", ["started", "completed", "error"])
def test_a_schema_statement_in_between_has_it_begun_anew(make_scene: Callable[[], Scene], state: str) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = under_way(scene, process)
    begun = vdiff(scene)
    assert mover.verification is not None
    mover.passed += 1
    mover.verification = replace(mover.verification, state=state)
    del mover.verify
    look(process)
    if state == "started":
        assert scene.state is S.VERIFYING_DATA  # it is waited for: it notices by itself
        return
    assert scene.state is S.VERIFIED_DATA
    with scene.store.read() as tx:
        reports = tx.progress.reports_of([begun.id])
    newest = process.movers.running(scene.id, "forward")
    assert newest is not None
    assert newest.verification is not None
    assert newest.verification.verify_id != begun.id
    assert [report.state for report in reports] in ([], ["started"])


def test_it_never_stays_open(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = under_way(scene, process)
    mover.fault = failed("the log was purged", retryable=False)
    process.run()
    assert scene.state is S.ERROR
    ended = vdiff(scene)
    assert (ended.state, ended.error) == ("error", "the log was purged")
    assert ended.completed_at is not None


def test_what_it_found_before_it_broke_off_holds_switches_back(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = under_way(scene, process)
    assert mover.verification is not None
    found = TableVerification(TABLE, 1, 1, 0, 0, 0, rows_total=5, state="error")
    mover.verification = replace(
        mover.verification, state="error", error="shard k/-80 does not answer", tables=(found,)
    )
    process.run()
    assert scene.state is S.RUNNING
    assert "could not be verified: shard k/-80 does not answer" in scene.workflow.workflow_errors
    assert "1 differ" in scene.workflow.workflow_errors
    assert (vdiff(scene).state, vdiff(scene).has_mismatch) == ("error", True)
    with pytest.raises(TransitionRefusedError, match="found differences"):
        scene.ask(T.SWITCH_PRIMARIES)


def test_a_repair_is_asked_of_the_stream_once(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    asked: list[bool] = []
    verify = mover.verify

    def begin(verify_id: str, *, repair: bool = False) -> None:
        asked.append(repair)
        verify(verify_id)

    mover.verify = begin  # type: ignore[method-assign]
    with scene.store.write() as tx:
        tx.workflows.update(scene.id, facts={**scene.workflow.facts, REPAIR: True})
    scene.go(process, T.VERIFY_DATA)
    scene.go(process, T.VERIFY_DATA)
    assert asked == [True, False]
    assert REPAIR not in scene.workflow.facts
