"""Rows of shards merged: order, limits, groups, averages."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.gateway.merge import (
    Aggregate,
    Column,
    ColumnsChangedError,
    DoubtfulMomentError,
    InexactAverageError,
    Key,
    LongTextsError,
    Merge,
    add,
    average,
    identify,
    sort,
)
from homeworld.gateway.plan import Row
from homeworld.gateway.router_types import NUMBER, Kind, Type, of_collation

DOUBLE, BYTES, TIME = Type(Kind.DOUBLE), Type(Kind.BYTES), Type(Kind.TIME)
PADDED = Type(Kind.WEIGHT, b"\x00\x20")


def one(*values: bytes | None) -> list[Row]:
    return [(value,) for value in values]


@pytest.mark.parametrize(
    ("type_", "values", "order"),
    [
        (NUMBER, [b"10", b"9", None, b"-1", b"2.5"], [None, b"-1", b"2.5", b"9", b"10"]),
        (NUMBER, [b"18446744073709551615", b"18446744073709551614"], [b"18446744073709551614",
                                                                       b"18446744073709551615"]),
        (NUMBER, [b"0.10000000000000000000000000002", b"0.1"], [b"0.1", b"0.10000000000000000000000000002"]),
        (DOUBLE, [b"1e30", b"2", b"-1.5e-3", None], [None, b"-1.5e-3", b"2", b"1e30"]),
        (BYTES, [b"b", b"B", b"", b"a\0", b"a"], [b"", b"B", b"a", b"a\0", b"b"]),
        (TIME, [b"100:00:00", b"09:00:00", b"-01:00:00"], [b"-01:00:00", b"09:00:00", b"100:00:00"]),
        (TIME, [b"09:00:00.500", b"09:00:00.050"], [b"09:00:00.050", b"09:00:00.500"]),
        (PADDED, [b"\x00A\x00!", b"\x00A", b"\x00A\x00\t"], [b"\x00A\x00\t", b"\x00A", b"\x00A\x00!"]),
    ],
)  # fmt: skip
def test_order(type_: Type, values: list[bytes | None], order: list[bytes | None]) -> None:
    assert sort(one(*values), [Key(0, type_)]) == one(*order)
    assert sort(one(*values), [Key(0, type_, descending=True)]) == one(*reversed(order))


# What TIMESTAMPs are in a zone that has the hour from 1 to 2 o'clock twice: moment and text.
FIRST_0130, FIRST_0145, SECOND_0130, NOON = (
    (b"1730611800", b"01:30"), (b"1730612700", b"01:45"), (b"1730615400", b"01:30"), (b"1730651400", b"12:00")
)  # fmt: skip
MOMENT = Type(Kind.MOMENT)


def test_moments_are_sorted_and_identified_by_their_number() -> None:
    key = Key(0, MOMENT)
    rows: list[Row] = [SECOND_0130, FIRST_0145, (None, None), FIRST_0130, (b"0", b"00:00")]
    assert sort(list(rows), [key]) == [rows[2], rows[4], FIRST_0130, FIRST_0145, SECOND_0130]
    of = identify([key])
    assert of(FIRST_0130) != of(SECOND_0130)
    assert of((b"5.10", b"a")) == of((b"5.1", b"b"))


def test_moments_that_may_be_compared_by_text_too() -> None:
    key = Key(0, MOMENT, text=1)
    assert sort([SECOND_0130, (None, None), FIRST_0130, NOON], [key]) == [
        (None, None), FIRST_0130, SECOND_0130, NOON,
    ]  # fmt: skip
    down = Key(0, MOMENT, descending=True, text=1)
    assert sort([FIRST_0130, (None, None), NOON], [down]) == [NOON, FIRST_0130, (None, None)]
    for rows in ([SECOND_0130, FIRST_0145], [FIRST_0145, NOON, SECOND_0130]):
        for doubtful in (key, down):
            with pytest.raises(DoubtfulMomentError):
                sort(list(rows), [doubtful])


def test_the_first_and_last_moment() -> None:
    def best(how: Aggregate, *rows: Row) -> Row:
        columns = (Column(1, how, MOMENT, compared=0),)
        (found,) = Merge(columns=columns)([[row] for row in rows])
        return found

    assert best(Aggregate.MAX, SECOND_0130, NOON, (None, None), FIRST_0145) == NOON
    assert best(Aggregate.MIN, SECOND_0130, NOON, (None, None), FIRST_0130)[1] == b"01:30"
    assert best(Aggregate.MIN, FIRST_0145, NOON) == FIRST_0145
    assert best(Aggregate.MAX, (None, None), (None, None)) == (None, None)
    for how in (Aggregate.MIN, Aggregate.MAX):
        with pytest.raises(DoubtfulMomentError):
            best(how, FIRST_0145, SECOND_0130)


def test_groups_of_moments_that_may_be_made_by_text_too() -> None:
    keys = (Key(0, MOMENT, text=1),)
    once = [[FIRST_0130, (None, None)], [NOON, FIRST_0145, FIRST_0130], [(None, None)]]
    assert len(Merge(distinct=keys)(once)) == 4
    assert len(Merge(columns=(), groups=keys)(once)) == 4
    assert len(Merge(distinct=(Key(0, MOMENT),))([[FIRST_0130], [SECOND_0130]])) == 2
    for merge in (Merge(distinct=keys), Merge(columns=(), groups=keys)):
        with pytest.raises(DoubtfulMomentError):
            merge([[FIRST_0130], [NOON, SECOND_0130]])
    # Another group may have the same moment's text.
    beside = Merge(distinct=(*keys, Key(2, BYTES)))
    assert len(beside([[(*FIRST_0130, b"a")], [(*SECOND_0130, b"b")]])) == 2
    joined = Merge(columns=(), groups=(Key(0, MOMENT, text=1, twin=2),))
    assert len(joined([[(*FIRST_0130, FIRST_0130[0]), (None, None, None)]])) == 2
    with pytest.raises(DoubtfulMomentError):
        joined([[(*FIRST_0130, SECOND_0130[0])]])


def test_several_keys_and_ties() -> None:
    rows: list[Row] = [(b"1", b"a"), (b"2", b"b"), (b"1", b"c"), (None, b"d")]
    assert sort(list(rows), [Key(0, NUMBER, descending=True), Key(1, BYTES, descending=True)]) == [
        (b"2", b"b"), (b"1", b"c"), (b"1", b"a"), (None, b"d"),
    ]  # fmt: skip


def test_limit_offset_and_hidden_columns() -> None:
    merge = Merge(order=(Key(-1, NUMBER),), limit=2, offset=1, hidden=1)
    assert merge([[(b"x", b"3"), (b"y", b"5")], [(b"z", b"1")], []]) == [(b"x",), (b"y",)]
    assert Merge(limit=0)([one(b"1")]) == []
    assert Merge(offset=2)([one(b"1", b"2"), one(b"3")]) == one(b"3")


def test_distinct_keeps_the_first_of_equal_rows() -> None:
    merge = Merge(distinct=(Key(-1, PADDED),), hidden=1)
    results = [[(b"a", b"\x00A"), (None, None)], [(b"A ", b"\x00A\x00\x20"), (b"b", b"\x00B"), (None, None)]]
    assert merge(results) == [(b"a",), (None,), (b"b",)]


def test_a_row_of_another_width_is_an_error() -> None:
    with pytest.raises(ColumnsChangedError):
        Merge(distinct=(Key(0, NUMBER),), width=1)([[(b"1", b"2")]])


def test_groups() -> None:
    columns = (
        Column(1, Aggregate.COUNT),
        Column(2, Aggregate.SUM),
        Column(3, Aggregate.MAX, NUMBER, 3),
        Column(4, Aggregate.AVG, total=(-2, -1)),
    )
    merge = Merge(
        columns=columns, groups=(Key(0, NUMBER),), order=(Key(1, NUMBER, descending=True),), hidden=2
    )
    found = merge(
        [
            [(b"1", b"2", b"0.5", b"9", b"x", b"10", b"2"), (None, b"1", None, None, None, None, b"0")],
            [(b"1", b"3", b"1.25", b"10", b"x", b"3", b"1"), (b"2", b"1", b"7", b"-1", b"x", b"7", b"1")],
        ]
    )
    assert found == [
        (b"1", b"5", b"1.75", b"10", b"4.3333"),
        (None, b"1", None, None, None),
        (b"2", b"1", b"7", b"-1", b"7.0000"),
    ]


def test_no_groups_is_one_group() -> None:
    merge = Merge(columns=(Column(0, Aggregate.COUNT), Column(1, Aggregate.MIN, TIME, 1)))
    assert merge([[(b"0", None)], [(b"4", b"10:00:00")], [(b"1", b"09:59:59")]]) == [(b"5", b"09:59:59")]


def test_the_best_text_is_found_by_its_weight() -> None:
    merge = Merge(columns=(Column(0, Aggregate.MIN, PADDED, -1),), hidden=1)
    assert merge([[(b"b", b"\x00B")], [(None, None)], [(b"A", b"\x00A")]]) == [(b"A",)]


@given(
    st.lists(
        st.decimals(allow_nan=False, allow_infinity=False, places=7, min_value=-(10**20), max_value=10**20)
    )
)
def test_sums_are_exact(values: list[Decimal]) -> None:
    found = add(f"{value:f}".encode() for value in values)
    if not values:
        assert found is None
    else:
        assert found is not None
        assert int(found.replace(b".", b"")) == sum(int(value.scaleb(7)) for value in values)


@pytest.mark.parametrize(
    ("total", "count", "mean"),
    [
        (b"10", 3, b"3.3333"), (b"-10", 3, b"-3.3333"), (b"2", 3, b"0.6667"), (b"-1", 100000, b"0.0000"),
        (b"0.00", 5, b"0.000000"), (b"1.5", 2, b"0.75000"), (None, 0, None), (b"5", 0, None),
        (b"12345678901234567890123456789012345", 7, b"1763668414462081127160493827001763.5714"),
    ],
)  # fmt: skip
def test_averages(total: bytes | None, count: int, mean: bytes | None) -> None:
    assert average(total, count) == mean


def test_averages_out_of_reach() -> None:
    with pytest.raises(InexactAverageError):
        average(b"0." + b"1" * 27, 2)


def test_identity() -> None:
    of = identify([Key(0, NUMBER), Key(1, TIME)])
    assert of((b"1.50", b"01:00:00")) == of((b"1.5", b"1:00:00"))
    assert of((None, b"01:00:00")) != of((b"0", b"01:00:00"))


@pytest.mark.parametrize(
    ("collation", "known"),
    [
        ("utf8mb4_0900_ai_ci", True), ("utf8mb4_de_pb_0900_as_cs", True), ("utf8mb4_general_ci", True),
        ("latin1_swedish_ci", True), ("utf8mb4_uca1400_as_cs", False), ("latin1_german2_ci", False),
        ("utf8mb4_spanish_ci", False), ("ucs2_general_ci", False), ("", False), ("utf8mb4_nopad_bin", True),
    ],
)  # fmt: skip
def test_collations_whose_weights_are_known(collation: str, known: bool) -> None:
    assert (of_collation(collation) is not None) == known


def test_long_texts_are_sorted_only_where_every_server_would_sort_them_so() -> None:
    key = Key(0, PADDED, most=8)
    alike: list[Row] = [(b"\x00A" * 4 + b"\x00C",), (b"\x00A" * 4 + b"\x00B",)]
    apart: list[Row] = [(b"\x00B" * 5,), (b"\x00A" * 5,), (None,)]
    assert sort(list(apart), [key]) == apart[::-1]
    assert sort([alike[0], alike[0]], [key]) == [alike[0], alike[0]]
    with pytest.raises(LongTextsError):
        sort(list(alike), [key])
    with pytest.raises(LongTextsError):
        sort([alike[0], (b"\x00A" * 4,)], [key])
    assert sort(list(alike), [Key(0, PADDED)]) == alike[::-1]
    # A shard that was to give one row has others, perhaps, that are equal to it by what it sorts by.
    short: list[Row] = [(b"\x00A",)]
    assert Merge(order=(key,), limit=1)([short, short]) == short
    assert Merge(order=(key,), limit=2)([[apart[1]], [apart[0]]]) == [apart[1], apart[0]]
    with pytest.raises(LongTextsError):
        Merge(order=(key,), limit=1)([short, [apart[0]]])
