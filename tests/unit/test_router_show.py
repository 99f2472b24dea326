"""SHOW, ALTER VSCHEMA and NEXT VALUE."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from homeworld.gateway.plan import (
    AlterVschema,
    Answer,
    NeedSequence,
    Refuse,
    Target,
)
from tests.support.router_tables import KNOWN, WORLD, passed, plan, refused
from tests.support.routing_world import router, view

# ------------------------------------------------------------------------------- SHOW and ALTER VSCHEMA


def _V(check: Callable[[Any], bool]) -> Callable[[Any], bool]:  # noqa: N802 short in a table
    return check


def shown(text: str, target: Target | None = None) -> list[list[str | None]]:
    found = plan(text, target=target)
    assert isinstance(found, Answer), found
    titles: list[list[str | None]] = [[column.name for column in found.columns]]
    return titles + [[None if value is None else value.decode() for value in row] for row in found.rows]


def test_shows_that_the_gateway_answers() -> None:
    assert shown("show databases") == [
        ["Database"], ["main"], ["other"], ["sh"], ["shop"],
        ["information_schema"], ["mysql"], ["performance_schema"], ["sys"],
    ]  # fmt: skip
    assert shown("show schemas like 's_'") == [["Database (s_)"], ["sh"]]
    assert shown("show keyspaces") == [["Database"], ["main"], ["other"], ["sh"]]
    assert shown("show vitess_shards like 'sh/%'") == [["Shards"], ["sh/-80"], ["sh/80-"]]
    assert shown("show vitess_target", Target("main")) == [["Target"], ["main"]]
    assert shown("show vschema keyspaces")[1:] == [
        ["main", "false", "unmanaged", ""],
        ["other", "false", "unmanaged", ""],
        ["sh", "true", "unmanaged", ""],
    ]  # fmt: skip
    assert shown("show vschema tables", Target("sh")) == [["Tables"], ["users"]]
    assert [row[0] for row in shown("show vschema tables")] == ["Tables", "a", "both", "listed", "users_seq"]
    assert shown("show vschema vindexes", Target("sh")) == [
        ["Keyspace", "Name", "Type", "Params", "Owner"], ["sh", "xxhash", "xxhash", "", ""],
    ]  # fmt: skip
    assert shown("show vschema vindexes on sh.users") == [
        ["Columns", "Name", "Type", "Params", "Owner"], ["id", "xxhash", "xxhash", "", ""],
    ]  # fmt: skip
    tablets = shown("show vitess_tablets")
    assert tablets[0][:6] == ["Cell", "Keyspace", "Shard", "TabletType", "State", "Alias"]
    assert ["main", "-", "REPLICA"] in [row[1:4] for row in tablets]


def test_show_tables_of_a_sharded_keyspace_has_the_keyspace_s_name() -> None:
    found = passed("show full tables from sh like 'u%'")
    assert found.destination.shard == "-80"
    head, _, tail = found.sql.partition(b" FROM ")
    assert head == b"SELECT TABLE_NAME AS 'Tables_in_sh (u%)', TABLE_TYPE AS 'Table_type'"
    table, _, condition = tail.partition(b" WHERE ")
    assert table == b"information_schema.TABLES"
    assert condition == b"TABLE_SCHEMA = 'sh__80' AND TABLE_NAME LIKE 'u%' ORDER BY TABLE_NAME"
    assert passed("show create table sh.users").sql == b"show create table `sh__80`.users"
    assert isinstance(plan("show table status", target=Target("sh")), Refuse)


@pytest.mark.parametrize(
    ("text", "keyspace_name", "changed"),
    [
        ("alter vschema add table main.x", "main", _V(lambda v: "x" in v["tables"])),
        ("alter vschema drop table main.listed", "main", _V(lambda v: "listed" not in v["tables"])),
        (
            "alter vschema add sequence main.`s 2`",
            "main",
            _V(lambda v: v["tables"]["s 2"]["type"] == "sequence"),
        ),
        ("alter vschema drop sequence main.users_seq", "main", _V(lambda v: "users_seq" not in v["tables"])),
        (
            "alter vschema create vindex sh.r using multicol with column_count=2, column_bytes=`1,7`",
            "sh",
            _V(lambda v: v["vindexes"]["r"]["params"] == {"column_count": "2", "column_bytes": "1,7"}),
        ),
        (
            "ALTER VSCHEMA ON sh.orders ADD VINDEX xxhash(user_id);",
            "sh",
            _V(
                lambda v: (
                    v["tables"]["orders"]["column_vindexes"] == [{"column": "user_id", "name": "xxhash"}]
                )
            ),
        ),
        (
            "alter vschema on sh.o add vindex h(a) using hash",
            "sh",
            _V(lambda v: v["vindexes"]["h"] == {"type": "hash"}),
        ),
        (
            "alter vschema on sh.users add auto_increment id using main.users_seq",
            "sh",
            _V(lambda v: v["tables"]["users"]["auto_increment"]["sequence"] == "main.users_seq"),
        ),
        (
            "alter vschema on sh.users drop vindex xxhash",
            "sh",
            _V(lambda v: "users" not in v.get("tables", {})),
        ),
    ],
)
def test_alter_vschema(text: str, keyspace_name: str, changed: Callable[[Any], bool]) -> None:
    found = plan(text)
    assert isinstance(found, AlterVschema), found
    assert found.keyspace == keyspace_name
    assert changed(json.loads(found.vschema_json))


@pytest.mark.parametrize(
    ("text", "errno"),
    [
        ("alter vschema add table x", 1046),
        ("alter vschema add table nowhere.x", 1049),
        ("alter vschema add table main.listed", 1105),
        ("alter vschema drop vindex sh.xxhash", 1105),
        ("alter vschema add vindex sh.x", 1064),
        ("alter vschema create vindex sh.x", 1064),
        ("alter vschema on sh.users add vindex", 1064),
        ("alter vschema add table main.x y", 1064),
        ("alter vschema", 1064),
    ],
)
def test_alter_vschema_refused(text: str, errno: int) -> None:
    assert refused(text).errno == errno


def test_next_value() -> None:
    one = router(WORLD, KNOWN)
    assert one.plan(b"select next value from main.users_seq", view()) == NeedSequence("main", "users_seq", 1)
    assert one.plan(b"select next 5 values from users_seq", view()) == NeedSequence("main", "users_seq", 5)
    found = one.plan(b"select next 5 values from users_seq", view(sequence_ids=(40, 41, 42, 43, 44)))
    assert isinstance(found, Answer)
    assert (found.columns[0].name, found.rows) == ("nextval", ((b"40",),))
    assert isinstance(one.plan(b"select next value from a", view()), Refuse)
    assert isinstance(one.plan(b"select next 0 values from users_seq", view()), Refuse)


@pytest.mark.parametrize(
    "text",
    [
        "show columns from a where (select max(id) from moved) = 1",
        "show status where variable_name in (select name from users)",
        "show tables where (table b) = 1",
    ],
)
def test_no_query_hides_in_a_show(text: str) -> None:
    assert "queries in SHOW" in refused(text).message


def test_names_in_a_show_that_are_no_queries() -> None:
    for text in ("show create table main.select", "show table status", "show columns from a like 'select'"):
        assert passed(text).destination.keyspace == "main"
