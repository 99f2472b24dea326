"""What the feed gives its consumer: row changes, DDL and positions, as plain cheap values.

It knows nothing of packets, events or servers. The invariant: a batch's ``position`` names exactly the
transactions whose every change was given in this batch or an earlier one, so whoever stores the position in
the same transaction as the changes resumes without loss and without repetition.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from homeworld.model.gtid import Position
from homeworld.model.topology import Flavor

#: One row image: for each column of the table, in its order, the bytes that the server's text protocol
#: gives for :func:`homeworld.replication.column_types.select_expression` of that column on a fidelity
#: connection; ``None`` is SQL NULL. Rows from SELECT and from the binlog compare byte for byte.
Row: TypeAlias = tuple[bytes | None, ...]

#: (schema, table), as the server spells them.
TableName: TypeAlias = tuple[str, str]

#: (table, before, after): an insert has ``before`` None, a delete ``after`` None, an update both. A tuple and
#: not a class because hundreds of thousands a second are made:
#: ``for table, before, after in batch.changes: ...``
RowChange: TypeAlias = tuple[TableName, Row | None, Row | None]


@dataclass(frozen=True, slots=True)
class DdlEvent:
    """A statement that changed, emptied, renamed or dropped wanted tables, or may have.

    :param tables: the wanted tables it touches; where that cannot be told, all wanted tables of the schema
        it ran in.
    :param sql: the statement as logged.
    :param default_schema: the schema it ran in.
    :param position_before: the position that holds everything before this statement and not the statement;
        commit the batch's changes with this one to stop in front of the DDL.
    :param truncates: it only emptied the tables (TRUNCATE TABLE); their shape is as before.
    :param explicit_timestamps: explicit_defaults_for_timestamp is known to have been ON for it.
    """

    tables: frozenset[TableName]
    sql: str
    default_schema: str
    position_before: str
    truncates: bool
    explicit_timestamps: bool


@dataclass(frozen=True, slots=True)
class FeedBatch:
    """What happened since the batch before.

    :param changes: in commit order.
    :param ddl: empty or one statement; it comes after all ``changes`` and ends the batch. Until the consumer
        has called ``Feed.set_tables`` with what the touched tables are now, row changes of them raise
        SchemaDriftError.
    :param position: the position after the last complete transaction given; it moves in batches without
        changes too.
    :param timestamp: unix seconds at which the newest event seen was made by its server (0: none seen yet).
    :param caught_up: the server had nothing more to send when the batch was closed.
    :param mid_transaction: the batch ends inside a transaction larger than ``max_events`` of which parts were
        given, in this batch or before; they are to be committed only together with the rest, or applied so
        that giving them once more is harmless. Such a batch holds changes of this transaction only.
    :param unfinished: with ``mid_transaction``: what ``position`` will be once that transaction is complete.
    :param discard_unfinished: parts given with ``mid_transaction`` before this batch are void: the stream was
        lost (the transaction is given again from its start) or the transaction was rolled back.
    :param undecided: MySQL: transactions that were prepared (XA) before the batch's end and wait for their
        decision. The server counts them among those it has executed; ``position`` does not have them.
    :param size: about how many bytes of the log its changes were.
    """

    changes: list[RowChange]
    ddl: tuple[DdlEvent, ...]
    position: str
    timestamp: int
    caught_up: bool
    mid_transaction: bool
    discard_unfinished: bool
    unfinished: str = ""
    undecided: str = ""
    size: int = 0


def reached_by(flavor: Flavor, batch: FeedBatch) -> Position:
    """How far the log has been read with a batch, as a server counts: with what is prepared there."""
    position = Position.parse(flavor, batch.position)
    return position.union(Position.parse(flavor, batch.undecided)) if batch.undecided else position
