"""Every column type: what the binlog says and what SELECT says are the same bytes, on both flavours.

Values are the least, the largest and the odd ones; the rows are inserted, updated and deleted, and each image
of each event is compared with the row that SELECT gave while it was there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import Flavor
from homeworld.replication.changes import Row
from homeworld.replication.column_types import select_expression
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from tests.support.feeds import apply, batches_until, changes_of, wanted
from tests.support.mysqld import TestServer, start_server

pytestmark = pytest.mark.servers
SCHEMA = "types"
MANY = ",".join(f"'{number}'" for number in range(64))


# (declared type, values as SQL expressions); NULL is always tried too.
COLUMNS: dict[str, tuple[str, list[str]]] = {
    "ti": ("tinyint", ["-128", "127", "0"]),
    "tu": ("tinyint unsigned zerofill", ["0", "255", "7"]),
    "si": ("smallint", ["-32768", "32767"]),
    "su": ("smallint unsigned", ["65535"]),
    "mi": ("mediumint", ["-8388608", "8388607", "-1"]),
    "mu": ("mediumint unsigned", ["16777215", "0"]),
    "ii": ("int", ["-2147483648", "2147483647"]),
    "iz": ("int(7) unsigned zerofill", ["4294967295", "42"]),
    "bi": ("bigint", ["-9223372036854775808", "9223372036854775807"]),
    "bu": ("bigint unsigned", ["18446744073709551615", "9007199254740993"]),
    "bo": ("boolean", ["TRUE"]),
    "fl": ("float", ["-3.402823466e38", "3.402823466e38", "0.1", "-0.0", "1.17549435e-38", "16777217"]),
    "fd": ("float(7,3)", ["-1234.5678", "0.0005"]),
    "do": (
        "double",
        [
            "-1.7976931348623157e308",
            "5e-324",
            "0.1",
            "-0e0",
            "1e15",
            "123456789012345",
            "1e-14",
            "1e-16",
            "1.5e300",
        ],
    ),
    "dd": ("double(20,4) unsigned zerofill", ["1234567890123456.7891", "0.1"]),
    "d1": (
        "decimal(65,30)",
        ["-" + "9" * 35 + "." + "9" * 30, "9" * 35 + "." + "9" * 30, "0." + "0" * 29 + "1", "-0.0"],
    ),
    "d2": ("decimal(10)", ["-9999999999", "0", "5"]),
    "d3": ("decimal(18,9)", ["-123456789.123456789", "0.000000001"]),
    "d4": ("decimal(5,5)", ["-0.99999", "0.00001"]),
    "d5": ("decimal(8,2) unsigned zerofill", ["0", "999999.99"]),
    "b1": ("bit(1)", ["0", "1"]),
    "b12": ("bit(12)", ["5", "4095"]),
    "b64": ("bit(64)", ["18446744073709551615", "1"]),
    "yy": ("year", ["1901", "2155", "0"]),
    "da": ("date", ["'0001-01-01'", "'9999-12-31'", "'0000-00-00'", "'2020-00-00'", "'2023-02-30'"]),
    "t0": ("time", ["'-838:59:59'", "'838:59:59'", "0"]),
    "t1": ("time(1)", ["'-00:00:00.1'", "'01:02:03.9'"]),
    "t2": ("time(2)", ["'-838:59:58.99'", "'00:00:00.01'"]),
    "t3": ("time(3)", ["'-12:00:00.001'", "'838:59:59.000'"]),
    "t4": ("time(4)", ["'-00:00:01.0001'"]),
    "t5": ("time(5)", ["'-00:00:00.00001'", "'23:59:59.99999'"]),
    "t6": ("time(6)", ["'-838:59:58.999999'", "'-00:00:00.000001'", "'838:59:58.999999'"]),
    "dt0": ("datetime", ["'1000-01-01'", "'9999-12-31 23:59:59'", "0", "'2020-00-00 01:00:00'"]),
    "dt1": ("datetime(1)", ["'1000-01-01 00:00:00.9'"]),
    "dt2": ("datetime(2)", ["'2026-11-26 12:00:00.09'"]),
    "dt3": ("datetime(3)", ["'9999-12-31 23:59:59.999'"]),
    "dt4": ("datetime(4)", ["'2026-11-26 12:00:00.0009'"]),
    "dt5": ("datetime(5)", ["'2026-11-26 12:00:00.00009'"]),
    "dt6": ("datetime(6)", ["'9999-12-31 23:59:59.999999'", "0"]),
    "ts0": ("timestamp null", ["'1970-01-01 00:00:01'", "'2038-01-19 03:14:07'", "0"]),
    "ts1": ("timestamp(1) null", ["'1970-01-01 00:00:01.1'"]),
    "ts3": ("timestamp(3) null", ["'2026-03-29 01:30:00.001'", "0"]),
    "ts6": ("timestamp(6) null", ["'2038-01-19 03:14:07.999999'"]),
    "ch": ("char(10)", ["''", "'abc   '", "'x\\ty\\\\'", "' lead'"]),
    "cl": ("char(255)", ["concat(repeat('é', 200), '  ')", "repeat('€', 255)"]),
    "cb": ("char(10) collate utf8mb4_bin", ["'x '", "'nul\\0'"]),
    "bn": ("binary(16)", ["''", "x'00112200'", "repeat('z', 16)", "x'20'"]),
    "bl": ("binary(255)", ["x'0100'"]),
    "v1": ("varchar(50)", ["'trail  '", "''", "repeat('ü', 50)"]),
    "v2": ("varchar(300)", ["repeat('z', 300)"]),
    "vb": ("varbinary(20)", ["x'0000'", "x'ff20'"]),
    "x1": ("tinytext", ["repeat('t', 255)"]),
    "x2": ("text", ["repeat('x', 65535)", "''"]),
    "x3": ("mediumtext", ["repeat('m', 70000)"]),
    "x4": ("longtext", ["'l'"]),
    "o1": ("tinyblob", ["x'00ff'"]),
    "o2": ("blob", ["x'00ff0a0d1a5c27'"]),
    "o3": ("mediumblob", ["repeat(x'00', 100000)"]),
    "o4": ("longblob", ["x''"]),
    "en": ("enum('a','b','c d','','it''s','é')", ["'c d'", "''", "'no label'", "'it''s'", "'é'"]),
    "el": ("enum('é','x') character set latin1", ["'é'"]),
    "eu": ("enum('ж','x') character set utf16", ["'ж'", "'x'"]),
    "e3": ("enum(" + ",".join(f"'{n}'" for n in range(300)) + ")", ["'299'", "'0'"]),
    "st": ("set('x','y','z')", ["'x,z'", "''", "'z,x'"]),
    "su2": ("set('é','ö','u') character set ucs2", ["'é,ö'", "'u'"]),
    "s64": (f"set({MANY})", ["'63,0,31'", f"'{MANY}'".replace("','", ",").replace("''", "'")]),
    "s17": ("set(" + ",".join(f"'{n}'" for n in range(17)) + ")", ["'0,16'"]),
    "s25": ("set(" + ",".join(f"'{n}'" for n in range(25)) + ")", ["'24'"]),
    "ge": (
        "geometry",
        ["ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('GEOMETRYCOLLECTION(POINT(1 1))')"],
    ),
    "po": ("polygon", ["ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')"]),
    "pt": ("point", ["ST_GeomFromText('POINT(-1 1e100)')"]),
    "gv": ("int as (id + 1) virtual", []),
    "gs": ("varchar(20) as (concat('x', id)) stored", []),
    "iv": ("int invisible", ["5"]),
}
JSON_VALUES = [
    "'{}'", "'[]'", "'null'", "'true'", "'\"\"'", "'0'", "'-1'", "'65536'", "'9007199254740993'",
    "'18446744073709551615'", "'-9223372036854775808'", "'1e20'", "'1.0'", "'0.1'", "'-0.0'",
    "'{\"b\": 1, \"aa\": {\"x\": [1, [2, {\"y\": null}]]}, \"\": \"\"}'",
    "'[\"a\\\\u0001\\\\n\\\\\"q\\\\\\\\\", \"é€😀\", \"/\"]'",
]  # fmt: skip
OF_FLAVOR: dict[Flavor, dict[str, tuple[str, list[str]]]] = {
    Flavor.MYSQL: {
        "js": (
            "json",
            [
                *JSON_VALUES,
                "JSON_OBJECT('d', CAST('12.50' AS DECIMAL(20,5)), 'n', CAST('-9.99' AS DECIMAL(65,30)))",
                "JSON_ARRAY(CAST('2020-01-02 03:04:05.6' AS DATETIME(6)), CAST('2020-01-02' AS DATE), "
                "CAST('-12:34:56' AS TIME), CAST('838:59:59.5' AS TIME(6)))",
                "JSON_ARRAY(CAST('abc' AS BINARY), CAST(REPEAT('x', 200) AS BINARY), b'101')",
                "JSON_ARRAY(CAST(1999 AS YEAR), ST_GeomFromText('POINT(1 1)'), CAST(1.1 AS FLOAT))",
                "JSON_ARRAY(REPEAT('k', 70000), 1, 65536, 70000.5)",
                "CONCAT('[', REPEAT('{\"key\": 12345678},', 9999), 'null]')",
                "CONCAT('{', REPEAT('\"a\":{', 60), '\"z\":1', REPEAT('}', 61))",
            ],
        ),
        "ve": ("vector(3)", ["TO_VECTOR('[1,2.5,-3]')"]),
    },
    Flavor.MARIADB: {
        "js": ("json", ["'{\"a\":  [1.10, 1e2]}'"]),
        "uu": (
            "uuid",
            [
                "'123e4567-e89b-12d3-a456-426655440000'",
                "'018f3f1e-7b7a-7cc3-98c4-dc0c0c070000'",
                "'00000000-0000-0000-0000-000000000000'",
                "'f47ac10b-58cc-4372-a567-0e02b2c3d479'",
                "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
                "'f47ac10b-58cc-6372-8567-0e02b2c3d479'",
            ],
        ),
        "i4": ("inet4", ["'0.0.0.0'", "'255.1.0.0'"]),
        "i6": (
            "inet6",
            [
                "'::'", "'::1'", "'::ffff:1.2.3.4'", "'1::'", "'2001:db8::1'", "'fe80::1:0:0:1'",
                "'1:0:3:0:5:0:7:0'", "'::1.2.3.4'", "'::5:1'", "'1:0:0:4::'", "'1:0:3:4:5:6:7:8'",
                "'0:2:3:4:5:6:7:8'", "'1:2:3:4:5:6:7:8'",
            ],
        ),
        "cv": ("varchar(1000) compressed", ["''", "'a'", "repeat('a', 500)"]),
        "ct": ("text compressed", ["''", "repeat('b', 60000)", "' '"]),
        "cb2": ("longblob compressed", ["x''", "x'00'", "repeat('c', 100000)"]),
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=["full metadata", "no metadata"])
def server(
    request: pytest.FixtureRequest, flavor: Flavor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TestServer]:
    """A server with the metadata that homeworld's own have, and one with as little as others have."""
    least = "MINIMAL" if flavor is Flavor.MYSQL else "NO_LOG"
    options = () if request.param == "full metadata" else (f"binlog-row-metadata={least}",)
    made = start_server(flavor, tmp_path_factory.mktemp("types"), *options, "max-allowed-packet=64M")
    with closing(made):
        made.create_schema(SCHEMA)
        yield made


@pytest.fixture
def connection(server: TestServer) -> Iterator[Connection]:
    with Connection(server.endpoint(), schema=SCHEMA) as made:
        yield made


def select_all(connection: Connection, name: str, table: Table) -> dict[bytes | None, Row]:
    columns = ", ".join(select_expression(column) for column in table.columns)
    return {row[0]: row for row in connection.query_rows(f"SELECT {columns} FROM {quote(name)}")}


def fill(connection: Connection, name: str, columns: dict[str, tuple[str, list[str]]]) -> None:
    """A row for each value, all else NULL; and one without anything."""
    connection.execute("SET NAMES utf8mb4")
    number = 1
    connection.execute(f"INSERT INTO {name} (id) VALUES ({number})")
    for column, (_, values) in columns.items():
        for value in values:
            number += 1
            connection.execute(f"INSERT INTO {name} (id, {column}) VALUES ({number}, {value})")
    # Rows in which nothing is NULL go another way through the decoder.
    settable = {column: values for column, (_, values) in columns.items() if values}
    for turn in range(2):
        number += 1
        chosen = ", ".join(values[turn % len(values)] for values in settable.values())
        connection.execute(f"INSERT INTO {name} (id, {', '.join(settable)}) VALUES ({number}, {chosen})")
    connection.execute("SET NAMES binary")


def check_all(server: TestServer, connection: Connection, name: str, change: Callable[[], None]) -> Table:
    """Run ``change`` and update and delete every row; compare each image with what SELECT gave."""
    tables = wanted(server, SCHEMA, name)
    table = tables[SCHEMA, name]
    start = server.position()
    change()
    inserted = select_all(connection, name, table)
    connection.execute(f"UPDATE {name} SET mark = 1")
    updated = select_all(connection, name, table)
    connection.execute(f"DELETE FROM {name}")
    with Feed(server.endpoint(), start, tables) as feed:
        changes = changes_of(batches_until(feed, server.flavor, server.position()))
    seen = dict.fromkeys(("insert", "update", "delete"), 0)
    for _, before, after in changes:
        if before is None:
            assert after is not None
            compare(table, inserted[after[0]], after)
            seen["insert"] += 1
        elif after is not None:
            compare(table, inserted[before[0]], before)
            compare(table, updated[after[0]], after)
            seen["update"] += 1
        else:
            compare(table, updated[before[0]], before)
            seen["delete"] += 1
    assert seen == dict.fromkeys(seen, len(inserted))
    return table


def compare(table: Table, selected: Row, logged: Row) -> None:
    different = [
        (column.name, column.column_type[:40], (mine or b"")[:60], (theirs or b"")[:60])
        for column, mine, theirs in zip(table.columns, selected, logged, strict=True)
        if mine != theirs
    ]
    assert not different


def test_every_type(server: TestServer, connection: Connection, flavor: Flavor) -> None:
    columns = COLUMNS | OF_FLAVOR[flavor]
    declared = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    connection.execute("SET NAMES utf8mb4")
    connection.execute(f"CREATE TABLE every (id INT PRIMARY KEY, mark INT, {declared}) CHARACTER SET utf8mb4")
    check_all(server, connection, "every", lambda: fill(connection, "every", columns))


CHARSETS = {
    "armscii8": "'\u0531'", "ascii": "'a'", "big5": "'\u7532'", "binary": "x'ff00'", "cp1250": "'\u0159'",
    "cp1251": "'\u0436'", "cp1256": "'\u0628'", "cp1257": "'\u0101'", "cp850": "'é'", "cp852": "'\u0159'",
    "cp866": "'\u0436'", "cp932": "'\u3042'", "dec8": "'é'", "eucjpms": "'\u3042'", "euckr": "'\uac00'",
    "gb18030": "'\u7532'", "gb2312": "'\u7532'", "gbk": "'\u7532'", "geostd8": "'\u10d0'",
    "greek": "'\u03b1'",
    "hebrew": "'\u05d0'", "hp8": "'é'", "keybcs2": "'\u0159'", "koi8r": "'\u0436'", "koi8u": "'\u0457'",
    "latin1": "'é\u20ac\u2019'", "latin2": "'\u0159'", "latin5": "'\u015f'", "latin7": "'\u0101'",
    "macce": "'\u0159'", "macroman": "'é'", "sjis": "'\u3042'", "swe7": "'a'", "tis620": "'\u0e01'",
    "ucs2": "'\u0436'", "ujis": "'\u3042'", "utf16": "'\U0001f600'", "utf16le": "'\u0436'",
    "utf32": "'\U0001f600'", "utf8mb3": "'\u20ac'", "utf8mb4": "'\U0001f600'",
}  # fmt: skip


def test_every_character_set(server: TestServer, connection: Connection) -> None:
    """CHAR (stripped as SELECT does), VARCHAR and TEXT in each; nothing is converted anywhere."""
    have = {(row[0] or b"").decode() for row in connection.query_all("SHOW CHARACTER SET")}
    used = {name: value for name, value in CHARSETS.items() if name in have}
    assert len(used) >= 35
    columns: dict[str, tuple[str, list[str]]] = {}
    for name, value in used.items():
        columns[f"c_{name}"] = (f"char(8) character set {name}", [f"concat({value}, '  ')", "''"])
        columns[f"v_{name}"] = (f"varchar(8) character set {name}", [f"concat({value}, '  ')"])
        columns[f"t_{name}"] = (f"text character set {name}", [value])
    declared = ", ".join(f"{name} {kind}" for name, (kind, _) in columns.items())
    connection.execute(f"CREATE TABLE charsets (id INT PRIMARY KEY, mark INT, {declared})")
    check_all(server, connection, "charsets", lambda: fill(connection, "charsets", columns))


def test_old_temporal_types_of_mariadb(server: TestServer, connection: Connection, flavor: Flavor) -> None:
    if flavor is not Flavor.MARIADB:
        pytest.skip("MySQL converts such tables when they are first opened")
    kinds = ("time", "date", "datetime", "timestamp")
    chosen = {name: found for name, found in COLUMNS.items() if found[0].startswith(kinds)}
    connection.execute("SET GLOBAL mysql56_temporal_format = OFF")
    try:
        declared = ", ".join(f"{name} {kind}" for name, (kind, _) in chosen.items())
        connection.execute(f"CREATE TABLE old (id INT PRIMARY KEY, mark INT, {declared})")
    finally:
        connection.execute("SET GLOBAL mysql56_temporal_format = ON")
    check_all(server, connection, "old", lambda: fill(connection, "old", chosen))


EVERY_CHECK = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
number = st.floats(allow_nan=False, allow_infinity=False)


def test_random_doubles_and_decimals(server: TestServer, connection: Connection) -> None:
    """Doubles print as the server prints them; the text makes the same number again."""
    connection.execute(
        "CREATE TABLE numbers (id INT PRIMARY KEY, mark INT, d DOUBLE, f FLOAT, n DECIMAL(40,20))"
    )
    connection.execute(
        "CREATE TABLE again (id INT PRIMARY KEY, mark INT, d DOUBLE, f FLOAT, n DECIMAL(40,20))"
    )
    singles = st.floats(allow_nan=False, allow_infinity=False, width=32)
    found: list[tuple[float, float, int]] = []

    @settings(max_examples=400, database=None, suppress_health_check=EVERY_CHECK)
    @given(number, singles, st.integers(-(10**38), 10**38))
    def collect(double: float, single: float, decimal: int) -> None:
        found.append((double, single, decimal))

    collect()
    rows = ",".join(f"({i},0,{d!r},{f!r},{n}e-20)" for i, (d, f, n) in enumerate(found))
    table = wanted(server, SCHEMA, "numbers")[SCHEMA, "numbers"]

    def insert() -> None:
        connection.execute(f"INSERT INTO numbers VALUES {rows}")
        for row in select_all(connection, "numbers", table).values():
            values = ",".join((value or b"").decode() for value in row)
            connection.execute(f"INSERT INTO again VALUES ({values})")
        joined = (
            "SELECT COUNT(*) FROM numbers a JOIN again b ON a.id=b.id AND a.d=b.d AND a.f=b.f AND a.n=b.n"
        )
        assert connection.query_one(joined) == (str(len(found)).encode(),)

    check_all(server, connection, "numbers", insert)


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=40)
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | number | texts,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(texts, inner, max_size=6),
    max_leaves=25,
)


def test_random_json(server: TestServer, connection: Connection, flavor: Flavor) -> None:
    """Documents of every shape: the binary form prints as the server prints it, and reads back equal."""
    if flavor is Flavor.MARIADB:
        pytest.skip("JSON is text there")
    import json

    connection.execute("CREATE TABLE documents (id INT PRIMARY KEY, mark INT, j JSON)")
    found: list[object] = []

    @settings(max_examples=300, database=None, suppress_health_check=EVERY_CHECK)
    @given(documents)
    def collect(document: object) -> None:
        found.append(document)

    collect()
    table = wanted(server, SCHEMA, "documents")[SCHEMA, "documents"]

    def insert() -> None:
        for at in range(0, len(found), 50):
            values = ",".join(
                f"({at + i},0,CONVERT(x'{json.dumps(document).encode().hex()}' USING utf8mb4))"
                for i, document in enumerate(found[at : at + 50])
            )
            connection.execute(f"INSERT INTO documents VALUES {values}")
        for key, row in select_all(connection, "documents", table).items():
            stored = (row[2] or b"").hex()
            equal = f"SELECT j = CAST(CONVERT(x'{stored}' USING utf8mb4) AS JSON) FROM documents WHERE id = "
            assert connection.query_one(equal + (key or b"").decode()) == (b"1",)

    check_all(server, connection, "documents", insert)


def test_changes_make_the_table_again(server: TestServer, connection: Connection) -> None:
    """Applied in order, the changes end in what SELECT gives."""
    connection.execute(
        "CREATE TABLE live (id INT PRIMARY KEY, v VARCHAR(20) CHARACTER SET latin1, d DATETIME(3))"
    )
    tables = wanted(server, SCHEMA, "live")
    start = server.position()
    for turn in range(30):
        connection.execute(f"INSERT INTO live VALUES ({turn}, 'v{turn}', '2026-01-01 00:00:00.{turn:03d}')")
        connection.execute(f"UPDATE live SET v = 'u{turn}' WHERE id % 3 = {turn % 3}")
        connection.execute(f"UPDATE live SET id = id + 1000 WHERE id = {turn - 5}")
        connection.execute(f"DELETE FROM live WHERE id = {turn - 7}")
    with Feed(server.endpoint(), start, tables) as feed:
        changes = changes_of(batches_until(feed, server.flavor, server.position(), max_events=7))
    expected = select_all(connection, "live", tables[SCHEMA, "live"])
    assert apply(changes)[SCHEMA, "live"] == expected
    assert len(expected) > 10
