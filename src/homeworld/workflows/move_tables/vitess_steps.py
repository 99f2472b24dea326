"""Steps that move replica reads on Vitess, those that move writes on a cluster that others run, and those
that end a move. Each asks Vitess first.

Invariants: where Vitess has moved writes itself nothing is asked any more that could hold up writing it down;
ids are raised under the hold by us, because Vitess asks for the largest in one schema's name only.
"""

from __future__ import annotations

from dataclasses import replace

from homeworld.model.errors import DeadlineExceededError
from homeworld.model.ports import Outliving, Preconditions
from homeworld.model.states.move_tables import State
from homeworld.model.topology import BackendRole, TabletType
from homeworld.workflows.move_tables import steps_end, steps_start, steps_switch
from homeworld.workflows.move_tables.context import Context, Way
from homeworld.workflows.move_tables.ids import AUTO_INCREMENT
from homeworld.workflows.move_tables.ids_on_servers import raise_ids as raise_ids_on_servers
from homeworld.workflows.move_tables.vitess_start import (
    apply_stored,
    follow,
    follow_anew,
    look,
    move_of,
    told_rules,
    vitess,
    with_vitess,
)

SWITCH_SECONDS = 8.0  # for Vitess to move writes; each of its waits may take as long
SETTLE_SECONDS = 30.0  # to bring one to an end that was begun

PRIMARIES = frozenset({TabletType.PRIMARY})
REPLICAS = frozenset({TabletType.REPLICA, TabletType.RDONLY})


# -- moving traffic ----------------------------------------------------------------------------------------


def is_back(context: Context, way: Way) -> bool:
    """Whether the way leads back to the source."""
    return way.to is context.source


def ask(context: Context, way: Way) -> None:
    """Whether Vitess has this run's switch behind it, or has begun it: then only forward."""
    seen = look(context)
    context.hand.moved = seen.at(back=is_back(context, way)) or seen.halfway
    context.hand.called, context.hand.told = False, None


def check_again(context: Context, preconditions: Preconditions) -> None:
    """What had to hold when the workflow began holds still."""
    if not context.hand.moved:
        steps_switch.check_again(context, preconditions)


def come_close(context: Context, way: Way) -> None:
    """The replicas that will serve have everything, and so nearly has the stream."""
    if not context.hand.moved:
        steps_switch.wait_replicas(context, way)
        steps_switch.come_close(context, way)


def look_for_users(context: Context, way: Way) -> None:
    """Nothing that stays behind uses the tables, and Vitess would move traffic.

    :raises PreconditionsFailedError: something does.
    :raises InvalidError: Vitess would not; in its words.
    """
    if not context.hand.moved:
        steps_switch.look_for_users(context, way)
        vitess(context).moves.check(move_of(context), PRIMARIES, back=is_back(context, way))


def keep_quiet(context: Context) -> None:
    """From here on nobody asks Vitess for figures: each time it would take a tenth of a second from clients
    that wait.
    """
    _let_ask(context, steps_switch.HOLD_SECONDS)


def ask_again(context: Context) -> None:
    """Figures are asked for as ever."""
    _let_ask(context, 0.0)


def _let_ask(context: Context, seconds: float) -> None:
    movers = context.ports.movers
    if isinstance(movers, Outliving):
        movers.keep_quiet(context.workflow.id, seconds)


def switch_replicas(context: Context, way: Way) -> None:
    """Vitess moves replica reads along the way.

    :raises DeadlineExceededError: it does not.
    """
    context.confirm()
    vitess(context).moves.switch_replicas(
        move_of(context), REPLICAS, back=is_back(context, way), timeout_seconds=SETTLE_SECONDS
    )


def unswitch_replicas(context: Context) -> None:
    """Replica reads are where the store says."""
    vitess(context).moves.switch_replicas(
        move_of(context),
        REPLICAS,
        back=not context.workflow.replicas_switched,
        timeout_seconds=SETTLE_SECONDS,
    )


def commit_replicas(context: Context, *, switched: bool) -> None:
    """Replica reads are the target's, or the source's again: what Vitess did is written down."""
    told = told_rules(context)
    with context.commit("commit") as tx:
        stored = tx.routes.rules(context.workflow.branch_id)
        tx.routes.replace_rules(context.workflow.branch_id, with_vitess(context, stored, told))
        if switched:
            tx.workflows.update(context.workflow.id, replicas_switched=True)
        else:
            tx.workflows.update(context.workflow.id, replicas_switched=False, verified=False)


def raise_ids(context: Context, way: Way) -> None:
    """Who gives ids on the other side gives only such as nobody has, whatever its tablets have kept."""
    raise_ids_on_servers(context, way)
    side = "source" if way.to is context.source else "target"
    kept = sorted({given.giver(side) for given in steps_start.ids_of(context)} - {AUTO_INCREMENT})
    if not kept:
        return
    server_id = context.owner(way.to)[0].endpoint.server_id
    account = context.ports.engine.endpoint(server_id, BackendRole.ADMIN)
    vtgate = vitess(context).clusters.vtgate(context.workflow.branch_id)
    named = [(keyspace, sequence) for keyspace, _, sequence in (giver.partition(".") for giver in kept)]
    vitess(context).use_up(replace(vtgate, user=account.user, password=account.password), named)


def save_positions(context: Context, way: Way) -> None:
    """Have streams along the way say soon how far they are.

    VReplication writes down a position with each transaction that it has rows of, but of others, such as the
    last write of another shard or our own to a sequence, only once 1.1 s have passed; and who waits for it,
    as a switch does, looks every second. A statement that it knows to be of no table counts at once. Where a
    stream writes its position into the very log that it reads that is of no use.
    """
    if not context.hand.moved:
        shared = {place.endpoint.server_id for place in context.owner(way.to)}
        places = [place for place in context.owner(way.origin) if place.endpoint.server_id not in shared]
        if places:
            context.tools.mark_logs(places)


def switch(context: Context, way: Way) -> None:
    """Vitess moves writes, or has moved them.

    :raises DeadlineExceededError: it did not, and left them where they were.
    :raises UnavailableError: it has begun and does not come to an end.
    """
    hand = context.hand
    # What was called and broke off may have begun.
    untouched = not hand.moved and not hand.called
    hand.switching = hand.called = True
    try:
        if not hand.moved and not context.ports.gateways.is_held(hand.hold_id):
            raise DeadlineExceededError("a gateway released the hold before Vitess was asked to move writes")
        context.confirm()
        hand.told = vitess(context).moves.switch_primaries(
            move_of(context),
            back=is_back(context, way),
            timeout_seconds=SWITCH_SECONDS,
            untouched=untouched,
        )
    finally:
        hand.switching = False
    if not context.ports.gateways.is_held(hand.hold_id):
        raise_ids(context, way)  # clients may have taken ids after they were raised


def unswitch(context: Context, way: Way) -> None:
    """Writes are where they were: what Vitess has begun is brought to its end, and what it did is undone.

    :raises UnavailableError: not yet.
    """
    context.confirm()
    vitess(context).moves.settle(
        move_of(context), back=not is_back(context, way), timeout_seconds=SETTLE_SECONDS
    )
    # Vitess may have let writes go there before it brought them back.
    raise_ids(context, replace(way, origin=way.to, to=way.origin))


def commit(context: Context, way: Way) -> None:
    """Vitess has moved writes and replica reads; here that is written down, closed still for our gateways."""
    told, context.hand.told = context.hand.told, None
    if told is None:
        told = told_rules(context)
    to_target = way.to is context.target
    with context.commit("commit") as tx:
        stored = tx.routes.rules(context.workflow.branch_id)
        rules = with_vitess(context, stored, told)
        tx.routes.move_rules(context.workflow.branch_id, rules, context.subject, context.both_sides)
        if to_target:
            tx.workflows.update(context.workflow.id, primaries_switched=True, replicas_switched=True)
        else:
            tx.workflows.update(
                context.workflow.id, primaries_switched=False, replicas_switched=False, verified=False
            )


# -- ends --------------------------------------------------------------------------------------------------


def complete(context: Context) -> None:
    """Vitess drops the source's tables and forgets the move; the rules stay as they are."""
    context.confirm()
    vitess(context).moves.complete(move_of(context))
    steps_end.drop_source(context)  # where it had lost its streams it knows of no move, and drops nothing


def leave_source_vschema(context: Context) -> None:
    """The source's vschema names the tables no more."""
    steps_end.leave_source_vschema(context)
    follow(context)


def route_after_cutover(context: Context) -> None:
    """Rules as before the workflow, in the cluster too."""
    steps_end.route_after_cutover(context)
    apply_stored(context)


def cancel(context: Context) -> None:
    """Vitess drops the target's tables and forgets the move; the rules lead to the source."""
    ports, move = vitess(context), move_of(context)
    seen = ports.moves.look(move)
    context.confirm()
    if seen.exists or seen.reverse_exists:
        ports.moves.settle(move, back=True, timeout_seconds=SETTLE_SECONDS)
        ports.moves.switch_replicas(move, REPLICAS, back=True, timeout_seconds=SETTLE_SECONDS)
        ports.moves.cancel(move)
    follow_anew(context)
    steps_start.drop_tables(context)


def route_after_cancel(context: Context) -> None:
    """Exactly the rules before the workflow, in the cluster too."""
    if context.workflow.rules_before is None:
        return
    steps_end.route_after_cancel(context)
    apply_stored(context)


def route_as_state_says(context: Context) -> None:
    """The rules of a resting state. Of a completed workflow's they are nobody's own any more, and the cluster
    follows them by itself.
    """
    steps_end.route_as_state_says(context)
    if context.workflow.state is not State.COMPLETED:
        apply_stored(context)
