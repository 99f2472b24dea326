"""Schema changes under a workflow: what it stops for, what brings it on, what is verified anew after them.

The servers are in memory, the store is a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from homeworld.model.movers import Phase
from homeworld.model.states.move_tables import State, Trigger
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.workflows import trouble
from homeworld.workflows.move_tables import decide as d
from tests.support.workflow_scene import TABLE, Process, Scene, Scenes
from tests.support.workflow_world import failed

S, T = State, Trigger


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "FIRST_SECONDS", 0.0)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    return Scenes(tmp_path_factory.mktemp("scenes"))


@pytest.fixture
def make_scene(scenes: Scenes) -> Callable[[], Scene]:
    return scenes.new


def test_ddl_stops_the_workflow_and_retry_is_offered_once_the_tables_fit(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = replace(failed(""), phase=Phase.DDL, ddl="ALTER TABLE orders ADD x INT")
    scene.tools.unfit = "column 'x' is missing on the target"
    process.run()
    assert scene.state is S.STOPPED
    process.run()
    process.run()
    assert not scene.workflow.may_retry
    assert "ALTER TABLE orders ADD x INT" in scene.workflow.workflow_errors
    assert "column 'x' is missing" in scene.workflow.workflow_errors
    scene.tools.unfit = ""
    process.run()
    assert scene.workflow.may_retry
    assert scene.workflow.workflow_errors == "ALTER TABLE orders ADD x INT"
    scene.go(process, T.RETRY)
    assert scene.state is S.RUNNING
    scene.check()


def test_ddl_on_the_target_stops_the_way_back_until_the_source_fits(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.SWITCH_PRIMARIES)
    process.run()
    mover = process.movers.running(scene.id, "reverse")
    assert mover is not None
    mover.fault = replace(failed(""), phase=Phase.DDL, ddl="ALTER TABLE orders\nADD x INT")
    process.run()
    assert scene.state is S.STOPPED
    compared: list[str] = []
    difference = scene.tools.difference

    def compare(place: ShardPlace, table: Table, origin: str) -> str:
        compared.append(place.keyspace)
        return difference(place, table, origin)

    scene.tools.difference = compare  # type: ignore[method-assign]
    process.run()
    assert set(compared) == {"shop"}
    assert scene.workflow.may_retry
    assert scene.workflow.workflow_errors == "ALTER TABLE orders\nADD x INT"
    scene.go(process, T.RETRY)
    process.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED
    scene.check()


def test_after_rows_were_exchanged_unseen_no_retry_is_offered(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.SWITCH_REPLICAS)
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    fault = replace(failed(""), phase=Phase.DDL, ddl="RENAME TABLE a TO b", retryable=False)
    mover.fault = fault
    for _ in range(3):
        process.run()
        assert scene.state is S.STOPPED
        assert (scene.workflow.may_retry, scene.workflow.may_restart) == (False, True)
        assert scene.workflow.workflow_errors == f"RENAME TABLE a TO b; {d.COPY_ANEW}"
    scene.go(process, T.CANCEL)
    assert scene.state is S.CANCELLED
    scene.check()


def test_after_a_truncate_retry_is_offered_once_the_other_side_is_empty(
    make_scene: Callable[[], Scene],
) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.fault = replace(failed(""), phase=Phase.DDL, ddl="TRUNCATE orders", emptied=(TABLE,))
    process.run()
    process.run()
    assert not scene.workflow.may_retry
    assert "has rows" in scene.workflow.workflow_errors
    target = scene.world.rows["shop_sharded", TABLE]
    kept = dict(target)
    target.clear()
    process.run()
    assert scene.workflow.may_retry
    target.update(kept)


def test_without_a_way_back_a_switched_workflow_can_be_cut_over(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.SWITCH_PRIMARIES)
    process.run()
    mover = process.movers.running(scene.id, "reverse")
    assert mover is not None
    mover.fault = replace(failed(""), phase=Phase.DDL, ddl="RENAME TABLE a TO b", retryable=False)
    process.run()
    assert scene.state is S.STOPPED
    told = scene.workflow.workflow_errors
    assert told == f"RENAME TABLE a TO b; {d.NO_WAY_BACK}"
    scene.go(process, T.CANCEL)
    assert scene.state is S.SWITCHED_PRIMARIES
    scene.go(process, T.REVERSE_TRAFFIC)
    process = Process(scene)
    process.run()
    assert scene.state is S.SWITCHED_PRIMARIES
    assert scene.workflow.workflow_errors == told
    assert process.movers.running(scene.id, "reverse") is None
    scene.write()
    scene.check()
    scene.name = f"shop_sharded.{TABLE}"
    scene.go(process, T.CUTOVER, T.COMPLETE)
    assert scene.state is S.COMPLETED
    assert ("shop", TABLE) not in scene.world.rows
    scene.check()


def test_a_passed_schema_statement_makes_the_verification_stale(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.VERIFY_DATA)
    assert scene.workflow.verified
    mover = process.movers.running(scene.id, "forward")
    assert mover is not None
    mover.passed = 1
    process.run()
    assert scene.state is S.VERIFIED_DATA
    assert not scene.workflow.verified
    scene.go(process, T.VERIFY_DATA)
    assert scene.workflow.verified


def test_a_verification_that_is_asked_for_again_compares_again(make_scene: Callable[[], Scene]) -> None:
    scene = make_scene()
    process = Process(scene)
    process.run()
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.VERIFIED_DATA
    target = scene.world.rows["shop_sharded", TABLE]
    target[999] = "nobody wrote this to the source"
    scene.go(process, T.VERIFY_DATA)
    assert scene.state is S.RUNNING
    assert not scene.workflow.verified
    del target[999]
    scene.go(process, T.VERIFY_DATA)
    assert scene.workflow.verified
