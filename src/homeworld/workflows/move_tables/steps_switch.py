"""Moving traffic: replicas by rules alone, primaries under a hold, in either direction.

The critical part of a switch of primaries is everything from *hold* to *release*: a client waits for as long
as it takes. So whatever can be done before is done before (connections are open, lag is low, the dormant
stream's memory is cleared), what can wait is done after (the old stream is stopped while the locks still keep
its side quiet), and in between each server is asked once a step and the store once in all.

Invariants: up to the commit the stored rules name the origin; from the commit on the other side, closed:
whoever publishes them, gateways serve nobody on the other side before *release*, by which all of them have
left the origin and it is swept; the opposite stream starts at a position that was read while both sides were
quiet.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    PreconditionsFailedError,
    UnavailableError,
)
from homeworld.model.movers import Phase
from homeworld.model.ports import Holding, Preconditions
from homeworld.model.routing import HoldRequest
from homeworld.model.routing_rules import TrafficPhase
from homeworld.model.topology import BackendRole, TabletType
from homeworld.store.store import Transaction
from homeworld.workflows.move_tables.context import Context, Side, Way
from homeworld.workflows.move_tables.decide import (
    FORWARD_STREAM,
    REVERSE_PRIMARIES,
    REVERSE_REPLICAS,
    REVERSE_STREAM,
    STOP_STREAM,
    SWITCH_PRIMARIES,
    SWITCH_REPLICAS,
)
from homeworld.workflows.move_tables.ids_on_servers import raise_ids
from homeworld.workflows.move_tables.steps_start import publish
from homeworld.workflows.move_tables.strangers import end_fences, end_strangers
from homeworld.workflows.steps import Plan, Sort, Step

REPLICA_SECONDS = 30.0  # for replicas to catch up, before anything waits for it
BEHIND_SECONDS = 20.0  # for the stream to come close, the same
CLOSE_SECONDS = 1.0  # how close
HURRY_SECONDS = 60.0  # from then on nothing holds the stream back, longer than all until the commit can take
# After so long gateways release by themselves. Longer than it takes another executor to take over from one
# that died (its lease and some), so that what it left half done is mended before any client goes on.
HOLD_SECONDS = 20.0
SWITCH_SECONDS = 8.0  # of it that a switch may use up to its commit
# For transactions under way to end, one attempt after another. Clients wait while they do, so the first
# attempts are short, and between them everything goes on.
DRAIN_SECONDS = (0.25, 0.5, 1.0, 2.0, 4.0)
BETWEEN_SECONDS = 1.0
LOOK_SECONDS = 0.25  # that a look for users may cost under the hold
LOCK_SECONDS = 3.0  # for the locks on the origin
STOP_SECONDS = 30.0  # for a mover
POLL_SECONDS = 0.05

Act = Callable[[Context], None]
_log = logging.getLogger(__name__)


def _fleeting(name: str, perform: Act, undo: Act = lambda _context: None) -> Step[Context]:
    return Step(name, perform, undo=undo, sort=Sort.FLEETING)


def primaries_plan(
    name: str, stream: str, commit: Act, first: tuple[Step[Context], ...] = ()
) -> Plan[Context]:
    """Move primary traffic to where ``stream`` leads.

    :param first: what comes before everything else.
    """

    def along(act: Callable[[Context, Way], None]) -> Act:
        return lambda context: act(context, context.way(stream))

    return Plan(
        name,
        (
            *first,
            _fleeting("wait for replicas", along(wait_replicas)),
            Step("clear the opposite stream", along(clear_opposite)),
            _fleeting("come close", along(come_close)),
            _fleeting("look for users", along(look_for_users)),
            _fleeting("hold", along(hold), undo=lambda context: context.release_hold()),
            _fleeting("fence", along(fence), undo=lambda context: context.hand.unlock()),
            _fleeting("look again", along(look_again)),
            _fleeting("drain", along(drain)),
            _fleeting("raise ids", along(raise_ids)),
            _fleeting("read positions", along(read_positions)),
            _fleeting("still held", still_held),
            Step("commit", commit, sort=Sort.COMMIT),
            _fleeting("publish", along(publish_held)),
            _fleeting("sweep", along(sweep)),
            _fleeting("release", open_tables),
            _fleeting("forget that they were closed", forget_closing),
            _fleeting(STOP_STREAM, along(stop_stream)),
            _fleeting("unfence", lambda context: context.hand.unlock()),
        ),
    )


def switch_primaries_plan(preconditions: Preconditions) -> Plan[Context]:
    """From the source to the target."""
    return primaries_plan(SWITCH_PRIMARIES, FORWARD_STREAM, commit_to_target, (_check_again(preconditions),))


def reverse_primaries_plan() -> Plan[Context]:
    """From the target back to the source."""
    return primaries_plan(REVERSE_PRIMARIES, REVERSE_STREAM, commit_to_source)


def _check_again(preconditions: Preconditions) -> Step[Context]:
    return _fleeting("check again", lambda context: check_again(context, preconditions))


def switch_replicas_plan(preconditions: Preconditions) -> Plan[Context]:
    """Replica reads go to the target."""
    return Plan(
        SWITCH_REPLICAS,
        (
            _check_again(preconditions),
            _fleeting("come close", lambda context: come_close(context, context.way(FORWARD_STREAM))),
            _fleeting(
                "wait for replicas", lambda context: wait_replicas(context, context.way(FORWARD_STREAM))
            ),
            Step("commit", commit_replicas, sort=Sort.COMMIT),
            _fleeting("publish", publish),
        ),
    )


def reverse_replicas_plan() -> Plan[Context]:
    """Replica reads come back to the source."""
    return Plan(
        REVERSE_REPLICAS,
        (
            _fleeting(
                "wait for replicas", lambda context: wait_replicas(context, context.way(REVERSE_STREAM))
            ),
            Step("commit", commit_replicas_back, sort=Sort.COMMIT),
            _fleeting("publish", publish),
        ),
    )


# -- before the hold ---------------------------------------------------------------------------------------


def check_again(context: Context, preconditions: Preconditions) -> None:
    """What had to hold when the workflow began holds still, as far as it could become untrue.

    :raises PreconditionsFailedError: it does not; nothing is held, nothing has changed.
    """
    if reasons := preconditions.lasting(context.wish()):
        raise PreconditionsFailedError(reasons)


def look_for_users(context: Context, way: Way) -> None:
    """Nothing that stays on the side which traffic leaves uses its tables.

    :raises PreconditionsFailedError: something would go on with rows that are nobody's any more.
    """
    begun = time.monotonic()
    found = [
        user
        for place in context.owner(way.origin)
        for user in context.tools.references(place, context.tables)
    ]
    context.hand.look_seconds = time.monotonic() - begun
    if found:
        raise PreconditionsFailedError(tuple(found))


def wait_replicas(context: Context, way: Way) -> None:
    """Replicas that are about to serve have what their primaries have.

    :raises DeadlineExceededError: one lags too much.
    """
    deadline = time.monotonic() + REPLICA_SECONDS
    for server in way.to.replicas:
        context.lease.check()
        context.ports.engine.wait_replica(server, max(0.1, deadline - time.monotonic()))


def clear_opposite(context: Context, way: Way) -> None:
    """The opposite stream is dormant: what its memory says of positions is of an earlier time. It goes, so
    that the stream starts where this switch says.
    """
    targets = way.origin.places(context.ports.engine, BackendRole.MOVER)
    context.tools.forget_stream(context.workflow.id, way.opposite, targets, context.workflow.epoch)


def come_close(context: Context, way: Way) -> None:
    """The stream is nearly up to date, and every connection that the next steps need is open.

    :raises DeadlineExceededError: it does not come close enough.
    """
    mover = context.mover(way.stream)
    mover.hurry(HURRY_SECONDS)
    deadline = time.monotonic() + BEHIND_SECONDS
    context.tools.warm((*context.owner(context.source), *context.owner(context.target)))
    while True:
        progress = mover.progress()
        if progress.phase is Phase.FOLLOWING and progress.lag_seconds <= CLOSE_SECONDS:
            return
        if time.monotonic() > deadline:
            raise DeadlineExceededError(
                f"the {way.stream} stream is {progress.phase}, {progress.lag_seconds:.1f} s behind, "
                f"and did not come within {CLOSE_SECONDS:g} s in {BEHIND_SECONDS:g} s"
            )
        context.lease.check()
        time.sleep(POLL_SECONDS)


# -- under the hold ----------------------------------------------------------------------------------------


def hold(context: Context, way: Way) -> None:
    """New statements on the moving tables wait; those under way end first.

    :raises DeadlineExceededError: transactions under way do not end in time, in no attempt.
    """
    for drain_seconds in DRAIN_SECONDS[:-1]:
        try:
            _hold(context, drain_seconds, way.origin)
        except DeadlineExceededError as error:
            _log.info("workflow %s: held for %g s in vain: %s", context.workflow.id, drain_seconds, error)
            context.lease.check()
            time.sleep(BETWEEN_SECONDS)
        else:
            return
    _hold(context, DRAIN_SECONDS[-1], way.origin)


def hold_with_replicas(context: Context, way: Way) -> None:
    """The same with replica reads, where their transactions end at once: over a vtgate one that goes on
    beyond the switch would have to begin anew. Those that take longer are not waited for.

    :raises DeadlineExceededError: transactions under way do not end in time, in no attempt.
    """
    try:
        _hold(context, DRAIN_SECONDS[0], way.origin, way.to, tablet_types=frozenset(TabletType))
    except DeadlineExceededError as error:
        _log.info("workflow %s: not held with replicas: %s", context.workflow.id, error)
        context.lease.check()
        time.sleep(BETWEEN_SECONDS)
        hold(context, way)


def hold_replicas(context: Context) -> None:
    """Replica reads of the tables wait for a moment, if their transactions end at once."""
    types = frozenset({TabletType.REPLICA, TabletType.RDONLY})
    try:
        _hold(context, DRAIN_SECONDS[0], context.source, context.target, tablet_types=types)
    except DeadlineExceededError as error:
        _log.info("workflow %s: replica reads are not held: %s", context.workflow.id, error)
        context.hand.hold_id = ""


def _hold(
    context: Context,
    drain_seconds: float,
    *sides: Side,
    tablet_types: frozenset[TabletType] = frozenset({TabletType.PRIMARY}),
) -> None:
    # Before anybody waits: what one that is not there has left locked, others would wait for under the hold.
    end_fences(context, *sides)
    end_strangers(context, *sides)
    # An id of its own for each attempt, so that none is taken for another: a hold that is in force has been
    # so all the time, and what a process that lost its lease lets go of is nobody else's.
    context.hand.attempts += 1
    turn = (context.lease.token, context.hand.attempts)
    hold_id = f"{context.subject}-{turn[0]}-{turn[1]}"
    begun = time.monotonic()
    context.hand.hold_id = hold_id
    context.ports.gateways.hold(
        HoldRequest(
            hold_id=hold_id,
            branch_id=context.workflow.branch_id,
            tables=frozenset((side.name, table) for side in sides for table in context.tables),
            tablet_types=tablet_types,
            drain_seconds=drain_seconds,
            hold_seconds=HOLD_SECONDS,
            subject=context.subject,
            turn=turn,
        )
    )
    context.hand.held_until = begun + HOLD_SECONDS
    try:
        end_strangers(context, *sides)
    except HomeworldError:
        context.release_hold()
        raise


def held(context: Context) -> bool:
    """Whether every gateway has held since the hold in hand was asked for."""
    hold_id = context.hand.hold_id
    return bool(hold_id) and context.ports.gateways.is_held(hold_id)


def time_left(context: Context, at_most: float) -> float:
    """How long a step between hold and commit may take.

    :raises DeadlineExceededError: the switch has taken too long already.
    """
    left = context.hand.remaining() - (HOLD_SECONDS - SWITCH_SECONDS)
    if left <= 0:
        raise DeadlineExceededError(f"the traffic could not move within {SWITCH_SECONDS:g} s of holding it")
    return min(left, at_most)


def fence(context: Context, way: Way) -> None:
    """Nobody writes to the origin's tables any more, gateway or not; its final positions are read.

    :raises DeadlineExceededError: some transaction outside the gateways does not end in time.
    """
    lock(context, way, time_left(context, LOCK_SECONDS))


def lock(context: Context, way: Way, seconds: float) -> None:
    """Lock the origin's tables anew, and read where its servers stand then."""
    context.hand.unlock()
    places = context.owner(way.origin)
    context.hand.finals = context.hand.locks.enter_context(
        context.ports.fence(places, context.tables, seconds)
    )
    context.hand.stops = context.hand.finals


def look_again(context: Context, way: Way) -> None:
    """Nothing has come to use the origin's tables since the look right before the hold. Where that look took
    long, as it does among very many tables, clients do not wait for another.

    :raises PreconditionsFailedError: something has.
    """
    if context.hand.look_seconds <= LOOK_SECONDS:
        look_for_users(context, way)


def drain(context: Context, way: Way) -> None:
    """The other side has everything up to the final positions.

    :raises DeadlineExceededError: not in time.
    """
    context.mover(way.stream).drain(context.hand.finals, time_left(context, HOLD_SECONDS))


def read_positions(context: Context, way: Way) -> None:
    """Where the opposite stream will start: the other side now, before any client writes to it."""
    context.hand.starts = context.tools.positions(context.owner(way.to))


def still_held(context: Context) -> None:
    """The last look before the commit.

    :raises DeadlineExceededError: a gateway may have released by itself, or soon would.
    :raises UnavailableError: the tables are not locked any more.
    """
    time_left(context, HOLD_SECONDS)
    if not held(context):
        raise DeadlineExceededError("a gateway released the hold before the traffic could move")
    if isinstance(context.hand.finals, Holding) and not context.hand.finals.holding():
        raise UnavailableError("a server let go of the locked tables before the traffic could move")


# -- the commit points -------------------------------------------------------------------------------------


def same_primaries(context: Context, tx: Transaction) -> None:
    """What was locked, drained and read is what clients have written to: gateways find a shard's primary by
    what the store says, and one that was replaced since has not what its heir has taken.

    :raises UnavailableError: a shard has another primary.
    """
    for side in (context.source, context.target):
        now = [shard.primary_server_id for shard in tx.keyspaces.shards(side.keyspace.id)]
        if now != [shard.primary_server_id for shard in side.shards]:
            raise UnavailableError(f"a shard of {side.name} has another primary by now; try again")


def commit_to_target(context: Context) -> None:
    """From here on the target owns writes; replica traffic goes along."""
    with context.commit("commit") as tx:
        same_primaries(context, tx)
        context.route_closed(tx, TrafficPhase.TARGET)
        tx.workflows.update(
            context.workflow.id,
            primaries_switched=True,
            replicas_switched=True,
            reverse_positions=dict(context.hand.starts),
        )


def commit_to_source(context: Context) -> None:
    """From here on the source owns writes again, replica traffic too."""
    with context.commit("commit") as tx:
        same_primaries(context, tx)
        context.route_closed(tx, TrafficPhase.SOURCE)
        tx.workflows.update(
            context.workflow.id,
            primaries_switched=False,
            replicas_switched=False,
            verified=False,
            forward_positions=dict(context.hand.starts),
        )


def commit_replicas(context: Context) -> None:
    """Replica reads are the target's."""
    with context.commit("commit") as tx:
        context.route(tx, TrafficPhase.REPLICAS)
        tx.workflows.update(context.workflow.id, replicas_switched=True)


def commit_replicas_back(context: Context) -> None:
    """Replica reads are the source's again."""
    with context.commit("commit") as tx:
        context.route(tx, TrafficPhase.SOURCE)
        tx.workflows.update(context.workflow.id, replicas_switched=False, verified=False)


# -- after the commit --------------------------------------------------------------------------------------


def publish_held(context: Context, way: Way) -> None:
    """Every gateway takes the new routes, and none lets a statement go on before all have them.

    A gateway takes them only under the hold, so all have if the hold was in force before and is so after.
    Where it is not unbroken (its holder died, or it took too long), a statement may have reached the origin
    by the old routes. Then both sides are held, and :func:`sweep` carries it over before anybody writes to
    the other side: its row might have an id that the other side would give out, too.

    :raises DeadlineExceededError: the hold ended meanwhile; tried again.
    """
    if not held(context):
        context.hand.unlock()  # what waits at our own locks is under way, and would never end
        context.hand.broken = True
        _hold(context, DRAIN_SECONDS[-1], way.origin, way.to)
    publish(context)
    if not held(context):
        raise DeadlineExceededError("the hold ended before every gateway had the new routes")


def sweep(context: Context, way: Way) -> None:
    """Carry over what reached the origin while the hold was broken; nothing where it was not.

    :raises DeadlineExceededError: not in time; tried again.
    """
    if not context.hand.broken:
        return
    mover = context.live_mover(way.stream)
    if mover is not None and mover.progress().phase in {Phase.FAILED, Phase.STOPPED, Phase.DDL}:
        context.stop_mover(way.stream, STOP_SECONDS)  # it would be asked in vain for ever
        mover = None
    mover = mover or context.start_mover(way.stream)
    lock(context, way, LOCK_SECONDS)
    mover.drain(context.hand.finals, BEHIND_SECONDS)
    raise_ids(context, way)
    context.hand.broken = False


def open_tables(context: Context) -> None:
    """All gateways have the new routes and nothing is left behind: everybody goes on."""
    context.ports.gateways.open(context.subject)
    context.release_hold()


def forget_closing(context: Context) -> None:
    """Gateways that start from now on, and those that were not told in time, need not wait for being told."""
    with context.write() as tx:
        tx.routes.forget_closing(context.workflow.branch_id, context.subject)


def stop_stream(context: Context, way: Way) -> None:
    """The stream that led here ends, while its origin is still quiet: it must not see what the opposite
    stream will write.
    """
    context.stop_mover(way.stream, STOP_SECONDS)
