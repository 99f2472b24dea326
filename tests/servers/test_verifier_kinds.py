"""One change of one value of every type is found and named: table, shard, key, column. So is every stray row.

One table has a column for each kind of column and a row for each value that is changed; the mover carries all
of them first, so that what is found is the change and not the copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from homeworld.model.movers import Placement, RowDifference, TableVerification
from homeworld.model.topology import Flavor, ShardPlace
from homeworld.replication import comparing, narrowing
from homeworld.replication.chunks import Span
from homeworld.replication.lanes import Lane
from homeworld.replication.mover import RunningMover
from tests.servers.test_verifier import on_the_right, verified
from tests.support.column_values import BLOB, LAX, Kind, kinds_of
from tests.support.moves import Move, make_move, wait_copied
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@dataclass
class Moved:
    """A running mover and its move."""

    move: Move
    mover: RunningMover

    def on(self, place: ShardPlace, *statements: str) -> None:
        self.move.server_of(place).execute([LAX, *statements], place.schema)

    def owner(self, number: int) -> ShardPlace:
        return self.move.targets[on_the_right(number)]

    def table(self, name: str) -> TableVerification:
        found = verified(self.mover, name)
        assert found.state == "completed", found.error
        (table,) = found.tables
        assert table.state == "completed"
        return table


def begin(servers: list[TestServer], *statements: str, sources: str = "-") -> Iterator[Moved]:
    move = make_move(servers, sources)
    for place in move.sources:
        move.server_of(place).execute([LAX, *statements], place.schema)
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        yield Moved(move, mover)
    finally:
        mover.stop(60)


@pytest.fixture
def every_kind(trio: list[TestServer], flavor: Flavor, monkeypatch: pytest.MonkeyPatch) -> Iterator[Moved]:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 50)
    monkeypatch.setattr(narrowing, "SAMPLES", 1000)
    kinds = kinds_of(flavor)
    columns = ", ".join(f"c{at} {kind.declared}" for at, kind in enumerate(kinds))

    def values(of: Kind) -> str:  # what is huge is so in its own rows only
        return ", ".join("NULL" if BLOB in k.values[0] and k is not of else k.values[0] for k in kinds)

    rows = [kind for kind in kinds for _ in kind.values[1:]]
    yield from begin(
        trio,
        f"CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {columns}) ROW_FORMAT=DYNAMIC",
        *(f"INSERT INTO t VALUES ({number}, {values(kind)})" for number, kind in enumerate(rows)),
    )


def test_every_value_that_changed_is_named(every_kind: Moved, flavor: Flavor) -> None:
    assert verified(every_kind.mover, "before").equal
    expected: dict[str, tuple[str, str]] = {}
    number = 0
    for at, kind in enumerate(kinds_of(flavor)):
        for value in kind.values[1:]:
            place = every_kind.owner(number)
            every_kind.on(place, f"UPDATE t SET c{at}={value} WHERE id={number}")
            expected[str(number)] = (f"c{at}", place.shard)
            number += 1
    table = every_kind.table("after")
    assert (table.extra_source, table.extra_target, table.wrong_shard) == (0, 0, 0)
    found = {each.key["id"]: ((*each.columns,), each.shard) for each in table.differences}
    assert found == {key: ((column,), shard) for key, (column, shard) in expected.items()}
    assert table.mismatched == len(expected)
    for each in table.differences:
        assert each.source is not None
        assert each.target is not None
        assert each.source[each.columns[0]] != each.target[each.columns[0]], each


ROWS = 400
PLAIN = (
    "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, a INT, b INT, v VARCHAR(20), u BIGINT NOT NULL DEFAULT 0)",
    "INSERT INTO t VALUES " + ", ".join(f"({n}, {n % 7}, {n % 5}, 'v{n % 3}', {n})" for n in range(ROWS)),
)


@pytest.fixture
def plain(trio: list[TestServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Moved]:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 60)
    yield from begin(trio, *PLAIN)


def kinds(table: TableVerification) -> dict[str, list[RowDifference]]:
    found: dict[str, list[RowDifference]] = {}
    for difference in table.differences:
        found.setdefault(difference.kind, []).append(difference)
    return found


def test_changes_that_might_cancel_are_found(plain: Moved) -> None:
    left = [n for n in range(ROWS) if not on_the_right(n) and n % 7 != n % 5]
    place = plain.owner(left[0])
    one, two, three, four, five = left[:5]
    plain.on(
        place,
        # two columns of a row, one column of two rows, the same change of two rows, and a sum that stays
        f"UPDATE t SET a={one % 5}, b={one % 7} WHERE id={one}",
        f"UPDATE t SET v='swapped' WHERE id IN ({two}, {three})",
        f"UPDATE t SET u=u+1 WHERE id={four}",
        f"UPDATE t SET u=u-1 WHERE id={five}",
    )
    table = plain.table("cancel")
    assert {each.key["id"] for each in table.differences} == {str(n) for n in left[:5]}
    # rows that exchange all but their keys
    plain.on(place, f"DELETE FROM t WHERE id IN ({one}, {two}, {three}, {four}, {five})")
    six, seven = left[6], left[7]
    plain.on(
        place,
        f"CREATE TEMPORARY TABLE x AS SELECT * FROM t WHERE id IN ({six}, {seven})",
        f"DELETE FROM t WHERE id IN ({six}, {seven})",
        f"INSERT INTO t SELECT {six}+{seven}-id, a, b, v, u FROM x",
    )
    found = kinds(plain.table("exchanged"))
    assert {each.key["id"] for each in found["mismatched"]} == {str(six), str(seven)}
    assert {each.key["id"] for each in found["extra_source"]} == {
        str(n) for n in (one, two, three, four, five)
    }


def test_stray_rows_are_named_with_their_shards(plain: Moved) -> None:
    left, right = plain.move.targets
    mine = [n for n in range(ROWS) if not on_the_right(n)]
    missing, moved, twice, other = mine[3], mine[90], mine[120], mine[7]
    row = "INSERT INTO t SELECT {0}, {0} % 7, {0} % 5, CONCAT('v', {0} % 3), {0}"
    plain.on(left, f"DELETE FROM t WHERE id IN ({missing}, {moved})", row.format(ROWS + 9999))
    plain.on(right, row.format(moved), row.format(twice), f"INSERT INTO t VALUES ({other}, 9, 9, 'else', 9)")
    added_right = on_the_right(ROWS + 9999)
    table = plain.table("strays")
    found = kinds(table)
    assert [(each.key["id"], each.owner) for each in found["extra_source"]] == [(str(missing), "-80")]
    misplaced = {each.key["id"]: (each.shard, each.owner, each.columns) for each in found["wrong_shard"]}
    expected = {
        str(moved): ("80-", "-80", ()),
        str(twice): ("80-", "-80", ()),
        str(other): ("80-", "-80", ("a", "b", "v", "u")),
    }
    if added_right:
        expected[str(ROWS + 9999)] = ("-80", "80-", ())
    assert misplaced == expected
    extra = {each.key["id"]: each.shard for each in found["extra_target"]}
    assert extra == {str(twice): "80-", str(other): "80-", str(ROWS + 9999): "-80"}
    # what is one too many is not taken for the row
    assert {each.key["id"]: each.shard for each in found["mismatched"]} == {str(other): "80-"}
    for each in table.differences:
        assert each.condition == f"`id` = {each.key['id']}"


def test_a_row_that_the_source_shards_have_twice_is_named(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 60)
    create = PLAIN[0]
    for moved in begin(trio, create, sources="-40 40-"):
        first, second = moved.move.sources
        moved.on(first, *PLAIN[1:])
        moved.mover.drain(moved.move.positions(), 30)
        assert verified(moved.mover, "before").equal
        # past the log, so that the streams do not know
        moved.move.server_of(second).execute(
            ["SET sql_log_bin=0", "INSERT INTO t VALUES (5, 5, 0, 'v2', 5)"], second.schema
        )
        found = kinds(moved.table("twice"))
        assert {name: len(each) for name, each in found.items()} == {"extra_source": 1}
        assert (found["extra_source"][0].key, found["extra_source"][0].shard) == ({"id": "5"}, "40-")


def test_generated_values_that_are_stored_or_made_otherwise_are_compared(trio: list[TestServer]) -> None:
    create = (
        "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, a INT, s INT GENERATED ALWAYS AS (a + 1) STORED, "
        "w INT GENERATED ALWAYS AS (a + 2) VIRTUAL)"
    )
    for moved in begin(trio, create, "INSERT INTO t (id, a) VALUES (1, 10), (2, 20), (3, 30)"):
        assert verified(moved.mover, "before").equal
        place = moved.owner(2)
        alter = "ALTER TABLE t DROP COLUMN w, ADD COLUMN w INT GENERATED ALWAYS AS (a + {}) VIRTUAL"
        moved.on(place, alter.format(3))
        table = moved.table("virtual")
        mine = [n for n in (1, 2, 3) if moved.owner(n) == place]
        assert {each.key["id"]: each.columns for each in table.differences} == {str(n): ("w",) for n in mine}
        moved.on(place, alter.format(2))
        assert verified(moved.mover, "mended").equal
        moved.on(
            place,
            "ALTER TABLE t DROP COLUMN s, ADD COLUMN s INT GENERATED ALWAYS AS (a + 5) STORED AFTER a",
        )
        table = moved.table("stored")
        assert {each.key["id"]: each.columns for each in table.differences} == {str(n): ("s",) for n in mine}


def test_what_means_something_else_on_the_other_side_is_not_compared(plain: Moved) -> None:
    place = plain.move.targets[1]
    plain.on(place, "ALTER TABLE t MODIFY v VARCHAR(20) CHARACTER SET latin1")
    found = verified(plain.mover, "layout")
    assert found.state == "error"
    assert not found.equal
    assert "column 'v'" in found.error
    assert f"{place.keyspace}/{place.shard}" in found.error
    assert [table.state for table in found.tables] == ["pending"]


def test_generated_values_of_another_type_are_told(trio: list[TestServer]) -> None:
    """The same words make other values of it; those of a virtual column are not in the text of a row."""
    create = (
        "CREATE TABLE t (id INT NOT NULL PRIMARY KEY, a INT, "
        "w DECIMAL(10,1) GENERATED ALWAYS AS (a * 1.0) VIRTUAL)"
    )
    for moved in begin(trio, create, "INSERT INTO t (id, a) VALUES (1, 10), (2, 20), (3, 30)"):
        assert verified(moved.mover, "before").equal
        place = moved.owner(2)
        moved.on(
            place,
            "ALTER TABLE t DROP COLUMN w, ADD COLUMN w DECIMAL(10,3) GENERATED ALWAYS AS (a * 1.0) VIRTUAL",
        )
        found = verified(moved.mover, "type")
        assert (found.state, found.equal) == ("error", False)
        assert "column 'w' is decimal(10,1) on the source and decimal(10,3)" in found.error


LONG = 20
"""Columns of 60,000 bytes each, which are more than a megabyte together."""


def test_a_text_that_a_server_does_not_make_is_told_though_it_keeps_no_warnings(
    trio: list[TestServer],
) -> None:
    columns = ", ".join(f"c{at} TEXT NOT NULL" for at in range(LONG))
    values = ", ".join(["REPEAT('x', 60000)"] * LONG)
    limits = {"max_error_count": 0, "max_allowed_packet": 1 << 20}
    before = {
        name: {server.server_id: server.query(f"SELECT @@global.{name}")[0][0] for server in trio}
        for name in limits
    }
    for moved in begin(
        trio,
        f"CREATE TABLE t (id INT NOT NULL PRIMARY KEY, {columns})",
        f"INSERT INTO t VALUES (1, {values})",
    ):
        moved.on(moved.owner(1), "UPDATE t SET c7=REPEAT('y', 60000)")
        try:
            for server in trio:
                # A new log, because MariaDB reads no event of the old one that is longer than that.
                sets = [f"SET GLOBAL {name}={value}" for name, value in limits.items()]
                server.execute(["FLUSH BINARY LOGS", *sets])
            found = verified(moved.mover, "long")
            assert (found.state, found.equal) == ("error", False)
            assert "times, and keeps 0 of it (max_error_count)" in found.error
        finally:
            for server in trio:
                server.execute([f"SET GLOBAL {name}={before[name][server.server_id]}" for name in limits])
        assert moved.table("after").mismatched == 1


def test_rows_that_no_source_has_are_read_in_parts(plain: Moved, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many they are: an emptied source whose target went on without the statement has all of them."""
    most: list[int] = []
    copies = narrowing.Narrowing._copies  # pyright: ignore[reportPrivateUsage]  what it holds in memory

    def counted(one: narrowing.Narrowing, lanes: Sequence[Lane], span: Span) -> list[Any]:
        found = list(copies(one, lanes, span))
        most.append(len(found))
        return found

    monkeypatch.setattr(narrowing.Narrowing, "_copies", counted)
    for place in plain.move.targets:
        mine = [n for n in range(ROWS, 3 * ROWS) if plain.owner(n) == place]
        plain.on(place, "INSERT INTO t (id) VALUES " + ", ".join(f"({n})" for n in mine))
    assert plain.table("more").extra_target == 2 * ROWS
    assert max(most) <= 3 * comparing.ROWS_A_CHUNK


def test_a_label_that_is_empty_is_not_taken_for_no_label(
    trio: list[TestServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(narrowing, "SAMPLES", 10)
    create = "CREATE TABLE t (k ENUM('a','') NOT NULL PRIMARY KEY, id INT NOT NULL, v INT)"
    for moved in begin(trio, create, "INSERT INTO t VALUES ('a', 1, 1), ('', 1, 1), (0, 1, 1)"):
        assert verified(moved.mover, "before").equal
        moved.on(moved.owner(1), "UPDATE t SET v=2 WHERE k=0")
        found = kinds(moved.table("after"))
        assert {kind: len(each) for kind, each in found.items()} == {"mismatched": 1}
        place = moved.owner(1)
        rows = moved.move.server_of(place).query(
            f"SELECT v FROM t WHERE {found['mismatched'][0].condition}", place.schema
        )
        assert rows == [(2,)]
