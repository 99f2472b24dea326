"""The steps of a change of engine, in order, with the one commit point: the database's own row.

Theory of operation. Clusters are made beside the running database, on its own servers, with its vschemas and
rules; they are looked through; then, while every statement waits for a moment, the row says that the database
is theirs, and gateways hear of it. No row of a table moves. Before the commit point a failure lets go and
ends nothing but the clusters; after it only forward.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence

from homeworld.model.errors import DeadlineExceededError, InvalidError, UnavailableError
from homeworld.workflows.engine_changes.context import Context, Holding
from homeworld.workflows.engine_changes.looking import ANSWER_SECONDS, Content, hindrances
from homeworld.workflows.provisioning.runner import NotYetError
from homeworld.workflows.steps import Plan, Sort, Step

_log = logging.getLogger(__name__)
COMMIT = "commit"
# For transactions under way to end, one attempt after another; between them everything goes on.
DRAIN_SECONDS = (0.5, 1.0, 2.0, 4.0)
BETWEEN_SECONDS = 1.0
TAKE_OVER_SECONDS = 1.0
# Clients of all branches wait meanwhile.
AGAIN_SECONDS, AGAIN_ANSWER_SECONDS = 5.0, 2.0
Contents = Sequence[tuple[Holding, Sequence[Content]]]


def check(context: Context) -> None:
    """Nothing is at work on the database, and Vitess can serve what it has, as far as that can be seen.

    :raises InvalidError: it cannot; all reasons together.
    :raises UnavailableError: something is at work, or a server does not answer.
    """
    if not context.flavor_fits():
        raise InvalidError(
            f"{context.change.engine} does not stand on {context.database.flavor} servers; move the data to "
            "a database of another flavor"
        )
    with context.ports.store.read() as tx:
        why = tx.engine_changes.in_the_way(context.database.id)
    if why:
        raise UnavailableError(f"waits: {why}")
    hold_possible(_contents(context))


def _contents(context: Context, seconds: float = ANSWER_SECONDS, within: float = math.inf) -> Contents:
    """What there is.

    :param within: seconds for all of it.
    :raises DeadlineExceededError: it took longer.
    """
    deadline = time.monotonic() + within
    found: list[tuple[Holding, Sequence[Content]]] = []
    for holding in context.holdings():
        found.append(
            (holding, [context.ports.sight.content(place, seconds) for place in context.places(holding)])
        )
        if time.monotonic() > deadline:
            raise DeadlineExceededError(f"looking at what there is took longer than {within:g} s")
    return found


def hold_possible(contents: Contents) -> None:
    """Hold Vitess to be able to serve what there is.

    :raises InvalidError: it is not; all reasons together.
    """
    found: list[str] = []
    for holding, shards in contents:
        keyspace = holding.keyspace
        servers = [shard.primary_server_id or "" for shard in holding.shards]
        found += hindrances(holding.branch.name, keyspace.name, keyspace.vschema, shards, servers)
    if found:
        raise InvalidError("; ".join(found))


def follow(context: Context) -> None:
    """Every branch has a cluster with all its keyspaces, vschemas and rules. The executor makes them.

    :raises NotYetError: one is being made.
    :raises UnavailableError: one does not come up; why.
    """
    with context.ports.store.read() as tx:
        behind = {branch.name: tx.followings.behind(branch.id) for branch in context.branches()}
    errors = [f"the cluster of branch {name} does not follow: {why}" for name, why in behind.items() if why]
    if errors:
        raise UnavailableError("; ".join(errors))
    if any(why is not None for why in behind.values()):
        raise NotYetError("clusters are being made")


def look(context: Context) -> None:
    """Every vtgate serves every table and view of its branch.

    :raises UnavailableError: one does not; which tables, and vtgate's words.
    """
    found: list[str] = []
    context.hand.looked = {}
    for holding, shards in _contents(context):
        names = list(dict.fromkeys(name for content in shards for name in content.names))
        context.lease.check()
        keyspace = holding.keyspace.name
        unserved = context.ports.sight.unserved(context.vtgate(holding), keyspace, names)
        found += [f"{holding.branch.name}: {keyspace}.{name}: {why}" for name, why in unserved.items()]
        context.hand.looked[holding.keyspace.id] = frozenset(names)
    if found:
        raise UnavailableError(f"vtgate does not serve {'; '.join(found)}")


def look_again(context: Context) -> None:
    """Nothing was made since, which nobody can do any more.

    :raises InvalidError: something that Vitess cannot serve.
    :raises UnavailableError: something that was not looked for at vtgate.
    """
    contents = _contents(context, AGAIN_ANSWER_SECONDS, AGAIN_SECONDS)
    hold_possible(contents)
    new = [
        f"{holding.branch.name}: {holding.keyspace.name}.{name}"
        for holding, shards in contents
        for name in sorted({name for content in shards for name in content.names})
        if name not in context.hand.looked.get(holding.keyspace.id, frozenset())
    ]
    if new:
        raise UnavailableError(f"made in this moment: {', '.join(new)}; it is looked at anew")


def hold(context: Context) -> None:
    """No client's statement is under way, and none begins.

    :raises DeadlineExceededError: transactions do not end in time, in no attempt.
    """
    for drain_seconds in DRAIN_SECONDS[:-1]:
        try:
            context.hold(drain_seconds)
        except DeadlineExceededError as error:
            _log.info(
                "change of engine %s: held for %g s in vain: %s", context.change.id, drain_seconds, error
            )
            context.lease.check()
            time.sleep(BETWEEN_SECONDS)
        else:
            return
    context.hold(DRAIN_SECONDS[-1])


def commit(context: Context) -> None:
    """The database is the wanted engine's, if nothing else has begun since, and its clusters are as stored.

    :raises UnavailableError: something has; nothing has changed.
    """
    if not context.held:
        raise DeadlineExceededError("statements were not held for long enough")
    with context.write() as tx:
        why = tx.engine_changes.in_the_way(context.database.id)
        if why:
            raise UnavailableError(f"waits: {why}")
        for branch in tx.branches.of_database(context.database.id):
            behind = tx.followings.behind(branch.id)
            if behind is not None:
                raise UnavailableError(f"the cluster of branch {branch.name} is behind {behind}".strip())
        context.database = tx.databases.update(context.database.id, engine=context.change.engine)


def publish(context: Context) -> None:
    """Every gateway hands the database's statements to its clusters. Where another owner died since it
    committed, its hold is taken over, so that nobody waits for its end.
    """
    if not context.held:
        try:
            context.hold(TAKE_OVER_SECONDS)
        except UnavailableError as error:
            # Whoever goes on by the old routes writes to the same servers, by the same rules.
            _log.warning("change of engine %s goes on without a hold: %s", context.change.id, error)
    context.ports.publish()


def _let_go(context: Context) -> None:
    context.release()


def plan() -> Plan[Context]:
    """The plan."""
    return Plan(
        "engine",
        (
            Step("check", check, sort=Sort.FLEETING),
            Step("follow", follow, sort=Sort.FLEETING),
            Step("look", look, sort=Sort.FLEETING),
            Step("hold", hold, undo=_let_go, sort=Sort.FLEETING),
            Step("look again", look_again, sort=Sort.FLEETING),
            Step(COMMIT, commit, sort=Sort.COMMIT),
            Step("publish", publish),
            Step("release", _let_go, sort=Sort.FLEETING),
        ),
    )
