"""What makes a test a hard case: its number, its title, and an outcome that it has to tell.

Invariant: a test that is a hard case tells exactly one outcome, and only what it has seen.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

#: How many there are; each number has at least one test (test_page.py).
NUMBERS = range(1, 52)
MARK = "hard_case"
EQUAL = "equal data"


def hard_case(number: int, title: str) -> pytest.MarkDecorator:
    """Marks a test, or a parameter of one, as (a part of) this case."""
    assert number in NUMBERS
    return pytest.mark.hard_case(number=number, title=title)


class Outcome:
    """What a test found. One of the three is called, once, at its end."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def equal(self) -> None:
        """Every row arrived byte for byte, and the verification says so, too."""
        self.told.append(EQUAL)

    def refused(self, reasons: Sequence[str] | str, *having: str) -> None:
        """It was refused, or stopped, with these words; ``having``: what has to stand in them."""
        message = reasons if isinstance(reasons, str) else "; ".join(reasons)
        assert message, "nothing was refused"
        for text in having:
            assert text in message, message
        self.told.append(f"refused: {message}")

    def does_not_apply(self, why: str) -> None:
        """There is no such thing on this server."""
        self.told.append(f"does not apply: {why}")

    def report(self, item: pytest.Item) -> str:
        """As text, for the page."""
        assert len(self.told) == 1, f"a hard case tells one outcome, not {self.told}"
        mark = item.get_closest_marker(MARK)
        assert mark is not None
        return json.dumps({**mark.kwargs, "outcome": self.told[0]})
