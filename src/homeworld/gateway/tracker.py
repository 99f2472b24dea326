"""Which tables and columns each keyspace of a branch has, as its servers said last.

Holds knowledge only: loading is asked for by a session's dialogue and performed by the server, which feeds
the rows in here. Being stale never gives a wrong answer by itself: a statement that fails because of it
(1146, 1054) makes the keyspace be loaded anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from homeworld.gateway.plan import ColumnSpec
from homeworld.gateway.sql_tables import SqlSyntaxError, tables_in
from homeworld.model.names import quote
from homeworld.model.tables import Column
from homeworld.wire.constants import Type
from homeworld.wire.results import TextRow

STALE_ERRNOS = frozenset({1051, 1054, 1146, 1060, 1091})
"""Server errors that say that what is known here may be old."""

_TYPES: dict[str, int] = {
    "tinyint": Type.TINY,
    "smallint": Type.SHORT,
    "mediumint": Type.INT24,
    "int": Type.LONG,
    "bigint": Type.LONGLONG,
    "float": Type.FLOAT,
    "double": Type.DOUBLE,
    "decimal": Type.NEWDECIMAL,
    "year": Type.YEAR,
    "date": Type.DATE,
    "time": Type.TIME,
    "datetime": Type.DATETIME,
    "timestamp": Type.TIMESTAMP,
    "bit": Type.BIT,
    "char": Type.STRING,
    "enum": Type.STRING,
    "set": Type.STRING,
    "varchar": Type.VAR_STRING,
    "binary": Type.STRING,
    "varbinary": Type.VAR_STRING,
    "json": Type.JSON,
    "geometry": Type.GEOMETRY,
    "vector": Type.VECTOR,
}


def load_query(schema: str) -> str:
    """The statement whose rows :meth:`SchemaTracker.loaded` takes: each table and view of ``schema`` with all
    its columns in order, and the definition of a view with each of the view's columns.
    """
    quote(schema)  # refuses what is no identifier
    literal = "'" + schema.replace("\\", "\\\\").replace("'", "''") + "'"
    return (
        "SELECT c.TABLE_NAME, c.COLUMN_NAME, c.DATA_TYPE, c.COLUMN_TYPE, c.IS_NULLABLE, "  # noqa: S608 escaped
        "c.CHARACTER_SET_NAME, c.COLLATION_NAME, c.EXTRA, "
        "COALESCE(c.CHARACTER_OCTET_LENGTH, c.NUMERIC_PRECISION, 0), v.VIEW_DEFINITION "
        "FROM information_schema.COLUMNS c LEFT JOIN information_schema.VIEWS v "
        "ON v.TABLE_SCHEMA = c.TABLE_SCHEMA AND v.TABLE_NAME = c.TABLE_NAME "
        f"WHERE c.TABLE_SCHEMA = {literal} ORDER BY c.TABLE_NAME, c.ORDINAL_POSITION"
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of one table or view. ``reads`` are the names a view's definition mentions."""

    columns: tuple[Column, ...]
    specs: tuple[ColumnSpec, ...]
    reads: frozenset[str]
    is_view: bool


class SchemaTracker:
    """The tables of one branch's keyspaces. A :class:`~homeworld.gateway.plan.SchemaView`.

    ``version`` grows whenever something known here changes.
    """

    def __init__(self) -> None:
        self.version = 0
        self._tables: dict[str, dict[str, _Known]] = {}
        self._suspect: set[str] = set()

    def tables(self, keyspace: str) -> frozenset[str] | None:
        """Names of the keyspace's tables and views; None: not loaded."""
        known = self._tables.get(keyspace)
        return None if known is None else frozenset(known)

    def columns(self, keyspace: str, table: str) -> tuple[ColumnSpec, ...] | None:
        """The table's visible columns in order; None: no such table, or not loaded."""
        known = self._tables.get(keyspace, {}).get(table)
        return None if known is None else known.specs

    def table_columns(self, keyspace: str, table: str) -> tuple[Column, ...] | None:
        """All columns in order, invisible and generated ones too; None: no such table, or not loaded."""
        known = self._tables.get(keyspace, {}).get(table)
        return None if known is None else known.columns

    def beneath(self, keyspace: str, table: str) -> frozenset[str] | None:
        """The base tables that a view reads, through other views too; None: a base table, or not known."""
        tables = self._tables.get(keyspace, {})
        known = tables.get(table)
        if known is None or not known.is_view:
            return None
        found: set[str] = set()
        seen = {table}
        waiting = set(known.reads)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            under = tables.get(name)
            if under is not None and under.is_view:
                waiting |= under.reads
            else:
                found.add(name)
        return frozenset(found)

    def loaded(self, keyspace: str, rows: Iterable[TextRow]) -> None:
        """Take the rows of :func:`load_query`."""
        columns: dict[str, list[Column]] = {}
        specs: dict[str, list[ColumnSpec]] = {}
        views: dict[str, bytes] = {}
        for row in rows:
            table = (row[0] or b"").decode()
            column = _column(row)
            columns.setdefault(table, []).append(column)
            visible = specs.setdefault(table, [])
            if not column.invisible:
                visible.append(_spec(column, int(row[8] or 0)))
            if row[9] is not None:
                views[table] = row[9]
        self._suspect.discard(keyspace)
        new = {
            table: _Known(
                tuple(found),
                tuple(specs[table]),
                _mentioned(views[table], columns.keys()) if table in views else frozenset(),
                table in views,
            )
            for table, found in columns.items()
        }
        if self._tables.get(keyspace) != new:
            self._tables[keyspace] = new
            self.version += 1

    def forget(self, keyspace: str) -> None:
        """The keyspace's tables have changed: whoever needs them next loads them anew."""
        if self._tables.pop(keyspace, None) is not None:
            self.version += 1

    def suspect(self, keyspace: str) -> None:
        """A statement failed in a way that a stale picture would explain."""
        self._suspect.add(keyspace)

    def take_suspects(self) -> tuple[str, ...]:
        """Keyspaces to load anew in the background; each is given once."""
        found = tuple(sorted(self._suspect & set(self._tables)))
        self._suspect.clear()
        return found

    def known(self) -> tuple[str, ...]:
        """Keyspaces that are loaded."""
        return tuple(self._tables)

    def forget_missing(self, keyspaces: frozenset[str]) -> None:
        """Only these keyspaces are left."""
        for gone in self._tables.keys() - keyspaces:
            self.forget(gone)


def _column(row: TextRow) -> Column:
    name, data_type, column_type, nullable, charset, collation, extra = (
        (value or b"").decode() for value in row[1:8]
    )
    notes = extra.upper()
    kind = data_type.lower()
    raw = kind in {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}
    return Column(
        name=name,
        type=kind,
        column_type=column_type,
        unsigned="unsigned" in column_type.lower(),
        nullable=nullable.upper() == "YES",
        charset="binary" if raw else charset,
        collation="binary" if raw else collation,
        generated="GENERATED" in notes and "DEFAULT_GENERATED" not in notes,
        auto_increment="AUTO_INCREMENT" in notes,
        invisible="INVISIBLE" in notes,
    )


def _spec(column: Column, length: int) -> ColumnSpec:
    text = column.charset not in {"", "binary"}
    return ColumnSpec(
        column.name, int(_TYPES.get(column.type, Type.BLOB)), 255 if text else 63, min(length, 0xFFFFFFFF)
    )


def _mentioned(definition: bytes, everything: Iterable[str]) -> frozenset[str]:
    """The tables that a view's definition names, all of them in the view's own schema. Where it cannot be
    read it may name any: a hold then holds the view with whatever it is on.
    """
    try:
        return frozenset(name for _, name in tables_in(definition))
    except SqlSyntaxError:
        return frozenset(everything)
