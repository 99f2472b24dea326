"""Which tables two vschemas place differently."""

from __future__ import annotations

from typing import Any

import pytest

from homeworld.model.errors import ConflictError, InvalidError
from homeworld.model.vschema import parse
from homeworld.model.vschema_placement import placed_anew, placing_text
from homeworld.store.keyspaces import Keyspace
from homeworld.store.store import Store
from homeworld.store.vschemas import judge_vschema, replace_vschema
from tests.support.stores import make_shop

USERS = {"column_vindexes": [{"column": "id", "name": "x"}]}


def vschema(tables: dict[str, Any], **vindexes: Any) -> dict[str, Any]:
    return {
        "sharded": True,
        "vindexes": {"x": {"type": "xxhash"}, "y": {"type": "xxhash"}, "h": {"type": "hash"}, **vindexes},
        "tables": tables,
    }


def bound(*pairs: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"column_vindexes": [{"column": column, "name": name} for column, name in pairs], **more}


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        (vschema({"users": USERS}), ()),
        (vschema({"users": bound(("ID", "y"))}), ()),
        (vschema({"users": bound(("id", "x"), ("name", "y"))}), ()),
        (vschema({"users": bound(("id", "x"), columns=[{"name": "id"}])}), ()),
        (vschema({"users": bound(("id", "h"))}), ("users",)),
        (vschema({"users": bound(("name", "x"))}), ("users",)),
        (vschema({"users": bound(("name", "y"), ("id", "x"))}), ("users",)),
        (vschema({"users": {"type": "reference"}}), ("users",)),
        (vschema({"users": USERS}, x={"type": "unicode_loose_xxhash"}), ("users",)),
        (vschema({}), ("users",)),
        (vschema({"users": USERS, "orders": USERS}), ("orders",)),
        (vschema({"orders": USERS}), ("orders", "users")),
    ],
)
def test_what_is_placed_anew(wanted: dict[str, Any], named: tuple[str, ...]) -> None:
    now = parse(vschema({"users": USERS}))
    assert placed_anew(now, parse(wanted)) == named
    assert placed_anew(parse(wanted), now) == named


def test_an_unsharded_keyspace_has_one_place() -> None:
    assert placed_anew(parse({"tables": {"a": {}}}), parse({"tables": {"b": {"type": "sequence"}}})) == ()


def test_a_placement_in_words() -> None:
    found = parse(vschema({"users": USERS, "country": {"type": "reference"}}))
    assert [placing_text(found, name) for name in ("users", "country", "none")] == [
        "by xxhash(id)", "on every shard (reference)", "by no vindex"
    ]  # fmt: skip


@pytest.fixture
def keyspace(sqlite_store: Store) -> Keyspace:
    with sqlite_store.write() as tx:
        target = make_shop(tx).target
        return tx.keyspaces.update(target.id, vschema=vschema({"users": USERS}))


def test_of_two_changes_at_once_one_is_sent_again(sqlite_store: Store, keyspace: Keyspace) -> None:
    base = parse(keyspace.vschema)
    with sqlite_store.read() as tx:
        first = judge_vschema(tx, keyspace, parse(vschema({"users": bound(("id", "h"))})), base)
        second = judge_vschema(tx, keyspace, parse(vschema({"users": USERS, "lines": USERS})))
        edit = judge_vschema(tx, keyspace, parse(vschema({"users": bound(("id", "y"))})), base)
    assert (first.tables, second.tables, edit.tables) == (("users",), ("lines",), ())
    with sqlite_store.write() as tx:
        replace_vschema(tx, tx.keyspaces.get(keyspace.id), first, base)
    with sqlite_store.write() as tx:
        now = tx.keyspaces.get(keyspace.id)
        with pytest.raises(ConflictError, match="send it again"):
            replace_vschema(tx, now, second)  # it would place users back, and nobody looked at users
        with pytest.raises(ConflictError, match="send it again"):
            replace_vschema(tx, now, edit, base)  # it would undo the first
        with pytest.raises(InvalidError):
            judge_vschema(tx, now, parse({"tables": {}}))
