"""Which values of an INSERT ask for an id, and that no shard makes one by itself."""

from __future__ import annotations

from typing import Any

import pytest

from homeworld.gateway.plan import NeedSequence, Pass, Plan, Refuse, Scatter
from tests.support.routing_world import branch, keyspace, router, view

SEQUENCE = {"column": "id", "sequence": "main.seq"}
VSCHEMA = {
    "vindexes": {"x": {"type": "xxhash"}},
    "tables": {
        "filled": {"column_vindexes": [{"column": "id", "name": "x"}], "auto_increment": SEQUENCE},
        "beside": {"column_vindexes": [{"column": "uid", "name": "x"}], "auto_increment": SEQUENCE},
        "given": {"column_vindexes": [{"column": "uid", "name": "x"}]},
        "everywhere": {"type": "reference"},
    },
}
COLUMNS = {"id": "bigint auto_increment", "uid": "bigint"}
KNOWN = {"main": {"seq": {"id": "bigint"}}, "sh": dict.fromkeys(VSCHEMA["tables"], COLUMNS)}
WORLD = branch(
    keyspace("main", {"tables": {"seq": {"type": "sequence"}}}), keyspace("sh", VSCHEMA, "-80", "80-")
)
ZEROS = ["0", "'0'", "00", "-0", "'-0'", "0.0", "'0.00'", "' 0'", "'0 '", "FALSE", "(0)"]
MISSING = ["NULL", "(NULL)", "DEFAULT"]
NUMBERS = ["1", "'7'", "-3", "007", "TRUE"]
DOUBTFUL = ["'0x'", "x'00'", "b'0'", "0e0", "0.4", "''", "'abc'"]
EXPRESSIONS = ["1 - 1", "+0", "ABS(0)", "N'0'", "_utf8'0'", "'0' '0'", "DEFAULT(id)", "CAST(0 AS SIGNED)"]


def insert(table: str, value: str, **facts: Any) -> Plan:
    text = f"insert into sh.{table} (id, uid) values ({value}, 5)"
    return router(WORLD, KNOWN).plan(text.encode(), view(**facts))


@pytest.mark.parametrize("value", ZEROS + MISSING)
def test_what_asks_for_an_id(value: str) -> None:
    for table in ("filled", "beside"):
        assert isinstance(insert(table, value), NeedSequence)
        found = insert(table, value, sequence_ids=(41,))
        assert isinstance(found, Scatter)
        ((_, sql),) = found.statements
        assert sql.replace(b"(41)", b"41").endswith(b" (id, uid) values (41, 5)")
    for table in ("given", "everywhere"):
        found = insert(table, value)
        assert isinstance(found, Refuse)
        assert found.message.startswith("VT12001: unsupported: AUTO_INCREMENT")


@pytest.mark.parametrize("value", ZEROS)
def test_a_zero_is_a_value_where_the_mode_says_so(value: str) -> None:
    for table in ("beside", "given"):
        assert isinstance(insert(table, value, zero_is_value=True), Pass)
    assert isinstance(insert("everywhere", value, zero_is_value=True), Scatter)
    assert not isinstance(insert("filled", value, zero_is_value=True), NeedSequence)


@pytest.mark.parametrize("value", NUMBERS)
def test_numbers_are_left_alone(value: str) -> None:
    for table in ("filled", "beside", "given"):
        found = insert(table, value)
        assert isinstance(found, Pass | Refuse)
        assert isinstance(found, Pass) or value == "007"
    assert isinstance(insert("everywhere", value), Scatter)


@pytest.mark.parametrize("value", DOUBTFUL + EXPRESSIONS)
def test_what_may_ask_a_shard_for_an_id_is_refused(value: str) -> None:
    for table in ("filled", "beside", "given", "everywhere"):
        found = insert(table, value)
        assert isinstance(found, Refuse), table
        assert "may ask a shard for an id of its own" in found.message


@pytest.mark.parametrize("value", MISSING + EXPRESSIONS)
def test_a_null_asks_in_every_mode(value: str) -> None:
    # An expression may be NULL.
    assert not isinstance(insert("beside", value, zero_is_value=True), Pass)
    assert isinstance(insert("given", value, zero_is_value=True), Refuse)


def test_columns_without_a_value() -> None:
    for text in ("insert into sh.given (uid) values (5)", "insert into sh.everywhere (uid) values (5)"):
        found = router(WORLD, KNOWN).plan(text.encode(), view())
        assert isinstance(found, Refuse)
        assert found.message.startswith("VT12001: unsupported: AUTO_INCREMENT")


def test_one_shape_is_looked_at_for_each_text_s_own_numbers() -> None:
    planned = router(WORLD, KNOWN)
    texts = [b"insert into sh.given (id, uid) values (%d, 5)" % number for number in (3, 0, 4)]
    assert [type(planned.plan(text, view())) for text in texts] == [Pass, Refuse, Pass]
