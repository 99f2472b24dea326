"""What Vitess asks of a move beyond what every move has to have."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.model.engines import CAPABILITIES
from homeworld.model.vschema import REFERENCE
from homeworld.workflows.move_tables.preconditions.world import Rule, World

# What its commands take for a list or a pattern.
_ODD = frozenset(",/.`")


def _check(world: World) -> Iterator[str]:
    if world.source.sharded and not CAPABILITIES[world.engine].moves_from_shards:
        yield (
            f"keyspace {world.source.name} is sharded; on Vitess tables move from an unsharded one only. "
            "Move them while the database is on the local engine"
        )
    if not CAPABILITIES[world.engine].vitess:
        return
    for table in world.tables:
        if odd := _ODD & set(table):
            yield f"table {table}: Vitess's MoveTables takes no name with {' '.join(sorted(odd))}"
        entry = world.target.vschema.tables.get(table)
        if entry is not None and entry.type == REFERENCE:
            yield f"table {table} is a reference table of {world.target.name}, which MoveTables does not fill"
        if entry is not None and entry.primary is not None and len(entry.primary.columns) > 1:
            # Its way back and forth again filters by the first column alone, and fails without end.
            yield (
                f"the primary vindex {entry.primary.name} of table {table} has several columns, by which "
                "Vitess could not follow after a way back; move it while the database is on the local engine"
            )
    yield from _following(world)


def _following(world: World) -> Iterator[str]:
    """Vitess moves the names of the tables themselves; whatever else leads to them stays behind."""
    moving = {f"{world.source.name}.{table}" for table in world.tables}
    own = {
        name
        for table in world.tables
        for name in (table, f"{world.source.name}.{table}", f"{world.target.name}.{table}")
    }
    for name, to in sorted(world.rules.items()):
        if to in moving and name.partition("@")[0] not in own:
            yield (
                f"the routing rule of {name} leads to {to}, and Vitess would leave it there when the table "
                "moves; remove it first"
            )


RULE = Rule("vitess", "Vitess can carry the move out", _check)
