"""The contract with the published description, and the checker that holds it.

HOMEWORLD_PUBLISHED_OPENAPI names the published file; ``scripts/check-contract`` does the same by hand.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.contract.schema import differences
from tests.contract.served import check_own

OBJECT: dict[str, Any] = {
    "type": "object",
    "required": ["id", "at"],
    "properties": {
        "id": {"type": "string"},
        "at": {"type": "string", "nullable": True},
        "state": {"type": "string", "enum": ["on", "off"]},
        "count": {"type": "integer"},
        "rate": {"type": "number"},
        "list": {"type": "array", "items": {"type": "object", "required": ["x"], "properties": {}}},
    },
}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"id": "a", "at": None, "beyond": 1}, []),
        ({"id": "a", "at": "now", "state": "on", "count": 1, "rate": 1, "list": [{"x": 1}]}, []),
        ({"id": "a"}, [".at is missing"]),
        ({"id": None, "at": None}, [".id is null"]),
        ({"id": 1, "at": None}, [".id is int, not string"]),
        ({"id": "a", "at": None, "count": True}, [".count is bool, not integer"]),
        ({"id": "a", "at": None, "count": 1.5}, [".count is float, not integer"]),
        ({"id": "a", "at": None, "state": "odd"}, [".state is 'odd', not one of ['on', 'off']"]),
        ({"id": "a", "at": None, "list": [{"x": 1}, {}]}, [".list[1].x is missing"]),
        ([], ["body is list, not object"]),
    ],
)
def test_the_checker_finds_differences(value: object, expected: list[str]) -> None:
    assert list(differences(value, OBJECT)) == expected


def test_the_checker_does_not_pass_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="oneOf"):
        list(differences("x", {"oneOf": []}))


def test_every_mounted_operation_answers_as_published(tmp_path: Path) -> None:
    named = os.environ.get("HOMEWORLD_PUBLISHED_OPENAPI")
    if not named:
        pytest.skip("HOMEWORLD_PUBLISHED_OPENAPI does not name the published file (as JSON)")
    report = check_own(json.loads(Path(named).read_text()), tmp_path)
    assert report.wrong == []
    assert report.not_asked == []
