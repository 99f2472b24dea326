"""The plans of a reparent, as data: what is done in which order, and where it counts.

Everything from *hold* to *release* costs clients a wait, so what can be done before is done before. Whether
the commit point is behind is asked of the engine (:func:`committed`): the servers' own records say who takes
writes.

Invariant: before the commit point nothing is changed that outlives the process but the choice of the heir.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

from homeworld.model.errors import (
    DeadlineExceededError,
    HomeworldError,
    InvalidError,
    NotFoundError,
    UnavailableError,
)
from homeworld.workflows.clusters.following import await_serving
from homeworld.workflows.failover import admit, tell
from homeworld.workflows.reparenting.context import Context
from homeworld.workflows.steps import Plan, Sort, Step

_log = logging.getLogger(__name__)
PLANNED = "reparent"
EMERGENCY = "emergency-reparent"
PROMOTE = "promote"

CATCH_UP_SECONDS = 30.0
# For transactions under way to end, one attempt after another; between them everything goes on.
DRAIN_SECONDS = (0.5, 1.0, 2.0, 4.0)
BETWEEN_SECONDS = 1.0
EMERGENCY_DRAIN_SECONDS = 1.0
# Under the hold, for the fence and the rest that the heir lacks.
PROMOTE_SECONDS = 10.0
FOLLOW_SECONDS = 10.0
_LOOK_SECONDS = 0.25


def committed(context: Context) -> bool:
    """Whether the heir has taken the former primary's place, as the servers' records say."""
    heir = context.reparent.heir_server_id
    return heir is not None and context.ports.engine.is_primary(heir)


def unsettled(context: Context) -> bool:
    """Whether it may turn out either way yet."""
    try:
        return context.ports.engine.unsettled(context.former)
    except NotFoundError:
        return False


def choose(context: Context) -> None:
    """The asked replica if it can be had, else the one that is least behind.

    :raises InvalidError: there is none.
    :raises UnavailableError: none follows.
    """
    known = _candidates(context)
    if context.reparent.heir_asked:
        if context.heir not in known:
            raise InvalidError(f"{context.heir} is no replica of {context.former} that serves")
        return
    lags: dict[str, float] = {}
    wrong: list[str] = []
    for server_id in known:
        status = context.ports.engine.status(server_id)
        if status.accepting and not status.replication_error:
            lags[server_id] = status.replica_lag_seconds or 0.0
        else:
            wrong.append(f"{server_id}: {status.replication_error or 'it does not answer'}")
    if not lags:
        raise UnavailableError(f"no replica follows {context.former} ({'; '.join(wrong)})")
    _chose(context, min(lags, key=lambda server_id: lags[server_id]))


def choose_furthest(context: Context) -> None:
    """The asked replica if it can be had, else the one that has most.

    :raises InvalidError: there is none.
    :raises UnavailableError: none answers.
    """
    known = _candidates(context)
    if context.reparent.heir_asked:
        if context.heir not in known:
            raise InvalidError(f"{context.heir} is no replica of {context.former} that serves")
        return
    _chose(context, context.ports.engine.furthest(known))


def _candidates(context: Context) -> list[str]:
    if committed(context):
        return [context.heir]  # it was one
    with context.ports.store.read() as tx:
        if tx.servers.get(context.former).replica_of is not None:
            raise InvalidError(f"{context.former} is not the shard's primary any more; ask again")
    found = [server.id for server in context.replicas()]
    if not found:
        raise InvalidError(
            f"{context.former} has no replica that could take its place; resize the keyspace with "
            "extra_replicas to have one"
        )
    return found


def _chose(context: Context, heir: str) -> None:
    with context.write() as tx:
        tx.reparents.choose(context.reparent.id, heir)
        context.reparent = tx.reparents.get(context.reparent.id)


def catch_up(context: Context) -> None:
    """Let the heir come close before anybody waits for it."""
    context.ports.engine.wait_replica(context.heir, CATCH_UP_SECONDS)


def hold(context: Context) -> None:
    """Nobody writes to the former primary any more, and nobody is about to.

    :raises DeadlineExceededError: transactions do not end in time, in no attempt.
    """
    for drain_seconds in DRAIN_SECONDS[:-1]:
        try:
            context.hold(drain_seconds)
        except DeadlineExceededError as error:
            _log.info("reparent %s: held for %g s in vain: %s", context.reparent.id, drain_seconds, error)
            context.lease.check()
            time.sleep(BETWEEN_SECONDS)
        else:
            return
    context.hold(DRAIN_SECONDS[-1])


def hold_if_it_can_be(context: Context) -> None:
    """The same where transactions end at once; on a server that hangs they do not, and nobody is helped by
    waiting for them.
    """
    try:
        context.hold(EMERGENCY_DRAIN_SECONDS)
    except UnavailableError as error:
        _log.warning("reparent %s goes on without a hold: %s", context.reparent.id, error)


def promote(context: Context) -> None:
    """The heir takes the former primary's place, with everything that one had.

    :raises HomeworldError: it does not, unless the servers' records say so by now.
    """
    if not context.held:
        raise DeadlineExceededError("statements were not held for long enough")
    context.lease.check()
    context.ports.engine.promote(context.heir, timeout_seconds=PROMOTE_SECONDS)


def promote_at_a_loss(context: Context) -> None:
    """The heir takes the former primary's place, with everything that can be had: one that does not answer is
    killed, and what it had not sent is given up.
    """
    context.lease.check()
    context.ports.engine.promote(context.heir, accept_loss=True, timeout_seconds=PROMOTE_SECONDS)


def tell_store(context: Context) -> None:
    """From now on shards are found at the heir. Where the hold is over, clients wait again: whoever was let
    go writes to a fenced server.
    """
    if not context.held:
        hold_if_it_can_be(context)
    tell(context.ports.store, context.ports.engine, context.heir, context.lease.require)


def told(context: Context) -> str:
    """Whether the store names the heir."""
    with context.ports.store.read() as tx:
        primary = tx.servers.get(context.heir).replica_of is None
    return "" if primary else f"{context.heir} is not the primary in the store"


def lead(context: Context) -> None:
    """The branch's cluster, where it has one, finds the shards at the heir.

    :raises UnavailableError: it does not in time; clients go on waiting.
    """
    await_serving(context.ports.store, context.reparent.branch_id, check=context.lease.check)


def publish(context: Context) -> None:
    """Every gateway finds the shards at the heir."""
    context.ports.publish()


def follow(context: Context) -> None:
    """The former primary follows; one that does not is barred, and looked at again and again elsewhere."""
    deadline = time.monotonic() + FOLLOW_SECONDS
    while not admit(context.ports.store, context.ports.engine, context.former):
        if time.monotonic() > deadline:
            return
        context.lease.check()
        time.sleep(_LOOK_SECONDS)
    context.ports.publish()


def _let_go(context: Context) -> None:
    context.release()


def all_plans() -> Mapping[str, Plan[Context]]:
    """Both plans by name."""
    after: tuple[Step[Context], ...] = (
        Step("tell", tell_store, verify=told),
        Step("lead the cluster", lead),
        Step("publish", publish),
        Step("release", _let_go, sort=Sort.FLEETING),
        Step("follow", follow),
    )
    planned: Plan[Context] = Plan(
        PLANNED,
        (
            Step("choose", choose),
            Step("catch up", catch_up, sort=Sort.FLEETING),
            Step("hold", hold, undo=_let_go, sort=Sort.FLEETING),
            Step(PROMOTE, promote, sort=Sort.COMMIT),
            *after,
        ),
    )
    emergency: Plan[Context] = Plan(
        EMERGENCY,
        (
            Step("choose", choose_furthest),
            Step("hold", hold_if_it_can_be, undo=_let_go, sort=Sort.FLEETING),
            Step(PROMOTE, promote_at_a_loss, sort=Sort.COMMIT),
            *after,
        ),
    )
    return {plan.name: plan for plan in (planned, emergency)}


def plan_of(*, emergency: bool) -> str:
    """Which plan a reparent follows."""
    return EMERGENCY if emergency else PLANNED


def sentence(error: HomeworldError) -> str:
    """What to tell of an error that a try ended with."""
    return error.message or type(error).__name__
