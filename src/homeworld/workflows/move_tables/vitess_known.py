"""What stands in the store of a move that Vitess carries out: its name there, and what its streams read.

Invariant: a move's name in Vitess is its workflow's for good, and no other workflow of the branch has it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace

from homeworld.model.clusters import ClusterMove
from homeworld.model.engines import MAKES_SERVERS
from homeworld.model.errors import HomeworldError
from homeworld.model.ports import Engine
from homeworld.model.tables import Table
from homeworld.model.topology import BackendRole
from homeworld.replication.tables import find_tables
from homeworld.store.guards import DDL, DDL_AT
from homeworld.store.store import Store
from homeworld.store.workflows import Workflow
from homeworld.workflows.move_tables.context import Side
from homeworld.workflows.move_tables.vitess_mover import Known

_log = logging.getLogger(__name__)


def cluster_move(
    workflow: Workflow,
    source: str,
    target: str,
    tables: tuple[str, ...],
    global_keyspace: str,
    *,
    foreign: bool = False,
) -> ClusterMove:
    """The move as Vitess is asked for it.

    :param global_keyspace: where sequences are; empty: none are needed.
    :param foreign: whether others run the cluster.
    """
    return ClusterMove(
        branch_id=workflow.branch_id,
        # With its number: Vitess calls what ends in _reverse a way back, and a name may be used again. With
        # its id, too, where others may have a workflow of any name.
        name=f"{workflow.name}_{workflow.number}" + (f"_{workflow.id[:6]}" if foreign else ""),
        source=source,
        target=target,
        tables=tables,
        on_ddl=workflow.on_ddl,
        defer_secondary_keys=workflow.defer_secondary_keys,
        global_keyspace=global_keyspace,
    )


def finder(store: Store, engine: Engine) -> Callable[[str], Known]:
    """Finds what is known of a workflow's move, by the workflow's id."""

    def find(workflow_id: str) -> Known:
        with store.read() as tx:
            workflow = tx.workflows.get(workflow_id)
            foreign = tx.databases.get(workflow.database_id).engine not in MAKES_SERVERS
            tables = tuple(table.name for table in tx.progress.tables_of([workflow_id]))
            sides = [
                Side(tx.keyspaces.get(keyspace_id), tx.keyspaces.shards(keyspace_id))
                for keyspace_id in (workflow.source_keyspace_id, workflow.target_keyspace_id)
            ]
        source, target = sides
        move = cluster_move(workflow, source.name, target.name, tables, "", foreign=foreign)

        def read(reverse: bool) -> Mapping[str, Table] | None:
            return _tables(engine, target if reverse else source, tables)

        ddl, ddl_at = (str(workflow.facts.get(name, "")) for name in (DDL, DDL_AT))
        return Known(move, ddl, ddl_at, read)

    return find


def _tables(engine: Engine, side: Side, names: tuple[str, ...]) -> Mapping[str, Table] | None:
    """The tables of a side's first shard, with rows estimated over all of its shards."""
    try:
        found = [find_tables(place, names) for place in side.places(engine, BackendRole.OWNER)]
    except HomeworldError as error:
        _log.warning("the tables of %s cannot be read: %s", side.name, error)
        return None
    return {
        name: replace(table, rows_estimate=sum(there[name].rows_estimate for there in found if name in there))
        for name, table in found[0].items()
    }
