"""Each precondition against a small world that meets all of them, with one thing wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from homeworld.model.tables import Column, Index, Table
from homeworld.model.topology import Flavor
from homeworld.model.vschema import parse
from homeworld.workflows.move_tables.preconditions import RULES, judge
from homeworld.workflows.move_tables.preconditions.world import (
    Body,
    ForeignKey,
    KeyspaceFacts,
    ServerFacts,
    ShardFacts,
    Trigger,
    World,
)


def column(name: str, type_: str = "bigint", **changes: Any) -> Column:
    plain = Column(name, type_, type_, False, False, "", "", False, False, False)
    return replace(plain, **changes)


PRIMARY = Index("PRIMARY", True, ("id",), False)


def table(name: str = "orders", columns: tuple[Column, ...] = (), **changes: Any) -> Table:
    columns = columns or (
        column("id", auto_increment=True),
        column("customer", "varchar", column_type="varchar(40)", charset="utf8mb4", collation="utf8mb4_bin"),
    )
    plain = Table(name, columns, (PRIMARY,), PRIMARY, "InnoDB", f"CREATE TABLE `{name}` (…)", 0, 0)
    return replace(plain, **changes)


VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"xxhash": {"type": "xxhash"}, "hash": {"type": "hash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
GRANTS = (
    "GRANT REPLICATION SLAVE, REPLICATION CLIENT, PROCESS ON *.* TO `homeworld_mover`@`localhost`",
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER, INDEX, LOCK TABLES ON `shop`.* TO `m`@`l`",
    "GRANT ALL PRIVILEGES ON `shop\\_sharded\\_-80`.* TO `m`@`l`",
    "GRANT ALL PRIVILEGES ON `shop\\_sharded\\_80-`.* TO `m`@`l`",
)
VARIABLES = {
    "log_bin": "ON", "binlog_format": "ROW", "binlog_row_image": "FULL",
    "binlog_row_metadata": "FULL", "gtid_mode": "ON",
    "enforce_gtid_consistency": "1", "binlog_row_value_options": "", "sync_binlog": "1",
    "innodb_flush_log_at_trx_commit": "1",
}  # fmt: skip


def good(orders: Table | None = None, vschema: dict[str, Any] | None = None, **source: Any) -> World:
    shard = ShardFacts("shop/-", "shop", {"orders": orders or table()}, **source)
    target = tuple(ShardFacts(f"shop_sharded/{r}", f"shop_sharded_{r}") for r in ("-80", "80-"))
    known = {"shop": parse({}), "shop_sharded": parse(vschema or VSCHEMA)}
    where = [shard.where, *(t.where for t in target)]
    keyspace = KeyspaceFacts("shop", False, True, known["shop"], (shard,))
    return World(
        branch="main",
        production=True,
        safe_migrations=True,
        active_workflow=None,
        tables=("orders",),
        source=keyspace,
        target=KeyspaceFacts("shop_sharded", True, True, known["shop_sharded"], target),
        globals_=replace(keyspace, shards=()),
        vschemas=known,
        servers=tuple(ServerFacts(w, Flavor.MYSQL, VARIABLES, GRANTS) for w in where),
    )


def with_server(world: World, **changes: Any) -> World:
    first = replace(world.servers[0], **changes)
    return replace(world, servers=(first, *world.servers[1:]))


def with_target(world: World, **changes: Any) -> World:
    first = replace(world.target.shards[0], **changes)
    return replace(world, target=replace(world.target, shards=(first, *world.target.shards[1:])))


def keyed(*columns: str, unique: bool = True, prefixed: bool = False, name: str = "k") -> Index:
    return Index(name, unique, columns, prefixed)


def key(
    parent: str = "orders", child: str = "orders", delete: str = "RESTRICT", schema: str = "shop"
) -> ForeignKey:
    return ForeignKey("fk", schema, child, "shop", parent, delete, "RESTRICT")


WITHOUT_KEY = table(indexes=(), key=None)
FLOAT_KEY = table(columns=(column("id", "double"),), indexes=(keyed("id"),), key=None)
CHAR = column("id", "char", column_type="char(9)", charset="utf8mb4", collation="utf8mb4_nopad_bin")
TORN_KEY = table(columns=(CHAR,), indexes=(keyed("id"),), key=None)
MOMENT = column("at", "timestamp")
BY_ZONE = (
    "CREATE TABLE `orders` (`id` bigint, `at` timestamp, `day` date GENERATED ALWAYS AS (date(`at`)) STORED)"
)
LOOSE: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"loose": {"type": "unicode_loose_xxhash"}},
    "tables": {"orders": {"column_vindexes": [{"column": "id", "name": "loose"}]}},
}
EMAIL = column("email", "varchar", column_type="varchar(40)", charset="utf8mb4", collation="utf8mb4_bin")
UNIQUE_EMAIL = table(columns=(column("id"), EMAIL), indexes=(PRIMARY, keyed("email", name="by_email")))
BY_CUSTOMER = {**VSCHEMA, "tables": {"orders": {"column_vindexes": [{"column": "customer", "name": "hash"}]}}}
NO_VINDEX: dict[str, Any] = {**VSCHEMA, "tables": {}}
OTHER_COLUMN = {**VSCHEMA, "tables": {"orders": {"column_vindexes": [{"column": "nope", "name": "xxhash"}]}}}
UNSHARDED_TARGET = replace(good().target, sharded=False, vschema=parse({}))


def good_both(orders: Table) -> World:
    """With a table on the target."""
    return with_target(good(), tables={"orders": orders})


def numbered(**changes: Any) -> World:
    """From a sharded keyspace, whose ids a sequence gives, to an unsharded one."""
    increment = {"auto_increment": {"column": "number", "sequence": "numbers"}}
    vschema = parse({**VSCHEMA, "tables": {"orders": {**VSCHEMA["tables"]["orders"], **increment}}})
    number = column("number", **changes.pop("column", {}))
    columns = (column("id"), number)
    create = (
        f"CREATE TABLE `orders` (`id` bigint NOT NULL, `number` bigint {changes.pop('rest', 'NOT NULL')})"
    )
    orders = table(columns=columns, create_sql=create, indexes=(PRIMARY, *changes.pop("indexes", (NUMBER,))))
    shards = (
        ShardFacts("shards/-80", "a", {"orders": orders}),
        ShardFacts("shards/80-", "b", {"orders": orders}),
    )
    source = KeyspaceFacts("shards", True, True, vschema, shards)
    globals_ = replace(good().source, vschema=parse({"tables": {"numbers": {"type": "sequence"}}}), shards=())
    vschemas = {"shards": vschema, "shop": globals_.vschema, "shop_sharded": parse({})}
    return replace(
        good(), source=source, target=UNSHARDED_TARGET, globals_=globals_, vschemas=vschemas,
        sequences={"numbers": True}, servers=(),
    )  # fmt: skip


NUMBER = Index("n", False, ("number",), False)
NOT_COUNTED: dict[str, tuple[World, str]] = {
    "no key": (numbered(indexes=()), "is not the first column of any key"),
    "not first": (numbered(indexes=(keyed("id", "number"),)), "is not the first column of any key"),
    "type": (numbered(column={"type": "varchar", "column_type": "varchar(9)"}), "is of type varchar(9)"),
    "null": (numbered(column={"nullable": True}, rest="DEFAULT NULL"), "may be NULL"),
    "default": (numbered(rest="NOT NULL DEFAULT 0"), "has a DEFAULT"),
}


@pytest.mark.parametrize("case", NOT_COUNTED)
def test_a_column_that_cannot_count_takes_no_sequence_s_place(case: str) -> None:
    assert judge(numbered()) == ()
    world, reason = NOT_COUNTED[case]
    (told,) = judge(world)
    assert reason in told
    assert told.startswith("table orders: column number gets its values from a sequence")


WRONG: dict[str, tuple[World, str]] = {
    "same keyspace": (replace(good(), target=replace(good().target, name="shop")), "the same"),
    "not ready": (replace(good(), source=replace(good().source, ready=False, shards=())), "is not ready"),
    "families": (with_server(good(), flavor=Flavor.MARIADB), "different families"),
    "active": (replace(good(), active_workflow=7), "workflow 7 on branch main is not over"),
    "safe migrations": (replace(good(), safe_migrations=False), "safe migrations must be enabled"),
    "no tables": (replace(good(), tables=()), "at least one table"),
    "twice": (replace(good(), tables=("orders", "Orders")), "named more than once"),
    "a dot": (replace(good(), tables=("a.b",)), "a character that routing"),
    "absent": (replace(good(), tables=("orders", "lines")), "table lines does not exist on shop/-"),
    "a view": (good(others=frozenset({"orders"})), "orders on shop/- is a view"),
    "spelling": (good(table("Orders")), "is spelled 'Orders'"),
    "no key": (good(WITHOUT_KEY), "has no primary key and no unique key"),
    "float key": (good(FLOAT_KEY), "FLOAT or DOUBLE"),
    "generated key": (good(table(columns=(column("id", generated=True),))), "generated column id"),
    "engine": (good(table(engine="MyISAM")), "of engine MyISAM"),
    "versioned": (good(table(create_sql="CREATE … WITH SYSTEM VERSIONING")), "system versioned"),
    "period": (good(table(create_sql="CREATE TABLE `o` (… PERIOD FOR `p` (`s`, `e`))")), "application-time"),
    "type": (good(table(columns=(column("id"), column("v", "vector")))), "type vector"),
    "fk out": (good(foreign_keys=(key(parent="customers"),)), "refers to table customers"),
    "fk in": (good(foreign_keys=(key(child="lines"),)), "refers to moving table orders"),
    "fk in from elsewhere": (good(foreign_keys=(key(schema="crm"),)), "refers to moving table orders"),
    "fk across shards": (good(foreign_keys=(key(),)), "cannot hold across shards"),
    "cascade": (
        replace(good(foreign_keys=(key(delete="CASCADE"),)), target=UNSHARDED_TARGET), "not in the binlog",
    ),
    "trigger": (good(triggers=(Trigger("t1", "orders"),)), "has the trigger t1"),
    "view uses": (good(bodies=(Body("view", "v", "select * from `shop`.`orders`"),)), "view v on shop/-"),
    "trigger uses": (good(bodies=(Body("trigger", "t2", "INSERT INTO orders VALUES (1)"),)), "trigger t2"),
    "view elsewhere": (
        good(bodies=(Body("view", "v", "select * from `shop`.`orders`", "crm"),)), "view crm.v on shop/-",
    ),
    "procedure elsewhere": (
        good(bodies=(Body("procedure", "p", "DELETE FROM `shop` . orders", "crm"),)), "procedure crm.p on",
    ),
    "procedure in other quotes": (
        good(bodies=(Body("procedure", "p", 'DELETE FROM "shop"."orders"', "crm"),)), "procedure crm.p on",
    ),
    "target engine": (good_both(table(engine="MyISAM")), "orders on shop_sharded/-80 is of engine MyISAM"),
    "cascade on the target": (
        with_target(good(), foreign_keys=(replace(key(delete="CASCADE"), schema="shop_sharded_-80"),)),
        "foreign key fk of table orders on shop_sharded/-80 cascades",
    ),
    "target rows": (
        with_target(good(), tables={"orders": table()}, filled=frozenset({"orders"})), "is not empty",
    ),
    "target form": (
        with_target(good(), tables={"orders": table(columns=(column("id"),))}), "does not fit",
    ),
    "no way back": (
        good_both(replace(table(), columns=(*table().columns, column("more")))),
        "column 'more' of table 'orders' is missing on shop/-",
    ),
    "target view": (with_target(good(), others=frozenset({"orders"})), "is a view"),
    "no vindex": (good(vschema=NO_VINDEX), "no primary vindex for table orders"),
    "vindex column": (good(vschema=OTHER_COLUMN), "has no column nope"),
    "vindex type": (good(vschema=BY_CUSTOMER), "it takes integers only"),
    "vindex cannot place": (good(table(columns=(column("id", "double"),))), "be the column of a vindex"),
    "primary elsewhere": (
        good(
            table(columns=(column("id"), column("customer"))),
            {**VSCHEMA, "tables": {"orders": {"column_vindexes": [{"column": "customer", "name": "hash"}]}}},
        ),
        "primary key does not contain the vindex's columns (customer)",
    ),
    "unique elsewhere": (good(UNIQUE_EMAIL), "unique key by_email does not contain"),
    "no place for ids": (replace(good(), globals_=None), "name an unsharded global_keyspace"),
    "sharded ids": (replace(good(), globals_=good().target), "global keyspace shop_sharded is sharded"),
    "in the way": (replace(good(), sequences={"orders_seq": False}), "in the way of a sequence"),
    "binlog format": (with_server(good(), variables={**VARIABLES, "binlog_format": "MIXED"}), "must be ROW"),
    "row image": (with_server(good(), variables={**VARIABLES, "binlog_row_image": "NOBLOB"}), "be FULL"),
    "metadata": (with_server(good(), variables={**VARIABLES, "binlog_row_metadata": "MINIMAL"}), "be FULL"),
    "log filters": (with_server(good(), log_filters=("binlog-do-db",)), "binlog-do-db keeps changes out"),
    "no gtids": (with_server(good(), variables={**VARIABLES, "gtid_mode": "OFF"}), "gtid_mode must be ON"),
    "no binlog": (with_server(good(), variables={**VARIABLES, "log_bin": "0"}), "log_bin must be ON"),
    "partial json": (
        with_server(good(), variables={**VARIABLES, "binlog_row_value_options": "PARTIAL_JSON"}),
        "PARTIAL_JSON",
    ),
    "not durable": (
        with_server(good(), variables={**VARIABLES, "sync_binlog": "0"}), "sync_binlog must be 1, not 0",
    ),
    "a replica": (with_server(good(), upstream="10.0.0.1:3306"), "replicates from 10.0.0.1:3306"),
    "perhaps a replica": (with_server(good(), upstream=None), "may not see whether"),
    "prepared": (good(prepared=("x1",)), "transaction x1 is prepared on shop/-"),
    "bytes in its definition": (good(table(create_sql="… DEFAULT '\udc80'")), "no text"),
    "torn key": (good(TORN_KEY), "key column id is CHAR with a collation that does not pad"),
    "kept by a zone": (
        good(table(columns=(column("id"), MOMENT, column("day", generated=True)), create_sql=BY_ZONE)),
        "generated column day is kept and made of TIMESTAMP column at",
    ),
    "text vindex of bytes": (good(vschema=LOOSE), "it takes text only"),
    "global grant": (with_server(good(), grants=GRANTS[1:]), "lacks REPLICATION SLAVE"),
    "schema grant": (with_server(good(), grants=GRANTS[:1]), "lacks SELECT, INSERT"),
}  # fmt: skip


def test_a_good_world_has_no_reasons() -> None:
    assert judge(good()) == ()


def test_an_unsharded_target_needs_no_vindex_and_no_sequence() -> None:
    world = replace(good(UNIQUE_EMAIL), target=UNSHARDED_TARGET, globals_=None)
    assert judge(replace(world, vschemas={"shop": parse({}), "shop_sharded": parse({})})) == ()


@pytest.mark.parametrize("case", WRONG)
def test_one_thing_wrong_is_told(case: str) -> None:
    world, reason = WRONG[case]
    assert any(reason in found for found in judge(world)), judge(world)


def test_all_reasons_are_told_at_once_each_once() -> None:
    world = replace(good(WITHOUT_KEY, triggers=(Trigger("t1", "orders"),)), safe_migrations=False)
    reasons = judge(world)
    assert len(reasons) >= 3
    assert len(set(reasons)) == len(reasons)


def test_only_what_has_to_hold_until_traffic_moves_is_asked_again() -> None:
    began = replace(with_target(good(), filled=frozenset({"orders"})), active_workflow=7)
    began = with_target(began, tables={"orders": table()})
    assert judge(began)
    assert judge(began, lasting=True) == ()
    late = replace(began, source=good(bodies=(Body("procedure", "p", "DELETE FROM orders"),)).source)
    assert judge(late, lasting=True) == ("procedure p on shop/- uses table orders and would be left behind",)
    refused = {name for name, (world, _) in WRONG.items() if judge(world, lasting=True)}
    assert {"view uses", "trigger", "fk in", "unique elsewhere", "no way back", "row image"} <= refused
    assert not {"active", "safe migrations", "target rows", "in the way"} & refused


def test_a_period_in_a_comment_is_none() -> None:
    create = "CREATE TABLE `o` (`id` int COMMENT 'PERIOD FOR p WITH SYSTEM VERSIONING')"
    assert judge(good(table(create_sql=create))) == ()


def test_a_column_that_the_source_s_sequence_fills_is_unique_over_shards() -> None:
    orders = table(columns=(column("id"), column("customer")))
    placed = {"column_vindexes": [{"column": "customer", "name": "hash"}]}
    filled = {**placed, "auto_increment": {"column": "id", "sequence": "orders_seq"}}
    vschema = parse({**VSCHEMA, "tables": {"orders": filled}})
    world = good(orders, {**VSCHEMA, "tables": {"orders": placed}})
    assert any("primary key does not contain" in told for told in judge(world))
    source = replace(world.source, sharded=True, vschema=vschema)
    assert not any("primary key" in told for told in judge(replace(world, source=source)))


def test_rules_describe_themselves() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)
    assert all(rule.says for rule in RULES)


def test_a_name_inside_another_name_is_no_mention() -> None:
    bodies = (
        Body("procedure", "p", "select orders_archive.id, `reorders`.x from $orders"),
        Body("view", "v", "select `s`.`orders` AS `orders` from `shop`.`sales` `s`"),
        Body("procedure", "q", "select * from orders, workshop.orders, shop.sales", "crm"),
    )
    assert judge(good(bodies=bodies)) == ()


def test_a_nullable_column_can_be_placed_by_functions_that_place_null() -> None:
    orders = table(columns=(column("id", auto_increment=True), column("customer", nullable=True)))
    by_customer = {"column_vindexes": [{"column": "customer", "name": "xxhash"}]}
    assert judge(good(orders, {**VSCHEMA, "tables": {"orders": by_customer}})) == ()
