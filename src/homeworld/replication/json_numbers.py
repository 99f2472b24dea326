"""Numbers in MySQL's JSON that its parser would not give back: DECIMALs.

A JSON document can hold a DECIMAL (made by CAST or JSON_OBJECT, not by parsing text). Printed and parsed
again it becomes a DOUBLE and loses digits or trailing zeros. This module finds such numbers in a document's
text and says how to put each back; it knows no server. Invariant: a number that printing and parsing would
change is always named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

# Up to 15 significant digits survive a DOUBLE; trailing zeros of a fraction never do.
_SUSPECT = re.compile(rb"[0-9][0-9.]{15}|\.[0-9]+0(?![0-9])")
_DECIMAL = re.compile(r"^(-?)([0-9]+)(?:\.([0-9]+))?$")
_MIN, _MAX = -(1 << 63), (1 << 64) - 1


class _Number(str):
    """A number's own text."""

    __slots__ = ()


def lost_decimals(document: bytes) -> tuple[tuple[str, str], ...]:
    """(JSON path, SQL expression) for each number of the document that parsing would change."""
    if _SUSPECT.search(document) is None:
        return ()
    value = json.loads(document, parse_float=_Number, parse_int=_Number)
    return tuple(
        (path, f"CAST({number} AS DECIMAL({_precision(number)}))")
        for path, number in _numbers(value, "$")
        if _is_lost(number)
    )


def _numbers(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, _Number):
        yield path, str(value)
    elif isinstance(value, dict):
        for name, inner in value.items():  # pyright: ignore[reportUnknownVariableType]  # JSON is untyped
            yield from _numbers(inner, f"{path}.{json.dumps(name, ensure_ascii=False)}")
    elif isinstance(value, list):
        for at, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from _numbers(inner, f"{path}[{at}]")


def _is_lost(number: str) -> bool:
    match = _DECIMAL.match(number)
    if match is None:
        return False  # with an exponent it is a DOUBLE already
    fraction = match[3]
    if fraction is None:
        return not _MIN <= int(number) <= _MAX
    if len(fraction) > 1 and fraction.endswith("0"):
        return True
    return Decimal(number) != Decimal(repr(float(number)))


def _precision(number: str) -> str:
    match = _DECIMAL.match(number)
    whole, fraction = (match[2], match[3] or "") if match else (number, "")
    return f"{max(1, len(whole.lstrip('0')) + len(fraction))},{len(fraction)}"
