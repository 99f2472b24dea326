"""Text rows out of the network's bytes, by a parser generated for the number of columns.

It knows packets of one result and no values: a row is a tuple of bytes, None for NULL. The loop is unrolled
over the columns because a copy spends most of its Python time here.

Invariant: a row comes out only if its columns fill its packet exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import cast

from homeworld.model.errors import ConnectionLostError, MalformedPacketError
from homeworld.replication.changes import Row
from homeworld.wire.packets import MAX_PAYLOAD, PacketBuffer, Reader
from homeworld.wire.results import end_status, is_end, parse_err

#: (buffer, offset, size, append): parses whole rows, gives the offset of the first packet that is not whole
#: or not an ordinary row.
Parser = Callable[[bytes, int, int, Callable[[Row], None]], int]

_MORE_RESULTS = 8

_COLUMN = """\
            n = b[q]
            if n < 251:
                z = q + n + 1
                {c} = b[q + 1 : z]
                q = z
            elif n == 251:
                {c} = None
                q += 1
            else:
                q, n = long_length(b, q)
                z = q + n
                {c} = b[q : z]
                q = z
"""
_PARSER = """\
def parse(b, p, size, append):
    try:
        while size - p > 4:
            q = p + 4
            n = b[p] | b[p + 1] << 8 | b[p + 2] << 16
            end = q + n
            if end > size or n == 0xFFFFFF or b[q] > 253 or not n:
                return p
{columns}\
            if q != end:
                raise Malformed("a row does not fill its packet")
            append(({row},))
            p = end
    except IndexError:
        raise Malformed("a row runs past its packet") from None
    return p
"""


def _long_length(buffer: bytes, position: int) -> tuple[int, int]:
    """(where the value begins, its length) for a length of more than one byte."""
    size = {252: 2, 253: 3, 254: 8}.get(buffer[position])
    if size is None:
        raise MalformedPacketError("a row holds an unknown length")
    start = position + 1 + size
    return start, int.from_bytes(buffer[position + 1 : start], "little")


@lru_cache(maxsize=256)
def parser_of(columns: int) -> Parser:
    """The parser for rows of ``columns`` (at least 1) columns."""
    names = [f"c{index}" for index in range(columns)]
    source = _PARSER.format(columns="".join(_COLUMN.format(c=name) for name in names), row=", ".join(names))
    scope: dict[str, object] = {"long_length": _long_length, "Malformed": MalformedPacketError}
    exec(compile(source, f"<row parser, {columns} columns>", "exec"), scope)  # noqa: S102 the text is ours
    return cast("Parser", scope["parse"])


class RowStream:
    """One result of the text protocol: bytes in, lists of rows out.

    :param capabilities: as agreed in the handshake.
    """

    def __init__(self, capabilities: int) -> None:
        self._capabilities = capabilities
        self._head = PacketBuffer()
        self._columns = 0
        self._definitions_left = -1
        self._parse: Parser | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._need = 0
        self.done = False

    def feed(self, data: bytes) -> list[Row]:
        """Take bytes as they came; the rows that are whole now.

        :raises ServerError: the server refused the statement, or failed among the rows.
        :raises ConnectionLostError: ``data`` is empty: the server hung up.
        """
        if not data:
            raise ConnectionLostError
        if self._parse is None:
            self._head.feed(data)
            if not self._read_head() or self.done:
                return []
            data = self._head.rest()
        if self._parts:
            self._parts.append(data)
            self._size += len(data)
            if self._size < self._need:
                return []
            data = b"".join(self._parts)
            self._parts.clear()
        rows: list[Row] = []
        rest = self._cut(data, rows)
        if rest < len(data):
            self._parts.append(data[rest:])
            self._size = len(data) - rest
        return rows

    def _read_head(self) -> bool:
        """Read column count and definitions; whether rows (or nothing) follow."""
        while (packet := self._head.next()) is not None:
            if self._definitions_left < 0:
                if packet[:1] == b"\xff":
                    raise parse_err(packet)
                if packet[:1] == b"\x00":
                    self.done = True
                    return True
                if packet[:1] == b"\xfb":
                    raise MalformedPacketError("the server asks for a file where rows were meant")
                self._columns = Reader(packet).lenenc_int()
                # Without DEPRECATE_EOF one more packet stands between definitions and rows.
                self._definitions_left = self._columns + (0 if self._capabilities & 1 << 24 else 1)
            else:
                self._definitions_left -= 1
            if not self._definitions_left:
                self._parse = parser_of(self._columns)
                return True
        return False

    def _cut(self, data: bytes, rows: list[Row]) -> int:
        """Append the whole rows of ``data``; the offset of what is left, with ``_need`` set for it."""
        parse = self._parse
        if parse is None:
            raise MalformedPacketError("rows came before their definitions")
        append = rows.append
        size = len(data)
        position = 0
        while True:
            position = parse(data, position, size, append)
            packet, end = _whole_packet(data, position)
            if packet is None:
                self._need = end - position
                return position
            position = end
            if packet[:1] == b"\xff":
                raise parse_err(packet)
            if is_end(packet, self._capabilities):
                status, _ = end_status(packet, self._capabilities)
                if status & _MORE_RESULTS or position != size:
                    raise MalformedPacketError("the statement has more than one result")
                self.done = True
                return position
            append(_long_row(packet, self._columns))


def _whole_packet(data: bytes, position: int) -> tuple[bytes | None, int]:
    """The payload at ``position``, joined from its parts, and where it ends.

    Where it is not whole: None, and the end that has to be there before trying again.
    """
    pieces: list[bytes] = []
    while True:
        start = position + 4
        if start > len(data):
            return None, start
        length = int.from_bytes(data[position : position + 3], "little")
        if start + length > len(data):
            return None, start + length
        pieces.append(data[start : start + length])
        position = start + length
        if length < MAX_PAYLOAD:
            return b"".join(pieces), position


def _long_row(packet: bytes, columns: int) -> Row:
    reader = Reader(packet)
    row = tuple(reader.lenenc_or_null() for _ in range(columns))
    if reader.left:
        raise MalformedPacketError("a row does not fill its packet")
    return row
