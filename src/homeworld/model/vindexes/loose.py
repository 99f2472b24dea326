"""Collation keys of the ``unicode_loose`` vindexes: text without case, accents and trailing spaces.

Vitess hashes the primary weights that Go's collation library gives the text under the CLDR 23 root. The
weights are facts, kept in ``loose_weights.json.gz`` (docs/decisions/routing.md says how they were had); no
library with another version of the table would do, because the weights' numbers themselves are hashed.

Invariant: exact or refused. A character's weight depends on its neighbours only where it begins a
contraction. Those are followed where they stand side by side; where combining marks come between (or a mark
that has a weight of its own could be reordered) the text is refused instead of placed wrongly.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, cast

from homeworld.model.vindexes.base import UnplaceableError, shown

_HANGUL_FIRST, _HANGUL_LAST = 0xAC00, 0xD7A3


@dataclass(frozen=True, slots=True)
class _Weights:
    """The table. ``ascii`` is by byte; ``known`` by character; ``implicit`` has (first, last, offset)."""

    ascii: tuple[bytes, ...]
    known: dict[str, bytes]
    implicit: tuple[tuple[int, int, int], ...]
    marks: frozenset[str]
    refused: frozenset[str]
    contractions: dict[str, dict[str, bytes]]

    def of(self, char: str) -> bytes:
        """The weights of one character that stands alone."""
        found = self.known.get(char)
        if found is not None:
            return found
        code = ord(char)
        if _HANGUL_FIRST <= code <= _HANGUL_LAST:
            lead, rest = divmod(code - _HANGUL_FIRST, 588)
            vowel, tail = divmod(rest, 28)
            jamo = chr(0x1100 + lead) + chr(0x1161 + vowel) + (chr(0x11A7 + tail) if tail else "")
            found = b"".join(self.known[part] for part in jamo)
        else:
            for first, last, offset in self.implicit:
                if first <= code <= last:
                    found = (code + offset).to_bytes(3, "big")
                    break
            else:
                raise UnplaceableError(f"character U+{code:04X} has no known collation weight")
        if len(self.known) < 200_000:  # bounds what strange text can make us keep
            self.known[char] = found
        return found


def _spread(ranges: list[list[int]]) -> frozenset[str]:
    return frozenset(chr(code) for first, last in ranges for code in range(first, last + 1))


@cache
def _weights() -> _Weights:
    packed = resources.files("homeworld.model.vindexes").joinpath("loose_weights.json.gz").read_bytes()
    table = cast("dict[str, Any]", json.loads(gzip.decompress(packed)))
    known = {
        chr(first + at): bytes.fromhex(weight)
        for first, row in table["weights"]
        for at, weight in enumerate(row.split(" "))
    }
    return _Weights(
        ascii=tuple(known[chr(byte)] for byte in range(128)),
        known=known,
        implicit=tuple((first, last, offset) for first, last, offset in table["implicit"]),
        marks=_spread(table["marks"]),
        refused=_spread(table["refused"]),
        contractions={
            start: {suffix: bytes.fromhex(weight) for suffix, weight in suffixes.items()}
            for start, suffixes in table["contractions"].items()
        },
    )


def collation_key(value: bytes) -> bytes:
    """The primary weights of UTF-8 text, trailing spaces left out.

    :raises UnplaceableError: not UTF-8, or text whose key is not certain.
    """
    value = value.rstrip(b" ")
    weights = _weights()
    if value.isascii():  # no contraction is wholly of ASCII
        table = weights.ascii
        return b"".join([table[byte] for byte in value])
    try:
        text = value.decode()
    except UnicodeDecodeError:
        raise UnplaceableError(f"text of a unicode_loose vindex is not UTF-8: {shown(value)}") from None
    if not weights.refused.isdisjoint(text):
        raise UnplaceableError(f"the collation weight of {shown(value)} is not certain")
    if weights.contractions.keys().isdisjoint(text):
        return b"".join([weights.of(char) for char in text])
    parts: list[bytes] = []
    at = 0
    while at < len(text):
        part, taken = _contracted(weights, text, at)
        parts.append(part)
        at += taken
    return b"".join(parts)


def _contracted(weights: _Weights, text: str, at: int) -> tuple[bytes, int]:
    """The weights at ``at`` and how many characters they stand for."""
    char = text[at]
    suffixes = weights.contractions.get(char)
    if suffixes is None or at + 1 == len(text):
        return weights.of(char), 1
    for length in (2, 1):
        suffix = text[at + 1 : at + 1 + length]
        if len(suffix) == length and suffix in suffixes:
            after = text[at + 1 + length : at + 2 + length]
            longer = any(len(other) > length and other.startswith(suffix) for other in suffixes)
            if longer and after in weights.marks:
                break  # the longer one might match across the mark
            return suffixes[suffix], 1 + length
    else:
        after = text[at + 1]
        part_of_longer = any(other.startswith(after) for other in suffixes)
        reaches_over = after in weights.marks and any(not weights.marks.isdisjoint(s) for s in suffixes)
        if not part_of_longer and not reaches_over:
            return weights.of(char), 1
    raise UnplaceableError(f"the collation weight of {shown(text.encode())} is not certain")
