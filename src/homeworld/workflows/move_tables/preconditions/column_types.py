"""Columns whose values the data path cannot carry exactly."""

from __future__ import annotations

from collections.abc import Iterator

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


def _check(world: World) -> Iterator[str]:
    for name, table in world.source_tables().items():
        for column in table.columns:
            if column.type not in _CARRIED:
                yield f"table {name}: column {column.name} has type {column.column_type}, which is not moved"
        if "COMPRESSED=" in table.create_sql.upper() or "/*!100301 COMPRESSED" in table.create_sql.upper():
            yield f"table {name} has a compressed column, which is not moved"


RULE = Rule("column-types", "every column is of a type that is carried exactly", _check, lasting=True)
