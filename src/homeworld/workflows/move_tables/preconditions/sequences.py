"""Ids that the source gives out have a giver on a sharded target."""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.model.errors import InvalidError
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.replication.ddl import outside_quotes, split_create
from homeworld.workflows.move_tables.ids import AUTO_INCREMENT, Ids, plan_ids
from homeworld.workflows.move_tables.preconditions.world import Rule, World

_LONGEST = 64
_COUNTING = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "float", "double"})
# A default that is a string stands outside of quotes as nothing.
_DEFAULT = re.compile(r"\bDEFAULT\b(?!\s+NULL\b)")


def _check(world: World) -> Iterator[str]:
    if world.globals_ is not None and world.globals_.sharded:
        yield f"global keyspace {world.globals_.name} is sharded; sequences need an unsharded one"
        return
    known = dict(world.vschemas)
    for name, table in world.source_tables().items():
        try:
            planned = plan_ids(
                {name: table},
                world.source.name,
                world.target.name,
                known,
                world.globals_.name if world.globals_ else None,
            )
        except InvalidError as error:
            yield error.message
            continue
        for ids in planned:
            yield from _usable(world, ids.target)
            if ids.target == AUTO_INCREMENT and ids.source != AUTO_INCREMENT:
                yield from _can_count(world, table, ids)


def _can_count(world: World, table: Table, ids: Ids) -> Iterator[str]:
    """On a sharded source a sequence gave the ids; on the target the column gets AUTO_INCREMENT."""
    told = (
        f"table {ids.table}: column {ids.column} gets its values from a sequence and would get AUTO_INCREMENT"
    )
    told = f"{told} in keyspace {world.target.name}, but"
    try:
        column = table.column(ids.column)
    except KeyError:
        yield f"table {ids.table} has no column {ids.column}, which the sequence {ids.source} is for"
        return
    if column.type not in _COUNTING:
        yield f"{told} is of type {column.column_type}"
    if column.generated:
        yield f"{told} is generated"
    if column.nullable:
        yield f"{told} may be NULL, which such a column cannot be"
    if not any(index.columns[0].lower() == ids.column.lower() for index in table.indexes):
        yield f"{told} is not the first column of any key; add such a key first"
    others = [other.name for other in table.columns if other.auto_increment and other is not column]
    if others:
        yield f"{told} column {others[0]} has it already"
    if not column.auto_increment and _has_default(table.create_sql, column.name):
        yield f"{told} has a DEFAULT, which such a column cannot have; drop it first"


def _has_default(create_sql: str, column: str) -> bool:
    """Whether the column has a default other than NULL."""
    elements, _ = split_create(create_sql)
    head = f"{quote(column)} "
    for element in elements:
        if element.startswith(head):
            return _DEFAULT.search(outside_quotes(element).upper()) is not None
    return False


def _usable(world: World, giver: str) -> Iterator[str]:
    keyspace, _, sequence = giver.partition(".")
    if world.globals_ is None or keyspace != world.globals_.name:
        return
    if len(sequence) > _LONGEST:
        yield f"the sequence name {sequence} is too long; name a sequence in the target's vschema"
    if world.sequences.get(sequence) is False:
        yield f"table {sequence} in keyspace {keyspace} is in the way of a sequence"
    elif sequence in world.globals_.vschema.tables and world.sequences.get(sequence) is None:
        yield f"the vschema of {keyspace} names {sequence}, but there is no such table"


RULE = Rule("sequences", "each given-out id has a giver on the target", _check)
