"""The mover's memory, which lives where its rows live: schema ``_homeworld`` on each target server.

A row of ``streams`` for each source shard and target shard (position, epoch), one of ``copies`` for each of
their tables (spans done), one of ``ddls`` for a statement that is being carried over, one of ``comparisons``
for what a verification has found to be equal in a table, one of ``verdicts`` for what was decided of rows
that met another source shard's. The functions below run inside whatever transaction the connection has open;
none commits.

Invariant: a row changes only for the epoch that claimed it last. A writer that finds no such row raises
FencedError, its transaction is rolled back, and so nothing it wrote stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeworld.model.errors import FencedError, InvalidError, ServerError
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import ShardPlace
from homeworld.replication.chunks import Span, spans_from_text, spans_to_text
from homeworld.replication.connection import Connection
from homeworld.replication.tables import table_from_text, table_to_text

SCHEMA = "_homeworld"
_NO_TABLE = frozenset({1049, 1146})
_IDS = (
    "workflow_id VARBINARY(64) NOT NULL, direction VARBINARY(16) NOT NULL, "
    "source_shard VARBINARY(130) NOT NULL, target_shard VARBINARY(130) NOT NULL"
)
_OWNED = "epoch BIGINT UNSIGNED NOT NULL, writes BIGINT UNSIGNED NOT NULL DEFAULT 0"
_TABLES = (
    f"CREATE DATABASE IF NOT EXISTS {SCHEMA}",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.streams ({_IDS}, {_OWNED}, position LONGBLOB NOT NULL, "
    "events BIGINT UNSIGNED NOT NULL DEFAULT 0, stopped_before LONGBLOB NOT NULL, "
    "PRIMARY KEY (workflow_id, direction, source_shard, target_shard)) ENGINE=InnoDB",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.copies ({_IDS}, table_name VARBINARY(256) NOT NULL, {_OWNED}, "
    "done LONGBLOB NOT NULL, rows_copied BIGINT UNSIGNED NOT NULL DEFAULT 0, definition LONGBLOB NOT NULL, "
    "PRIMARY KEY (workflow_id, direction, source_shard, target_shard, table_name)) ENGINE=InnoDB",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.ddls ({_IDS}, before_position LONGBLOB NOT NULL, "
    "definitions LONGBLOB NOT NULL, "
    "PRIMARY KEY (workflow_id, direction, source_shard, target_shard)) ENGINE=InnoDB",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.comparisons ({_IDS}, table_name VARBINARY(256) NOT NULL, {_OWNED}, "
    "verify_id VARBINARY(64) NOT NULL, found LONGBLOB NOT NULL, "
    "PRIMARY KEY (workflow_id, direction, source_shard, target_shard, table_name)) ENGINE=InnoDB",
    f"CREATE TABLE IF NOT EXISTS {SCHEMA}.verdicts ({_IDS}, decided LONGBLOB NOT NULL, "
    "PRIMARY KEY (workflow_id, direction, source_shard, target_shard)) ENGINE=InnoDB",
)


@dataclass(frozen=True, slots=True)
class StreamId:
    """One stream of one direction of one workflow."""

    workflow_id: str
    direction: str
    source_shard: str
    target_shard: str

    @property
    def where(self) -> str:
        """The condition that finds the stream's rows."""
        return (
            f"workflow_id={_bytes(self.workflow_id)} AND direction={_bytes(self.direction)} "
            f"AND source_shard={_bytes(self.source_shard)} AND target_shard={_bytes(self.target_shard)}"
        )

    @property
    def values(self) -> str:
        """The four values, for INSERT."""
        return ", ".join(
            _bytes(value)
            for value in (self.workflow_id, self.direction, self.source_shard, self.target_shard)
        )


@dataclass(frozen=True, slots=True)
class StreamState:
    """What a stream remembers. ``stopped_before``: the position in front of a DDL that stopped it;
    ``verdicts``: what was kept by :func:`save_verdicts`; ``new``: the sidecar has only now heard of it.
    """

    position: str
    events: int
    stopped_before: str
    verdicts: str = ""
    new: bool = False


@dataclass(frozen=True, slots=True)
class CopyState:
    """What a table of a stream remembers.

    :param done: the spans that the target has.
    :param rows_copied: how many rows came with them.
    :param definition: the source's table as it is at the stream's position.
    """

    done: tuple[Span, ...]
    rows_copied: int
    definition: Table


def prepare(connection: Connection) -> None:
    """Make the schema and its tables; no-op where they are."""
    for statement in _TABLES:
        connection.execute(statement)


def claim(connection: Connection, stream: StreamId, epoch: int, start_position: str | None) -> StreamState:
    """Take the stream for ``epoch``; to be called in a transaction, before any other row of it is read.

    :param start_position: where a stream begins that the sidecar does not know yet; None: it must know it.
    :raises FencedError: a newer epoch has it.
    :raises InvalidError: the stream is not known, and there is no position to begin at.
    """
    new = False
    if start_position is not None:
        made = connection.execute(
            f"INSERT IGNORE INTO {SCHEMA}.streams "
            "(workflow_id, direction, source_shard, target_shard, epoch, position, stopped_before) "
            f"VALUES ({stream.values}, {epoch:d}, {_bytes(start_position)}, '')"
        )
        new = made.affected == 1
    rows = connection.query_all(
        f"SELECT epoch, position, events, stopped_before FROM {SCHEMA}.streams "
        f"WHERE {stream.where} FOR UPDATE"
    )
    if not rows:
        raise InvalidError(f"there is no position to begin the stream from shard {stream.source_shard!r} at")
    known, position, events, stopped = rows[0]
    if int(known or 0) > epoch:
        raise FencedError(f"epoch {int(known or 0)} has taken over from {epoch}", stream=stream, epoch=epoch)
    for table in ("streams", "copies", "comparisons"):
        connection.execute(
            f"UPDATE {SCHEMA}.{table} SET epoch={epoch:d}, writes=writes+1 WHERE {stream.where}"
        )
    decided = connection.query_all(f"SELECT decided FROM {SCHEMA}.verdicts WHERE {stream.where}")
    verdicts = _text(decided[0][0]) if decided else ""
    return StreamState(_text(position), int(events or 0), _text(stopped), verdicts, new)


def claim_copy(
    connection: Connection, stream: StreamId, epoch: int, table: Table, done: Sequence[Span]
) -> CopyState:
    """What the table remembers. The stream must be claimed in this transaction.

    :param table: the source's table now, and ``done`` what counts as copied, where the table is new here.
    """
    connection.execute(
        f"INSERT IGNORE INTO {SCHEMA}.copies "
        "(workflow_id, direction, source_shard, target_shard, table_name, epoch, done, definition) "
        f"VALUES ({stream.values}, {_bytes(table.name)}, {epoch:d}, {_bytes(spans_to_text(done))}, "
        f"{_bytes(table_to_text(table))})"
    )
    spans, rows, definition = connection.query_one(
        f"SELECT done, rows_copied, definition FROM {SCHEMA}.copies "
        f"WHERE {stream.where} AND table_name={_bytes(table.name)}"
    )
    return CopyState(spans_from_text(_text(spans)), int(rows or 0), table_from_text(_text(definition)))


def save_position(
    connection: Connection, streams: Iterable[StreamId], epoch: int, position: str, events: int
) -> None:
    """Move streams to a position, within the transaction that holds what it names.

    :param events: row changes that the transaction holds.
    :raises FencedError: another epoch has a stream; the caller rolls back.
    """
    for stream in streams:
        _guarded(
            connection,
            f"UPDATE {SCHEMA}.streams SET position={_bytes(position)}, events=events+{events:d}, "
            f"stopped_before='', writes=writes+1 WHERE {stream.where} AND epoch={epoch:d}",
            epoch,
        )


def save_verdicts(connection: Connection, stream: StreamId, decided: str) -> None:
    """Keep what was decided, within the transaction that moves the stream to where it was."""
    connection.execute(
        f"REPLACE INTO {SCHEMA}.verdicts VALUES ({stream.values}, {_bytes(decided)})"
        if decided
        else f"DELETE FROM {SCHEMA}.verdicts WHERE {stream.where}"
    )


def save_stop(connection: Connection, stream: StreamId, epoch: int, position: str) -> None:
    """Remember that the stream stands in front of a DDL, which comes after ``position``.

    :raises FencedError: another epoch has the stream; the caller rolls back.
    """
    _guarded(
        connection,
        f"UPDATE {SCHEMA}.streams SET position={_bytes(position)}, stopped_before={_bytes(position)}, "
        f"writes=writes+1 WHERE {stream.where} AND epoch={epoch:d}",
        epoch,
    )


def save_copy(
    connection: Connection, stream: StreamId, epoch: int, table: str, done: Sequence[Span], rows: int
) -> None:
    """Set a table's spans, within the transaction that holds the newest one's rows.

    :param rows: how many rows that transaction adds.
    :raises FencedError: another epoch has the stream; the caller rolls back.
    """
    _guarded(
        connection,
        f"UPDATE {SCHEMA}.copies SET done={_bytes(spans_to_text(done))}, rows_copied=rows_copied+{rows:d}, "
        f"writes=writes+1 WHERE {stream.where} AND table_name={_bytes(table)} AND epoch={epoch:d}",
        epoch,
    )


def save_definition(connection: Connection, stream: StreamId, epoch: int, table: Table) -> None:
    """Set what the source's table is from the stream's position on, within the transaction that moves it.

    What was compared of the table before counts no more.

    :raises FencedError: another epoch has the stream; the caller rolls back.
    """
    connection.execute(
        f"DELETE FROM {SCHEMA}.comparisons WHERE workflow_id={_bytes(stream.workflow_id)} "
        f"AND direction={_bytes(stream.direction)} AND table_name={_bytes(table.name)}"
    )
    _guarded(
        connection,
        f"UPDATE {SCHEMA}.copies SET definition={_bytes(table_to_text(table))}, writes=writes+1 "
        f"WHERE {stream.where} AND table_name={_bytes(table.name)} AND epoch={epoch:d}",
        epoch,
    )


def check_epoch(connection: Connection, stream: StreamId, epoch: int) -> None:
    """Hold the stream to be this epoch's still, before something that no transaction can take back (DDL).

    :raises FencedError: it is not.
    """
    rows = connection.query_all(f"SELECT epoch FROM {SCHEMA}.streams WHERE {stream.where}")
    if [row[0] for row in rows] != [str(epoch).encode()]:
        raise FencedError(f"epoch {epoch} has been taken over", epoch=epoch)


def ddl_begun(connection: Connection, stream: StreamId, position: str) -> str | None:
    """The target's definitions from before the DDL after ``position``, if it was begun."""
    rows = connection.query_all(
        f"SELECT before_position, definitions FROM {SCHEMA}.ddls WHERE {stream.where}"
    )
    return next((_text(row[1]) for row in rows if _text(row[0]) == position), None)


def begin_ddl(connection: Connection, stream: StreamId, position: str, definitions: str) -> None:
    """Remember what the target's tables were before the DDL that comes after ``position``."""
    connection.execute(
        f"REPLACE INTO {SCHEMA}.ddls VALUES ({stream.values}, {_bytes(position)}, {_bytes(definitions)})"
    )


def compared(connection: Connection, stream: StreamId, verify_id: str) -> dict[str, str]:
    """What a verification has kept, by table."""
    rows = connection.query_all(
        f"SELECT table_name, found FROM {SCHEMA}.comparisons "
        f"WHERE {stream.where} AND verify_id={_bytes(verify_id)}"
    )
    return {_text(name): _text(found) for name, found in rows}


def begin_comparison(
    connection: Connection, stream: StreamId, epoch: int, verify_id: str, tables: Iterable[str]
) -> None:
    """From here on only this verification is kept, and of it only what is said of these tables.

    :raises FencedError: another epoch has the stream; the caller rolls back.
    """
    rows = connection.query_all(f"SELECT epoch FROM {SCHEMA}.streams WHERE {stream.where} LOCK IN SHARE MODE")
    if [row[0] for row in rows] != [str(epoch).encode()]:
        raise FencedError(f"epoch {epoch} has been taken over", epoch=epoch)
    kept = ", ".join(map(_bytes, tables))
    others = f" OR table_name NOT IN ({kept})" if kept else " OR TRUE"
    connection.execute(
        f"DELETE FROM {SCHEMA}.comparisons WHERE {stream.where} AND (verify_id<>{_bytes(verify_id)}{others})"
    )


def add_compared(
    connection: Connection, stream: StreamId, epoch: int, verify_id: str, table: str, found: str
) -> None:
    """Set what a verification keeps of a table, whatever stood there."""
    connection.execute(
        f"REPLACE INTO {SCHEMA}.comparisons "
        "(workflow_id, direction, source_shard, target_shard, table_name, epoch, verify_id, found) "
        f"VALUES ({stream.values}, {_bytes(table)}, {epoch:d}, {_bytes(verify_id)}, {_bytes(found)})"
    )


def save_compared(
    connection: Connection, stream: StreamId, epoch: int, verify_id: str, table: str, found: str
) -> bool:
    """Set what a verification keeps of a table; false: it counts no more, or another epoch owns it."""
    return (
        connection.execute(
            f"UPDATE {SCHEMA}.comparisons SET found={_bytes(found)}, writes=writes+1 WHERE {stream.where} "
            f"AND table_name={_bytes(table)} AND verify_id={_bytes(verify_id)} AND epoch={epoch:d}"
        ).affected
        == 1
    )


def forget(
    places: Iterable[ShardPlace], workflow_id: str, direction: str | None = None, epoch: int | None = None
) -> None:
    """Remove a workflow's rows (of one direction) from the sidecars of these places; no-op without any.

    :param epoch: the newest that the caller knows of; None: whatever there is.
    :raises FencedError: a stream is of a newer epoch; there nothing is removed.
    """
    condition = f"workflow_id={_bytes(workflow_id)}"
    if direction is not None:
        condition += f" AND direction={_bytes(direction)}"
    for place in places:
        with Connection(place.endpoint) as connection:
            connection.execute("START TRANSACTION")
            for table in ("streams", "verdicts", "comparisons", "ddls", "copies"):
                try:
                    if table == "streams" and epoch is not None:
                        _refuse_newer(connection, condition, epoch)
                    connection.execute(f"DELETE FROM {quote(SCHEMA, table)} WHERE {condition}")
                except ServerError as error:
                    if error.server_errno not in _NO_TABLE:
                        raise
            connection.execute("COMMIT")


def _refuse_newer(connection: Connection, condition: str, epoch: int) -> None:
    rows = connection.query_all(
        f"SELECT epoch FROM {quote(SCHEMA, 'streams')} WHERE {condition} AND epoch > {epoch:d} FOR UPDATE"
    )
    if rows:
        raise FencedError(f"epoch {int(rows[0][0] or 0)} has taken over from {epoch}", epoch=epoch)


def _guarded(connection: Connection, sql: str, epoch: int) -> None:
    # "writes" changes each time, so that affected rows are matched rows.
    if connection.execute(sql).affected != 1:
        raise FencedError(f"epoch {epoch} has been taken over", epoch=epoch)


def _bytes(text: str) -> str:
    return f"x'{text.encode().hex()}'" if text else "''"


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode()
