"""Stored programs through the gateway: made by drivers and command lines, run, dumped and restored."""

from __future__ import annotations

import re
import subprocess
from contextlib import closing
from typing import Any

import pytest
from pymysql.constants import CLIENT

from homeworld.model.topology import Flavor
from tests.support.client_world import CommandLine, command_lines
from tests.support.gateway import DATABASE, GatewayFixture, rows

pytestmark = pytest.mark.servers

PROGRAMS = [
    "CREATE PROCEDURE p(IN a INT) BEGIN\n  -- it's a remark; really\n  DECLARE i INT DEFAULT 0;\n"
    "  DECLARE EXIT HANDLER FOR SQLEXCEPTION BEGIN ROLLBACK; RESIGNAL; END;\n"
    "  w: WHILE i < a DO\n    SET i = i + 1;\n    IF i = 2 THEN ITERATE w; END IF;\n"
    "    INSERT INTO t (v, n) VALUES ('p;', i);\n  END WHILE w;\n  SELECT COUNT(*) FROM t;\nEND",
    "CREATE FUNCTION f(a INT) RETURNS INT DETERMINISTIC BEGIN DECLARE x INT; SET x = CASE a WHEN 1 THEN 7 "
    "ELSE IF(a > 3, 8, 9) END; CASE x WHEN 7 THEN RETURN 70; ELSE SET x = x * 10; END CASE; RETURN x; END",
    "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW BEGIN /* two; steps */ SET NEW.n = NEW.n + 1; "
    "SET NEW.n = NEW.n * 2; END",
    "CREATE EVENT e ON SCHEDULE EVERY 1 DAY STARTS '2037-01-01 00:00:00' DISABLE DO BEGIN "
    "DELETE FROM t WHERE n = 0; DELETE FROM t WHERE n = 1; END",
]


def check(gw: GatewayFixture) -> None:
    """The programs do what they say."""
    with closing(gw.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("TRUNCATE t")
        assert rows(cursor, "CALL p(3)") == [(2,)]
        assert rows(cursor, "SELECT v, n FROM t ORDER BY id") == [("p;", 4), ("p;", 8)]
        assert rows(cursor, "SELECT f(1), f(2), f(9)") == [(70, 90, 80)]
        assert [row[1] for row in rows(cursor, "SHOW EVENTS")] == ["e"]


def drop(gw: GatewayFixture) -> None:
    for statement in ("DROP PROCEDURE p", "DROP FUNCTION f", "DROP TRIGGER g", "DROP EVENT e"):
        gw.query(statement)


@pytest.mark.parametrize("flags", [0, CLIENT.MULTI_STATEMENTS])
def test_drivers_make_programs(gw: GatewayFixture, table: str, flags: int) -> None:
    with closing(gw.connect(client_flag=flags)) as connection, connection.cursor() as cursor:
        for program in PROGRAMS:
            cursor.execute(program)
        check(gw)
        drop(gw)
        if flags:
            cursor.execute(
                f"{PROGRAMS[0]}; {PROGRAMS[1]};\n{PROGRAMS[2]};{PROGRAMS[3]}; SELECT 1 ; SELECT 2;"
            )
            for _ in PROGRAMS:
                assert cursor.nextset()
            assert cursor.fetchall() == ((1,),)
            assert cursor.nextset()
            assert cursor.fetchall() == ((2,),)
            check(gw)


def test_a_block_is_run_at_once(gw: GatewayFixture, table: str, flavor: Flavor) -> None:
    if flavor is not Flavor.MARIADB:
        pytest.skip("MySQL has no such blocks")
    block = (
        "BEGIN NOT ATOMIC DECLARE i INT DEFAULT 0; REPEAT SET i = i + 1; INSERT INTO t (n) VALUES (i); "
        "UNTIL i = 3 END REPEAT; SELECT SUM(n) FROM t; END"
    )
    for flags in (0, CLIENT.MULTI_STATEMENTS):
        with closing(gw.connect(client_flag=flags)) as connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE t")
            assert rows(cursor, block) == [(6,)]
            assert rows(cursor, "SELECT COUNT(*) FROM t") == [(3,)]


def _run(command: list[str], text: str = "") -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _where(gw: GatewayFixture, line: CommandLine) -> list[str]:
    return [
        "--no-defaults", "--host=localhost", "--protocol=TCP", f"--port={gw.gateway.port}", "--user=admin",
        "--password=pw-admin", f"--ssl-ca={gw.ca}", *line.tls,
    ]  # fmt: skip


@pytest.mark.parametrize("line", command_lines(), ids=lambda line: line.name)
def test_command_lines_make_dump_and_restore_programs(
    gw: GatewayFixture, table: str, gateway_schema: str, line: CommandLine
) -> None:
    client: Any = [str(line.client), *_where(gw, line), *line.batch, DATABASE]
    script = "DELIMITER //\n" + "//\n".join(PROGRAMS) + "//\nDELIMITER ;\nSELECT f(1); CALL p(1);\n"
    out = _run(client, script)
    assert re.findall(r"^\d+$", out, re.MULTILINE) == ["70", "1"]
    check(gw)
    dumper = [
        str(line.dump), *_where(gw, line), *line.quirks, "--skip-dump-date", "--no-tablespaces",
        "--single-transaction", "--routines", "--triggers", "--events", gateway_schema,
    ]  # fmt: skip
    dump = _run(dumper)
    assert all(f"{what} " in dump for what in ("PROCEDURE", "FUNCTION", "TRIGGER", "EVENT"))
    drop(gw)
    gw.query("DROP TABLE t")
    _run(client, dump)
    assert _run(dumper) == dump
    check(gw)
