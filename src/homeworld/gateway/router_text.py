"""Texts for shards, made from a statement's own text by changing it at a few places.

A template is made from one sample text and must serve every text of the same fingerprint, so what it keeps is
the sample cut at its literals: bytes, or the number of a literal, which is filled in from the text at hand.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence

from homeworld.gateway.sql_tokens import LITERALS, Token

Literals = Sequence[bytes]
Piece = bytes | int | Callable[[Literals], bytes]
"""Bytes as they are, the number of a literal, or something computed from the literals."""

Change = tuple[int, int, Sequence[Piece]]
"""Replace the bytes from … to … of the sample by pieces."""


class Sample:
    """One text of a fingerprint and where its literals are."""

    def __init__(self, sql: bytes, words: Iterable[Token]) -> None:
        self.sql = sql
        self.spans = [(token.start, token.end) for token in words if token.kind in LITERALS]
        self._starts = [start for start, _ in self.spans]

    def has_literals(self, start: int, end: int) -> bool:
        """Whether a literal stands between ``start`` and ``end``."""
        number = bisect_left(self._starts, start)
        return number < len(self.spans) and self.spans[number][0] < end

    def cut(self, start: int, end: int) -> list[Piece]:
        """The text from ``start`` to ``end`` as pieces; literals must be wholly inside or outside."""
        found: list[Piece] = []
        at = start
        number = bisect_left(self._starts, start)
        while number < len(self.spans) and self.spans[number][1] <= end:
            literal_start, literal_end = self.spans[number]
            found += (self.sql[at:literal_start], number)
            at = literal_end
            number += 1
        found.append(self.sql[at:end])
        return found

    def changed(self, changes: Iterable[Change], first: int = 0, last: int | None = None) -> list[Piece]:
        """The text from ``first`` to ``last`` (all of it) with those changes that lie wholly inside, which
        must not overlap; those at one place go in as given.
        """
        found: list[Piece] = []
        at = first
        stop = len(self.sql) if last is None else last
        for start, end, pieces in sorted(changes, key=lambda change: change[:2]):
            if start < first or end > stop:
                continue
            found += self.cut(at, start)
            found += pieces
            at = end
        found += self.cut(at, stop)
        return _joined(found)


def _joined(pieces: Iterable[Piece]) -> list[Piece]:
    """Neighbouring bytes joined to one."""
    found: list[Piece] = []
    for piece in pieces:
        if isinstance(piece, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += piece
        elif piece != b"":
            found.append(piece)
    return found


def fill(pieces: Iterable[Piece], literals: Literals) -> bytes:
    """The text that pieces make with these literals."""
    return b"".join(
        [
            piece
            if isinstance(piece, bytes)
            else literals[piece]
            if isinstance(piece, int)
            else piece(literals)
            for piece in pieces
        ]
    )
