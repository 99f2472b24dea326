"""What events say, on bytes captured from real servers and on broken ones."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeworld.model.errors import MalformedPacketError
from homeworld.model.gtid import MysqlPosition, Position
from homeworld.model.topology import Flavor
from homeworld.wire import binlog_events as events
from homeworld.wire.binlog_dump import announcements, dump_command, encode_gtid_set
from homeworld.wire.binlog_rows import read_rows_head, read_table_id, read_table_map
from homeworld.wire.constants import Type

UUID = bytes.fromhex("e05edc8ee95911f182a102fc00000001")


def test_mysql_gtid() -> None:
    body = b"\x01" + UUID + (15).to_bytes(8, "little") + b"\x02" + bytes(16)
    assert events.read_gtid(body, 0, len(body)) == (UUID, 15)
    with pytest.raises(MalformedPacketError):
        events.read_gtid(body, 0, 20)


# MySQL 9.7, gtid_next='AUTOMATIC:tag_a'.
TAGGED = bytes.fromhex(
    "0276000000028103bc71033902a503b222c50309028502" + "04f103000000020404060a7461675f61085c0a60"
    "0c7f48dab3392761061" + "0c9051283120b"
)


def test_mysql_tagged_gtid() -> None:
    assert events.read_tagged_gtid(TAGGED, 0, len(TAGGED)) == (UUID, "tag_a", 1)


@given(st.integers(0, len(TAGGED) - 1), st.integers(0, 255))
def test_a_broken_tagged_gtid_is_refused_or_read(at: int, byte: int) -> None:
    broken = TAGGED[:at] + bytes((byte,)) + TAGGED[at + 1 :]
    try:
        uuid, _, number = events.read_tagged_gtid(broken, 0, len(broken))
    except MalformedPacketError:
        return
    assert len(uuid) == 16
    assert number > 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0e000000000000000000000029000000000000", events.MariadbGtid(0, 14, 41)),
        # XA PREPARE of 'abc','de',3, and its XA COMMIT.
        ("1300000000000000000000004c030000000302616263646501ff", (0, 19, b"\x03\0\0\0\x03\x02abcde", 0)),
        ("1400000000000000000000008d0300000003026162636465", (0, 20, b"\x03\0\0\0\x03\x02abcde", 0)),
        # ALTER TABLE in two phases: its start and its commit.
        ("aa000000000000000000000029020000000000", events.MariadbGtid(0, 170, 41, b"", events.START_ALTER)),
        (
            "ab00000000000000000000002904aa00000000000000",
            events.MariadbGtid(0, 171, 41, b"", events.COMMIT_ALTER),
        ),
        # In a group commit the id of the group stands in front.
        ("05000000000000000100000006" + "2100000000000000", events.MariadbGtid(1, 5, 6)),
    ],
)
def test_mariadb_gtid(text: str, expected: object) -> None:
    body = bytes.fromhex(text)
    found = events.read_mariadb_gtid(body, 0, len(body))
    if isinstance(expected, tuple):
        assert (found.domain, found.sequence, found.xid, found.alter) == expected
    else:
        assert found == expected


# MySQL 9.7 and MariaDB 10.11: INSERT under NAMES binary in schema t.
QUERY_HEAD = (
    b"\x0e\0\0\0\0\0\0\0\x01\0\0\x1d\0\0\0\0\0\x04\x01\0\0\x08B\0\0\0\0\x06\x03std\x04?\0?\0\xff\0\x12\xff\0"
)


def test_query() -> None:
    body = QUERY_HEAD + b"t\0SAVEPOINT `q`"
    assert events.read_query(body, 0, len(body)) == events.Query(b"t", b"SAVEPOINT `q`", 63)
    packed = zlib.compress(b"x" * 300)
    body = QUERY_HEAD + b"t\0" + b"\x82" + (300).to_bytes(2, "big") + packed
    assert events.read_query(body, 0, len(body), compressed=True).sql == b"x" * 300


# Of ALTER TABLE on both, with the setting ON in one session and OFF in another; MySQL's with a time zone, a
# definer, two schemas named, or too many, and microseconds.
_MYSQL = "00000000000100000000000000000603737464"
STATUS = {
    "MariaDB": (f"{_MYSQL[:8]}01{_MYSQL[10:]}042d002d002d00812400000000000000", True),
    "MariaDB, OFF": (f"{_MYSQL}042d002d002d0005062b30303a3030815600000000000000", False),
    "MySQL": (f"{_MYSQL}04ff00ff00ff000c017800100111260000000000000012ff001300", True),
    "MySQL, OFF": (f"{_MYSQL}04ff00ff00ff000c017800100011570000000000000012ff001300", False),
    "MySQL, long": (f"{_MYSQL}04ff00ff00ff0005062b30303a30300b0172000c02780079000d0102031001", True),
    "MySQL, many": (f"{_MYSQL}04ff00ff00ff0007010008ff000901000000000000000cfe1001", True),
    "no word": (f"{_MYSQL}04ff00ff00ff000c01780011340000000000000012ff00", False),
    "unknown": (f"{_MYSQL}04ff00ff00ff00631001", False),
}


@pytest.mark.parametrize(("status", "explicit"), STATUS.values(), ids=STATUS)
def test_whether_timestamps_are_explicit(status: str, *, explicit: bool) -> None:
    said = bytes.fromhex(status)
    body = (
        bytes(8) + b"\x01\0\0" + len(said).to_bytes(2, "little") + said + b"t\0ALTER TABLE t ADD a TIMESTAMP"
    )
    found = events.read_query(body, 0, len(body))
    assert found.explicit_timestamps is explicit
    assert (found.schema, found.charset) == (b"t", int.from_bytes(said[20:21], "little"))


@pytest.mark.parametrize(
    "broken",
    [b"", b"\x82", b"\x02\x00\x05", b"\x91\x05aaaaa", b"\x81\x06" + zlib.compress(b"12345"), b"\x81\x05zz"],
)
def test_broken_compression(broken: bytes) -> None:
    with pytest.raises(MalformedPacketError):
        events.uncompress(broken)


def test_xa_prepare() -> None:
    body = bytes.fromhex("000300000003000000020000006162636465")
    assert events.read_xa_prepare(body, 0, len(body)) == (False, b"\x03\0\0\0\x03\x02abcde")
    body = bytes.fromhex("01010000000300000000000000616263")
    assert events.read_xa_prepare(body, 0, len(body)) == (True, b"\x01\0\0\0\x03\0abc")


def test_rotate_and_incident() -> None:
    assert events.read_rotate(bytes((4, 0, 0, 0, 0, 0, 0, 0)) + b"binlog.000002", 0, 21) == (
        "binlog.000002",
        4,
    )
    body = b"\x01\x00\x05lost!"
    assert events.read_incident(body, 0, len(body)) == "incident 1: lost!"


# MySQL 9.7: (id int unsigned primary key, e enum('x','y'), s set('a','b','c'), b bit(10), c char(5),
# bb binary(6), y year, f float, d decimal(20,5), vc varchar(300), g int as (…), h int as (…)), FULL metadata.
TABLE_MAP = bytes.fromhex(
    "6c00000000000100017400016100" + "0c03fefe10fefe0d04f60f0303"
    "0ff701f8010201fe14fe06041405b004fe0f0101c00205fcff00013f041b02696401650173016201630262620179016601640276630167"
    "0168" + "0a03fcff00050703016101620163060502017801790801000c02fff0"
)


def test_table_map() -> None:
    found = read_table_map(TABLE_MAP, 0, len(TABLE_MAP))
    assert read_table_id(TABLE_MAP, 0) == 0x6C
    assert (found.schema, found.table) == ("t", "a")
    assert [column.name for column in found.columns] == ["id", *"esbc", "bb", *"yfd", "vc", *"gh"]
    assert [column.type for column in found.columns] == [
        Type.LONG, Type.ENUM, Type.SET, Type.BIT, Type.STRING, Type.STRING, Type.YEAR, Type.FLOAT,
        Type.NEWDECIMAL, Type.VARCHAR, Type.LONG, Type.LONG,
    ]  # fmt: skip
    assert [column.nullable for column in found.columns] == [False] + [True] * 11
    assert found.columns[1].labels == (b"x", b"y")
    assert found.columns[2].labels == (b"a", b"b", b"c")
    assert [column.unsigned for column in found.columns] == [
        True, None, None, None, None, None, True, False, False, None, False, False,
    ]  # fmt: skip
    assert [column.meta for column in found.columns] == [0, 1, 1, 258, 20, 6, 0, 4, 0x1405, 1200, 0, 0]


@given(st.integers(0, len(TABLE_MAP) - 1), st.integers(0, 255))
def test_a_broken_table_map_is_refused_or_read(at: int, byte: int) -> None:
    broken = TABLE_MAP[:at] + bytes((byte,)) + TABLE_MAP[at + 1 :]
    try:
        found = read_table_map(broken, 0, len(broken))
    except MalformedPacketError:
        return
    assert all(column.type >= 0 for column in found.columns)


def test_a_char_longer_than_a_byte_hides_its_length_in_the_type() -> None:
    body = bytes(8) + b"\x01t\0\x01a\0" + b"\x01\xfe" + b"\x02" + bytes((0xFE & ~0x30 | 0x00, 0xFC)) + b"\x01"
    found = read_table_map(body, 0, len(body))
    assert (found.columns[0].type, found.columns[0].meta) == (Type.STRING, 0x3FC)


def test_rows_head() -> None:
    body = bytes.fromhex("6c0000000000130002000c" + "ffff" + "0000")
    assert read_rows_head(body, 0, extra_head=True, two_images=False) == (12, 19, True, 13)
    body = bytes.fromhex("160000000000" + "8300" + "0c" + "ff0f" + "ff07")
    assert read_rows_head(body, 0, extra_head=False, two_images=True) == (12, 0x83, False, 13)
    body = bytes.fromhex("160000000000" + "0100" + "fc0001") + b"\xff" * 32
    assert read_rows_head(body, 0, extra_head=False, two_images=False) == (256, 1, True, 43)


def test_gtid_sets_in_the_dump_command() -> None:
    plain = Position.parse(Flavor.MYSQL, "00000000-0000-0000-0000-00000000000a:1-5:9")
    assert isinstance(plain, MysqlPosition)
    assert encode_gtid_set(plain).hex() == (
        "0100000000000000" + "0000000000000000000000000000000a" + "0200000000000000"
        "0100000000000000" + "0600000000000000" + "0900000000000000" + "0a00000000000000"
    )
    tagged = Position.parse(Flavor.MYSQL, "00000000-0000-0000-0000-00000000000a:3:ab:1")
    assert isinstance(tagged, MysqlPosition)
    assert encode_gtid_set(tagged).hex() == (
        "0102000000000001"
        "0000000000000000000000000000000a" + "00" + "0100000000000000"
        "0300000000000000" + "0400000000000000"
        "0000000000000000000000000000000a" + "046162" + "0100000000000000"
        "0100000000000000" + "0200000000000000"
    )  # fmt: skip
    empty = Position.parse(Flavor.MYSQL, "")
    assert dump_command(empty, 5)[-12:] == (8).to_bytes(4, "little") + bytes(8)


def test_a_mariadb_replica_says_its_position_in_a_variable() -> None:
    position = Position.parse(Flavor.MARIADB, "0-1-5,2-3-4")
    said = announcements(position, heartbeat_seconds=0.5, replica_uuid="")
    assert "SET @slave_connect_state = '0-1-5,2-3-4'" in said
    assert "SET @master_heartbeat_period = 500000000" in said
    assert dump_command(position, 7) == b"\x12\x04\0\0\0\0\0\x07\0\0\0"
