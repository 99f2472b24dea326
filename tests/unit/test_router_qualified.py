"""Columns written with their keyspace: each shard's text has the schema's own name wherever they stand."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Refuse, Scatter
from tests.support.router_tables import KNOWN, WORLD
from tests.support.routing_world import router, view


def texts(text: str) -> list[str]:
    found = router(WORLD, KNOWN).plan(text.encode(), view())
    assert isinstance(found, Scatter), found
    return [sql.decode() for _, sql in found.statements]


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        (
            "select name from sh.users order by sh.users.id limit 5",
            "select name, (`{0}`.users.id) from `{0}`.users order by `{0}`.users.id limit 5",
        ),
        (
            "select id from sh.users order by sh.users.name, sh.users.id + 1",
            "select id, WEIGHT_STRING(`{0}`.users.name), (`{0}`.users.id + 1) from `{0}`.users "
            "order by `{0}`.users.name, `{0}`.users.id + 1",
        ),
        (
            "select avg(sh.users.id) from sh.users",
            "select avg(`{0}`.users.id), SUM(`{0}`.users.id), COUNT(`{0}`.users.id) from `{0}`.users",
        ),
        (
            "select count(*) from sh.users group by sh.users.name",
            "select count(*), WEIGHT_STRING(`{0}`.users.name) from `{0}`.users group by `{0}`.users.name",
        ),
        (
            "select distinct sh.users.name from sh.users",
            "select distinct `{0}`.users.name, WEIGHT_STRING(`{0}`.users.name) from `{0}`.users",
        ),
        (
            "delete from sh.users where sh.users.name = 'sh'",
            "delete from `{0}`.users where `{0}`.users.name = 'sh'",
        ),
    ],
)
def test_helper_columns_have_the_names_of_their_shard(text: str, sent: str) -> None:
    assert texts(text) == [sent.format("sh__80"), sent.format("sh_80_")]


def test_rows_of_several_shards() -> None:
    rows = ", ".join(f"({number}, 'a')" for number in range(1, 20))
    text = f"insert into sh.users (id, name) values {rows} on duplicate key update "
    for number, sent in enumerate(texts(text + "sh.users.name = 'x'")):
        schema = ("sh__80", "sh_80_")[number]
        assert sent.startswith(f"insert into `{schema}`.users (id, name) values (")
        assert sent.endswith(f") on duplicate key update `{schema}`.users.name = 'x'")
    odd = text.replace("(7, 'a')", "(7, sh.users.id)").removesuffix("on duplicate key update ")
    assert isinstance(router(WORLD, KNOWN).plan(odd.encode(), view()), Refuse)
