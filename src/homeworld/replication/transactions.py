"""Binlog events to transactions: which rows are committed, by which GTID, and what statements mean.

Theory of operation. The log is a sequence of groups, each opened by a GTID:

    MySQL    GTID, BEGIN, table maps and rows, XID (or COMMIT, or ROLLBACK)
             GTID, a statement                              (DDL, alone)
             GTID, XA START, rows, XA END, XA_PREPARE       and later: GTID, XA COMMIT or XA ROLLBACK
    MariaDB  the same, but the GTID event itself opens the group and says whether a single statement follows

A group's rows wait in ``_open`` until the group is complete; only then they are given and its GTID enters the
position. A group larger than a batch is given in parts, and its GTID waits all the same. Rows of a prepared
XA transaction wait for its decision, and so does the GTID of its preparation: a MySQL position may have a
hole, a MariaDB position may not, so there such rows are refused.

It owns no socket and no clock. Invariant: no GTID enters the position before all rows of its group were
given, and no row is given whose transaction may still be undone, except with ``mid_transaction``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import TypeAlias

from homeworld.model.errors import (
    MalformedPacketError,
    SchemaDriftError,
    SourceLogError,
    UnsupportedLogError,
)
from homeworld.model.gtid import MysqlPosition, Position, Progress, Source
from homeworld.model.tables import Table
from homeworld.model.topology import Flavor
from homeworld.replication.changes import DdlEvent, RowChange, TableName
from homeworld.replication.decoder import RowDecoder
from homeworld.replication.log_statements import Meaning, Statement, classify, readings
from homeworld.wire import binlog_events as events
from homeworld.wire.binlog import IGNORABLE_FLAG, Event, EventType, payload_events
from homeworld.wire.binlog_rows import read_table_map

LARGEST_UNDECIDED = 500_000
"""Rows of one prepared XA transaction that are kept in memory."""

_MAPS_KEPT = 4096
_QUERY_HEAD, _LOAD_HEAD = 13, 13


class Pause(IntEnum):
    """Why :meth:`Transactions.run` came back."""

    EMPTY = 0  # no more events
    FULL = 1  # enough changes
    DDL = 2  # a statement that ends the batch


_Entry: TypeAlias = tuple[TableName, RowDecoder | None]
_Gtid: TypeAlias = tuple[Source, int] | tuple[int, int, int]

MOST_BYTES = 16 << 20
"""Of the log in a batch, beside its number of changes: a few batches wait at a time, rows may be large."""
_COMPRESSION = 8  # what rows that MariaDB has compressed are taken to become

# Row events: (version 2, update or delete or insert, compressed).
_INSERT, _UPDATE, _DELETE = 0, 1, 2
_ROWS_OF: Mapping[EventType, tuple[bool, int, bool]] = {
    EventType.WRITE_ROWS: (True, _INSERT, False),
    EventType.UPDATE_ROWS: (True, _UPDATE, False),
    EventType.DELETE_ROWS: (True, _DELETE, False),
    EventType.WRITE_ROWS_V1: (False, _INSERT, False),
    EventType.UPDATE_ROWS_V1: (False, _UPDATE, False),
    EventType.DELETE_ROWS_V1: (False, _DELETE, False),
    EventType.WRITE_ROWS_COMPRESSED_V1: (False, _INSERT, True),
    EventType.UPDATE_ROWS_COMPRESSED_V1: (False, _UPDATE, True),
    EventType.DELETE_ROWS_COMPRESSED_V1: (False, _DELETE, True),
    EventType.WRITE_ROWS_COMPRESSED: (True, _INSERT, True),
    EventType.UPDATE_ROWS_COMPRESSED: (True, _UPDATE, True),
    EventType.DELETE_ROWS_COMPRESSED: (True, _DELETE, True),
}
_ROWS = {int(kind): form for kind, form in _ROWS_OF.items()}
_TABLE_MAP = int(EventType.TABLE_MAP)
_XID = int(EventType.XID)
_QUERY = int(EventType.QUERY)
_GTID = int(EventType.GTID)
_MARIADB_GTID = int(EventType.MARIADB_GTID)
# Plain numbers: hashing a member of an enumeration takes many times as long.
_GTIDS = frozenset(
    int(kind)
    for kind in (EventType.GTID, EventType.GTID_TAGGED, EventType.MARIADB_GTID, EventType.ANONYMOUS_GTID)
)
_PASSED_OVER = frozenset(
    {EventType.STOP, EventType.ROTATE, EventType.INTVAR, EventType.RAND, EventType.USER_VAR}
    | {EventType.APPEND_BLOCK, EventType.DELETE_FILE, EventType.HEARTBEAT, EventType.HEARTBEAT_V2}
    | {EventType.IGNORABLE, EventType.ROWS_QUERY, EventType.PREVIOUS_GTIDS, EventType.TRANSACTION_CONTEXT}
    | {EventType.VIEW_CHANGE, EventType.ANNOTATE_ROWS, EventType.BINLOG_CHECKPOINT, EventType.GTID_LIST}
    | {EventType.START_ENCRYPTION, EventType.BEGIN_LOAD_QUERY}
)


class Transactions:
    """Assembles groups out of events; the feed gives it events and takes what is complete.

    :param start: the position after which the events begin.
    :param tables: the wanted tables.
    :param prepared_elsewhere: what was prepared (XA) before the start is known to have no rows of them.
    """

    def __init__(
        self, start: Position, tables: Mapping[TableName, Table], *, prepared_elsewhere: bool = False
    ) -> None:
        self._prepared_elsewhere = prepared_elsewhere
        self.progress = Progress(start)
        self.changes: list[RowChange] = []
        self.ddl: DdlEvent | None = None
        self.timestamp = 0
        self.moved = False
        self.void = False  # parts given before are to be discarded
        self.singly = False
        self._mariadb = self.progress.flavor is Flavor.MARIADB
        self._tables: dict[TableName, Table] = {}
        self._schemas: set[str] = set()
        self._by_lower: dict[tuple[str, str], TableName] = {}
        self._drifted: set[TableName] = set()
        self._known: dict[bytes, _Entry] = {}
        self._maps: dict[bytes, _Entry] = {}
        self._undecided: dict[bytes, tuple[_Gtid, list[RowChange]]] = {}
        self._events: Iterator[Event] = iter(())
        self._gtid: _Gtid | None = None
        self._framed = False
        self._alter = 0
        self._xa = False
        self.size = 0  # bytes of the log's row images since the last batch was given
        self._open: list[RowChange] = []
        self._given = 0
        self._savepoints: dict[str, int] = {}
        self.set_tables(tables)

    def set_tables(self, tables: Mapping[TableName, Table]) -> None:
        """What the wanted tables are from here on; forgets what had drifted.

        A table map that was already read stays as it was understood: call this between groups, or after a
        DDL in front of the rows that it concerns.
        """
        self._tables = dict(tables)
        self._schemas = {schema.lower() for schema, _ in tables}
        self._by_lower = {(schema.lower(), table.lower()): (schema, table) for schema, table in tables}
        self._drifted.clear()
        self._known.clear()

    @property
    def holding(self) -> bool:
        """Whether a group has begun and is not complete."""
        return self._gtid is not None

    @property
    def partly_given(self) -> bool:
        """Whether parts of the group under way have been taken."""
        return self._given > 0

    def unfinished(self) -> str:
        """The position as it will be once the group under way is complete; as it is where there is none."""
        then = Progress(self.progress.position())
        if self._gtid is not None:
            _add(then, self._gtid)
        return then.text()

    def undecided(self) -> str:
        """The transactions that are prepared (XA) and wait for their decision, as a position; empty on
        MariaDB, whose positions name them already.
        """
        if self._mariadb or not self._undecided:
            return ""
        found = Progress(MysqlPosition({}))
        for gtid, _ in self._undecided.values():
            _add(found, gtid)
        return found.text()

    def restart(self) -> None:
        """The stream was lost: what is not complete will come again from its start."""
        self._events = iter(())
        if not self._mariadb:
            self._undecided.clear()
        self._drop_group()

    def feed(self, found: Iterable[Event]) -> None:
        """Take events; :meth:`run` must have come back EMPTY before."""
        self._events = _unpacked(found)

    def take_part(self) -> list[RowChange]:
        """Take the rows of the group under way although it is not complete."""
        part, self._open = self._open, []
        self._given += len(part)
        self.size = 0
        return part

    def part_waits(self, limit: int) -> bool:
        """Whether the group under way has more than ``limit`` rows, or large ones, and they may be given in
        parts.
        """
        # What was given cannot be cut back to a savepoint; so few rows are kept whole then.
        large = self.size > MOST_BYTES and bool(self._open) and not self._savepoints
        return (len(self._open) > limit or large) and not self._xa

    def run(self, limit: int) -> Pause:
        """Go through the events until there are ``limit`` changes, a DDL, or no more events.

        :raises SourceLogError: the log holds what cannot be applied exactly.
        :raises MalformedPacketError: the log cannot be read.
        """
        maps = self._maps
        changes = self.changes
        rows_events = _ROWS
        for kind, timestamp, server, flags, _, buffer, start, end in self._events:
            if kind in rows_events:
                self._rows(rows_events[kind], buffer, start, end)
                if (len(self._open) > limit or self.size > MOST_BYTES) and self.part_waits(limit):
                    return Pause.FULL
            elif kind == _TABLE_MAP:
                # Parsed once for each content: the id in front of it changes, the map hardly ever.
                entry = self._known.get(buffer[start + 6 : end])
                if entry is None:
                    entry = self._learn(buffer, start, end)
                maps[buffer[start : start + 6]] = entry
            elif kind == _XID:
                self._complete()
                if len(changes) >= limit or self.singly or self.size > MOST_BYTES:
                    return Pause.FULL
            elif kind in _GTIDS:
                self.timestamp = timestamp or self.timestamp
                self._begin(kind, server, buffer, start, end)
            elif kind == _QUERY and buffer[end - 6 : end] == b"\0BEGIN":
                self._framed = True
            else:
                self._other(kind, flags, buffer, start, end)
                if self.ddl is not None:
                    return Pause.DDL
                if len(changes) >= limit or (self.singly and self.moved and self._gtid is None):
                    return Pause.FULL
                if self.size > MOST_BYTES and self._gtid is None:
                    return Pause.FULL
        return Pause.EMPTY

    def _rows(self, form: tuple[bool, int, bool], buffer: bytes, start: int, end: int) -> None:
        entry = self._maps.get(buffer[start : start + 6])
        if entry is None:
            if buffer[start : start + 6] == b"\xff\xff\xff\x00\x00\x00":
                return  # MySQL's marker that a statement has ended, without rows
            raise MalformedPacketError("the binlog has rows of a table that it has not described")
        name, decoder = entry
        if decoder is None:
            return
        extra_head, what, compressed = form
        rows = decoder.images(
            buffer, start, end, extra_head=extra_head, two=what == _UPDATE, compressed=compressed
        )
        if self._gtid is None:
            raise MalformedPacketError("the binlog has rows outside a transaction")
        self.size += (end - start) * (_COMPRESSION if compressed else 1)
        if what == _UPDATE:
            self._open += zip([name] * (len(rows) >> 1), rows[::2], rows[1::2], strict=True)
        elif what == _INSERT:
            self._open += [(name, None, row) for row in rows]
        else:
            self._open += [(name, row, None) for row in rows]
        if self._xa and len(self._open) > LARGEST_UNDECIDED:
            raise UnsupportedLogError(
                f"an XA transaction changed more than {LARGEST_UNDECIDED} rows of the moving tables"
            )

    def _learn(self, buffer: bytes, start: int, end: int) -> _Entry:
        logged = read_table_map(buffer, start, end)
        name = (logged.schema, logged.table)
        table = self._tables.get(name)
        if name in self._drifted:
            raise SchemaDriftError(f"{name[0]}.{name[1]} was changed by a DDL and is not known as it is now")
        entry: _Entry = (name, None if table is None else RowDecoder(logged, table))
        if len(self._known) >= _MAPS_KEPT:
            self._known.clear()
        self._known[buffer[start + 6 : end]] = entry
        return entry

    def _begin(self, kind: int, server: int, buffer: bytes, start: int, end: int) -> None:
        if self._gtid is not None:
            raise MalformedPacketError("a transaction in the binlog begins before the one before has ended")
        self._maps.clear()
        if kind == _MARIADB_GTID:
            found = events.read_mariadb_gtid(buffer, start, end)
            self._gtid = (found.domain, server, found.sequence)
            self._framed = not found.flags & events.STANDALONE
            self._alter = found.alter
            self._xa = bool(found.flags & events.PREPARED_XA)
        elif kind == _GTID:
            uuid, number = events.read_gtid(buffer, start, end)
            self._gtid = ((uuid, ""), number)
        elif kind == EventType.GTID_TAGGED:
            uuid, tag, number = events.read_tagged_gtid(buffer, start, end)
            self._gtid = ((uuid, tag), number)
        else:
            raise UnsupportedLogError(
                "the binlog has transactions without GTID; set gtid_mode=ON on the source"
            )

    def _complete(self) -> None:
        """The group under way is committed."""
        if self._gtid is None:
            raise MalformedPacketError("the binlog commits where no transaction is open")
        if self._open:
            self.changes += self._open
            self._open.clear()
        self._pass(self._gtid)
        self._end_group()

    def _pass(self, gtid: _Gtid) -> None:
        _add(self.progress, gtid)
        self.moved = True

    def _end_group(self) -> None:
        self._gtid = None
        self._framed = self._xa = False
        self._alter = self._given = 0
        if self._savepoints:
            self._savepoints.clear()

    def _drop_group(self) -> None:
        """What the group under way brought does not count."""
        self._open.clear()
        if not self.changes:
            self.size = 0
        self.void = self.void or self._given > 0
        self._end_group()

    def _other(self, kind: int, flags: int, buffer: bytes, start: int, end: int) -> None:
        if kind == EventType.QUERY:
            self._statement(events.read_query(buffer, start, end))
        elif kind == EventType.QUERY_COMPRESSED:
            self._statement(events.read_query(buffer, start, end, compressed=True))
        elif kind == EventType.XA_PREPARE:
            self._prepared(*events.read_xa_prepare(buffer, start, end))
        elif kind == EventType.FORMAT_DESCRIPTION:
            # A log begins only between transactions, so an open one was cut off when its server died.
            self._drop_group()
        elif kind == EventType.EXECUTE_LOAD_QUERY:
            # A query with the file's numbers in its head.
            head = start + _QUERY_HEAD
            body = buffer[start:head] + buffer[head + _LOAD_HEAD : end]
            self._statement(events.read_query(body, 0, len(body)))
        elif kind == EventType.PARTIAL_UPDATE_ROWS:
            entry = self._maps.get(buffer[start : start + 6])
            if entry is None or entry[1] is not None:
                raise UnsupportedLogError(
                    "the binlog holds parts of JSON values; set binlog_row_value_options='' on the source, "
                    "in every session"
                )
        elif kind == EventType.INCIDENT:
            incident = events.read_incident(buffer, start, end)
            raise SourceLogError(f"the source's binlog has a gap ({incident}); rows may be missing")
        elif kind not in _PASSED_OVER and not flags & IGNORABLE_FLAG:
            raise UnsupportedLogError(f"the binlog has an event of type {kind}, which is not known")

    def _prepared(self, one_phase: bool, xid: bytes) -> None:
        gtid = self._gtid
        if gtid is None:
            raise MalformedPacketError("the binlog prepares where no transaction is open")
        if one_phase:
            self._complete()
            return
        if self._mariadb:
            if self._open:
                raise UnsupportedLogError(
                    "an XA transaction changed moving tables; a MariaDB position cannot wait for its decision"
                )
            self._pass(gtid)
        self._undecided[xid] = (gtid, self._open)
        self._open = []
        self.moved = True  # what waits is told, and ends a batch of one
        self._end_group()

    def _statement(self, query: events.Query) -> None:
        if self._gtid is None:
            raise MalformedPacketError("the binlog has a statement outside a transaction")
        # Bytes that cannot be read at all are a statement that may touch anything in its schema.
        texts = readings(query.sql, query.charset) or [""]
        statement = classify(texts[0])
        meaning = statement.meaning
        if meaning is Meaning.BEGIN:
            self._framed = True
        elif meaning is Meaning.XA_START:
            self._framed = self._xa = True
        elif meaning is Meaning.COMMIT and self._framed:
            self._complete()
        elif meaning is Meaning.ROLLBACK and self._framed:
            gtid = self._gtid
            self._drop_group()
            self._pass(gtid)
        elif meaning is Meaning.SAVEPOINT:
            self._savepoints[statement.label.lower()] = self._given + len(self._open)
        elif meaning is Meaning.ROLLBACK_TO:
            self._roll_back_to(statement.label.lower())
        elif meaning in {Meaning.XA_COMMIT, Meaning.XA_ROLLBACK}:
            self._decide(statement.label.encode("latin-1"), commit=meaning is Meaning.XA_COMMIT)
        else:
            self._touch([classify(text) for text in texts], texts[0] or repr(query.sql), query)
            if not self._framed:
                self._complete()

    def _roll_back_to(self, savepoint: str) -> None:
        mark = self._savepoints.get(savepoint)
        if mark is None:
            raise MalformedPacketError("the binlog rolls back to a savepoint that it has not set")
        if mark < self._given:
            raise UnsupportedLogError("a transaction larger than a batch was partly rolled back")
        del self._open[mark - self._given :]

    def _decide(self, xid: bytes, *, commit: bool) -> None:
        found = self._undecided.pop(xid, None)
        if found is None:
            if commit and not self._prepared_elsewhere:
                raise UnsupportedLogError(
                    "an XA transaction was committed that had been prepared before the stream began; its "
                    "rows were not seen"
                )
        else:
            gtid, rows = found
            if commit:
                self.changes += rows
            if not self._mariadb:
                self._pass(gtid)
        self._complete()

    def _touch(self, statements: Sequence[Statement], sql: str, query: events.Query) -> None:
        """A statement that is not part of a transaction's frame: does it touch wanted tables?"""
        # MariaDB logs a long ALTER twice; it takes effect where it says COMMIT.
        if self._alter & (events.START_ALTER | events.ROLLBACK_ALTER):
            return
        schema = query.schema.decode("utf-8", "surrogateescape")
        touched: set[TableName] = set()
        for statement in statements:
            touched |= self._touched(statement, schema.lower())
        if not touched:
            return
        meaning = statements[0].meaning
        if meaning is Meaning.ROWS_BY_STATEMENT:
            raise UnsupportedLogError(_BY_STATEMENT)
        truncates = meaning is Meaning.TRUNCATE
        before = self.progress.text()
        self.ddl = DdlEvent(frozenset(touched), sql, schema, before, truncates, query.explicit_timestamps)
        if not truncates:
            self._drifted |= touched
            self._known.clear()

    def _touched(self, statement: Statement, schema: str) -> set[TableName]:
        if statement == _UNREADABLE:
            return {name for name in self._tables if name[0].lower() == schema}
        names = {(own.lower(), table.lower()) for own, table in statement.names}
        if statement.meaning is Meaning.DROP_SCHEMA:
            return {name for name in self._tables if (name[0].lower(), "") in names}
        if statement.meaning is Meaning.ROWS_BY_STATEMENT:
            # A function or a view may hide the table, so the schema alone counts.
            near = schema in self._schemas or any((own, "") in names for own in self._schemas)
            return set(self._tables) if near else set()
        if statement.meaning is Meaning.UNKNOWN:
            return {
                name
                for (own, table), name in self._by_lower.items()
                if ("", table) in names and (own == schema or (own, "") in names)
            }
        return {
            self._by_lower[key] for own, table in names if (key := (own or schema, table)) in self._by_lower
        }


_UNREADABLE = Statement(Meaning.UNKNOWN)
_BY_STATEMENT = (
    "the binlog holds statements instead of rows; set binlog_format=ROW on the source, in every session"
)


def _add(progress: Progress, gtid: _Gtid) -> None:
    if len(gtid) == 2:
        progress.add_mysql(*gtid)
    else:
        progress.add_mariadb(*gtid)


def _unpacked(found: Iterable[Event]) -> Iterator[Event]:
    """The events, with those of compressed transactions in their place."""
    for event in found:
        if event[0] == EventType.TRANSACTION_PAYLOAD:
            for inner in payload_events(event[5], event[6], event[7]):
                yield from inner
        else:
            yield event
