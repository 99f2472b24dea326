"""Plans: what the router decided about one statement, for the session to carry out.

The router is pure: (statement, session's view, snapshot, schema) in, one of these out. It owns no
connection and no time. The session performs plans and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from homeworld.model.topology import TabletType


@dataclass(frozen=True, slots=True)
class Target:
    """What a session is aimed at by its schema name or ``USE``.

    ``keyspace`` empty: global routing. ``shard`` empty: the router chooses. Written ``ks/-80@replica``.
    """

    keyspace: str = ""
    shard: str = ""
    tablet_type: TabletType = TabletType.PRIMARY


@dataclass(frozen=True, slots=True)
class Destination:
    """One shard to send to."""

    keyspace: str
    shard: str
    tablet_type: TabletType


class Verb(StrEnum):
    """What a statement is, as far as roles, transactions and holds must know."""

    SELECT = "select"
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"
    REPLACE = "replace"
    LOAD = "load"
    DDL = "ddl"
    BEGIN = "begin"
    COMMIT = "commit"
    ROLLBACK = "rollback"
    SAVEPOINT = "savepoint"
    SET = "set"
    USE = "use"
    SHOW = "show"
    CALL = "call"
    LOCK = "lock"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What every plan that reaches a server says of itself. ``tables`` are physical (keyspace, table) names
    after routing rules: what a hold matches.
    """

    verb: Verb
    tables: frozenset[tuple[str, str]] = frozenset()
    locking_read: bool = False

    @property
    def writes(self) -> bool:
        """Whether it may change rows or schema, or lock rows."""
        return self.locking_read or self.verb not in {Verb.SELECT, Verb.SHOW, Verb.USE, Verb.SET}


@dataclass(frozen=True, slots=True)
class Pass:
    """Send ``sql`` as it stands to one shard and hand everything that comes back through untouched."""

    destination: Destination
    sql: bytes
    footprint: Footprint


Row = tuple[bytes | None, ...]


@dataclass(frozen=True, slots=True)
class ColumnSpec:
    """A result column the gateway makes itself; ``type`` is a MySQL protocol column type number."""

    name: str
    type: int = 253
    charset: int = 255
    length: int = 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A result the router made without any server (``SHOW VITESS_SHARDS``)."""

    columns: tuple[ColumnSpec, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """An OK without any server."""

    affected_rows: int = 0
    last_insert_id: int = 0
    info: str = ""


@dataclass(frozen=True, slots=True)
class Scatter:
    """Send ``statements`` each to its destination, in parallel for reads, and merge.

    ``merge`` gets the rows of every shard (in the order of ``statements``) as text-protocol values with the
    first shard's column definitions and returns the rows for the client. ``visible_columns`` says how many
    of the leading columns the client sees (helper columns for sorting stand behind them). For writes
    ``merge`` is None: affected rows are added up.

    ``last_insert_id`` is set where the gateway itself took ids from a sequence.
    """

    statements: tuple[tuple[Destination, bytes], ...]
    footprint: Footprint
    merge: Callable[[Sequence[Sequence[Row]]], Sequence[Row]] | None = None
    visible_columns: int | None = None
    last_insert_id: int = 0


@dataclass(frozen=True, slots=True)
class NeedSequence:
    """Before this statement can be planned, ``count`` ids of a sequence are needed.

    The session takes them (its own short transaction on the sequence's table) and asks the router again
    with them in ``SessionView.sequence_ids``.
    """

    keyspace: str
    table: str
    count: int


@dataclass(frozen=True, slots=True)
class Control:
    """Transaction control and session state, which the session performs on all its servers.

    BEGIN is not sent before the first statement that needs a server, so that a transaction that has touched
    nothing can follow a switch. SET statements are replayed on every server connection opened later.
    """

    verb: Verb
    sql: bytes
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Refuse:
    """An error for the client; nothing was sent anywhere."""

    errno: int
    sqlstate: str
    message: str


@dataclass(frozen=True, slots=True)
class AlterVschema:
    """``ALTER VSCHEMA``: the whole new vschema of a keyspace, to be stored by the control plane."""

    keyspace: str
    vschema_json: str


Plan = Pass | Answer | Done | Scatter | NeedSequence | Control | Refuse | AlterVschema


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the router may know of a session."""

    target: Target
    in_transaction: bool
    role: str
    replica_only: bool
    last_insert_id: int = 0
    sequence_ids: tuple[int, ...] = field(default=())
