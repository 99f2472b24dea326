"""Transactions over a vtgate that are older than a table's move: refused where they may have a part there."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeworld.gateway.plan import Destination, Footprint, Verb
from homeworld.gateway.routers import make_router
from homeworld.gateway.transaction import Transaction
from homeworld.model.topology import TabletType
from tests.support.playbook import Playbook

OPEN = """
    >> client QUERY begin
    << client OK trans
    >> client QUERY {first}
    << connect gate @primary
    >> connected gate
    << gate QUERY BEGIN
    >> gate OK trans
    << gate QUERY {first}
    >> gate ROWS 1 trans
    << client ROWS 1 trans
    """
GOES_ON = """
    >> client QUERY select 1 from b.b1
    << gate QUERY select 1 from b.b1
    >> gate ROWS 1 trans
    << client ROWS 1 trans
    """
TOLD = """
    >> client QUERY select 1 from b.b1
    << client ERR 1412 Table definition has changed, please retry transaction
    """


def playbook(*, replica: bool = False) -> Playbook:
    return Playbook(make_router, vtgate=True, replica=replica)


@pytest.mark.parametrize("first", ["select 1 from b.b2", "select 1"])
def test_a_transaction_older_than_a_move_is_told_to_begin_anew(first: str) -> None:
    """Its views of shards may be of before the copy was complete; where what it did names no table, vtgate
    may have asked any of them.
    """
    book = playbook()
    book.play(">> move b.b1 a" + OPEN.format(first=first))
    book.play(">> move b.b1 b" + TOLD)
    book.play(
        """
        >> client QUERY rollback
        << gate QUERY ROLLBACK
        >> gate OK
        << client OK
        >> client QUERY select 1 from b.b1
        << gate QUERY select 1 from b.b1
        >> gate ROWS 1
        << client ROWS 1
        """
    )


def test_what_asks_for_information_schema_besides_may_have_begun_anywhere() -> None:
    """vtgate asks the shard of a keyspace that is named in a condition, or any."""
    book = playbook()
    begun = OPEN.format(first="select 1 from a.a1, information_schema.columns")
    book.play(">> move b.b1 a" + begun.replace("connect gate @primary", "connect gate a"))
    book.play(">> move b.b1 b" + TOLD)
    transaction = book.session.transaction
    somewhere = Destination("a", "", TabletType.PRIMARY, vtgate=True)
    for number in range(600):
        transaction.touch(Footprint(Verb.SELECT, frozenset({("a", f"t{number}")})), somewhere, 9)
    book.play(TOLD)


def test_a_transaction_that_has_nothing_on_those_shards_goes_on() -> None:
    """vtgate begins its part there with this statement, so it sees all that is there."""
    book = playbook()
    book.play(">> move b.b1 a" + OPEN.format(first="select 1 from a.a1"))
    book.play(">> move b.b1 b" + GOES_ON + GOES_ON)


def test_a_transaction_that_met_a_table_of_the_same_move_goes_on() -> None:
    """Where it was, or, if vtgate had the new rules a moment earlier, where it has come to together with the
    one that is asked for now.
    """
    book = playbook()
    book.play(">> move b.b1 a\n>> move b.b2 a" + OPEN.format(first="select 1 from a.b2"))
    come_together(book)
    book.play(GOES_ON)


def test_a_transaction_that_met_a_table_of_an_earlier_move_is_told_to_begin_anew() -> None:
    """It may have met that one where it had just come to, and begun there while this one was copied."""
    book = playbook()
    book.play(">> move b.b1 a\n>> move b.b2 a" + OPEN.format(first="select 1 from a.b2"))
    book.play(">> move b.b2 b\n>> move b.b1 b" + TOLD)


def come_together(book: Playbook) -> None:
    """``b1`` and ``b2`` come to ``b`` with one switch."""
    rules = {**book.branch.routes.rules, "b.b1": "b.b1", "b.b2": "b.b2"}
    routes = replace(book.branch.routes, rules=rules)
    book.branch.replace_routes(routes, book.branch.router_for(routes))
    book.session.renew()


def test_what_was_aimed_at_a_shard_ran_there_whatever_rules_said() -> None:
    book = playbook()
    book.play(
        """
        >> move b.b1 a
        >> move b.b2 a
        >> client QUERY use b/-
        << client OK
        >> client QUERY begin
        << client OK trans
        >> client QUERY select 1 from b2
        << connect gate b:-
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY select 1 from b2
        >> gate ROWS 1 trans
        << client ROWS 1 trans
        """
    )
    come_together(book)
    book.play(TOLD)


def test_what_was_prepared_in_the_transaction_counts_as_touched() -> None:
    """vtgate asks a shard which columns there will be."""
    book = playbook()
    book.play(">> move b.b1 a" + OPEN.format(first="select 1 from a.a1"))
    book.play(
        """
        >> client PREPARE select n from b.b3
        << gate STMT_PREPARE select n from b.b3
        >> gate PREPARED 0 0 trans
        << client PREPARED 1
        >> move b.b1 b
        """
        + TOLD
    )


def test_a_reader_of_replicas_without_begin_goes_on_behind_a_switch() -> None:
    """Replica reads are switched without a hold: so it is that clients meet it. Here the primaries serve
    them, as no shard has a replica.
    """
    book = playbook(replica=True)
    book.play(
        """
        >> move b.b1 a
        >> client QUERY set autocommit = 0
        << connect gate a
        >> connected gate
        << gate QUERY set autocommit = 0
        >> gate OK noauto
        << client OK
        >> client QUERY select 1 from a.a1
        << gate INIT_DB @primary
        >> gate OK noauto
        << gate QUERY select 1 from a.a1
        >> gate ROWS 1 noauto trans
        << client ROWS 1 trans
        >> move b.b1 b
        >> client QUERY select 1 from b.b1
        << gate QUERY select 1 from b.b1
        >> gate ROWS 1 noauto trans
        << client ROWS 1 trans
        >> move b.b3 a
        >> move b.b3 b
        >> client QUERY select 1 from b.b3
        << client ERR 1412 Table definition has changed, please retry transaction
        """
    )


def test_of_many_statements_those_without_tables_are_remembered_too() -> None:
    transaction = Transaction()
    somewhere = Destination("a", "", TabletType.PRIMARY, vtgate=True)
    for number in range(600):
        footprint = Footprint(Verb.SELECT, frozenset({("a", f"t{number}")} if number else ()))
        transaction.touch(footprint, somewhere, number // 100)
    touches = list(transaction.touches())
    assert len(touches) < 300
    assert min(turn for touch, turn in transaction.touched() if touch.footprint.tables) == 0
    assert [touch for touch in touches if not touch.footprint.tables]
    named = {name for touch in touches for _, name in touch.footprint.tables}
    assert named == {f"t{number}" for number in range(1, 600)}
