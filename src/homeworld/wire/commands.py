"""What a client sends in the command phase: payloads built and parsed.

Knows layouts only. Bound values of prepared statements come out as SQL literals, because that is what the
gateway needs when one execution has to become text for several shards.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Com, Type
from homeworld.wire.packets import Reader

_BYTES = frozenset(
    {
        Type.DECIMAL,
        Type.NEWDECIMAL,
        Type.VARCHAR,
        Type.BIT,
        Type.ENUM,
        Type.SET,
        Type.TINY_BLOB,
        Type.MEDIUM_BLOB,
        Type.LONG_BLOB,
        Type.BLOB,
        Type.VAR_STRING,
        Type.STRING,
        Type.GEOMETRY,
        Type.JSON,
        Type.VECTOR,
    }
)
_BLOBS = frozenset(
    {Type.TINY_BLOB, Type.MEDIUM_BLOB, Type.LONG_BLOB, Type.BLOB, Type.GEOMETRY, Type.BIT, Type.VECTOR}
)
_INTEGERS = {Type.TINY: 1, Type.SHORT: 2, Type.YEAR: 2, Type.LONG: 4, Type.INT24: 4, Type.LONGLONG: 8}
_EXACT_FLOAT = 1 << 24
_ESCAPES = (
    (b"\\", b"\\\\"),  # first: the others have one of their own
    (b"\0", b"\\0"), (b"\n", b"\\n"), (b"\r", b"\\r"), (b"\x1a", b"\\Z"), (b'"', b'\\"'), (b"'", b"\\'"),
)  # fmt: skip

Literal = bytes
"""A value as it may stand in SQL text."""


def query(sql: bytes | str) -> bytes:
    """COM_QUERY."""
    return b"\x03" + (sql.encode() if isinstance(sql, str) else sql)


def init_db(schema: str) -> bytes:
    """COM_INIT_DB."""
    return b"\x02" + schema.encode()


def stmt_prepare(sql: bytes) -> bytes:
    """COM_STMT_PREPARE."""
    return b"\x16" + sql


def stmt_close(statement_id: int) -> bytes:
    """COM_STMT_CLOSE; it has no answer."""
    return b"\x19" + statement_id.to_bytes(4, "little")


PING = bytes((Com.PING,))
QUIT = bytes((Com.QUIT,))
RESET_CONNECTION = bytes((Com.RESET_CONNECTION,))


def quote_string(value: bytes, *, backslashes: bool = True) -> Literal:
    """``value`` as a string literal for a connection whose character set is ASCII-compatible.

    :param backslashes: the connection's sql_mode lacks NO_BACKSLASH_ESCAPES.
    """
    if not backslashes:
        return b"'" + value.replace(b"'", b"''") + b"'"
    for plain, escaped in _ESCAPES:
        value = value.replace(plain, escaped)
    return b"'" + value + b"'"


def quote_blob(value: bytes) -> Literal:
    """``value`` as a hex literal; right in every character set and sql_mode."""
    return b"x'" + value.hex().encode() + b"'"


@dataclass(frozen=True, slots=True)
class Execute:
    """COM_STMT_EXECUTE, read. ``types`` are (type, unsigned) pairs."""

    statement_id: int
    flags: int
    types: tuple[tuple[int, bool], ...]
    literals: tuple[Literal, ...]


def execute_statement_id(payload: bytes) -> int:
    """The statement id of STMT_EXECUTE, _CLOSE, _RESET, _FETCH and _SEND_LONG_DATA (with command byte).

    :raises MalformedPacketError: too short.
    """
    if len(payload) < 5:
        raise MalformedPacketError
    return int.from_bytes(payload[1:5], "little")


def parse_types(payload: bytes, parameters: int) -> tuple[tuple[int, bool], ...]:
    """The types bound by this COM_STMT_EXECUTE; empty when it relies on those bound before.

    :raises MalformedPacketError: too short.
    """
    if not parameters:
        return ()
    reader = Reader(payload, 10)
    reader.skip((parameters + 7) // 8)
    if reader.int(1) != 1:
        return ()
    return tuple((reader.int(1), bool(reader.int(1) & 0x80)) for _ in range(parameters))


def with_types(payload: bytes, parameters: int, types: Sequence[tuple[int, bool]]) -> bytes:
    """A COM_STMT_EXECUTE that relies on types bound before, made complete for a server that never saw them.

    :raises MalformedPacketError: too short.
    """
    if not parameters or parse_types(payload, parameters):
        return payload
    at = 10 + (parameters + 7) // 8
    bound = b"".join(bytes((kind, 0x80 if unsigned else 0)) for kind, unsigned in types)
    return payload[:at] + b"\x01" + bound + payload[at + 1 :]


def types_for_vtgate(types: bytes) -> bytes:
    """Bound types, two bytes for each parameter, as vtgate reads them: it looks for the flag of an unsigned
    *column* (0x20) where the protocol has that of an unsigned parameter (0x80), and would take 200 for -56.
    """
    told = bytearray(types)
    for at in range(0, len(told) - 1, 2):
        if told[at] == Type.YEAR:
            told[at] = Type.SHORT  # of which vtgate would read a text
        if told[at + 1] & 0x80 and told[at] in _INTEGERS:
            told[at + 1] |= 0x20
    return bytes(told)


def with_types_for_vtgate(payload: bytes, parameters: int) -> bytes:
    """A COM_STMT_EXECUTE (with its command byte) with the types that it binds as vtgate reads them."""
    at = 10 + (parameters + 7) // 8
    if not parameters or payload[at : at + 1] != b"\x01":
        return payload
    end = at + 1 + 2 * parameters
    return payload[: at + 1] + types_for_vtgate(payload[at + 1 : end]) + payload[end:]


def parse_execute(
    payload: bytes,
    parameters: int,
    known: Sequence[tuple[int, bool]] = (),
    long_data: Mapping[int, bytes | bytearray] | None = None,
    *,
    backslashes: bool = True,
) -> Execute:
    """Read COM_STMT_EXECUTE (with its command byte).

    :param parameters: how many ``?`` the statement has.
    :param known: types of an earlier execution, used when this one does not bind anew.
    :param backslashes: as for :func:`quote_string`.
    :param long_data: values sent ahead by COM_STMT_SEND_LONG_DATA, by parameter number.
    :raises MalformedPacketError: too short, or types were never bound.
    """
    reader = Reader(payload, 1)
    statement_id = reader.int(4)
    flags = reader.int(1)
    reader.skip(4)
    if not parameters:
        return Execute(statement_id, flags, (), ())
    nulls = reader.take((parameters + 7) // 8)
    types = tuple(known)
    if reader.int(1) == 1:
        types = tuple((reader.int(1), bool(reader.int(1) & 0x80)) for _ in range(parameters))
    if len(types) != parameters:
        raise MalformedPacketError("the statement's parameters were never bound")
    ahead = long_data or {}
    literals: list[Literal] = []
    for number, (kind, unsigned) in enumerate(types):
        if number in ahead:
            literals.append(
                quote_blob(bytes(ahead[number]))
                if kind in _BLOBS
                else quote_string(bytes(ahead[number]), backslashes=backslashes)
            )
        elif nulls[number >> 3] & 1 << (number & 7) or kind == Type.NULL:
            literals.append(b"NULL")
        else:
            literals.append(_literal(reader, kind, unsigned=unsigned, backslashes=backslashes))
    return Execute(statement_id, flags, types, tuple(literals))


def _literal(reader: Reader, kind: int, *, unsigned: bool, backslashes: bool) -> Literal:
    size = _INTEGERS.get(kind)  # type: ignore[call-overload]  # an int is looked up among IntEnum members
    if size:
        return str(int.from_bytes(reader.take(size), "little", signed=not unsigned)).encode()
    if kind == Type.DOUBLE:
        return repr(struct.unpack("<d", reader.take(8))[0]).encode()
    if kind == Type.FLOAT:
        return float_text(struct.unpack("<f", reader.take(4))[0])
    if kind in {Type.DATE, Type.DATETIME, Type.TIMESTAMP}:
        return b"'" + read_datetime(reader, date_only=kind == Type.DATE) + b"'"
    if kind == Type.TIME:
        return b"'" + read_time(reader) + b"'"
    if kind in _BLOBS:
        return quote_blob(reader.lenenc())
    if kind in _BYTES:
        return quote_string(reader.lenenc(), backslashes=backslashes)
    raise MalformedPacketError(f"unknown parameter type {kind}")


def float_text(value: float) -> bytes:
    """A 4-byte float as servers take it: they make a double of it, and compare and store all its digits. The
    shortest text that reads back as the four bytes would be another number to them.
    """
    return b"%d" % value if value.is_integer() and abs(value) < _EXACT_FLOAT else repr(value).encode()


def read_datetime(reader: Reader, *, date_only: bool) -> bytes:
    """A DATE, DATETIME or TIMESTAMP of the binary protocol as text.

    :raises MalformedPacketError: an impossible length.
    """
    length = reader.int(1)
    if length not in {0, 4, 7, 11}:
        raise MalformedPacketError
    year = month = day = hour = minute = second = micro = 0
    if length:
        year, month, day = reader.int(2), reader.int(1), reader.int(1)
    if length >= 7:
        hour, minute, second = reader.int(1), reader.int(1), reader.int(1)
    if length == 11:
        micro = reader.int(4)
    text = f"{year:04d}-{month:02d}-{day:02d}"
    if not date_only:
        text += f" {hour:02d}:{minute:02d}:{second:02d}"
        if micro:
            text += f".{micro:06d}"
    return text.encode()


def read_time(reader: Reader) -> bytes:
    """A TIME of the binary protocol as text.

    :raises MalformedPacketError: an impossible length.
    """
    length = reader.int(1)
    if length not in {0, 8, 12}:
        raise MalformedPacketError
    if not length:
        return b"00:00:00"
    negative = reader.int(1)
    hours = reader.int(4) * 24 + reader.int(1)
    minute, second = reader.int(1), reader.int(1)
    text = f"{'-' if negative else ''}{hours:02d}:{minute:02d}:{second:02d}"
    if length == 12:
        text += f".{reader.int(4):06d}"
    return text.encode()


def local_infile_name(payload: bytes) -> bytes:
    """The file name a server asks the client for (a reply that begins with 0xFB)."""
    return payload[1:]


def long_data(payload: bytes) -> tuple[int, int, bytes]:
    """Statement id, parameter number and data of COM_STMT_SEND_LONG_DATA (with command byte).

    :raises MalformedPacketError: too short.
    """
    reader = Reader(payload, 1)
    return reader.int(4), reader.int(2), reader.rest()


def attribute_free(payload: bytes) -> bytes:
    """COM_QUERY's text. QUERY_ATTRIBUTES is never agreed, so all that follows the command byte is text."""
    return payload[1:]
