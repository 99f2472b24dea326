"""Framing, length-encoded values and proofs: what goes in comes out, and garbage is an error."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import MalformedPacketError
from homeworld.wire import auth, commands, handshake, packets, results
from homeworld.wire.constants import Cap


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.data())
def test_payloads_survive_any_chunking(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(packets.frame(p, i) for i, p in enumerate(payloads))
    buffer = packets.PacketBuffer()
    found: list[bytes] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        buffer.feed(stream[:cut])
        stream = stream[cut:]
        while (payload := buffer.next()) is not None:
            found.append(payload)
    assert found == payloads
    assert buffer.sequence == len(payloads) & 0xFF


@pytest.mark.parametrize("size", [0xFFFFFE, 0xFFFFFF, 0x1000000, 2 * 0xFFFFFF, 20_000_000])
def test_payloads_of_16_mb_and_more_are_split_and_joined(size: int) -> None:
    payload = bytes(size)
    framed = packets.frame(payload, 250)
    assert len(framed) == size + 4 * packets.frame_count(size)
    buffer = packets.PacketBuffer()
    buffer.feed(framed)
    assert buffer.next() == payload
    assert buffer.sequence == (250 + packets.frame_count(size)) & 0xFF


def test_a_payload_above_the_limit_is_refused_before_it_is_read() -> None:
    buffer = packets.PacketBuffer(1000)
    buffer.feed((1001).to_bytes(3, "little") + b"\0")
    with pytest.raises(MalformedPacketError, match="max_allowed_packet"):
        buffer.next()


@given(st.integers(0, 2**64 - 1), st.binary(max_size=70000))
def test_length_encoded_values(number: int, text: bytes) -> None:
    reader = packets.Reader(packets.lenenc_int(number) + packets.lenenc(text) + b"\xfb")
    assert reader.lenenc_int() == number
    assert reader.lenenc() == text
    assert reader.lenenc_or_null() is None
    assert not reader.left


@given(st.text(min_size=1, max_size=40))
def test_proofs_are_accepted_by_the_twice_hashed_password_only(password: str) -> None:
    scramble = auth.new_scramble()
    assert len(scramble) == 20
    assert 0 not in scramble
    native, sha2 = auth.native_proof(password, scramble), auth.sha2_proof(password, scramble)
    assert auth.check_native(native, scramble, auth.sha1_twice(password))
    assert auth.check_sha2(sha2, scramble, auth.sha256_twice(password))
    assert not auth.check_native(native, scramble, auth.sha1_twice(password + "x"))
    assert not auth.check_sha2(sha2, scramble, auth.sha256_twice(password + "x"))
    assert not auth.check_native(b"", scramble, auth.sha1_twice(password))
    assert not auth.check_sha2(b"", scramble, auth.sha256_twice(password))
    assert auth.check_sha2_plain(password.encode(), auth.sha256_twice(password))


def test_greeting_and_response_survive_a_round_trip() -> None:
    greeting = handshake.Greeting(
        "8.0.34-x", 77, auth.new_scramble(), 0x0FFFFFFF, 45, 2, "caching_sha2_password"
    )
    assert handshake.Greeting.parse(greeting.build()) == greeting
    caps = int(
        Cap.PROTOCOL_41 | Cap.SECURE_CONNECTION | Cap.PLUGIN_AUTH | Cap.CONNECT_WITH_DB | Cap.CONNECT_ATTRS
    )
    for extra in (0, int(Cap.PLUGIN_AUTH_LENENC_DATA)):
        response = handshake.HandshakeResponse(
            caps | extra, 1 << 24, 45, "ü", b"x" * 32, "db", "caching_sha2_password", {"a": "b" * 300}
        )
        assert handshake.parse_response(response.build()) == response
    assert handshake.is_ssl_request(handshake.build_ssl_request(caps, 1, 45))
    assert handshake.parse_auth_switch(handshake.build_auth_switch("p", b"s" * 20)) == ("p", b"s" * 20)


PARSERS: dict[str, Callable[[bytes], object]] = {
    "greeting": handshake.Greeting.parse,
    "response": handshake.parse_response,
    "auth switch": handshake.parse_auth_switch,
    "change user": lambda data: handshake.parse_change_user(data, 0xFFFFFFFF),
    "error": results.parse_err,
    "column": results.ColumnDefinition.parse,
    "ok": lambda data: results.Ok.parse(data, int(Cap.SESSION_TRACK)),
    "row": lambda data: results.parse_text_row(data, 3),
    "execute": lambda data: commands.parse_execute(data, 3),
    "vtgate's types": lambda data: commands.with_types_for_vtgate(data, 3),
    "types": lambda data: commands.with_types(data, 3, ((3, True),) * 3),
    "long data": commands.long_data,
    "statement": commands.execute_statement_id,
}


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.binary(max_size=200))
def test_garbage_is_an_error_and_nothing_worse(name: str, data: bytes) -> None:
    with contextlib.suppress(MalformedPacketError):
        PARSERS[name](data)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.binary(max_size=50), st.booleans())
def test_ok_survives_a_round_trip(affected: int, last_id: int, info: bytes, tracked: bool) -> None:
    caps = int(Cap.SESSION_TRACK) if tracked else 0
    ok = results.Ok(affected, last_id, 3, 9, info)
    assert results.Ok.parse(ok.build(caps), caps) == ok


def test_vtgate_is_told_of_unsigned_numbers_as_it_understands_it() -> None:
    bound = bytes((1, 0x80, 2, 0, 8, 0x80, 0xFD, 0x80))  # TINY and LONGLONG unsigned, SHORT not, a string
    told = bytes((1, 0xA0, 2, 0, 8, 0xA0, 0xFD, 0x80))
    head, values = b"\x17\1\0\0\0\0\1\0\0\0" + b"\0", b"values"
    assert commands.with_types_for_vtgate(head + b"\1" + bound + values, 4) == head + b"\1" + told + values
    relies = head + b"\0" + values
    assert commands.with_types_for_vtgate(relies, 4) == relies
    assert commands.with_types_for_vtgate(b"\x17\1\0\0\0\0\1\0\0\0", 0) == b"\x17\1\0\0\0\0\1\0\0\0"


def test_errors_carry_number_state_and_text() -> None:
    error = results.parse_err(results.build_err(1045, "28000", "no"))
    assert (error.server_errno, error.server_state, error.message) == (1045, "28000", "no")
    assert str(error) == "1045 (28000): no"


@pytest.mark.parametrize(
    ("value", "literal"),
    [(0.1, b"0.10000000149011612"), (5.0, b"5"), (-0.5, b"-0.5"), (1e10, b"10000000000.0")],
)
def test_a_float_is_the_double_that_servers_make_of_it(value: float, literal: bytes) -> None:
    payload = b"\x17\1\0\0\0\0\1\0\0\0\0\1\x04\0" + struct.pack("<f", value)
    assert commands.parse_execute(payload, 1).literals == (literal,)
