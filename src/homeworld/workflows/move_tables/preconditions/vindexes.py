"""A sharded target knows where each row belongs, and can hold what the source holds unique."""

from __future__ import annotations

from collections.abc import Iterator

from homeworld.model.errors import InvalidError
from homeworld.model.keyranges import KeyRange
from homeworld.model.tables import Column, Table
from homeworld.model.vindexes import make_vindex
from homeworld.model.vindexes.picker import INTEGERS, shard_picker
from homeworld.model.vschema import TableEntry
from homeworld.workflows.move_tables.ids import given_column
from homeworld.workflows.move_tables.preconditions.world import Rule, World

# Functions of numbers only; NULL has no keyspace id by them.
_OF_NUMBERS = {"hash", "numeric", "reverse_bits", "region_experimental"}
_OF_TEXT = {"unicode_loose_md5", "unicode_loose_xxhash"}
_EVERYTHING = (KeyRange(b"", b""),)


def _check(world: World) -> Iterator[str]:
    if not world.target.sharded:
        return
    for name, table in world.source_tables().items():
        entry = world.target.vschema.tables.get(name)
        if entry is None or entry.primary is None:
            yield f"the vschema of {world.target.name} has no primary vindex for table {name}"
            continue
        yield from _columns(world, name, table, entry)
        yield from _unique_keys(name, table, entry, given_column(name, table, world.source.vschema))


def _columns(world: World, name: str, table: Table, entry: TableEntry) -> Iterator[str]:
    for bound in entry.column_vindexes:
        vindex = world.target.vschema.vindexes[bound.name]
        columns: list[Column] = []
        for column_name in bound.columns:
            try:
                column = table.column(column_name)
            except KeyError:
                yield f"table {name} has no column {column_name}, which vindex {bound.name} reads"
                continue
            columns.append(column)
            if column.generated:
                yield f"table {name}: vindex {bound.name} reads the generated column {column_name}"
            if vindex.type in _OF_NUMBERS and column.type not in INTEGERS:
                yield (
                    f"table {name}: vindex {bound.name} ({vindex.type}) reads column {column_name} of type "
                    f"{column.column_type}; it takes integers only"
                )
            elif vindex.type in _OF_TEXT and column.charset in ("", "binary"):
                yield (
                    f"table {name}: vindex {bound.name} ({vindex.type}) reads column {column_name} of type "
                    f"{column.column_type}; it takes text only"
                )
            elif vindex.type in _OF_NUMBERS and column.nullable:
                yield f"table {name}: vindex {bound.name} reads column {column_name}, which may be NULL"
        if len(columns) == len(bound.columns):
            try:
                shard_picker(make_vindex(vindex.type, vindex.params), _EVERYTHING, columns)
            except InvalidError as error:
                yield f"table {name}: vindex {bound.name}: {error.message}"


def _unique_keys(name: str, table: Table, entry: TableEntry, given: str | None) -> Iterator[str]:
    """Two rows of equal key on two shards could not both come back to one source table.

    A key, the primary one too, is unique over all shards where it contains the vindex's columns, or a column
    whose values a sequence gives. On the source that may be AUTO_INCREMENT still.

    :param given: the column whose values are given out on the source.
    """
    primary = entry.primary
    if primary is None:
        return
    placed = {column.lower() for column in primary.columns}
    unique = {given.lower()} if given else set[str]()
    for index in table.indexes:
        columns = {column.lower() for column in index.columns}
        if index.unique and not placed <= columns and not unique & columns:
            kind = "primary key" if index.name == "PRIMARY" else f"unique key {index.name}"
            yield (
                f"table {name}: {kind} does not contain the vindex's columns "
                f"({', '.join(primary.columns)}), so no shard could hold it unique"
            )


RULE = Rule(
    "vindexes", "each table has a primary vindex that can place all of its rows", _check, lasting=True
)
