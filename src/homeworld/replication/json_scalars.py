"""Scalars in MySQL's JSON that its parser would not give back, and the SQL that makes each of them again.

A JSON column can hold what no JSON text can name: DATE, TIME, DATETIME, TIMESTAMP, DECIMAL, UNSIGNED INTEGER,
BLOB and BIT values (made by JSON_OBJECT, CAST and the like). Printed and parsed they become strings, doubles
and integers of the other sign. A :class:`TypedDocument` is a document's text together with where those are
and what they are. This module knows no server and no table.

Invariant: each scalar that printing and parsing would change is named, with a form that gives back its type
and its value, or with an empty form, and then nobody may write the document.
"""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Type

# The parser makes a signed integer of a number up to this, and an unsigned one of a larger.
LARGEST_PARSED_SIGNED = (1 << 32) - 1
_DECIMAL = re.compile(r"-?([0-9]+)(?:\.([0-9]+))?")
_OPAQUE = re.compile(r"base64:type([0-9]+):(.*)", re.DOTALL)
_MOST_DIGITS, _MOST_DECIMALS = 65, 30
_GROUP = 9  # digits that a packed decimal keeps together

_TEXT = "CONVERT({0} USING utf8mb4)"
_TEMPORALS = {
    "d": ("DATE", f"CAST({_TEXT} AS DATE)"),
    "t": ("TIME", f"CAST({_TEXT} AS TIME(6))"),
    "m": ("DATETIME", f"CAST({_TEXT} AS DATETIME(6))"),
}
# Only a column is of these types; that of a JSON_TABLE is one. It takes bytes as they are out of a VARBINARY,
# which LEFT makes of them; the user variable alone would be a MEDIUMBLOB.
_COLUMN = (
    "(SELECT x FROM JSON_TABLE(JSON_ARRAY({value}),_utf8mb4'$[0]' COLUMNS "
    "(x {type} PATH _utf8mb4'$' NULL ON EMPTY ERROR ON ERROR)) made)"
)
_SHORT = "LEFT({0},65535)"


@dataclass(frozen=True, slots=True)
class Scalar:
    """One scalar of a document.

    :param path: its JSON path in SQL's syntax.
    :param type: its type, for people.
    :param form: the SQL expression that makes it, with ``{0}`` for a variable that holds ``value``; empty:
        there is none.
    :param value: bytes that the form reads.
    """

    path: str
    type: str
    form: str
    value: bytes


class TypedDocument(bytes):
    """The text of a JSON document as the server prints it, and what that text does not tell.

    * ``scalars``: those that reading the text would not give back, in the order of the text.
    """

    scalars: tuple[Scalar, ...] = ()

    @classmethod
    def of(cls, text: bytes, scalars: Iterable[Scalar]) -> TypedDocument:
        """The document with these scalars."""
        made = cls(text)
        made.scalars = tuple(scalars)
        return made


def scalar(path: str, kind: str, text: str) -> Scalar | None:
    """A scalar by its text: of a number as it is printed, of a string without quotes and escapes.

    :param kind: ``u`` UNSIGNED INTEGER, ``i`` INTEGER, ``n`` DECIMAL, ``d`` DATE, ``t`` TIME, ``m`` DATETIME,
        ``s`` TIMESTAMP, ``b`` opaque bytes.
    :returns: None where reading the text gives the same scalar.
    :raises MalformedPacketError: the text is not of that kind.
    """
    if kind == "u":
        if int(text) > LARGEST_PARSED_SIGNED:
            return None
        return Scalar(path, "UNSIGNED INTEGER", f"CAST({_TEXT} AS UNSIGNED)", text.encode())
    if kind == "i":
        if int(text) <= LARGEST_PARSED_SIGNED:
            return None
        return Scalar(path, "INTEGER", f"CAST({_TEXT} AS SIGNED)", text.encode())
    if kind == "n":
        return _decimal(path, text)
    if kind in _TEMPORALS:
        name, form = _TEMPORALS[kind]
        return Scalar(path, name, form, text.encode())
    if kind == "s":
        form = _COLUMN.format(value=_TEXT, type="TIMESTAMP(6)")
        return Scalar(path, "TIMESTAMP", form, text.encode())
    found = _OPAQUE.fullmatch(text) if kind == "b" else None
    if found is None:
        raise MalformedPacketError(f"a JSON document has an unknown scalar at {path}")
    return opaque(path, int(found[1]), b64decode(found[2].replace("\n", ""), validate=True))


def opaque(path: str, code: int, data: bytes) -> Scalar:
    """Bytes of the column type with this number."""
    size = len(data)
    if code == Type.VARCHAR and size <= 0xFFFF:
        return Scalar(path, "VARBINARY", _SHORT, data)
    if code == Type.STRING and size <= 0xFF:
        return Scalar(path, "BINARY", _COLUMN.format(value=_SHORT, type=f"BINARY({size})"), data)
    if code == Type.BLOB and size <= 0xFFFF:
        return Scalar(path, "BLOB", _COLUMN.format(value=_SHORT, type="BLOB"), data)
    if code == Type.MEDIUM_BLOB:
        return Scalar(path, "MEDIUMBLOB", "CAST({0} AS BINARY)", data)
    if code == Type.LONG_BLOB:
        # As long as the sum of what its parts may be.
        return Scalar(path, "LONGBLOB", "CONCAT({0},SUBSTR({0},LENGTH({0})+1))", data)
    if code == Type.BIT and 0 < size <= 8:
        form = _COLUMN.format(value=f"CAST({_TEXT} AS UNSIGNED)", type=f"BIT({8 * size})")
        return Scalar(path, "BIT", form, b"%d" % int.from_bytes(data, "big"))
    name = "TINYBLOB" if code == Type.TINY_BLOB else f"type {code}"
    return Scalar(path, name, "", data)


def _decimal(path: str, text: str) -> Scalar:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        raise MalformedPacketError(f"a JSON document has a decimal at {path} that is none")
    decimals = len(found[2] or "")
    # Whole digits by the group, so that numbers of about the same size are made by the same form.
    whole = -(-len(found[1].lstrip("0")) // _GROUP) * _GROUP
    digits = max(1, min(whole + decimals, _MOST_DIGITS))
    if decimals > _MOST_DECIMALS or len(found[1].lstrip("0")) > digits - decimals:
        return Scalar(path, "DECIMAL", "", text.encode())
    return Scalar(path, "DECIMAL", f"CAST({_TEXT} AS DECIMAL({digits},{decimals}))", text.encode())


def member(path: str, name: str) -> str:
    """The path of an object's member."""
    return f"{path}.{json.dumps(name, ensure_ascii=False)}"


def cell(path: str, at: int) -> str:
    """The path of an array's cell."""
    return f"{path}[{at}]"


class _Number(str):
    """A number's own text."""

    __slots__ = ()


_PLAIN = "."
Node = tuple[str, Any]


def typed(text: bytes, root: str, members: str, cells: str) -> bytes:
    """The document, typed where it is, by what the server says of its nodes: a letter each, as in
    :func:`scalar`, or a dot.

    :param root: of the document itself.
    :param members: of what the path ``$**.*`` finds, in the server's order.
    :param cells: of what the path ``$**[*]`` finds. Both may leave out nulls: JSON_TABLE makes NULLs of them.
    :raises MalformedPacketError: the letters do not fit the text.
    """
    document: Any = json.loads(text, parse_float=_Number, parse_int=_Number)
    found: list[Scalar] = []
    nodes: tuple[list[Node], ...] = (
        [("$", document)],
        list(_members("$", document)),
        list(_cells("$", document)),
    )
    for told, all_nodes in zip((root, members, cells), nodes, strict=True):
        listed = all_nodes
        if len(told) != len(listed):
            listed = [node for node in all_nodes if node[1] is not None]
        if len(told) != len(listed):
            raise MalformedPacketError("the server's types do not fit its JSON document")
        for kind, (path, value) in zip(told, listed, strict=True):
            if kind == _PLAIN:
                continue
            if isinstance(value, _Number) != (kind in "uin") or not isinstance(value, str):
                raise MalformedPacketError(f"the server's types do not fit its JSON document at {path}")
            one = scalar(path, kind, str(value))
            if one is not None:
                found.append(one)
    return TypedDocument.of(text, found) if found else text


# The server looks at an object's members, or an array's cells, and then into each of them.


def _members(path: str, value: Any) -> Iterator[Node]:
    children = list(_children(path, value))
    if isinstance(value, dict):
        yield from children
    for below, inner in children:
        yield from _members(below, inner)


def _cells(path: str, value: Any) -> Iterator[Node]:
    children = list(_children(path, value))
    if isinstance(value, list):
        yield from children
    for below, inner in children:
        yield from _cells(below, inner)


def _children(path: str, value: Any) -> Iterator[Node]:
    if isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]  # JSON is untyped
            yield member(path, str(name)), inner  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for at, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield cell(path, at), inner
