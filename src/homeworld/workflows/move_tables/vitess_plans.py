"""The plans of a move on Vitess: the names, ends and order of the local ones, carried out by a cluster.

``docs/decisions/vitess.md`` says what happens if the process dies at each step. On a cluster that others run
a switch in Vitess is a durable step before the commit point: the journal knows that it was begun, so that a
failure behind it takes it back, whoever finds it. On ours Vitess makes it behind the commit point.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from homeworld.model.ports import Preconditions
from homeworld.workflows.move_tables import steps_end, steps_start, steps_switch
from homeworld.workflows.move_tables import vitess_start as begin
from homeworld.workflows.move_tables import vitess_steps as v
from homeworld.workflows.move_tables import vitess_switch as s
from homeworld.workflows.move_tables.context import Context, Way
from homeworld.workflows.move_tables.decide import (
    CANCEL,
    CUT_OVER,
    FORWARD_STREAM,
    REVERSE_PRIMARIES,
    REVERSE_REPLICAS,
    REVERSE_STREAM,
    SETTLE,
    START,
    STOP_STREAM,
    SWITCH_PRIMARIES,
    SWITCH_REPLICAS,
)
from homeworld.workflows.move_tables.taking import give_back, publish_alone, take_tables
from homeworld.workflows.steps import Plan, Sort, Step

Act = Callable[[Context], None]


def vitess_plans(preconditions: Preconditions) -> Mapping[str, Plan[Context]]:
    """The plans that :mod:`homeworld.workflows.move_tables.decide` names, on a cluster that only we use."""
    return _plans(preconditions, _primaries)


def attached_plans(preconditions: Preconditions) -> Mapping[str, Plan[Context]]:
    """The same on a cluster that others use, too: they are held by Vitess's own switch alone."""
    return _plans(preconditions, _primaries_by_vitess)


def _plans(
    preconditions: Preconditions, primaries: Callable[[str, str, Preconditions | None], Plan[Context]]
) -> Mapping[str, Plan[Context]]:
    plans = (
        _start(preconditions),
        _replicas(SWITCH_REPLICAS, FORWARD_STREAM, preconditions),
        primaries(SWITCH_PRIMARIES, FORWARD_STREAM, preconditions),
        _replicas(REVERSE_REPLICAS, REVERSE_STREAM, None),
        primaries(REVERSE_PRIMARIES, REVERSE_STREAM, None),
        _cut_over(),
        _cancel(),
        _settle(),
    )
    return {plan.name: plan for plan in plans}


def _fleeting(name: str, perform: Act, undo: Act = lambda _context: None) -> Step[Context]:
    return Step(name, perform, undo=undo, sort=Sort.FLEETING)


def _start(preconditions: Preconditions) -> Plan[Context]:
    return Plan(
        START,
        (
            _fleeting("check everything again", lambda context: steps_start.check(context, preconditions)),
            # From here on nobody else sets rules that were read before this workflow was there.
            _fleeting("let the cluster follow", begin.follow),
            Step("save the rules", steps_start.save_rules),
            Step("list what will be made", steps_start.list_made, undo=steps_start.unlist),
            # Before anything exists on the target that a name without a keyspace could be taken for.
            Step("route both names to the source", begin.route_to_source, undo=begin.route_as_before),
            _fleeting("publish the routes", publish_alone, Context.release_hold),
            Step("take the target's tables", take_tables, undo=give_back),
            Step("make sequences", steps_start.make_sequences, undo=steps_start.drop_sequences),
            Step("enter the vschema", begin.enter_vschema, undo=begin.leave_vschema),
            _fleeting("publish", steps_start.publish),
            Step("create it in Vitess", begin.create, undo=begin.uncreate, verify=begin.is_created),
            Step("read back the rules", begin.read_back),
            Step("begin the stream", begin.begin_stream),
        ),
    )


def _replicas(name: str, stream: str, preconditions: Preconditions | None) -> Plan[Context]:
    """Move replica reads along ``stream``; by the reverse one: back, for which it need not run."""
    forward = stream == FORWARD_STREAM
    first = (
        (
            _fleeting("check again", lambda context: steps_switch.check_again(context, _some(preconditions))),
            _fleeting("come close", lambda context: steps_switch.come_close(context, context.way(stream))),
        )
        if forward
        else ()
    )
    return Plan(
        name,
        (
            *first,
            _fleeting(
                "wait for replicas", lambda context: steps_switch.wait_replicas(context, context.way(stream))
            ),
            Step(
                "switch in Vitess",
                lambda context: v.switch_replicas(context, context.way(stream)),
                undo=v.unswitch_replicas,
            ),
            Step("commit", lambda context: v.commit_replicas(context, switched=forward), sort=Sort.COMMIT),
            _fleeting("await the rules", begin.await_stored),
            _fleeting("keep quiet", v.keep_quiet),
            _fleeting("hold replica reads", steps_switch.hold_replicas),
            _fleeting("publish", steps_start.publish),
            _fleeting("release", lambda context: context.release_hold()),
            _fleeting("ask again", v.ask_again),
        ),
    )


def _primaries(name: str, stream: str, preconditions: Preconditions | None) -> Plan[Context]:
    """Move writes along ``stream``; ``preconditions`` are asked once more where they are given."""

    def along(act: Callable[[Context, Way], None]) -> Act:
        return lambda context: act(context, context.way(stream))

    def unlock(context: Context) -> None:
        context.hand.unlock()

    first = (
        (_fleeting("check again", lambda context: steps_switch.check_again(context, _some(preconditions))),)
        if preconditions is not None
        else ()
    )
    return Plan(
        name,
        (
            _fleeting("ask Vitess", along(s.look_first)),
            *first,
            _fleeting("wait for replicas", along(steps_switch.wait_replicas)),
            _fleeting("come close", along(steps_switch.come_close)),
            _fleeting("look for users", along(v.look_for_users)),
            Step("move replica reads along", along(v.switch_replicas), undo=v.unswitch_replicas),
            Step("let both sides take writes", s.admit, undo=along(s.unadmit)),
            _fleeting("get ready", along(s.get_ready), lambda context: context.hand.leave_rules()),
            _fleeting("keep quiet", v.keep_quiet, v.ask_again),
            _fleeting("hold", along(steps_switch.hold_with_replicas), lambda context: context.release_hold()),
            _fleeting("fence", along(steps_switch.fence), unlock),
            _fleeting("drain", along(s.drain)),
            _fleeting("raise ids", along(v.raise_ids)),
            _fleeting("read positions", along(steps_switch.read_positions)),
            _fleeting("still held", steps_switch.still_held),
            Step("commit", along(s.commit), sort=Sort.COMMIT),
            _fleeting("publish", along(s.publish)),
            _fleeting("sweep", along(s.sweep)),
            _fleeting("set the rules in Vitess", along(s.set_rules)),
            _fleeting("release", steps_switch.open_tables),
            _fleeting("forget that they were closed", s.forget_closing),
            _fleeting("ask again", v.ask_again),
            Step("conclude in Vitess", along(s.conclude)),
            # By now the origin's tablets take no writes any more.
            _fleeting("unfence", along(s.unfence)),
            Step("read back the rules", begin.read_back_rules),
            _fleeting(STOP_STREAM, along(steps_switch.stop_stream)),
        ),
    )


def _primaries_by_vitess(name: str, stream: str, preconditions: Preconditions | None) -> Plan[Context]:
    """The same by Vitess's own switch, for which clients wait."""

    def along(act: Callable[[Context, Way], None]) -> Act:
        return lambda context: act(context, context.way(stream))

    first = (
        (_fleeting("check again", lambda context: v.check_again(context, _some(preconditions))),)
        if preconditions is not None
        else ()
    )
    return Plan(
        name,
        (
            _fleeting("ask Vitess", along(v.ask)),
            *first,
            _fleeting("come close", along(v.come_close)),
            _fleeting("look for users", along(v.look_for_users)),
            Step("move replica reads along", along(v.switch_replicas), undo=v.unswitch_replicas),
            _fleeting("keep quiet", v.keep_quiet, v.ask_again),
            _fleeting("hold", along(steps_switch.hold), lambda context: context.release_hold()),
            _fleeting("raise ids", along(v.raise_ids)),
            _fleeting("let positions be saved", along(v.save_positions)),
            Step("switch in Vitess", along(v.switch), undo=along(v.unswitch)),
            Step("commit", along(v.commit), sort=Sort.COMMIT),
            _fleeting("await the rules", begin.await_stored),
            _fleeting("publish", along(steps_switch.publish_held)),
            _fleeting("release", steps_switch.open_tables),
            _fleeting("forget that they were closed", steps_switch.forget_closing),
            _fleeting("ask again", v.ask_again),
            _fleeting(STOP_STREAM, along(steps_switch.stop_stream)),
        ),
    )


def _some(preconditions: Preconditions | None) -> Preconditions:
    if preconditions is None:
        raise RuntimeError("a plan that asks preconditions without any")  # a fault of this program
    return preconditions


def _cut_over() -> Plan[Context]:
    return Plan(
        CUT_OVER,
        (
            _fleeting("check the source", steps_end.check_source),
            _fleeting(STOP_STREAM, steps_end.stop_reverse),
            Step("commit", steps_end.commit_cutover, sort=Sort.COMMIT),
            Step("complete in Vitess", v.complete, verify=steps_end.source_gone),
            Step("leave the source's vschema", v.leave_source_vschema),
            Step("rules as before", v.route_after_cutover),
            _fleeting("publish", steps_start.publish),
        ),
    )


def _cancel() -> Plan[Context]:
    return Plan(
        CANCEL,
        (
            _fleeting("publish first", steps_start.publish),
            _fleeting("stop the streams", steps_end.stop_streams),
            Step("cancel in Vitess", v.cancel),
            # While its entries are served, the rules are what keeps a bare name from leading to the target.
            Step("leave the vschema", begin.leave_vschema),
            Step("rules as before", v.route_after_cancel),
            _fleeting("publish", steps_start.publish),
            Step("drop sequences", steps_start.drop_sequences),
        ),
        forward_only=True,
    )


def _settle() -> Plan[Context]:
    return Plan(
        SETTLE,
        (
            Step("rules of the state", v.route_as_state_says),
            _fleeting("publish", steps_start.publish),
        ),
        forward_only=True,
    )
