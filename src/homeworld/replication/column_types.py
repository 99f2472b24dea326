"""What a column's declared type means for its text: the expression that reads it, widths, fractions, labels.

It reads :class:`~homeworld.model.tables.Column` only; it knows no server and no binlog.

Invariant: :func:`select_expression` gives, on a fidelity connection, bytes from which the server makes the
stored value again exactly; the decoder gives the same bytes.
"""

from __future__ import annotations

import re
from itertools import count

from homeworld.model.errors import UnsupportedLogError
from homeworld.model.names import quote
from homeworld.model.tables import Column

_ARGUMENTS = re.compile(r"\(([0-9, ]*)\)")
_LABEL = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPED = re.compile(r"''|\\(.)", re.DOTALL)
_ESCAPES = {"0": "\0", "n": "\n", "r": "\r", "t": "\t", "b": "\b", "Z": "\x1a"}

# Character sets whose Python codec agrees with the server's on every character that it encodes.
_CODECS = {
    "utf8mb4": "utf-8",
    "utf8mb3": "utf-8",
    "utf8": "utf-8",
    "ascii": "ascii",
    "ucs2": "utf-16-be",
    "utf16": "utf-16-be",
    "utf16le": "utf-16-le",
    "utf32": "utf-32-be",
    "latin1": "cp1252",
    "latin2": "iso8859-2",
    "latin5": "iso8859-9",
    "latin7": "iso8859-13",
    "koi8r": "koi8-r",
    "koi8u": "koi8-u",
    "cp1250": "cp1250",
    "cp1251": "cp1251",
    "cp866": "cp866",
}
# Those in which no sign is the byte that it is in ASCII.
_WIDE = {name: _CODECS[name] for name in ("ucs2", "utf16", "utf16le", "utf32")}


def select_expression(column: Column) -> str:
    """What to SELECT to read ``column`` exactly, quoted.

    FLOAT prints only six digits of what it holds, and DOUBLE with (M,D) or ZEROFILL prints padded; cast to
    DOUBLE both print the shortest text that reads back as the same number.
    """
    name = quote(column.name)
    if column.type == "float" or (column.type == "double" and not _plain_double(column)):
        return f"CAST({name} AS DOUBLE)"
    if column.type == "enum" and (error := error_value(column)):
        return f"IF({name}+0=0,_{column.charset} 0x{error.hex()},{name})"
    return name


def error_value(column: Column) -> bytes:
    """The text that stands for number 0 of an ENUM, which a server that is not strict stores for no label.

    Servers show it as an empty text. Where that is a label too, it is another text that is none, so that it
    loads as what it is; of signs that no collation ignores.
    """
    labels = set(_LABEL.findall(column.column_type))
    if "" not in labels:
        return b""
    sign = next(text for number in count() if (text := f"~{number}~") not in labels)
    return sign.encode(_WIDE.get(column.charset, "ascii"))


def members(column: Column, value: bytes) -> list[bytes]:
    """The labels of a SET's value, which stand between commas of its character set."""
    codec = _WIDE.get(column.charset)
    if codec is None:
        return value.split(b",")
    return [label.encode(codec) for label in value.decode(codec).split(",")]


def _plain_double(column: Column) -> bool:
    return "(" not in column.column_type and "zerofill" not in column.column_type.lower()


def arguments(column: Column) -> tuple[int, ...]:
    """The numbers in parentheses behind the type: ``decimal(10,2)`` gives (10, 2)."""
    found = _ARGUMENTS.search(column.column_type) if column.type not in {"enum", "set"} else None
    return tuple(int(part) for part in found[1].split(",") if part.strip()) if found else ()


def zerofill_width(column: Column) -> int:
    """How many characters a ZEROFILL column prints at least; 0 for others."""
    if "zerofill" not in column.column_type.lower():
        return 0
    numbers = arguments(column)
    if column.type == "decimal":
        precision, scale = (*numbers, 0)[:2] if numbers else (10, 0)
        return precision + (1 if scale else 0)
    defaults = {"tinyint": 3, "smallint": 5, "mediumint": 8, "int": 10, "bigint": 20}
    return numbers[0] if numbers else defaults.get(column.type, 0)


def fraction_digits(column: Column) -> int:
    """Digits of fractional seconds of a temporal column."""
    numbers = arguments(column)
    return numbers[0] if numbers else 0


def labels_of(column: Column) -> tuple[bytes, ...]:
    """The labels of an ENUM or SET as their bytes in the column's character set.

    Needed only where the binlog does not carry them.

    :raises UnsupportedLogError: the bytes cannot be told without asking the server.
    """
    body = column.column_type[column.column_type.index("(") :]
    texts = [_ESCAPED.sub(_unescape, text) for text in _LABEL.findall(body)]
    codec = _CODECS.get(column.charset)
    try:
        if codec is None:
            return tuple(text.encode("ascii") for text in texts)
        return tuple(text.encode(codec) for text in texts)
    except UnicodeEncodeError as error:
        raise UnsupportedLogError(
            f"the labels of column {column.name} (character set {column.charset}) cannot be told from its "
            "declaration; set binlog_row_metadata=FULL on the source"
        ) from error


def _unescape(match: re.Match[str]) -> str:
    return "'" if match[0] == "''" else _ESCAPES.get(match[1], match[1])
