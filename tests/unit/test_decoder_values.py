"""Values out of the binlog's packed forms, against encoders written from the format's description."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import MalformedPacketError
from homeworld.replication import time_text
from homeworld.replication.decoder_columns import inet6_text, uncompress_column, uuid_text
from homeworld.replication.json_binary import json_text
from homeworld.replication.json_scalars import TypedDocument
from homeworld.replication.number_text import decimal_reader, decimal_size, double_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (0.1, "0.1"),
        (-1.5, "-1.5"),
        (1e14, "100000000000000"),
        (123456789012345.0, "123456789012345"),
        (1e15, "1e15"),
        (1234567890123456.0, "1.234567890123456e15"),
        (2251799813685248.5, "2251799813685248.5"),
        (1e16, "1e16"),
        (1.7976931348623157e308, "1.7976931348623157e308"),
        (5e-324, "5e-324"),
        (1e-5, "0.00001"),
        (1e-14, "0.00000000000001"),
        (1e-15, "0.000000000000001"),
        (1e-16, "1e-16"),
        (-1.5e-16, "-1.5e-16"),
        (0.10000000149011612, "0.10000000149011612"),
    ],
)
def test_double_text(value: float, text: str) -> None:
    assert double_text(value).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_double_text_reads_back(value: float) -> None:
    again = float(double_text(value))
    assert again == value
    assert math.copysign(1, again) == math.copysign(1, value)


def packed_decimal(text: str, precision: int, scale: int) -> bytes:
    """As the server stores it."""
    sizes = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
    negative = text.startswith("-")
    whole, _, fraction = text.lstrip("-").partition(".")
    whole = whole.rjust(precision - scale, "0")[-(precision - scale) :] if precision > scale else ""
    lead = len(whole) % 9
    groups = ([whole[:lead]] if lead else []) + [whole[at : at + 9] for at in range(lead, len(whole), 9)]
    groups += [fraction[at : at + 9] for at in range(0, scale, 9)]
    data = bytearray(b"".join(int(group).to_bytes(sizes[len(group)], "big") for group in groups))
    data[0] |= 0x80
    return bytes(byte ^ 0xFF for byte in data) if negative else bytes(data)


@given(st.data())
def test_decimals(data: st.DataObject) -> None:
    precision = data.draw(st.integers(1, 65))
    scale = data.draw(st.integers(0, min(30, precision)))
    number = data.draw(st.integers(-(10**precision) + 1, 10**precision - 1))
    digits = f"{abs(number):0{scale + 1}d}"
    text = ("-" if number < 0 else "") + (f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits)
    packed = packed_decimal(text, precision, scale)
    assert len(packed) == decimal_size(precision, scale)
    assert decimal_reader(precision, scale)(packed).decode() == text


def test_times() -> None:
    read = time_text.time2_reader(0)
    assert read(bytes.fromhex("800000")) == b"00:00:00"
    assert read(bytes.fromhex("b46efb")) == b"838:59:59"
    assert read(bytes.fromhex("4b9105")) == b"-838:59:59"
    # -00:00:00.1: one tenth below zero.
    assert time_text.time2_reader(1)(bytes.fromhex("7ffffff6")) == b"-00:00:00.1"
    assert time_text.time2_reader(6)(bytes.fromhex("7fffffffffff")) == b"-00:00:00.000001"
    assert time_text.old_time((-8385959).to_bytes(3, "little", signed=True)) == b"-838:59:59"
    assert time_text.old_datetime(20260102030405) == b"2026-01-02 03:04:05"
    assert time_text.year_text(0) == b"0000"
    assert time_text.year_text(255) == b"2155"


@given(st.integers(1, (1 << 32) - 1))
def test_timestamps(seconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    assert time_text.stamp_text(seconds).decode() == moment.strftime("%Y-%m-%d %H:%M:%S")


def test_a_zero_timestamp_is_no_moment() -> None:
    assert time_text.stamp_text(0) == b"0000-00-00 00:00:00"


def test_memos_forget() -> None:
    made: list[int] = []
    memo = time_text.Memo(lambda key: made.append(key) or b"%d" % key)
    assert memo[5] == memo[5] == b"5"
    assert made == [5]
    for number in range(70_000):
        assert memo[number] == b"%d" % number
    assert len(memo) < 70_000


@pytest.mark.parametrize("digits", [1, 2, 3, 4, 5, 6])
def test_old_times_with_fractions(digits: int) -> None:
    zero = (838 * 3600 + 59 * 60 + 60) * 10**digits
    read = time_text.hires_time_reader(digits)
    assert read((zero - 1).to_bytes(8, "big")).decode() == f"-00:00:00.{1:0{digits}d}"
    assert read((zero + 10**digits * 3661).to_bytes(8, "big")).decode() == f"01:01:01.{0:0{digits}d}"


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("0" * 32, "::"),
        ("0" * 31 + "1", "::1"),
        ("0" * 20 + "ffff01020304", "::ffff:1.2.3.4"),
        ("0" * 24 + "01020304", "::1.2.3.4"),
        ("20010db8" + "0" * 23 + "1", "2001:db8::1"),
        ("00010000000300000005000000070000", "1::3:0:5:0:7:0"),
        ("00010002000300040005000600070008", "1:2:3:4:5:6:7:8"),
        ("0001" + "0" * 28, "1::"),
    ],
)
def test_inet6(address: str, text: str) -> None:
    assert inet6_text(bytes.fromhex(address)).decode() == text
    assert inet6_text(bytes.fromhex(address).rstrip(b"\0")).decode() == text


def test_uuid() -> None:
    assert uuid_text(bytes(range(16))) == b"00010203-0405-0607-0809-0a0b0c0d0e0f"


@pytest.mark.parametrize("broken", [b"\x10abc", b"\x81\x05zz", b"\x89\x05zz"])
def test_broken_compressed_columns(broken: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        uncompress_column(broken)


def test_uncompressed_columns() -> None:
    assert uncompress_column(b"") == b""
    assert uncompress_column(b"\0abc") == b"abc"


# JSON: an encoder of the binary form, small containers only.


Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


def binary_json(value: Json) -> tuple[int, bytes]:
    """(type, data) as the server stores it."""
    if value is None or isinstance(value, bool):
        return 4, {None: b"\0", True: b"\1", False: b"\2"}[value]
    if isinstance(value, int):
        if -(1 << 15) <= value < 1 << 15:
            return 5, struct.pack("<h", value)
        return (9, struct.pack("<q", value)) if value < 1 << 63 else (10, struct.pack("<Q", value))
    if isinstance(value, float):
        return 11, struct.pack("<d", value)
    if isinstance(value, str):
        data = value.encode()
        size = len(data)
        head = bytes((size & 127 | 128, size >> 7)) if size > 127 else bytes((size,))
        return 12, head + data
    return _container(value)


def _container(value: dict[str, Json] | list[Json]) -> tuple[int, bytes]:
    named = isinstance(value, dict)
    keys = sorted((key.encode() for key in value), key=lambda key: (len(key), key)) if named else []
    items = [value[key.decode()] for key in keys] if isinstance(value, dict) else value
    width = 5 if len(items) > 50 else 3  # large containers have wider entries
    size = width - 1
    head = 2 * size + len(keys) * (size + 2) + len(items) * width
    body = b""
    key_entries = b""
    for key in keys:
        key_entries += (head + len(body)).to_bytes(size, "little") + len(key).to_bytes(2, "little")
        body += key
    entries = b""
    for item in items:
        kind, data = binary_json(item)
        if kind in {4, 5}:
            entries += bytes((kind,)) + data.ljust(size, b"\xff" if data[-1] > 127 and kind == 5 else b"\0")
        else:
            entries += bytes((kind,)) + (head + len(body)).to_bytes(size, "little")
            body += data
    count = len(items).to_bytes(size, "little") + (head + len(body)).to_bytes(size, "little")
    return (0 if named else 2) + (1 if size == 4 else 0), count + key_entries + entries + body


def printed(value: Json) -> str:
    """As the server prints it."""
    if isinstance(value, dict):
        keys = sorted(value, key=lambda key: (len(str(key).encode()), str(key).encode()))
        return "{" + ", ".join(f"{printed(key)}: {printed(value[key])}" for key in keys) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(printed(item) for item in value) + "]"
    if isinstance(value, str):
        names = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
        return '"' + "".join(names.get(c, f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
    if isinstance(value, float):
        text = double_text(value).decode()
        return text if "." in text or "e" in text else text + ".0"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=200)
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(texts, inner, max_size=8),
    max_leaves=80,
)


@given(documents)
def test_json(document: Json) -> None:
    kind, data = binary_json(document)
    assert json_text(bytes((kind,)) + data).decode() == printed(document)


@given(documents, st.data())
def test_broken_json_is_refused_or_read(document: Json, data: st.DataObject) -> None:
    kind, body = binary_json(document)
    whole = bytes((kind,)) + body
    at = data.draw(st.integers(0, len(whole) - 1))
    broken = whole[:at] + bytes((data.draw(st.integers(0, 255)),)) + whole[at + 1 :]
    try:
        text = json_text(broken[: data.draw(st.integers(0, len(broken)))])
    except MalformedPacketError:
        return
    assert text


def test_json_that_contains_itself_is_refused() -> None:
    # An array whose only element is at offset 0: itself.
    with pytest.raises(MalformedPacketError):
        json_text(bytes.fromhex("02" + "0100" + "0700" + "02" + "0000"))


DATE_2020 = (((2020 * 13 + 9) << 5 | 1) << 41).to_bytes(8, "little").hex()


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("", "null"),
        ("0ff6050502807b0a", "123.10"),
        ("0f0a08" + DATE_2020, '"2020-09-01"'),
        ("0ffc03616263", '"base64:type252:YWJj"'),
    ],
)
def test_json_of_other_types(stored: str, text: str) -> None:
    assert json_text(bytes.fromhex(stored)).decode() == text


def test_json_of_types_that_text_does_not_tell() -> None:
    found = json_text(bytes.fromhex("02" + "0200" + "0a00" + "060700" + "05ffff"))
    assert found == b"[7, -1]"
    assert isinstance(found, TypedDocument)
    assert [(each.path, each.type, each.value) for each in found.scalars] == [
        ("$[0]", "UNSIGNED INTEGER", b"7")
    ]
    assert type(json_text(bytes.fromhex("0a" + "ff" * 8))) is bytes  # parsing makes the same of it


def test_json_that_refers_to_itself_many_times_is_refused() -> None:
    with pytest.raises(MalformedPacketError):
        json_text(bytes.fromhex("02" + "0300" + "0d00" + "020000" * 3))
