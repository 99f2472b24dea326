"""The wire form of Protocol Buffers, as far as the data plane's messages need it.

Knows fields by number and no message. The invariant: whatever bytes come in, either fields come out or
:class:`MessageError`; nothing is allocated by a length that the message does not have.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from homeworld.model.errors import BadRequestError

VARINT: Final = 0
FIXED64: Final = 1
BYTES: Final = 2
FIXED32: Final = 5

Value = int | bytes
Field = tuple[int, int, Value]
"""Number, wire type, and the value: an int, or the bytes of anything that has a length."""


class MessageError(BadRequestError):
    """The message cannot be read."""


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise MessageError("a number of the message is longer than 64 bits")
    except IndexError:
        raise MessageError("the message ends within a number") from None


def fields(data: bytes) -> Iterator[Field]:
    """The fields of a message in their order.

    :raises MessageError: while going on, where it cannot be read.
    """
    at, end = 0, len(data)
    while at < end:
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise MessageError("the message has a field that has no number")
        value: Value
        if kind == VARINT:
            value, at = _varint(data, at)
        elif kind == BYTES:
            length, at = _varint(data, at)
            if length > end - at:
                raise MessageError("the message ends within a field")
            value = data[at : at + length]
            at += length
        elif kind in {FIXED64, FIXED32}:
            width = 8 if kind == FIXED64 else 4
            if width > end - at:
                raise MessageError("the message ends within a field")
            value = int.from_bytes(data[at : at + width], "little")
            at += width
        else:
            raise MessageError("the message has a field of a kind that is not known")
        yield number, kind, value


def number(value: Value) -> int:
    """A field's value that has to be a number.

    :raises MessageError: it is none.
    """
    if not isinstance(value, int):
        raise MessageError("a field of the message is no number")
    return value


def raw(value: Value) -> bytes:
    """A field's value that has to have a length.

    :raises MessageError: it has none.
    """
    if not isinstance(value, bytes):
        raise MessageError("a field of the message has no length")
    return value


def text(value: Value) -> str:
    """A field's value that has to be text.

    :raises MessageError: it is none.
    """
    try:
        return raw(value).decode()
    except UnicodeDecodeError:
        raise MessageError("a text of the message is no UTF-8") from None


def varint(value: int) -> bytes:
    """A number of up to 64 bits; a negative one as its two's complement."""
    value &= 0xFFFFFFFFFFFFFFFF
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_ZIGZAG: Final = tuple(varint(value << 1) for value in range(4096))


def zigzags(values: Iterable[int]) -> bytes:
    """Numbers of which some may be negative, packed."""
    return b"".join(
        _ZIGZAG[value] if 0 <= value < 4096 else varint(value << 1 ^ value >> 63) for value in values
    )


def put(number: int, value: bytes) -> bytes:
    """A field that has a length, left out where it is empty."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value if value else b""


def put_always(number: int, value: bytes) -> bytes:
    """A field that has a length, also where it is empty: a message that is there."""
    return varint(number << 3 | BYTES) + varint(len(value)) + value


def put_text(number: int, value: str) -> bytes:
    """A text, left out where it is empty. What is no UTF-8 is replaced."""
    return put(number, value.encode("utf-8", "replace"))


def put_number(number: int, value: int) -> bytes:
    """A number, left out where it is 0."""
    return varint(number << 3 | VARINT) + varint(value) if value else b""


def put_double(number: int, value: float) -> bytes:
    """A number with a point, left out where it is 0."""
    return varint(number << 3 | FIXED64) + struct.pack("<d", value) if value else b""
