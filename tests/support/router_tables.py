"""A branch with several keyspaces and rules, for tests of the router without servers."""

from __future__ import annotations

from typing import Any

from homeworld.gateway.plan import Pass, Plan, Refuse, Target
from tests.support.routing_world import branch, keyspace, router, view

ONE = branch(keyspace("shop"))
SHARDED: dict[str, Any] = {
    "vindexes": {"xxhash": {"type": "xxhash"}},
    "tables": {"users": {"column_vindexes": [{"column": "id", "name": "xxhash"}]}},
}
WORLD = branch(
    keyspace("main", {"tables": {"users_seq": {"type": "sequence"}, "listed": {}}}),
    keyspace("other"),
    keyspace("sh", SHARDED, "-80", "80-"),
    rules={
        "moved": "other.moved",
        "main.moved": "other.moved",
        "half": "main.half",
        "half@replica": "other.half",
        "renamed": "main.new_name",
    },
)
KNOWN = {
    "main": {"a": {"id": "bigint"}, "both": {"id": "bigint"}, "listed": {"id": "bigint"}},
    "other": {"b": {"id": "bigint"}, "both": {"id": "bigint"}, "listed": {"id": "bigint"}},
    "sh": {"users": {"id": "bigint", "name": "varchar(20)"}},
}


def plan(text: str, *, target: Target | None = None, **facts: Any) -> Plan:
    return router(WORLD, KNOWN).plan(text.encode(), view(target, **facts))


def passed(text: str, *, target: Target | None = None, **facts: Any) -> Pass:
    found = plan(text, target=target, **facts)
    assert isinstance(found, Pass), found
    return found


def refused(text: str, *, target: Target | None = None, **facts: Any) -> Refuse:
    found = plan(text, target=target, **facts)
    assert isinstance(found, Refuse), found
    return found
