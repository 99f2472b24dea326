"""LAST_INSERT_ID() of a session with several servers: what was generated, not what the client gave."""
# ruff: noqa: E501  # a transcript's line is one packet

from __future__ import annotations

import pytest

from homeworld.gateway.router import Router
from tests.support.playbook import Playbook

ASKED = "SELECT LAST_INSERT_ID()"


def insert(server: str, said: int) -> str:
    table = {"one": "a1", "two": "b1"}[server]
    return f"""
        >> client QUERY insert into {table} (id) values ({said})
        << {server} QUERY insert into {table} (id) values ({said})
        >> {server} OK rows=1 id={said}
        << client OK rows=1 id={said}
        """


def last(expected: int, *answers: tuple[str, int]) -> str:
    """The session asks the servers in ``answers`` and tells its client ``expected``."""
    said = [f"<< {server} QUERY {ASKED}" for server, _ in answers]
    said += [f">> {server} ROWS {number}" for server, number in answers]
    return "\n".join([">> client QUERY select last_insert_id()", *said, f"<< client ROWS {expected}", ""])


@pytest.fixture
def book() -> Playbook:
    found = Playbook(Router)
    for keyspace in "ab":
        found.branch.tracker.loaded(keyspace, keyspace, [], [])
    for server, table in (("one", "a1"), ("two", "b1")):
        found.event(f"client QUERY insert into {table} (n) values (1)")
        found.event(f"connected {server}")
        found.event(f"{server} OK rows=1")
    found.drain()
    return found


def test_ids_that_the_client_gave_do_not_count(book: Playbook) -> None:
    book.play(
        last(0)
        + insert("one", 100)
        + last(0, ("one", 0))
        + last(0)
        + insert("one", 5)
        + last(5, ("one", 5))
        + insert("two", 100)
        + last(5, ("two", 0))
        + insert("two", 7)
        + insert("one", 100)
        + last(7, ("two", 7), ("one", 5))
    )


def test_one_that_was_generated_before_the_client_s_own_counts(book: Playbook) -> None:
    book.play(insert("one", 5) + insert("one", 100) + last(5, ("one", 5)))


def test_ids_from_a_sequence_are_the_session_s(book: Playbook) -> None:
    book.play(insert("one", 5))
    book.session.gave_id(1000)
    book.play(
        last(1000) + insert("one", 100) + last(1000, ("one", 5)) + insert("one", 6) + last(6, ("one", 6))
    )


def test_the_number_in_a_statement_is_asked_for_too(book: Playbook) -> None:
    book.play(
        insert("one", 100)
        + f"""
        >> client QUERY insert into b1 (n) values (last_insert_id())
        << one QUERY {ASKED}
        >> one ROWS 3
        << two QUERY insert into b1 (n) values (3)
        >> two OK rows=1
        << client OK rows=1
        """
    )


def test_a_prepared_question_is_asked_anew(book: Playbook) -> None:
    book.play(
        """
        >> client PREPARE select last_insert_id()
        << client PREPARED 1
        """
    )
    for number in (5, 6):
        book.play(insert("one", number))
        book.event("client EXECUTE 1")
        assert book.drain() == [f"one QUERY {ASKED}"]
        sent: list[bytes] = []
        book.send = sent.append  # type: ignore[method-assign]  # rows in the binary protocol
        book.event(f"one ROWS {number}")
        del book.send
        assert number.to_bytes(8, "little") in b"".join(sent)


def test_the_server_that_knew_is_lost(book: Playbook) -> None:
    book.play(insert("one", 5) + ">> one lost\n" + last(5))


def test_a_variable_gets_the_session_s_number_and_not_a_connection_s(book: Playbook) -> None:
    book.play(
        insert("two", 7)
        + f"""
        >> client QUERY set @id = last_insert_id()
        << two QUERY {ASKED}
        >> two ROWS 7
        << one QUERY set @id = 7
        >> one OK
        << client OK
        >> client QUERY insert into b1 (n) values (@id)
        << two QUERY set @id = 7
        >> two OK
        << two QUERY insert into b1 (n) values (@id)
        >> two OK rows=1
        << client OK rows=1
        >> client PREPARE set @id = last_insert_id()
        << client PREPARED 1
        """
        + insert("one", 9)
        + f"""
        >> client EXECUTE 1
        << one QUERY {ASKED}
        >> one ROWS 9
        << one QUERY set @id = 9
        >> one OK
        << client OK
        >> client QUERY insert into b1 (n) values (@@identity)
        << client ERR 1235 VT12001: unsupported: @@identity on a branch with several keyspaces; use LAST_INSERT_ID()
        """
    )


def test_a_program_goes_where_it_belongs_whatever_its_body_asks(book: Playbook) -> None:
    """The last statement was answered by the other server."""
    book.play(
        """
        >> client QUERY create procedure p() select row_count()
        << one QUERY create procedure p() select row_count()
        >> one OK
        << client OK
        >> client QUERY call p(row_count())
        << one QUERY call p(row_count())
        >> one OK
        << client OK
        >> client QUERY insert into b1 values (row_count())
        << client ERR 1235 VT12001: unsupported: FOUND_ROWS(), ROW_COUNT(), SHOW WARNINGS and SHOW ERRORS where no single connection answered the last statement; take the number of rows from its answer or from SELECT COUNT(*), or aim at one shard with USE `keyspace/shard`
        >> client QUERY insert into a1 values (row_count())
        << one QUERY insert into a1 values (row_count())
        >> one OK
        << client OK
        """
    )
