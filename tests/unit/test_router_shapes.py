"""What texts of one fingerprint may share: a template never decides by another text's literals."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from homeworld.gateway.plan import Pass, Scatter
from tests.support.router_tables import KNOWN, WORLD
from tests.support.routing_world import branch, keyspace, router, view

ASKING = "select count(*) from information_schema.tables where table_schema = '{}'"


@pytest.mark.parametrize("order", list(itertools.permutations(["main", "other", "sh", "nowhere", "shop"])))
def test_each_question_about_a_schema_goes_to_the_server_that_has_it(order: tuple[str, ...]) -> None:
    one = router(WORLD, KNOWN)
    for name in order:
        found = one.plan(ASKING.format(name).encode(), view())
        if name == "sh":
            assert isinstance(found, Scatter)
            ((place, sql),) = found.statements
            assert (place.keyspace, sql) == ("sh", ASKING.format("sh__80").encode())
            continue
        asked = "main" if name == "shop" else name
        assert isinstance(found, Pass)
        assert found.destination.keyspace == ("other" if name == "other" else "main")
        assert found.sql == ASKING.format(asked).encode()


def test_a_schema_s_name_is_read_in_hex_too() -> None:
    found = router(WORLD, KNOWN).plan(ASKING.replace("'{}'", "x'6f74686572'").encode(), view())
    assert isinstance(found, Pass)
    assert found.destination.keyspace == "other"


def test_a_schema_s_name_that_comes_later_is_looked_at_then() -> None:
    one = router(WORLD, KNOWN)
    text = ASKING.replace("'{}'", "?").encode()
    prepared = one.plan_prepared(text, view())
    assert isinstance(prepared.plan, Pass)
    assert not prepared.fixed
    found = one.plan_params(text, [b"'other'"], view())
    assert isinstance(found, Pass)
    assert found.destination.keyspace == "other"
    assert isinstance(one.plan_params(text, [b"'sh'"], view()), Scatter)
    assert one.plan_prepared(b"select count(*) from information_schema.tables", view()).fixed


def test_one_keyspace_is_asked_by_the_database_s_name_after_its_own() -> None:
    one = router(branch(keyspace("main"), database="shop"))
    for name in ("main", "shop", "main"):
        found = one.plan(ASKING.format(name).encode(), view())
        assert isinstance(found, Pass)
        assert found.sql == ASKING.format("main").encode()
    assert not one.plan_prepared(ASKING.replace("'{}'", "?").encode(), view()).fixed


def test_a_comment_never_takes_the_place_of_a_literal() -> None:
    vschema: dict[str, Any] = {
        "vindexes": {"xxhash": {"type": "xxhash"}},
        "tables": {"kv": {"column_vindexes": [{"column": "k", "name": "xxhash"}]}},
    }
    world = branch(keyspace("sh", vschema, "-40", "40-80", "80-c0", "c0-"))
    known = {"sh": {"kv": {"k": "varbinary(20)", "v": "varbinary(20)"}}}
    first = b"select * from kv where k = 'a' /*c*/ and v = 'p' 'q'"
    second = b"select * from kv where k = 'a' 'b' and v = 'p' /*c*/"
    one = router(world, known)
    one.plan(first, view())
    assert one.plan(second, view()) == router(world, known).plan(second, view())
    assert one.plan(first, view()) == router(world, known).plan(first, view())
