"""Whether a table means the same on both sides, asked while its snapshots are open and nobody can alter it.

It reads definitions and compares no rows. Invariant: where it says nothing, equal texts of two rows are equal
values, and each generated column is of one type, and either in the text or made by the same words from equal
columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication.ddl import layout_differences, shape
from homeworld.replication.lanes import IncomparableError
from homeworld.replication.tables import definition_session, literal, read_table

# Set by the server itself for each version of a row.
_VERSION_COLUMNS = frozenset({"ROW START", "ROW END"})
_Generated = Mapping[str, tuple[bool, str]]


def hold_alike(
    table: Table, sources: Sequence[ShardPlace], targets: Sequence[ShardPlace]
) -> tuple[frozenset[str], int]:
    """Hold the table to mean the same on all shards; the generated columns that have to be compared, and
    about how many rows the sources have.

    :param table: as the stream knows it at the position that is compared.
    :raises IncomparableError: it does not.
    """
    found: list[str] = []
    generated: list[_Generated] = []
    rows = 0
    for at, place in enumerate((*sources, *targets)):
        there, made = _read(place, table.name)
        generated.append(made)
        where = f"{place.keyspace}/{place.shard}"
        if at < len(sources):
            rows += there.rows_estimate
            if there.columns != table.columns:
                found.append(f"table {table.name!r} on {where} is not as the stream knows it")
        else:
            found += layout_differences(table, there, "the source", where)
            found += _made_otherwise(table, there, where)
    if found:
        raise IncomparableError(f"table {table.name!r} cannot be compared: {'; '.join(found)}")
    also = {
        name
        for name, (stored, expression) in generated[0].items()
        if expression not in _VERSION_COLUMNS
        and (stored or any(each.get(name) != (stored, expression) for each in generated))
    }
    return frozenset(also), rows


def _made_otherwise(table: Table, there: Table, where: str) -> list[str]:
    """The generated columns whose type is another: streams do not mind, but other values are read of them."""
    told: list[str] = []
    others = {column.name.lower(): column for column in there.columns}
    for column in table.columns:
        other = others.get(column.name.lower())
        if column.generated and other is not None and shape(column) != shape(other):
            ours, theirs = shape(column), shape(other)
            told.append(f"generated column {column.name!r} is {ours} on the source and {theirs} on {where}")
    return told


def _read(place: ShardPlace, name: str) -> tuple[Table, _Generated]:
    with definition_session(place.endpoint) as connection:
        table = read_table(connection, place.schema, name)
        if not any(column.generated for column in table.columns):
            return table, {}
        rows = connection.query_all(
            "SELECT COLUMN_NAME, EXTRA, GENERATION_EXPRESSION FROM information_schema.COLUMNS "
            f"WHERE TABLE_SCHEMA = {literal(place.schema)} AND TABLE_NAME = {literal(name)} "
            "AND GENERATION_EXPRESSION <> ''"
        )
    return table, {
        (column or b"").decode(): (b"VIRTUAL" not in (extra or b"").upper(), (expression or b"").decode())
        for column, extra, expression in rows
    }
