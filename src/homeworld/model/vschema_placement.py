"""Which tables' rows two vschemas of one keyspace place differently: pure.

It knows no server and no rows: who asks must look whether the tables hold any. Names do not place rows: a
vindex that is only called otherwise, or bound behind the first one, changes nothing.

Invariant: for a table that is not named, every row that one vschema finds by its key, the other finds too.
"""

from __future__ import annotations

from homeworld.model.vschema import REFERENCE, TableEntry, VSchema


def placed_anew(now: VSchema, wanted: VSchema) -> tuple[str, ...]:
    """The tables whose rows ``wanted`` places in another way than ``now``, sorted: those that get a place,
    lose it, or get another. None in an unsharded keyspace, where there is only one place.
    """
    if not (now.sharded or wanted.sharded):
        return ()
    names = sorted({*now.tables, *wanted.tables})
    return tuple(name for name in names if _placing(now, name) != _placing(wanted, name))


def _placing(vschema: VSchema, name: str) -> object:
    """What decides on which shards the rows of a table are; equal values place equally."""
    entry = vschema.tables.get(name)
    if entry is None or entry.type == REFERENCE or entry.primary is None:
        return None if entry is None else entry.type
    vindex = vschema.vindexes[entry.primary.name]
    columns = tuple(column.lower() for column in entry.primary.columns)
    return vindex.type, tuple(sorted(vindex.params.items())), columns


def placing_text(vschema: VSchema, name: str) -> str:
    """The same in words, for messages: ``by xxhash(user_id)``."""
    entry: TableEntry | None = vschema.tables.get(name)
    if entry is not None and entry.type == REFERENCE:
        return "on every shard (reference)"
    if entry is None or entry.primary is None:
        return "by no vindex"
    return f"by {vschema.vindexes[entry.primary.name].type}({', '.join(entry.primary.columns)})"
