"""Taking the target's tables: from here on nobody but the workflow is at them, and none of them has rows.

A table may stand empty on a target before the workflow. Whoever had begun a transaction with it then could
still commit rows into it, which nobody would find again once its name leads to the source, and which
cancelling would drop with the table.

Invariant: a table that was there before the workflow made any is taken only once every gateway leads its name
elsewhere, nothing that was planned before is under way, and it was seen empty while nobody else could reach
it. Until all tables are taken the workflow makes and drops none.
"""

from __future__ import annotations

from homeworld.model.errors import DeadlineExceededError, InvalidError
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import ShardPlace, TabletType
from homeworld.workflows.move_tables.context import Context
from homeworld.workflows.move_tables.strangers import end_strangers

TAKEN = "taken_tables"  # the fact that lists those that were there before; it stands once all are taken

DRAIN_SECONDS = 2.0  # for what is under way on the target's tables, one try after another
HOLD_SECONDS = 20.0


def publish_alone(context: Context) -> None:
    """Return once every gateway serves what is stored, and no statement or transaction that goes by the
    routes of before is at the target's tables any more.

    :raises DeadlineExceededError: a transaction with them does not end; tried again.
    """
    hand = context.hand
    hand.attempts += 1
    turn = (context.lease.token, hand.attempts)
    hand.hold_id = f"{context.subject}-{turn[0]}-{turn[1]}"
    try:
        context.ports.gateways.hold(
            HoldRequest(
                hold_id=hand.hold_id,
                branch_id=context.workflow.branch_id,
                tables=frozenset((context.target.name, table) for table in context.tables),
                tablet_types=frozenset({TabletType.PRIMARY}),
                drain_seconds=DRAIN_SECONDS,
                hold_seconds=HOLD_SECONDS,
                subject=context.subject,
                turn=turn,
            )
        )
        end_strangers(context, context.target)
        context.ports.publish()
        if not context.ports.gateways.is_held(hand.hold_id):
            raise DeadlineExceededError("a gateway let go before the routes were published")
    except DeadlineExceededError as error:
        names = ", ".join(context.tables)
        raise DeadlineExceededError(
            f"{names} of keyspace {context.target.name} cannot be taken while somebody uses them: {error}"
        ) from error
    finally:
        context.release_hold()


def take_tables(context: Context) -> None:
    """Look at what is on the target before anything is made, and write down what that was.

    :raises InvalidError: a table has rows, or rows would not fit.
    :raises DeadlineExceededError: somebody's open transaction keeps a table; tried again.
    """
    if TAKEN in context.workflow.facts:
        return
    wanted = context.tools.describe(context.owner(context.source)[0], context.tables)
    found: list[str] = []
    for place in context.owner(context.target):
        there = tuple(context.tools.describe(place, context.tables))
        if not there:
            continue
        for name in context.tools.filled(place, there):
            raise InvalidError(
                f"table {name} on {place.keyspace}/{place.shard} has got rows while the workflow began; they "
                "are left there. Move them where they belong, and retry"
            )
        for name in there:
            if name in wanted and (difference := context.tools.difference(place, wanted[name])):
                raise InvalidError(f"table {name} on {place.keyspace}/{place.shard} differs: {difference}")
            found.append(_key(place, name))
    with context.write() as tx:
        context.set_facts(tx, **{TAKEN: found})


def give_back(context: Context) -> None:
    """Forget what was taken; nothing of the workflow is on the target any more."""
    with context.write() as tx:
        context.set_facts(tx, **{TAKEN: None})


def is_taken(context: Context) -> bool:
    """Whether what is on the target under the moving tables' names is the workflow's."""
    return TAKEN in context.workflow.facts


def was_there(context: Context, place: ShardPlace, table: str) -> bool:
    """Whether the table was on the place, empty, before the workflow made any."""
    return _key(place, table) in context.listed(TAKEN)


def _key(place: ShardPlace, table: str) -> str:
    return f"{place.shard}/{table}"
