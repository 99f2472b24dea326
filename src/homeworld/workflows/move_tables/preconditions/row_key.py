"""Each row can be found again on the other side."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.model.tables import Table
from homeworld.replication.tables import is_torn
from homeworld.workflows.move_tables.preconditions.world import Rule, World

_INEXACT = {"float", "double"}


def _check(world: World) -> Iterator[str]:
    for name, table in world.source_tables().items():
        if table.key is not None:
            yield from _generated(name, table)
            continue
        torn = [
            column
            for index in table.indexes
            if index.unique
            for column in index.columns
            if column and is_torn(table.column(column))
        ]
        inexact = [
            index.name
            for index in table.indexes
            if index.unique and any(_type(table, column) in _INEXACT for column in index.columns)
        ]
        if inexact:
            yield f"table {name}: key {inexact[0]} has a FLOAT or DOUBLE column, which may not find its row"
        elif torn:
            yield (
                f"table {name}: key column {torn[0]} is CHAR with a collation that does not pad, which "
                "MariaDB orders otherwise in an index than by comparison; make it VARCHAR"
            )
        else:
            yield (
                f"table {name} has no primary key and no unique key over whole NOT NULL columns, so its rows "
                "cannot be told apart"
            )


def _generated(name: str, table: Table) -> Iterator[str]:
    if table.key is None:
        return
    for column in table.key.columns:
        if table.column(column).generated:
            yield f"table {name}: key {table.key.name} has the generated column {column}"


def _type(table: Table, column: str) -> str:
    return table.column(column).type if column else ""


RULE = Rule("row-key", "each table has a key that identifies its rows exactly", _check, lasting=True)
