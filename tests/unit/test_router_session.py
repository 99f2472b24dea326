"""What a session is aimed at, transaction control and SET."""

from __future__ import annotations

import pytest

from homeworld.gateway.plan import (
    Control,
    Done,
    Refuse,
    Target,
    Verb,
)
from homeworld.gateway.router_errors import RefusedError
from homeworld.gateway.router_target import parse_target, target_text
from homeworld.model.topology import TabletType
from tests.support.router_tables import KNOWN, ONE, WORLD, plan, refused
from tests.support.routing_world import router, view

# ------------------------------------------------------------------------------- targets


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("", Target()),
        ("shop", Target()),
        ("@primary", Target()),
        ("@master", Target()),
        ("@replica", Target(tablet_type=TabletType.REPLICA)),
        ("shop@rdonly", Target(tablet_type=TabletType.RDONLY)),
        ("main", Target("main")),
        ("main@replica", Target("main", "", TabletType.REPLICA)),
        ("sh/-80", Target("sh", "-80")),
        ("sh:80-@replica", Target("sh", "80-", TabletType.REPLICA)),
        ("main/0", Target("main", "-")),
        ("information_schema", Target("information_schema")),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text, WORLD) == target
    use = router(WORLD, KNOWN).plan(f"use `{text}`".encode(), view()) if text else None
    if use is not None:
        assert use == Control(Verb.USE, f"use `{text}`".encode(), target)
        bare = router(WORLD, KNOWN).plan(f"USE {text}".encode(), view())
        assert isinstance(bare, Control)
        assert bare.target == target
    assert parse_target(target_text(target, "shop"), WORLD) == target


@pytest.mark.parametrize("text", ["nowhere", "main@leader", "sh/40-", "sh/xyz", "/-80", "shop/-80", "a.b"])
def test_unknown_targets(text: str) -> None:
    with pytest.raises(RefusedError):
        parse_target(text, WORLD)
    found = router(WORLD).plan(f"use `{text}`".encode(), view())
    assert isinstance(found, Refuse)
    assert found.errno == 1049


# ------------------------------------------------------------------------------- control and SET


@pytest.mark.parametrize(
    "text",
    [
        "set @a = (select 1)",
        "set @a = 1, @b = (table a)",
        "set sql_mode = (table a)",
        "set autocommit = (values row(1))",
    ],
)
def test_no_query_hides_in_a_set(text: str) -> None:
    assert refused(text).message == "VT12001: unsupported: subqueries in SET"


@pytest.mark.parametrize(
    ("text", "verb"),
    [
        ("begin", Verb.BEGIN),
        ("START TRANSACTION READ ONLY", Verb.BEGIN),
        ("commit and chain", Verb.COMMIT),
        ("rollback", Verb.ROLLBACK),
        ("savepoint a", Verb.SAVEPOINT),
        ("rollback to savepoint a", Verb.SAVEPOINT),
        ("release savepoint a", Verb.SAVEPOINT),
        ("set names utf8mb4 collate utf8mb4_bin", Verb.SET),
        ("set names 'latin1'", Verb.SET),
        ("set autocommit = 0", Verb.SET),
        ("set session transaction isolation level read committed", Verb.SET),
        ("set transaction read only", Verb.SET),
        ("set @a = 1, @b = 'x'", Verb.SET),
        ("set sql_mode = ''", Verb.SET),
        ("set sql_mode = 0", Verb.SET),
        ("set character_set_client = utf8mb4", Verb.SET),
        ("/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO' */", Verb.SET),
        ("set foreign_key_checks = 0", Verb.SET),
        ("set character_set_connection = utf8mb4, collation_connection = 'utf8mb4_bin'", Verb.SET),
        ("set sql_select_limit = default", Verb.SET),
    ],
)
def test_control(text: str, verb: Verb) -> None:
    assert plan(text) == Control(verb, text.encode())


@pytest.mark.parametrize(
    "text",
    [
        "set workload = 'olap'",
        "set @@session.boost_cached_queries = true",
        "set @@vitess_metadata.x = 'y'",
        "set transaction_mode = 'multi', workload = oltp",
    ],
)
def test_settings_of_vitess_alone_are_accepted(text: str) -> None:
    assert plan(text) == Done()


@pytest.mark.parametrize(
    "text",
    [
        "set sql_mode = 'ANSI_QUOTES'", "set session sql_mode = concat(@@sql_mode, ',ansi')",
        "set sql_mode = 4", "set sql_mode = my_function()", "set sql_mode = (@a := 'x')", "set sql_mode = ?",
        "set character_set_client = concat('gb', 'k')", "set names swe7", "set @old_sql_mode = 'ANSI_QUOTES'",
        "set sql_mode = 'NO_BACKSLASH_ESCAPES'", "set sql_mode = 'PIPES_AS_CONCAT'", "set names gbk",
        "set character set sjis", "set character_set_client = big5", "set global x = 1", "set @@global.x = 1",
        "set persist x = 1", "set password = 'x'", "set role x", "set default role x to y",
        "set sql_log_bin = 0", "set binlog_format = 'STATEMENT'",
        "set @@session.binlog_row_image = 'MINIMAL'", "set gtid_next = 'x'",
        "set character_set_connection = latin1", "set collation_connection = @@collation_database",
        "set sql_auto_is_null = 1", "set sql_select_limit = 5", "set div_precision_increment = 8",
        "set @a = (select 1)", "set autocommit = (select 1)", "set @a = now()", "set @a = my_function()",
        "set workload = 'olap', autocommit = 1", "set statement max_statement_time = 1 for select 1",
    ],
)  # fmt: skip
def test_settings_that_would_make_later_reading_wrong_are_refused(text: str) -> None:
    assert isinstance(plan(text), Refuse)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("set sql_mode = @x, autocommit = 1", "@x"),
        ("/*!40101 SET SQL_MODE=@OLD_SQL_MODE */", "@OLD_SQL_MODE"),
        ("set @@session.sql_mode = concat(@@sql_mode,  ',ALLOW_INVALID_DATES')", ""),
        ("/*!40101 SET character_set_client = @saved_cs_client */", "@saved_cs_client"),
        ("set local character_set_client = @@character_set_results", "@@character_set_results"),
    ],
)
def test_what_only_a_server_knows_the_server_refuses(text: str, value: str) -> None:
    value = value or "concat( @@sql_mode , ',ALLOW_INVALID_DATES' )"
    for world in (WORLD, ONE):
        found = router(world, KNOWN).plan(text.encode(), view())
        assert isinstance(found, Control)
        said = found.sql.decode()
        assert f"CONCAT('VT12001: unsupported: ', {value}), {value})" in said
        assert f"(CONVERT({value} USING utf8mb4)) " in said
        assert said.endswith(" */") == text.endswith(" */")
        assert said.endswith("autocommit = 1") == text.endswith("autocommit = 1")


def test_where_one_server_is_all_a_variable_may_be_computed() -> None:
    assert isinstance(router(ONE).plan(b"set @a = now()", view()), Control)
    assert isinstance(router(ONE).plan(b"set sql_select_limit = 5", view()), Control)


def test_what_a_dump_saved_is_put_back_only_where_it_keeps_literals_as_they_are() -> None:
    text = b"/*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION, sql_notes = 1 */"
    found = plan(text.decode())
    assert isinstance(found, Control)
    saved = b"@OLD_COLLATION_CONNECTION"
    checked = b"IF(%b LIKE 'utf8%%', %b, CONCAT('VT12001: unsupported: ', %b))" % (saved, saved, saved)
    assert found.sql == text.replace(saved, checked)
    assert router(ONE).plan(text, view()) == Control(Verb.SET, text)
