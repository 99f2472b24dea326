"""INSERTs of many rows without being parsed: the plan is the one that the parser leads to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from homeworld.gateway.plan import NeedSequence, Pass, Plan, Refuse, Scatter, SessionView
from homeworld.gateway.router import Router
from homeworld.gateway.router_bulk import SMALLEST, Bulk, BulkInsert, BulkPass
from homeworld.gateway.router_errors import NeedsError, RefusedError
from homeworld.gateway.sql_tokens import SqlSyntaxError
from tests.support.routing_world import router, view
from tests.unit.test_router_sharded import KNOWN, WORLD

IDS = tuple(range(1000, 1400))


def made() -> Router:
    return router(WORLD, KNOWN)


ONE = made()


def outcome(plan: Any) -> Any:
    """A plan, or what stands for the error that planning ended with."""
    try:
        return plan()
    except (RefusedError, NeedsError) as error:
        return error.plan
    except SqlSyntaxError:
        return "syntax"


def parsed(sql: bytes, seen: SessionView) -> Plan:
    return outcome(lambda: ONE.compile(sql, seen).template(sql, seen))


def in_bulk(sql: bytes, seen: SessionView, bulk: Bulk | None = None) -> Plan | None:
    def compile_(sample: bytes) -> BulkInsert | BulkPass | None:
        return ONE.compile(sample, seen).of_many(sample, seen)

    return outcome(lambda: (bulk or Bulk()).plan(sql, seen, compile_))


VALUES = st.sampled_from(
    ["1", "2", "-3", "'4'", "0", "'0'", "''", "null", "NULL", "default", "true", "0x41", "0X41", "x'41'",
     "b'1'", "1.5", ".5", "1e3", "'a'", "'it''s'", "'a\\'b, (1)'", '"q"', "'a' 'b'", "_binary 'x'", "now()",
     "+5", "- 5", "-0", "99999999999999999999", "N'a'", "?", "(1)", "a", "1 /* c */", "'é'", "'values (1)'",
     "", " 7 ", "1x"]
)  # fmt: skip
HEADS = st.sampled_from(
    ["insert into u values ", "insert into u (name, age) values", "INSERT INTO u(id, `name`) VALUES\n",
     "insert ignore into o (uid, n) values ", "replace into h values ", "insert into sh.p (n, a, b) value ",
     "insert into txt values ", "insert into bin values ", "insert into auto (id, uid) values ",
     "insert into auto (uid) values ", "insert into r values ", "insert into main.flat values ",
     "insert into `sh`.`o` (`id`, `uid`, `n`) values ", "insert into o () values ",
     "insert into h (n) values ", "insert into nowhere values ", "insert into values (a) values ",
     "insert /* x */ into h values "]
)  # fmt: skip
TAILS = st.sampled_from(
    ["", " ", ";", " on duplicate key update n = 5", " on duplicate key update n = n + 'x'", " as y",
     " returning n", " as x on duplicate key update n = x.n", ", ",
     " where 1", " on duplicate key update uid = 1", ") ", ",()"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    HEADS, st.lists(st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=4), TAILS, st.booleans(),
    st.sampled_from([", ", ",", " ,\n"]), st.booleans(),
)  # fmt: skip
@example("insert into u values ", [["0", "'x'", "1", "2"], ["5", "'y'", "1", "2"]], "", True, ",", False)
@example("insert into h values ", [["1", "2"], ["-3", "null"], ["'4'", "'(5)'"]], "", True, ",", False)
def test_the_plan_is_the_parsers(
    head: str, rows: list[list[str]], tail: str, has_ids: bool, comma: str, zero: bool
) -> None:
    sql = (head + comma.join(f"({','.join(row)})" for row in rows) + tail).encode()
    seen = view(sequence_ids=IDS if has_ids else (), zero_is_value=zero)
    found = in_bulk(sql, seen)
    if found is not None:
        wanted = parsed(sql, seen)
        if not isinstance(wanted, Refuse) or not isinstance(found, Refuse):
            assert found == wanted


def test_plain_rows_are_taken() -> None:
    rows = [f"({n}, 'name; {n}', {n}, 1.5)" for n in range(1, 200)]
    sql = ("insert into u values " + ",".join(rows)).encode()
    assert len(sql) > SMALLEST
    found = in_bulk(sql, view())
    assert isinstance(found, Scatter)
    assert found == parsed(sql, view()) == made().plan(sql, view())


def test_ids_are_asked_for_once_for_all_rows() -> None:
    sql = ("insert into u (name, age) values " + ",".join(f"('n{n}', {n})" for n in range(300))).encode()
    bulk = Bulk()
    assert in_bulk(sql, view(), bulk) == NeedSequence("main", "seq", 300)
    found = in_bulk(sql, view(sequence_ids=IDS), bulk)
    assert found == parsed(sql, view(sequence_ids=IDS))
    assert isinstance(found, Scatter)
    assert found.last_insert_id == 1000
    whole = made()
    assert whole.plan(sql, view()) == NeedSequence("main", "seq", 300)
    assert whole.plan(sql, view(sequence_ids=IDS)) == found


def test_each_text_has_its_own_rows_and_tail() -> None:
    bulk = Bulk()
    for tail in ("", " on duplicate key update n = 5", " on duplicate key update n = 6", ""):
        for first in (1, 2):
            rows = ",".join(f"({n}, {n})" for n in range(first, first + 5))
            sql = f"insert into h (id, n) values {rows}{tail}".encode()
            assert in_bulk(sql, view(), bulk) == parsed(sql, view()), sql


def test_rows_of_an_unsharded_keyspace_pass_whatever_they_are() -> None:
    bulk = Bulk()
    for rows in ("(1),(2)", "(3), (null), ('x')", "(default)"):
        sql = f"insert into main.flat values {rows} on duplicate key update n = 1".encode()
        found = in_bulk(sql, view(), bulk)
        assert isinstance(found, Pass)
        assert found.sql is sql
        assert found == parsed(sql, view())
    assert (
        in_bulk(b"insert into main.flat values (1),(2,3) on duplicate key update n = 1", view(), bulk) is None
    )


def test_rows_of_one_shard_pass_as_they_are() -> None:
    sql = b"insert into h (id, n) values (1,2),(1,3) , (1, 4)"
    found = in_bulk(sql, view())
    assert isinstance(found, Pass)
    assert found == parsed(sql, view())
    assert found.sql is sql


@pytest.mark.parametrize(
    "sql",
    [
        b"insert into main.flat values (1),(now())",
        b"insert into r values (1,'a'),(2,'b')",
        b"insert into h values (1,2),(now(),3)",
        b"insert into h values (1,2),(null,3)",
        b"insert into h select 1, 2",
        b"insert into wide values (" + b"1," * 64 + b"1)",
        b"select 1",
    ],
)
def test_the_rest_is_left_to_the_parser(sql: bytes) -> None:
    assert in_bulk(sql, view()) is None
