"""The text of a row says all of it, on any mix of character sets, and each sum tells any two tables apart."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import Flavor
from homeworld.replication.checksum import Sum, row_text
from homeworld.replication.connection import Connection
from homeworld.replication.tables import read_tables
from tests.support.column_values import LAX, kinds_of
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

TEXTS = {
    "u": "utf8mb4",
    "m": "utf8mb3",
    "l": "latin1",
    "g": "greek",
    "s": "sjis",
    "w": "ucs2",
    "x": "utf16",
    "y": "utf32",
    "b": "binary",
}
SAMPLES = {
    "u": "🦑é",
    "m": "né",
    "l": "né",
    "g": "αβ",
    "s": "ﾃｽﾄ",
    "w": "né",
    "x": "né🦑",
    "y": "🦑",
    "b": "né",
}
SUMS = {Flavor.MYSQL: (Sum.SHA,), Flavor.MARIADB: (Sum.SHORT_SHA, Sum.CRCS)}
# What one row may hold instead, column by column: near misses of each other.
VARIANTS = (
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', '', 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 1e-300, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'b', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, NULL, b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'0', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01 00:00:00.000001', 'x', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x ', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'X', '{}'",
    "1, 'a', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{\"a\": 1}'",
    "1, 'a', 'b', 'N', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b', NULL, 'N', 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b ', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a,1:b', 'b', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'a', 'b,0:', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'ab', '', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, '', 'ab', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
    "1, 'b', 'a', '', NULL, 0.0, 'a', b'1', '2024-01-01', 'x', '{}'",
)
NEAR = """CREATE TABLE near (id BIGINT NOT NULL PRIMARY KEY, p VARCHAR(20) NOT NULL, q VARBINARY(20) NOT NULL,
  r VARCHAR(20), s VARCHAR(20) CHARACTER SET latin1, d DOUBLE, e ENUM('a','b'), f BIT(3),
  t DATETIME(6), l LONGTEXT, j JSON)"""


@pytest.fixture
def session(server: TestServer) -> Iterator[Connection]:
    server.create_schema("sums")
    with Connection(server.endpoint(), schema="sums") as connection:
        yield connection
    server.drop_schema("sums")


def table(server: TestServer, name: str) -> Table:
    return read_tables(server.place("k", "-", "sums"), [name])[name]


def test_text_goes_in_as_its_stored_bytes(server: TestServer, session: Connection) -> None:
    columns = ", ".join(
        f"{name} VARCHAR(20) CHARACTER SET {charset} {'NOT NULL' if at % 2 else 'NULL'}"
        for at, (name, charset) in enumerate(TEXTS.items())
    )
    session.execute(f"CREATE TABLE mixed (id BIGINT NOT NULL PRIMARY KEY, {columns})")
    listed = ", ".join(f"_utf8mb4 0x{SAMPLES[name].encode().hex()}" for name in TEXTS)
    server.execute(f"INSERT INTO mixed VALUES (7, {listed})", "sums")
    cells = session.query_one(f"SELECT {', '.join(f'CAST({quote(n)} AS BINARY)' for n in TEXTS)} FROM mixed")
    stored = dict(zip(TEXTS, cells, strict=True))
    assert all(stored.values())
    (told,) = session.query_one(f"SELECT {row_text(table(server, 'mixed'))} FROM mixed")
    last = next(name for at, name in enumerate(TEXTS) if at % 2)  # the first that may not be NULL ends it
    parts = [b"%d:%s" % (len(value or b""), value or b"") for name, value in stored.items() if name != last]
    assert told == b",".join([b"7", *parts, stored[last] or b""])


def test_no_two_rows_have_one_text(server: TestServer, session: Connection) -> None:
    session.execute(NEAR)
    told: list[bytes | None] = []
    for variant in VARIANTS:
        session.execute("DELETE FROM near")
        server.execute(f"INSERT INTO near VALUES ({variant})", "sums")
        told += session.query_one(f"SELECT {row_text(table(server, 'near'))} FROM near")
    assert None not in told
    assert len(set(told)) == len(VARIANTS)


def test_each_sum_tells_rows_and_pairs_of_rows_apart(
    server: TestServer, session: Connection, flavor: Flavor
) -> None:
    session.execute(NEAR)
    near = table(server, "near")
    for way in SUMS[flavor]:

        def summed(*rows: str, way: Sum = way) -> int:
            session.execute("DELETE FROM near")
            for number, row in enumerate(rows):
                server.execute(f"INSERT INTO near VALUES ({number}{row.removeprefix('1')})", "sums")
            return way.number(session.query_one(f"SELECT {way.expression(near)} FROM near")[0])

        assert summed() == 0
        assert len({summed(variant) for variant in VARIANTS}) == len(VARIANTS)
        # Two that changed places, which a linear sum would not notice.
        for one, other in list(combinations(VARIANTS, 2))[:40]:
            assert summed(one, other) != summed(other, one), (way, one, other)


def test_every_type_tells_its_least_change(server: TestServer, session: Connection, flavor: Flavor) -> None:
    for at, kind in enumerate(kinds_of(flavor)):
        statements = [LAX, f"CREATE TABLE k{at} (id INT NOT NULL PRIMARY KEY, c {kind.declared}, z INT)"]
        for number, value in enumerate(kind.values):
            statements.append(f"INSERT INTO k{at} VALUES ({number}, {value}, 1)")
        server.execute(statements, "sums")
        near = table(server, f"k{at}")
        told = [
            session.query_one(f"SELECT {row_text(near)} FROM k{at} WHERE id={number}")[0]
            for number in range(len(kind.values))
        ]
        assert None not in told, kind
        assert len({text[text.index(b",") :] for text in told if text}) == len(kind.values), (kind, told)


def test_what_servers_answer_is_a_number(session: Connection, flavor: Flavor) -> None:
    if flavor is Flavor.MARIADB:
        assert session.query_one("SELECT CRC32C('123456789')") == (b"3808858755",)
    assert Sum.SHA.number(b"\x01\x00") == 256
    assert Sum.SHORT_SHA.number(b"256") == Sum.CRCS.number(b"256") == 256
    assert Sum.SHA.number(None) == 0
