"""Definitions compared as texts, and the lint."""

from __future__ import annotations

from dataclasses import replace

from homeworld.model.inspection import TableFacts
from homeworld.model.vschema import parse
from homeworld.schema.lint import lint
from homeworld.schema.texts import definition_html, diff_html, difference, differences

BEFORE = "CREATE TABLE `t` (\n  `id` int,\n  `a` int\n)"
AFTER = "CREATE TABLE `t` (\n  `id` int,\n  `b` int\n)"
GOOD = TableFacts("shop", "t", "InnoDB", "utf8mb4", True, (), (), frozenset({"id", "a"}))


def test_a_difference_shows_the_whole_statement() -> None:
    assert difference(BEFORE, BEFORE) == ""
    assert difference(BEFORE, AFTER).splitlines() == [
        " CREATE TABLE `t` (", "   `id` int,", "-  `a` int", "+  `b` int", " )",
    ]  # fmt: skip
    assert difference("", BEFORE).splitlines() == [f"+{line}" for line in BEFORE.splitlines()]
    assert difference(BEFORE, "").splitlines() == [f"-{line}" for line in BEFORE.splitlines()]


def test_only_what_differs_is_told() -> None:
    found = differences(
        {"t": BEFORE, "gone": BEFORE, "same": BEFORE}, {"t": AFTER, "new": AFTER, "same": BEFORE}
    )
    assert sorted(found) == ["gone", "new", "t"]
    assert found["gone"].startswith("-CREATE")
    assert found["new"].startswith("+CREATE")


def test_html_says_what_came_and_went_and_escapes() -> None:
    shown = diff_html("-a < b\n+c > d\n e")
    assert shown == "<pre><del>-a &lt; b</del>\n<ins>+c &gt; d</ins>\n<span> e</span></pre>"
    assert definition_html("a < b") == "<pre>a &lt; b</pre>"


def codes(*tables: TableFacts, vschema: str = '{"tables": {}}', foreign_keys: bool = False) -> list[str]:
    found = lint(tables, parse(vschema), keyspace="shop", foreign_keys=foreign_keys)
    assert all(fault.description and fault.keyspace == "shop" for fault in found)
    return [fault.error for fault in found]


def test_a_good_table_has_no_fault() -> None:
    assert codes(GOOD) == []


def test_each_fault_of_a_table_has_its_code() -> None:
    assert codes(replace(GOOD, keyed=False)) == ["NO_UNIQUE_KEY"]
    assert codes(replace(GOOD, engine="MyISAM")) == ["INVALID_ENGINE"]
    assert codes(replace(GOOD, charset="ucs2")) == ["INVALID_CHARSET"]
    assert codes(replace(GOOD, partitioning="HASH")) == ["PARTITIONING"]
    linked = replace(GOOD, foreign_key_columns=("a",))
    assert codes(linked) == ["FOREIGN_KEYS_NOT_ALLOWED"]
    assert codes(linked, foreign_keys=True) == []


def test_a_sharded_keyspace_has_to_say_how_rows_are_placed() -> None:
    plain = '{"sharded": true, "vindexes": {}, "tables": {}}'
    assert codes(GOOD, vschema=plain) == ["NO_VSCHEMA_ENTRY"]
    placed = (
        '{"sharded": true, "vindexes": {"x": {"type": "xxhash"}}, '
        '"tables": {"t": {"column_vindexes": [{"column": "COLUMN", "name": "x"}]}}}'
    )
    assert codes(GOOD, vschema=placed.replace("COLUMN", "id")) == []
    assert codes(GOOD, vschema=placed.replace("COLUMN", "ID")) == []
    assert codes(GOOD, vschema=placed.replace("COLUMN", "b")) == ["VINDEX_COLUMN_MISSING"]
    counting = replace(GOOD, auto_increment=("id",))
    assert codes(counting, vschema=placed.replace("COLUMN", "id")) == ["AUTO_INCREMENT_WITHOUT_SEQUENCE"]
