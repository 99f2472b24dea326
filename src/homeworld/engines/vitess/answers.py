"""JSON that Vitess's commands print, read value by value: pure.

Its protobuf messages are printed with 64-bit numbers as text, and with null, nothing or an empty value where
there is none. Invariant: a value of another sort than expected is an error, never an empty one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from homeworld.model.errors import UnavailableError


def object_of(value: object) -> Mapping[str, object]:
    """A JSON object; null is an empty one.

    :raises UnavailableError: it is none.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _unexpected(value)
    return cast("Mapping[str, object]", value)


def list_of(value: object) -> Sequence[object]:
    """A JSON list; null is an empty one.

    :raises UnavailableError: it is none.
    """
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _unexpected(value)
    return cast("list[object]", value)


def text_of(value: object) -> str:
    """A JSON text; null is the empty one.

    :raises UnavailableError: it is none.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _unexpected(value)
    return value


def number_of(value: object) -> int:
    """A whole number, written as number or as text; null is 0.

    :raises UnavailableError: it is none.
    """
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _unexpected(value)
    try:
        return int(value)
    except ValueError:
        raise _unexpected(value) from None


def _unexpected(value: object) -> UnavailableError:
    return UnavailableError(f"Vitess answers in another form than expected: {str(value)[:80]!r}")
