"""MySQL's binary JSON to the text that the server prints for it, byte for byte.

Knows the layout of one document and no table. Numbers keep every digit; types that JSON text cannot name
(dates, blobs) come out as the server writes them (``"base64:type252:…"``), and are named beside the text.

Invariant: the text is what SELECT gives for the same document, with every scalar that parsing it would not
give back, or MalformedPacketError is raised.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterator
from struct import Struct
from typing import TypeAlias

from homeworld.model.errors import MalformedPacketError
from homeworld.replication.json_scalars import (
    LARGEST_PARSED_SIGNED,
    Scalar,
    TypedDocument,
    cell,
    member,
    opaque,
    scalar,
)
from homeworld.replication.number_text import double_text, read_sized_decimal
from homeworld.replication.time_text import json_date, json_datetime, json_time
from homeworld.wire.constants import Type

_SMALL_OBJECT, _LARGE_OBJECT, _SMALL_ARRAY, _LARGE_ARRAY, _LITERAL = 0, 1, 2, 3, 4
_INT16, _UINT16, _INT32, _UINT32, _INT64, _UINT64, _DOUBLE = 5, 6, 7, 8, 9, 10, 11
_STRING, _OPAQUE = 12, 15
_NUMBERS = {_INT16: "<h", _UINT16: "<H", _INT32: "<i", _UINT32: "<I", _INT64: "<q", _UINT64: "<Q"}
_NUMBER_STRUCTS = {kind: Struct(form) for kind, form in _NUMBERS.items()}
_DOUBLE_STRUCT = Struct("<d")
_PACKED = Struct("<q")
_LITERALS = {0: b"null", 1: b"true", 2: b"false"}
_DEEPEST = 128
_BASE64_LINE = 76

_ESCAPE = re.compile(rb'["\\\x00-\x1f]')
_ESCAPES = {bytes((code,)): b"\\u%04x" % code for code in range(32)} | {
    b'"': b'\\"',
    b"\\": b"\\\\",
    b"\b": b"\\b",
    b"\f": b"\\f",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\t": b"\\t",
}


_KINDS: dict[int, str] = {
    Type.NEWDECIMAL: "n", Type.DATE: "d", Type.TIME: "t", Type.DATETIME: "m", Type.TIMESTAMP: "s",
}  # fmt: skip
_UNSIGNED = frozenset({_UINT16, _UINT32, _UINT64})
#: Where in the parts of a text a scalar stands that parsing would not give back; its kind as in
#: json_scalars.scalar; if bytes: the type's number and they.
_Mark: TypeAlias = tuple[int, str, int, bytes]


def json_text(data: bytes) -> bytes:
    """The text of a whole document as stored in a JSON column, a TypedDocument where it does not tell all.

    :raises MalformedPacketError: it is no document.
    """
    if not data:
        return b"null"  # what the server reads an empty value as
    out: list[bytes] = []
    marks: list[_Mark] = []
    try:
        _value(data, 1, data[0], out, marks, 0)
        text = b"".join(out)
        scalars = tuple(_scalars(out, marks)) if marks else ()
        return TypedDocument.of(text, scalars) if scalars else text
    except (IndexError, ValueError, KeyError) as error:
        raise MalformedPacketError("a JSON value in the binlog cannot be read") from error


def _scalars(out: list[bytes], marks: list[_Mark]) -> Iterator[Scalar]:
    """The scalars of the marks, in order: their paths are told from the parts of the text before them."""
    waiting = iter(marks)
    at, kind, code, data = next(waiting)
    above: list[str] = []  # paths of the containers that are open
    counts: list[int] = []  # what of each has been passed; of an object -1
    name = ""
    for place, part in enumerate(out):
        if place == at:
            where = "$" if not above else _below(above[-1], counts[-1], name)
            text = part.decode().strip('"')
            one = opaque(where, code, data) if kind == "b" else scalar(where, kind, text)
            if one is not None:
                yield one
            following = next(waiting, None)
            if following is None:
                return
            at, kind, code, data = following
        elif part in {b"{", b"["}:
            above.append("$" if not above else _below(above[-1], counts[-1], name))
            counts.append(-1 if part == b"{" else 0)
        elif part in {b"}", b"]"}:
            above.pop()
            counts.pop()
        elif part == b", " and counts[-1] >= 0:
            counts[-1] += 1
        elif part == b": ":
            name = json.loads(out[place - 1])


def _below(path: str, count: int, name: str) -> str:
    return member(path, name) if count < 0 else cell(path, count)


def _value(data: bytes, position: int, kind: int, out: list[bytes], marks: list[_Mark], depth: int) -> None:
    if kind <= _LARGE_ARRAY:
        if depth > _DEEPEST:
            raise MalformedPacketError("a JSON value in the binlog is nested too deeply")
        _container(data, position, kind, out, marks, depth)
    elif kind == _STRING:
        length, position = _length(data, position)
        out.append(_quoted(_slice(data, position, length)))
    elif kind == _LITERAL:
        out.append(_LITERALS[data[position]])
    elif kind in _NUMBER_STRUCTS:
        number = _NUMBER_STRUCTS[kind]
        (value,) = number.unpack(_slice(data, position, number.size))
        if kind in _UNSIGNED:
            if value <= LARGEST_PARSED_SIGNED:
                marks.append((len(out), "u", 0, b""))
        elif value > LARGEST_PARSED_SIGNED:
            marks.append((len(out), "i", 0, b""))
        out.append(b"%d" % value)
    elif kind == _DOUBLE:
        out.append(_double(*_DOUBLE_STRUCT.unpack(_slice(data, position, 8))))
    elif kind == _OPAQUE:
        length, start = _length(data, position + 1)
        code, value = data[position], _slice(data, start, length)
        marks.append((len(out), _KINDS.get(code, "b"), code, value))
        out.append(_opaque(code, value))
    else:
        raise MalformedPacketError(f"a JSON value in the binlog has an unknown type ({kind})")


def _container(data: bytes, start: int, kind: int, out: list[bytes], marks: list[_Mark], depth: int) -> None:
    large = kind in {_LARGE_OBJECT, _LARGE_ARRAY}
    named = kind in {_SMALL_OBJECT, _LARGE_OBJECT}
    width = 4 if large else 2
    count = int.from_bytes(_slice(data, start, width), "little")
    keys = start + 2 * width
    values = keys + (count * (width + 2) if named else 0)
    # What fits the entry itself is stored in it instead of an offset.
    inlined = {_LITERAL, _INT16, _UINT16, _INT32, _UINT32} if large else {_LITERAL, _INT16, _UINT16}
    out.append(b"{" if named else b"[")
    if len(out) > 8 * len(data) + 64:  # every part takes bytes of its own, unless offsets go in circles
        raise MalformedPacketError("a JSON value in the binlog contains itself")
    for index in range(count):
        if index:
            out.append(b", ")
        if named:
            entry = keys + index * (width + 2)
            offset = int.from_bytes(data[entry : entry + width], "little")
            length = int.from_bytes(data[entry + width : entry + width + 2], "little")
            out.append(_quoted(_slice(data, start + offset, length)))
            out.append(b": ")
        entry = values + index * (width + 1)
        inner = data[entry]
        if inner in inlined:
            _value(data, entry + 1, inner, out, marks, depth + 1)
        else:
            offset = int.from_bytes(_slice(data, entry + 1, width), "little")
            _value(data, start + offset, inner, out, marks, depth + 1)
    out.append(b"}" if named else b"]")


def _slice(data: bytes, start: int, length: int) -> bytes:
    found = data[start : start + length]
    if len(found) != length:
        raise MalformedPacketError("a JSON value in the binlog is cut short")
    return found


def _length(data: bytes, position: int) -> tuple[int, int]:
    """(a length in groups of seven bits, where what it measures begins)."""
    length = 0
    for group in range(5):
        byte = data[position + group]
        length |= (byte & 127) << 7 * group
        if byte < 128:
            return length, position + group + 1
    raise MalformedPacketError("a JSON value in the binlog has an endless length")


def _quoted(text: bytes) -> bytes:
    return b'"' + _ESCAPE.sub(lambda match: _ESCAPES[match[0]], text) + b'"'


def _double(value: float) -> bytes:
    text = double_text(value)
    # A double stays one when the text is read again.
    return text if b"." in text or b"e" in text else text + b".0"


def _opaque(kind: int, data: bytes) -> bytes:
    if kind == Type.NEWDECIMAL:
        return read_sized_decimal(data)
    if kind in {Type.DATETIME, Type.TIMESTAMP, Type.DATE, Type.TIME}:
        (packed,) = _PACKED.unpack(_slice(data, 0, 8))
        if kind == Type.DATE:
            text = json_date(packed)
        else:
            text = json_time(packed) if kind == Type.TIME else json_datetime(packed)
        return b'"' + text + b'"'
    encoded = b64encode(data)
    lines = [encoded[at : at + _BASE64_LINE] for at in range(0, len(encoded), _BASE64_LINE)]
    return b'"base64:type%d:' % kind + b"\\n".join(lines) + b'"'
