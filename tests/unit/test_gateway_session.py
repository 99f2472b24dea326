"""Sessions as transcripts: what a client and two servers see of each other."""
# ruff: noqa: E501  # a transcript's line is one packet

from __future__ import annotations

from homeworld.model.topology import BackendRole
from tests.support.playbook import Playbook

FIRST = """
>> client QUERY select * from a1
<< connect one
>> connected one
<< one QUERY select * from a1
>> one ROWS 1,2
<< client ROWS 1,2
"""


def test_a_statement_goes_through_and_the_next_needs_nothing() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY select * from a2
        << one QUERY select * from a2
        >> one ERR 1146
        << client ERR 1146 sorry
        >> client PING
        << client OK
        >> client QUERY insert into a1 values (1)
        << one QUERY insert into a1 values (1)
        >> one OK rows=1 id=9
        << client OK rows=1 id=9
        """
    )


def test_begin_is_sent_before_the_first_statement_on_each_server() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans rows=1
        << client OK trans rows=1
        >> client QUERY insert into a1 values (2)
        << one QUERY insert into a1 values (2)
        >> one OK trans rows=1
        << client OK trans rows=1
        >> client QUERY savepoint s
        << one QUERY savepoint s
        >> one OK trans
        << client OK trans
        >> client QUERY insert into b1 values (1)
        << connect two
        >> connected two
        << two QUERY begin
        << two QUERY savepoint s
        >> two OK trans
        >> two OK trans
        << two QUERY insert into b1 values (1)
        >> two OK trans rows=1
        << client OK trans rows=1
        >> client QUERY rollback to s
        << one QUERY rollback to s
        >> one OK trans
        << two QUERY rollback to s
        >> two OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY COMMIT
        >> one OK
        << two QUERY COMMIT
        >> two OK
        << client OK
        """
    )


def test_a_transaction_that_touched_nothing_needs_no_server() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY rollback to nowhere
        << client ERR 1305 SAVEPOINT nowhere does not exist
        >> client QUERY savepoint s
        << client OK trans
        >> client QUERY release savepoint s
        << client OK trans
        >> client QUERY commit
        << client OK
        """
    )


def test_a_commit_that_fails_on_the_second_server_says_so() -> None:
    book = Playbook()
    book.play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans
        << client OK trans
        >> client QUERY insert into b1 values (1)
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY insert into b1 values (1)
        >> two OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY COMMIT
        >> one OK
        << two QUERY COMMIT
        >> two ERR 1180
        << two QUERY ROLLBACK
        >> two OK
        << client ERR 1105 the transaction was committed on 1 of 2 servers only: sorry
        >> client QUERY insert into a1 values (2)
        << one QUERY insert into a1 values (2)
        >> one OK
        << client OK
        """
    )


def test_a_lost_server_takes_the_transaction_with_it() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one lost
        << client ERR 1105 Lost connection to MySQL server during query
        >> client QUERY insert into a1 values (2)
        << client ERR 1105 a server was lost that had a part of the transaction; ROLLBACK to go on
        >> client QUERY savepoint s
        << client ERR 1105 a server was lost that had a part of the transaction; ROLLBACK to go on
        >> client QUERY commit
        << client ERR 1105 a server was lost that had a part of the transaction; the transaction was rolled back
        >> client QUERY insert into a1 values (3)
        << connect one
        >> connected one
        << one QUERY insert into a1 values (3)
        >> one OK
        << client OK
        """
    )


def test_a_server_lost_while_it_commits_leaves_the_end_open() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY commit
        >> one lost
        << client ERR 1105 Lost connection to MySQL server during query: it is not known whether the transaction was committed
        >> client QUERY begin
        << client OK trans
        >> client QUERY rollback
        << client OK
        """
    )


def test_half_an_answer_ends_the_connection() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one PART
        >> one lost
        << hang up
        << gone
        """
    )


def test_a_server_that_cannot_be_reached() -> None:
    Playbook().play(
        """
        >> client QUERY select * from a1
        << connect one
        >> unreachable one
        << client ERR 1105 cannot connect
        """
        + FIRST
    )


def test_a_deadlock_on_one_of_two_servers_ends_the_whole_transaction() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans
        << client OK trans
        >> client QUERY update b1 set n = 1
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY update b1 set n = 1
        >> two ERR 1213
        << client ERR 1213 sorry
        >> client QUERY insert into a1 values (2)
        << client ERR 1105 the server rolled back its part of the transaction; ROLLBACK to go on
        >> client QUERY begin
        << one QUERY ROLLBACK
        >> one OK
        << client OK trans
        """
    )


def test_settings_and_schema_follow_to_a_server_that_comes_later() -> None:
    Playbook().play(
        """
        >> client QUERY set @x = 1
        << connect one
        >> connected one
        << one QUERY set @x = 1
        >> one OK
        << client OK
        >> client QUERY set @x = 2
        << one QUERY set @x = 2
        >> one OK
        << client OK
        >> client QUERY set names utf8mb4
        << one QUERY set names utf8mb4
        >> one OK
        << client OK
        >> client QUERY set nonsense = 1
        << one QUERY set nonsense = 1
        >> one ERR 1193
        << client ERR 1193 sorry
        >> client QUERY select * from b1
        << connect two
        >> connected two
        << two QUERY set @x = 2
        << two QUERY set names utf8mb4
        >> two OK
        >> two OK
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        >> client INIT_DB b
        << client OK
        >> client QUERY select * from unknown
        << two QUERY select * from unknown
        >> two ROWS 3
        << client ROWS 3
        """
    )


def test_a_refused_setting_keeps_the_statement_back() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY set session big = 1
        << one QUERY set session big = 1
        >> one OK
        << client OK
        >> client QUERY insert into b1 values (1)
        << connect two
        >> connected two
        << two QUERY set session big = 1
        >> two ERR 1193
        << client ERR 1193 sorry
        """
    )


def test_commands_sent_ahead_are_served_in_order() -> None:
    book = Playbook()
    book.play(FIRST)
    one = b"\x11\0\0\0\x03select * from a1"
    two = b"\1\0\0\0\x0e"
    stream = (one + two + one).hex()
    book.play(
        f"""
        >> client BYTES {stream[:30]}
        >> client BYTES {stream[30:]}
        << one QUERY select * from a1
        >> one ROWS 1
        << one QUERY select * from a1
        << client ROWS 1
        << client OK
        >> one ROWS 2
        << client ROWS 2
        """
    )


def test_a_client_that_leaves_while_it_reads() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> client gone
        << hang up
        << close one
        << gone
        """
    )


def test_a_write_is_seen_to_its_end_when_its_client_leaves() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY update a1 set n = 1
        << one QUERY update a1 set n = 1
        >> client gone
        << hang up
        >> one OK rows=4
        << give back one
        << gone
        """
    )


def test_commits_on_several_servers_go_on_when_the_client_leaves() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans
        << client OK trans
        >> client QUERY insert into b1 values (1)
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY insert into b1 values (1)
        >> two OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY COMMIT
        >> client gone
        << hang up
        >> one OK
        << two QUERY COMMIT
        >> two OK
        << give back one
        << give back two
        << gone
        """
    )


def test_a_connection_that_comes_too_late_is_given_back() -> None:
    Playbook().play(
        """
        >> client QUERY select * from a1
        << connect one
        >> client gone
        << hang up
        << gone
        >> connected one
        << give back one
        """
    )


def test_prepared_statements_are_prepared_where_they_are_executed() -> None:
    Playbook().play(
        """
        >> client PREPARE select * from t1
        << connect one
        >> connected one
        << one STMT_PREPARE select * from t1
        >> one PREPARED 0 0
        << client PREPARED 1
        >> client EXECUTE 1
        << one STMT_EXECUTE 11
        >> one ROWS 5
        << client ROWS 5
        >> client EXECUTE 1
        << one STMT_EXECUTE 11
        >> one ROWS 6
        << client ROWS 6
        >> move t1 b
        >> client EXECUTE 1
        << connect two
        >> connected two
        << two STMT_PREPARE select * from t1
        >> two PREPARED 0 0
        << two STMT_EXECUTE 12
        >> two ROWS 7
        << client ROWS 7
        >> client CLOSE 1
        << one STMT_CLOSE 11
        << two STMT_CLOSE 12
        >> client EXECUTE 1
        << client ERR 1243 Unknown prepared statement handler (1) given to mysqld_stmt_execute
        """
    )


def test_control_statements_can_be_prepared() -> None:
    Playbook().play(
        """
        >> client PREPARE begin
        << client PREPARED 1
        >> client EXECUTE 1
        << client OK trans
        >> client PREPARE rollback
        << client PREPARED 2
        >> client EXECUTE 2
        << client OK
        """
    )


def test_the_roles_are_told_apart_before_a_server_is_asked() -> None:
    Playbook(role=BackendRole.READER).play(
        """
        >> client QUERY delete from a1
        << client ERR 1142 Delete command denied to user 'reader' for table 'a1' (ACL check error): the password's role is reader
        """
    )
    Playbook(role=BackendRole.READWRITER).play(
        """
        >> client QUERY drop table a1
        << client ERR 1142 DDL command denied to user 'readwriter' for table 'a1' (ACL check error): the password's role is readwriter
        """
    )


def test_several_statements_at_different_places_are_answered_as_one() -> None:
    Playbook().play(
        """
        >> client QUERY begin; select * from a1; select * from b1; commit
        << connect one
        << client OK trans more
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY select * from a1
        >> one ROWS 1 trans
        << connect two
        << client ROWS 1 trans more
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY select * from b1
        >> two ERR 1146
        << client ERR 1146 sorry
        >> client QUERY select * from a1; select * from a2
        << one QUERY select * from a1; select * from a2
        >> one ROWS 1 trans
        << client ROWS 1 trans
        """
    )


def test_reset_forgets_everything() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans
        << client OK trans
        >> client RESET
        << one QUERY ROLLBACK
        >> one OK
        << give back one
        << client OK
        """
    )


def test_ddl_commits_first_what_other_servers_have() -> None:
    Playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into b1 values (1)
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY insert into b1 values (1)
        >> two OK trans
        << client OK trans
        >> client QUERY create table a1 (id int)
        << two QUERY COMMIT
        >> two OK
        << connect one
        >> connected one
        << one QUERY create table a1 (id int)
        >> one OK
        << client OK
        """
    )


def test_what_asks_about_the_last_statement_goes_where_it_was() -> None:
    Playbook().play(
        FIRST
        + """
        >> client QUERY select * from b1
        << connect two
        >> connected two
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        >> client QUERY show warnings
        << two QUERY show warnings
        >> two ROWS 1
        << client ROWS 1
        >> client QUERY select row_count()
        << two QUERY select row_count()
        >> two ROWS 1
        << client ROWS 1
        >> client QUERY select * from a1
        << one QUERY select * from a1
        >> one ROWS 1
        << client ROWS 1
        >> client QUERY show count(*) warnings
        << one QUERY show count(*) warnings
        >> one ROWS 0
        << client ROWS 0
        >> one lost
        >> client QUERY select found_rows()
        << client ERR 1235 VT12001: unsupported: FOUND_ROWS(), ROW_COUNT(), SHOW WARNINGS and SHOW ERRORS where no single connection answered the last statement; take the number of rows from its answer or from SELECT COUNT(*), or aim at one shard with USE `keyspace/shard`
        """
    )
