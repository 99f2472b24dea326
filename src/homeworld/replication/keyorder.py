"""Keys of rows in the order in which the server has them, as SQL and as answers to "which is greater?".

A key is the tuple of the key columns' bytes as they stand in a row. Numbers, dates, BIT, ENUM, SET and binary
strings are compared here exactly as InnoDB compares them. Text of any collation and types with an order of
their own (UUID, INET) are compared by the server, by the very operator that orders its index; it is asked
once for all keys of a batch. Nothing here knows chunks.

Invariant: ``rank`` agrees with ``ORDER BY`` of the key's index for every pair of stored values.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Callable, Sequence
from decimal import Decimal
from operator import itemgetter
from typing import Any, TypeAlias, cast

from homeworld.model.errors import InvalidError
from homeworld.model.names import quote
from homeworld.model.tables import Column, Table
from homeworld.replication.changes import Row
from homeworld.replication.column_types import error_value, labels_of, members
from homeworld.replication.connection import Connection

#: The key columns' bytes; never NULL.
Key: TypeAlias = tuple[bytes, ...]
_Sign: TypeAlias = dict[tuple[int, bytes, bytes], int]

_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_MOMENTS = frozenset({"date", "datetime", "timestamp"})
_TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_CAST = frozenset({"uuid", "inet4", "inet6"})
_PAIRS_A_STATEMENT = 2000
_DECLARED = re.compile(r"^char\((\d+)\)", re.IGNORECASE)
# Bytes of the widest sign, of the character sets with collations that know signs without weight.
_WIDTHS = {"utf8": 3, "utf8mb3": 3, "utf8mb4": 4, "ucs2": 2, "utf16": 4, "utf32": 4}


class KeyColumn(ABC):
    """One column of a key: how its values are written in SQL and how they compare."""

    on_server = False

    def __init__(self, column: Column) -> None:
        self.name = quote(column.name)

    @abstractmethod
    def literal(self, value: bytes) -> str:
        """The value in SQL, to be compared with the column."""

    def sortable(self, value: bytes) -> Any:
        """Something Python orders as the server orders ``value``."""
        raise NotImplementedError

    def alone(self, value: bytes) -> str:
        """The value in SQL, to be compared with another such without the column."""
        return self.literal(value)

    def compare(self, operator: str, value: bytes) -> str:
        """``column operator value``; the operator is one of ``= > >= < <=``."""
        return f"{self.name} {operator} {self.literal(value)}"


class _Number(KeyColumn):
    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self._read: Callable[[str], Any] = int if column.type in _INTEGERS else Decimal

    def literal(self, value: bytes) -> str:
        self.sortable(value)  # nothing but a number gets into SQL unquoted
        return value.decode()

    def sortable(self, value: bytes) -> Any:
        return self._read(value.decode())


class _Bits(KeyColumn):
    def literal(self, value: bytes) -> str:
        return str(int.from_bytes(value, "big"))

    def sortable(self, value: bytes) -> Any:
        return value  # of one length


class _Bytes(KeyColumn):
    def literal(self, value: bytes) -> str:
        return f"x'{value.hex()}'"

    def sortable(self, value: bytes) -> Any:
        return value


class _Moment(KeyColumn):
    def literal(self, value: bytes) -> str:
        return "'" + value.decode("ascii").replace("'", "") + "'"

    def sortable(self, value: bytes) -> Any:
        return value  # of one width, most significant first


class _Time(_Moment):
    def sortable(self, value: bytes) -> Any:
        sign, text = (-1, value[1:]) if value[:1] == b"-" else (1, value)
        hours, minutes, seconds = text.split(b":")
        return sign * (int(hours) * 3600 + int(minutes) * 60 + Decimal(seconds.decode()))


class _Labelled(KeyColumn):
    """ENUM and SET, which are ordered by what they store: an ordinal or a bit for each label."""

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        labels = labels_of(column)
        self._column = column
        self._is_set = column.type == "set"
        self._numbers = {label: (1 << at if self._is_set else at + 1) for at, label in enumerate(labels)}
        self._numbers.setdefault(b"" if self._is_set else error_value(column), 0)
        self._last = len(labels)

    def literal(self, value: bytes) -> str:
        return str(self.sortable(value))

    def sortable(self, value: bytes) -> Any:
        try:
            if self._is_set:
                return sum(self._numbers[label] for label in members(self._column, value))
            return self._numbers[value]
        except KeyError:
            raise InvalidError(f"{value!r} is no label of key column {self.name}") from None

    def compare(self, operator: str, value: bytes) -> str:
        # Neither flavour walks an index by an inequality on an ENUM; by a list it does.
        if self._is_set or operator == "=":
            return super().compare(operator, value)
        number = self.sortable(value)
        keep: Callable[[int], bool] = {
            ">": number.__lt__, ">=": number.__le__, "<": number.__gt__, "<=": number.__ge__
        }[operator]  # fmt: skip
        listed = [str(ordinal) for ordinal in range(self._last + 1) if keep(ordinal)]
        return f"{self.name} IN ({','.join(listed)})" if listed else "FALSE"


class _Text(KeyColumn):
    on_server = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self._charset = column.charset
        self._collation = column.collation

    def literal(self, value: bytes) -> str:
        return f"_{self._charset} x'{value.hex()}'"

    def alone(self, value: bytes) -> str:
        return f"{self.literal(value)} COLLATE {self._collation}"


class _Char(_Text):
    """CHAR. Where a bound fills the column to its last byte and ends in a sign without weight, as U+200B, and
    another row has the same text without it, MariaDB (10.11) leaves rows out of a range of the index: what
    plans the range holds the two for different, the index for equal. So the text without that sign stands for
    such a bound; whether the two are equal the server says, once, as it reads the statement.
    """

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        length = _DECLARED.search(column.column_type)
        weighs_all = column.collation.endswith(("_bin", "_general_ci"))
        self._width = 0 if weighs_all else _WIDTHS.get(column.charset, 0)
        self._filled = self._width * int(length[1] if length else 1)

    def literal(self, value: bytes) -> str:
        whole = super().literal(value)
        if not self._width or len(value) < self._filled:
            return whole
        less = super().literal(value[: -self._width])  # every sign is as wide as can be
        return f"IF({whole} COLLATE {self._collation} = {less},{less},{whole})"

    def alone(self, value: bytes) -> str:
        return f"{super().literal(value)} COLLATE {self._collation}"


class _Typed(KeyColumn):
    """UUID and addresses: as text, because as bytes they would be read as what is stored."""

    on_server = True

    def __init__(self, column: Column) -> None:
        super().__init__(column)
        self._type = column.type

    def literal(self, value: bytes) -> str:
        return f"_utf8mb4 x'{value.hex()}'"

    def alone(self, value: bytes) -> str:
        return f"CAST({self.literal(value)} AS {self._type})"


def _key_column(column: Column) -> KeyColumn:
    kinds: tuple[tuple[frozenset[str], type[KeyColumn]], ...] = (
        (_INTEGERS | {"decimal"}, _Number),
        (frozenset({"char"}), _Char),
        (_TEXT, _Text),
        (_BYTES, _Bytes),
        (_MOMENTS, _Moment),
        (frozenset({"time"}), _Time),
        (frozenset({"bit"}), _Bits),
        (frozenset({"enum", "set"}), _Labelled),
        (_CAST, _Typed),
    )
    for types, kind in kinds:
        if column.type in types:
            return kind(column)
    raise InvalidError(
        f"column {column.name!r} of type {column.type} cannot be part of a key that is copied by"
    )


class TableKey:
    """The key of one table.

    :raises InvalidError: the table has no key, or one that cannot be walked in order.
    """

    def __init__(self, table: Table) -> None:
        if table.key is None:
            raise InvalidError(f"table {table.name!r} has no unique key over NOT NULL columns")
        names = [column.name.lower() for column in table.columns]
        self.index = table.key.name
        self.positions = tuple(names.index(name.lower()) for name in table.key.columns)
        self.columns = tuple(_key_column(table.columns[at]) for at in self.positions)
        self.names = tuple(table.columns[at].name for at in self.positions)
        self.order_by = ", ".join(column.name for column in self.columns)
        self.on_server = any(column.on_server for column in self.columns)
        self.of: Callable[[Row], Key] = _getter(self.positions)

    def equals(self, key: Key) -> str:
        """The condition that finds the row of this key."""
        return " AND ".join(
            column.compare("=", value) for column, value in zip(self.columns, key, strict=True)
        )

    def any_of(self, keys: Sequence[Key]) -> str:
        """The condition that finds the rows of these (at least one) keys."""
        if len(self.columns) == 1:
            (column,) = self.columns
            return f"{column.name} IN ({','.join(column.literal(key[0]) for key in keys)})"
        return " OR ".join(f"({self.equals(key)})" for key in keys)

    def after(self, key: Key) -> str:
        """The condition for keys greater than ``key``."""
        return self._beyond(key, ">", ">")

    def upto(self, key: Key) -> str:
        """The condition for keys not greater than ``key``."""
        return self._beyond(key, "<", "<=")

    def _beyond(self, key: Key, operator: str, last: str) -> str:
        # A row constructor's inequality walks no index; this form does on both flavours.
        text = ""
        for at in reversed(range(len(key))):
            column, value = self.columns[at], key[at]
            if not text:
                text = column.compare(last, value)
            else:
                text = f"({column.compare(operator, value)} OR ({column.compare('=', value)} AND {text}))"
        return text

    def ranks(self, connection: Connection | None, keys: Sequence[Key], edges: Sequence[Key]) -> list[int]:
        """For each key how many of ``edges`` (ascending) are less than it.

        :param connection: to the server whose order it is; may be None where Python can compare.
        """
        if not edges:
            return [0] * len(keys)
        if not self.on_server:
            sorted_edges = [self._sortable(edge) for edge in edges]
            return [bisect_left(sorted_edges, self._sortable(key)) for key in keys]
        if connection is None:
            raise InvalidError("the order of these keys can be told by the server only")
        signs = self._ask(connection, keys, edges)
        return [
            bisect_left(edges, 0, key=lambda edge, key=key: -self._sign(key, edge, signs)) for key in keys
        ]

    def ordered(self, connection: Connection | None, keys: Sequence[Key]) -> list[Key]:
        """Distinct keys in ascending order."""
        if not self.on_server:
            return sorted(keys, key=self._sortable)
        signs = self._ask(connection, keys, keys) if connection is not None and len(keys) > 1 else {}
        below = [sum(self._sign(key, other, signs) > 0 for other in keys) for key in keys]
        return [key for _, key in sorted(zip(below, keys, strict=True), key=itemgetter(0))]

    def _sortable(self, key: Key) -> tuple[Any, ...]:
        return tuple([column.sortable(value) for column, value in zip(self.columns, key, strict=True)])

    def _sign(self, key: Key, edge: Key, signs: _Sign) -> int:
        """-1, 0 or 1 as ``key`` is less than, equal to or greater than ``edge``."""
        for at, (column, ours, theirs) in enumerate(zip(self.columns, key, edge, strict=True)):
            if ours == theirs:
                continue  # the same bytes are equal in every order
            if column.on_server:
                sign = signs[at, ours, theirs]
            else:
                left, right = column.sortable(ours), column.sortable(theirs)
                sign = (left > right) - (left < right)
            if sign:
                return sign
        return 0

    def _ask(self, connection: Connection, keys: Sequence[Key], edges: Sequence[Key]) -> _Sign:
        wanted: dict[tuple[int, bytes, bytes], None] = {}
        for at, column in enumerate(self.columns):
            if column.on_server:
                theirs = {edge[at] for edge in edges}
                for ours in {key[at] for key in keys}:
                    wanted.update(((at, ours, their), None) for their in theirs if their != ours)
        pairs = list(wanted)
        signs: _Sign = {}
        for start in range(0, len(pairs), _PAIRS_A_STATEMENT):
            part = pairs[start : start + _PAIRS_A_STATEMENT]
            texts = [
                (self.columns[at].alone(ours), self.columns[at].alone(their)) for at, ours, their in part
            ]
            row = connection.query_one("SELECT " + ",".join(f"({a}>{b})-({a}<{b})" for a, b in texts))
            signs.update({pair: int(value or 0) for pair, value in zip(part, row, strict=True)})
        return signs


def _getter(positions: tuple[int, ...]) -> Callable[[Row], Key]:
    first, last = positions[0], positions[-1]
    if positions == tuple(range(first, last + 1)):
        cut = slice(first, last + 1)
        return cast("Callable[[Row], Key]", itemgetter(cut))
    return cast("Callable[[Row], Key]", itemgetter(*positions))
