"""Statements that differ in their last number only: not planned again, and never at the wrong place."""

from __future__ import annotations

from homeworld.gateway.dialogue import Connect
from homeworld.gateway.plan import Plan, Prepared, SessionView
from homeworld.gateway.router import Router
from homeworld.wire.packets import frame
from tests.support.plain_router import PlainRouter
from tests.support.playbook import Playbook

ASKED: list[bytes] = []


class CountingRouter(PlainRouter):
    """Notes what it is asked."""

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        ASKED.append(sql)
        return super().plan(sql, view)

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        ASKED.append(sql)
        return super().plan_prepared(sql, view)


def warm(book: Playbook, server: str = "one") -> None:
    """Have the statement known for what it is."""
    book.event("client QUERY select * from t1 where id=1")
    if any(isinstance(effect, Connect) for effect in book.effects):
        book.event(f"connected {server}")
    book.event(f"{server} ROWS 1")
    for number in range(6):
        book.event(f"client QUERY select * from t1 where id={number}")
        book.event(f"{server} ROWS {number}")
    book.drain()
    ASKED.clear()


def test_the_router_is_not_asked_again() -> None:
    book = Playbook(CountingRouter)
    warm(book)
    book.play(
        """
        >> client QUERY select * from t1 where id=77
        << one QUERY select * from t1 where id=77
        >> one ROWS 5
        << client ROWS 5
        >> client QUERY select * from t1 where id=123456789
        << one QUERY select * from t1 where id=123456789
        >> one ERR 1146
        << client ERR 1146 sorry
        """
    )
    assert ASKED == []
    book.event("client QUERY select * from t1 where id=")
    assert ASKED == [b"select * from t1 where id="]


def test_it_follows_the_routes_and_waits_for_holds() -> None:
    book = Playbook(CountingRouter)
    warm(book)
    book.play(
        """
        >> hold h a.t1
        << held h
        >> client QUERY select * from t1 where id=1
        << wait h
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two QUERY select * from t1 where id=1
        >> two ROWS 1
        << client ROWS 1
        """
    )
    warm(book, "two")
    book.play(
        """
        >> client QUERY select * from t1 where id=8
        << two QUERY select * from t1 where id=8
        >> two ROWS 1
        << client ROWS 1
        """
    )


def test_a_transaction_begins_first_and_takes_note_of_it() -> None:
    book = Playbook(CountingRouter)
    warm(book)
    book.play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY select * from t1 where id=1
        << one QUERY begin
        >> one OK trans
        << one QUERY select * from t1 where id=1
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> client QUERY select * from t1 where id=2
        << one QUERY select * from t1 where id=2
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> client QUERY select * from t1 where id=3
        << one QUERY select * from t1 where id=3
        >> one ROWS 1 trans
        << client ROWS 1 trans
        >> hold h a.t1
        >> client QUERY commit
        << one QUERY commit
        >> one OK
        << held h
        << client OK
        """
    )


def test_what_the_router_would_place_by_the_number_is_always_asked() -> None:
    """A prepared statement that is not fixed tells that the number matters."""

    class Choosing(CountingRouter):
        def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
            return Prepared(super().plan_prepared(sql, view).plan, fixed=False)

    book = Playbook(Choosing)
    warm(book)
    book.event("client QUERY select * from t1 where id=9")
    assert ASKED == [b"select * from t1 where id=9"]


def test_the_real_router_agrees() -> None:
    book = Playbook(Router)
    for keyspace in "ab":
        book.branch.tracker.loaded(keyspace, keyspace, [], [])
    warm(book)
    assert b"select * from t1 where id=" in book.session.quick
    book.branch.tracker.forget("a")  # what lies beneath t1 may have changed
    book.play(
        """
        >> client QUERY select * from t1 where id=9
        << one QUERY select * from t1 where id=9
        >> one ROWS 1
        << client ROWS 1
        """
    )


def test_executions_are_sent_on_with_the_types_they_were_bound_with() -> None:
    book = Playbook(CountingRouter)
    book.play(
        """
        >> client PREPARE select * from t1 where id=?
        << connect one
        >> connected one
        << one STMT_PREPARE select * from t1 where id=?
        >> one PREPARED 1 0
        << client PREPARED 1
        """
    )
    start = b"\x17\1\0\0\0\0\1\0\0\0\0"
    bind = start + b"\1\x08\0" + (5).to_bytes(8, "little")
    again = start + b"\0" + (6).to_bytes(8, "little")
    for payload in (bind, again, again):
        book.event(f"client BYTES {frame(payload).hex()}")
        assert book.drain() == ["one STMT_EXECUTE 11"]
        book.event("one ROWS 1")
        assert book.drain() == ["client ROWS 1"]
    assert len(book.session.executions) == 1
    book.event("client CLOSE 1")
    assert book.session.executions == {}
