"""A switch of writes on a cluster that only we use: ours while clients wait, Vitess's own behind it.

Everybody who uses such a cluster comes through our gateways. So these hold, the origin is locked, its last
writes are followed, and the store moves the tables: that is the commit point. Only then are the rules in
Vitess changed, with our gateways closed until vtgate serves by them. What takes Vitess a second in a switch
of its own (denying writes, stopping streams, making those back) it does afterwards, with clients going on.

Invariants: rules in Vitess never lead to the other side before the store does, nor before every gateway has
left the origin with all that was written there followed; the positions where the streams back will begin were
read between the last write to one side and the first to the other. The order of everything else is the local
one (:mod:`homeworld.workflows.move_tables.steps_switch`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from homeworld.model.clusters import STOPPED_AT_DDL, ClusterMove, RuleSetter
from homeworld.model.errors import DeadlineExceededError, UnavailableError
from homeworld.model.gtid import Position
from homeworld.model.routing_rules import look_up, switched_rules
from homeworld.model.topology import Flavor, ShardPlace, TabletType
from homeworld.store.workflows import WorkflowFields
from homeworld.workflows.move_tables import steps_switch
from homeworld.workflows.move_tables.context import Context, Way
from homeworld.workflows.move_tables.tools import VitessStream
from homeworld.workflows.move_tables.vitess_start import move_of, vitess, with_vitess
from homeworld.workflows.move_tables.vitess_steps import (
    SETTLE_SECONDS,
    is_back,
    raise_ids,
)

SERVED = "served"  # the fact that says by which run clients have been let go on
DRAIN_SECONDS = 20.0  # behind a hold that was broken, with nobody's wait to be cut short
RULES_SECONDS = 10.0
CONCLUDE_SECONDS = 60.0
UP_SECONDS = 0.2  # for what sets the rules to come up, before clients wait
CALM_SECONDS = 0.5  # for clients to catch up, before Vitess is kept busy again
LOOK_SECONDS = 0.004  # between looks at how far the streams are; a round trip to each server

_log = logging.getLogger(__name__)

# -- before the hold ---------------------------------------------------------------------------------------


def look_first(context: Context, way: Way) -> None:
    """Nothing of a switch is left in Vitess, such as one that was asked for behind our back: what is, is
    taken back before this one begins.

    :raises UnavailableError: not yet.
    """
    move, back = move_of(context), is_back(context, way)
    seen = vitess(context).moves.look(move)
    if seen.halfway or seen.primaries_switched is not back:
        context.confirm()
        vitess(context).moves.settle(move, back=not back, timeout_seconds=SETTLE_SECONDS)
        raise_ids(context, context.way(way.opposite))


def admit(context: Context) -> None:
    """Tablets of both sides take writes to the tables; rules alone say where they go.

    :raises UnavailableError: the cluster does not answer.
    """
    context.confirm()
    vitess(context).moves.admit(move_of(context))


def unadmit(context: Context, way: Way) -> None:
    """Tablets of the side that has no writes refuse them again."""
    context.confirm()
    vitess(context).moves.serve_from(move_of(context), way.origin.name)


def get_ready(context: Context, way: Way) -> None:
    """What the next steps need is there: streams are known, and the rules wait to be set.

    :raises UnavailableError: Vitess does not say.
    """
    context.hand.streams = vitess(context).moves.streams(
        move_of(context), reverse=way.stream == steps_switch.REVERSE_STREAM
    )
    if not context.hand.streams:
        raise UnavailableError(f"Vitess has no {way.stream} streams")
    _setter(context)
    time.sleep(UP_SECONDS)


def _setter(context: Context) -> RuleSetter:
    hand = context.hand
    if hand.setter is None:
        hand.setter = vitess(context).clusters.begin_rules(context.workflow.branch_id)
    return hand.setter


# -- under the hold ----------------------------------------------------------------------------------------


def drain(context: Context, way: Way) -> None:
    """The streams have written everything up to the final positions.

    :raises DeadlineExceededError: not in time.
    """
    _drain(context, way, steps_switch.time_left(context, steps_switch.HOLD_SECONDS))


def _drain(context: Context, way: Way, seconds: float) -> None:
    """Wait until the positions that the streams have written down contain the final ones.

    VReplication writes one down with each transaction that it has rows of, but of others, such as the last
    write of another shard or our own to a sequence, only once 1.1 s have passed. A statement that it knows to
    be of no table counts at once: one such is written behind the final positions.
    """
    deadline = time.monotonic() + seconds
    context.tools.mark_logs(context.owner(way.origin))
    finals = {shard: Position.parse(Flavor.MYSQL, text) for shard, text in context.hand.finals.items()}
    behind = {(stream.shard, stream.number): finals[stream.source_shard] for stream in context.hand.streams}
    places = {place.shard: place for place in context.owner(way.to)}
    while True:
        for shard in sorted({shard for shard, _ in behind}):
            for number, stream in _streams(context, way, places[shard]).items():
                final = behind.get((shard, number))
                if final is None:
                    continue
                if stream.message.startswith(STOPPED_AT_DDL):
                    raise DeadlineExceededError(f"the {way.stream} stream met {stream.message}")
                # One that was stopped may have the position of what it did not carry out.
                there = Position.parse(Flavor.MYSQL, stream.position).contains(final)
                if there and stream.state == "Running":
                    del behind[shard, number]
        if not behind:
            return
        if time.monotonic() > deadline:
            where = ", ".join(sorted({shard for shard, _ in behind}))
            raise DeadlineExceededError(
                f"the {way.stream} stream did not have everything in {way.to.name}/{where} in {seconds:.1f} s"
            )
        time.sleep(LOOK_SECONDS)


def _streams(context: Context, way: Way, place: ShardPlace) -> Mapping[int, VitessStream]:
    sidecar = vitess(context).clusters.sidecar(context.workflow.branch_id, way.to.name)
    return context.tools.stream_positions(place, sidecar)


# -- the commit point --------------------------------------------------------------------------------------


def commit(context: Context, way: Way) -> None:
    """From here on the other side owns writes, replica reads too; closed until vtgate serves by that."""
    told = _setter(context).rules
    move, back = move_of(context), is_back(context, way)
    with context.commit("commit") as tx:
        steps_switch.same_primaries(context, tx)
        stored = tx.routes.rules(context.workflow.branch_id)
        rules = with_vitess(context, stored, _switched(told, move, back=back))
        tx.routes.move_rules(context.workflow.branch_id, rules, context.subject, context.both_sides)
        fields = _starts(context, back=back)
        fields |= {"primaries_switched": not back, "replicas_switched": not back}
        if back:
            fields |= {"verified": False}
        tx.workflows.update(context.workflow.id, **fields)


def _switched(rules: Mapping[str, str], move: ClusterMove, *, back: bool) -> dict[str, str]:
    origin, to = (move.target, move.source) if back else (move.source, move.target)
    return switched_rules(rules, move.tables, origin, to)


def _starts(context: Context, *, back: bool) -> WorkflowFields:
    starts = dict(context.hand.starts)
    return {"forward_positions": starts} if back else {"reverse_positions": starts}


# -- behind it ---------------------------------------------------------------------------------------------


def publish(context: Context, way: Way) -> None:
    """Every gateway takes the new routes, and none lets a statement go on before all have them; where clients
    have been let go on already nobody waits again.

    :raises DeadlineExceededError: the hold ended meanwhile; tried again.
    """
    if _is_served(context):
        context.ports.publish()
    else:
        steps_switch.publish_held(context, way)


def forget_closing(context: Context) -> None:
    """Gateways that start from now on need not wait for being told. And whoever takes the run over from here
    on need not hold anybody, nor look for what reached the origin: clients write to the other side.
    """
    with context.write() as tx:
        tx.routes.forget_closing(context.workflow.branch_id, context.subject)
        context.set_facts(tx, **{SERVED: context.subject})


def _is_served(context: Context) -> bool:
    return context.workflow.facts.get(SERVED) == context.subject


def sweep(context: Context, way: Way) -> None:
    """Have followed what reached the origin while the hold was broken; nothing where it was not. Where vtgate
    was told of the new rules already, that was behind a hold that was not.

    :raises DeadlineExceededError: not in time; tried again.
    """
    if not context.hand.broken or _is_served(context):
        return
    if not _leads_there(context, way):
        if not context.hand.streams:
            get_ready(context, way)
        moves = vitess(context).moves
        moves.start(move_of(context), reverse=way.stream == steps_switch.REVERSE_STREAM)
        steps_switch.lock(context, way, steps_switch.LOCK_SECONDS)
        _drain(context, way, DRAIN_SECONDS)
        raise_ids(context, way)
        steps_switch.read_positions(context, way)
        with context.write() as tx:
            tx.workflows.update(context.workflow.id, **_starts(context, back=is_back(context, way)))
    context.hand.broken = False


def _leads_there(context: Context, way: Way) -> bool:
    """Whether the rules in Vitess lead all tables there."""
    rules = _setter(context).rules
    return all(
        look_up(rules, way.origin.name, table, TabletType.PRIMARY) == (way.to.name, table)
        for table in context.tables
    )


def unfence(context: Context, way: Way) -> None:
    """The origin's tables are free, and nothing that waited for them is left: it was sent by the rules of
    before, by a gateway that is set apart.
    """
    if context.hand.finals:
        context.tools.end_blocked(context.owner(way.origin), context.tables)
    context.hand.unlock()


def set_rules(context: Context, way: Way) -> None:
    """Vitess's rules lead there, and vtgate serves by them.

    :raises DeadlineExceededError: it does not in time; tried again.
    """
    setter = _setter(context)
    context.confirm()
    if not _leads_there(context, way):
        if _is_served(context):
            _log.error("workflow %s: somebody has changed its rules in Vitess", context.workflow.id)
        setter.set(_switched(setter.rules, move_of(context), back=is_back(context, way)), RULES_SECONDS)
        context.hand.leave_rules()
        return
    rules = setter.rules
    context.hand.leave_rules()
    # Whoever set them may have died before it told what vtgate reads.
    vitess(context).clusters.apply_rules(context.workflow.branch_id, rules)


def conclude(context: Context, way: Way) -> None:
    """Vitess has made the switch its own, and streams in the other direction wait where they have to begin.

    :raises UnavailableError: not yet; tried again.
    """
    time.sleep(CALM_SECONDS)
    context.confirm()
    move, moves, back = move_of(context), vitess(context).moves, is_back(context, way)
    moves.start(move, reverse=back)  # those that a failover has stopped would not come to where they have to
    workflow = context.workflow
    starts = workflow.forward_positions if back else workflow.reverse_positions
    moves.conclude(move, back=back, starts=starts, timeout_seconds=CONCLUDE_SECONDS, check=context.confirm)
