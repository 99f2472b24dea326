"""What a workflow meets on its way: cancels, stragglers, lost leases, failing streams, schema changes.

The servers are in memory, the store is a real one; see test_workflow_steps for every single step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace

import pytest

from homeworld.model.errors import FencedError, TransitionRefusedError, UnavailableError
from homeworld.model.movers import MoverProgress, MoverSpec, Verification
from homeworld.model.states.move_tables import State, Trigger
from homeworld.store.journal import StepStatus
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch
from homeworld.workflows.steps import Sort
from tests.support.workflow_scene import (
    BEGINNINGS,
    PLANS,
    TABLE,
    Died,
    Process,
    Scene,
    Scenes,
    essence,
    writing,
)
from tests.support.workflow_world import (
    FakeMover,
    failed,
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


def test_the_whole_walk_with_a_client_that_never_stops(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene, writing(scene))
    process.run()
    for _ in range(5):
        scene.go(process, T.SWITCH_PRIMARIES, T.REVERSE_TRAFFIC)
        scene.check()
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA
    scene.go(process, T.SWITCH_REPLICAS, T.SWITCH_PRIMARIES)
    scene.name = f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER)
    assert ("shop", TABLE) not in scene.world.rows
    assert scene.gateways.rules == {}
    scene.go(process, T.REVERSE_CUTOVER)
    assert scene.gateways.rules[f"shop.{TABLE}"] == f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER)
    assert scene.gateways.rules == {}
    scene.go(process, T.COMPLETE)
    assert scene.state is S.COMPLETED
    assert not scene.world.sidecars
    assert scene.waited > 0, "the client met holds"
    scene.check()


def test_cancel_takes_everything_back_from_where_traffic_is(make_scene: Callable[[], Scene]) -> None:
    for way in ((), (T.VERIFY_DATA,), (T.SWITCH_REPLICAS,), (T.SWITCH_PRIMARIES,)):
        scene = make_scene()
        before = essence(scene)
        process = Process(scene, writing(scene))
        process.run()
        scene.go(process, *way, T.CANCEL)
        assert scene.state is S.CANCELLED
        assert essence(scene)[:3] == before[:3]  # type: ignore[index]
        assert not scene.world.sequences
        assert not scene.world.sidecars
        assert not scene.workflow.primaries_switched
        scene.check()


def test_cancel_while_starting_or_copying(make_scene: Callable[[], Scene]) -> None:
    for step in PLANS[d.START].steps:
        scene = make_scene()
        before = essence(scene)

        def kill(when: str, at: str, name: str = step.name) -> None:
            if (when, at) == ("after", name):
                raise Died

        first = Process(scene, kill)
        with pytest.raises(Died):
            first.run()
        first.die(gateways_too=True)
        scene.go(Process(scene), T.CANCEL)
        assert scene.state is S.CANCELLED
        assert essence(scene)[:3] == before[:3]  # type: ignore[index]
        scene.check()


def test_complete_right_after_reverse_cutover_settles_what_was_asked(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.SWITCH_PRIMARIES, T.CUTOVER)
    scene.ask(T.REVERSE_CUTOVER)
    scene.ask(T.COMPLETE)
    process.run()
    assert scene.workflow.settled
    assert scene.gateways.rules[TABLE] == f"shop_sharded.{TABLE}"


def test_a_workflow_begins_only_once_the_completed_one_has_settled(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    first = Process(scene)
    first.run()
    scene.go(first, T.SWITCH_PRIMARIES, T.CUTOVER)
    scene.ask(T.REVERSE_CUTOVER)
    scene.ask(T.COMPLETE)
    shop = scene.shop
    with scene.store.write() as tx:
        back = tx.workflows.create(
            shop.database.id, shop.branch.id, "back", shop.target.id, shop.source.id, [TABLE]
        )
    other = Scene(scene.store, shop, back.id, scene.world)
    other.gateways = scene.gateways
    second = Process(other)
    for _ in range(20):
        second.tick()
    assert (other.state, other.workflow.rules_before) == (S.PENDING, None)
    assert "being settled" in other.workflow.workflow_errors
    first.run()
    settled = dict(scene.gateways.rules)
    assert settled[f"shop.{TABLE}"] == f"shop_sharded.{TABLE}"
    second.run()
    assert other.state is S.RUNNING
    other.go(second, T.CANCEL)
    assert scene.gateways.rules == settled, "as the one before has left them"
    other.write()
    scene.check()


def test_a_hold_that_is_not_had_in_time_changes_nothing(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    scene.gateways.stuck = True
    process = Process(scene, writing(scene))
    process.run()
    assert scene.state is S.RUNNING
    assert "did not end in time" in scene.workflow.workflow_errors
    scene.gateways.stuck = False
    scene.go(process, T.SWITCH_PRIMARIES)
    assert scene.state is S.SWITCHED_PRIMARIES
    assert scene.workflow.workflow_errors == ""
    scene.check()


def test_a_hold_that_a_gateway_gave_up_before_the_commit_fails_the_switch(
    scenes: Scenes,
) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)

    def expire(when: str, step: str) -> None:
        if (when, step) == ("after", "read positions"):
            scene.gateways.expire()

    process = Process(scene, writing(scene, expire))
    process.run()
    assert scene.state is S.RUNNING
    assert "released the hold" in scene.workflow.workflow_errors
    scene.check()


@pytest.mark.parametrize("ended", [False, True], ids=["by its mover", "by another, as that one has ended"])
def test_a_straggler_between_commit_and_publication_is_swept_to_the_target(
    scenes: Scenes, ended: bool
) -> None:
    acting: list[Process] = []
    for plan in (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES):
        scene = scenes.at(plan)
        straggled: list[int] = []

        def straggle(when: str, step: str, scene: Scene = scene, straggled: list[int] = straggled) -> None:
            if (when, step) == ("before", "publish"):
                scene.gateways.expire()
                scene.world.locked.clear()  # as if the lock's connection had been lost, too
                written = scene.world.written
                scene.write()
                straggled.append(scene.world.written - written)
                for mover in acting[-1].movers.live.values() if ended else ():
                    mover.fault = failed("lost connection")

        process = Process(scene, straggle)
        acting.append(process)
        process.run()
        assert straggled == [1]
        assert scene.state is BEGINNINGS[plan][2]
        process.run()
        scene.check()


def test_a_release_that_fails_once_is_done_again(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    release = scene.gateways.release
    failures = [UnavailableError("a gateway does not answer")]

    def fails_once(hold_id: str) -> None:
        if scene.state is S.SWITCHING_PRIMARIES and scene.workflow.primaries_switched and failures:
            raise failures.pop()
        release(hold_id)

    monkeypatch.setattr(scene.gateways, "release", fails_once)
    Process(scene, writing(scene)).run()
    assert not failures
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.check()


def test_lagging_replicas_hold_a_switch_back(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_REPLICAS)
    scene.engine.lagging = True
    process = Process(scene)
    process.run()
    assert scene.state is S.RUNNING
    assert "lags" in scene.workflow.workflow_errors
    assert not scene.workflow.replicas_switched


def test_preconditions_are_asked_again_before_anything_is_made(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    scene.preconditions.found = ("table orders has the trigger t1", "and more")
    process = Process(scene)
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.workflow_errors == "table orders has the trigger t1; and more"
    assert ("shop_sharded", TABLE) not in scene.world.rows
    scene.preconditions.found = ()
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING


def test_a_target_table_that_got_rows_meanwhile_is_neither_used_nor_dropped(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    scene.world.rows["shop_sharded", TABLE] = {1: "somebody's"}
    process = Process(scene)
    process.run()
    assert scene.state is S.ERROR
    assert "is not empty" in scene.workflow.workflow_errors
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED
    assert scene.world.rows["shop_sharded", TABLE] == {1: "somebody's"}


def test_an_executor_whose_lease_was_taken_cannot_commit(scenes: Scenes) -> None:
    for step in PLANS[d.SWITCH_PRIMARIES].steps:
        scene = scenes.at(d.SWITCH_PRIMARIES)
        first: Process

        def take(when: str, at: str, scene: Scene = scene, name: str = step.name) -> None:
            if (when, at) == ("before", name):
                with scene.store.write() as tx:
                    assert tx.leases.acquire(f"workflow:{scene.id}", "me", 1000.0)

        first = Process(scene, writing(scene, take))
        with pytest.raises(FencedError):
            first.run()
        first.handler.let_go(scene.id)
        second = Process(scene, writing(scene))
        second.run()
        assert scene.state is S.SWITCHED_PRIMARIES
        scene.write()
        second.run()
        scene.check()


def test_what_was_done_under_a_lost_lease_is_not_remembered_under_the_next(scenes: Scenes) -> None:
    """The step names of a switch and of its way back are the same, and so is the memory of who did them."""
    scene = scenes.at(d.SWITCH_PRIMARIES)

    def late(when: str, step: str) -> None:
        if (when, step) == ("before", "publish"):
            raise UnavailableError("a gateway does not answer")

    first = Process(scene, late)
    while not scene.workflow.primaries_switched:
        first.tick()
    # Its lease is lost while it rests before another try.
    first.handler.lost(scene.id)
    scene.world.locked.clear()  # here locks for reading exclude each other

    def die(when: str, step: str) -> None:
        if (when, step) == ("before", "hold") and scene.state is S.REVERSING_TRAFFIC:
            raise Died

    second = Process(scene, writing(scene, die))
    second.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.ask(T.REVERSE_TRAFFIC)
    with pytest.raises(Died):
        second.run()
    second.die(gateways_too=False)
    scene.write()
    first.take()
    with contextlib.suppress(UnavailableError):
        for _ in range(20):
            first.tick()
    assert "drain reverse" in scene.world.calls, "it holds, fences and drains anew"
    first.handler.let_go(scene.id)
    third = Process(scene, writing(scene))
    third.run()
    scene.check()


def test_a_failing_stream_is_restarted_under_a_new_epoch(
    make_scene: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    scene = make_scene()
    process = Process(scene)
    process.run()
    epoch = scene.workflow.epoch
    for _ in range(d.FAILURES - 1):
        mover = process.movers.running(scene.id, "forward")
        assert mover is not None
        mover.fault = failed("no such function")
        process.run()
        process.run()
    assert scene.state is S.RUNNING
    assert scene.workflow.epoch > epoch
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = failed("no such function")
    process.run()
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.workflow_errors == "no such function"
    assert scene.workflow.may_retry
    assert scene.workflow.lag_seconds is None
    scene.write()
    scene.go(process, T.RETRY)
    process.run()
    assert scene.state is S.RUNNING
    scene.check()


def test_a_stream_that_does_not_run_is_told_until_it_does(
    make_scene: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 30.0)
    monkeypatch.setattr(trouble, "LONGEST_OUTAGE_SECONDS", 600.0)
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = replace(failed("lost connection"), outage=True)
    process.run()
    process.run()
    assert scene.workflow.workflow_errors == d.NOT_RUNNING.format("forward") + "lost connection"
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    process.run()
    process.run()
    assert process.movers.running(scene.id, "forward") is not None
    assert scene.workflow.workflow_errors == ""


def test_a_verification_does_not_wait_for_an_outage_to_end(
    make_scene: Callable[[], Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    scene = make_scene()
    process = Process(scene)
    process.run()
    start = process.movers.start

    def out(spec: MoverSpec) -> FakeMover:
        if scene.state is S.RUNNING:
            monkeypatch.setattr(trouble, "FIRST_SECONDS", 30.0)
            monkeypatch.setattr(trouble, "LONGEST_OUTAGE_SECONDS", 600.0)
        raise UnavailableError("the server does not answer")

    process.movers.start = out  # type: ignore[method-assign]
    scene.ask(T.VERIFY_DATA)
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = replace(failed("lost connection"), outage=True)
    process.run()
    assert scene.state is S.RUNNING
    told = "the data could not be verified: the server does not answer"
    assert scene.workflow.workflow_errors.startswith(told)
    assert "forward stream does not run" in scene.workflow.workflow_errors
    process.movers.start = start  # type: ignore[method-assign]
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)
    process.run()
    process.run()
    assert scene.workflow.workflow_errors == told
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA


def test_an_outage_is_waited_for_and_nothing_is_undone(scenes: Scenes) -> None:
    scene = scenes.at(d.START)
    left = [d.FAILURES * 2]

    def fail(when: str, at: str) -> None:
        if when == "before" and at == "make sequences" and left[0]:
            left[0] -= 1
            raise UnavailableError("the server does not answer")
        assert when != "undo"

    Process(scene, fail).run()
    assert left == [0]
    assert scene.state is S.RUNNING
    scene.check()


def test_a_stream_that_cannot_go_on_says_that_only_copying_anew_helps(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = failed("binlogs are purged", retryable=False)
    process.run()
    assert scene.state is S.ERROR
    assert scene.workflow.may_restart
    assert not scene.workflow.may_retry
    assert process.movers.running(scene.id, "forward") is None
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED


def test_a_cancel_that_comes_while_the_copy_ends_wins(scenes: Scenes) -> None:
    scene = scenes.at(d.START)
    process = Process(scene)
    start = process.movers.start

    def begin(spec: MoverSpec) -> FakeMover:
        mover = start(spec)
        progress = mover.progress

        def ask() -> MoverProgress:
            if scene.state is S.COPYING:
                scene.ask(T.CANCEL)
            return progress()

        mover.progress = ask  # type: ignore[method-assign]
        return mover

    process.movers.start = begin  # type: ignore[method-assign]
    process.run()
    assert scene.state is S.CANCELLED
    scene.check()


def test_differences_are_told_and_the_workflow_runs_on(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.world.rows["shop_sharded", TABLE][1] = "not what the source has"
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.RUNNING
    assert "1 differ" in scene.workflow.workflow_errors
    assert not scene.workflow.verified
    with scene.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([scene.id])[scene.id]
    assert vdiff.has_mismatch


def test_differences_hold_switches_back_until_a_later_verification_is_equal(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    target = scene.world.rows["shop_sharded", TABLE]
    right, target[1] = target[1], "not what the source has"
    scene.go(process, T.VERIFY_DATA)
    for action in (T.SWITCH_REPLICAS, T.SWITCH_PRIMARIES):
        with pytest.raises(TransitionRefusedError, match="found differences; verify the data again"):
            scene.ask(action)
    # A later one that does not come to its end says nothing of the data.
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.verify = lambda verify_id, **_: setattr(  # type: ignore[method-assign]
        mover, "verification", Verification(verify_id, "error", 0, 0, 0.0, (), "it was too late")
    )
    scene.go(process, T.VERIFY_DATA)
    process.run()
    assert scene.state is S.RUNNING
    assert "it was too late" in scene.workflow.workflow_errors
    assert "1 differ" in scene.workflow.workflow_errors
    with pytest.raises(TransitionRefusedError, match="found differences"):
        scene.ask(T.SWITCH_PRIMARIES)
    target[1] = right
    process.die(gateways_too=False)
    process = Process(scene)
    process.run()
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA
    assert scene.workflow.workflow_errors == ""
    scene.go(process, T.SWITCH_PRIMARIES)
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.check()


def test_verification_goes_stale_with_any_restarted_stream(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.VERIFY_DATA)
    assert scene.workflow.verified
    process.die(gateways_too=False)
    Process(scene).run()
    assert scene.state is S.VERIFIED_DATA
    assert not scene.workflow.verified


def test_the_journal_has_every_step_of_a_finished_run(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    Process(scene).run()
    number = scene.workflow.facts["runs"]
    with scene.store.read() as tx:
        records = tx.journal.steps(scene.id, f"{d.SWITCH_PRIMARIES}:{number}")
    assert {record.step for record in records} == {step.name for step in PLANS[d.SWITCH_PRIMARIES].steps}
    assert {record.status for record in records} == {StepStatus.DONE}


def test_the_store_is_written_once_under_the_hold(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    commits: list[str] = []
    scene.store.listen(lambda: commits.append(",".join(scene.gateways.holds)))
    Process(scene).run()
    assert sum(1 for held in commits if held) == 1
    assert any(step.sort is Sort.COMMIT for step in PLANS[d.SWITCH_PRIMARIES].steps)


def test_a_shard_that_got_another_primary_is_not_switched_by_what_the_former_one_had(scenes: Scenes) -> None:
    scene = scenes.at(d.SWITCH_PRIMARIES)
    commits: list[str] = []

    def hook(when: str, step: str) -> None:
        if (when, step) != ("before", "commit"):
            return
        commits.append(scene.state)
        if len(commits) == 1:
            with scene.store.write() as tx:
                former = tx.servers.get(tx.keyspaces.shards(scene.shop.source.id)[0].primary_server_id or "")
                heir = tx.servers.create(former.branch_id, former.flavor, replica_of=former.id)
                tx.servers.promote(heir.id)

    process = Process(scene, hook)
    process.run()
    if scene.state is S.RUNNING:
        assert "another primary by now" in scene.workflow.workflow_errors
        scene.go(process, T.SWITCH_PRIMARIES)
    assert scene.state is S.SWITCHED_PRIMARIES
    assert len(commits) == 2, "all was done again, at the new one"
    scene.check()
