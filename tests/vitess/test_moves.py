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

from homeworld.model.states.move_tables import State, Trigger
from homeworld.workflows.move_tables import decide as d
from tests.conftest import SMALL
from tests.support.moving_shop import Died, dying
from tests.support.vitess_moves import (
    ROWS,
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
    assert acting.go(T.CANCEL, S.CANCELLED).workflow_errors == ""


def test_the_whole_walk(shop: MovingShop) -> None:
    """Every state, several times there and back; ids go on above the largest in both directions."""
    acting = begin(shop)
    application = Application(shop)
    application.start()
    verified = acting.go(T.VERIFY_DATA, S.VERIFIED_DATA)
    assert verified.verified
    with shop.store.read() as tx:
        found = tx.progress.newest_vdiffs([acting.workflow])[acting.workflow]
        (table,) = tx.progress.tables_of([acting.workflow])
        streams = tx.progress.streams_of([acting.workflow])
    assert (found.state, found.has_mismatch) == ("completed", False)
    assert found.rows_compared >= ROWS
    assert table.rows_copied >= ROWS
    assert len(streams) == 2
    for trigger, state in (
        (T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS), (T.REVERSE_TRAFFIC, S.RUNNING),
        (T.SWITCH_REPLICAS, S.SWITCHED_REPLICAS), (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
        (T.REVERSE_TRAFFIC, S.RUNNING), (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES),
    ):  # fmt: skip
        assert acting.go(trigger, state).workflow_errors == ""
        time.sleep(0.3)
    assert shop.exists(SOURCE)
    wanted = application.finish()
    application = Application(shop, TARGET, wanted)
    application.start()
    assert acting.go(T.CUTOVER, S.CUTOVER).workflow_errors == ""
    assert not shop.exists(SOURCE)
    assert shop.rules() == shop.clusters.rules(shop.branch_id) == {}
    acting.go(T.REVERSE_CUTOVER, S.REVERSED_CUTOVER)
    acting.settle()
    assert shop.rules()["shop.orders"] == "wide.orders"
    assert shop.run("SELECT COUNT(*) FROM shop.orders WHERE id <= 10") == [(10,)]
    acting.go(T.CUTOVER, S.CUTOVER)
    acting.settle()
    assert shop.rules() == shop.clusters.rules(shop.branch_id) == {}
    acting.go(T.COMPLETE, S.COMPLETED)
    check(shop, application.finish(), TARGET)
    assert shop.clusters.run(shop.branch_id, "GetWorkflows", "--show-all", TARGET, timeout_seconds=30.0) in (
        {"workflows": []}, {}, None,
    )  # fmt: skip


@pytest.mark.parametrize("switched", [False, True], ids=["running", "switched"])
def test_cancel_brings_everything_back(shop: MovingShop, switched: bool) -> None:
    acting = begin(shop)
    application = Application(shop)
    application.start()
    if switched:
        acting.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    time.sleep(0.3)
    cancelled = acting.go(T.CANCEL, S.CANCELLED)
    assert (cancelled.workflow_errors, cancelled.primaries_switched) == ("", False)
    check(shop, application.finish(), SOURCE)
    assert not shop.exists(TARGET)
    assert not shop.exists(SOURCE, "orders_seq")
    assert shop.rules() == shop.clusters.rules(shop.branch_id) == {}
    assert "auto_increment" not in str(shop.clusters.vschema(shop.branch_id, TARGET))
    assert shop.run("SELECT COUNT(*) FROM orders WHERE id <= 10") == [(10,)]


def test_a_difference_is_found_and_told(shop: MovingShop) -> None:
    acting = begin(shop)
    shop.on_server(TARGET, "UPDATE orders SET amount = -1 WHERE id = 17")
    found = acting.go(T.VERIFY_DATA, S.RUNNING)
    assert "id=17" in found.workflow_errors
    with shop.store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([acting.workflow])[acting.workflow]
        (report,) = tx.progress.reports_of([vdiff.id])
    assert report.mismatched_rows_count == 1
    give_up(acting)


def test_ids_go_on_above_the_largest_in_both_directions(shop: MovingShop) -> None:
    acting = begin(shop)
    shop.run(f"DELETE FROM orders WHERE id = {ROWS}")
    acting.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    insert = "INSERT INTO orders (customer, amount) VALUES (1, 1)"
    there = shop.insert(insert)
    assert there > ROWS, "an id that was given out is not given again"
    shop.run(f"DELETE FROM orders WHERE id = {there}")
    acting.go(T.REVERSE_TRAFFIC, S.RUNNING)
    back = shop.insert(insert)
    assert back > there
    ahead = back + 50
    shop.run(f"INSERT INTO orders (id, customer, amount) VALUES ({ahead}, 1, 1)")
    acting.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    assert shop.insert(insert) > ahead, "what a tablet had in hand is not given"
    give_up(acting)


def test_ddl_stops_the_workflow_until_the_target_fits(shop: MovingShop) -> None:
    acting = begin(shop)
    change = "ALTER TABLE orders ADD COLUMN extra INT NOT NULL DEFAULT 7"
    shop.on_server(SOURCE, change)
    assert not acting.run(S.STOPPED)
    assert "extra" in shop.workflow(acting.workflow).workflow_errors
    shop.on_server(TARGET, change)
    deadline = time.monotonic() + 30.0
    while not shop.workflow(acting.workflow).may_retry:
        assert time.monotonic() < deadline
        acting.handler.tick(acting.workflow, acting.lease)
        time.sleep(0.1)
    acting.go(T.RETRY, S.RUNNING)
    shop.on_server(SOURCE, "INSERT INTO orders (customer, amount, extra) VALUES (3, 30, 8)")
    assert acting.go(T.VERIFY_DATA, S.VERIFIED_DATA).workflow_errors == ""
    give_up(acting)


KILLS = [
    (d.SWITCH_PRIMARIES, "before", "switch in Vitess"),
    (d.SWITCH_PRIMARIES, "after", "switch in Vitess"),
    (d.SWITCH_PRIMARIES, "after", "commit"),
    (d.REVERSE_PRIMARIES, "after", "switch in Vitess"),
    (d.CUT_OVER, "after", "complete in Vitess"),
]


@pytest.mark.parametrize(("plan", "when", "name"), KILLS, ids=[f"{p}-{w}-{n}" for p, w, n in KILLS])
def test_killed_at_a_step_it_ends_the_same(shop: MovingShop, plan: str, when: str, name: str) -> None:
    trigger, end, owner = {
        d.SWITCH_PRIMARIES: (T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES, TARGET),
        d.REVERSE_PRIMARIES: (T.REVERSE_TRAFFIC, S.RUNNING, SOURCE),
        d.CUT_OVER: (T.CUTOVER, S.CUTOVER, TARGET),
    }[plan]
    acting = begin(shop)
    if plan != d.SWITCH_PRIMARIES:
        acting.go(T.SWITCH_PRIMARIES, S.SWITCHED_PRIMARIES)
    application = Application(shop, TARGET if plan == d.CUT_OVER else SOURCE)
    application.start()
    shop.ask(acting.workflow, trigger)
    time.sleep(0.3)
    first = Acting(shop, acting.workflow, dying(when, name))
    assert first.run(end)
    first.die()
    time.sleep(0.3)
    second = Acting(shop, acting.workflow)
    assert not second.run(end)
    assert shop.workflow(acting.workflow).workflow_errors == ""
    time.sleep(0.3)
    check(shop, application.finish(), owner)
    if plan == d.CUT_OVER:
        second.go(T.COMPLETE, S.COMPLETED)
    else:
        give_up(second)


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
                self._shop.clusters.run(branch_id, *args, timeout_seconds=timeout_seconds)

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


@pytest.mark.parametrize("seconds", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("vtctld", [False, True], ids=["worker", "vtctld-too"])
def test_a_worker_that_dies_in_the_middle_of_the_switch(
    shop: MovingShop, seconds: float, vtctld: bool
) -> None:
    acting = begin(shop)
    shop.ask(acting.workflow, T.SWITCH_PRIMARIES)
    first = Acting(shop, acting.workflow, vtctld=Broken(shop, seconds, vtctld=vtctld))
    assert first.run(S.SWITCHED_PRIMARIES)
    first.die()
    if vtctld:
        shop.followed(shop.branch_id, lambda: None)  # whoever watches the cluster starts it again
    time.sleep(0.3)
    second = Acting(shop, acting.workflow)
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
