"""MySQL packets: framing, length-encoded numbers and strings, and a reader that never runs past its end.

Knows bytes only: no command, no socket. The invariant: whatever bytes come in, either a value comes out or
:class:`~homeworld.model.errors.MalformedPacketError`; never an IndexError, never a silent truncation.
"""

from __future__ import annotations

from homeworld.model.errors import MalformedPacketError, PacketsOutOfOrderError

MAX_PAYLOAD = 0xFFFFFF
"""A packet of exactly this payload length is continued by the next one."""
TOO_LARGE = "Got a packet bigger than 'max_allowed_packet' bytes"
"""MySQL's words for a command that is larger than what is taken; its number is 1153."""


def frame(payload: bytes, sequence: int = 0) -> bytes:
    """``payload`` as one packet, or as many as it needs, beginning with ``sequence`` (0-255, wraps)."""
    length = len(payload)
    if length < MAX_PAYLOAD:
        return (length | (sequence & 0xFF) << 24).to_bytes(4, "little") + payload
    parts: list[bytes] = []
    for start in range(0, length + 1, MAX_PAYLOAD):
        piece = payload[start : start + MAX_PAYLOAD]
        parts.append((len(piece) | (sequence & 0xFF) << 24).to_bytes(4, "little"))
        parts.append(piece)
        sequence += 1
    return b"".join(parts)


def frame_count(length: int) -> int:
    """How many packets a payload of ``length`` bytes takes."""
    return length // MAX_PAYLOAD + 1


class PacketBuffer:
    """Bytes in, whole payloads out; joins the parts of payloads of 16 MB and more.

    * ``sequence``: the number that a reply to what :meth:`next` gave (or refused) begins with.
    * ``fed``: how many bytes have come so far.

    :param limit: the largest payload accepted, in bytes.
    :param drops: a payload that is larger is read to its end, without being kept, before it is refused, so
        that the next one can be read; otherwise it is refused as soon as its size is known.
    """

    __slots__ = ("_data", "_drops", "_last", "_left", "_next", "_parts", "_size", "fed", "limit", "sequence")

    def __init__(self, limit: int = 1 << 30, *, drops: bool = False) -> None:
        self._data = bytearray()
        self._parts: list[bytes] = []
        self._size = 0
        self._drops = drops
        self._left = -1
        self._last = False
        self._next = 0
        self.fed = 0
        self.limit = limit
        self.sequence = 0

    def __len__(self) -> int:
        return len(self._data) + self._size

    @property
    def begun(self) -> bool:
        """Whether a part of a payload is there."""
        return bool(self._data or self._parts or self._left >= 0)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes as they came from the network, in any portions."""
        self._data += data
        self.fed += len(data)

    def next(self, first: int | None = None) -> bytes | None:
        """The next whole payload, or None until more bytes come.

        :param first: the number that its (first) packet must have; None: any.
        :raises MalformedPacketError: the payload is larger than ``limit``.
        :raises PacketsOutOfOrderError: a packet has another number.
        """
        data = self._data
        if self._left >= 0 and not self._dropped():
            return None
        while len(data) >= 4:
            length = data[0] | data[1] << 8 | data[2] << 16
            if first is not None and data[3] != (self._next if self._parts or self._left == 0 else first):
                self.sequence = (data[3] + 1) & 0xFF
                raise PacketsOutOfOrderError
            if self._left == 0 or self._size + length > self.limit:
                self._drop(length, data[3])
                if not self._drops or self._dropped():
                    continue
                return None
            if len(data) < 4 + length:
                return None
            self.sequence = (data[3] + 1) & 0xFF
            piece = bytes(data[4 : 4 + length])
            del data[: 4 + length]
            if length < MAX_PAYLOAD:
                if not self._parts:
                    return piece
                self._parts.append(piece)
                whole = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                return whole
            self._parts.append(piece)
            self._size += length
            self._next = self.sequence
        return None

    def _drop(self, length: int, number: int) -> None:
        """Begin to drop a packet of a payload that is too large."""
        self.sequence = self._next = (number + 1) & 0xFF
        self._parts.clear()
        self._size = 0
        if not self._drops:
            raise MalformedPacketError(TOO_LARGE)
        del self._data[:4]
        self._left = length
        self._last = length < MAX_PAYLOAD

    def _dropped(self) -> bool:
        """Drop what has come; false: more of the packet is to come.

        :raises MalformedPacketError: that was all of the payload.
        """
        step = min(self._left, len(self._data))
        del self._data[:step]
        self._left -= step
        if self._left:
            return False
        if self._last:
            self._left = -1
            self._last = False
            raise MalformedPacketError(TOO_LARGE)
        return True

    def rest(self) -> bytes:
        """Take out all bytes that are not yet part of a returned payload."""
        found = bytes(self._data)
        self._data.clear()
        return found


def lenenc_int(number: int) -> bytes:
    """A number (0 to 2**64-1) in its shortest length-encoded form."""
    if number < 0xFB:
        return bytes((number,))
    if number < 1 << 16:
        return b"\xfc" + number.to_bytes(2, "little")
    if number < 1 << 24:
        return b"\xfd" + number.to_bytes(3, "little")
    return b"\xfe" + number.to_bytes(8, "little")


def lenenc(value: bytes) -> bytes:
    """A string behind its length-encoded length."""
    return lenenc_int(len(value)) + value


class Reader:
    """Reads one payload from front to back.

    :raises MalformedPacketError: from every method, when the payload ends too early.
    """

    __slots__ = ("_data", "_end", "_pos")

    def __init__(self, data: bytes, pos: int = 0) -> None:
        self._data = data
        self._pos = pos
        self._end = len(data)

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return self._end - self._pos

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes."""
        if count > self._end - self._pos:
            raise MalformedPacketError
        self._pos += count

    def take(self, count: int) -> bytes:
        """The next ``count`` bytes."""
        start = self._pos
        if count < 0 or count > self._end - start:
            raise MalformedPacketError
        self._pos = start + count
        return self._data[start : self._pos]

    def int(self, size: int) -> int:
        """An unsigned little-endian number of ``size`` bytes."""
        return int.from_bytes(self.take(size), "little")

    def lenenc_int(self) -> int:
        """A length-encoded number."""
        first = self.int(1)
        if first < 0xFB:
            return first
        if first == 0xFC:
            return self.int(2)
        if first == 0xFD:
            return self.int(3)
        if first == 0xFE:
            return self.int(8)
        raise MalformedPacketError

    def lenenc(self) -> bytes:
        """A length-encoded string."""
        return self.take(self.lenenc_int())

    def lenenc_or_null(self) -> bytes | None:
        """A length-encoded string, or None for NULL (0xFB), as in text rows."""
        if self._pos < self._end and self._data[self._pos] == 0xFB:
            self._pos += 1
            return None
        return self.take(self.lenenc_int())

    def until_nul(self) -> bytes:
        """A string that ends with a NUL, without it."""
        end = self._data.find(b"\0", self._pos)
        if end < 0:
            raise MalformedPacketError
        found = self._data[self._pos : end]
        self._pos = end + 1
        return found

    def rest_until_nul(self) -> bytes:
        """A string that ends with a NUL or, as some clients leave the last NUL out, with the payload."""
        end = self._data.find(b"\0", self._pos)
        if end < 0:
            return self.rest()
        found = self._data[self._pos : end]
        self._pos = end + 1
        return found

    def rest(self) -> bytes:
        """Everything that is left."""
        found = self._data[self._pos :]
        self._pos = self._end
        return found
