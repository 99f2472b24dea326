"""What each binlog event says, apart from table maps and rows: positions, statements, ends of transactions.

Every function takes (buffer, start, end) of an event's body, as :data:`homeworld.wire.binlog.Event` has it,
and gives a small value. Whatever bytes come in, either a value comes out or MalformedPacketError.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from struct import Struct

from homeworld.model.errors import MalformedPacketError
from homeworld.wire.packets import Reader

_MYSQL_GTID = Struct("<B16sq")
_MARIADB_GTID = Struct("<QIB")

STANDALONE = 1
"""MariaDB: the transaction is one event and no commit follows."""
_GROUP_COMMIT = 2
DDL = 32
"""MariaDB: the transaction is a DDL statement."""
PREPARED_XA = 64
COMPLETED_XA = 128
START_ALTER = 2
COMMIT_ALTER = 4
ROLLBACK_ALTER = 8
_ALTER = START_ALTER | COMMIT_ALTER | ROLLBACK_ALTER


def read_gtid(buffer: bytes, start: int, end: int) -> tuple[bytes, int]:
    """GTID and ANONYMOUS_GTID: (the source server's UUID, transaction number)."""
    if end - start < _MYSQL_GTID.size:
        raise MalformedPacketError("a GTID event is cut short")
    _, uuid, number = _MYSQL_GTID.unpack_from(buffer, start)
    return uuid, number


def read_tagged_gtid(buffer: bytes, start: int, end: int) -> tuple[bytes, str, int]:
    """GTID_TAGGED: (the source server's UUID, tag, transaction number).

    The body is MySQL's serialised form: version, size and the last field that must be known, then fields as
    (id, value); the ones wanted are the first four.
    """
    reader = _Serialized(buffer[start:end])
    if reader.unsigned() != 1:
        raise MalformedPacketError("a tagged GTID event has an unknown form")
    reader.unsigned()
    reader.unsigned()
    uuid, tag, number = b"", "", 0
    while reader.left:
        field = reader.unsigned()
        if field == 0:
            reader.unsigned()  # flags
        elif field == 1:
            uuid = bytes(reader.unsigned() & 0xFF for _ in range(16))
        elif field == 2:
            number = reader.signed()
        elif field == 3:
            tag = reader.take(reader.unsigned()).decode("ascii", "replace")
            break
        else:
            break
    if len(uuid) != 16 or number <= 0:
        raise MalformedPacketError("a tagged GTID event names no transaction")
    return uuid, tag, number


class _Serialized:
    """Reads mysql::serialization: numbers whose length stands in the first byte's trailing ones."""

    def __init__(self, data: bytes) -> None:
        self._reader = Reader(data)

    @property
    def left(self) -> int:
        return self._reader.left

    def unsigned(self) -> int:
        first = self._reader.int(1)
        extra = 0
        while extra < 8 and first >> extra & 1:
            extra += 1
        rest = self._reader.int(extra) if extra else 0
        return (first >> (extra + 1)) | rest << max(0, 7 - extra) if extra < 8 else rest

    def signed(self) -> int:
        number = self.unsigned()
        return number >> 1 if not number & 1 else -(number >> 1) - 1

    def take(self, count: int) -> bytes:
        return self._reader.take(count)


@dataclass(frozen=True, slots=True)
class MariadbGtid:
    """MariaDB's GTID event. ``xid`` identifies an XA transaction (empty: none); ``alter`` is 0 or one of
    START_ALTER, COMMIT_ALTER, ROLLBACK_ALTER.
    """

    domain: int
    sequence: int
    flags: int
    xid: bytes = b""
    alter: int = 0


def read_mariadb_gtid(buffer: bytes, start: int, end: int) -> MariadbGtid:
    """MARIADB_GTID; the server id of the GTID is the one in the event's header."""
    if end - start < _MARIADB_GTID.size:
        raise MalformedPacketError("a GTID event is cut short")
    sequence, domain, flags = _MARIADB_GTID.unpack_from(buffer, start)
    if not flags & (_GROUP_COMMIT | PREPARED_XA | COMPLETED_XA):
        # Nothing else stands before the second flags; where they are absent there are zeros.
        extra = buffer[start + _MARIADB_GTID.size] if end > start + _MARIADB_GTID.size else 0
        return MariadbGtid(domain, sequence, flags, b"", extra & _ALTER)
    reader = Reader(buffer[start + _MARIADB_GTID.size : end])
    if flags & _GROUP_COMMIT:
        reader.skip(8)
    xid = b""
    if flags & (PREPARED_XA | COMPLETED_XA):
        form, first, second = reader.take(4), reader.int(1), reader.int(1)
        xid = form + bytes((first, second)) + reader.take(first + second)
    extra = reader.int(1) if reader.left else 0
    return MariadbGtid(domain, sequence, flags, xid, extra & _ALTER)


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as logged: ``schema`` it ran in, its text, and the client's collation id (0: unknown).

    :param explicit_timestamps: explicit_defaults_for_timestamp is known to have been ON for it. MySQL says so
        of CREATE and ALTER TABLE only, MariaDB from 10.8 on.
    """

    schema: bytes
    sql: bytes
    charset: int
    explicit_timestamps: bool = False


_QUERY = Struct("<IIBHH")
_STATUS_FLAGS, _STATUS_CHARSET, _STATUS_EXPLICIT = 0, 4, 16
_FLAG_EXPLICIT = 1 << 24  # MariaDB's
# Lengths of the status variables that can stand in front of MySQL's word on timestamps: sql_mode,
# auto-increment, names of times, the schema's charset, tables to be updated, the event's length before,
# microseconds. The writer's order is fixed, so nothing else has to be known.
_STATUS_LENGTHS = {1: 8, 3: 4, 7: 2, 8: 2, 9: 8, 10: 4, 13: 3}
# How many texts, each behind its length: time zone, catalog, the definer's name and host.
_STATUS_TEXTS = {5: 1, 6: 1, 11: 2}
_MANY_SCHEMAS = 254  # too many to be named


def read_query(buffer: bytes, start: int, end: int, *, compressed: bool = False) -> Query:
    """QUERY and MariaDB's QUERY_COMPRESSED."""
    if end - start < _QUERY.size:
        raise MalformedPacketError("a query event is cut short")
    _, _, schema_length, _, status_length = _QUERY.unpack_from(buffer, start)
    reader = Reader(buffer[start + _QUERY.size : end])
    status = reader.take(status_length)
    schema = reader.take(schema_length)
    reader.skip(1)
    sql = reader.rest()
    return Query(schema, uncompress(sql) if compressed else sql, *_status_of(status))


def _status_of(status: bytes) -> tuple[int, bool]:
    """The client's collation id, and whether timestamps are explicit."""
    reader = Reader(status)
    charset, explicit = 0, False
    while reader.left:
        code = reader.int(1)
        if code == _STATUS_FLAGS:
            explicit = bool(reader.int(4) & _FLAG_EXPLICIT)
        elif code == _STATUS_CHARSET:
            charset = reader.int(2)
            reader.skip(4)
        elif code == _STATUS_EXPLICIT:
            return charset, reader.int(1) == 1
        elif code == 2:  # catalog of old servers, with a NUL behind
            reader.skip(reader.int(1) + 1)
        elif code == 12:  # schemas that it touches
            count = reader.int(1)
            for _ in range(0 if count == _MANY_SCHEMAS else count):
                reader.until_nul()
        elif code in _STATUS_TEXTS:
            for _ in range(_STATUS_TEXTS[code]):
                reader.skip(reader.int(1))
        elif code in _STATUS_LENGTHS:
            reader.skip(_STATUS_LENGTHS[code])
        else:
            break
    return charset, explicit


def uncompress(data: bytes) -> bytes:
    """Open a body that MariaDB compressed: a byte of algorithm and length's length, the length, zlib data.

    :raises MalformedPacketError: another algorithm, or broken data.
    """
    reader = Reader(data)
    head = reader.int(1)
    if head & 0x70 or not head & 0x80:
        raise MalformedPacketError("an event is compressed in an unknown way")
    length = int.from_bytes(reader.take(head & 0x07), "big")
    try:
        found = zlib.decompress(reader.rest(), bufsize=max(length, 1))
    except zlib.error as error:
        raise MalformedPacketError("a compressed event cannot be opened") from error
    if len(found) != length:
        raise MalformedPacketError("a compressed event has another length than it says")
    return found


def read_xa_prepare(buffer: bytes, start: int, end: int) -> tuple[bool, bytes]:
    """XA_PREPARE: (whether it commits in one phase, the xid as :class:`MariadbGtid` has it)."""
    reader = Reader(buffer[start:end])
    one_phase = reader.int(1) != 0
    form, first, second = reader.take(4), reader.int(4), reader.int(4)
    if first > 64 or second > 64:
        raise MalformedPacketError("an XA transaction's id is too long")
    return one_phase, form + bytes((first, second)) + reader.take(first + second)


def read_rotate(buffer: bytes, start: int, end: int) -> tuple[str, int]:
    """ROTATE: (name of the log that follows, offset in it)."""
    reader = Reader(buffer[start:end])
    offset = reader.int(8)
    return reader.rest().decode("utf-8", "replace"), offset


def read_incident(buffer: bytes, start: int, end: int) -> str:
    """INCIDENT: the server's message on why its log has a gap."""
    reader = Reader(buffer[start:end])
    number = reader.int(2)
    length = reader.int(1) if reader.left else 0
    return f"incident {number}: {reader.take(min(length, reader.left)).decode('utf-8', 'replace')}"
