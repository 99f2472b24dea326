"""Literals as the values of vindex columns: for finding rows, and for storing them.

Finding: the value whose keyspace id has *every* row that is equal to the literal, or nothing, and then
all shards are asked. That is certain only where equal means equal bytes once stored: integers, binary
strings, and text whose collation compares bytes without padding. (With a case-insensitive or padding
collation, rows that equal the literal may lie on other shards.)

Storing: the value as the server will store it, or a refusal; a row is never placed by a text that the server
would still change (truncate, round, convert).
"""

from __future__ import annotations

import re

from homeworld.gateway.router_errors import RefusedError, unsupported
from homeworld.gateway.sql_tokens import hex_value, string_value
from homeworld.model.tables import Column
from homeworld.model.vindexes.picker import INTEGERS

_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_CANONICAL = re.compile(rb"-?(?:0|[1-9][0-9]*)\Z")
_LENGTH = re.compile(r"\((\d+)\)")
# Beyond this a string compares with an integer column as a rounded double.
_EXACT_DOUBLE = 1 << 53
_UTF8MB3 = frozenset({"utf8", "utf8mb3"})
_FOUR_BYTES = re.compile(rb"[\xf0-\xff]")
_BYTES = frozenset({"binary", "varbinary"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_STORED_CHARSETS = frozenset({"utf8mb4", "utf8mb3", "utf8", "ascii", "latin1"})


def is_string(literal: bytes) -> bool:
    """Whether a literal's text is a string's."""
    return literal[:1] in b"'\""


# Numbers that servers surely store as 0, or surely not, with strings of them.
_ZERO = re.compile(rb" *[+-]?0+(?:\.0*)? *\Z")
_NOT_ZERO = re.compile(rb" *[+-]?0*[1-9][0-9]*(?:\.[0-9]*)? *\Z")


def asks_for_id(name: str, literal: bytes) -> bool:
    """Whether a literal (without its minus) is 0 to a server, which then makes an id.

    :param name: the column's.
    :raises RefusedError: it cannot be told, so that a shard could make one by itself.
    """
    text = string_value(literal) if is_string(literal) else literal
    if _NOT_ZERO.match(text):
        return False
    if _ZERO.match(text):
        return True
    raise may_ask_for_id(name)


def may_ask_for_id(name: str) -> RefusedError:
    """The refusal of a value for which a shard might make an id."""
    return unsupported(f"a value for column {name} that may ask a shard for an id of its own; give a number")


def is_hex(literal: bytes) -> bool:
    """Whether a literal's text is a hex or bit literal's."""
    return literal[:1] in b"xXbB" or literal[:2] in {b"0x", b"0b"}


def compares_bytes(column: Column) -> bool:
    """Whether values of the column are equal exactly when their stored bytes are."""
    if column.type in INTEGERS or column.type in _BYTES:
        return True
    collation = column.collation
    return column.type in _TEXTS and (collation == "utf8mb4_0900_bin" or collation.endswith("_nopad_bin"))


def comparable_class(column: Column) -> str:
    """Two columns of one class that are equal have equal keyspace ids; empty: not certain."""
    if column.type in INTEGERS:
        return "integer"
    if column.type in _BYTES:
        return "bytes"
    return column.collation if compares_bytes(column) else ""


def _in_range(column: Column, number: int) -> bool:
    bits = _BITS[column.type]
    if column.unsigned:
        return 0 <= number < 1 << bits
    return -(1 << (bits - 1)) <= number < 1 << (bits - 1)


def sought(column: Column, literal: bytes, *, negative: bool, charset: str) -> bytes | None:
    """The stored value of every row whose column equals the literal; None: it cannot be told.

    :param charset: of the client's text.
    """
    if negative and not literal.isdigit():
        return None
    if column.type in INTEGERS:
        if is_string(literal):
            text = string_value(literal)
            if not _CANONICAL.match(text) or text == b"-0":
                return None
            number = int(text)
            return text if abs(number) < _EXACT_DOUBLE and _in_range(column, number) else None
        if not literal.isdigit():
            return None
        number = -int(literal) if negative else int(literal)
        return b"%d" % number if _in_range(column, number) else None
    if negative or not compares_bytes(column):
        return None
    if is_hex(literal):
        value = hex_value(literal)
        if column.type in _TEXTS:
            return None
    elif is_string(literal):
        value = string_value(literal)
        if not _is_certain(value, charset):
            return None
    else:
        return None
    if column.type == "binary" and len(value) != _length(column):
        return None  # no row is equal to it, or the server pads: every shard may say so
    return value


def _length(column: Column) -> int:
    """The length in brackets of the column's type; 0: none."""
    found = _LENGTH.search(column.column_type)
    return int(found[1]) if found else 0


def stored(column: Column, literal: bytes, *, negative: bool, charset: str) -> bytes:
    """The value, in UTF-8 where it is text, that the server will store for the literal.

    :raises RefusedError: it cannot be told, or the server could not store it.
    """
    if negative and not literal.isdigit():
        raise unsupported(f"an expression as the value of vindex column {column.name}")
    if column.type in INTEGERS:
        return _stored_integer(column, literal, negative=negative)
    if column.type in _BYTES:
        return _stored_bytes(column, literal, charset)
    if column.type in _TEXTS:
        return _stored_text(column, literal, negative=negative, charset=charset)
    raise unsupported(f"placing rows by a column of type {column.type} ({column.name})")


def _stored_integer(column: Column, literal: bytes, *, negative: bool) -> bytes:
    text = string_value(literal) if is_string(literal) else literal
    if is_string(literal) and not _CANONICAL.match(text):
        raise unsupported(f"a value for vindex column {column.name} that is no plain integer")
    if not is_string(literal) and not literal.isdigit():
        raise unsupported(f"a value for vindex column {column.name} that is no plain integer")
    number = -int(text) if negative else int(text)
    if not _in_range(column, number):
        raise RefusedError(1264, "22003", f"Out of range value for column '{column.name}'")
    return b"%d" % number


def _is_certain(value: bytes, charset: str) -> bool:
    """Whether servers take a literal's bytes for the very text that they are in UTF-8."""
    if value.isascii() or charset == "utf8mb4":
        return True
    return charset in _UTF8MB3 and not _FOUR_BYTES.search(value)


def _client_text(literal: bytes, charset: str) -> bytes:
    value = string_value(literal)
    if not _is_certain(value, charset):
        raise unsupported(f"placing rows by text in character set {charset}; connect with utf8mb4")
    return value


def _stored_bytes(column: Column, literal: bytes, charset: str) -> bytes:
    if is_hex(literal):
        value = hex_value(literal)
    elif is_string(literal):
        value = _client_text(literal, charset)
    else:
        raise unsupported(f"a number for binary vindex column {column.name}")
    length = _length(column)
    if length and len(value) > length:
        raise RefusedError(1406, "22001", f"Data too long for column '{column.name}'")
    return value.ljust(length, b"\0") if column.type == "binary" else value


def _stored_text(column: Column, literal: bytes, *, negative: bool, charset: str) -> bytes:
    if is_hex(literal):
        raise unsupported(f"a hex value for text vindex column {column.name}")
    if not is_string(literal):
        if not literal.isdigit():
            raise unsupported(f"a number with a fraction for text vindex column {column.name}")
        value = b"%d" % (-int(literal) if negative else int(literal))
    else:
        value = _client_text(literal, charset)
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise RefusedError(1366, "HY000", f"Incorrect string value for column '{column.name}'") from None
    if column.charset not in _STORED_CHARSETS:
        raise unsupported(f"placing rows by a column of character set {column.charset}")
    if not _fits(text, column.charset):
        raise RefusedError(1366, "HY000", f"Incorrect string value for column '{column.name}'")
    length = _length(column)
    if length and len(text) > length:
        raise RefusedError(1406, "22001", f"Data too long for column '{column.name}'")
    return text.rstrip(" ").encode() if column.type == "char" else value


def _fits(text: str, charset: str) -> bool:
    if charset == "latin1":
        # The characters that both Windows-1252 and MySQL's latin1 have, for certain.
        return all(ord(char) < 0x80 or 0xA0 <= ord(char) <= 0xFF for char in text)
    if charset == "ascii":
        return text.isascii()
    return charset == "utf8mb4" or all(ord(char) <= 0xFFFF for char in text)
