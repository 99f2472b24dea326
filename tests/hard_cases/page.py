"""``make hard-cases``: runs the hard cases and writes the page of them from what they found.

It judges nothing: a row is a title and, for each flavour, the outcome that the test told. A test that fails,
or a flavour that is not there, leaves the page as it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree as ET

from homeworld.model.topology import Flavor
from tests.hard_cases.cases import MARK, NUMBERS
from tests.hard_cases.elsewhere import ELSEWHERE

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "hard-cases.md"
HEAD = """\
# Hard cases

What has gone wrong with tools that move live tables, and what becomes of it here: *equal data* (every row
arrived byte for byte, compared without the verification, and the verification says so, too), or a refusal in
the very words that a user gets. This page is written by `make hard-cases` from the tests' own results.

| # | case | MariaDB 10.11 | MySQL 9.7 |
|--:|---|---|---|
"""
# The page is held against the tests once it is written.
_HELD = "tests/hard_cases/test_page.py::test_the_page_has_the_tests_cases"
Row = tuple[int, str]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        wanted = [str(ROOT / "tests" / "hard_cases"), *(test for case in ELSEWHERE for test in case.tests)]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "3", "--dist", "loadfile"]
        # On both flavours, also what the suite tries on one.
        flavors = {
            "HOMEWORLD_REQUIRE_MYSQL": "1", "HOMEWORLD_TEST_FLAVORS": "mariadb,mysql", "HOMEWORLD_LONG": "1",
        }  # fmt: skip
        ended = subprocess.run(
            [*command, f"--junitxml={report}", "-o", "junit_family=xunit1", f"--deselect={_HELD}", *wanted],
            cwd=ROOT, check=False, env={**os.environ, **flavors},
        )  # fmt: skip
        if ended.returncode:
            return ended.returncode
        found = outcomes(report)
    PAGE.write_text(render(found))
    print(f"{PAGE.relative_to(ROOT)}: {len(found)} cases")
    return 0


def outcomes(report: Path) -> dict[Row, dict[Flavor, str]]:
    """(number, title) to what each flavour's test told."""
    found: dict[Row, dict[Flavor, str]] = {}
    for test in ET.parse(report).iter("testcase"):
        for told in test.iter("property"):
            name, _, flavor = told.attrib["name"].partition(":")
            if name == MARK:
                case = json.loads(told.attrib["value"])
                mine = found.setdefault((int(case["number"]), str(case["title"])), {})
                mine[Flavor(flavor)] = str(case["outcome"])
    for case in ELSEWHERE:
        found[case.number, case.title] = dict.fromkeys(Flavor, case.outcome)
    return found


def render(found: Mapping[Row, Mapping[Flavor, str]]) -> str:
    """The page."""
    lines: list[str] = []
    for (number, title), told in sorted(found.items(), key=lambda item: item[0][0]):
        cells = " | ".join(_cell(told.get(flavor, "")) for flavor in (Flavor.MARIADB, Flavor.MYSQL))
        lines.append(f"| {number} | {_cell(title)} | {cells} |")
    return HEAD + "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def listed() -> list[Row]:
    """The cases that the page has."""
    rows = [line.split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    return [
        (int(row[0].strip("| ")), row[1].replace("\\|", "|")) for row in rows if row[0].strip("| ").isdigit()
    ]


def complete(rows: Iterable[Row]) -> bool:
    """Whether every number is there."""
    return {number for number, _ in rows} == set(NUMBERS)


if __name__ == "__main__":
    sys.exit(main())
