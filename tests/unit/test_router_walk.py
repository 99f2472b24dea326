"""Tables in odd places: each that a server would touch because a text names it is found there.

What every one of these texts means was asked of MySQL 9.7 or MariaDB 10.11.
"""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Pass, Refuse
from homeworld.gateway.sql_tables import scan
from tests.support.router_tables import KNOWN, WORLD, passed
from tests.support.routing_world import branch, keyspace, router, view

FOUND = [
    # words that are reserved in no server, as names of tables
    ("insert into quick values (1)", "quick"),
    ("replace quick values (1)", "quick"),
    ("update quick set a = 1", "quick"),
    ("update low_priority ignore t set a = 1", "t"),
    ("truncate table tables", "tables"),
    ("truncate local", "local"),
    ("truncate table format", "format"),
    ("rename table user to user_old", "user user_old"),
    ("rename tables tables to a", "tables a"),
    ("analyze local table tables, b", "tables b"),
    ("select * from lateral where 1", "lateral"),
    ("select * from a dumpfile, b", "a b"),
    ("select * from a as dumpfile join b", "a b"),
    # keywords in qualified names are plain names
    ("select * from a join o on a.where = o.order join c", "a o c"),
    ("select * from a `order` join b on order.id = b.id join c", "a b c"),
    ("select a.from, b.select from a join b on a.x = b.select join c", "a b c"),
    ("update a join b on a.set = b.set join c on c.id = a.id set a.x = 1", "a b c"),
    ("select 1.from t", "t"),
    ("select * from a join ks.for join b on a.for = b.for join c", "a ks.for b c"),
    ("select * from a join b on window = 1 join c", "a b c"),
    ("select rank() over w from a window w as (order by a, b)", "a"),
    # clauses that are none
    ("select * from a use index for order by (i) join b on a.id = b.id", "a b"),
    ("select * from a ignore index for group by (i), b", "a b"),
    ("select * from a use index for join (i), b", "a b"),
    # DELETE in all its forms
    ("with c as (select 1) delete from x where id in (select id from y)", "x y"),
    ("with c as (select * from z) delete from x using x join c", "z x"),
    ("with c as (select 1) delete x from x join c", "x"),
    ("delete from x using (x join y on x.a = y.a)", "x y"),
    ("delete from x using a as x, b", "a b"),
    ("delete quick from t", "t"),
    ("delete ks.t from ks.t", "ks.t ks.t"),
    ("delete from t where a in (select b.a from b join c using (a))", "t b c"),
    # common table expressions
    ("with recursive a as (select 1), b as (select 1 union select 1 from b) select * from a, b, t", "t"),
    ("with t as (select * from t) select * from t", "t"),
    ("select (with t as (select 1) select * from t), (select max(a) from t)", "t"),
    # what MariaDB has beyond
    ("rename table a wait 5 to b, c nowait to d", "a b c d"),
    ("insert into .t values (1)", "t"),
    ("alter table a convert table b to partition p values less than (1)", "a b"),
    ("alter table a convert partition p to table b", "a b"),
    ("alter table a exchange partition p with table b", "a b"),
    ("check view v", "v"),
    ("create definer = user@localhost view v as select * from t", "v t"),
    (
        "begin not atomic with t as (select 1) select * from t; "
        "if (select max(a) from t) then select 1; end if; end",
        "t",
    ),
]


@pytest.mark.parametrize(("text", "tables"), FOUND)
def test_every_table_is_found(text: str, tables: str) -> None:
    found = scan(text.encode()).tables
    assert [f"{one.schema}.{one.name}" if one.schema else one.name for one in found] == tables.split()


@pytest.mark.parametrize(
    "text",
    [
        "select * from users u use index for order by (i) join users v on u.name = v.name where u.id = 5",
        "select * from users dumpfile, users v where dumpfile.id = 5",
        "select * from users u join users v on u.order = v.order join users w where u.id = 5",
    ],
)
def test_no_table_beside_another_is_taken_to_be_on_its_shard(text: str) -> None:
    known = {**KNOWN, "sh": {"users": {"id": "bigint", "name": "varchar(20)", "order": "bigint"}}}
    assert isinstance(router(WORLD, known).plan(text.encode(), view()), Refuse)


def test_a_delete_from_a_qualified_table_follows_its_move() -> None:
    target, source = (
        passed("delete main.moved from main.moved"),
        passed("delete from main.moved using main.moved"),
    )
    assert target.sql == b"delete `other`.moved from `other`.moved"
    assert source.sql == b"delete from `other`.moved using `other`.moved"
    assert target.destination.keyspace == source.destination.keyspace == "other"


def test_columns_named_with_their_keyspace_follow_a_move_of_their_table() -> None:
    for text in (
        "select main.moved.id, shop.moved.* from moved",
        "insert into moved (main.moved.id) values (1)",
        "update moved set main.moved.id = 1",
    ):
        found = passed(text)
        assert found.destination.keyspace == "other"
        assert found.sql.decode() == text.replace("main.", "`other`.").replace("shop.", "`other`.")
    assert passed("select main.a.id from a").sql == b"select main.a.id from a"


def test_names_deep_in_parentheses_cost_no_more_than_their_number() -> None:
    text = b"select * from " + b"(" * 30_000 + b"select * from " + b"a," * 30_000 + b"a" + b")" * 30_000
    assert len(scan(text).tables) == 30_001


ENDS = [text for text, _ in FOUND] + [
    "select last_insert_id(1)",
    "select next value from users_seq",
    "select next 5 values from users_seq",
    "select database() as a, b.* from a as b where `x` = 'y' and c in (1, 2) limit 5 offset 6",
    "insert into users (id, name) values (1, 'a'), (2, 'b') on duplicate key update name = values(name)",
    "set names utf8mb4, @a = 1, @@session.sql_mode = concat(@@sql_mode, ',x')",
    "show full columns from a in main like 'x'",
    "explain format = json select * from users where id = 5",
    "alter vschema on sh.users add vindex v(id) using xxhash",
    "create or replace definer = `a`@`b` procedure p (in a int) begin select 1; end",
    "load data local infile 'x' into table a fields terminated by ',' (a, b) set c = (select 1)",
    "kill query 5",
    "use `sh/-80`",
    "call p((select interval(1, 2) + interval 1 day), case when 1 then 2 end)",
    "lock tables a as b read, c write",
    "start transaction with consistent snapshot",
    "rollback work to savepoint a",
]


@pytest.mark.parametrize("text", ENDS)
def test_a_text_that_ends_too_early_is_answered_by_a_plan(text: str) -> None:
    sql = text.encode()
    routers = (router(WORLD, KNOWN), router(branch(keyspace("main")), KNOWN))
    for one in routers:
        for end in range(len(sql)):
            one.plan(sql[:end], view())
            one.plan_prepared(sql[:end], view())
            one.split(sql[:end] + b"; select 1")
    assert not isinstance(routers[1].plan(b"select 1", view()), Refuse)
    assert isinstance(routers[1].plan(b"select 1 from a", view()), Pass)
