"""Writes that act on unique keys or on what servers fill in by themselves, and what is known of both."""

from __future__ import annotations

from typing import Any

import pytest

from homeworld.gateway.plan import MadeValues, NeedSequence, Pass, Plan, Refuse, Scatter
from homeworld.gateway.router import Router
from homeworld.gateway.tracker import SchemaTracker
from tests.support.routing_world import KnownTables, branch, keyspace, view

VSCHEMA: dict[str, Any] = {
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {
        "own": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "mail": {"column_vindexes": [{"column": "id", "name": "xxhash"}]},
        "named": {"column_vindexes": [{"column": "name", "name": "xxhash"}]},
        "made": {
            "column_vindexes": [{"column": "uid", "name": "xxhash"}],
            "auto_increment": {"column": "id", "sequence": "main.seq"},
        },
        "r": {"type": "reference"},
    },
}
WORLD = branch(
    keyspace("main", {"tables": {"seq": {"type": "sequence"}}}), keyspace("sh", VSCHEMA, "-80", "80-")
)
TABLES = KnownTables(
    {
        "main": {"seq": {"id": "bigint"}},
        "sh": {
            "own": {"id": "bigint", "n": "int"},
            "mail": {"id": "bigint", "email": "varchar(20)"},
            "named": {"name": "varchar(20)", "n": "int"},
            "made": {"id": "bigint", "uid": "bigint", "n": "int"},
            "r": {"code": "int", "at": "timestamp not null", "seen": "datetime", "key": "char(36)"},
        },
    },
    unique={
        ("sh", "own"): (("ID",), ("n", "id")),
        ("sh", "mail"): (("id",), ("email",)),
        ("sh", "named"): (("name",),),
        ("sh", "made"): (("id",),),
    },
    made={("sh", "r"): MadeValues(frozenset({"at", "key"}), frozenset({"seen"}))},
)


def plan(text: str, **facts: Any) -> Plan:
    return Router(WORLD, TABLES).plan(text.encode(), view(**facts))


def refused(text: str) -> str:
    found = plan(text)
    assert isinstance(found, Refuse), found
    assert found.errno == 1235
    return found.message


WRITES = (
    "replace into {} ({}) values (1, 2)",
    "insert ignore into {} ({}) values (1, 2)",
    "insert into {} ({}) values (1, 2) on duplicate key update n = 5",
)


@pytest.mark.parametrize("write", WRITES)
def test_rows_in_conflict_are_acted_on_only_where_they_are_on_the_row_s_shard(write: str) -> None:
    assert isinstance(plan(write.format("own", "id, n")), Pass)
    assert "key (email)" in refused(write.format("mail", "id, email"))
    # Equal names may be written differently, and then be on different shards.
    assert "key (name)" in refused(write.format("named", "name, n"))
    assert "key (id)" in refused(write.format("made", "id, uid"))


@pytest.mark.parametrize("write", WRITES)
def test_a_key_that_a_sequence_fills_is_in_no_conflict(write: str) -> None:
    text = write.format("made", "uid, n")
    assert plan(text) == NeedSequence("main", "seq", 1)
    assert isinstance(plan(text, sequence_ids=(7,)), Scatter)
    mixed = text.replace("uid, n", "id, uid").replace("(1, 2)", "(null, 1), (4, 2)")
    found = plan(mixed, sequence_ids=(7,))
    assert isinstance(found, Refuse)
    assert "key (id)" in found.message


def test_a_plain_insert_is_as_it_was() -> None:
    assert isinstance(plan("insert into mail (id, email) values (1, 'a')"), Pass)


@pytest.mark.parametrize(
    ("text", "column"),
    [
        ("insert into r (code) values (1)", "at"),
        ("insert into r (code, at) values (1, '2020-01-01')", "key"),
        ("insert into r (code, at, `key`) values (1, default, 'x')", "at"),
        ("insert into r (code, at, `key`) values (1, null, 'x')", "at"),
        ("insert into r set code = 1, at = '2020-01-01'", "key"),
        ("insert into r (code, at, `key`) values (1, '2020-01-01', 'x'), (2, '2020-01-01', default)", "key"),
        ("insert into r (code, at, `key`) values (1, default(at), 'x')", "at"),
        ("replace into r (code, `key`) values (1, 'x')", "at"),
        ("update r set code = 2", "seen"),
        ("update r set code = 2, seen = default", "seen"),
        ("update r set code = 2, seen = null, `key` = default", "key"),
        ("insert into r values (1, '2020-01-01', null, 'x') on duplicate key update code = 2", "seen"),
    ],
)
def test_a_reference_table_is_given_what_each_server_would_make(text: str, column: str) -> None:
    message = refused(text)
    assert f"give {column} a value" in message or (column == "seen" and "default" in text)


@pytest.mark.parametrize(
    "text",
    [
        "insert into r (code, at, `key`) values (1, '2020-01-01', 'x')",
        "insert into r (code, AT, `KEY`) values (1, '2020-01-01', null)",
        "insert into r values (1, '2020-01-01', null, 'x') on duplicate key update seen = '2020-01-01'",
        "update r set code = 2, seen = '2020-01-01'",
        "update r set code = 2, seen = null",
        "delete from r where code = 5",
    ],
)
def test_a_reference_table_is_written_alike_everywhere(text: str) -> None:
    found = plan(text)
    assert isinstance(found, Scatter)
    assert found.same_rows


def _row(name: str, type_: str, extra: str, default: str | None) -> tuple[bytes | None, ...]:
    told = ("t", name, type_, type_, "YES", "utf8mb4", "utf8mb4_bin", extra, "20")
    return (*(one.encode() for one in told), None if default is None else default.encode())


def test_the_tracker_tells_values_that_servers_make() -> None:
    tracker = SchemaTracker()
    tracker.loaded(
        "k",
        "k",
        [
            _row("a", "datetime", "DEFAULT_GENERATED", "CURRENT_TIMESTAMP"),
            _row("b", "timestamp", "on update current_timestamp()", "current_timestamp()"),
            _row("c", "timestamp", "DEFAULT_GENERATED on update CURRENT_TIMESTAMP(3)", "CURRENT_TIMESTAMP"),
            _row("d", "char", "DEFAULT_GENERATED", "uuid()"),
            _row("e", "char", "", "uuid()"),
            _row("f", "bigint", "", "nextval(`k`.`s`)"),
            _row("g", "varchar", "", "'uuid()'"),
            _row("h", "varchar", "", "it's text"),
            _row("i", "json", "DEFAULT_GENERATED", "json_array()"),
            _row("j", "int", "", "5"),
            _row("k", "int", "", None),
            _row("l", "varchar", "", "concat('now()','x')"),
            _row("m", "varchar", "", "current_state"),
        ],
        [],
        [
            (b"t", b"PRIMARY", b"a", None),
            (b"t", b"PRIMARY", b"b", None),
            (b"t", b"u", None, None),
            (b"t", b"u", b"c", b"10"),
        ],
    )
    assert tracker.made_values("k", "t") == MadeValues(frozenset("abcdef"), frozenset("bc"))
    assert tracker.unique_keys("k", "t") == (("a", "b"), ("", ""))
    assert tracker.unique_keys("k", "none") is None
    assert tracker.made_values("none", "t") is None
