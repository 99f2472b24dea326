"""Rows of the binary protocol, made from rows of the text protocol.

Used where one execution of a prepared statement had to become text for several shards: the client asked
for binary rows and gets them. The text of a FLOAT has fewer digits than its four bytes; every other type
comes out exactly as a server would have sent it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Type
from homeworld.wire.packets import lenenc
from homeworld.wire.results import ColumnDefinition, TextRow

_INTEGER_SIZES: dict[int, int] = {
    Type.TINY: 1,
    Type.SHORT: 2,
    Type.YEAR: 2,
    Type.LONG: 4,
    Type.INT24: 4,
    Type.LONGLONG: 8,
}
_DATETIME = re.compile(rb"^(\d+)-(\d+)-(\d+)(?: (\d+):(\d+):(\d+)(?:\.(\d+))?)?$")
_TIME = re.compile(rb"^(-?)(\d+):(\d+):(\d+)(?:\.(\d+))?$")


def binary_row(row: TextRow, columns: Sequence[ColumnDefinition]) -> bytes:
    """The payload of ``row`` in the binary protocol.

    :raises MalformedPacketError: a value is not what its column's type says.
    """
    bitmap = bytearray((len(columns) + 9) // 8)
    parts: list[bytes] = []
    for number, (value, column) in enumerate(zip(row, columns, strict=True)):
        if value is None:
            bitmap[(number + 2) >> 3] |= 1 << ((number + 2) & 7)
        else:
            parts.append(_value(value, column.type))
    return b"\0" + bytes(bitmap) + b"".join(parts)


def _value(text: bytes, kind: int) -> bytes:
    size = _INTEGER_SIZES.get(kind)
    try:
        if size:
            return (int(text) & (1 << 8 * size) - 1).to_bytes(size, "little")
        if kind == Type.DOUBLE:
            return struct.pack("<d", float(text))
        if kind == Type.FLOAT:
            return struct.pack("<f", float(text))
    except (ValueError, OverflowError) as error:
        raise MalformedPacketError("a number in a result cannot be read") from error
    if kind in {Type.DATE, Type.DATETIME, Type.TIMESTAMP}:
        return _datetime(text)
    if kind == Type.TIME:
        return _time(text)
    return lenenc(text)


def _micro(fraction: bytes | None) -> int:
    return int((fraction or b"").ljust(6, b"0")[:6])


def _datetime(text: bytes) -> bytes:
    found = _DATETIME.match(text)
    if found is None:
        raise MalformedPacketError("a date in a result cannot be read")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    micro = _micro(found[7])
    date = year.to_bytes(2, "little") + bytes((month, day))
    if micro:
        return b"\x0b" + date + bytes((hour, minute, second)) + micro.to_bytes(4, "little")
    if hour or minute or second:
        return b"\x07" + date + bytes((hour, minute, second))
    if year or month or day:
        return b"\x04" + date
    return b"\0"


def _time(text: bytes) -> bytes:
    found = _TIME.match(text)
    if found is None:
        raise MalformedPacketError("a time in a result cannot be read")
    hours, minute, second = int(found[2]), int(found[3]), int(found[4])
    micro = _micro(found[5])
    if not (hours or minute or second or micro):
        return b"\0"
    body = (
        bytes((1 if found[1] else 0,))
        + (hours // 24).to_bytes(4, "little")
        + bytes((hours % 24, minute, second))
    )
    if micro:
        return b"\x0c" + body + micro.to_bytes(4, "little")
    return b"\x08" + body
