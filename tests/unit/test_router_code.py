"""Executable comments: what only some servers execute must not hide what a statement is."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import Control, Pass, Refuse, Verb
from homeworld.gateway.sql_tables import scan
from tests.support.router_tables import ONE
from tests.support.routing_world import router, view


@pytest.mark.parametrize(
    "text",
    [
        "/*!99999 select */ kill 5",
        "/*!80400 select */ kill 5",
        "/*M!100100 select */ kill 5",
        "/*!100100 select */ kill 5",
        "drop /*!99999 table */ database main",
        "drop /*!999999 table if exists */ database main",
        "create /*!50700 table t like */ user x",
        "select 1 /*!99999 from a */",
        "select * from /*!99999 a join */ b",
        "select * from a /*!80000 for update */",
        "select /*!80000 last_insert_id(), */ 1 from a",
        "/*!99999 select */ /*!80000 kill 5 */",
        "/*!100100 select */ /*!80000 kill 5 */",
        "/*!80000 select */ /*M!100100 kill 5 */",
        "set /*!99999 a = 1, */ sql_mode = 'ANSI_QUOTES'",
        "use /*!99999 a -- */ b",
        "show /*!80000 tables from */ create table a",
        "begin /*!99999 work */",
    ],
)
def test_a_statement_that_some_servers_read_otherwise_is_refused(text: str) -> None:
    found = router(ONE, {"shop": {}}).plan(text.encode(), view())
    assert isinstance(found, Refuse), found
    assert "executable comments" in found.message


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("/*!40000 ALTER TABLE `t` DISABLE KEYS */", Verb.DDL),
        ("CREATE TABLE /*!32312 IF NOT EXISTS*/ x", Verb.DDL),
        ("CREATE TABLE t (a int /*!80023 INVISIBLE */, b int /*!80016 CHECK (b > 0) */)", Verb.DDL),
        ("CREATE TABLE t (a int) /*!50100 PARTITION BY HASH (a) PARTITIONS 4 */", Verb.DDL),
        ("CREATE TABLE t (a text /*!100301 COMPRESSED*/) /*M!100101 WITH SYSTEM VERSIONING */", Verb.DDL),
        ("/*!50001 CREATE ALGORITHM=UNDEFINED */ /*!50013 SQL SECURITY DEFINER */\n"
         "/*!50001 VIEW v AS SELECT 1 */", Verb.DDL),
        ("SELECT /*!40001 SQL_NO_CACHE */ * FROM t", Verb.SELECT),
        ("INSERT /*!50500 IGNORE */ INTO t VALUES (1)", Verb.INSERT),
        ("SELECT a /*!1 + 1 */ FROM t", Verb.SELECT),
        ("/*!80013 DELETE FROM t */", Verb.DELETE),
    ],
)  # fmt: skip
def test_what_dumps_write_goes_on_working(text: str, verb: Verb) -> None:
    found = router(ONE).plan(text.encode(), view())
    assert isinstance(found, Pass), found
    assert (found.sql, found.footprint.verb) == (text.encode(), verb)


@pytest.mark.parametrize(
    "text",
    [
        "/*!40101 SET NAMES utf8mb4 */",
        "/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */",
        "/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */",
        "/*!80000 SET SESSION information_schema_stats_expiry=0 */",
        "/*M!999999\\- enable the sandbox mode */ \n/*!40101 SET @OLD_SQL_NOTES=@@SQL_NOTES */",
        "/*M!100616 SET @OLD_NOTE_VERBOSITY=@@NOTE_VERBOSITY, NOTE_VERBOSITY=0 */",
    ],
)
def test_settings_of_dumps_are_settings(text: str) -> None:
    assert isinstance(router(ONE).plan(text.encode(), view()), Control)


def test_only_five_or_six_digits_are_a_version() -> None:
    read = {text: [word.text for word in scan(text).words] for text in (
        b"select /*!1 */ 2", b"select /*!40000 1 */ 2", b"select /*!400001 */ 2", b"select /*!4000011 */ 2"
    )}  # fmt: skip
    assert list(read.values()) == [
        [b"select", b"1", b"2"], [b"select", b"1", b"2"], [b"select", b"2"], [b"select", b"1", b"2"],
    ]  # fmt: skip
