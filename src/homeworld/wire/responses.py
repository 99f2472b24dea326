"""Where a server's answer ends: walks packet headers of a byte stream without looking at rows.

The gateway hands bytes through in whole chunks; this finds the last byte of an answer, its status flags and
its error, and looks into no packet but the first and the last of each result. Chunks may be cut anywhere.

Theory of operation. An answer is a sequence of parts, and the part decides what the next packet means:

    FIRST   OK, ERR, LOCAL INFILE request, or a column count
    PREPARE OK of COM_STMT_PREPARE (or ERR), then the definitions it announces
    SKIP    a known number of definitions, then the next part
    ROWS    rows until EOF/OK or ERR
    FIELDS  definitions until EOF (COM_FIELD_LIST)
    BIG     the rest of a row of 16 MB and more, then ROWS
    LONE    any single packet (COM_STATISTICS)
    END     complete

The invariant: the walker says END exactly at the last byte of the answer, whatever the rows contain.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.constants import Cap

_MORE = 8
_CURSOR = 64
_FEW = 20
_LARGE = 0xFFFFFF
"""Nothing but a row, or a file, is continued in a second packet."""


class Expect(IntEnum):
    """What kind of answer a command has."""

    RESULT = 0
    PREPARE = 1
    FIELDS = 2
    ROWS = 3
    LONE = 4


class _Part(IntEnum):
    FIRST = 0
    PREPARE = 1
    FIELDS = 2
    ROWS = 3
    LONE = 4
    SKIP = 5
    METADATA_EOF = 6
    END = 7
    BIG = 8


_FIRST: Final[int] = _Part.FIRST.value
_PREPARE: Final[int] = _Part.PREPARE.value
_FIELDS: Final[int] = _Part.FIELDS.value
_ROWS: Final[int] = _Part.ROWS.value
_LONE: Final[int] = _Part.LONE.value
_SKIP: Final[int] = _Part.SKIP.value
_META: Final[int] = _Part.METADATA_EOF.value
_END: Final[int] = _Part.END.value
_BIG: Final[int] = _Part.BIG.value
_SHORTEST: Final = {_PREPARE: 9, _META: 5}
"""The fewest bytes of packets that are looked into."""


class Walker:
    """Follows one answer at a time.

    After :meth:`feed` has returned a position, these hold what the answer said:

    * ``status``: server status flags of the last OK/EOF, unchanged where none came.
    * ``error``: the raw ERR payload, or empty.
    * ``ok``: the raw payload of a plain OK that was the (last) answer, or empty.
    * ``prepared``: the raw payload of a PREPARE's OK, or empty.
    * ``sequence``: number of the last packet.
    * ``noted``: whether any of ``error``, ``ok``, ``prepared`` and ``local_infile`` is set.

    ``local_infile`` is true while the server waits for the client's file: feed() returned the position
    behind the request; the answer goes on after :meth:`file_sent`.
    """

    __slots__ = (
        "_carry",
        "_deprecate",
        "_left",
        "_part",
        "_prep_columns",
        "_skip",
        "error",
        "local_infile",
        "noted",
        "ok",
        "prepared",
        "sequence",
        "status",
    )

    def __init__(self, capabilities: int) -> None:
        self._deprecate = bool(capabilities & Cap.DEPRECATE_EOF)
        self._carry: bytes = b""
        self._skip: int = 0
        self._part: int = _END
        self._left: int = 0
        self._prep_columns: int = 0
        self.status: int = 2
        self.error = b""
        self.ok = b""
        self.prepared = b""
        self.local_infile = False
        self.noted = False
        self.sequence = 0

    @property
    def idle(self) -> bool:
        """Whether no answer is expected."""
        return self._part == _END

    def begin(self, expect: int = 0) -> None:
        """A command was sent whose answer is ``expect`` (:class:`Expect`)."""
        self._part = expect
        if self.noted:
            self.noted = False
            self.error = self.ok = self.prepared = b""
            self.local_infile = False

    def file_sent(self) -> None:
        """The client's file has been sent to its end; the answer goes on."""
        self.local_infile = False
        self._part = _FIRST

    def feed(self, data: bytes, start: int = 0) -> int:  # noqa: C901, PLR0912, PLR0915 one loop: the hot path
        """Follow ``data`` from ``start``.

        :returns: the position behind the answer's last byte (or behind a LOCAL INFILE request), or -1 if
            the answer goes on in the next chunk.
        :raises MalformedPacketError: bytes came although no answer is expected.
        """
        shift = 0
        carry = self._carry
        if self._part == _FIRST and not start and not carry and self._short(data):
            return len(data)
        if carry:
            # Positions are reckoned in carry+data and given back in data.
            data = carry + data[start:]
            shift = start - len(carry)
            start = 0
            self._carry = b""
        size = len(data)
        pos = start + self._skip
        part = self._part
        left = self._left
        deprecate = self._deprecate
        while pos + 4 < size:
            length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            after = pos + 4 + length
            head = data[pos + 4]
            if part == _ROWS:
                if head < 0xFE and length < 0xFFFFFF:
                    pos = after
                    continue
                if (
                    not length
                    or (head == 0xFE and length >= (0xFFFFFF if deprecate else 9))
                    or length == 0xFFFFFF
                ):
                    if length == 0xFFFFFF:
                        part = _BIG
                    pos = after
                    continue
                if after > size:
                    break
                self.sequence = data[pos + 3]
                if head == 0xFF:
                    self.error = data[pos + 4 : after]
                    self.noted = True
                    part = _END
                else:
                    part = self._ended(data, pos + 5, after)
            elif part == _BIG:
                # The rest of a row of 16 MB and more: its first byte means nothing.
                if length < 0xFFFFFF:
                    part = _ROWS
            elif part == _SKIP:
                if after > size:
                    # Definitions are small; the last one's end must be known before the part changes.
                    break
                if not length:
                    raise MalformedPacketError  # as where no byte has come behind it yet
                left -= 1
                if not left:
                    part = self._defined()
                    left = self._left
                    if part == _END:
                        self.sequence = data[pos + 3]
            else:
                if after > size:
                    break
                self.sequence = data[pos + 3]
                part = self._single(part, head, data, pos + 4, after)
                left = self._left
            pos = after
            if part == _END:
                self._part = _END
                self._skip = 0
                return pos + shift
        if part != _ROWS and part != _BIG and data[pos : pos + 3] == b"\0\0\0":  # noqa: PLR1714 as fast as can be
            raise MalformedPacketError  # an empty packet
        self._part = part
        self._left = left
        if pos >= size:
            self._skip = pos - size
        else:
            self._skip = 0
            self._carry = data[pos:]
        return -1

    def _short(self, data: bytes) -> bool:
        """Whether ``data`` is just one whole result of a few rows: most answers are, and it costs a third to
        see that without taking the state along. Says no where it would have to think.
        """
        if not self._deprecate:
            return False
        try:
            columns = data[4]
            if data[0] != 1 or data[1] or data[2] or not columns or columns > 0xFA:
                return False
            pos = 5
            while columns:
                columns -= 1
                low = data[pos]
                if not low or data[pos + 2]:  # an empty packet is no definition
                    return False
                pos += 4 + low + (data[pos + 1] << 8)
            rows = _FEW
            while data[pos + 4] < 0xFE:
                rows -= 1
                if data[pos + 2] or not rows:
                    return False
                pos += 4 + data[pos] + (data[pos + 1] << 8)
            if (
                data[pos + 4] > 0xFE
                or data[pos + 2]
                or pos + 4 + data[pos] + (data[pos + 1] << 8) != len(data)
            ):
                return False
            # An OK whose two counts are one byte each, as they are behind rows.
            status = data[pos + 7] | data[pos + 8] << 8
            if data[pos + 5] > 0xFA or data[pos + 6] > 0xFA or status & _MORE:
                return False
            self.sequence = data[pos + 3]
        except IndexError:
            return False
        self.status = status
        self._part = _END
        return True

    def _single(self, part: int, head: int, data: bytes, pos: int, after: int) -> int:
        """A packet that stands alone at its place; gives the next part."""
        if part == _END:
            raise MalformedPacketError("the server sent bytes nobody asked for")
        if after - pos < (_SHORTEST.get(part, 1) if head != 0xFF else 3) or after - pos >= _LARGE:
            raise MalformedPacketError
        if head == 0xFF:
            self.error = data[pos:after]
            self.noted = True
            return _END
        if part == _LONE:
            return _END
        if part == _META:
            if head != 0xFE:
                raise MalformedPacketError
            status = int.from_bytes(data[pos + 3 : pos + 5], "little")
            if self._prep_columns >= 0:
                # Between the parameters and the columns of a PREPARE, or behind the columns.
                return self._next_prepared()
            self.status = status
            return _END if status & _CURSOR else _ROWS
        if part == _FIELDS:
            if head == 0xFE and after - pos < 9:
                return self._ended(data, pos + 1, after, more=False)
            return _FIELDS
        if part == _PREPARE:
            if head:
                raise MalformedPacketError
            self.noted = True
            self.prepared = data[pos:after]
            columns = int.from_bytes(data[pos + 5 : pos + 7], "little")
            parameters = int.from_bytes(data[pos + 7 : pos + 9], "little")
            self._prep_columns = columns
            if parameters:
                self._left = parameters
                return _SKIP
            return self._next_prepared()
        # FIRST
        if head == 0x00 or (head == 0xFE and after - pos < 9):
            # COM_SET_OPTION's answer is an EOF on old connections.
            self.noted = True
            self.ok = data[pos:after]
            return self._ended(data, pos + 1, after, plain_ok=head == 0x00)
        if head == 0xFB:
            self.noted = self.local_infile = True
            return _END
        self.ok = b""
        return self._counted(head, data, pos, after)

    def _counted(self, head: int, data: bytes, pos: int, after: int) -> int:
        """The number of a result's columns: no server has results of none, or of more than 65,535."""
        self._prep_columns = -1
        self._left = head if head < 0xFB else int.from_bytes(data[pos + 1 : pos + 3], "little")
        if not self._left or head > 0xFC or after - pos != (1 if head < 0xFB else 3):
            raise MalformedPacketError
        return _SKIP

    def _defined(self) -> int:
        """All definitions of a list have come; gives the next part."""
        if not self._deprecate:
            return _META
        return _ROWS if self._prep_columns < 0 else self._next_prepared()

    def _next_prepared(self) -> int:
        columns, self._prep_columns = self._prep_columns, 0
        if not columns:
            return _END
        self._left = columns
        return _SKIP

    def _ended(self, data: bytes, pos: int, after: int, *, more: bool = True, plain_ok: bool = False) -> int:
        """An OK or EOF whose body begins at ``pos``; gives END, or FIRST where another result follows."""
        if plain_ok or (self._deprecate and after - pos > 4):
            # Two length-encoded numbers stand before the flags.
            for _ in range(2):
                if pos >= after:
                    raise MalformedPacketError
                first = data[pos]
                pos += 1 if first < 0xFB else {0xFC: 3, 0xFD: 4}.get(first, 9)
        else:
            pos += 2
        if pos + 2 > after:
            raise MalformedPacketError
        status = self.status = data[pos] | data[pos + 1] << 8
        return _FIRST if more and status & _MORE else _END
