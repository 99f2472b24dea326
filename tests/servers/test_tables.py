"""Reading definitions from servers, the target's form of them, and the small statements of workflows."""

from __future__ import annotations

import pytest

from homeworld.model.errors import DeadlineExceededError, NotFoundError, ServerError
from homeworld.model.topology import Flavor
from homeworld.replication import sequences, tables
from homeworld.replication.ddl import TargetForm, add_keys_sql, layout_differences, target_table
from tests.support.moves import Move, make_move
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers

CREATE = """CREATE TABLE t (
  id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, `we``ird` VARCHAR(9) DEFAULT 'a,b''c)' COMMENT 'AUTO_INCREMENT',
  made INT AS (pid + 1) VIRTUAL, e ENUM('é', 'b,''x') CHARACTER SET latin1 NOT NULL, j JSON, pid INT,
  txt TEXT,
  d DATETIME(3) DEFAULT CURRENT_TIMESTAMP(3) ON UPDATE CURRENT_TIMESTAMP(3),
  z TIMESTAMP NOT NULL DEFAULT '2024-07-01 10:00:00', y DATETIME NOT NULL DEFAULT '0000-00-00 00:00:00',
  PRIMARY KEY (id), UNIQUE KEY u (`we``ird`), UNIQUE KEY up (txt(10)), KEY k1 (e, d), KEY k2 (pid DESC),
  FULLTEXT KEY ft (txt), CONSTRAINT fk FOREIGN KEY (pid) REFERENCES p (a), CONSTRAINT ck CHECK (pid > 0)
) COMMENT 'AUTO_INCREMENT=5' AUTO_INCREMENT=77"""


@pytest.fixture
def move(trio: list[TestServer]) -> Move:
    made = make_move(trio, "-", "-")
    made.create("SET sql_mode='', time_zone='+05:00'", "CREATE TABLE p (a INT PRIMARY KEY)", CREATE)
    return made


def test_a_definition_is_read_as_the_server_has_it(move: Move) -> None:
    place = move.sources[0]
    assert tables.list_tables(place) == ("p", "t")
    found = tables.read_tables(place, ["t"])["t"]
    by_name = {column.name: column for column in found.columns}
    assert list(by_name)[:3] == ["id", "we`ird", "made"]
    assert (by_name["id"].unsigned, by_name["id"].auto_increment, by_name["id"].nullable) == (
        True,
        True,
        False,
    )
    assert (by_name["made"].generated, by_name["d"].generated, by_name["d"].type) == (True, False, "datetime")
    assert (by_name["e"].charset, by_name["e"].column_type) == ("latin1", "enum('é','b,''x')")
    assert by_name["j"].type == ("json" if place.endpoint.flavor is Flavor.MYSQL else "longtext")
    assert found.key is not None
    assert found.key.columns == ("id",)
    assert {index.name: (index.unique, index.prefixed) for index in found.indexes}["up"] == (True, True)
    assert found.engine == "InnoDB"
    assert tables.table_from_text(tables.table_to_text(found)) == found
    with pytest.raises(NotFoundError):
        tables.read_tables(place, ["nothing"])
    assert set(tables.find_tables(place, ["nothing", "p"])) == {"p"}


@pytest.mark.parametrize("defer", [False, True], ids=["at-once", "deferred"])
def test_a_key_over_an_expression_that_was_cut_can_be_made_again(trio: list[TestServer], defer: bool) -> None:
    """MySQL shows the length that it was cut to, which it does not take back."""
    if trio[0].flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB has no keys over expressions")
    move = make_move(trio, "-", "-")
    move.create(
        "SET sql_mode=''",
        "CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(60) DEFAULT ')(7)', KEY x ((HEX(v))), KEY p (v(9)))"
        " CHARACTER SET utf8mb4 ROW_FORMAT=COMPACT COMMENT='(a)(3)'",
    )
    source, target = move.sources[0], move.targets[0]
    shown = move.source.query(f"SHOW CREATE TABLE {source.schema}.t")[0][1]
    assert "(hex(`v`))(191)" in str(shown)
    found = tables.read_tables(source, ["t"])["t"]
    made = target_table(found, TargetForm(defer, keep_auto_increment=True, keep_foreign_keys=True))
    tables.create_table(target, "t", made.create_sql)
    for statement in add_keys_sql(target.schema, "t", made.deferred):
        tables.run_ddl(target, statement)
    again = tables.read_tables(target, ["t"])["t"]
    assert layout_differences(found, again) == ()
    assert again.create_sql == found.create_sql
    assert "DEFAULT ')(7)'" in again.create_sql
    assert "COMMENT='(a)(3)'" in again.create_sql


def test_the_target_is_the_same_but_for_what_was_asked(move: Move) -> None:
    source, target = move.sources[0], move.targets[0]
    found = tables.read_tables(source, ["t"])["t"]
    for form in (TargetForm(True, False, False), TargetForm(False, True, False)):
        made = target_table(found, form)
        tables.create_table(target, "t", made.create_sql)
        tables.create_table(target, "t", made.create_sql)
        there = tables.read_tables(target, ["t"])["t"]
        assert layout_differences(found, there) == ()
        assert {index.name for index in there.indexes} >= {"PRIMARY", "u", "up"}
        assert ("k1" in {index.name for index in there.indexes}) != form.defer_keys
        assert there.columns[0].auto_increment == form.keep_auto_increment
        for statement in add_keys_sql(target.schema, "t", made.deferred):
            tables.run_ddl(target, statement)
        whole = tables.read_tables(target, ["t"])["t"]
        assert {i.name for i in found.indexes} - {"fk"} <= {i.name for i in whole.indexes}
        assert "'2024-07-01 05:00:00'" in whole.create_sql
        tables.drop_table(target, "t")
        tables.drop_table(target, "t")
        assert not tables.table_exists(target, "t")


def test_small_questions(move: Move) -> None:
    place = move.sources[0]
    assert tables.table_exists(place, "p")
    assert tables.is_empty(place, "p")
    assert tables.max_value(place, "p", "a") is None
    tables.run_ddl(place, "INSERT INTO p VALUES (3), (9)")
    assert not tables.is_empty(place, "p")
    assert tables.max_value(place, "p", "a") == 9
    assert tables.count_rows(place, "p") == 2
    assert set(tables.estimate_rows(place, ["p"])) == {"p"}
    with pytest.raises(ServerError):
        tables.is_empty(place, "nothing")


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ("a INT PRIMARY KEY, b INT NOT NULL UNIQUE", "PRIMARY"),
        ("a INT, b INT NOT NULL, UNIQUE KEY x (a), UNIQUE KEY y (b)", "y"),
        ("a FLOAT NOT NULL, b INT NOT NULL, PRIMARY KEY (a), UNIQUE KEY y (b)", "y"),
        ("a VARCHAR(99) NOT NULL, b INT NOT NULL, PRIMARY KEY (a(5)), UNIQUE KEY y (b)", "y"),
        ("a VARCHAR(99) NOT NULL, UNIQUE KEY x (a(5))", None),
        ("a DOUBLE PRIMARY KEY", None),
        ("a INT, KEY a (a)", None),
    ],
)
def test_the_key_that_rows_are_found_by(move: Move, columns: str, key: str | None) -> None:
    move.create(f"CREATE TABLE k ({columns})")
    found = tables.read_tables(move.sources[0], ["k"])["k"].key
    assert (found.name if found else None) == key


def test_sequences_only_grow(move: Move) -> None:
    place = move.sources[0]
    sequences.create_sequence(place, "t_seq")
    sequences.create_sequence(place, "t_seq", 5)
    assert move.source.query("SELECT * FROM t_seq", place.schema) == [(0, 1, 1000)]
    assert "vitess_sequence" in tables.read_tables(place, ["t_seq"])["t_seq"].create_sql
    sequences.raise_sequence(place, "t_seq", 5000)
    sequences.raise_sequence(place, "t_seq", 70)
    assert sequences.next_id(place, "t_seq") == 5001


def test_names_that_only_the_catalogue_finds_are_of_no_table(move: Move) -> None:
    place = move.sources[0]
    assert set(
        tables.find_tables(place, ["P", "p ", "p\n", "p", "p" * 64, "\N{LATIN SMALL LETTER E WITH ACUTE}"])
    ) == {"p"}


def test_whoever_reads_for_somebody_waits_for_no_lock(move: Move) -> None:
    place = move.sources[0]
    with move.server_of(place).connect(schema=place.schema) as connection, connection.cursor() as cursor:
        cursor.execute("LOCK TABLES p WRITE")
        with (
            pytest.raises(DeadlineExceededError, match="locked by another"),
            tables.reading_session(place.endpoint, 8.0) as session,
        ):
            session.query_all(f"SELECT 1 FROM {place.schema}.p LIMIT 1")
        cursor.execute("UNLOCK TABLES")
