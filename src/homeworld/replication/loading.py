"""Putting rows into a target's table and taking rows out, with every answer of the server checked.

Rows are those of the source's table, columns in its order. They are loaded from memory by LOAD DATA with the
charset that converts nothing. It knows no positions and opens no transaction.

Invariant: when a call returns, each row given is stored as it was given, or the result says that some were
displaced or refused as duplicates; anything else the server did not take exactly raises RowRefusedError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import TypeAlias, cast

from homeworld.model.errors import MalformedPacketError, RowRefusedError, ServerError
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import Flavor
from homeworld.replication.changes import Row
from homeworld.replication.column_types import error_value, select_expression
from homeworld.replication.connection import Connection, Executed
from homeworld.replication.json_scalars import Scalar, TypedDocument
from homeworld.replication.keyorder import Key, TableKey
from homeworld.replication.loads import Load, load_together

_INFO = re.compile(r"Records: (\d+)\s+Deleted: (\d+)\s+Skipped: (\d+)\s+Warnings: (\d+)")
_DUPLICATE, _TRUNCATED = 1062, 1265
# A functional index keeps something else than its expression gave (MySQL); the row is stored as it came. The
# source has the same, for a value that it took where it did not insist.
_INDEXED_OTHERWISE = 3751
# The class of SQLSTATEs for values that a column does not take; another try would not mend it.
_DATA = "22"
_TEXTUAL = frozenset({"json", "uuid", "inet4", "inet6"})
_KEYS_A_DELETE = 500
_BYTES_A_LOAD = 8 << 20
_FORMAT = "CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\' LINES TERMINATED BY '\\n'"


def select_list(table: Table, needed: Collection[int]) -> str:
    """What to SELECT for whole rows: generated columns are NULL, except those ``needed`` (by position)."""
    return ", ".join(
        "NULL" if column.generated and at not in needed else select_expression(column)
        for at, column in enumerate(table.columns)
    )


#: Of a document that text does not tell all of: the position of its column, the path and the form of each of
#: its typed scalars.
_Shape: TypeAlias = tuple[tuple[int, str, str], ...]


class RowWriter:
    """Writes rows of one source table into the table of the same name in one target schema."""

    def __init__(self, source: Table, key: TableKey, schema: str, flavor: Flavor) -> None:
        self.key = key
        self.alone = sum(index.unique for index in source.indexes) == 1
        self.table = quote(schema, source.name)
        stored = [at for at, column in enumerate(source.columns) if not column.generated]
        self._width = len(stored)
        self._cut = _cutter(stored, len(source.columns))
        columns = [source.columns[at] for at in stored]
        self._json = {
            at: column
            for at, column in zip(stored, columns, strict=True)
            if column.type == "json" and flavor is Flavor.MYSQL
        }
        # The bytes come as they are and are declared to be text where bytes would mean something else.
        variables = {
            column.name: f"@v{at}"
            for at, column in zip(stored, columns, strict=True)
            if column.type in _TEXTUAL
        }
        self._names = [variables.get(column.name) or quote(column.name) for column in columns]
        self._made = {name: f"CONVERT({var} USING utf8mb4)" for name, var in variables.items()}
        self._load = self._load_into(self._names, self._made)
        # ENUM's error value is a text that is no label, which loads as that value with a warning.
        self._enums = [
            (at, error_value(column))
            for at, column in zip(stored, columns, strict=True)
            if column.type == "enum"
        ]

    def _load_into(self, names: Sequence[str], made: Mapping[str, str]) -> str:
        parts = ", ".join(f"{quote(name)}={expression}" for name, expression in made.items())
        listed = f"INTO TABLE {self.table} {_FORMAT} ({', '.join(names)})"
        return f"{listed} SET {parts}" if parts else listed

    def add(self, connection: Connection, rows: Sequence[Row]) -> bool:
        """Load rows that must be new to the table. False: a unique key refused some; roll back.

        :raises RowRefusedError: the server did not take a row exactly.
        """
        return self._load_rows(connection, rows, "")

    def put(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Load rows, each in the place of whatever has one of its unique keys.

        :raises RowRefusedError: the server did not take a row exactly.
        """
        self._load_rows(connection, rows, "REPLACE ")

    def any_there(self, connection: Connection, keys: Sequence[Key]) -> bool:
        """Whether a row of one of these keys is in the table."""
        return any(
            connection.query_all(
                f"SELECT 1 FROM {self.table} WHERE {self.key.any_of(keys[at : at + _KEYS_A_DELETE])} LIMIT 1"
            )
            for at in range(0, len(keys), _KEYS_A_DELETE)
        )

    def take_out(self, connection: Connection, keys: Sequence[Key]) -> None:
        """Delete the rows of these keys, where they are."""
        for start in range(0, len(keys), _KEYS_A_DELETE):
            condition = self.key.any_of(keys[start : start + _KEYS_A_DELETE])
            # This form takes an index hint; without it a small table may be scanned, and each row locked.
            hint = f"FORCE INDEX ({quote(self.key.index)})"
            connection.execute(f"DELETE {self.table} FROM {self.table} {hint} WHERE {condition}")

    def _load_rows(self, connection: Connection, rows: Sequence[Row], mode: str) -> bool:
        if not rows:
            return True
        done = load_together([self.load_of(connection, rows, mode)])[0]
        loaded = self.judge(connection, rows, done, mode)
        if isinstance(loaded, ServerError):
            raise loaded
        return loaded

    def load_of(self, connection: Connection, rows: Sequence[Row], mode: str = "") -> Load:
        """The load that brings those of the rows that text tells all of; :meth:`judge` brings the others.

        :param mode: the statement's word for what becomes of rows in the way.
        """
        plain = self._plain(rows)
        cut = plain if self._cut is None else list(map(self._cut, plain))
        sql = f"LOAD DATA LOCAL INFILE 'rows' {mode}{self._load}"
        return Load(connection, sql, encode(cut, self._width))

    def judge(
        self, connection: Connection, rows: Sequence[Row], done: Executed | ServerError, mode: str = ""
    ) -> bool | ServerError:
        """What has come of a load of ``rows``, with those of them that it left out: False where a unique key
        refused some, or the server's error.

        :raises RowRefusedError: the server did not take a row exactly, or nothing makes it again.
        """
        plain = self._plain(rows)
        loaded = self._judge_one(connection, plain, done)
        if loaded is not True or len(plain) == len(rows):
            return loaded
        for shape, those in self._shapes(rows).items():
            done = load_together([self._typed_load(connection, shape, those, mode)])[0]
            loaded = self._judge_one(connection, those, done)
            if loaded is not True:
                return loaded
        return True

    def _judge_one(
        self, connection: Connection, rows: Sequence[Row], done: Executed | ServerError
    ) -> bool | ServerError:
        if isinstance(done, ServerError):
            if not done.server_state.startswith(_DATA):
                return done
            raise RowRefusedError(f"table {self.table} does not take rows as they are: {done}") from done
        return self._check(connection, done, rows)

    def _plain(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The rows without a typed document."""
        for at in self._json:
            rows = [row for row in rows if type(row[at]) is not TypedDocument]
        return rows

    def _shapes(self, rows: Sequence[Row]) -> dict[_Shape, list[Row]]:
        """The rows that have typed documents, by what is where in these."""
        shapes: dict[_Shape, list[Row]] = {}
        for row in rows:
            shape = tuple(
                (at, each.path, each.form or self._refuse(at, each))
                for at in self._json
                if isinstance(document := row[at], TypedDocument)
                for each in document.scalars
            )
            if shape:
                shapes.setdefault(shape, []).append(row)
        return shapes

    def _refuse(self, at: int, one: Scalar) -> str:
        raise RowRefusedError(
            f"table {self.table}, column {quote(self._json[at].name)}: a JSON document has a value of type "
            f"{one.type} at {one.path}, which no statement makes again as it is; store it as another type"
        )

    def _typed_load(self, connection: Connection, shape: _Shape, rows: Sequence[Row], mode: str) -> Load:
        """The load of rows whose documents have the same shape: each of their typed scalars is one field
        more, and is put into the document before that gets to the table.
        """
        extra = [f"@t{number}" for number in range(len(shape))]
        made = dict(self._made)
        for at, column in self._json.items():
            parts = [
                f", _utf8mb4 x'{path.encode().hex()}', {form.format(variable)}"
                for variable, (own, path, form) in zip(extra, shape, strict=True)
                if own == at
            ]
            if parts:
                made[column.name] = f"JSON_REPLACE({made[column.name]}{''.join(parts)})"
        sql = f"LOAD DATA LOCAL INFILE 'rows' {mode}{self._load_into([*self._names, *extra], made)}"
        wanted = dict.fromkeys(at for at, _, _ in shape)
        lines = [
            (
                *(row if self._cut is None else self._cut(row)),
                *[each.value for at in wanted for each in cast("TypedDocument", row[at]).scalars],
            )
            for row in rows
        ]
        return Load(connection, sql, encode(lines, self._width + len(shape)))

    def _check(self, connection: Connection, done: Executed, rows: Sequence[Row]) -> bool:
        info = _INFO.match(done.info)
        if info is None:
            raise MalformedPacketError(f"a load ended without its figures: {done.info!r}")
        records, _, skipped, warnings = (int(number) for number in info.groups())
        expected = sum(row[at] == error for at, error in self._enums for row in rows)
        if warnings == expected == skipped == 0 and records == len(rows):
            return True
        told = connection.query_all("SHOW WARNINGS") if warnings else []
        codes = {int(code or 0) for _, code, _ in told}
        if _INDEXED_OTHERWISE in codes:
            warnings -= sum(int(code or 0) == _INDEXED_OTHERWISE for _, code, _ in told)
            codes.remove(_INDEXED_OTHERWISE)
        if skipped and codes <= {_DUPLICATE, _TRUNCATED} and _DUPLICATE in codes:
            return False
        wrong = warnings != expected or codes != ({_TRUNCATED} if expected else set())
        if skipped or records != len(rows) or wrong:
            reasons = "; ".join(f"{_text(code)}: {_text(text)}" for _, code, text in told[:3])
            raise RowRefusedError(
                f"table {self.table} does not take rows as they are ({done.info}): {reasons}"
            )
        return True


@dataclass(frozen=True, slots=True)
class Addition:
    """Rows for one target, to be loaded over a connection that has a transaction open."""

    writer: RowWriter
    connection: Connection
    rows: Sequence[Row]

    def load(self) -> Load:
        """The load that adds them."""
        return self.writer.load_of(self.connection, self.rows)

    def judge(self, done: Executed | ServerError) -> bool | ServerError:
        """What has come of it."""
        return self.writer.judge(self.connection, self.rows, done)


def add_together(additions: Sequence[Addition]) -> list[bool | ServerError]:
    """:meth:`RowWriter.add` for several targets at the same time; for each what it returns, or the error.

    :raises RowRefusedError: a server did not take a row exactly; no load is under way any more.
    """
    given = [addition for addition in additions if addition.rows]
    done = iter(load_together([addition.load() for addition in given]))
    return [addition.judge(next(done)) if addition.rows else True for addition in additions]


def encode(rows: Sequence[Row], width: int) -> Iterator[bytes]:
    """Rows as lines of tab-separated fields, in pieces of some megabytes."""
    start = 0
    while start < len(rows):
        size, end = 0, start
        while end < len(rows) and size < _BYTES_A_LOAD:
            stop = min(end + 1000, len(rows))
            # Long rows are told from the first of a thousand: they come alike.
            size += (sum(len(v) for v in rows[end] if v) + width) * (stop - end)
            end = stop
        yield _lines(rows[start:end], width)
        start = end


def _lines(rows: Sequence[Row], width: int) -> bytes:
    """All rows as one text. Nearly always nothing has to be escaped, which counting shows afterwards."""
    nulls = 0
    join = b"\t".join
    try:
        text = b"\n".join(map(join, cast("Sequence[tuple[bytes, ...]]", rows)))
    except TypeError:  # there are NULLs
        lines: list[bytes] = []
        add = lines.append
        for row in rows:
            try:
                add(join(row))  # pyright: ignore[reportArgumentType]  a NULL among them raises
            except TypeError:
                nulls += row.count(None)
                add(join([b"\\N" if value is None else value for value in row]))
        text = b"\n".join(lines)
    if (
        text.count(b"\\") == nulls
        and text.count(b"\t") == len(rows) * (width - 1)
        and text.count(b"\n") == len(rows) - 1
    ):
        return text + b"\n"
    return b"\n".join([b"\t".join([_escaped(value) for value in row]) for row in rows]) + b"\n"


def _escaped(value: bytes | None) -> bytes:
    if value is None:
        return b"\\N"
    return value.replace(b"\\", b"\\\\").replace(b"\t", b"\\\t").replace(b"\n", b"\\\n")


def _cutter(positions: list[int], columns: int) -> Callable[[Row], Row] | None:
    """What takes the columns at ``positions`` out of a row; None where that is all of them."""
    if len(positions) == columns:
        return None
    if len(positions) == 1:
        return lambda row, at=positions[0]: (row[at],)
    return cast("Callable[[Row], Row]", itemgetter(*positions))


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")
