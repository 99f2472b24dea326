"""The committed pages of the reference are what the API's own description says."""

from __future__ import annotations

import pytest

from tests.contract import engines
from tests.contract.reference import (
    PAGES,
    Json,
    Operation,
    coverage,
    operations_of,
    own_description,
    pages,
    published_in,
)

HINT = "run `make reference` and commit docs/reference"


@pytest.fixture(scope="module")
def described() -> Json:
    return own_description()


def test_the_pages_of_the_api_are_current(described: Json) -> None:
    wanted = pages(described)
    found = {page.name: page.read_text() for page in (PAGES / "api").glob("*.md")}
    assert sorted(found) == sorted(wanted), HINT
    assert [name for name, text in wanted.items() if found[name] != text] == [], HINT


def test_the_coverage_is_current(described: Json) -> None:
    page = (PAGES / "coverage.md").read_text()
    published = published_in(page)
    assert len(published) > 150
    assert page == coverage(published, operations_of(described)), HINT


def test_the_page_of_the_engines_is_current() -> None:
    assert (PAGES / "engines.md").read_text() == engines.page(), HINT


def test_operations_are_the_same_whatever_their_parameters_are_called() -> None:
    published = [Operation("get_x", "GET", "/xs/{id}"), Operation("list_y", "GET", "/ys")]
    own = [Operation("get_x", "GET", "/xs/{x}"), Operation("poke", "POST", "/xs/{x}/poke")]
    page = coverage(published, own)
    assert "1 of 2 published operations are mounted; 1 are homeworld's own" in page
    assert "| `get_x` | GET | `/xs/{id}` | yes |" in page
    assert "| `list_y` | GET | `/ys` | no |" in page
    assert "| `poke` | POST | `/xs/{x}/poke` | beyond |" in page
    assert published_in(page) == published
