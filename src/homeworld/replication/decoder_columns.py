"""How one column of a row event is read: its fields in the bytes and the expression that makes its text.

Pure: from a table map's column and the known column to a :class:`Code`, which
:mod:`homeworld.replication.decoder` writes into a function. Whether the two columns can be the same is
decided here too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from homeworld.model.errors import MalformedPacketError, SchemaDriftError, UnsupportedLogError
from homeworld.model.tables import Column
from homeworld.replication import time_text
from homeworld.replication.column_types import error_value, fraction_digits, labels_of, zerofill_width
from homeworld.replication.json_binary import json_text
from homeworld.replication.number_text import decimal_reader, decimal_size, double_text
from homeworld.replication.time_text import Memo
from homeworld.wire.binlog_rows import BLOB_COMPRESSED, VARCHAR_COMPRESSED, MapColumn
from homeworld.wire.constants import Type


@dataclass(frozen=True, slots=True)
class Code:
    """How to read one column.

    :param fields: struct codes of its fixed part, one variable each.
    :param expression: Python that makes the text, with ``{0}``, ``{1}`` … for the fields and, where
        ``prefixed``, ``{value}`` for the bytes that follow.
    :param length: for a column of variable size the expression of the length over the fields; else empty.
    :param names: objects that the expression uses, beyond those every decoder has; ``{own}`` in the
        expression makes a name unlike those of other columns.
    """

    fields: tuple[str, ...]
    expression: str
    length: str = ""
    names: Mapping[str, object] = field(default_factory=dict[str, object])


COMMON_NAMES: Mapping[str, object] = {
    "INT": int.from_bytes,
    "DOUBLE": double_text,
    "DATE": time_text.DATE,
    "DAY": time_text.DATETIME_DAY,
    "CLOCK": time_text.DATETIME_CLOCK,
    "STAMP_DAY": time_text.STAMP_DAY,
    "STAMP_CLOCK": time_text.STAMP_CLOCK,
    "ZERO": time_text.ZERO_DATETIME,
    "YEAR": tuple(time_text.year_text(number) for number in range(256)),
    "JSON": json_text,
}

_TEXTS = frozenset({"tinytext", "text", "mediumtext", "longtext"})
_BLOBS = frozenset({"tinyblob", "blob", "mediumblob", "longblob"})
_SPATIAL = frozenset(
    {"geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon"}
    | {"geomcollection", "geometrycollection"}
)
_DECLARED: Mapping[int, frozenset[str]] = {
    Type.TINY: frozenset({"tinyint"}),
    Type.SHORT: frozenset({"smallint"}),
    Type.INT24: frozenset({"mediumint"}),
    Type.LONG: frozenset({"int"}),
    Type.LONGLONG: frozenset({"bigint"}),
    Type.FLOAT: frozenset({"float"}),
    Type.DOUBLE: frozenset({"double"}),
    Type.NEWDECIMAL: frozenset({"decimal"}),
    Type.BIT: frozenset({"bit"}),
    Type.YEAR: frozenset({"year"}),
    Type.DATE: frozenset({"date"}),
    Type.NEWDATE: frozenset({"date"}),
    Type.TIME: frozenset({"time"}),
    Type.TIME2: frozenset({"time"}),
    Type.DATETIME: frozenset({"datetime"}),
    Type.DATETIME2: frozenset({"datetime"}),
    Type.TIMESTAMP: frozenset({"timestamp"}),
    Type.TIMESTAMP2: frozenset({"timestamp"}),
    Type.VARCHAR: frozenset({"varchar", "varbinary", "vector"}),  # MariaDB's VECTOR is a VARBINARY
    VARCHAR_COMPRESSED: frozenset({"varchar", "varbinary"}),
    Type.STRING: frozenset({"char", "binary", "uuid", "inet4", "inet6"}),
    Type.ENUM: frozenset({"enum"}),
    Type.SET: frozenset({"set"}),
    Type.BLOB: _TEXTS | _BLOBS,
    BLOB_COMPRESSED: _TEXTS | _BLOBS,
    Type.GEOMETRY: _SPATIAL,
    Type.JSON: frozenset({"json"}),
    Type.VECTOR: frozenset({"vector"}),
}
_INTEGERS: Mapping[int, str] = {Type.TINY: "b", Type.SHORT: "h", Type.LONG: "i", Type.LONGLONG: "q"}


def code_of(logged: MapColumn, known: Column) -> Code:
    """How to read ``known`` out of rows that were written as ``logged``.

    :raises SchemaDriftError: the two cannot be the same column.
    :raises UnsupportedLogError: a type that is not read.
    """
    if logged.type not in _DECLARED:
        raise UnsupportedLogError(f"column {known.name} has a type ({logged.type}) that is not supported")
    if known.type not in _DECLARED[logged.type]:
        raise SchemaDriftError(
            f"column {known.name} is {known.column_type}, but the binlog has type {logged.type}"
        )
    if logged.name and logged.name.lower() != known.name.lower():
        raise SchemaDriftError(f"the binlog has column {logged.name} where {known.name} was expected")
    if logged.unsigned is not None and logged.unsigned != known.unsigned and known.type != "year":
        raise SchemaDriftError(f"column {known.name} is {known.column_type}, the binlog has another sign")
    kind = logged.type
    if kind in _INTEGERS or kind == Type.INT24:
        return _integer(kind, known)
    if kind in _READERS:
        return _READERS[kind](logged, known)
    if kind in {Type.TIME, Type.DATETIME, Type.TIMESTAMP}:
        return _old_temporal(kind, fraction_digits(known))
    return _strings(logged, known)


def _integer(kind: int, known: Column) -> Code:
    width = zerofill_width(known)
    form = f'b"%0{width}d"' if width else 'b"%d"'
    if kind == Type.INT24:
        return Code(("H", "B" if known.unsigned else "b"), form + " % ({0} | {1} << 16)")
    letter = _INTEGERS[kind]
    return Code((letter.upper() if known.unsigned else letter,), form + " % {0}")


def _float(logged: MapColumn, known: Column) -> Code:
    del known
    return Code(("f" if logged.type == Type.FLOAT else "d",), "DOUBLE({0})")


def _decimal(logged: MapColumn, known: Column) -> Code:
    precision, scale = logged.meta >> 8, logged.meta & 0xFF
    width = zerofill_width(known)
    read = decimal_reader(precision, scale)
    expression = "{own}({0})" + (f".zfill({width})" if width else "")
    return Code((f"{decimal_size(precision, scale)}s",), expression, names={"own": read})


def _bit(logged: MapColumn, known: Column) -> Code:
    del known
    bits = (logged.meta >> 8) * 8 + (logged.meta & 0xFF)
    return Code((f"{(bits + 7) // 8}s",), "{0}")


def _year(logged: MapColumn, known: Column) -> Code:
    del logged
    return Code(("B",), "YEAR[{0}][2:]" if "(2)" in known.column_type else "YEAR[{0}]")


def _date(logged: MapColumn, known: Column) -> Code:
    del logged, known
    return Code(("H", "B"), "DATE[{0} | {1} << 16]")


def _fraction(digits: int) -> tuple[tuple[str, ...], str]:
    """Fields and the expression to add for the fraction that follows as field 1."""
    if not digits:
        return (), ""
    ten = " // 10" if digits & 1 else ""
    return (f"{time_text.fraction_size(digits)}s",), f' + b".%0{digits}d" % (INT({{1}}, "big"){ten})'


def _datetime2(logged: MapColumn, known: Column) -> Code:
    del known
    fields, more = _fraction(logged.meta)
    # The highest of the 40 bits is a sign that is always set.
    text = 'DAY[((n := INT({0}, "big")) >> 17) - 4194304] + CLOCK[n & 131071]'
    return Code(("5s", *fields), text + more)


def _timestamp2(logged: MapColumn, known: Column) -> Code:
    del known
    fields, more = _fraction(logged.meta)
    text = '(STAMP_DAY[n // 86400] + STAMP_CLOCK[n % 86400] if (n := INT({0}, "big")) else ZERO)'
    return Code(("4s", *fields), text + more)


def _time2(logged: MapColumn, known: Column) -> Code:
    del known
    size = 3 + time_text.fraction_size(logged.meta)
    return Code((f"{size}s",), "{own}({0})", names={"own": time_text.time2_reader(logged.meta)})


def _old_temporal(kind: int, digits: int) -> Code:
    """MariaDB's forms without metadata; the declared digits decide."""
    if not digits:
        if kind == Type.TIME:
            return Code(("3s",), "{own}({0})", names={"own": time_text.old_time})
        if kind == Type.DATETIME:
            return Code(("Q",), "{own}({0})", names={"own": time_text.old_datetime})
        return Code(("I",), "{own}({0})", names={"own": time_text.stamp_text})
    if kind == Type.TIME:
        size, read = time_text.HIRES_TIME_SIZE[digits], time_text.hires_time_reader(digits)
    elif kind == Type.DATETIME:
        size, read = time_text.HIRES_DATETIME_SIZE[digits], time_text.hires_datetime_reader(digits)
    else:
        size, read = 4 + time_text.HIRES_FRACTION_SIZE[digits], time_text.hires_stamp_reader(digits)
    return Code((f"{size}s",), "{own}({0})", names={"own": read})


def _enum(logged: MapColumn, known: Column) -> Code:
    labels = logged.labels if logged.labels is not None else labels_of(known)
    own = (error_value(known), *labels)
    return Code(("B" if logged.meta == 1 else "H",), "{own}[{0}]", names={"own": own})


def _set(logged: MapColumn, known: Column) -> Code:
    labels = logged.labels if logged.labels is not None else labels_of(known)
    comma = _comma_of(known.charset)

    def text(bits: int) -> bytes:
        if bits >> len(labels):
            raise MalformedPacketError(f"a SET value has more members than column {known.name}")
        return comma.join(label for index, label in enumerate(labels) if bits >> index & 1)

    fields, number = _little(logged.meta)
    return Code(fields, "{own}[" + number + "]", names={"own": Memo(text)})


def _comma_of(charset: str) -> bytes:
    if charset in {"ucs2", "utf16"}:
        return b"\0,"
    return {"utf16le": b",\0", "utf32": b"\0\0\0,"}.get(charset, b",")


def _little(size: int) -> tuple[tuple[str, ...], str]:
    """Fields and expression of an unsigned little-endian number of ``size`` bytes."""
    fields: dict[int, tuple[tuple[str, ...], str]] = {
        1: (("B",), "{0}"),
        2: (("H",), "{0}"),
        3: (("H", "B"), "({0} | {1} << 16)"),
        4: (("I",), "{0}"),
        8: (("Q",), "{0}"),
    }
    if size not in fields:
        raise MalformedPacketError(f"a column has a number of {size} bytes")
    return fields[size]


def _strings(logged: MapColumn, known: Column) -> Code:
    """Everything that is a length and bytes."""
    kind = logged.type
    if kind in {Type.VARCHAR, VARCHAR_COMPRESSED, Type.STRING}:
        fields, length = _little(1 if logged.meta < 256 else 2)
    else:
        fields, length = _little(logged.meta)
    if kind == Type.JSON:
        return Code(fields, "JSON({value})", length)
    if kind in {VARCHAR_COMPRESSED, BLOB_COMPRESSED}:
        return Code(fields, "{own}({value})", length, {"own": uncompress_column})
    if kind == Type.STRING and known.type in _FIXED_TEXT:
        return Code(fields, "{own}({value})", length, {"own": _FIXED_TEXT[known.type]})
    if kind == Type.STRING and known.type == "binary":
        # The log drops the zeros at the end, which are part of a BINARY(n).
        return Code(fields, f'{{value}}.ljust({logged.meta}, b"\\0")', length)
    return Code(fields, "{value}", length)


def uncompress_column(data: bytes) -> bytes:
    """The value of MariaDB's COMPRESSED columns: a byte that says how, then the value.

    :raises MalformedPacketError: compressed in an unknown way, or broken.
    """
    if not data:
        return data
    head = data[0]
    if head >> 4 == 0:
        return data[1:]
    if head >> 4 != 8:
        raise MalformedPacketError("a column is compressed in an unknown way")
    size = head & 7
    length = int.from_bytes(data[1 : 1 + size], "big")
    try:
        value = zlib.decompress(data[1 + size :], -zlib.MAX_WBITS if head & 8 else zlib.MAX_WBITS)
    except zlib.error as error:
        raise MalformedPacketError("a compressed column cannot be opened") from error
    if len(value) != length:
        raise MalformedPacketError("a compressed column has another length than it says")
    return value


def uuid_text(data: bytes) -> bytes:
    """UUID as MariaDB logs it: 16 bytes in the order of the text."""
    text = data.ljust(16, b"\0").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()


def inet4_text(data: bytes) -> bytes:
    """INET4 as it is logged."""
    return b"%d.%d.%d.%d" % tuple(data.ljust(4, b"\0"))


def inet6_text(data: bytes) -> bytes:
    """INET6 as it is logged, in MariaDB's spelling: the longest run of zeros left out even where it is one
    word, and the last two words as IPv4 where six words of zeros, or five and ffff, stand in front.
    """
    data = data.ljust(16, b"\0")
    words = [data[at] << 8 | data[at + 1] for at in range(0, 16, 2)]
    gap, length = 0, 0
    for start in range(8):
        run = 0
        while start + run < 8 and not words[start + run]:
            run += 1
        if run > length:
            gap, length = start, run
    if not gap and (length == 6 or (length == 5 and words[5] == 0xFFFF)):
        return (b"::" if length == 6 else b"::ffff:") + inet4_text(data[12:])
    texts = [b"%x" % word for word in words]
    if not length:
        return b":".join(texts)
    return b":".join(texts[:gap]) + b"::" + b":".join(texts[gap + length :])


_FIXED_TEXT: Mapping[str, Callable[[bytes], bytes]] = {
    "uuid": uuid_text,
    "inet4": inet4_text,
    "inet6": inet6_text,
}

_READERS: Mapping[int, Callable[[MapColumn, Column], Code]] = {
    Type.FLOAT: _float,
    Type.DOUBLE: _float,
    Type.NEWDECIMAL: _decimal,
    Type.BIT: _bit,
    Type.YEAR: _year,
    Type.DATE: _date,
    Type.NEWDATE: _date,
    Type.DATETIME2: _datetime2,
    Type.TIMESTAMP2: _timestamp2,
    Type.TIME2: _time2,
    Type.ENUM: _enum,
    Type.SET: _set,
}
