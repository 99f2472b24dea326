"""The router's short cut for statements that end in a number never plans what the long way would not."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.gateway.plan import Plan, SessionView
from homeworld.gateway.router import Router
from homeworld.gateway.sql_tokens import fingerprint
from tests.support.playbook import Playbook

starts = st.sampled_from(
    [
        b"",
        b"/* ",
        b"delete from a1 where id=",
        b"select * from a",
        b"select * from a1 limit 5,",
        b"select * from a1 where id=-",
        b"select * from a1 where v='",
        b"select 0x",
        b"select 1 -- ",
        b"select 1.",
        b"select 1e",
        b"select `a",
        b"select a1.",
        b"select c from a1 where id = ",
        b"select c from a1 where id=",
        b"select c from b1 where id in (1, 2) and n <",
        b"select x'",
        b"set @x=",
        b"update a1 set n=1 where id=",
    ]
)
numbers = st.integers(0, 10**20).map(lambda number: b"%d" % number)
ends = st.sampled_from([b"", b"", b"", b" ", b";", b" for update"])


class LongWay(Router):
    """Forgets the short cut each time."""

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        for heads in self._heads_of.values():
            heads.clear()
        return super().plan(sql, view)


@given(st.lists(st.tuples(starts, numbers, ends).map(b"".join), min_size=1, max_size=12))
@settings(max_examples=300, deadline=None)
def test_the_short_cut_and_the_long_way_agree(texts: list[bytes]) -> None:
    book = Playbook(Router)
    for keyspace in "ab":
        book.branch.tracker.loaded(keyspace, keyspace, [], [])
    view = book.session.view
    long_way = LongWay(book.branch.routes, book.branch.tracker)
    for text in texts:
        assert book.branch.router.plan(text, view) == long_way.plan(text, view)


@given(numbers, numbers)
def test_texts_that_share_a_head_share_a_fingerprint(one: bytes, other: bytes) -> None:
    for before in (b" ", b"=", b"<", b">", b"(", b","):
        for start in (b"select a", b"select 'x", b"select /* x", b"# x", b"select @a"):
            assert fingerprint(start + before + one) == fingerprint(start + before + other)
