"""Sessions of a branch that a vtgate plans: one connection for all of a session, and what errors leave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeworld.gateway.routers import make_router
from homeworld.model.topology import BackendRole
from tests.support.playbook import Playbook


def playbook(*, role: BackendRole = BackendRole.ADMIN, replica: bool = False, charset: int = 45) -> Playbook:
    return Playbook(make_router, vtgate=True, role=role, replica=replica, charset=charset)


def test_a_transaction_over_keyspaces_is_one_of_vtgates_with_use_in_it() -> None:
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a.a1 values (1)
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY insert into a.a1 values (1)
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> client QUERY use b
        << client OK trans
        >> client QUERY insert into b1 values (1)
        << gate INIT_DB b
        >> gate OK trans
        << gate QUERY insert into b1 values (1)
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> client QUERY commit work
        << gate QUERY COMMIT
        >> gate OK
        << client OK
        >> client gone
        << hang up
        << give back gate
        << gone
        """
    )


def test_statements_go_on_by_the_hot_path() -> None:
    book = playbook()
    book.play(
        """
        >> client QUERY use b/-
        << client OK
        >> client QUERY select 1 from b1
        << connect gate b:-
        >> connected gate
        << gate QUERY select 1 from b1
        >> gate ROWS 1
        << client ROWS 1
        >> client QUERY select 2 from b1
        << gate QUERY select 2 from b1
        >> gate ROWS 2
        << client ROWS 2
        """
    )
    assert book.session.ready


def test_a_transaction_that_vtgate_rolled_back_is_not_gone_on_with() -> None:
    """vtgate says so in words only; what came next would be committed by itself."""
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> client QUERY update a1 set n=2
        << gate QUERY update a1 set n=2
        >> gate ERR 1317
        << client ERR 1317 sorry
        >> client QUERY update a1 set n=3
        << gate QUERY SELECT 1
        >> gate ROWS 1
        << gate QUERY ROLLBACK
        >> gate OK
        << client ERR 1105 vtgate rolled the transaction back after an error; ROLLBACK to go on
        >> client QUERY commit
        << client ERR 1105 vtgate rolled the transaction back after an error; the transaction was rolled back
        >> client QUERY update a1 set n=4
        << gate QUERY update a1 set n=4
        >> gate OK rows=1
        << client OK rows=1
        """
    )


def test_commit_behind_an_error_asks_whether_there_is_a_transaction() -> None:
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate ERR 1062
        << client ERR 1062 sorry
        >> client QUERY commit
        << gate QUERY SELECT 1
        >> gate ROWS 1 trans
        << gate QUERY COMMIT
        >> gate OK
        << client OK
        """
    )


def test_a_deadlock_ends_all_of_a_transaction() -> None:
    """One shard has rolled back; BEGIN would have vtgate commit the others."""
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate ERR 1213
        << client ERR 1213 sorry
        >> client QUERY begin
        << gate QUERY ROLLBACK
        >> gate OK
        << client OK trans
        >> client QUERY update a1 set n=1
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate OK trans rows=1
        << client OK trans rows=1
        """
    )


def test_an_error_outside_a_transaction_leaves_nothing_to_ask() -> None:
    playbook().play(
        """
        >> client QUERY select x from a1
        << connect gate @primary
        >> connected gate
        << gate QUERY select x from a1
        >> gate ERR 1054
        << client ERR 1054 sorry
        >> client QUERY select n from a1
        << gate QUERY select n from a1
        >> gate ROWS 1
        << client ROWS 1
        """
    )


def test_several_statements_in_one_text_are_sent_one_by_one() -> None:
    """Where one ends is the gateway's to say: vtgate is never asked to take a text apart."""
    playbook().play(
        """
        >> client QUERY select 1 from a1; select 2 from a1
        << connect gate @primary
        >> connected gate
        << gate QUERY select 1 from a1
        >> gate ROWS 1
        << gate QUERY select 2 from a1
        << client ROWS 1 more
        >> gate ROWS 2
        << client ROWS 2
        """
    )


def test_the_last_id_is_the_sessions_own() -> None:
    playbook().play(
        """
        >> client QUERY insert into a1 values (null)
        << connect gate @primary
        >> connected gate
        << gate QUERY insert into a1 values (null)
        >> gate OK rows=1 id=7
        << client OK rows=1 id=7
        >> client QUERY select last_insert_id()
        << gate QUERY SELECT LAST_INSERT_ID()
        >> gate ROWS 7
        << client ROWS 7
        >> client QUERY insert into b1 values (last_insert_id())
        << gate QUERY insert into b1 values (7)
        >> gate OK rows=1
        << client OK rows=1
        """
    )


def test_settings_follow_to_the_next_connection() -> None:
    playbook().play(
        """
        >> client QUERY set workload = 'olap'
        << connect gate a
        >> connected gate
        << gate QUERY set workload = 'olap'
        >> gate OK
        << client OK
        >> gate lost
        >> client QUERY select 1 from a1
        << connect gate @primary
        >> connected gate
        << gate QUERY set workload = 'olap'
        >> gate OK
        << gate QUERY select 1 from a1
        >> gate ROWS 1
        << client ROWS 1
        """
    )


def test_a_lost_vtgate_loses_the_transaction_and_says_so() -> None:
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> gate lost
        >> client QUERY update a1 set n=2
        << client ERR 1105 a server was lost that had a part of the transaction; ROLLBACK to go on
        >> client QUERY rollback
        << client OK
        >> client QUERY update a1 set n=2
        << connect gate @primary
        >> unreachable gate
        << client ERR 1105 cannot connect
        """
    )


def test_clients_hear_no_error_that_is_a_clients_own() -> None:
    """Client libraries take 2013 in an answer for a broken answer."""
    playbook().play(
        """
        >> client QUERY select 1 from a1
        << connect gate @primary
        >> connected gate
        << gate QUERY select 1 from a1
        >> gate ERR 2013
        << client ERR 1105 sorry
        """
    )


def test_a_hold_waits_for_a_transaction_on_its_table_and_holds_by_any_name() -> None:
    """The session is aimed at nothing: what counts is where the tables are."""
    playbook().play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update t1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update t1 set n=1
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> hold h a.t1
        >> client QUERY update t1 set n=2
        << gate QUERY update t1 set n=2
        >> gate OK trans rows=1
        << client OK trans rows=1
        >> client QUERY commit
        << gate QUERY COMMIT
        >> gate OK
        << held h
        << client OK
        >> client QUERY select * from a.t1
        << wait h
        >> move t1 b
        >> release h
        << gate QUERY select * from a.t1
        >> gate ROWS 1
        << client ROWS 1
        """
    )


def test_a_hold_leaves_other_tables_alone() -> None:
    playbook().play(
        """
        >> hold h a.t1
        << held h
        >> client QUERY update b1 set n=2
        << connect gate @primary
        >> connected gate
        << gate QUERY update b1 set n=2
        >> gate OK rows=1
        << client OK rows=1
        >> client QUERY update t1 set n=2
        << wait h
        >> release h
        << gate QUERY update t1 set n=2
        >> gate OK rows=1
        << client OK rows=1
        """
    )


def test_a_hold_on_a_whole_keyspace_holds_what_leads_there() -> None:
    playbook().play(
        """
        >> hold h b.*
        << held h
        >> client QUERY update a1 set n=2
        << connect gate @primary
        >> connected gate
        << gate QUERY update a1 set n=2
        >> gate OK rows=1
        << client OK rows=1
        >> client QUERY update b1 set n=2
        << wait h
        """
    )


def test_moving_tables_wait_for_the_lease() -> None:
    playbook().play(
        """
        >> lapse a.t1
        >> client QUERY update t1 set n=2
        << wait lapse 1
        >> live
        << connect gate @primary
        >> connected gate
        << gate QUERY update t1 set n=2
        >> gate OK rows=1
        << client OK rows=1
        """
    )


def test_a_transaction_does_not_go_on_over_another_engine() -> None:
    """The database changes its engine meanwhile: neither part would see what the other has done."""
    book = playbook()
    begun = """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n=1
        << connect gate @primary
        >> connected gate
        << gate QUERY BEGIN
        >> gate OK trans
        << gate QUERY update a1 set n=1
        >> gate OK trans rows=1
        << client OK trans rows=1
        """
    book.play(begun)
    routes = replace(book.branch.routes, vtgate=None)
    book.branch.replace_routes(routes, book.branch.router_for(routes))
    book.session.renew()
    book.play(
        """
        >> client QUERY update a1 set n=2
        << client ERR 1412 Table definition has changed, please retry transaction
        >> client QUERY commit
        << gate QUERY commit
        >> gate OK
        << client OK
        >> client QUERY update a1 set n=2
        << connect one
        >> connected one
        << one QUERY update a1 set n=2
        >> one OK rows=1
        << client OK rows=1
        """
    )


def test_a_prepared_statement_is_executed_as_it_is() -> None:
    playbook().play(
        """
        >> client PREPARE select n from a1
        << connect gate @primary
        >> connected gate
        << gate STMT_PREPARE select n from a1
        >> gate PREPARED 0 0
        << client PREPARED 1
        >> client EXECUTE 1
        << gate STMT_EXECUTE 11
        >> gate OK
        << client OK
        >> client EXECUTE 1
        << gate STMT_EXECUTE 11
        >> gate OK
        << client OK
        """
    )


@pytest.mark.parametrize("sql", ["update a1 set n=1", "insert into b.b1 values (1)", "drop table a1"])
def test_a_password_for_replicas_writes_nowhere(sql: str) -> None:
    """Also where there is no replica, so that its statements go to primaries."""
    playbook(replica=True).play(
        f"""
        >> client QUERY {sql}
        << client ERR 1290 VT09031: replicas are read-only; use the @primary target to write
        """
    )


def test_a_client_in_another_character_set_is_served_once_it_says_utf8mb4() -> None:
    playbook(charset=8).play(
        """
        >> client QUERY select 1 from a1
        << client ERR 1235 VT12001: unsupported: a connection's character set other than utf8mb4 on Vitess; \
connect with utf8mb4, or SET NAMES utf8mb4
        >> client QUERY set names 'utf8'
        << connect gate a
        >> connected gate
        << gate QUERY set names 'utf8'
        >> gate OK
        << client OK
        >> client QUERY select 1 from a1
        << gate INIT_DB @primary
        >> gate OK
        << gate QUERY select 1 from a1
        >> gate ROWS 1
        << client ROWS 1
        """
    )
