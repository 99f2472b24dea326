"""Framing of the binlog: events come out whole however the bytes are cut, and never with a wrong checksum."""

from __future__ import annotations

import contextlib
import zlib
from struct import pack

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import ConnectionLostError, MalformedPacketError, ServerError
from homeworld.wire.binlog import Event, EventReader, EventType, payload_events
from homeworld.wire.packets import frame, lenenc, lenenc_int


def event(kind: int, body: bytes, *, checksum: bool = True, timestamp: int = 7, flags: int = 0) -> bytes:
    """An event as a server sends it, without its packet."""
    size = 19 + len(body) + (4 if checksum else 0)
    whole = pack("<IBIIIH", timestamp, kind, 1, size, 0, flags) + body
    return whole + (zlib.crc32(whole).to_bytes(4, "little") if checksum else b"")


def description(algorithm: int) -> bytes:
    """A format description that announces checksums or none; it always has room for one."""
    body = pack("<H50sIB", 4, b"9.7.0", 0, 19) + bytes(41) + bytes((algorithm,))
    return event(EventType.FORMAT_DESCRIPTION, body)


def packet(whole: bytes) -> bytes:
    return frame(b"\0" + whole)


def bodies(events: list[Event]) -> list[tuple[int, bytes]]:
    return [(kind, buffer[start:end]) for kind, _, _, _, _, buffer, start, end in events]


@given(
    st.lists(st.binary(max_size=60), min_size=1, max_size=20),
    st.lists(st.integers(1, 50), min_size=1, max_size=40),
    st.booleans(),
)
def test_any_portions(contents: list[bytes], cuts: list[int], checksum: bool) -> None:
    stream = packet(description(int(checksum)))
    stream += b"".join(packet(event(EventType.XID, body, checksum=checksum)) for body in contents)
    reader = EventReader(checksums=True)
    found: list[Event] = []
    position = 0
    turn = 0
    while position < len(stream):
        size = cuts[turn % len(cuts)]
        found += reader.events(stream[position : position + size])
        position += size
        turn += 1
    assert bodies(found)[1:] == [(16, body) for body in contents]


def test_an_event_in_many_packets() -> None:
    body = bytes(range(256)) * 150_000  # 38 MB: three packets
    stream = packet(event(EventType.QUERY, body)) + packet(event(EventType.XID, b"next"))
    reader = EventReader(checksums=True)
    found: list[Event] = []
    for position in range(0, len(stream), 1 << 18):
        found += reader.events(stream[position : position + (1 << 18)])
    assert [(kind, len(body)) for kind, body in bodies(found)] == [(2, len(body)), (16, 4)]
    assert bodies(found)[0][1] == body


def test_an_event_of_exactly_one_packet_has_an_empty_one_behind() -> None:
    body = bytes(0xFFFFFF - 1 - 19 - 4)
    stream = packet(event(EventType.QUERY, body)) + packet(event(EventType.XID, b"x"))
    found = EventReader(checksums=True).events(stream)
    assert [(kind, len(content)) for kind, content in bodies(found)] == [(2, len(body)), (16, 1)]


def test_the_format_description_decides_on_checksums() -> None:
    reader = EventReader(checksums=True)
    stream = packet(description(0)) + packet(event(EventType.XID, b"plain", checksum=False))
    stream += packet(event(EventType.XID, b"again", checksum=False)) + packet(description(1))
    stream += packet(event(EventType.XID, b"summed"))
    assert [body for kind, body in bodies(reader.events(stream)) if kind == 16] == [
        b"plain",
        b"again",
        b"summed",
    ]


@given(st.integers(5, 40))
def test_a_wrong_byte_is_seen(at: int) -> None:
    stream = bytearray(packet(event(EventType.XID, b"0123456789abcdefgh")))
    stream[at] ^= 0x20
    with pytest.raises(MalformedPacketError):
        EventReader(checksums=True).events(bytes(stream))


def test_events_before_an_error_come_first() -> None:
    error = frame(b"\xff" + (1236).to_bytes(2, "little") + b"#HY000" + b"purged")
    reader = EventReader(checksums=True)
    assert len(reader.events(packet(event(EventType.XID, b"a")) + error)) == 1
    with pytest.raises(ServerError) as caught:
        reader.events(b"")
    assert caught.value.server_errno == 1236


def test_the_end_of_the_stream() -> None:
    with pytest.raises(ConnectionLostError):
        EventReader(checksums=True).events(frame(b"\xfe\0\0\x02\0"))


@pytest.mark.parametrize("junk", [frame(b""), frame(b"\0abc"), frame(b"\x07" + bytes(30)), packet(bytes(40))])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        EventReader(checksums=True).events(junk)


def payload(inner: bytes, *, compression: int = 0, body: bytes | None = None) -> bytes:
    data = zstandard.ZstdCompressor().compress(inner) if body is None else body
    fields = b"\x02" + lenenc(lenenc_int(compression)) + b"\x03" + lenenc(lenenc_int(len(inner)))
    return fields + b"\x01" + lenenc(lenenc_int(len(data))) + b"\x00" + data


@given(st.lists(st.binary(max_size=200_000), max_size=6))
def test_compressed_transactions(contents: list[bytes]) -> None:
    inner = b"".join(event(EventType.WRITE_ROWS, body, checksum=False) for body in contents)
    data = b"front" + payload(inner) + b"behind"
    found = [body for part in payload_events(data, 5, len(data) - 6) for body in bodies(part)]
    assert found == [(30, body) for body in contents]
    plain = payload(inner, compression=255, body=inner)
    assert [e for part in payload_events(plain, 0, len(plain)) for e in bodies(part)] == found


@pytest.mark.parametrize(
    "broken",
    [
        payload(event(16, b"x", checksum=False))[:-5],
        payload(event(16, b"x", checksum=False)[:-1]),
        payload(b"", compression=7),
        payload(b"", body=b"this is not zstd"),
        payload(bytes(19)),
    ],
)
def test_broken_compressed_transactions(broken: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        list(payload_events(broken, 0, len(broken)))


@given(st.binary(max_size=80))
def test_no_bytes_crash_the_reader(data: bytes) -> None:
    with contextlib.suppress(MalformedPacketError, ConnectionLostError, ServerError):
        assert EventReader(checksums=True).events(data) == []
