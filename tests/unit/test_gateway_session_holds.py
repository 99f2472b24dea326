"""Holds as transcripts: who waits, who goes on, and where statements go afterwards."""

from __future__ import annotations

from homeworld.gateway.hold import Hold, Holds, HoldState, Touch
from homeworld.gateway.plan import Destination, Footprint, Verb
from homeworld.gateway.transaction import Transaction
from homeworld.model.routing import HoldRequest
from homeworld.model.topology import TabletType
from tests.support.playbook import Playbook

READY = """
>> client QUERY select * from t1
<< connect one
>> connected one
<< one QUERY select * from t1
>> one ROWS 1
<< client ROWS 1
"""
OPEN = """
>> client QUERY begin
<< client OK trans
>> client QUERY insert into t1 values (1)
<< one QUERY begin
>> one OK trans
<< one QUERY insert into t1 values (1)
>> one OK trans
<< client OK trans
"""


def test_a_statement_waits_and_then_goes_to_the_new_place() -> None:
    Playbook().play(
        READY
        + """
        >> hold h a.t1
        << held h
        >> client QUERY insert into t1 values (1)
        << wait h
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two QUERY insert into t1 values (1)
        >> two OK rows=1
        << client OK rows=1
        >> client QUERY select * from t1
        << two QUERY select * from t1
        >> two ROWS 2
        << client ROWS 2
        """
    )


def test_other_tables_are_not_held() -> None:
    Playbook().play(
        READY
        + """
        >> hold h a.t1
        << held h
        >> client QUERY select * from a2
        << one QUERY select * from a2
        >> one ROWS 1
        << client ROWS 1
        >> client QUERY select * from b1
        << connect two
        >> connected two
        << two QUERY select * from b1
        >> two ROWS 1
        << client ROWS 1
        """
    )


def test_a_statement_under_way_is_waited_for() -> None:
    Playbook().play(
        READY
        + """
        >> client QUERY update t1 set n = 1
        << one QUERY update t1 set n = 1
        >> hold h a.t1
        >> one OK rows=1
        << held h
        << client OK rows=1
        """
    )


def test_an_open_transaction_goes_on_to_its_end_on_the_held_table_too() -> None:
    Playbook().play(
        READY
        + OPEN
        + """
        >> hold h a.t1
        >> client QUERY insert into t1 values (2)
        << one QUERY insert into t1 values (2)
        >> one OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY commit
        >> one OK
        << held h
        << client OK
        >> client QUERY insert into t1 values (3)
        << wait h
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two QUERY insert into t1 values (3)
        >> two OK
        << client OK
        """
    )


def test_a_transaction_that_touched_something_else_waits_once_the_table_is_held() -> None:
    Playbook().play(
        READY
        + OPEN.replace("t1", "a2")
        + """
        >> hold h a.t1
        << held h
        >> client QUERY insert into t1 values (1)
        << wait h
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY insert into t1 values (1)
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


def test_a_transaction_that_touched_nothing_waits_like_a_single_statement() -> None:
    Playbook().play(
        READY
        + OPEN
        + """
        >> client QUERY rollback
        << one QUERY rollback
        >> one OK
        << client OK
        >> client QUERY begin
        << client OK trans
        >> hold h a.t1
        << held h
        >> client QUERY insert into t1 values (1)
        << wait h
        >> release h
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into t1 values (1)
        >> one OK trans
        << client OK trans
        """
    )


def test_rolled_back_by_a_deadlock_is_ended() -> None:
    Playbook().play(
        READY
        + OPEN
        + """
        >> hold h a.t1
        >> client QUERY update t1 set n = 1
        << one QUERY update t1 set n = 1
        >> one ERR 1213
        << held h
        << client ERR 1213 sorry
        """
    )


def test_a_lost_server_ends_what_was_under_way() -> None:
    Playbook().play(
        READY
        + OPEN
        + """
        >> hold h a.t1
        >> one lost
        << held h
        """
    )


def test_a_client_that_leaves_its_transaction_open() -> None:
    Playbook().play(
        READY
        + OPEN
        + """
        >> hold h a.t1
        >> client gone
        << hang up
        << give back one
        << gone
        """
    )


def test_executions_of_prepared_statements_wait_as_well() -> None:
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
        >> hold h a.t1
        << held h
        >> client EXECUTE 1
        << wait h
        >> move t1 b
        >> release h
        << connect two
        >> connected two
        << two STMT_PREPARE select * from t1
        >> two PREPARED 0 0
        << two STMT_EXECUTE 12
        >> two ROWS 6
        << client ROWS 6
        """
    )


def test_a_second_hold_is_waited_for_too() -> None:
    Playbook().play(
        READY
        + """
        >> hold h a.t1
        << held h
        >> client QUERY insert into t1 values (1)
        << wait h
        >> hold i a.t1
        << held i
        >> release h
        << wait i
        >> release i
        << one QUERY insert into t1 values (1)
        >> one OK
        << client OK
        """
    )


def test_a_client_that_leaves_while_it_waits() -> None:
    Playbook().play(
        READY
        + """
        >> hold h a.t1
        << held h
        >> client QUERY insert into t1 values (1)
        << wait h
        >> client gone
        << hang up
        << give back one
        << gone
        >> release h
        """
    )


def request(*tables: tuple[str, str]) -> HoldRequest:
    return HoldRequest("h", "b", frozenset(tables), frozenset({TabletType.PRIMARY}), 1.0, 1.0)


def touch(
    verb: Verb, *tables: tuple[str, str], kind: TabletType = TabletType.PRIMARY, at: str = "a"
) -> Touch:
    return Touch(Footprint(verb, frozenset(tables)), frozenset({kind}), frozenset({at}))


def test_what_a_hold_matches() -> None:
    hold = Hold(request(("a", "t1"), ("a", "t2")))
    assert hold.matches(touch(Verb.SELECT, ("a", "t1")))
    assert not hold.matches(touch(Verb.SELECT, ("a", "t3")))
    assert not hold.matches(touch(Verb.SELECT, ("b", "t1"), at="b"))
    assert not hold.matches(touch(Verb.SELECT, ("a", "t1"), kind=TabletType.REPLICA))
    # Whoever does not say what it touches may touch the held tables, if it is sent where they are.
    assert hold.matches(touch(Verb.CALL))
    assert not hold.matches(touch(Verb.CALL, at="b"))
    assert not hold.matches(touch(Verb.SELECT))


def test_settling_needs_everyone() -> None:
    class Someone:
        def __init__(self, *found: Touch) -> None:
            self.found = list(found)

        def touches(self) -> list[Touch]:
            return self.found

    holds = Holds()
    hold = holds.begin(request(("a", "t1")))
    busy, idle = Someone(touch(Verb.UPDATE, ("a", "t1"))), Someone()
    assert holds.settle([busy, idle]) == []
    assert hold.state is HoldState.DRAINING
    assert holds.blocks(touch(Verb.SELECT, ("a", "t1")), under_way=True) is None
    assert holds.blocks(touch(Verb.SELECT, ("a", "t1")), under_way=False) is hold
    busy.found.clear()
    assert holds.settle([busy, idle]) == [hold]
    assert hold.state is HoldState.HELD
    assert holds.blocks(touch(Verb.SELECT, ("a", "t1")), under_way=True) is hold
    assert holds.settle([busy]) == []
    assert holds.end("h") is hold
    assert holds.end("h") is None
    assert not holds


def test_a_transaction_that_a_procedure_leaves_open_is_waited_for() -> None:
    Playbook().play(
        READY
        + """
        >> client QUERY call begins_and_inserts()
        << one QUERY call begins_and_inserts()
        >> one OK trans
        << client OK trans
        >> hold h a.t1
        >> client QUERY insert into a2 values (1)
        << one QUERY insert into a2 values (1)
        >> one OK trans
        << client OK trans
        >> client QUERY commit
        << one QUERY commit
        >> one OK
        << held h
        << client OK
        >> client QUERY select * from a2
        << one QUERY select * from a2
        >> one ROWS 1
        << client ROWS 1
        """
    )


def test_many_statements_do_not_make_a_call_forgotten() -> None:
    transaction = Transaction()
    at = Destination("a", "", TabletType.PRIMARY)
    transaction.touch(Footprint(Verb.CALL), at, 1)
    for number in range(1000):
        transaction.touch(Footprint(Verb.INSERT, frozenset({("a", f"t{number % 3}")})), at, 1)
    hold = Hold(
        HoldRequest("h", "b", frozenset({("a", "elsewhere")}), frozenset({TabletType.PRIMARY}), 1.0, 1.0)
    )
    assert any(map(hold.matches, transaction.touches()))
    assert len(list(transaction.touches())) < 300


def test_what_was_let_in_before_the_lease_ended_and_is_not_sent_waits_for_the_lease() -> None:
    Playbook().play(
        """
        >> client QUERY insert into t1 values (1)
        << connect one
        >> lapse a.t1
        >> connected one
        << wait lapse 1
        >> live
        << one QUERY insert into t1 values (1)
        >> one OK rows=1
        << client OK rows=1
        """
    )


def test_what_was_let_in_before_the_table_moved_without_this_gateway_goes_to_where_it_is_now() -> None:
    book = Playbook()
    book.play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into t1 values (1)
        << connect one
        >> lapse a.t1
        >> move t1 b
        """
    )
    book.branch.epoch += 1
    book.play(
        """
        >> live
        >> connected one
        << one QUERY begin
        >> one OK trans
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY insert into t1 values (1)
        >> two OK trans rows=1
        << client OK trans rows=1
        """
    )
