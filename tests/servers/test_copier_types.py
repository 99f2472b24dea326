"""Every kind of column and key arrives byte for byte: by the copy, and by the binlog while and after it.

Each case is a table, rows, and statements that change them while the mover follows; most were a loss in some
tool of this field.
"""

# ruff: noqa: E501  the table of cases is read by its lines
from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from homeworld.model.movers import Placement
from homeworld.model.topology import Flavor
from homeworld.replication.mover import RunningMover
from tests.support.moves import Move, make_move, wait_copied, wait_for
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

LAX = "SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"


@dataclass
class Case:
    """``changes`` come once before the mover starts reading and, on other rows, once while it follows."""

    name: str
    create: str
    rows: list[str]
    changes: list[str]
    vindex: tuple[str, ...] = ()
    only: Flavor | None = None
    session: list[str] = field(default_factory=list[str])


TEXT_KEYS = "'abc', 'ABD', 'äbe', 'zz', 'ß', 'Straße', '', ' x', 'é', 'É2', 'tab\t', 'a', 'a!'"


def listed(values: str, template: str) -> list[str]:
    return [template.format(value) for value in values.split(", ")]


CASES = [
    Case(
        "case_insensitive_text_key",
        "CREATE TABLE t (k VARCHAR(40) COLLATE {ci} PRIMARY KEY, v INT, o INT NOT NULL)",
        listed(TEXT_KEYS, "({}, 1, 7)"),
        [
            "UPDATE t SET v=2 WHERE k IN ('ABC', 'abd', 'ABE')", "UPDATE t SET k='ABC' WHERE k='abc'",
            "DELETE FROM t WHERE k='ZZ'", "INSERT INTO t VALUES ('Zz', 9, 8)", "UPDATE t SET k='q' WHERE k='ß'",
            "UPDATE t SET o=o+1 WHERE k='a'",
        ],
        ("o",),
    ),
    Case(
        "char_key_filled_with_signs_without_weight",
        "CREATE TABLE t (i INT, a CHAR(2) CHARACTER SET utf8mb3 COLLATE utf8mb3_unicode_ci, n INT, v VARCHAR(200), o INT NOT NULL, "
        "PRIMARY KEY (i, a, n))",
        [
            f"(1, CONVERT(x'{text.encode().hex()}' USING utf8mb4), {number}, '{'v' * 150}', {number})"
            for number, text in enumerate(
                ["", "\u200b\ufeff", "\ufeff\u200b", "\t", "あ", "あ\u200b", "\u200bあ", "あ\ufeff", "-", "a", "a\u200b", "é"] * 3
            )
        ],
        ["UPDATE t SET v='w' WHERE n % 3 = 0", "DELETE FROM t WHERE n % 7 = 1", "UPDATE t SET n=n+100 WHERE n % 5 = 2"],
        ("o",),
    ),
    Case(
        "text_key_of_other_charsets",
        "CREATE TABLE t (a VARCHAR(20) CHARACTER SET latin1 COLLATE latin1_german2_ci, b CHAR(10) CHARACTER SET "
        "utf8mb4 COLLATE utf8mb4_bin, c VARCHAR(8) CHARACTER SET ucs2, v INT, PRIMARY KEY (a, b, c))",
        listed(TEXT_KEYS, "({0}, {0}, {0}, 1)"),
        ["UPDATE t SET v=v+1", "UPDATE t SET b='new' WHERE a='a'", "DELETE FROM t WHERE a='zz'"],
    ),
    Case(
        "enum_and_set_in_key",
        "CREATE TABLE t (e ENUM('z','b','a') NOT NULL, s SET('x','w') NOT NULL, n INT, v INT, PRIMARY KEY (e, s, n))",
        [f"({e}, {s}, {n}, 0)" for e in (1, 2, 3) for s in (0, 1, 2, 3) for n in (1, 2)],
        ["UPDATE t SET v=1 WHERE e='b'", "UPDATE t SET e='a', n=n+10 WHERE e='z'", "DELETE FROM t WHERE s='x,w'"],
        ("n",),
    ),
    Case(
        "binary_key_with_zeros",
        "CREATE TABLE t (k BINARY(16) PRIMARY KEY, b VARBINARY(9) NOT NULL, v INT, UNIQUE KEY b (b))",
        [f"(x'{n:02x}{'00' * (n % 4)}', x'{n:02x}{'00' * (n % 3)}', 0)" for n in range(40)],
        [
            "UPDATE t SET v=1 WHERE k < x'10'", "DELETE FROM t WHERE v=0 AND b > x'20'",
            "UPDATE t SET k=x'ff00', b=x'0000' WHERE k=UNHEX(RPAD('11', 32, '0'))",
        ],
        ("k",),
    ),
    Case(
        "unsigned_maxima",
        "CREATE TABLE t (k BIGINT UNSIGNED PRIMARY KEY, a TINYINT UNSIGNED, b SMALLINT UNSIGNED, c MEDIUMINT UNSIGNED, "
        "d INT UNSIGNED, z INT(8) UNSIGNED ZEROFILL)",
        ["(18446744073709551615, 255, 65535, 16777215, 4294967295, 7)", "(9223372036854775808, 0, 0, 0, 0, 0)", "(0,1,1,1,1,1)"],
        ["UPDATE t SET z=z+1, a=254", "UPDATE t SET k=18446744073709551614 WHERE k=18446744073709551615"],
        ("k",),
    ),
    Case(
        "decimals",
        "CREATE TABLE t (k DECIMAL(30,5) PRIMARY KEY, a DECIMAL(12,0), b DECIMAL(65,30))",
        ["(-1.5, 0, 12345678901234567890123456789012345.123456789012345678901234567890)", "(10.00001, 1, -0.000000000000000000000000000001)", "(2, NULL, 0)"],
        ["UPDATE t SET a=0 WHERE k=2", "UPDATE t SET k=3.25 WHERE k=2", "UPDATE t SET b=-b"],
    ),
    Case(
        "floats",
        "CREATE TABLE t (k INT PRIMARY KEY, f FLOAT, d DOUBLE, m DOUBLE(10,3), g FLOAT(7,2))",
        ["(1, 1.2345678, 0.1e0+0.2e0, 1.5, 12345.67)", "(2, 16777217, 5e-324, 2.125, 0.1)", "(3, 3.4028e38, 1.7976931348623157e308, 0, 0)", "(4, NULL, 1e0/3, 1, 1)"],
        ["UPDATE t SET f=f*3e0 WHERE k<3", "UPDATE t SET d=d/7e0", "UPDATE t SET m=m+0.001, g=g+0.01"],
    ),
    Case(
        "zero_and_invalid_dates",
        "CREATE TABLE t (k DATE PRIMARY KEY, d DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00', t TIMESTAMP(3) NOT NULL "
        "DEFAULT '2024-03-31 02:30:00.123', h TIME(6), y YEAR)",
        ["('0000-00-00', '2024-00-10', '0000-00-00', '-838:59:59', 0)", "('2024-02-31', '0000-00-00', '2024-03-31 02:30:00.5', '00:00:00.000001', 1901)", "('2024-10-27', '2024-10-27 02:30:00', '2024-10-27 01:30:00', NULL, 2155)"],
        ["UPDATE t SET h='101:00:00', d='2024-04-31'", "UPDATE t SET t='1970-01-01 00:00:01' WHERE y=0", "UPDATE t SET k='0000-01-01' WHERE y=0"],
        session=[LAX, "SET time_zone='+00:00'"],
    ),
    Case(
        "timestamps_of_a_session_far_from_utc",
        "CREATE TABLE t (k INT PRIMARY KEY, t TIMESTAMP NULL, d DATETIME, u TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP "
        "ON UPDATE CURRENT_TIMESTAMP)",
        ["(1, '2024-07-01 12:00:00', '2024-07-01 12:00:00', '2024-07-01 12:00:00')", "(2, NULL, NULL, NOW())"],
        ["UPDATE t SET t='2024-01-01 00:00:00', d='2024-01-01 00:00:00' WHERE k=1", "UPDATE t SET d=NULL"],
        session=["SET time_zone='-07:30'"],
    ),
    Case(
        "charsets",
        "CREATE TABLE t (k INT PRIMARY KEY, a VARCHAR(30) CHARACTER SET latin1, b TEXT CHARACTER SET ucs2, c CHAR(9) "
        "CHARACTER SET utf8mb4, d VARCHAR(9) CHARACTER SET gbk, e MEDIUMTEXT CHARACTER SET utf16, f VARCHAR(9) CHARACTER SET sjis)",
        ["(1, _latin1 x'E99280', _ucs2 x'005C0009000A00E9', '𝄞é ', _gbk x'815C', '\\\\\t\n𝄞', _sjis x'835C')", "(2, '', '', '', '', '', '')", "(3, NULL, NULL, NULL, NULL, NULL, NULL)"],
        ["UPDATE t SET a=_latin1 x'92', b=_ucs2 x'00090009', e='x\\ty' WHERE k=1", "UPDATE t SET c='  a  ' WHERE k=2"],
        session=["SET NAMES utf8mb4"],
    ),
    Case(
        "trailing_spaces_nul_and_tabs",
        "CREATE TABLE t (k INT PRIMARY KEY, a VARCHAR(20), b CHAR(10) COLLATE utf8mb4_bin, c LONGBLOB, d BINARY(3))",
        ["(1, 'x  ', 'y', x'00015C0A0900', x'6100')", "(2, '\\N', '\\\\N', x'', x'000000')", "(3, '\t\n', '', x'5C4E', x'202020')"],
        ["UPDATE t SET a=CONCAT(a, ' '), c=CONCAT(c, x'00')", "UPDATE t SET b=' z' WHERE k=2"],
    ),
    Case(
        "bits_enums_sets",
        "CREATE TABLE t (k BIT(9) PRIMARY KEY, b BIT(64), e ENUM('a','','3'), x ENUM('p','q'), s SET('m','n','o'))",
        ["(b'1', ~0, 'a', 'p', 'm,o')", "(b'111111111', 0, '3', 'zz', '')", "(b'0', NULL, '', NULL, NULL)", "(b'11', 1, 'zz', 'q', 'm')"],
        ["UPDATE t SET x='none' WHERE k=1", "UPDATE t SET e='none' WHERE k=0", "UPDATE t SET e='' WHERE k=3", "UPDATE t SET b=b'1010', s='n' WHERE k=0", "UPDATE t SET k=b'10' WHERE k=b'1'"],
        session=[LAX],
    ),
    Case(
        "generated_columns",
        "CREATE TABLE t (`Id` INT PRIMARY KEY, `Price` INT, `Twice` INT GENERATED ALWAYS AS (`Price` * 2) VIRTUAL, "
        "`Kept` VARCHAR(30) GENERATED ALWAYS AS (CONCAT('p', `Price`)) STORED, w INT, KEY kept (`Kept`))",
        [],
        ["INSERT INTO t (id, price, w) VALUES (100, 5, 1)", "UPDATE t SET price=price+1", "DELETE FROM t WHERE w=2"],
        session=["INSERT INTO t (id, price, w) VALUES (1, 10, 1), (2, 20, 2), (3, NULL, 3)"],
    ),
    Case(
        "generated_column_in_key",
        "CREATE TABLE t (a INT NOT NULL, b INT GENERATED ALWAYS AS (a % 5) STORED NOT NULL, v INT, PRIMARY KEY (b, a))",
        [],
        ["UPDATE t SET v=2 WHERE a < 20", "UPDATE t SET a=a+100 WHERE a < 10", "DELETE FROM t WHERE b=3"],
        ("b",),
        only=Flavor.MYSQL,
        session=["INSERT INTO t (a, v) VALUES " + ", ".join(f"({n}, 1)" for n in range(40))],
    ),
    Case(
        "invisible_columns",
        "CREATE TABLE t (k INT PRIMARY KEY, a INT {invisible}, b INT)",
        [],
        ["UPDATE t SET a=a+1", "INSERT INTO t (k, a, b) VALUES (9, 9, 9)"],
        session=["INSERT INTO t (k, a, b) VALUES (1, 5, 6), (2, NULL, 7)"],
    ),
    Case(
        "generated_invisible_primary_key",
        "CREATE TABLE t (a INT, b VARCHAR(9))",
        [],
        ["UPDATE t SET b='y' WHERE a=2", "INSERT INTO t VALUES (4, 'z')", "DELETE FROM t WHERE a=1"],
        only=Flavor.MYSQL,
        session=["INSERT INTO t VALUES (1, 'x'), (2, 'x'), (3, NULL)"],
    ),
    Case(
        "unique_key_instead_of_a_primary_key",
        "CREATE TABLE t (a INT NOT NULL, b VARCHAR(9) NOT NULL, c INT, UNIQUE KEY ba (b, a), KEY c (c))",
        [f"({n}, 'b{n % 5}', 1)" for n in range(30)],
        ["UPDATE t SET c=2 WHERE a < 9", "UPDATE t SET b='B9' WHERE a=10", "DELETE FROM t WHERE b='B3'"],
        ("a",),
    ),
    Case(
        "json",
        "CREATE TABLE t (k INT PRIMARY KEY, j JSON, u TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP)",
        ['(1, \'{"big": 18446744073709551615, "neg": -9223372036854775808, "f": 0.1, "e": 1e300, "s": "\\\\u00e9\\\\\\\\"}\', NULL)', "(2, '[]', NULL)", "(3, NULL, NULL)", "(4, '[9007199254740993, 1.0, true, null]', NULL)"],
        ["UPDATE t SET j='{\"a\": [1, 2, {\"b\": 9007199254740993}]}' WHERE k=2", "UPDATE t SET j=JSON_ARRAY(0.1, j) WHERE k=1"],
    ),
    Case(
        "json_with_decimals",
        "CREATE TABLE t (k INT PRIMARY KEY, j JSON, u TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP)",
        ["(1, JSON_OBJECT('a', CAST('12345678901234567890123.10' AS DECIMAL(40,2)), 'b \"', JSON_ARRAY(1, CAST('1.10' AS DECIMAL(5,2)))), NULL)", "(2, CAST(CAST('123456789012345678901234567890' AS DECIMAL(40,0)) AS JSON), NULL)", "(3, JSON_OBJECT('d', CAST('2024-01-01' AS DATE), 't', 1.5e0), '2024-01-01')"],
        ["UPDATE t SET j=JSON_SET(j, '$.z', CAST('0.30' AS DECIMAL(9,2))) WHERE k=1", "UPDATE t SET j=JSON_ARRAY(CAST('9.90' AS DECIMAL(9,2))) WHERE k=2"],
        only=Flavor.MYSQL,
    ),
    Case(
        "spatial",
        "CREATE TABLE t (k INT PRIMARY KEY, g GEOMETRY, p POINT NOT NULL, SPATIAL KEY p (p))",
        ["(1, ST_GeomFromText('LINESTRING(1 2,3 4)'), ST_GeomFromText('POINT(1 2)'))", "(2, NULL, ST_GeomFromText('POINT(-0.5 1e-10)'))"],
        ["UPDATE t SET g=ST_GeomFromText('POLYGON((0 0,0 1,1 1,0 0))') WHERE k=2", "UPDATE t SET p=ST_GeomFromText('POINT(9 9)')"],
    ),
    Case(
        "uuid_and_inet_keys",
        "CREATE TABLE t (u UUID, i INET6, n INT, v INT, PRIMARY KEY (u, i))",
        [f"('{n:08x}-0000-{v}000-8000-00000000{n:04x}', '::{n}', {n}, 0)" for n in range(20) for v in (1, 4, 7)],
        ["UPDATE t SET v=1 WHERE n < 9", "UPDATE t SET i='::1.2.3.4' WHERE n=11", "DELETE FROM t WHERE n=3"],
        only=Flavor.MARIADB,
    ),
    Case(
        "functional_index_that_could_not_keep_its_value",
        "CREATE TABLE t (d DECIMAL(30,0) NOT NULL, n INT, PRIMARY KEY (d), KEY f ((HEX(d))))",
        [],
        [
            "INSERT INTO t VALUES (-999999999999999999999999999999, 9)",
            "UPDATE t SET n=n+1",
            "DELETE FROM t WHERE d=999999999999999999999999999998",
        ],
        ("d",),
        session=[
            "SET sql_mode=''",
            "INSERT INTO t VALUES (999999999999999999999999999999, 1), (1, 2),"
            " (999999999999999999999999999998, 3), (-99999999999999999999, 4)",
        ],
        only=Flavor.MYSQL,
    ),
    Case(
        "keys_that_change_and_swap",
        "CREATE TABLE t (a INT, b INT, u INT, v VARCHAR(9), PRIMARY KEY (a, b), UNIQUE KEY u (u))",
        [f"({n}, {n * 2}, {n}, 'v')" for n in range(30)],
        [
            "UPDATE t SET a=a+1000, b=b+1 WHERE a < 5", "UPDATE t SET a=-1 WHERE a=10", "UPDATE t SET a=10 WHERE a=11",
            "UPDATE t SET a=11 WHERE a=-1", "UPDATE t SET u=NULL WHERE a=20", "UPDATE t SET u=20 WHERE a=21",
            "UPDATE t SET u=21 WHERE a=20", "DELETE FROM t WHERE a=22", "INSERT INTO t VALUES (22, 44, 22, 'w')",
        ],
        ("a",),
    ),
]  # fmt: skip


def prepared(case: Case, servers: list[TestServer]) -> Move:
    flavor = servers[0].flavor
    move = make_move(servers, "-", "-80 80-" if case.vindex else "-")
    mysql = flavor is Flavor.MYSQL
    create = case.create.replace("{ci}", "utf8mb4_0900_ai_ci" if mysql else "utf8mb4_unicode_ci")
    create = create.replace("{invisible}", "DEFAULT 3 INVISIBLE" if mysql else "INVISIBLE DEFAULT 3")
    own = [part for part in case.session if part.startswith("SET")]
    fill = [part for part in case.session if not part.startswith("SET")]
    gipk = (
        ["SET sql_generate_invisible_primary_key=ON"] if case.name.startswith("generated_invisible") else []
    )
    rows = [f"INSERT INTO t VALUES {', '.join(case.rows)}"] if case.rows else []
    move.create(*own, *gipk, create, *fill, *rows)
    move.prepare(Placement("t", "xxhash" if case.vindex else "", case.vindex))
    return move


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_arrives_as_it_was(trio: list[TestServer], case: Case) -> None:
    if case.only not in {None, trio[0].flavor}:
        pytest.skip(f"a matter of {case.only} only")
    move = prepared(case, trio)
    own = [part for part in case.session if part.startswith("SET")]
    mover = RunningMover(move.spec(), chunk_bytes=300)
    mover.start()
    try:
        wait_copied(mover)
        move.create(*own, *case.changes)
        mover.drain(move.positions(), 30)
        move.assert_equal()
        mover.verify("v")
        told = wait_for(
            mover, lambda p: p.verification is not None and p.verification.state in {"completed", "error"}
        )
        assert told.verification is not None
        assert told.verification.equal, told.verification
    finally:
        mover.stop(60)


def test_rows_of_many_megabytes(trio: list[TestServer]) -> None:
    move = make_move(trio)
    move.create(
        "CREATE TABLE t (k INT PRIMARY KEY, v LONGBLOB, w LONGTEXT)",
        *(f"INSERT INTO t VALUES ({n}, REPEAT(CHAR({n}), 1000), 'w')" for n in range(8)),
        "UPDATE t SET v=REPEAT(x'00095C0A', 2000000) WHERE k IN (1, 2, 5)",
        "UPDATE t SET w=REPEAT('é', 2500000) WHERE k IN (2, 7)",
    )
    move.prepare(Placement("t", "xxhash", ("k",)))
    mover = RunningMover(move.spec())
    mover.start()
    try:
        wait_copied(mover)
        move.create("UPDATE t SET v=REPEAT('z', 6000000) WHERE k=3", "UPDATE t SET w=v WHERE k=4")
        mover.drain(move.positions(), 60)
        move.assert_equal()
        mover.verify("v")
        told = wait_for(mover, lambda p: p.verification is not None and p.verification.state == "completed")
        assert told.verification is not None
        assert told.verification.equal
    finally:
        mover.stop(60)
