"""A literal's value is what a real server says it is, and rows placed by literals are found again."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pymysql
import pytest

from homeworld.gateway.plan import Pass, Refuse
from homeworld.gateway.sql_tokens import Kind, hex_value, quote_string, string_value, tokenize
from homeworld.model.topology import Flavor
from tests.support.mysqld import start_server
from tests.support.router_oracle import World, make_world, run
from tests.support.routing_world import view

pytestmark = pytest.mark.servers

VSCHEMA: dict[str, Any] = {
    "sharded": True,
    "vindexes": {"x": {"type": "xxhash"}},
    "tables": {
        "words": {"column_vindexes": [{"column": "w", "name": "x"}]},
        "blobs": {"column_vindexes": [{"column": "b", "name": "x"}]},
        "numbers": {"column_vindexes": [{"column": "n", "name": "x"}]},
        "ids": {"column_vindexes": [{"column": "n", "name": "x"}]},
    },
}
# Every byte that an escape could be made of, and what surrounds it.
PIECES = [
    *(b"\\" + bytes([byte]) for byte in range(0x20, 0x7F)),
    *(b"\\%", b"\\_", b"\\%", b"\\_", b"\\\\%", b"\\\\_", b"%", b"_", b"a", b"Z", b" ", b"\n", b"\t"),
    *(b"\\\n", b"\\\t", b"\\\x01", "é".encode(), "\\é".encode(), "😀".encode()),
    *(b"--", b"/*", b"#", b";", b"?"),
]  # fmt: skip
SEEDS = 400


def _text(rnd: random.Random, most: int = 6) -> bytes:
    quote = rnd.choice([b"'", b'"'])
    other = b'"' if quote == b"'" else b"'"
    inside = [*PIECES, *[quote * 2, other, other * 2, b"\\" + quote, b"\\\\"] * 4]
    return quote + b"".join(rnd.choice(inside) for _ in range(rnd.randrange(most))) + quote


def _hex(rnd: random.Random) -> bytes:
    digits = bytes(rnd.randrange(256) for _ in range(rnd.randrange(1, 5))).hex()
    bits = "".join(rnd.choice("01") for _ in range(rnd.randrange(1, 20)))
    kinds = [f"x'{digits}'", f"X'{digits.upper()}'", f"0x{digits}", f"0x{digits[1:]}", f"b'{bits}'"]
    return rnd.choice([*kinds, f"B'{bits}'", f"0b{bits}"]).encode()


@pytest.fixture(scope="module")
def world(flavor: Flavor, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    server = start_server(flavor, tmp_path_factory.mktemp("literals"))
    exact = "utf8mb4_0900_bin" if flavor is Flavor.MYSQL else "utf8mb4_nopad_bin"
    tables = (
        f"CREATE TABLE words (w VARCHAR(120) COLLATE {exact} PRIMARY KEY)",
        "CREATE TABLE blobs (b VARBINARY(120) PRIMARY KEY)",
        "CREATE TABLE numbers (n BIGINT PRIMARY KEY)",
        "CREATE TABLE ids (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, n BIGINT) AUTO_INCREMENT = 5000",
    )
    try:
        made = make_world(server, tables, VSCHEMA)
        for connection in (made.whole, *made.shards.values()):
            run(connection, b"SET NAMES utf8mb4")
        yield made
        made.close()
    finally:
        server.close()


def test_values_of_literals(world: World) -> None:
    rnd = random.Random(23)
    found = [_text(rnd) for _ in range(SEEDS)] + [_hex(rnd) for _ in range(SEEDS // 2)]
    # Spaces on both sides of each, and a comma, so that none grows together with another.
    ((*values,),) = run(
        world.whole, b"SELECT " + b", ".join(b"HEX(CONCAT(_binary'', " + text + b" ))" for text in found)
    )
    for text, value in zip(found, values, strict=True):
        (token,) = tokenize(text)
        read = string_value(text) if token.kind is Kind.STRING else hex_value(text)
        assert read == bytes.fromhex((value or b"").decode()), text


def _insert(world: World, table: str, literal: bytes) -> bool:
    """Insert through the router and into the one; whether the router did."""
    sql = b"INSERT INTO %b VALUES (%b)" % (table.encode(), literal)
    plan = world.router.plan(sql, view())
    if isinstance(plan, Refuse):
        return False
    assert isinstance(plan, Pass), plan
    try:
        run(world.whole, sql)
    except pymysql.err.MySQLError as error:  # a duplicate; or no text in UTF-8, or no number
        with pytest.raises(type(error)):
            run(world.shards[plan.destination.shard], plan.sql)
        return error.args[0] == 1062
    run(world.shards[plan.destination.shard], plan.sql)
    return True


def _number(rnd: random.Random) -> bytes:
    form = rnd.choice(
        [b"%d", b"'%d'", b"0%d", b"'0%d'", b"%d.0", b"+%d", b"' %d'", b"-%d", b"-'%d'", b"%de0"]
    )
    return form % rnd.randrange(-99, 300)


FORMS = [b"N%b", b"_utf8mb4%b", b"_binary %b", b"%b 'more'", b"(%b)", b"_latin1%b", b"%b COLLATE utf8mb4_bin"]
TABLES = [("words", "w"), ("blobs", "b"), ("numbers", "n")]


@pytest.mark.parametrize(("table", "column"), TABLES)
def test_rows_are_found_where_their_literals_placed_them(world: World, table: str, column: str) -> None:
    rnd = random.Random(table)
    numbers = table == "numbers"
    placed = 0
    for _ in range(120):
        text = _number(rnd) if numbers else _hex(rnd) if rnd.random() < 0.2 else _text(rnd)
        placed += _insert(world, table, rnd.choice([b"%b"] * 10 + FORMS) % text)
    assert placed > 25
    stored = [row[0] or b"" for row in world.on_one(f"SELECT {column} FROM {table}")]
    assert len(stored) > 20
    for value in stored:
        literal = value if numbers else quote_string(value)
        sql = b"SELECT COUNT(*) FROM %b WHERE %b = %b" % (table.encode(), column.encode(), literal)
        plan = world.router.plan(sql, view())
        assert isinstance(plan, Pass), sql
        assert run(world.shards[plan.destination.shard], plan.sql) == [(b"1",)], sql


@pytest.mark.parametrize("mode", ["", "STRICT_TRANS_TABLES", "NO_AUTO_VALUE_ON_ZERO"])
def test_no_shard_makes_an_id(world: World, mode: str) -> None:
    rnd = random.Random(mode)
    odd = [b"0", b"'0'", b"'00'", b"-0", b"'-0'", b"0.0", b"'0 '", b"' 0'", b"FALSE", b"TRUE", b"0e0",
           b"x'00'", b"''", b"'0x5'", b"1 - 1", b"0.4", b"'0.4'", b"+0", b"NULL", b"DEFAULT", b"'a'",
           b"' 8 '", b"9.0", b"'7.0'"]  # fmt: skip
    for connection in (world.whole, *world.shards.values()):
        run(connection, f"SET sql_mode = '{mode}'".encode())
    passed = 0
    for text in [*odd, *(_number(rnd) for _ in range(60))]:
        sql = b"INSERT INTO ids (id, n) VALUES (%b, 1)" % text
        plan = world.router.plan(sql, view(zero_is_value=mode == "NO_AUTO_VALUE_ON_ZERO"))
        if isinstance(plan, Pass):
            passed += 1
            try:
                run(world.whole, sql)
            except pymysql.err.MySQLError:
                continue
            assert world.on_one("SELECT COUNT(*) FROM ids WHERE id >= 5000") == [(b"0",)], text
            run(world.whole, b"DELETE FROM ids")
    assert passed > 25
    for connection in (world.whole, *world.shards.values()):
        run(connection, b"SET sql_mode = DEFAULT")
