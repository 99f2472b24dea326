"""The page tells of exactly the cases that have tests, and every number has one."""

from __future__ import annotations

import importlib
import pkgutil

from tests import hard_cases
from tests.hard_cases.cases import MARK, NUMBERS
from tests.hard_cases.elsewhere import ELSEWHERE
from tests.hard_cases.page import complete, listed


def marked() -> list[tuple[int, str]]:
    """Number and title of each case in this package's tests, from their marks."""
    found: list[tuple[int, str]] = [(case.number, case.title) for case in ELSEWHERE]
    for module in pkgutil.iter_modules(hard_cases.__path__):
        if not module.name.startswith("test_"):
            continue
        for test in vars(importlib.import_module(f"tests.hard_cases.{module.name}")).values():
            marks = list(getattr(test, "pytestmark", [])) if callable(test) else []
            for mark in marks:
                if mark.name == "parametrize":
                    marks += [inner for values in mark.args[1] for inner in getattr(values, "marks", ())]
                elif mark.name == MARK:
                    found.append((mark.kwargs["number"], mark.kwargs["title"]))
    return found


def test_every_number_has_a_test() -> None:
    found = marked()
    assert complete(found), sorted(set(NUMBERS) - {number for number, _ in found})
    assert len(found) == len(set(found)), "two cases have one title"


def test_the_page_has_the_tests_cases() -> None:
    assert sorted(listed()) == sorted(marked()), "run make hard-cases"
