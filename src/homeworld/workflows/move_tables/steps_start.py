"""From pending to copying: what is made before the first row is read, and how all of it is unmade.

Invariant: nothing on the target is dropped that is not listed in the workflow's facts, and no table before
all are taken (:mod:`homeworld.workflows.move_tables.taking`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from homeworld.model import vschema_edits as edits
from homeworld.model.errors import InvalidError, PreconditionsFailedError, UnavailableError
from homeworld.model.ports import Preconditions
from homeworld.model.routing_rules import TrafficPhase
from homeworld.model.tables import Table
from homeworld.model.topology import BackendRole, ShardPlace
from homeworld.model.vschema import VSchema, parse
from homeworld.replication.ddl import TargetForm
from homeworld.workflows.move_tables import ids as givers
from homeworld.workflows.move_tables.context import Context, Side
from homeworld.workflows.move_tables.decide import FORWARD_STREAM, START
from homeworld.workflows.move_tables.taking import (
    give_back,
    is_taken,
    publish_alone,
    take_tables,
    was_there,
)
from homeworld.workflows.steps import Plan, Sort, Step

# Facts of the workflow.
TABLES_LISTED = "made_tables"
SEQUENCES_LISTED = "made_sequences"
ENTRIES_LISTED = "made_entries"
INCREMENTS_LISTED = "made_increments"
IDS = "ids"


def start_plan(preconditions: Preconditions) -> Plan[Context]:
    """Everything that has to stand before the mover starts."""
    return Plan(
        START,
        (
            Step("check everything again", lambda context: check(context, preconditions), sort=Sort.FLEETING),
            Step("save the rules", save_rules),
            Step("list what will be made", list_made, undo=unlist),
            # Before anything exists on the target that a name without a keyspace could be taken for.
            Step("route both names to the source", route_to_source, undo=route_as_before),
            Step("publish the routes", publish_alone, undo=Context.release_hold, sort=Sort.FLEETING),
            Step("take the target's tables", take_tables, undo=give_back),
            Step("make target tables", make_tables, undo=drop_made),
            Step("make sequences", make_sequences, undo=drop_sequences),
            Step("enter the vschema", enter_vschema, undo=leave_vschema),
            Step("publish", publish, sort=Sort.FLEETING),
            # Within this state: whatever is done to the tables in the next one stands in the log behind where
            # the stream began.
            Step("begin the stream", begin_stream, undo=end_stream),
        ),
    )


def publish(context: Context) -> None:
    """Return once every gateway serves what is stored."""
    context.ports.publish()


def check(context: Context, preconditions: Preconditions) -> None:
    """The world may have changed since the workflow was asked for.

    :raises PreconditionsFailedError: it cannot be moved (any more).
    """
    if context.listed(TABLES_LISTED):
        return  # begun before: some of what would be refused is our own doing
    reasons = preconditions.reasons(context.wish())
    if reasons:
        raise PreconditionsFailedError(reasons)


def save_rules(context: Context) -> None:
    """Remember all rules as they are before this workflow touches any.

    :raises UnavailableError: those of a completed one are yet to be put right, by its own baseline.
    """
    if context.workflow.rules_before is not None:
        return
    with context.write() as tx:
        if tx.workflows.unsettled_on(context.workflow.branch_id):
            raise UnavailableError("the rules of the workflow before are being settled")
        rules = dict(tx.routes.rules(context.workflow.branch_id))
        tx.workflows.update(context.workflow.id, rules_before=rules)


def source_tables(context: Context) -> dict[str, Table]:
    """The tables to move, as the first source shard has them.

    :raises InvalidError: one is gone.
    """
    return tables_of(context, context.source)


def tables_of(context: Context, side: Side) -> dict[str, Table]:
    """The moved tables, as the first shard of a side has them.

    :raises InvalidError: one is gone.
    """
    found = context.tools.describe(context.owner(side)[0], context.tables)
    for name in context.tables:
        if name not in found:
            raise InvalidError(f"table {name} does not exist in keyspace {side.name}")
    return {name: found[name] for name in context.tables}


def list_made(context: Context) -> None:
    """Decide and write down what will be made, before any of it is.

    :raises InvalidError: a target table holds rows or does not fit.
    """
    if context.listed(TABLES_LISTED):
        return
    tables = source_tables(context)
    for place in context.owner(context.target):
        for name in context.tools.describe(place, context.tables):
            if context.tools.has_rows(place, name):
                raise InvalidError(f"table {name} on {place.keyspace}/{place.shard} is not empty")
            if difference := context.tools.difference(place, tables[name]):
                raise InvalidError(f"table {name} on {place.keyspace}/{place.shard} differs: {difference}")
    with context.write() as tx:
        keyspaces = tx.keyspaces.of_branch(context.workflow.branch_id)
        vschemas = {keyspace.name: parse(keyspace.vschema) for keyspace in keyspaces}
    ids = givers.plan_ids(
        tables,
        context.source.name,
        context.target.name,
        vschemas,
        context.globals.name if context.globals else None,
    )
    sequences = [name for name in _sequences_here(context, ids) if _absent(context, name)]
    entries = vschemas[context.target.name].tables
    entered = [name for name in context.tables if name not in entries]
    increments = [
        i.table for i in ids if i.target and (i.table in entered or entries[i.table].auto_increment is None)
    ]
    with context.write() as tx:
        context.set_facts(
            tx,
            **{
                IDS: givers.dump(ids),
                TABLES_LISTED: list(context.tables),
                SEQUENCES_LISTED: sequences,
                ENTRIES_LISTED: entered,
                INCREMENTS_LISTED: increments,
            },
        )


def unlist(context: Context) -> None:
    """Forget the lists; whatever they named is gone by now."""
    with context.write() as tx:
        nothing = dict.fromkeys((IDS, TABLES_LISTED, SEQUENCES_LISTED, ENTRIES_LISTED, INCREMENTS_LISTED))
        context.set_facts(tx, **nothing)


def ids_of(context: Context) -> tuple[givers.Ids, ...]:
    """Who gives the ids of the moved tables."""
    return givers.load(context.workflow.facts.get(IDS))


def _sequences_here(context: Context, ids: tuple[givers.Ids, ...]) -> list[str]:
    """The target's sequences that belong into the global keyspace, by their tables' names."""
    if context.globals is None:
        return []
    prefix = context.globals.name + "."
    return [i.target.removeprefix(prefix) for i in ids if i.target.startswith(prefix)]


def _absent(context: Context, sequence: str) -> bool:
    found = context.tools.is_sequence(_global_place(context), sequence)
    if found is False:
        raise InvalidError(f"table {sequence} in keyspace {_globals(context).name} is not a sequence")
    return found is None


def _globals(context: Context) -> Side:
    if context.globals is None:
        raise InvalidError("this move has no global keyspace")
    return context.globals


def _global_place(context: Context) -> ShardPlace:
    return context.owner(_globals(context))[0]


def make_tables(context: Context) -> None:
    """Make every listed table on every target shard; on a sharded target without AUTO_INCREMENT."""
    tables = source_tables(context)
    sharded = context.target.keyspace.sharded
    form = TargetForm(
        defer_keys=context.workflow.defer_secondary_keys,
        keep_auto_increment=not sharded,
        keep_foreign_keys=not sharded,
    )
    # On a sharded source a sequence gave the ids; here the column has to.
    counted = [given for given in ids_of(context) if given.target == givers.AUTO_INCREMENT]
    for place in context.owner(context.target):
        for name in context.listed(TABLES_LISTED):
            numbered = tuple(given.column for given in counted if given.table == name)
            context.tools.make_table(place, tables[name], replace(form, numbered=numbered))
        for given in counted:
            context.tools.give_numbers(place, tables[given.table], given.column)


def misfits(context: Context) -> list[str]:
    """Why rows of one side's tables would not fit into the other's; empty: they do, both ways.

    :raises InvalidError: a table is gone.
    """
    found: list[str] = []
    for origin, to in ((context.source, context.target), (context.target, context.source)):
        tables = tables_of(context, origin)
        name = f"{origin.name}/{origin.shards[0].name}"
        found += (
            difference
            for place in context.owner(to)
            for table in tables.values()
            if (difference := context.tools.difference(place, table, name))
        )
        if found:
            break  # the other way the same would be told once more
    return found


def begin_stream(context: Context) -> None:
    """The forward stream has claimed what it writes to, and where it begins. It writes no row yet: this step
    may be undone, and a table that was there is then left as it was.

    :raises InvalidError: the source's tables have changed since the target's were made.
    """
    if wrong := misfits(context):
        raise InvalidError(f"the tables were changed while the move began: {'; '.join(wrong)}; retry")
    context.claim_stream(FORWARD_STREAM)


def end_stream(context: Context) -> None:
    """Nothing of the stream is left."""
    targets = context.target.places(context.ports.engine, BackendRole.MOVER)
    context.tools.forget_stream(context.workflow.id, FORWARD_STREAM, targets, context.workflow.epoch)


def drop_made(context: Context) -> None:
    """Drop what was made; tables that were there before are left, empty as they were."""
    for place in context.owner(context.target):
        made = [name for name in context.listed(TABLES_LISTED) if not was_there(context, place, name)]
        context.tools.drop_tables(place, made, context.confirm)


def drop_tables(context: Context) -> None:
    """Drop the listed tables on every target shard, with what has been copied into them. Where they have not
    been taken nothing was made, and what is there is somebody else's.
    """
    if is_taken(context):
        for place in context.owner(context.target):
            context.tools.drop_tables(place, context.listed(TABLES_LISTED), context.confirm)


def make_sequences(context: Context) -> None:
    """Make the listed sequences in the global keyspace."""
    for name in context.listed(SEQUENCES_LISTED):
        context.tools.make_sequence(_global_place(context), name)


def drop_sequences(context: Context) -> None:
    """Drop the listed sequences."""
    if context.listed(SEQUENCES_LISTED):
        context.tools.drop_tables(_global_place(context), context.listed(SEQUENCES_LISTED), context.confirm)


def enter_vschema(context: Context) -> None:
    """Tell the vschemas of target and global keyspace of tables and sequences that they do not know yet."""
    ids = ids_of(context)
    with context.write() as tx:
        if sequences := _sequences_here(context, ids):
            context.edit_vschema(tx, _globals(context), _with_sequences(sequences))

        def target(vschema: VSchema) -> VSchema:
            for name in context.tables:
                if name not in vschema.tables and not vschema.sharded:
                    vschema = edits.add_table(vschema, name)
            for given in ids:
                if given.target and vschema.tables[given.table].auto_increment is None:
                    vschema = edits.add_auto_increment(vschema, given.table, given.column, given.target)
            return vschema

        context.edit_vschema(tx, context.target, target)
        tx.workflows.update(context.workflow.id, sequence_tables_applied=any(i.target for i in ids))


def _with_sequences(names: list[str]) -> Callable[[VSchema], VSchema]:
    def edit(vschema: VSchema) -> VSchema:
        for name in names:
            if name not in vschema.tables:
                vschema = edits.add_sequence(vschema, name)
        return vschema

    return edit


def leave_vschema(context: Context) -> None:
    """Take back what was entered, entry by entry: what others changed meanwhile stays."""
    givers_at_target = {given.table: given.target for given in ids_of(context)}

    def target(vschema: VSchema) -> VSchema:
        for name in context.listed(INCREMENTS_LISTED):
            entry = vschema.tables.get(name)
            increment = entry.auto_increment if entry else None
            if increment is not None and increment.sequence == givers_at_target.get(name):
                vschema = edits.drop_auto_increment(vschema, name)
        for name in context.listed(ENTRIES_LISTED):
            if name in vschema.tables and not vschema.sharded:
                vschema = edits.drop_table(vschema, name)
        return vschema

    def globals_(vschema: VSchema) -> VSchema:
        for name in context.listed(SEQUENCES_LISTED):
            if name in vschema.tables:
                vschema = edits.drop_sequence(vschema, name)
        return vschema

    with context.write() as tx:
        context.edit_vschema(tx, context.target, target)
        if context.listed(SEQUENCES_LISTED):
            context.edit_vschema(tx, _globals(context), globals_)
        tx.workflows.update(context.workflow.id, sequence_tables_applied=False)
    context.ports.publish()


def route_to_source(context: Context) -> None:
    """From now on either keyspace's name leads to the source, and gateways serve the tables under a lease."""
    with context.write() as tx:
        tx.routes.guard(context.workflow.branch_id, context.both_sides)
        context.route(tx, TrafficPhase.SOURCE)


def route_as_before(context: Context) -> None:
    """The rules as they were before the workflow."""
    with context.write() as tx:
        context.route(tx, TrafficPhase.CANCELLED)
    context.ports.publish()
