"""Every step of every plan on Vitess, and every place of its switch: interrupted, failed, undone.

The cluster and the servers are in memory, the store is a real one. Each test ends with the same question: is
every row that a client was told is written on the side that owns writes, and do cluster, store and gateways
say the same of where that is?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import ShardPlace
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch
from homeworld.workflows.move_tables.context import Context, Side
from homeworld.workflows.move_tables.vitess_plans import attached_plans, vitess_plans
from homeworld.workflows.steps import Plan
from tests.support.vitess_scene import (
    AttachedScene,
    VitessProcess,
    VitessScene,
    places,
    without_pauses,
)
from tests.support.vitess_scene import scene_at as at
from tests.support.workflow_scene import BEGINNINGS, PLANS, TABLE, Died, Scenes, writing
from tests.support.workflow_world import FakePreconditions

S, T = State, Trigger
VITESS_PLANS = vitess_plans(FakePreconditions())
ATTACHED_PLANS = attached_plans(FakePreconditions())
PLACES = ("begun", "denied", "streams made", "journaled", "routed", "started", "ended")
"""Of a switch that is Vitess's own."""
SWITCHES = (d.SWITCH_PRIMARIES, d.REVERSE_PRIMARIES)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pauses(monkeypatch)
    monkeypatch.setattr(steps_switch, "HOLD_SECONDS", 600.0)
    monkeypatch.setattr(steps_switch, "SWITCH_SECONDS", 590.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"), VitessScene)


@pytest.fixture(scope="module")
def attached(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    """On a cluster that others run, where a switch is Vitess's own."""
    return Scenes(tmp_path_factory.mktemp("attached"), AttachedScene)


@pytest.mark.parametrize("plans", [VITESS_PLANS, ATTACHED_PLANS], ids=["ours", "attached"])
def test_the_plans_are_those_of_the_other_engine(plans: Mapping[str, Plan[Context]]) -> None:
    assert set(plans) == set(PLANS)
    for name, plan in plans.items():
        assert (plan.commit, plan.forward_only) == (PLANS[name].commit, PLANS[name].forward_only)


@pytest.mark.parametrize("plan", SWITCHES)
def test_undisturbed_on_an_attached_cluster(attached: Scenes, plan: str) -> None:
    undisturbed(at(attached, plan), plan, ATTACHED_PLANS)


@pytest.mark.parametrize("plan", BEGINNINGS)
def test_undisturbed_it_ends_where_it_should_and_no_client_meets_an_error(scenes: Scenes, plan: str) -> None:
    undisturbed(at(scenes, plan), plan, VITESS_PLANS)


def undisturbed(scene: VitessScene, plan: str, plans: Mapping[str, Plan[Context]]) -> None:
    performed: list[str] = []

    def note(when: str, step: str) -> None:
        if when == "before":
            performed.append(step)

    process = scene.process(writing(scene, note))
    process.run()
    assert scene.state is BEGINNINGS[plan][2]
    assert scene.workflow.workflow_errors == ""
    assert performed == [step.name for step in plans[plan].steps]
    scene.write()
    process.run()
    scene.check()
    assert not scene.gateways.refused


@pytest.mark.parametrize("kind", ["scenes", "attached"])
def test_a_whole_life(request: pytest.FixtureRequest, kind: str) -> None:
    scene = request.getfixturevalue(kind).new()
    process = scene.process(writing(scene))
    process.run()
    scene.go(
        process, T.VERIFY_DATA, T.SWITCH_REPLICAS, T.REVERSE_TRAFFIC, T.SWITCH_PRIMARIES, T.REVERSE_TRAFFIC,
        T.SWITCH_PRIMARIES,
    )  # fmt: skip
    scene.name = f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER)
    assert ("shop", TABLE) not in scene.world.rows
    scene.go(process, T.REVERSE_CUTOVER, T.CUTOVER, T.COMPLETE)
    assert scene.state is S.COMPLETED
    scene.check()


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("place", PLACES)
def test_killed_within_the_switch_of_vitess_it_ends_the_same(attached: Scenes, plan: str, place: str) -> None:
    scene = at(attached, plan)

    def die(now: str) -> None:
        if now == place:
            raise Died

    first = scene.process(writing(scene), die)
    with pytest.raises(Died):
        first.run()
    first.die(gateways_too=False)
    scene.write()
    scene.gateways.expire()
    scene.write()
    second = scene.process(writing(scene))
    second.run()
    assert scene.state is BEGINNINGS[plan][2]
    assert scene.workflow.workflow_errors == ""
    scene.write()
    second.run()
    scene.check()


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("place", PLACES)
def test_a_switch_that_breaks_off_goes_on_or_back(attached: Scenes, plan: str, place: str) -> None:
    scene = at(attached, plan)
    process = scene.process(writing(scene), places([place]))
    process.run()
    _, _, end, early = BEGINNINGS[plan]
    assert scene.state is (end if place == "ended" else early)
    if scene.state is early:
        assert place in scene.workflow.workflow_errors
        scene.ask(T.SWITCH_PRIMARIES if plan == d.SWITCH_PRIMARIES else T.REVERSE_TRAFFIC)
        process.run()
    assert scene.state is end
    scene.write()
    process.run()
    scene.check()


@pytest.mark.parametrize("place", PLACES)
def test_killed_within_the_switch_and_refused_afterwards_it_still_ends(attached: Scenes, place: str) -> None:
    """What has become untrue meanwhile must not hold up what Vitess has begun."""
    scene = at(attached, d.SWITCH_PRIMARIES)

    def die(now: str) -> None:
        if now == place:
            raise Died

    with pytest.raises(Died):
        scene.process(writing(scene), die).run()
    scene.gateways.expire()
    scene.preconditions.found = ("a table has a trigger by now",)
    second = scene.process(writing(scene))
    second.run()
    refused = place == "begun"  # nothing has happened yet
    assert scene.state is (S.RUNNING if refused else S.SWITCHED_PRIMARIES)
    scene.write()
    second.run()
    scene.check()


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("broken", [False, True])
def test_ids_are_raised_again_where_the_hold_broke(attached: Scenes, plan: str, broken: bool) -> None:
    """Clients may have been given some between the raise and the switch."""
    scene = at(attached, plan)
    before = len(scene.used_up)

    def expire(now: str) -> None:
        if broken and now == "ended":
            scene.gateways.expire()

    scene.process(writing(scene), expire).run()
    assert scene.state is BEGINNINGS[plan][2]
    raised = scene.used_up[before:]
    back = plan == d.REVERSE_PRIMARIES  # AUTO_INCREMENT gives them there, and has no block in hand
    assert raised == ([] if back else [[("shop", f"{TABLE}_seq")]] * (2 if broken else 1))


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("plan", "origin"), [*zip(SWITCHES, ("shop", "shop_sharded"), strict=True)])
def test_streams_are_made_to_say_where_they_are_behind_all_that_is_written_under_the_hold(
    attached: Scenes, monkeypatch: pytest.MonkeyPatch, plan: str, origin: str, shared: bool
) -> None:
    """Not where both sides share a server: there a stream adds to the log by saying it."""
    scene, owner = at(attached, plan), Context.owner

    def apart(context: Context, side: Side) -> tuple[ShardPlace, ...]:
        return tuple(
            replace(place, endpoint=replace(place.endpoint, server_id=side.name))
            for place in owner(context, side)
        )

    if not shared:
        monkeypatch.setattr(Context, "owner", apart)
    scene.world.calls.clear()
    steps: list[str] = []

    def note(when: str, step: str) -> None:
        if when == "before":
            steps.append(f"{step}: {' '.join(scene.world.calls)}")
            scene.world.calls.clear()

    scene.process(note).run()
    (at_switch,) = [step for step in steps if step.startswith("switch in Vitess")]
    assert at_switch == f"switch in Vitess: {'' if shared else f'mark {origin}'}"


def test_while_vitess_moves_writes_nobody_lets_go_of_the_hold(attached: Scenes) -> None:
    """Nobody can stop Vitess then: whoever stops this process must not let clients meet it."""
    scene = at(attached, d.SWITCH_PRIMARIES)
    held: list[bool] = []

    def loosen(now: str) -> None:
        process.handler.loosen(scene.id)
        held.append(bool(scene.gateways.holds))

    process = scene.process(writing(scene), loosen)
    process.run()
    assert held == [True] * len(PLACES)
    assert scene.state is S.SWITCHED_PRIMARIES
    assert not scene.gateways.refused
    scene.check()


def test_cancel_brings_back_what_vitess_moved_behind_our_back(scenes: Scenes) -> None:
    """A worker that was stopped before it asked Vitess, and woke up when nobody wanted it any more."""
    scene = at(scenes, d.CANCEL)
    process = scene.process(writing(scene))
    move = scene.known(scene.id).move
    process.moves.switch_primaries(move, back=False, timeout_seconds=1.0)
    process.run()
    assert scene.state is S.CANCELLED
    assert ("shop_sharded", TABLE) not in scene.world.rows
    scene.write()
    scene.check()


def test_streams_outlive_the_process_and_are_found_again(scenes: Scenes) -> None:
    scene = scenes.new()
    assert isinstance(scene, VitessScene)
    first = scene.process()
    first.run()
    epoch = scene.workflow.epoch
    first.handler.let_go(scene.id)
    assert scene.world.cluster.forward is not None
    assert scene.world.cluster.forward.state == "running"
    scene.write()
    second = scene.process()
    second.run()
    assert scene.workflow.epoch == epoch, "nothing was started anew"
    scene.go(second, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA


def test_what_was_stopped_stays_stopped_in_another_process(scenes: Scenes) -> None:
    scene = scenes.new()
    assert isinstance(scene, VitessScene)
    first = scene.process()
    first.run()
    scene.ask(T.STOP)
    second: VitessProcess = scene.process()  # the first died before it stopped anything
    for _ in range(10):
        second.tick()
    assert second.moves.cluster.forward is not None
    assert second.moves.cluster.forward.state == "stopped"
    assert scene.state is S.STOPPED


@pytest.mark.parametrize(("again", "end"), [("", S.RUNNING), ("9", S.STOPPED)], ids=["goes-on", "met-again"])
def test_a_schema_statement_is_told_once_and_again_further_on(scenes: Scenes, again: str, end: State) -> None:
    """Whoever asks to go on has been told; that the streams still stand there is no news to a new process.
    The same statement at another position is another one.
    """
    scene = scenes.new()
    assert isinstance(scene, VitessScene)
    first = scene.process()
    first.run()
    streams = scene.world.cluster.forward
    assert streams is not None
    statement = f"alter table {TABLE} add column note int"
    streams.meet(statement, "7")
    first.run()
    assert (scene.state, scene.workflow.workflow_errors) == (S.STOPPED, statement)
    assert scene.workflow.facts["ddl_at"] == "7"
    scene.ask(T.RETRY)
    if again:
        for _ in range(50):
            if streams.state == "ddl":
                first.tick()
        assert streams.state == "running"
        streams.meet(statement, again)
    first.handler.let_go(scene.id)
    second: VitessProcess = scene.process()
    second.run()
    assert scene.state is end
    assert streams.state == ("ddl" if again else "running")
    if again:
        assert scene.workflow.facts["ddl_at"] == again
        scene.ask(T.RETRY)
        second.run()
        assert (scene.state, streams.state) == (S.RUNNING, "running")
    scene.write()
    second.run()
    scene.check()
