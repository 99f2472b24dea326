"""Tokens, fingerprints, statement splitting and the tables that a statement names."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.gateway.plan import Verb
from homeworld.gateway.sql_split import split_statements
from homeworld.gateway.sql_tables import scan, tables_in
from homeworld.gateway.sql_tokens import (
    LITERALS,
    Kind,
    SqlSyntaxError,
    fingerprint,
    hex_value,
    literals,
    quote_string,
    string_value,
    tokenize,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"select 1--1", [b"1", b"1"]),
        (b"select 5 -- 6\n, 7", [b"5", b"7"]),
        (b"select 5 # 6\n, 7", [b"5", b"7"]),
        (b"select /* 5 '*/ 6", [b"6"]),
        (b"select 'it''s', \"a\\\"b\", 'c\\\\'", [b"'it''s'", b'"a\\"b"', b"'c\\\\'"]),
        (b"select t1.a2, `3 4`, @v5, @'6', @@x7 from 8t", []),
        (
            b"select x'0f', 0x1F, b'01', 0b1, 0xZZ, -1.5e-3, .5, 1., t.5",
            [b"x'0f'", b"0x1F", b"b'01'", b"0b1", b"1.5e-3", b".5", b"1."],
        ),
        (b"select /*+ MAX_EXECUTION_TIME(5) */ 6", [b"6"]),
        (b"select N'a', _utf8mb4'b'", [b"'a'", b"'b'"]),
    ],
)  # fmt: skip
def test_literals(text: bytes, found: list[bytes]) -> None:
    assert literals(text) == found
    assert [token.text for token in tokenize(text) if token.kind in LITERALS] == found


FRAGMENTS = st.sampled_from(
    [b"'", b'"', b"`", b"/*", b"*/", b"--", b"-- ", b"#", b"\n", b" ", b"1", b"0", b"x", b"b", b".", b"e",
     b"_", b"$", b"a", b"\\", b"@", b"!", b"+", b"M", b"vt+", b"select", b"=", b"-", b",", b"(", b"\xc3\xa9",
     b"0x1f", b"x'", b"E+", b"?"]
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(FRAGMENTS, max_size=14).map(b"".join))
def test_the_fast_fingerprint_and_the_tokens_agree(text: bytes) -> None:
    try:
        tokens = tokenize(text)
    except SqlSyntaxError:
        return
    assert [token.text for token in tokens if token.kind in LITERALS] == literals(text)
    marks = fingerprint(text)
    gaps = list(zip(marks[1::4], marks[2::4], marks[3::4], strict=True))
    kinds = [token.kind for token in tokens if token.kind in LITERALS or token.kind is Kind.COMMENT]
    assert [Kind.COMMENT if comment is not None else None for kept, comment, _ in gaps if kept is None] == [
        Kind.COMMENT if kind is Kind.COMMENT else None for kind in kinds
    ]
    assert all(never is None for _, _, never in gaps)


def test_a_quote_that_is_never_closed_costs_no_more_than_its_length() -> None:
    for odd in (b"select '" + b"a" * 200_000, b"select `" + b"a" * 200_000, b"select '" + b"\\'" * 100_000):
        with pytest.raises(SqlSyntaxError):
            tokenize(odd)
        assert fingerprint(odd)


def test_texts_of_one_fingerprint() -> None:
    assert fingerprint(b"select a from t where b = 1") == fingerprint(b"select a from t where b = 'x'")
    assert fingerprint(b"select 1 /* a */") == fingerprint(b"select 1 /* b 5 */")
    assert fingerprint(b"select 1 /* a */ and 'p' 'q'") != fingerprint(b"select 1 'b' and 'p' /* a */")
    assert fingerprint(b"select /* a */ 'b'") != fingerprint(b"select 'b' /* a */")
    assert fingerprint(b"select /* a */ 1") != fingerprint(b"select /* a")
    assert fingerprint(b"select a1") != fingerprint(b"select a2")
    assert fingerprint(b"select `a1`") != fingerprint(b"select `a2`")
    assert fingerprint(b"select /*+ A(1) */ 1") != fingerprint(b"select /*+ A(2) */ 1")
    assert fingerprint(b"select 'a'") != fingerprint(b"select 'a")
    assert fingerprint(b"select /*!40000 1 */ 1") != fingerprint(b"select /*!50000 1 */ 1")


def test_splitting() -> None:
    assert split_statements(b"select ';'; ; -- x;\n select `;` /* ; */; # end") == (
        b"select ';'",
        b"-- x;\n select `;` /* ; */",
    )
    assert split_statements(b"select 1") == (b"select 1",)
    assert split_statements(b"select 'a;") == (b"select 'a;",)
    assert split_statements(b" ; ") == ()


@given(st.binary(max_size=40))
def test_strings_are_written_and_read_back(value: bytes) -> None:
    assert string_value(quote_string(value)) == value
    assert literals(b"select " + quote_string(value)) == [quote_string(value)]


def test_string_escapes() -> None:
    assert string_value(rb"'a\n\t\0\%\_\'\"\\\x'") == b"a\n\t\0\\%\\_'\"\\x"
    assert string_value(b"'\"\"'") == b'""'
    assert string_value(b'"\'\'"""') == b"''\""
    assert [hex_value(text) for text in (b"x'0fF0'", b"0xabc", b"b'101'", b"0b100000000")] == [
        b"\x0f\xf0", b"\x0a\xbc", b"\x05", b"\x01\x00",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "verb", "tables"),
    [
        ("select * from a join b on a.x=b.y, c where id in (select id from d)", "select", "a b c d"),
        ("insert into t (a) select * from u", "insert", "t u"),
        ("insert ignore t set a=1", "insert", "t"),
        ("insert into a values (1) on duplicate key update x = (select 1 from b)", "insert", "a b"),
        ("replace t values (1)", "replace", "t"),
        ("update a, b join c set a.x=1 where a.id in (select 1 from z)", "update", "a b c z"),
        ("update low_priority ignore ks.t as x set y = 1", "update", "ks.t"),
        ("delete a from a join b on 1", "delete", "a b"),
        ("delete from x using y as x join w", "delete", "y w"),
        ("delete quick from t where a = 1", "delete", "t"),
        ("with q as (select * from t) select * from q", "select", "t"),
        ("with t as (select * from t) select * from t", "select", "t"),
        ("select * from (with t as (select 1) select * from t) x join t", "select", "t"),
        ("with recursive q as (select 1 union all select n+1 from q) select * from q join r", "select", "r"),
        ("with a as (select 1), b as (select * from c) update t join b set x=1", "update", "c t"),
        ("with a as (select 1) delete from t where x in (select * from a)", "delete", "t"),
        ("select extract(year from d), trim(both 'x' from y), substring(a from 2) from t", "select", "t"),
        ("select * from (a join b) left join (select * from c) d on 1", "select", "a b c"),
        ("select * from (a, b), c", "select", "a b c"),
        ("select * from json_table('[]','$' columns(x int path '$')) jt, t", "select", "t"),
        ("select * from lateral (select 1 from k) z", "select", "k"),
        ("select * from t use index (i) join u using (id) where x", "select", "t u"),
        ("select * from t partition (p0, p1), u order by field(a, 1), b", "select", "t u"),
        ("select * from a natural join b straight_join c", "select", "a b c"),
        ("select a.b, c.* from `we``ird` . `na me`", "select", "we`ird.na me"),
        ("select * from window", "select", "window"),
        ("insert into a table b", "insert", "a b"),
        ("insert into t select b, c from a on duplicate key update x = 1, y = 2", "insert", "t a"),
        ("insert into t select 1 from a join b on duplicate = 5, c", "insert", "t a b c"),
        ("insert into t select 1 from a on duplicate key update x = (select 1 from b, c), y = 2", "insert",
         "t a b c"),
        ("select * from a x, b y for update of x, y", "select", "a b"),
        ("select * from a, b for share of a, b skip locked", "select", "a b"),
        ("select * from a for update of a for share of b, c", "select", "a"),
        ("create table a table b", "ddl", "a b"),
        ("select * from {oj a left outer join b on 1}, c", "select", "a b c"),
        ("select * from a use index for join (i), b", "select", "a b"),
        ("call p((select x from a))", "call", "a"),
        ("select 1 from dual", "select", ""),
        ("(select * from a) union all (select * from b) except table c", "select", "a b c"),
        ("table t", "select", "t"),
        ("do sleep(1)", "select", ""),
        ("/*!40000 ALTER TABLE `t` DISABLE KEYS */", "ddl", "t"),
        ("/*M!100100 delete from t */", "delete", "t"),
        ("create table if not exists ks.t (id int, foreign key (x) references p(id))", "ddl", "ks.t p"),
        ("create table a as select * from b", "ddl", "a b"),
        ("create table a (like b)", "ddl", "a b"),
        ("create unique index i on t (a)", "ddl", "t"),
        ("drop index i on t", "ddl", "t"),
        ("drop table if exists a, b.c cascade", "ddl", "a b.c"),
        ("rename table a to b, c to d", "ddl", "a b c d"),
        ("alter table a rename to b", "ddl", "a b"),
        ("alter table a rename column x to y, add foreign key (z) references r(i)", "ddl", "a r"),
        ("alter table p exchange partition x with table q", "ddl", "p q"),
        ("truncate t", "ddl", "t"),
        ("optimize local table a, b", "ddl", "a b"),
        ("create or replace algorithm=merge view v as select * from a", "ddl", "v a"),
        ("create trigger g before insert on t for each row insert into u values (1)", "ddl", "t"),
        ("lock tables a read, b as x write", "lock", "a b"),
        ("unlock tables", "lock", ""),
        ("load data local infile 'x' into table t fields terminated by ','", "load", "t"),
        ("explain select * from a", "show", "a"),
        ("explain update a set x=1", "show", "a"),
        ("desc a b", "show", "a"),
        ("start transaction read only", "begin", ""),
        ("start replica", "other", ""),
        ("rollback", "rollback", ""),
        ("rollback work to savepoint x", "savepoint", ""),
        ("release savepoint x", "savepoint", ""),
        ("call p(1)", "call", ""),
        ("values row(1), row(2)", "select", ""),
        ("handler t open", "other", "t"),
        ("gibberish", "other", ""),
    ],
)  # fmt: skip
def test_verb_and_tables(text: str, verb: str, tables: str) -> None:
    found = scan(text.encode())
    assert found.verb == verb
    names = {f"{ref.schema}.{ref.name}".lstrip(".") for ref in found.tables}
    assert names == ({tables} if " me" in tables else set(tables.split()))
    for ref in found.tables:
        assert ref.name in text.encode()[ref.name_start : ref.end].decode().replace("``", "`")


@pytest.mark.parametrize(
    ("text", "locks", "keeps", "unknown"),
    [
        ("select * from t for update", True, False, False),
        ("select * from t for share skip locked", True, False, False),
        ("select * from t lock in share mode", True, False, False),
        ("select * from (select * from t for update) x", True, False, False),
        ("update t set a = 1", False, False, False),
        ("select @x := 1", False, True, False),
        ("select @@version", False, False, False),
        ("select get_lock('a', 1)", False, True, False),
        ("select last_insert_id()", False, False, False),
        ("select last_insert_id(5)", False, True, False),
        ("select sql_calc_found_rows * from t", False, True, False),
        ("create temporary table t (a int)", False, True, False),
        ("lock tables t read", False, True, False),
        ("select my_function(1) from t", False, False, True),
        ("select `count`(1) from t", False, False, True),
        ("select count(*), if(a, 1, 2), cast(a as char(5)) from t where b in (1)", False, False, False),
        ("select 1 from t where exists (select 1) and a in (select 2)", False, False, False),
        ("insert into t (a, b) values (1, 2)", False, False, False),
        ("insert into k.t (a, b) values (1, 2)", False, False, False),
        ("replace `k`.`t`(a, b) values (1, k.f(2))", False, False, True),
    ],
)  # fmt: skip
def test_locks_state_and_functions(text: str, locks: bool, keeps: bool, unknown: bool) -> None:
    found = scan(text.encode())
    assert (found.locking_read, found.keeps_state, found.unknown_functions) == (locks, keeps, unknown)
    assert found.qualified_functions == ("k.f(" in text)


def test_a_view_s_tables() -> None:
    definition = b"select `a`.`x` AS `x` from (`ks`.`a` join `ks`.`b` on((`a`.`i` = `b`.`i`)))"
    assert tables_in(definition) == {("ks", "a"), ("ks", "b")}


@pytest.mark.parametrize(
    "text", [b"", b" ; ", b"-- only\n", b"select 'x", b"select `x", b"/* x", b"select \x00"]
)
def test_what_cannot_be_read(text: bytes) -> None:
    with pytest.raises(SqlSyntaxError):
        scan(text)


def test_verbs_that_write() -> None:
    assert scan(b"select 1").verb is Verb.SELECT
