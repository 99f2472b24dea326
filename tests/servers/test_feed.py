"""The feed on real servers: order, positions, transactions of every kind, DDL, and what it must refuse."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from homeworld.model.errors import (
    SchemaDriftError,
    ServerError,
    StoppedError,
    UnsupportedLogError,
)
from homeworld.model.gtid import Position
from homeworld.model.names import new_id
from homeworld.model.topology import BackendRole, Flavor
from homeworld.replication.changes import RowChange
from homeworld.replication.connection import Connection
from homeworld.replication.feed import Feed
from homeworld.replication.positions import current_position
from tests.support.feeds import apply, batches_until, changes_of, ddl_of, wanted
from tests.support.mysqld import TestServer

pytestmark = pytest.mark.servers
MOVER = BackendRole.MOVER


@pytest.fixture
def server(shared_server: Callable[[Flavor], TestServer], flavor: Flavor) -> TestServer:
    return shared_server(flavor)


@pytest.fixture
def schema(server: TestServer) -> Iterator[str]:
    name = f"feed_{new_id()}"
    server.create_schema(name)
    yield name
    server.drop_schema(name)


@pytest.fixture
def owner(server: TestServer, schema: str) -> Iterator[Connection]:
    with Connection(server.endpoint(), schema=schema) as connection:
        connection.execute("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(60))")
        connection.execute("CREATE TABLE other (id INT PRIMARY KEY, v VARCHAR(60))")
        yield connection


def ids(changes: list[RowChange]) -> list[int]:
    return [int((after or before or (b"",))[0] or 0) for _, before, after in changes]


def feed_from(server: TestServer, schema: str, start: str, role: BackendRole = MOVER) -> Feed:
    return Feed(server.endpoint(role), start, wanted(server, schema, "t"))


def read_now(server: TestServer, schema: str, start: str, max_events: int = 1000) -> list[RowChange]:
    with feed_from(server, schema, start) as feed:
        changes = changes_of(batches_until(feed, server.flavor, server.position(), max_events))
        assert Position.parse(server.flavor, feed.position) == Position.parse(
            server.flavor, server.position()
        )
    return changes


def test_changes_come_in_order_and_only_of_wanted_tables(
    server: TestServer, schema: str, owner: Connection
) -> None:
    start = server.position()
    owner.execute("INSERT INTO t VALUES (1, 'a'), (2, NULL)")
    owner.execute("INSERT INTO other VALUES (1, 'a')")
    owner.execute("UPDATE t SET v = 'b' WHERE id = 1")
    owner.execute("UPDATE t SET id = 9 WHERE id = 2")
    owner.execute("DELETE FROM t WHERE id = 1")
    name = (schema, "t")
    assert read_now(server, schema, start) == [
        (name, None, (b"1", b"a")),
        (name, None, (b"2", None)),
        (name, (b"1", b"a"), (b"1", b"b")),
        (name, (b"2", None), (b"9", None)),
        (name, (b"1", b"b"), None),
    ]


def test_every_batch_position_is_a_place_to_start_from(
    server: TestServer, schema: str, owner: Connection
) -> None:
    start = server.position()
    for number in range(0, 60, 3):
        owner.execute(f"INSERT INTO t VALUES ({number}, 'a'), ({number + 1}, 'a'), ({number + 2}, 'a')")
    with feed_from(server, schema, start) as feed:
        batches = batches_until(feed, server.flavor, server.position(), max_events=7)
    whole = changes_of(batches)
    assert ids(whole) == list(range(60))
    assert len(batches) > 3
    given = 0
    for batch in batches[:5]:
        given += len(batch.changes)
        assert read_now(server, schema, batch.position) == whole[given:]


def test_a_large_transaction_comes_in_parts_and_moves_the_position_once(
    server: TestServer, schema: str, owner: Connection
) -> None:
    start = server.position()
    owner.execute("INSERT INTO t VALUES (0, 'before')")
    owner.execute("BEGIN")
    for begin in range(1, 20001, 2000):
        owner.execute("INSERT INTO t VALUES " + ",".join(f"({n}, 'x')" for n in range(begin, begin + 2000)))
    owner.execute("COMMIT")
    with feed_from(server, schema, start) as feed:
        batches = batches_until(feed, server.flavor, server.position(), max_events=500)
    parts = [batch for batch in batches if batch.mid_transaction]
    assert len(parts) > 5
    assert len({batch.position for batch in parts}) == 1
    assert max(len(batch.changes) for batch in batches) < 2000
    assert ids(changes_of(batches)) == list(range(20001))
    assert not any(batch.discard_unfinished for batch in batches)


def test_savepoints_and_rollbacks(server: TestServer, schema: str, owner: Connection) -> None:
    start = server.position()
    for statement in (
        "BEGIN", "INSERT INTO t VALUES (1, 'a')", "SAVEPOINT `s 1`", "INSERT INTO t VALUES (2, 'a')",
        "ROLLBACK TO `s 1`", "INSERT INTO t VALUES (3, 'a')", "COMMIT",
        "BEGIN", "INSERT INTO t VALUES (4, 'a')", "ROLLBACK",
    ):  # fmt: skip
        owner.execute(statement)
    assert ids(read_now(server, schema, start)) == [1, 3]


def test_engines_without_transactions(server: TestServer, schema: str, owner: Connection) -> None:
    """What a rollback cannot undo stays; what it undid does not come, however the groups are logged."""
    owner.execute("CREATE TABLE plain (id INT PRIMARY KEY) ENGINE=MyISAM")
    start = server.position()
    for statement in (
        "BEGIN", "INSERT INTO t VALUES (1, 'a')", "SAVEPOINT s", "INSERT INTO t VALUES (2, 'a')",
        "INSERT INTO plain VALUES (7)", "ROLLBACK TO s", "INSERT INTO t VALUES (3, 'a')", "COMMIT",
        "BEGIN", "INSERT INTO t VALUES (4, 'a')", "INSERT INTO plain VALUES (8)", "ROLLBACK",
        "INSERT INTO plain VALUES (9)",
    ):  # fmt: skip
        if server.flavor is Flavor.MYSQL and "plain" in statement and statement.endswith(("(7)", "(8)")):
            continue  # refused there inside a transaction (enforce_gtid_consistency)
        owner.execute(statement)
    tables = wanted(server, schema, "t", "plain")
    with Feed(server.endpoint(MOVER), start, tables) as feed:
        found = apply(changes_of(batches_until(feed, server.flavor, server.position())))
    for name in ("t", "plain"):
        rows = {row[0]: row for row in owner.query_all(f"SELECT * FROM {name}")}
        assert found[schema, name] == rows


def test_compressed_transactions(server: TestServer, schema: str, owner: Connection) -> None:
    start = server.position()
    if server.flavor is Flavor.MYSQL:
        owner.execute("SET SESSION binlog_transaction_compression = ON")
        others: list[Connection] = []
    else:
        owner.execute("SET GLOBAL log_bin_compress = ON, log_bin_compress_min_len = 10")
        others = [Connection(server.endpoint(), schema=schema)]
    try:
        session = others[0] if others else owner
        session.execute("INSERT INTO t VALUES " + ",".join(f"({n}, REPEAT('x', 50))" for n in range(3000)))
        session.execute("UPDATE t SET v = REPEAT('y', 55) WHERE id < 2000")
        session.execute("ALTER TABLE other ADD COLUMN a_column_with_a_long_name_to_compress VARCHAR(200)")
        session.execute("DELETE FROM t WHERE id >= 1000")
    finally:
        if server.flavor is Flavor.MARIADB:
            owner.execute("SET GLOBAL log_bin_compress = OFF, log_bin_compress_min_len = 256")
        for connection in others:
            connection.close()
    found = apply(read_now(server, schema, start))
    assert found[schema, "t"] == {row[0]: row for row in owner.query_all("SELECT * FROM t")}
    assert len(found[schema, "t"]) == 1000


def test_ddl_stands_where_it_happened(server: TestServer, schema: str, owner: Connection) -> None:
    start = server.position()
    tables = wanted(server, schema, "t")
    owner.execute("INSERT INTO t VALUES (1, 'a')")
    before = server.position()
    owner.execute("ALTER TABLE t ADD COLUMN more INT DEFAULT 5")
    owner.execute("INSERT INTO t VALUES (2, 'b', 6)")
    with Feed(server.endpoint(MOVER), start, tables) as feed:
        first: list[RowChange] = []
        while not (batch := feed.read_batch(1000, 1.0)).ddl:
            first += batch.changes
        first += batch.changes
        assert ids(first) == [1]
        (ddl,) = batch.ddl
        assert ddl.tables == {(schema, "t")}
        assert "ADD COLUMN more" in ddl.sql
        assert Position.parse(server.flavor, ddl.position_before) == Position.parse(server.flavor, before)
        with pytest.raises(SchemaDriftError):
            batches_until(feed, server.flavor, server.position())
    # From behind it, with the table as it is now.
    with feed_from(server, schema, batch.position) as feed:
        changes = changes_of(batches_until(feed, server.flavor, server.position()))
    assert changes == [((schema, "t"), None, (b"2", b"b", b"6"))]


def test_set_tables_goes_on_behind_a_ddl(server: TestServer, schema: str, owner: Connection) -> None:
    owner.execute("CREATE TABLE e (id INT PRIMARY KEY, c ENUM('a','b'))")
    start = server.position()
    with Feed(server.endpoint(MOVER), start, wanted(server, schema, "e")) as feed:
        owner.execute("INSERT INTO e VALUES (1, 'b')")
        owner.execute("ALTER TABLE e MODIFY c ENUM('new','b','a')")
        batches = batches_until(feed, server.flavor, server.position())
        assert len(ddl_of(batches)) == 1
        feed.set_tables(wanted(server, schema, "e"))
        owner.execute("INSERT INTO e VALUES (2, 'b'), (3, 'a')")
        batches += batches_until(feed, server.flavor, server.position())
    assert [after for _, _, after in changes_of(batches)] == [(b"1", b"b"), (b"2", b"b"), (b"3", b"a")]


@pytest.mark.parametrize(
    ("statements", "kinds"),
    [
        (["TRUNCATE TABLE t"], [True]),
        (["RENAME TABLE t TO t2, other TO t"], [False]),
        (["DROP TABLE t, other"], [False]),
        (["CREATE INDEX i ON t (v)", "DROP INDEX i ON t"], [False, False]),
        (["DROP TABLE t", "CREATE TABLE t AS SELECT * FROM other"], [False, False]),
        (["CREATE TABLE x LIKE t", "ALTER TABLE other ADD z INT", "CREATE VIEW w AS SELECT * FROM t"], []),
        (["CREATE TEMPORARY TABLE t (id INT)", "DROP TEMPORARY TABLE t"], []),
        (["ANALYZE TABLE t", "OPTIMIZE TABLE t"], []),
        (["/* it */ alter table `{schema}`.`t` engine=InnoDB # so"], [False]),
    ],
)
def test_which_statements_are_told(
    server: TestServer, schema: str, owner: Connection, statements: list[str], kinds: list[bool]
) -> None:
    with feed_from(server, schema, server.position()) as feed:
        for statement in statements:
            owner.query_all(statement.replace("{schema}", schema))
        found = ddl_of(batches_until(feed, server.flavor, server.position()))
        assert [ddl.truncates for ddl in found] == kinds
        assert all(ddl.tables == {(schema, "t")} for ddl in found)


def test_ddl_of_a_whole_schema(server: TestServer, owner: Connection) -> None:
    server.create_schema("feed_dropped")
    owner.execute("CREATE TABLE feed_dropped.t (id INT PRIMARY KEY)")
    with feed_from(server, "feed_dropped", server.position()) as feed:
        owner.execute("DROP DATABASE feed_dropped")
        (ddl,) = ddl_of(batches_until(feed, server.flavor, server.position()))
    assert ddl.tables == {("feed_dropped", "t")}


def test_logs_are_rotated(server: TestServer, schema: str, owner: Connection) -> None:
    start = server.position()
    for number in range(4):
        owner.execute(f"INSERT INTO t VALUES ({number}, 'a')")
        owner.execute("FLUSH BINARY LOGS")
    assert ids(read_now(server, schema, start)) == [0, 1, 2, 3]


def test_an_idle_feed_follows_the_position(server: TestServer, schema: str, owner: Connection) -> None:
    with feed_from(server, schema, server.position()) as feed:
        owner.execute("INSERT INTO other VALUES (1, 'x')")
        batches = batches_until(feed, server.flavor, server.position())
        assert not changes_of(batches)
        while not (batch := feed.read_batch(10, 0.2)).caught_up:
            assert not batch.changes
        assert batch.timestamp > 1_700_000_000
        owner.execute("INSERT INTO t VALUES (1, 'x')")
        assert ids(changes_of(batches_until(feed, server.flavor, server.position()))) == [1]


def test_prepared_transactions(server: TestServer, schema: str, owner: Connection) -> None:
    """MySQL: rows come at XA COMMIT, also after a restart between the two. MariaDB: refused by name."""
    start = server.position()
    xid = f"'{new_id()}'"
    with Connection(server.endpoint(), schema=schema) as other:
        for statement in ("XA START", "XA END", "XA PREPARE"):
            other.execute(f"{statement} {xid}")
            if statement == "XA START":
                other.execute("INSERT INTO t VALUES (1, 'prepared')")
        owner.execute("INSERT INTO t VALUES (2, 'meanwhile')")
        if server.flavor is Flavor.MARIADB:
            with feed_from(server, schema, start) as feed, pytest.raises(UnsupportedLogError, match="XA"):
                batches_until(feed, server.flavor, server.position())
            other.execute(f"XA ROLLBACK {xid}")
            return
        with feed_from(server, schema, start) as feed:
            while not (early := feed.read_batch(100, 60.0)).changes:
                pass
            assert ids(early.changes) == [2]
            assert not Position.parse(server.flavor, early.position).contains(
                Position.parse(server.flavor, server.position())
            )
            other.execute(f"XA COMMIT {xid}")
            assert ids(changes_of(batches_until(feed, server.flavor, server.position()))) == [1]
        assert ids(read_now(server, schema, early.position)) == [1]


def test_a_prepared_transaction_rolled_back_leaves_nothing(
    server: TestServer, schema: str, owner: Connection
) -> None:
    table = "t" if server.flavor is Flavor.MYSQL else "other"
    start = server.position()
    for statement in (
        "XA START 'r'", f"INSERT INTO {table} VALUES (1, 'a')", "XA END 'r'", "XA PREPARE 'r'",
        "XA ROLLBACK 'r'",
        "XA START 'one'", "INSERT INTO t VALUES (2, 'b')", "XA END 'one'", "XA COMMIT 'one' ONE PHASE",
    ):  # fmt: skip
        owner.execute(statement)
    assert ids(read_now(server, schema, start)) == [2]


def test_a_transaction_prepared_before_the_start_is_refused(
    server: TestServer, schema: str, owner: Connection
) -> None:
    for statement in ("XA START 'p'", "INSERT INTO t VALUES (1, 'a')", "XA END 'p'", "XA PREPARE 'p'"):
        owner.execute(statement)
    with feed_from(server, schema, server.position()) as feed:
        owner.execute("XA COMMIT 'p'")
        with pytest.raises(UnsupportedLogError, match="prepared before the stream began"):
            batches_until(feed, server.flavor, server.position())


def test_positions_with_tags_and_domains(server: TestServer, schema: str, owner: Connection) -> None:
    start = server.position()
    if server.flavor is Flavor.MYSQL:
        owner.execute("SET gtid_next = 'AUTOMATIC:a_tag'")
    else:
        owner.execute("SET SESSION gtid_domain_id = 7")
    owner.execute("INSERT INTO t VALUES (1, 'a')")
    tagged = server.position()
    assert ("a_tag" if server.flavor is Flavor.MYSQL else ",7-") in tagged
    owner.execute("INSERT INTO t VALUES (2, 'a')")
    owner.execute(
        "SET gtid_next = 'AUTOMATIC'" if server.flavor is Flavor.MYSQL else "SET SESSION gtid_domain_id = 0"
    )
    owner.execute("INSERT INTO t VALUES (3, 'a')")
    assert ids(read_now(server, schema, start)) == [1, 2, 3]
    assert ids(read_now(server, schema, tagged)) == [2, 3]
    assert current_position(owner, server.flavor) == str(Position.parse(server.flavor, server.position()))


def test_a_feed_stops_from_another_thread(server: TestServer, schema: str, owner: Connection) -> None:
    feed = feed_from(server, schema, server.position())
    raised: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                feed.read_batch(10, 300.0)
        except StoppedError as error:
            raised.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    owner.execute("INSERT INTO t VALUES (1, 'a')")
    feed.stop()
    thread.join(60)
    assert not thread.is_alive()
    assert len(raised) == 1
    with pytest.raises(StoppedError):
        feed.read_batch(10, 1.0)
    feed.close()


@pytest.mark.parametrize(
    ("setting", "statement", "message"),
    [
        ("binlog_row_image = MINIMAL", "UPDATE t SET v = 'x'", "binlog_row_image=FULL"),
        ("binlog_row_image = NOBLOB", "UPDATE t SET b = 'x'", "binlog_row_image=FULL"),
        ("binlog_format = STATEMENT", "UPDATE t SET v = 'x'", "binlog_format=ROW"),
        ("binlog_format = STATEMENT", "DELETE FROM t", "binlog_format=ROW"),
    ],
)
def test_rows_that_are_not_whole_are_refused(
    server: TestServer, schema: str, owner: Connection, setting: str, statement: str, message: str
) -> None:
    owner.execute("ALTER TABLE t ADD COLUMN b TEXT")
    owner.execute("INSERT INTO t VALUES (1, 'a', 'b')")
    start = server.position()
    owner.execute("INSERT INTO t VALUES (2, 'a', 'b')")
    owner.execute(f"SET SESSION {setting}")
    owner.execute(statement)
    with feed_from(server, schema, start) as feed:
        first = feed.read_batch(100, 60.0)
        with pytest.raises(UnsupportedLogError, match=message):
            batches_until(feed, server.flavor, server.position())
        assert ids(first.changes) == [2]
        whole = Position.parse(server.flavor, server.position())
        assert not Position.parse(server.flavor, feed.position).contains(whole)
        with pytest.raises(UnsupportedLogError, match=message):
            feed.read_batch(100, 60.0)


def test_parts_of_json_are_refused(server: TestServer, schema: str, owner: Connection) -> None:
    if server.flavor is not Flavor.MYSQL:
        pytest.skip("MariaDB has no partial JSON")
    owner.execute("SET NAMES utf8mb4")
    owner.execute("CREATE TABLE j (id INT PRIMARY KEY, d JSON)")
    owner.execute("INSERT INTO j VALUES (1, JSON_OBJECT('a', 1, 'b', REPEAT('x', 1000)))")
    start = server.position()
    owner.execute("SET SESSION binlog_row_value_options = PARTIAL_JSON")
    owner.execute("UPDATE j SET d = JSON_SET(d, '$.a', 2)")
    with (
        Feed(server.endpoint(MOVER), start, wanted(server, schema, "j")) as feed,
        pytest.raises(UnsupportedLogError, match="binlog_row_value_options=''"),
    ):
        batches_until(feed, server.flavor, server.position())
    # Where the table is not wanted it does not matter.
    assert read_now(server, schema, start) == []


def test_a_statement_of_other_schemas_passes(server: TestServer, schema: str, owner: Connection) -> None:
    server.create_schema("feed_elsewhere")
    owner.execute("CREATE TABLE feed_elsewhere.s (id INT PRIMARY KEY)")
    start = server.position()
    with Connection(server.endpoint(), schema="feed_elsewhere") as other:
        other.execute("SET SESSION binlog_format = STATEMENT")
        other.execute("INSERT INTO s VALUES (1)")
    owner.execute("INSERT INTO t VALUES (1, 'a')")
    assert ids(read_now(server, schema, start)) == [1]
    server.drop_schema("feed_elsewhere")


def test_an_account_that_may_not_read_the_log(server: TestServer, schema: str, owner: Connection) -> None:
    del owner
    with feed_from(server, schema, server.position(), BackendRole.READER) as feed:
        for _ in range(2):
            with pytest.raises(ServerError) as caught:
                feed.read_batch(10, 60.0)
            assert caught.value.server_errno == 1227


def test_virtual_and_hidden_columns(server: TestServer, schema: str, owner: Connection) -> None:
    """Generated, invisible and unnamed columns: an image has what SELECT of the known columns has."""
    owner.execute(
        "CREATE TABLE g (id INT PRIMARY KEY, a INT, v INT AS (a * 2) VIRTUAL, s INT AS (a * 3) STORED, "
        "i INT INVISIBLE DEFAULT 4, INDEX (v))"
    )
    if server.flavor is Flavor.MYSQL:
        owner.execute("CREATE INDEX f ON g ((a + 1))")
    start = server.position()
    owner.execute("INSERT INTO g (id, a) VALUES (1, 5), (2, NULL)")
    owner.execute("UPDATE g SET a = 6 WHERE id = 1")
    owner.execute("DELETE FROM g WHERE id = 2")
    tables = wanted(server, schema, "g")
    columns = ", ".join(column.name for column in tables[schema, "g"].columns)
    with Feed(server.endpoint(MOVER), start, tables) as feed:
        found = apply(changes_of(batches_until(feed, server.flavor, server.position())))
    assert list(found[schema, "g"].values()) == owner.query_all(f"SELECT {columns} FROM g")


def test_names_in_any_language(server: TestServer, schema: str, owner: Connection) -> None:
    owner.execute("CREATE TABLE `tä ``b.€` (`schlüssel` INT PRIMARY KEY, `a b` INT)")
    tables = wanted(server, schema, "tä `b.€")
    with Feed(server.endpoint(MOVER), server.position(), tables) as feed:
        owner.execute("INSERT INTO `tä ``b.€` VALUES (1, 2)")
        owner.execute("ALTER TABLE `tä ``b.€` ADD z INT")
        batches = batches_until(feed, server.flavor, server.position())
    assert changes_of(batches) == [((schema, "tä `b.€"), None, (b"1", b"2"))]
    assert [ddl.tables for ddl in ddl_of(batches)] == [{(schema, "tä `b.€")}]


def test_a_row_of_many_packets(server: TestServer, schema: str, owner: Connection) -> None:
    """Larger than any packet, and than what arrives at once."""
    owner.execute("CREATE TABLE big (id INT PRIMARY KEY, b LONGBLOB)")
    start = server.position()
    owner.execute("INSERT INTO big VALUES (1, 'x')")
    for _ in range(23):
        owner.execute("UPDATE big SET b = CONCAT(b, b) WHERE id = 1 AND LENGTH(b) < 5000000")
    tables = wanted(server, schema, "big")
    with Feed(server.endpoint(MOVER), start, tables) as feed:
        changes = changes_of(batches_until(feed, server.flavor, server.position(), max_events=3))
    assert [len(after[1] or b"") for _, _, after in changes if after] == [1 << n for n in range(24)]
