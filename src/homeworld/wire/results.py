"""Results: OK, ERR, EOF, column definitions and text rows, parsed and built.

Everything depends on the capabilities agreed in the handshake, so they stand in every signature that needs
them (an int of :class:`~homeworld.wire.constants.Cap` bits).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeworld.model.errors import HomeworldError, MalformedPacketError, ServerError
from homeworld.wire.constants import BINARY_CHARSET, Cap, Status, Type
from homeworld.wire.packets import Reader, frame, frame_count, lenenc, lenenc_int

TextRow = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class Ok:
    """An OK packet. ``session_state`` is the raw session-track block, empty where there is none."""

    affected_rows: int = 0
    last_insert_id: int = 0
    status: int = Status.AUTOCOMMIT
    warnings: int = 0
    info: bytes = b""
    session_state: bytes = b""

    def build(self, capabilities: int, header: int = 0x00) -> bytes:
        """The payload; ``header`` 0xFE makes it the end of rows under DEPRECATE_EOF."""
        start = (
            bytes((header,))
            + lenenc_int(self.affected_rows)
            + lenenc_int(self.last_insert_id)
            + int(self.status).to_bytes(2, "little")
            + self.warnings.to_bytes(2, "little")
        )
        if not capabilities & Cap.SESSION_TRACK:
            return start + self.info
        tracked = self.status & Status.SESSION_STATE_CHANGED
        if not self.info and not tracked:
            return start
        return start + lenenc(self.info) + (lenenc(self.session_state) if tracked else b"")

    @classmethod
    def parse(cls, payload: bytes, capabilities: int) -> Ok:
        """Read an OK (header 0x00 or 0xFE).

        :raises MalformedPacketError: it is none, or too short.
        """
        reader = Reader(payload)
        if reader.int(1) not in {0x00, 0xFE}:
            raise MalformedPacketError("expected an OK packet")
        affected = reader.lenenc_int()
        insert_id = reader.lenenc_int()
        status = reader.int(2)
        warnings = reader.int(2)
        info = state = b""
        if capabilities & Cap.SESSION_TRACK:
            if reader.left:
                info = reader.lenenc()
            if status & Status.SESSION_STATE_CHANGED and reader.left:
                state = reader.lenenc()
        else:
            info = reader.rest()
        return cls(affected, insert_id, status, warnings, info, state)


def build_err(errno: int, sqlstate: str, message: str) -> bytes:
    """An ERR payload. A message may quote a name of bytes that are no UTF-8: those are replaced."""
    text = message.encode("utf-8", "replace")
    return b"\xff" + errno.to_bytes(2, "little") + b"#" + sqlstate.encode().ljust(5)[:5] + text


def err_of(error: HomeworldError) -> bytes:
    """An ERR payload that says ``error`` in MySQL's terms; a server's own error passes as it was."""
    if isinstance(error, ServerError):
        return build_err(error.server_errno, error.server_state, error.message)
    return build_err(error.mysql_errno, error.sqlstate, error.message)


def parse_err(payload: bytes) -> ServerError:
    """The error an ERR payload carries.

    :raises MalformedPacketError: it is none.
    """
    reader = Reader(payload)
    if reader.int(1) != 0xFF:
        raise MalformedPacketError("expected an error packet")
    errno = reader.int(2)
    rest = reader.rest()
    state = "HY000"
    if rest[:1] == b"#":
        state = rest[1:6].decode("ascii", "replace")
        rest = rest[6:]
    return ServerError(errno, state, rest.decode("utf-8", "replace"))


def build_eof(status: int, warnings: int = 0) -> bytes:
    """An EOF payload, for connections without DEPRECATE_EOF."""
    return b"\xfe" + warnings.to_bytes(2, "little") + int(status).to_bytes(2, "little")


def end_of_rows(capabilities: int, status: int, warnings: int = 0) -> bytes:
    """The payload that ends rows, in the form ``capabilities`` ask for."""
    if capabilities & Cap.DEPRECATE_EOF:
        return Ok(status=status, warnings=warnings).build(capabilities, 0xFE)
    return build_eof(status, warnings)


def is_end(payload: bytes, capabilities: int) -> bool:
    """Whether this packet where a row could stand ends the rows (EOF, or OK with 0xFE)."""
    return payload[:1] == b"\xfe" and (
        len(payload) < 0xFFFFFF if capabilities & Cap.DEPRECATE_EOF else len(payload) < 9
    )


def end_status(payload: bytes, capabilities: int) -> tuple[int, int]:
    """Status flags and warning count of a packet for which :func:`is_end` is true."""
    if capabilities & Cap.DEPRECATE_EOF:
        ok = Ok.parse(payload, capabilities)
        return ok.status, ok.warnings
    reader = Reader(payload, 1)
    if reader.left < 4:
        return 0, 0
    warnings = reader.int(2)
    return reader.int(2), warnings


@dataclass(frozen=True, slots=True)
class ColumnDefinition:
    """One column of a result. ``charset`` is a collation id; ``length`` the display width in bytes."""

    name: bytes
    type: int
    charset: int = BINARY_CHARSET
    length: int = 1024
    flags: int = 0
    decimals: int = 0
    schema: bytes = b""
    table: bytes = b""
    org_table: bytes = b""
    org_name: bytes = b""

    def build(self) -> bytes:
        """The payload."""
        return b"".join(
            (
                b"\x03def",
                lenenc(self.schema),
                lenenc(self.table),
                lenenc(self.org_table),
                lenenc(self.name),
                lenenc(self.org_name),
                b"\x0c",
                self.charset.to_bytes(2, "little"),
                self.length.to_bytes(4, "little"),
                bytes((self.type,)),
                self.flags.to_bytes(2, "little"),
                bytes((self.decimals, 0, 0)),
            )
        )

    @classmethod
    def parse(cls, payload: bytes) -> ColumnDefinition:
        """Read a column definition (protocol 4.1).

        :raises MalformedPacketError: too short.
        """
        reader = Reader(payload)
        reader.lenenc()
        schema = reader.lenenc()
        table = reader.lenenc()
        org_table = reader.lenenc()
        name = reader.lenenc()
        org_name = reader.lenenc()
        reader.lenenc_int()
        return cls(
            charset=reader.int(2),
            length=reader.int(4),
            type=reader.int(1),
            flags=reader.int(2),
            decimals=reader.int(1),
            name=name,
            schema=schema,
            table=table,
            org_table=org_table,
            org_name=org_name,
        )


def parse_text_row(payload: bytes, columns: int) -> TextRow:
    """A row of the text protocol as bytes, None for NULL.

    :raises MalformedPacketError: it does not have exactly ``columns`` values.
    """
    reader = Reader(payload)
    row = tuple(reader.lenenc_or_null() for _ in range(columns))
    if reader.left:
        raise MalformedPacketError("a row has more values than the result has columns")
    return row


def build_text_row(row: Iterable[bytes | None]) -> bytes:
    """A row payload of the text protocol."""
    return b"".join(b"\xfb" if value is None else lenenc(value) for value in row)


def build_result(
    columns: Sequence[bytes],
    rows: Iterable[bytes],
    capabilities: int,
    status: int,
    sequence: int,
    warnings: int = 0,
) -> tuple[bytes, int]:
    """A whole result from ready payloads (column definitions, rows of either protocol) as framed bytes.

    :param sequence: number of the first packet.
    :returns: the bytes, and the number that the next packet would have.
    """
    out: list[bytes] = []

    def add(payload: bytes) -> None:
        nonlocal sequence
        out.append(frame(payload, sequence))
        sequence += frame_count(len(payload))

    add(lenenc_int(len(columns)))
    for column in columns:
        add(column)
    if not capabilities & Cap.DEPRECATE_EOF:
        add(build_eof(status, warnings))
    for row in rows:
        add(row)
    add(end_of_rows(capabilities, status, warnings))
    return b"".join(out), sequence


NUMERIC = frozenset(
    {
        Type.DECIMAL,
        Type.TINY,
        Type.SHORT,
        Type.LONG,
        Type.FLOAT,
        Type.DOUBLE,
        Type.LONGLONG,
        Type.INT24,
        Type.YEAR,
        Type.NEWDECIMAL,
    }
)
"""Types whose text form is a number."""
