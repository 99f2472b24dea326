"""Which tables, columns and views each keyspace of a branch has, as its servers said last.

Holds knowledge only: loading is asked for by a session's dialogue or a publication and performed by
``loading``, which feeds the rows in here. Being stale never gives a wrong answer by itself: a statement that
fails because of it (1146, 1054) makes the keyspace be loaded anew. The invariant: what was read before a
keyspace was forgotten is never taken for what it has now.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from homeworld.gateway.plan import ColumnSpec, MadeValues, Refuse
from homeworld.gateway.sql_functions import GRAMMAR, PURE
from homeworld.gateway.sql_tables import tables_in
from homeworld.model.errors import HomeworldError
from homeworld.model.names import quote
from homeworld.model.tables import Column
from homeworld.wire.constants import BINARY_CHARSET, Type
from homeworld.wire.results import TextRow

STALE_ERRNOS = frozenset({1051, 1054, 1060, 1091, 1146})
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
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_UTF8MB4 = 255
_MOST_MISSING = 1_000
_LONGEST = 0xFFFFFFFF


_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'")
_CALL = re.compile(r"([A-Za-z_]\w*)\s*\(")
_CLOCK = re.compile(r"\s*\(*\s*(?:current_|local|utc_)", re.IGNORECASE)


def load_queries(schema: str) -> tuple[str, str, str]:
    """The statements whose rows :meth:`SchemaTracker.loaded` takes: the columns of every table and view of
    ``schema`` in order, the views' definitions, and the parts of unique keys in order.
    """
    quote(schema)  # refuses what is no identifier
    literal = "'" + schema.replace("\\", "\\\\").replace("'", "''") + "'"
    return (
        "SELECT TABLE_NAME, COLUMN_NAME, LOWER(DATA_TYPE), COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, "  # noqa: S608 the literal is escaped
        "COLLATION_NAME, EXTRA, CHARACTER_OCTET_LENGTH, COLUMN_DEFAULT FROM information_schema.COLUMNS "
        f"WHERE TABLE_SCHEMA = {literal} ORDER BY TABLE_NAME, ORDINAL_POSITION",
        f"SELECT TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {literal}",  # noqa: S608 the same
        "SELECT TABLE_NAME, INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS "  # noqa: S608 the same
        f"WHERE TABLE_SCHEMA = {literal} AND NON_UNIQUE = 0 ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
    )


@dataclass(slots=True)
class _Known:
    """One keyspace."""

    tables: dict[str, tuple[Column, ...]] = field(default_factory=dict[str, tuple[Column, ...]])
    specs: dict[str, tuple[ColumnSpec, ...]] = field(default_factory=dict[str, tuple[ColumnSpec, ...]])
    views: dict[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    made: dict[str, MadeValues] = field(default_factory=dict[str, MadeValues])
    unique: dict[str, tuple[tuple[str, ...], ...]] = field(
        default_factory=dict[str, tuple[tuple[str, ...], ...]]
    )


class SchemaTracker:
    """The tables of one branch's keyspaces (``plan.SchemaView``).

    ``version`` grows whenever something known here changes. ``moment`` counts the readings that have begun
    and the forgettings, so that what was read before something can be told from what was read after it.
    """

    def __init__(self) -> None:
        self.version = 0
        self.moment = 0
        self._known: dict[str, _Known] = {}
        self._suspect: set[str] = set()
        self._read: dict[str, int] = {}
        self._forgotten: dict[str, int] = {}
        self._missing: set[Refuse] = set()

    def tables(self, keyspace: str) -> frozenset[str] | None:
        """Names of the keyspace's tables and views; None: not loaded."""
        known = self._known.get(keyspace)
        return None if known is None else frozenset(known.tables)

    def begin(self) -> int:
        """A reading begins: the moment for :meth:`loaded`."""
        self.moment += 1
        return self.moment

    def read(self, keyspace: str) -> int:
        """The moment at which the reading of what is known of a keyspace began; 0: nothing is."""
        return self._read.get(keyspace, 0)

    def columns(self, keyspace: str, table: str) -> tuple[ColumnSpec, ...] | None:
        """The table's visible columns in order; None: no such table, or not loaded."""
        known = self._known.get(keyspace)
        return None if known is None else known.specs.get(table)

    def table_columns(self, keyspace: str, table: str) -> tuple[Column, ...] | None:
        """All columns of the table in order; None: no such table, or not loaded."""
        known = self._known.get(keyspace)
        return None if known is None else known.tables.get(table)

    def unique_keys(self, keyspace: str, table: str) -> tuple[tuple[str, ...], ...] | None:
        """The columns of each unique key; a part that is an expression or a prefix is the empty string. None:
        no such table, or not loaded.
        """
        known = self._known.get(keyspace)
        return None if known is None or table not in known.tables else known.unique.get(table, ())

    def made_values(self, keyspace: str, table: str) -> MadeValues | None:
        """The columns that the server fills differently each time; None: no such table, or not loaded."""
        known = self._known.get(keyspace)
        return None if known is None or table not in known.tables else known.made.get(table, MadeValues())

    def beneath(self, keyspace: str, table: str) -> frozenset[str] | None:
        """The base tables that a view reads; None: it is a base table or not known."""
        known = self._known.get(keyspace)
        return None if known is None else known.views.get(table)

    def loaded(
        self,
        keyspace: str,
        schema: str,
        columns: Iterable[TextRow],
        views: Iterable[TextRow],
        unique: Iterable[TextRow] = (),
        *,
        begun: int | None = None,
    ) -> None:
        """Take the rows of :func:`load_queries` for ``schema``, which is the keyspace's on its server.

        :param begun: when the reading began, from :meth:`begin`; None: now. What was read before the
            keyspace was forgotten, or before what is known, is dropped.
        """
        if begun is None:
            begun = self.begin()
        if begun < max(self._forgotten.get(keyspace, 0), self.read(keyspace)):
            return
        found: dict[str, list[Column]] = {}
        specs: dict[str, list[ColumnSpec]] = {}
        by_default: dict[str, set[str]] = {}
        on_update: dict[str, set[str]] = {}
        for row in columns:
            table, column, length = _column(row)
            extra, default = (None if value is None else _text(value) for value in (row[7], row[9]))
            if default is not None and _is_made(default, extra or ""):
                by_default.setdefault(table, set()).add(column.name)
            if "on update" in (extra or "").lower():
                on_update.setdefault(table, set()).add(column.name)
            found.setdefault(table, []).append(column)
            visible = specs.setdefault(table, [])
            if not column.invisible:
                charset = _UTF8MB4 if column.charset not in {"", "binary"} else BINARY_CHARSET
                kind = _TYPES.get(column.type, int(Type.BLOB))
                visible.append(ColumnSpec(column.name, int(kind), charset, min(length, _LONGEST)))
        new = _Known(
            {table: tuple(listed) for table, listed in found.items()},
            {table: tuple(listed) for table, listed in specs.items()},
        )
        new.views = _beneath(schema, views, frozenset(found))
        new.unique = _unique(unique)
        for table in by_default.keys() | on_update.keys():
            new.made[table] = MadeValues(
                frozenset(by_default.get(table, ())), frozenset(on_update.get(table, ()))
            )
        self._suspect.discard(keyspace)
        self._read[keyspace] = begun
        if self._known.get(keyspace) != new:
            self._known[keyspace] = new
            self._changed()

    def forget(self, keyspace: str) -> None:
        """The keyspace's tables have changed: whoever needs them next loads them anew."""
        self._forgotten[keyspace] = self.begin()
        self._read.pop(keyspace, None)
        if self._known.pop(keyspace, None) is not None:
            self._changed()

    def _changed(self) -> None:
        self.version += 1
        self._missing.clear()

    def is_missing(self, refusal: Refuse) -> bool:
        """Whether its keyspaces were loaded anew for such a refusal lately, and it stood."""
        return refusal in self._missing

    def is_still_missing(self, refusal: Refuse) -> None:
        """Its keyspaces were loaded anew, and the refusal stands: not again for it so soon."""
        if len(self._missing) >= _MOST_MISSING:
            self._missing.clear()
        self._missing.add(refusal)

    def forget_missing(self) -> None:
        """Something has changed that no load tells of: refusals are doubted again."""
        self._missing.clear()

    def suspect(self, keyspace: str) -> None:
        """A statement failed in a way that a stale picture would explain."""
        self._suspect.add(keyspace)

    def take_suspects(self) -> tuple[str, ...]:
        """Keyspaces to load anew in the background; each is given once. Called every now and then."""
        if self._missing:
            self._missing.clear()
        if not self._suspect:
            return ()
        found = tuple(sorted(self._suspect & set(self._known)))
        self._suspect.clear()
        return found

    def known(self) -> tuple[str, ...]:
        """Keyspaces that are loaded."""
        return tuple(self._known)

    def keep_only(self, keyspaces: frozenset[str]) -> None:
        """Only these keyspaces are left."""
        for gone in self._known.keys() - keyspaces:
            self.forget(gone)


def _column(row: TextRow) -> tuple[str, Column, int]:
    """Table, column, and length in bytes where it has one."""
    table, name, kind, column_type, nullable, charset, collation, extra, length = map(_text, row[:9])
    flags = extra.upper()
    return (
        table,
        Column(
            name=name,
            type=kind,
            column_type=column_type,
            unsigned="unsigned" in column_type.lower(),
            nullable=nullable.upper() == "YES",
            charset="binary" if kind in _BYTES else charset,
            collation="binary" if kind in _BYTES else collation,
            generated="GENERATED" in flags.replace("DEFAULT_GENERATED", ""),
            auto_increment="AUTO_INCREMENT" in flags,
            invisible="INVISIBLE" in flags,
        ),
        int(length or 0),
    )


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


def _is_made(default: str, extra: str) -> bool:
    """Whether a column's default may be another value each time: it calls what is not known to be pure. MySQL
    writes a text's default without quotes, so that one that looks like a call counts too.
    """
    if _LITERAL.fullmatch(default):
        return False
    generated = "DEFAULT_GENERATED" in extra.upper()
    bare = default if generated else _LITERAL.sub("''", default)  # MySQL escapes the quotes of an expression
    if _CLOCK.match(bare) and (generated or "(" in bare):
        return True
    return any(name.upper() not in PURE and name.upper() not in GRAMMAR for name in _CALL.findall(bare))


def _unique(parts: Iterable[TextRow]) -> dict[str, tuple[tuple[str, ...], ...]]:
    """Unique keys by table, from their parts in order."""
    keys: dict[str, dict[str, list[str]]] = {}
    for table, index, column, prefix in parts:
        name = "" if prefix is not None else _text(column)
        keys.setdefault(_text(table), {}).setdefault(_text(index), []).append(name)
    return {table: tuple(tuple(key) for key in by_name.values()) for table, by_name in keys.items()}


def _beneath(schema: str, views: Iterable[TextRow], tables: frozenset[str]) -> dict[str, frozenset[str]]:
    """For each view the base tables it reads, through other views too. A definition that cannot be read may
    read anything.
    """
    direct: dict[str, frozenset[str]] = {}
    for name, definition in views:
        view = (name or b"").decode("utf-8", "replace")
        try:
            named = tables_in(definition or b"")
        except HomeworldError:
            named = frozenset[tuple[str, str]]()
        direct[view] = frozenset(table for at, table in named if at in {"", schema}) or tables
    found: dict[str, frozenset[str]] = {}
    for view in direct:
        reached: set[str] = set()
        waiting = [view]
        seen = {view}
        while waiting:
            for table in direct[waiting.pop()]:
                if table not in direct:
                    reached.add(table)
                elif table not in seen:
                    seen.add(table)
                    waiting.append(table)
        found[view] = frozenset(reached)
    return found
