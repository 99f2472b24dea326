"""Rows of several shards made into the rows of one answer: sorted, cut, made distinct, aggregated.

Pure functions over text-protocol values. Invariant: values are compared and added exactly as the server does
(numbers as decimals, text by the weights the server gave), so that it does not show where a row was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from enum import StrEnum
from itertools import pairwise
from typing import Any

from homeworld.gateway.plan import Row
from homeworld.gateway.router_types import NUMBER, Kind, Type
from homeworld.model.errors import HomeworldError

# 65 digits and 30 decimals are the server's limits; sums of them must not round either.
_EXACT = Context(prec=200)
_GROUP = 9
_MOST_DECIMALS = 30
_DIVISION_DECIMALS = 4
_MOST_SCALE = 26
_MOST_WHOLE = 36


class InexactAverageError(HomeworldError):
    """VT12001: unsupported: AVG of numbers with so many digits over several shards"""

    code = "unsupported"
    http_status = 422
    mysql_errno = 1235
    sqlstate = "42000"


class DoubtfulMomentError(HomeworldError):
    """VT12001: unsupported: TIMESTAMPs of an hour that comes twice; SET time_zone = '+00:00' first"""

    code = "unsupported"
    http_status = 422
    mysql_errno = 1235
    sqlstate = "42000"


class LongTextsError(HomeworldError):
    """VT12001: unsupported: ORDER BY of texts alike in all that servers sort by; ORDER BY LEFT(…, 300)"""

    code = "unsupported"
    http_status = 422
    mysql_errno = 1235
    sqlstate = "42000"


class ColumnsChangedError(HomeworldError):
    """The table's columns have changed meanwhile; send the statement again."""

    code = "columns_changed"
    retryable = True


@dataclass(frozen=True, slots=True)
class Key:
    """A value to sort or group by: the column ``index`` of each row (negative: from the end).

    :param text: of a moment that a server may also compare by its text: the column with that. Rows of which
        the two say different things are not sorted or grouped but refused.
    :param twin: of a moment in a group: another of the same group, which may be of the same text only.
    :param most: servers may sort by no more than so many bytes of it (``max_sort_length``); 0: by all.
    """

    index: int
    type: Type
    descending: bool = False
    text: int | None = None
    twin: int | None = None
    most: int = 0


def _microseconds(value: bytes) -> int:
    negative = value.startswith(b"-")
    hours, minutes, seconds = value.lstrip(b"-").split(b":")
    whole, _, fraction = seconds.partition(b".")
    found = ((int(hours) * 60 + int(minutes)) * 60 + int(whole)) * 1_000_000 + int(fraction.ljust(6, b"0"))
    return -found if negative else found


def _number(value: bytes) -> Decimal | int:
    return int(value) if b"." not in value else Decimal(value.decode())


def _padded(values: Sequence[bytes | None], pad: bytes) -> Callable[[bytes], bytes]:
    """Make weights compare as if each text went on with spaces for ever."""
    longest = max((len(value) for value in values if value is not None), default=0)

    def padded(value: bytes) -> bytes:
        missing = longest - len(value)
        return value + pad * (missing // len(pad) + 1) if missing > 0 else value + pad

    return padded


def _converter(type_: Type, values: Sequence[bytes | None]) -> Callable[[bytes], Any]:
    match type_.kind:
        case Kind.NUMBER | Kind.LABEL | Kind.MOMENT:  # the sort column holds the label's or moment's number
            return _number
        case Kind.DOUBLE:
            return float
        case Kind.TIME:
            return _microseconds
        case Kind.WEIGHT if type_.pad:
            return _padded(values, type_.pad)
        case _:
            return bytes


def sort(rows: list[Row], keys: Sequence[Key]) -> list[Row]:
    """Rows in the order of the keys; NULL is before everything else. Equal rows keep their order.

    :raises DoubtfulMomentError: a key's moments and their texts disagree.
    :raises LongTextsError: a server might take two keys for equal that are not.
    """
    for key in reversed(keys):
        index = key.index
        if key.text is not None:
            _sort_moments(rows, key, key.text)
            continue
        convert = _converter(key.type, [row[index] for row in rows])
        if key.most:
            _check_cut(key, {convert(value) for row in rows if (value := row[index]) is not None})

        def of(row: Row, index: int = index, convert: Callable[[bytes], Any] = convert) -> tuple[bool, Any]:
            value = row[index]
            return (False, 0) if value is None else (True, convert(value))

        rows.sort(key=of, reverse=key.descending)
    return rows


def _check_cut(key: Key, values: set[bytes]) -> None:
    """A server that sorts by the first bytes only, and one that has an index, must sort these alike."""
    if max(map(len, values), default=0) < key.most:
        return
    ordered = sorted(values)
    if any(one[: key.most] == other[: key.most] for one, other in pairwise(ordered)):
        raise LongTextsError


def _sort_moments(rows: list[Row], key: Key, text: int) -> None:
    """Sort by moment and text alike, so that it does not matter by which of them a server sorts."""

    def of(row: Row) -> tuple[Decimal | int, bytes]:
        moment = row[key.index]
        return (-1, b"") if moment is None else (_number(moment), row[text] or b"")

    rows.sort(key=of, reverse=key.descending)
    texts = [of(row)[1] for row in rows]
    if texts != sorted(texts, reverse=key.descending):
        raise DoubtfulMomentError


def _identity(type_: Type) -> Callable[[bytes], Hashable]:
    """What is equal for equal values."""
    match type_.kind:
        case Kind.NUMBER | Kind.MOMENT:
            return _number
        case Kind.TIME:
            return _microseconds
        case Kind.WEIGHT if type_.pad:
            pad = type_.pad

            def trimmed(value: bytes) -> bytes:
                while value.endswith(pad):
                    value = value[: -len(pad)]
                return value

            return trimmed
        case _:
            return bytes


def identify(keys: Sequence[Key]) -> Callable[[Row], tuple[Hashable, ...]]:
    """A function from a row to what it has in common with the rows of its group."""
    parts = [(key.index, _identity(key.type)) for key in keys]

    def of(row: Row) -> tuple[Hashable, ...]:
        return tuple(None if (value := row[index]) is None else identity(value) for index, identity in parts)

    return of


def _check_moments(rows: Sequence[Row], keys: Sequence[Key]) -> None:
    """A server that groups by moments, and one that does by their texts, must make the same groups.

    :raises DoubtfulMomentError: they would not.
    """
    if all(key.text is None for key in keys):
        return
    texts = Type(Kind.BYTES)
    of = identify(keys)
    by_text = identify([key if key.text is None else Key(key.text, texts) for key in keys])
    seen: dict[tuple[Hashable, ...], tuple[Hashable, ...]] = {}
    for row in rows:
        moments = of(row)
        joined = any(key.twin is not None and row[key.twin] != row[key.index] for key in keys)
        if joined or seen.setdefault(by_text(row), moments) != moments:
            raise DoubtfulMomentError


class Aggregate(StrEnum):
    """How one column of a group is made from the shards' columns."""

    FIRST = "first"
    SUM = "sum"
    COUNT = "count"
    MIN = "min"
    MAX = "max"
    AVG = "avg"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an aggregated answer.

    :param index: where it is in a shard's row.
    :param compared: for MIN and MAX, the column that is compared (the weights of a text).
    :param total: for AVG, the columns with the sum and the count.
    """

    index: int
    how: Aggregate
    type: Type = NUMBER
    compared: int = 0
    total: tuple[int, int] = (0, 0)


def add(values: Iterable[bytes | None]) -> bytes | None:
    """The exact sum of decimal texts, with as many decimals as the longest; None where all are NULL."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    if not any(b"." in value for value in known):
        return b"%d" % sum(map(int, known))
    total = Decimal(0)
    for value in known:
        total = _EXACT.add(total, Decimal(value.decode()))
    return f"{total:f}".encode()


def average(total: bytes | None, count: int) -> bytes | None:
    """SUM by COUNT as the server divides: four decimals more, of a quotient cut at whole groups of digits.

    :raises InexactAverageError: so many digits that the server's arithmetic has other limits.
    """
    if total is None or count == 0:
        return None
    number = Decimal(total.decode())
    whole, _, fraction = total.partition(b".")
    scale = len(fraction)
    if scale > _MOST_SCALE or len(whole) > _MOST_WHOLE:  # there the server's own division cuts earlier
        raise InexactAverageError
    stored = -(-scale // _GROUP) * _GROUP
    wanted = max(0, _DIVISION_DECIMALS - (stored - scale))
    digits = -(-(stored + wanted) // _GROUP) * _GROUP
    decimals = min(scale + _DIVISION_DECIMALS, _MOST_DECIMALS)
    negative = number < 0
    scaled = int(_EXACT.scaleb(number.copy_abs(), digits)) // count
    if digits > decimals:  # half away from zero
        unit = 10 ** (digits - decimals)
        scaled, rest = divmod(scaled, unit)
        scaled += 2 * rest >= unit
    elif digits < decimals:
        scaled *= 10 ** (decimals - digits)
    text = f"{scaled:0{decimals + 1}d}"
    return (("-" if negative and scaled else "") + text[:-decimals] + "." + text[-decimals:]).encode()


def _best(rows: Sequence[Row], column: Column) -> Row:
    """The row with the least or greatest value; any where all are NULL.

    :raises DoubtfulMomentError: a server that compares moments by their texts would give another.
    """
    compared = column.compared
    known = [row for row in rows if row[column.index] is not None and row[compared] is not None]
    if not known:
        return rows[0]
    convert = _converter(column.type, [row[compared] for row in known])

    def of(row: Row) -> Any:
        return convert(row[compared] or b"")

    pick = min if column.how is Aggregate.MIN else max
    best = pick(known, key=of)
    if column.type.kind is Kind.MOMENT and best[column.index] != pick(
        row[column.index] or b"" for row in known
    ):
        raise DoubtfulMomentError
    return best


def _aggregate(rows: Sequence[Row], columns: Sequence[Column]) -> Row:
    made = list(rows[0])
    for column in columns:
        index = column.index
        match column.how:
            case Aggregate.SUM:
                made[index] = add(row[index] for row in rows)
            case Aggregate.COUNT:
                made[index] = b"%d" % sum(int(row[index] or 0) for row in rows)
            case Aggregate.MIN | Aggregate.MAX:
                best = _best(rows, column)
                made[index], made[column.compared] = best[index], best[column.compared]
            case Aggregate.AVG:
                total, count = column.total
                made[index] = average(
                    add(row[total] for row in rows), sum(int(row[count] or 0) for row in rows)
                )
            case Aggregate.FIRST:
                pass
    return tuple(made)


@dataclass(frozen=True, slots=True)
class Merge:
    """How the rows of shards become an answer.

    :param width: how many columns each row has; 0: not known. A row of another width is an error.
    :param distinct: keys by which equal rows are one.
    :param columns: aggregates; None: rows are not grouped.
    :param groups: what rows of one group have in common; empty with ``columns``: all are one group.
    :param order: keys to sort by; ``limit`` and ``offset`` cut after that.
    :param hidden: how many columns at the end are not for the client.
    """

    order: tuple[Key, ...] = ()
    limit: int | None = None
    offset: int = 0
    hidden: int = 0
    distinct: tuple[Key, ...] | None = None
    columns: tuple[Column, ...] | None = None
    groups: tuple[Key, ...] = ()
    width: int = 0

    def __call__(self, results: Sequence[Sequence[Row]]) -> Sequence[Row]:
        """Merge the rows of every shard.

        :raises HomeworldError: the rows that have come cannot be merged exactly.
        """
        rows: list[Row] = [row for result in results for row in result]
        if self.width and rows and len(rows[0]) != self.width:
            raise ColumnsChangedError
        self._check_limits(results)
        if self.columns is not None:
            rows = self._grouped(rows, self.columns)
        elif self.distinct is not None:
            _check_moments(rows, self.distinct)
            of = identify(self.distinct)
            seen: dict[tuple[Hashable, ...], Row] = {}
            for row in rows:
                seen.setdefault(of(row), row)
            rows = list(seen.values())
        if self.order:
            rows = sort(rows, self.order)
        if self.offset or self.limit is not None:
            end = None if self.limit is None else self.offset + self.limit
            rows = rows[self.offset : end]
        if self.hidden:
            return [row[: -self.hidden] for row in rows]
        return rows

    def _check_limits(self, results: Sequence[Sequence[Row]]) -> None:
        """Where LIMIT has cut a shard's rows, those behind may be equal to the last by what it sorts by."""
        if self.limit is None or self.columns is not None:
            return
        for result in results:
            if result and len(result) >= self.offset + self.limit:
                ends = ((key, result[-1][key.index] or b"") for key in self.order if key.most)
                if any(len(value) >= key.most for key, value in ends):
                    raise LongTextsError

    def _grouped(self, rows: list[Row], columns: tuple[Column, ...]) -> list[Row]:
        _check_moments(rows, self.groups)
        of = identify(self.groups)
        groups: dict[tuple[Hashable, ...], list[Row]] = {}
        for row in rows:
            groups.setdefault(of(row), []).append(row)
        return [_aggregate(group, columns) for group in groups.values()]
