"""Groups of the log: what is given when, and which position goes with it; the rare and the broken."""

from __future__ import annotations

from struct import pack

import pytest

from homeworld.model.errors import (
    HomeworldError,
    MalformedPacketError,
    SchemaDriftError,
    SourceLogError,
    UnsupportedLogError,
)
from homeworld.model.gtid import Position
from homeworld.model.tables import Column, Table
from homeworld.model.topology import Flavor
from homeworld.replication.changes import RowChange
from homeworld.replication.transactions import Pause, Transactions
from homeworld.wire.binlog import Event, EventType

UUID = "00000000-0000-0000-0000-000000000001"
NAME = ("s", "t")
ID = Column("id", "int", "int", False, False, "", "", False, False, False)
TABLE = Table("t", (ID,), (), None, "InnoDB", "", 0, 0)
XID_BYTES = b"\x01\0\0\0\x01\0x"


def event(kind: int, body: bytes = b"", flags: int = 0, server: int = 9) -> Event:
    return int(kind), 1000, server, flags, 0, body, 0, len(body)


def gtid(number: int) -> Event:
    return event(EventType.GTID, pack("<B16sq", 0, bytes(15) + b"\x01", number))


def domain_gtid(number: int, flags: int, domain: int = 0) -> Event:
    xid = XID_BYTES if flags & 0xC0 else b""
    return event(EventType.MARIADB_GTID, pack("<QIB", number, domain, flags) + xid + bytes(6))


def query(sql: str, schema: str = "s") -> Event:
    name = schema.encode()
    return event(EventType.QUERY, pack("<IIBHH", 1, 0, len(name), 0, 0) + name + b"\0" + sql.encode())


def load(schema: str) -> Event:
    """LOAD DATA by statement: a query with numbers of its own in its head."""
    _, _, _, _, _, body, _, _ = query("LOAD DATA INFILE 'x' INTO TABLE t", schema)
    return event(EventType.EXECUTE_LOAD_QUERY, body[:13] + bytes(13) + body[13:])


def table_map(table: str = "t", number: int = 5) -> Event:
    name = table.encode()
    body = number.to_bytes(6, "little") + b"\1\0" + b"\1s\0" + bytes((len(name),)) + name + b"\0"
    return event(EventType.TABLE_MAP, body + b"\1\3\0\0")


def insert(*ids: int, number: int = 5) -> Event:
    rows = b"".join(b"\0" + pack("<i", found) for found in ids)
    return event(EventType.WRITE_ROWS, number.to_bytes(6, "little") + b"\1\0\2\0" + b"\1\1" + rows)


XID = event(EventType.XID, bytes(8))
PREPARE = event(EventType.XA_PREPARE, b"\0\1\0\0\0\1\0\0\0\0\0\0\0x")


def transactions(flavor: Flavor = Flavor.MYSQL, start: str = "") -> Transactions:
    return Transactions(Position.parse(flavor, start), {NAME: TABLE})


def ids(changes: list[RowChange]) -> list[int]:
    return [int(after[0] or 0) for _, _, after in changes if after is not None]


def run(found: Transactions, *events: Event, limit: int = 100) -> Pause:
    found.feed(events)
    return found.run(limit)


def test_a_group_counts_when_it_is_complete() -> None:
    found = transactions()
    assert run(found, gtid(1), query("BEGIN"), table_map(), insert(1, 2)) is Pause.EMPTY
    assert (found.changes, found.progress.text(), found.holding) == ([], "", True)
    run(found, insert(3), XID)
    assert ids(found.changes) == [1, 2, 3]
    assert (found.progress.text(), found.holding) == (f"{UUID}:1", False)


def test_commit_as_a_statement_ends_a_group_too() -> None:
    found = transactions()
    run(found, gtid(1), query("BEGIN"), table_map(), insert(1), query("COMMIT"))
    assert (ids(found.changes), found.progress.text()) == ([1], f"{UUID}:1")


def test_a_rolled_back_group_counts_without_its_rows() -> None:
    found = transactions()
    run(found, gtid(1), query("BEGIN"), table_map(), insert(1), query("ROLLBACK"))
    assert (found.changes, found.progress.text(), found.void) == ([], f"{UUID}:1", False)


def test_savepoints() -> None:
    found = transactions()
    run(
        found, gtid(1), query("BEGIN"), table_map(), insert(1), query("SAVEPOINT `A`"), insert(2),
        query("SAVEPOINT b"), insert(3), query("ROLLBACK TO `a`"), insert(4),
        query("RELEASE SAVEPOINT a"), XID,
    )  # fmt: skip
    assert ids(found.changes) == [1, 4]


def test_a_savepoint_in_a_part_already_given_is_refused() -> None:
    found = transactions()
    assert (
        run(found, gtid(1), query("BEGIN"), table_map(), query("SAVEPOINT a"), insert(1, 2), limit=1)
        is Pause.FULL
    )
    assert ids(found.take_part()) == [1, 2]
    with pytest.raises(UnsupportedLogError, match="larger than a batch"):
        run(found, query("ROLLBACK TO a"))


def test_a_large_group_in_parts() -> None:
    found = transactions()
    assert (
        run(found, gtid(1), query("BEGIN"), table_map(), insert(1, 2), insert(3), XID, limit=1) is Pause.FULL
    )
    assert found.part_waits(1)
    assert ids(found.take_part()) == [1, 2]
    assert found.progress.text() == ""
    assert found.run(1) is Pause.FULL
    assert (ids(found.changes), found.progress.text()) == ([3], f"{UUID}:1")


def test_what_ends_a_group_given_in_parts_without_commit_is_told() -> None:
    for end in (query("ROLLBACK"), event(EventType.FORMAT_DESCRIPTION, bytes(60))):
        found = transactions()
        run(found, gtid(1), query("BEGIN"), table_map(), insert(1, 2), limit=1)
        found.take_part()
        run(found, end)
        assert found.void
    found = transactions()
    run(found, gtid(1), query("BEGIN"), table_map(), insert(1, 2), limit=1)
    found.take_part()
    found.restart()
    assert (found.void, found.holding) == (True, False)


def test_a_group_cut_off_by_a_new_log_does_not_count() -> None:
    found = transactions()
    run(
        found, gtid(1), query("BEGIN"), table_map(), insert(1), event(EventType.FORMAT_DESCRIPTION, bytes(60))
    )
    run(found, gtid(1), query("BEGIN"), table_map(), insert(2), XID)
    assert (ids(found.changes), found.progress.text()) == ([2], f"{UUID}:1")


def test_other_tables_only_move_the_position() -> None:
    found = transactions()
    run(found, gtid(1), query("BEGIN"), table_map("other"), insert(1), XID)
    assert (found.changes, found.moved, found.progress.text()) == ([], True, f"{UUID}:1")


def test_a_prepared_transaction_waits_for_its_decision_and_leaves_a_hole() -> None:
    found = transactions()
    run(
        found,
        gtid(1),
        query("XA START X'78',X'',1"),
        table_map(),
        insert(1),
        query("XA END X'78',X'',1"),
        PREPARE,
    )
    run(found, gtid(2), query("BEGIN"), table_map(), insert(2), XID)
    assert (ids(found.changes), found.progress.text()) == ([2], f"{UUID}:2")
    run(found, gtid(3), query("XA COMMIT X'78',X'',1"))
    assert (ids(found.changes), found.progress.text()) == ([2, 1], f"{UUID}:1-3")


def test_a_prepared_transaction_rolled_back() -> None:
    found = transactions()
    run(
        found,
        gtid(1),
        query("XA START X'78',X'',1"),
        table_map(),
        insert(1),
        query("XA END X'78',X'',1"),
        PREPARE,
    )
    run(found, gtid(2), query("XA ROLLBACK X'78',X'',1"))
    assert (found.changes, found.progress.text()) == ([], f"{UUID}:1-2")


def test_a_prepared_transaction_is_never_given_in_parts() -> None:
    found = transactions()
    assert run(found, gtid(1), query("XA START 'x'"), table_map(), insert(1, 2, 3), limit=2) is Pause.EMPTY
    assert not found.part_waits(2)


def test_one_phase_commits() -> None:
    found = transactions()
    one_phase = event(EventType.XA_PREPARE, b"\1\1\0\0\0\1\0\0\0\0\0\0\0x")
    run(found, gtid(1), query("XA START 'x'"), table_map(), insert(1), query("XA END 'x'"), one_phase)
    assert (ids(found.changes), found.progress.text()) == ([1], f"{UUID}:1")


def test_a_commit_of_what_was_prepared_before_the_start_is_refused() -> None:
    with pytest.raises(UnsupportedLogError, match="prepared before the stream began"):
        run(transactions(), gtid(1), query("XA COMMIT X'78',X'',1"))
    found = transactions()
    run(found, gtid(1), query("XA ROLLBACK X'78',X'',1"))
    assert found.progress.text() == f"{UUID}:1"


def test_mariadb_groups() -> None:
    found = transactions(Flavor.MARIADB, "0-1-1")
    run(found, domain_gtid(2, 0), table_map(), insert(1), XID)
    run(found, domain_gtid(3, 1), query("GRANT ALL ON x.* TO y"))
    run(found, domain_gtid(1, 0, domain=4), table_map("other"), insert(2), query("COMMIT"))
    assert (ids(found.changes), found.progress.text()) == ([1], "0-9-3,4-9-1")


def test_mariadb_refuses_prepared_rows_of_wanted_tables_only() -> None:
    found = transactions(Flavor.MARIADB)
    run(found, domain_gtid(1, 64), table_map("other"), insert(1), query("XA END 'x'"), PREPARE)
    found.restart()
    run(found, domain_gtid(2, 128 | 1), query("XA COMMIT 'x'"))
    assert found.progress.text() == "0-9-2"
    with pytest.raises(UnsupportedLogError, match="XA transaction changed moving tables"):
        run(found, domain_gtid(3, 64), table_map(), insert(1), query("XA END 'x'"), PREPARE)


def test_a_ddl_ends_the_batch_and_the_table_is_strange_until_it_is_told() -> None:
    found = transactions()
    sequence = (
        gtid(1),
        query("ALTER TABLE t ADD c int"),
        gtid(2),
        query("BEGIN"),
        table_map(),
        insert(1),
        XID,
    )
    assert run(found, *sequence) is Pause.DDL
    assert found.ddl is not None
    assert (found.ddl.tables, found.ddl.position_before, found.progress.text()) == ({NAME}, "", f"{UUID}:1")
    found.ddl = None
    with pytest.raises(SchemaDriftError):
        found.run(100)
    found = transactions()
    run(found, *sequence)
    found.ddl = None
    found.set_tables({NAME: TABLE})
    found.run(100)
    assert ids(found.changes) == [1]


def test_truncate_leaves_the_shape() -> None:
    found = transactions()
    assert (
        run(found, gtid(1), query("TRUNCATE t"), gtid(2), query("BEGIN"), table_map(), insert(1), XID)
        is Pause.DDL
    )
    assert found.ddl is not None
    assert found.ddl.truncates
    found.ddl = None
    found.run(100)
    assert ids(found.changes) == [1]


@pytest.mark.parametrize(
    ("sql", "schema", "touches"),
    [
        ("ALTER TABLE t ADD x int", "s", True),
        ("ALTER TABLE T ADD x int", "S", True),
        ("ALTER TABLE t ADD x int", "elsewhere", False),
        ("ALTER TABLE s.t ADD x int", "elsewhere", True),
        ("DROP TABLE other, s.t", "elsewhere", True),
        ("RENAME TABLE elsewhere.x TO s.t", "elsewhere", True),
        ("DROP DATABASE s", "", True),
        ("DROP DATABASE other", "s", False),
        ("CREATE TABLE other AS SELECT * FROM t", "s", False),
        ("FROBNICATE t", "s", True),
        ("FROBNICATE t", "elsewhere", False),
        ("FROBNICATE s.t", "elsewhere", True),
        ("CREATE TRIGGER x AFTER INSERT ON t FOR EACH ROW SET @a = 1", "s", False),
    ],
)
def test_which_ddl_touches(sql: str, schema: str, touches: bool) -> None:
    found = transactions()
    run(found, gtid(1), query(sql, schema))
    assert (found.ddl is not None) == touches
    assert found.progress.text() == f"{UUID}:1"


@pytest.mark.parametrize(
    ("sql", "charset", "touches"),
    [
        ("ALTER TABLE tä ADD x int".encode(), 33, True),
        ("ALTER TABLE tä ADD x int".encode("latin-1"), 8, True),
        ("ALTER TABLE tä ADD x int".encode(), 8, True),  # written by the server
        ("ALTER TABLE to ADD x int /* ä */".encode("latin-1"), 8, False),
        (b"ALTER TABLE t\xff ADD x int", 33, True),  # who knows
    ],
)
def test_ddl_in_other_character_sets(sql: bytes, charset: int, touches: bool) -> None:
    found = Transactions(Position.parse(Flavor.MYSQL, ""), {("s", "tä"): TABLE})
    status = b"\x04" + pack("<HHH", charset, charset, charset)
    body = pack("<IIBHH", 1, 0, 1, 0, len(status)) + status + b"s\0" + sql
    run(found, gtid(1), event(EventType.QUERY, body))
    assert (found.ddl is not None) == touches
    assert found.progress.text() == f"{UUID}:1"


def test_mariadb_logs_a_long_alter_twice_and_it_counts_once() -> None:
    found = transactions(Flavor.MARIADB)
    start = event(EventType.MARIADB_GTID, pack("<QIB", 1, 0, 41) + b"\2" + bytes(5))
    commit = event(EventType.MARIADB_GTID, pack("<QIB", 2, 0, 41) + b"\4" + pack("<Q", 1))
    assert run(found, start, query("ALTER TABLE t ADD x int")) is Pause.EMPTY
    assert run(found, commit, query("ALTER TABLE t ADD x int")) is Pause.DDL


@pytest.mark.parametrize(
    ("events", "error", "message"),
    [
        ((event(EventType.ANONYMOUS_GTID, bytes(30)),), UnsupportedLogError, "gtid_mode=ON"),
        (
            (gtid(1), query("BEGIN"), query("INSERT INTO t VALUES (1)")),
            UnsupportedLogError,
            "binlog_format=ROW",
        ),
        ((gtid(1), query("BEGIN"), query("SELECT f()")), UnsupportedLogError, "binlog_format=ROW"),
        ((gtid(1), query("BEGIN"), load("s")), UnsupportedLogError, "binlog_format=ROW"),
        (
            (gtid(1), query("BEGIN"), table_map(), event(EventType.PARTIAL_UPDATE_ROWS, b"\5" + bytes(20))),
            UnsupportedLogError,
            "binlog_row_value_options=''",
        ),
        ((event(EventType.INCIDENT, b"\1\0\4lost"),), SourceLogError, "incident 1: lost"),
        ((event(99, b""),), UnsupportedLogError, "type 99"),
        ((gtid(1), query("BEGIN"), gtid(2)), MalformedPacketError, "before the one before has ended"),
        ((XID,), MalformedPacketError, "no transaction is open"),
        ((gtid(1), query("BEGIN"), insert(1)), MalformedPacketError, "not described"),
        ((gtid(1), query("BEGIN"), query("ROLLBACK TO a")), MalformedPacketError, "savepoint"),
        ((query("BEGIN x"),), MalformedPacketError, "outside a transaction"),
    ],
)
def test_refusals(events: tuple[Event, ...], error: type[HomeworldError], message: str) -> None:
    found = transactions()
    with pytest.raises(error, match=message):
        run(found, *events)
    assert (found.changes, found.progress.text()) == ([], "")


def test_what_concerns_other_tables_is_passed_over() -> None:
    found = transactions()
    run(found, gtid(1), query("BEGIN", "x"), query("INSERT INTO a VALUES (1)", "x"), query("COMMIT", "x"))
    partial = event(EventType.PARTIAL_UPDATE_ROWS, b"\5" + bytes(20))
    run(found, gtid(2), query("BEGIN"), table_map("other"), partial, XID)
    run(found, gtid(3), query("BEGIN", "x"), load("x"), query("COMMIT", "x"))
    run(found, event(EventType.HEARTBEAT), event(EventType.ROTATE, bytes(9)), event(98, b"", flags=0x80))
    assert found.progress.text() == f"{UUID}:1-3"


def test_an_unreadable_statement_inside_a_group_never_promotes_its_gtid() -> None:
    found = transactions()
    run(found, gtid(1), query("BEGIN"), table_map(), insert(1), query("((( what"))
    assert (found.changes, found.progress.text(), found.holding) == ([], "", True)
    run(found, insert(2), XID)
    assert (ids(found.changes), found.progress.text()) == ([1, 2], f"{UUID}:1")


def test_large_rows_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    body = insert(1, 2)[7]
    monkeypatch.setattr("homeworld.replication.transactions.MOST_BYTES", 3 * body)
    found = transactions()
    groups = [
        each for n in range(8) for each in (gtid(n + 1), query("BEGIN"), table_map(), insert(n, n), XID)
    ]
    assert run(found, *groups) is Pause.FULL
    assert len(found.changes) == 6, "with the rows of a fourth group they are too much"
    found.changes.clear()
    found.size = 0
    assert found.run(100) is Pause.FULL
    assert len(found.changes) == 8
    # The same within one group: it is given in parts.
    one = transactions()
    rows = [insert(n, n) for n in range(8)]
    assert run(one, gtid(1), query("BEGIN"), table_map(), *rows, XID) is Pause.FULL
    assert (len(one.take_part()), one.size) == (8, 0)
    assert one.run(100) is Pause.FULL
    assert len(one.take_part()) == 8
    assert one.run(100) is Pause.EMPTY
    assert one.progress.text() == f"{UUID}:1"
