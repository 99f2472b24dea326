"""Before a side takes writes, its givers of ids are raised above every id that the other side gave out.

Invariant: a giver is only ever raised, so doing this again, or before a switch that then fails, is
harmless.
"""

from __future__ import annotations

from homeworld.model.topology import ShardPlace
from homeworld.workflows.move_tables.context import Context, Way
from homeworld.workflows.move_tables.ids import AUTO_INCREMENT
from homeworld.workflows.move_tables.steps_start import ids_of
from homeworld.workflows.move_tables.tools import IdColumn


def raise_ids(context: Context, way: Way) -> None:
    """Raise the givers of ``way.to`` above the ids of ``way.origin``."""
    side = "target" if way.to is context.target else "source"
    ids = ids_of(context)
    if not ids:
        return
    columns = [IdColumn(given.table, given.column) for given in ids]
    largest = context.tools.largest_ids(context.owner(way.origin), columns)
    counted = {given.table: largest[given.table] for given in ids if given.giver(side) == AUTO_INCREMENT}
    if counted:
        context.tools.raise_auto_increments(context.owner(way.to), counted)
    for keyspace in sorted({given.giver(side).partition(".")[0] for given in ids} - {AUTO_INCREMENT}):
        above: dict[str, int] = {}
        for given in ids:
            at, _, name = given.giver(side).partition(".")
            if at == keyspace:
                above[name] = max(above.get(name, 0), largest[given.table])
        context.tools.raise_sequences(_place_of(context, keyspace), above)


def _place_of(context: Context, keyspace: str) -> ShardPlace:
    for side in (context.globals, context.source, context.target):
        if side is not None and side.name == keyspace:
            return context.owner(side)[0]
    return context.owner(context.keyspace(keyspace))[0]
