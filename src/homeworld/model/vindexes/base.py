"""What a vindex is: a function from a row's column values to a keyspace id.

A vindex knows no table, no shard and no server. Invariant: for a value that it maps, the keyspace id is byte
for byte the one that Vitess computes; a value for which that is not certain raises, and nothing is guessed.

Values are what the text protocol carries: ``bytes`` (text in UTF-8), ``None`` for NULL, or ``int`` where the
column is known to be an integer. The difference matters: ``hash`` takes the integer -1 but not the text '-1'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from homeworld.model.errors import InvalidError

Value = bytes | int | None
Hasher = Callable[[Value], bytes]


class UnplaceableError(InvalidError):
    """The row's keyspace id cannot be computed, so no shard may have it."""


@dataclass(frozen=True, slots=True)
class Vindex:
    """A vindex function with its parameters applied.

    :param type: the registered name (``xxhash``).
    :param columns: how many columns it reads.
    :param unique: whether a value has exactly one keyspace id (true of every function here; a table's primary
        vindex must be unique).
    :param hashers: one for each column; the keyspace id is ``join`` of their results.
    """

    type: str
    columns: int
    unique: bool
    hashers: tuple[Hasher, ...]
    join: Callable[[Sequence[bytes]], bytes]

    def map(self, values: Sequence[Value]) -> bytes:
        """The keyspace id of one row's values, in the order of the vindex's columns.

        :raises UnplaceableError: a value has no keyspace id, or not the right number of values.
        """
        if len(values) != self.columns:
            raise UnplaceableError(
                f"vindex {self.type} reads {self.columns} columns but was given {len(values)} values"
            )
        return self.join([hasher(value) for hasher, value in zip(self.hashers, values, strict=True)])


def as_bytes(value: Value) -> bytes:
    """The value as Vitess's ``ToBytes`` gives it: NULL is empty."""
    if value is None:
        return b""
    if isinstance(value, int):
        return b"%d" % value
    return value


def as_uint64(value: Value, vindex: str, *, wrap_negative: bool = False) -> int:
    """The value as an unsigned 64-bit integer.

    :param wrap_negative: whether a negative *integer* is taken as its two's complement.
    :raises UnplaceableError: NULL, not decimal digits, or out of range.
    """
    if isinstance(value, int):
        if 0 <= value < 1 << 64:
            return value
        if wrap_negative and -(1 << 63) <= value < 0:
            return value + (1 << 64)
    elif value is not None and value.isdigit():
        number = int(value)
        if number < 1 << 64:
            return number
    raise UnplaceableError(f"vindex {vindex} has no keyspace id for {shown(value)}")


def shown(value: Value) -> str:
    """A value for a message, shortened: rows are data of others and do not belong into logs whole."""
    if value is None:
        return "NULL"
    text = str(value) if isinstance(value, int) else repr(value)[1:]
    return text if len(text) <= 24 else text[:20] + "…'"
