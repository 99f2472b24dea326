"""What is told of a workflow: telling twice changes nothing, and what is told is what is read."""

from __future__ import annotations

from dataclasses import replace

from homeworld.model.movers import (
    MoverProgress,
    Phase,
    RowDifference,
    StreamProgress,
    TableProgress,
    TableVerification,
    Verification,
    VerificationRound,
)
from homeworld.store.journal import StepStatus
from homeworld.store.progress import LOGS_KEPT
from homeworld.store.store import Store
from tests.support.stores import TestClock, make_shop

MISMATCH = RowDifference(
    "mismatched", "-80", {"id": "7"}, {"id": "7", "note": "a"}, {"id": "7", "note": None}, ("note",), "-80",
    "`id` = 7",
)  # fmt: skip


def moving(store: Store) -> str:
    with store.write() as tx:
        shop = make_shop(tx)
        return tx.workflows.create(
            shop.database.id, shop.branch.id, "w", shop.source.id, shop.target.id, ["lines", "orders"]
        ).id


def progress(phase: Phase, rows: int, *, throttled_by: str = "", error: str = "") -> MoverProgress:
    streams = tuple(
        StreamProgress("-", shard, f"gtid:{rows}", rows, rows * 2, 0.5, throttled_by)
        for shard in ("-80", "80-")
    )
    return MoverProgress(
        phase=phase,
        copied=False,
        tables=(TableProgress("orders", rows, 10),),
        streams=streams,
        lag_seconds=0.5,
        rows_per_second=1.0,
        eta_seconds=2.0,
        error=error,
    )


def test_progress_replaces_what_stood_there(store: Store, clock: TestClock) -> None:
    workflow_id = moving(store)
    for phase, rows in ((Phase.COPYING, 3), (Phase.COPYING, 12), (Phase.FOLLOWING, 12)):
        clock.forward(1)
        with store.write() as tx:
            tx.progress.tell(workflow_id, "forward", progress(phase, rows))
    with store.read() as tx:
        tables = tx.progress.tables_of([workflow_id])
        streams = tx.progress.streams_of([workflow_id])
        logs = tx.progress.logs_of([streams[0].id])
        workflow = tx.workflows.get(workflow_id)
    # An estimate that the copy has passed is not shown as the total.
    assert [(t.name, t.rows_copied, t.rows_total) for t in tables] == [("lines", 0, 0), ("orders", 12, 12)]
    assert [(s.target_shard, s.state, s.position) for s in streams] == [
        ("-80", "following", "gtid:12"),
        ("80-", "following", "gtid:12"),
    ]
    assert [log.state for log in logs] == ["following", "copying"]
    assert (workflow.lag_seconds, workflow.lag_told_at) == (0.5, clock.now())


def test_a_stream_that_copies_nothing_leaves_the_figures_of_the_copy(store: Store) -> None:
    workflow_id = moving(store)
    only_follows = replace(
        progress(Phase.FOLLOWING, 0),
        copied=True,
        tables=(TableProgress("orders", 0, 0), TableProgress("new", 0, 0)),
    )
    with store.write() as tx:
        tx.progress.tell(workflow_id, "forward", progress(Phase.FOLLOWING, 12))
        tx.progress.tell(workflow_id, "forward", only_follows)
        tables = tx.progress.tables_of([workflow_id])
        streams = tx.progress.streams_of([workflow_id])
    found = {(t.name, t.rows_copied, t.rows_total) for t in tables}
    assert found == {("lines", 0, 0), ("new", 0, 0), ("orders", 12, 12)}
    assert {s.rows_copied for s in streams} == {12}


def test_throttling_says_since_when(store: Store, clock: TestClock) -> None:
    workflow_id = moving(store)
    since = clock.now()
    for _ in range(2):
        with store.write() as tx:
            tx.progress.tell(workflow_id, "forward", progress(Phase.COPYING, 1, throttled_by="lag"))
        clock.forward(5)
    with store.read() as tx:
        assert tx.progress.streams_of([workflow_id])[0].component_throttled_at == since
    with store.write() as tx:
        tx.progress.tell(workflow_id, "forward", progress(Phase.COPYING, 1))
    with store.read() as tx:
        assert tx.progress.streams_of([workflow_id])[0].component_throttled_at is None


def test_a_switch_says_where_streams_end(store: Store) -> None:
    workflow_id = moving(store)
    with store.write() as tx:
        tx.progress.tell(workflow_id, "forward", progress(Phase.FOLLOWING, 1))
        tx.progress.set_streams(
            workflow_id,
            "forward",
            state="stopped",
            primary_serving=True,
            stop_positions={"-": "gtid:99"},
            message="traffic was switched",
        )
        streams = tx.progress.streams_of([workflow_id])
        newest = tx.progress.logs_of([streams[0].id])
    assert {(s.state, s.primary_serving, s.stop_position) for s in streams} == {("stopped", True, "gtid:99")}
    assert "traffic was switched" in {log.message for log in newest}


def test_history_is_bounded(sqlite_store: Store, clock: TestClock) -> None:
    workflow_id = moving(sqlite_store)
    with sqlite_store.write() as tx:
        tx.progress.tell(workflow_id, "forward", progress(Phase.COPYING, 1))
        stream = tx.progress.streams_of([workflow_id])[0]
    for number in range(LOGS_KEPT + 3):
        clock.forward(1)
        with sqlite_store.write() as tx:
            tx.progress.log(stream.id, "copying", "Message", str(number))
    with sqlite_store.read() as tx:
        logs = tx.progress.logs_of([stream.id])
    assert (len(logs), logs[0].message) == (LOGS_KEPT, str(LOGS_KEPT + 2))


def test_a_verification_is_told_with_samples(store: Store, clock: TestClock) -> None:
    workflow_id = moving(store)
    with store.write() as tx:
        verify_id = tx.progress.start_verification(workflow_id)
    started = clock.now()
    clock.forward(1)
    done = Verification(
        verify_id,
        "completed",
        10,
        10,
        0.0,
        (
            TableVerification("lines", 4, 0, 0, 0, 0),
            TableVerification("orders", 6, 3, 1, 0, 0, (MISMATCH,)),
        ),
    )
    with store.write() as tx:
        tx.progress.tell_verification(workflow_id, Verification(verify_id, "started", 5, 10, 1.0))
    clock.forward(1)
    for _ in range(2):
        with store.write() as tx:
            tx.progress.tell_verification(workflow_id, done)
    with store.read() as tx:
        vdiff = tx.progress.newest_vdiffs([workflow_id])[workflow_id]
        lines, orders = tx.progress.reports_of([vdiff.id])
    assert (vdiff.id, vdiff.state, vdiff.has_mismatch) == (verify_id, "completed", True)
    assert vdiff.created_at == started
    assert vdiff.completed_at == clock.now()
    assert (lines.table_name, lines.mismatched_rows_count, lines.mismatched_rows) == ("lines", 0, [])
    assert (orders.mismatched_rows_count, orders.extra_source_rows_count, orders.shard) == (3, 1, "-80")
    assert orders.mismatched_rows[0]["key"] == {"id": "7"}
    assert orders.mismatched_rows[0]["target"] == {"id": "7", "note": None}
    shown = orders.mismatched_rows[0]
    assert (shown["columns"], shown["owner"], shown["condition"]) == (["note"], "-80", "`id` = 7")


def test_how_far_each_table_is_and_what_was_compared_when(store: Store) -> None:
    workflow_id = moving(store)
    half = TableVerification("orders", 6, 0, 0, 0, 0, rows_total=12, state="started")
    ahead = TableVerification("lines", 0, 0, 0, 0, 0, rows_total=30, state="pending")
    rounds = tuple(VerificationRound(n, 5.5 * n, {"-": f"gtid:{n}"}, 3, "note" * (n - 1)) for n in (1, 2))
    told = Verification("v", "started", 6, 42, 9.0, (half, ahead), rows_per_second=4.0, rounds=rounds)
    with store.write() as tx:
        tx.progress.tell_verification(workflow_id, told)
        vdiff = tx.progress.newest_vdiffs([workflow_id])[workflow_id]
        reports = tx.progress.reports_of(["v"])
    assert (vdiff.rows_per_second, vdiff.eta_seconds) == (4.0, 9.0)
    assert [dict(one) for one in vdiff.rounds] == [
        {"number": n, "begun_at": 5.5 * n, "positions": {"-": f"gtid:{n}"}, "rows_compared": 3,
         "note": "note" * (n - 1)} for n in (1, 2)
    ]  # fmt: skip
    assert [(r.table_name, r.state, r.rows_compared, r.rows_total) for r in reports] == [
        ("lines", "pending", 0, 30),
        ("orders", "started", 6, 12),
    ]


def test_a_verification_that_nobody_brings_to_its_end_is_ended_with_a_reason(store: Store) -> None:
    workflow_id = moving(store)
    with store.write() as tx:
        tx.progress.tell_verification(workflow_id, Verification("a", "completed", 5, 5, 0.0))
        tx.progress.tell_verification(workflow_id, Verification("b", "started", 2, 5, 3.0))
        tx.progress.end_verifications(workflow_id, "the mover died")
        # What a late word of it says changes nothing.
        tx.progress.tell_verification(workflow_id, Verification("b", "started", 4, 5, 1.0))
        tx.progress.tell_verification(workflow_id, Verification("b", "completed", 5, 5, 0.0))
        vdiff = tx.progress.newest_vdiffs([workflow_id])[workflow_id]
    assert (vdiff.id, vdiff.state, vdiff.error, vdiff.rows_compared) == ("b", "error", "the mover died", 2)
    assert vdiff.completed_at is not None
    with store.write() as tx:
        tx.progress.end_verifications(workflow_id, "again")
        assert tx.progress.newest_vdiffs([workflow_id])[workflow_id].error == "the mover died"


def test_steps_are_found_again_in_order(store: Store) -> None:
    with store.write() as tx:
        tx.journal.record_step("w", "switch:1", "hold", StepStatus.STARTED, {"hold_id": "h"})
        tx.journal.record_step("w", "switch:1", "fence", StepStatus.STARTED)
    with store.write() as tx:
        tx.journal.record_step("w", "switch:1", "hold", StepStatus.STARTED)
        tx.journal.record_step("w", "switch:1", "hold", StepStatus.DONE)
        tx.journal.record_step("w", "switch:2", "hold", StepStatus.FAILED, {"why": "late"})
    with store.read() as tx:
        first, second = tx.journal.steps("w", "switch:1")
        (other,) = tx.journal.steps("w", "switch:2")
    assert (first.step, first.status, first.attempts, first.data) == (
        "hold",
        StepStatus.DONE,
        2,
        {"hold_id": "h"},
    )
    assert (second.step, second.status, second.attempts) == ("fence", StepStatus.STARTED, 1)
    assert other.data == {"why": "late"}


def test_a_key_with_nul_can_be_told(store: Store) -> None:
    """PostgreSQL's text takes none, and what is told of a row that differs names its key."""
    workflow_id = moving(store)
    with store.write() as tx:
        tx.workflows.update(workflow_id, workflow_errors="k=a\0b differs")
        tx.progress.start_verification(workflow_id)
        tx.progress.end_verifications(workflow_id, "k=a\0b differs")
    with store.read() as tx:
        assert tx.workflows.get(workflow_id).workflow_errors == "k=a␀b differs"
        assert tx.progress.newest_vdiffs([workflow_id])[workflow_id].error == "k=a␀b differs"
