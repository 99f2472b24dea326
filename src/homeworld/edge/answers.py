"""A session's answer read: framed packets of the text protocol in, Vitess's rows out.

Owns no session. A row is told as Vitess does: the length of each value, -1 for NULL, and all values in one
piece. The invariant: rows come out as they came in, byte for byte; an answer in two parts that both have rows
is an error, never half of it.
"""

from __future__ import annotations

from enum import Enum, auto

from homeworld.model.errors import HomeworldError, MalformedPacketError, ServerError, UnsupportedSqlError
from homeworld.wire.constants import Status
from homeworld.wire.packets import PacketBuffer, Reader
from homeworld.wire.results import ColumnDefinition, Ok, end_status, is_end, parse_err

Row = tuple[list[int], bytes]
"""The lengths of its values, -1 for NULL, and the values behind one another."""

_PACKET = 1 << 30
_OVERHEAD = 64
"""Bytes that a row takes in memory beside its values, about."""


class _Part(Enum):
    FIRST = auto()
    COLUMNS = auto()
    ROWS = auto()
    PARAMETERS = auto()
    DONE = auto()


def split_row(payload: bytes, columns: int) -> Row:
    """A row of the text protocol.

    :raises MalformedPacketError: it has other than ``columns`` values.
    """
    lengths: list[int] = []
    parts: list[bytes] = []
    at, end = 0, len(payload)
    try:
        for _ in range(columns):
            length = payload[at]
            at += 1
            if length >= 0xFB:
                if length == 0xFB:
                    lengths.append(-1)
                    continue
                width = {0xFC: 2, 0xFD: 3, 0xFE: 8}[length]
                length = int.from_bytes(payload[at : at + width], "little")
                at += width
            lengths.append(length)
            parts.append(payload[at : at + length])
            at += length
    except (IndexError, KeyError):
        raise MalformedPacketError("a row cannot be read") from None
    if at != end:
        raise MalformedPacketError("a row has other values than the result has columns")
    return lengths, b"".join(parts)


class Answer:
    """What a session answered to one command.

    * ``columns``: of the result; empty where the answer has none.
    * ``rows``: those that were not taken yet; ``count``: all of them.
    * ``ok``: of an answer without a result. ``error``: what it failed by.
    * ``size``: bytes of the rows that were not taken yet, about.

    :param capabilities: the session's. DEPRECATE_EOF must be among them.
    :param prepare: the command was COM_STMT_PREPARE: ``columns`` are then those that executions will have,
        and ``statement`` is the statement's id.
    """

    def __init__(self, capabilities: int, *, prepare: bool = False) -> None:
        self._capabilities = capabilities
        self._packets = PacketBuffer(_PACKET)
        self._part = _Part.FIRST
        self._prepare = prepare
        self._left = 0
        self._after_parameters = 0
        self._results = 0
        self.columns: list[ColumnDefinition] = []
        self.rows: list[Row] = []
        self.count = 0
        self.size = 0
        self.dropping = False
        self.ok: Ok | None = None
        self.error: HomeworldError | None = None
        self.status = 0
        self.statement = b""

    @property
    def done(self) -> bool:
        """Whether all of it has come."""
        return self._part is _Part.DONE

    def drop(self) -> None:
        """Keep no rows of it: they are read past."""
        self.dropping = True
        self.rows = []
        self.size = 0

    def take(self) -> list[Row]:
        """The rows that have come since this was asked before."""
        rows, self.rows = self.rows, []
        self.size = 0
        return rows

    def feed(self, data: bytes) -> None:
        """Take framed bytes of the answer.

        :raises MalformedPacketError: they are none.
        """
        packets = self._packets
        packets.feed(data)
        while self._part is not _Part.DONE:
            payload = packets.next()
            if payload is None:
                return
            if self._part is _Part.ROWS and payload[:1] not in {b"\xfe", b"\xff"}:
                self._row(payload)
            else:
                self._packet(payload)

    def _row(self, payload: bytes) -> None:
        self.count += 1
        if self.dropping or self._results > 1:
            return
        row = split_row(payload, len(self.columns))
        self.rows.append(row)
        self.size += len(row[1]) + _OVERHEAD + 8 * len(row[0])

    def _packet(self, payload: bytes) -> None:
        if payload[:1] == b"\xff" and self._part in {_Part.FIRST, _Part.ROWS}:
            self.error = parse_err(payload)
            self._part = _Part.DONE
            return
        match self._part:
            case _Part.FIRST:
                self._prepared(payload) if self._prepare else self._first(payload)
            case _Part.COLUMNS:
                if self._results <= 1:
                    self.columns.append(ColumnDefinition.parse(payload))
                self._defined(_Part.DONE if self._prepare else _Part.ROWS)
            case _Part.PARAMETERS:
                self._defined(_Part.COLUMNS if self._after_parameters else _Part.DONE)
                self._left = self._left or self._after_parameters
            case _:
                if is_end(payload, self._capabilities):
                    self.status, _ = end_status(payload, self._capabilities)
                    self._over()
                else:
                    self._row(payload)

    def _defined(self, following: _Part) -> None:
        self._left -= 1
        if not self._left:
            self._part = following

    def _first(self, payload: bytes) -> None:
        head = payload[:1]
        if head == b"\x00" or (head == b"\xfe" and len(payload) < 9):
            self.ok = Ok.parse(payload, self._capabilities) if head == b"\x00" else Ok()
            self.status = self.ok.status
            self._over()
        elif head == b"\xfb":
            raise MalformedPacketError("a file is asked for of a client that has none")
        else:
            self._results += 1
            self._left = Reader(payload).lenenc_int()
            self._part = _Part.COLUMNS

    def _over(self) -> None:
        """One part of the answer is over; another may follow, as behind a procedure's result."""
        self._part = _Part.FIRST if self.status & Status.MORE_RESULTS_EXISTS else _Part.DONE
        if self._part is _Part.DONE and self._results > 1:
            self.error = UnsupportedSqlError("Multi-Resultset not supported in stored procedure")

    def _prepared(self, payload: bytes) -> None:
        reader = Reader(payload)
        if reader.int(1):
            raise MalformedPacketError("the answer to a PREPARE is none")
        self.statement = reader.take(4)
        columns, parameters = reader.int(2), reader.int(2)
        self._after_parameters = columns
        if parameters:
            self._left, self._part = parameters, _Part.PARAMETERS
        elif columns:
            self._left, self._part = columns, _Part.COLUMNS
        else:
            self._part = _Part.DONE

    def failed(self, error: HomeworldError) -> None:
        """No more of it will come."""
        if self._part is not _Part.DONE:
            self._part = _Part.DONE
            self.error = error

    @property
    def errno(self) -> int:
        """The server's number of the error; 0 where there is none."""
        return self.error.server_errno if isinstance(self.error, ServerError) else 0
