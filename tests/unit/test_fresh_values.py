"""Which schema statements give rows values that another run would not give."""

from __future__ import annotations

import pytest

from homeworld.model.tables import Column, Index, Table
from homeworld.replication.fresh_values import fresh_values


def column(name: str, type_: str = "int", *, nullable: bool = True, given: bool = False) -> Column:
    return Column(name, type_, type_, False, nullable, "", "", False, given, False)


PRIMARY = Index("PRIMARY", True, ("id",), False)
COLUMNS = (
    column("id", nullable=False, given=True), column("n", nullable=False), column("ts", "timestamp"),
    column("at", "timestamp", nullable=False),
)  # fmt: skip
BEFORE = Table("t", COLUMNS, (PRIMARY,), PRIMARY, "InnoDB", "CREATE TABLE `t` (…)", 0, 0)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("alter table t add column ts timestamp(6) default current_timestamp(6)", "CURRENT_TIMESTAMP"),
        ("ALTER TABLE `s`.`t` ADD COLUMN IF NOT EXISTS a DATETIME DEFAULT NOW() ON UPDATE NOW()", "NOW()"),
        ("ALTER TABLE t ADD a INT DEFAULT 1, ADD (b INT, c VARCHAR(36) DEFAULT (UUID()))", "UUID()"),
        ("ALTER TABLE t ADD a DOUBLE DEFAULT (1 + RAND())", "RAND()"),
        ("ALTER TABLE t ADD a VARCHAR(9) DEFAULT (concat('a', hex(random_bytes(4))))", "RANDOM_BYTES()"),
        ("SET STATEMENT max_statement_time=9 FOR ALTER TABLE t ADD a INT DEFAULT (NEXT VALUE FOR s)", "NEXT"),
        ("ALTER TABLE t ADD a INT DEFAULT (`f`(1))", "F()"),
        ("ALTER TABLE t ADD a TIMESTAMP DEFAULT /* now */ LOCALTIMESTAMP AFTER n", "LOCALTIMESTAMP"),
        ("ALTER TABLE t ADD a INT NOT NULL AUTO_INCREMENT UNIQUE", "numbers rows"),
        ("ALTER TABLE t ADD COLUMN a SERIAL", "numbers rows"),
        ("ALTER TABLE t ADD a BIGINT SERIAL DEFAULT VALUE", "numbers rows"),
        ("ALTER TABLE t MODIFY n INT NOT NULL AUTO_INCREMENT", "numbers rows"),
        ("ALTER TABLE t MODIFY COLUMN ts TIMESTAMP NOT NULL DEFAULT '2020-01-01'", "in column 'ts'"),
        ("ALTER TABLE t CHANGE ts since TIMESTAMP(3) NOT NULL", "what is NULL in column 'ts'"),
        ("ALTER TABLE t MODIFY ts DATETIME", "other moments of column 'ts'"),
        ("ALTER TABLE t CHANGE COLUMN at `since` VARCHAR(30)", "other moments of column 'at'"),
        ("ALTER TABLE t MODIFY n TIMESTAMP NULL", "other moments of column 'n'"),
    ],
)  # fmt: skip
def test_values_of_a_run_are_told(sql: str, told: str) -> None:
    assert told in fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=True)


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE t ADD a VARCHAR(40) CHARACTER SET utf8mb4 DEFAULT 'now()' COMMENT 'uuid()'",
        "ALTER TABLE t ADD a DECIMAL(10,2) DEFAULT -1.5, ADD INDEX (a), ADD b ENUM('a', 'b') DEFAULT 'a'",
        "ALTER TABLE t ADD a DATETIME DEFAULT NULL ON UPDATE CURRENT_TIMESTAMP",
        "ALTER TABLE t ADD a JSON DEFAULT (JSON_ARRAY(1, (2 + 3))), ADD c POINT DEFAULT (POINT(0, 0))",
        "ALTER TABLE t ADD a INT DEFAULT 7 CHECK (a < pow(2, 9))",
        "ALTER TABLE t ADD `serial` INT, ADD KEY now (`serial`)",
        "ALTER TABLE t ADD a INT, AUTO_INCREMENT=100",
        "ALTER TABLE t MODIFY id BIGINT NOT NULL AUTO_INCREMENT",
        "ALTER TABLE t MODIFY at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP",
        "ALTER TABLE t MODIFY ts TIMESTAMP NULL, ALTER COLUMN ts SET DEFAULT '2020-01-01'",
        "ALTER TABLE t ALTER COLUMN n SET DEFAULT (rand())",
        "CREATE INDEX now ON t (n)",
        "TRUNCATE t",
    ],
)
def test_values_that_are_the_same_everywhere_are_not(sql: str) -> None:
    assert fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=True) == ""


def test_a_timestamp_that_became_not_null_unsaid_is_told() -> None:
    sql = "ALTER TABLE t MODIFY ts TIMESTAMP"
    after = Table("t", (column("ts", "timestamp", nullable=False),), (), None, "InnoDB", "", 0, 0)
    assert fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=True) == ""
    assert "what is NULL" in fresh_values(sql, BEFORE, after, explicit_timestamps=True)


@pytest.mark.parametrize(
    ("sql", "column"),
    [
        ("ALTER TABLE t ADD a TIMESTAMP", "a"),
        (
            "alter table t add column if not exists `a` timestamp(6) not null comment 'default null' first",
            "a",
        ),
        ("ALTER TABLE t ADD a INT DEFAULT 1, ADD (b TIMESTAMP NULL, `c` TIMESTAMP CHECK (c IS NULL))", "c"),
        ("ALTER TABLE t ADD COLUMN (b INT, d TIMESTAMP), ADD KEY (d)", "d"),
        ("ALTER TABLE t ADD a TIMESTAMP ON UPDATE CURRENT_TIMESTAMP", "a"),
        ("ALTER TABLE t ADD a TIMESTAMP COLUMN_FORMAT DEFAULT REFERENCES u (a) ON DELETE SET NULL", "a"),
        ("ALTER TABLE t MODIFY ts TIMESTAMP(3)", "ts"),
        ("ALTER TABLE t CHANGE COLUMN ts since TIMESTAMP DEFAULT '2020-01-01'", "ts"),
    ],
)
def test_what_is_left_to_a_server_is_told_unless_timestamps_are_explicit(sql: str, column: str) -> None:
    assert f"column {column!r}" in fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=False)
    assert fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=True) == ""


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE t ADD a TIMESTAMP NULL, ADD b TIMESTAMP DEFAULT '2020-01-01' ON UPDATE NOW()",
        "ALTER TABLE t ADD a TIMESTAMP NOT NULL DEFAULT 0, ADD (b TIMESTAMP DEFAULT NULL, c INT)",
        "ALTER TABLE t ADD a TIMESTAMP AS (n + 1), ADD b TIMESTAMP GENERATED ALWAYS AS (n) STORED",
        "ALTER TABLE t ADD timestamp INT, ADD UNIQUE timestamp (timestamp), ADD KEY `timestamp` (n)",
        "ALTER TABLE t ADD a DATETIME NOT NULL DEFAULT TIMESTAMP '2020-01-01 00:00:00'",
        "ALTER TABLE t MODIFY ts TIMESTAMP NULL, MODIFY at TIMESTAMP, DROP COLUMN n",
    ],
)
def test_what_a_statement_says_itself_is_not_left_to_a_server(sql: str) -> None:
    assert fresh_values(sql, BEFORE, BEFORE, explicit_timestamps=False) == ""
