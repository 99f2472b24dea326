"""Positions of both flavours: the laws of sets, and the servers' own text."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import InvalidError
from homeworld.model.gtid import IntervalSet, MysqlPosition, Position, Progress
from homeworld.model.topology import Flavor

A = "3e11fa47-71ca-11e1-9e33-c80aa9429562"
Parts = dict[tuple[str, str], list[tuple[int, int]]]
B = "00000000-0000-0000-0000-000000000001"


def mysql(text: str) -> Position:
    return Position.parse(Flavor.MYSQL, text)


def mariadb(text: str) -> Position:
    return Position.parse(Flavor.MARIADB, text)


intervals = st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1, max_size=8)
sources = st.dictionaries(
    st.tuples(st.sampled_from([A, B]), st.sampled_from(["", "tag_a", "b2"])), intervals, max_size=4
)


def position_of(parts: Parts) -> Position:
    words = [
        f"{uuid}{':' + tag if tag else ''}:" + ":".join(f"{first}-{first + more}" for first, more in found)
        for (uuid, tag), found in parts.items()
    ]
    return mysql(",".join(words))


def numbers_of(parts: Parts) -> set[tuple[tuple[str, str], int]]:
    return {
        (source, number)
        for source, found in parts.items()
        for first, more in found
        for number in range(first, first + more + 1)
    }


@given(sources, sources)
def test_mysql_positions_are_sets(one: Parts, other: Parts) -> None:
    a, b = position_of(one), position_of(other)
    as_a, as_b = numbers_of(one), numbers_of(other)
    assert a.contains(b) == (as_a >= as_b)
    assert (a == b) == (as_a == as_b)
    assert a.union(b) == b.union(a)
    assert a.union(b).contains(a)
    assert a.union(b).contains(b)
    assert mysql(str(a.union(b))) == a.union(b)
    assert bool(a) == bool(as_a)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12))
def test_intervals_stay_sorted_and_apart(added: list[tuple[int, int]]) -> None:
    found = IntervalSet((first, first + more) for first, more in added)
    numbers = {n for first, more in added for n in range(first, first + more + 1)}
    pairs = list(found)
    assert {n for first, last in pairs for n in range(first, last + 1)} == numbers
    assert all(end + 1 < start for (_, end), (start, _) in pairwise(pairs))


@given(st.permutations(list(range(1, 30))))
def test_progress_in_any_order_ends_in_one_interval(order: list[int]) -> None:
    progress = Progress(mysql(""))
    source = next(iter(MysqlPosition.from_text(f"{A}:1").sources))
    for number in order:
        progress.add_mysql(source, number)
    assert progress.text() == f"{A}:1-29"
    assert progress.position() == mysql(f"{A}:1-29")


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (f" {A.upper()}:5 , \n{B}:1-2 ", f"{B}:1-2,{A}:5"),
        (f"{A}:1-3:4:7-9", f"{A}:1-4:7-9"),
        (f"{A}:1-3:Tag_A:1:5", f"{A}:1-3:tag_a:1:5"),
        (f"{A}:tag_a:1,{A}:2", f"{A}:2:tag_a:1"),
        (f"{A}:9223372036854775807", f"{A}:9223372036854775807"),
    ],
)
def test_mysql_text(text: str, canonical: str) -> None:
    assert str(mysql(text)) == canonical
    assert str(mysql(canonical)) == canonical


@pytest.mark.parametrize(
    "text",
    [
        f"{A}:1-0",
        f"{A}:0",
        f"{A}:5-3",
        A,
        f"{A}:",
        f"{A}:tag_a",
        "x:1",
        "1-2-3",
        f"{A}:1-9223372036854775808",
        f"{A}:9tag:1",
    ],
)
def test_mysql_refuses(text: str) -> None:
    with pytest.raises(InvalidError):
        mysql(text)


def test_a_tag_is_another_source() -> None:
    assert not mysql(f"{A}:1-9").contains(mysql(f"{A}:tag_a:1"))
    assert mysql(f"{A}:1-9:tag_a:1-3").contains(mysql(f"{A}:5:tag_a:2"))


@pytest.mark.parametrize(
    ("text", "canonical"),
    [("", ""), ("1-2-5, 0-1-100", "0-1-100,1-2-5"), ("0-1-5,0-2-9,0-3-7", "0-2-9")],
)
def test_mariadb_text(text: str, canonical: str) -> None:
    assert str(mariadb(text)) == canonical


def test_mariadb_compares_each_domain() -> None:
    one = mariadb("0-1-5,1-1-9")
    assert one.contains(mariadb("0-2-4"))
    assert one.contains(mariadb(""))
    assert not one.contains(mariadb("0-1-6"))
    assert not one.contains(mariadb("2-1-1"))
    assert one.union(mariadb("0-2-7,2-1-1")) == mariadb("0-2-7,1-1-9,2-1-1")
    assert one != mariadb("0-2-5,1-1-9")


@pytest.mark.parametrize(
    "text", ["0-1", "0-1-0", "a-1-2", "4294967296-1-1", "0-1-18446744073709551616", f"{A}:1"]
)
def test_mariadb_refuses(text: str) -> None:
    with pytest.raises(InvalidError):
        mariadb(text)


def test_mariadb_progress_follows_the_log() -> None:
    progress = Progress(mariadb("0-1-5"))
    progress.add_mariadb(0, 2, 6)
    progress.add_mariadb(3, 1, 1)
    assert progress.text() == "0-2-6,3-1-1"


def test_flavours_do_not_mix() -> None:
    with pytest.raises(InvalidError):
        mysql(f"{A}:1").contains(mariadb("0-1-1"))
    with pytest.raises(InvalidError):
        mariadb("0-1-1").union(mysql(f"{A}:1"))
    assert mysql("") != mariadb("")


def test_positions_are_values() -> None:
    start = mysql(f"{A}:1-5")
    progress = Progress(start)
    progress.add_mysql((bytes(16), ""), 1)
    assert str(start) == f"{A}:1-5"
    assert len({mysql(f"{A}:1-5"), start, mysql(f"{A}:1-4:5")}) == 1
    assert len({mariadb("0-1-1"), mariadb("0-1-1")}) == 1
