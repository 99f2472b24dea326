"""What to SELECT beside the text of MySQL's JSON documents, and how documents are made of the answer.

It writes SQL and reads rows; it opens no session. The server prints each document as text; of what type its
scalars are is a letter for each node, asked for in the same statement. The session must not cut GROUP_CONCAT.

Invariant: a document that comes out as plain bytes is one that the server makes again by parsing them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

from homeworld.model.names import quote
from homeworld.model.tables import Column, Table
from homeworld.replication.changes import Row
from homeworld.replication.json_scalars import typed

# What text tells all of, and the letters of json_scalars.scalar for the rest: what has no name here is bytes.
_PLAIN = frozenset({"STRING", "OBJECT", "ARRAY", "DOUBLE", "BOOLEAN", "NULL", ""})
_LETTERS = {
    "INTEGER": "i", "UNSIGNED INTEGER": "u", "DECIMAL": "n", "DATETIME": "m", "DATE": "d", "TIME": "t",
    "TIMESTAMP": "s",
}  # fmt: skip
# Two paths find all that is below a document's root. One that finds both at once has to sort out what it has
# found twice, which takes longer than both. The names go as they are: to make letters of them took the server
# as long as everything else.
_MEMBERS, _CELLS = "$**.*", "$**[*]"
_BETWEEN = "|"
# An integer of fewer digits is parsed as INTEGER; where one may have more, it is looked at.
_SHORT_NUMBERS = _PLAIN | {"INTEGER"}
_long_number = re.compile(rb"[0-9]{10}").search
# A name that no column of a table has by chance.
_NODE = quote("homeworld:node")


def _types(name: str, path: str) -> str:
    # Paths as text of a character set: on a session with NAMES binary a literal would be none.
    return (
        f"IFNULL((SELECT GROUP_CONCAT(JSON_TYPE({_NODE})) FROM JSON_TABLE({name},_utf8mb4'{path}' "
        f"COLUMNS ({_NODE} JSON PATH _utf8mb4'$')) nodes),'')"
    )


def types_expression(column: Column) -> str:
    """The SQL expression of all types in a JSON column: of the root, of members, of cells."""
    name = quote(column.name)
    root = f"IFNULL(JSON_TYPE({name}),'')"
    parts = root, f"'{_BETWEEN}'", _types(name, _MEMBERS), f"'{_BETWEEN}'", _types(name, _CELLS)
    return f"CONCAT({','.join(parts)})"


def document(text: bytes, types: bytes) -> bytes:
    """The document, typed where it is.

    :param types: what :func:`types_expression` gave.
    :raises MalformedPacketError: the two do not fit.
    """
    root, members, cells = types.decode().split(_BETWEEN)
    return typed(text, _letters(root), _letters(members), _letters(cells))


def _letters(names: str) -> str:
    if not names:
        return ""
    return "".join(["." if name in _PLAIN else _LETTERS.get(name, "b") for name in names.split(",")])


class DocumentReader:
    """Reads the JSON documents of one table's rows exactly.

    :param table: any; one without JSON columns, or of MariaDB, where JSON is text, costs nothing.

    * ``listed``: what to SELECT after the row's own columns, with a comma in front; or nothing.
    * ``read``: from rows with that to rows; None: there is nothing to be done.
    """

    def __init__(self, table: Table) -> None:
        self._at = [
            at for at, column in enumerate(table.columns) if column.type == "json" and not column.generated
        ]
        self._width = len(table.columns)
        self._plain = _Plain()
        self.listed = "".join(f", {types_expression(table.columns[at])}" for at in self._at)
        self.read: Callable[[Sequence[Row]], list[Row]] | None = self._read if self._at else None

    def _read(self, rows: Sequence[Row]) -> list[Row]:
        width, plain = self._width, self._plain
        if len(self._at) == 1:
            at = self._at[0]
            return [
                row[:width] if plain[row[width]] and not _long_number(row[at] or b"") else self._typed(row)
                for row in rows
            ]
        return [
            row[:width]
            if all(map(plain.__getitem__, row[width:]))
            and not any(_long_number(row[at] or b"") for at in self._at)
            else self._typed(row)
            for row in rows
        ]

    def _typed(self, row: Row) -> Row:
        values = list(row[: self._width])
        for at, told in zip(self._at, row[self._width :], strict=True):
            text = values[at]
            if text is not None and told is not None:
                values[at] = document(text, told)
        return tuple(values)


class _Plain(dict[bytes | None, bool]):
    """Whether types say that text tells all, long numbers aside; documents of a table are much alike."""

    __slots__ = ()

    def __missing__(self, told: bytes | None) -> bool:
        names = b"" if told is None else told.replace(b"|", b",")
        self[told] = plain = _SHORT_NUMBERS.issuperset(names.decode().split(","))
        return plain


def with_documents(reader: DocumentReader, rows: Sequence[Row]) -> list[Row]:
    """Rows of a SELECT with ``reader.listed``, as rows are given."""
    return reader.read(rows) if reader.read is not None else cast("list[Row]", rows)
