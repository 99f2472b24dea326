"""The ends of a workflow: cutover and its way back, cancelling, and settling what a resting state asks.

Invariant: a table is dropped only while the rules that gateways serve lead every name of it elsewhere; the
rules that lead there go after it. Otherwise a statement between the two could write rows into a table that is
about to be dropped.
"""

from __future__ import annotations

from homeworld.model import vschema_edits as edits
from homeworld.model.errors import InvalidError
from homeworld.model.routing_rules import TrafficPhase
from homeworld.model.states.move_tables import State
from homeworld.model.topology import BackendRole
from homeworld.model.vschema import VSchema
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.move_tables.decide import (
    CANCEL,
    CUT_OVER,
    FORWARD_STREAM,
    REVERSE_STREAM,
    SETTLE,
    STOP_STREAM,
)
from homeworld.workflows.move_tables.look import NO_WAY_BACK
from homeworld.workflows.move_tables.steps_start import (
    drop_sequences,
    drop_tables,
    leave_vschema,
    publish,
)
from homeworld.workflows.move_tables.steps_switch import STOP_SECONDS, come_close, stop_stream
from homeworld.workflows.steps import Plan, Sort, Step


def cut_over_plan() -> Plan[Context]:
    """The source tables go; from the commit on there is no way back for the data."""
    return Plan(
        CUT_OVER,
        (
            Step("check the source", check_source, sort=Sort.FLEETING),
            Step(STOP_STREAM, stop_reverse, sort=Sort.FLEETING),
            Step("commit", commit_cutover, sort=Sort.COMMIT),
            Step("drop source tables", drop_source, verify=source_gone),
            Step("leave the source's vschema", leave_source_vschema),
            Step("rules as before", route_after_cutover),
            Step("publish", publish, sort=Sort.FLEETING),
            Step("forget the streams", forget_streams),
        ),
    )


def cancel_plan() -> Plan[Context]:
    """Everything that the workflow made goes; traffic is on the source already."""
    return Plan(
        CANCEL,
        (
            Step("publish first", publish, sort=Sort.FLEETING),
            Step("stop the streams", stop_streams, sort=Sort.FLEETING),
            Step("drop target tables", drop_tables),
            # While its entries are served, the rules are what keeps a bare name from leading to the target.
            Step("leave the vschema", leave_vschema),
            Step("rules as before", route_after_cancel),
            Step("publish", publish, sort=Sort.FLEETING),
            Step("drop sequences", drop_sequences),
            Step("forget the streams", forget_streams),
        ),
        forward_only=True,
    )


def settle_plan() -> Plan[Context]:
    """The routes that a resting state asks for."""
    return Plan(
        SETTLE,
        (
            Step("rules of the state", route_as_state_says),
            Step("publish", publish, sort=Sort.FLEETING),
        ),
        forward_only=True,
    )


# -- cutover -----------------------------------------------------------------------------------------------


def check_source(context: Context) -> None:
    """The way back works up to this moment, or is known to be lost, and no table left behind would refer to a
    dropped one.

    :raises DeadlineExceededError: the reverse stream does not follow closely; a person should look first.
    :raises InvalidError: something in the source refers to the tables.
    """
    if NO_WAY_BACK not in context.workflow.facts:
        come_close(context, context.way(REVERSE_STREAM))
    for place in context.owner(context.source):
        references = context.tools.references(place, context.tables)
        if references:
            raise InvalidError(f"{place.keyspace}/{place.shard}: {'; '.join(references)}")


def stop_reverse(context: Context) -> None:
    """Dropping the source tables must not be seen by a stream that writes to them."""
    stop_stream(context, context.way(REVERSE_STREAM))


def commit_cutover(context: Context) -> None:
    """The rules that reverse-cutover puts back are kept; from here on only forward."""
    with context.commit("commit") as tx:
        tx.workflows.update(context.workflow.id, rules_saved=context.rules(tx, TrafficPhase.TARGET))


def drop_source(context: Context) -> None:
    """Drop the moved tables on every source shard."""
    for place in context.owner(context.source):
        context.tools.drop_tables(place, context.tables, context.confirm)


def source_gone(context: Context) -> str:
    """Whether any moved table is still there."""
    left = [
        f"{place.shard}: {name}"
        for place in context.owner(context.source)
        for name in context.tools.describe(place, context.tables)
    ]
    return f"still there: {', '.join(left)}" if left else ""


def leave_source_vschema(context: Context) -> None:
    """The source's vschema does not name the moved tables any more, so unqualified names find the target."""

    def edit(vschema: VSchema) -> VSchema:
        for name in context.tables:
            if name in vschema.tables:
                vschema = edits.drop_table(vschema, name)
        return vschema

    with context.write() as tx:
        context.edit_vschema(tx, context.source, edit)


def route_after_cutover(context: Context) -> None:
    """Rules as before the workflow, without those that would lead to dropped tables."""
    with context.write() as tx:
        context.route(tx, TrafficPhase.CUTOVER)


# -- cancelling --------------------------------------------------------------------------------------------


def stop_streams(context: Context) -> None:
    """No mover of this workflow writes any more."""
    for stream in (FORWARD_STREAM, REVERSE_STREAM):
        context.stop_mover(stream, STOP_SECONDS)


def route_after_cancel(context: Context) -> None:
    """Exactly the rules before the workflow, where it came as far as to change them."""
    if context.workflow.rules_before is None:
        return
    with context.write() as tx:
        context.route(tx, TrafficPhase.CANCELLED)


def forget_streams(context: Context) -> None:
    """Nothing of this workflow is left in any sidecar, and no mover of it can write again."""
    for stream, side in ((FORWARD_STREAM, context.target), (REVERSE_STREAM, context.source)):
        places = side.places(context.ports.engine, BackendRole.MOVER)
        context.tools.forget_stream(context.workflow.id, stream, places, context.workflow.epoch)


# -- settling ----------------------------------------------------------------------------------------------


def route_as_state_says(context: Context) -> None:
    """cutover: as before the workflow; reversed_cutover: as saved; completed: as the state before it."""
    workflow = context.workflow
    state = workflow.state
    if state is State.COMPLETED:
        with context.ports.store.read() as tx:
            state = State(tx.journal.transitions("workflow", workflow.id)[-1].from_state)
    if state is State.CUTOVER:
        route_after_cutover(context)
    elif state is State.REVERSED_CUTOVER:
        with context.write() as tx:
            current = tx.routes.rules(workflow.branch_id)
            tx.routes.replace_rules(workflow.branch_id, {**current, **_own_saved(context)})


def _own_saved(context: Context) -> dict[str, str]:
    """The saved rules that lead to the moved tables; all others are as they stand now."""
    targets = {f"{context.target.name}.{table}" for table in context.tables}
    return {name: to for name, to in (context.workflow.rules_saved or {}).items() if to in targets}
