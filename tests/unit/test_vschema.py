from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from homeworld.model import vschema_edits as edits
from homeworld.model.errors import InvalidError
from homeworld.model.vschema import VSchema, find_sequence, parse, problems

SHARDED: dict[str, Any] = {
    "sharded": True,
    "vindexes": {
        "xxhash": {"type": "xxhash"},
        "region": {"type": "multicol", "params": {"column_count": "2", "column_bytes": "1"}},
    },
    "tables": {
        "customer": {
            "column_vindexes": [{"column": "id", "name": "xxhash"}],
            "auto_increment": {"column": "id", "sequence": "main.customer_seq"},
        },
        "orders": {"column_vindexes": [{"columns": ["region", "id"], "name": "region"}]},
        "country": {"type": "reference", "source": "main.country"},
    },
}
MAIN: dict[str, Any] = {"tables": {"customer_seq": {"type": "sequence"}, "country": {}}}


def test_what_is_said_of_columns_stays() -> None:
    columns = [
        {"name": "id", "type": "INT64"},
        {
            "name": "note",
            "type": "VARCHAR",
            "collation_name": "utf8mb4_bin",
            "invisible": True,
            "nullable": False,
        },
    ]
    told = {"tables": {"t": {"columns": columns, "column_list_authoritative": True}}}
    assert parse(told).render() == told


def test_reading_and_writing_back_is_the_same() -> None:
    for given in (SHARDED, MAIN, {}):
        assert parse(given).render() == given
        assert parse(parse(json.dumps(given)).to_json()) == parse(given)


def test_defaults_and_camel_case_are_made_canonical() -> None:
    given: dict[str, Any] = {
        "sharded": True,
        "requireExplicitRouting": True,
        "vindexes": {"h": {"type": "hash", "params": {}, "owner": ""}},
        "tables": {"t": {"columnVindexes": [{"columns": ["id"], "name": "h"}], "type": "", "pinned": ""}},
    }
    assert parse(given).render() == {
        "sharded": True,
        "vindexes": {"h": {"type": "hash"}},
        "tables": {"t": {"column_vindexes": [{"column": "id", "name": "h"}]}},
        "require_explicit_routing": True,
    }


def changed(**changes: Any) -> dict[str, Any]:
    return {**SHARDED, **changes}


def table(**entry: Any) -> dict[str, Any]:
    return changed(tables={"t": entry})


BOUND = [{"column": "id", "name": "xxhash"}]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be an object"),
        ({"sharded": "yes"}, "sharded must be true or false"),
        ({"nonsense": 1}, "unknown field 'nonsense'"),
        ({"foreign_key_mode": "managed"}, "foreign_key_mode is not offered"),
        ({"multi_tenant_spec": {"x": 1}}, "multi_tenant_spec is not offered"),
        (
            changed(vindexes={"xxhash": {"type": "no"}}, tables={}),
            "vindexes.xxhash: unknown vindex type 'no'",
        ),
        (changed(vindexes={"l": {"type": "lookup"}}, tables={}), "not offered"),
        (changed(vindexes={"l": {"type": "xxhash", "owner": "t"}}, tables={}), "owner"),
        (changed(vindexes={"l": {"type": "xxhash", "params": {"a": 1}}}, tables={}), "params.a must be text"),
        (changed(vindexes={"m": {"type": "multicol"}}, tables={}), "column_count"),
        ({"vindexes": {"h": {"type": "hash"}}}, "an unsharded keyspace has no vindexes"),
        ({"tables": {"t": {"column_vindexes": BOUND}}}, "an unsharded keyspace has no column_vindexes"),
        ({"tables": {"t": []}}, "tables.t must be an object"),
        (table(), "tables.t: missing primary vindex"),
        (table(type="what"), "unknown type 'what'"),
        (table(type="sequence"), "must be in an unsharded keyspace"),
        (table(type="reference", column_vindexes=BOUND), "reference table has neither"),
        (table(column_vindexes=BOUND, pinned="00"), "pinned"),
        (table(column_vindexes=BOUND, source="a.b"), "only a reference table has a source"),
        (table(column_vindexes=[{"name": "xxhash"}]), "either 'column' or 'columns'"),
        (table(column_vindexes=[{"column": "a", "columns": ["b"], "name": "xxhash"}]), "either"),
        (table(column_vindexes=[{"column": "id", "name": "gone"}]), "vindex 'gone' not found"),
        (table(column_vindexes=[{"columns": ["a", "b"], "name": "xxhash"}]), "needs 1 columns, not 2"),
        (table(column_vindexes=[{"columns": ["a", "A"], "name": "region"}]), "named twice"),
        (table(column_vindexes="x"), "column_vindexes must be a list"),
        (table(column_vindexes=BOUND, auto_increment={"column": "id"}), "needs a column and a sequence"),
        (table(column_vindexes=BOUND, column_list_authoritative=True), "without columns"),
        (
            table(column_vindexes=BOUND, column_list_authoritative=True, columns=[{"name": "x"}]),
            r"tables.t.column_vindexes\[0\]: column 'id' not found",
        ),
        (
            {"tables": {"s": {"type": "sequence", "auto_increment": {"column": "a", "sequence": "s"}}}},
            "neither",
        ),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_its_path(given: Any, says: str) -> None:
    with pytest.raises(InvalidError, match=says):
        parse(given)


def test_fit_with_tables_and_other_keyspaces() -> None:
    sharded, main = parse(SHARDED), parse(MAIN)
    others = {"main": main}
    columns = {"customer": ["ID"], "orders": ["region", "id"], "country": ["code"]}
    assert problems("sh", sharded, columns, others) == ()
    assert problems("sh", sharded, {**columns, "orders": ["id"]}, others) == (
        "tables.orders: column 'region' not found",
    )
    assert "tables.country: table not found" in problems("sh", sharded, {"customer": ["id"]}, others)
    assert problems("sh", sharded, None, {"main": parse({"tables": {"customer_seq": {}}})}) == (
        "tables.customer.auto_increment: "
        "sequence table 'main.customer_seq' needs to be marked as sequence type",
    )
    assert problems("sh", sharded, None, {}) == (
        "tables.customer.auto_increment: sequence 'main.customer_seq': keyspace 'main' not found",
        "tables.country.source: keyspace 'main' not found",
    )
    assert problems("main", main, {"customer_seq": ["id", "next_id"], "country": []}) == (
        "tables.customer_seq: column 'cache' not found",
    )


def test_a_sequence_named_without_keyspace_is_found_where_it_is_alone() -> None:
    main = parse(MAIN)
    assert find_sequence({"main": main, "sh": parse(SHARDED)}, "customer_seq") == ("main", "customer_seq")
    with pytest.raises(InvalidError, match="several"):
        find_sequence({"a": main, "b": main}, "customer_seq")
    with pytest.raises(InvalidError, match="not found"):
        find_sequence({"a": main}, "nope")


def test_the_walk_of_the_manual() -> None:
    product = edits.add_table(VSchema(), "product")
    product = edits.add_sequence(product, "customer_seq")
    customer = edits.add_column_vindex(VSchema(), "customer", "shard_index", ("customer_id",), "xxhash")
    customer = edits.add_auto_increment(customer, "customer", "customer_id", "product.customer_seq")
    customer = edits.add_column_vindex(customer, "corder", "shard_index", ("customer_id",))
    assert problems("customer", customer, None, {"product": product}) == ()
    assert customer.render() == {
        "sharded": True,
        "vindexes": {"shard_index": {"type": "xxhash"}},
        "tables": {
            "corder": {"column_vindexes": [{"column": "customer_id", "name": "shard_index"}]},
            "customer": {
                "column_vindexes": [{"column": "customer_id", "name": "shard_index"}],
                "auto_increment": {"column": "customer_id", "sequence": "product.customer_seq"},
            },
        },
    }
    customer = edits.drop_auto_increment(customer, "customer")
    customer = edits.drop_column_vindex(customer, "corder", "shard_index")
    assert "corder" not in customer.tables
    with pytest.raises(InvalidError, match="still defined on table customer"):
        edits.drop_vindex(customer, "shard_index")
    customer = edits.drop_vindex(edits.drop_table(customer, "customer"), "shard_index")
    assert customer.render() == {"sharded": True}
    assert edits.drop_sequence(product, "customer_seq").render() == {"tables": {"product": {}}}


ONE = parse(SHARDED)
FLAT = parse(MAIN)


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda: edits.add_table(ONE, "x"), "unsupported on a sharded keyspace"),
        (lambda: edits.add_table(FLAT, "country"), "already contains table country"),
        (lambda: edits.drop_table(FLAT, "x"), "does not contain table x"),
        (lambda: edits.add_sequence(ONE, "x"), "unsupported on a sharded keyspace"),
        (lambda: edits.add_sequence(FLAT, "country"), "already contains sequence country"),
        (lambda: edits.drop_sequence(ONE, "x"), "unsupported on a sharded keyspace"),
        (lambda: edits.drop_sequence(FLAT, "country"), "does not contain sequence country"),
        (lambda: edits.add_auto_increment(ONE, "x", "id", "s"), "does not contain table x"),
        (lambda: edits.add_auto_increment(ONE, "customer", "id", "s"), "already contains auto inc id"),
        (lambda: edits.drop_auto_increment(ONE, "orders"), "does not contain auto increment"),
        (lambda: edits.create_vindex(ONE, "xxhash", "hash", {}), "vindex xxhash already exists"),
        (lambda: edits.create_vindex(ONE, "l", "lookup", {}), "not offered"),
        (lambda: edits.create_vindex(ONE, "l", "hash", {"owner": "t"}), "not offered"),
        (lambda: edits.create_vindex(FLAT, "h", "hash", {}), "cannot become sharded"),
        (lambda: edits.drop_vindex(ONE, "x"), "vindex x not found"),
        (lambda: edits.add_column_vindex(ONE, "t", "x", ("a",)), "vindex x not found"),
        (lambda: edits.add_column_vindex(ONE, "t", "xxhash", ("a",), "hash"), "differ"),
        (lambda: edits.add_column_vindex(ONE, "t", "xxhash", ("a", "b")), "needs 1 columns"),
        (lambda: edits.add_column_vindex(ONE, "customer", "xxhash", ("id",)), "already defined on table"),
        (lambda: edits.drop_column_vindex(ONE, "x", "xxhash"), "does not contain table x"),
        (lambda: edits.drop_column_vindex(ONE, "customer", "region"), "not defined in table customer"),
        (lambda: edits.drop_column_vindex(ONE, "customer", "xxhash"), None),
    ],
)
def test_edits_refuse_with_the_reason(edit: Callable[[], VSchema], says: str | None) -> None:
    if says is None:
        assert "customer" not in edit().tables
        return
    with pytest.raises(InvalidError, match=says):
        edit()
