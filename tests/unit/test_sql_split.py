"""Texts of several statements, some of which define stored programs, are taken apart where servers do."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Pass, Refuse, Target, Verb
from homeworld.gateway.sql_split import split_statements
from homeworld.gateway.sql_tables import scan
from tests.support.router_tables import ONE, passed, plan, refused, router, view

PROGRAMS = [
    "create procedure p() begin insert into t values (1); insert into t values (2); end",
    "create procedure p() begin end",
    "create procedure p() select 1",
    "create or replace definer=`a`@`%` procedure if not exists p(in a int, out b varchar(3)) comment 'x;y' "
    "not deterministic reads sql data sql security invoker lb: begin leave lb; end lb",
    "create definer=root@localhost function f(a int) returns varchar(9) charset utf8mb4 collate utf8mb4_bin "
    "deterministic begin declare x int default 3; if x > if(a, 1, 2) then set x = 4; elseif a then set x "
    "= 5; "
    "else begin set x = 6; end; end if; return x; end",
    "create function f() returns set('a','b') character set latin1 deterministic return case when 1 then "
    "'a' end",
    "create aggregate function g(x int) returns int begin declare s int default 0; "
    "declare continue handler for not found return s; loop fetch group next row; set s = s + x; end "
    "loop; end",
    "create procedure p() begin declare exit handler for sqlstate '42000', 1062, sqlwarning begin "
    "rollback; end; "
    "declare c cursor for select 1; open c; repeat fetch c into @a; until case when @a then 1 else 0 end "
    "end repeat; "
    "while @a < 3 do set @a = @a + 1; end while; close c; end",
    "create procedure p(x int) case x when 1 then select 1; when 2 then begin select 2; end; else select "
    "3; end case",
    "create procedure p(x int) case when x = case 1 when 1 then 2 end then select 1; select 2; end case",
    "create procedure p() a: loop if repeat('a', 3) = '' then iterate a; end if; leave a; end loop a",
    "create procedure p() begin for i in 1..3 do select i; end for; for r in (select 1 as a) do select "
    "r.a; end for; end",
    "create trigger g before insert on t for each row follows other begin set new.v = 1; set new.v = "
    "new.v * 2; end",
    "create trigger g after update on t for each row set @a = new.v",
    "create event e on schedule every 1 day starts '2026-01-01' on completion preserve disable do "
    "begin delete from t; end",
    "alter definer=current_user() event e on schedule every 2 day do begin delete from t; select 1; end",
    "begin not atomic declare a int; set a = 1; if a then insert into t values (1); end if; end",
    "/*!50003 CREATE*/ /*!50017 DEFINER=`root`@`localhost`*/ /*!50003 TRIGGER g BEFORE INSERT ON t FOR "
    "EACH ROW "
    "BEGIN /* a; remark */ SET NEW.v = 1; SET NEW.v = 2; END */",
    "/*!50003 CREATE*/ /*!50020 DEFINER=`root`@`localhost`*/ /*!50003 PROCEDURE p()\nBEGIN\nselect 1; END */",
    "create package p procedure a(); function b() returns int; end",
    "create package body p as procedure a() begin select 1; end; function b() returns int return 2; end",
]  # fmt: skip


@pytest.mark.parametrize("text", PROGRAMS)
def test_a_program_is_one_statement(text: str) -> None:
    program = text.encode()
    assert split_statements(program) == (program,)
    assert split_statements(program + b"; ") == (program,)
    assert split_statements(b"select ';'; " + program + b";\n select 2; drop procedure p;") == (
        b"select ';'", program, b"select 2", b"drop procedure p",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("create procedure p() select 1; drop table t", 2),
        ("create procedure p() begin select 1; drop table t", 2),  # it never ends: nothing may ride along
        ("create procedure p() if 1 then select 1; end; drop table t", 3),
        ("create trigger g before insert on t for each row set @a = 1; drop table t", 2),
        ("create event e on schedule every 1 day do delete from t; drop table t", 2),
        ("alter event e rename to f; drop table t", 2),
        ("create procedure p() begin select 1; /*!99999 end */; drop table t; end", 4),
        ("create procedure p() /*!99999 begin */ select 1; drop table t; end", 3),
        ("begin; insert into t values (1); end", 3),
        ("create table begin (x int); select 1", 2),
        ("create view v as select 1; select 2", 2),
        ("create procedure p() begin select `end`; end; select 2", 2),
        ("create function f returns string soname 'a;b'; select 1", 2),
        ("create function f() returns int return case when 1 then 2 end; select 1", 2),
        # functions and columns with names of what blocks are made of
        ("create function f() returns int return - repeat('a', 3); drop table t; until 1 end repeat", 3),
        ("create function f() returns int return binary repeat('a', 3); drop table t; until 1 end repeat", 3),
        (
            "create procedure p() if case when end then repeat('a', 3) end then select 1; end if; drop table "
            "t; until 1 end repeat; end if",
            5,
        ),
        (
            "create procedure p() if case when 1 then - end when 2 then repeat('a', 3) end then select 1; "
            "end if; drop table t; until 1 end repeat; end if",
            5,
        ),
        ("create procedure p() if (select end from t) then select t.end, end.t; end if; drop table t", 2),
        ("create procedure p() while (select do from t) do select 1; end while; drop table t", 2),
        ("create procedure p() while 1.do select 1; end while; drop table t", 3),
        ("create trigger g before insert on t; drop table t; select 1", 3),
        ("select 1 -- a; b\n; select 2", 2),
        ("/*!40101 SET NAMES utf8 */; /*!40014 SET UNIQUE_CHECKS=0 */;", 2),
        ("select 'a;b', \"c;d\", `e;f` /* g;h */ # i;j", 1),
    ],
)
def test_other_semicolons_end_statements(text: str, count: int) -> None:
    assert len(split_statements(text.encode())) == count


def test_comments_in_executed_comments() -> None:
    found = scan(b"/*!50003 CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW /* a '*' */ SET NEW.v = 1 */")
    assert (found.program, [ref.name for ref in found.tables]) == (b"TRIGGER", ["t"])
    for text in (
        b"/*!50003 set @a = '/*' */; drop table t /* x */",
        b"/*!50003 set @a = '*/' */; drop table t",
        b"/*!50003 select 1 /* x */",
    ):
        answer = router(ONE).plan(text, view())
        assert isinstance(answer, Refuse), text
        assert answer.errno == 1064


def test_what_a_program_does_is_done_when_it_runs() -> None:
    text = "create procedure p() begin set @a = last_insert_id(); select get_lock('a', 1) from users; end"
    found = plan(text)
    assert isinstance(found, Pass)
    assert (found.sql, found.footprint.verb, found.footprint.keeps_state) == (text.encode(), Verb.DDL, False)


def test_a_block_goes_where_its_tables_are() -> None:
    text = "begin not atomic declare x int; set x = 1; insert into other.b values (x); end"
    answer = plan(text)
    assert isinstance(answer, Pass)
    assert answer.destination.keyspace == "other"
    assert (answer.footprint.verb, answer.footprint.queries) == (Verb.CALL, False)
    refused("begin not atomic insert into other.b values (1); delete from main.a; end")
    found = scan(
        b"begin not atomic if (select 1 from a) then insert into b select * from c; update d set x=1; "
        b"end if; end"
    )
    assert sorted(ref.name for ref in found.tables) == ["a", "b", "c", "d"]
    assert len({ref.start for ref in found.tables}) == 4


@pytest.mark.parametrize(
    "text",
    [
        "create procedure p() begin select 1; end",
        "create definer=a@b trigger g before insert on users for each row begin set new.age = 1; end",
        "/*!50003 CREATE*/ /*!50017 DEFINER=`a`@`b`*/ /*!50003 TRIGGER g BEFORE INSERT ON users FOR EACH "
        "ROW SET @a=1 */",
        "begin not atomic insert into users values (1); end",
        "create event e on schedule every 1 day do delete from users",
    ],
)
def test_programs_on_shards_are_refused_with_the_way_out(text: str) -> None:
    answer = refused(text, target=Target("sh"))
    assert answer.errno == 1235
    assert answer.message.startswith("VT12001")
    assert "on a sharded keyspace" in answer.message
    assert "USE `sh/-80`" in answer.message
    passed(text, target=Target("sh", "-80"))


def test_blocks_too_deep_to_follow_end_at_every_semicolon() -> None:
    text = b"create procedure p() " + b"begin " * 5000 + b"select 1; " + b"end; " * 4999 + b"end"
    assert len(split_statements(text)) == 5001
    plan_ = router(ONE).plan(b"begin not atomic " + b"begin " * 5000 + b"end; " * 5000 + b"end", view())
    assert isinstance(plan_, Refuse)


def test_behind_a_program_without_an_end_every_semicolon_ends_a_statement() -> None:
    """Else each later one would be looked through to the end of the text."""
    text = b"create procedure a() begin if x then select 1; create procedure b() begin select 3; end"
    assert split_statements(text) == tuple(part.strip() for part in text.split(b";"))


def test_blocks_in_which_words_of_blocks_are_names() -> None:
    for text in (
        "begin not atomic declare do int; while do do execute immediate 'x'; end while; end",
        "begin not atomic declare end int; if case when end then (1) end then execute immediate 'x'; end if; "
        "end",
    ):
        assert isinstance(router(ONE).plan(text.encode(), view()), Refuse)
    text = b"begin not atomic while (select t.do + do from t) do start transaction; commit; end while; end"
    assert isinstance(router(ONE, {"shop": {}}).plan(text, view()), Pass)


def test_a_block_that_makes_a_temporary_table_keeps_its_connection() -> None:
    made = passed("begin not atomic create temporary table a (x int); end")
    assert made.footprint.keeps_state
