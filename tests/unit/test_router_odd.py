"""Texts that are odd but a client's right to send: each is answered by a plan, nothing is raised."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Pass, Refuse
from homeworld.model.errors import HomeworldError
from homeworld.wire.results import err_of, parse_err
from tests.support.router_tables import KNOWN, WORLD
from tests.support.routing_world import router, view

DEEP = b"select * from users where id = " + b"(" * 400 + b"1" + b")" * 400
NESTED = (
    b"select 1 from users where id in " + b"(select 1 from users where id in " * 200 + b"(1)" + b")" * 200
)
LONG = b"select * from users where id = " + b"9" * 5000


# Each of these is to cost about as much as its length.
WIDE = b"select * from " + b"(" * 100_000 + b"users" + b")" * 100_000
INTERVALS = b"select " + b"interval(" * 150 + b"1," * 50_000 + b"1" + b")" * 150 + b" from users"
VERSIONS = b"select 1 from a " + b"".join(b"/*!%d ,1 */" % (50_701 + at) for at in range(5_000))


def test_long_texts_that_nest_are_read_once() -> None:
    one = router(WORLD, KNOWN)
    for text in (WIDE, WIDE.replace(b"select * from ", b"select * from users where id = "), INTERVALS):
        assert isinstance(one.plan(text, view()), Refuse)
    found = one.plan(VERSIONS, view())
    assert isinstance(found, Refuse)
    assert found.errno == 1064
    assert isinstance(one.plan(b"select id, 1 from a /*!50701 where 1 */ /*!80000 limit 1 */", view()), Pass)


@pytest.mark.parametrize("text", [DEEP, NESTED, LONG, LONG.replace(b"id = ", b"id = -")])
def test_what_is_too_much_to_read_is_refused(text: bytes) -> None:
    one = router(WORLD, KNOWN)
    for _ in range(2):  # the second time from a template, where one could be made
        found = one.plan(text, view())
        assert isinstance(found, Refuse)
        assert found.errno == 1235
    assert not one.plan_prepared(text, view()).fixed
    assert isinstance(one.plan_params(text, [], view()), Refuse)


def test_a_value_that_is_too_long_is_refused_where_others_are_not() -> None:
    one = router(WORLD, KNOWN)
    text = b"select * from users where id = ?"
    assert isinstance(one.plan_prepared(text, view()).plan, Pass)
    assert isinstance(one.plan_params(text, [b"9" * 5000], view()), Refuse)
    assert isinstance(one.plan_params(text, [b"9"], view()), Pass)


@pytest.mark.parametrize(
    "text",
    [
        b"select * from sh.caf\xe9",
        b"select * from caf\xe9.x",
        b"use caf\xe9",
        b"select caf\xe9 from users group by 1",
        b"insert into users (caf\xe9) values (1)",
    ],
)
def test_a_name_that_is_no_utf_8_is_named_in_an_error_packet(text: bytes) -> None:
    found = router(WORLD, KNOWN).plan(text, view())
    assert isinstance(found, Refuse)
    told = parse_err(err_of(HomeworldError(found.message)))
    assert told.message == found.message.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("table", ["users", "a"], ids=["sharded", "unsharded"])
def test_of_large_texts_only_the_newest_is_kept(table: str) -> None:
    """Lists of many lengths, each a shape of its own, and the same list with other numbers."""
    one = router(WORLD, KNOWN)

    def text(count: int, first: int) -> bytes:
        ids = ",".join(str(first + number) for number in range(count))
        return f"select id from {table} where id in ({ids}) limit 10".encode()

    plans = [one.plan(text(5_000 + more, 1), view()) for more in range(0, 40, 8)]
    assert not any(isinstance(plan, Refuse) for plan in plans)
    # The shape that came last: by its template the plan is the same as by itself.
    other = router(WORLD, KNOWN)
    assert one.plan(text(5_032, 9_000), view()) == other.plan(text(5_032, 9_000), view())
    kept = [one._cache, one._heads, one._text_cache]  # type: ignore[reportPrivateUsage]
    assert [len(cache) for cache in kept] == [0, 0, 0]
