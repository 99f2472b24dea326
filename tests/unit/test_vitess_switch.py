"""A switch of writes on a cluster that only we use: rules make it, and Vitess makes it once more behind them.

Killed, failed and held up at every place, with clients that write all the time: no row is lost, neither there
nor where traffic goes back.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager

import pytest

from homeworld.model.errors import DeadlineExceededError, UnavailableError
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.topology import ShardPlace, TabletType
from homeworld.workflows.move_tables import decide as d
from homeworld.workflows.move_tables import steps_switch, vitess_switch
from homeworld.workflows.move_tables.tools import VitessStream
from tests.support import vitess_scene
from tests.support.vitess_fakes import NUMBERS, UUID, VitessWorld
from tests.support.vitess_scene import (
    AttachedScene,
    VitessProcess,
    VitessScene,
    VitessTools,
    without_pauses,
)
from tests.support.vitess_scene import scene_at as at
from tests.support.workflow_scene import BEGINNINGS, TABLE, Died, Scenes, writing

S, T = State, Trigger
BEHIND = ("begun", "denied", "streams made", "journaled", "ended", "placed", "cancelled")
"""Places of a switch that Vitess makes behind the rules."""
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


# -- on a cluster of ours: Vitess makes the switch behind the rules ------------------------------------------


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("place", BEHIND)
@pytest.mark.parametrize("how", ["killed", "fails"])
def test_what_happens_behind_a_switch_costs_no_row(scenes: Scenes, plan: str, place: str, how: str) -> None:
    """Clients write all the time; afterwards traffic goes back, to where the streams have brought it all."""
    scene = at(scenes, plan)
    done: list[str] = []

    def disturb(now: str) -> None:
        scene.write()
        if place == "cancelled" and now == "streams made" and not done:
            raise UnavailableError("failed to sync up replication")  # Vitess takes back what it did
        if now == place and not done:
            done.append(now)
            if how == "killed":
                raise Died
            raise UnavailableError(f"nobody answers at {now}")

    first = scene.process(writing(scene), disturb)
    if how == "killed":
        with pytest.raises(Died):
            first.run()
        first.die(gateways_too=False)
        scene.write()
        scene.gateways.expire()
        scene.write()
        first = scene.process(writing(scene))
    first.run()
    assert done == [place]
    assert scene.state is BEGINNINGS[plan][2]
    assert scene.workflow.workflow_errors == ""
    # Where Vitess takes back what it did it denies clients writes until homeworld sees to it; vtgate waits.
    taken_back = place == "cancelled" or (how == "fails" and place in BEHIND[:3])
    if not taken_back:
        assert not scene.gateways.refused
    scene.write()
    first.run()
    scene.check()
    there_and_back(scene, first, plan)


def there_and_back(scene: VitessScene, process: VitessProcess, plan: str) -> None:
    """What streams have missed would be missing once traffic has gone back."""
    back = (T.REVERSE_TRAFFIC, T.SWITCH_PRIMARIES)
    scene.go(process, *(back if plan == d.SWITCH_PRIMARIES else back[::-1]))
    scene.write()
    process.run()
    scene.check()
    left, right = (scene.world.rows[keyspace, TABLE] for keyspace in ("shop", "shop_sharded"))
    scene.world.pump("shop", "shop_sharded")
    assert left == right


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("step", ["publish", "sweep", "set the rules in Vitess", "release"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("how", ["breaks", "killed"])
def test_a_hold_that_breaks_behind_the_commit_costs_no_row(
    scenes: Scenes, plan: str, step: str, when: str, how: str
) -> None:
    """Until every gateway has left the origin clients may write there; the other side's streams begin behind
    what is carried over of that.
    """
    scene = at(scenes, plan)
    done: list[str] = []

    def disturb(now: str, name: str) -> None:
        if (now, name) == (when, step) and not done:
            done.append(name)
            scene.gateways.expire()
            if how == "killed":
                raise Died

    process = scene.process(writing(scene, disturb))
    if how == "killed":
        with pytest.raises(Died):
            process.run()
        process.die(gateways_too=False)
        for _ in range(3):
            scene.write()
        process = scene.process(writing(scene))
    process.run()
    assert done
    assert scene.state is BEGINNINGS[plan][2]
    assert not scene.gateways.refused
    scene.write()
    process.run()
    scene.check()
    there_and_back(scene, process, plan)


@pytest.mark.parametrize("plan", SWITCHES)
def test_vitess_is_told_of_the_other_side_last(scenes: Scenes, plan: str) -> None:
    """When everything that was written to the origin is there, and no gateway would let anything go there."""
    scene = at(scenes, plan)
    origin, to = ("shop", "shop_sharded") if plan == d.SWITCH_PRIMARIES else ("shop_sharded", "shop")
    seen: list[str] = []

    def watch(when: str, step: str) -> None:
        leads = scene.world.cluster.rules.get(f"{origin}.{TABLE}", origin).partition(".")[0]
        if leads != to:
            return
        if not seen:
            assert (when, step) == ("after", "set the rules in Vitess")
            assert scene.gateways.closed
            assert scene.world.rows[origin, TABLE] == scene.world.rows[to, TABLE]
            assert origin in scene.world.locked
        seen.append(step)

    scene.process(writing(scene, watch)).run()
    assert seen[-1] == "stop the stream"
    assert scene.world.calls.count(f"end blocked {origin}") == 1
    scene.check()


def test_what_somebody_switched_in_vitess_is_taken_back_first(scenes: Scenes) -> None:
    """As a worker of before that was stopped before it asked, and woke up when nobody wanted it any more."""
    scene = at(scenes, d.SWITCH_PRIMARIES)
    looked: list[str] = []

    def write(when: str, step: str) -> None:
        if looked or (when, step) == ("after", "ask Vitess"):  # whoever switched so has raised no ids
            looked.append(step)
            scene.write()

    process = scene.process(write)
    process.moves.switch_primaries(scene.known(scene.id).move, back=False, timeout_seconds=1.0)
    process.run()
    assert looked
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.write()
    process.run()
    scene.check()
    there_and_back(scene, process, d.SWITCH_PRIMARIES)


@pytest.mark.parametrize("plan", SWITCHES)
@pytest.mark.parametrize("step", ["get ready", "hold", "fence", "drain", "read positions", "still held"])
def test_what_fails_before_the_commit_leaves_vitess_as_it_was(scenes: Scenes, plan: str, step: str) -> None:
    scene = at(scenes, plan)
    before = {name: to for name, to in scene.world.cluster.rules.items() if "@" not in name}

    def fail(when: str, name: str) -> None:
        if (when, name) == ("after", step):
            raise DeadlineExceededError("too late")

    process = scene.process(writing(scene, fail))
    process.run()
    assert scene.state is BEGINNINGS[plan][3]
    assert "too late" in scene.workflow.workflow_errors
    assert {name: to for name, to in scene.world.cluster.rules.items() if "@" not in name} == before
    assert not scene.world.claimed
    scene.write()
    process.run()
    scene.check()


def test_writes_are_held_with_replica_reads_or_without(scenes: Scenes) -> None:
    scene = at(scenes, d.SWITCH_PRIMARIES)
    scene.process(writing(scene)).run()
    (request,) = scene.gateways.asked
    assert request.tablet_types == frozenset(TabletType)
    assert request.tables == {("shop", TABLE), ("shop_sharded", TABLE)}
    scene = at(scenes, d.SWITCH_PRIMARIES)
    scene.gateways.stuck_for = frozenset({TabletType.REPLICA})  # as where a report takes an hour
    process = scene.process(writing(scene))
    process.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    _, request = scene.gateways.asked
    assert (request.tablet_types, request.tables) == ({TabletType.PRIMARY}, {("shop", TABLE)})
    scene.write()
    process.run()
    scene.check()


@pytest.mark.parametrize("stuck", [False, True])
@pytest.mark.parametrize("plan", [d.SWITCH_REPLICAS, d.REVERSE_REPLICAS])
def test_replica_reads_wait_for_a_moment_and_writes_do_not(scenes: Scenes, plan: str, stuck: bool) -> None:
    scene = at(scenes, plan)
    before = scene.waited
    if stuck:
        scene.gateways.stuck_for = frozenset({TabletType.REPLICA})
    process = scene.process(writing(scene))
    process.run()
    assert scene.state is BEGINNINGS[plan][2]
    (request,) = scene.gateways.asked
    assert request.tablet_types == {TabletType.REPLICA, TabletType.RDONLY}
    assert scene.waited == before
    scene.check()


@pytest.mark.parametrize("plan", SWITCHES)
def test_on_an_attached_cluster_replica_reads_do_not_wait(attached: Scenes, plan: str) -> None:
    """A switch by Vitess takes two seconds."""
    scene = at(attached, plan)
    scene.process(writing(scene)).run()
    assert {kind for request in scene.gateways.asked for kind in request.tablet_types} == {TabletType.PRIMARY}


def test_a_drain_waits_for_every_stream_to_have_what_its_own_source_wrote(
    scenes: Scenes, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = at(scenes, d.REVERSE_PRIMARIES)
    first, second = (UUID[:-1] + end for end in "12")
    finals = {"-80": f"{first}:1-5", "80-": f"{second}:1-9"}
    told = [{1: f"{first}:1-9", 2: f"{second}:1-8"}, {1: f"{first}:1-9", 2: f"{first}:1-9,{second}:1-9"}]
    looks: list[str] = []

    def positions(_tools: VitessTools, place: ShardPlace, _sidecar: str) -> dict[int, VitessStream]:
        looks.append(place.shard)
        now = told[min(len(looks), len(told)) - 1]
        return {number: VitessStream("Running", position, "") for number, position in now.items()}

    @contextmanager
    def fence(*_: object) -> Generator[Mapping[str, str]]:
        yield finals

    monkeypatch.setattr(VitessTools, "stream_positions", positions)

    def fence_of(_world: VitessWorld) -> object:
        return fence

    def end_blocked(_tools: VitessTools, _places: object, _tables: object) -> None: ...

    monkeypatch.setattr(vitess_scene, "fence_of", fence_of)
    monkeypatch.setattr(VitessTools, "end_blocked", end_blocked)
    scene.process().run()
    assert scene.state is S.RUNNING
    assert looks == ["-", "-"]


def test_a_stream_that_met_a_schema_statement_is_not_drained(scenes: Scenes) -> None:
    """It has the statement's own position then, and has not carried it out."""
    scene = at(scenes, d.SWITCH_PRIMARIES)

    def meet(when: str, step: str) -> None:
        if (when, step) == ("after", "keep quiet"):
            streams = scene.world.cluster.forward
            assert streams is not None
            scene.world.pump("shop", "shop_sharded")
            streams.meet(f"truncate table {TABLE}", "9")

    scene.process(meet).run()
    assert not scene.workflow.primaries_switched
    assert f"truncate table {TABLE}" in scene.workflow.workflow_errors


@pytest.mark.parametrize("plan", SWITCHES)
def test_whoever_takes_over_behind_the_release_holds_nobody(scenes: Scenes, plan: str) -> None:
    scene = at(scenes, plan)

    def kill(when: str, step: str) -> None:
        if (when, step) == ("before", "conclude in Vitess"):
            raise Died

    first = scene.process(writing(scene, kill))
    with pytest.raises(Died):
        first.run()
    first.die(gateways_too=False)
    scene.gateways.asked.clear()
    scene.gateways.stuck = True  # as where a client's transaction takes long
    second = scene.process(writing(scene))
    second.run()
    assert scene.gateways.asked == []
    assert scene.state is BEGINNINGS[plan][2]
    scene.gateways.stuck = False
    scene.write()
    second.run()
    scene.check()
    there_and_back(scene, second, plan)


@pytest.mark.parametrize("plan", SWITCHES)
def test_what_fails_leaves_the_other_side_refusing_writes(scenes: Scenes, plan: str) -> None:
    """A client may aim at one of its shards, past all rules."""
    scene = at(scenes, plan)

    def fail(when: str, name: str) -> None:
        if (when, name) == ("after", "still held"):
            raise DeadlineExceededError("too late")

    scene.process(writing(scene, fail)).run()
    assert scene.world.cluster.denied == {"shop_sharded" if plan == d.SWITCH_PRIMARIES else "shop"}


def test_a_sweep_lets_streams_run_that_were_stopped(scenes: Scenes) -> None:
    scene = at(scenes, d.SWITCH_PRIMARIES)

    def disturb(when: str, step: str) -> None:
        if (when, step) == ("after", "commit"):
            scene.gateways.expire()
            streams = scene.world.cluster.forward
            assert streams is not None
            streams.state = "stopped"

    process = scene.process(writing(scene, disturb))
    process.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.write()
    process.run()
    scene.check()
    there_and_back(scene, process, d.SWITCH_PRIMARIES)


def test_a_sweep_that_is_not_in_time_is_tried_again(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = at(scenes, d.SWITCH_PRIMARIES)
    monkeypatch.setattr(vitess_switch, "DRAIN_SECONDS", 0.0)
    late, real = [True], VitessTools.stream_positions

    def positions(tools: VitessTools, place: ShardPlace, sidecar: str) -> Mapping[int, VitessStream]:
        found = real(tools, place, sidecar)
        if scene.workflow.primaries_switched and late:
            late.clear()
            return dict.fromkeys(found, VitessStream("Running", "", ""))
        return found

    def disturb(when: str, step: str) -> None:
        if (when, step) == ("after", "commit"):
            scene.gateways.expire()

    monkeypatch.setattr(VitessTools, "stream_positions", positions)
    process = scene.process(writing(scene, disturb))
    process.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    assert not late
    scene.write()
    process.run()
    scene.check()
    there_and_back(scene, process, d.SWITCH_PRIMARIES)


def test_streams_that_do_not_come_close_end_the_wait(scenes: Scenes, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = at(scenes, d.SWITCH_PRIMARIES)
    monkeypatch.setattr(steps_switch, "SWITCH_SECONDS", 0.2)

    def nowhere(_tools: VitessTools, _place: ShardPlace, _sidecar: str) -> dict[int, VitessStream]:
        return dict.fromkeys(NUMBERS, VitessStream("Running", "", ""))

    monkeypatch.setattr(VitessTools, "stream_positions", nowhere)
    process = scene.process(writing(scene))
    process.run()
    assert scene.state is S.RUNNING
    assert "did not have everything in shop_sharded" in scene.workflow.workflow_errors
    monkeypatch.undo()
    scene.write()
    process.run()
    scene.check()
