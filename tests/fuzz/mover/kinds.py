"""Kinds of columns: how each is declared, and SQL expressions for values of it, the usual and the odd.

Everything comes from the given random numbers. A value need not be allowed: what the source makes of it, or
that it refuses it, is the source's matter.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from homeworld.model.topology import Flavor

Numbers = random.Random


@dataclass(frozen=True, slots=True)
class Kind:
    """A declared type with a source of values.

    :param declared: what stands behind the column's name in CREATE TABLE.
    :param value: an SQL expression for a value.
    :param keyable: it may stand in a key as a whole.
    :param places: a vindex may read it.
    :param short: a prefix of so many characters is what may stand in a further key; 0: all of it.
    """

    declared: str
    value: Callable[[Numbers], str]
    keyable: bool = True
    places: bool = False
    short: int = 0
    integer: bool = False


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a server has: its character sets with their collations."""

    flavor: Flavor
    collations: Sequence[tuple[str, str]]


_BITS = {"TINYINT": 8, "SMALLINT": 16, "MEDIUMINT": 24, "INT": 32, "BIGINT": 64}
# Letters that collations hold equal, or compare in steps; blanks, quotes and separators; digits.
_LETTERS = (
    "abAB zZ09éÉeEäÄaßsSñnœo\\'\"`\t\n\0%_"
    "\u0131\u0130iI\u0436\u0416\u044f\u03b1\u0391\u0430\u7532\u3042\u30a2-'"
)
_RARE = "\U0001f600\U0001d11e\u0301\u200b\u00a0\ufeff\u2019\u20ac"


def quoted(text: str) -> str:
    """A text literal that no sql_mode reads differently."""
    return f"CONVERT(x'{text.encode().hex()}' USING utf8mb4)" if text else "''"


def text(numbers: Numbers, longest: int) -> str:
    """Short ones often, so that they meet again."""
    letters = _LETTERS + (_RARE if numbers.random() < 0.3 else "")
    size = numbers.choice((0, 1, 1, 1, 2, 2, 3, min(longest, 12), min(40, longest)))
    made = "".join(numbers.choice(letters) for _ in range(min(size, longest)))
    if numbers.random() < 0.15:
        made = (made + " " * numbers.randint(1, 3))[:longest]
    return made


def blob(numbers: Numbers, longest: int) -> str:
    size = min(longest, numbers.choice((0, 1, 1, 2, 2, 3, 8, min(40, longest))))
    return (
        "x'" + bytes(numbers.choice((0, 0, 32, 9, 10, 92, 65, 97, 255, 128)) for _ in range(size)).hex() + "'"
    )


def _integer(numbers: Numbers) -> Kind:
    name = numbers.choice(list(_BITS))
    bits = _BITS[name]
    unsigned = numbers.random() < 0.4
    zerofill = unsigned and numbers.random() < 0.2
    low, high = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    edges = (low, low + 1, high, high - 1, 0, 1)

    def value(draw: Numbers) -> str:
        return str(draw.choice(edges) if draw.random() < 0.25 else draw.randint(max(low, -5), 40))

    declared = name + (f"({numbers.choice((3, 8, 20))})" if zerofill else "")
    declared += " UNSIGNED" * unsigned + " ZEROFILL" * zerofill
    return Kind(declared, value, places=True, integer=True)


def _decimal(numbers: Numbers) -> Kind:
    digits = numbers.choice((1, 5, 9, 10, 18, 19, 30, 65))
    scale = min(numbers.choice((0, 0, 2, 5, 30)), digits)
    whole = digits - scale

    def value(draw: Numbers) -> str:
        if draw.random() < 0.3:
            body = ("9" * whole or "0") + ("." + "9" * scale if scale else "")
        else:
            body = str(draw.randint(0, min(10**whole - 1, 99)))
            if scale:
                body += f".{draw.randint(0, 10 ** min(scale, 4) - 1)}"
        return draw.choice(("-", "")) + body

    return Kind(
        f"DECIMAL({digits},{scale})" + (" UNSIGNED" if numbers.random() < 0.1 else ""), value, places=True
    )


def _float(numbers: Numbers) -> Kind:
    def value(draw: Numbers) -> str:
        return draw.choice((
            "0.1", "-0e0", "1.5", "16777217", "3.4028e38", "5e-324", "1.7976931348623157e308", "1e15", "1e-7",
            "123456.789", repr(draw.uniform(-1e3, 1e3)), repr(draw.random() * 10 ** draw.randint(-300, 300)),
        ))  # fmt: skip

    return Kind(
        numbers.choice(("FLOAT", "DOUBLE", "FLOAT(7,2)", "DOUBLE(12,4)", "DOUBLE UNSIGNED")),
        value,
        keyable=False,
    )


def _bit(numbers: Numbers) -> Kind:
    width = numbers.choice((1, 7, 8, 9, 33, 64))
    return Kind(
        f"BIT({width})", lambda draw: str(draw.choice((0, 1, 2**width - 1, draw.randrange(2**width))))
    )


_DAYS = (
    "0000-00-00",
    "2024-02-29",
    "2024-02-31",
    "2024-00-10",
    "1000-01-01",
    "9999-12-31",
    "1970-01-01",
    "2038-01-19",
)


def _day(draw: Numbers) -> str:
    return (
        draw.choice(_DAYS)
        if draw.random() < 0.4
        else f"2024-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"
    )


def _moment(draw: Numbers) -> str:
    """A day of a TIMESTAMP. Next to its ends a server that is not strict may store a fraction of the zero
    date, which no text gives again: a move tells of that, and stops.
    """
    return draw.choice(
        ("0000-00-00", "2024-02-31", "1971-01-01", "2037-12-31", f"2024-03-{draw.randint(28, 31)}")
    )


def _clock(draw: Numbers) -> str:
    fraction = f".{draw.randrange(10**6):06}" if draw.random() < 0.5 else ""
    return f"{draw.randint(0, 23):02}:{draw.randint(0, 59):02}:{draw.randint(0, 59):02}{fraction}"


def _temporal(numbers: Numbers) -> Kind:
    name = numbers.choice(("DATE", "TIME", "DATETIME", "TIMESTAMP", "YEAR"))
    digits = numbers.choice((0, 0, 1, 3, 6))
    if name == "YEAR":
        return Kind(
            name,
            lambda draw: draw.choice(("0", "1901", "2155", "2000", f"20{draw.randint(10, 40)}")),
            places=True,
        )
    if name == "DATE":
        return Kind(name, lambda draw: f"'{_day(draw)}'", places=True)
    if name == "TIME":
        return Kind(
            f"TIME({digits})",
            lambda draw: (
                "'"
                + draw.choice(("-838:59:59", "838:59:59", "-00:00:00.5", f"-{_clock(draw)}", _clock(draw)))
                + "'"
            ),
            places=True,
        )
    declared = f"{name}({digits})"
    if name == "TIMESTAMP":
        declared += " NULL"
    if numbers.random() < 0.2:
        now = f"CURRENT_TIMESTAMP({digits})"
        declared += f" DEFAULT {now} ON UPDATE {now}"
    if name == "TIMESTAMP":
        return Kind(declared, lambda draw: f"'{_moment(draw)} {_clock(draw)}'")
    return Kind(declared, lambda draw: f"'{_day(draw)} {_clock(draw)}'", places=True)


def _text(numbers: Numbers, dialect: Dialect) -> Kind:
    charset, collation = numbers.choice(dialect.collations)
    if numbers.random() < 0.5:
        usual = [pair for pair in dialect.collations if pair[0] in {"utf8mb4", "latin1", "utf8mb3"}]
        charset, collation = numbers.choice(usual)
    name = numbers.choice(
        ("CHAR", "VARCHAR", "VARCHAR", "VARCHAR", "TINYTEXT", "TEXT", "MEDIUMTEXT", "LONGTEXT")
    )
    longest = numbers.choice((1, 4, 20, 60)) if "CHAR" in name else 60
    declared = (
        name + (f"({longest})" if "CHAR" in name else "") + f" CHARACTER SET {charset} COLLATE {collation}"
    )
    whole = "CHAR" in name

    def value(draw: Numbers) -> str:
        made = text(draw, longest)
        # What the character set lacks becomes a question mark in a lax session: known texts only.
        return quoted(made)

    return Kind(
        declared, value, keyable=whole, places=whole, short=0 if whole else numbers.choice((1, 3, 10))
    )


def _bytes(numbers: Numbers) -> Kind:
    name = numbers.choice(("BINARY", "VARBINARY", "VARBINARY", "TINYBLOB", "BLOB", "MEDIUMBLOB", "LONGBLOB"))
    whole = "BINARY" in name
    longest = numbers.choice((1, 3, 16, 40)) if whole else 60
    return Kind(
        name + (f"({longest})" if whole else ""), lambda draw: blob(draw, longest),
        keyable=whole, places=whole, short=0 if whole else numbers.choice((1, 3, 10)),
    )  # fmt: skip


def _labelled(numbers: Numbers) -> Kind:
    name = numbers.choice(("ENUM", "SET"))
    pool = ["a", "b", "c", "Z", "y", "é", "x y", "it''s", "9", "10", "ж", "o\\\\o"]
    if name == "ENUM":
        pool.append("")
    labels = numbers.sample(pool, numbers.randint(1, len(pool)))
    charset = numbers.choice(("", "", " CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", " CHARACTER SET utf16"))
    top = len(labels) if name == "ENUM" else 2 ** len(labels) - 1
    listed = "','".join(labels)
    return Kind(
        f"{name}('{listed}'){charset}",
        lambda draw: str(draw.randint(0, top)),
    )


def _json(numbers: Numbers, dialect: Dialect) -> Kind:
    texts = (
        "{}", "[]", "null", '"x"', "9007199254740993", "18446744073709551615", "0.1", "1e20", "-0.0",
        '{"b": 1, "a": [1.5, true, null, "é\\u0001"]}', '[{"k": "v"}, 123456789012345678901234567890]',
    )  # fmt: skip

    def value(draw: Numbers) -> str:
        if dialect.flavor is Flavor.MYSQL and draw.random() < 0.4:
            return draw.choice((
                "JSON_ARRAY(CAST('1.10' AS DECIMAL(9,2)), 1)",
                "JSON_OBJECT('d', CAST('12345678901234567890.5' AS DECIMAL(30,1)), 'k', CAST(NOW() AS DATE))",
                "JSON_ARRAY(CAST('10:00:00.5' AS TIME(3)), CAST('a' AS BINARY))",
                f"JSON_OBJECT('n', {draw.randint(0, 99)}, 't', {quoted(text(draw, 20))})",
            ))  # fmt: skip
        return quoted(draw.choice(texts))

    return Kind("JSON", value, keyable=False)


def _spatial(numbers: Numbers) -> Kind:
    del numbers
    shapes = tuple(
        f"ST_GeomFromText('{text}')"
        for text in ("POINT(1 2)", "LINESTRING(0 0,1 1.5)", "POLYGON((0 0,0 1,1 1,0 0))")
    )
    return Kind("GEOMETRY", lambda draw: draw.choice(shapes), keyable=False)


def _of_mariadb(numbers: Numbers) -> Kind:
    name = numbers.choice(("UUID", "INET6", "INET4"))
    if name == "UUID":
        parts = "'{:08x}-0000-{}000-8000-00000000{:04x}'"
        return Kind(
            name, lambda draw: parts.format(draw.randrange(8), draw.choice((1, 4, 7)), draw.randrange(9))
        )
    if name == "INET4":
        return Kind(name, lambda draw: f"'10.0.{draw.randrange(3)}.{draw.randrange(9)}'")
    return Kind(
        name,
        lambda draw: draw.choice(
            (f"'::{draw.randrange(20):x}'", "'::1.2.3.4'", f"'1:0:0:{draw.randrange(9)}::'")
        ),
    )


def kind(numbers: Numbers, dialect: Dialect) -> Kind:
    """Any kind."""
    makers: list[Callable[[], Kind]] = [
        lambda: _integer(numbers), lambda: _integer(numbers), lambda: _decimal(numbers),
        lambda: _float(numbers), lambda: _bit(numbers), lambda: _temporal(numbers),
        lambda: _temporal(numbers), lambda: _text(numbers, dialect), lambda: _text(numbers, dialect),
        lambda: _bytes(numbers), lambda: _labelled(numbers),
        lambda: _json(numbers, dialect), lambda: _spatial(numbers),
    ]  # fmt: skip
    if dialect.flavor is Flavor.MARIADB:
        makers.append(lambda: _of_mariadb(numbers))
    return numbers.choice(makers)()


def key_kind(numbers: Numbers, dialect: Dialect) -> Kind:
    """A kind that may stand in a key."""
    while True:
        found = kind(numbers, dialect)
        if found.keyable:
            return found
