"""Before a side takes writes, its givers of ids are raised above every id that the other side gave out.

Invariant: a giver is only ever raised, so doing this again, or before a switch that then fails, is
harmless.
"""

from __future__ import annotations

from homeworld.model.topology import ShardPlace
from homeworld.workflows.move_tables.context import Context, Way
from homeworld.workflows.move_tables.ids import AUTO_INCREMENT, Ids
from homeworld.workflows.move_tables.steps_start import ids_of
from homeworld.workflows.move_tables.tools import IdColumn


def raise_ids(context: Context, way: Way) -> None:
    """Raise the givers of ``way.to`` above the ids of ``way.origin``."""
    side, other = ("target", "source") if way.to is context.target else ("source", "target")
    ids = ids_of(context)
    if not ids:
        return
    columns = [IdColumn(given.table, given.column) for given in ids]
    largest = dict(context.tools.largest_ids(context.owner(way.origin), columns))
    for keyspace, tables in _by_keyspace(ids, other).items():
        given_out = context.tools.given_by(_place_of(context, keyspace), sorted(set(tables.values())))
        for table, sequence in tables.items():
            largest[table] = max(largest[table], given_out[sequence])
    counted = {given.table: largest[given.table] for given in ids if given.giver(side) == AUTO_INCREMENT}
    if counted:
        context.tools.raise_auto_increments(context.owner(way.to), counted)
    for keyspace, tables in _by_keyspace(ids, side).items():
        above: dict[str, int] = {}
        for table, sequence in tables.items():
            above[sequence] = max(above.get(sequence, 0), largest[table])
        context.tools.raise_sequences(_place_of(context, keyspace), above)


def _by_keyspace(ids: tuple[Ids, ...], side: str) -> dict[str, dict[str, str]]:
    """Keyspace to table to sequence, of the givers of a side that are sequences."""
    found: dict[str, dict[str, str]] = {}
    for given in ids:
        keyspace, _, sequence = given.giver(side).partition(".")
        if given.giver(side) != AUTO_INCREMENT:
            found.setdefault(keyspace, {})[given.table] = sequence
    return found


def _place_of(context: Context, keyspace: str) -> ShardPlace:
    for side in (context.globals, context.source, context.target):
        if side is not None and side.name == keyspace:
            return context.owner(side)[0]
    return context.owner(context.keyspace(keyspace))[0]
