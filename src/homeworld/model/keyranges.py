"""Key ranges: which keyspace ids a shard owns.

A range is written as Vitess writes it: ``-`` (everything), ``-80``, ``80-``, ``40-80``. Bounds are hex
strings read as a prefix of bytes; a keyspace id is in the range when start <= id < end, comparing bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from homeworld.model.errors import InvalidError

_NAME = re.compile(r"^([0-9a-f]*)-([0-9a-f]*)$")


@dataclass(frozen=True, slots=True, order=True)
class KeyRange:
    """Half-open range of keyspace ids; an empty bound is unbounded."""

    start: bytes
    end: bytes

    @classmethod
    def parse(cls, name: str) -> KeyRange:
        """Read ``-80`` and the like. ``0`` and ``-`` both mean everything, as in Vitess.

        :raises InvalidError: not a shard name.
        """
        if name in {"0", "-"}:
            return cls(b"", b"")
        match = _NAME.match(name)
        if match is None or len(match[1]) % 2 or len(match[2]) % 2:
            raise InvalidError(f"{name!r} is not a shard name; expected the form -80, 80-, 40-80")
        found = cls(bytes.fromhex(match[1]), bytes.fromhex(match[2]))
        if found.end and found.start >= found.end:
            raise InvalidError(f"shard {name!r} ends before it starts")
        return found

    @property
    def name(self) -> str:
        """The shard name of this range."""
        return f"{self.start.hex()}-{self.end.hex()}"

    def __contains__(self, keyspace_id: bytes) -> bool:
        return self.start <= keyspace_id and (not self.end or keyspace_id < self.end)


def split_evenly(count: int) -> tuple[KeyRange, ...]:
    """Divide all keyspace ids into ``count`` ranges (1 to 256) as even as one byte allows.

    >>> [r.name for r in split_evenly(2)]
    ['-80', '80-']
    """
    if not 1 <= count <= 256:
        raise InvalidError("a keyspace has between 1 and 256 shards")
    bounds = [b"", *(bytes([256 * i // count]) for i in range(1, count)), b""]
    return tuple(KeyRange(a, b) for a, b in pairwise(bounds))
