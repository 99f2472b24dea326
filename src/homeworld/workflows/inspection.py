"""Looking at servers for people: the Inspection port over real servers.

Knows information_schema and the process lists of both flavours, and no request. Everything is read as the
servers' owner on a connection of its own, with a deadline, and nothing but ``kill`` changes anything.

Invariant: what is told of one schema or server was read on one connection.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from homeworld.model.errors import NotFoundError, ServerError, UnavailableError
from homeworld.model.inspection import Definition, ServerConnection, TableFacts
from homeworld.model.names import quote
from homeworld.model.ports import Engine, ServerStatus
from homeworld.model.sizes import Host
from homeworld.model.topology import BackendRole, Flavor, ShardPlace
from homeworld.replication.connection import Connection
from homeworld.replication.tables import literal
from homeworld.store.store import Store

ANSWER_SECONDS = 10.0
_NO_SUCH_THREAD = 1094
_CLIENT_ROLES = (BackendRole.READER, BackendRole.WRITER, BackendRole.READWRITER, BackendRole.ADMIN)
_VIEW_HEAD = re.compile(r"^CREATE .*?\bVIEW\b", re.DOTALL)
_NEXT_ID = re.compile(r" AUTO_INCREMENT=\d+\b")
_BASE_TABLES = "TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"


class ServerInspection:
    """Implements ``model.inspection.Inspection``."""

    def __init__(self, store: Store, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    def host(self) -> Host:
        """See Inspection."""
        return self._engine.host()

    def status(self, server_id: str) -> ServerStatus:
        """See Inspection."""
        return self._engine.status(server_id)

    def restarts(self, server_id: str) -> int:
        """See Inspection."""
        return self._engine.restarts(server_id)

    # -- definitions -----------------------------------------------------------------------------------------

    def definitions(self, keyspace_id: str) -> Sequence[Definition]:
        """See Inspection."""
        place = self._place(keyspace_id)
        with _session(place) as connection:
            rows = connection.query_all(
                "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES "  # noqa: S608 - a hex literal
                f"WHERE TABLE_SCHEMA = {literal(place.schema)} AND ({_BASE_TABLES} OR TABLE_TYPE = 'VIEW') "
                "ORDER BY TABLE_NAME"
            )
            found: list[Definition] = []
            for name, kind in ((_text(row[0]), _text(row[1])) for row in rows):
                try:
                    shown = connection.query_one(f"SHOW CREATE TABLE {quote(name)}")
                except ServerError as error:
                    if error.server_errno in _GONE:
                        continue
                    raise
                view = kind == "VIEW"
                sql = plain_definition(_text(shown[1]), view=view)
                found.append(Definition(place.keyspace, name, sql, view))
        return found

    def facts(self, keyspace_id: str) -> Sequence[TableFacts]:
        """See Inspection."""
        place = self._place(keyspace_id)
        here = f"TABLE_SCHEMA = {literal(place.schema)}"
        with _session(place) as connection:
            tables = _rows(
                connection,
                "SELECT TABLE_NAME, ENGINE, TABLE_COLLATION FROM information_schema.TABLES "  # noqa: S608
                f"WHERE {here} AND {_BASE_TABLES} ORDER BY TABLE_NAME",
            )
            columns = _rows(
                connection,
                "SELECT TABLE_NAME, COLUMN_NAME, IS_NULLABLE, EXTRA FROM information_schema.COLUMNS "  # noqa: S608
                f"WHERE {here} ORDER BY TABLE_NAME, ORDINAL_POSITION",
            )
            unique = _rows(
                connection,
                "SELECT TABLE_NAME, INDEX_NAME, COALESCE(COLUMN_NAME, '') "  # noqa: S608
                f"FROM information_schema.STATISTICS WHERE {here} AND NON_UNIQUE = 0",
            )
            references = _rows(
                connection,
                "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.KEY_COLUMN_USAGE "  # noqa: S608
                f"WHERE {here} AND REFERENCED_TABLE_NAME IS NOT NULL ORDER BY TABLE_NAME, COLUMN_NAME",
            )
            partitions = _rows(
                connection,
                "SELECT DISTINCT TABLE_NAME, PARTITION_METHOD FROM information_schema.PARTITIONS "  # noqa: S608
                f"WHERE {here} AND PARTITION_METHOD IS NOT NULL",
            )
        solid = {(row[0], row[1]) for row in columns if row[2] == "NO"}
        indexes: dict[tuple[str, str], list[str]] = {}
        for table, index, column in unique:
            indexes.setdefault((table, index), []).append(column)
        keyed = {
            table for (table, _), names in indexes.items() if all((table, name) in solid for name in names)
        }
        methods = {row[0]: row[1] for row in partitions}
        return [
            TableFacts(
                keyspace=place.keyspace,
                name=name,
                engine=engine,
                charset=collation.split("_", 1)[0],
                keyed=name in keyed,
                auto_increment=tuple(r[1] for r in columns if r[0] == name and "auto_increment" in r[3]),
                foreign_key_columns=tuple(row[1] for row in references if row[0] == name),
                columns=frozenset(row[1].lower() for row in columns if row[0] == name),
                partitioning=methods.get(name, ""),
            )
            for name, engine, collation in tables
        ]

    def _place(self, keyspace_id: str) -> ShardPlace:
        """The first shard of a keyspace: all shards have the same definitions."""
        with self._store.read() as tx:
            keyspace = tx.keyspaces.get(keyspace_id)
            shard = tx.keyspaces.shards(keyspace_id)[0]
        if shard.primary_server_id is None:
            raise UnavailableError(f"keyspace {keyspace.name} is not ready yet")
        endpoint = self._engine.endpoint(shard.primary_server_id, BackendRole.OWNER)
        return ShardPlace(keyspace.name, shard.name, shard.schema_name, endpoint)

    # -- connections -----------------------------------------------------------------------------------------

    def connections(self, server_id: str) -> Sequence[ServerConnection]:
        """See Inspection."""
        endpoint = self._engine.endpoint(server_id, BackendRole.OWNER)
        clients = {self._engine.endpoint(server_id, role).user for role in _CLIENT_ROLES}
        with Connection(endpoint, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
            ((own,),) = _rows(connection, "SELECT CONNECTION_ID()")
            if endpoint.flavor is Flavor.MARIADB:
                listed = _rows(
                    connection,
                    "SELECT ID, USER, HOST, DB, COMMAND, TIME_MS / 1000, STATE, INFO "
                    "FROM information_schema.PROCESSLIST ORDER BY ID",
                )
                waits = _rows(
                    connection,
                    "SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id "
                    "FROM information_schema.INNODB_LOCK_WAITS w "
                    "JOIN information_schema.INNODB_TRX r ON r.trx_id = w.requesting_trx_id "
                    "JOIN information_schema.INNODB_TRX b ON b.trx_id = w.blocking_trx_id",
                )
            else:
                listed = [row[:8] for row in _rows(connection, "SHOW FULL PROCESSLIST")]
                # Empty on a server that was started before it was to tell.
                waits = _rows(
                    connection,
                    "SELECT r.trx_mysql_thread_id, b.trx_mysql_thread_id "
                    "FROM performance_schema.data_lock_waits w "
                    "JOIN information_schema.INNODB_TRX r ON r.trx_id = w.REQUESTING_ENGINE_TRANSACTION_ID "
                    "JOIN information_schema.INNODB_TRX b ON b.trx_id = w.BLOCKING_ENGINE_TRANSACTION_ID",
                )
            transactions = {
                row[0]: row
                for row in _rows(
                    connection,
                    "SELECT trx_mysql_thread_id, DATE_FORMAT(trx_started, '%Y-%m-%dT%H:%i:%s'), trx_state "
                    "FROM information_schema.INNODB_TRX",
                )
            }
        found: list[ServerConnection] = []
        for number, user, host, schema, command, seconds, state, text in listed:
            if number == own:
                continue
            trx = transactions.get(number)
            found.append(
                ServerConnection(
                    number=int(number),
                    user=user,
                    host=host,
                    schema=schema,
                    command=command,
                    seconds=max(0.0, float(seconds or 0)),
                    state=state,
                    text=text,
                    ours=user not in clients,
                    transaction_began=datetime.fromisoformat(trx[1]).replace(tzinfo=UTC) if trx else None,
                    waits_for_lock=bool(trx) and trx[2] == "LOCK WAIT",
                    blocked_by=tuple(sorted({int(b) for waiter, b in waits if waiter == number})),
                )
            )
        return found

    def kill(self, server_id: str, number: int, *, query: bool) -> None:
        """See Inspection."""
        endpoint = self._engine.endpoint(server_id, BackendRole.OWNER)
        with Connection(endpoint, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
            try:
                connection.execute(f"KILL {'QUERY' if query else 'CONNECTION'} {number:d}")
            except ServerError as error:
                if error.server_errno == _NO_SUCH_THREAD:
                    raise NotFoundError(f"server {server_id} has no connection {number}") from error
                raise


# No such table; a view whose table is gone.
_GONE = frozenset({1146, 1356})


def plain_definition(sql: str, *, view: bool) -> str:
    r"""A CREATE statement without what is no definition: the next AUTO_INCREMENT value, a view's definer.

    >>> plain_definition("CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB AUTO_INCREMENT=7", view=False)
    'CREATE TABLE `t` (\n  `id` int\n) ENGINE=InnoDB'
    """
    if view:
        return _VIEW_HEAD.sub("CREATE VIEW", sql, count=1)
    # Behind the last column and index, so that no comment is taken for it.
    head, mark, options = sql.rpartition("\n)")
    return f"{head}{mark}{_NEXT_ID.sub('', options, count=1)}"


def _session(place: ShardPlace) -> Connection:
    connection = Connection(place.endpoint, fidelity=False, timeout_seconds=ANSWER_SECONDS)
    try:
        connection.execute("SET NAMES utf8mb4")
        connection.execute("SET SESSION sql_quote_show_create=1, time_zone='+00:00'")
        # Inside it views are shown without its name.
        connection.execute(f"USE {quote(place.schema)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _rows(connection: Connection, sql: str) -> list[tuple[str, ...]]:
    return [tuple(_text(value) for value in row) for row in connection.query_all(sql)]


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")
