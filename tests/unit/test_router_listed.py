"""Unqualified names of tables that a vschema lists before, while and after they are moved."""

from __future__ import annotations

from typing import Any

from homeworld.gateway.plan import NeedSchema, Pass, Plan, Refuse, SessionView, Target
from homeworld.gateway.router import Router
from homeworld.model.routing import BranchRoutes
from tests.support.routing_world import REPLICA, KnownTables, branch, keyspace, view

A: dict[str, Any] = {"column_vindexes": [{"column": "id", "name": "xxhash"}]}
SHARDED: dict[str, Any] = {"vindexes": {"xxhash": {"type": "xxhash"}}, "tables": {"a": A}}
WORLD = branch(keyspace("main"), keyspace("other"), keyspace("sh", SHARDED, "-"))
COLUMNS = {"id": "bigint"}
TEXT = b"select * from a where id = 1"


def ask(one: Router, tables: KnownTables, text: bytes = TEXT, asked: SessionView | None = None) -> Plan:
    """Plan, and load what is asked for as a session does."""
    loaded: list[str] = []
    while True:
        found = one.plan(text, asked or view())
        if not isinstance(found, NeedSchema):
            return found
        assert found.keyspace not in loaded, "asked for twice"
        loaded.append(found.keyspace)
        tables.known = {**tables.known, found.keyspace: {}}


def where(found: Plan) -> str:
    assert isinstance(found, Pass), found
    return found.destination.keyspace


def world(**known: tuple[str, ...]) -> KnownTables:
    return KnownTables({name: dict.fromkeys(tables, COLUMNS) for name, tables in known.items()})


def test_a_table_listed_before_its_move_is_where_it_is() -> None:
    tables = world(main=("a",), other=(), sh=())
    one = Router(WORLD, tables)
    assert where(ask(one, tables)) == "main"
    assert where(ask(one, tables, asked=view(REPLICA))) == "main"
    assert where(ask(one, tables, b"insert into a values (5)")) == "main"


def test_the_vschema_speaks_where_the_table_is_there_or_nowhere() -> None:
    tables = world(main=("a",), other=(), sh=("a",))
    assert where(ask(Router(WORLD, tables), tables)) == "sh"
    tables = world(main=(), other=(), sh=())
    nowhere = ask(Router(WORLD, tables), tables)
    assert isinstance(nowhere, Refuse)
    assert nowhere.message == "Table 'sh.a' doesn't exist"


def test_two_that_have_it_are_never_chosen_between() -> None:
    tables = world(main=("a",), other=("a",), sh=())
    assert ask(Router(WORLD, tables), tables) == Refuse(1105, "HY000", "ambiguous table reference: a")


def test_of_two_that_list_it_the_one_that_has_it_is_meant() -> None:
    listing: dict[str, Any] = {"tables": {"a": {}}}
    both = branch(keyspace("main", listing), keyspace("sh", SHARDED, "-"))
    for at in ("main", "sh"):
        tables = world(**{"main": (), "sh": (), at: ("a",)})
        assert where(ask(Router(both, tables), tables)) == at
    tables = world(main=("a",), sh=("a",))
    assert ask(Router(both, tables), tables) == Refuse(1105, "HY000", "ambiguous table reference: a")


def test_what_is_not_known_since_the_routes_is_asked_for_before_the_vschema_speaks() -> None:
    tables = world(main=("a",), other=())
    one = Router(WORLD, tables)  # routes made when a move had ended: what was known of sh was forgotten
    assert one.plan(TEXT, view()) == NeedSchema("sh")
    tables.known = {"main": {}, "other": {}, "sh": {"a": COLUMNS}}
    tables.version += 1
    assert where(ask(one, tables)) == "sh"


def test_a_keyspace_that_must_be_named_is_not_where_a_table_is_found_instead() -> None:
    shy = branch(keyspace("main", {"require_explicit_routing": True}), keyspace("sh", SHARDED, "-"))
    tables = world(main=("a",), sh=())
    found = ask(Router(shy, tables), tables)
    assert isinstance(found, Refuse)
    assert found.message == "Table 'sh.a' doesn't exist"


def test_a_refusal_says_where_the_table_would_be() -> None:
    """Whoever doubts it asks these keyspaces and no others."""

    def would_be(text: bytes, asked: SessionView | None = None, routes: BranchRoutes = WORLD) -> set[str]:
        tables = world(main=(), other=(), sh=())
        found = ask(Router(routes, tables), tables, text, asked)
        assert isinstance(found, Refuse)
        assert found.errno == 1146
        return set(found.keyspaces)

    assert would_be(TEXT) == {"main", "other", "sh"}
    assert would_be(b"explain " + TEXT) == {"main", "other", "sh"}
    assert would_be(b"select * from sh.a") == {"sh"}
    assert would_be(TEXT, view(Target("sh"))) == {"sh"}
    assert would_be(TEXT, routes=branch(*WORLD.keyspaces.values(), rules={"a": "sh.a"})) == {"sh"}
    shy = keyspace("other", {"require_explicit_routing": True})
    sharded_first = branch(WORLD.keyspaces["sh"], WORLD.keyspaces["main"], shy)
    assert would_be(TEXT, routes=sharded_first) == {"main", "sh"}
    assert would_be(b"select * from b", routes=sharded_first) == {"main", "other", "sh"}


def test_a_column_is_missing_where_its_table_is() -> None:
    tables = world(main=(), other=(), sh=("a",))
    found = ask(Router(WORLD, tables), tables, b"insert into a (id, x) values (1, 2)")
    assert found == Refuse(1054, "42S22", "Unknown column 'x' in 'field list'", frozenset({"sh"}))
