"""Reads the world that the rules judge: the store in one transaction, each server once.

It judges nothing. Every name in a statement is a quoted identifier or a hex literal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from homeworld.model.engines import EngineKind
from homeworld.model.errors import ServerError, UnavailableError
from homeworld.model.names import quote
from homeworld.model.ports import Engine, MoveWish
from homeworld.model.states.lifecycle import Life
from homeworld.model.topology import BackendRole, Flavor, ShardPlace
from homeworld.model.vschema import VSchema, parse
from homeworld.replication.connection import Connection
from homeworld.replication.positions import log_filters
from homeworld.replication.tables import find_tables, literal, reading_session
from homeworld.store.keyspaces import Keyspace, Shard
from homeworld.store.store import Store, Transaction
from homeworld.workflows.move_tables.ids import sequence_name
from homeworld.workflows.move_tables.preconditions.world import (
    Body,
    ForeignKey,
    KeyspaceFacts,
    ServerFacts,
    ShardFacts,
    Trigger,
    World,
)

_VARIABLES = (
    "log_bin", "binlog_format", "binlog_row_image", "binlog_row_metadata", "binlog_row_value_options",
    "gtid_mode", "enforce_gtid_consistency", "binlog_transaction_compression",
    "sync_binlog", "innodb_flush_log_at_trx_commit",
)  # fmt: skip
_DENIED = 1227
#: For each answer: whoever asked waits, and a lock on a table may be held for hours.
ANSWER_SECONDS = 30.0
# A bodies' columns: kind, name, text. Each is a query with the schema's literal put in.
_BODIES = (
    "SELECT 'view', TABLE_NAME, VIEW_DEFINITION FROM information_schema.VIEWS WHERE TABLE_SCHEMA = {schema}",
    "SELECT 'trigger', TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS "
    "WHERE TRIGGER_SCHEMA = {schema} AND EVENT_OBJECT_TABLE NOT IN ({tables})",
    "SELECT LOWER(ROUTINE_TYPE), ROUTINE_NAME, ROUTINE_DEFINITION FROM information_schema.ROUTINES "
    "WHERE ROUTINE_SCHEMA = {schema}",
    "SELECT 'event', EVENT_NAME, EVENT_DEFINITION FROM information_schema.EVENTS "
    "WHERE EVENT_SCHEMA = {schema}",
)
# The same in the server's other schemas, where the text has the schema's name in it.
_BODIES_ELSEWHERE = tuple(
    f"SELECT {kind}, {name}, {text}, {owner} FROM information_schema.{table} "  # noqa: S608 - our own names
    f"WHERE {owner} NOT IN ({{schema}}, 'mysql', 'sys', 'performance_schema', 'information_schema') "
    f"AND LOCATE({{schema}}, {text})"
    for kind, name, text, owner, table in (
        ("'view'", "TABLE_NAME", "VIEW_DEFINITION", "TABLE_SCHEMA", "VIEWS"),
        ("'trigger'", "TRIGGER_NAME", "ACTION_STATEMENT", "TRIGGER_SCHEMA", "TRIGGERS"),
        ("LOWER(ROUTINE_TYPE)", "ROUTINE_NAME", "ROUTINE_DEFINITION", "ROUTINE_SCHEMA", "ROUTINES"),
        ("'event'", "EVENT_NAME", "EVENT_DEFINITION", "EVENT_SCHEMA", "EVENTS"),
    )
)


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the store says."""

    branch: str
    production: bool
    safe_migrations: bool
    active_workflow: int | None
    keyspaces: Mapping[str, Keyspace]
    shards: Mapping[str, tuple[Shard, ...]]
    source_id: str
    target_id: str
    global_id: str | None
    engine: EngineKind
    rules: Mapping[str, str]


def read_world(store: Store, engine: Engine, wish: MoveWish) -> World:
    """Everything that the rules need.

    :raises UnavailableError: a server does not answer.
    :raises NotFoundError: the wish names what is not in the store.
    """
    with store.read() as tx:
        stored = _read_store(tx, wish)
    source = _keyspace(stored, engine, stored.source_id, wish.tables, BackendRole.OWNER)
    target = _keyspace(stored, engine, stored.target_id, wish.tables, BackendRole.OWNER)
    globals_ = None
    sequences: dict[str, bool] = {}
    if stored.global_id is not None:
        globals_ = _keyspace(stored, engine, stored.global_id, (), BackendRole.OWNER)
        for place in _places(stored, engine, stored.global_id, BackendRole.OWNER)[:1]:
            sequences = _sequences(place, wish.tables, globals_.vschema)
    return World(
        branch=stored.branch,
        production=stored.production,
        safe_migrations=stored.safe_migrations,
        active_workflow=stored.active_workflow,
        tables=wish.tables,
        source=source,
        target=target,
        globals_=globals_,
        vschemas={keyspace.name: parse(keyspace.vschema) for keyspace in stored.keyspaces.values()},
        servers=_servers(stored, engine),
        sequences=sequences,
        engine=stored.engine,
        rules=stored.rules,
    )


def _read_store(tx: Transaction, wish: MoveWish) -> _Stored:
    branch = tx.branches.get(wish.branch_id)
    keyspaces = {keyspace.id: keyspace for keyspace in tx.keyspaces.of_branch(branch.id)}
    for keyspace_id in (wish.source_keyspace_id, wish.target_keyspace_id, wish.global_keyspace_id):
        if keyspace_id is not None and keyspace_id not in keyspaces:
            keyspaces[keyspace_id] = tx.keyspaces.get(keyspace_id)
    active = tx.workflows.active_on([branch.id]).get(branch.id)
    source = keyspaces[wish.source_keyspace_id]
    global_id = wish.global_keyspace_id or (None if source.sharded else source.id)
    return _Stored(
        branch=branch.name,
        production=branch.production,
        safe_migrations=branch.safe_migrations,
        active_workflow=active.number if active is not None and active.id != wish.workflow_id else None,
        keyspaces=keyspaces,
        shards={keyspace_id: tx.keyspaces.shards(keyspace_id) for keyspace_id in keyspaces},
        source_id=source.id,
        target_id=wish.target_keyspace_id,
        global_id=global_id,
        engine=tx.databases.get(branch.database_id).engine,
        rules=dict(tx.routes.rules(branch.id)),
    )


def _places(stored: _Stored, engine: Engine, keyspace_id: str, role: BackendRole) -> list[ShardPlace]:
    name = stored.keyspaces[keyspace_id].name
    return [
        ShardPlace(name, shard.name, shard.schema_name, engine.endpoint(shard.primary_server_id, role))
        for shard in stored.shards[keyspace_id]
        if shard.primary_server_id is not None
    ]


def _keyspace(
    stored: _Stored, engine: Engine, keyspace_id: str, tables: Sequence[str], role: BackendRole
) -> KeyspaceFacts:
    keyspace = stored.keyspaces[keyspace_id]
    ready = keyspace.state is Life.READY
    places = _places(stored, engine, keyspace_id, role) if ready else []
    if ready and len(places) != keyspace.shard_count:
        raise UnavailableError(f"keyspace {keyspace.name} has shards without servers")
    return KeyspaceFacts(
        name=keyspace.name,
        sharded=keyspace.sharded,
        ready=ready,
        vschema=parse(keyspace.vschema),
        shards=tuple(read_shard(place, tables) for place in places) if tables else (),
    )


def read_shard(place: ShardPlace, names: Sequence[str]) -> ShardFacts:
    """One shard's schema, as far as these tables are concerned.

    :raises UnavailableError: the server does not answer.
    """
    tables = find_tables(place, names, ANSWER_SECONDS)
    with reading_session(place.endpoint, ANSWER_SECONDS) as connection:
        users = read_users(connection, place, names)
        filled = {
            name
            for name in tables
            if connection.query_all(f"SELECT 1 FROM {quote(place.schema, name)} LIMIT 1")  # noqa: S608 - quoted
        }
        schema, wanted = literal(place.schema), ", ".join(literal(name) for name in names)
        others = _texts(
            connection,
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE = 'VIEW' "  # noqa: S608 - hex
            f"AND TABLE_SCHEMA = {schema} AND TABLE_NAME IN ({wanted})",
        )
        prepared = _texts(connection, "XA RECOVER")
    return replace(
        users,
        tables=tables,
        filled=frozenset(filled),
        others=frozenset(row[0] for row in others),
        prepared=tuple(row[-1] for row in prepared),
    )


def read_users(connection: Connection, place: ShardPlace, names: Sequence[str]) -> ShardFacts:
    """What else on the shard's server may use these tables; nothing of the tables themselves.

    :param connection: to the place's server, in utf8mb4.
    """
    schema, wanted = literal(place.schema), ", ".join(literal(name) for name in names)
    triggers = _texts(
        connection,
        "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE FROM information_schema.TRIGGERS "  # noqa: S608 - hex
        f"WHERE TRIGGER_SCHEMA = {schema} AND EVENT_OBJECT_TABLE IN ({wanted})",
    )
    return ShardFacts(
        where=f"{place.keyspace}/{place.shard}",
        schema=place.schema,
        foreign_keys=tuple(ForeignKey(*row) for row in _texts(connection, _foreign_keys(schema))),
        triggers=tuple(Trigger(*row) for row in triggers),
        bodies=tuple(
            Body(*row)
            for query in (*_BODIES, *_BODIES_ELSEWHERE)
            for row in _texts(connection, query.format(schema=schema, tables=wanted))
        ),
    )


def _foreign_keys(schema: str) -> str:
    return (
        "SELECT r.CONSTRAINT_NAME, r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.UNIQUE_CONSTRAINT_SCHEMA, "  # noqa: S608 - hex
        "r.REFERENCED_TABLE_NAME, r.DELETE_RULE, r.UPDATE_RULE "
        "FROM information_schema.REFERENTIAL_CONSTRAINTS r "
        f"WHERE r.CONSTRAINT_SCHEMA = {schema} OR r.UNIQUE_CONSTRAINT_SCHEMA = {schema} "
        "ORDER BY r.TABLE_NAME, r.CONSTRAINT_NAME"
    )


def _sequences(place: ShardPlace, tables: Sequence[str], vschema: VSchema) -> dict[str, bool]:
    wanted = {sequence_name(table) for table in tables} | set(vschema.tables)
    found = find_tables(place, sorted(name for name in wanted if len(name) <= 64), ANSWER_SECONDS)
    return {
        name: {"id", "next_id", "cache"} <= {column.name.lower() for column in table.columns}
        for name, table in found.items()
    }


def _servers(stored: _Stored, engine: Engine) -> tuple[ServerFacts, ...]:
    """Each server of both sides once a shard, named after that shard, seen as the mover."""
    return tuple(
        read_server(place)
        for keyspace_id in (stored.source_id, stored.target_id)
        if stored.keyspaces[keyspace_id].state is Life.READY
        for place in _places(stored, engine, keyspace_id, BackendRole.MOVER)
    )


def read_server(place: ShardPlace) -> ServerFacts:
    """What a shard's server is set to and lets the place's account do.

    :raises UnavailableError: the server does not answer.
    """
    with Connection(place.endpoint, fidelity=False, timeout_seconds=ANSWER_SECONDS) as connection:
        names = ", ".join(literal(name) for name in _VARIABLES)
        variables = _texts(connection, f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({names})")
        grants = _texts(connection, "SHOW GRANTS")
        filters = log_filters(connection)
        upstream = _upstream(connection)
    return ServerFacts(
        where=f"{place.keyspace}/{place.shard}",
        flavor=place.endpoint.flavor,
        variables={row[0].lower(): row[1] for row in variables},
        grants=tuple(row[0] for row in grants),
        log_filters=filters,
        upstream=upstream,
    )


def _upstream(connection: Connection) -> str | None:
    """The server that this one replicates from, as far as a thread of that runs; None: we may not see it."""
    # The columns stand where they always stood: host, port, and whether receiver and applier run.
    query, skipped = {
        Flavor.MYSQL: ("SHOW REPLICA STATUS", 0),
        Flavor.MARIADB: ("SHOW ALL SLAVES STATUS", 2),
    }[connection.endpoint.flavor]
    try:
        rows = _texts(connection, query)
    except ServerError as error:
        if error.server_errno != _DENIED:
            raise
        return None
    for row in rows:
        host, port, receiver, applier = (row[skipped + at] for at in (1, 3, 10, 11))
        if {receiver, applier} != {"No"}:
            return f"{host}:{port}"
    return ""


def _texts(connection: Connection, sql: str) -> list[tuple[str, ...]]:
    # Definitions may hold bytes that are no text.
    return [
        tuple((value or b"").decode("utf-8", "backslashreplace") for value in row)
        for row in connection.query_all(sql)
    ]
