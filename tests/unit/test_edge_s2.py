"""S2 streams: what klauspost's encoder makes is read, what anybody else makes is an error, and never is more
held than allowed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.edge import s2

VECTORS = json.loads(Path(__file__).with_name("data").joinpath("s2-streams.json").read_text())
LIMIT = 1 << 20
IDENTIFIER = b"\xff\x06\x00\x00S2sTwO"


def chunk(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "little") + body


def length(size: int) -> bytes:
    out = bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    out.append(size)
    return bytes(out)


def block(operations: bytes, text: bytes) -> bytes:
    return chunk(0, s2.checksum(text).to_bytes(4, "little") + length(len(text)) + operations)


@pytest.mark.parametrize("vector", VECTORS, ids=[vector["name"] for vector in VECTORS])
def test_streams_of_the_real_encoder(vector: dict[str, str]) -> None:
    stream = base64.b64decode(vector["stream"])
    text = s2.decode(stream, 1 << 24, checked=True)
    assert (len(text), hashlib.sha256(text).hexdigest()) == (int(vector["size"]), vector["sha256"])
    for at in range(10, min(len(stream), 4000 if len(text) < 4000 else 0), 7):
        broken = stream[:at] + bytes((stream[at] ^ 0x55,)) + stream[at + 1 :]
        try:
            assert s2.decode(broken, 1 << 24, checked=True) == text
        except (s2.CompressionError, s2.TooLargeError):
            continue


def test_no_bytes_are_an_empty_text() -> None:
    assert s2.decode(b"", 0, checked=True) == b""
    assert s2.decode(IDENTIFIER, 0, checked=True) == b""


@given(st.binary(max_size=5000))
def test_plain_chunks(text: bytes) -> None:
    stream = IDENTIFIER + chunk(1, s2.checksum(text).to_bytes(4, "little") + text)
    assert s2.decode(stream, LIMIT, checked=True) == text
    with pytest.raises(s2.CompressionError):
        s2.decode(IDENTIFIER + chunk(1, bytes(4) + text + b"x"), LIMIT, checked=True)
    assert s2.decode(IDENTIFIER + chunk(1, bytes(4) + text), LIMIT, checked=False) == text


LITERAL = st.tuples(st.just("literal"), st.binary(min_size=1, max_size=300))
COPY = st.tuples(
    st.sampled_from(["near", "far", "farther", "repeat"]),
    st.tuples(st.integers(1, 5000), st.integers(1, 400)),
)


@given(st.lists(st.one_of(LITERAL, COPY), max_size=40))
def test_every_operation(operations: list[tuple[str, bytes | tuple[int, int]]]) -> None:
    """Blocks are put together by hand, so that every form of a copy comes up."""
    coded, text, last = bytearray(), bytearray(), 0
    for name, what in operations:
        if isinstance(what, bytes):
            size = len(what) - 1
            coded += bytes((size << 2,)) if size < 60 else bytes((61 << 2,)) + size.to_bytes(2, "little")
            coded += what
            text += what
            continue
        offset, count = what
        if name == "repeat":
            if not last:
                continue
            count += 3
            offset = last
            if count < 9:
                coded += bytes(((count - 4) << 2 | 1, 0))
            elif count - 8 < 256:
                coded += bytes((5 << 2 | 1, 0, count - 8))
            else:
                coded += bytes((6 << 2 | 1, 0)) + (count - 4 - 256).to_bytes(2, "little")
        else:
            offset = min(offset, len(text))
            if not offset:
                continue
            last = offset
            if name == "near" and offset < 2048:
                count = min(max(count, 4), 8)
                coded += bytes((offset >> 8 << 5 | (count - 4) << 2 | 1, offset & 0xFF))
            else:
                count = min(count, 64)
                width = 2 if name != "farther" else 4
                coded += bytes(((count - 1) << 2 | (2 if width == 2 else 3),)) + offset.to_bytes(
                    width, "little"
                )
        for _ in range(count):
            text.append(text[-offset])
    stream = IDENTIFIER + block(bytes(coded), bytes(text))
    assert s2.decode(stream, LIMIT, checked=True) == bytes(text)


@settings(max_examples=500)
@given(st.binary(max_size=400), st.booleans())
def test_anything_is_a_text_or_an_error(data: bytes, checked: bool) -> None:
    for stream in (data, IDENTIFIER + data, IDENTIFIER + chunk(0, bytes(4) + data)):
        try:
            assert len(s2.decode(stream, 1000, checked=checked)) <= 1000
        except (s2.CompressionError, s2.TooLargeError):
            continue


def test_no_more_is_made_than_may_be() -> None:
    # Four megabytes out of a dozen bytes, a thousand times.
    bomb = bytes((0, ord("x"), 1 << 2 | 1, 1, 7 << 2 | 1, 0)) + ((4 << 20) - 6 - 4 - 65536).to_bytes(
        3, "little"
    )
    whole = chunk(0, bytes(4) + length(4 << 20) + bomb)
    assert len(s2.decode(IDENTIFIER + whole, 4 << 20, checked=False)) == 4 << 20
    with pytest.raises(s2.TooLargeError):
        s2.decode(IDENTIFIER + whole * 1000, 6 << 20, checked=False)
    with pytest.raises(s2.CompressionError, match="larger than blocks"):
        s2.decode(IDENTIFIER + chunk(0, bytes(4) + length(1 << 31) + bomb), 1 << 40, checked=False)


def test_chunks_that_may_be_skipped_are() -> None:
    text = b"hello"
    plain = chunk(1, s2.checksum(text).to_bytes(4, "little") + text)
    stream = IDENTIFIER + chunk(0xFE, b"padding") + plain + chunk(0x99, b"index")
    assert s2.decode(stream, LIMIT, checked=True) == text
    with pytest.raises(s2.CompressionError, match="not known"):
        s2.decode(IDENTIFIER + chunk(0x02, b"new"), LIMIT, checked=True)
    with pytest.raises(s2.CompressionError, match="identifier"):
        s2.decode(plain, LIMIT, checked=True)
    with pytest.raises(s2.CompressionError, match="something else"):
        s2.decode(chunk(0xFF, b"MinLz\0"), LIMIT, checked=True)
