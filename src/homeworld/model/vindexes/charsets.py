"""Text of a column's own character set as UTF-8, which is what vindexes hash.

A client speaks UTF-8 while the copier reads the stored bytes; both must arrive at the same keyspace id.
Only character sets whose conversion is certain are here; the others are refused.
"""

from __future__ import annotations

from collections.abc import Callable

from homeworld.model.errors import InvalidError

_SAME = frozenset({"ascii", "binary", "utf8", "utf8mb3", "utf8mb4"})

# MySQL's latin1 is Windows-1252, with the five bytes that Windows leaves open kept as control characters.
_LATIN1 = tuple(
    chr(byte).encode() if byte in {0x81, 0x8D, 0x8F, 0x90, 0x9D} else bytes([byte]).decode("cp1252").encode()
    for byte in range(256)
)


def _latin1(value: bytes) -> bytes:
    return value if value.isascii() else b"".join([_LATIN1[byte] for byte in value])


def to_utf8(charset: str) -> Callable[[bytes], bytes] | None:
    """The conversion from that character set; None where the bytes already are UTF-8 or not text.

    :raises InvalidError: no certain conversion is known.
    """
    if charset in _SAME:
        return None
    if charset == "latin1":
        return _latin1
    raise InvalidError(f"rows cannot be placed by a column of character set {charset}; convert it to utf8mb4")
