"""The router on unsharded keyspaces and several of them, and prepared statements."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import (
    Answer,
    Control,
    Done,
    NeedSchema,
    Pass,
    Refuse,
    Scatter,
    SessionView,
    Target,
    Verb,
)
from homeworld.gateway.router import Router, remember
from homeworld.model.topology import TabletType
from tests.support.router_tables import KNOWN, ONE, WORLD, passed, plan, refused
from tests.support.routing_world import KnownTables, branch, keyspace, router, view

# ------------------------------------------------------------------------------- one unsharded keyspace


@pytest.mark.parametrize(
    ("text", "verb", "tables"),
    [
        ("select * from t where id = 5", Verb.SELECT, {"t"}),
        ("insert into t values (1), (2)", Verb.INSERT, {"t"}),
        ("replace into t values (1)", Verb.REPLACE, {"t"}),
        ("update t, u set t.a = u.b where t.id = u.id", Verb.UPDATE, {"t", "u"}),
        ("delete from t limit 5", Verb.DELETE, {"t"}),
        ("create table t (id int)", Verb.DDL, {"t"}),
        ("truncate table t", Verb.DDL, {"t"}),
        ("load data local infile 'x' into table t", Verb.LOAD, {"t"}),
        ("call p(1)", Verb.CALL, set[str]()),
        ("call p((select x from t))", Verb.CALL, set[str]()),
        ("lock tables t write", Verb.LOCK, {"t"}),
        ("select 1", Verb.SELECT, set[str]()),
        ("select @@version", Verb.SELECT, set[str]()),
        ("selct 1", Verb.OTHER, set[str]()),
        ("do sleep(0)", Verb.SELECT, set[str]()),
        ("show warnings", Verb.SHOW, set[str]()),
        ("show create table t", Verb.SHOW, {"t"}),
        ("describe t", Verb.SHOW, {"t"}),
        ("handler t open", Verb.OTHER, {"t"}),
    ],
)
def test_everything_passes_untouched_with_its_footprint(text: str, verb: Verb, tables: set[str]) -> None:
    one = router(ONE)
    for _ in range(2):  # first time, and from the cache
        found = one.plan(text.encode(), view())
        assert isinstance(found, Pass)
        assert found.sql == text.encode()
        assert (found.destination.keyspace, found.destination.shard) == ("shop", "-")
        assert found.footprint.verb is verb
        assert found.footprint.tables == {("shop", table) for table in tables}


def test_a_template_serves_other_literals() -> None:
    one = router(ONE)
    first = one.plan(b"select * from t where id = 5", view())
    second = one.plan(b"select * from t where id = 'x'", view())
    assert isinstance(first, Pass)
    assert isinstance(second, Pass)
    assert second.sql == b"select * from t where id = 'x'"
    assert second.footprint is first.footprint


def test_the_database_s_own_name_and_the_keyspace_s_name_qualify() -> None:
    routes = branch(keyspace("main"), database="shop")
    found = router(routes).plan(b"select shop.t.a, t.b from shop.t join `main`.u on shop.t.a = u.a", view())
    assert isinstance(found, Pass)
    assert found.sql == b"select `main`.t.a, t.b from `main`.t join `main`.u on `main`.t.a = u.a"
    untouched = router(routes).plan(b"select main.t.a from main.t", view())
    assert isinstance(untouched, Pass)
    assert untouched.sql == b"select main.t.a from main.t"
    unknown = router(routes).plan(b"select * from nowhere.t", view())
    assert unknown == Refuse(1049, "42000", "VT05003: unknown database 'nowhere' in vschema")


def test_a_view_s_tables_are_in_the_footprint() -> None:
    tables = KnownTables({"shop": {"v": {}, "t": {}}}, {("shop", "v"): frozenset({"t"})})
    found = Router(ONE, tables).plan(b"select * from v", view())
    assert isinstance(found, Pass)
    assert found.footprint.tables == {("shop", "v"), ("shop", "t")}


def test_a_stored_function_may_touch_every_table() -> None:
    tables = KnownTables({"shop": {"u": {}, "t": {}}})
    found = Router(ONE, tables).plan(b"select f(1) from t", view())
    assert isinstance(found, Pass)
    assert found.footprint.tables == {("shop", "u"), ("shop", "t")}
    assert router(ONE).plan(b"select f(1) from t", view()) == NeedSchema("shop")


def test_templates_are_dropped_when_the_tables_change() -> None:
    tables = KnownTables({"shop": {"t": {}}})
    one = Router(ONE, tables)
    assert isinstance(one.plan(b"select f(1) from t", view()), Pass)
    tables.known = {"shop": {"t": {}, "u": {}}}
    tables.version += 1
    found = one.plan(b"select f(1) from t", view())
    assert isinstance(found, Pass)
    assert ("shop", "u") in found.footprint.tables


@pytest.mark.parametrize(
    "text",
    [
        "prepare s from 'drop table t'", "execute s", "deallocate prepare s", "execute immediate 'x'",
        "xa start 'x'", "flush tables", "grant all on *.* to x", "create database x", "drop schema x",
        "alter database x charset utf8", "create user x", "shutdown", "reset master", "start replica",
        "analyze update t set a = 1", "begin not atomic prepare s from 'x'; end",
        "begin not atomic set sql_mode = ''; end",
        "begin not atomic create or replace database d; end", "begin not atomic start slave; end",
        "begin not atomic analyze format = json update t set a = 1; end",
        "begin not atomic while (select do close from (select 1 as do) x) do execute immediate 'x'; end "
        "while; end",
        "show vitess_migrations",
        "begin not atomic declare c cursor for select sql_log_bin from t; set sql_log_bin=0; end",
        "begin not atomic begin declare sql_mode int; end; set sql_mode='ANSI_QUOTES'; end",
        "begin not atomic declare global int; set global max_connections=1; end",
        "create or replace database x", "vexplain plan select 1",
    ],
)  # fmt: skip
def test_what_reaches_around_the_router_is_refused(text: str) -> None:
    found = router(ONE).plan(text.encode(), view())
    assert isinstance(found, Refuse)
    assert found.errno == 1235
    assert found.message.startswith("VT12001: unsupported: ")


def test_what_cannot_be_read_is_a_syntax_error() -> None:
    found = router(ONE).plan(b"select 'x", view())
    assert isinstance(found, Refuse)
    assert found.errno == 1064


# ------------------------------------------------------------------------------- several keyspaces


@pytest.mark.parametrize(
    ("text", "keyspace_name", "sql"),
    [
        ("select * from a", "main", None),
        ("select * from b", "other", None),
        ("select * from listed", "main", None),  # the vschema speaks first
        ("select * from other.listed", "other", None),
        ("select * from unknown_table", "main", None),  # its server says what is wrong
        ("select * from moved", "other", None),
        ("select moved.x from moved", "other", None),
        ("select main.moved.x from main.moved where 'main.moved' = 5", "other",
         "select `other`.moved.x from `other`.moved where 'main.moved' = 5"),
        ("insert into main.moved values (1)", "other", "insert into `other`.moved values (1)"),
        ("select * from half", "main", None),
        ("create table fresh (id int)", "main", None),
        ("show columns from b", "other", None),
        ("show columns from moved from main", "other", "show columns from `other`.moved "),
        ("show index from `b`", "other", None),
        ("show create table main.moved", "other", "show create table `other`.moved"),
        ("explain select * from b", "other", None),
        ("explain main.moved", "other", "explain `other`.moved"),
        ("show tables", "main", None),
        ("show tables from other", "other", None),
        ("show full tables from shop like 'x%'", "main", "show full tables from `main` like 'x%'"),
        ("show variables like 'x'", "main", None),
    ],
)  # fmt: skip
def test_tables_are_found(text: str, keyspace_name: str, sql: str | None) -> None:
    found = passed(text)
    assert found.destination.keyspace == keyspace_name
    assert found.sql.decode() == (sql or text)


def test_rules_by_tablet_type() -> None:
    assert passed("select * from half").destination.keyspace == "main"
    replica = passed("select * from half", target=Target(tablet_type=TabletType.REPLICA))
    assert (replica.destination.keyspace, replica.destination.tablet_type) == ("other", TabletType.REPLICA)
    only = passed("select * from half", replica_only=True)
    assert (only.destination.keyspace, only.destination.tablet_type) == ("other", TabletType.REPLICA)


def test_a_keyspace_target_is_where_unqualified_names_live() -> None:
    aimed = Target("other")
    assert passed("select * from both", target=aimed).destination.keyspace == "other"
    assert passed("select * from a", target=aimed).destination.keyspace == "other"
    assert passed("select 1", target=aimed).destination.keyspace == "other"
    moved = passed("select * from moved", target=Target("main"))
    assert moved.destination.keyspace == "other"
    assert moved.sql == b"select * from moved"  # its connection's schema is the keyspace's


def test_a_function_of_another_keyspace_is_refused() -> None:
    assert "stored functions" in refused("select other.f(1)").message
    assert isinstance(router(ONE, {"shop": {}}).plan(b"select shop.f(1)", view()), Pass)


def test_names_that_could_mean_two_tables_are_refused() -> None:
    assert refused("select * from both").message == "ambiguous table reference: both"
    assert "renam" in refused("select * from renamed").message
    assert refused("select * from a join b").message == (
        "VT12001: unsupported: one statement on several keyspaces (main, other)"
    )
    assert router(WORLD).plan(b"select * from a", view()) == NeedSchema("main")


def test_a_shard_target_takes_everything() -> None:
    aimed = Target("sh", "80-")
    for text in (
        "select * from users",
        "update users set id = 1 limit 5",
        "select 1",
        "drop table x",
        "call p()",
    ):
        found = passed(text, target=aimed)
        assert (found.destination.keyspace, found.destination.shard) == ("sh", "80-")
        assert found.sql == text.encode()
    assert passed("select * from sh.users", target=aimed).sql == b"select * from `sh_80_`.users"
    assert passed("select * from users", target=aimed).footprint.tables == {("sh", "users")}
    assert "aimed at one shard" in refused("select * from main.a", target=aimed).message


# ------------------------------------------------------------------------------- what the session knows


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("select last_insert_id()", "last_insert_id()"),
        ("SELECT LAST_INSERT_ID() AS id", "id"),
        ("select last_insert_id ( ) `x` limit 1", "x"),
        ("select @@identity", "@@identity"),
        ("select last_insert_id() from dual", "last_insert_id()"),
    ],
)
def test_last_insert_id_is_the_session_s(text: str, title: str) -> None:
    one = router(WORLD, KNOWN)
    for number in (7, 8):
        found = one.plan(text.encode(), view(last_insert_id=number))
        assert isinstance(found, Answer)
        assert found.columns[0].name == title
        assert found.rows == ((b"%d" % number,),)


def test_last_insert_id_inside_a_statement_becomes_its_number() -> None:
    one = router(WORLD, KNOWN)
    for number in (7, 8):
        found = one.plan(
            b"insert into a values (last_insert_id(), 'last_insert_id()')", view(last_insert_id=number)
        )
        assert isinstance(found, Pass)
        assert found.sql == b"insert into a values (%d, 'last_insert_id()')" % number
    assert isinstance(plan("update a set id = last_insert_id(id + 1)"), Refuse)


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("select Last_Insert_Id(), count(*) from a", "select 7 AS `Last_Insert_Id()`, count(*) from a"),
        ("select id, last_insert_id( ) from a", "select id, 7 AS `last_insert_id( )` from a"),
        ("select last_insert_id() x, user()", "select 7 x, user()"),
        ("select last_insert_id() + 1, user()", "select 7 + 1, user()"),
        ("select id from a where id = last_insert_id()", "select id from a where id = 7"),
        ("select id from a where id in (1, last_insert_id())", "select id from a where id in (1, 7)"),
        ("select id from a order by id, last_insert_id()", "select id from a order by id, 7"),
    ],
)
def test_a_column_of_the_last_id_keeps_its_name(text: str, sent: str) -> None:
    assert passed(text, last_insert_id=7).sql == sent.encode()


@pytest.mark.parametrize("text", ["-- a remark", "# a\n# b", "/* a; b */", "/* a */ -- b\n", "/*! */"])
def test_remarks_alone_are_well(text: str) -> None:
    assert plan(text) == Done()


@pytest.mark.parametrize("text", ["", "  \n", ";", " ; ;"])
def test_no_text_at_all_is_refused_as_a_server_does(text: str) -> None:
    assert plan(text) == Refuse(1065, "42000", "Query was empty")


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("select database(), user()", "select 'sh' AS `database()`, user()"),
        ("select 1, Schema() limit 1", "select 1, 'sh' AS `Schema()` limit 1"),
        ("select concat(database(), '.t') n", "select concat('sh', '.t') n"),
    ],
)
def test_database_beside_other_things_is_no_server_s_schema(text: str, sent: str) -> None:
    assert passed(text, target=Target("sh")).sql == sent.encode()
    assert passed(text, target=Target("other")).sql in {
        text.encode(),
        sent.replace("'sh'", "'other'").encode(),
    }


def test_explaining_an_insert_takes_no_ids() -> None:
    users: dict[str, object] = {
        "column_vindexes": [{"column": "id", "name": "xxhash"}],
        "auto_increment": {"column": "id", "sequence": "main.users_seq"},
    }
    world = branch(
        keyspace("main", {"tables": {"users_seq": {"type": "sequence"}}}),
        keyspace(
            "sh", {"vindexes": {"xxhash": {"type": "xxhash"}}, "tables": {"users": users}}, "-80", "80-"
        ),
    )
    inserted = router(world, KNOWN).plan(b"insert into sh.users (name) values ('a')", view())
    assert type(inserted).__name__ == "NeedSequence"
    found = router(world, KNOWN).plan(b"explain insert into sh.users (name) values ('a')", view())
    assert isinstance(found, Pass)
    assert found.sql.lower().startswith(b"explain insert into")


def test_database_is_what_the_session_is_aimed_at() -> None:
    def shown(target: Target) -> bytes | None:
        found = plan("select database()", target=target)
        assert isinstance(found, Answer)
        return found.rows[0][0]

    assert shown(Target()) == b"shop"
    assert shown(Target("main")) == b"main"
    assert shown(Target("sh", "-80", TabletType.REPLICA)) == b"sh/-80@replica"
    assert plan("select schema() as x", target=Target("main")) == plan(
        "select database() as x", target=Target("main")
    )


def test_information_schema_knows_keyspaces_by_their_names() -> None:
    found = passed("select * from information_schema.tables where table_schema = 'other'")
    assert found.destination.keyspace == "other"
    assert found.footprint.tables == frozenset()
    renamed = passed("select * from information_schema.tables where table_schema = 'shop'")
    assert renamed.sql.endswith(b"table_schema = 'main'")
    there = plan("select table_schema, 1 from information_schema.tables where table_schema = 'sh'")
    assert isinstance(there, Scatter)
    assert there.statements[0][1].endswith(b"table_schema = 'sh__80'")
    assert there.merge is not None
    assert there.merge([[(b"sh__80", b"1"), (None, b"x")]]) == [(b"sh", b"1"), (None, b"x")]
    both = refused("select * from information_schema.tables where table_schema in ('main', 'other')")
    assert "several keyspaces" in both.message
    assert isinstance(plan("delete from mysql.user"), Refuse)
    inside = passed("select * from tables", target=Target("information_schema"))
    assert inside.sql == b"select * from `information_schema`.tables"


# ------------------------------------------------------------------------------- prepared statements


def test_prepared_on_an_unsharded_keyspace_is_fixed() -> None:
    one = router(WORLD, KNOWN)
    found = one.plan_prepared(b"select * from a where id = ? and x = 'it''s ?'", view())
    assert found.fixed
    assert isinstance(found.plan, Pass)
    assert found.plan.sql == b"select * from a where id = ? and x = 'it''s ?'"
    moved = one.plan_prepared(b"select * from main.moved where id = ?", view())
    assert moved.fixed
    assert isinstance(moved.plan, Pass)
    assert moved.plan.sql == b"select * from `other`.moved where id = ?"


def test_prepared_without_a_server() -> None:
    one = router(WORLD, KNOWN)
    assert one.plan_prepared(b"begin", view()).plan == Control(Verb.BEGIN, b"begin")
    assert isinstance(one.plan_prepared(b"select last_insert_id()", view(last_insert_id=5)).plan, Answer)
    assert isinstance(one.plan_prepared(b"select 'x", view()).plan, Refuse)
    assert isinstance(one.plan_prepared(b"select * from both where id = ?", view()).plan, Refuse)


def test_params_take_their_places() -> None:
    one = router(WORLD, KNOWN)
    text = b"insert into a values (?, '?', ?, last_insert_id())"
    assert not one.plan_prepared(text, view()).fixed
    found = one.plan_params(text, [b"1", b"'a?b'"], view(last_insert_id=9))
    assert isinstance(found, Pass)
    assert found.sql == b"insert into a values ( 1 , '?',  'a?b' , 9)"
    wrong = one.plan_params(text, [b"1"], view())
    assert isinstance(wrong, Refuse)
    assert wrong.errno == 1210


def test_the_cache_is_bounded() -> None:
    cache: dict[int, int] = {}
    for number in range(12_000):
        remember(cache, number, number)
    assert len(cache) <= 5_000
    assert 11_999 in cache


def test_views_of_other_facts_share_nothing_wrongly() -> None:
    one = router(WORLD, KNOWN)
    facts: list[SessionView] = [view(), view(Target("other")), view(replica_only=True)]
    found = [one.plan(b"select * from listed", facts[number % 3]) for number in range(9)]
    assert [plan.destination for plan in found if isinstance(plan, Pass)] == [
        plan.destination for plan in found[:3] * 3 if isinstance(plan, Pass)
    ]
