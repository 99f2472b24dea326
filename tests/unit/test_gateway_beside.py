"""Large texts: read elsewhere, and by what is served when they have been."""

from __future__ import annotations

import pytest

from homeworld.gateway import statements
from tests.support.playbook import Playbook

LONG = "select 1 from t1 where name = 'so long a text that it is read beside the others'"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "LARGE", 60)


@pytest.fixture
def book() -> Playbook:
    return Playbook()


def sent(book: Playbook, more: str) -> None:
    # Longer than what is planned at once wherever it comes from.
    book.play(f">> client QUERY {LONG}{' ' * 9000}\n{more}")


def test_it_is_read_and_then_sent(book: Playbook) -> None:
    sent(
        book,
        f"""
        << ponder
        >> pondered
        << connect one
        >> connected one
        << one QUERY {LONG}
        >> one ROWS 1
        << client ROWS 1
        """,
    )


def test_what_moves_meanwhile_is_found_where_it_is_then(book: Playbook) -> None:
    sent(
        book,
        f"""
        << ponder
        >> move t1 b
        >> pondered
        << ponder
        >> pondered
        << connect two
        >> connected two
        << two QUERY {LONG}
        >> two ROWS 1
        << client ROWS 1
        """,
    )


def test_a_hold_that_began_meanwhile_is_waited_for(book: Playbook) -> None:
    sent(
        book,
        f"""
        << ponder
        >> hold h a.t1
        << held h
        >> pondered
        << wait h
        >> move t1 b
        >> release h
        << ponder
        >> pondered
        << connect two
        >> connected two
        << two QUERY {LONG}
        >> two ROWS 1
        << client ROWS 1
        """,
    )


def test_the_tables_that_are_learnt_meanwhile_count(book: Playbook) -> None:
    sent(book, "<< ponder")
    book.branch.tracker.version += 1
    book.play(
        f"""
        >> pondered
        << ponder
        >> pondered
        << connect one
        >> connected one
        << one QUERY {LONG}
        >> one ROWS 1
        << client ROWS 1
        """
    )


def test_several_statements_are_parted_there_and_planned_one_by_one(book: Playbook) -> None:
    book.play(
        f"""
        >> client QUERY select 1 from t1; {LONG}
        << ponder
        >> pondered
        << connect one
        >> connected one
        << one QUERY select 1 from t1
        >> one ROWS 1
        << ponder
        << client ROWS 1 more
        >> pondered
        << one QUERY {LONG}
        >> one ROWS 2
        << client ROWS 2
        """
    )
