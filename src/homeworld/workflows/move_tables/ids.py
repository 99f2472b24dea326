"""Who gives out ids on each side of a move: AUTO_INCREMENT or a sequence.

Pure. Invariant: a table whose ids were given out on one side has a giver on the other, and each giver is
known by name from the start to the end of the workflow, whatever becomes of the vschema meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from homeworld.model.errors import InvalidError
from homeworld.model.tables import Table
from homeworld.model.vschema import VSchema, find_sequence

AUTO_INCREMENT = ""
SUFFIX = "_seq"


@dataclass(frozen=True, slots=True)
class Ids:
    """One table's ids. A giver is the empty string for AUTO_INCREMENT, else ``keyspace.sequence_table``."""

    table: str
    column: str
    source: str
    target: str

    def giver(self, side: str) -> str:
        """Who gives on ``source`` or ``target``."""
        return self.source if side == "source" else self.target


def sequence_name(table: str) -> str:
    """The name of the sequence that a move makes for a table."""
    return table + SUFFIX


def plan_ids(
    tables: Mapping[str, Table],
    source: str,
    target: str,
    vschemas: Mapping[str, VSchema],
    global_keyspace: str | None,
) -> tuple[Ids, ...]:
    """Who gives ids for each of the tables that has given-out ids at all.

    :param tables: name to the source's table.
    :param vschemas: every keyspace of the branch.
    :param global_keyspace: where new sequences go; None: there is no place for them.
    :raises InvalidError: a sequence that the vschema names cannot be found, or there is no place for one.
    """
    found: list[Ids] = []
    for name, table in tables.items():
        given = given_column(name, table, vschemas[source])
        if given is None:
            continue
        at_source = _named(name, source, vschemas)
        at_target = _named(name, target, vschemas)
        if at_target is None and vschemas[target].sharded:
            at_target = at_source or _new(name, global_keyspace)
        found.append(Ids(name, given, at_source or AUTO_INCREMENT, at_target or AUTO_INCREMENT))
    return tuple(found)


def given_column(name: str, table: Table, vschema: VSchema) -> str | None:
    """The column whose values are given out on the source, by its vschema's sequence or by AUTO_INCREMENT."""
    entry = vschema.tables.get(name)
    if entry is not None and entry.auto_increment is not None:
        return entry.auto_increment.column
    return next((column.name for column in table.columns if column.auto_increment), None)


def _named(table: str, keyspace: str, vschemas: Mapping[str, VSchema]) -> str | None:
    entry = vschemas[keyspace].tables.get(table)
    if entry is None or entry.auto_increment is None:
        return None
    at, sequence = find_sequence(vschemas, entry.auto_increment.sequence)
    if vschemas[at].sharded:
        raise InvalidError(f"sequence {at}.{sequence} of table {table} is in a sharded keyspace")
    return f"{at}.{sequence}"


def _new(table: str, global_keyspace: str | None) -> str:
    if global_keyspace is None:
        raise InvalidError(
            f"table {table} has AUTO_INCREMENT and goes to a sharded keyspace: name an unsharded "
            "global_keyspace for its sequence"
        )
    return f"{global_keyspace}.{sequence_name(table)}"


def dump(ids: Sequence[Ids]) -> list[dict[str, str]]:
    """As JSON, for the workflow's facts."""
    return [{"table": i.table, "column": i.column, "source": i.source, "target": i.target} for i in ids]


def load(value: object) -> tuple[Ids, ...]:
    """Read what :func:`dump` made; nothing where there is nothing."""
    return tuple(Ids(**entry) for entry in cast("list[dict[str, str]]", value or []))
