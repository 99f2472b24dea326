"""What a vtgate's router says of statements: what they touch, where they go, what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from homeworld.gateway.plan import (
    AlterVschema,
    Answer,
    Control,
    Destination,
    Done,
    Footprint,
    NeedLastId,
    NeedSchema,
    Pass,
    Plan,
    Refuse,
    SessionView,
    Target,
    Verb,
)
from homeworld.gateway.router_vtgate import VtgateRouter
from homeworld.gateway.routers import make_router
from homeworld.model.routing import BranchRoutes, Moving
from homeworld.model.topology import Endpoint, Flavor, TabletType
from tests.support.routing_world import KnownTables, branch, endpoint, keyspace, view

VTGATE = Endpoint("vtgate", Flavor.MYSQL, "127.0.0.1", 1, "", "", "", vtgate=True)
ORDERS = {
    "vindexes": {
        "hash": {"type": "hash"},
        "by_name": {"type": "consistent_lookup", "params": {"table": "shop.names"}, "owner": "orders"},
    },
    "tables": {
        "orders": {
            "column_vindexes": [{"column": "id", "name": "hash"}, {"column": "name", "name": "by_name"}],
            "auto_increment": {"column": "id", "sequence": "shop.ids"},
        },
        "lines": {"column_vindexes": [{"column": "order_id", "name": "hash"}]},
        "rates": {"type": "reference", "source": "shop.rates"},
    },
}
WORLD = replace(
    branch(
        keyspace("shop", {"tables": {"ids": {"type": "sequence"}, "rates": {}}}),
        keyspace("sh", ORDERS, "-80", "80-"),
        rules={"moved": "shop.moved", "sh.moved": "shop.moved", "sh.moved@replica": "sh.moved"},
        database="app",
    ),
    vtgate=VTGATE,
)
KNOWN: dict[str, Any] = {
    "shop": {"ids": {"id": "bigint"}, "people": {"id": "bigint"}, "names": {}, "rates": {}, "v": {}},
    "sh": {"orders": {"id": "bigint"}, "lines": {}, "rates": {}},
}
PRIMARY = TabletType.PRIMARY


def ask(sql: str, routes: BranchRoutes = WORLD, seen: SessionView | None = None, **facts: Any) -> Plan:
    tables = KnownTables(KNOWN)
    tables.views = {("shop", "v"): frozenset({"people"})}
    return make_router(routes, tables).plan(sql.encode(), seen or view(**facts))


def passed(sql: str, **facts: Any) -> Pass:
    found = ask(sql, **facts)
    assert isinstance(found, Pass), found
    return found


def tables(sql: str, **facts: Any) -> set[str]:
    return {f"{where}.{table}" for where, table in passed(sql, **facts).footprint.tables}


@pytest.mark.parametrize(
    ("sql", "touched"),
    [
        ("select * from people", {"shop.people"}),
        ("select * from shop.people p join sh.lines l on p.id = l.order_id", {"shop.people", "sh.lines"}),
        ("select * from app.people", {"shop.people"}),
        ("select * from moved", {"shop.moved"}),
        ("select * from sh.moved", {"shop.moved"}),
        ("select * from v", {"shop.v", "shop.people"}),
        ("insert into lines select * from people", {"sh.lines", "shop.people"}),
        # What vtgate touches beside: the lookup table and the sequence; all copies of a reference table.
        ("delete from orders where id = 1", {"sh.orders", "shop.names", "shop.ids"}),
        ("update sh.rates set x = 1", {"sh.rates", "shop.rates"}),
        ("update shop.rates set x = 1", {"sh.rates", "shop.rates"}),
        # A table of both: it may be either.
        ("select * from rates", {"sh.rates", "shop.rates"}),
        # A table of none that is known to have it.
        ("select * from nowhere", {"shop.nowhere"}),
        # A stored function may read anything of where it runs.
        ("select f(id) from lines", {"sh.orders", "sh.lines", "sh.rates"}),
        ("with c as (select * from people) select * from c, lines", {"shop.people", "sh.lines"}),
        ("vexplain queries delete from lines where order_id = 1", {"sh.lines"}),
        ("show columns from lines", {"sh.lines"}),
        ("show create table shop.people", {"shop.people"}),
        ("describe people", {"shop.people"}),
        ("select 1", set[str]()),
    ],
)
def test_what_a_statement_touches(sql: str, touched: set[str]) -> None:
    assert tables(sql) == touched


def test_a_table_whose_keyspaces_are_not_known_counts_in_all_that_may_have_it() -> None:
    router = make_router(WORLD, KnownTables({}))
    found = router.plan(b"select * from nowhere", view())
    assert isinstance(found, Pass)
    assert found.footprint.tables == {("shop", "nowhere"), ("sh", "nowhere")}
    assert isinstance(router.plan(b"select f() from people", view()), NeedSchema)
    # What is made where nothing of its name is has to be told from what is made where it is already.
    assert isinstance(router.plan(b"create table new (id int)", view()), NeedSchema)


def test_the_text_goes_through_untouched() -> None:
    for sql in (
        "select * from `sh`.`lines` where order_id in (1, 2) order by 2 limit 3",
        "/* mine */ select  sum(distinct x) from lines -- and more",
        "insert into lines (order_id) values (1), (2)",
        "select now(), @@version, database from people",
    ):
        assert passed(sql).sql == sql.encode()


@pytest.mark.parametrize(
    ("sql", "edited"),
    [
        ("select app.people.id from app.people", "select people.id from people"),
        ("select 1, database()", "select 1, 'app' AS `database()`"),
        ("select 1 from people where x = schema()", "select 1 from people where x = 'app'"),
        ("show tables from app", "show tables from `shop`"),
        ("show columns from people from app", "show columns from people from `shop`"),
    ],
)
def test_what_vtgate_cannot_know_is_put_into_the_text(sql: str, edited: str) -> None:
    assert passed(sql).sql == edited.encode()


@pytest.mark.parametrize(
    ("sql", "target", "aimed"),
    [
        ("select * from people", Target(), ("", "")),
        ("select * from people, lines", Target("shop"), ("shop", "")),
        ("select * from lines", Target("sh", "-80"), ("sh", "-80")),
        ("create table new (id int)", Target(), ("shop", "")),
        ("alter table lines add x int", Target(), ("sh", "")),
        ("drop table rates", Target(), ("", "")),
        ("call p()", Target(), ("shop", "")),
        ("show tables", Target(), ("shop", "")),
        ("show tables", Target("sh"), ("sh", "")),
        ("show columns from lines", Target(), ("sh", "")),
        ("select * from information_schema.tables", Target(), ("shop", "")),
        ("select next 3 values from ids", Target(), ("shop", "")),
    ],
)
def test_where_vtgate_is_aimed(sql: str, target: Target, aimed: tuple[str, str]) -> None:
    assert passed(sql, target=target).destination == Destination(*aimed, PRIMARY, vtgate=True)


def test_a_branch_of_one_keyspace_is_aimed_at_it() -> None:
    one = replace(branch(keyspace("app", {}), database="app"), vtgate=VTGATE)
    found = ask("select * from whatever", one)
    assert isinstance(found, Pass)
    assert found.destination == Destination("app", "", PRIMARY, vtgate=True)
    assert found.footprint.tables == {("app", "whatever")}


def replicated() -> BranchRoutes:
    sharded = WORLD.keyspaces["sh"]
    shards = tuple(replace(one, replicas=(endpoint("r"),)) for one in sharded.shards)
    return replace(WORLD, keyspaces={**WORLD.keyspaces, "sh": replace(sharded, shards=shards)})


def test_replicas_serve_where_every_shard_has_one() -> None:
    aimed = Target(tablet_type=TabletType.REPLICA)
    assert passed("select * from lines", target=aimed).destination.tablet_type is PRIMARY
    shop = replace(aimed, keyspace="shop")
    assert passed("select * from people", target=shop).destination.tablet_type is TabletType.REPLICA
    for target in (aimed, replace(aimed, tablet_type=TabletType.RDONLY)):
        found = ask("select * from sh.moved", replicated(), target=target)
        assert isinstance(found, Pass)
        assert found.destination == Destination("", "", TabletType.REPLICA, vtgate=True)
        assert found.footprint.tables == {("sh", "moved")}
    found = ask("select * from lines", replicated(), replica_only=True)
    assert isinstance(found, Pass)
    assert found.destination.tablet_type is TabletType.REPLICA


@pytest.mark.parametrize("routes", [WORLD, replicated()])
def test_a_password_for_replicas_is_led_nowhere_else(routes: BranchRoutes) -> None:
    for sql in ("delete from lines", "create table x (id int)", "select next value from ids", "call p()"):
        found = ask(sql, routes, replica_only=True)
        assert isinstance(found, Refuse)
        assert found.errno == 1290
    for sql in (
        "select * from `sh@primary`.lines",
        "select * from `sh:-80`.lines",
        "delete from `sh@primary`.t",
    ):
        found = ask(sql, routes, replica_only=True)
        assert isinstance(found, Refuse)
        assert found.errno == 1049


def test_taking_ids_of_a_sequence_is_a_write() -> None:
    assert passed("select next value from ids").footprint == Footprint(
        Verb.UPDATE, frozenset({("shop", "ids")})
    )
    assert passed("select next from ids").footprint.verb is Verb.SELECT


def test_explaining_counts_as_showing_and_vexplain_as_what_it_carries_out() -> None:
    shown = passed("explain delete from lines").footprint
    assert (shown.verb, shown.queries) == (Verb.SHOW, True)
    done = passed("vexplain all delete from lines").footprint
    assert (done.verb, done.queries) == (Verb.DELETE, True)


@pytest.mark.parametrize(
    ("sql", "sent"),
    [
        ("begin", "BEGIN"),
        ("BEGIN WORK", "BEGIN"),
        ("start transaction read only", "start transaction read only"),
        ("commit work", "COMMIT"),
        ("commit and no chain no release", "COMMIT"),
        ("rollback work", "ROLLBACK"),
        ("rollback release", "rollback release"),
        ("rollback work to savepoint s", "rollback work to savepoint s"),
        ("release savepoint s", "release savepoint s"),
    ],
)
def test_transactions_are_ended_as_vtgate_understands_it(sql: str, sent: str) -> None:
    found = ask(sql)
    assert isinstance(found, Control)
    assert found.sql == sent.encode()


@pytest.mark.parametrize(
    "sql",
    [
        "set autocommit = 0",
        "set names utf8mb4",
        "set names utf8 collate utf8_general_ci",
        "set names 'utf8mb4' collate 'utf8mb4_unicode_ci'",
        "set character_set_results = NULL",
        "set character_set_client = @saved",
        "set @a = 1, @b = concat('x', 'y')",
        "set session transaction isolation level read committed",
        "set @@session.sql_mode = 'STRICT_ALL_TABLES'",
        "set sql_auto_is_null = 0, wait_timeout = 100",
        "set workload = olap",
        "set transaction_mode = 'single'",
        "set ddl_strategy = 'direct'",
        "set time_zone = '+00:00'",
        "set max_execution_time = 0",
    ],
)
def test_settings_that_vtgate_has(sql: str) -> None:
    assert ask(sql) == Control(Verb.SET, sql.encode())


@pytest.mark.parametrize(
    "sql",
    [
        "set names latin1",
        "set names utf8mb4 collate utf8mb4_bin",
        "set character_set_client = gbk",
        "set collation_connection = utf8mb4_0900_as_cs",
        "set transaction isolation level serializable",
        "set session transaction read only",
        "set transaction_read_only = 1",
        "set sql_mode = 'ANSI_QUOTES'",
        "set global sql_mode = ''",
        "set sql_log_bin = 0",
        "set ddl_strategy = 'vitess'",
        "set @@vitess_metadata.x = '1'",
        "set enable_system_settings = 0",
        "set max_execution_time = 1000",
        "set lc_time_names = 'de_DE'",
        "set div_precision_increment = 8",
        "set default_storage_engine = 'MyISAM'",
        "set @a = (select 1)",
        "set @a = f(1)",
        "set password = 'x'",
        "start transaction with consistent snapshot",
        "commit and chain",
        "begin not atomic select 1; end",
        "lock tables people read",
        "load data local infile 'x' into table people",
        "do release_lock('a')",
        "handler people open",
        "xa begin 'x'",
        "flush tables",
        "stream * from people",
        "prepare p from 'select 1'",
        "optimize table lines",
        "create database x",
        "select * from people into outfile '/tmp/x'",
        "select 1 // from people",
        "select * from mysql.user",
        "select * from performance_schema.threads",
        "select * from information_schema.processlist",
        "delete from information_schema.tables",
        "show grants",
        "show processlist",
        "show replica status",
        "show vitess_migrations",
        "show columns from mysql.user",
        "select @@identity + 1",
        "select * from nokeyspace.t",
        "call sh.p()",
    ],
)
def test_what_is_refused(sql: str) -> None:
    assert isinstance(ask(sql), Refuse)


def test_slashes_within_texts_are_fine() -> None:
    assert passed("select 'http://x', 4 / 2 from people where u = 'a//b'").footprint.tables


def test_no_use_in_a_transaction_but_of_primaries() -> None:
    found = ask("use sh@replica", replicated(), in_transaction=True)
    assert isinstance(found, Refuse)
    assert found.errno == 1192
    assert ask("use sh@replica", replicated()) == Control(
        Verb.USE, b"use sh@replica", Target("sh", tablet_type=TabletType.REPLICA)
    )
    assert isinstance(ask("use sh", replicated(), in_transaction=True), Control)
    assert isinstance(ask("use sh@replica", in_transaction=True), Control), "its primaries serve"


def test_what_the_store_knows_is_answered_from_it() -> None:
    for sql in (
        "show keyspaces",
        "show databases",
        "show vitess_shards",
        "show vitess_tablets",
        "select database()",
    ):
        assert isinstance(ask(sql), Answer)
    assert isinstance(ask("unlock tables"), Done)
    # A vschema of which this gateway cannot tell all is vtgate's to show.
    assert isinstance(ask("show vschema tables"), Pass)
    plain = replace(
        branch(keyspace("sh", {"vindexes": {"hash": {"type": "hash"}}}, "-80", "80-")), vtgate=VTGATE
    )
    assert isinstance(ask("show vschema tables", plain), Answer)
    altered = ask("alter vschema on sh.t add vindex hash(id)", plain)
    assert isinstance(altered, AlterVschema)
    assert isinstance(ask("alter vschema on sh.t add vindex hash(id)", target=Target("sh")), Refuse)


def test_the_last_id_is_put_into_the_text() -> None:
    assert isinstance(ask("select last_insert_id()"), Answer)
    assert isinstance(ask("select last_insert_id()", last_insert_id=-1), NeedLastId)
    assert passed("insert into lines values (last_insert_id())", last_insert_id=7).sql == (
        b"insert into lines values (7)"
    )
    assert ask("set @a = last_insert_id()", last_insert_id=7) == Control(Verb.SET, b"set @a = 7")
    assert passed("update people set id = last_insert_id(id + 1)").sql.endswith(b"last_insert_id(id + 1)")


def test_only_utf8_is_sent() -> None:
    assert isinstance(ask("select 1", charset="utf8mb3"), Pass)
    for sql in ("select 1", "delete from people"):
        assert isinstance(ask(sql, charset="of collation 8"), Refuse)
    assert isinstance(ask("set names utf8mb4", charset="of collation 8"), Control)
    assert isinstance(ask("use sh", charset="of collation 8"), Control)


def test_prepared_statements_go_through_with_their_places() -> None:
    router = make_router(WORLD, KnownTables(KNOWN))
    prepared = router.plan_prepared(b"select * from lines where order_id = ?", view())
    assert prepared.fixed
    assert isinstance(prepared.plan, Pass)
    assert prepared.plan.sql == b"select * from lines where order_id = ?"
    other = router.plan_prepared(b"insert into lines values (?, last_insert_id())", view(last_insert_id=7))
    assert not other.fixed
    found = router.plan_params(
        b"insert into lines values (?, last_insert_id())", [b"1"], view(last_insert_id=7)
    )
    assert isinstance(found, Pass)
    assert b"7" in found.sql
    foreign = router.plan_prepared(b"select * from lines", view(charset="latin1"))
    assert isinstance(foreign.plan, Refuse)
    assert not foreign.fixed


@pytest.mark.parametrize(("keyspace", "refused"), [("shop/-", False), ("sh/-80", True)])
def test_what_is_aimed_at_a_shard_past_the_rules_of_a_move_is_refused(keyspace: str, refused: bool) -> None:
    """vtgate would send it there; while a move is not over its tablets may take it."""
    where, _, shard = keyspace.partition("/")
    aimed = view(target=Target(where, shard))
    tables_ = frozenset({("shop", "moved"), ("sh", "moved")})
    moving = replace(WORLD, moving=Moving(tables_, 1))
    for sql in ("insert into moved values (1)", "select * from moved"):
        found = ask(sql, moving, aimed)
        assert isinstance(found, Refuse if refused else Pass), found
        assert isinstance(ask(sql, WORLD, aimed), Pass), "nothing moves: whoever aims so means it"
    if refused:
        found = ask("insert into moved values (1)", moving, aimed)
        assert isinstance(found, Refuse)
        assert "served from keyspace shop" in found.message


def test_large_texts_are_not_kept() -> None:
    router = make_router(WORLD, KnownTables(KNOWN))
    sql = b"insert into lines values " + b", ".join(b"(%d, 'x')" % at for at in range(5000))
    found = router.plan(sql, view())
    assert isinstance(found, Pass)
    assert found.sql == sql
    assert found.footprint.tables == {("sh", "lines")}


@pytest.mark.parametrize(
    ("head", "tail", "touched"),
    [
        ("insert into lines values ", "", {("sh", "lines")}),
        ("insert into orders (name, id) values ", " on duplicate key update name = 'again'",
         {("sh", "orders"), ("shop", "names"), ("shop", "ids")}),
        ("replace into app.people values ", "", {("shop", "people")}),
    ],
)  # fmt: skip
def test_many_plain_rows_are_planned_as_one_is(
    monkeypatch: pytest.MonkeyPatch, head: str, tail: str, touched: set[tuple[str, str]]
) -> None:
    """But not read value by value: texts of some megabytes would keep other clients waiting."""
    router = make_router(WORLD, KnownTables(KNOWN))
    one = router.plan(f"{head}(1, 'x'){tail}".encode(), view())
    compiled: list[int] = []
    compile_ = VtgateRouter.compile

    def noted(self: VtgateRouter, sql: bytes, seen: SessionView, *, prepared: bool = False) -> Any:
        compiled.append(len(sql))
        return compile_(self, sql, seen, prepared=prepared)

    monkeypatch.setattr(VtgateRouter, "compile", noted)
    for start in (0, 7_000_000):
        rows = ", ".join(f"({start + at}, 'it''s // -- \\' {at}')" for at in range(20_000))
        many = router.plan(f"{head}{rows}{tail}".encode(), view())
        assert isinstance(one, Pass)
        assert isinstance(many, Pass)
        assert (many.footprint, many.destination) == (one.footprint, one.destination)
        assert many.footprint.tables == touched
        assert many.sql == one.sql.replace(b"(1, 'x')", rows.encode())
    if "app." not in head:  # there the database's own name has to go from the text
        assert max(compiled) < 200


def test_many_rows_are_refused_to_a_password_for_replicas_as_one_is() -> None:
    rows = ", ".join(f"({at}, 'x')" for at in range(1000))
    found = ask(f"insert into lines values {rows}", replica_only=True)
    assert isinstance(found, Refuse)
    assert found.errno == 1290


def test_what_stands_behind_many_rows_is_read() -> None:
    rows = ", ".join(f"({at}, 'x')" for at in range(1000))
    router = make_router(WORLD, KnownTables(KNOWN))
    tail = " on duplicate key update order_id = last_insert_id()"
    for last in (7, 8):
        found = router.plan(f"insert into lines values {rows}{tail}".encode(), view(last_insert_id=last))
        assert isinstance(found, Pass)
        assert found.sql.endswith(f"order_id = {last}".encode())


def test_many_rows_in_another_character_set_are_refused_as_one_is() -> None:
    rows = ", ".join(f"({at}, 'x')" for at in range(1000))
    found = ask(f"insert into lines values {rows}", charset="latin1")
    assert isinstance(found, Refuse)


def test_a_keyspace_whose_foreign_keys_vtgate_manages_is_written_as_a_whole() -> None:
    managed = keyspace("app", {"foreign_key_mode": "managed"})
    routes = replace(branch(managed, database="app"), vtgate=VTGATE)
    router = make_router(routes, KnownTables({"app": {"a": {}, "b": {}}}))
    found = router.plan(b"delete from a", view())
    assert isinstance(found, Pass)
    assert found.footprint.tables == {("app", "a"), ("app", "b")}
