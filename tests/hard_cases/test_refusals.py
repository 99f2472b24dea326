"""Moves that are refused before anything starts, each with the reason that stands on the page."""

# ruff: noqa: E501  the table of cases is read by its lines

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field

import pytest

from homeworld.model.movers import Placement
from homeworld.model.names import quote
from homeworld.model.topology import BackendRole, Flavor
from tests.hard_cases.carrying import T, by, carry, refusal, running, schemas
from tests.hard_cases.cases import Outcome, hard_case
from tests.support.judging import reasons
from tests.support.moves import Move
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers


@dataclass
class Case:
    """A move that is refused. ``target``: what stands on the target; ``having``: words of the reason."""

    number: int
    title: str
    create: list[str]
    having: tuple[str, ...]
    target: list[str] = field(default_factory=list[str])
    placement: Placement = T
    only: Flavor | None = None
    otherwise: str = ""


LATIN = "CREATE TABLE t (k INT PRIMARY KEY, a VARCHAR(30) CHARACTER SET {})"
PARENT = (
    "CREATE TABLE t (id INT PRIMARY KEY, p INT, KEY (p), CONSTRAINT up FOREIGN KEY (p) REFERENCES t (id) {})"
)
MATCH = "CREATE TABLE t (id INT PRIMARY KEY, {})"

CASES = [
    Case(
        5, "A latin1 column into a utf8mb4 one", [LATIN.format("latin1")],
        ("column 'a' of table 't' is varchar(30) latin1", "utf8mb4"), [LATIN.format("utf8mb4")],
    ),
    Case(
        6, "A UCS2 column into a utf8mb4 one", [LATIN.format("ucs2")],
        ("varchar(30) ucs2", "utf8mb4"), [LATIN.format("utf8mb4")],
    ),
    Case(
        8, "A DATETIME into a TIMESTAMP", [MATCH.format("d DATETIME")],
        ("column 'd' of table 't' is datetime", "timestamp"), [MATCH.format("d TIMESTAMP NULL")],
    ),
    Case(
        10, "An ENUM whose labels stand in another order", [MATCH.format("e ENUM('a','b')")],
        ("enum('a','b')", "enum('b','a')"), [MATCH.format("e ENUM('b','a')")],
    ),
    Case(
        10, "A SET that lacks a label", [MATCH.format("e SET('a','b')")],
        ("set('a','b')", "set('a')"), [MATCH.format("e SET('a')")],
    ),
    Case(
        16, "A generated column in the primary key",
        ["CREATE TABLE t (a INT NOT NULL, b INT GENERATED ALWAYS AS (a % 5) STORED NOT NULL, PRIMARY KEY (b, a))"],
        ("key PRIMARY has the generated column b",), only=Flavor.MYSQL,
        otherwise="the server allows none in a primary key, nor NOT NULL ones in others",
    ),
    Case(
        16, "A kept column that is made of a TIMESTAMP",
        [
            "CREATE TABLE t (a INT PRIMARY KEY, m TIMESTAMP NULL, d VARCHAR(9) GENERATED ALWAYS AS "
            "(LEFT(m, 9)) STORED)"
        ],
        ("generated column d is kept and made of TIMESTAMP column m",),
    ),
    Case(
        18, "A key with a floating point column", [MATCH.format("v INT").replace("INT PRIMARY", "DOUBLE PRIMARY")],
        ("key PRIMARY has a FLOAT or DOUBLE column",),
    ),
    Case(
        19, "Foreign keys that cascade", [PARENT.format("ON DELETE CASCADE")],
        ("foreign key up of table t", "cascades (ON DELETE CASCADE", "not in the binlog"),
    ),
    Case(
        21, "Foreign keys on a target with shards", [PARENT.format("")],
        ("foreign key up of table t", "cannot hold across shards"), placement=by("id"),
    ),
    Case(
        22, "A unique key that only the target has, though rows repeat", [MATCH.format("v INT")],
        ("unique key 'v' of table 't'", "does not hold"), [MATCH.format("v INT, UNIQUE KEY v (v)")],
    ),
    Case(
        23, "A column that may be NULL into one that may not", [MATCH.format("v INT NULL")],
        ("column 'v' of table 't' is int on", "int not null"), [MATCH.format("v INT NOT NULL")],
    ),
    Case(
        23, "And the other way round: it could not come back", [MATCH.format("v INT NOT NULL")],
        ("int not null on", "'v' of table 't'"), [MATCH.format("v INT NULL")],
    ),
    Case(
        38, "A view that reads the table", [MATCH.format("v INT"), "CREATE VIEW totals AS SELECT SUM(v) FROM t"],
        ("view totals", "uses table t and would be left behind"),
    ),
    Case(
        38, "A view in the table's place", [MATCH.format("v INT").replace("t (", "u ("), "CREATE VIEW t AS SELECT * FROM u"],
        ("t on", "is a view; only tables move"),
    ),
    Case(
        38, "Routines and events that name it, with a definer of their own",
        [
            MATCH.format("v INT"), "CREATE PROCEDURE p() SQL SECURITY DEFINER INSERT INTO t VALUES (1, 1)",
            "CREATE EVENT e ON SCHEDULE EVERY 1 DAY DO DELETE FROM t",
        ],
        ("procedure p", "event e"),
    ),
    Case(
        48, "A unique key that the target lost: rows could not come back", [MATCH.format("v INT, UNIQUE KEY v (v)")],
        ("unique key 'v' of table 't'",), [MATCH.format("v INT")],
    ),
    Case(
        48, "A column that the target has larger", [MATCH.format("v VARCHAR(5)")],
        ("varchar(5)", "varchar(50)"), [MATCH.format("v VARCHAR(50)")],
    ),
    Case(
        49, "A trigger on the table, of the longest name",
        [MATCH.format("v INT"), f"CREATE TRIGGER {'x' * 64} BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 1"],
        ("has the trigger " + "x" * 64,),
    ),
    Case(
        49, "Another table's trigger that writes to it",
        [
            MATCH.format("v INT"), "CREATE TABLE u (id INT PRIMARY KEY)",
            "CREATE TRIGGER tr AFTER DELETE ON u FOR EACH ROW DELETE FROM t",
        ],
        ("trigger tr", "uses table t"),
    ),
    Case(
        49, "A trigger on the target's table", [MATCH.format("v INT")], ("has the trigger tr",),
        [MATCH.format("v INT"), "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 1"],
    ),
]  # fmt: skip


_KEYSPACE = re.compile(r"\b([st])\d+/")
_SCHEMA = re.compile(r"\bm\d+[st]\d\b")
_GTIDS = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}:[0-9-]+")


def plain(*reasons: str) -> str:
    """The reasons without the names that keyspaces and schemas have in this run."""
    told = (_KEYSPACE.sub(lambda found: {"s": "source/", "t": "target/"}[found[1]], one) for one in reasons)
    return _GTIDS.sub("uuid:1-9", _SCHEMA.sub("schema", "; ".join(dict.fromkeys(told))))


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=hard_case(c.number, c.title), id=f"{c.number}-{c.title[:30]}") for c in CASES],
)
def test_is_refused(pair: list[TestServer], outcome: Outcome, case: Case) -> None:
    if case.only not in {None, pair[0].flavor}:
        outcome.does_not_apply(case.otherwise)
        return
    outcome.refused(plain(*refusal(pair, case.placement, case.create, case.target)), *case.having)


SETTINGS = {
    15: (
        "Partial JSON updates in the log",
        "binlog_row_value_options='PARTIAL_JSON'",
        "''",
        "must not have PARTIAL_JSON",
    ),
    40: (
        "Row images that are not whole",
        "binlog_row_image=MINIMAL",
        "FULL",
        "binlog_row_image must be FULL, not MINIMAL",
    ),
}


@pytest.mark.parametrize(
    "number", [pytest.param(number, marks=hard_case(number, text[0])) for number, text in SETTINGS.items()]
)
def test_what_the_log_would_lack(pair: list[TestServer], outcome: Outcome, number: int) -> None:
    _, setting, usual, having = SETTINGS[number]
    if number == 15 and pair[0].flavor is Flavor.MARIADB:
        outcome.does_not_apply("the server logs whole JSON only")
        return
    name = setting.partition("=")[0]
    pair[0].query(f"SET GLOBAL {setting}")
    try:
        found = refusal(pair, T, [MATCH.format("v INT")])
    finally:
        pair[0].query(f"SET GLOBAL {name}={usual}")
    outcome.refused(plain(*found), having)


@pytest.mark.parametrize(
    ("number", "setting"),
    [
        pytest.param(15, "binlog_row_value_options='PARTIAL_JSON'", marks=hard_case(15, "The same, by one session while rows move")),
        pytest.param(40, "binlog_row_image=NOBLOB", marks=hard_case(40, "The same, by one session while rows move")),
    ],
)  # fmt: skip
def test_a_session_s_own_logging(pair: list[TestServer], outcome: Outcome, number: int, setting: str) -> None:
    if number == 15 and pair[0].flavor is Flavor.MARIADB:
        outcome.does_not_apply("the server logs whole JSON only")
        return
    with schemas(pair, "-") as move:
        document = '{"a": 1, "b": "' + "x" * 200 + '"}'
        move.create(
            "CREATE TABLE t (k INT PRIMARY KEY, j JSON, b BLOB, v INT)",
            f"INSERT INTO t VALUES (1, '{document}', 'b', 1)",
        )
        with running(move, T) as carried:
            carried.settle()
            move.create(f"SET SESSION {setting}", "UPDATE t SET j=JSON_SET(j, '$.a', 2), v=2 WHERE k=1")
            progress = carried.over()
            assert not progress.retryable
        outcome.refused(plain(progress.error))


@hard_case(20, "Parent and child deleted by one statement, with a cascade between them")
def test_parent_and_child_at_once(pair: list[TestServer], outcome: Outcome) -> None:
    create = ["CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id) ON DELETE CASCADE)"]  # fmt: skip
    with schemas(pair, "-") as move:
        move.create(*create)
        found = reasons(move, [T, Placement("u")])
    outcome.refused(plain(*found), "cascades")


@hard_case(20, "The same without a cascade")
def test_parent_and_child_without_a_cascade(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(
            "CREATE TABLE t (id INT PRIMARY KEY)", "CREATE TABLE u (id INT PRIMARY KEY, p INT, FOREIGN KEY (p) REFERENCES t (id))",
            "INSERT INTO t VALUES (1), (2), (3)", "INSERT INTO u VALUES (10, 1), (11, 1), (20, 2)",
        )  # fmt: skip
        with running(move, T, Placement("u"), resting=True) as carried:
            carried.let_copy()
            move.create("SET foreign_key_checks=0", "DELETE t, u FROM t JOIN u ON u.p = t.id WHERE t.id = 1", "DELETE FROM t WHERE id = 3")  # fmt: skip
            carried.settle()
    outcome.equal()


@hard_case(32, "Rights that only the way back needs")
def test_rights_for_the_way_back(pair: list[TestServer], outcome: Outcome) -> None:
    def arrange(move: Move) -> None:
        mover = pair[0].endpoint(BackendRole.MOVER).user
        for host in ("localhost", "127.0.0.1"):
            move.source.query(f"REVOKE INSERT, DELETE ON {quote(move.schema)}.* FROM '{mover}'@'{host}'")

    found = refusal(pair, by("id"), [MATCH.format("v INT")], arrange=arrange)
    outcome.refused(plain(*found), "the mover lacks INSERT, DELETE on schema")


@hard_case(39, "A transaction that is prepared (XA) before the move begins")
def test_a_prepared_transaction(pair: list[TestServer], outcome: Outcome) -> None:
    with schemas(pair, "-") as move:
        move.create(MATCH.format("v INT"))
        with (
            contextlib.closing(move.source.connect(schema=move.schema)) as connection,
            connection.cursor() as cursor,
        ):
            for statement in (
                "XA START 'x1'",
                "INSERT INTO t VALUES (1, 1)",
                "XA END 'x1'",
                "XA PREPARE 'x1'",
            ):
                cursor.execute(statement)
            try:
                found = reasons(move, [T])
            finally:
                cursor.execute("XA ROLLBACK 'x1'")
        assert reasons(move, [T]) == ()
    outcome.refused(plain(*found), "transaction x1 is prepared")


@hard_case(45, "A source that is itself a replica")
def test_a_source_that_replicates(pair: list[TestServer], outcome: Outcome) -> None:
    source, upstream = pair[0], pair[1]
    mysql = source.flavor is Flavor.MYSQL
    user, password = (
        upstream.endpoint(BackendRole.REPLICATION).user,
        upstream.endpoint(BackendRole.REPLICATION).password,
    )
    if mysql:
        point = f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={upstream.port}, SOURCE_USER='{user}', SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"  # fmt: skip
        start, stop, reset = "START REPLICA IO_THREAD", "STOP REPLICA", "RESET REPLICA ALL"
    else:
        point = f"CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={upstream.port}, MASTER_USER='{user}', MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos"  # fmt: skip
        start, stop, reset = "START SLAVE IO_THREAD", "STOP SLAVE", "RESET SLAVE ALL"
    found: tuple[str, ...] = ()
    source.query(point)
    try:
        source.query(start)
        found = refusal(pair, T, [MATCH.format("v INT")])
    finally:
        source.query(stop)
        source.query(reset)
    assert refusal(pair, T, [MATCH.format("v INT")]) == ()
    outcome.refused(plain(*found).replace(str(upstream.port), "3306"), "replicates from 127.0.0.1:3306")


@hard_case(45, "A source that may forget what it has committed")
def test_a_source_that_forgets(pair: list[TestServer], outcome: Outcome) -> None:
    pair[0].query("SET GLOBAL sync_binlog=1000")
    try:
        found = refusal(pair, T, [MATCH.format("v INT")])
    finally:
        pair[0].query("SET GLOBAL sync_binlog=1")
    outcome.refused(plain(*found), "sync_binlog must be 1, not 1000")


@hard_case(1, "Keys of CHAR whose collation does not pad, with signs below the blank")
def test_keys_that_do_not_pad(pair: list[TestServer], outcome: Outcome) -> None:
    mysql = pair[0].flavor is Flavor.MYSQL
    collation = "utf8mb4_0900_ai_ci" if mysql else "utf8mb4_nopad_bin"
    create = f"CREATE TABLE t (k CHAR(9) COLLATE {collation} PRIMARY KEY, v INT)"
    if not mysql:
        outcome.refused(plain(*refusal(pair, T, [create])), "CHAR with a collation that does not pad")
        return
    rows = "INSERT INTO t VALUES " + ", ".join(
        f"('{word}', 1)" for word in ("", "\t", "a\t", "a", "a!", "\n\t")
    )
    carry(pair, T, [create, rows], ["UPDATE t SET v=2 WHERE k < 'a'", "DELETE FROM t WHERE k='a'", "UPDATE t SET k='b\t' WHERE k=''", "INSERT INTO t VALUES ('', 9)"])  # fmt: skip
    outcome.equal()
