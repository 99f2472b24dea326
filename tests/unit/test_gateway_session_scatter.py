"""Several shards, sequences and schemas as transcripts, with a router that says what the test wants."""
# ruff: noqa: E501  # a transcript's line is one packet

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from homeworld.gateway.plan import (
    Answer,
    ColumnSpec,
    Destination,
    Done,
    Footprint,
    NeedSchema,
    NeedSequence,
    Pass,
    Plan,
    Prepared,
    Refuse,
    Row,
    Scatter,
    SessionView,
    Verb,
)
from homeworld.model.topology import BackendRole, TabletType
from tests.support.plain_router import PlainRouter
from tests.support.playbook import Playbook

ONE = Destination("a", "", TabletType.PRIMARY)
TWO = Destination("b", "", TabletType.PRIMARY)
TABLES = frozenset({("a", "t"), ("b", "t")})


def merged(rows: Sequence[Sequence[Row]]) -> Sequence[Row]:
    return sorted(row for shard in rows for row in shard)  # type: ignore[type-var]  # no NULLs here


class ScriptedRouter(PlainRouter):
    """``both …`` goes to two shards, ``ids …`` needs a sequence, ``known …`` the schema, the rest is plain."""

    def _plan(self, sql: bytes, view: SessionView) -> Plan:
        word, _, rest = sql.partition(b" ")
        verb = {b"s": Verb.SELECT, b"a": Verb.DDL}.get(rest[:1], Verb.UPDATE)
        match word:
            case b"both":
                statements = ((ONE, rest), (TWO, rest))
                return Scatter(statements, Footprint(verb, TABLES), merged if verb is Verb.SELECT else None)
            case b"answer":
                return Answer((ColumnSpec("c"),), ((b"x",), (None,)))
            case b"done":
                return Done(3, 4)
            case b"refuse":
                return Refuse(1235, "42000", "VT12001: unsupported")
            case _:
                return super()._plan(sql, view)

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        word, _, rest = sql.partition(b" ")
        if word == b"ids":
            if not view.sequence_ids:
                return NeedSequence("a", "seq", 2)
            values = b",".join(b"(%d)" % number for number in view.sequence_ids)
            return Scatter(
                ((ONE, b"insert " + values),),
                Footprint(Verb.INSERT, TABLES),
                None,
                None,
                view.sequence_ids[0],
            )
        if word == b"known":
            return NeedSchema("a") if self.tracker.tables("a") is None else super().plan(rest, view)
        return super().plan(sql, view)

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        if sql.startswith(b"both "):
            return Prepared(Pass(ONE, sql, Footprint(Verb.SELECT, TABLES)), fixed=False)
        return super().plan_prepared(sql, view)


BOTH_READY = """
>> client QUERY both select 1
<< connect one
>> connected one
<< connect two
>> connected two
<< one QUERY select 1
<< two QUERY select 1
>> two ROWS b,d
>> one ROWS a,c
<< client ROWS a,b,c,d
"""


def book() -> Playbook:
    return Playbook(ScriptedRouter)


def test_reads_of_several_shards_are_merged() -> None:
    book().play(
        BOTH_READY
        + """
        >> client QUERY both select 2
        << one QUERY select 2
        << two QUERY select 2
        >> one ERR 1064
        >> two ROWS x
        << client ERR 1064 sorry
        >> client QUERY both select 2
        << one QUERY select 2
        << two QUERY select 2
        >> one ROWS x
        >> two lost
        << client ERR 1105 Lost connection to MySQL server during query
        """
    )


def test_a_write_to_several_shards_is_a_transaction_of_its_own() -> None:
    book().play(
        BOTH_READY
        + """
        >> client QUERY both update
        << one QUERY BEGIN
        >> one OK trans
        << two QUERY BEGIN
        >> two OK trans
        << one QUERY update
        << two QUERY update
        >> one OK trans rows=2
        >> two OK trans rows=3
        << one QUERY COMMIT
        >> one OK
        << two QUERY COMMIT
        >> two OK
        << client OK rows=5
        >> client QUERY both update
        << one QUERY BEGIN
        >> one OK trans
        << two QUERY BEGIN
        >> two OK trans
        << one QUERY update
        << two QUERY update
        >> one OK trans rows=2
        >> two ERR 1062
        << one QUERY ROLLBACK
        << two QUERY ROLLBACK
        >> one OK
        >> two OK
        << client ERR 1062 sorry
        """
    )


def test_inside_a_transaction_a_failed_write_leaves_nothing_on_any_shard() -> None:
    book().play(
        BOTH_READY
        + """
        >> client QUERY begin
        << client OK trans
        >> client QUERY both update
        << one QUERY begin
        >> one OK trans
        << two QUERY begin
        >> two OK trans
        << one QUERY SAVEPOINT `_homeworld_statement`
        << two QUERY SAVEPOINT `_homeworld_statement`
        >> one OK trans
        >> two OK trans
        << one QUERY update
        << two QUERY update
        >> one OK trans rows=2
        >> two ERR 1062
        << one QUERY ROLLBACK TO `_homeworld_statement`
        << two QUERY ROLLBACK TO `_homeworld_statement`
        >> one OK trans
        >> two OK trans
        << client ERR 1062 sorry
        >> client QUERY commit
        << one QUERY COMMIT
        >> one OK
        << two QUERY COMMIT
        >> two OK
        << client OK
        """
    )


def test_a_shard_lost_in_a_transaction_ends_it() -> None:
    book().play(
        BOTH_READY
        + """
        >> client QUERY begin
        << client OK trans
        >> client QUERY both update
        << one QUERY begin
        >> one OK trans
        << two QUERY begin
        >> two OK trans
        << one QUERY SAVEPOINT `_homeworld_statement`
        << two QUERY SAVEPOINT `_homeworld_statement`
        >> one OK trans
        >> two OK trans
        << one QUERY update
        << two QUERY update
        >> one OK trans rows=2
        >> two lost
        << client ERR 1105 Lost connection to MySQL server during query
        >> client QUERY commit
        << one QUERY ROLLBACK
        >> one OK
        << client ERR 1105 a server was lost that had a part of the transaction; the transaction was rolled back
        """
    )


def test_ids_are_taken_and_the_statement_is_planned_again() -> None:
    book().play(
        """
        >> client QUERY ids
        << take 2 of a.seq
        >> ids 5 6
        << connect one
        >> connected one
        << one QUERY insert (5),(6)
        >> one OK rows=2
        << client OK rows=2 id=5
        """
    )


@pytest.mark.parametrize("role", [BackendRole.READER, BackendRole.READWRITER])
def test_who_may_not_write_takes_no_ids(role: BackendRole) -> None:
    found = Playbook(ScriptedRouter, role=role)
    refused = "UPDATE command denied to user 'reader' for table 'seq' (ACL check error): the password's role is reader"
    if role is not BackendRole.READER:
        found.session.account = replace(found.session.account, replica=True)
        refused = "VT09031: replicas are read-only; ids of sequences are the primary's"
    found.event("client QUERY ids")
    (line,) = found.drain()
    assert line.partition(" ERR ")[2].partition(" ")[2].lower() == refused.lower()


def test_a_schema_is_loaded_and_the_statement_is_planned_again() -> None:
    book().play(
        """
        >> client QUERY known select * from a1
        << load a
        >> loaded
        << connect one
        >> connected one
        << one QUERY select * from a1
        >> one ROWS 1
        << client ROWS 1
        """
    )


def test_answers_without_a_server() -> None:
    book().play(
        """
        >> client QUERY done
        << client OK rows=3 id=4
        >> client QUERY refuse
        << client ERR 1235 VT12001: unsupported
        >> client QUERY both select 1; select * from a1
        << connect one
        >> connected one
        << connect two
        >> connected two
        << one QUERY select 1
        << two QUERY select 1
        >> one ROWS 1
        >> two ROWS 2
        << one QUERY select * from a1
        << client ROWS 1,2 more
        >> one ROWS 3
        << client ROWS 3
        """
    )


def test_a_held_table_holds_every_shard() -> None:
    book().play(
        BOTH_READY
        + """
        >> hold h b.t
        << held h
        >> client QUERY both update
        << wait h
        >> release h
        << one QUERY BEGIN
        >> one OK trans
        << two QUERY BEGIN
        """
    )


def test_a_router_that_never_has_enough_is_an_error_and_not_a_loop() -> None:
    class Greedy(ScriptedRouter):
        def plan(self, sql: bytes, view: SessionView) -> Plan:  # noqa: ARG002 whatever it is asked
            return NeedSchema("a")

    greedy = Playbook(Greedy)
    greedy.event("client QUERY select 1")
    for _ in range(16):
        greedy.event("loaded")
    assert greedy.drain()[-1] == "client ERR 1105 the statement could not be planned"


def test_ddl_on_several_shards_commits_first_and_opens_nothing() -> None:
    found = book()
    found.play(
        BOTH_READY
        + """
        >> client QUERY begin
        << client OK trans
        >> client QUERY insert into a1 values (1)
        << one QUERY begin
        >> one OK trans
        << one QUERY insert into a1 values (1)
        >> one OK trans rows=1
        << client OK trans rows=1
        >> client QUERY both alter
        << one QUERY COMMIT
        >> one OK
        << one QUERY alter
        << two QUERY alter
        >> one OK
        >> two OK
        << client OK
        >> hold h a.a1 a.t
        << held h
        >> release h
        >> client QUERY both alter again
        << one QUERY alter again
        << two QUERY alter again
        >> one OK
        >> two ERR 1060
        << client ERR 1060 sorry
        """
    )
    assert not found.session.in_transaction


class TextRouter(PlainRouter):
    """Every execution of a prepared statement becomes another text."""

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        return Prepared(self.plan(sql, view), fixed=False)

    def plan_params(self, sql: bytes, params: Sequence[bytes], view: SessionView) -> Plan:
        return self.plan(b"".join((sql, b" limit 5", *params)), view)


def test_a_deadlock_of_an_execution_sent_as_text_ends_the_transaction_too() -> None:
    Playbook(TextRouter).play(
        """
        >> client QUERY begin
        << client OK trans
        >> client QUERY update a1 set n = 1
        << connect one
        >> connected one
        << one QUERY begin
        >> one OK trans
        << one QUERY update a1 set n = 1
        >> one OK trans
        << client OK trans
        >> client QUERY update b1 set n = 1
        << connect two
        >> connected two
        << two QUERY begin
        >> two OK trans
        << two QUERY update b1 set n = 1
        >> two OK trans
        << client OK trans
        >> client PREPARE update a1 set n = 2
        << one STMT_PREPARE update a1 set n = 2
        >> one PREPARED 0 0
        << client PREPARED 1
        >> client EXECUTE 1
        << one QUERY update a1 set n = 2 limit 5
        >> one ERR 1213
        << client ERR 1213 sorry
        >> client QUERY commit
        << two QUERY ROLLBACK
        >> two OK
        << client ERR 1105 the server rolled back its part of the transaction; the transaction was rolled back
        """
    )
