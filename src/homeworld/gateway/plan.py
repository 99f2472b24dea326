"""Plans: what the router decided about one statement, for the session to carry out.

The router is pure: (statement, session's view, snapshot, schema) in, one of these out. It owns no
connection and no time. The session performs plans and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from homeworld.model.tables import Column
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
    """One shard to send to.

    :param vtgate: the branch's vtgate instead, aimed at the keyspace (empty: at none) and the shard (empty:
        vtgate chooses).
    """

    keyspace: str
    shard: str
    tablet_type: TabletType
    vtgate: bool = False


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

    ``keeps_state``: the statement leaves or needs something on its server connection that SET statements do
    not replay (user variables, GET_LOCK, temporary tables, LOCK TABLES, FOUND_ROWS(), text PREPARE), so that
    the session must go on with that very connection.
    ``anywhere``: beside its tables a shard of any keyspace may be asked (information_schema, by a vtgate).
    ``queries``: its verb is no SELECT, but it holds a query or gives rows back (INSERT … SELECT, RETURNING,
    EXPLAIN), so that who may not read may not do it either.
    """

    verb: Verb
    tables: frozenset[tuple[str, str]] = frozenset()
    locking_read: bool = False
    keeps_state: bool = False
    queries: bool = False
    anywhere: bool = False

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
    first shard's column definitions and returns the rows for the client, already cut. ``visible_columns``
    says how many of the leading *column definitions* the client sees, as a slice end: None all, ``-2`` all
    but the last two (helper columns for sorting stand at the end). For writes ``merge`` is None: affected
    rows are added up, unless ``same_rows``: every shard got the same rows (a reference table, DDL), so that
    one shard's count is the answer.

    ``last_insert_id`` is set where the gateway itself took ids from a sequence.
    """

    statements: tuple[tuple[Destination, bytes], ...]
    footprint: Footprint
    merge: Callable[[Sequence[Sequence[Row]]], Sequence[Row]] | None = None
    visible_columns: int | None = None
    last_insert_id: int = 0
    same_rows: bool = False


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
    """An error for the client; nothing was sent anywhere.

    :param keyspaces: of an error that says that something is missing: where it would be found. What is known
        of others does not matter to it. Empty: anywhere.
    """

    errno: int
    sqlstate: str
    message: str
    keyspaces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AlterVschema:
    """``ALTER VSCHEMA``: the whole new vschema of a keyspace, to be stored by the control plane.

    :param base_json: the vschema that was edited, so that no other's edit is undone by this one.
    """

    keyspace: str
    vschema_json: str
    base_json: str


@dataclass(frozen=True, slots=True)
class NeedSchema:
    """Before this statement can be planned, the tables and columns of ``keyspace`` must be known.

    The session has the tracker load them and asks the router again. A router asks at most once for each
    keyspace of a statement: after a load the tracker always has an answer.
    """

    keyspace: str


@dataclass(frozen=True, slots=True)
class NeedLastId:
    """Before this statement can be planned, the session must ask servers for LAST_INSERT_ID()."""


Plan = (
    Pass | Answer | Done | Scatter | NeedSequence | NeedSchema | NeedLastId | Control | Refuse | AlterVschema
)


@dataclass(frozen=True, slots=True)
class SessionView:
    """What the router may know of a session. ``charset``: the character set by which servers read its
    literals, the smaller one of two that are UTF-8; ``zero_is_value``: 0 asks for no id;
    ``last_insert_id``: its last id that was generated, below 0 where only a server knows
    (:class:`NeedLastId`).
    """

    target: Target
    in_transaction: bool
    role: str
    replica_only: bool
    last_insert_id: int = 0
    sequence_ids: tuple[int, ...] = field(default=())
    charset: str = "utf8mb4"
    zero_is_value: bool = False


@dataclass(frozen=True, slots=True)
class Prepared:
    """What the router says of a statement with ``?`` in it before any value is known.

    :param plan: where to prepare it, so that the server tells its parameters and columns: a Pass to any
        shard that has the tables (``sql`` with the ``?`` left in), or whatever :meth:`RouterPort.plan` would
        say of a statement that reaches no server (Control, Answer, Done, Refuse, NeedSchema …).
    :param fixed: every execution goes to ``plan`` whatever the values are (unsharded keyspaces): the session
        then sends executions through untouched and never calls ``plan_params``.
    """

    plan: Plan
    fixed: bool


@dataclass(frozen=True, slots=True)
class MadeValues:
    """Columns of a table that a server fills by its clock or by chance, so that two servers differ.

    :param by_default: where no value is given. ``on_update``: where an UPDATE gives none.
    """

    by_default: frozenset[str] = frozenset()
    on_update: frozenset[str] = frozenset()


class SchemaView(Protocol):
    """What the router may know of the tables on the servers (the gateway's SchemaTracker).

    ``version`` grows with every change, so that cached plans can be dropped. What it says of a keyspace to
    which newer routes have changed something was read after those routes were stored, or it says None.
    """

    version: int

    def tables(self, keyspace: str) -> frozenset[str] | None:
        """Names of the keyspace's tables and views; None: not loaded, plan :class:`NeedSchema`."""
        ...

    def columns(self, keyspace: str, table: str) -> tuple[ColumnSpec, ...] | None:
        """The table's visible columns in order; None: no such table or not loaded."""
        ...

    def table_columns(self, keyspace: str, table: str) -> tuple[Column, ...] | None:
        """All columns in order as information_schema has them, invisible and generated ones too.

        What the router places rows and sorts by. None: no such table or not loaded.
        """
        ...

    def unique_keys(self, keyspace: str, table: str) -> tuple[tuple[str, ...], ...] | None:
        """The columns of each unique key, the primary key among them; a part that is an expression or only a
        prefix of a column is the empty string. None: no such table or not loaded.
        """
        ...

    def made_values(self, keyspace: str, table: str) -> MadeValues | None:
        """The columns that servers fill differently. None: no such table or not loaded."""
        ...

    def beneath(self, keyspace: str, table: str) -> frozenset[str] | None:
        """The base tables that a view reads, through other views too, so that a hold on them also holds
        statements on the view (:func:`~homeworld.gateway.sql_tables.tables_in` reads them from the view's
        definition). None: it is a base table or not known.
        """
        ...


class RouterPort(Protocol):
    """The router of one branch at one version of its routes, as the session calls it.

    A gateway makes a new one for every new :class:`~homeworld.model.routing.BranchRoutes`, so a router may
    keep what it likes. Calls come from one thread only. No method raises for what a client wrote: that is a
    :class:`Refuse`.
    """

    def plan(self, sql: bytes, view: SessionView) -> Plan:
        """Plan one statement of the text protocol. Must be cheap for a statement seen before.

        Several statements in one text (``a; b``) are split by the session before this, see
        :meth:`split`.
        """
        ...

    def split(self, sql: bytes) -> tuple[bytes, ...]:
        """The statements of a text, without their ``;``; empty ones are left out. Called only where the text
        has a ``;`` and the client asked for multi-statements.
        """
        ...

    def plan_prepared(self, sql: bytes, view: SessionView) -> Prepared:
        """Plan COM_STMT_PREPARE."""
        ...

    def plan_params(self, sql: bytes, params: Sequence[bytes], view: SessionView) -> Plan:
        r"""Plan one execution of a prepared statement that is not ``fixed``.

        :param params: one SQL literal for each ``?``, escaped and ready to stand in the text
            (``b"42"``, ``b"'it\'s'"``, ``b"x'00ff'"``, ``b"NULL"``).
        :returns: as :meth:`plan` would for the text with the literals in it. A Pass whose ``sql`` equals the
            prepared text may be executed as prepared; otherwise it is sent as text and the session turns the
            rows into binary ones.
        """
        ...
