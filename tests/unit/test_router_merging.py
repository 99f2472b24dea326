"""What shards are asked for values whose text does not say all of them, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from homeworld.gateway.plan import Refuse, Scatter
from homeworld.model.topology import Flavor
from tests.support.routing_world import branch, keyspace, router, view

VSCHEMA = {
    "vindexes": {"x": {"type": "xxhash"}},
    "tables": {"t": {"column_vindexes": [{"column": "id", "name": "x"}]}},
}
KNOWN = {
    "sh": {
        "t": {
            "id": "bigint", "g": "int", "a": "int", "p": "decimal(30,18)", "r": "decimal(40,20)",
            "ts": "timestamp(3)",
        },
    },
}  # fmt: skip
WORLD = branch(keyspace("sh", VSCHEMA, "-80", "80-"))


def asked(text: str, flavor: Flavor = Flavor.MYSQL) -> str:
    """What every shard is asked, or the refusal."""
    found = router(replace(WORLD, flavor=flavor), KNOWN).plan(text.encode(), view())
    if isinstance(found, Refuse):
        return found.message
    assert isinstance(found, Scatter), found
    (sql,) = {sql for _, sql in found.statements}
    return sql.decode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("select id from t order by ts", "select id, UNIX_TIMESTAMP(ts) from t order by ts"),
        ("select distinct ts from t", "select distinct ts, (ts), UNIX_TIMESTAMP(ts) from t"),
        (
            "select ts q, count(*) from t group by q order by q",
            "select ts q, count(*), (ts), MIN(UNIX_TIMESTAMP(ts)), MAX(UNIX_TIMESTAMP(ts)), "
            "UNIX_TIMESTAMP(ts) from t group by q order by q",
        ),
        ("select max(ts) from t", "select max(ts), MAX(UNIX_TIMESTAMP(ts)) from t"),
        (
            "select g, count(*) from t group by g order by min(ts)",
            "select g, count(*), (min(ts)), MIN(UNIX_TIMESTAMP(ts)) from t group by g order by min(ts)",
        ),
        (
            "select id from t group by id order by max(ts)",
            "select id, MAX(UNIX_TIMESTAMP(ts)), (max(ts)) from t group by id order by max(ts)",
        ),
        ("select date(ts), count(*) from t group by 1", "select date(ts), count(*) from t group by 1"),
    ],
)  # fmt: skip
def test_moments_are_asked_for(text: str, expected: str) -> None:
    assert asked(text) == expected


def test_mariadb_groups_by_the_moment() -> None:
    for text in ("select distinct ts from t", "select ts, count(*) from t group by ts"):
        head, _, tail = text.partition(" from t")
        assert asked(text, Flavor.MARIADB) == f"{head}, UNIX_TIMESTAMP(ts) from t{tail}"


@pytest.mark.parametrize(
    "text",
    [
        "select distinct * from t",
        "select id from t group by id order by any_value(ts)",
        "select id from t order by coalesce(ts, ts)",
        "select coalesce(ts, ts), count(*) from t group by 1",
    ],
)
def test_what_is_not_certain_of_moments(text: str) -> None:
    assert asked(text).startswith("VT12001"), text


@pytest.mark.parametrize("flavor", list(Flavor))
@pytest.mark.parametrize("function", ["sum", "avg"])
def test_sums_of_more_than_is_shown(function: str, flavor: Flavor) -> None:
    for argument in ("a/7", "abs(a/7)", "(g + a/2) * 3", "ifnull(a/7, 1)", "- (a/7)", "a/7 % 2"):
        found = asked(f"select {function}({argument}) from t", flavor)
        if flavor is Flavor.MARIADB:
            assert found.startswith("VT12001: unsupported: ")
            assert f"{function.upper()}(ROUND(…, 4))" in found
        else:
            assert found.startswith("select")
    for argument in ("p*p", "r*p", "p*r*0.1", "truncate(a)", "round(a/7, g)", "round(a, -1)", "round(a, 31)"):
        assert asked(f"select {function}({argument}) from t", flavor).startswith("VT12001"), argument
    for argument in (
        "round(a/7, 4)", "round(a/7)", "truncate(p*r, 2)", "floor(a/7)", "a/7 > 1", "a div 7", "sign(p*r)",
        "p*a", "a % 7", "ifnull(a, 0)", "r + p", "r * 0.0000000001", "-a",
    ):  # fmt: skip
        assert asked(f"select {function}({argument}) from t", flavor).startswith("select"), argument
