"""What values an expression has, as far as merging rows of several shards must know it.

Only types whose text says everything (or for which the server can be asked for a sort key) are known here; an
expression of any other type cannot be sorted, grouped or aggregated over shards.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from homeworld.gateway.sql_ast import Call, Col, Expr, In, Lit, Op, Sub
from homeworld.model.tables import Column
from homeworld.model.vindexes.picker import INTEGERS


class Kind(StrEnum):
    """How values of one expression compare."""

    NUMBER = "number"  # integers and decimals: exact
    DOUBLE = "double"
    BYTES = "bytes"  # binary strings, and texts of fixed form: dates
    MOMENT = "moment"  # TIMESTAMP: its text is of the session's time zone, where an hour may come twice
    TIME = "time"
    WEIGHT = "weight"  # text: by WEIGHT_STRING, asked from the server
    LABEL = "label"  # ENUM and SET: sorted by number, equal by text


@dataclass(frozen=True, slots=True)
class Type:
    """``pad`` is the weight of a space where the collation pads, empty where it does not.

    ``single``: a FLOAT, whose text does not say all of it.
    """

    kind: Kind
    pad: bytes = b""
    single: bool = False


NUMBER = Type(Kind.NUMBER)
_DATES = frozenset({"date", "datetime"})
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
# MySQL may sort a SET of so many members as a negative number, if it has the last.
_BITS_OF_SET = 64
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext"})

# The weight of a space by the collation's family, for those that pad with spaces and have one level.
_PADDING: tuple[tuple[re.Pattern[str], bytes], ...] = (
    (re.compile(r"(?:latin1|ascii)_(?:swedish_ci|general_ci|bin)\Z"), b"\x20"),
    (re.compile(r"utf8(?:mb3|mb4)?_general_ci\Z"), b"\x00\x20"),
    (re.compile(r"utf8(?:mb3|mb4)?_unicode_ci\Z"), b"\x02\x09"),
    (re.compile(r"utf8(?:mb3|mb4)?_unicode_520_ci\Z"), b"\x02\x0a"),
    (re.compile(r"utf8(?:mb3|mb4)?_uca1400_ai_ci\Z"), b"\x02\x09"),
    (re.compile(r"utf8(?:mb3|mb4)?_bin\Z"), b"\x00\x00\x20"),
)
_NOT_PADDING = re.compile(
    r"utf8mb4_(?:[a-z_]*0900_[a-z_]+|(?:general|unicode)_nopad_ci|nopad_bin|uca1400_nopad_ai_ci)\Z"
)


def of_collation(collation: str) -> Type | None:
    """How texts of a collation compare by their weight strings; None: not known for certain."""
    if _NOT_PADDING.match(collation):
        return Type(Kind.WEIGHT)
    for pattern, pad in _PADDING:
        if pattern.match(collation):
            return Type(Kind.WEIGHT, pad)
    return None


def _members(column: Column) -> int:
    """How many members a SET has: none has a comma in it."""
    return column.column_type.count(",") + 1


def of_column(column: Column) -> Type | None:
    """The type of a column's values."""
    if column.type in INTEGERS or column.type in {"decimal", "year"}:
        return NUMBER
    if column.type in {"double", "float"}:
        return Type(Kind.DOUBLE, single=column.type == "float")
    if column.type in _DATES or column.type in _BYTES:
        return Type(Kind.BYTES)
    if column.type == "timestamp":
        return Type(Kind.MOMENT)
    if column.type == "time":
        return Type(Kind.TIME)
    if column.type == "enum" or (column.type == "set" and _members(column) < _BITS_OF_SET):
        return Type(Kind.LABEL)
    if column.type in _TEXTS:
        return of_collation(column.collation)
    return None


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_INTEGER_CALLS = _names(
    """ASCII BIT_LENGTH CHAR_LENGTH CHARACTER_LENGTH COUNT CRC32 DATEDIFF DAY DAYOFMONTH DAYOFWEEK DAYOFYEAR
    FIELD FIND_IN_SET HOUR INSTR ISNULL LENGTH LOCATE MICROSECOND MINUTE MONTH OCTET_LENGTH ORD POSITION
    QUARTER SECOND SIGN TO_DAYS WEEK WEEKDAY WEEKOFYEAR YEAR YEARWEEK"""
)
_SAME_COLLATION = _names("LOWER UPPER LCASE UCASE LTRIM RTRIM LEFT RIGHT SUBSTRING SUBSTR")
_TRUTHS = frozenset(
    {"=", "<=>", ">=", ">", "<=", "<", "<>", "!=", "AND", "OR", "XOR", "NOT", "IS", "LIKE", "BETWEEN",
     "REGEXP", "unary!"}
)  # fmt: skip
_ARITHMETIC = frozenset({"+", "-", "*", "/", "%", "MOD", "DIV"})
_WHOLE = _names("FLOOR CEIL CEILING")
_ROUNDED = _names("ROUND TRUNCATE")
# Servers show no more decimals (MariaDB 38, of which it computes all it shows), but compute with more.
_MOST_DECIMALS = 30

Lookup = Callable[[Col], Column | None]


def infer(expr: Expr, lookup: Lookup) -> Type | None:
    """The type of an expression; None: not known for certain.

    :param lookup: finds the column that a name means.
    """
    match expr:
        case Col():
            column = lookup(expr)
            return None if column is None else of_column(column)
        case Lit(kind="int" | "bool"):
            return NUMBER
        case In() | Sub(kind="exists"):
            return NUMBER
        case Op(op=op, args=args):
            return _operator(op, args, lookup)
        case Call(over=False, opaque=False):
            return _call(expr, lookup)
        case _:
            return None


def _operator(op: str, args: list[Expr], lookup: Lookup) -> Type | None:
    if op in _TRUTHS:
        return NUMBER
    if op in _ARITHMETIC or op in {"unary-", "unary+"}:
        types = [NUMBER if _is_number(arg) else infer(arg, lookup) for arg in args]
        return NUMBER if all(found == NUMBER for found in types) else None
    return None


def _is_number(expr: Expr) -> bool:
    return isinstance(expr, Lit) and expr.kind == "dec" and b"e" not in expr.text.lower()


def _call(call: Call, lookup: Lookup) -> Type | None:
    if call.name in _INTEGER_CALLS:
        return NUMBER
    first = infer(call.args[0], lookup) if call.args else None
    if call.name in _WHOLE or call.name in {"SUM", "AVG", "ABS"}:
        return first if first == NUMBER else None
    if call.name in _ROUNDED:
        return NUMBER if first == NUMBER and _places(call) is not None else None
    if call.name in {"MIN", "MAX", "ANY_VALUE"}:
        return None if first is not None and first.kind is Kind.LABEL else first
    if call.name == "DATE" and len(call.args) == 1 and first in (Type(Kind.BYTES), Type(Kind.MOMENT)):
        return Type(Kind.BYTES)
    if call.name in _SAME_COLLATION and first is not None and first.kind is Kind.WEIGHT:
        return first
    if call.name in {"COALESCE", "IFNULL"}:
        return NUMBER if all(infer(arg, lookup) == NUMBER for arg in call.args) else None
    return None


def _places(call: Call) -> int | None:
    """To how many decimals ROUND or TRUNCATE rounds, where that is said by a number."""
    if len(call.args) == 1:
        return 0 if call.name == "ROUND" else None
    match call.args[1:]:
        case [Lit(kind="int", negative=False, text=text)] if len(text) < 3 and int(text) <= _MOST_DECIMALS:
            return int(text)
        case _:
            return None


def decimals(expr: Expr, lookup: Lookup, *, rounds_quotients: bool) -> int | None:
    """How many decimals the values of a NUMBER may have; None: more than their text shows, so that sums of
    them cannot be made from texts.

    :param rounds_quotients: the server makes a quotient what its text shows before it goes on with it, as
        MySQL does; MariaDB adds quotients with all the digits of its arithmetic.
    """
    found = _decimals(expr, lookup, rounds_quotients)
    return found if found is not None and found <= _MOST_DECIMALS else None


def _decimals(expr: Expr, lookup: Lookup, rounds: bool) -> int | None:
    match expr:
        case Col():
            column = lookup(expr)
            return 0 if column is None or column.type != "decimal" else _scale(column.column_type)
        case Lit(kind="dec", text=text):
            return len(text.partition(b".")[2])
        case Op(op=op, args=args) if op in _ARITHMETIC or op in {"unary-", "unary+"}:
            parts = [_decimals(arg, lookup, rounds) for arg in args]
            known = [part for part in parts if part is not None]
            if op == "DIV":
                return 0
            if len(known) < len(parts) or (op == "/" and not rounds):
                return None
            if op == "/":
                return min(known[0] + 4, _MOST_DECIMALS)
            return sum(known) if op == "*" else max(known)
        case Call(name=name) if name in _ROUNDED:
            return _places(expr)
        case Call(name="ABS" | "COALESCE" | "IFNULL", args=args):
            parts = [_decimals(arg, lookup, rounds) for arg in args]
            return None if None in parts else max((part or 0 for part in parts), default=0)
        case _:  # what else is a number is a whole one
            return 0


def _scale(column_type: str) -> int:
    found = re.match(r"decimal\(\d+,(\d+)\)", column_type)
    return int(found[1]) if found else 0
