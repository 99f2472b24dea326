"""Large texts: read elsewhere, and by what is served when they have been."""

from __future__ import annotations

import asyncio
import threading

import pytest

from homeworld.gateway import prepared, statements
from homeworld.gateway.beside import Threads
from tests.support.playbook import Playbook
from tests.support.sequence_router import SequenceRouter

LONG = "select 1 from t1 where name = 'so long a text that it is read beside the others'"


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statements, "LARGE", 60)
    monkeypatch.setattr(prepared, "LARGE", 60)


@pytest.fixture
def book() -> Playbook:
    return Playbook()


def sent(book: Playbook, more: str) -> None:
    # Longer than what is planned at once wherever it comes from.
    book.play(f">> client QUERY {LONG}{' ' * 9000}\n{more}")


async def test_threads_give_results_and_errors_and_skip_what_nobody_wants() -> None:
    threads, done = Threads(), list[str]()
    assert await threads.do(lambda: 7, lambda: True) == 7
    assert await threads.do(lambda: done.append("unwanted"), lambda: False) is None
    with pytest.raises(ZeroDivisionError):
        await threads.do(lambda: 1 // 0, lambda: True)
    assert await asyncio.gather(*(threads.do(lambda n=n: n, lambda: True) for n in range(9))) == [*range(9)]
    assert done == []
    # Who has gone does not wait among the others with what was to be read.
    begun, going_on = threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        going_on.wait(10)

    under_way = [asyncio.ensure_future(threads.do(read, lambda: True)) for _ in range(2)]
    await asyncio.get_running_loop().run_in_executor(None, begun.wait, 10)
    left = asyncio.ensure_future(threads.do(lambda: done.append("unwanted"), lambda: False))
    await asyncio.sleep(0)
    last = asyncio.ensure_future(threads.do(lambda: 8, lambda: True))
    assert await asyncio.wait_for(left, 5) is None
    going_on.set()
    assert [*await asyncio.gather(*under_way), await last] == [None, None, 8]
    # An orderly end does not wait for a text that is being read.
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "ponder")
    threads.close()


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


def test_ids_in_hand_end_where_tables_come_meanwhile() -> None:
    book = Playbook(SequenceRouter)
    book.play(
        f"""
        >> client QUERY IDS seq {" " * 9000} 2
        << ponder
        >> pondered
        << take 2 of a.seq
        >> ids 5 6
        << ponder
        """
    )
    book.branch.turn += 1  # a sweep has carried rows to where the statement goes, and raised the sequence
    book.play(
        """
        >> pondered
        << ponder
        >> pondered
        << take 2 of a.seq
        >> ids 8 9
        << ponder
        >> pondered
        << connect one
        >> connected one
        << one QUERY INSERT INTO made VALUES (8),(9)
        >> one OK rows=2
        << client OK rows=2 id=8
        """
    )


def test_where_tables_change_all_the_time_it_is_planned_at_once(book: Playbook) -> None:
    sent(book, "<< ponder")
    for _ in range(3):
        book.branch.tracker.version += 1
        book.play(
            """
            >> pondered
            << ponder
            """
        )
    book.branch.tracker.version += 1
    book.play(
        f"""
        >> pondered
        << connect one
        >> connected one
        << one QUERY {LONG}
        >> one ROWS 1
        << client ROWS 1
        """
    )


def test_a_large_text_is_prepared_there_too(book: Playbook) -> None:
    book.play(
        f"""
        >> client PREPARE {LONG}
        << ponder
        >> pondered
        << connect one
        >> connected one
        << one STMT_PREPARE {LONG}
        >> one PREPARED 0 1
        << client PREPARED 1
        >> client EXECUTE 1
        << one STMT_EXECUTE 11
        >> one ROWS 1
        << client ROWS 1
        """
    )
