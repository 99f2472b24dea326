"""What is wrong with a branch's tables, or with what its vschemas say of them. Pure.

Each fault says what to do. A table that a rule finds fault with can still be served; these are what stands in
the way of deploys and moves, or answers wrongly once a keyspace is sharded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeworld.model.inspection import TableFacts
from homeworld.model.vschema import VSchema

# Character sets that hold all of Unicode, or a part of it, and are compared alike by both flavours.
_KNOWN_CHARSETS = frozenset({"utf8mb4", "utf8mb3", "utf8", "latin1", "ascii", "binary"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong. ``error`` is a code, ``subject`` is table, vschema or routing_rules."""

    error: str
    subject: str
    keyspace: str
    table: str
    description: str
    column: str = ""
    foreign_key_columns: tuple[str, ...] = ()
    auto_increment_columns: tuple[str, ...] = ()
    charset: str = ""
    engine: str = ""
    vindex: str = ""
    partitioning: str = ""


def lint(
    tables: Iterable[TableFacts], vschema: VSchema, *, keyspace: str, foreign_keys: bool
) -> Sequence[Fault]:
    """Every fault of a keyspace, by table.

    :param foreign_keys: whether foreign keys are allowed in the database.
    """
    known = list(tables)
    faults: list[Fault] = []
    for table in known:
        faults += _table(table, foreign_keys=foreign_keys)
        if vschema.sharded:
            faults += _sharded(table, vschema)
    faults += _vschema({table.name.lower(): table for table in known}, vschema, keyspace)
    return faults


def _table(table: TableFacts, *, foreign_keys: bool) -> list[Fault]:
    faults: list[Fault] = []
    at = (table.keyspace, table.name)
    if not table.keyed:
        faults.append(
            Fault(
                "NO_UNIQUE_KEY",
                "table",
                *at,
                f"table {table.name} has no primary key and no unique key over columns that are NOT NULL; "
                "add one, or its rows cannot be told apart when they are copied",
            )
        )
    if table.engine.lower() != "innodb":
        faults.append(
            Fault(
                "INVALID_ENGINE",
                "table",
                *at,
                f"table {table.name} is of the engine {table.engine}; only InnoDB has transactions: "
                f"ALTER TABLE {table.name} ENGINE=InnoDB",
                engine=table.engine,
            )
        )
    if table.charset not in _KNOWN_CHARSETS:
        faults.append(
            Fault(
                "INVALID_CHARSET",
                "table",
                *at,
                f"table {table.name} is of the character set {table.charset}; use utf8mb4",
                charset=table.charset,
            )
        )
    if table.foreign_key_columns and not foreign_keys:
        faults.append(
            Fault(
                "FOREIGN_KEYS_NOT_ALLOWED",
                "table",
                *at,
                f"table {table.name} has foreign keys on {', '.join(table.foreign_key_columns)}; allow them "
                "in the database's settings, or drop them",
                foreign_key_columns=table.foreign_key_columns,
            )
        )
    if table.partitioning:
        faults.append(
            Fault(
                "PARTITIONING",
                "table",
                *at,
                f"table {table.name} is partitioned by {table.partitioning}; partitions are not taken along "
                "when a table is moved to another keyspace with another definition",
                partitioning=table.partitioning,
            )
        )
    return faults


def _sharded(table: TableFacts, vschema: VSchema) -> list[Fault]:
    entry = vschema.tables.get(table.name)
    if entry is None:
        return [
            Fault(
                "NO_VSCHEMA_ENTRY",
                "vschema",
                table.keyspace,
                table.name,
                f"the vschema of the sharded keyspace {table.keyspace} does not say how rows of {table.name} "
                "are placed; add the table with a vindex",
            )
        ]
    if table.auto_increment and entry.auto_increment is None and entry.column_vindexes:
        return [
            Fault(
                "AUTO_INCREMENT_WITHOUT_SEQUENCE",
                "vschema",
                table.keyspace,
                table.name,
                f"{', '.join(table.auto_increment)} of {table.name} would count from 1 on every shard; give "
                "the table a sequence in the vschema",
                auto_increment_columns=table.auto_increment,
            )
        ]
    return []


def _vschema(tables: dict[str, TableFacts], vschema: VSchema, keyspace: str) -> list[Fault]:
    faults: list[Fault] = []
    for name, entry in vschema.tables.items():
        table = tables.get(name.lower())
        if table is None:
            continue  # it may be made later; a vschema comes before its tables
        for bound in entry.column_vindexes:
            faults += [
                Fault(
                    "VINDEX_COLUMN_MISSING",
                    "vschema",
                    keyspace,
                    name,
                    f"the vschema places rows of {name} by column {column}, which the table does not have",
                    column=column,
                    vindex=bound.name,
                )
                for column in bound.columns
                if column.lower() not in table.columns
            ]
    return faults
