"""Maps of what is ahead, under way and done."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import InvalidError
from homeworld.replication.chunks import Outcome, Span, TableMap, spans_from_text, spans_to_text
from homeworld.replication.keyorder import TableKey
from tests.support.tables import column, table

KEY = TableKey(table(column("id"), column("v")))


def at(number: int) -> tuple[bytes]:
    return (str(number).encode(),)


def test_a_map_goes_from_untouched_to_complete() -> None:
    made = TableMap(KEY, 2)
    assert made.untouched
    assert not made.complete
    first = made.begin(Span(None, at(10)))
    assert made.busy
    assert made.next_gap() == Span(at(10), None)
    last = made.begin(Span(at(10), None))
    assert made.next_gap() is None
    made.landed(last, 0)
    made.landed(last, 1)
    assert made.done_spans(1) == (Span(at(10), None),)
    assert made.done_spans(1, landing=first) == (Span(None, None),)
    made.landed(first, 0)
    assert first.targets == (1,)
    made.landed(first, 1)
    assert made.complete
    assert made.next_gap() is None


def test_keys_are_sifted_by_what_each_target_has() -> None:
    made = TableMap(KEY, 2, [[Span(None, at(5))], []])
    chunk = made.begin(Span(None, at(5)))
    assert chunk.targets == (1,)
    outcome: Outcome = {at(3): (b"3", b"a"), at(5): None, at(6): (b"6", b"b")}
    for_first = dict(outcome)
    assert made.sift(None, 0, for_first) == []
    assert for_first == {at(3): (b"3", b"a"), at(5): None}
    assert made.sift(None, 1, outcome) == [(chunk, {at(3): (b"3", b"a"), at(5): None})]
    assert outcome == {}


def test_a_chunk_given_up_is_a_gap_again_and_a_shortened_one_leaves_its_end() -> None:
    made = TableMap(KEY, 1)
    chunk = made.begin(Span(None, at(100)))
    made.shorten(chunk, at(40))
    assert chunk.span == Span(None, at(40))
    assert made.next_gap() == Span(at(40), at(100))
    made.give_up(chunk)
    assert made.next_gap() == Span(None, at(40))
    made.give_up(chunk)  # once more is fine
    with pytest.raises(InvalidError):
        made.landed(chunk, 0)


def test_chunks_may_not_overlap() -> None:
    made = TableMap(KEY, 1)
    made.begin(Span(None, at(10)))
    with pytest.raises(InvalidError):
        made.begin(Span(None, at(5)))


@given(
    st.lists(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20))), min_size=1, max_size=3),
    st.integers(0, 80),
)
def test_what_a_map_remembers_is_what_it_was_told(spans: list[list[tuple[int, int]]], key: int) -> None:
    told = [[Span(at(low), at(low + length)) for low, length in each] for each in spans]
    made = TableMap(KEY, len(told), [spans_from_text(spans_to_text(each)) for each in told])
    (segment,) = made.segments_of(None, [at(key)])
    for target, each in enumerate(spans):
        assert (target in segment.done) == any(low < key <= low + length for low, length in each)
    again = TableMap(KEY, len(told), [made.done_spans(target) for target in range(len(told))])
    assert [again.done_spans(t) for t in range(len(told))] == [made.done_spans(t) for t in range(len(told))]
