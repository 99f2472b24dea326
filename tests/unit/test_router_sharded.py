"""Plans on a sharded keyspace: where statements go, what each shard gets, what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from homeworld.gateway.plan import NeedSchema, NeedSequence, Pass, Plan, Refuse, Scatter, Target, Verb
from homeworld.model.keyranges import KeyRange
from homeworld.model.tables import Column
from homeworld.model.topology import TabletType
from homeworld.model.vindexes import make_vindex, shard_picker
from tests.support.routing_world import branch, column, keyspace, router, view

SHARDS = ("-55", "55-aa", "aa-")
VSCHEMA: dict[str, Any] = {
    "vindexes": {
        "xxhash": {"type": "xxhash"},
        "hash": {"type": "hash"},
        "pair": {"type": "multicol", "params": {"column_count": "2", "column_vindex": "xxhash,xxhash"}},
    },
    "tables": {
        "u": {
            "column_vindexes": [{"column": "id", "name": "xxhash"}],
            "auto_increment": {"column": "id", "sequence": "main.seq"},
        },
        "o": {"column_vindexes": [{"column": "uid", "name": "xxhash"}]},
        "h": {"column_vindexes": [{"column": "id", "name": "hash"}]},
        "p": {"column_vindexes": [{"columns": ["a", "b"], "name": "pair"}]},
        "txt": {"column_vindexes": [{"column": "name", "name": "xxhash"}]},
        "bin": {"column_vindexes": [{"column": "k", "name": "xxhash"}]},
        "auto": {"column_vindexes": [{"column": "uid", "name": "xxhash"}]},
        "gone": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "r": {"type": "reference"},
    },
}
KNOWN = {
    "main": {"seq": {"id": "bigint"}, "flat": {"id": "bigint"}},
    "sh": {
        "u": {"id": "bigint not null", "name": "varchar(20)", "age": "int", "bal": "decimal(10,2)"},
        "o": {"id": "bigint", "uid": "bigint unsigned not null", "n": "int"},
        "h": {"id": "int", "n": "int"},
        "p": {"a": "int", "b": "int", "n": "int"},
        "txt": {"name": "varchar(10)", "n": "int"},
        "bin": {"k": "binary(4)", "v": "varchar(10) collate utf8mb4_0900_bin"},
        "auto": {"id": "bigint auto_increment", "uid": "bigint"},
        "r": {"code": "int", "label": "varchar(10)"},
        "unlisted": {"id": "bigint"},
    },
}
WORLD = branch(keyspace("main", {"tables": {"seq": {"type": "sequence"}}}), keyspace("sh", VSCHEMA, *SHARDS))
RANGES = [KeyRange.parse(shard) for shard in SHARDS]
INT: Column = column("id", "bigint")


def shard_of(value: int | bytes, vindex: str = "xxhash") -> str:
    text = b"%d" % value if isinstance(value, int) else value
    kind = INT if isinstance(value, int) else column("k", "varbinary(10)")
    return SHARDS[shard_picker(make_vindex(vindex, {}), RANGES, [kind])((text,))]


ONE = router(WORLD, KNOWN)


def plan(text: str | bytes, **facts: Any) -> Plan:
    return ONE.plan(text.encode() if isinstance(text, str) else text, view(**facts))


def places(text: str | bytes, **facts: Any) -> list[str]:
    """The shards a statement goes to."""
    found = plan(text, **facts)
    if isinstance(found, Pass):
        return [found.destination.shard]
    assert isinstance(found, Scatter), found
    return [place.shard for place, _ in found.statements]


def texts(text: str, **facts: Any) -> dict[str, str]:
    found = plan(text, **facts)
    assert isinstance(found, Scatter), found
    return {place.shard: sql.decode() for place, sql in found.statements}


def refused(text: str | bytes, **facts: Any) -> str:
    found = plan(text, **facts)
    assert isinstance(found, Refuse), found
    return found.message


# ------------------------------------------------------------------------------- pins


@pytest.mark.parametrize("number", [1, 2, 3, 77, 12345])
@pytest.mark.parametrize(
    "text",
    [
        "select * from u where id = {}",
        "select * from u where {} = id",
        "select * from u where (id) = ({})",
        "select * from u x where x.id = {} and (x.age > 3 or x.name is null)",
        "select * from u where id = '{}'",
        "select * from u where id in ({})",
        "select u.* from u join o on o.uid = u.id where u.id = {}",
        "select u.* from u join o using (id) where o.uid = {} and u.id = {}",
        "select u.* from u left join o on o.uid = u.id where u.id = {}",
        "select u.* from o right join u on o.uid = u.id where u.id = {}",
        "select * from u where id = {} and exists (select 1 from o where o.uid = u.id)",
        "select * from u where id = {} and age > (select avg(n) from o where o.uid = {})",
        "select * from (select * from u where id = {}) q",
        "select id from u where id = {} union all select uid from o where uid = {} order by 1 limit 2",
        "with q as (select * from u where id = {}) select count(distinct age) from q",
        "select count(distinct age), group_concat(name) from u where id = {} group by age with rollup",
        "select row_number() over (order by age) from u where id = {} for update",
        "update u set age = 1 where id = {} limit 1",
        "delete from u where id = {} order by age limit 1",
        "insert into u (id, age) values ({}, 5)",
        "replace into u set age = 1, id = {}",
    ],
)
def test_one_shard_for_one_value(text: str, number: int) -> None:
    sql = text.format(*[number] * text.count("{}"))
    found = plan(sql)
    assert isinstance(found, Pass), (sql, found)
    assert found.destination.shard == shard_of(number)
    assert found.sql == sql.encode()


@pytest.mark.parametrize(
    "condition",
    [
        "id > 5", "id = 5.0", "id = 5e0", "id = '5a'", "id = '05'", "id = ' 5'", "id = -'5'", "id = 5 + 0",
        "id = 5--1", "id = 5 or age = 1", "not id = 5", "id = 5 xor age = 1", "id = 5 || age = 1", "id <=> 5",
        "id = null", "id in (5, age)", "id not in (5)", "id = 5 = 1", "id = 5 is true", "id = 0x05",
        "id = x'35'",
        "id + 0 = 5", "abs(id) = 5", "id = 99999999999999999999", "id = '9007199254740993'", "id = true",
        "id = (select 5)", "age = 5", "id between 5 and 5", "id like '5'", "id = 5 collate utf8mb4_bin",
        "id = _utf8mb4'5'", "id = '5' '6'", "id = n'5'", "(id, age) = (5, 1)", "case when id = 5 then 1 end",
    ],
)  # fmt: skip
def test_everywhere_where_the_value_is_not_certain(condition: str) -> None:
    assert places(f"select * from u where {condition}") == list(SHARDS)


def test_lists_go_to_the_shards_that_are_needed() -> None:
    found = places("select * from u where id in (1, 2, 3, 4, null, '5')")
    assert found == sorted({shard_of(number) for number in range(1, 6)}, key=SHARDS.index)
    assert len(places("select * from u where id in (1, 1, '1')")) == 1


def test_the_same_shape_is_planned_for_each_text_s_own_values() -> None:
    for number in range(40):
        assert places(f"select age from u where id = {number}") == [shard_of(number)]
        assert places(f"select age from u where id = '{number}'") == [shard_of(number)]
    assert places("select age from u where id = 'x'") == list(SHARDS)
    assert places("select age from u where id = 1.5") == list(SHARDS)
    assert places("select age from u where id = -7") == [shard_of(-7)]
    assert places("select age from u where id = -'7'") == list(SHARDS)


def test_text_is_pinned_only_where_equal_means_equal_bytes() -> None:
    assert places("select * from txt where name = 'a'") == list(SHARDS)  # 'A' equals it and may lie elsewhere
    assert places("select * from bin where k = 'abcd'") == [shard_of(b"abcd")]
    assert places("select * from bin where k = x'61626364'") == [shard_of(b"abcd")]
    assert places("select * from bin where k = 'abc'") == list(SHARDS)
    assert places("select * from bin where k = 5") == list(SHARDS)
    euro = "select * from bin where k = '€a'".encode()
    assert places(euro) == [shard_of("€a".encode())]
    assert places(euro, charset="latin1") == list(SHARDS)


def test_other_vindexes() -> None:
    for number in (1, 5, -3):
        assert places(f"select * from h where id = {number}") == [shard_of(number, "hash")]
    assert places("select * from h where id = 99999999999") == list(SHARDS)
    assert len(places("select * from p where a = 1 and b = 2 and n > 3")) == 1
    assert places("select * from p where a = 1") == list(SHARDS)
    assert places("select * from p where a = 1 and b in (1, 2)") == list(SHARDS)


@pytest.mark.parametrize(
    "text",
    [
        "select * from u join o on u.id = o.uid",
        "select * from u, o where o.uid = u.id and u.age > 3",
        "select * from u left join o on o.uid = u.id and o.n = 5",
        "select * from o right join u on o.uid = u.id",
        "select * from u join o on u.id = o.uid join u v on v.id = o.uid",
        "select * from u left join o on o.uid = u.id left join o q on q.uid = o.uid",
        "select * from u left join (o join u v on v.id = o.uid) on o.uid = u.id",
        "select * from u join r on r.code = u.age",
        "select * from u left join r on r.code = u.age",
        "select * from r join u on r.code = u.age left join o on o.uid = u.id",
        "select * from u where id in (select uid from o where n = 5)",
        "select * from u where not exists (select 1 from o where o.uid = u.id)",
        "select id, (select max(n) from o where uid = u.id) from u",
        "select * from u where age in (select code from r)",
        "select * from p x join p y on x.a = y.a and y.b = x.b",
        "select count(*) from u join o on u.id = o.uid",
    ],
)
def test_tables_that_follow_each_other_are_asked_on_every_shard(text: str) -> None:
    assert places(text) == list(SHARDS)


@pytest.mark.parametrize(
    "text",
    [
        "select * from u join o on u.age = o.n",
        "select * from u join o on u.id = o.id",
        "select * from u, o",
        "select * from u join h on u.id = h.id",  # other vindexes
        "select * from u natural join o",
        "select * from u left join o on u.id = o.uid or o.n = 1",
        "select * from r left join u on r.code = u.age",
        "select * from u left join o on o.n = 5 where u.age = 1",
        "select * from u where id not in (select uid from o)",
        "select * from u where id in (select id from o)",
        "select * from u where id in (select uid from o limit 5)",
        "select * from u where age = (select count(*) from o)",
        "select * from u where exists (select 1 from o where o.n = u.age)",
        "select * from u where exists (select 1 from o where o.uid = u.id or 1)",
        "select * from (select * from u) q",
        "select * from (select * from u where id = 1) q join o on o.uid = 2",
        "with q as (select * from u) select * from q",
        "select id from u union all select uid from o",
        "select id from u where id = 1 union select uid from o",
        "select * from p x join p y on x.a = y.a",
        "select * from txt x join txt y on x.name = y.name",
        "select * from u left join o on u.id = 5 where o.n = 1",
    ],
)
def test_tables_that_do_not_are_refused(text: str) -> None:
    assert refused(text).startswith("VT12001: unsupported: ")


def test_the_pin_of_an_outer_join_stays_with_its_inner_side() -> None:
    assert places("select * from u left join o on o.uid = u.id and o.uid = 5") == list(SHARDS)
    assert places("select * from u left join o on o.uid = u.id where o.uid = 5") == [shard_of(5)]
    assert places("select * from u where exists (select 1 from o where o.uid = u.id and o.uid = 5)") == list(
        SHARDS
    )


# ------------------------------------------------------------------------------- texts for shards


def test_helper_columns_and_limits() -> None:
    found = plan("select name from u where age > 3 order by name desc, bal limit 2, 5 for update")
    assert isinstance(found, Scatter)
    assert found.visible_columns == -2
    assert found.footprint.locking_read
    expected = b"select name, WEIGHT_STRING(name), (bal) from u where age > 3 "
    expected += b"order by name desc, bal LIMIT 7 for update"
    assert {sql for _, sql in found.statements} == {expected}
    assert set(texts("select id from u order by id limit 3").values()) == {
        "select id from u order by id limit 3"
    }
    averaged = texts("select avg(age + 1), name from u group by name order by 1 limit 4")
    assert set(averaged.values()) == {
        "select avg(age + 1), name, WEIGHT_STRING(name), SUM(age + 1), COUNT(age + 1) from u group by name "
        "order by 1 "
    }


def test_limits_follow_each_text_s_own_numbers() -> None:
    for offset, count in ((0, 5), (2, 3), (10, 1)):
        found = plan(f"select id from u order by id limit {count} offset {offset}")
        assert isinstance(found, Scatter)
        assert found.statements[0][1].endswith(b"LIMIT %d" % (offset + count))
        assert found.merge is not None
        rows = [[(b"%d" % number,) for number in range(start, 30, 3)] for start in range(3)]
        assert [int(row[0] or 0) for row in found.merge(rows)] == list(range(offset, offset + count))


def test_what_was_decided_by_a_literal_is_decided_again() -> None:
    by_first = plan("select age, bal from u order by 1")
    by_second = plan("select age, bal from u order by 2")
    assert isinstance(by_first, Scatter)
    assert isinstance(by_second, Scatter)
    assert by_first.merge is not None
    assert by_second.merge is not None
    rows = [[(b"2", b"1")], [(b"1", b"2")]]
    assert by_first.merge(rows) == [(b"1", b"2"), (b"2", b"1")]
    assert by_second.merge(rows) == [(b"2", b"1"), (b"1", b"2")]
    assert isinstance(plan("select age + 1, count(*) from u group by age + 1"), Scatter)
    assert isinstance(plan("select age + 1, count(*) from u group by age + 2"), Refuse)
    assert isinstance(plan("select sum(age + 1) from u"), Scatter)
    assert isinstance(plan("select sum(age + '1') from u"), Refuse)


def test_qualified_names_get_each_shard_s_schema() -> None:
    assert texts("select sh.u.id from sh.u order by sh.u.id", target=Target("main")) == {
        "-55": "select `sh__55`.u.id from `sh__55`.u order by `sh__55`.u.id",
        "55-aa": "select `sh_55_aa`.u.id from `sh_55_aa`.u order by `sh_55_aa`.u.id",
        "aa-": "select `sh_aa_`.u.id from `sh_aa_`.u order by `sh_aa_`.u.id",
    }
    one = plan("update sh.u set sh.u.age = 5 where sh.u.id = 7")
    assert isinstance(one, Pass)
    schema = "sh_" + shard_of(7).replace("-", "_")
    assert one.sql.decode() == f"update `{schema}`.u set `{schema}`.u.age = 5 where `{schema}`.u.id = 7"


# ------------------------------------------------------------------------------- INSERT


def test_rows_are_split_by_shard() -> None:
    rows_of = "insert ignore into u (age, id) values (1, 1), (2, 101), (3, '2'), (4, -5)"
    found = texts(rows_of + " on duplicate key update age = 9")
    back: list[str] = []
    for shard, sql in found.items():
        head, _, rest = sql.partition(" values ")
        assert head == "insert ignore into u (age, id)"
        assert rest.endswith(" on duplicate key update age = 9")
        rows = rest.removesuffix(" on duplicate key update age = 9").split("), (")
        for row in rows:
            number = int(row.strip("()").split(", ")[1].strip("'"))
            assert shard_of(number) == shard
        back += rows
    assert len(back) == 4


def test_ids_come_from_the_sequence() -> None:
    assert plan("insert into u (name) values ('a'), ('b')") == NeedSequence("main", "seq", 2)
    assert plan(
        "insert into u (id, name) values (null, 'a'), (7, 'b'), (0, 'c'), (default, 'd')"
    ) == NeedSequence("main", "seq", 3)
    found = plan("insert into u (name) values ('a'), ('b')", sequence_ids=(1000, 1001))
    assert isinstance(found, Scatter)
    assert found.last_insert_id == 1000
    sent = b" ".join(sql for _, sql in found.statements)
    assert b"(name, `id`)" in sent
    assert b"('a', 1000)" in sent
    assert b"('b', 1001)" in sent
    for place, sql in found.statements:
        assert (b"1000" in sql) == (place.shard == shard_of(1000))
    replaced = texts("insert into u values (0, 'x', 1, 2), (5, 'y', 1, 2)", sequence_ids=(1000,))
    assert "(1000, 'x', 1, 2)" in replaced[shard_of(1000)]
    assert "(5, 'y', 1, 2)" in replaced[shard_of(5)]
    assert list(texts("insert into u set name = 'q'", sequence_ids=(9,)).values()) == [
        "insert into u set name = 'q', `id` = 9"
    ]
    assert list(texts("insert into u () values ()", sequence_ids=(9,)).values()) == [
        "insert into u (`id`) values (9)"
    ]
    assert isinstance(plan("insert into u (id) values (5)"), Pass)


@pytest.mark.parametrize(
    ("text", "errno"),
    [
        ("insert into u (id) values (1 + 1)", 1235),
        ("insert into u (id) values (1.0)", 1235),
        ("insert into u (id) values ('1a')", 1235),
        ("insert into u (id) values (9223372036854775808)", 1264),
        ("insert into o (uid) values (-1)", 1264),
        ("insert into o (uid) values (null)", 1048),
        ("insert into o (id) values (1)", 1235),
        ("insert into o (uid, id) values (1)", 1136),
        ("insert into o (uid, nope) values (1, 2)", 1054),
        ("insert into o (uid, uid) values (1, 2)", 1110),
        ("insert into o (uid, n) values (1, (select 1))", 1235),
        ("insert into o select * from o", 1235),
        ("insert into o (uid) values (1) on duplicate key update uid = 2", 1235),
        ("insert into o (uid) values (default)", 1235),
        ("insert into o (uid) values (now())", 1235),
        ("insert into txt (name) values ('longer than ten')", 1406),
        ("insert into txt (name) values (1.5)", 1235),
        ("insert into txt (name) values (x'61')", 1235),
        ("insert into bin (k) values ('abcde')", 1406),
        ("insert into bin (k) values (5)", 1235),
        ("insert into auto (uid) values (1)", 1235),
        ("insert into auto (id, uid) values (null, 1)", 1235),
        ("insert into r (code, label) values (1, uuid())", 1235),
        ("insert into o (uid, n) values (1, @x)", 1235),
        ("insert into o (uid, n) values (1, my_function(2))", 1235),
        ("insert into o (uid) values (1) returning id", 1235),
        ("insert into unlisted (id) values (1)", 1105),
        ("select * from unlisted", 1105),
        ("select * from gone where id = 1", 1146),
        ("select * from sh.nowhere", 1146),
    ],
)
def test_rows_without_a_certain_place_are_refused(text: str, errno: int) -> None:
    found = plan(text)
    assert isinstance(found, Refuse), found
    assert found.errno == errno


def test_values_are_placed_as_the_server_stores_them() -> None:
    assert places("insert into o (uid) values ('12')") == [shard_of(12)]
    assert places("insert into o (uid) values (0012)") == [shard_of(12)]
    assert places("insert into txt (name) values (12)") == [shard_of(b"12")]
    assert places("insert into txt (name) values ('a ')") == [shard_of(b"a ")]
    assert places("insert into bin (k) values ('ab')") == [shard_of(b"ab\0\0")]
    assert places("insert into auto (id, uid) values (1, 7)") == [shard_of(7)]
    assert "utf8mb4" in refused("insert into txt (name) values ('é')", charset="latin1")


# ------------------------------------------------------------------------------- other writes, DDL


def test_writes() -> None:
    assert places("update u set age = 1 where age = 2") == list(SHARDS)
    assert places("delete from u where id in (1, 2)") == sorted({shard_of(1), shard_of(2)}, key=SHARDS.index)
    assert "LIMIT" in refused("update u set age = 1 limit 5")
    assert "LIMIT" in refused("delete from u where id in (1, 101, 2, 3) limit 5")
    assert "primary vindex" in refused("update u set age = 1, ID = 5 where id = 5")
    assert "joined" in refused("update u join o on u.id = o.uid set u.age = 1")
    assert "joined" in refused("delete u from u join o on u.id = o.uid")
    assert places("update u set age = 1 where exists (select 1 from o where o.uid = u.id)") == list(SHARDS)
    assert isinstance(plan("update u set age = (select max(n) from o)"), Refuse)
    same = plan("update r set label = 'x' where code = 1")
    assert isinstance(same, Scatter)
    assert same.same_rows
    assert len(same.statements) == 3
    assert "reference" in refused("update r set label = now()")
    assert "reference" in refused("delete from r limit 1")


def test_ddl_goes_everywhere() -> None:
    for text in (
        "create table sh.fresh (id int)",
        "alter table u add column x int",
        "drop table u, o",
        "truncate u",
    ):
        found = plan(text)
        assert isinstance(found, Scatter), found
        assert found.same_rows
        assert found.footprint.verb is Verb.DDL
        assert len(found.statements) == 3
    assert texts("create index i on sh.u (age)")["-55"] == "create index i on `sh__55`.u (age)"
    for text in (
        "create view sh.v as select * from u",
        "create table sh.t as select * from u",
        "create temporary table sh.t (id int)",
        "create trigger g before insert on u for each row set new.age = 1",
        "lock tables u write",
        "load data local infile 'x' into table u",
        "handler u open",
        "checksum table u",
    ):
        assert refused(text).startswith("VT12001"), text


@pytest.mark.parametrize(
    "text",
    [
        "select /*!40000 id */ from u",
        "select /*+ SET_VAR(sql_select_limit=1) */ id from u",
        "select id from u, information_schema.tables",
        "select id from u where name = @x",
        "select connection_id() from u",
        "select database() from u where id = 1",
        "select id into @x from u",
        "select my_function(id) from u where id = 1",
        "select id from u procedure analyse()",
        "select id from u for system_time all",
        "select any_value(age), count(*) from u",
        "select age a, bal from u order by -bal, age + a",
        "select bal age from u order by age + 1",
        "table u",
    ],
)
def test_more_refusals(text: str) -> None:
    assert refused(text).startswith("VT12001"), text


def test_reference_tables_are_read_anywhere() -> None:
    assert places("select * from r") == ["-55"]
    assert places("select * from r join u on r.code = u.age where u.id = 7") == [shard_of(7)]


def test_replicas_and_other_targets() -> None:
    found = plan("select * from u where id = 7", target=Target("sh", "", TabletType.REPLICA))
    assert isinstance(found, Pass)
    assert found.destination.tablet_type is TabletType.REPLICA
    first, second = plan("select * from u where id = 7"), plan("select age from u where id = 7")
    assert isinstance(first, Pass)
    assert isinstance(second, Pass)
    assert first.destination is second.destination


def test_the_tables_must_be_known() -> None:
    fresh = router(WORLD, {"main": {}})
    assert fresh.plan(b"select * from sh.u where id = 1", view()) == NeedSchema("sh")
    assert fresh.plan_prepared(b"select * from sh.u where id = ?", view()).plan == NeedSchema("sh")


def test_prepared_statements() -> None:
    text = b"select name from u where id = ? and age > ?"
    found = ONE.plan_prepared(text, view())
    assert not found.fixed
    assert isinstance(found.plan, Pass)
    assert found.plan.sql == text
    for number in (1, 7, 101):
        once = ONE.plan_params(text, [b"%d" % number, b"NULL"], view())
        assert isinstance(once, Pass)
        assert (once.destination.shard, once.sql) == (shard_of(number), text)
    everywhere = ONE.plan_params(text, [b"'x'", b"5"], view())
    assert isinstance(everywhere, Scatter)
    assert everywhere.statements[0][1] == b"select name from u where id =  'x'  and age >  5 "
    assert isinstance(ONE.plan_prepared(b"select * from u join o on u.age = o.n", view()).plan, Pass)
    refusal = ONE.plan_params(b"select * from u join o on u.age = o.n", [], view())
    assert isinstance(refusal, Refuse)
    assert isinstance(ONE.plan(text, view()), Refuse)  # a ? in a text is a syntax error
    limited = ONE.plan_params(b"select id from u order by id limit ?, ?", [b"2", b"3"], view())
    assert isinstance(limited, Scatter)
    assert limited.statements[0][1].rstrip().endswith(b"LIMIT 5")


def test_one_shard_needs_no_care() -> None:
    single = router(branch(keyspace("main"), keyspace("sh", VSCHEMA, "-")), KNOWN)
    for text in (
        b"select * from u join o on u.age = o.n",
        b"select id from u where id not in (select uid from o)",
        b"select a.name, row_number() over (order by age) from u a",
        b"delete from u where age = 2 limit 1",
    ):
        found = single.plan(text, view())
        assert isinstance(found, Pass), (text, found)
        assert found.destination.shard == "-"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("select bit_xor(age) from u", "BIT_XOR over several shards"),
        ("select group_concat(name order by id) from u", "GROUP_CONCAT over several shards"),
        ("select exists(select 1 from u where age = 3)", "EXISTS (SELECT …)"),
        ("select (select max(age) from u)", "(SELECT MAX(…) …)"),
        ("select id from u where age = 1 union select id from u where age = 2", "UNION"),
        ("select * from (select * from u limit 5) x", "derived tables"),
        ("select * from u where age = (select max(age) from u)", "subquery"),
        ("select sum(age) + 1 from u", "an expression of aggregates"),
        ("select sql_calc_found_rows * from u", "SQL_CALC_FOUND_ROWS"),
        ("select * from u join o on u.age = o.n", "not joined by their primary vindex"),
    ],
)
def test_refusals_name_what_is_unsupported_and_the_way_out(text: str, names: str) -> None:
    found = refused(text)
    assert names in found
    assert found.startswith("VT12001")
    assert "USE `" in found
