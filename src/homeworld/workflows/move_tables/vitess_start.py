"""Steps with which a move on Vitess begins, and what all of its steps share: Vitess is asked first.

The order of everything is the local one. What differs: rules of the moving tables are set in the cluster too,
and read back from it; tables are made, moved and dropped by Vitess; a switch of writes is one call, around
which our gateways hold.

Invariant: the stored rules and vschemas are what they are to be before Vitess is asked to make anything, and
the cluster has them by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from homeworld.model.clusters import ClusterMove, MoveLook
from homeworld.model.engines import MAKES_SERVERS
from homeworld.model.errors import InvalidError
from homeworld.model.routing_rules import TrafficPhase
from homeworld.model.tables import Table
from homeworld.replication.ddl import TargetForm
from homeworld.workflows.move_tables import steps_start
from homeworld.workflows.move_tables.context import Context, VitessPorts
from homeworld.workflows.move_tables.ids import AUTO_INCREMENT
from homeworld.workflows.move_tables.taking import was_there
from homeworld.workflows.move_tables.vitess_known import cluster_move

RULES_SECONDS = 10.0  # for vtgate to serve by rules


def vitess(context: Context) -> VitessPorts:
    """The cluster's ports."""
    if context.ports.vitess is None:
        raise RuntimeError("a plan for Vitess without its ports")  # a fault of this program
    return context.ports.vitess


def move_of(context: Context) -> ClusterMove:
    """The move as Vitess knows it."""
    sequences = [given.target for given in steps_start.ids_of(context) if given.target != AUTO_INCREMENT]
    return cluster_move(
        context.workflow,
        context.source.name,
        context.target.name,
        context.tables,
        sequences[0].partition(".")[0] if sequences else "",
        foreign=is_foreign(context),
    )


def look(context: Context) -> MoveLook:
    """What Vitess says now."""
    return vitess(context).moves.look(move_of(context))


# -- rules and vschemas ------------------------------------------------------------------------------------


def follow(context: Context) -> None:
    """The branch's cluster is what is stored.

    :raises UnavailableError: it does not follow in time.
    """
    vitess(context).followed(context.workflow.branch_id, context.lease.check)


def follow_anew(context: Context) -> None:
    """The same, whatever it had: Vitess takes the tables out of the target's vschema, where entries may be
    the user's own.
    """
    with context.write() as tx:
        tx.followings.look_again(context.workflow.branch_id, (context.source.name, context.target.name))
    follow(context)


def stored_rules(context: Context) -> Mapping[str, str]:
    """The branch's rules as they are stored."""
    with context.ports.store.read() as tx:
        return dict(tx.routes.rules(context.workflow.branch_id))


def is_foreign(context: Context) -> bool:
    """Whether others run the cluster: its rules of other tables are theirs."""
    with context.ports.store.read() as tx:
        return tx.databases.get(context.workflow.database_id).engine not in MAKES_SERVERS


def apply_stored(context: Context) -> None:
    """The cluster serves by the stored rules of the move's tables; others are left as they are."""
    clusters, branch_id = vitess(context).clusters, context.workflow.branch_id
    rules = stored_rules(context)
    context.confirm()
    clusters.set_rules(branch_id, rules, _own_rules(context), RULES_SECONDS)


def await_stored(context: Context) -> None:
    """Every vtgate serves by the stored rules, which Vitess has set."""
    if is_foreign(context):
        apply_stored(context)
        return
    branch_id = context.workflow.branch_id
    vitess(context).clusters.await_rules(branch_id, stored_rules(context), RULES_SECONDS)


def _own_rules(context: Context) -> frozenset[str]:
    """The names of all rules that the move may have."""
    return frozenset(
        f"{name}{suffix}"
        for table in context.tables
        for name in (table, f"{context.source.name}.{table}", f"{context.target.name}.{table}")
        for suffix in ("", "@primary", "@replica", "@rdonly")
    )


def with_vitess(context: Context, stored: Mapping[str, str], told: Mapping[str, str]) -> dict[str, str]:
    """Stored rules, with those of the moving tables' names as Vitess has them."""
    own = {
        name
        for table in context.tables
        for name in (table, f"{context.source.name}.{table}", f"{context.target.name}.{table}")
    }

    def is_own(name: str) -> bool:
        return name.partition("@")[0] in own

    return {name: to for name, to in stored.items() if not is_own(name)} | {
        name: to for name, to in told.items() if is_own(name)
    }


def told_rules(context: Context) -> Mapping[str, str]:
    """The rules as the cluster has them now; asked before a transaction, so that nobody waits for it."""
    return vitess(context).clusters.rules(context.workflow.branch_id)


# -- from pending to copying -------------------------------------------------------------------------------


def route_to_source(context: Context) -> None:
    """From now on either keyspace's name leads to the source, in the cluster too."""
    steps_start.route_to_source(context)
    apply_stored(context)


def route_as_before(context: Context) -> None:
    """The rules as they were before the workflow."""
    with context.write() as tx:
        context.route(tx, TrafficPhase.CANCELLED)
    apply_stored(context)
    context.ports.publish()


def enter_vschema(context: Context) -> None:
    """The vschemas of target and global keyspace know tables and sequences, in the cluster too."""
    steps_start.enter_vschema(context)
    follow(context)


def leave_vschema(context: Context) -> None:
    """Take back what was entered."""
    steps_start.leave_vschema(context)
    follow(context)


def create(context: Context) -> None:
    """Let Vitess make the target's tables and the streams, not started.

    :raises InvalidError: Vitess refuses.
    """
    # Vitess makes the target's tables as the source's, and takes those that are there as they are.
    tables = [] if context.target.keyspace.sharded else [*steps_start.source_tables(context).values()]
    for place in context.owner(context.target):
        tables += context.tools.describe(place, context.tables).values()
    move = deferring(move_of(context), tables)
    context.confirm()
    vitess(context).moves.create(move)


def deferring(move: ClusterMove, tables: Iterable[Table]) -> ClusterMove:
    """The move, deferring secondary keys only where the target's tables can be without them: Vitess leaves
    each table its primary key alone, and the server refuses AUTO_INCREMENT (1075) where none begins with it.

    :param tables: as the target has or gets them.
    """
    if all(_counts_by_its_primary_key(table) for table in tables):
        return move
    return replace(move, defer_secondary_keys=False)


def _counts_by_its_primary_key(table: Table) -> bool:
    counting = next((column.name.lower() for column in table.columns if column.auto_increment), "")
    primary = next((index.columns[0].lower() for index in table.indexes if index.name == "PRIMARY"), "")
    return counting in ("", primary)


def is_created(context: Context) -> str:
    """What is wrong with what Vitess made, or the empty string."""
    seen = look(context)
    if not seen.exists:
        return "Vitess does not know the move that it made"
    return "Vitess has moved traffic already" if seen.primaries_switched or seen.halfway else ""


def uncreate(context: Context) -> None:
    """Nothing of the move is in Vitess, and its tables are as they were."""
    apply_stored(context)  # a creation that fails takes rules away while tables are there still
    context.confirm()
    vitess(context).moves.cancel(move_of(context))
    follow_anew(context)
    steps_start.drop_made(context)
    sharded = context.target.keyspace.sharded
    form = TargetForm(defer_keys=False, keep_auto_increment=not sharded, keep_foreign_keys=not sharded)
    # Vitess drops those that were there with its own.
    gone = [
        (place, name)
        for place in context.owner(context.target)
        for name in context.tables
        if was_there(context, place, name)
    ]
    tables = steps_start.source_tables(context) if gone else {}
    for place, name in gone:
        context.tools.make_table(place, tables[name], form)


def read_back(context: Context) -> None:
    """The stored rules are those that Vitess has set, and it has the vschema that was stored.

    :raises InvalidError: a table is not in the target's vschema there.
    """
    told = told_rules(context)
    listed = vitess(context).clusters.vschema(context.workflow.branch_id, context.target.name).get("tables")
    for table in context.tables:
        if not isinstance(listed, Mapping) or table not in listed:
            raise InvalidError(
                f"table {table} is not in the vschema that Vitess has of {context.target.name}"
            )
    _store_told(context, told)


def read_back_rules(context: Context) -> None:
    """The stored rules are those that Vitess has set."""
    _store_told(context, told_rules(context))


def _store_told(context: Context, told: Mapping[str, str]) -> None:
    with context.write() as tx:
        stored = tx.routes.rules(context.workflow.branch_id)
        rules = with_vitess(context, stored, told)
        if rules != dict(stored):
            tx.routes.replace_rules(context.workflow.branch_id, rules)


def begin_stream(context: Context) -> None:
    """What Vitess made fits both ways. The streams have been made and begin in the next state.

    :raises InvalidError: the source's tables have changed since.
    """
    if wrong := steps_start.misfits(context):
        raise InvalidError(f"the tables were changed while the move began: {'; '.join(wrong)}; retry")
