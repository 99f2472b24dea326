"""Which tables and columns each keyspace of a branch has, as its servers said last.

Holds knowledge only: loading is asked for by a session's dialogue and performed by the server, which feeds
the rows in here. Being stale never gives a wrong answer by itself: a statement that fails because of it
(1146, 1054) makes the keyspace be loaded anew.
"""

from __future__ import annotations

from collections.abc import Iterable

from homeworld.gateway.plan import ColumnSpec
from homeworld.model.names import quote
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
    """The statement whose rows :meth:`SchemaTracker.loaded` takes: every table and view of ``schema`` with
    its visible columns in order.
    """
    quote(schema)  # refuses what is no identifier
    literal = "'" + schema.replace("\\", "\\\\").replace("'", "''") + "'"
    return (
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, "  # noqa: S608 the literal is escaped
        "CASE WHEN CHARACTER_SET_NAME IS NULL THEN 63 ELSE 255 END, "
        "COALESCE(CHARACTER_OCTET_LENGTH, NUMERIC_PRECISION, 0) FROM information_schema.COLUMNS "
        f"WHERE TABLE_SCHEMA = {literal} AND EXTRA NOT LIKE '%INVISIBLE%' "
        "ORDER BY TABLE_NAME, ORDINAL_POSITION"
    )


class SchemaTracker:
    """The tables of one branch's keyspaces.

    ``version`` grows whenever something known here changes.
    """

    def __init__(self) -> None:
        self.version = 0
        self._tables: dict[str, dict[str, tuple[ColumnSpec, ...]]] = {}
        self._suspect: set[str] = set()

    def tables(self, keyspace: str) -> frozenset[str] | None:
        """Names of the keyspace's tables and views; None: not loaded."""
        known = self._tables.get(keyspace)
        return None if known is None else frozenset(known)

    def columns(self, keyspace: str, table: str) -> tuple[ColumnSpec, ...] | None:
        """The table's visible columns in order; None: no such table, or not loaded."""
        known = self._tables.get(keyspace)
        return None if known is None else known.get(table)

    def loaded(self, keyspace: str, rows: Iterable[TextRow]) -> None:
        """Take the rows of :func:`load_query`."""
        found: dict[str, list[ColumnSpec]] = {}
        for table, column, data_type, charset, length in rows:
            spec = ColumnSpec(
                (column or b"").decode(),
                int(_TYPES.get((data_type or b"").decode().lower(), Type.BLOB)),
                int(charset or 63),
                min(int(length or 0), 0xFFFFFFFF),
            )
            found.setdefault((table or b"").decode(), []).append(spec)
        self._suspect.discard(keyspace)
        new = {table: tuple(columns) for table, columns in found.items()}
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
