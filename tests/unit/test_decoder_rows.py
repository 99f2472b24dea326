"""The generated row decoder: any columns, any NULLs, and every way in which a table can have drifted."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homeworld.model.errors import MalformedPacketError, SchemaDriftError, UnsupportedLogError
from homeworld.model.tables import Column, Table
from homeworld.replication.changes import Row
from homeworld.replication.column_types import labels_of, select_expression
from homeworld.replication.decoder import RowDecoder
from homeworld.replication.row_parser import RowStream
from homeworld.wire.binlog_rows import MapColumn, TableMap
from homeworld.wire.constants import Cap, Type
from homeworld.wire.packets import frame, lenenc, lenenc_int


def column(name: str, kind: str, declared: str = "", charset: str = "", *, unsigned: bool = False) -> Column:
    return Column(
        name=name, type=kind, column_type=declared or kind, unsigned=unsigned, nullable=True, charset=charset,
        collation="", generated=False, auto_increment=False, invisible=False,
    )  # fmt: skip


def table(*columns: Column) -> Table:
    return Table("t", columns, (), None, "InnoDB", "", 0, 0)


def tiny(number: int) -> tuple[bytes, object]:
    value = number % 256 - 128
    return struct.pack("<b", value), value


def medium(number: int) -> tuple[bytes, object]:
    value = number % (1 << 24) - (1 << 23)
    return value.to_bytes(3, "little", signed=True), value


# (known column, logged column, how a number becomes (packed, text))
KINDS: dict[str, tuple[Column, MapColumn, Callable[[int], tuple[bytes, object]]]] = {
    "tiny": (column("c", "tinyint"), MapColumn(Type.TINY, 0), tiny),
    "int": (
        column("c", "int", unsigned=True),
        MapColumn(Type.LONG, 0),
        lambda n: (struct.pack("<I", n), n),
    ),
    "medium": (column("c", "mediumint"), MapColumn(Type.INT24, 0), medium),
    "zerofill": (
        column("c", "bigint", "bigint(20) unsigned zerofill", unsigned=True),
        MapColumn(Type.LONGLONG, 0),
        lambda n: (struct.pack("<Q", n), f"{n:020d}"),
    ),
    "varchar": (
        column("c", "varchar"),
        MapColumn(Type.VARCHAR, 200),
        lambda n: (bytes((len(str(n)),)) + str(n).encode(), n),
    ),
    "long varchar": (
        column("c", "varchar"),
        MapColumn(Type.VARCHAR, 300),
        lambda n: (struct.pack("<H", 300) + str(n).encode().rjust(300), str(n).rjust(300)),
    ),
    "binary": (
        column("c", "binary"),
        MapColumn(Type.STRING, 12),
        lambda n: (bytes((len(str(n)),)) + str(n).encode(), str(n).ljust(12, "\0")),
    ),
    "enum": (
        column("c", "enum", "enum('a','b','c')", "utf8mb4"),
        MapColumn(Type.ENUM, 1),
        lambda n: (bytes((n % 4,)), ("", "a", "b", "c")[n % 4]),
    ),
    "set": (
        column("c", "set", "set('a','b','c')", "utf8mb4"),
        MapColumn(Type.SET, 1),
        lambda n: (bytes((n % 8,)), ",".join(c for i, c in enumerate("abc") if n >> i & 1)),
    ),
    "blob": (
        column("c", "longblob"),
        MapColumn(Type.BLOB, 3),
        lambda n: (len(str(n)).to_bytes(3, "little") + str(n).encode(), n),
    ),
}  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), min_size=1, max_size=24),
    st.lists(
        st.lists(st.integers(0, (1 << 32) - 1) | st.none(), min_size=24, max_size=24), min_size=1, max_size=3
    ),
    st.booleans(),
)
def test_any_columns_and_any_nulls(
    kinds: list[tuple[str, bool]], rows: list[list[int | None]], padding: bool
) -> None:
    known = table(*(replace(KINDS[kind][0], name=f"c{i}") for i, (kind, _) in enumerate(kinds)))
    logged = TableMap("s", "t", tuple(replace(KINDS[kind][1], nullable=may) for kind, may in kinds))
    body = last = b""
    expected: list[Row] = []
    for numbers in rows:
        nulls = ~0 << len(kinds) if padding else 0  # MariaDB sets the bits beyond the last column
        packed = b""
        row: list[bytes | None] = []
        for index, (kind, may_be_null) in enumerate(kinds):
            number = numbers[index]
            if number is None and may_be_null:
                nulls |= 1 << index
                row.append(None)
                continue
            data, text = KINDS[kind][2](number or 0)
            packed += data
            row.append(str(text).encode())
        size = (len(kinds) + 7) // 8
        last = (nulls & ((1 << 8 * size) - 1)).to_bytes(size, "little") + packed
        body += last
        expected.append(tuple(row))
    size = (len(kinds) + 7) // 8
    event = bytes(8) + lenenc_int(len(kinds)) + b"\xff" * size + body
    whole = b"before" + event + b"behind"
    decoder = RowDecoder(logged, known)
    assert decoder.images(whole, 6, 6 + len(event), extra_head=False, two=False) == expected
    if len(last) == 1:
        return  # a row of NULLs in one byte: without it the event is whole again
    with pytest.raises(MalformedPacketError):
        decoder.images(whole, 6, 6 + len(event) - 1, extra_head=False, two=False)
    with pytest.raises(MalformedPacketError):
        decoder.images(event[:-1], 0, len(event) - 1, extra_head=False, two=False)


ID = column("id", "int")
NAME = column("name", "varchar", "varchar(9)", "utf8mb4")
LOGGED = TableMap(
    "s", "t", (MapColumn(Type.LONG, 0, False, False, "id"), MapColumn(Type.VARCHAR, 36, True, None, "name"))
)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (table(ID), "s.t has 1 columns, the binlog has 2"),
        (table(ID, column("title", "varchar")), "the binlog has column name where title was expected"),
        (table(replace(ID, unsigned=True), NAME), "another sign"),
        (table(replace(ID, type="bigint"), NAME), "has type 3"),
    ],
)
def test_drift_is_an_error(known: Table, message: str) -> None:
    with pytest.raises(SchemaDriftError, match=message):
        RowDecoder(LOGGED, known)


def test_names_compare_as_mysql_does() -> None:
    assert RowDecoder(LOGGED, table(replace(ID, name="ID"), replace(NAME, name="Name"))).images(
        bytes(8) + b"\x02\x03" + b"\0" + b"\x05\0\0\0" + b"\x01x", 0, 17, extra_head=False, two=False
    ) == [(b"5", b"x")]


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(UnsupportedLogError, match=r"s\.t: column id has a type \(99\)"):
        RowDecoder(TableMap("s", "t", (MapColumn(99, 0),)), table(ID))


def test_an_image_without_all_columns_is_refused() -> None:
    decoder = RowDecoder(LOGGED, table(ID, NAME))
    body = bytes(8) + b"\x02\x03\x01" + b"\0\x05\0\0\0\x01x" + b"\0\x05\0\0\0"
    with pytest.raises(UnsupportedLogError, match="binlog_row_image=FULL"):
        decoder.images(body, 0, len(body), extra_head=False, two=True)


def test_an_update_needs_both_images() -> None:
    decoder = RowDecoder(LOGGED, table(ID, NAME))
    body = bytes(8) + b"\x02\x03\x03" + b"\0\x05\0\0\0\x01x"
    with pytest.raises(MalformedPacketError, match="lacks an image"):
        decoder.images(body, 0, len(body), extra_head=False, two=True)


def test_a_label_that_is_none_is_refused() -> None:
    logged = TableMap(
        "s", "t", (MapColumn(Type.ENUM, 1, labels=(b"a",)), MapColumn(Type.SET, 1, labels=(b"a",)))
    )
    known = table(column("e", "enum", "enum('a')", "utf8mb4"), column("s", "set", "set('a')", "utf8mb4"))
    decoder = RowDecoder(logged, known)
    for values in (b"\x02\x01", b"\x01\x02"):
        body = bytes(8) + b"\x02\x03" + b"\0" + values
        with pytest.raises(MalformedPacketError):
            decoder.images(body, 0, len(body), extra_head=False, two=False)


def test_labels_in_the_log_win_over_the_declaration() -> None:
    logged = TableMap("s", "t", (MapColumn(Type.ENUM, 1, labels=(b"was", b"b")),))
    decoder = RowDecoder(logged, table(column("e", "enum", "enum('is','b')", "utf8mb4")))
    assert decoder.images(bytes(8) + b"\x01\x01\0\x01", 0, 12, extra_head=False, two=False) == [(b"was",)]


@pytest.mark.parametrize(
    ("declared", "charset", "labels"),
    [
        ("enum('a','b c')", "latin1", (b"a", b"b c")),
        ("enum('it''s','a,b','')", "utf8mb4", (b"it's", b"a,b", b"")),
        ("set('back\\\\slash','new\\nline')", "utf8mb3", (b"back\\slash", b"new\nline")),
        ("enum('é')", "utf8mb4", (b"\xc3\xa9",)),
        ("enum('é')", "ucs2", (b"\x00\xe9",)),
        ("set('ж','x')", "cp1251", (b"\xe6", b"x")),
    ],
)
def test_labels_of_a_declaration(declared: str, charset: str, labels: tuple[bytes, ...]) -> None:
    assert labels_of(column("e", declared[:4].strip("("), declared, charset)) == labels


def test_labels_that_only_the_server_can_encode_are_refused() -> None:
    with pytest.raises(UnsupportedLogError, match="binlog_row_metadata=FULL"):
        labels_of(column("e", "enum", "enum('\u7532')", "big5"))


@pytest.mark.parametrize(
    ("known", "expression"),
    [
        (column("f", "float"), "CAST(`f` AS DOUBLE)"),
        (column("d", "double"), "`d`"),
        (column("d", "double", "double(10,2)"), "CAST(`d` AS DOUBLE)"),
        (column("d", "double", "double unsigned zerofill"), "CAST(`d` AS DOUBLE)"),
        (column("a`b", "varchar"), "`a``b`"),
    ],
)
def test_what_is_selected(known: Column, expression: str) -> None:
    assert select_expression(known) == expression


# Text rows.

CAPABILITIES = int(Cap.PROTOCOL_41 | Cap.DEPRECATE_EOF)
END = frame(b"\xfe\0\0\x02\0\0\0")


def result(rows: list[Row], columns: int) -> bytes:
    head = frame(lenenc_int(columns)) + b"".join(frame(b"definition") for _ in range(columns))
    body = b"".join(
        frame(b"".join(b"\xfb" if value is None else lenenc(value) for value in row)) for row in rows
    )
    return head + body + END


@given(st.data(), st.integers(1, 5), st.integers(1, 400))
def test_text_rows_in_any_portions(data: st.DataObject, columns: int, portion: int) -> None:
    value = st.none() | st.binary(max_size=300)
    rows: list[Row] = data.draw(st.lists(st.tuples(*[value] * columns), max_size=20))
    stream = RowStream(CAPABILITIES)
    whole = result(rows, columns)
    found: list[Row] = []
    for at in range(0, len(whole), portion):
        found += stream.feed(whole[at : at + portion])
    assert found == rows
    assert stream.done


def test_rows_of_many_packets() -> None:
    rows: list[Row] = [(b"x" * (17 << 20), None), (b"a", b"b" * 70000), (b"c" * (0xFFFFFF - 5), b"")]
    stream = RowStream(CAPABILITIES)
    whole = result(rows, 2)
    found: list[Row] = []
    for at in range(0, len(whole), 1 << 18):
        found += stream.feed(whole[at : at + (1 << 18)])
    assert found == rows
    assert stream.done


@pytest.mark.parametrize("row", [b"\x05abc", b"\x01ab", b"\xff" * 3, b"\xfc\x01"])
def test_rows_that_do_not_fit_are_refused(row: bytes) -> None:
    stream = RowStream(CAPABILITIES)
    with pytest.raises(Exception, match=r".") as caught:
        stream.feed(frame(b"\x01") + frame(b"definition") + frame(row) + END)
    assert caught.type.__name__ in {"MalformedPacketError", "ServerError"}
    assert not stream.done
