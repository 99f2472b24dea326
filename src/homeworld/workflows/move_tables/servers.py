"""The real tools: what the workflow does to tables, on MySQL and MariaDB servers.

Definitions go through :mod:`homeworld.replication.tables`, each in a session of its own. What is asked under
a hold goes through connections that stay open for the workflow, so that it costs one round trip.
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from homeworld.model.errors import (
    ConnectionLostError,
    DeadlineExceededError,
    NotFoundError,
    ServerError,
    UnavailableError,
)
from homeworld.model.names import quote
from homeworld.model.tables import Table
from homeworld.model.topology import Endpoint, Flavor, ShardPlace
from homeworld.replication import sequences, sidecar, tables
from homeworld.replication.changes import Row
from homeworld.replication.connection import Connection
from homeworld.replication.ddl import TargetForm, layout_differences, split_create, target_table
from homeworld.replication.fence import name_of as fence_name
from homeworld.replication.positions import current_position
from homeworld.workflows.move_tables.preconditions.foreign_keys import left_behind
from homeworld.workflows.move_tables.preconditions.mentions import users
from homeworld.workflows.move_tables.preconditions.reader import read_users
from homeworld.workflows.move_tables.preconditions.triggers import triggers_of
from homeworld.workflows.move_tables.tools import IdColumn, VitessStream

LOCK_SECONDS = 2  # for a table's definition; whoever waits longer than that under a hold gives the hold up
DROP_SECONDS = 30
ANSWER_SECONDS = 30.0
_NO_SUCH_THREAD = 1094
_WRITES = re.compile(
    r"\s*(?:/\*.*?\*/\s*)*(?:insert|update|delete|replace|with|call|load)\b", re.IGNORECASE | re.DOTALL
)
_BLOCKED = frozenset({"Waiting for table metadata lock", "Waiting for table level lock"})
_log = logging.getLogger(__name__)
_SEQUENCE_COLUMNS = {"id", "next_id", "cache"}


class ServerTools:
    """Implements the Tools protocol for one workflow. One thread at a time."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Connection] = {}

    # -- definitions -----------------------------------------------------------------------------------------

    def describe(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, Table]:
        """The base tables of these names that exist."""
        return tables.find_tables(place, names)

    def has_rows(self, place: ShardPlace, table: str) -> bool:
        """Whether the table holds any row."""
        return not tables.is_empty(place, table)

    def filled(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        """Those tables that hold any row, looked at under a lock."""
        return tables.filled_under_lock(place, names, LOCK_SECONDS)

    def make_table(self, place: ShardPlace, like: Table, form: TargetForm) -> None:
        """Make a table where it is absent."""
        tables.create_table(place, like.name, target_table(like, form).create_sql)

    def give_numbers(self, place: ShardPlace, like: Table, column: str) -> None:
        """Give the column AUTO_INCREMENT where it does not have it."""
        table = tables.read_tables(place, [like.name])[like.name]
        if table.column(column).auto_increment:
            return
        head = f"{quote(table.column(column).name)} "
        elements, _ = split_create(table.create_sql)
        definition = next(element for element in elements if element.startswith(head))
        tables.run_ddl(
            place, f"ALTER TABLE {quote(place.schema, table.name)} MODIFY COLUMN {definition} AUTO_INCREMENT"
        )

    def drop_tables(self, place: ShardPlace, names: Sequence[str], confirm: Callable[[], None]) -> None:
        """Drop the tables that exist; together, because foreign keys may lie among them."""
        if names:
            joined = ", ".join(quote(place.schema, name) for name in names)
            with tables.definition_session(place.endpoint, 10.0 * DROP_SECONDS) as connection:
                # Somebody's open transaction may keep a table: then this is tried again, not waited for.
                connection.execute(f"SET SESSION lock_wait_timeout={DROP_SECONDS}")
                self._be_the_one(connection, place)
                confirm()
                connection.execute(f"DROP TABLE IF EXISTS {joined}")

    @staticmethod
    def _be_the_one(connection: Connection, place: ShardPlace) -> None:
        """Nobody else's session is about to drop tables of this schema. A process that was stopped in the
        middle of it and lost its lease would go on when it wakes up, over tables that are others' by then.

        :raises DeadlineExceededError: its session does not end.
        """
        name = f"homeworld drop {hashlib.sha256(place.schema.encode()).hexdigest()[:40]}"
        held = connection.query_one(f"SELECT IS_USED_LOCK('{name}')")[0]
        if held is not None:
            _log.warning("server %s: a session that was left is ended", place.endpoint.server_id)
            _kill(connection, int(held))
        if connection.query_one(f"SELECT GET_LOCK('{name}', {DROP_SECONDS})")[0] != b"1":
            raise DeadlineExceededError("a session that is about to drop tables does not end")

    def difference(self, place: ShardPlace, table: Table, origin: str = "the source") -> str:
        """How the place's table differs as far as rows are concerned."""
        found = tables.find_tables(place, [table.name]).get(table.name)
        where = f"{place.keyspace}/{place.shard}"
        if found is None:
            return f"table {table.name} is missing on {where}"
        return "; ".join(layout_differences(table, found, origin, where))

    def references(self, place: ShardPlace, names: Sequence[str]) -> Sequence[str]:
        """What is left behind and depends on these tables, or is left with them."""
        shard = read_users(self._connection(place.endpoint), place, names)
        moving = tuple(names)
        return [*left_behind(shard, moving), *triggers_of(shard, moving), *users(shard, moving)]

    # -- streams ---------------------------------------------------------------------------------------------

    def forget_stream(
        self, workflow_id: str, direction: str, targets: Sequence[ShardPlace], epoch: int
    ) -> None:
        """Remove a stream from the sidecars."""
        sidecar.forget(targets, workflow_id, direction, epoch)

    def positions(self, places: Sequence[ShardPlace]) -> Mapping[str, str]:
        """Each shard's server's position now; a server is asked once."""
        asked: dict[str, str] = {}
        for place in places:
            server = place.endpoint.server_id
            if server not in asked:
                connection = self._connection(place.endpoint)
                asked[server] = current_position(connection, place.endpoint.flavor)
                # Asked behind all that this workflow has written there: the owner may always, on MariaDB.
                if connection.query_one("SELECT @@GLOBAL.read_only")[0] != b"0":
                    raise UnavailableError(
                        f"the server of shard {place.keyspace}/{place.shard} takes no writes: another "
                        "is taking its place"
                    )
        return {place.shard: asked[place.endpoint.server_id] for place in places}

    def stream_positions(self, place: ShardPlace, sidecar: str) -> Mapping[int, VitessStream]:
        """How far the streams of Vitess are that write to the place."""
        rows = self._connection(place.endpoint).query_all(
            f"SELECT id, state, pos, message FROM {quote(sidecar, 'vreplication')} "
            f"WHERE db_name = {tables.literal(place.schema)}"
        )
        found: dict[int, VitessStream] = {}
        for number, *told in rows:
            state, position, message = ((value or b"").decode("utf-8", "replace") for value in told)
            found[int(number or 0)] = VitessStream(state, position.partition("/")[2], message)
        return found

    def mark_logs(self, places: Sequence[ShardPlace]) -> None:
        """Write into the log of each place's server something that changes nothing."""
        for place in {place.endpoint.server_id: place for place in places}.values():
            connection = self._connection(place.endpoint)
            # One that is fenced would write it, too, and what only it has keeps it from following another.
            if connection.query_one("SELECT @@GLOBAL.read_only")[0] == b"0":
                connection.execute("FLUSH OPTIMIZER_COSTS")

    # -- ids -------------------------------------------------------------------------------------------------

    def make_sequence(self, place: ShardPlace, name: str) -> None:
        """Make a sequence in Vitess's form where it is absent."""
        sequences.create_sequence(place, name)

    def is_sequence(self, place: ShardPlace, name: str) -> bool | None:
        """Whether the table is a sequence's; None: there is no such table."""
        found = tables.find_tables(place, [name]).get(name)
        if found is None:
            return None
        return {column.name.lower() for column in found.columns} >= _SEQUENCE_COLUMNS

    def largest_ids(self, places: Sequence[ShardPlace], columns: Sequence[IdColumn]) -> Mapping[str, int]:
        """The largest id in a row or given out by AUTO_INCREMENT, by table; two queries a server."""
        largest = dict.fromkeys((column.table for column in columns), 0)
        by_server: dict[str, list[ShardPlace]] = {}
        for place in places:
            by_server.setdefault(place.endpoint.server_id, []).append(place)
        for group in by_server.values():
            connection = self._connection(group[0].endpoint)
            parts = [
                _largest_of(place, number, column) for place in group for number, column in enumerate(columns)
            ]
            rows = connection.query_all(" UNION ALL ".join(parts))
            found = [(columns[int(number or 0)].table, int(value or 0)) for number, value in rows]
            for place in group:
                found += [
                    (table, next_ - 1) for table, next_ in _counters(connection, place, largest).items()
                ]
            for table, value in found:
                largest[table] = max(largest[table], value)
        return largest

    def given_by(self, place: ShardPlace, names: Sequence[str]) -> Mapping[str, int]:
        """The largest id that each sequence gave out."""
        return {name: max(0, self._next_id(place, name) - 1) for name in names}

    def raise_sequences(self, place: ShardPlace, above: Mapping[str, int]) -> None:
        """Let each sequence give only greater ids; in one transaction."""
        connection = self._connection(place.endpoint)
        lower = {name: least for name, least in above.items() if self._next_id(place, name) <= least}
        if not lower:
            return
        connection.execute("START TRANSACTION")
        try:
            for name, least in lower.items():
                connection.execute(
                    f"UPDATE {quote(place.schema, name)} SET next_id = {least + 1:d} "
                    f"WHERE id = 0 AND next_id <= {least:d}"
                )
        except ServerError:
            connection.execute("ROLLBACK")  # the connection stays, and rows would with it
            raise
        connection.execute("COMMIT")

    def raise_auto_increments(self, places: Sequence[ShardPlace], above: Mapping[str, int]) -> None:
        """Let each AUTO_INCREMENT give only greater ids; a table that does already is not touched."""
        for place in places:
            connection = self._connection(place.endpoint)
            for name, next_ in _counters(connection, place, above).items():
                if next_ <= above[name]:
                    connection.execute(
                        f"ALTER TABLE {quote(place.schema, name)} AUTO_INCREMENT = {above[name] + 1:d}"
                    )

    def _next_id(self, place: ShardPlace, name: str) -> int:
        rows: list[Row] = self._connection(place.endpoint).query_all(
            f"SELECT next_id FROM {quote(place.schema, name)} WHERE id = 0"
        )
        if not rows:
            raise NotFoundError(f"sequence {place.keyspace}.{name} has no row")
        return int(rows[0][0] or 0)

    # -- strangers -------------------------------------------------------------------------------------------

    def end_strangers(
        self,
        places: Sequence[ShardPlace],
        users: frozenset[str],
        known: Callable[[], frozenset[tuple[str, int]]],
        seconds: float,
    ) -> None:
        """End connections that nobody calls his own.

        :raises DeadlineExceededError: one does not end within the time.
        """
        servers = {place.endpoint.server_id: self._connection(place.endpoint) for place in places}
        found = {
            (server_id, number) for server_id, at in servers.items() for number in _connections(at, users)
        }
        strangers = found - known() if found else set[tuple[str, int]]()
        for server_id, number in strangers:
            _log.warning("server %s: connection %d of no living gateway is ended", server_id, number)
            _kill(servers[server_id], number)
        deadline = time.monotonic() + seconds
        while strangers:
            strangers &= {
                (server_id, number)
                for server_id in {server_id for server_id, _ in strangers}
                for number in _connections(servers[server_id], users)
            }
            if strangers and time.monotonic() > deadline:
                raise DeadlineExceededError("connections of a gateway that is not there do not end")
            if strangers:
                time.sleep(0.005)

    def end_fences(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        """End the sessions that keep the tables locked for a process which does not go on."""
        for place in places:
            connection = self._connection(place.endpoint)
            rows = connection.query_all(f"SELECT IS_USED_LOCK('{fence_name(place.schema, tables)}')")
            if rows and rows[0][0] is not None:
                number = int(rows[0][0])
                _log.warning("server %s: a fence that was left is ended", place.endpoint.server_id)
                _kill(connection, number)

    def end_blocked(self, places: Sequence[ShardPlace], tables: Sequence[str]) -> None:
        """End what writes rows, or names one of the tables, and waits for a lock on a table there."""
        named = re.compile("|".join(rf"\b{re.escape(table)}\b" for table in tables), re.IGNORECASE)
        schemas: dict[str, set[str]] = {}
        for place in places:
            schemas.setdefault(place.endpoint.server_id, set()).add(place.schema)
        for place in {place.endpoint.server_id: place for place in places}.values():
            connection = self._connection(place.endpoint)
            for row in connection.query_all("SHOW FULL PROCESSLIST"):
                schema, state, text = ((row[at] or b"").decode("utf-8", "replace") for at in (3, 6, 7))
                waits = state in _BLOCKED and schema in schemas[place.endpoint.server_id]
                if waits and (_WRITES.match(text) or named.search(text)):
                    number = int(row[0] or 0)
                    _log.warning(
                        "server %s: connection %d waits for tables that have moved, and is ended",
                        place.endpoint.server_id, number,
                    )  # fmt: skip
                    _kill(connection, number)

    # -- connections -----------------------------------------------------------------------------------------

    def warm(self, places: Sequence[ShardPlace]) -> None:
        """Open connections, and see that those which are open still answer."""
        for place in places:
            try:
                self._connection(place.endpoint).execute("DO 1")
            except ConnectionLostError:
                self._connection(place.endpoint)

    def close(self) -> None:
        """Close what is open."""
        for connection in self._open.values():
            connection.close()
        self._open.clear()

    def _connection(self, endpoint: Endpoint) -> Connection:
        key = (endpoint.server_id, endpoint.user)
        known = self._open.get(key)
        if known is not None and not known.closed and known.endpoint == endpoint:
            return known
        if known is not None:
            known.close()
        made = Connection(endpoint, fidelity=False, timeout_seconds=ANSWER_SECONDS)
        made.execute("SET NAMES utf8mb4")
        made.execute(f"SET SESSION lock_wait_timeout={LOCK_SECONDS}, innodb_lock_wait_timeout={LOCK_SECONDS}")
        if endpoint.flavor is Flavor.MYSQL:
            made.execute("SET SESSION information_schema_stats_expiry=0")
        self._open[key] = made
        return made


def _counters(connection: Connection, place: ShardPlace, names: Collection[str]) -> dict[str, int]:
    """The next number of each table that has AUTO_INCREMENT; one query, because clients wait for it."""
    if not names:
        return {}
    wanted = ", ".join(map(tables.literal, names))
    rows = connection.query_all(
        "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES "
        f"WHERE TABLE_SCHEMA = {tables.literal(place.schema)} AND TABLE_NAME IN ({wanted}) "
        "AND AUTO_INCREMENT IS NOT NULL"
    )
    found = {(name or b"").decode(): int(value or 0) for name, value in rows}
    # Some servers compare these names without regard to case, and have both t and T.
    return {name: value for name, value in found.items() if name in names}


def _largest_of(place: ShardPlace, number: int, column: IdColumn) -> str:
    """A query of (number, id): the largest in a row."""
    table = quote(place.schema, column.table)
    return f"SELECT {number:d}, COALESCE(MAX({quote(column.column)}), 0) FROM {table}"


def _kill(connection: Connection, number: int) -> None:
    try:
        connection.execute(f"KILL CONNECTION {number:d}")
    except ServerError as error:
        if error.server_errno != _NO_SUCH_THREAD:
            raise


def _connections(connection: Connection, users: frozenset[str]) -> set[int]:
    """The server's numbers of the users' connections; one whose login is not over has no user yet."""
    rows = connection.query_all("SHOW PROCESSLIST")
    return {int(row[0] or 0) for row in rows if (row[1] or b"").decode() in users}
