"""Near misses for every type of column: what two servers may hold instead of each other, as SQL.

Of each list any two are different values, most of them by the least that the type can tell apart; the first
is what rows hold. Both families, unless ``only`` says otherwise.
"""

# ruff: noqa: E501  the table is read by its lines
from __future__ import annotations

from dataclasses import dataclass

from homeworld.model.topology import Flavor

MYSQL, MARIADB = Flavor.MYSQL, Flavor.MARIADB
LAX = "SET sql_mode='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone='+00:00'"
BLOB = "REPEAT('homeworld ', 120000)"  # more than a megabyte


@dataclass(frozen=True)
class Kind:
    """A column's declaration and values that it may hold."""

    declared: str
    values: tuple[str, ...]
    only: Flavor | None = None


KINDS = (
    Kind("TINYINT", ("1", "0", "-1", "NULL", "-128", "127")),
    Kind("TINYINT UNSIGNED NOT NULL", ("0", "1", "255")),
    Kind("SMALLINT", ("-32768", "32767", "NULL", "0")),
    Kind("MEDIUMINT UNSIGNED", ("16777215", "16777214", "0")),
    Kind("INT ZEROFILL", ("7", "70", "0", "NULL")),
    Kind("BIGINT", ("9007199254740993", "9007199254740992", "9007199254740994", "-9223372036854775808")),
    Kind("BIGINT UNSIGNED", ("18446744073709551615", "18446744073709551614", "0", "NULL")),
    Kind("DECIMAL(65,30)", ("12345678901234567890123456789012345.000000000000000000000000000001", "12345678901234567890123456789012345.000000000000000000000000000002", "-12345678901234567890123456789012345.000000000000000000000000000001", "0", "NULL")),
    Kind("DECIMAL(9,3) NOT NULL", ("1.500", "1.501", "0", "-1.500")),
    Kind("FLOAT", ("-4.5400608e-30", "-4.5400612e-30", "0", "NULL", "16777216", "16777217e0*3")),
    Kind("FLOAT NOT NULL", ("0.1", "0.10000001", "0")),
    Kind("DOUBLE", ("-2.2250738585072014e-308", "-2.225073858507202e-308", "-2.2250738585072e-308", "2.2250738585072014e-308", "NULL", "0")),
    Kind("DOUBLE NOT NULL", ("-1.2345678901234567e-10", "-1.2345678901234565e-10", "1.2345678901234567e-10", "0")),
    Kind("DOUBLE NOT NULL", ("0e0", "'-0'"), MYSQL),
    Kind("FLOAT", ("0e0", "'-0'", "NULL"), MYSQL),
    Kind("DOUBLE(20,6)", ("-38874828.26042", "-38874828.260421", "38874828.26042", "NULL")),
    Kind("BIT(1)", ("b'1'", "b'0'", "NULL")),
    Kind("BIT(64)", ("~0", "~0 - 1", "0", "b'1'", "NULL")),
    Kind("DATE", ("'2024-02-29'", "'2024-02-28'", "'0000-00-00'", "'2024-00-29'", "NULL")),
    Kind("DATETIME", ("'2024-02-29 12:00:00'", "'2024-02-29 12:00:01'", "'0000-00-00'", "NULL")),
    Kind("DATETIME(6) NOT NULL DEFAULT 0", ("'2024-01-01 00:00:00.000000'", "'2024-01-01 00:00:00.000001'", "'2024-01-01 00:00:00.100000'", "0")),
    Kind("TIMESTAMP(3) NULL", ("'2024-07-01 12:00:00.120'", "'2024-07-01 12:00:00.121'", "'2024-07-01 13:00:00.120'", "0", "NULL")),
    Kind("TIME(6)", ("'-838:59:58.999999'", "'-838:59:58.999998'", "'838:59:58.999999'", "0", "NULL")),
    Kind("TIME", ("'00:00:01'", "'-00:00:01'", "'00:01:00'", "0")),
    Kind("YEAR", ("2024", "2025", "0", "1901", "NULL")),
    Kind("CHAR(9) COLLATE utf8mb4_general_ci", ("'Text'", "'text'", "'Téxt'", "''", "NULL")),
    Kind("CHAR(9) CHARACTER SET latin1 NOT NULL", ("'e'", "'é'", "'E'", "''")),
    Kind("VARCHAR(20) COLLATE utf8mb4_general_ci", ("'a'", "'a '", "'a  '", "'A'", "'á'", "''", "' '", "NULL", "'N'", "'a\\0'")),
    Kind("VARCHAR(20) COLLATE utf8mb4_0900_ai_ci", ("'ß'", "'ss'", "'SS'", "''", "NULL"), MYSQL),
    Kind("VARCHAR(20) COLLATE uca1400_ai_ci", ("'ß'", "'ss'", "'SS'", "''", "NULL"), MARIADB),
    Kind("VARCHAR(20) CHARACTER SET ucs2 NOT NULL", ("'ab'", "'aB'", "''", "_ucs2 x'61'")),
    Kind("VARCHAR(20) CHARACTER SET sjis", ("_sjis x'835C'", "_sjis x'835D'", "''", "NULL")),
    Kind("BINARY(3) NOT NULL", ("x'610000'", "x'612000'", "x'000061'", "x'410000'")),
    Kind("VARBINARY(9)", ("x'6100'", "x'61'", "x'610000'", "x''", "NULL")),
    Kind("TINYTEXT", ("'x,1:y'", "'x'", "'x,1:'", "''", "NULL")),
    Kind("TEXT NOT NULL", ("'line\\n'", "'line\\r\\n'", "'line'", "''")),
    Kind("MEDIUMTEXT CHARACTER SET utf16", ("'long𝄞'", "'longé'", "''", "NULL")),
    Kind("LONGTEXT", (BLOB, f"CONCAT({BLOB}, ' ')", f"REPLACE({BLOB}, 'x', 'y')", "''", "NULL")[:2]),
    Kind("TINYBLOB", ("x'00'", "x''", "x'0000'", "NULL")),
    Kind("BLOB NOT NULL", ("x'FFFE'", "x'FEFF'", "x''")),
    Kind("LONGBLOB", (BLOB, f"INSERT({BLOB}, 1100000, 1, 'X')", "x''", "NULL")),
    Kind("ENUM('a','b','','A ')", ("'a'", "'b'", "3", "NULL")),
    Kind("ENUM('x','y') NOT NULL", ("'x'", "'y'", "'none'")),
    Kind("SET('m','n','o')", ("'m,o'", "'m'", "'m,n,o'", "''", "NULL")),
    Kind("JSON", ("'{\"a\": [1, 2]}'", "'{\"a\": [2, 1]}'", "'{\"a\": [1, \"2\"]}'", "'{\"a\": [1, 2, null]}'", "'{}'", "'null'", "NULL")),
    Kind("JSON", ("JSON_ARRAY(-2.2250738585072014e-308)", "JSON_ARRAY(-2.225073858507202e-308)", "'[1]'", "'[1.0]'", "'[true]'", "'[18446744073709551615]'"), MYSQL),
    Kind("GEOMETRY", ("ST_GeomFromText('POINT(1 2)')", "ST_GeomFromText('POINT(1 2.0000000000000004)')", "ST_GeomFromText('POINT(1 2)', 4326)", "ST_GeomFromText('LINESTRING(1 2,3 4)')", "NULL")),
    Kind("POINT NOT NULL", ("ST_GeomFromText('POINT(-0.5 1e-10)')", "ST_GeomFromText('POINT(0.5 1e-10)')")),
    Kind("VECTOR(3)", ("STRING_TO_VECTOR('[1,2,3]')", "STRING_TO_VECTOR('[1,2,3.0000002]')", "NULL"), MYSQL),
    Kind("UUID", ("'00000000-0000-4000-8000-000000000001'", "'00000000-0000-4000-8000-000000000002'", "NULL"), MARIADB),
    Kind("INET6", ("'::1'", "'::ffff:0.0.0.1'", "'::2'", "NULL"), MARIADB),
    Kind("INET4", ("'1.2.3.4'", "'1.2.3.5'", "NULL"), MARIADB),
)  # fmt: skip


def kinds_of(flavor: Flavor) -> tuple[Kind, ...]:
    """Those that the family has."""
    return tuple(kind for kind in KINDS if kind.only in {None, flavor})
