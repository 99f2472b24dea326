"""Documents of MySQL's JSON arrive with the types of their scalars, which no text of theirs tells.

The oracle asks JSON_TYPE of one path after the other; it uses nothing of what reads or writes documents here.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest

from homeworld.model.movers import Placement, Verification
from homeworld.model.topology import Flavor, ShardPlace
from homeworld.replication import comparing
from homeworld.replication.mover import RunningMover
from tests.servers.test_verifier_repair import outcome
from tests.support.moves import Move, make_move, wait_copied, wait_over
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

# What a column of each type gives to a document, beside what expressions give.
TYPED = """CREATE TABLE kinds (k INT PRIMARY KEY, bi BINARY(3), va VARBINARY(40), bl BLOB, me MEDIUMBLOB,
  lo LONGBLOB, bt BIT(13), ts TIMESTAMP(3) NULL, dt DATETIME(2), d DATE, t TIME(1), n DECIMAL(12,3),
  u BIGINT UNSIGNED, y YEAR)"""
KINDS = """INSERT INTO kinds VALUES
 (0, x'00ff5c', x'0a090d5c', x'80', REPEAT(x'fe',300), 'long', b'1000000000001', '2020-01-02 03:04:05.678',
  '2020-01-02 03:04:05.67', '1999-12-31', '-838:59:59.0', -0.050, 18446744073709551615, 1999),
 (1, 'abc', '', '', '', '', b'0', '2038-01-19 03:14:07', '0000-00-00', '0000-00-00', '00:00:00', 0, 0, 0),
 (2, 'a', REPEAT('v',40), REPEAT(x'00',70000 - 5000), REPEAT('m',70000), x'00', b'1', '0000-00-00',
  '9999-12-31 23:59:59.99', '2020-00-00', '0:0:0.1', 123456789.125, 9223372036854775807, 2155)"""
COLUMNS = ("bi", "va", "bl", "me", "lo", "bt", "ts", "dt", "d", "t", "n", "u", "y")
KINDS_TOLD = (
    "BLOB", "BIT", "DATE", "TIME", "DATETIME", "TIMESTAMP", "DECIMAL", "DOUBLE", "INTEGER",
    "UNSIGNED INTEGER",
)  # fmt: skip
EXPRESSIONS = (
    "4294967295", "4294967296", "CAST(4294967295 AS UNSIGNED)", "CAST(4294967296 AS UNSIGNED)",
    "CAST('[4294967295, 4294967296, -4294967297, 1700000000000]' AS JSON)", "'1700000000000'",
    "-9223372036854775808",
    "NULL", "TRUE", "1", "-1", "70000", "CAST(70000 AS UNSIGNED)", "CAST(5 AS UNSIGNED)",
    "9223372036854775808", "1.5", "1.50", "1.5e0", "1e300", "0e0",
    "CAST('12345678901234567890123.10' AS DECIMAL(40,2))",
    "CAST('-0.123456789012345678901234567890' AS DECIMAL(65,30))", "CAST(7 AS DECIMAL(9,0))", "NOW(6)",
    "CURDATE()", "CURTIME(6)", "CAST('a' AS BINARY)", "x'00ff'", "'text'", "'2020-01-02'",
    "'12:00:00.000000'", "'2020-01-02 03:04:05.000000'", "'base64:type252:YWJj'", "'1.50'",
    "'a \"q\" \\\\ b'", "''",
)  # fmt: skip
NAMES = ("a", "b c", 'q"', "\\\\", "ключ", "$", "a.b", "[0]", "", "*")


def document(draw: random.Random, depth: int = 3) -> str:
    """An SQL expression of a document over the columns of ``kinds``."""
    if depth and draw.random() < (0.9 if depth == 3 else 0.45):
        count = draw.choice((0, 1, 2, 4))
        inner = [document(draw, depth - 1) for _ in range(count)]
        if draw.random() < 0.5:
            return f"JSON_ARRAY({', '.join(inner)})"
        names = draw.sample(NAMES, count)
        pairs = [f"'{name}', {value}" for name, value in zip(names, inner, strict=True)]
        return f"JSON_OBJECT({', '.join(pairs)})"
    return draw.choice(COLUMNS) if draw.random() < 0.4 else draw.choice(EXPRESSIONS)


def of_table(draw: random.Random) -> str:
    """A SELECT of one document."""
    return (
        f"(SELECT JSON_EXTRACT(JSON_ARRAY({document(draw)}), '$[0]') FROM kinds WHERE k={draw.randrange(3)})"
    )


def types_of(place: ShardPlace, server: TestServer, table: str = "t") -> dict[int, object]:
    """Of each row its document and the type of everything in it, by path."""
    found: dict[int, object] = {}
    with server.connect(schema=place.schema) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT id, j FROM {table}")
        for number, text in cursor.fetchall():
            if text is None:
                found[number] = None
                continue
            paths = list(_paths("$", json.loads(text)))
            told: list[object] = []
            for at in range(0, len(paths), 300):
                some = paths[at : at + 300]
                parts = ", ".join(["JSON_TYPE(JSON_EXTRACT(j, %s))"] * len(some))
                cursor.execute(f"SELECT {parts} FROM {table} WHERE id=%s", (*some, number))
                told += cursor.fetchall()[0]
            found[number] = (text, dict(zip(paths, told, strict=True)))
    return found


def _paths(path: str, value: Any) -> Iterator[str]:
    yield path
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        inner = cast("dict[str | int, Any]", value).items()
    elif isinstance(value, list):
        inner = enumerate(cast("list[Any]", value))
    for name, below in inner:
        step = f"[{name}]" if isinstance(name, int) else f".{json.dumps(name, ensure_ascii=False)}"
        yield from _paths(path + step, below)


def hold_equal(move: Move) -> dict[int, object]:
    """All documents are on the targets as they are on the source; what they are."""
    expected = types_of(move.sources[0], move.source)
    there: dict[int, object] = {}
    for place in move.targets:
        there.update(types_of(place, move.server_of(place)))
    assert there.keys() == expected.keys()
    for number, one in expected.items():
        assert there[number] == one, number
    return expected


@pytest.fixture
def move(flavor: Flavor, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Move:
    if flavor is not Flavor.MYSQL:
        pytest.skip("JSON is text there")
    trio: list[TestServer] = request.getfixturevalue("trio")
    monkeypatch.setattr(comparing, "ROWS_A_CHUNK", 25)
    made = make_move(trio)
    made.create(
        TYPED,
        "SET SESSION sql_mode='', time_zone='+00:00'",
        KINDS,
        "CREATE TABLE t (id INT PRIMARY KEY, j JSON, v INT AS (id + 1) STORED, k JSON, x VARBINARY(9), "
        "u TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP)",
    )
    return made


def fill(move: Move, draw: random.Random, rows: int) -> None:
    statements = ["SET SESSION sql_mode='', time_zone='+00:00'"]
    for number in range(rows):
        own = "NULL" if draw.random() < 0.05 else of_table(draw)
        statements.append(f"INSERT INTO t (id, j, k, x) SELECT {number}, {own}, {of_table(draw)}, x'095c0a'")
    statements += [
        "SET SESSION cte_max_recursion_depth=100000",
        # Many typed values, and no two alike.
        "INSERT INTO t (id, j) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 700) "
        f"SELECT {rows}, JSON_ARRAYAGG(JSON_ARRAY(CAST(i AS UNSIGNED), i * 1.25, i)) FROM n",
        f"INSERT INTO t (id, j) SELECT {rows + 1}, JSON_OBJECT('big', REPEAT('x', 200000), 'd', CURDATE())",
    ]
    move.source.execute(statements, move.schema)


def change(draw: random.Random, rows: int) -> str:
    """A statement on a row; some change documents in place."""
    number = draw.randrange(rows)
    path = draw.choice(("$", "$.a", "$[0]", '$."b c"', "$.a[0]", "$[1]", "$.new"))
    value = of_table(draw)
    return draw.choice(
        (
            f"UPDATE t SET j={value} WHERE id={number}",
            f"UPDATE t SET j=JSON_SET(j, '{path}', {value}) WHERE id={number}",
            f"UPDATE t SET j=JSON_REPLACE(j, '{path}', {value}) WHERE id={number}",
            f"UPDATE t SET j=JSON_REMOVE(j, '{path if path != '$' else '$.a'}') WHERE id={number}",
            f"UPDATE t SET k={value} WHERE id={number}",
            f"DELETE FROM t WHERE id={number}",
            f"REPLACE INTO t (id, j, k) SELECT {number}, {value}, {of_table(draw)}",
        )
    )


def test_documents_keep_their_types(move: Move) -> None:
    draw = random.Random(20260724)
    rows = 90
    fill(move, draw, rows)
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        copied = hold_equal(move)
        assert "DECIMAL" in str(copied)
        session = ["SET SESSION sql_mode='', time_zone='+00:00'"]
        move.source.execute([*session, *(change(draw, rows) for _ in range(150))], move.schema)
        mover.drain(move.positions(), 30)
        followed = hold_equal(move)
        for kind in KINDS_TOLD:
            assert f"'{kind}'" in str(followed)
        move.assert_equal()
    finally:
        mover.stop(60)


# Each makes the same text of other types.
CHANGED = (
    ("JSON_OBJECT('a', CURDATE())", "CAST(CAST(j AS CHAR) AS JSON)", 'DATE at $."a"'),
    ("JSON_ARRAY(CAST('10:11:12.5' AS TIME(6)))", "CAST(CAST(j AS CHAR) AS JSON)", "TIME at $[0]"),
    ("JSON_ARRAY(1, CAST(5 AS UNSIGNED))", "CAST(CAST(j AS CHAR) AS JSON)", "UNSIGNED INTEGER at $[1]"),
    ("JSON_ARRAY(JSON_OBJECT('n', 5))", "JSON_REPLACE(j, '$[0].n', CAST(5 AS UNSIGNED))", "UNSIGNED"),
    ("JSON_ARRAY(1234.567e0)", "JSON_ARRAY(1234.567)", "DECIMAL at $[0]"),
    ("JSON_ARRAY(x'00')", "CAST(CAST(j AS CHAR) AS JSON)", "VARBINARY at $[0]"),
    ("JSON_ARRAY(CAST('2020-01-01' AS DATETIME))",
     "JSON_ARRAY((SELECT ts FROM kinds WHERE k=9))", "TIMESTAMP at $[0]"),
    ("JSON_EXTRACT(JSON_ARRAY(CURDATE()), '$[0]')", "CAST(CAST(j AS CHAR) AS JSON)", "DATE at $)"),
)  # fmt: skip


def test_types_are_verified_and_put_right(move: Move) -> None:
    fill(move, random.Random(5), 60)
    move.create("INSERT INTO kinds (k, ts) VALUES (9, '2020-01-01')")
    made = [f"({100 + at}, {before})" for at, (before, _, _) in enumerate(CHANGED)]
    move.create(f"INSERT INTO t (id, j) VALUES {', '.join(made)}")
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        assert outcome(mover, "equal", repair=False).equal
        for place in move.targets:
            server = move.server_of(place)
            server.execute(
                [
                    "CREATE TABLE kinds (k INT PRIMARY KEY, ts TIMESTAMP)",
                    "SET SESSION time_zone='+00:00'",
                    "INSERT INTO kinds VALUES (9, '2020-01-01')",
                    # A value that only is of another type counts as none that has changed.
                    *(
                        statement
                        for at, (_, after, _) in enumerate(CHANGED)
                        for statement in (
                            f"UPDATE t SET x=NULL, k=j WHERE id={100 + at}",
                            f"UPDATE t SET j=JSON_ARRAY('away') WHERE id={100 + at}",
                            f"UPDATE t SET j={after.replace('j', 'k')} WHERE id={100 + at}",
                            f"UPDATE t SET k=NULL, u=NULL WHERE id={100 + at}",
                        )
                    ),
                ],
                place.schema,
            )
        found = outcome(mover, "types", repair=False)
        told = the_types(found)
        assert set(told) == {str(100 + at) for at in range(len(CHANGED))}
        for at, (_, _, words) in enumerate(CHANGED):
            assert words in f"{told[str(100 + at)]} ", told
        assert outcome(mover, "put right", repair=True).equal
        hold_equal(move)
    finally:
        mover.stop(60)


def the_types(found: Verification) -> dict[str, str]:
    """Of each row that differs what is told of its document on both sides."""
    assert found.state == "completed", found
    (table,) = found.tables
    assert table.mismatched == len(CHANGED) == len(table.differences), table
    told: dict[str, str] = {}
    for each in table.differences:
        assert each.columns == ("j",), each
        assert each.source is not None
        assert each.target is not None
        assert each.source["j"] != each.target["j"]
        told[each.key["id"]] = f"{each.source['j']} {each.target['j']}"
    return told


def test_a_type_that_nothing_makes_is_refused(move: Move) -> None:
    move.create("CREATE TABLE tiny (b TINYBLOB)", "INSERT INTO tiny VALUES ('abc')")
    move.create("INSERT INTO t (id, j) VALUES (1, '{}')")
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        move.create("UPDATE t SET j=(SELECT JSON_OBJECT('a', JSON_ARRAY(1, b)) FROM tiny) WHERE id=1")
        refused = wait_over(mover)
    finally:
        mover.stop(60)
    words = 'column `j`: a JSON document has a value of type TINYBLOB at $."a"[1]'
    assert words in refused.error, refused
    again = RunningMover(move.spec(epoch=2))
    again.start()
    assert words in wait_over(again).error
    again.stop(60)


def test_the_way_back_keeps_types(move: Move) -> None:
    draw = random.Random(8)
    fill(move, draw, 30)
    placements = [Placement("t", "", ())]
    move.prepare(Placement("t", "xxhash", ("id",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
    finally:
        mover.stop(60)
    spec = move.reverse_spec(placements)
    for place in move.targets:
        move.server_of(place).execute(
            [
                TYPED,
                "SET SESSION sql_mode='', time_zone='+00:00'",
                KINDS,
                *(one for _ in range(60) if (one := change(draw, 30)).startswith("UPDATE")),
            ],
            place.schema,
        )
    back = RunningMover(spec)
    back.start()
    try:
        back.drain(move.positions(move.targets), 30)
        hold_equal(move)
    finally:
        back.stop(60)
