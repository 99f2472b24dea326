"""Values and keys that tools of this field have lost or changed: all arrive as they are."""

# ruff: noqa: E501  the table of cases is read by its lines
from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from homeworld.model.movers import Placement
from homeworld.model.topology import Flavor
from tests.hard_cases.carrying import T, by, carry
from tests.hard_cases.cases import Outcome, hard_case
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

LAX = "SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"


@dataclass
class Case:
    """The first half of ``changes`` comes before rows are copied, the rest while the mover follows."""

    number: int
    title: str
    create: str
    rows: str
    changes: list[str]
    placement: Placement = T
    session: list[str] = field(default_factory=list[str])
    only: Flavor | None = None
    otherwise: str = ""


WORDS = ["abc", "ABD", "äbe", "zz", "ß", "Straße", "", " x", "é", "É2", "a", "a!", "œ", "ñ"]
TEXTS = ", ".join(f"('{word}', {at}, {at % 3})" for at, word in enumerate(WORDS))
LATIN = (
    "CREATE TABLE t (k INT PRIMARY KEY, a VARCHAR(30), b TEXT, c CHAR(9), e ENUM('é', 'x')) CHARACTER SET {}"
)
# Euro, en dash and right quote stand where ISO 8859-1 has control signs.
LATIN_ROWS = "(1, CONVERT(x'E9928096' USING latin1), 'é\u2019', 'naïve', 'é'), (2, '', '', '', 'x'), (3, NULL, NULL, NULL, NULL)"
ONLY_MYSQL = "JSON is text there and is carried as text"

CASES = [
    Case(
        1, "Keys of text whose collation ignores case and accents",
        "CREATE TABLE t (k VARCHAR(40) COLLATE {ci}, n INT, o INT NOT NULL, PRIMARY KEY (k, o))", TEXTS,
        ["UPDATE t SET n=20 WHERE k IN ('ABC', 'abd', 'ABE')", "UPDATE t SET k='ABC' WHERE k='abc'", "DELETE FROM t WHERE k='ZZ'",
         "INSERT INTO t VALUES ('Zz', 9, 8)", "UPDATE t SET k='q' WHERE k='ß'", "UPDATE t SET o=o+1 WHERE k='a'"],
        by("o"),
    ),
    Case(
        1, "The same, where blanks at the end count or do not",
        "CREATE TABLE t (k VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_swedish_ci, l CHAR(9) COLLATE utf8mb4_bin, n INT, PRIMARY KEY (k, l))",
        "('a', 'x', 1), ('B ', 'X', 2), ('ä', ' x', 3), ('Z', '', 4)",
        ["UPDATE t SET n=n+10 WHERE k='b'", "UPDATE t SET k='A ' WHERE k='a'", "DELETE FROM t WHERE k='z  '", "INSERT INTO t VALUES ('z', 'y ', 9)"],
    ),
    Case(
        2, "ENUM and SET in the primary key",
        "CREATE TABLE t (e ENUM('z','b','a') NOT NULL, s SET('x','w') NOT NULL, n INT, v INT, PRIMARY KEY (e, s, n))",
        ", ".join(f"({e}, {s}, {n}, 0)" for e in (1, 2, 3) for s in (0, 1, 2, 3) for n in (1, 2)),
        ["UPDATE t SET v=1 WHERE e='b'", "UPDATE t SET e='a', n=n+10 WHERE e='z'", "DELETE FROM t WHERE s='x,w'", "INSERT INTO t VALUES ('z', 'w', 5, 5)"],
        by("n"),
    ),
    Case(
        2, "The same in a character set of two bytes a sign",
        "CREATE TABLE t (e ENUM('z','','ж') CHARACTER SET utf16 NOT NULL, s SET('x','w','ж') CHARACTER SET ucs2 NOT NULL, v INT, PRIMARY KEY (e, s))",
        "(1, 3, 0), (2, 7, 0), (3, 0, 0), (0, 5, 0)",
        ["UPDATE t SET v=1 WHERE s=3", "UPDATE t SET s=6 WHERE e=3", "UPDATE t SET e=0 WHERE e=2", "DELETE FROM t WHERE s=5"],
        session=["SET sql_mode=''"],
    ),
    Case(
        3, "Binary keys that end in zeros",
        "CREATE TABLE t (k BINARY(16) PRIMARY KEY, b VARBINARY(9) NOT NULL, v INT, KEY b (b))",
        ", ".join(f"(x'{n:02x}{'00' * (n % 4)}', x'{n:02x}{'00' * (n % 3)}', 0)" for n in range(40)),
        ["UPDATE t SET v=1 WHERE k < x'10'", "DELETE FROM t WHERE v=0 AND b > x'20'", "UPDATE t SET k=x'ff00', b=x'0000' WHERE k=UNHEX(RPAD('11', 32, '0'))",
         "UPDATE t SET b=CONCAT(b, x'00') WHERE v=1"],
        by("k"),
    ),
    Case(
        4, "CHAR of a binary collation is not filled up",
        "CREATE TABLE t (k CHAR(12) COLLATE utf8mb4_bin PRIMARY KEY, c CHAR(20) CHARACTER SET latin1 COLLATE latin1_bin, b BINARY(6))",
        "('a', 'x', 'b'), ('b ', '', ''), ('ü', NULL, x'0020')",
        ["UPDATE t SET c='y ' WHERE k='a'", "UPDATE t SET k='aa' WHERE k='a'", "DELETE FROM t WHERE k='b'", "INSERT INTO t VALUES ('c', ' z ', ' ')"],
    ),
    Case(
        5, "latin1 with signs of Windows-1252",
        LATIN.format("latin1"), LATIN_ROWS,
        ["UPDATE t SET a=CONVERT(x'92' USING latin1), b='€\u2013\u2019' WHERE k=2", "UPDATE t SET e='é' WHERE k=3", "UPDATE t SET c='Ÿ' WHERE k=1", "INSERT INTO t VALUES (4, 'ÿþ', '“”', 'ø', 'x')"],
        session=["SET NAMES utf8mb4"],
    ),
    Case(
        6, "UCS2, UTF-16 and UTF-32",
        "CREATE TABLE t (k VARCHAR(9) CHARACTER SET ucs2 PRIMARY KEY, b TEXT CHARACTER SET utf16, c CHAR(9) CHARACTER SET utf32, d VARCHAR(9) CHARACTER SET utf16le)",
        "('é', '𝄞\t\\\\', 'x', 'ж'), ('	', '', '', ''), ('Z', NULL, NULL, NULL)",
        ["UPDATE t SET b='\n\t' WHERE k='é'", "UPDATE t SET k='ё' WHERE k='z'", "UPDATE t SET c='𝄞 ', d='\\\\' WHERE k='é'", "DELETE FROM t WHERE k='	'"],
        session=["SET NAMES utf8mb4"],
    ),
    Case(
        9, "Zero dates, zeros in dates, and such defaults",
        "CREATE TABLE t (k DATE PRIMARY KEY, d DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00', t TIMESTAMP(3) NOT NULL DEFAULT '2024-03-31 02:30:00.123', h TIME(6), y YEAR)",
        "('0000-00-00', '2024-00-10', '0000-00-00', '-838:59:59', 0), ('2024-02-31', '0000-00-00', '2024-03-31 02:30:00.5', '00:00:00.000001', 1901), ('2024-10-27', '2024-10-27 02:30:00', '2024-10-27 01:30:00', NULL, 2155)",
        ["UPDATE t SET h='101:00:00', d='2024-04-31'", "INSERT INTO t (k) VALUES ('2024-00-00')", "UPDATE t SET t='1970-01-01 00:00:01' WHERE y=0", "UPDATE t SET k='0000-01-01' WHERE y=0"],
        session=[LAX, "SET time_zone='+00:00'"],
    ),
    Case(
        11, "Unsigned integers beyond the signed ones, also as keys",
        "CREATE TABLE t (k BIGINT UNSIGNED PRIMARY KEY, a TINYINT UNSIGNED, b SMALLINT UNSIGNED, c MEDIUMINT UNSIGNED, d INT UNSIGNED, z INT(8) UNSIGNED ZEROFILL)",
        "(18446744073709551615, 255, 65535, 16777215, 4294967295, 7), (9223372036854775808, 0, 0, 0, 0, 0), (0, 1, 1, 1, 1, 1)",
        ["UPDATE t SET z=z+1, a=254", "UPDATE t SET c=16777214 WHERE k > 9223372036854775807", "UPDATE t SET k=18446744073709551614 WHERE k=18446744073709551615", "DELETE FROM t WHERE k=9223372036854775808"],
        by("k"),
    ),
    Case(
        12, "DECIMAL: zero without a fraction, and all of 65 digits",
        "CREATE TABLE t (k DECIMAL(30,5) PRIMARY KEY, a DECIMAL(12,0), b DECIMAL(65,30), c DECIMAL(65,0), d DECIMAL(5,5))",
        f"(-1.5, 0, {'9' * 35}.{'9' * 30}, -{'9' * 65}, 0.99999), (10.00001, 1, -0.{'0' * 29}1, 0, -0.00001), (2, NULL, 0, NULL, NULL)",
        ["UPDATE t SET a=0 WHERE k=2", "UPDATE t SET c=0, d=0", "UPDATE t SET k=3.25 WHERE k=2", "UPDATE t SET b=-b"],
    ),
    Case(
        13, "Integers beyond 2^53 in JSON",
        "CREATE TABLE t (k INT PRIMARY KEY, j JSON)",
        "(1, '{\"big\": 18446744073709551615, \"neg\": -9223372036854775808, \"f\": 0.1}'), (2, '[9007199254740993, 1.0]'), (3, NULL)",
        ["UPDATE t SET j='[9007199254740993]' WHERE k=3", "UPDATE t SET j=JSON_ARRAY(j, 9007199254740995)", "INSERT INTO t VALUES (4, '123456789012345678')", "DELETE FROM t WHERE k=1"],
    ),
    Case(
        14, "Decimals of many digits in JSON, and fractions below one",
        "CREATE TABLE t (k INT PRIMARY KEY, j JSON, u TIMESTAMP NULL ON UPDATE CURRENT_TIMESTAMP)",
        "(1, JSON_OBJECT('a', CAST('12345678901234567890123.10' AS DECIMAL(40,2)), 'b', JSON_ARRAY(1, CAST('0.10' AS DECIMAL(5,2))))), (2, CAST(CAST('123456789012345678901234567890' AS DECIMAL(40,0)) AS JSON)), (3, JSON_OBJECT('d', CAST('2024-01-01' AS DATE), 't', 1.5e0))",
        ["UPDATE t SET j=JSON_SET(j, '$.z', CAST('0.30' AS DECIMAL(9,2))) WHERE k=1", "UPDATE t SET j='0.1' WHERE k=3", "UPDATE t SET j=JSON_ARRAY(CAST('9.90' AS DECIMAL(9,2))) WHERE k=2", "INSERT INTO t (k, j) VALUES (4, '{\"x\": 0.5}')"],
        only=Flavor.MYSQL, otherwise=ONLY_MYSQL,
    ),
    Case(
        14, "Dates, bytes and unsigned numbers in JSON",
        "CREATE TABLE t (k INT PRIMARY KEY, j JSON, d DATETIME(3), b BINARY(2), u INT UNSIGNED)",
        "(1, JSON_OBJECT('t', CAST('2024-01-01 10:00:00.5' AS DATETIME(3)), 'b', x'00ff', 'u', CAST(5 AS UNSIGNED))), (2, JSON_ARRAY(CAST('-10:11:12' AS TIME), '2024-01-01', 1.5))",
        ["UPDATE t SET d='2024-01-01', b=x'00ff', u=7", "UPDATE t SET j=JSON_ARRAY(j, d, b, u)", "UPDATE t SET j=JSON_SET(j, '$[1]', CAST(d AS DATE)) WHERE k=1", "INSERT INTO t (k, j) VALUES (3, CAST(CAST(7 AS UNSIGNED) AS JSON))"],
        only=Flavor.MYSQL, otherwise=ONLY_MYSQL,
    ),
    Case(
        16, "Generated columns, in names of mixed case",
        "CREATE TABLE t (`Id` INT PRIMARY KEY, `Price` INT, `Twice` INT GENERATED ALWAYS AS (`Price` * 2) VIRTUAL, `Kept` VARCHAR(30) GENERATED ALWAYS AS (CONCAT('p', `Price`)) STORED, w INT, KEY kept (`Kept`))",
        "",
        ["INSERT INTO t (id, price, w) VALUES (100, 5, 1), (101, NULL, 2)", "UPDATE t SET price=price+1", "INSERT INTO t (id, price, w) VALUES (102, 7, 1)", "DELETE FROM t WHERE w=2"],
        session=[],
    ),
    Case(
        17, "Invisible columns",
        "CREATE TABLE t (k INT PRIMARY KEY, a INT {invisible}, b INT)", "",
        ["INSERT INTO t (k, a, b) VALUES (1, 5, 6), (2, NULL, 7)", "UPDATE t SET a=8 WHERE k=1", "INSERT INTO t VALUES (9, 9)", "UPDATE t SET a=a+1"],
    ),
    Case(
        17, "A primary key that the server made by itself, and hides",
        "CREATE TABLE t (a INT, b VARCHAR(9))", "(1, 'x'), (2, 'x'), (3, NULL)",
        ["UPDATE t SET b='y' WHERE a=2", "INSERT INTO t VALUES (4, 'z')", "DELETE FROM t WHERE a=1", "INSERT INTO t VALUES (5, 'z')"],
        session=["SET sql_generate_invisible_primary_key=ON"], only=Flavor.MYSQL, otherwise="it makes none; a table without a key is refused",
    ),
    Case(
        18, "Floating point numbers that six digits do not tell apart",
        "CREATE TABLE t (k INT PRIMARY KEY, f FLOAT, d DOUBLE, m DOUBLE(10,3), g FLOAT(7,2))",
        "(1, 1.2345678, 0.1e0+0.2e0, 1.5, 12345.67), (2, 16777217, 5e-324, 2.125, 0.1), (3, 3.4028e38, 1.7976931348623157e308, 0, 0), (4, NULL, 1e0/3, 1, 1)",
        ["UPDATE t SET f=f*3e0 WHERE k<3", "UPDATE t SET d=-0e0 WHERE k=4", "UPDATE t SET d=d/7e0", "UPDATE t SET m=m+0.001, g=g+0.01"],
    ),
    Case(
        43, "Keys that change, composite ones, and rows that swap theirs",
        "CREATE TABLE t (a INT, b INT, u INT, v VARCHAR(9), PRIMARY KEY (a, b), UNIQUE KEY u (u))",
        ", ".join(f"({n}, {n * 2}, {n}, 'v')" for n in range(30)),
        ["UPDATE t SET a=a+1000, b=b+1 WHERE a < 5", "UPDATE t SET a=-1 WHERE a=10", "UPDATE t SET a=10 WHERE a=11", "UPDATE t SET a=11 WHERE a=-1",
         "UPDATE t SET u=NULL WHERE a=20", "UPDATE t SET u=20 WHERE a=21", "UPDATE t SET u=21 WHERE a=20", "DELETE FROM t WHERE a=22",
         "INSERT INTO t VALUES (22, 44, 22, 'w')", "REPLACE INTO t VALUES (7, 7, 23, 'x')"],
    ),
    Case(
        43, "Keys that change and take their rows to other shards",
        "CREATE TABLE t (a INT, b INT, v VARCHAR(9), PRIMARY KEY (a, b))",
        ", ".join(f"({n}, {n * 2}, 'v')" for n in range(30)),
        ["UPDATE t SET a=a+1000 WHERE a < 9", "UPDATE t SET a=-1 WHERE a=10", "UPDATE t SET a=10 WHERE a=11", "UPDATE t SET a=11 WHERE a=-1", "DELETE FROM t WHERE a=22", "INSERT INTO t VALUES (22, 44, 'w'), (23, 9, 'w')"],
        by("a"),
    ),
    Case(
        51, "Traps of log readers: odd encodings, invalid text, moments beside labels",
        "CREATE TABLE t (k INT PRIMARY KEY, a VARCHAR(9) CHARACTER SET ucs2, b VARCHAR(9) CHARACTER SET utf8mb3, c VARBINARY(9), d DATETIME(6), e ENUM('a','b'), f VARCHAR(9) CHARACTER SET ascii, g BIT(33), j JSON, x LONGTEXT)",
        "(1, 'ж', 'é', x'c328ff', '2024-01-01 10:00:00.000001', 'b', CONVERT(x'ff' USING latin1), 5, '{\"i\": 2147483648, \"s\": -32769, \"n\": null}', 'x'), (2, '', '', '', '1000-01-01', 'a', '', 0, '[]', ''), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        ["UPDATE t SET c=x'80', d='9999-12-31 23:59:59.999999' WHERE k=2", "UPDATE t SET j='{\"i\": -2147483649}', e='a' WHERE k=1", "UPDATE t SET a='é', b='ж' WHERE k=3", "UPDATE t SET x=REPEAT('é', 70000), g=~0 >> 31 WHERE k=2"],
        session=["SET NAMES utf8mb4", "SET sql_mode=''"],
    ),
]  # fmt: skip


def marked(case: Case) -> object:
    return pytest.param(case, marks=hard_case(case.number, case.title), id=f"{case.number}-{case.title[:30]}")


@pytest.mark.parametrize("case", [marked(case) for case in CASES])
def test_arrives_as_it_is(pair: list[TestServer], outcome: Outcome, case: Case) -> None:
    mysql = pair[0].flavor is Flavor.MYSQL
    if case.only not in {None, pair[0].flavor}:
        outcome.does_not_apply(case.otherwise)
        return
    create = case.create.replace("{ci}", "utf8mb4_0900_ai_ci" if mysql else "utf8mb4_unicode_ci")
    create = create.replace("{invisible}", "DEFAULT 3 INVISIBLE" if mysql else "INVISIBLE DEFAULT 3")
    rows = [f"INSERT INTO t {_columns(case)}VALUES {case.rows}"] if case.rows else []
    carry(pair, case.placement, [create, *rows], case.changes, case.session)
    outcome.equal()


def _columns(case: Case) -> str:
    return "(k, j) " if case.number == 14 else ""
