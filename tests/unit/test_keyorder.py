"""Keys as SQL, and their order where Python can tell it."""

from __future__ import annotations

from decimal import Decimal

import pytest

from homeworld.model.errors import InvalidError
from homeworld.model.tables import Column
from homeworld.replication.keyorder import TableKey
from tests.support.tables import column, table

ASCENDING = [
    (column("k", "int"), [b"-5", b"0", b"9", b"10"]),
    (column("k", "bigint", "bigint unsigned"), [b"9", b"9223372036854775808", b"18446744073709551615"]),
    (column("k", "int", "int(5) unsigned zerofill"), [b"00009", b"00010"]),
    (column("k", "decimal", "decimal(65,30)"), [b"-1.50", b"0.10", b"2.00", b"10.00"]),
    (column("k", "varbinary", charset="binary"), [b"", b"a", b"a\0", b"a\0\0", b"b"]),
    (column("k", "binary", "binary(3)", charset="binary"), [b"\0\0\0", b"a\0\0", b"a\0\1"]),
    (column("k", "date"), [b"0000-00-00", b"1999-00-10", b"2024-02-29"]),
    (column("k", "datetime", "datetime(3)"), [b"0000-00-00 00:00:00.000", b"2024-01-01 00:00:00.100"]),
    (column("k", "time", "time(1)"), [b"-838:59:59.0", b"-00:00:00.5", b"99:00:00.0", b"101:00:00.0"]),
    (column("k", "year"), [b"0000", b"1901", b"2155"]),
    (column("k", "bit", "bit(12)"), [b"\x00\x01", b"\x01\x00"]),
    (column("k", "enum", "enum('z','a','m')"), [b"", b"z", b"a", b"m"]),
    (column("k", "set", "set('z','a')"), [b"", b"z", b"a", b"z,a"]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "values"), ASCENDING, ids=[kind.column_type for kind, _ in ASCENDING])
def test_ranks_are_those_of_the_order(kind: Column, values: list[bytes]) -> None:
    key = TableKey(table(kind))
    keys = [(value,) for value in values]
    assert key.ranks(None, keys, keys) == list(range(len(keys)))
    assert key.ordered(None, list(reversed(keys))) == keys
    assert not key.on_server


def test_a_key_of_several_columns_compares_from_the_left() -> None:
    key = TableKey(
        table(column("x"), column("b", "varbinary", charset="binary"), column("a"), key=("a", "b"))
    )
    assert key.positions == (2, 1)
    assert key.of((b"0", b"q", b"7")) == (b"7", b"q")
    edges = [(b"1", b"z"), (b"2", b"a")]
    assert key.ranks(None, [(b"1", b"a"), (b"1", b"z"), (b"1", b"zz"), (b"10", b"")], edges) == [0, 0, 1, 2]
    assert key.after((b"1", b"z")) == "(`a` > 1 OR (`a` = 1 AND `b` > x'7a'))"
    assert key.upto((b"1", b"z")) == "(`a` < 1 OR (`a` = 1 AND `b` <= x'7a'))"
    assert key.any_of([(b"1", b"z"), (b"2", b"")]) == "(`a` = 1 AND `b` = x'7a') OR (`a` = 2 AND `b` = x'')"


def test_an_enum_is_compared_by_a_list_that_an_index_can_walk() -> None:
    key = TableKey(table(column("k", "enum", "enum('z','a','m')")))
    assert key.after((b"z",)) == "`k` IN (2,3)"
    assert key.upto((b"z",)) == "`k` IN (0,1)"
    assert key.after((b"m",)) == "FALSE"
    assert key.equals((b"a",)) == "`k` = 2"


def test_text_goes_as_bytes_of_its_charset_and_is_ranked_by_the_server() -> None:
    key = TableKey(table(column("k", "varchar", charset="utf8mb4", collation="utf8mb4_bin")))
    assert key.on_server
    assert key.equals((b"a'\\",)) == "`k` = _utf8mb4 x'61275c'"
    assert key.ranks(None, [(b"a",)], []) == [0]
    with pytest.raises(InvalidError):
        key.ranks(None, [(b"a",)], [(b"b",)])


def test_nothing_but_a_number_gets_into_a_number() -> None:
    key = TableKey(table(column("k")))
    with pytest.raises(ValueError, match="invalid literal"):
        key.equals((b"1 OR 1=1",))
    assert TableKey(table(column("k", "decimal"))).columns[0].sortable(b"1.10") == Decimal("1.1")


@pytest.mark.parametrize("kind", ["geometry", "json"])
def test_what_has_no_order_is_no_key(kind: str) -> None:
    with pytest.raises(InvalidError):
        TableKey(table(column("k", kind)))
