"""Numbers as the server prints them: the shortest exact text of a double, and packed decimals.

Pure arithmetic; both the row decoder and the JSON decoder use it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from homeworld.model.errors import MalformedPacketError

_DIGITS_TO_BYTES = (0, 1, 1, 2, 2, 3, 3, 4, 4, 4)
_LARGEST_PLAIN = 15
"""The server writes an exponent where the decimal point would stand beyond this many digits."""


def double_text(value: float) -> bytes:
    """A double as the server prints a DOUBLE column: the shortest digits that read back as the same number,
    ``-0`` for negative zero, an exponent (``1.5e-15``, ``1e16``) outside 10**-15 to 10**15.
    """
    text = repr(value)
    if "e" not in text:
        if text.endswith(".0"):
            text = text[:-2]
            digits = len(text) - (text[0] == "-")
            return text.encode() if digits <= _LARGEST_PLAIN else _exponent_form(text, "", 0)
        return text.encode()
    mantissa, _, exponent = text.partition("e")
    whole, _, fraction = mantissa.partition(".")
    return _exponent_form(whole, fraction, int(exponent))


def _exponent_form(whole: str, fraction: str, exponent: int) -> bytes:
    """``whole.fraction`` times 10**exponent, laid out as the server does."""
    sign = "-" if whole[0] == "-" else ""
    digits = whole.lstrip("-") + fraction
    point = len(digits) - len(fraction) + exponent
    digits = digits.rstrip("0") or "0"
    if -_LARGEST_PLAIN < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}".encode()
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{point - 1}".encode()


def decimal_size(precision: int, scale: int) -> int:
    """How many bytes a packed DECIMAL(precision, scale) has."""
    whole = precision - scale
    return sum(4 * (part // 9) + _DIGITS_TO_BYTES[part % 9] for part in (whole, scale))


def decimal_reader(precision: int, scale: int) -> Callable[[bytes], bytes]:
    """A function from the packed bytes of a DECIMAL(precision, scale) to its text, with all of its scale.

    Packed: groups of nine digits in four bytes, big-endian, a shorter group first and last; the highest bit
    is flipped, and every bit of a negative number.
    """
    whole = precision - scale
    size = decimal_size(precision, scale)
    groups = _groups(([whole % 9] if whole % 9 else []) + [9] * (whole // 9), 8 * size)
    fractions = _groups(
        [9] * (scale // 9) + ([scale % 9] if scale % 9 else []), 8 * decimal_size(scale, scale)
    )
    form = f"%d.%0{scale}d" if scale else "%d"
    source = _READER.format(
        sign=1 << (8 * size - 1),
        flip=(1 << 8 * size) - 1 ^ 1 << (8 * size - 1),
        form=form,
        values=f"{groups}, {fractions}" if scale else groups,
    )
    scope: dict[str, object] = {"INT": int.from_bytes}
    exec(source, scope)  # noqa: S102 made from two numbers
    return cast("Callable[[bytes], bytes]", scope["read"])


_READER = """\
def read(packed):
    n = INT(packed, "big")
    if n & {sign}:
        n ^= {sign}
        return b"{form}" % ({values})
    n ^= {flip}
    return b"-{form}" % ({values})
"""


def _groups(digits: Sequence[int], bits: int) -> str:
    """The expression for a number made of groups of digits, the first of which begins below bit ``bits``."""
    terms: list[str] = []
    below = sum(digits)
    for count in digits:
        bits -= 8 * _DIGITS_TO_BYTES[count]
        below -= count
        term = f"(n >> {bits} & {(1 << 8 * _DIGITS_TO_BYTES[count]) - 1})"
        terms.append(f"{term} * {10**below}" if below else term)
    return " + ".join(terms) or "0"


def read_sized_decimal(data: bytes) -> bytes:
    """A decimal inside JSON: precision, scale, packed bytes.

    :raises MalformedPacketError: it is cut short.
    """
    if len(data) < 2 or data[1] > data[0] or len(data) != 2 + decimal_size(data[0], data[1]):
        raise MalformedPacketError("a decimal is cut short")
    return decimal_reader(data[0], data[1])(data[2:])
