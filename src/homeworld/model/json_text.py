"""JSON text from clients: read within bounds of size and depth.

Knows no document. Invariant: what comes out can be walked by functions that call themselves; a text that is
too large or nested too deeply is refused before it is read, in time that grows with its length alone.
"""

from __future__ import annotations

import json
import re

from homeworld.model.errors import InvalidError

MOST_BYTES = 8 * 1024 * 1024
MOST_DEPTH = 64

# A string that is never closed reaches to the end: each place of a text is looked at once.
_MARKS = re.compile(r"\"(?:[^\"\\]++|\\.)*+\"|\".*+|[\[{]|[\]}]", re.DOTALL)

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def check_bounds(text: str, what: str) -> None:
    """Refuse a text that is too large or too deep to be read.

    :param what: what it is, for the message.
    :raises InvalidError: more than ``MOST_BYTES`` characters or ``MOST_DEPTH`` levels.
    """
    if len(text) > MOST_BYTES:
        raise InvalidError(f"{what} is larger than {MOST_BYTES // (1024 * 1024)} MiB")
    depth = 0
    for mark in _MARKS.finditer(text):
        first = text[mark.start()]
        if first in "[{":
            depth += 1
            if depth > MOST_DEPTH:
                raise InvalidError(f"{what} is nested deeper than {MOST_DEPTH} levels")
        elif first in "]}":
            depth -= 1


def load(text: str, what: str) -> object:
    """Read a JSON text.

    :param what: what it is, for the message.
    :raises InvalidError: not JSON, or out of bounds.
    """
    check_bounds(text, what)
    try:
        found = json.loads(text)
        if _ESCAPED_SURROGATE.search(text):
            json.dumps(found, ensure_ascii=False).encode()  # half a character could never be told again
    except ValueError as error:
        raise InvalidError(f"{what} is not valid JSON: {error}") from None
    return found
