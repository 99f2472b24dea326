"""Reading: the workflow with all that its steps need, the open run, and what decisions see.

Changes nothing. Invariant: a run is what the journal says of its durable steps and what this process knows of
its fleeting ones, and never the other way round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from homeworld.model.movers import MoverProgress, RowDifference, Verification
from homeworld.model.throttling import limits_between, throttle_of
from homeworld.store.guards import VERIFY_ID, facts
from homeworld.store.journal import StepRecord, StepStatus
from homeworld.store.store import Transaction
from homeworld.store.workflows import Workflow
from homeworld.workflows.leases import Lease
from homeworld.workflows.move_tables.context import Context, Hand, Ports, Side
from homeworld.workflows.move_tables.decide import (
    FORWARD_STREAM,
    REVERSE_STREAM,
    Compared,
    Seen,
    Stream,
    Trouble,
)
from homeworld.workflows.steps import Run
from homeworld.workflows.trouble import Troubles

RUN = "run"
RUNS = "runs"
VERIFY_PASSED = "verify_passed"  # schema statements that the stream had passed when the verification began
NO_WAY_BACK = "no_way_back"  # why the reverse stream can never go on
DIFFERENCES_SHOWN = 5


def look(ports: Ports, lease: Lease, hand: Hand, workflow_id: str) -> Context:
    """The workflow as it is stored now.

    :raises NotFoundError: there is none.
    """
    with ports.store.read() as tx:
        workflow = tx.workflows.get(workflow_id)
        tables = tuple(table.name for table in tx.progress.tables_of([workflow_id]))
        source = _side(tx, workflow.source_keyspace_id)
        target = _side(tx, workflow.target_keyspace_id)
        globals_ = _side(tx, workflow.global_keyspace_id) if workflow.global_keyspace_id else None
        run = _run(tx, workflow, hand)
        database, now = tx.databases.get(workflow.database_id), tx.work.now
    if globals_ is None and not source.keyspace.sharded:
        globals_ = source
    limits = limits_between(
        workflow.limits,
        *(
            throttle_of(side.name, database.throttler_ratios, database.throttler_configs, now)
            for side in (source, target)
        ),
    )
    return Context(ports, lease, hand, workflow, tables, source, target, globals_, run, limits)


def _side(tx: Transaction, keyspace_id: str) -> Side:
    return Side(tx.keyspaces.get(keyspace_id), tx.keyspaces.shards(keyspace_id))


def _run(tx: Transaction, workflow: Workflow, hand: Hand) -> Run | None:
    told = cast("Mapping[str, str | int] | None", workflow.facts.get(RUN))
    if told is None:
        return None
    run = Run(str(told["plan"]), int(told["number"]), str(told["failure"]), str(told["state"]))
    return with_steps(run, tx.journal.steps(workflow.id, run.key), hand)


def with_steps(run: Run, records: tuple[StepRecord, ...], hand: Hand) -> Run:
    """``run`` with the journal's word for durable steps and the hand's for fleeting ones."""
    for record in records:
        if record.status is StepStatus.DONE:
            run = run.finish(record.step)
        elif record.status is not StepStatus.UNDONE:
            run = run.begin(record.step)
    for step in hand.touched:
        run = run.begin(step)
    for step in hand.done:
        run = run.finish(step)
    return run


def run_fact(run: Run) -> dict[str, str | int]:
    """What the workflow's facts keep of a run; its steps are in the journal."""
    return {"plan": run.plan, "number": run.number, "failure": run.failure, "state": run.state}


def see(context: Context, stream_trouble: Troubles, step_trouble: Troubles) -> Seen:
    """What the next decision depends on."""
    workflow = context.workflow
    return Seen(
        state=workflow.state,
        facts=facts(workflow),
        run=context.run,
        settled=workflow.settled,
        verify_id=str(workflow.facts.get(VERIFY_ID, "")),
        verify_passed=int(cast("int", workflow.facts.get(VERIFY_PASSED, 0))),
        no_way_back=str(workflow.facts.get(NO_WAY_BACK, "")),
        forward=_stream(progress_of(context, FORWARD_STREAM)),
        reverse=_stream(progress_of(context, REVERSE_STREAM)),
        stream_trouble=_trouble(stream_trouble),
        step_trouble=_trouble(step_trouble),
    )


def _trouble(troubles: Troubles) -> Trouble:
    return Trouble(troubles.count, troubles.waiting, troubles.reason, troubles.tries)


def progress_of(context: Context, direction: str) -> MoverProgress | None:
    """What the live mover of a direction says, if there is one."""
    mover = context.live_mover(direction)
    return None if mover is None else mover.progress()


def _stream(progress: MoverProgress | None) -> Stream | None:
    if progress is None:
        return None
    return Stream(
        phase=progress.phase,
        copied=progress.copied,
        lag_seconds=progress.lag_seconds,
        error=progress.error,
        ddl=progress.ddl,
        retryable=progress.retryable,
        emptied=progress.emptied,
        passed=progress.passed,
        outage=progress.outage,
        compared=_compared(progress.verification),
    )


def _compared(verification: Verification | None) -> Compared | None:
    if verification is None:
        return None
    return Compared(
        verify_id=verification.verify_id,
        state=verification.state,
        equal=verification.equal,
        summary=_summary(verification),
        different=any(table.different for table in verification.tables),
    )


def _summary(verification: Verification) -> str:
    """What a verification found, in a sentence a table; the report has the rows."""
    lines = [f"the data could not be verified: {verification.error}"] if verification.error else []
    for table in verification.tables:
        counts = {
            "differ": table.mismatched,
            "are missing on the target": table.extra_source,
            "exist only on the target": table.extra_target,
            "lie on a wrong shard": table.wrong_shard,
        }
        found = [f"{count} {what}" for what, count in counts.items() if count]
        if found:
            shown = "; ".join(map(_row, table.differences[:DIFFERENCES_SHOWN]))
            lines.append(f"table {table.table}: of its rows {', '.join(found)} (keys: {shown})")
    return "; ".join(lines)


def _row(difference: RowDifference) -> str:
    key = ", ".join(f"{column}={value[:40]}" for column, value in difference.key.items())
    columns = f" in {', '.join(difference.columns[:DIFFERENCES_SHOWN])}" if difference.columns else ""
    return f"{key} on {difference.shard}{columns}"
