"""S2 streams, decoded: the compression that Connect clients of the data plane send their messages in.

An S2 stream is a row of chunks (type, three bytes of length, body): an identifier, blocks of data that are
compressed or plain, each behind a checksum, and what may be skipped. A block is a row of literals and copies
of what came before; a copy without an offset repeats the last one. Pure, knows no HTTP.

The invariant: whatever bytes come in, either the text comes out, or :class:`CompressionError`; and never is
more held than ``limit`` and one block.
"""

from __future__ import annotations

from typing import Final

from homeworld.model.errors import BadRequestError

_IDENTIFIERS: Final = frozenset({b"S2sTwO", b"sNaPpY"})
_COMPRESSED: Final = 0x00
_PLAIN: Final = 0x01
_IDENTIFIER: Final = 0xFF
_FIRST_SKIPPABLE: Final = 0x80
_LARGEST_BLOCK: Final = 4 << 20
_CHECKSUM: Final = 4
_MASK: Final = 0xA282EAD8
_POLYNOMIAL: Final = 0x82F63B78
_REPEAT_MORE: Final = {5: (1, 4), 6: (2, 1 << 8), 7: (3, 1 << 16)}
"""For lengths of a repeat that do not fit into its tag: how many bytes follow, and what is added to them."""


class CompressionError(BadRequestError):
    """The message is not compressed as its header says."""


class TooLargeError(BadRequestError):
    """The message is larger than what is taken."""


def _table() -> tuple[int, ...]:
    made: list[int] = []
    for number in range(256):
        value = number
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        made.append(value)
    return tuple(made)


_TABLE: Final = _table()


def checksum(data: bytes | bytearray) -> int:
    """The masked CRC-32C of a block, as its chunk carries it."""
    table, value = _TABLE, 0xFFFFFFFF
    for byte in data:
        value = table[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF


def decode(data: bytes, limit: int, *, checked: bool) -> bytes:
    """The text of a whole stream; no bytes are an empty text.

    :param limit: the largest text that is taken, in bytes.
    :param checked: compare the checksums; needless where the channel vouches for what it carries, as TLS.
    :raises CompressionError: it is no such stream, or a checksum differs.
    :raises TooLargeError: the text would be larger.
    """
    out: list[bytes] = []
    size = at = 0
    begun = False
    while at < len(data):
        kind, length = data[at], int.from_bytes(data[at + 1 : at + 4], "little")
        body = data[at + 4 : at + 4 + length]
        if at + 4 > len(data) or len(body) < length:
            raise CompressionError("the compressed message ends within a chunk")
        at += 4 + length
        if kind == _IDENTIFIER:
            if body not in _IDENTIFIERS:
                raise CompressionError("the message is compressed by something else than S2")
            begun = True
        elif not begun:
            raise CompressionError("the compressed message has no identifier")
        elif kind in {_COMPRESSED, _PLAIN}:
            block = _block(body, kind, limit - size)
            if checked and checksum(block) != int.from_bytes(body[:_CHECKSUM], "little"):
                raise CompressionError("a checksum of the compressed message is wrong")
            size += len(block)
            out.append(block)
        elif kind < _FIRST_SKIPPABLE:
            raise CompressionError(f"chunks of type {kind} are not known")
    return b"".join(out)


def _block(body: bytes, kind: int, most: int) -> bytes:
    """One block's text, of ``most`` bytes at most."""
    if len(body) < _CHECKSUM:
        raise CompressionError("a chunk is too short for its checksum")
    if kind == _PLAIN:
        if len(body) - _CHECKSUM > _LARGEST_BLOCK:
            raise CompressionError("a block is larger than blocks may be")
        if len(body) - _CHECKSUM > most:
            raise TooLargeError
        return body[_CHECKSUM:]
    size, at = _length(body, _CHECKSUM)
    if size > _LARGEST_BLOCK:
        raise CompressionError("a block is larger than blocks may be")
    if size > most:
        raise TooLargeError
    return _expand(body, at, size)


def _length(body: bytes, at: int) -> tuple[int, int]:
    """A number of up to 32 bits in groups of seven; and where it ends."""
    value = 0
    for shift in range(0, 35, 7):
        if at >= len(body):
            break
        byte = body[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise CompressionError("a block has no length")


def _expand(body: bytes, at: int, size: int) -> bytes:
    """The literals and copies from ``at`` on, which have to make ``size`` bytes."""
    out = bytearray()
    offset = 0
    end = len(body)
    while at < end:
        tag = body[at]
        kind, head = tag & 3, tag >> 2
        at += 1
        if kind == 0:
            if head >= 60:
                more = head - 59
                head = int.from_bytes(body[at : at + more], "little")
                at += more
            length = head + 1
            if at + length > end or len(out) + length > size:
                raise CompressionError("a literal goes beyond its block")
            out += body[at : at + length]
            at += length
            continue
        if kind == 1:
            length = head & 7
            if at >= end:
                raise CompressionError("a block ends within a copy")
            near = (tag & 0xE0) << 3 | body[at]
            at += 1
            if near:
                offset = near
            elif length in _REPEAT_MORE:
                more, added = _REPEAT_MORE[length]
                if at + more > end:
                    raise CompressionError("a block ends within a copy")
                length = int.from_bytes(body[at : at + more], "little") + added
                at += more
            length += 4
        else:
            width = 2 if kind == 2 else 4
            if at + width > end:
                raise CompressionError("a block ends within a copy")
            offset = int.from_bytes(body[at : at + width], "little")
            at += width
            length = head + 1
        have = len(out)
        if not 0 < offset <= have or have + length > size:
            raise CompressionError("a copy is of what is not there")
        start = have - offset
        if offset >= length:
            out += out[start : start + length]
        else:  # it runs into what it makes: what is between is repeated
            pattern = bytes(out[start:])
            out += (pattern * (length // offset + 1))[:length]
    if len(out) != size:
        raise CompressionError("a block is shorter than it says")
    return bytes(out)
