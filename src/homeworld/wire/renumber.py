"""Answers joined into one: packets numbered on, and MORE_RESULTS set on all but the last.

When the statements of one text go to different places, their answers must look to the client as one server's
answer to the whole text. This rewrites one answer at a time, packet by packet; rows are not looked into.
"""

from __future__ import annotations

from enum import IntEnum

from homeworld.wire.constants import Cap, Status
from homeworld.wire.packets import MAX_PAYLOAD, Reader, lenenc_int
from homeworld.wire.results import is_end


class _Stage(IntEnum):
    FIRST = 0
    COLUMNS = 1
    METADATA_EOF = 2
    ROWS = 3


class Renumber:
    """Rewrites the packets of one answer after another.

    ``sequence`` is the number of the next packet to the client; it goes on over all answers.

    :param capabilities: what was agreed, the same with client and server.
    """

    __slots__ = ("_buffer", "_caps", "_continued", "_left", "_stage", "more", "sequence")

    def __init__(self, capabilities: int, sequence: int = 1) -> None:
        self._caps = capabilities
        self._buffer = bytearray()
        self._stage = _Stage.FIRST
        self._left = 0
        self._continued = False
        self.sequence = sequence
        self.more = False

    def begin(self, *, more: bool) -> None:
        """The next answer begins; ``more``: another will follow it."""
        self._stage = _Stage.FIRST
        self._continued = False
        self._buffer.clear()
        self.more = more

    def frame(self, payload: bytes) -> bytes:
        """A payload of the gateway's own as a packet with the next number (under 16 MB)."""
        packet = len(payload).to_bytes(3, "little") + bytes((self.sequence & 0xFF,)) + payload
        self.sequence += 1
        return packet

    def feed(self, data: bytes) -> bytes:
        """Take a chunk of the server's answer; gives what can go to the client."""
        buffer = self._buffer
        buffer += data
        out: list[bytes] = []
        pos = 0
        while len(buffer) - pos >= 4:
            length = int.from_bytes(buffer[pos : pos + 3], "little")
            if len(buffer) - pos < 4 + length:
                break
            payload = bytes(buffer[pos + 4 : pos + 4 + length])
            pos += 4 + length
            if not self._continued:
                payload = self._rewrite(payload)
            self._continued = length == MAX_PAYLOAD
            out.append(self.frame(payload))
        del buffer[:pos]
        return b"".join(out)

    def _rewrite(self, payload: bytes) -> bytes:
        head = payload[:1]
        if head == b"\xff" and self._stage is not _Stage.COLUMNS:
            return payload
        if self._stage is _Stage.FIRST:
            if head == b"\x00":
                return self._flagged(payload, ok=True)
            self._left = Reader(payload).lenenc_int() if head != b"\xfb" else 0
            self._stage = _Stage.COLUMNS
        elif self._stage is _Stage.COLUMNS:
            self._left -= 1
            if not self._left:
                self._stage = _Stage.ROWS if self._caps & Cap.DEPRECATE_EOF else _Stage.METADATA_EOF
        elif self._stage is _Stage.METADATA_EOF:
            self._stage = _Stage.ROWS
            return self._flagged(payload, ok=False)
        elif is_end(payload, self._caps):
            self._stage = _Stage.FIRST
            return self._flagged(payload, ok=bool(self._caps & Cap.DEPRECATE_EOF))
        return payload

    def _flagged(self, payload: bytes, *, ok: bool) -> bytes:
        if not self.more:
            return payload
        at = 3
        if ok:
            reader = Reader(payload, 1)
            at = 1 + sum(len(lenenc_int(reader.lenenc_int())) for _ in range(2))
        status = int.from_bytes(payload[at : at + 2], "little") | Status.MORE_RESULTS_EXISTS
        return payload[:at] + status.to_bytes(2, "little") + payload[at + 2 :]
