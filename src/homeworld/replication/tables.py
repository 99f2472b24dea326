"""Tables on servers: reading their definitions, and the few statements that workflows run on them.

It knows information_schema of both flavours and no organizations. Invariant: whatever is read or run here
goes through a session in UTC with utf8mb4 and a lax sql_mode, so that a definition (TIMESTAMP defaults, zero
dates, labels in any language) means the same on both sides.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from homeworld.model.errors import DeadlineExceededError, NotFoundError, ServerError
from homeworld.model.names import quote
from homeworld.model.tables import Column, Index, Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication.changes import Row
from homeworld.replication.connection import ANSWER_SECONDS, SQL_MODE, Connection
from homeworld.replication.ddl import in_schema, replayable

_LOCK_WAIT_TIMEOUT = 1205
# Gone meanwhile, or of a name that only the catalogue finds: it may look past case and blanks at the end.
_NO_TABLE = frozenset({1103, 1146})
DDL_SECONDS = 7 * 86400.0
_TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_NO_KEY = frozenset({"float", "double", "json", "geometry", "point", "vector"})


@contextmanager
def definition_session(endpoint: Endpoint, answer_seconds: float = DDL_SECONDS) -> Generator[Connection]:
    """A connection for reading and writing definitions; closed on leaving.

    :param answer_seconds: how long the server may be silent.
    :raises UnavailableError: the server cannot be reached.
    """
    with Connection(endpoint, fidelity=False, timeout_seconds=answer_seconds) as connection:
        connection.execute("SET NAMES utf8mb4")
        connection.execute(
            f"SET SESSION time_zone='+00:00', sql_mode='{SQL_MODE}', foreign_key_checks=0, "
            "sql_quote_show_create=1"
        )
        if endpoint.flavor is Flavor.MYSQL:
            connection.execute("SET SESSION information_schema_stats_expiry=0")
        yield connection


@contextmanager
def reading_session(endpoint: Endpoint, answer_seconds: float) -> Generator[Connection]:
    """A :func:`definition_session` for whoever is waited for: nothing is waited for longer than that.

    :raises DeadlineExceededError: a table is locked, or the server does not answer.
    :raises UnavailableError: the server cannot be reached.
    """
    with definition_session(endpoint, answer_seconds) as connection:
        # Before the answer is given up: the server would go on waiting without anybody.
        connection.execute(f"SET SESSION lock_wait_timeout={max(1, int(answer_seconds / 2)):d}")
        try:
            yield connection
        except ServerError as error:
            if error.server_errno != _LOCK_WAIT_TIMEOUT:
                raise
            raise DeadlineExceededError("a table has been locked by another for too long") from error


def literal(text: str) -> str:
    """``text`` as a string literal that no sql_mode and no character set reads differently."""
    return f"_utf8mb4 x'{text.encode().hex()}'" if text else "''"


def list_tables(place: ShardPlace) -> tuple[str, ...]:
    """The names of the schema's base tables, in order."""
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        rows = connection.query_all(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'BASE TABLE' "
            f"AND TABLE_SCHEMA = {literal(place.schema)} ORDER BY TABLE_NAME"
        )
    return tuple(_text(row[0]) for row in rows)


def read_tables(place: ShardPlace, names: Iterable[str]) -> dict[str, Table]:
    """Definitions by name.

    :raises NotFoundError: a table is not there.
    """
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        return {name: read_table(connection, place.schema, name) for name in names}


def find_tables(place: ShardPlace, names: Iterable[str], answer_seconds: float = 0.0) -> dict[str, Table]:
    """Definitions of those of ``names`` that are there.

    :param answer_seconds: how long to wait for an answer at most; 0: as on every connection here.
    """
    found: dict[str, Table] = {}
    session = (
        reading_session(place.endpoint, answer_seconds)
        if answer_seconds
        else definition_session(place.endpoint, ANSWER_SECONDS)
    )
    with session as connection:
        for name in names:
            try:
                found[name] = read_table(connection, place.schema, name)
            except NotFoundError:
                continue
    return found


def read_table(connection: Connection, schema: str, name: str) -> Table:
    """One definition, read in a :func:`definition_session`.

    :raises NotFoundError: there is no such base table.
    """
    where = f"WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(name)}"
    facts = connection.query_all(
        "SELECT ENGINE, TABLE_ROWS, DATA_LENGTH, TABLE_NAME FROM information_schema.TABLES "
        f"{where} AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
    )
    if not facts:
        raise NotFoundError(f"there is no table {name!r} in {schema!r}")
    engine, rows, size, stored = facts[0]
    try:
        create = connection.query_one(f"SHOW CREATE TABLE {quote(schema, name)}")[1]
    except ServerError as error:
        if error.server_errno not in _NO_TABLE:
            raise
        raise NotFoundError(f"there is no table {name!r} in {schema!r}") from error
    columns = _read_columns(connection, where)
    indexes, unusable = _read_indexes(connection, where)
    return Table(
        name=_text(stored),
        columns=columns,
        indexes=indexes,
        key=choose_key(columns, [index for index in indexes if index.name not in unusable]),
        engine=_text(engine),
        # MariaDB tells a default of binary type as it is. Whoever makes tables of it looks (storage rule).
        create_sql=replayable((create or b"").decode("utf-8", "surrogateescape")),
        rows_estimate=int(rows or 0),
        data_bytes=int(size or 0),
    )


def read_columns(connection: Connection, schema: str, name: str) -> tuple[Column, ...]:
    """A table's columns as they are now; none where there is no such table."""
    return _read_columns(
        connection, f"WHERE TABLE_SCHEMA = {literal(schema)} AND TABLE_NAME = {literal(name)}"
    )


def _read_columns(connection: Connection, where: str) -> tuple[Column, ...]:
    columns: list[Column] = []
    for row in connection.query_all(
        "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, COLLATION_NAME, EXTRA, "
        f"GENERATION_EXPRESSION FROM information_schema.COLUMNS {where} ORDER BY ORDINAL_POSITION"
    ):
        name, kind, declared, nullable, charset, collation, extra, generation = (_text(v) for v in row)
        kind = kind.lower()
        columns.append(
            Column(
                name=name,
                type=kind,
                column_type=declared,
                unsigned="unsigned" in declared.lower() and kind not in {"enum", "set"},
                nullable=nullable == "YES",
                charset="binary" if kind in _BYTES else charset if kind in _TEXT else "",
                collation="binary" if kind in _BYTES else collation if kind in _TEXT else "",
                generated=bool(generation),
                auto_increment="auto_increment" in extra.lower(),
                invisible="INVISIBLE" in extra.upper(),
            )
        )
    return tuple(columns)


def _read_indexes(connection: Connection, where: str) -> tuple[tuple[Index, ...], set[str]]:
    hidden = "IS_VISIBLE" if connection.endpoint.flavor is Flavor.MYSQL else "IF(IGNORED='YES','NO','YES')"
    parts: dict[str, list[Row]] = {}
    unusable: set[str] = set()
    for row in connection.query_all(
        f"SELECT INDEX_NAME, NON_UNIQUE, COLUMN_NAME, SUB_PART, INDEX_TYPE, {hidden} "
        f"FROM information_schema.STATISTICS {where} ORDER BY INDEX_NAME, SEQ_IN_INDEX"
    ):
        parts.setdefault(_text(row[0]), []).append(row)
        # Only a visible B-tree can be walked in order (MariaDB's long unique keys are hashes).
        if row[4] != b"BTREE" or row[5] != b"YES":
            unusable.add(_text(row[0]))
    indexes = tuple(
        Index(
            name=name,
            unique=rows[0][1] == b"0",
            columns=tuple(_text(row[2]) for row in rows),
            prefixed=any(row[3] is not None for row in rows),
        )
        for name, rows in sorted(parts.items(), key=lambda item: (item[0] != "PRIMARY", item[0]))
    )
    return indexes, unusable


def choose_key(columns: Sequence[Column], indexes: Iterable[Index]) -> Index | None:
    """The index that identifies rows and can be walked in order: the primary key, else the first that serves.

    Not served: nullable columns, prefixes, expressions, FLOAT and DOUBLE (their text may not find the row),
    and CHAR that does not pad: MariaDB's index has it padded, so signs below the blank lie elsewhere in it
    than comparisons say, and a range of keys that is asked for lacks rows.
    """
    by_name = {column.name.lower(): column for column in columns}
    for index in sorted(indexes, key=lambda index: index.name != "PRIMARY"):
        if index.unique and not index.prefixed and "" not in index.columns:
            parts = [by_name[name.lower()] for name in index.columns]
            if not any(part.nullable or part.type in _NO_KEY or is_torn(part) for part in parts):
                return index
    return None


def is_torn(column: Column) -> bool:
    """Whether the server orders the column in an index otherwise than by comparison."""
    return column.type == "char" and "_nopad_" in column.collation


def create_table(place: ShardPlace, table: str, create_sql: str) -> None:
    """Create a table from text of :func:`homeworld.replication.ddl.target_table`; no-op where it exists."""
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        if not _exists(connection, place.schema, table):
            connection.execute(f"USE {quote(place.schema)}")
            connection.execute(in_schema(create_sql, place.schema, table))


def drop_table(place: ShardPlace, table: str) -> None:
    """Drop a table with all its rows; no-op where it is not there."""
    with definition_session(place.endpoint) as connection:
        connection.execute(f"DROP TABLE IF EXISTS {quote(place.schema, table)}")


def table_exists(place: ShardPlace, table: str) -> bool:
    """Whether the schema has a base table of this name."""
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        return _exists(connection, place.schema, table)


def is_empty(place: ShardPlace, table: str) -> bool:
    """Whether the table has no row.

    :raises ServerError: there is no such table.
    """
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        return not connection.query_all(f"SELECT 1 FROM {quote(place.schema, table)} LIMIT 1")


def filled_under_lock(place: ShardPlace, names: Sequence[str], wait_seconds: int) -> tuple[str, ...]:
    """Those of the tables that have a row, looked at while no other session can write to any of them.

    :raises DeadlineExceededError: a transaction that is open, or prepared, did not let go of one in time.
    :raises ServerError: there is no such table.
    """
    wanted = ", ".join(f"{quote(place.schema, name)} WRITE" for name in names)
    with definition_session(place.endpoint, ANSWER_SECONDS) as connection:
        connection.execute(
            f"SET SESSION lock_wait_timeout={wait_seconds:d}, innodb_lock_wait_timeout={wait_seconds:d}"
        )
        try:
            connection.execute(f"LOCK TABLES {wanted}")
            # Prepared transactions may have lost their table locks; their rows' locks they keep.
            return tuple(
                name
                for name in names
                if connection.query_all(f"SELECT 1 FROM {quote(place.schema, name)} LIMIT 1 FOR UPDATE")
            )
        except ServerError as error:
            if error.server_errno != _LOCK_WAIT_TIMEOUT:
                raise
            raise DeadlineExceededError(
                f"an open or prepared transaction keeps table {' or '.join(names)} on "
                f"{place.keyspace}/{place.shard}, which has to end first"
            ) from error


def count_rows(place: ShardPlace, table: str) -> int:
    """The exact number of rows; reads the whole table."""
    with definition_session(place.endpoint) as connection:
        return int(connection.query_one(f"SELECT COUNT(*) FROM {quote(place.schema, table)}")[0] or 0)


def estimate_rows(place: ShardPlace, names: Iterable[str]) -> Mapping[str, int]:
    """The servers' estimates by table."""
    return {name: table.rows_estimate for name, table in read_tables(place, names).items()}


def max_value(place: ShardPlace, table: str, column: str) -> int | None:
    """The largest value of an integer column; None where there is no row."""
    with definition_session(place.endpoint) as connection:
        value = connection.query_one(f"SELECT MAX({quote(column)}) FROM {quote(place.schema, table)}")[0]
    return None if value is None else int(value)


def run_ddl(place: ShardPlace, sql: str) -> None:
    """Run a statement with the place's schema as default.

    :raises ServerError: the server refused it.
    """
    with definition_session(place.endpoint) as connection:
        connection.execute(f"USE {quote(place.schema)}")
        connection.execute(sql)


def table_to_text(table: Table) -> str:
    """A definition as the sidecar keeps it."""
    return json.dumps(asdict(table))


def table_from_text(text: str) -> Table:
    """Read :func:`table_to_text` back."""
    raw = json.loads(text)
    indexes = tuple(_index(each) for each in raw["indexes"])
    columns = tuple(Column(**each) for each in raw["columns"])
    key = raw["key"] and _index(raw["key"])
    fields: dict[str, Any] = {**raw, "columns": columns, "indexes": indexes, "key": key or None}
    return Table(**fields)


def _index(raw: dict[str, Any]) -> Index:
    fields: dict[str, Any] = {**raw, "columns": tuple(raw["columns"])}
    return Index(**fields)


def _exists(connection: Connection, schema: str, table: str) -> bool:
    return bool(
        connection.query_all(
            f"SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = {literal(schema)} "
            f"AND TABLE_NAME = {literal(table)} AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"
        )
    )


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
