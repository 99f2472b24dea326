"""Coalescing changes by key: what remains does what all of them did."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.vindexes import UnplaceableError
from homeworld.replication.chunks import Outcome
from homeworld.replication.coalesce import Fresh, Route, coalesce, lay_over
from homeworld.replication.keyorder import TableKey
from tests.support.tables import column, table
from tests.unit.test_copy_rule import KEY, NAME, ROUTE, Source, Target

OTHER = ("s", "other")
LOOSE = TableKey(table(column("k", "varchar", charset="latin1")))


@given(st.integers(0, 1 << 32), st.integers(1, 30))
def test_batches_of_any_size_end_in_the_same_rows(seed: int, size: int) -> None:
    source = Source(random.Random(seed))
    for _ in range(60):
        source.change()
    targets = [Target(0), Target(0)]
    for start in range(0, source.now, size):
        outcomes = coalesce(source.events[start : start + size], {NAME: ROUTE}, 2)
        for target, outcome in zip(targets, outcomes, strict=True):
            target.apply(outcome.get(NAME, {}))
    for at, target in enumerate(targets):
        rows = [row for row in source.rows.values() if ROUTE.place(row) == at]
        assert target.rows == {KEY.of(row): row for row in rows}


def test_a_row_that_changes_its_shard_leaves_the_old_one() -> None:
    changes = [(NAME, (b"1", None, b"0"), (b"1", None, b"1"))]
    assert coalesce(changes, {NAME: ROUTE}, 2) == [
        {NAME: {(b"1",): None}},
        {NAME: {(b"1",): (b"1", None, b"1")}},
    ]


def test_a_row_that_no_shard_may_have_is_told_with_its_table() -> None:
    def refuse(_values: tuple[bytes | None, ...]) -> int:
        raise UnplaceableError("no keyspace id")

    route = Route(OTHER, table(column("k", "varchar")), LOOSE, (0,), refuse)
    with pytest.raises(UnplaceableError, match="table t by k: no keyspace id"):
        coalesce([(OTHER, None, (b"x",))], {OTHER: route}, 2)


def test_tables_do_not_mix_and_a_key_that_only_changes_its_case_is_deleted_before_it_is_put() -> None:
    loose = Route(OTHER, table(column("k", "varchar")), LOOSE)
    changes = [
        (OTHER, (b"abc",), (b"ABC",)),
        (NAME, None, (b"1", None, b"0")),
        (OTHER, None, (b"x",)),
        (OTHER, (b"x",), None),
    ]
    first, second = coalesce(changes, {NAME: ROUTE, OTHER: loose}, 2)
    assert first[OTHER] == {(b"abc",): None, (b"ABC",): (b"ABC",), (b"x",): None}
    assert first[NAME] == {(b"1",): (b"1", None, b"0")}
    assert not any(second.values())


def test_an_outcome_is_laid_over_rows() -> None:
    rows = [(b"1", b"a", b"0"), (b"2", b"b", b"0"), (b"3", b"c", b"0")]
    outcome: Outcome = {(b"1",): None, (b"2",): (b"2", b"z", b"0"), (b"9",): (b"9", b"n", b"0")}
    assert lay_over(rows, KEY, outcome) == [rows[2], (b"2", b"z", b"0"), (b"9", b"n", b"0")]


def test_keys_that_come_to_be_there_are_taken_down() -> None:
    def row(key: bytes, target: bytes = b"0", value: bytes = b"v") -> tuple[bytes, bytes, bytes]:
        return (key, value, target)

    changes = [
        (NAME, None, row(b"1")),  # new
        (NAME, row(b"1"), row(b"1", value=b"w")),
        (NAME, row(b"2"), row(b"2", value=b"w")),  # known
        (NAME, row(b"3"), None),
        (NAME, None, row(b"3")),  # known: there before, and again
        (NAME, None, row(b"4")),
        (NAME, row(b"4"), None),  # came and went
        (NAME, row(b"5"), row(b"6")),  # 6 is new
        (NAME, row(b"7"), row(b"7", b"1")),  # new on the other target only
    ]
    fresh: Fresh = [{}, {}]
    marked = coalesce(changes, {NAME: ROUTE}, 2, fresh)
    assert fresh == [{NAME: {(b"1",), (b"4",), (b"6",)}}, {NAME: {(b"7",)}}]
    assert marked == coalesce(changes, {NAME: ROUTE}, 2)
