"""Transactions older than a table's move, on one server with both places: refused, and nobody else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.playbook import Playbook

REFUSED = "<< client ERR 1412 Table definition has changed, please retry transaction\n"
CONNECT = """
>> client QUERY select * from a1
<< connect one
>> connected one
<< one QUERY select * from a1
>> one ROWS 1
<< client ROWS 1
"""
BEGUN = """
>> client QUERY begin
<< client OK trans
>> client QUERY select * from a1
<< one QUERY begin
>> one OK trans
<< one QUERY select * from a1
>> one ROWS 1 trans
<< client ROWS 1 trans
"""
READ = """
>> client QUERY select * from t1
<< one INIT_DB b
>> one OK trans
<< one QUERY select * from t1
>> one ROWS 1 trans
<< client ROWS 1 trans
"""


@pytest.fixture
def book() -> Playbook:
    """Table ``t1`` is served by ``a``; ``b`` has a copy of it."""
    made = Playbook(shared=True)
    move(made, "a")
    made.play(CONNECT)
    return made


def move(book: Playbook, keyspace: str) -> None:
    names = dict.fromkeys(("t1", "a.t1", "b.t1"), f"{keyspace}.t1")
    routes = replace(book.branch.routes, rules={**book.branch.routes.rules, **names})
    book.branch.replace_routes(routes, book.branch.router_for(routes))
    book.session.renew()


@pytest.mark.parametrize(
    "statement", ["select * from t1", "update t1 set v = 1", "select * from t1 for update"]
)
def test_an_older_transaction_is_refused_and_can_be_rolled_back(book: Playbook, statement: str) -> None:
    book.play(BEGUN)
    move(book, "b")
    for _ in range(2):
        book.play(f">> client QUERY {statement}\n{REFUSED}")
    book.play(
        """
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        """
        f">> client QUERY select * from t1\n{REFUSED}"
        """
        >> client QUERY rollback
        << one QUERY rollback
        >> one OK
        << client OK
        >> client QUERY begin
        << client OK trans
        >> client QUERY select * from t1
        << one INIT_DB b
        << one QUERY begin
        >> one OK
        >> one OK trans
        << one QUERY select * from t1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> client QUERY select * from t1
        << one QUERY select * from t1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        """
    )


def test_a_prepared_statement_of_an_older_transaction_is_refused_too(book: Playbook) -> None:
    book.play(
        """
        >> client PREPARE select * from t1
        << one STMT_PREPARE select * from t1
        >> one PREPARED 0 1
        << client PREPARED 1
        """
        + BEGUN
    )
    move(book, "b")
    book.play(f">> client EXECUTE 1\n{REFUSED}")


def test_a_transaction_without_begin_is_one_too(book: Playbook) -> None:
    book.play(
        """
        >> client QUERY set autocommit = 0
        << one QUERY set autocommit = 0
        >> one OK noauto
        << client OK
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1 noauto trans
        << client ROWS 1 trans
        """
    )
    move(book, "b")
    book.play(f">> client QUERY select * from t1\n{REFUSED}")
    book.play(
        """
        >> client QUERY commit
        << one QUERY commit
        >> one OK noauto
        << client OK
        >> client QUERY select * from t1
        << one INIT_DB b
        >> one OK noauto
        << one QUERY select * from t1
        >> one ROWS 1 noauto trans
        << client ROWS 1 trans
        """
    )


def test_one_that_began_with_a_failure_may_see_what_was(book: Playbook) -> None:
    book.play(
        """
        >> client QUERY set autocommit = 0
        << one QUERY set autocommit = 0
        >> one OK noauto
        << client OK
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ERR 1242
        << client ERR 1242 sorry
        """
    )
    move(book, "b")
    book.play(f">> client QUERY select * from t1\n{REFUSED}")
    book.play(
        """
        >> client QUERY rollback
        << one QUERY rollback
        >> one OK noauto
        << client OK
        >> client QUERY select * from t1
        << one INIT_DB b
        >> one OK noauto
        << one QUERY select * from t1
        >> one ROWS 1 noauto trans
        << client ROWS 1 trans
        """
    )


def test_nobody_else_is_concerned(book: Playbook) -> None:
    move(book, "b")
    book.play(BEGUN + READ)  # begun later
    move(book, "a")
    book.play(
        """
        >> client QUERY commit and chain
        << one QUERY commit and chain
        >> one OK trans
        << client OK trans
        >> client QUERY select * from t1
        << one INIT_DB a
        >> one OK trans
        << one QUERY select * from t1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> client QUERY commit
        << one QUERY commit
        >> one OK
        << client OK
        >> client QUERY begin
        << client OK trans
        """
    )
    move(book, "b")  # nothing has been sent of this one
    book.play(
        """
        >> client QUERY select * from t1
        << one INIT_DB b
        << one QUERY begin
        >> one OK
        >> one OK trans
        << one QUERY select * from t1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        """
    )


def test_what_commits_first_may_go_on(book: Playbook) -> None:
    book.play(BEGUN)
    move(book, "b")
    book.play(
        """
        >> client QUERY alter table t1 add c int
        << one QUERY COMMIT
        >> one OK
        << one INIT_DB b
        >> one OK
        << one QUERY alter table t1 add c int
        >> one OK
        << client OK
        """
    )


def test_the_hot_path_is_taken_by_who_is_not_older(book: Playbook) -> None:
    book.play(BEGUN)
    assert book.session.ready
    move(book, "b")
    book.play(
        """
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        """
    )
    assert not book.session.ready, "each statement of an older one is looked at"
    book.play(
        """
        >> client QUERY commit
        << one QUERY commit
        >> one OK
        << client OK
        """
        + BEGUN
    )
    assert book.session.ready
