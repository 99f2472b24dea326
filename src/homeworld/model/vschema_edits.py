"""``ALTER VSCHEMA`` as pure edits: a vschema and what to change in, the new vschema out.

Each edit refuses what it cannot do with the reason that Vitess gives, and its result has been checked
(:func:`~homeworld.model.vschema.check`), so that a stored vschema can always be routed by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from homeworld.model.errors import InvalidError
from homeworld.model.vschema import (
    SEQUENCE,
    AutoIncrement,
    ColumnVindex,
    TableEntry,
    VindexDef,
    VSchema,
    check,
)


def _with_table(vschema: VSchema, table: TableEntry) -> VSchema:
    found = replace(vschema, tables={**vschema.tables, table.name: table})
    check(found)
    return found


def _without_table(vschema: VSchema, name: str) -> VSchema:
    found = replace(vschema, tables={n: t for n, t in vschema.tables.items() if n != name})
    check(found)
    return found


def _existing(vschema: VSchema, name: str) -> TableEntry:
    table = vschema.tables.get(name)
    if table is None:
        raise InvalidError(f"vschema does not contain table {name}")
    return table


def add_table(vschema: VSchema, name: str) -> VSchema:
    """Add a table without vindexes to an unsharded keyspace."""
    if vschema.sharded:
        raise InvalidError("add vschema table: unsupported on a sharded keyspace; use ADD VINDEX")
    if name in vschema.tables:
        raise InvalidError(f"vschema already contains table {name}")
    return _with_table(vschema, TableEntry(name))


def drop_table(vschema: VSchema, name: str) -> VSchema:
    """Forget a table; the table itself is not touched."""
    _existing(vschema, name)
    return _without_table(vschema, name)


def add_sequence(vschema: VSchema, name: str) -> VSchema:
    """Mark a table of an unsharded keyspace as a sequence."""
    if vschema.sharded:
        raise InvalidError("add sequence table: unsupported on a sharded keyspace")
    if name in vschema.tables:
        raise InvalidError(f"vschema already contains sequence {name}")
    return _with_table(vschema, TableEntry(name, type=SEQUENCE))


def drop_sequence(vschema: VSchema, name: str) -> VSchema:
    """Forget a sequence."""
    if vschema.sharded:
        raise InvalidError("drop sequence table: unsupported on a sharded keyspace")
    if name not in vschema.tables or vschema.tables[name].type != SEQUENCE:
        raise InvalidError(f"vschema does not contain sequence {name}")
    return _without_table(vschema, name)


def add_auto_increment(vschema: VSchema, table: str, column: str, sequence: str) -> VSchema:
    """Fill a column from a sequence (``keyspace.table`` or ``table``)."""
    entry = _existing(vschema, table)
    if entry.auto_increment is not None:
        raise InvalidError(
            f"vschema already contains auto inc {entry.auto_increment.column} on table {table}"
        )
    return _with_table(vschema, replace(entry, auto_increment=AutoIncrement(column, sequence)))


def drop_auto_increment(vschema: VSchema, table: str) -> VSchema:
    """Stop filling the column."""
    entry = _existing(vschema, table)
    if entry.auto_increment is None:
        raise InvalidError(f"vschema does not contain auto increment on table {table}")
    return _with_table(vschema, replace(entry, auto_increment=None))


def create_vindex(vschema: VSchema, name: str, type_: str, params: Mapping[str, str]) -> VSchema:
    """Define a vindex; the keyspace counts as sharded from then on."""
    if name in vschema.vindexes:
        raise InvalidError(f"vindex {name} already exists")
    if "owner" in params:
        raise InvalidError("vindexes with an owner (lookup vindexes) are not offered")
    if not vschema.sharded and vschema.tables:
        raise InvalidError("the keyspace has tables without vindexes; it cannot become sharded")
    vindexes = {**vschema.vindexes, name: VindexDef(name, type_, dict(params))}
    found = replace(vschema, sharded=True, vindexes=vindexes)
    check(found)
    return found


def drop_vindex(vschema: VSchema, name: str) -> VSchema:
    """Forget a vindex that no table uses."""
    if name not in vschema.vindexes:
        raise InvalidError(f"vindex {name} not found")
    for table in vschema.tables.values():
        if any(bound.name == name for bound in table.column_vindexes):
            raise InvalidError(f"can not drop vindex cause {name} still defined on table {table.name}")
    found = replace(vschema, vindexes={n: v for n, v in vschema.vindexes.items() if n != name})
    check(found)
    return found


def add_column_vindex(
    vschema: VSchema,
    table: str,
    name: str,
    columns: tuple[str, ...],
    type_: str = "",
    params: Mapping[str, str] | None = None,
) -> VSchema:
    """Bind a vindex to columns of a table, which is added where it is not there.

    :param type_: also define the vindex (or hold it against its definition); empty: it must exist.
    """
    if type_:
        known = vschema.vindexes.get(name)
        if known is None:
            vschema = create_vindex(vschema, name, type_, params or {})
        elif (known.type, dict(known.params)) != (type_, dict(params or {})):
            raise InvalidError(f"vindex {name} defined with type or parameters that differ from the existing")
    elif name not in vschema.vindexes:
        raise InvalidError(f"vindex {name} not found")
    entry = vschema.tables.get(table, TableEntry(table))
    if any(bound.name == name for bound in entry.column_vindexes):
        raise InvalidError(f"vindex {name} already defined on table {table}")
    return _with_table(
        vschema, replace(entry, column_vindexes=(*entry.column_vindexes, ColumnVindex(name, columns)))
    )


def drop_column_vindex(vschema: VSchema, table: str, name: str) -> VSchema:
    """Unbind a vindex from a table; with the last one the table's entry goes too."""
    entry = _existing(vschema, table)
    left = tuple(bound for bound in entry.column_vindexes if bound.name != name)
    if len(left) == len(entry.column_vindexes):
        raise InvalidError(f"vindex {name} not defined in table {table}")
    if not left:
        return _without_table(vschema, table)
    return _with_table(vschema, replace(entry, column_vindexes=left))
