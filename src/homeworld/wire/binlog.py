"""Framing of the binlog: bytes of a dump connection in, whole events out.

It knows packets, event headers and checksums, and opens compressed transactions; what an event says is read
in :mod:`homeworld.wire.binlog_events`. No socket, no position.

Invariant: an event comes out whole and with a checksum that was right, or an error is raised; events before
the error come out first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from enum import IntEnum
from struct import Struct
from typing import TypeAlias

import zstandard

from homeworld.model.errors import ConnectionLostError, HomeworldError, MalformedPacketError
from homeworld.wire.packets import MAX_PAYLOAD, Reader
from homeworld.wire.results import parse_err


class EventType(IntEnum):
    """Event types of both flavours; from 160 on MariaDB's own."""

    UNKNOWN = 0
    QUERY = 2
    STOP = 3
    ROTATE = 4
    INTVAR = 5
    APPEND_BLOCK = 9
    DELETE_FILE = 11
    RAND = 13
    USER_VAR = 14
    FORMAT_DESCRIPTION = 15
    XID = 16
    BEGIN_LOAD_QUERY = 17
    EXECUTE_LOAD_QUERY = 18
    TABLE_MAP = 19
    WRITE_ROWS_V1 = 23
    UPDATE_ROWS_V1 = 24
    DELETE_ROWS_V1 = 25
    INCIDENT = 26
    HEARTBEAT = 27
    IGNORABLE = 28
    ROWS_QUERY = 29
    WRITE_ROWS = 30
    UPDATE_ROWS = 31
    DELETE_ROWS = 32
    GTID = 33
    ANONYMOUS_GTID = 34
    PREVIOUS_GTIDS = 35
    TRANSACTION_CONTEXT = 36
    VIEW_CHANGE = 37
    XA_PREPARE = 38
    PARTIAL_UPDATE_ROWS = 39
    TRANSACTION_PAYLOAD = 40
    HEARTBEAT_V2 = 41
    GTID_TAGGED = 42
    ANNOTATE_ROWS = 160
    BINLOG_CHECKPOINT = 161
    MARIADB_GTID = 162
    GTID_LIST = 163
    START_ENCRYPTION = 164
    QUERY_COMPRESSED = 165
    WRITE_ROWS_COMPRESSED_V1 = 166
    UPDATE_ROWS_COMPRESSED_V1 = 167
    DELETE_ROWS_COMPRESSED_V1 = 168
    WRITE_ROWS_COMPRESSED = 169
    UPDATE_ROWS_COMPRESSED = 170
    DELETE_ROWS_COMPRESSED = 171


#: (type, timestamp, server id, flags, next position, buffer, start, end): the body is
#: ``buffer[start:end]``, without header and checksum. A tuple, and the body not cut out of what was
#: received, because the data path reads hundreds of thousands a second.
Event: TypeAlias = tuple[int, int, int, int, int, bytes, int, int]

IGNORABLE_FLAG = 0x80
"""Event flag: who does not know the type may pass over it."""

HEADER_SIZE = 19
CHECKSUM_SIZE = 4
LARGEST_EVENT = 1 << 30
"""No event is larger than the largest max_allowed_packet, 1 GiB."""

_PACKET = Struct("<IBIBIIIH")  # packet word, status, then the event header
_HEADER = Struct("<IBIIIH")
_FORMAT_DESCRIPTION = int(EventType.FORMAT_DESCRIPTION)
_CHECKSUM_OFF, _CHECKSUM_CRC32, _CHECKSUM_UNDEFINED = 0, 1, 255


class EventReader:
    """Turns the bytes of a dump connection into events.

    :param checksums: whether events carry a CRC32 before the first format description says so; a server
        frames its first, made-up event by what the client announced.
    """

    def __init__(self, *, checksums: bool) -> None:
        self.checksums = checksums
        self._parts: list[bytes] = []
        self._size = 0
        self._need = 0
        self._failure: HomeworldError | None = None

    def events(self, data: bytes) -> list[Event]:
        """Take bytes as they came and give all events that are whole now.

        :raises ServerError: the server ended the stream with an error.
        :raises ConnectionLostError: the server ended the stream (it shuts down, or another client with the
            same server id took over).
        :raises MalformedPacketError: the bytes are no binlog, or a checksum is wrong.
        """
        if self._failure is not None:
            raise self._failure
        if self._parts:
            # Joined only once enough is there: a large event in small portions stays linear.
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        found: list[Event] = []
        try:
            rest = self._cut(data, found)
        except HomeworldError as error:
            if not found:
                raise
            self._failure = error
            return found
        if rest < len(data):
            self._parts.append(data[rest:])
            self._size = len(data) - rest
        return found

    def _cut(self, data: bytes, found: list[Event]) -> int:
        """Append the whole events of ``data``; the offset of what is left, with ``_need`` set for it."""
        unpack = _PACKET.unpack_from
        crc32 = zlib.crc32
        append = found.append
        position = 0
        size = len(data)
        whole = size - _PACKET.size
        tail = CHECKSUM_SIZE if self.checksums else 0
        while position <= whole:
            word, status, timestamp, kind, server, length, next_position, flags = unpack(data, position)
            payload = word & MAX_PAYLOAD
            end = position + 4 + payload
            if status or payload == MAX_PAYLOAD:
                break
            if end > size:
                self._need = end - position
                return position
            start = position + _PACKET.size
            if kind == _FORMAT_DESCRIPTION:
                tail = self._learn_checksums(data, start, end)
            stop = end - tail
            if length != payload - 1 or stop < start:
                raise MalformedPacketError("a binlog event's length does not fit its packet")
            if tail and crc32(data[position + 5 : stop]) != int.from_bytes(data[stop:end], "little"):
                raise MalformedPacketError("a binlog event's checksum is wrong")
            append((kind, timestamp, server, flags, next_position, data, start, stop))
            position = end
        return self._cut_unusual(data, position, found)

    def _cut_unusual(self, data: bytes, position: int, found: list[Event]) -> int:
        """What the fast loop leaves: too few bytes, the end of the stream, or an event in many packets."""
        size = len(data)
        pieces: list[bytes] = []
        cursor = position
        while True:
            if size - cursor < 4:
                self._need = cursor - position + 4
                return position
            payload = int.from_bytes(data[cursor : cursor + 3], "little")
            if size - cursor < 4 + payload:
                self._need = cursor - position + 4 + payload
                return position
            pieces.append(data[cursor + 4 : cursor + 4 + payload])
            cursor += 4 + payload
            if cursor - position > LARGEST_EVENT + (1 << 20):
                raise MalformedPacketError("a binlog event is larger than 1 GiB")
            if payload < MAX_PAYLOAD:
                break
        packet = b"".join(pieces)
        if packet[:1] == b"\xff":
            raise parse_err(packet)
        if packet[:1] == b"\xfe" and len(packet) < 9:
            raise ConnectionLostError("the source ended its binlog stream")
        if packet[:1] != b"\0" or len(packet) <= HEADER_SIZE:
            raise MalformedPacketError("a packet of the binlog stream holds no event")
        found.append(self._read(packet, 1))
        return cursor + self._cut(data[cursor:], found) if cursor < size else cursor

    def _read(self, data: bytes, offset: int) -> Event:
        """The event that ``data`` holds from ``offset`` to its end."""
        timestamp, kind, server, length, next_position, flags = _HEADER.unpack_from(data, offset)
        if kind == _FORMAT_DESCRIPTION:
            self._learn_checksums(data, offset + HEADER_SIZE, len(data))
        stop = len(data) - (CHECKSUM_SIZE if self.checksums else 0)
        if length != len(data) - offset or stop < offset + HEADER_SIZE:
            raise MalformedPacketError("a binlog event's length does not fit its packet")
        if self.checksums and zlib.crc32(data[offset:stop]) != int.from_bytes(data[stop:], "little"):
            raise MalformedPacketError("a binlog event's checksum is wrong")
        return kind, timestamp, server, flags, next_position, data, offset + HEADER_SIZE, stop

    def _learn_checksums(self, data: bytes, start: int, end: int) -> int:
        """What the format description says of the events that follow it; itself always has the room."""
        algorithm = data[end - CHECKSUM_SIZE - 1] if end - start > CHECKSUM_SIZE else _CHECKSUM_UNDEFINED
        if algorithm not in {_CHECKSUM_OFF, _CHECKSUM_CRC32}:
            raise MalformedPacketError(f"the source uses an unknown checksum ({algorithm}) in its binlog")
        self.checksums = algorithm == _CHECKSUM_CRC32
        return CHECKSUM_SIZE if self.checksums else 0


_PAYLOAD_END, _PAYLOAD_SIZE, _PAYLOAD_COMPRESSION, _PAYLOAD_UNCOMPRESSED = 0, 1, 2, 3
_ZSTD, _NO_COMPRESSION = 0, 255
_PORTION = 1 << 18


def payload_events(buffer: bytes, start: int, end: int) -> Iterator[list[Event]]:
    """The events inside a TRANSACTION_PAYLOAD event, in portions, never the whole transaction at once.

    Events inside carry no checksum of their own; the payload's has been checked.

    :raises MalformedPacketError: the payload is cut short or compressed in an unknown way.
    """
    reader = Reader(buffer[start:end])
    compression = _ZSTD
    expected = -1
    while reader.left:
        kind = reader.lenenc_int()
        if kind == _PAYLOAD_END:
            break
        field = Reader(reader.lenenc())
        if kind == _PAYLOAD_COMPRESSION:
            compression = field.lenenc_int()
        elif kind == _PAYLOAD_UNCOMPRESSED:
            expected = field.lenenc_int()
    body = reader.rest()
    if compression == _NO_COMPRESSION:
        portions: Iterator[bytes] = iter((body,))
    elif compression == _ZSTD:
        portions = iter(zstandard.ZstdDecompressor().read_to_iter(body, write_size=_PORTION))
    else:
        raise MalformedPacketError(f"a transaction is compressed in an unknown way ({compression})")
    parts: list[bytes] = []
    size = need = total = 0
    try:
        for portion in portions:
            parts.append(portion)
            size += len(portion)
            total += len(portion)
            if size < need:
                continue
            found: list[Event] = []
            rest, need = _cut_plain(b"".join(parts), found)
            parts = [rest]
            size = len(rest)
            if found:
                yield found
    except zstandard.ZstdError as error:
        raise MalformedPacketError("a compressed transaction cannot be opened") from error
    if size or expected not in {-1, total}:
        raise MalformedPacketError("a compressed transaction is cut short")


def _cut_plain(data: bytes, found: list[Event]) -> tuple[bytes, int]:
    """Append the whole events of ``data``, which has neither packets nor checksums.

    :returns: what is left, and how many bytes it needs to have before another event is whole.
    """
    position = 0
    size = len(data)
    need = HEADER_SIZE
    while size - position >= HEADER_SIZE:
        timestamp, kind, server, length, next_position, flags = _HEADER.unpack_from(data, position)
        if length < HEADER_SIZE:
            raise MalformedPacketError("an event in a compressed transaction has no length")
        end = position + length
        if end > size:
            need = length
            break
        found.append((kind, timestamp, server, flags, next_position, data, position + HEADER_SIZE, end))
        position = end
    return data[position:], need
