"""Columns whose values the data path cannot carry exactly."""

from __future__ import annotations

import re
from collections.abc import Iterator

from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.replication.ddl import outside_quotes, split_create
from homeworld.workflows.move_tables.preconditions.world import Rule, World

_CARRIED = frozenset(
    {
        "tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit", "year",
        "date", "time", "datetime", "timestamp", "char", "varchar", "binary", "varbinary", "tinytext", "text",
        "mediumtext", "longtext", "tinyblob", "blob", "mediumblob", "longblob", "enum", "set", "json",
        "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
        "geometrycollection", "geomcollection", "inet4", "inet6", "uuid",
    }
)  # fmt: skip

_VIRTUAL = re.compile(r"\bVIRTUAL\b")


def _check(world: World) -> Iterator[str]:
    for name, table in world.source_tables().items():
        for column in table.columns:
            if column.type not in _CARRIED:
                yield f"table {name}: column {column.name} has type {column.column_type}, which is not moved"
        if "COMPRESSED=" in table.create_sql.upper() or "/*!100301 COMPRESSED" in table.create_sql.upper():
            yield f"table {name} has a compressed column, which is not moved"
        yield from _of_a_zone(name, table)


def _of_a_zone(name: str, table: Table) -> Iterator[str]:
    """Kept values are made again on the target, in UTC. What was made of a TIMESTAMP may be otherwise: it was
    read in the zone of whoever wrote the row.
    """
    moments = [column.name for column in table.columns if column.type == "timestamp"]
    if not moments:
        return
    elements, _ = split_create(table.create_sql)
    keyed = {column.lower() for index in table.indexes for column in index.columns}
    for column in table.columns:
        if not column.generated:
            continue
        made = next((text for text in elements if text.startswith(f"{quote(column.name)} ")), "")
        used = [moment for moment in moments if quote(moment).lower() in made.lower()]
        kept = column.name.lower() in keyed or not _VIRTUAL.search(outside_quotes(made))
        if used and kept:
            yield (
                f"table {name}: generated column {column.name} is kept and made of TIMESTAMP column {used[0]}"
                ", which each session reads in its own time zone; it cannot be made again"
            )


RULE = Rule("column-types", "every column is of a type that is carried exactly", _check, lasting=True)
