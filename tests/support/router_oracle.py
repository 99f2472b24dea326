"""Runs statements through the router's plans on real servers, next to one server that has all the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from homeworld.gateway.plan import Pass, Refuse, Row, Scatter, SessionView
from homeworld.gateway.router import Router
from homeworld.model.routing import BranchRoutes, KeyspaceRoute, ShardRoute
from homeworld.model.tables import Column
from tests.support.mysqld import TestServer
from tests.support.routing_world import KnownTables, endpoint, view

SHARDS = ("-55", "55-aa", "aa-")


def read_columns(server: TestServer, schema: str) -> dict[str, tuple[Column, ...]]:
    """Every table's columns as information_schema has them."""
    rows = server.query(
        "SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, IS_NULLABLE, CHARACTER_SET_NAME, "
        "COLLATION_NAME, EXTRA FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s "
        "ORDER BY TABLE_NAME, ORDINAL_POSITION",
        args=(schema,),
    )
    found: dict[str, list[Column]] = {}
    for table, name, type_, column_type, nullable, charset, collation, extra in rows:
        text = type_.lower()
        found.setdefault(table, []).append(
            Column(
                name=name,
                type=text,
                column_type=column_type,
                unsigned="unsigned" in column_type,
                nullable=nullable == "YES",
                charset=charset or ("binary" if text in {"binary", "varbinary", "blob"} else ""),
                collation=collation or "",
                generated="GENERATED" in extra,
                auto_increment="auto_increment" in extra,
                invisible="INVISIBLE" in extra,
            )
        )
    return {table: tuple(columns) for table, columns in found.items()}


class ReadTables(KnownTables):
    """A SchemaView of columns read from a server."""

    def __init__(self, read: Mapping[str, Mapping[str, tuple[Column, ...]]]) -> None:
        super().__init__(
            {ks: {t: {c.name: c.type for c in cs} for t, cs in ts.items()} for ks, ts in read.items()}
        )
        self._read = read

    def table_columns(self, keyspace: str, table: str) -> tuple[Column, ...] | None:
        return self._read.get(keyspace, {}).get(table)


@dataclass
class World:
    """One server: schema ``one`` has all rows, one schema for each shard has its part."""

    server: TestServer
    router: Router
    whole: Any
    shards: dict[str, Any]

    def on_one(self, sql: str) -> list[Row]:
        """The answer of the server with all the rows."""
        return run(self.whole, sql.encode())

    def through_router(self, sql: str, **facts: Any) -> list[Row] | Refuse:
        """The answer by the router's plan, or its refusal."""
        seen: SessionView = view(**facts)
        plan = self.router.plan(sql.encode(), seen)
        if isinstance(plan, Pass):
            return run(self.shards[plan.destination.shard], plan.sql)
        if isinstance(plan, Scatter):
            results = [run(self.shards[place.shard], text) for place, text in plan.statements]
            return list(plan.merge(results)) if plan.merge is not None else []
        assert isinstance(plan, Refuse), plan
        return plan

    def close(self) -> None:
        for connection in (self.whole, *self.shards.values()):
            connection.close()


def run(connection: Any, sql: bytes) -> list[Row]:
    """Rows as the text protocol has them."""
    with connection.cursor() as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())


def make_world(server: TestServer, tables: Sequence[str], vschema: Mapping[str, Any]) -> World:
    """Create the tables everywhere and a router over them."""
    schemas = {"one": "one", **{shard: f"sh_{number}" for number, shard in enumerate(SHARDS)}}
    for schema in schemas.values():
        server.query(f"DROP DATABASE IF EXISTS {schema}")
        server.query(f"CREATE DATABASE {schema} CHARACTER SET utf8mb4")
        for table in tables:
            server.query(table, schema)
    shards = tuple(ShardRoute(shard, schemas[shard], endpoint(shard), ()) for shard in SHARDS)
    routes = BranchRoutes(
        branch_id="b",
        organization="o",
        database="db",
        branch="main",
        flavor=server.flavor,
        version=1,
        keyspaces={"sh": KeyspaceRoute("sh", True, vschema, shards)},
        rules={},
        default_keyspace="sh",
        credentials={},
    )
    router = Router(routes, ReadTables({"sh": read_columns(server, "one")}))

    def connect(schema: str) -> Any:
        return server.connect(schema=schema, conv={}, use_unicode=False)

    return World(server, router, connect("one"), {shard: connect(schemas[shard]) for shard in SHARDS})
